"""The raster core: tile lists in memory in, pixels in memory out."""

from dataclasses import dataclass
from typing import ClassVar

from splatforge.designs.array import ArrayDesign
from splatforge.designs.fetch import FetchDesign, SplatFormat
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.shell import DESCRIPTOR_HEAD, ShellDesign

__all__ = ["COUNTERS", "DESCRIPTOR_FIELDS", "PRESETS", "RasterDesign"]

#: Performance counters of the raster core in register order: (name, unit, what it counts).
COUNTERS = (
    ("cycles", "cycles", "accepted START write to last write response"),
    ("array_busy", "cycles", "the array issued a block of evaluations"),
    ("array_starved", "cycles", "a tile had splats left, none had arrived"),
    ("array_skipped", "cycles", "a splat was consumed that reached no live block"),
    ("array_blocked", "cycles", "the next tile waited for a free half of the tile state"),
    ("fetch_busy", "cycles", "a beat of a tile list arrived"),
    ("fetch_stalled", "cycles", "a read address waited for the bus"),
    ("resolve_busy", "cycles", "a beat of pixels was accepted"),
    ("resolve_stalled", "cycles", "a beat of pixels waited for the bus"),
    ("descriptor_bytes", "bytes", "read of the frame descriptor"),
    ("table_bytes", "bytes", "read of the tile table, padding included"),
    ("splat_bytes", "bytes", "read of splat records, over-fetch included"),
    ("overfetch_bytes", "bytes", "part of splat_bytes behind an early stop, never consumed"),
    ("pixel_bytes", "bytes", "written to the framebuffer, strobed bytes only"),
    ("tiles", "tiles", "tiles finished"),
    ("tiles_stopped", "tiles", "tiles that ended before their list did"),
)
#: Frame descriptor: (name, byte offset, bytes).
DESCRIPTOR_FIELDS = (
    *DESCRIPTOR_HEAD,
    ("table_address", 16, 8),
    ("splat_address", 24, 8),
    ("frame_address", 32, 8),
    ("pitch_bytes", 40, 4),
    ("splats", 44, 4),
)


@dataclass(frozen=True, kw_only=True)
class RasterDesign:
    """Everything that a designer may turn in the raster core.

    Parameters
    ----------
    array, fetch, resolve, shell : ArrayDesign, FetchDesign, ResolveDesign, ShellDesign
        Parameters of the units.

    Attributes
    ----------
    name, number, counters, read_counters, write_counters, descriptor_fields :
        See :class:`splatforge.designs.shell.AcceleratorDesign`.

    Raises
    ------
    ValueError
        If the units disagree on a format, or one cannot hold what another gives it.
    """

    name: ClassVar[str] = "raster"
    number: ClassVar[int] = 1
    counters: ClassVar[tuple[tuple[str, str, str], ...]] = COUNTERS
    read_counters: ClassVar[tuple[str, ...]] = ("descriptor_bytes", "table_bytes", "splat_bytes")
    write_counters: ClassVar[tuple[str, ...]] = ("pixel_bytes",)
    descriptor_fields: ClassVar[tuple[tuple[str, int, int], ...]] = DESCRIPTOR_FIELDS

    array: ArrayDesign = ArrayDesign()
    fetch: FetchDesign = FetchDesign()
    resolve: ResolveDesign = ResolveDesign()
    shell: ShellDesign = ShellDesign()

    def __post_init__(self) -> None:
        self.array.check_splat(self.splat)
        self.resolve.check_blend(self.array.blend)

    @property
    def splat(self) -> SplatFormat:
        """What the rendering array takes."""
        return self.fetch.splat


#: Named configurations for ``--preset``.
PRESETS = {f"{lanes}-lane": RasterDesign(array=ArrayDesign(lanes=lanes))
           for lanes in (16, 32, 64, 128, 256)}
