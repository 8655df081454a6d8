"""Culling and conversion: Gaussians and a camera to features and tile entries, in integers.

What is computed is the projection of :mod:`splatforge.algos.project` (its sources are named there)
with three changes of form. The covariance comes as its Cholesky factor L, so that with the two rows
U of the Jacobian the determinant on the image is the squared cross product of the rows of ``U L``,
which loses no digits on needles. Positions are relative to the eye before they are rotated. Colours
are sums over monomials of the view direction instead of the spherical harmonics themselves.

The intersection test is that of Lee et al., "GSCore", ASPLOS 2024: a Gaussian is bounded by its
3-sigma box along its own axes where it is longer than twice its width, and by a square where it is
not; a region of the image is met if no axis of either separates the two.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from math import log2, sqrt

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos import floating
from splatforge.algos.dataflow import Builder, Dataflow, Value, evaluate
from splatforge.algos.fixed import round_shift
from splatforge.algos.footprint import (
    CHANNELS,
    SIGMAS,
    color_sum,
    compensated,
    direction,
    footprint_outputs,
    jacobian_rows,
    square_side,
    tile_span,
)
from splatforge.algos.records import encode_record
from splatforge.algos.schedule import Schedule, schedule
from splatforge.designs.ccu import (
    BEAT_WORDS,
    CAMERA_WORDS,
    FLAG_ANTIALIASED,
    WIDE_WORDS,
    CcuDesign,
    gaussian_beats,
    gaussian_words,
)
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.vru import REGION_PX
from splatforge.scenes import Camera, Scene

__all__ = [
    "CcuFrame", "Finished", "camera_numbers", "ccu_fixed", "ccu_graph", "ccu_schedule",
    "encode_words", "finish", "gaussian_numbers", "pack_camera", "pack_gaussians", "project_fixed",
    "sh_monomials", "walk"]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]
Int32Array = npt.NDArray[np.int32]
UInt64Array = npt.NDArray[np.uint64]

#: Widening of the frustum in half-widths, as the reference has it.
FRUSTUM_MARGIN = 0.3

#: Gaussians that are evaluated at once: their words stay in the processor's caches.
_CHUNK = 4096


@lru_cache
def sh_monomials() -> Float64Array:
    """Matrix of shape [16, 16]: from SH coefficients to those of monomials of the direction.

    The monomials of a unit vector are, with ``q = x^2 - y^2``: 1; y, z, x; xy, yz, z^2, xz, q;
    yq, xyz, yz^2, z^3, xz^2, zq, xq. Every basis function of :mod:`splatforge.algos.sh` is a sum of
    those of its degree and below, so that lower degrees are the upper left corner.
    """
    c1 = sqrt(3 / (4 * np.pi))
    c2a, c2b, c2c = sqrt(15 / (4 * np.pi)), sqrt(5 / (16 * np.pi)), sqrt(15 / (16 * np.pi))
    c3a, c3b = sqrt(35 / (32 * np.pi)), sqrt(105 / (4 * np.pi))
    c3c, c3d, c3e = sqrt(21 / (32 * np.pi)), sqrt(7 / (16 * np.pi)), sqrt(105 / (16 * np.pi))
    to = np.zeros((16, 16))
    for basis, terms in enumerate((
        {0: sqrt(1 / (4 * np.pi))},
        {1: -c1}, {2: c1}, {3: -c1},
        {4: c2a}, {5: -c2a}, {6: 3 * c2b, 0: -c2b}, {7: -c2a}, {8: c2c},
        # x^2 + y^2 = 1 - z^2: y (3 x^2 - y^2) = y (1 - z^2 + 2 q) and so on.
        {1: -c3a, 11: c3a, 9: -2 * c3a}, {10: c3b}, {11: -5 * c3c, 1: c3c},
        {12: 5 * c3d, 2: -3 * c3d}, {13: -5 * c3c, 3: c3c}, {14: c3e},
        {3: c3a, 13: -c3a, 15: -2 * c3a},
    )):
        for monomial, factor in terms.items():
            to[monomial, basis] = factor
    return to


@lru_cache
def ccu_graph(design: CcuDesign, sh_degree: int) -> Dataflow:
    """Arithmetic of one Gaussian.

    Inputs are :func:`splatforge.designs.ccu.gaussian_words`, constants
    :data:`splatforge.designs.ccu.CAMERA_WORDS` but for what the graph does not need. Outputs are
    words of

    - ``depth``: a wide one, since it decides the order,
    - ``a``, ``b``, ``c``: slopes of the forms, :class:`splatforge.designs.feature.FeatureFormat`,
    - ``oblong``: by how much the Gaussian is longer than ``obb_ratio`` times its width,

    and raw integers of

    - ``mean_x``, ``mean_y``, ``red``, ``green``, ``blue``: as in the feature,
    - ``log_opacity``, ``log_det``, ``log_det_sharp``: -log2 of the opacity, log2 of the determinant
      of the covariance on the image, dilated and as it is; ``design.logarithm``,
    - ``long``, ``short``: three standard deviations along the axes; ``design.extent``,
    - ``box_x``, ``box_y``: half sides of the upright box around the oriented one,
    - ``axis_x``, ``axis_y``: unit vector along the longer axis; ``design.axis``.

    Without oriented boxes there is no ``oblong``, ``short``, box or axis. How far the results can
    be from real numbers tests/bounds.py works out for every Gaussian. In FP(8,17), for random
    scenes on 149x101 pixels (tests/test_ccu.py), means are off by at most 1.2e-3 px (bound 4.6e-3),
    slopes by 2.1e-4 of themselves (5.5e-3) in needles of a thousand pixels and by 3e-5 else (8e-4),
    colours by 8e-5 (7e-4) before they are rounded.

    Colour is a sum as of :meth:`splatforge.algos.dataflow.Builder.sum`: with zeros for the
    coefficients of a higher degree, the graph of that degree gives the same.

    Parameters
    ----------
    design : CcuDesign
        Formats, and whether there are oriented boxes.
    sh_degree : int
        0 to 3.
    """
    g = Builder()
    word = {name: g.input(name, wide=name in WIDE_WORDS) for name in gaussian_words(sh_degree)}
    camera = {name: g.constant(name, wide=name in WIDE_WORDS) for name in CAMERA_WORDS
              if name not in ("near", "flags", "reserved")}
    right, down = ([camera[f"{row}_{axis}"] for axis in "xyz"] for row in ("right", "down"))

    # View transform and mean.
    far = [g.wide_subtract(word[f"mean_{axis}"], camera[f"eye_{axis}"]) for axis in "xyz"]
    parts = [g.wide_multiply(part, camera[f"depth_{axis}"])
             for part, axis in zip(far, "xyz", strict=True)]
    depth = g.wide_add(g.wide_add(parts[0], parts[1]), parts[2])
    g.output("depth", depth)
    d = [g.narrow(part) for part in far]
    inverse_z = g.reciprocal(g.narrow(depth))
    x, y = g.dot(d, right) * inverse_z, g.dot(d, down) * inverse_z
    g.output("mean_x", g.to_fixed(x + camera["center_x"], design.feature.mean))
    g.output("mean_y", g.to_fixed(y + camera["center_y"], design.feature.mean))

    # Rows of the Jacobian times the rotation, times z, in pixels; then those times L.
    u, v = jacobian_rows(g, camera, x, y)

    def times_factor(row: list[Value]) -> list[Value]:
        return [g.dot(row, [word["l00"], word["l10"], word["l20"]]),
                g.dot(row[1:], [word["l11"], word["l21"]]), row[2] * word["l22"]]

    p, q = times_factor(u), times_factor(v)

    g.output("log_opacity", g.to_fixed(word["log_opacity"], design.logarithm))
    shape = footprint_outputs(g, p, q, inverse_z * inverse_z, design.logarithm)
    long, difference = shape.long, shape.difference
    g.output("long", g.ceil_fixed(long, design.extent))
    if design.obb_ratio:
        # The smaller one is the determinant over the larger; nothing cancels.
        short = (shape.det * shape.root_det) * (
            shape.inverse_large * g.literal("short_scale", SIGMAS * sqrt(2)))
        # Neither does it in the vector, whose squared norm is 2 spread along.
        along = abs(difference) + shape.spread
        norm2 = shape.spread * along
        norm = g.reciprocal_root(norm2 + norm2)
        first, second = along * norm, shape.twice_xy * norm
        axis_x = g.select(difference, first, second)
        axis_y = g.select(difference, second, first)
        g.output("oblong", long - short * g.literal("obb_ratio", design.obb_ratio))
        g.output("short", g.ceil_fixed(short, design.extent))
        for name, main, other in (("x", axis_x, axis_y), ("y", axis_y, axis_x)):
            g.output(f"box_{name}", g.ceil_fixed(
                abs(main) * long + abs(other) * short, design.extent))
            g.output(f"axis_{name}", g.to_fixed(main, design.axis))

    # Colour; what a lower degree does not need is left out of the graph.
    dx, dy, dz = direction(g, d)
    zz, squares = dz * dz, dx * dx - dy * dy
    monomials = (
        dy, dz, dx, dx * dy, dy * dz, zz, dx * dz, squares, dy * squares, (dx * dy) * dz,
        dy * zz, dz * zz, dx * zz, dz * squares, dx * squares)
    for channel in CHANNELS:
        coefficients = [word[f"sh{k}_{channel}"] for k in range((sh_degree + 1) ** 2)]
        g.output(channel, g.to_fixed(
            color_sum(g, coefficients, monomials), design.feature.color))
    return g.build()


@lru_cache
def ccu_schedule(design: CcuDesign) -> Schedule:
    """Which operation of the graph for degree 3 is done when, and on which unit."""
    return schedule(
        ccu_graph(design, 3), design.floating, design.interval, gaussian_words(3),
        lanes=BEAT_WORDS)


def gaussian_numbers(scene: Scene) -> dict[str, Float64Array]:
    """Numbers of every word of the Gaussians' records, shape [N] each, by name, not yet rounded."""
    scale = np.exp(scene.log_scales.astype(np.float64))
    quats = scene.quats.astype(np.float64)
    norm = (quats * quats).sum(axis=1)
    two = np.divide(2.0, norm, out=np.zeros_like(norm), where=norm > 0)
    w, x, y, z = quats.T
    rotation = np.stack([
        1 - two * (y * y + z * z), two * (x * y - w * z), two * (x * z + w * y),
        two * (x * y + w * z), 1 - two * (x * x + z * z), two * (y * z - w * x),
        two * (x * z - w * y), two * (y * z + w * x), 1 - two * (x * x + y * y),
    ], axis=1).reshape(-1, 3, 3)
    # The covariance is M M^T with M = R S; with M^T = Q T its factor is T^T, up to signs.
    factor = np.asarray(
        np.linalg.qr((rotation * scale[:, None, :]).transpose(0, 2, 1), mode="r"))
    numbers = {f"mean_{axis}": scene.means[:, k].astype(np.float64)
               for k, axis in enumerate("xyz")}
    numbers["log_opacity"] = np.logaddexp(0, -scene.opacity_logits.astype(np.float64)) * log2(np.e)
    for row in range(3):
        for column in range(row + 1):
            numbers[f"l{row}{column}"] = factor[:, column, row]
    count = scene.sh.shape[1]
    coefficients = np.einsum(
        "mk,nkc->nmc", sh_monomials()[:count, :count], scene.sh.astype(np.float64))
    coefficients[:, 0] += 0.5
    for k in range(count):
        for channel, name in enumerate(CHANNELS):
            numbers[f"sh{k}_{name}"] = coefficients[:, k, channel]
    return numbers


def camera_numbers(camera: Camera) -> dict[str, float]:
    """Numbers of every word of the camera's record that has one, not yet rounded."""
    rotation, eye = camera.w2c[:3, :3], camera.position
    numbers: dict[str, float] = {"near": camera.near}
    numbers |= {f"eye_{axis}": float(eye[k]) for k, axis in enumerate("xyz")}
    for name, row, scale in (
        ("right", 0, camera.fx), ("down", 1, camera.fy), ("ahead", 2, 1.0), ("depth", 2, 1.0)):
        numbers |= {f"{name}_{axis}": float(rotation[row, k]) * scale
                    for k, axis in enumerate("xyz")}
    numbers["center_x"], numbers["center_y"] = camera.cx, camera.cy
    for center, side, low, high in (
        (camera.cx, camera.width, "clamp_left", "clamp_right"),
        (camera.cy, camera.height, "clamp_top", "clamp_bottom"),
    ):
        margin = FRUSTUM_MARGIN * 0.5 * side
        numbers[low], numbers[high] = -center - margin, side - center + margin
    return numbers


def encode_words(
    fmt: Floating, names: tuple[str, ...], numbers: Mapping[str, npt.ArrayLike],
    wide: tuple[str, ...] = WIDE_WORDS,
) -> UInt32Array:
    """Words of shape [..., names]: binary32, rounded to `fmt` but for those that are `wide`."""
    return np.stack([
        BINARY32.quantize(numbers[name]).astype(np.uint32) if name in wide
        else floating.to_binary32(fmt, fmt.quantize(numbers[name])) for name in names], axis=-1)


def pack_gaussians(design: CcuDesign, scene: Scene) -> UInt32Array:
    """Records of Gaussians as they stand in memory, shape [N, 4 * beats]; once per scene."""
    names = gaussian_words(scene.sh_degree)
    records = np.zeros((scene.gaussians, BEAT_WORDS * gaussian_beats(scene.sh_degree)), np.uint32)
    records[:, :len(names)] = encode_words(design.floating, names, gaussian_numbers(scene))
    return records


def pack_camera(design: CcuDesign, camera: Camera, *, antialiased: bool) -> UInt32Array:
    """Record of a camera as it stands in memory, shape [20]."""
    words = encode_words(design.floating, CAMERA_WORDS, {
        **camera_numbers(camera), "flags": 0.0, "reserved": 0.0})
    words[CAMERA_WORDS.index("flags")] = FLAG_ANTIALIASED if antialiased else 0
    return words


@dataclass(frozen=True, kw_only=True, eq=False)
class Finished:
    """Gaussians in fixed point, before the walk; raw int64 of shape [N] each.

    Parameters
    ----------
    feature : dict
        Raw fields of the feature records.
    depth : ndarray
        Depth of the entries.
    culled : ndarray of bool
        Not in front of the near plane, or with a mean out of range, or too faint for 1/255.
    position_x, position_y : ndarray
        Centre, ``design.position``.
    long, short : ndarray
        Half sides along the axes, ``design.extent``.
    box_x, box_y : ndarray
        Half sides of the upright box, ``design.extent``.
    axis_x, axis_y : ndarray
        Vector along the longer axis, ``design.axis``.
    """

    feature: dict[str, Int64Array]
    depth: Int64Array
    culled: npt.NDArray[np.bool_]
    position_x: Int64Array
    position_y: Int64Array
    long: Int64Array
    short: Int64Array
    box_x: Int64Array
    box_y: Int64Array
    axis_x: Int64Array
    axis_y: Int64Array


def finish(
    design: CcuDesign, values: Mapping[str, Int64Array], near: int, *, antialiased: bool
) -> Finished:
    """From the graph's results to features and boxes, in integers.

    Depth is the difference of two wide words as integers, without its last bits, saturating.
    Half the logarithm of the compensation, ``det / det_sharp``, is added to the opacity's at twice
    the resolution of ``design.logarithm``, and the sum rounded once, half up. Positions are means,
    rounded half up. Half sides of squares are rounded up to whole pixels.

    Parameters
    ----------
    design : CcuDesign
        Formats.
    values : Mapping
        Outputs of :func:`ccu_graph`.
    near : int
        Word from the camera's record.
    antialiased : bool
        Flag from the camera's record.
    """
    to, extent = design.feature, design.extent
    # Positive words are ordered like their values.
    beyond = np.where(values["depth"] & BINARY32.sign_bit, 0, values["depth"]) - near
    opacity = compensated(design.logarithm, to.log_opacity, values, antialiased=antialiased)
    mean_x, mean_y = values["mean_x"], values["mean_y"]
    culled = (
        (beyond <= 0) | (np.abs(mean_x) == to.mean.raw_max) | (np.abs(mean_y) == to.mean.raw_max)
        | (opacity > to.log_opacity.raw_max))
    depth = np.clip(beyond >> design.depth_drop, 0, (1 << design.entry.depth_bits) - 1)
    side = square_side(extent, values["long"])
    box = dict.fromkeys(("long", "short", "box_x", "box_y"), side)
    box |= {"axis_x": np.full_like(side, 1 << design.axis.frac_bits),
            "axis_y": np.zeros_like(side)}
    if design.obb_ratio:
        oblong = floating.less(design.floating, 0, values["oblong"])
        box = {name: np.where(oblong, values[name], square) for name, square in box.items()}
    down = to.mean.frac_bits - extent.frac_bits
    return Finished(
        feature={name: values[name] for name in (
            "mean_x", "mean_y", "a", "b", "c", "red", "green", "blue")}
        | {"log_opacity": np.minimum(opacity, to.log_opacity.raw_max)},
        depth=depth, culled=culled,
        position_x=round_shift(mean_x, down), position_y=round_shift(mean_y, down), **box)


@nb.njit(inline="always")
def _regions(dx, dy, long, short, box_x, box_y, axis_x, axis_y, frac_bits, axis_bits):
    """Mask of the 8x8 regions of a tile that a box meets; `dx`, `dy`: tile's corner from centre."""
    half = (REGION_PX // 2) << frac_bits
    # Half of the shadow of a region on either axis of the box.
    shadow = half * (abs(axis_x) + abs(axis_y))
    mask = 0
    for region in range(4):
        x = dx + half * (1 + 2 * (region & 1))
        y = dy + half * (1 + 2 * (region >> 1))
        if (abs(x) < box_x + half and abs(y) < box_y + half
                and abs(x * axis_x + y * axis_y) < (long << axis_bits) + shadow
                and abs(y * axis_x - x * axis_y) < (short << axis_bits) + shadow):
            mask |= 1 << region
    return mask


@nb.njit(cache=True, nogil=True)
def _walk_kernel(
    shapes, culled, tiles_x, tiles_y, frac_bits, axis_bits, all_regions, walked, met, tiles, masks,
    places,
):  # fmt: skip
    """Walk the tiles of every box; with `tiles` empty only count."""
    tile_px = TILE_PX << frac_bits
    at = 0
    for n in range(len(culled)):
        walked[n] = met[n] = 0
        if culled[n]:
            continue
        x, y, long, short = shapes[0, n], shapes[1, n], shapes[2, n], shapes[3, n]
        box_x, box_y, axis_x, axis_y = shapes[4, n], shapes[5, n], shapes[6, n], shapes[7, n]
        first_x, end_x = tile_span(x, box_x, frac_bits, tiles_x)
        first_y, end_y = tile_span(y, box_y, frac_bits, tiles_y)
        if first_x >= end_x or first_y >= end_y:
            continue
        walked[n] = (end_x - first_x) * (end_y - first_y)
        for tile_y in range(first_y, end_y):
            for tile_x in range(first_x, end_x):
                mask = _regions(
                    tile_x * tile_px - x, tile_y * tile_px - y, long, short, box_x, box_y,
                    axis_x, axis_y, frac_bits, axis_bits)
                if mask == 0:
                    continue
                if len(tiles):
                    tiles[at] = tile_y * tiles_x + tile_x
                    masks[at] = 15 if all_regions else mask
                    places[at] = (tile_y - first_y) * (end_x - first_x) + tile_x - first_x
                    at += 1
                met[n] += 1


def walk(
    design: CcuDesign, finished: Finished, width: int, height: int
) -> tuple[Int32Array, Int32Array, Int32Array, Int64Array, Int32Array]:
    """Tiles that every Gaussian meets, in the order in which they are found.

    The upright box is cut to the image's tiles, and these are walked row after row. In each the
    box, upright or oriented, is tested against the four 8x8 regions: they meet if on none of the
    four axes the distance of the centres is the sum of the half shadows or more. All sums and
    products are exact.

    Returns
    -------
    walked : ndarray
        Tiles of the upright box, shape [N].
    met : ndarray
        Of those the tiles that are met, shape [N].
    tiles : ndarray
        Number of every met tile, row-major, Gaussian after Gaussian.
    masks : ndarray
        Mask of its regions.
    places : ndarray
        Its place among the tiles of its Gaussian's upright box.
    """
    shapes = np.stack([finished.position_x, finished.position_y, finished.long, finished.short,
                       finished.box_x, finished.box_y, finished.axis_x, finished.axis_y])
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    count = len(finished.culled)
    walked, met = np.zeros(count, np.int32), np.zeros(count, np.int32)
    tiles, masks, places = np.zeros(0, np.int32), np.zeros(0, np.int64), np.zeros(0, np.int32)
    for _ in range(2):
        _walk_kernel(
            shapes, finished.culled, tiles_x, tiles_y, design.extent.frac_bits,
            design.axis.frac_bits, not design.subtiles, walked, met, tiles, masks,
            places)
        if not len(tiles):
            total = int(met.sum(dtype=np.int64))
            tiles, masks = np.zeros(total, np.int32), np.zeros(total, np.int64)
            places = np.zeros(total, np.int32)
    return walked, met, tiles, masks, places


@dataclass(frozen=True, kw_only=True, eq=False)
class CcuFrame:
    """What leaves the unit in one frame.

    Parameters
    ----------
    features : ndarray
        Feature records of shape [visible, 4], in the order of memory: a Gaussian is visible if it
        meets a tile.
    ids : ndarray
        Which Gaussian each is, shape [visible]; int64.
    tiles : ndarray
        Tile of every entry, Gaussian after Gaussian, shape [entries]; int32.
    entries : ndarray
        The entries, shape [entries]; uint64.
    places : ndarray
        Place of every entry's tile among the tiles walked for its Gaussian, shape [entries]; int32.
    walked : ndarray
        Tiles that were tested for every Gaussian of the scene, 0 where it was culled before;
        shape [gaussians]; int32.
    met : ndarray
        Of those the tiles that were met; int32.
    """

    features: UInt64Array
    ids: Int64Array
    tiles: Int32Array
    entries: UInt64Array
    places: Int32Array
    walked: Int32Array
    met: Int32Array


def project_fixed(
    design: CcuDesign, gaussians: UInt32Array, camera: UInt32Array, sh_degree: int
) -> Finished:
    """All that comes before the walk, for records of shape [N, words]."""
    def words(names: tuple[str, ...], records: UInt32Array) -> dict[str, Int64Array]:
        # The last bits of narrow words are zero, or left out.
        drop = BINARY32.fraction_bits - design.floating.fraction_bits
        return {name: records[..., k].astype(np.int64) >> (0 if name in WIDE_WORDS else drop)
                for k, name in enumerate(names)}

    constants = {name: int(word) for name, word in words(CAMERA_WORDS, camera).items()}
    values = evaluate(
        ccu_graph(design, sh_degree), design.floating, words(gaussian_words(sh_degree), gaussians),
        constants)
    antialiased = bool(camera[CAMERA_WORDS.index("flags")] & FLAG_ANTIALIASED)
    return finish(design, values, constants["near"], antialiased=antialiased)


def ccu_fixed(
    design: CcuDesign, gaussians: UInt32Array, camera: UInt32Array, sh_degree: int, width: int,
    height: int,
) -> CcuFrame:
    """Features and entries of a frame, bit-true to :class:`splatforge.hw.ccu.Ccu`.

    Parameters
    ----------
    design : CcuDesign
        Formats and the intersection test.
    gaussians, camera : ndarray
        Records from :func:`pack_gaussians` and :func:`pack_camera`.
    sh_degree : int
        Of the records.
    width, height : int
        Frame in pixels.

    Returns
    -------
    CcuFrame
        Features, entries, and how many tiles were tested.

    Raises
    ------
    ValueError
        If there are more visible Gaussians than an entry can number.
    """
    count = len(gaussians)
    walked, met = np.zeros(count, np.int32), np.zeros(count, np.int32)
    features, ids, tiles, entries, places = [], [], [], [], []
    visible = 0
    for first in range(0, count, _CHUNK):
        part = slice(first, first + _CHUNK)
        finished = project_fixed(design, gaussians[part], camera, sh_degree)
        walked[part], met[part], part_tiles, masks, part_places = walk(
            design, finished, width, height)
        seen = np.flatnonzero(met[part])
        number = visible + np.arange(len(seen))
        visible += len(seen)
        if visible > 1 << design.entry.feature_bits:
            raise ValueError(
                f"Visible Gaussians must be at most {1 << design.entry.feature_bits}")
        ids.append(first + seen)
        features.append(encode_record("Feature", design.feature.fields(), 4, {
            name: raw[seen] for name, raw in finished.feature.items()}))
        repeats = met[part][seen]
        tiles.append(part_tiles)
        places.append(part_places)
        entries.append(design.entry.encode(
            np.repeat(number, repeats), np.repeat(finished.depth[seen], repeats), masks))
    return CcuFrame(
        features=np.concatenate([np.zeros((0, 4), np.uint64), *features]),
        ids=np.concatenate([np.zeros(0, np.int64), *ids]),
        tiles=np.concatenate([np.zeros(0, np.int32), *tiles]),
        entries=np.concatenate([np.zeros(0, np.uint64), *entries]),
        places=np.concatenate([np.zeros(0, np.int32), *places]), walked=walked, met=met)
