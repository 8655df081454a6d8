"""Means over scenes: spreads and bands by hand, and what more scenes do."""

import math

import numpy as np
import pytest

from splatforge.claims.claim import TAGS, Claim
from splatforge.claims.mean import over_scenes, over_views, spread_of_mean
from splatforge.claims.status import status
from splatforge.sim.costs import Sourced


def of(values):
    return lambda name: Sourced.exact(values[name], "1", "by hand")


def test_spread_by_hand():
    assert spread_of_mean([3.0]) == 0
    assert spread_of_mean([1.0, 3.0]) == pytest.approx(12.706, rel=1e-4)
    assert spread_of_mean([1.0, 2.0, 3.0]) == pytest.approx(4.303 / math.sqrt(3), rel=1e-4)
    assert spread_of_mean([1.0, 2.0] * 20) == pytest.approx(
        2.0227 * np.std([1.0, 2.0] * 20, ddof=1) / math.sqrt(40), rel=1e-4)


def test_bands_by_hand():
    """Costs at one end in all frames; with scenes the interval of the mean on top."""
    def figure(name):
        return Sourced(float(name), "1", "by hand", 0.9 * float(name), 1.2 * float(name),
                       frozenset({name}))

    names = ("1", "2", "3", "2")
    views, scenes = over_views(names, figure), over_scenes(names, figure)
    assert (views.value, views.low, views.high) == pytest.approx((2, 1.8, 2.4))
    assert (views.scatter, views.points) == ((1, 3), {"1", "2", "3"})
    half = 3.182446305 * np.std([1, 2, 3, 2], ddof=1) / 2
    assert half > 1.2  # so that lowest and highest frame are the ends
    assert (scenes.value, scenes.low, scenes.high) == pytest.approx((2, 0.9, 3.6))
    names *= 4
    half = 2.131449546 * np.std([1, 2, 3, 2] * 4, ddof=1) / 4
    scenes = over_scenes(names, figure)
    assert (scenes.value, scenes.low, scenes.high) == pytest.approx((2, 1.8 - half, 2.4 + half))
    # The scatter goes with the unit, and with a number.
    assert scenes.to("1").scatter == (1, 3)
    assert (scenes * 100).scatter == (100, 300)
    assert over_scenes(["5"], figure).scatter is None


def test_an_odd_scene_does_not_make_a_claim_pass():
    """1.71 lies between the lowest and the highest of six scenes, and not near their mean."""
    values = {str(place): value for place, value in enumerate((1.0, 1.1, 1.2, 1.3, 1.4, 1.8))}
    claim = Claim(id="a.b", paper="a", file="a", quantity="q", value=1.71, low=1.71, high=1.71,
                  unit="x", tag="P", source="s", confidence=TAGS["P"][1], setting="substitute",
                  setting_note="six scenes")
    mean = over_scenes(list(values), of(values))
    assert mean.scatter == (1.0, 1.8)
    assert mean.low > 1.0
    assert mean.high < 1.71
    assert status(claim, mean)[0] == "not reproduced"


def test_more_of_the_same_scenes_narrow_the_band():
    values = {"a": 1.0, "b": 2.0, "c": 1.5}
    few = over_scenes(list(values), of(values))
    many = over_scenes(list(values) * 4, of(values))
    assert few.low < many.low < many.value < many.high < few.high
    # Two or three scenes say no more than what they are.
    assert (few.low, few.high) == (1.0, 2.0)


def test_frames_must_be_there():
    with pytest.raises(ValueError, match="Frames must hold at least one name, not 0"):
        over_scenes([], of({}))
