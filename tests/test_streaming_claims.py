"""StreamingGS's claims from counted frames, and that the counts still hold."""

import json

import pytest

from splatforge.claims import streaming
from splatforge.claims.frames import RECIPES
from splatforge.claims.streaming import FRAMES

RUNS = json.loads(streaming._TABLE.read_text("utf-8"))


def test_counts_are_whole():
    assert tuple(RUNS) == FRAMES
    for counted in RUNS.values():
        assert counted["occupied_cells"] >= 1000
        assert counted["loaded"] > counted["coarse"] > counted["fine"] > counted["voxels"]


def test_shares_by_hand():
    name = FRAMES[0]
    counted = RUNS[name]
    one = streaming.filtered([name])
    assert one.value == one.low == one.high == 1 - counted["fine"] / counted["loaded"]
    both = streaming.filtered(FRAMES[:2])
    assert both.low < both.value < both.high


@pytest.mark.parametrize(("frames", "message"), [
    ([], "Frames must hold at least one name, not 0"),
    (["gone"], "Frame must be one of fox_800x800.*, not 'gone'")])
def test_what_is_not_there_is_named(frames, message):
    with pytest.raises(ValueError, match=message):
        streaming.filtered(frames)


@pytest.mark.parametrize("name", [
    pytest.param(name, marks=[pytest.mark.matrix] if place else [])
    for place, name in enumerate(FRAMES)])
def test_counts_are_those_of_the_model(name, shared_scene):
    folder = shared_scene(RECIPES[name].captures[0]).parent
    assert streaming.count(name, folder) == RUNS[name]
