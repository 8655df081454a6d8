"""Lumina on captures and real head motion: two sorts of six frames behind a first one."""

from itertools import pairwise

import numpy as np
import pytest

from splatforge.algos import reference
from splatforge.algos.lumina import prepare_sequence, render, render_sequence_float
from splatforge.algos.quality import psnr_db
from splatforge.algos.radiance import Banks
from splatforge.designs.lumina import LuminaDesign
from splatforge.scenes import default_camera, follow, load, load_eyenavgs

FRAMES = 13


def mean_psnr(values):
    return -10 * np.log10(np.mean([10 ** (-0.1 * value) for value in values]))


@pytest.mark.matrix
@pytest.mark.parametrize("capture", ["inari_fox_50k.ply", "fourth_st_131k_sh3.spz"])
def test_a_head_before_a_capture(capture, shared_scene, shared_cameras):
    scene = load(shared_scene(capture))
    trace = load_eyenavgs(shared_cameras("eyenavgs_user101_truck.csv.gz")).cameras
    cameras = follow(default_camera(scene, 160, 120), trace[200:200 + FRAMES])
    design = LuminaDesign()
    fixed, cached, shared, lists = [], [], [], []
    images = None
    frames = zip(prepare_sequence(scene, cameras, design), cameras,
                 render_sequence_float(scene, cameras, design), strict=True)
    for frame, camera, exact in frames:
        # What the cache holds goes through memory from frame to frame.
        banks = None if images is None else Banks.from_images(design.radiance, images)
        got = render(frame, design, banks=banks)
        assert got.banks is not None
        images = got.banks.images(design.radiance)
        lists.append(frame.lists)
        assert psnr_db(got.uncached.image, exact.uncached) > 60
        fixed.append(psnr_db(got.image, exact.image))
        shared.append(psnr_db(exact.uncached, reference.render(scene, camera).image))
        cached.append(got.workload.hits / got.workload.lookups)
    assert sum(one is not other for one, other in pairwise(lists)) == 2
    assert mean_psnr(fixed) > 45
    assert mean_psnr(shared) > 45
    assert np.mean(cached[1:]) > 0.2
    assert cached[0] < min(cached[1:])
