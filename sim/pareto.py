"""Which of many designs no other one beats."""

from collections.abc import Hashable, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["front", "fronts_apart"]


def front(costs: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Points that no other beats: none is as low in every cost, and lower in one.

    Parameters
    ----------
    costs : array_like
        Of shape [points, costs]; what is to be high goes in with its sign changed. A point with a
        NaN is on no front, and beats nothing.

    Returns
    -------
    ndarray of bool
        Of shape [points]. Equal points are on the front together.

    Raises
    ------
    ValueError
        If the shape is another.
    """
    values = np.asarray(costs, np.float64)
    if values.ndim != 2 or values.shape[1] < 1:
        raise ValueError(f"Costs must be of shape [points, costs], not {list(values.shape)}")
    on = np.asarray(~np.isnan(values).any(axis=1))
    for number in np.flatnonzero(on):
        if not on[number]:
            continue
        own = values[number]
        # What this one beats is on no front, and whatever that would beat this one beats, too.
        on[np.flatnonzero((values >= own).all(axis=1) & (values > own).any(axis=1))] = False
    return on


def fronts_apart(costs: npt.ArrayLike, kinds: Sequence[Hashable]) -> npt.NDArray[np.bool_]:
    """Points that no other of their kind beats.

    Parameters
    ----------
    costs : array_like
        As :func:`front` takes them.
    kinds : sequence
        Of every point with what it can be compared: its frames, and the part of them that it does.

    Returns
    -------
    ndarray of bool
        Of shape [points].
    """
    values = np.asarray(costs, np.float64)
    on = np.zeros(len(kinds), np.bool_)
    for kind in dict.fromkeys(kinds):
        own = [number for number, each in enumerate(kinds) if each == kind]
        on[own] = front(values[own])
    return on
