"""GSCore: Gaussians in memory in, pixels in memory out, in two passes.

The accelerator of Lee et al., "GSCore: Efficient Radiance Field Rendering via Architectural Support
for 3D Gaussian Splatting", ASPLOS 2024, doi:10.1145/3620666.3651385, in the common shell. Pass 1
projects every Gaussian, and lists it in the tiles that it meets; pass 2 sorts the list of tile
after tile and blends it. What is between them lies in memory.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from splatforge.designs.array import ArrayDesign
from splatforge.designs.bsu import BsuDesign
from splatforge.designs.ccu import CcuDesign
from splatforge.designs.fetch import SplatFormat
from splatforge.designs.lists import ListsDesign
from splatforge.designs.qsu import QsuDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.shell import DESCRIPTOR_HEAD, ShellDesign
from splatforge.designs.vru import VruDesign

__all__ = ["COUNTERS", "DESCRIPTOR_FIELDS", "PRESETS", "PRESET_MEMORIES", "PUBLISHED",
           "PUBLISHED_MEMORY", "WRITES_IN_FLIGHT", "GscoreDesign"]

#: Write bursts of all units between address and response; twice what the memories hold by default.
WRITES_IN_FLIGHT = 64

#: Performance counters in register order: (name, unit, what it counts).
COUNTERS = (
    ("cycles", "cycles", "accepted START write to the last write response of the framebuffer"),
    ("projecting", "cycles", "part of cycles before pass 2 begins"),
    ("ccu_busy", "cycles", "a beat of a Gaussian was taken"),
    ("ccu_stalled", "cycles", "a Gaussian waited for room behind the arithmetic"),
    ("lists_busy", "cycles", "a beat of list entries was accepted"),
    ("lists_stalled", "cycles", "an entry waited for its tile's list"),
    ("qsu_busy", "cycles", "a beat of entries was partitioned"),
    ("qsu_stalled", "cycles", "a beat of entries waited to be partitioned"),
    ("bsu_busy", "cycles", "rows of a chunk were read for a pass"),
    ("array_busy", "cycles", "the array issued a block of evaluations"),
    ("array_starved", "cycles", "a tile had splats left, none had arrived"),
    ("array_skipped", "cycles", "a splat was consumed that reached no live block"),
    ("array_blocked", "cycles", "the next tile waited for a free half of the tile state"),
    ("resolve_busy", "cycles", "a beat of pixels was accepted"),
    ("resolve_stalled", "cycles", "a beat of pixels waited for the bus"),
    ("read_stalled", "cycles", "a read address waited for the bus"),
    ("descriptor_bytes", "bytes", "read of the frame descriptor and the camera"),
    ("gaussian_bytes", "bytes", "read of Gaussians"),
    ("partition_bytes", "bytes", "read of lists to partition, links included"),
    ("chunk_bytes", "bytes", "read of chunks to sort"),
    ("feature_bytes", "bytes", "read of feature records"),
    ("feature_written_bytes", "bytes", "written of feature records"),
    ("list_written_bytes", "bytes", "written of tile lists, links included"),
    ("bucket_written_bytes", "bytes", "written of partitioned lists, links included"),
    ("pixel_bytes", "bytes", "written to the framebuffer, strobed bytes only"),
    ("gaussians", "Gaussians", "projected"),
    ("visible", "Gaussians", "that meet the image"),
    ("pairs", "entries", "of tile lists"),
    ("partitions", "lists", "partitioned into buckets"),
    ("chunks_sorted", "chunks", "sorted"),
    ("entries_sorted", "entries", "sorted"),
    ("feature_hits", "entries", "whose feature was in the cache"),
    ("feature_misses", "entries", "whose feature was asked for"),
    ("tiles", "tiles", "tiles finished"),
    ("tiles_stopped", "tiles", "tiles that ended before their list did"),
)

#: Frame descriptor: (name, byte offset, bytes).
DESCRIPTOR_FIELDS = (
    *DESCRIPTOR_HEAD,
    ("scene_address", 16, 8),
    ("workspace_address", 24, 8),
    ("frame_address", 32, 8),
    ("pitch_bytes", 40, 4),
    ("gaussians", 44, 4),
    ("camera_address", 48, 8),
    ("workspace_pages", 56, 4),
    ("sh_degree", 60, 1),
)


@dataclass(frozen=True, kw_only=True)
class GscoreDesign:
    """Everything that a designer may turn in GSCore.

    Parameters
    ----------
    ccu : CcuDesign
        Culling and conversion.
    lists : ListsDesign
        Lists of the tiles, and further ones for what is partitioned.
    qsu : QsuDesign
        Buckets of a partition, and entries of a chunk.
    bsu : BsuDesign
        Sorters of chunks.
    outstanding_records : int
        Feature records between their address and their response, 1 to 256.
    vru, array, resolve, shell : VruDesign, ArrayDesign, ResolveDesign, ShellDesign
        Parameters of the other units. GSCore has 64 volume-rendering units; they cover an 8x8
        region of a tile at a time, the rendering array's 64 lanes.

    Attributes
    ----------
    name, number, counters, read_counters, write_counters, descriptor_fields :
        See :class:`splatforge.designs.shell.AcceleratorDesign`.

    Raises
    ------
    ValueError
        If the units disagree on a format, or one cannot hold what another gives it.
    """

    name: ClassVar[str] = "gscore"
    number: ClassVar[int] = 2
    counters: ClassVar[tuple[tuple[str, str, str], ...]] = COUNTERS
    read_counters: ClassVar[tuple[str, ...]] = (
        "descriptor_bytes", "gaussian_bytes", "partition_bytes", "chunk_bytes", "feature_bytes")
    write_counters: ClassVar[tuple[str, ...]] = (
        "feature_written_bytes", "list_written_bytes", "bucket_written_bytes", "pixel_bytes")
    descriptor_fields: ClassVar[tuple[tuple[str, int, int], ...]] = DESCRIPTOR_FIELDS

    ccu: CcuDesign = CcuDesign()
    lists: ListsDesign = ListsDesign()
    qsu: QsuDesign = QsuDesign()
    bsu: BsuDesign = BsuDesign()
    outstanding_records: int = 16
    vru: VruDesign = VruDesign()
    array: ArrayDesign = ArrayDesign()
    resolve: ResolveDesign = ResolveDesign()
    shell: ShellDesign = ShellDesign()

    def __post_init__(self) -> None:
        self.array.check_splat(self.splat)
        self.resolve.check_blend(self.array.blend)
        if not self.ccu.entry == self.lists.entry == self.bsu.entry == self.vru.entry:
            raise ValueError("Lists must hold the entries of the other units")
        if self.ccu.feature != self.vru.feature:
            raise ValueError("Features must be read as they are written")
        self.qsu.check_lists(self.lists)
        if self.qsu.chunk > self.bsu.chunk:
            raise ValueError(
                f"Sorters must hold a chunk of {self.qsu.chunk} entries, not {self.bsu.chunk!r}")
        if not 1 <= self.outstanding_records <= 256:
            raise ValueError(
                f"Outstanding records must be 1 to 256, not {self.outstanding_records!r}")
        if self.shell.max_side > 1 << (self.vru.feature.mean.int_bits - 1):
            raise ValueError(
                f"Means of features must reach {self.shell.max_side} pixels, the longest side, "
                f"not {self.vru.feature.mean}")

    @property
    def splat(self) -> SplatFormat:
        """What the rendering array takes."""
        return self.vru.splat


#: What is published of GSCore (accelerators.md, 4.1), in our terms. Four culling and conversion
#: units are one of ours with a Gaussian every 16 cycles, eight quick-sorting units its eight
#: buckets of a partition, and four bitonic ones of 256 entries the sorters; 64 volume-rendering
#: units are 64 lanes; 8 KB of Gaussians and 128 KB of features wait in its buffers; oriented boxes
#: from an axis ratio of 2 on, regions of 8x8 pixels. Not published are formats, cycles of a
#: Gaussian in a unit, pivots, sizes of lists and pages, and how many requests are in flight; of
#: 32 KB for tile lists and 64 KB for sorting only the size is. The published 51.2 GB/s of LPDDR4
#: stand behind a bus that takes 16 bytes a cycle each way.
PUBLISHED = GscoreDesign(
    ccu=CcuDesign(interval=16, buffer_beats=512, obb_ratio=2, subtiles=True),
    qsu=QsuDesign(chunk=256, buckets=8), bsu=BsuDesign(chunk=256, units=4),
    vru=VruDesign(cache_features=4096), array=ArrayDesign(lanes=64))
#: The memory of :mod:`splatforge.designs.dram` that the publication assumes.
PUBLISHED_MEMORY = "lpddr4-3200"

#: Named configurations for ``--preset``; those without a technique of GSCore show what it is worth,
#: and `large` has lists for frames of up to 16,384 tiles, such as 2560x1440.
PRESETS = {
    "default": GscoreDesign(),
    "published": PUBLISHED,
    "large": replace(PUBLISHED, lists=ListsDesign(tiles=16384)),
    "aabb": replace(PUBLISHED, ccu=replace(PUBLISHED.ccu, obb_ratio=0)),
    "whole-tiles": replace(PUBLISHED, ccu=replace(PUBLISHED.ccu, subtiles=False)),
    "aabb-whole-tiles": replace(
        PUBLISHED, ccu=replace(PUBLISHED.ccu, obb_ratio=0, subtiles=False)),
}
#: Memory of those that state one.
PRESET_MEMORIES = {"published": PUBLISHED_MEMORY}
