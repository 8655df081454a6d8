"""Layouts of what goes from unit to unit of StreamingGS."""

from amaranth.hdl import Shape
from amaranth.lib import data

from splatforge.designs.fetch import TILE_PX
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.floating import Floating
from splatforge.designs.tokens import GROUP_BITS, GROUP_TAG_BITS, INDEX_BITS
from splatforge.designs.voxel import POPULATION_BITS

__all__ = [
    "fine_token_layout", "group_layout", "survivor_layout", "voxel_layout", "voxel_token_layout"]


def group_layout(side: int) -> data.StructLayout:
    """A group before what belongs to it, of `side` tiles a side.

    Its number; how much of it lies in the frame, in pixels; column and row of its first tile.
    """
    pixels = range(TILE_PX * side + 1)
    return data.StructLayout({
        "tag": GROUP_TAG_BITS, "columns": pixels, "rows": pixels, "x": GROUP_BITS,
        "y": GROUP_BITS})


def voxel_layout(fmt: Floating) -> data.StructLayout:
    """A voxel: corner less edge relative to the eye, edge, Gaussians, beat of its coarse half."""
    word = fmt.width
    return data.StructLayout({
        "d_x": word, "d_y": word, "d_z": word, "size": word, "count": POPULATION_BITS,
        "address": 32})


def voxel_token_layout(fmt: Floating) -> data.StructLayout:
    """A voxel of a group, which stands in a column and row of groups; or the group's end, `last`.

    Of the voxel's Gaussians the group wants those of a prefix. With the end comes no voxel; what
    stands in its place means nothing.
    """
    return data.StructLayout({
        "tag": GROUP_TAG_BITS, "column": GROUP_BITS, "row": GROUP_BITS,
        "voxel": voxel_layout(fmt), "prefix": POPULATION_BITS, "last": 1})


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
        "kind": 2, "tag": GROUP_TAG_BITS,
        "body": data.UnionLayout({"voxel": voxel, "gaussian": gaussian})})


def fine_token_layout(design: FfuDesign) -> data.StructLayout:
    """A feature, or the end of a voxel or of a group.

    Fields as in :meth:`splatforge.designs.ffu.FfuDesign.token_fields`, those of the feature in one.
    """
    fields = {name: Shape(width, signed=signed) for name, width, signed in design.token_fields()}
    feature = {name: fields.pop(name) for name, _, _ in design.feature.fields()}
    kind, tag = fields.pop("kind"), fields.pop("tag")
    return data.StructLayout({
        "kind": kind, "tag": tag, "feature": data.StructLayout(feature), **fields})
