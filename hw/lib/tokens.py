"""Layouts of what goes from unit to unit of StreamingGS."""

from amaranth.lib import data

from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.floating import Floating
from splatforge.designs.tokens import GROUP_BITS, INDEX_BITS
from splatforge.hw.lib.fixed import shape_of
from splatforge.hw.lib.splat_setup import feature_layout

__all__ = ["fine_token_layout", "group_layout", "survivor_layout"]


def group_layout(side: int) -> data.StructLayout:
    """A group before what belongs to it, of `side` tiles a side.

    Its number; how much of it lies in the frame, in pixels; column and row of its first tile.
    """
    pixels = range(TILE_PX * side + 1)
    return data.StructLayout({
        "tag": TILE_TAG_BITS, "columns": pixels, "rows": pixels, "x": GROUP_BITS,
        "y": GROUP_BITS})


def survivor_layout(fmt: Floating) -> data.StructLayout:
    """A token between the coarse filter and the fine one.

    The number of its group, and by kind: of a voxel base minus eye and edge, words of `fmt`; the
    first beat of its fine half, from the scene's first; the group's column and row in the frame, in
    groups. Of a Gaussian its number in the voxel; its place in it, fractions of 16 bits; its
    largest scale, binary16. Of what ends nothing.
    """
    voxel = data.StructLayout({
        **dict.fromkeys(("d_x", "d_y", "d_z", "size"), fmt.width), "address": 32,
        "column": GROUP_BITS, "row": GROUP_BITS})
    gaussian = data.StructLayout({
        "index": INDEX_BITS, "q_x": 16, "q_y": 16, "q_z": 16, "scale": 16})
    return data.StructLayout({
        "kind": 2, "tag": TILE_TAG_BITS,
        "body": data.UnionLayout({"voxel": voxel, "gaussian": gaussian})})


def fine_token_layout(design: FfuDesign) -> data.StructLayout:
    """A feature, or the end of a voxel or of a group.

    Of a feature also its depth within the voxel, the half sides of its upright box, and the first
    and last column and row of the tiles of its group that it meets. Of what ends all that is zero.
    """
    side = range(design.group_tiles)
    return data.StructLayout({
        "kind": 2, "tag": TILE_TAG_BITS, "feature": feature_layout(design.feature),
        "depth": design.depth_bits, "extent_x": shape_of(design.extent),
        "extent_y": shape_of(design.extent), "first_x": side, "first_y": side, "last_x": side,
        "last_y": side})
