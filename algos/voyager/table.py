"""The management table: which Gaussians a client holds, kept alike at both ends.

Source: Nebula (ASPLOS 2026): a Gaussian stays while no more than w_r* frames have gone by since it
was last in a cut. Neither end tells the other what it drops: both follow from the cuts.
"""

from dataclasses import dataclass, field
from hashlib import blake2b

import numpy as np
import numpy.typing as npt

__all__ = ["Change", "ManagementTable", "check_cut"]

Int64Array = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """What a cut changes.

    Parameters
    ----------
    left : ndarray
        Ids of the cut before that are not in this one, ascending.
    entered : ndarray
        Ids of this cut that were not in the one before, ascending.
    new : ndarray
        Those of `entered` that the table did not hold, ascending.
    """

    left: Int64Array
    entered: Int64Array
    new: Int64Array


def check_cut(cut: npt.ArrayLike) -> Int64Array:
    """Ids of a cut as int64.

    Raises
    ------
    ValueError
        If they are no whole numbers from 0 upward, or do not ascend.
    """
    ids = np.asarray(cut)
    if ids.ndim != 1 or (ids.size and ids.dtype.kind not in "iu"):
        raise ValueError(f"Cut must be whole numbers of shape [N], not {ids.dtype} {ids.shape}")
    ids = ids.astype(np.int64)
    if ids.size and (ids[0] < 0 or (np.diff(ids) <= 0).any()):
        raise ValueError("Cut must hold ids from 0 upward, each once, ascending")
    return ids


@dataclass(eq=False)
class ManagementTable:
    """Gaussians held, and the frame of the last cut that had each.

    Parameters
    ----------
    reuse_window : int
        Frames since a Gaussian was last in a cut, beyond which it goes.
    frame : int
        Frame of the last cut; -1 before the first.
    ids : ndarray
        Ids held, ascending, shape [N].
    last : ndarray
        Frame of the last cut that had each, shape [N].
    """

    reuse_window: int
    frame: int = -1
    ids: Int64Array = field(default_factory=lambda: np.empty(0, np.int64))
    last: Int64Array = field(default_factory=lambda: np.empty(0, np.int64))

    @property
    def cut(self) -> Int64Array:
        """Ids of the last cut, ascending."""
        return self.ids[self.last == self.frame]

    def places(self, ids: Int64Array) -> Int64Array:
        """Place of each id among those held; -1 where it is not held."""
        if not len(self.ids):
            return np.full(len(ids), -1, np.int64)
        places = np.minimum(np.searchsorted(self.ids, ids), len(self.ids) - 1)
        return np.where(self.ids[places] == ids, places, -1)

    def advance(self, frame: int, cut: Int64Array) -> Change:
        """Take the cut of a frame, then drop what has not been used for longer than the window.

        Raises
        ------
        ValueError
            If the frame does not come after the one before; nothing has changed then.
        """
        if frame <= self.frame:
            raise ValueError(f"Frame must come after {self.frame}, not be {frame}")
        places = self.places(cut)
        held = places >= 0
        was = np.zeros(len(self.ids), bool)
        was[self.last == self.frame] = True
        stays = np.zeros(len(self.ids), bool)
        stays[places[held]] = True
        entered = ~held
        entered[held] = ~was[places[held]]
        change = Change(left=self.ids[was & ~stays], entered=cut[entered], new=cut[~held])
        last = self.last.copy()
        last[stays] = frame
        keep = frame - last <= self.reuse_window
        ids = np.concatenate([self.ids[keep], change.new])
        order = np.argsort(ids, kind="stable")
        self.ids = ids[order]
        self.last = np.concatenate([last[keep], np.full(len(change.new), frame)])[order]
        self.frame = frame
        return change

    def copy(self) -> "ManagementTable":
        """Another of the same contents; arrays are never changed in place."""
        return ManagementTable(self.reuse_window, self.frame, self.ids, self.last)

    def digest(self) -> int:
        """64 bits that tell tables apart: of frame, ids and frames of last use."""
        # As little-endian bytes, whatever the machine.
        state = blake2b(np.array(self.frame, "<i8").tobytes(), digest_size=8)
        state.update(self.ids.astype("<i8").tobytes())
        state.update(self.last.astype("<i8").tobytes())
        return int.from_bytes(state.digest(), "little")
