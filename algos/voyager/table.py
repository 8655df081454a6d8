"""The management table: which Gaussians a client holds, kept alike at both ends.

Source: Nebula (ASPLOS 2026): a Gaussian stays while no more than w_r* frames have gone by since it
was last in a cut. Neither end tells the other what it drops: both follow from the cuts.

What a cut costs is in proportion to what it changes, not to what is held. Of each id a number says
where it stands; a Gaussian of the cut has the frame of the table for its last use, whichever that
is, so that one that stays is not touched. What leaves waits in a queue for the end of its window.
The digest is a sum over what is held, of which what goes is taken away and what comes is added.
"""

from collections import deque
from dataclasses import dataclass
from hashlib import blake2b

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["Change", "ManagementTable", "Step", "check_cut"]

Int64Array = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]

# Where an id stands: not held, in the cut, or out of it since the frame that is this much less.
_AWAY, _IN, _SINCE = 0, 1, 2
#: Starts of the two sums of a digest, and odd factors: fractions of the square roots of 2, 3 and 5.
_LANES = np.array([0x6A09E667F3BCC908, 0xBB67AE8584CAA73B], np.uint64)
_ODD = 0x3C6EF372FE94F82B


@dataclass(frozen=True, kw_only=True, eq=False)
class Change:
    """From a cut to the next.

    Parameters
    ----------
    left : ndarray
        Ids of the cut before that are not in this one, ascending, int64.
    entered : ndarray
        Ids of this cut that were not in the one before, ascending, int64.
    """

    left: Int64Array
    entered: Int64Array


@dataclass(frozen=True, kw_only=True, eq=False)
class Step(Change):
    """What a cut changes in a table.

    Parameters
    ----------
    frame : int
        Of the cut.
    new : ndarray
        Those of `entered` that the table does not hold, ascending.
    dropped : ndarray
        Ids that the table holds no longer.
    held : int
        Gaussians held behind it.
    sums : ndarray
        Of the digest behind it, shape [2].
    """

    frame: int
    new: Int64Array
    dropped: Int64Array
    held: int
    sums: UInt64Array

    def digest(self) -> int:
        """Of the table behind it: :meth:`ManagementTable.digest`."""
        return _digest(self.frame, self.held, self.sums)


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


class ManagementTable:
    """Gaussians held, and the frame of the last cut that had each.

    Parameters
    ----------
    reuse_window : int
        Frames since a Gaussian was last in a cut, beyond which it goes.
    """

    def __init__(self, reuse_window: int) -> None:
        self.reuse_window = reuse_window
        #: Frame of the last cut; -1 before the first.
        self.frame = -1
        #: How many Gaussians are held.
        self.held = 0
        # By id. Pages of it that no id has touched take no memory.
        self._state = np.zeros(1024, np.int64)
        # (frame of last use, ids that left then), oldest first: some may have come back since.
        self._idle: deque[tuple[int, Int64Array]] = deque()
        self._sums = np.zeros(2, np.uint64)

    @property
    def cut(self) -> Int64Array:
        """Ids of the last cut, ascending."""
        return np.flatnonzero(self._state == _IN)

    @property
    def ids(self) -> Int64Array:
        """Ids held, ascending, shape [N]."""
        return np.flatnonzero(self._state)

    @property
    def last(self) -> Int64Array:
        """Frame of the last cut that had each of :attr:`ids`, shape [N]."""
        state = self._state[self.ids]
        return np.where(state == _IN, self.frame, state - _SINCE)

    def difference(self, cut: Int64Array) -> Change:
        """What a whole cut changes: for whoever does not know it."""
        return Change(left=np.setdiff1d(self.cut, cut, assume_unique=True),
                      entered=cut[self._states(cut) != _IN])

    def plan(self, frame: int, change: Change) -> Step:
        """What a change of the cut at a frame leads to; nothing has changed yet.

        Gaussians that have not been used for longer than the window go, behind those that come.

        Raises
        ------
        ValueError
            If the frame does not come after the one before, an id leaves that is not in the cut, or
            one enters that is.
        """
        if frame <= self.frame:
            raise ValueError(f"Frame must come after {self.frame}, not be {frame}")
        left, entered = change.left, change.entered
        if (self._states(left) != _IN).any():
            raise ValueError("ids leave the cut that are not in it")
        states = self._states(entered)
        if (states == _IN).any():
            raise ValueError("ids enter the cut that are in it")
        back = states != _AWAY
        # Of what left long ago, what has not come back since and does not now.
        late = [np.setdiff1d(ids[self._states(ids) == since + _SINCE], entered[back], True)
                for since, ids in self._idle if frame - since > self.reuse_window]
        at_once = frame - self.frame > self.reuse_window
        sums = self._sums.copy()
        _add(sums, left, np.full(len(left), _IN), False)
        _add(sums, entered[back], states[back], False)
        _add(sums, entered, np.full(len(entered), _IN), True)
        for ids in late:
            _add(sums, ids, self._states(ids), False)
        if at_once:
            late.append(left)
        else:
            _add(sums, left, np.full(len(left), self.frame + _SINCE), True)
        dropped = np.concatenate(late) if late else left[:0]
        new = entered[~back]
        return Step(frame=frame, left=left, entered=entered, new=new, dropped=dropped,
                    held=self.held + len(new) - len(dropped), sums=sums)

    def commit(self, step: Step) -> None:
        """Take a step that :meth:`plan` has made of this table as it stands."""
        if len(step.entered) and (most := int(step.entered[-1])) >= len(self._state):
            wider = np.zeros(max(most + 1, 2 * len(self._state)), np.int64)
            wider[:len(self._state)] = self._state
            self._state = wider
        while self._idle and step.frame - self._idle[0][0] > self.reuse_window:
            self._idle.popleft()
        self._state[step.left] = self.frame + _SINCE
        self._state[step.dropped] = _AWAY
        self._state[step.entered] = _IN
        if len(step.left) and step.frame - self.frame <= self.reuse_window:
            self._idle.append((self.frame, step.left))
        self.frame, self.held, self._sums = step.frame, step.held, step.sums

    def advance(self, frame: int, cut: Int64Array) -> Step:
        """Take the whole cut of a frame.

        Raises
        ------
        ValueError
            As :meth:`plan`.
        """
        step = self.plan(frame, self.difference(cut))
        self.commit(step)
        return step

    def digest(self) -> int:
        """64 bits that tell tables apart: of frame, ids and frames of last use."""
        return _digest(self.frame, self.held, self._sums)

    def _states(self, ids: Int64Array) -> Int64Array:
        """Where each of some ascending ids stands."""
        if not len(ids) or ids[-1] < len(self._state):
            return self._state[ids]
        known = int(np.searchsorted(ids, len(self._state)))
        states = np.zeros(len(ids), np.int64)
        states[:known] = self._state[ids[:known]]
        return states


def _digest(frame: int, held: int, sums: UInt64Array) -> int:
    # As little-endian bytes, whatever the machine.
    state = blake2b(np.array([frame, held], "<i8").tobytes(), digest_size=8)
    state.update(sums.astype("<u8").tobytes())
    return int.from_bytes(state.digest(), "little")


def _add(sums: UInt64Array, ids: Int64Array, states: Int64Array, comes: bool) -> None:
    """Add what ids in their states weigh in a digest, or take it away."""
    _add_kernel(sums, _LANES, ids.astype(np.uint64), states.astype(np.uint64), comes)


@njit(cache=True, nogil=True)
def _mix(value):
    """The finalizer of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014): a bijection."""
    value = (value ^ (value >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    value = (value ^ (value >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return value ^ (value >> np.uint64(31))


@njit(cache=True, nogil=True)
def _add_kernel(sums, lanes, ids, states, comes):
    for lane in range(len(sums)):
        total = np.uint64(0)
        for i in range(len(ids)):
            total += _mix(_mix(ids[i] + lanes[lane]) + states[i] * np.uint64(_ODD))
        sums[lane] = sums[lane] + total if comes else sums[lane] - total
