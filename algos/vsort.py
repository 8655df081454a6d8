"""Features of a voxel in the order of their depth, those of one depth in the order they came."""

import numpy as np
import numpy.typing as npt

from splatforge.algos.bsu import bsu_fixed
from splatforge.designs.vsort import VsortDesign

__all__ = ["vsort_fixed"]


def vsort_fixed(design: VsortDesign, depth: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Places of the features of one voxel in order, bit-true to :class:`splatforge.hw.vsort.Vsort`.

    Parameters
    ----------
    design : VsortDesign
        The sorters.
    depth : ndarray
        Depths of shape [N], nonnegative, in the order in which the features come.

    Returns
    -------
    ndarray
        Shape [N]: which feature is the first, which the second and so on.

    Raises
    ------
    ValueError
        If there are more than a sorter holds, or a depth has more bits than it takes.
    """
    if not len(depth):
        return np.zeros(0, np.int64)
    entry = design.entry
    words = entry.encode(np.arange(len(depth)), depth, np.ones(len(depth), np.int64))
    return entry.decode(bsu_fixed(design.sorter, words))["feature"]
