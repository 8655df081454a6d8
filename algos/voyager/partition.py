"""A tree cut into subtrees of about equal size, in several levels, for the search.

Source: S. Kundu, J. Misra, "A Linear Tree Partitioning Algorithm", SIAM Journal on Computing 6(1),
1977: the fewest subtrees of a given size at most. Voyager v3 takes an integer program for it.
"""

import numpy as np
import numpy.typing as npt
from numba import njit

__all__ = ["partition"]

Int32Array = npt.NDArray[np.int32]


def partition(first_child: Int32Array, most: int) -> tuple[Int32Array, Int32Array]:
    """Cut a tree into the fewest subtrees of ``most`` nodes at most.

    From the leaves up: where a node and what is left below it are too many, the largest of its
    children's remainders become subtrees of their own.

    Parameters
    ----------
    first_child : numpy.ndarray
        As in :class:`splatforge.algos.voyager.split.Cells`.
    most : int
        At least 1.

    Returns
    -------
    subtree : numpy.ndarray
        Of each node, shape [nodes], int32.
    roots : numpy.ndarray
        First node of each subtree, ascending, shape [subtrees], int32; the first is the tree's.
    """
    subtree = np.empty(len(first_child) - 1, np.int32)
    return subtree, _partition_kernel(first_child, most, subtree)


@njit(cache=True, nogil=True)
def _partition_kernel(first_child, most, left):
    """``left``: the size of what is left below a node, negative at a root; then the subtree."""
    nodes = len(first_child) - 1
    subtrees = 1
    for node in range(nodes - 1, -1, -1):
        size = 1
        for child in range(first_child[node], first_child[node + 1]):
            size += left[child]
        while size > most:
            largest = first_child[node]
            for child in range(first_child[node], first_child[node + 1]):
                if left[child] > left[largest]:
                    largest = child
            size -= left[largest]
            left[largest] = -left[largest]
            subtrees += 1
        left[node] = size
    left[0] = -left[0]
    roots = np.empty(subtrees, np.int32)
    found = 0
    for node in range(nodes):
        # A node's own number is settled before its children's, which take it over.
        if left[node] < 0:
            roots[found] = node
            left[node] = found
            found += 1
        for child in range(first_child[node], first_child[node + 1]):
            if left[child] >= 0:
                left[child] = left[node]
    return roots
