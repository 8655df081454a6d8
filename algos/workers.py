"""Threads that run nogil kernels side by side.

numba's own ``prange`` is not used: its OpenMP layer spins at every barrier, which on a busy
machine cost 10 ms for each of a frame's parallel steps (workqueue: 0.1 ms), and the workqueue
layer aborts the process when two Python threads render at once. Plain threads do neither, and the
kernels compile in a third of the time.

A rule for kernels that are cached on disk: they call compiled functions of their own file only.
numba recompiles when that file changes, not when another one does.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

import numba

__all__ = ["Workers"]


class Workers:
    """A team of threads for the length of a ``with`` block; the caller is one of them.

    When the block is left by an exception, an interruption among them, nobody waits for the other
    threads: each ends with the kernel that it is in.

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
            self._pool.shutdown(wait=kind is None, cancel_futures=True)
            self._pool = None

    def run(self, kernel: Callable[..., None], *args: Any) -> None:
        """Call ``kernel(worker, workers, *args)`` on every thread and wait for all of them.

        The kernel must release the GIL and divide its work by ``worker`` in [0, workers).
        """
        if self.count == 1:
            kernel(0, 1, *args)
            return
        if self._pool is None:
            raise RuntimeError("Workers must be entered by `with` before they run a kernel")
        # The calls of one frame reuse one compilation: the first, on this thread, makes it.
        futures = [
            self._pool.submit(kernel, worker, self.count, *args) for worker in range(1, self.count)
        ]
        kernel(0, self.count, *args)
        for future in futures:
            future.result()

    def run_chunks(self, kernel: Callable[..., None], chunks: int, *args: Any) -> None:
        """Call ``kernel(chunk, *args)`` for every chunk in [0, chunks), in any order.

        A thread takes its next chunk when it has finished one, so that one that the system takes
        off its core does not hold up the rest. The kernel must release the GIL.
        """
        if chunks:
            self.run(_run_turns, kernel, iter(range(chunks)), args)


def _run_turns(
    worker: int,
    workers: int,
    kernel: Callable[..., None],
    turns: Iterator[int],
    args: tuple[Any, ...],
) -> None:
    try:
        # The next of a range is one step under the GIL: no two threads get the same chunk.
        for chunk in turns:
            kernel(chunk, *args)
    except BaseException:
        # The other threads find nothing left to do.
        deque(turns, maxlen=0)
        raise
