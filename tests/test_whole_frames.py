"""The figures that the raster core is built for, on whole frames of real captures."""

import pytest

from splatforge.algos import raster
from splatforge.designs.raster import PRESETS
from splatforge.scenes import default_camera, resolve
from splatforge.verification.cosim import cosim

pytestmark = [pytest.mark.rtl, pytest.mark.matrix]

DESIGN = PRESETS["64-lane"]
#: Busy and stall counters of the units; bytes and tiles must be equal.
CYCLE_COUNTERS = (
    "array_busy", "array_starved", "array_skipped", "array_blocked", "fetch_busy",
    "fetch_stalled", "resolve_busy", "resolve_stalled",
)


@pytest.fixture(scope="module", params=[
    ("default", 640, 480), ("inari_fox_50k.ply", 640, 480), ("plant_114k.splat", 320, 240),
    ("fourth_st_131k_sh3.spz", 320, 240), ("playbot_lod0_500k_sh2.sog", 640, 480),
], ids=lambda value: value[0])
def frame(request, shared_scene):
    name, width, height = request.param
    scene = resolve(name if name == "default" else shared_scene(name))
    camera = default_camera(scene, width, height)
    result = cosim("raster", DESIGN, scene, [camera], scene_name=name)
    workload = raster.render(raster.prepare(scene, camera, DESIGN), DESIGN).workload
    return result, workload


def test_pixels_and_state_are_those_of_the_model(frame):
    result, _ = frame
    assert result.pixels_differing == 0
    assert all(each.state_pixels_differing == 0 for each in result.frames)


def test_the_picture_is_near_the_float_reference(frame):
    result, _ = frame
    assert result.psnr_db_vs_float >= 45
    assert result.psnr_db_vs_float_non_background >= 45


def test_the_cycle_model_agrees(frame):
    result, _ = frame
    assert result.cycle_error <= 0.01
    for each in result.frames:
        for name, count in each.rtl_counters.items():
            if name in CYCLE_COUNTERS:
                assert each.model_counters[name] == pytest.approx(count, rel=0.05), name
            elif name != "cycles":
                assert each.model_counters[name] == count, name


def test_cycles_per_pair_and_utilisation(frame):
    result, workload = frame
    counters = result.frames[0].rtl_counters
    pairs = int(workload.pairs_reached.sum())
    assert pairs >= 64 * workload.tiles, "too few pairs for this figure to mean anything"
    assert counters["cycles"] <= 5 * pairs
    at_work = sum(counters[name] for name in ("array_busy", "array_starved", "array_skipped"))
    assert counters["array_busy"] >= 0.85 * at_work
