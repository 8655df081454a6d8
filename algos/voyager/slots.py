"""Where a client's Gaussians lie: each in one slot, from when it comes until it is dropped."""

import numpy as np
import numpy.typing as npt

from splatforge.scenes import Scene

__all__ = ["Slots"]

Int64Array = npt.NDArray[np.int64]

_NAMES = ("means", "log_scales", "quats", "opacity_logits", "sh")
_SPARE = 4


class Slots:
    """Gaussians by id. What comes or goes is written, and nothing else is moved.

    Parameters
    ----------
    none : Scene
        A scene of no Gaussians, which says of what kind they are.
    """

    def __init__(self, none: Scene) -> None:
        self._antialiased = none.antialiased
        self._arrays = {name: getattr(none, name) for name in _NAMES}
        # By id, one more than the slot; pages that no id has touched take no memory.
        self._place = np.zeros(1024, np.int32)
        # Slots without a Gaussian, on a stack.
        self._free = np.empty(0, np.int32)
        self._frees = 0

    @property
    def held(self) -> int:
        """How many Gaussians there are."""
        return len(self._free) - self._frees

    def drop(self, ids: Int64Array) -> None:
        """Let go of Gaussians that are held."""
        self._free[self._frees:self._frees + len(ids)] = self._place[ids] - 1
        self._frees += len(ids)
        self._place[ids] = 0

    def put(self, ids: Int64Array, scene: Scene) -> None:
        """Take Gaussians that are not held.

        Parameters
        ----------
        ids : ndarray
            Ascending.
        scene : Scene
            Their Gaussians, in this order.
        """
        if not len(ids):
            return
        self._make_room(len(ids), int(ids[-1]))
        self._frees -= len(ids)
        slots = self._free[self._frees:self._frees + len(ids)]
        for name, array in self._arrays.items():
            array[slots] = getattr(scene, name)
        self._place[ids] = slots + 1

    def scene(self, ids: Int64Array) -> Scene:
        """Gaussians of ids that are held, in their order."""
        slots = self._place[ids] - 1
        return Scene(**{name: array[slots] for name, array in self._arrays.items()},
                     antialiased=self._antialiased)

    def _make_room(self, more: int, highest: int) -> None:
        """For so many more Gaussians, and for ids up to one."""
        if highest >= len(self._place):
            wider = np.zeros(max(highest + 1, 2 * len(self._place)), np.int32)
            wider[:len(self._place)] = self._place
            self._place = wider
        if more <= self._frees:
            return
        # A quarter more than is asked for: what is copied, in all, is a few times what came.
        slots, wanted = len(self._free), self.held + more
        room = wanted + wanted // _SPARE
        for name, array in self._arrays.items():
            wider = np.empty((room, *array.shape[1:]), np.float32)
            wider[:slots] = array
            self._arrays[name] = wider
        free = np.empty(room, np.int32)
        # The lowest on top.
        free[:room - slots] = np.arange(room - 1, slots - 1, -1)
        free[room - slots:room - slots + self._frees] = self._free[:self._frees]
        self._free, self._frees = free, self._frees + room - slots
