"""What every unit did over the cycles of a frame: its counters, looked at again and again.

A cycle model keeps counters as the hardware does. Looks at them say what happened in between, in
windows that add up to the counters exactly. Models that step cycle by cycle look every so many
cycles; how long a frame takes is not known beforehand, so that when the looks are too many every
second one is dropped, and the rest are twice as far apart. A model that works out events tile by
tile looks when a unit is done with a tile.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import numba as nb
import numpy as np
import numpy.typing as npt

__all__ = ["NEXT", "ROW", "Track", "Windows", "close", "new_looks"]

#: Windows at most; a frame that has the cycles has more than half as many.
WINDOWS = 512
#: Cycles between looks in the beginning.
FIRST_INTERVAL = 16
# In the first row: cycle of the next look, row that it goes to, cycles between looks.
NEXT, ROW, INTERVAL = range(3)


def new_looks(counters: int) -> npt.NDArray[np.int64]:
    """Room for looks at so many counters: a row each, the cycle first."""
    looks = np.zeros((WINDOWS + 1, max(counters, INTERVAL) + 1), np.int64)
    looks[0, NEXT], looks[0, ROW], looks[0, INTERVAL] = FIRST_INTERVAL, 1, FIRST_INTERVAL
    return looks


@nb.njit
def close(looks):
    """End a look whose row is written; the next is due an interval later."""
    row = looks[0, ROW]
    looks[0, NEXT] += looks[0, INTERVAL]
    if row < WINDOWS:
        looks[0, ROW] = row + 1
        return
    # What stands at multiples of twice the interval stays.
    for kept in range(WINDOWS // 2):
        for column in range(looks.shape[1]):
            looks[kept + 1, column] = looks[2 * kept + 2, column]
    looks[0, ROW] = WINDOWS // 2 + 1
    looks[0, INTERVAL] *= 2
    looks[0, NEXT] = looks[WINDOWS // 2, 0] + looks[0, INTERVAL]


@dataclass(frozen=True, kw_only=True, eq=False)
class Windows:
    """What some counters counted in each of the windows that a frame is cut into.

    Parameters
    ----------
    edges : ndarray
        Cycles between the windows, both ends of the frame included: of shape [windows + 1], int64.
    counts : Mapping
        Counter -> what it counted, of shape [windows], int64.
    """

    edges: npt.NDArray[np.int64]
    counts: Mapping[str, npt.NDArray[np.int64]]

    @classmethod
    def of(cls, names: Sequence[str], times: npt.NDArray[np.int64], seen: npt.NDArray[np.int64],
           last: Mapping[str, int]) -> Self:
        """Windows from looks.

        Parameters
        ----------
        names : sequence of str
            Of the counters.
        times : ndarray
            Cycle of each look, of shape [looks], not falling.
        seen : ndarray
            The counters then, of shape [looks, counters].
        last : mapping
            The counters at the end by name, ``cycles`` among them. What happens behind the last
            cycle is in the last window, as it is in the counters.
        """
        # Of looks in one cycle the last has it all.
        kept = np.flatnonzero((np.diff(times, append=last["cycles"]) > 0) & (times > 0)
                              & (times < last["cycles"]))
        every = -(-len(kept) // (WINDOWS - 1)) if len(kept) else 1
        kept = kept[every - 1::every]
        edges = np.concatenate([[0], times[kept], [last["cycles"]]])
        rows = np.vstack([np.zeros((1, len(names)), np.int64), seen[kept],
                          [[last[name] for name in names]]])
        spent = np.diff(rows, axis=0)
        return cls(edges=edges, counts={name: spent[:, at] for at, name in enumerate(names)})

    @classmethod
    def of_looks(cls, names: Sequence[str], looks: npt.NDArray[np.int64], last: Mapping[str, int]
                 ) -> Self:
        """Windows from what :func:`new_looks` made and a frame has filled."""
        taken = looks[1:looks[0, ROW]]
        return cls.of(names, taken[:, 0], taken[:, 1:len(names) + 1], last)


@dataclass(frozen=True, kw_only=True, eq=False)
class Track:
    """States of one unit over a frame.

    Parameters
    ----------
    unit : str
        The unit.
    edges : ndarray
        As of :class:`Windows`.
    states : Mapping
        ``busy``, ``skipping``, ``stalled`` (it had work and could not go on), ``starved`` (none
        came): cycles of each window, of shape [windows], float64: of a unit that takes several
        things in a cycle a part of one each. The rest of a window it had nothing to do.
    """

    unit: str
    edges: npt.NDArray[np.int64]
    states: Mapping[str, npt.NDArray[np.float64]]
