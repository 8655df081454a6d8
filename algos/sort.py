"""Depth order of the projected Gaussians: a stable radix sort on the bits of a float32."""

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.workers import Workers

__all__ = ["depth_order"]

# 3 x 11 bits cover the 31 bits of a positive float32.
_DIGIT_BITS = 11
_PASSES = 3
# Below, waking threads for the six steps costs more than they save.
_PARALLEL_FROM = 1 << 18
_MASK = np.uint32((1 << _DIGIT_BITS) - 1)


@njit(cache=True, nogil=True)
def _count_kernel(worker, workers, keys, shift, counts):
    n = len(keys)
    counts[worker] = 0
    for i in range(worker * n // workers, (worker + 1) * n // workers):
        counts[worker, (keys[i] >> shift) & _MASK] += 1


@njit(cache=True)
def _offset_kernel(counts):
    total = 0
    for digit in range(counts.shape[1]):
        for worker in range(len(counts)):
            count = counts[worker, digit]
            counts[worker, digit] = total
            total += count


@njit(cache=True, nogil=True)
def _scatter_kernel(worker, workers, keys, order, shift, slots, keys_out, order_out):
    n = len(keys)
    for i in range(worker * n // workers, (worker + 1) * n // workers):
        digit = (keys[i] >> shift) & _MASK
        slot = slots[worker, digit]
        slots[worker, digit] = slot + 1
        keys_out[slot] = keys[i]
        order_out[slot] = order[i]


def depth_order(depth: npt.ArrayLike) -> npt.NDArray[np.int32]:
    """Front-to-back order: indices by ascending depth, equal depths by ascending index.

    Parameters
    ----------
    depth : array_like
        Camera z of shape [M], rounded to float32, finite and positive.

    Returns
    -------
    numpy.ndarray
        Permutation of shape [M], int32.

    Raises
    ------
    ValueError
        If ``depth`` is not one-dimensional or a value is not positive (NaN included).
    """
    depth = np.ascontiguousarray(depth, np.float32)
    if depth.ndim != 1:
        raise ValueError(f"Depths must have shape [M], not {depth.shape!r}")
    if not (depth > 0).all():
        raise ValueError(f"Depths must be positive, not {float(depth[~(depth > 0)][0])!r}")
    with Workers() as workers:
        return sort_depths(depth, workers)


def sort_depths(depth: npt.NDArray[np.float32], workers: Workers) -> npt.NDArray[np.int32]:
    """:func:`depth_order` without the checks, on given threads."""
    if workers.count > 1 and len(depth) < _PARALLEL_FROM:
        return sort_depths(depth, Workers(1))
    # Bits of positive floats sort as the floats do.
    keys = depth.view(np.uint32)
    order = np.arange(len(depth), dtype=np.int32)
    counts = np.empty((workers.count, 1 << _DIGIT_BITS), np.int64)
    for shift in range(0, _PASSES * _DIGIT_BITS, _DIGIT_BITS):
        keys_out, order_out = np.empty_like(keys), np.empty_like(order)
        # The stable scatter needs each thread's run of the input and, per digit, of the output.
        workers.run(_count_kernel, keys, np.uint32(shift), counts)
        _offset_kernel(counts)
        workers.run(
            _scatter_kernel, keys, order, np.uint32(shift), counts, keys_out, order_out
        )
        keys, order = keys_out, order_out
    return order
