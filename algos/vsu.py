"""Sorting of voxels: where on the image each can be seen, in which order, and by which groups.

A voxel is seen by a group of tiles if the rectangle of all that is in it meets the group. The
rectangle holds, for every Gaussian that a record stands for, the part of the image where its alpha
can reach 1/255. In camera space let the voxel's centre be at ``(x, y, z)``, u = x/z on the image
(all lengths along x and y times the focal length f), its means within rho of the centre, and s
their largest scale.

- A mean ``(x + e, z + g)`` lies at ``u + (e - u g) / (z + g)``. Since the vector (e/f, g) is no
  longer than rho, it is off by at most ``rho sqrt(f^2 + u^2) / (z - rho)``.
- The covariance is that of a 3D Gaussian no wider than s in any direction, seen through a row of
  the Jacobian of norm ``sqrt(f^2 + t^2) / z``, with t on the image, clamped, within the former
  bound of u; dilated by 0.3 px^2. The alpha of an opacity of one falls to 1/255 at ``sqrt(2 ln
  255)`` standard deviations, along each axis; ``sqrt(p + q) <= sqrt(p) + sqrt(q)``.
- Where ``z - rho`` is not beyond the near plane there is no such bound; but what is in the voxel
  in front of the eye cannot be seen beyond a side of the image, at b from the principal point, if
  all of it is more than ``sqrt(f^2 + t^2) s sqrt(2 ln 255)`` on the far side of the plane ``x =
  b z``; of means the nearest to it is as near as the centre less ``rho sqrt(f^2 + b^2)``.

Gaussians of a voxel lie by descending scale, and what they reach around their means is in
proportion to it. So a group beyond the rectangle of those behind a prefix, where that reach is
smaller by as many octaves as the record says, needs the prefix alone: of the prefixes with which
that is so, the shortest.

Arithmetic errs in these ways, with eps the relative error of one operation, D the corner less the
eye, a the voxel's edge, and ``m = |D_x| + |D_y| + |D_z| + 4.5 a``:

- Each coordinate of the centre relative to the eye errs by 2.1 eps of ``|D_i| + 1.5 a``, its
  products with a row and their sum by four eps more: x/f and z each by 6.1 eps m. Together that is
  a centre displaced by 8.7 eps m; products with b add 3 eps f m. Rho is enlarged by 16 eps m.
- What follows are products of few factors: reciprocals are made larger by 32 eps, of which the
  longest chain of roundings, that of ``sqrt(f^2 + t^2)``, takes 14. The position u errs by 3.3 eps
  of itself: 8 eps are added to ``rho / (z - rho)``, which ``sqrt(f^2 + u^2)`` then multiplies.
- Positions on the image are rounded three times to eps, 0.19 px in images of 16384, and once to an
  eighth of a pixel; :data:`MARGIN_PX` is 0.43 px more than the dilation needs. What Gaussians
  reach around their means is rounded up.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from splatforge.algos import floating
from splatforge.algos.ccu import camera_numbers, encode_words
from splatforge.algos.cfu import ALPHA_SIGMAS, coarse_numbers
from splatforge.algos.dataflow import Builder, Dataflow, Value, evaluate
from splatforge.algos.schedule import Schedule, schedule
from splatforge.designs.ccu import BEAT_WORDS, CAMERA_WORDS, FLAG_ANTIALIASED
from splatforge.designs.floating import BINARY32, Floating
from splatforge.designs.voxel import (
    CELL_BITS,
    CHILD_WEIGHT_BITS,
    COARSE_INTEGERS,
    LEVEL_BIT,
    OCTAVE_BITS,
    OCTREE_LEVELS,
    POPULATION_BITS,
    PREFIX_SHIFTS,
    PREFIX_STEP,
    STREAM_CAMERA_WORDS,
    VOXEL_BEATS,
    VOXEL_WORDS,
    WEIGHT_BITS,
    WIDE_WORDS,
    WORD_INTEGERS,
)
from splatforge.designs.vsu import BLUR, DISTANCE_BITS, RECTANGLE, VsuDesign
from splatforge.scenes import Camera

__all__ = ["MARGIN_PX", "RECORD", "VsuFrame", "half_to_binary32", "pack_stream_camera",
           "prefix_counts", "rectangles", "sort_keys", "stream_camera_numbers",
           "voxels_under_way", "vsu_fixed", "vsu_graph", "vsu_schedule"]

Int64Array = npt.NDArray[np.int64]
UInt32Array = npt.NDArray[np.uint32]
BoolArray = npt.NDArray[np.bool_]

#: Pixels by which a Gaussian without size can be seen around its mean, ``ALPHA_SIGMAS *
#: sqrt(DILATION)`` or 1.82, and what rounding may take; in units of rectangles a whole number.
MARGIN_PX = 2.25

#: What the arithmetic takes of a voxel, in two beats: its place, and of its reach how far means are
#: from the centre, and their largest scale.
RECORD = ("base_x", "base_y", "base_z", "size", "rho", "scale")
#: Words of the camera that it takes.
_CAMERA = tuple(name for name in STREAM_CAMERA_WORDS if name in (
    "eye_x", "eye_y", "eye_z", "near", "center_x", "center_y", "focal2_x", "focal2_y", "far_x",
    "far_y", "edge_left", "edge_right", "edge_top", "edge_bottom") or name.startswith(
        ("right_", "down_", "ahead_")))


def stream_camera_numbers(camera: Camera) -> dict[str, float]:
    """Numbers of every word of the camera's record that has one, not yet rounded."""
    numbers = camera_numbers(camera) | coarse_numbers(camera)
    for axis, focal, center, side, low, high in (
        ("x", camera.fx, camera.cx, camera.width, "left", "right"),
        ("y", camera.fy, camera.cy, camera.height, "top", "bottom"),
    ):
        edges = -center - MARGIN_PX, side - center + MARGIN_PX
        numbers[f"edge_{low}"], numbers[f"edge_{high}"] = edges
        farthest = max(map(abs, (*edges, numbers[f"clamp_{low}"], numbers[f"clamp_{high}"])))
        numbers[f"focal2_{axis}"] = focal * focal
        # More than rounding takes away again.
        numbers[f"far_{axis}"] = math.hypot(focal, farthest) * (1 + 2.0**-14)
    return numbers


def pack_stream_camera(
    fmt: Floating, camera: Camera, cell: npt.ArrayLike, *, antialiased: bool,
    weights: Sequence[int] = (1, 1, 1), child_weights: Sequence[int] = (1, 1, 1),
) -> UInt32Array:
    """Record of a camera as it stands in memory, shape [56].

    Parameters
    ----------
    fmt : Floating
        Format of the units' arithmetic.
    camera : Camera
        In the lengths of the voxels' records.
    cell : array_like
        Finest cell of the eye from the grid's origin, shape [3]. An eye beyond the cells that can
        be numbered, 0 to 8191 on an axis, is put into the last: that changes the distances of all
        voxels by the same, as it does to put an eye outside of the grid into its border.
    antialiased : bool
        Whether opacities are compensated for the dilation.
    weights : sequence of int
        What a base cell counts in the distance from the eye's, on x, y, z; 1 to 255. They should be
        so small that no distance takes more than 12 bits.
    child_weights : sequence of int
        What a child counts that lies away from the eye; 1 or more, 7 at most together.

    Raises
    ------
    ValueError
        If a weight is out of its range.
    """
    if not all(1 <= weight < 1 << WEIGHT_BITS for weight in weights):
        raise ValueError(f"Weights of cells must be 1 to 255, not {tuple(weights)}")
    if min(child_weights) < 1 or sum(child_weights) >= 1 << CHILD_WEIGHT_BITS:
        raise ValueError("Weights of children must be 1 or more, at most 7 together, "
                         f"not {tuple(child_weights)}")
    numbers = {**dict.fromkeys(WORD_INTEGERS, 0.0), **stream_camera_numbers(camera)}
    words = encode_words(fmt, STREAM_CAMERA_WORDS, numbers, WIDE_WORDS)
    words[CAMERA_WORDS.index("flags")] = FLAG_ANTIALIASED if antialiased else 0
    for name in COARSE_INTEGERS:
        words[STREAM_CAMERA_WORDS.index(name)] = int(numbers[name])
    first = STREAM_CAMERA_WORDS.index("cell_x")
    words[first:first + 3] = np.clip(cell, 0, (1 << (CELL_BITS + OCTREE_LEVELS)) - 1)
    for name, steps, bits in (("weights", weights, WEIGHT_BITS),
                              ("child_weights", child_weights, CHILD_WEIGHT_BITS)):
        words[STREAM_CAMERA_WORDS.index(name)] = sum(
            step << bits * axis for axis, step in enumerate(steps))
    return words


@lru_cache
def vsu_graph(design: VsuDesign) -> Dataflow:
    """Arithmetic of one voxel.

    Inputs are :data:`RECORD`; constants are words of the camera's record. Outputs are words of

    - ``d_x``, ``d_y``, ``d_z``: the voxel's corner less its edge, relative to the eye,
    - ``seen``: positive unless all is behind the near plane or beyond a side of the image,
    - ``clear``: positive if all of it is in front of the near plane,

    and raw integers of :data:`splatforge.designs.vsu.RECTANGLE`, where it is,

    - ``left``, ``right``, ``top``, ``bottom``: ends of the rectangle of its means,

    and of :data:`splatforge.designs.vsu.BLUR`, rounded up,

    - ``blur_x``, ``blur_y``: what its largest Gaussian reaches around them, but for the margin.
    """
    g = Builder()
    word = {name: g.input(name, wide=name in WIDE_WORDS) for name in RECORD}
    camera = {name: g.constant(name, wide=name in WIDE_WORDS) for name in _CAMERA}
    eps = design.floating.epsilon
    d = [g.narrow(g.wide_subtract(word[f"base_{axis}"], camera[f"eye_{axis}"])) for axis in "xyz"]
    for axis, part in zip("xyz", d, strict=True):
        g.output(f"d_{axis}", part)

    # The centre, and how far means are from it at most.
    half = word["size"] * g.literal("to_center", 1.5)
    center = [part + half for part in d]
    right, down, ahead = (g.dot(center, [camera[f"{row}_{axis}"] for axis in "xyz"])
                          for row in ("right", "down", "ahead"))
    span = (abs(d[0]) + abs(d[1])) + (abs(d[2]) + word["size"] * g.literal("corners", 4.5))
    rho = word["rho"] + span * g.literal("displacement", 16 * eps)
    near = g.narrow(camera["near"])
    nearest = ahead - rho
    seen = (ahead + rho) - near
    g.output("clear", nearest - near)

    # Inverse depths: of the centre, and of what is nearest.
    inverse = g.reciprocal(ahead)
    largest = g.reciprocal(nearest) * g.literal("larger", 1 + 32 * eps)
    spread = rho * largest + g.literal("position", 8 * eps)
    reach = word["scale"] * g.literal("sigmas", ALPHA_SIGMAS * (1 + 32 * eps))
    blur = reach * largest
    within = rho + reach

    def along(axis: str, coordinate: Value, low: str, high: str) -> None:
        nonlocal seen
        far = camera[f"far_{axis}"]
        u = coordinate * inverse
        square = camera[f"focal2_{axis}"] + u * u
        root = square * g.reciprocal_root(square)
        means = spread * root
        position = u + camera[f"center_{axis}"]
        g.output(low, g.to_fixed(position - means, RECTANGLE))
        g.output(high, g.to_fixed(position + means, RECTANGLE))
        g.output(f"blur_{axis}", g.ceil_fixed(blur * g.minimum(root + means, far), BLUR))
        # Beyond a side of the image as a whole?
        limit = far * within
        seen = g.minimum(seen, g.minimum(
            (coordinate - camera[f"edge_{low}"] * ahead) + limit,
            limit - (coordinate - camera[f"edge_{high}"] * ahead)))

    along("x", right, "left", "right")
    along("y", down, "top", "bottom")
    g.output("seen", seen)
    return g.build()


@lru_cache
def vsu_schedule(design: VsuDesign) -> Schedule:
    """Which operation of the graph is done when, and on which unit."""
    return schedule(
        vsu_graph(design), design.floating, design.interval, RECORD, lanes=BEAT_WORDS)


def voxels_under_way(design: VsuDesign) -> int:
    """Voxels between their arrival and the transfer of what the arithmetic makes of them."""
    return design.buffer_beats // VOXEL_BEATS + vsu_schedule(design).under_way + 1


def half_to_binary32(word: npt.ArrayLike) -> Int64Array:
    """Words of binary32 of those of binary16 without sign: zero if not a normal number.

    Of what would be infinite or no number the exponent is taken as any other.
    """
    word = np.asarray(word, np.int64) & 0x7FFF
    return np.where(word >> 10, (word << 13) + (112 << 23), 0)


def sort_keys(
    cells: Int64Array, population: Int64Array, eye: Int64Array, weights: Sequence[int] = (1, 1, 1),
    child_weights: Sequence[int] = (1, 1, 1),
) -> Int64Array:
    """Keys of voxels, the nearest first, shape [N].

    From the highest bits: the distance of the base cell from the eye's, summed over the axes, each
    with its weight, 12 bits, saturating; then for each level, three bits each, the weights of those
    axes on which the child is not on the eye's side of the cell that was halved. Along a ray from
    the eye none of these descends before one above it has ascended, whatever the weights.

    Parameters
    ----------
    cells, population : ndarray
        Words of the voxels' records, shape [N].
    eye : ndarray
        Finest cell of the eye, shape [3].
    weights, child_weights : sequence of int
        As in :func:`pack_stream_camera`.
    """
    distance = np.zeros(np.shape(cells), np.int64)
    away = [np.zeros(np.shape(cells), np.int64) for _ in range(OCTREE_LEVELS)]
    level = population >> LEVEL_BIT & 3
    for axis in range(3):
        cell = cells >> CELL_BITS * axis & ((1 << CELL_BITS) - 1)
        distance += weights[axis] * np.abs(cell - (eye[axis] >> OCTREE_LEVELS))
        corner = cell << OCTREE_LEVELS
        for n in range(OCTREE_LEVELS):
            child = population >> (LEVEL_BIT + 2 + 3 * n + axis) & 1
            step = 1 << (OCTREE_LEVELS - 1 - n)
            is_far = child != (eye[axis] >= corner + step)
            away[n] += child_weights[axis] * (is_far & (level > n))
            corner = corner + child * step
    key = np.minimum(distance, (1 << DISTANCE_BITS) - 1)
    for step in away:
        key = key << CHILD_WEIGHT_BITS | step
    return key


def prefix_counts(count: Int64Array, shift: int) -> Int64Array:
    """Gaussians of a prefix: the count halved `shift` times, rounded up to whole steps.

    Of voxels of less than a step that is more than they have; it is not to be used then.
    """
    return -(-count // (PREFIX_STEP << shift)) * PREFIX_STEP


def rectangles(
    design: VsuDesign, values: dict[str, Int64Array], octaves: Sequence[Int64Array], width: int,
    height: int,
) -> tuple[BoolArray, Int64Array]:
    """From the graph's results to groups.

    Parameters
    ----------
    design : VsuDesign
        Side of a group.
    values : dict
        Outputs of :func:`vsu_graph`, shape [N].
    octaves : sequence of ndarray
        For each prefix by how many scales beyond it are below the largest, shape [N].
    width, height : int
        Frame in pixels.

    Returns
    -------
    visible : ndarray
        Whether a group meets the voxel, shape [N].
    ends : ndarray
        First and last column of groups, first and last row, shape [1 + prefixes, 4, N]: of all that
        is in the voxel, and of what is beyond each prefix, the first above the last where that is
        nowhere. All of the image where the voxel reaches through the near plane, or farther than
        can be said.
    """
    fmt = design.floating
    margin = int(MARGIN_PX * 2**RECTANGLE.frac_bits)
    shift = (design.group_px << RECTANGLE.frac_bits).bit_length() - 1
    visible = floating.less(fmt, 0, values["seen"])
    clear = floating.less(fmt, 0, values["clear"])
    for axis in "xy":
        clear &= values[f"blur_{axis}"] < BLUR.raw_max
    ends = []
    for low, high, axis, side in (
            ("left", "right", "x", width), ("top", "bottom", "y", height)):
        groups = -(-side // design.group_px)
        blur = values[f"blur_{axis}"]
        # What is shifted out is made up for.
        reach = margin + np.stack([blur, *((blur >> octave) + 1 for octave in octaves)])
        first, last = (values[low] - reach) >> shift, (values[high] + reach) >> shift
        visible &= ~clear | ((first[0] < groups) & (last[0] >= 0))
        ends += [np.where(clear, np.maximum(first, 0), 0),
                 np.where(clear, np.minimum(last, groups - 1), groups - 1)]
    return visible, np.stack(ends, axis=1)


@dataclass(frozen=True, kw_only=True, eq=False)
class VsuFrame:
    """What the unit finds out in a frame.

    Parameters
    ----------
    ids : ndarray
        Which voxels of the table are visible, from front to back, shape [visible]; int64.
    keys : ndarray
        Their keys.
    d : ndarray
        Their corners less their edges, relative to the eye, as words; shape [3, visible].
    size : ndarray
        Their edges, as words.
    count, address : ndarray
        Their Gaussians; first beat of the coarse half, from the scene's address.
    ends : ndarray
        First and last column, first and last row of groups of each, shape [4, visible].
    columns, rows : int
        Groups of the frame.
    starts, places : ndarray
        Group g, row-major, is met by the visible voxels ``places[starts[g]:starts[g + 1]]``, in
        order.
    prefixes : ndarray
        Of each of these the Gaussians that the group looks at, the first of so many.
    """

    ids: Int64Array
    keys: Int64Array
    d: Int64Array
    size: Int64Array
    count: Int64Array
    address: Int64Array
    ends: Int64Array
    columns: int
    rows: int
    starts: Int64Array
    places: Int64Array
    prefixes: Int64Array

    def voxels_of(self, group: int) -> Int64Array:
        """Voxels of the table that a group meets, from front to back."""
        return self.ids[self.places[self.starts[group]:self.starts[group + 1]]]


def vsu_fixed(
    design: VsuDesign, table: UInt32Array, camera: UInt32Array, width: int, height: int
) -> VsuFrame:
    """Lists of all groups, bit-true to :class:`splatforge.hw.vsu.Vsu`.

    Parameters
    ----------
    design : VsuDesign
        Formats and group.
    table : ndarray
        Records of the voxels, shape [N, 8].
    camera : ndarray
        Record from :func:`pack_stream_camera`.
    width, height : int
        Frame in pixels.

    Raises
    ------
    ValueError
        If more voxels are visible than are kept on chip.
    """
    fmt = design.floating
    drop = BINARY32.fraction_bits - fmt.fraction_bits
    columns = {name: table[:, n].astype(np.int64) for n, name in enumerate(VOXEL_WORDS)}
    inputs = {
        **columns, "rho": half_to_binary32(columns["reach"]),
        "scale": half_to_binary32(columns["reach"] >> 16)}
    inputs = {name: inputs[name] >> (0 if name in WIDE_WORDS else drop) for name in RECORD}
    constants = {name: int(word) >> (0 if name in WIDE_WORDS else drop)
                 for name, word in zip(STREAM_CAMERA_WORDS, camera, strict=True)}
    flow = vsu_graph(design)
    values = evaluate(flow, fmt, inputs, {name: constants[name] for name in flow.constants})
    population = columns["population"]
    octaves = [population >> (POPULATION_BITS + OCTAVE_BITS * n) & ((1 << OCTAVE_BITS) - 1)
               for n in range(len(PREFIX_SHIFTS) if design.prefixes else 0)]
    visible, ends = rectangles(design, values, octaves, width, height)
    count = population & ((1 << POPULATION_BITS) - 1)
    visible &= count > 0
    if visible.sum() > design.voxels:
        raise ValueError(
            f"Visible voxels must be at most {design.voxels}, not {int(visible.sum())}")
    first = STREAM_CAMERA_WORDS.index("cell_x")
    eye = camera[first:first + 3].astype(np.int64)
    weights, child_weights = (
        [int(camera[STREAM_CAMERA_WORDS.index(name)]) >> bits * axis & ((1 << bits) - 1)
         for axis in range(3)]
        for name, bits in (("weights", WEIGHT_BITS), ("child_weights", CHILD_WEIGHT_BITS)))
    keys = sort_keys(columns["cell"], population, eye, weights, child_weights)
    ids = np.flatnonzero(visible)
    ids = ids[np.argsort(keys[ids], kind="stable")]
    ends, beyond, count = ends[0][:, ids], ends[1:, :, ids], count[ids]
    groups_x, groups_y = -(-width // design.group_px), -(-height // design.group_px)
    column = np.arange(groups_x)[:, None]
    in_column = (ends[0] <= column) & (column <= ends[1])
    places = [np.flatnonzero(in_column[x] & (ends[2] <= y) & (y <= ends[3]))
              for y in range(groups_y) for x in range(groups_x)]
    starts = np.concatenate([[0], np.cumsum([len(each) for each in places], dtype=np.int64)])
    at = np.concatenate(places)
    group = np.repeat(np.arange(len(places)), np.diff(starts))
    x, y = group % groups_x, group // groups_x
    # All, but for a prefix beyond which nothing meets the group: the last of these, but for those
    # behind one that does not do.
    prefixes, does = count[at], np.ones(len(at), np.bool_)
    for shift, (left, right, top, bottom) in zip(PREFIX_SHIFTS, beyond[:, :, at], strict=False):
        does &= (x < left) | (right < x) | (y < top) | (bottom < y)
        prefixes = np.where(does, prefix_counts(count[at], shift), prefixes)
    return VsuFrame(
        ids=ids, keys=keys[ids], d=np.stack([values[f"d_{axis}"][ids] for axis in "xyz"]),
        size=inputs["size"][ids], count=count, address=columns["address"][ids], ends=ends,
        columns=groups_x, rows=groups_y, starts=starts, places=at, prefixes=prefixes)
