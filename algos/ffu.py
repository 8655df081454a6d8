"""Fine filter: a voxel's Gaussians decoded and projected, in integers.

Steps of Zhang et al., "StreamingGS", DAC 2025 (accelerators.md, 1.2): what passes the coarse filter
is decoded by codebooks and projected exactly, and tested against the tiles of the group of pixels
that is being rendered. The arithmetic behind the decoding is that of :mod:`splatforge.algos.ccu`
with ``R S`` in place of the Cholesky factor; see :mod:`splatforge.algos.footprint`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from math import log, log2, sqrt

import numpy as np
import numpy.typing as npt

from splatforge.algos.dataflow import Builder, Dataflow, Value, evaluate
from splatforge.algos.fixed import round_shift
from splatforge.algos.footprint import (
    CHANNELS,
    color_sum,
    compensated,
    direction,
    footprint_outputs,
    jacobian_rows,
    square_side,
)
from splatforge.algos.records import decode_record, encode_record
from splatforge.algos.schedule import Schedule, schedule
from splatforge.designs.ccu import CAMERA_WORDS, FLAG_ANTIALIASED
from splatforge.designs.ccu import WIDE_WORDS as CCU_WIDE_WORDS
from splatforge.designs.codebook import (
    ENTRY_WORDS,
    CodebookDesign,
    codebook_degree,
    entry_beats,
)
from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.ffu import PLACE_WORDS, FfuDesign, record_words
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.tokens import GROUP_TAG_BITS, FineKind, SurvivorKind
from splatforge.scenes import Scene

__all__ = [
    "Codebooks", "FfuFrame", "FineGaussians", "decode_fine", "decoded_beats", "encode_fine",
    "ffu_fixed", "ffu_graph", "ffu_schedule", "fine_basis", "fine_vectors", "opacity_entries",
    "pack_codebooks", "place_words", "project_fine", "reach_of", "records_under_way", "sh_factors",
    "spans_in_group", "widen"]

Float64Array = npt.NDArray[np.float64]
Int64Array = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]
BoolArray = npt.NDArray[np.bool_]

#: Entries of every codebook by its name, words of binary16 of shape [entries, numbers].
Codebooks = Mapping[str, UInt16Array]

#: What is added to depths within a voxel, in its edges: they are in [-2 sqrt(3), 2 sqrt(3)], and
#: with it between 8 and 16, where words of binary32 are in steps of 2^-20.
DEPTH_OFFSET = 12.0
#: Gaussians that are evaluated at once: their words stay in the processor's caches.
_CHUNK = 4096
#: Format of the numbers of codebooks and of largest scales.
_HALF_EXPONENT, _HALF_FRACTION = 5, 10


def fine_basis(g: Builder, d: Sequence[Value], sh_degree: int) -> list[Value]:
    """Functions of the view direction that go with the SH coefficients from number 1 on.

    For the unit vector (x, y, z) along `d`, with ``q = x^2 - y^2``: y, z, x; xy, yz, z^2 - 1/3, xz,
    q; y (x^2 - y^2/3), xyz, y (z^2 - 1/5), z (z^2 - 3/5), x (z^2 - 1/5), zq, x (x^2/3 - y^2). They
    are those of :mod:`splatforge.algos.sh` without the factors of :func:`sh_factors`.
    """
    x, y, z = direction(g, d)
    third, fifth = g.literal("third", 1 / 3), g.literal("fifth", 1 / 5)
    xx, yy, zz, xy = x * x, y * y, z * z, x * y
    q, less = xx - yy, zz - fifth
    basis = [
        y, z, x, xy, y * z, zz - third, x * z, q, y * (xx - third * yy), xy * z, y * less,
        z * (zz - g.literal("three_fifths", 3 / 5)), x * less, z * q, x * (third * xx - yy)]
    return basis[:(sh_degree + 1) ** 2 - 1]


@lru_cache
def sh_factors() -> tuple[float, ...]:
    """For each of the 16 SH coefficients the factor of its function in :func:`fine_basis`."""
    c0, c1 = sqrt(1 / (4 * np.pi)), sqrt(3 / (4 * np.pi))
    c2a, c2b, c2c = sqrt(15 / (4 * np.pi)), sqrt(5 / (16 * np.pi)), sqrt(15 / (16 * np.pi))
    c3a, c3b = sqrt(35 / (32 * np.pi)), sqrt(105 / (4 * np.pi))
    c3c, c3d, c3e = sqrt(21 / (32 * np.pi)), sqrt(7 / (16 * np.pi)), sqrt(105 / (16 * np.pi))
    return (c0, -c1, c1, -c1, c2a, -c2a, 3 * c2b, -c2a, c2c, -3 * c3a, c3b, -5 * c3c, 5 * c3d,
            -5 * c3c, c3e, -3 * c3a)


@lru_cache
def ffu_graph(design: FfuDesign) -> Dataflow:
    """Arithmetic of one Gaussian.

    Inputs are :func:`splatforge.designs.ffu.record_words`, constants those of
    :data:`splatforge.designs.ccu.CAMERA_WORDS` that the graph needs. Outputs are words of

    - ``depth``: a wide one, ``ahead . 1.q`` plus :data:`DEPTH_OFFSET`, in edges of the voxel,
    - ``z``: along the view direction,
    - ``a``, ``b``, ``c``: slopes of the forms, :class:`splatforge.designs.feature.FeatureFormat`,

    and raw integers of

    - ``mean_x``, ``mean_y``, ``red``, ``green``, ``blue``: as in the feature,
    - ``log_opacity``, ``log_det``, ``log_det_sharp``: -log2 of the opacity, log2 of the determinant
      of the covariance on the image, dilated and as it is; ``design.logarithm``,
    - ``long``: three standard deviations along the longer axis; ``design.extent``,
    - ``reach_x``, ``reach_y``: how far along x and y it reaches a 255th; ``design.extent``.

    How far the results can be from real numbers tests/bounds.py works out for every Gaussian. In
    FP(8,17), for random scenes on 149x101 pixels (tests/test_ffu.py), means are off by at most
    1.2e-3 px (bound 6.1e-3), slopes by 3.5e-4 of themselves (1.9e-2) in needles of a thousand
    pixels and by 5e-5 else (1.6e-3), colours by 1e-4 (7.2e-4) before they are rounded, depths by
    1e-6 of the voxel's edge (2.9e-6) before their last bits are left out.
    """
    g = Builder()
    words = {name: g.input(name, wide=name.startswith("q_"))
             for name in record_words(design.codebooks)}
    camera = {name: g.constant(name, wide=name in CCU_WIDE_WORDS) for name in CAMERA_WORDS
              if name not in ("eye_x", "eye_y", "eye_z", "near", "flags", "reserved")}
    right, down, ahead = ([camera[f"{row}_{axis}"] for axis in "xyz"]
                          for row in ("right", "down", "ahead"))

    def vector(name: str) -> list[Value]:
        """Sums of the stages' entries."""
        numbers, stages = next(
            (numbers, stages) for each, numbers, stages in design.codebooks.vectors()
            if each == name)
        return [g.sum(words[f"{name}{stage}_{number}"] for stage in range(len(stages)))
                for number in numbers]

    # View transform and mean; depth in the voxel's own frame.
    q = [words[f"q_{axis}"] for axis in "xyz"]
    parts = [g.wide_multiply(part, camera[f"depth_{axis}"])
             for part, axis in zip(q, "xyz", strict=True)]
    offset = g.literal("depth_offset", DEPTH_OFFSET, wide=True)
    g.output("depth", g.wide_add(
        g.wide_add(parts[0], parts[1]), g.wide_add(parts[2], offset)))
    d = [words[f"d_{axis}"] + g.narrow(part) * words["size"]
         for part, axis in zip(q, "xyz", strict=True)]
    z = g.dot(d, ahead)
    g.output("z", z)
    inverse_z = g.reciprocal(z)
    x, y = g.dot(d, right) * inverse_z, g.dot(d, down) * inverse_z
    g.output("mean_x", g.to_fixed(x + camera["center_x"], design.feature.mean))
    g.output("mean_y", g.to_fixed(y + camera["center_y"], design.feature.mean))

    # The rotation from its quaternion, times sqrt(2); then the rows of the Jacobian times R S,
    # in units of the largest scale.
    rw, rx, ry, rz = vector("rotation")
    one = g.literal("one", 1.0)
    xx, yy, zz, xy, xz, yz, wx, wy, wz = (
        rx * rx, ry * ry, rz * rz, rx * ry, rx * rz, ry * rz, rw * rx, rw * ry, rw * rz)
    columns = ([one - (yy + zz), xy + wz, xz - wy], [xy - wz, one - (xx + zz), yz + wx],
               [xz + wy, yz - wx, one - (xx + yy)])
    first, second = vector("ratios")

    def times_factor(row: list[Value]) -> list[Value]:
        along, *across = (g.dot(row, column) for column in columns)
        return [along, across[0] * first, across[1] * second]

    u, v = jacobian_rows(g, camera, x, y)
    scale = words["scale"] * inverse_z
    shape = footprint_outputs(
        g, times_factor(u), times_factor(v), scale * scale, design.logarithm)
    log_opacity, reach = vector("opacity")
    g.output("log_opacity", g.to_fixed(log_opacity, design.logarithm))
    g.output("long", g.ceil_fixed(shape.long, design.extent))
    for name, deviation in (
        ("reach_x", shape.wide * g.reciprocal_root(shape.wide)),
        ("reach_y", shape.high * shape.root_high),
    ):
        g.output(name, g.ceil_fixed(reach * deviation, design.extent))

    # Colour.
    sh_degree = design.codebooks.sh_degree
    coefficients = vector("color") + [
        value for degree in range(1, sh_degree + 1) for value in vector(f"sh{degree}")]
    basis = fine_basis(g, d, sh_degree) if sh_degree else []
    for number, channel in enumerate(CHANNELS):
        g.output(channel, g.to_fixed(
            color_sum(g, coefficients[number::3], basis), design.feature.color))
    return g.build()


@lru_cache
def ffu_schedule(design: FfuDesign) -> Schedule:
    """Which operation of the graph is done when, and on which unit."""
    return schedule(
        ffu_graph(design), design.floating, design.interval, design.record, lanes=design.lanes)


def decoded_beats(design: FfuDesign) -> int:
    """Beats of decoded records on their way through the arithmetic, a power of two.

    As many as arrive until the last beat of a record is read, so that no round goes empty.
    """
    plan = ffu_schedule(design)
    records = plan.last_read // plan.interval + 2
    return 1 << (len(plan.reads) * records - 1).bit_length()


def records_under_way(design: FfuDesign) -> int:
    """Gaussians between their decoding and the end of the arithmetic, and some tokens besides."""
    plan = ffu_schedule(design)
    behind = (plan.finish - plan.last_read) // plan.interval
    records = decoded_beats(design) // len(plan.reads) + behind + 12
    return 1 << (records - 1).bit_length()


def widen(fmt: Floating, half: npt.ArrayLike) -> Int64Array:
    """Words of `fmt` from those of binary16; denormals are zero. Exact.

    Parameters
    ----------
    fmt : Floating
        With 8 bits of exponent, and a fraction no coarser than binary16's.
    half : array_like
        Words of binary16. Infinities and NaNs are read as numbers.
    """
    half = np.asarray(half, np.int64)
    exponent = half >> _HALF_FRACTION & ((1 << _HALF_EXPONENT) - 1)
    up = fmt.fraction_bits - _HALF_FRACTION
    magnitude = (half & 0x7FFF) + ((fmt.bias - 15) << _HALF_FRACTION) << up
    return np.where(exponent == 0, 0, np.where(half >> 15, magnitude | fmt.sign_bit, magnitude))


def reach_of(log_opacity: npt.ArrayLike, feature: FeatureFormat) -> Float64Array:
    """Standard deviations within which opacities reach a 255th; 0 of those that do not.

    Parameters
    ----------
    log_opacity : array_like
        ``-log2(opacity)``, as decoded.
    feature : FeatureFormat
        The opacity there may be larger, by half a unit of its format.
    """
    above = np.log2(255) - np.asarray(log_opacity, np.float64) + (
        feature.log_opacity.resolution / 2)
    return np.sqrt(2 * log(2) * np.maximum(above, 0))


def opacity_entries(log_opacity: npt.ArrayLike, feature: FeatureFormat) -> UInt16Array:
    """Entries of an opacity's codebook of one stage, words of shape [N, 2].

    ``-log2(opacity)`` to nearest, and how far that opacity reaches, rounded up.
    """
    near = np.asarray(log_opacity, np.float64).astype(np.float16)
    reach = reach_of(near, feature)
    up = reach.astype(np.float16)
    up = np.where(up < reach, np.nextafter(up, np.float16(np.inf)), up)
    return np.stack([near, up], axis=-1).view(np.uint16)


def fine_vectors(scene: Scene, feature: FeatureFormat) -> dict[str, Float64Array]:
    """Largest scales of shape [N], and vectors of shape [N, numbers] that codebooks quantize.

    Axes are permuted cyclically so that the longest is the first. Of a quaternion and its negative
    the one with the first number positive that is not zero.

    Parameters
    ----------
    scene : Scene
        Gaussians.
    feature : FeatureFormat
        See :func:`reach_of`.
    """
    scales = np.exp(scene.log_scales.astype(np.float64))
    longest = scales.argmax(axis=1)
    order = (longest[:, None] + np.arange(3)) % 3
    scales = np.take_along_axis(scales, order, axis=1)
    quats = scene.quats.astype(np.float64)
    quats /= np.linalg.norm(quats, axis=1, keepdims=True)
    # Times the quaternion that takes x to the longest axis, and the others along.
    half = np.where(longest == 0, 1.0, 0.5)
    turn = np.where(longest == 0, 0.0, np.where(longest == 1, 0.5, -0.5))[:, None]
    w, vector = quats[:, :1], quats[:, 1:]
    axis = np.repeat(turn, 3, axis=1)
    rotation = np.concatenate([
        w * half[:, None] - (vector * axis).sum(axis=1, keepdims=True),
        w * axis + half[:, None] * vector + np.cross(vector, axis)], axis=1)
    first = np.take_along_axis(rotation, (rotation != 0).argmax(axis=1)[:, None], axis=1)
    log_opacity = np.logaddexp(0, -scene.opacity_logits.astype(np.float64)) * log2(np.e)
    count = scene.sh.shape[1]
    sh = scene.sh.astype(np.float64) * np.array(sh_factors())[:count, None]
    return {
        "scale": scales[:, 0], "rotation": sqrt(2) * rotation * np.where(first < 0, -1.0, 1.0),
        "ratios": np.divide(scales[:, 1:], scales[:, :1], out=np.zeros_like(scales[:, 1:]),
                            where=scales[:, :1] > 0),
        "opacity": np.stack([log_opacity, reach_of(log_opacity, feature)], axis=1),
        "color": 0.5 + sh[:, 0],
        **{f"sh{degree}": sh[:, degree**2:(degree + 1) ** 2].reshape(len(sh), 6 * degree + 3)
           for degree in range(1, round(sqrt(count)))}}


def place_words(design: FfuDesign, q: npt.ArrayLike, scale: npt.ArrayLike) -> dict[str, Int64Array]:
    """Words of a Gaussian's place in its voxel and of its largest scale, shape [N] each.

    Parameters
    ----------
    design : FfuDesign
        Formats.
    q : array_like
        Fractions of the place, 16 bits each, shape [N, 3].
    scale : array_like
        Largest scale, words of binary16, shape [N].
    """
    q = np.asarray(q, np.int64)
    one = BINARY32.bias << BINARY32.fraction_bits
    return {**{f"q_{axis}": one | q[:, k] << (BINARY32.fraction_bits - 16)
               for k, axis in enumerate("xyz")}, "scale": widen(design.floating, scale)}


def encode_fine(design: CodebookDesign, indices: Mapping[str, npt.ArrayLike]) -> UInt64Array:
    """Beats of Gaussians' indices as they stand in memory, shape [N, 2], low word first.

    Parameters
    ----------
    design : CodebookDesign
        Codebooks.
    indices : Mapping
        Of shape [N] for every codebook.

    Raises
    ------
    ValueError
        If an index does not fit its bits.
    """
    return encode_record("Index", design.fields(), 2, {
        name: np.asarray(indices[name], np.int64) for name, _, _ in design.fields()})


def decode_fine(
    design: FfuDesign, codebooks: Codebooks, beats: UInt64Array, sh_degree: int = 3
) -> dict[str, Int64Array]:
    """Words of all codebooks' entries that beats of indices mean, shape [N] each.

    Those of SH of a degree above `sh_degree`, the scene's, are zero.
    """
    indices = decode_record(design.codebooks.fields(), beats)
    return {name: widen(design.floating, codebooks[book][indices[book], k])
            if codebook_degree(book) <= sh_degree else np.zeros(len(beats), np.int64)
            for book, _, names in design.codebooks.codebooks() for k, name in enumerate(names)}


def pack_codebooks(design: CodebookDesign, codebooks: Codebooks) -> UInt16Array:
    """Codebooks as they stand in memory, halves of shape [beats, 8].

    Raises
    ------
    ValueError
        If a codebook does not have the entries or numbers that it must.
    """
    parts = []
    for name, entries, names in design.codebooks():
        words = np.asarray(codebooks[name], np.uint16)
        if words.shape != (entries, len(names)):
            raise ValueError(f"Codebook {name} must be of shape {(entries, len(names))}, "
                             f"not {words.shape}")
        padded = np.zeros((entries, ENTRY_WORDS * entry_beats(len(names))), np.uint16)
        padded[:, :len(names)] = words
        parts.append(padded.reshape(-1, ENTRY_WORDS))
    return np.concatenate(parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class FineGaussians:
    """Projected Gaussians, whatever group they are tested against; raw int64 of shape [N] each.

    Parameters
    ----------
    feature : dict
        Raw fields of the features.
    depth : ndarray
        Depth within the voxel, ``design.depth_bits``.
    culled : ndarray of bool
        Not in front of the near plane, or with a mean out of range, or too faint for 1/255.
    position_x, position_y : ndarray
        Centre, ``design.position``.
    extent_x, extent_y : ndarray
        Half sides of the upright box, ``design.extent``.
    """

    feature: dict[str, Int64Array]
    depth: Int64Array
    culled: BoolArray
    position_x: Int64Array
    position_y: Int64Array
    extent_x: Int64Array
    extent_y: Int64Array


def _finish(
    design: FfuDesign, values: Mapping[str, Int64Array], near: int, *, antialiased: bool
) -> FineGaussians:
    """From the graph's results to features and boxes, in integers.

    The box is what reaches a 255th, within the reference's square of three standard deviations.
    Depth is the upper bits of the wide word's fraction. ``z`` and `near` are words of the graph's
    format; positive ones are ordered like their values.
    """
    fmt, to = design.floating, design.feature
    z = values["z"]
    opacity = compensated(design.logarithm, to.log_opacity, values, antialiased=antialiased)
    culled = (z & fmt.sign_bit != 0) | (z <= near) | (opacity > to.log_opacity.raw_max)
    for axis in "xy":
        culled |= np.abs(values[f"mean_{axis}"]) == to.mean.raw_max
    side = square_side(design.extent, values["long"])
    down = to.mean.frac_bits - design.extent.frac_bits
    fraction = values["depth"] & ((1 << BINARY32.fraction_bits) - 1)
    return FineGaussians(
        feature={name: values[name] for name in ("mean_x", "mean_y", "a", "b", "c", *CHANNELS)}
        | {"log_opacity": np.minimum(opacity, to.log_opacity.raw_max)},
        depth=fraction >> (BINARY32.fraction_bits - design.depth_bits), culled=culled,
        **{f"position_{axis}": round_shift(values[f"mean_{axis}"], down) for axis in "xy"},
        **{f"extent_{axis}": np.minimum(values[f"reach_{axis}"], side) for axis in "xy"})


def project_fine(
    design: FfuDesign, words: Mapping[str, Int64Array], camera: UInt32Array
) -> FineGaussians:
    """Gaussians by the words of their records, bit-true to :class:`splatforge.hw.ffu.Ffu`.

    Parameters
    ----------
    design : FfuDesign
        Formats and codebooks.
    words : Mapping
        Of :func:`splatforge.designs.ffu.record_words`, shape [N] each: ``q_*`` of binary32, the
        others of the design's format.
    camera : ndarray
        The camera's record, which begins with :data:`splatforge.designs.ccu.CAMERA_WORDS`.
    """
    drop = BINARY32.fraction_bits - design.floating.fraction_bits
    record = dict(zip(CAMERA_WORDS[:-1], (int(word) for word in camera), strict=False))
    constants = {name: word if name in CCU_WIDE_WORDS else word >> drop
                 for name, word in record.items()}
    flow = ffu_graph(design)
    count = len(words[PLACE_WORDS[0]])
    parts = [
        evaluate(flow, design.floating, {
            name: words[name][first:first + _CHUNK] for name in flow.inputs}, constants)
        for first in range(0, max(count, 1), _CHUNK)]
    return _finish(
        design, {name: np.concatenate([part[name] for part in parts]) for name, _ in flow.outputs},
        record["near"] >> drop, antialiased=bool(record["flags"] & FLAG_ANTIALIASED))


def spans_in_group(
    design: FfuDesign, fine: FineGaussians, x: npt.ArrayLike, y: npt.ArrayLike, width: int,
    height: int,
) -> tuple[Int64Array, BoolArray]:
    """Tiles of groups that Gaussians' boxes meet.

    Parameters
    ----------
    design : FfuDesign
        Size of a group.
    fine : FineGaussians
        Gaussians, N of them.
    x, y : array_like
        Column and row of the group that each is tested against, in groups.
    width, height : int
        Frame in pixels.

    Returns
    -------
    spans : ndarray
        First column and row, last column and row of the tiles that are met, in the group, shape
        [N, 4]; zeros of what is not kept.
    kept : ndarray of bool
        Not culled, and some tile is met.
    """
    spans = np.zeros((len(fine.depth), 4), np.int64)
    kept = ~fine.culled
    tile = TILE_PX << design.extent.frac_bits
    for axis, (place, side) in enumerate(((x, width), (y, height))):
        first_tile = np.asarray(place, np.int64) * design.group_tiles
        tiles = np.clip(-(-side // TILE_PX) - first_tile, 0, design.group_tiles)
        position = (fine.position_x, fine.position_y)[axis] - first_tile * tile
        extent = (fine.extent_x, fine.extent_y)[axis]
        first = np.clip((position - extent) // tile, 0, tiles)
        end = np.clip((position + extent + (tile - 1)) // tile, 0, tiles)
        kept &= first < end
        spans[:, axis], spans[:, axis + 2] = first, end - 1
    return np.where(kept[:, None], spans, 0), kept


@dataclass(frozen=True, kw_only=True, eq=False)
class FfuFrame:
    """What becomes of tokens, of T of them, if no group ends early.

    Parameters
    ----------
    places : ndarray
        Beat of the indices of every Gaussian, from the scene's first; shape [T].
    kept : ndarray of bool
        Whether a token leaves the unit: Gaussians that are seen, and ends.
    tokens : ndarray
        Those that leave it, records of :meth:`splatforge.designs.ffu.FfuDesign.token_fields` of
        shape [tokens, 4].
    """

    places: Int64Array
    kept: BoolArray
    tokens: UInt64Array


def ffu_fixed(
    design: FfuDesign, tokens: Mapping[str, Int64Array], fine: UInt64Array, codebooks: Codebooks,
    camera: UInt32Array, width: int, height: int, sh_degree: int = 3,
) -> FfuFrame:
    """Tokens of a frame, bit-true to :class:`splatforge.hw.ffu.Ffu`.

    Parameters
    ----------
    design : FfuDesign
        The unit.
    tokens : Mapping
        Fields of the tokens by name, shape [T] each, as in
        :func:`splatforge.hw.lib.tokens.survivor_layout`: of all kinds kind and tag, of voxels d_x,
        d_y, d_z, size, address, column and row, of Gaussians index, q_x, q_y, q_z and scale.
    fine : ndarray
        All beats of the scene, shape [beats, 2].
    codebooks : Mapping
        Entries.
    camera : ndarray
        The camera's record.
    width, height : int
        Frame in pixels.
    sh_degree : int
        Of the scene: SH of higher degrees are zero, whatever the codebooks say.
    """
    kind = tokens["kind"]
    number = np.arange(len(kind))
    gaussians = np.flatnonzero(kind == SurvivorKind.GAUSSIAN)
    voxel = np.maximum.accumulate(np.where(kind == SurvivorKind.VOXEL, number, 0))[gaussians]
    places = np.zeros(len(kind), np.int64)
    places[gaussians] = tokens["address"][voxel] + tokens["index"][gaussians]
    q = np.stack([tokens[f"q_{axis}"][gaussians] for axis in "xyz"], axis=1)
    words = {name: tokens[name][voxel] for name in ("d_x", "d_y", "d_z", "size")}
    words |= place_words(design, q, tokens["scale"][gaussians])
    words |= decode_fine(design, codebooks, fine[places[gaussians]], sh_degree)
    seen = project_fine(design, words, camera)
    spans, kept = spans_in_group(
        design, seen, tokens["column"][voxel], tokens["row"][voxel], width, height)
    ends = {SurvivorKind.VOXEL_END: FineKind.VOXEL_END, SurvivorKind.GROUP_END: FineKind.GROUP_END}
    leaves = np.isin(kind, list(ends))
    leaves[gaussians] = kept
    columns = {"kind": np.zeros(len(kind), np.int64)}
    for before, after in ends.items():
        columns["kind"][kind == before] = after
    columns["tag"] = tokens["tag"] % (1 << GROUP_TAG_BITS)
    found = {**seen.feature, "depth": seen.depth, "extent_x": seen.extent_x,
             "extent_y": seen.extent_y, "first_x": spans[:, 0], "first_y": spans[:, 1],
             "last_x": spans[:, 2], "last_y": spans[:, 3]}
    for name, values in found.items():
        columns[name] = np.zeros(len(kind), np.int64)
        columns[name][gaussians] = values
    return FfuFrame(
        places=places, kept=leaves, tokens=encode_record("Token", design.token_fields(), 4, {
            name: values[leaves] for name, values in columns.items()}))
