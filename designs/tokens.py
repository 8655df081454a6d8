"""What goes from unit to unit of StreamingGS, in the order of groups, voxels and Gaussians."""

from enum import IntEnum

__all__ = [
    "GROUPS_AHEAD",
    "GROUP_BITS",
    "GROUP_TAG_BITS",
    "INDEX_BITS",
    "FineKind",
    "SurvivorKind",
]

#: Bits of a Gaussian's number in its voxel, and of a group's column and row in the frame.
INDEX_BITS = 8
GROUP_BITS = 12
#: Bits of a group's number in a token. Half of their range may lie ahead of the oldest group that
#: is still wanted: groups of a background end as fast as pixels are written, and the filters work
#: on what comes behind a dozen of them in the meantime.
GROUP_TAG_BITS = 5
#: Groups that may be announced beyond that one.
GROUPS_AHEAD = (1 << (GROUP_TAG_BITS - 1)) - 2


class SurvivorKind(IntEnum):
    """Kinds of tokens between the coarse filter and the fine one."""

    VOXEL = 0
    GAUSSIAN = 1
    VOXEL_END = 2
    GROUP_END = 3


class FineKind(IntEnum):
    """Kinds of tokens behind the fine filter."""

    FEATURE = 0
    VOXEL_END = 1
    GROUP_END = 2
