"""The rendering array in integers: every tile's list blended into its pixels.

What comes out does not depend on the number of lanes: a record's subtile mask gates the pixels
that it may change, however many of them are evaluated at a time. Alongside the pixels comes the
:class:`Workload`: what happened, in the order in which it happened, from which
:mod:`splatforge.sim` works out how long it takes.
"""

from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
from numba.extending import overload

from splatforge.algos import alpha as alpha_algorithm
from splatforge.algos import blend as blend_algorithm
from splatforge.algos import falloff as falloff_algorithm
from splatforge.algos.alpha import _alpha_kernel, alpha_constants, exp2_table
from splatforge.algos.blend import _add_kernel, _product_kernel, blend_constants
from splatforge.algos.compiled import source_digest
from splatforge.algos.falloff import (
    FalloffConstants,
    _falloff_kernel,
    exponentials,
    falloff_constants,
)
from splatforge.algos.fetch import SplatLists
from splatforge.algos.workers import Workers
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import SUBTILES, SplatFormat

__all__ = ["Workload", "array_fixed"]

#: `Workload.ends` of a subtile that lies outside of the frame.
OUTSIDE = -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Workload:
    """What happened in one frame of the raster core; depends on formats, not on hardware.

    Parameters
    ----------
    width, height : int
        Frame in pixels.
    starts : ndarray
        First record of every tile, of shape [tiles + 1]; int64.
    subtiles : ndarray
        Mask of the 4x4-pixel subtiles that each record can reach, of shape [splats]; uint16.
    ends : ndarray
        Place in the tile's list of the record that ended the last live pixel of a subtile, of
        shape [tiles, 16]; the length of the list where pixels stayed alive, -1 where the subtile
        lies outside of the frame; int32.
    pairs, pairs_reached : ndarray
        Entries of the tile's 3-sigma list, and those reached before the tile ended, of shape
        [tiles]; int64.
    records_reached : ndarray
        Records reached before the tile ended, of shape [tiles]; int64.
    evaluations, live, significant, blended : ndarray
        Pixel evaluations up to the end of the tile, of shape [tiles]; int64: in subtiles that the
        record reaches and that have a live pixel; of those, of live pixels; of those, with alpha
        at least 1/255; of those, blended.
    pixels_stopped : ndarray
        Pixels that ended before their list, of shape [tiles]; int64.
    gaussians, gaussians_visible, sh_degree : int
        Of the scene, and of those that meet the image.
    gaussians_saturated : int
        Gaussians whose colour is beyond the record's format, and is drawn at its end.
    """

    width: int
    height: int
    starts: npt.NDArray[np.int64]
    subtiles: npt.NDArray[np.uint16]
    ends: npt.NDArray[np.int32]
    pairs: npt.NDArray[np.int64]
    pairs_reached: npt.NDArray[np.int64]
    records_reached: npt.NDArray[np.int64]
    evaluations: npt.NDArray[np.int64]
    live: npt.NDArray[np.int64]
    significant: npt.NDArray[np.int64]
    blended: npt.NDArray[np.int64]
    pixels_stopped: npt.NDArray[np.int64]
    gaussians: int
    gaussians_visible: int
    sh_degree: int
    gaussians_saturated: int = 0

    @property
    def tiles(self) -> int:
        """Tiles of the frame."""
        return len(self.starts) - 1

    @property
    def tiles_x(self) -> int:
        """Tiles side by side."""
        return -(-self.width // 16)


@nb.njit(inline="always")
def _field(word, shift, width, signed):
    """Raw field of a 64-bit word."""
    raw = np.int64((word >> np.uint64(shift)) & np.uint64((1 << width) - 1))
    if signed and raw >> (width - 1):
        raw -= 1 << width
    return raw


def _evaluate(k, table, u, v, lo):
    """Raw alpha of one fragment, or -1, by whose constants `k` are."""
    raise NotImplementedError("for compiled code")


@overload(_evaluate, inline="always")
def _evaluate_of(k, table, u, v, lo):
    if k.instance_class is FalloffConstants:
        return lambda k, table, u, v, lo: _falloff_kernel(k, table, u, v, lo)
    return lambda k, table, u, v, lo: _alpha_kernel(k, table, u, v, lo)


def _constants(design: AlphaDesign) -> tuple[Any, npt.NDArray[np.int64]]:
    """What :func:`_evaluate` takes of a design."""
    if isinstance(design, FalloffDesign):
        return falloff_constants(design), exponentials(design)
    return alpha_constants(design), exp2_table(design)


def _compile_array(digest: str):
    """Kernel that blends one row of tiles, for the sources that `digest` stands for."""
    @nb.njit(cache=True, nogil=True)
    def kernel(
        band, records, starts, places, pairs, width, height, layout, up, alpha_k, table, blend_k,
        state, ends, subtiles, counts,
    ):
        digest  # noqa: B018 - a part of the key under which numba keeps this kernel
        tiles_x = (width + 15) // 16
        for tile in range(band * tiles_x, (band + 1) * tiles_x):
            x0 = (tile % tiles_x) * 16
            y0 = (tile // tiles_x) * 16
            product = np.zeros(256, np.int64)
            final = np.full(256, blend_k.one, np.int64)
            color = np.zeros((256, 3), np.int64)
            live = np.zeros(SUBTILES, np.int64)
            for y in range(min(16, height - y0)):
                for x in range(min(16, width - x0)):
                    product[y * 16 + x] = blend_k.one
                    live[(y >> 2) * 4 + (x >> 2)] += 1
            remaining = 0
            count = starts[tile + 1] - starts[tile]
            for subtile in range(SUBTILES):
                ends[tile, subtile] = count if live[subtile] else OUTSIDE
                remaining += live[subtile]
            pixels = remaining
            evaluations = 0
            evaluated_live = 0
            significant = 0
            blended = 0
            reached = count
            field = np.zeros(10, np.int64)
            for place in range(count):
                at = starts[tile] + place
                offset = 0
                for name in range(10):
                    bits, signed = layout[name, 0], layout[name, 1]
                    word, shift = offset // 64, offset % 64
                    if shift + bits <= 64:
                        field[name] = _field(records[at, word], shift, bits, signed)
                    else:
                        low = 64 - shift
                        raw = _field(records[at, word], shift, low, False)
                        raw |= _field(records[at, word + 1], 0, bits - low, False) << low
                        if signed and raw >> (bits - 1):
                            raw -= 1 << bits
                        field[name] = raw
                    offset += bits
                mask = field[9]
                subtiles[at] = mask
                if remaining == 0:
                    continue
                u0 = field[0] << up[0]
                v0 = field[1] << up[1]
                a = field[2] << up[2]
                b = field[3] << up[3]
                c = field[4] << up[4]
                for subtile in range(SUBTILES):
                    if not (mask >> subtile) & 1 or live[subtile] == 0:
                        continue
                    evaluations += 16
                    for y in range((subtile >> 2) * 4, (subtile >> 2) * 4 + 4):
                        for x in range((subtile & 3) * 4, (subtile & 3) * 4 + 4):
                            pixel = y * 16 + x
                            before = product[pixel]
                            if before < blend_k.stop:
                                continue
                            evaluated_live += 1
                            alpha = _evaluate(
                                alpha_k, table, u0 + a * x + b * y, v0 + c * y, field[5]
                            )
                            if alpha < 0:
                                continue
                            significant += 1
                            after = _product_kernel(alpha_k.alpha_frac, before, alpha)
                            product[pixel] = after
                            if after < blend_k.stop:
                                live[subtile] -= 1
                                remaining -= 1
                                continue
                            blended += 1
                            final[pixel] = after
                            for channel in range(3):
                                color[pixel, channel] += _add_kernel(
                                    blend_k, before - after, field[6 + channel]
                                )
                    if live[subtile] == 0:
                        ends[tile, subtile] = place
                if remaining == 0:
                    reached = place + 1
            for y in range(min(16, height - y0)):
                for x in range(min(16, width - x0)):
                    for channel in range(3):
                        state[y0 + y, x0 + x, channel] = color[y * 16 + x, channel]
                    state[y0 + y, x0 + x, 3] = final[y * 16 + x]
            counts[tile, 0] = evaluations
            counts[tile, 1] = evaluated_live
            counts[tile, 2] = significant
            counts[tile, 3] = blended
            counts[tile, 4] = pixels - remaining
            counts[tile, 5] = reached
            # Entries of the 3-sigma list without a record are reached with the record before.
            counts[tile, 6] = (
                places[starts[tile] + reached - 1] + 1
                if remaining == 0 and reached else pairs[tile]
            )

    return kernel


_array_kernel = _compile_array(
    source_digest(alpha_algorithm, blend_algorithm, falloff_algorithm))


def array_fixed(
    design: ArrayDesign, splat: SplatFormat, lists: SplatLists
) -> tuple[npt.NDArray[np.int32], Workload]:
    """Blend every tile's list, bit-true to :class:`splatforge.hw.array.Array`.

    Parameters
    ----------
    design : ArrayDesign
        Formats; the number of lanes changes nothing.
    splat : SplatFormat
        Format of the records.
    lists : SplatLists
        The frame.

    Returns
    -------
    state : ndarray
        Red, green, blue and T of every pixel of shape [height, width, 4], raw int32 in the
        accumulator's and the transmittance's format.
    workload : Workload
        What happened.
    """
    tiles = len(lists.starts) - 1
    state = np.zeros((lists.height, lists.width, 4), np.int32)
    ends = np.zeros((tiles, SUBTILES), np.int32)
    subtiles = np.zeros(lists.splats, np.uint16)
    counts = np.zeros((tiles, 7), np.int64)
    layout = np.array([(width, signed) for _, width, signed in splat.fields()], np.int64)
    up = np.array([
        design.alpha.form_sum.frac_bits - getattr(splat, name).frac_bits
        for name in ("u0", "v0", "a", "b", "c")
    ])
    with Workers() as workers:
        workers.run_chunks(
            _array_kernel, lists.tiles_y,
            lists.records, lists.starts, lists.places, lists.pairs, lists.width, lists.height,
            layout, up, *_constants(design.alpha), blend_constants(design.blend),
            state, ends, subtiles, counts,
        )
    workload = Workload(
        width=lists.width, height=lists.height, starts=lists.starts, subtiles=subtiles, ends=ends,
        pairs=lists.pairs, pairs_reached=counts[:, 6], records_reached=counts[:, 5],
        evaluations=counts[:, 0], live=counts[:, 1], significant=counts[:, 2],
        blended=counts[:, 3], pixels_stopped=counts[:, 4], gaussians=lists.gaussians,
        gaussians_visible=lists.gaussians_visible, sh_degree=lists.sh_degree,
        gaussians_saturated=lists.gaussians_saturated,
    )
    return state, workload
