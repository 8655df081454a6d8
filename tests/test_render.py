"""One call draws with every design, and is what the parts give one by one."""

import numpy as np
import pytest

import splatforge as sf
from splatforge.algos import raster, reference
from splatforge.algos.render import render
from splatforge.designs.accelerators import ACCELERATORS, design
from splatforge.scenes import default_camera, make_object


@pytest.fixture(scope="module")
def scene():
    return make_object(1000, 1)


def test_without_a_design_it_is_the_reference(scene):
    view = default_camera(scene, 24, 16)
    exact = reference.render(scene, view, background=(0.5, 0.25, 1.0))
    np.testing.assert_array_equal(
        render(scene, view, background=(0.5, 0.25, 1.0)).image, exact.image)


def test_with_one_it_is_its_model(scene):
    view, parameters = default_camera(scene, 24, 16), design("raster", "16-lane")
    frame = raster.render(raster.prepare(scene, view, parameters), parameters)
    np.testing.assert_array_equal(render(scene, view, parameters).image, frame.image)


@pytest.mark.parametrize("name", sorted(ACCELERATORS))
def test_every_design_draws(name, scene):
    image = sf.render(scene, default_camera(scene, 24, 16), sf.design(name)).image
    assert image.shape == (16, 24, 3)
    assert image.dtype == np.float32
    assert image.max() > 0.05


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match=r"^Design must be one of gscore, .*, not 'x'$"):
        design("x")
    with pytest.raises(ValueError, match=r"^Preset must be one of .*, not '1-lane'$"):
        design("raster", "1-lane")
    with pytest.raises(ValueError, match=r"^raster: array.lane is no parameter; the nearest"):
        design("raster", parameters={"array.lane": 16})
    with pytest.raises(ValueError, match=r"^raster: array.lanes must be of type int, not '16'$"):
        design("raster", parameters={"array.lanes": "16"})


def test_parameters_by_their_dotted_names():
    made = design("raster", "128-lane", parameters={
        "array.blend.accumulator": "UQ(3,16)", "fetch.burst_beats": 4})
    assert str(made.array.blend.accumulator) == "UQ(3,16)"
    assert (made.array.lanes, made.fetch.burst_beats) == (128, 4)
    assert design("raster", "128-lane").fetch.burst_beats != 4
