"""StreamingGS's records of voxels and of the camera, as they stand in memory."""

from splatforge.designs.ccu import BEAT_WORDS, CAMERA_WORDS
from splatforge.designs.ccu import WIDE_WORDS as CCU_WIDE_WORDS

__all__ = [
    "CELL_BITS", "CHILD_WEIGHT_BITS", "COARSE_INTEGERS", "COARSE_RECORD", "COARSE_WORDS",
    "LEVEL_BIT", "OCTAVE_BITS", "OCTREE_LEVELS", "POPULATION_BITS", "PREFIX_SHIFTS", "PREFIX_STEP",
    "STREAM_CAMERA_BEATS", "STREAM_CAMERA_WORDS", "VOXEL_BEATS", "VOXEL_WORDS", "WEIGHT_BITS",
    "WIDE_WORDS", "WORD_INTEGERS"]

#: Bits of a base cell's place on an axis of the grid.
CELL_BITS = 10
#: How often a base cell may be halved on every axis: the finest cells are eight on its edge.
OCTREE_LEVELS = 3
#: Bits of the weight of a base cell, and of a child, on an axis.
WEIGHT_BITS, CHILD_WEIGHT_BITS = 8, 3
#: Bits of the number of Gaussians of a voxel.
POPULATION_BITS = 10
#: Gaussians of a voxel lie by descending scale. Beside all of them there are prefixes, the count
#: halved so often, rounded up to whole steps of so many Gaussians: 32 bytes, a burst of an LPDDR4
#: channel. Of each the record holds by how many octaves what lies beyond it is smaller.
PREFIX_SHIFTS = (1, 2, 3)
PREFIX_STEP = 4
OCTAVE_BITS = 2
#: Where in its word the level of a voxel begins, and behind it the path.
LEVEL_BIT = POPULATION_BITS + OCTAVE_BITS * len(PREFIX_SHIFTS)

#: The record of a voxel, one 32-bit word each. ``base``: its corner less its edge, and ``size``:
#: its edge, binary32; a mean in it is base + 1.q * size. ``address``: the first beat of its coarse
#: half, from the scene's address in beats; the fine half begins half as many beats behind as it has
#: Gaussians, rounded up. ``population``: its Gaussians; from bit 10 for each of
#: :data:`PREFIX_SHIFTS` in two bits the octaves by which scales beyond that prefix are below the
#: largest, rounded down; from bit 16 its level, from bit 18 the child at each level, level 1 in the
#: lowest three bits, of these the lowest for x, set in the upper half. ``cell``: its base cell, ten
#: bits an axis, x in the lowest. ``reach``: in binary16, rounded up, how far its means are from its
#: centre at most, and from bit 16 their largest scale.
VOXEL_WORDS = ("base_x", "base_y", "base_z", "size", "address", "population", "cell", "reach")
VOXEL_BEATS = len(VOXEL_WORDS) // BEAT_WORDS

#: The coarse half of a Gaussian, (name, bits) from bit 0 upward, two to a beat: its place in the
#: voxel's cube, fractions, and its largest scale, binary16.
COARSE_RECORD = (("q_x", 16), ("q_y", 16), ("q_z", 16), ("scale", 16))

#: What the coarse filters want of a camera, see :mod:`splatforge.algos.cfu`. Lengths on the image
#: are in a unit of so many pixels that the image and the focal lengths are at most one of it. Rows
#: of the rotation in it, a pixel, the principal point, and how the norm of a row of the Jacobian
#: grows from the axis on; then integers: the dilation, a limit of what is small, and these norms
#: at their largest.
COARSE_WORDS = (
    "across_x", "across_y", "across_z", "below_x", "below_y", "below_z", "pixel",
    "principal_x", "principal_y", "norm_x", "norm_y", "bend_x", "bend_y",
    "coarse_dilation", "coarse_large", "coarse_far_x", "coarse_far_y",
)
COARSE_INTEGERS = COARSE_WORDS[-4:]

#: The camera's record, one word each: that of :data:`splatforge.designs.ccu.CAMERA_WORDS`; the
#: finest cell that the eye is in, an integer; the squared focal lengths; the largest norms of the
#: rows of the Jacobian times the depth, in pixels; and the sides of the image from the principal
#: point in pixels, each beyond the farthest that a point can be seen from. Behind the words of the
#: coarse filters come ``weights`` and ``child_weights``: what a step away from the eye counts in
#: the order of voxels, of base cells in eight bits an axis, of children in three; x in the lowest.
STREAM_CAMERA_WORDS = (
    *CAMERA_WORDS[:-1], "cell_x", "cell_y", "cell_z", "focal2_x", "focal2_y", "far_x", "far_y",
    "edge_left", "edge_right", "edge_top", "edge_bottom", *COARSE_WORDS, "weights",
    "child_weights", "reserved_0", "reserved_1", "reserved_2",
)
STREAM_CAMERA_BEATS = len(STREAM_CAMERA_WORDS) // BEAT_WORDS
#: Words that are used to all their bits; the others are rounded to the units' format.
WIDE_WORDS = (*CCU_WIDE_WORDS, "base_x", "base_y", "base_z", *COARSE_WORDS[:9])
#: Words that are integers.
WORD_INTEGERS = ("flags", "cell_x", "cell_y", "cell_z", *COARSE_INTEGERS, "weights",
                 "child_weights", "reserved_0", "reserved_1", "reserved_2")
