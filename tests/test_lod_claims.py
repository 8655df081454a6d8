"""Nebula's claims about cuts, and that what they are computed of still holds."""

import json

import numpy as np
import pytest

from splatforge.algos.voyager.build import build
from splatforge.algos.voyager.tree import LodTree
from splatforge.claims import lod
from splatforge.designs.lod import TreeDesign
from splatforge.scenes import load

RUNS = json.loads(lod._TABLE.read_text("utf-8"))


def test_counts_are_whole():
    assert tuple(RUNS) == tuple(f"{name}_{tau}" for tau in lod.TAUS for name in lod.PATHS)
    for counted in RUNS.values():
        assert 0 < counted["unchanged_64_worst"] <= counted["unchanged_64"]
        assert counted["unchanged_64"] < counted["unchanged_1"] <= 1
        assert counted["unchanged_1_worst"] <= counted["unchanged_1"]
        assert 0 < counted["added_nodes"] < (1 - counted["unchanged_1"]) * counted["cut_nodes"] * 9


def test_figures_by_hand():
    for gap in lod.GAPS:
        assert lod.unchanged(["walk"], [6], gap).value == RUNS["walk_6"][f"unchanged_{gap}"]
    both = lod.unchanged(["walk", "drive"], [6, 48], 64)
    assert both.value == pytest.approx(np.mean(
        [RUNS[f"{name}_{tau}"]["unchanged_64"] for name in ("walk", "drive") for tau in (6, 48)]))
    with pytest.raises(ValueError, match="Gap must be one of 1, 64, not 2"):
        lod.unchanged(["walk"], [6], 2)
    with pytest.raises(ValueError, match=r"Path must be one of walk_6, .*, not 'run_6'"):
        lod.unchanged(["run"], [6], 1)


@pytest.mark.matrix
def test_counts_are_those_of_the_city(shared_scene, shared_cameras, tmp_path):
    """Another machine's last digits may put a node to the other side."""
    parts = [shared_scene(part) for part in lod.CITY]
    folder = shared_cameras(next(iter(lod.HEADS.values()))).parent
    build([lambda part=part: load(part) for part in parts], tmp_path / "city.lod", TreeDesign())
    tree = LodTree.open(tmp_path / "city.lod")
    for name in lod.PATHS:
        assert lod.count(tree, name, folder, 24) == pytest.approx(RUNS[f"{name}_24"], rel=1e-3)
