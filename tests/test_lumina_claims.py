"""Lumina's claims from counted frames, and that the counts still hold."""

import json

import pytest

from splatforge.claims import lumina
from splatforge.claims.frames import RECIPES
from splatforge.claims.lumina import FRAMES

RUNS = json.loads(lumina._TABLE.read_text("utf-8"))


def test_counts_are_whole():
    assert tuple(RUNS) == FRAMES
    for counted in RUNS.values():
        assert counted["pixels"] > counted["lookups"] > counted["hits"] > 0
        assert counted["blended"] > counted["blended_cached"]
        # A hit blends five.
        assert counted["blended_cached"] > 5 * counted["hits"]
        assert 0 < counted["inverted"] < 0.01
        assert 0 < counted["difference"] < 255


def test_figures_by_hand():
    name = FRAMES[0]
    counted = RUNS[name]
    assert lumina.hit_rate([name]).value == counted["hits"] / counted["lookups"]
    assert lumina.avoided([name]).value == 1 - counted["blended_cached"] / counted["blended"]
    assert lumina.inverted([name]).value == counted["inverted"]
    assert lumina.record_difference([name]).value == counted["difference"]
    both = lumina.hit_rate(FRAMES[:2])
    assert both.low < both.value < both.high
    assert lumina.cache_capacity().value == 4096 * (10 + 3)
    assert lumina.record_registers().value == 90


@pytest.mark.parametrize(("frames", "message"), [
    ([], "Frames must hold at least one name, not 0"),
    (["gone"], r"Frame must be one of fox_800x800.*, not 'gone'")])
def test_what_is_not_there_is_named(frames, message):
    with pytest.raises(ValueError, match=message):
        lumina.hit_rate(frames)


@pytest.mark.matrix
@pytest.mark.parametrize("name", FRAMES)
def test_counts_are_those_of_the_model(name, shared_scene):
    """Another machine's last digits may decide otherwise of one pixel in a thousand."""
    folder = shared_scene(RECIPES[name].captures[0]).parent
    assert lumina.count(name, folder) == pytest.approx(RUNS[name], rel=1e-3)
