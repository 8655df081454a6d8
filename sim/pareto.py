"""Which of many designs no other one beats."""

import numpy as np
import numpy.typing as npt

__all__ = ["front"]


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
