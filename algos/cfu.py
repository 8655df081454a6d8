"""Coarse filters: which Gaussians of a voxel may reach a group of tiles, by mean and largest scale.

A Gaussian of largest scale s with its mean at depth z, and at u on the image, is seen along x with
a standard deviation of at most ``sqrt((s/z)^2 (f^2 + t^2) + 0.3)`` px, t being u clamped as the
Jacobian is. An opacity of one falls to 1/255 at k = ``sqrt(2 ln 255)`` of these. With the group's
pixel centres within h of its own centre g, all from the principal point, no pixel is reached if
``|u - g| - h`` is more than that. Multiplied by z, which is positive, there is no division left:

    (|x - g z| - h z)^2 > (s norm)^2 + (dilation z)^2,  norm = k sqrt(f^2 + t^2)

where x, y and z are linear in the place q of the mean in its voxel. So three linear forms, of q the
numbers x - g z, y - g' z and z, are worked out once for a voxel and a group, in floating point;
what is done for every Gaussian is done in integers, in units of the voxel's: B, a power of two
above the distance of the voxel from the eye along every axis, and above twice its edge. Lengths on
the image are in units of ``unit_px`` pixels, at least the focal lengths and the image.

Of t it is enough to know a bound. The far one is the clamp's. The near one, for what reaches at
most :data:`MARGIN_PX`, is that of a mean so far from the group, ``f + t^2 / 2f >= sqrt(f^2 +
t^2)``.

Errors, in eps = 2^-18 of B, for formats with 17 fraction bits; the sum of the components of a unit
vector is at most sqrt(3), of the row of x - g z at most sqrt(6):

- The voxel's words are rounded to eps; the corner's components err by 1.55, x - g z by 3.8, along
  the edge by 1.2 more. The rest of the way to its value at the corner is in binary32 (0.9), which
  is then narrowed (3.7) and converted (0.5). Its coefficients err by 2.5 in two roundings and by 3
  in conversions. That makes 15.6, and for z 11.7 in the same way; all forms lose up to 4 where they
  are cut to 16 bits.
- z goes into ``h z`` with h at most a quarter, into the dilation with less than 1/64: 4.1 together.

:data:`SLACK` is 32 eps, and these are 23.7. All that follows is rounded to the safe side.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.ccu import camera_numbers
from splatforge.algos.dataflow import Builder, Dataflow, Value, evaluate
from splatforge.algos.footprint import DILATION
from splatforge.algos.schedule import Schedule, schedule
from splatforge.algos.workers import Workers
from splatforge.designs.cfu import (
    COEFFICIENT,
    DEPTH,
    DISTANCE,
    HALF,
    LARGE,
    NORM,
    OFFSET,
    PLACE_BITS,
    SCALE,
    CfuDesign,
)
from splatforge.designs.cfu import DILATION as DILATION_FORMAT
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.voxel import COARSE_INTEGERS, COARSE_WORDS, STREAM_CAMERA_WORDS
from splatforge.scenes import Camera

__all__ = [
    "ALPHA_SIGMAS", "COUNT_BIAS", "FORMS", "MARGIN_PX", "NEAR_SLACK", "RECORD", "SLACK", "CfuFrame",
    "Visits", "block_exponent", "cfu_fixed", "cfu_graph", "cfu_schedule", "coarse_numbers",
    "filter_fixed", "group_center", "near_depth", "scale_down", "scaled", "unpack_places"]

Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]
BoolArray = npt.NDArray[np.bool_]

#: Standard deviations along an axis of the image beyond which no alpha reaches 1/255.
ALPHA_SIGMAS = math.sqrt(2 * math.log(255))
#: What a small Gaussian reaches at most, in pixels.
MARGIN_PX = 32.0
#: Largest overhang of a group over the image, in pixels, and least unit of lengths on it.
_OVERHANG_PX, _LEAST_UNIT_PX = 64, 128.0
#: Constants of the camera are enlarged by what their rounding may take away.
_ENLARGED = 1 + 2.0**-14

#: Visits whose Gaussians a thread tests at once.
_VISITS = 256
#: What a Gaussian may be nearer to the group than it seems, in units of the forms' last bit; and
#: what it may be deeper.
SLACK = 8
NEAR_SLACK = 5
#: Depths below this, in the same units, are not good enough to tell what is small.
SHALLOW_BITS = 9
#: Bits of the fraction of a word of binary16; how far a scale's significand is shifted up before
#: the voxel's exponent and its own shift it down, by their difference less :data:`SCALE_BIAS`.
_HALF_BITS = 10
SCALE_UP = SCALE.frac_bits - _HALF_BITS - 1
SCALE_BIAS = 112

#: Shifts between formats: of an offset to the products of coefficients and places, and of their
#: sum; of other products.
OFFSET_UP = COEFFICIENT.frac_bits + PLACE_BITS - OFFSET.frac_bits
FORM_DOWN = COEFFICIENT.frac_bits + PLACE_BITS - DEPTH.frac_bits
HALF_DOWN = HALF.frac_bits
BEYOND_DOWN = DEPTH.frac_bits - DISTANCE.frac_bits
REACH_DOWN = SCALE.frac_bits + NORM.frac_bits - DISTANCE.frac_bits
LARGE_DOWN = LARGE.frac_bits + SCALE.frac_bits - DEPTH.frac_bits
#: A product of dilation and depth keeps three bits more than distances.
DILATED_DOWN = DILATION_FORMAT.frac_bits + DEPTH.frac_bits - (DISTANCE.frac_bits + 3)
_DISTANCE_MAX, _DEPTH_MAX = DISTANCE.raw_max, DEPTH.raw_max
_SCALE_BITS = SCALE.frac_bits

#: Words of a voxel and a group: the corner less the edge, relative to the eye, and the edge, in
#: units of the voxel's; where the centre of the group is in pixels, beyond :data:`COUNT_BIAS`.
RECORD = ("d_x", "d_y", "d_z", "size", "column", "row")
#: A word of binary32 with this exponent counts in ones in its last bits.
COUNT_BIAS = float(1 << BINARY32.fraction_bits)
#: Outputs of the arithmetic: offset and coefficients of x - g z, y - g' z and z; half a side; norms
#: for what is small.
FORMS = (*(f"{form}_{part}" for form in "uvz" for part in "0123"), "half", "norm_x", "norm_y")


def coarse_numbers(camera: Camera) -> dict[str, float]:
    """Numbers of :data:`splatforge.designs.voxel.COARSE_WORDS`, not yet rounded; integers are raw.

    Parameters
    ----------
    camera : Camera
        In the lengths of the voxels' records.
    """
    numbers, words = camera_numbers(camera), {}
    focal = {"x": camera.fx, "y": camera.fy}
    ends = {"x": (camera.cx, camera.width + _OVERHANG_PX - camera.cx),
            "y": (camera.cy, camera.height + _OVERHANG_PX - camera.cy)}
    unit_px = max(_LEAST_UNIT_PX, *focal.values(), *(abs(end) for two in ends.values()
                                                     for end in two))
    for name, row in (("across", "right"), ("below", "down")):
        words |= {f"{name}_{axis}": numbers[f"{row}_{axis}"] / unit_px for axis in "xyz"}
    words["pixel"] = 1 / unit_px
    words["principal_x"], words["principal_y"] = camera.cx / unit_px, camera.cy / unit_px
    far = {}
    for axis, low, high in (("x", "left", "right"), ("y", "top", "bottom")):
        clamp = max(abs(numbers[f"clamp_{low}"]), abs(numbers[f"clamp_{high}"]))
        far[axis] = ALPHA_SIGMAS * _ENLARGED * math.hypot(focal[axis], clamp)
        words[f"norm_{axis}"] = ALPHA_SIGMAS * _ENLARGED * focal[axis] / unit_px
        words[f"bend_{axis}"] = _ENLARGED * math.sqrt(ALPHA_SIGMAS * unit_px / (2 * focal[axis]))
        words[f"coarse_far_{axis}"] = _raised(NORM, far[axis] / unit_px)
    dilation = ALPHA_SIGMAS * math.sqrt(DILATION) * _ENLARGED
    words["coarse_dilation"] = _raised(DILATION_FORMAT, dilation / unit_px)
    large = max(far.values()) / (MARGIN_PX * (1 - 2.0**-6) - dilation)
    if large >= LARGE.to_float(LARGE.raw_max):
        # A focal length of tens of thousands of pixels: nothing counts as small.
        words |= {"norm_x": words["norm_x"] + 4, "norm_y": words["norm_y"] + 4}
    words["coarse_large"] = _raised(LARGE, large)
    return words


def _raised(to, value: float) -> float:
    """Raw integer of `to` next above `value`, saturating."""
    return float(min(math.ceil(value / to.resolution), to.raw_max))


@lru_cache
def cfu_graph(design: CfuDesign) -> Dataflow:
    """Arithmetic of one voxel for one group.

    Inputs are :data:`RECORD`, constants words of the camera's record and ``count_bias``, which is
    :data:`COUNT_BIAS`. Outputs are raw integers by the names of :data:`FORMS`: offsets in
    :data:`splatforge.designs.cfu.OFFSET`, coefficients in ``COEFFICIENT``, ``half`` in ``HALF`` and
    norms in ``NORM``, these three rounded up.
    """
    g = Builder()
    word = {name: g.input(name, wide=True) for name in RECORD}
    wide = {name: g.constant(name, wide=True) for name in (
        "count_bias", "depth_x", "depth_y", "depth_z", *COARSE_WORDS[:9])}
    narrow = {name: g.constant(name) for name in (
        "ahead_x", "ahead_y", "ahead_z", "norm_x", "norm_y", "bend_x", "bend_y")}
    corner = [g.wide_add(word[f"d_{axis}"], word["size"]) for axis in "xyz"]
    size, pixel = g.narrow(word["size"]), g.narrow(wide["pixel"])
    margin = pixel * g.literal("margin", design.group_px / 2 + MARGIN_PX)
    g.output("half", g.ceil_fixed(
        pixel * g.literal("half_side", (design.group_px / 2 - 0.5) * _ENLARGED), HALF))

    def form(name: str, row: list[Value], rounded: list[Value]) -> None:
        x, y, z = (g.wide_multiply(a, b) for a, b in zip(row, corner, strict=True))
        g.output(f"{name}_0", g.to_fixed(g.narrow(g.wide_add(g.wide_add(x, y), z)), OFFSET))
        for number, part in enumerate(rounded, 1):
            g.output(f"{name}_{number}", g.to_fixed(part * size, COEFFICIENT))

    depth = [wide[f"depth_{axis}"] for axis in "xyz"]
    for axis, name, row, count in (("x", "u", "across", "column"), ("y", "v", "below", "row")):
        center = g.wide_subtract(
            g.wide_multiply(g.wide_subtract(word[count], wide["count_bias"]), wide["pixel"]),
            wide[f"principal_{axis}"])
        relative = [g.wide_subtract(wide[f"{row}_{k}"], g.wide_multiply(center, ahead))
                    for k, ahead in zip("xyz", depth, strict=True)]
        form(name, relative, [g.narrow(part) for part in relative])
        bent = (abs(g.narrow(center)) + margin) * narrow[f"bend_{axis}"]
        g.output(f"norm_{axis}", g.ceil_fixed(narrow[f"norm_{axis}"] + bent * bent, NORM))
    form("z", depth, [narrow[f"ahead_{axis}"] for axis in "xyz"])
    return g.build()


@lru_cache
def cfu_schedule(design: CfuDesign) -> Schedule:
    """Which operation of the graph is done when, and on which unit; a record comes in one beat."""
    return schedule(
        cfu_graph(design), design.floating, design.interval, RECORD, lanes=len(RECORD))


def _exponent(fmt: Floating, word: Int64Array) -> Int64Array:
    return word >> fmt.fraction_bits & ((1 << fmt.exponent_bits) - 1)


def block_exponent(fmt: Floating, words: Int64Array) -> Int64Array:
    """Exponent field of the unit below the voxel's, shape [N], of its words of shape [N, 4].

    It is that of the largest component, or of twice the edge.
    """
    exponents = _exponent(fmt, words)
    return np.maximum(exponents[:, :3].max(axis=1), exponents[:, 3] + 1)


def scaled(fmt: Floating, words: Int64Array, block: Int64Array) -> Int64Array:
    """Words in units of the voxel's, shape [N, 4]: exact, or zero where they are too small."""
    exponents = _exponent(fmt, words)
    moved = exponents + fmt.bias - 1 - block[:, None]
    word = words + ((moved - exponents) << fmt.fraction_bits)
    return np.where((exponents == 0) | (moved <= 0), 0, word)


def group_center(design: CfuDesign, place: Int64Array) -> Int64Array:
    """Words of binary32 of where the centre of a column or row of groups is, as :data:`RECORD`."""
    px = place * design.group_px + design.group_px // 2
    return int(BINARY32.quantize(COUNT_BIAS)) + px


def near_depth(near: int, block: Int64Array) -> Int64Array:
    """The near plane in units of the forms' last bit, less :data:`NEAR_SLACK`, shape [N].

    Parameters
    ----------
    near : int
        Word of binary32.
    block : ndarray
        From :func:`block_exponent`.
    """
    exponent = near >> BINARY32.fraction_bits & 0xFF
    significand = near & ((1 << BINARY32.fraction_bits) - 1) | 1 << BINARY32.fraction_bits
    down = block + (BINARY32.fraction_bits + 1 - DEPTH.frac_bits) - exponent
    raw = np.where(down < BINARY32.fraction_bits + 1 - DEPTH.width, DEPTH.raw_max,
                   significand >> np.clip(down, 0, BINARY32.fraction_bits + 1))
    return (raw if exponent else np.zeros_like(block)) - NEAR_SLACK


def unpack_places(beats: UInt32Array, count: int) -> tuple[Int64Array, Int64Array]:
    """Places, shape [count, 3], and words of scales, shape [count], of beats of a coarse half."""
    pair = beats.reshape(-1, 2).astype(np.int64)[:count]
    low = (1 << PLACE_BITS) - 1
    return (np.stack([pair[:, 0] & low, pair[:, 0] >> PLACE_BITS, pair[:, 1] & low], axis=1),
            pair[:, 1] >> PLACE_BITS)


@nb.njit(inline="always")
def scale_down(block):
    """By how much the exponent of a scale lies below that of a scale of a half, 0 to 63.

    At 0 and at 63 it does not matter any more: everything is huge, or next to nothing.
    """
    return min(max(block - SCALE_BIAS, 0), 63)


@nb.njit(inline="always")
def _form(offset, x, y, z, qx, qy, qz):
    return ((offset << OFFSET_UP) + x * qx + y * qy + z * qz) >> FORM_DOWN


@nb.njit(inline="always")
def _reaches(value, half_z, scale, norm, dilated):
    """Whether what is `value` from the centre, times z, can reach the group along one axis."""
    beyond = min(max(abs(value) - half_z - SLACK, 0) >> BEYOND_DOWN, _DISTANCE_MAX)
    reach = (scale * norm >> REACH_DOWN) + 1
    return beyond * beyond <= reach * reach + dilated


@nb.njit(inline="always")
def _passes(form, block, near, camera, qx, qy, qz, word):
    """Whether a Gaussian passes: its place in the voxel's cube, and the word of its scale."""
    dilation, limit, far_x, far_y = camera
    u = _form(form[0], form[1], form[2], form[3], qx, qy, qz)
    w = _form(form[4], form[5], form[6], form[7], qx, qy, qz)
    z = _form(form[8], form[9], form[10], form[11], qx, qy, qz)
    depth = min(max(z, 0), _DEPTH_MAX)
    # The scale in the voxel's unit, rounded up; what is not a normal number is zero.
    exponent = word >> _HALF_BITS & 31
    fraction = word & ((1 << _HALF_BITS) - 1)
    significand = (fraction | 1 << _HALF_BITS) << SCALE_UP if exponent else 0
    down = scale_down(block) - exponent
    huge = down < 0 and exponent != 0
    down = min(max(down, 0), _SCALE_BITS)
    scale = (significand + (1 << down) - 1) >> down
    large = (scale * limit >> LARGE_DOWN) + 1 > depth or depth >> SHALLOW_BITS == 0
    dilated = (((depth * dilation >> DILATED_DOWN) + 1) ** 2 >> 6) + 1
    half_z = (depth * form[12] >> HALF_DOWN) + 1
    norm_x = far_x if large else min(form[13], far_x)
    norm_y = far_y if large else min(form[14], far_y)
    return z > near and (huge or (
        _reaches(u, half_z, scale, norm_x, dilated)
        and _reaches(w, half_z, scale, norm_y, dilated)))


@nb.njit(cache=True, nogil=True)
def _filter_kernel(forms, blocks, nears, voxel, places, scales, camera, passed):
    for n in range(len(voxel)):
        v = voxel[n]
        passed[n] = _passes(forms[v], blocks[v], nears[v], camera, places[n, 0], places[n, 1],
                            places[n, 2], scales[n])


@nb.njit(cache=True, nogil=True)
def _visit_kernel(chunk, forms, blocks, nears, halves, starts, memory, camera, passed):
    """The Gaussians of some visits, from memory."""
    low = (1 << PLACE_BITS) - 1
    for v in range(chunk * _VISITS, min((chunk + 1) * _VISITS, len(halves))):
        for rank in range(starts[v + 1] - starts[v]):
            half = halves[v] + rank
            first, second = np.int64(memory[half, 0]), np.int64(memory[half, 1])
            passed[starts[v] + rank] = _passes(
                forms[v], blocks[v], nears[v], camera, first & low, first >> PLACE_BITS,
                second & low, second >> PLACE_BITS)


def filter_fixed(
    design: CfuDesign, words: Int64Array, columns: Int64Array, rows: Int64Array,
    voxel: Int64Array, places: Int64Array, scales: Int64Array, camera: UInt32Array,
) -> BoolArray:
    """Which Gaussians pass, shape [N].

    Parameters
    ----------
    design : CfuDesign
        Formats, and the side of a group.
    words : ndarray
        Of voxels as they are seen by a group, shape [V, 4]: corner less edge, relative to the eye,
        and the edge; ``design.floating``.
    columns, rows : ndarray
        Place of the group in groups, shape [V].
    voxel : ndarray
        Which of these each Gaussian is in, shape [N].
    places, scales : ndarray
        Place in the voxel's cube, shape [N, 3], and words of binary16, shape [N].
    camera : ndarray
        Record of the camera.
    """
    passed = np.ones(len(voxel), np.bool_)
    if design.filters:
        forms, block, nears, integers = _forms(design, words, columns, rows, camera)
        _filter_kernel(forms, block, nears, voxel, places, scales, integers, passed)
    return passed


def _forms(
    design: CfuDesign, words: Int64Array, columns: Int64Array, rows: Int64Array,
    camera: UInt32Array,
) -> tuple[Int64Array, Int64Array, Int64Array, tuple[int, ...]]:
    """Forms of voxels, exponents of blocks, nearest depths in these; integers of the camera."""
    fmt = design.floating
    block = block_exponent(fmt, words)
    up = BINARY32.fraction_bits - fmt.fraction_bits
    inputs = {name: column << up for name, column in zip(
        RECORD[:4], scaled(fmt, words, block).T, strict=True)}
    inputs |= {"column": group_center(design, columns), "row": group_center(design, rows)}
    by_name = {name: int(word) for name, word in zip(STREAM_CAMERA_WORDS, camera, strict=True)}
    flow = cfu_graph(design)
    constants: Mapping[str, int] = {
        name: int(BINARY32.quantize(COUNT_BIAS)) if name == "count_bias"
        else by_name[name] >> (0 if name in flow.wide else up) for name in flow.constants}
    values = evaluate(flow, fmt, inputs, constants)
    forms = np.stack([np.broadcast_to(values[name], len(words)) for name in FORMS], axis=1)
    return (forms, block, near_depth(by_name["near"], block),
            tuple(by_name[name] for name in COARSE_INTEGERS))


@dataclass(frozen=True, kw_only=True, eq=False)
class Visits:
    """Voxels as groups see them, in order.

    Parameters
    ----------
    tags : ndarray
        Number of the group, modulo 16, shape [V].
    columns, rows : ndarray
        Its place in groups.
    words : ndarray
        Corner less edge, relative to the eye, and the edge, shape [V, 4]; floating words.
    counts : ndarray
        Gaussians in the voxel, 1 to 256; 0 where the group ends, and there is no voxel.
    prefixes : ndarray
        Of these the first that are looked at, 1 or more; 0 where the group ends.
    addresses : ndarray
        First beat of the coarse half from the scene's address.
    """

    tags: Int64Array
    columns: Int64Array
    rows: Int64Array
    words: Int64Array
    counts: Int64Array
    prefixes: Int64Array
    addresses: Int64Array


@dataclass(frozen=True, kw_only=True, eq=False)
class CfuFrame:
    """What happens to the Gaussians of all visits.

    Parameters
    ----------
    starts : ndarray
        Shape [V + 1]: visit v looks at the Gaussians ``starts[v]`` to ``starts[v + 1]``.
    halves : ndarray
        Where in memory the coarse half of the first of them is, in units of 8 bytes, shape [V].
    passed : ndarray
        Whether a Gaussian passes, shape [N].
    """

    starts: Int64Array
    halves: Int64Array
    passed: BoolArray

    def coarse(self, memory: UInt32Array, numbers: Int64Array) -> tuple[Int64Array, Int64Array]:
        """Places, shape [n, 3], and words of scales, shape [n], of Gaussians 0 to N - 1.

        Parameters
        ----------
        memory : ndarray
            The scene's beats, shape [beats, 4].
        numbers : ndarray
            Which of them, shape [n].
        """
        visit = np.searchsorted(self.starts, numbers, side="right") - 1
        return unpack_places(
            memory.reshape(-1, 2)[self.halves[visit] + numbers - self.starts[visit]], len(numbers))

    def survivors(self, visit: int) -> Int64Array:
        """Numbers in the voxel of the Gaussians that pass in a visit."""
        return np.flatnonzero(self.passed[self.starts[visit]:self.starts[visit + 1]])


def cfu_fixed(
    design: CfuDesign, visits: Visits, memory: UInt32Array, camera: UInt32Array
) -> CfuFrame:
    """Gaussians that pass, bit-true to :class:`splatforge.hw.cfu.Cfu`.

    Parameters
    ----------
    design : CfuDesign
        Formats, and the side of a group.
    visits : Visits
        Voxels and groups.
    memory : ndarray
        The scene's beats, shape [beats, 4].
    camera : ndarray
        Record of the camera.
    """
    starts = np.concatenate([np.zeros(1, np.int64), np.cumsum(visits.prefixes)])
    halves = 2 * visits.addresses
    passed = np.ones(int(starts[-1]), np.bool_)
    if design.filters:
        forms, block, nears, integers = _forms(
            design, visits.words, visits.columns, visits.rows, camera)
        with Workers() as workers:
            workers.run_chunks(
                _visit_kernel, -(-len(halves) // _VISITS), forms, block, nears, halves, starts,
                memory.reshape(-1, 2), integers, passed)
    return CfuFrame(starts=starts, halves=halves, passed=passed)
