"""StreamingGS: a raw scene in memory in, pixels in memory out, nothing in between leaves the chip.

The accelerator of "StreamingGS: Voxel-Based Streaming 3D Gaussian Splatting with Memory
Optimization and Architectural Support", DAC 2025. The scene lies in memory voxel after voxel. A
group of tiles is rendered at a time: its voxels from front to back, and of every voxel the
Gaussians that pass a coarse filter, then a fine one, in the order of their depth.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from splatforge.designs.array import ArrayDesign
from splatforge.designs.cfu import CfuDesign
from splatforge.designs.fetch import SplatFormat
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.setup import SetupDesign
from splatforge.designs.shell import DESCRIPTOR_HEAD, ShellDesign
from splatforge.designs.tokens import INDEX_BITS
from splatforge.designs.voxel import POPULATION_BITS
from splatforge.designs.vsort import VsortDesign
from splatforge.designs.vsu import VsuDesign

__all__ = ["COUNTERS", "DESCRIPTOR_FIELDS", "PRESETS", "PRESET_MEMORIES", "PUBLISHED",
           "PUBLISHED_MEMORY", "PartitionDesign", "StreaminggsDesign"]


@dataclass(frozen=True, kw_only=True)
class PartitionDesign:
    """How a scene is cut into voxels; offline, once a scene.

    Parameters
    ----------
    voxel_size : float
        Edge of a base cell in the scene's units; 0 chooses one, the largest of eight in an octave
        with which enough base cells are occupied.
    occupied_cells : int
        Base cells that are to be occupied where the edge is chosen, or as many as there are
        Gaussians for ``sparsest`` in each on average, whichever is less.
    sparsest : int
        Gaussians of a base cell on average, at least, where the edge is chosen.
    capacity : int
        Gaussians of a voxel at most: what is sorted at once. A cell of more is halved on every
        axis, up to three times, and what is still too many is cut into parts.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    voxel_size: float = 0.0
    occupied_cells: int = 1000
    sparsest: int = 8
    capacity: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.voxel_size < float("inf"):
            raise ValueError(
                f"Voxel size must be positive, or 0 to choose one, not {self.voxel_size!r}")
        for name, value in (("Occupied cells", self.occupied_cells), ("Sparsest", self.sparsest)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value!r}")
        most = (1 << POPULATION_BITS) - 1
        if not 1 <= self.capacity <= most:
            raise ValueError(f"Capacity must be 1 to {most} Gaussians, not {self.capacity!r}")


#: Performance counters in register order: (name, unit, what it counts).
COUNTERS = (
    ("cycles", "cycles", "accepted START write to last write response"),
    ("sorting", "cycles", "part of cycles before the first group"),
    ("vsu_busy", "cycles", "a row of voxels was looked at for a group"),
    ("vsu_stalled", "cycles", "a row of voxels waited for those before"),
    ("cfu_stalled", "cycles", "Gaussians waited in front of the coarse filters"),
    ("ffu_stalled", "cycles", "a Gaussian waited for room before the sorters"),
    ("vsort_busy", "cycles", "rows of a voxel's features were read for a pass"),
    ("array_busy", "cycles", "the array issued a block of evaluations"),
    ("array_starved", "cycles", "a group had not ended, no splat had arrived"),
    ("array_skipped", "cycles", "a splat was consumed that reached no live block"),
    ("array_blocked", "cycles", "the next group waited for a free half of the state"),
    ("resolve_busy", "cycles", "a beat of pixels was accepted"),
    ("resolve_stalled", "cycles", "a beat of pixels waited for the bus"),
    ("read_stalled", "cycles", "a read address waited for the bus"),
    ("descriptor_bytes", "bytes", "read of the frame descriptor"),
    ("voxel_bytes", "bytes", "read of the camera and of the table of voxels"),
    ("codebook_bytes", "bytes", "read of codebooks"),
    ("coarse_bytes", "bytes", "read of coarse halves"),
    ("fine_bytes", "bytes", "read of fine halves"),
    ("pixel_bytes", "bytes", "written to the framebuffer, strobed bytes only"),
    ("voxels", "voxels", "of the table that were looked at"),
    ("voxels_visible", "voxels", "of these, those that can be seen"),
    ("voxels_loaded", "voxels", "looked up for a group"),
    ("gaussians", "Gaussians", "through the coarse filters"),
    ("gaussians_passed", "Gaussians", "that the coarse filters passed"),
    ("gaussians_projected", "Gaussians", "through the fine filter"),
    ("gaussians_kept", "Gaussians", "that the fine filter passed"),
    ("voxels_sorted", "voxels", "whose features were sorted"),
    ("splats", "splats", "taken by the array"),
    ("groups", "groups", "finished"),
    ("groups_stopped", "groups", "that ended before their voxels did"),
)

#: Frame descriptor: (name, byte offset, bytes).
DESCRIPTOR_FIELDS = (
    *DESCRIPTOR_HEAD,
    ("sh_degree", 9, 1),
    ("scene_address", 16, 8),
    ("voxel_address", 24, 8),
    ("frame_address", 32, 8),
    ("pitch_bytes", 40, 4),
    ("voxels", 44, 4),
    ("camera_address", 48, 8),
    ("codebook_address", 56, 8),
)


@dataclass(frozen=True, kw_only=True)
class StreaminggsDesign:
    """Everything that a designer may turn in StreamingGS.

    Parameters
    ----------
    partition : PartitionDesign
        How scenes are cut into voxels.
    cfu : CfuDesign
        Coarse filters.
    ffu : FfuDesign
        Fine filter.
    vsort : VsortDesign
        Sorters of what is left of a voxel.
    vsu : VsuDesign
        Sorting of voxels, and the side of a group.
    setup : SetupDesign
        From a feature to its splats.
    array, resolve, shell : ArrayDesign, ResolveDesign, ShellDesign
        Parameters of the units that every accelerator has.

    Attributes
    ----------
    name, number, counters, read_counters, write_counters, descriptor_fields :
        See :class:`splatforge.designs.shell.AcceleratorDesign`.

    Raises
    ------
    ValueError
        If the units disagree on a format.
    """

    name: ClassVar[str] = "streaminggs"
    number: ClassVar[int] = 3
    counters: ClassVar[tuple[tuple[str, str, str], ...]] = COUNTERS
    read_counters: ClassVar[tuple[str, ...]] = (
        "descriptor_bytes", "voxel_bytes", "codebook_bytes", "coarse_bytes", "fine_bytes")
    write_counters: ClassVar[tuple[str, ...]] = ("pixel_bytes",)
    descriptor_fields: ClassVar[tuple[tuple[str, int, int], ...]] = DESCRIPTOR_FIELDS

    partition: PartitionDesign = PartitionDesign()
    cfu: CfuDesign = CfuDesign()
    ffu: FfuDesign = FfuDesign()
    vsort: VsortDesign = VsortDesign()
    vsu: VsuDesign = VsuDesign()
    setup: SetupDesign = SetupDesign()
    array: ArrayDesign = ArrayDesign(group_tiles=2)
    resolve: ResolveDesign = ResolveDesign()
    shell: ShellDesign = ShellDesign()

    def __post_init__(self) -> None:
        self.array.check_splat(self.splat)
        self.resolve.check_blend(self.array.blend)
        sides = {self.vsu.group_tiles, self.cfu.group_tiles, self.ffu.group_tiles,
                 self.array.group_tiles}
        if len(sides) != 1:
            raise ValueError(f"Tiles of a group's side must be the same of all units, not {sides}")
        if self.setup.feature != self.ffu.feature:
            raise ValueError("Features must be taken as the fine filter gives them")
        if self.vsort.depth_bits != self.ffu.depth_bits:
            raise ValueError(
                f"Sorters must take depths of {self.ffu.depth_bits} bits, "
                f"not {self.vsort.depth_bits!r}")
        self.vsu.group_bits(self.shell)
        for most, who in ((self.vsort.capacity, "a sorter holds"),
                          (1 << INDEX_BITS, "tokens tell apart")):
            if self.partition.capacity > most:
                raise ValueError(f"Voxels must have at most {most} Gaussians, which {who}, "
                                 f"not {self.partition.capacity!r}")

    @property
    def splat(self) -> SplatFormat:
        """What the rendering array takes."""
        return self.setup.splat


def _with_groups(design: StreaminggsDesign, tiles: int) -> StreaminggsDesign:
    """The same with groups of so many tiles a side."""
    return replace(design, **{
        name: replace(getattr(design, name), group_tiles=tiles)
        for name in ("cfu", "ffu", "vsu", "array")})


#: What is published of StreamingGS (accelerators.md, 1.2 and 1.3), in our terms: groups of one
#: tile, voxels loaded as wholes, codebooks of 250 KB, several coarse filters in front of one fine
#: filter, GSCore's bitonic sorter without its quick sort, GSCore's 64 rendering lanes. How many
#: filters there are is not published: four, the most that a bus of 16 bytes a cycle feeds, and a
#: fine filter that takes a Gaussian in four cycles, as often as GSCore's four projection units
#: together. Nor are buffers, formats, and the memory, which here is GSCore's.
PUBLISHED = _with_groups(
    StreaminggsDesign(cfu=CfuDesign(units=4), ffu=FfuDesign(interval=4),
                      vsu=VsuDesign(prefixes=False)), 1)
#: The memory of :mod:`splatforge.designs.dram` behind it.
PUBLISHED_MEMORY = "lpddr4-3200"

#: Named configurations for ``--preset``; `city` keeps as many visible voxels as captures of whole
#: quarters have at 1080p (semarang 54,561 of them from above), and looks at sixteen in a cycle.
PRESETS = {
    "default": StreaminggsDesign(), "published": PUBLISHED,
    "city": StreaminggsDesign(vsu=VsuDesign(voxels=65536, scan_width=16)),
}
#: Memory of those that state one.
PRESET_MEMORIES = {"published": PUBLISHED_MEMORY}
