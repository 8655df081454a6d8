"""Lists partitioned into chunks in order of depth, in integers."""

import numpy as np
import numpy.typing as npt

from splatforge.designs.entry import EntryFormat
from splatforge.designs.qsu import QsuDesign

__all__ = ["qsu_fixed"]

Uint64Array = npt.NDArray[np.uint64]


def qsu_fixed(
    design: QsuDesign, entry: EntryFormat, entries: Uint64Array, low: int, high: int
) -> tuple[list[Uint64Array], int]:
    """Chunks of one list, bit-true to :class:`splatforge.hw.qsu.Qsu` where no tile ends early.

    Parameters
    ----------
    design : QsuDesign
        Buckets and chunk.
    entry : EntryFormat
        Of the entries.
    entries : ndarray
        Entries of shape [N] in the order of the list; their keys differ.
    low, high : int
        No key is less, none greater: those of all tiles of the frame.

    Returns
    -------
    chunks : list of ndarray
        In order: every key of a chunk is less than all keys of the next. Within a chunk entries are
        in the order of the list.
    partitions : int
        Lists that were partitioned.
    """
    if len(entries) <= design.chunk:
        return [entries] if len(entries) else [], 0
    keys = entry.key(entries)
    bucket = (keys - low) >> design.shift(high - low)
    chunks, partitions = [], 1
    for number in range(design.buckets):
        part = bucket == number
        if part.any():
            found, within = qsu_fixed(
                design, entry, entries[part], int(keys[part].min()), int(keys[part].max()))
            chunks += found
            partitions += within
    return chunks, partitions
