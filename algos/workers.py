"""Threads that run nogil kernels side by side.

numba's own ``prange`` is not used: its OpenMP layer spins at every barrier, which on a busy
machine cost 10 ms for each of a frame's parallel steps (workqueue: 0.1 ms), and the workqueue
layer aborts the process when two Python threads render at once. Plain threads do neither, and the
kernels compile in a third of the time.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import llvmlite.ir as ll
import numba
import numpy as np
import numpy.typing as npt
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

__all__ = ["Workers", "fetch_add"]


@intrinsic
def fetch_add(typingctx, array, value):
    """``array[0] += value`` as one atomic step; returns what was there before. For kernels."""
    if not (isinstance(array, types.Array) and array.dtype == types.int64):
        return None

    def codegen(context, builder, signature, args):
        struct = context.make_array(signature.args[0])(context, builder, args[0])
        pointer = cgutils.gep_inbounds(builder, struct.data, ll.IntType(32)(0))
        return builder.atomic_rmw("add", pointer, args[1], "monotonic")

    return types.int64(array, types.int64), codegen


class Workers:
    """A team of threads for the length of a ``with`` block; the caller is one of them.

    Parameters
    ----------
    count : int, optional
        Threads, at least 1. Default: ``numba.get_num_threads()``, so that
        ``numba.set_num_threads`` and ``NUMBA_NUM_THREADS`` are obeyed.

    Raises
    ------
    ValueError
        If ``count`` is not positive.
    """

    def __init__(self, count: int | None = None) -> None:
        self.count = numba.get_num_threads() if count is None else int(count)
        if self.count < 1:
            raise ValueError(f"Number of workers must be at least 1, not {count!r}")
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self.count > 1:
            self._pool = ThreadPoolExecutor(self.count - 1, thread_name_prefix="splatforge")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()
            self._pool = None

    def run(self, kernel: Callable[..., None], *args: Any) -> None:
        """Call ``kernel(worker, workers, *args)`` on every thread and wait for all of them.

        The kernel must release the GIL and divide its work by ``worker`` in [0, workers).
        """
        if self._pool is None:
            kernel(0, 1, *args)
            return
        # The calls of one frame reuse one compilation: the first, on this thread, makes it.
        futures = [
            self._pool.submit(kernel, worker, self.count, *args) for worker in range(1, self.count)
        ]
        try:
            kernel(0, self.count, *args)
        finally:
            for future in futures:
                future.result()

    def run_chunks(self, kernel: Callable[..., None], *args: Any) -> None:
        """Like :meth:`run` with a work counter first: ``kernel(counter, *args)``.

        The kernel takes its next piece of work by ``fetch_add(counter, 1)``: a thread that the
        system takes off its core does not hold up the rest.
        """
        counter = np.zeros(1, np.int64)
        self.run(_drop_identity(kernel), counter, *args)


def _drop_identity(kernel: Callable[..., None]) -> Callable[..., None]:
    def call(worker: int, workers: int, counter: npt.NDArray[np.int64], *args: Any) -> None:
        kernel(counter, *args)

    return call
