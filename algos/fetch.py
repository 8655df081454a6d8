"""Tile lists as the hardware reads them: splat records, tile table, and the frame in memory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.algos.records import decode_record, encode_record
from splatforge.designs.fetch import TILE_PX, FetchDesign, SplatFormat
from splatforge.designs.raster import DESCRIPTOR_FIELDS
from splatforge.designs.resolve import PixelFormat, ResolveDesign
from splatforge.designs.shell import DESCRIPTOR_BYTES, DESCRIPTOR_VERSION, ShellDesign

__all__ = ["FrameLayout", "MemoryImage", "SplatLists", "align", "decode_splats",
           "encode_descriptor", "encode_splats", "fetch_fixed", "lay_out", "pack"]

#: Alignment of the tile table and of the splat records: the longest burst of the default design.
LIST_ALIGNMENT = 256


@dataclass(frozen=True, kw_only=True, eq=False)
class SplatLists:
    """The lists of one frame: what is in memory when a frame starts.

    Parameters
    ----------
    width, height : int
        Frame in pixels.
    starts : ndarray
        First record of every tile, of shape [tiles + 1], row-major tiles; int64.
    records : ndarray
        Splat records of shape [splats, 2], little-endian words of 64 bits, low word first.
    pairs : ndarray
        Entries of the 3-sigma list of every tile, of shape [tiles]; int64. A record exists only
        for those whose alpha can reach 1/255 at a pixel of the tile.
    places : ndarray
        Place of every record in its tile's 3-sigma list, of shape [splats]; int32.
    gaussians, gaussians_visible, sh_degree : int
        Of the scene, and of those that meet the image; for the models of the stages before.
    gaussians_saturated : int
        Gaussians with a record whose colour is beyond the record's format, and is drawn at its end.
    """

    width: int
    height: int
    starts: npt.NDArray[np.int64]
    records: npt.NDArray[np.uint64]
    pairs: npt.NDArray[np.int64]
    places: npt.NDArray[np.int32]
    gaussians: int
    gaussians_visible: int
    sh_degree: int
    gaussians_saturated: int = 0

    @property
    def tiles_x(self) -> int:
        """Tiles side by side."""
        return -(-self.width // TILE_PX)

    @property
    def tiles_y(self) -> int:
        """Tiles on top of each other."""
        return -(-self.height // TILE_PX)

    @property
    def splats(self) -> int:
        """Records of the frame."""
        return len(self.records)


def encode_splats(
    splat: SplatFormat, fields: dict[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.uint64]:
    """Records of shape [N, 2] from raw fields of shape [N] each.

    Raises
    ------
    ValueError
        If a raw field does not fit its bits.
    """
    return encode_record("Splat", splat.fields(), 2, fields)


def decode_splats(
    splat: SplatFormat, records: npt.NDArray[np.uint64]
) -> dict[str, npt.NDArray[np.int64]]:
    """Raw fields of shape [N] each from records of shape [N, 2]."""
    return decode_record(splat.fields(), records)


@dataclass(frozen=True, kw_only=True, eq=False)
class MemoryImage:
    """A packed frame: bytes at addresses, and where the picture is to appear.

    Parameters
    ----------
    segments : tuple
        (address, bytes as uint8 array) of everything that is read.
    descriptor_address, frame_address : int
        Of the frame descriptor and of the framebuffer.
    width, height : int
        Frame in pixels.
    pixel_format : PixelFormat
        Of the framebuffer.
    pitch_bytes : int
        From one row of the framebuffer to the next.
    core : str
        The accelerator that the frame is packed for, a name of
        :data:`splatforge.designs.accelerators.ACCELERATORS`.
    workspace_address, workspace_bytes : int
        Memory that the accelerator writes and reads back; its content before the frame is any.

    Raises
    ------
    ValueError
        If the pitch is less than a row of the frame: the rows would overlap.
    """

    segments: tuple[tuple[int, npt.NDArray[np.uint8]], ...]
    descriptor_address: int
    frame_address: int
    width: int
    height: int
    pixel_format: PixelFormat
    pitch_bytes: int
    core: str = "raster"
    workspace_address: int = 0
    workspace_bytes: int = 0

    def __post_init__(self) -> None:
        row_bytes = self.width * self.pixel_format.size_bytes
        if self.pitch_bytes < row_bytes:
            raise ValueError(
                f"Pitch must be at least {row_bytes} bytes, a row of the frame, "
                f"not {self.pitch_bytes}")

    @property
    def frame_bytes(self) -> int:
        """Bytes of the framebuffer, rows of padding included."""
        return self.pitch_bytes * self.height

    def pixels(self, framebuffer: bytes | npt.NDArray[np.uint8]) -> npt.NDArray:
        """Framebuffer bytes as an array of shape [height, width, 4].

        uint8 for RGBA8, uint16 for RGBA16, uint32 for STATE.
        """
        kind = {PixelFormat.RGBA8: "<u1", PixelFormat.RGBA16: "<u2", PixelFormat.STATE: "<u4"}
        rows = np.frombuffer(framebuffer, np.uint8)[: self.frame_bytes]
        rows = rows.reshape(self.height, self.pitch_bytes)
        row_bytes = self.width * self.pixel_format.size_bytes
        rows = np.ascontiguousarray(rows[:, :row_bytes])
        return rows.view(kind[self.pixel_format]).reshape(self.height, self.width, 4)


def align(address: int, to: int) -> int:
    """Address next to `address` that is a multiple of `to`."""
    return -(-address // to) * to


def encode_descriptor(
    fields: Sequence[tuple[str, int, int]], values: Mapping[str, int]
) -> npt.NDArray[np.uint8]:
    """Bytes of a frame descriptor, reserved ones zero.

    Parameters
    ----------
    fields : sequence of tuple
        (name, byte offset, bytes), as an accelerator's ``descriptor_fields``.
    values : Mapping
        The value of every field.
    """
    descriptor = bytearray(DESCRIPTOR_BYTES)
    for name, offset, size in fields:
        descriptor[offset:offset + size] = values[name].to_bytes(size, "little")
    return np.frombuffer(bytes(descriptor), np.uint8)


@dataclass(frozen=True, kw_only=True)
class FrameLayout:
    """Where a frame lies in memory; descriptor first, nothing overlaps.

    Parameters
    ----------
    descriptor_address, table_address, splat_address, frame_address : int
        Of the frame descriptor, the tile table, the records and the framebuffer.
    pitch_bytes : int
        From one row of the framebuffer to the next.
    """

    descriptor_address: int
    table_address: int
    splat_address: int
    frame_address: int
    pitch_bytes: int


def lay_out(
    width: int, height: int, splats: int, pixel_format: PixelFormat,
    base_address: int = 0x1000_0000,
) -> FrameLayout:
    """Addresses of a frame of `width` by `height` pixels and `splats` records.

    Raises
    ------
    ValueError
        If the base is no multiple of 256.
    """
    if base_address % LIST_ALIGNMENT:
        raise ValueError(f"Base address must be a multiple of 256, not {base_address:#x}")
    tiles = -(-width // TILE_PX) * -(-height // TILE_PX)
    table_address = base_address + LIST_ALIGNMENT
    splat_address = align(table_address + 8 * tiles, LIST_ALIGNMENT)
    return FrameLayout(
        descriptor_address=base_address, table_address=table_address, splat_address=splat_address,
        # Reads come in whole beats: the last beat of the table may reach past its last entry.
        frame_address=align(splat_address + 16 * max(splats, 1), 4096),
        pitch_bytes=align(width * pixel_format.size_bytes, TILE_PX * pixel_format.size_bytes))


def pack(
    lists: SplatLists,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    pixel_format: PixelFormat = PixelFormat.RGBA8,
    base_address: int = 0x1000_0000,
    resolve: ResolveDesign = ResolveDesign(),  # noqa: B008
) -> MemoryImage:
    """Lay a frame out in memory: descriptor, tile table, records, framebuffer.

    Parameters
    ----------
    lists : SplatLists
        The lists.
    background : tuple of float
        Linear red, green, blue in [0, 1], rounded to the design's background format.
    pixel_format : PixelFormat
        What the framebuffer is to hold.
    base_address : int
        Where the descriptor goes, a multiple of 256; the rest follows.
    resolve : ResolveDesign
        For the background's format.

    Returns
    -------
    MemoryImage
        The frame. Addresses ascend; nothing overlaps.

    Raises
    ------
    ValueError
        If the base is not aligned, the background is outside [0, 1] or the frame has 2^32
        records or more.
    """
    if not all(0 <= channel <= 1 for channel in background):
        raise ValueError(f"Background must be in [0, 1], not {background!r}")
    if lists.splats >= 1 << 32:
        raise ValueError(f"A frame must have fewer than 2^32 splats, not {lists.splats}")
    table = np.empty((lists.tiles_x * lists.tiles_y, 2), "<u4")
    table[:, 0] = lists.starts[:-1]
    table[:, 1] = np.diff(lists.starts)
    place = lay_out(lists.width, lists.height, lists.splats, pixel_format, base_address)
    red, green, blue = resolve.background.quantize(background).tolist()
    values = {
        "version": DESCRIPTOR_VERSION, "width": lists.width, "height": lists.height,
        "pixel_format": int(pixel_format), "background_red": red, "background_green": green,
        "background_blue": blue, "table_address": place.table_address,
        "splat_address": place.splat_address, "frame_address": place.frame_address,
        "pitch_bytes": place.pitch_bytes, "splats": lists.splats,
    }
    padded = np.zeros(align(table.nbytes, 16), np.uint8)
    padded[: table.nbytes] = table.reshape(-1).view(np.uint8)
    segments = [
        (base_address, encode_descriptor(DESCRIPTOR_FIELDS, values)),
        (place.table_address, padded),
    ]
    if lists.splats:
        records = np.ascontiguousarray(lists.records, "<u8")
        segments.append((place.splat_address, records.reshape(-1).view(np.uint8)))
    return MemoryImage(
        segments=tuple(segments), descriptor_address=base_address,
        frame_address=place.frame_address, width=lists.width, height=lists.height,
        pixel_format=pixel_format, pitch_bytes=place.pitch_bytes,
    )


def fetch_fixed(
    design: FetchDesign, shell: ShellDesign, lists: SplatLists
) -> list[tuple[int, int, int, int]]:
    """Read bursts of a frame without early stops, as (tile or -1, first, beats, kind).

    Bit-true to :class:`splatforge.hw.fetch.Fetch` in content, not in time: kind 1 reads beats of
    the tile table in aligned bursts, kind 2 reads the splats of a tile in bursts that end at
    aligned multiples of ``burst_beats``. Times and what an early stop leaves out are
    :mod:`splatforge.sim.fetch`'s.
    """
    bursts: list[tuple[int, int, int, int]] = []
    beats = design.burst_beats
    tiles = len(lists.starts) - 1
    table_beats = -(-tiles * 8 // shell.data_bytes)
    for first in range(0, table_beats, beats):
        bursts.append((-1, first, min(beats, table_beats - first), 1))
    for tile in range(tiles):
        first, last = int(lists.starts[tile]), int(lists.starts[tile + 1])
        while first < last:
            count = min(beats - first % beats, last - first)
            bursts.append((tile, first, count, 2))
            first += count
    return bursts
