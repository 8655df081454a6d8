"""Lumina: sorting is shared over frames and colours are cached; a GPU projects, LuminCore draws.

"Lumina: Real-Time Mobile Neural Rendering by Exploiting Computational Redundancy", ISCA 2025. The
GPU sorts once for a window of frames (:mod:`splatforge.designs.sharing`) and projects the Gaussians
of the shared lists in every frame. LuminCore reads lists of ids and the features that they name,
and takes the colour of a pixel from its cache (:mod:`splatforge.designs.radiance`) where it can.
"""

from dataclasses import dataclass
from typing import ClassVar

from splatforge.designs.array import ArrayDesign
from splatforge.designs.entry import EntryFormat
from splatforge.designs.fetch import TILE_PX, SplatFormat
from splatforge.designs.nru import NruDesign
from splatforge.designs.radiance import RadianceDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.setup import SetupDesign
from splatforge.designs.sharing import SharingDesign
from splatforge.designs.shell import DESCRIPTOR_HEAD, ShellDesign
from splatforge.designs.tilelists import TilelistsDesign
from splatforge.designs.vru import VruDesign

__all__ = ["COUNTERS", "DESCRIPTOR_FIELDS", "FLAG_CACHE", "FLAG_FLUSH", "FLAG_REMAP", "ID_BITS",
           "PRESETS", "LuminaDesign"]

#: Bits of a Gaussian's id in a list; a word of a list has 32.
ID_BITS = 28

FLAG_CACHE = 1 << 0
"""Flag of the descriptor: pixels are looked up in the cache and put into it."""
FLAG_FLUSH = 1 << 1
"""Flag of the descriptor: banks start empty, and are not loaded."""
FLAG_REMAP = 1 << 2
"""Flag of the descriptor: chunks may be blended in passes, several splats at a pixel a cycle."""

#: Performance counters in register order: (name, unit, what it counts).
COUNTERS = (
    ("cycles", "cycles", "accepted START write to last write response"),
    ("lookups", "pixels", "looked up in the cache"),
    ("hits", "pixels", "of these, found in it"),
    ("bypassed", "pixels", "that ended before their record was complete"),
    ("descriptor_bytes", "bytes", "read of the frame descriptor"),
    ("table_bytes", "bytes", "read of the tile table, padding included"),
    ("list_bytes", "bytes", "read of lists"),
    ("feature_bytes", "bytes", "read of features"),
    ("cache_read_bytes", "bytes", "read of banks of the cache"),
    ("cache_written_bytes", "bytes", "written of banks of the cache"),
    ("pixel_bytes", "bytes", "written to the framebuffer, strobed bytes only"),
)

#: Frame descriptor: (name, byte offset, bytes).
DESCRIPTOR_FIELDS = (
    *DESCRIPTOR_HEAD,
    ("flags", 9, 1),
    ("table_address", 16, 8),
    ("list_address", 24, 8),
    ("frame_address", 32, 8),
    ("pitch_bytes", 40, 4),
    ("list_beats", 44, 4),
    ("feature_address", 48, 8),
    ("cache_address", 56, 8),
)
#: A list tells a Gaussian's number alone.
_ENTRY = EntryFormat(feature_bits=ID_BITS, depth_bits=1)


@dataclass(frozen=True, kw_only=True)
class LuminaDesign:
    """Everything that a designer may turn in Lumina.

    Parameters
    ----------
    sharing : SharingDesign
        What the GPU sorts, and when.
    radiance : RadianceDesign
        The cache.
    caching : bool
        Whether frames use it.
    remapping : bool
        Whether chunks may be blended in passes; it changes no pixel.
    tilelists : TilelistsDesign
        What reads the lists.
    vru : VruDesign
        The cache of features, and from a feature to a splat of a tile. 512 KB: lists of captures at
        160x120 have up to 18,000 or 37,000 entries a tile, and with GSCore's 128 KB 89 and 97 % of
        features come from memory.
    nru : NruDesign
        The units that blend.
    resolve, shell : ResolveDesign, ShellDesign
        Parameters of the units that every accelerator has.

    Attributes
    ----------
    name, number, counters, read_counters, write_counters, descriptor_fields :
        See :class:`splatforge.designs.shell.AcceleratorDesign`.

    Raises
    ------
    ValueError
        If the units disagree on a format, or a cached colour would not come back from the
        accumulator as it was.
    """

    name: ClassVar[str] = "lumina"
    number: ClassVar[int] = 4
    counters: ClassVar[tuple[tuple[str, str, str], ...]] = COUNTERS
    read_counters: ClassVar[tuple[str, ...]] = (
        "descriptor_bytes", "table_bytes", "list_bytes", "feature_bytes", "cache_read_bytes")
    write_counters: ClassVar[tuple[str, ...]] = ("cache_written_bytes", "pixel_bytes")
    descriptor_fields: ClassVar[tuple[tuple[str, int, int], ...]] = DESCRIPTOR_FIELDS

    sharing: SharingDesign = SharingDesign()
    radiance: RadianceDesign = RadianceDesign()
    caching: bool = True
    remapping: bool = True
    tilelists: TilelistsDesign = TilelistsDesign(entry=_ENTRY)
    vru: VruDesign = VruDesign(entry=_ENTRY, cache_features=16384)
    nru: NruDesign = NruDesign()
    resolve: ResolveDesign = ResolveDesign()
    shell: ShellDesign = ShellDesign()

    def __post_init__(self) -> None:
        self.array.check_splat(self.splat)
        if self.tilelists.entry != self.vru.entry:
            raise ValueError(
                f"Lists and the cache of features must agree on entries, not {self.vru.entry}")
        self.resolve.check_blend(self.nru.blend)
        # Off by half a unit of the accumulator, less than half a step of 8 bits.
        if self.nru.blend.accumulator.frac_bits < 8:
            raise ValueError(
                "Accumulator must hold 8-bit colours, with 8 fraction bits or more, "
                f"not {self.nru.blend.accumulator}")

    def check_frames(self) -> None:
        """Whether the whole core can be built: a smaller array is a unit on its own.

        Raises
        ------
        ValueError
            If the units are not as many as a tile's pixels need.
        """
        if self.nru.tile_px != TILE_PX:
            raise ValueError(
                f"Units must cover a tile of {TILE_PX} pixels a side in whole frames, with nru.side"
                f" {TILE_PX // 2}, not of {self.nru.tile_px}, with {self.nru.side}")

    @property
    def array(self) -> ArrayDesign:
        """The units as an array that has a lane for every pixel of a tile."""
        return self.nru.array

    @property
    def setup(self) -> SetupDesign:
        """From a feature to a splat of a tile."""
        return self.vru.setup

    @property
    def splat(self) -> SplatFormat:
        """What the units that blend take."""
        return self.setup.splat


#: Named configurations for ``--preset``: Lumina, sorting shared alone, caching alone, neither.
PRESETS = {
    "default": LuminaDesign(),
    "sharing": LuminaDesign(caching=False),
    "caching": LuminaDesign(sharing=SharingDesign(window=1, margin_px=0)),
    "plain": LuminaDesign(sharing=SharingDesign(window=1, margin_px=0), caching=False),
}
