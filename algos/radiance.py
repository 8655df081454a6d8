"""The radiance cache in integers: what it holds, what pixels find in it, what they leave there.

The order is architectural: no timing changes a hit, a colour or a byte of what is kept. A tile
looks all its pixels up against the contents at its start. Then its pixels pass one by one in raster
order. One that has hit makes its entry recent, if that is still there. One that has missed does the
same if an earlier pixel of the tile has put its record in by then; otherwise it goes into the
lowest way that is not valid, else into the least recent one, and becomes recent. Pixels that
blended fewer than k Gaussians take no part.

The key of a record: bits 2 to 17 of its ids are the tag. The index comes of a string of bits: bits
0 and 1 of every id, then bits 2 and 3 of every id, and so on, round after round until it is as long
as a set's number or longer; its pieces of that length, the last one filled with zeros, are XORed.
With five ids and 1024 sets the string is as long as the index. Records of other ids may have the
same key: ids differ above bit 17, or in lowest bits that the XOR has folded together.
"""

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Self

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.workers import Workers
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.radiance import (
    BEAT_BYTES,
    COLOR_BITS,
    LOW_BITS,
    TAG_BITS,
    RadianceDesign,
    index_string,
)

__all__ = ["Banks", "Outcome", "Visits", "radiance_fixed", "record_keys"]

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt8Array = npt.NDArray[np.uint8]
UInt64Array = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

_PIXELS = TILE_PX * TILE_PX


class Outcome(IntEnum):
    """What a pixel did in the walk behind its tile's look-ups."""

    BYPASSED = 0
    """Nothing: its record is not complete."""
    TOUCHED = 1
    """Its record was there and became recent."""
    GONE = 2
    """It had hit; an earlier pixel of the tile has replaced the entry. Nothing."""
    FILLED = 3
    """It went into a way that was not valid."""
    REPLACED = 4
    """It went into the least recent way."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Banks:
    """Contents of the cache, a bank for every group of tiles.

    Parameters
    ----------
    tags : ndarray
        Low and high 64 bits of the tag, shape [banks, sets, ways, 2], uint64.
    colors : ndarray
        Red, green, blue, shape [banks, sets, ways, 3]: uint8, or float32 for the float form.
    valid : ndarray
        Shape [banks, sets, ways], bool.
    recency : ndarray
        Nodes of the tree of every set, bit 0 the root, children of n at 2 n + 1 and 2 n + 2; a bit
        points to the side that is to be replaced, 0 the lower ways; shape [banks, sets], uint8.
    ids : ndarray
        The whole ids, which hardware does not keep: shape [banks, sets, ways, k], int32; -1 where
        they are not known, since the contents come from memory.
    """

    tags: UInt64Array
    colors: npt.NDArray
    valid: BoolArray
    recency: UInt8Array
    ids: Int32Array

    @classmethod
    def empty(cls, design: RadianceDesign, banks: int, color: npt.DTypeLike = np.uint8) -> Self:
        """Banks in which nothing is valid, with colours of a type."""
        shape = (banks, design.sets, design.ways)
        return cls(
            tags=np.zeros((*shape, 2), np.uint64), colors=np.zeros((*shape, 3), color),
            valid=np.zeros(shape, bool), recency=np.zeros(shape[:2], np.uint8),
            ids=np.full((*shape, design.record_ids), -1, np.int32))

    @classmethod
    def from_images(cls, design: RadianceDesign, images: UInt8Array) -> Self:
        """Banks from memory, shape [banks, ``design.image_bytes``]."""
        banks = cls.empty(design, len(images))
        bits = np.unpackbits(
            np.reshape(images, (*banks.valid.shape, -1)), axis=-1, bitorder="little")
        tag, color = design.tag_bits, design.tag_bits + COLOR_BITS
        banks.valid[:] = bits[..., color]
        kept = bits * bits[..., color, None]
        wide = np.zeros((*banks.valid.shape, 128), np.uint8)
        wide[..., :tag] = kept[..., :tag]
        banks.tags[:] = np.packbits(wide, axis=-1, bitorder="little").view("<u8")
        banks.colors[:] = np.packbits(kept[..., tag:color], axis=-1, bitorder="little")
        node = 1 << np.arange(design.ways - 1)
        banks.recency[:] = bits[:, :, 0, color + 1:color + design.ways] @ node
        return banks

    def images(self, design: RadianceDesign) -> UInt8Array:
        """Memory of the banks, shape [banks, ``design.image_bytes``]."""
        bits = np.zeros((*self.valid.shape, 8 * BEAT_BYTES * design.entry_beats), np.uint8)
        tag, color = design.tag_bits, design.tag_bits + COLOR_BITS
        words = np.ascontiguousarray(self.tags, "<u8").view(np.uint8)
        bits[..., :tag] = np.unpackbits(words, axis=-1, bitorder="little")[..., :tag]
        bits[..., tag:color] = np.unpackbits(self.colors, axis=-1, bitorder="little")
        bits[..., color] = 1
        bits *= self.valid[..., None]
        node = np.arange(design.ways - 1)
        bits[:, :, 0, color + 1:color + design.ways] = self.recency[..., None] >> node & 1
        return np.packbits(bits, axis=-1, bitorder="little").reshape(len(bits), -1)

    def copy(self) -> "Banks":
        """The same contents, to be changed."""
        return replace(self, **{name: getattr(self, name).copy() for name in (
            "tags", "colors", "valid", "recency", "ids")})


@dataclass(frozen=True, kw_only=True, eq=False)
class Visits:
    """What the pixels of tiles found and did; shape [tiles, 256], pixels in raster order.

    Parameters
    ----------
    sets : ndarray
        Set of every record that is complete, int32; others zero.
    hit : ndarray
        Whether the look-up found the record, bool.
    colors : ndarray
        What it found, shape [tiles, 256, 3], zero without a hit.
    false_hit : ndarray
        Whether the entry had other ids than the pixel, bool. An entry of unknown ids does not
        count.
    outcome : ndarray
        An :class:`Outcome`, uint8.
    """

    sets: Int32Array
    hit: BoolArray
    colors: npt.NDArray
    false_hit: BoolArray
    outcome: UInt8Array


def record_keys(design: RadianceDesign, ids: npt.ArrayLike) -> tuple[Int32Array, UInt64Array]:
    """Sets and tags of records.

    Parameters
    ----------
    design : RadianceDesign
        Geometry.
    ids : array_like
        Ids of the records, not negative, shape [..., k].

    Returns
    -------
    sets : ndarray
        Shape [...], int32.
    tags : ndarray
        Low and high 64 bits, shape [..., 2], uint64.
    """
    ids = np.asarray(ids, np.int64)
    tags = np.zeros((*ids.shape[:-1], 2), np.uint64)
    per_word = 64 // TAG_BITS
    for place in range(design.record_ids):
        part = (ids[..., place] >> LOW_BITS & ((1 << TAG_BITS) - 1)).astype(np.uint64)
        tags[..., place // per_word] |= part << np.uint64(place % per_word * TAG_BITS)
    sets = np.zeros(ids.shape[:-1], np.int32)
    for bit, place, source in index_string(design):
        sets ^= (ids[..., place] >> source & 1).astype(np.int32) << bit
    return sets, tags


@nb.njit(inline="always")
def _find_kernel(tags, valid, ways, low, high):
    """Way of a set that holds a tag, or -1."""
    for way in range(ways):
        if valid[way] and tags[way, 0] == low and tags[way, 1] == high:
            return way
    return -1


@nb.njit(inline="always")
def _touch_kernel(recency, levels, way):
    """Recency behind a use of `way`: no node on its path points to it."""
    node = 0
    for level in range(levels - 1, -1, -1):
        right = way >> level & 1
        recency = recency & ~(1 << node) | (1 - right) << node
        node = 2 * node + 1 + right
    return recency


@nb.njit(inline="always")
def _victim_kernel(recency, levels):
    """Way that the nodes point to."""
    node = way = 0
    for _ in range(levels):
        right = recency >> node & 1
        way = 2 * way + right
        node = 2 * node + 1 + right
    return way


@nb.njit(cache=True, nogil=True)
def _visit_kernel(
    group, starts, complete, sets, keys, ids, final, tags, values, valid, recency, whole, hit,
    found, false_hit, outcome,
):  # fmt: skip
    """Look up and walk the tiles of a group, one after another, in the bank of the group."""
    ways = valid.shape[2]
    levels = 0
    while 1 << levels < ways:
        levels += 1
    for tile in range(starts[group], starts[group + 1]):
        for pixel in range(_PIXELS):
            if not complete[tile, pixel]:
                continue
            at = sets[tile, pixel]
            way = _find_kernel(tags[group, at], valid[group, at], ways, keys[tile, pixel, 0],
                               keys[tile, pixel, 1])
            if way < 0:
                continue
            hit[tile, pixel] = True
            for channel in range(3):
                found[tile, pixel, channel] = values[group, at, way, channel]
            for place in range(ids.shape[2]):
                if whole[group, at, way, 0] >= 0 and (
                        whole[group, at, way, place] != ids[tile, pixel, place]):
                    false_hit[tile, pixel] = True
        for pixel in range(_PIXELS):
            if not complete[tile, pixel]:
                continue
            at = sets[tile, pixel]
            low, high = keys[tile, pixel, 0], keys[tile, pixel, 1]
            way = _find_kernel(tags[group, at], valid[group, at], ways, low, high)
            if way >= 0:
                outcome[tile, pixel] = 1
            elif hit[tile, pixel]:
                outcome[tile, pixel] = 2
                continue
            else:
                outcome[tile, pixel] = 4
                way = _victim_kernel(np.int64(recency[group, at]), levels)
                for other in range(ways):
                    if not valid[group, at, other]:
                        outcome[tile, pixel] = 3
                        way = other
                        break
                tags[group, at, way, 0], tags[group, at, way, 1] = low, high
                valid[group, at, way] = True
                for channel in range(3):
                    values[group, at, way, channel] = final[tile, pixel, channel]
                for place in range(ids.shape[2]):
                    whole[group, at, way, place] = ids[tile, pixel, place]
            recency[group, at] = _touch_kernel(np.int64(recency[group, at]), levels, way)


def radiance_fixed(
    design: RadianceDesign, banks: Banks, starts: Int64Array, ids: Int32Array,
    complete: BoolArray, final: npt.NDArray,
) -> tuple[Visits, Banks]:
    """Pixels of the tiles of a frame in the cache.

    Bit-true to :class:`splatforge.hw.radiance.Radiance` with colours of 8 bits; the float form is
    the same with float32.

    Parameters
    ----------
    design : RadianceDesign
        Geometry.
    banks : Banks
        Contents before the frame, a bank for every group; not changed.
    starts : ndarray
        First tile of every group, shape [groups + 1].
    ids : ndarray
        Records, shape [tiles, 256, k], int32; what is behind the end of one that is not complete
        does not matter.
    complete : ndarray
        Which records are complete, shape [tiles, 256].
    final : ndarray
        Colour of every pixel without the cache, shape [tiles, 256, 3], of the type of the banks'.

    Returns
    -------
    visits : Visits
        What happened.
    banks : Banks
        Contents behind the frame.
    """
    banks = banks.copy()
    shape = complete.shape
    sets, keys = record_keys(design, np.where(complete[..., None], ids, 0))
    visits = Visits(
        sets=sets, hit=np.zeros(shape, bool), colors=np.zeros((*shape, 3), banks.colors.dtype),
        false_hit=np.zeros(shape, bool), outcome=np.zeros(shape, np.uint8))
    with Workers() as workers:
        workers.run_chunks(
            _visit_kernel, len(starts) - 1, starts, complete, sets, keys, ids, final, banks.tags,
            banks.colors, banks.valid, banks.recency, banks.ids, visits.hit, visits.colors,
            visits.false_hit, visits.outcome)
    return visits, banks
