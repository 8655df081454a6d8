"""The float reference: the picture that every accelerator's picture is compared with.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG
42(4), 2023, eq. (3) and its rasterizer.
"""

from dataclasses import dataclass, fields
from math import log, sqrt
from time import perf_counter

import llvmlite.ir as ll
import numpy as np
import numpy.typing as npt
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from splatforge.algos.bin_tiles import list_spans
from splatforge.algos.lanes import Lanes
from splatforge.algos.project import (
    TILE_PX,
    project_geometry,
    tile_span_device,
    view_color_device,
)
from splatforge.algos.sort import sort_depths
from splatforge.algos.workers import Workers, fetch_add
from splatforge.scenes import Camera, Scene

__all__ = ["ALPHA_MAX", "ALPHA_MIN", "TRANSMITTANCE_MIN", "Frame", "TileStatistics", "render"]

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

#: Alphas below are skipped, alphas above are clipped (Kerbl et al. 2023, appendix C).
ALPHA_MIN = 1 / 255
ALPHA_MAX = 0.99
#: A Gaussian that would take the transmittance below ends the pixel and is not blended.
TRANSMITTANCE_MIN = 1e-4

_ALPHA_MIN = float(np.float32(1) / np.float32(255))
_ALPHA_MAX = float(np.float32(ALPHA_MAX))
_T_MIN = float(np.float32(TRANSMITTANCE_MIN))
_ZERO, _ONE, _HALF = np.float32(0), np.float32(1), np.float32(0.5)

# Columns evaluated at once: one AVX2 register of float32.
_LANES = 8
_LANE_BITS = (1 << _LANES) - 1
# Room behind the last column, so that a window may start at it.
_STRIDE = TILE_PX + _LANES
# The state of a tile: red, green, blue and transmittance, a plane each.
_PLANE = TILE_PX * _STRIDE
# Pairs between two looks for rows that are finished.
_LOOK_EVERY = 16

# Columns of a record: one cache line per Gaussian.
_RECORD_COLUMNS = 16
(
    _MX, _MY, _A, _B, _C, _OPACITY, _RED, _GREEN, _BLUE,
    _REACH_Y, _SHEAR, _CHORD, _CURVE, _PAD,
) = range(14)  # fmt: skip


@dataclass(frozen=True, kw_only=True, eq=False)
class TileStatistics:
    """What each tile did; every array has shape [tiles] (row-major), int64.

    Counted as the plain loop over pixels would do the work: it walks the list of the tile for each
    pixel of the image in it until that pixel stops. All counts are exact.

    Parameters
    ----------
    tiles_x, tiles_y : int
        Tiles across and down.
    pairs : numpy.ndarray
        Entries of the tile's 3-sigma list.
    pairs_reached : numpy.ndarray
        Entries that at least one pixel looked at, before all pixels had stopped.
    evaluations : numpy.ndarray
        Pixel-Gaussian evaluations: entries looked at, summed over the tile's pixels.
    significant : numpy.ndarray
        Evaluations with power <= 0 and alpha >= 1/255.
    blended : numpy.ndarray
        Significant evaluations that changed the pixel: all but the one that stopped it.
    stopped_pixels : numpy.ndarray
        Pixels that stopped early. ``significant == blended + stopped_pixels``.
    """

    tiles_x: int
    tiles_y: int
    pairs: Int64Array
    pairs_reached: Int64Array
    evaluations: Int64Array
    significant: Int64Array
    blended: Int64Array
    stopped_pixels: Int64Array

    def totals(self) -> dict[str, int]:
        """Sum of every count over the frame."""
        return {
            field.name: int(getattr(self, field.name).sum())
            for field in fields(self)
            if not field.name.startswith("tiles_")
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A rendered frame.

    Parameters
    ----------
    image : numpy.ndarray
        Linear colour of shape [height, width, 3], float32, background included; not clipped.
    transmittance : numpy.ndarray
        What of the background is seen, shape [height, width], float32, in [1e-4, 1].
    statistics : TileStatistics or None
        Work per tile, on request.
    stages_ms : dict
        Wall time per stage in milliseconds: project, color, sort, bin, blend.
    """

    image: Float32Array
    transmittance: Float32Array
    statistics: TileStatistics | None
    stages_ms: dict[str, float]


@njit(cache=True, nogil=True)
def _record_kernel(
    counter, rows, ids, starts, chunk, means, sh, eye, tiles_x, tiles_y, tight, records, depth,
    spans,
):  # fmt: skip
    """Complete the visible Gaussians: colour, the region that alpha >= 1/255 reaches, tiles."""
    while True:
        c = fetch_add(counter, 1)
        if c >= len(starts) - 1:
            return
        row = c * chunk - 1
        for k in range(starts[c], starts[c + 1]):
            row += 1
            mx, my = np.float64(rows[row, 0]), np.float64(rows[row, 1])
            opacity, radius = rows[row, 5], np.float64(rows[row, 7])
            depth[k] = rows[row, 6]
            x0, x1 = tile_span_device(mx, radius, tiles_x)
            y0, y1 = tile_span_device(my, radius, tiles_y)
            a, b = np.float64(rows[row, 2]), np.float64(rows[row, 3])
            xx, yy = np.float64(rows[row, 8]), np.float64(rows[row, 9])
            # alpha >= 1/255 where the quadratic form is at most ``limit``. The margin covers what
            # float32 loses when the terms of the form cancel: 1 / (1 - correlation^2) of them.
            limit = 2.0 * log(255.0 * max(np.float64(opacity), 1e-30))
            limit += 1e-3 + 4e-6 * abs(limit) * a * xx
            if limit < 0.0:
                records[k, _REACH_Y] = -1.0
                if tight:
                    spans[k] = 0
                    continue
                limit = 0.0
            else:
                reach_x, reach_y = sqrt(limit * xx) + 1e-3, sqrt(limit * yy) + 1e-3
                records[k, _REACH_Y] = reach_y
                # Row j has its centres at y = j + 0.5; within it alpha is significant on the
                # chord mx - shear dy +- sqrt(chord - curve dy^2).
                records[k, _SHEAR] = b / a
                records[k, _CHORD] = limit / a
                records[k, _CURVE] = 1.0 / (a * yy)
                records[k, _PAD] = 0.02 + 2e-6 * reach_x
                if tight:
                    x0 = max(x0, int(max(mx - reach_x - 0.5, 0.0)) // TILE_PX)
                    x1 = min(x1, int(max(mx + reach_x + TILE_PX - 0.5, 0.0)) // TILE_PX)
                    y0 = max(y0, int(max(my - reach_y - 0.5, 0.0)) // TILE_PX)
                    y1 = min(y1, int(max(my + reach_y + TILE_PX - 0.5, 0.0)) // TILE_PX)
            spans[k, 0], spans[k, 1], spans[k, 2], spans[k, 3] = x0, y0, x1, y1
            if tight and (x0 >= x1 or y0 >= y1):
                continue
            records[k, _MX], records[k, _MY] = rows[row, 0], rows[row, 1]
            # The factor -1/2 is exact, so folding it in does not change a bit of the power.
            records[k, _A], records[k, _C] = -_HALF * rows[row, 2], -_HALF * rows[row, 4]
            records[k, _B], records[k, _OPACITY] = rows[row, 3], opacity
            red, green, blue = view_color_device(means, sh, ids[row], eye[0], eye[1], eye[2])
            records[k, _RED], records[k, _GREEN], records[k, _BLUE] = red, green, blue


@intrinsic
def _blend_window(
    typingctx, state, offset, px, dy, mx, a, b, row_term, opacity, red, green, blue
):  # fmt: skip
    """Blend one Gaussian into ``_LANES`` neighbouring pixels of a row.

    ``state`` is the flat float32 state of a tile, ``offset`` the first pixel in its first plane,
    ``px`` the x of that pixel's centre. Returns the bits of the lanes that are live and
    significant, and of those among them that blend, eight bits higher.
    """
    signature = types.int32(state, types.int64, *[types.float32] * 10)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])

        def plane(index):
            at = builder.add(args[1], ll.Constant(args[1].type, index * _PLANE))
            return cgutils.gep_inbounds(builder, array.data, at)

        lanes = [Lanes.splat(builder, scalar, _LANES) for scalar in args[2:]]
        px, dy, mx, a, b, row_term, opacity, *color = lanes
        dx = mx - (px + Lanes.iota(builder, _LANES))
        power = (a * dx * dx + row_term) - b * dx * dy
        alpha = (opacity * power.minimum(0.0).exp()).minimum(_ALPHA_MAX)
        t = Lanes.load(builder, plane(3), _LANES)
        # A stopped pixel keeps its transmittance with the sign flipped: the product below is
        # then negative, so it neither blends nor stops again.
        after = t * (1.0 - alpha)
        seen = builder.and_(power <= 0.0, alpha >= _ALPHA_MIN)
        blend = builder.and_(seen, after >= _T_MIN)
        weight = (alpha * t).select(blend, 0.0)
        for index, channel in enumerate(color):
            sum_so_far = Lanes.load(builder, plane(index), _LANES)
            weight.fma(channel, sum_so_far).store(plane(index))
        after.select(blend, t.negative_magnitude().select(seen, t)).store(plane(3))

        def bits(mask):
            packed = builder.bitcast(mask, ll.IntType(_LANES))
            return builder.zext(packed, ll.IntType(32))

        live_seen = builder.and_(seen, t > 0.0)
        return builder.or_(
            bits(live_seen), builder.shl(bits(blend), ll.Constant(ll.IntType(32), _LANES))
        )

    return signature, codegen


@intrinsic
def _row_windows(typingctx, windows, x, y, shear, chord, curve, pad):
    """First and last column that a Gaussian reaches in each row of a tile.

    ``x`` and ``y`` are its centre relative to the tile's corner. Writes float32
    [2 * TILE_PX]: firsts, then lasts, clipped to the tile; empty rows may have first > last.
    """
    signature = types.void(windows, *[types.float32] * 6)

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        for row in range(0, TILE_PX, _LANES):
            lanes = [Lanes.splat(builder, scalar, _LANES) for scalar in args[1:]]
            x, y, shear, chord, curve, pad = lanes
            dy = Lanes.iota(builder, _LANES, row + 0.5) - y
            middle = (x - shear * dy) - 0.5
            half = (chord - curve * dy * dy).maximum(0.0).sqrt() + pad
            for part, columns in enumerate(
                ((middle - half).ceil().maximum(0.0), (middle + half).floor())
            ):
                index = ll.Constant(ll.IntType(64), part * TILE_PX + row)
                columns = columns.maximum(-1.0).minimum(TILE_PX - 1.0 + (part == 0))
                columns.store(cgutils.gep_inbounds(builder, array.data, index))
        return context.get_dummy_value()

    return signature, codegen


@njit(cache=True, inline="always")
def _bits_set(word):
    count = 0
    while word != 0:
        word &= word - 1
        count += 1
    return count


@njit(cache=True, nogil=True)
def _blend_kernel(
    counter, tile_order, starts, entries, records, tiles_x, background, image, transmittance,
    counted, statistics,
):  # fmt: skip
    """Blend whole tiles, the next one from ``counter``."""
    height, width = transmittance.shape
    state_flat = np.empty(4 * _PLANE, np.float32)
    state = state_flat.reshape(4, TILE_PX, _STRIDE)
    windows = np.empty(2 * TILE_PX, np.float32)
    while True:
        turn = fetch_add(counter, 1)
        if turn >= len(tile_order):
            return
        tile = tile_order[turn]
        x0, y0 = (tile % tiles_x) * TILE_PX, (tile // tiles_x) * TILE_PX
        columns, rows = min(TILE_PX, width - x0), min(TILE_PX, height - y0)
        for y in range(TILE_PX):
            for x in range(_STRIDE):
                state[0, y, x] = _ZERO
                state[1, y, x] = _ZERO
                state[2, y, x] = _ZERO
                state[3, y, x] = _ONE if x < columns and y < rows else -_ONE
        live_rows = (1 << rows) - 1
        live_pixels = rows * columns
        look = 0
        for k in range(starts[tile], starts[tile + 1]):
            if counted:
                if live_pixels == 0:
                    break
                statistics[1, tile] += 1
                statistics[2, tile] += live_pixels
            look += 1
            if look == _LOOK_EVERY:
                look = 0
                live_rows = 0
                for y in range(rows):
                    alive = _ZERO
                    for x in range(TILE_PX):
                        alive = max(alive, state[3, y, x])
                    if alive > _ZERO:
                        live_rows |= 1 << y
                if live_rows == 0:
                    break
            i = entries[k]
            reach = records[i, _REACH_Y]
            if reach < _ZERO:
                continue
            mx, my = records[i, _MX], records[i, _MY]
            local_x, local_y = mx - np.float32(x0), my - np.float32(y0)
            top = int(max(np.ceil(local_y - reach - _HALF), _ZERO))
            bottom = int(min(np.floor(local_y + reach - _HALF), np.float32(rows - 1)))
            _row_windows(
                windows, local_x, local_y, records[i, _SHEAR], records[i, _CHORD],
                records[i, _CURVE], records[i, _PAD],
            )  # fmt: skip
            a, b, c = records[i, _A], records[i, _B], records[i, _C]
            opacity = records[i, _OPACITY]
            red, green, blue = records[i, _RED], records[i, _GREEN], records[i, _BLUE]
            for y in range(top, bottom + 1):
                if not (live_rows >> y) & 1:
                    continue
                dy = my - (np.float32(y0 + y) + _HALF)
                row_term = c * dy * dy
                for x in range(int(windows[y]), int(windows[TILE_PX + y]) + 1, _LANES):
                    px = np.float32(x0 + x) + _HALF
                    bits = _blend_window(
                        state_flat, y * _STRIDE + x, px, dy, mx, a, b, row_term, opacity, red,
                        green, blue,
                    )  # fmt: skip
                    if counted:
                        significant = _bits_set(bits & _LANE_BITS)
                        blended = _bits_set(bits >> _LANES)
                        statistics[3, tile] += significant
                        statistics[4, tile] += blended
                        live_pixels -= significant - blended
        if counted:
            statistics[0, tile] = starts[tile + 1] - starts[tile]
            statistics[5, tile] = statistics[3, tile] - statistics[4, tile]
        for y in range(rows):
            for x in range(columns):
                t = abs(state[3, y, x])
                transmittance[y0 + y, x0 + x] = t
                for channel in range(3):
                    image[y0 + y, x0 + x, channel] = (
                        state[channel, y, x] + t * background[channel]
                    )


def render(
    scene: Scene,
    camera: Camera,
    *,
    background: npt.ArrayLike = (0.0, 0.0, 0.0),
    statistics: bool = False,
) -> Frame:
    """Render a scene: the float reference.

    A pixel at (i + 0.5, j + 0.5) walks the list of its 16 x 16 tile front to back. With
    ``power = -0.5 (A dx^2 + C dy^2) - B dx dy`` an entry is skipped if power > 0; alpha is
    ``min(0.99, opacity exp(power))`` and skipped below 1/255; an entry that would take the
    transmittance T below 1e-4 is not blended and ends the pixel; otherwise the pixel gains
    ``T alpha color`` and T becomes ``T (1 - alpha)``. At the end it gains ``T background``.

    Parameters
    ----------
    scene : Scene
        The Gaussians.
    camera : Camera
        The pinhole camera.
    background : array_like
        Linear colour of shape [3].
    statistics : bool
        Also count the work per tile, in the same pass. The image is the same; the lists are then
        the full 3-sigma lists, and the frame takes about twice as long.

    Returns
    -------
    Frame
        Image, transmittance, statistics on request, wall time per stage.

    Raises
    ------
    ValueError
        If the background is not three finite numbers.

    Notes
    -----
    Lists hold only tiles that alpha >= 1/255 can reach, and rows are walked only where it can:
    the entries and pixels left out are those that the rule above skips. Powers, alphas and
    transmittances are rounded as the expressions stand (no contraction, no reassociation); exp
    has a relative error below 2e-7. The result does not depend on the number of threads, which is
    ``numba.get_num_threads()``. The first call of a process loads, and the first after an
    installation compiles (about 10 s), the kernels.
    """
    background = np.asarray(background, np.float32)
    if background.shape != (3,) or not np.isfinite(background).all():
        raise ValueError(f"Background must be three finite numbers, not {background!r}")
    width, height = int(camera.width), int(camera.height)
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    stages_ms: dict[str, float] = {}
    clock = perf_counter()

    def stage(name: str) -> None:
        nonlocal clock
        now = perf_counter()
        stages_ms[name] = 1e3 * (now - clock)
        clock = now

    with Workers() as workers:
        geometry = project_geometry(scene, camera, workers)
        stage("project")
        visible = int(geometry.starts[-1])
        records = np.empty((visible, _RECORD_COLUMNS), np.float32)
        depth = np.empty(visible, np.float32)
        spans = np.empty((visible, 4), np.int16)
        workers.run_chunks(
            _record_kernel, geometry.rows, geometry.ids, geometry.starts, geometry.chunk,
            scene.means, scene.sh, np.ascontiguousarray(camera.position, np.float64),
            tiles_x, tiles_y, not statistics, records, depth, spans,
        )  # fmt: skip
        del geometry
        stage("color")
        order = sort_depths(depth, workers)
        stage("sort")
        lists = list_spans(order, spans, tiles_x, tiles_y, workers)
        stage("bin")
        image = np.empty((height, width, 3), np.float32)
        transmittance = np.empty((height, width), np.float32)
        counts = np.zeros((6, lists.tiles if statistics else 0), np.int64)
        # Long lists first: the threads finish together.
        tile_order = np.argsort(-np.diff(lists.starts), kind="stable")
        workers.run_chunks(
            _blend_kernel, tile_order, lists.starts, lists.entries, records, tiles_x, background,
            image, transmittance, statistics, counts,
        )  # fmt: skip
        stage("blend")
    return Frame(
        image=image,
        transmittance=transmittance,
        statistics=TileStatistics(
            tiles_x=tiles_x,
            tiles_y=tiles_y,
            pairs=counts[0],
            pairs_reached=counts[1],
            evaluations=counts[2],
            significant=counts[3],
            blended=counts[4],
            stopped_pixels=counts[5],
        )
        if statistics
        else None,
        stages_ms=stages_ms,
    )
