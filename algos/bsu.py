"""Bitonic sort of a chunk, held as a matrix whose rows and columns pass through one network.

K. E. Batcher, "Sorting networks and their applications", AFIPS Spring Joint Computer Conference
1968, doi:10.1145/1468075.1468121. Entry `i` of a chunk lies in row ``i // width`` and column
``i % width``. Level `k` of the sort merges runs of ``2**(k - 1)`` into runs of ``2**k``: it
compares entries whose places differ in bit ``k - 1``, then ``k - 2``, down to bit 0. The bits of
the row come first: those comparisons stay within a column, the rest within a row. So a level takes
a pass over the columns, if its runs are longer than a row, and a pass over the rows.
"""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.bsu import BsuDesign
from splatforge.designs.entry import EntryFormat

__all__ = ["PAD", "bsu_fixed", "from_words", "passes", "to_words"]

UInt64Array = npt.NDArray[np.uint64]

#: What fills a chunk up to a power of two: no entry comes behind it.
PAD = np.uint64((1 << 64) - 1)


def to_words(entry: EntryFormat, entries: UInt64Array) -> UInt64Array:
    """Entries as a sorter holds them: the key above the mask's inverse.

    So one comparison orders them, whatever they are, and behind an entry that meets a subtile there
    is always room for a pad, which is all ones.
    """
    subtiles = (entries >> np.uint64(entry.key_bits)) & np.uint64((1 << entry.subtile_bits) - 1)
    inverse = subtiles ^ np.uint64((1 << entry.subtile_bits) - 1)
    return entry.key(entries).astype(np.uint64) << np.uint64(entry.subtile_bits) | inverse


def from_words(entry: EntryFormat, words: UInt64Array) -> UInt64Array:
    """Entries of a sorter's words."""
    mask = np.uint64((1 << entry.subtile_bits) - 1)
    key = words >> np.uint64(entry.subtile_bits)
    return key | ((words & mask) ^ mask) << np.uint64(entry.key_bits)


def passes(design: BsuDesign, count: int) -> tuple[tuple[int, bool], ...]:
    """Passes over a chunk of `count` entries: for each its level, and whether it is over columns.

    A pass reads as many rows or columns as the chunk, up to a power of two, has rows.
    """
    found = []
    for level in range(1, (count - 1).bit_length() + 1):
        if level > design.stages:
            found.append((level, True))
        found.append((level, False))
    return tuple(found)


@nb.njit(cache=True)
def _pass_kernel(words, level, stages, column):
    """Compare what the places' bits of one pass tell, highest first."""
    first, last = (level - 1, stages) if column else (min(level, stages) - 1, 0)
    for bit in range(first, last - 1, -1):
        for low in range(len(words)):
            high = low | 1 << bit
            if high == low:
                continue
            down = (low >> level) & 1
            if (words[low] > words[high]) != down:
                words[low], words[high] = words[high], words[low]


def bsu_fixed(design: BsuDesign, entries: UInt64Array) -> UInt64Array:
    """Entries of one chunk in order, bit-true to a sorter of :class:`splatforge.hw.bsu.Bsu`.

    Parameters
    ----------
    design : BsuDesign
        The sorter.
    entries : ndarray
        Entries of shape [N].

    Returns
    -------
    ndarray
        The same in order of their keys; entries of one key, which no frame has, in falling order of
        their masks.

    Raises
    ------
    ValueError
        If there are none, or more than a chunk holds.
    """
    count = len(entries)
    if not 1 <= count <= design.chunk:
        raise ValueError(f"Entries of a chunk must be 1 to {design.chunk}, not {count}")
    words = np.full(1 << (count - 1).bit_length(), PAD, np.uint64)
    words[:count] = to_words(design.entry, entries)
    for level, column in passes(design, count):
        _pass_kernel(words, level, design.stages, column)
    return from_words(design.entry, words[:count])
