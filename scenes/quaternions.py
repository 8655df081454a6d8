"""Quaternions as files store them: w, x, y, z once they are in memory."""

import numpy as np
import numpy.typing as npt


def replace_zero_quats(quats: npt.NDArray[np.float32]) -> None:
    """Turn quaternions of zero length, which some exporters write, into no rotation, in place.

    A normalised zero quaternion rotates by nothing in the original renderer, too.
    """
    quats[~quats.any(axis=1)] = (1, 0, 0, 0)


def insert_largest(
    small: npt.NDArray[np.float64], largest: npt.NDArray[np.intp]
) -> npt.NDArray[np.float64]:
    """Return unit quaternions of shape [N, 4] from their three smallest components.

    Parameters
    ----------
    small : ndarray
        The three components that are stored, in their order, shape [N, 3].
    largest : ndarray
        Index 0 to 3 at which the component that is not stored goes, shape [N]; it is positive.
    """
    quats = np.empty((len(small), 4))
    quats[:, 0] = np.sqrt(np.maximum(0.0, 1.0 - (small**2).sum(axis=1)))
    quats[:, 1:] = small
    order = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [1, 2, 0, 3], [1, 2, 3, 0]])
    return np.take_along_axis(quats, order[largest], axis=1)
