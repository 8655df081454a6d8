"""Means over scenes, with what a few scenes say of the mean of all."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from splatforge.sim.costs import Sourced

__all__ = ["over_scenes", "over_views", "spread_of_mean"]


def spread_of_mean(values: Sequence[float]) -> float:
    """Half the width of the 95 % confidence interval of the mean that some values are a sample of.

    By Student's t. Nothing of one value.
    """
    # Half a second to import, and most verbs want no claim.
    from scipy.stats import t

    if len(values) < 2:
        return 0.0
    mean = math.fsum(values) / len(values)
    variance = math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return float(t.ppf(0.975, len(values) - 1)) * math.sqrt(variance / len(values))


def _figures(names: Sequence[str], figure: Callable[[str], Sourced]) -> list[Sourced]:
    if not names:
        raise ValueError("Frames must hold at least one name, not 0")
    return [figure(name) for name in names]


def over_views(names: Sequence[str], figure: Callable[[str], Sourced]) -> Sourced:
    """Mean over frames that show one scene: all costs at their low or high end, in all frames.

    Parameters
    ----------
    names : sequence of str
        Frames.
    figure : callable
        What is averaged, of a frame.

    Returns
    -------
    Sourced
        The mean; :attr:`~splatforge.sim.costs.Sourced.scatter` are the lowest and the highest.

    Raises
    ------
    ValueError
        If there are no frames.
    """
    each = _figures(names, figure)
    values = [one.value for one in each]
    return Sourced(
        math.fsum(values) / len(each), each[0].unit, each[0].source,
        math.fsum(one.low for one in each) / len(each),
        math.fsum(one.high for one in each) / len(each),
        frozenset[str]().union(*(one.points for one in each)),
        (min(values), max(values)) if len(each) > 1 else None)


def over_scenes(names: Sequence[str], figure: Callable[[str], Sourced]) -> Sourced:
    """Mean over scenes: the same, widened by the 95 % confidence interval of the mean.

    But by no more than to the ends of the lowest and the highest frame. Scenes that differ more
    make the interval wider, more of them make it narrower: a band from the lowest to the highest
    alone would hold whatever one odd scene says, and an interval of two or three alone anything.
    """
    each = _figures(names, figure)
    mean = over_views(names, figure)
    half = spread_of_mean([one.value for one in each])
    return replace(mean, low=max(mean.low - half, min(one.low for one in each)),
                   high=min(mean.high + half, max(one.high for one in each)))
