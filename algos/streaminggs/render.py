"""A frame of StreamingGS in integers: what is in memory, the picture, and what happened.

Group after group of tiles: the voxels that reach it from front to back; of each the Gaussians that
pass the coarse filter; of these the ones that pass the fine one, in order of depth; of each a splat
in every tile of the group that it meets.
"""

from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt
from numba import njit

from splatforge.algos.array import Workload, array_fixed
from splatforge.algos.cfu import CfuFrame, Visits, cfu_fixed
from splatforge.algos.fetch import MemoryImage, SplatLists, align, encode_descriptor
from splatforge.algos.ffu import (
    Codebooks,
    FineGaussians,
    decode_fine,
    pack_codebooks,
    place_words,
    project_fine,
    spans_in_group,
)
from splatforge.algos.resolve import FixedFrame
from splatforge.algos.setup import setup_fixed
from splatforge.algos.streaminggs.order import OrderWeights, order_weights
from splatforge.algos.streaminggs.partition import Partition, camera_cell, partition
from splatforge.algos.streaminggs.quantize import Quantized, decode, quantize
from splatforge.algos.vsu import VsuFrame, pack_stream_camera, vsu_fixed
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import DESCRIPTOR_VERSION
from splatforge.designs.streaminggs import DESCRIPTOR_FIELDS, StreaminggsDesign
from splatforge.designs.tokens import GROUP_TAG_BITS
from splatforge.scenes import Camera, Scene

__all__ = ["Layout", "StoredScene", "StreaminggsFrame", "StreaminggsInput", "StreaminggsWorkload",
           "lay_out", "pack", "prepare", "render", "store"]

Int64Array = npt.NDArray[np.int64]
UInt16Array = npt.NDArray[np.uint16]
UInt32Array = npt.NDArray[np.uint32]
UInt64Array = npt.NDArray[np.uint64]

#: Alignment of what lies in memory behind the descriptor: what no burst crosses.
ALIGNMENT = 4096
#: Features made into splats at once.
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredScene:
    """A scene as it lies in memory; once a scene.

    Parameters
    ----------
    cut : Partition
        Its voxels.
    quantized : Quantized
        Codebooks and indices, in the voxels' order.
    """

    cut: Partition
    quantized: Quantized

    @cached_property
    def table(self) -> UInt32Array:
        """Records of the voxels, shape [V, 8]."""
        return self.cut.table()

    @cached_property
    def beats(self) -> UInt32Array:
        """Coarse and fine halves, shape [beats, 4]."""
        return self.cut.beats(self.quantized.beats())

    @property
    def codebooks(self) -> Codebooks:
        """Entries of every codebook by name."""
        return self.quantized.codebooks

    @property
    def sh_degree(self) -> int:
        """SH degree of the scene, as far as codebooks have it."""
        return min(self.cut.scene.sh_degree, self.quantized.design.sh_degree)

    @cached_property
    def codebook_beats(self) -> UInt16Array:
        """Codebooks that the scene needs as they lie in memory, halves of shape [beats, 8]."""
        design = self.quantized.design
        return pack_codebooks(design, self.quantized.codebooks)[
            :design.loaded_beats(self.sh_degree)]

    def decode(self) -> Scene:
        """The Gaussians that the hardware sees, in the voxels' order."""
        return decode(self.cut, self.quantized)


def store(scene: Scene, design: StreaminggsDesign) -> StoredScene:
    """Cut a scene into voxels and quantize it. Takes seconds, and is the same for all frames."""
    cut = partition(scene, design.partition)
    return StoredScene(cut=cut, quantized=quantize(
        scene.select(cut.ids), design.ffu.codebooks, design.ffu.feature))


#: What was stored last, for the next frame of the same scene.
_stored = lru_cache(maxsize=1)(store)


@dataclass(frozen=True, kw_only=True, eq=False)
class StreaminggsInput:
    """What is in memory when a frame starts.

    Parameters
    ----------
    width, height : int
        Frame in pixels.
    stored : StoredScene
        The scene.
    camera : ndarray
        Record of the camera.
    """

    width: int
    height: int
    stored: StoredScene
    camera: UInt32Array

    @property
    def tiles_x(self) -> int:
        """Tiles side by side."""
        return -(-self.width // TILE_PX)

    @property
    def tiles_y(self) -> int:
        """Tiles on top of each other."""
        return -(-self.height // TILE_PX)


def prepare(
    scene: Scene | StoredScene, camera: Camera, design: StreaminggsDesign, *,
    weights: OrderWeights | None = None,
) -> StreaminggsInput:
    """Records of a scene and a camera, as they stand in memory.

    Parameters
    ----------
    scene : Scene or StoredScene
        A scene is stored first (:func:`store`), and kept for the next frame.
    camera : Camera
        In the scene's units.
    design : StreaminggsDesign
        Formats.
    weights : OrderWeights, optional
        Of the order of voxels; after the view by default.

    Raises
    ------
    ValueError
        If the frame is larger than the design allows.
    """
    width, height, side = camera.width, camera.height, design.shell.max_side
    if not (1 <= width <= side and 1 <= height <= side):
        raise ValueError(f"Frame must be 1x1 to {side}x{side} pixels, not {width}x{height}")
    stored = scene if isinstance(scene, StoredScene) else _stored(scene, design)
    cut = stored.cut
    weights = weights or order_weights(cut, camera)
    record = pack_stream_camera(
        design.vsu.floating, cut.stored_camera(camera),
        np.clip(camera_cell(cut, camera), 0, 8 * cut.counts - 1),
        antialiased=cut.scene.antialiased, weights=weights.cells, child_weights=weights.children)
    return StreaminggsInput(width=width, height=height, stored=stored, camera=record)


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of a frame lie in memory, in bytes."""

    descriptor_address: int
    camera_address: int
    voxel_address: int
    codebook_address: int
    scene_address: int
    frame_address: int
    pitch_bytes: int


def lay_out(
    frame: StreaminggsInput, pixel_format: PixelFormat = PixelFormat.RGBA8,
    base_address: int = 0x1000_0000,
) -> Layout:
    """Addresses of a frame: descriptor, camera, voxels, codebooks, Gaussians, framebuffer.

    Parameters
    ----------
    frame : StreaminggsInput
        From :func:`prepare`.
    pixel_format : PixelFormat
        Of the framebuffer.
    base_address : int
        Where the descriptor goes.

    Raises
    ------
    ValueError
        If the base is no multiple of 4096.
    """
    if base_address % ALIGNMENT:
        raise ValueError(f"Base address must be a multiple of {ALIGNMENT}, not {base_address:#x}")
    at = base_address + ALIGNMENT
    addresses = []
    for words in (frame.camera, frame.stored.table, frame.stored.codebook_beats,
                  frame.stored.beats):
        addresses.append(at)
        at += align(words.nbytes, ALIGNMENT)
    camera_address, voxel_address, codebook_address, scene_address = addresses
    return Layout(
        descriptor_address=base_address, camera_address=camera_address,
        voxel_address=voxel_address, codebook_address=codebook_address,
        scene_address=scene_address, frame_address=at,
        pitch_bytes=align(frame.width, TILE_PX) * pixel_format.size_bytes)


def pack(
    frame: StreaminggsInput,
    design: StreaminggsDesign,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    pixel_format: PixelFormat = PixelFormat.RGBA8,
    base_address: int = 0x1000_0000,
    load_codebooks: bool = True,
) -> MemoryImage:
    """Lay a frame out in memory.

    Parameters
    ----------
    frame : StreaminggsInput
        From :func:`prepare`.
    design : StreaminggsDesign
        The background's format.
    background : tuple of float
        Linear red, green, blue in [0, 1], rounded to the design's background format.
    pixel_format : PixelFormat
        What the framebuffer is to hold.
    base_address : int
        Where the descriptor goes, a multiple of 4096; the rest follows.
    load_codebooks : bool
        Whether the frame loads its codebooks; if not, those of an earlier frame of the same scene
        must be on chip, where they stay, and are not in memory.

    Returns
    -------
    MemoryImage
        The frame. Addresses ascend; nothing overlaps.

    Raises
    ------
    ValueError
        If the base is not aligned, or the background is outside [0, 1].
    """
    if not all(0 <= channel <= 1 for channel in background):
        raise ValueError(f"Background must be in [0, 1], not {background!r}")
    place = lay_out(frame, pixel_format, base_address)
    red, green, blue = design.resolve.background.quantize(background).tolist()
    values = {
        "version": DESCRIPTOR_VERSION, "width": frame.width, "height": frame.height,
        "pixel_format": int(pixel_format), "sh_degree": frame.stored.sh_degree,
        "background_red": red, "background_green": green,
        "background_blue": blue, "scene_address": place.scene_address,
        "voxel_address": place.voxel_address, "frame_address": place.frame_address,
        "pitch_bytes": place.pitch_bytes, "voxels": len(frame.stored.table),
        "camera_address": place.camera_address,
        "codebook_address": place.codebook_address if load_codebooks else 0,
    }
    codebooks = frame.stored.codebook_beats if load_codebooks else ()
    segments = tuple(
        (address, np.ascontiguousarray(words).reshape(-1).view(np.uint8))
        for address, words in (
            (place.camera_address, frame.camera), (place.voxel_address, frame.stored.table),
            (place.codebook_address, codebooks),
            (place.scene_address, frame.stored.beats))
        if len(words))
    return MemoryImage(
        segments=((base_address, encode_descriptor(DESCRIPTOR_FIELDS, values)), *segments),
        descriptor_address=base_address, frame_address=place.frame_address, width=frame.width,
        height=frame.height, pixel_format=pixel_format, pitch_bytes=place.pitch_bytes,
        core=design.name)


@dataclass(frozen=True, kw_only=True, eq=False)
class StreaminggsWorkload:
    """What happened in one frame, as if no group ended before its last voxel.

    Parameters
    ----------
    vsu : VsuFrame
        Voxels of every group.
    visits : Visits
        Voxels and ends of groups, in order.
    cfu : CfuFrame
        What the coarse filter did with the Gaussians of each.
    visit, number : ndarray
        Of every Gaussian that it passes: its visit, and its number in the voxel, as it lies in
        memory; shape [C]. They are in the order in which they are passed.
    fine : FineGaussians
        What the fine filter makes of them, shape [C].
    spans : ndarray
        Tiles of the group that they meet, first column and row, last column and row, shape [C, 4].
    kept : ndarray of bool
        Whether they leave the fine filter, shape [C].
    order : ndarray
        Those that do, in the order in which the sorters give them; indices into the above,
        shape [F].
    splat_places : ndarray
        For every splat the place in ``order`` of its feature, tile after tile as in ``array``.
    records : ndarray
        Splats, tile after tile, shape [splats, 2].
    array : Workload
        What happened in the rendering array.
    """

    vsu: VsuFrame
    visits: Visits
    cfu: CfuFrame
    visit: Int64Array
    number: Int64Array
    fine: FineGaussians
    spans: Int64Array
    kept: npt.NDArray[np.bool_]
    order: Int64Array
    splat_places: Int64Array
    records: UInt64Array
    array: Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class StreaminggsFrame(FixedFrame):
    """A frame of the bit-true model.

    Parameters
    ----------
    workload : StreaminggsWorkload
        What happened.
    """

    workload: StreaminggsWorkload


def _visits(frame: VsuFrame) -> tuple[Visits, Int64Array]:
    """What leaves the voxel sorting unit, and which voxel of the table each visit is, -1 an end."""
    groups = frame.columns * frame.rows
    group = np.repeat(np.arange(groups), np.diff(frame.starts) + 1)
    ends = frame.starts[1:] + np.arange(groups)
    is_end = np.zeros(len(group), bool)
    is_end[ends] = True
    prefixes = np.zeros(len(group), np.int64)
    prefixes[~is_end] = frame.prefixes

    def column(values: Int64Array) -> Int64Array:
        out = np.zeros(len(group), np.int64)
        out[~is_end] = values[frame.places]
        return out

    return Visits(
        tags=group % (1 << GROUP_TAG_BITS), columns=group % frame.columns,
        rows=group // frame.columns,
        words=np.stack([*(column(part) for part in frame.d), column(frame.size)], axis=1),
        counts=column(frame.count), prefixes=prefixes, addresses=column(frame.address)), np.where(
            is_end, -1, column(frame.ids))


@njit(cache=True)
def _tile_kernel(order, tile_x, tile_y, spans, tiles_x, slots, places):
    """Places of features in the lists of tiles; with `places` empty only count into `slots`."""
    for place in range(len(order)):
        i = order[place]
        for y in range(tile_y[i] + spans[i, 1], tile_y[i] + spans[i, 3] + 1):
            for x in range(tile_x[i] + spans[i, 0], tile_x[i] + spans[i, 2] + 1):
                if len(places):
                    places[slots[y * tiles_x + x]] = place
                slots[y * tiles_x + x] += 1


def _select(fine: FineGaussians, index: Int64Array) -> FineGaussians:
    """The Gaussians that `index` picks, in its order."""
    return FineGaussians(
        feature={name: values[index] for name, values in fine.feature.items()},
        **{name: getattr(fine, name)[index] for name in (
            "depth", "culled", "position_x", "position_y", "extent_x", "extent_y")})


def render(
    frame: StreaminggsInput, design: StreaminggsDesign,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> StreaminggsFrame:
    """Render a prepared frame, bit-true to :class:`splatforge.hw.streaminggs.Streaminggs`.

    Parameters
    ----------
    frame : StreaminggsInput
        From :func:`prepare`.
    design : StreaminggsDesign
        Number formats and groups.
    background : tuple of float
        Linear red, green, blue in [0, 1].

    Returns
    -------
    StreaminggsFrame
        The frame and its workload.

    Raises
    ------
    ValueError
        If more voxels are visible than are kept on chip.
    """
    stored = frame.stored
    vsu = vsu_fixed(design.vsu, stored.table, frame.camera, frame.width, frame.height)
    visits, voxel_of = _visits(vsu)
    cfu = cfu_fixed(design.cfu, visits, stored.beats, frame.camera)

    # What is passed, and for each Gaussian that is passed anywhere the arithmetic once.
    passed = np.flatnonzero(cfu.passed)
    visit = np.searchsorted(cfu.starts, passed, side="right") - 1
    number = passed - cfu.starts[visit]
    voxel = voxel_of[visit]
    unique, first, inverse = np.unique(
        stored.cut.in_memory[stored.cut.starts[voxel] + number], return_index=True,
        return_inverse=True)
    words = {name: visits.words[visit[first], k]
             for k, name in enumerate(("d_x", "d_y", "d_z", "size"))}
    words |= place_words(design.ffu, *cfu.coarse(stored.beats, passed[first]))
    words |= decode_fine(
        design.ffu, stored.codebooks,
        np.ascontiguousarray(stored.quantized.beats()[unique]).view(np.uint64), stored.sh_degree)
    fine = _select(project_fine(design.ffu, words, frame.camera), inverse)
    spans, kept = spans_in_group(
        design.ffu, fine, visits.columns[visit], visits.rows[visit], frame.width, frame.height)

    # A sorter's keys are depth and number, so that none is equal to another of its voxel.
    order = np.flatnonzero(kept)
    order = order[np.lexsort((number[order], fine.depth[order], visit[order]))]
    group_tiles = design.vsu.group_tiles
    tile_x, tile_y = visits.columns[visit] * group_tiles, visits.rows[visit] * group_tiles
    starts = np.zeros(frame.tiles_x * frame.tiles_y + 1, np.int64)
    _tile_kernel(order, tile_x, tile_y, spans, frame.tiles_x, starts[1:], np.zeros(0, np.int64))
    np.cumsum(starts, out=starts)
    places = np.empty(int(starts[-1]), np.int64)
    _tile_kernel(order, tile_x, tile_y, spans, frame.tiles_x, starts[:-1].copy(), places)

    tile = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
    records = np.zeros((len(places), 2), np.uint64)
    for begin in range(0, len(places), _CHUNK):
        part = slice(begin, begin + _CHUNK)
        of = order[places[part]]
        records[part] = setup_fixed(
            design.setup, design.ffu,
            {name: values[of] for name, values in fine.feature.items()}, fine.extent_x[of],
            fine.extent_y[of], tile[part] % frame.tiles_x, tile[part] // frame.tiles_x)
    color = design.ffu.feature.color.raw_max
    saturated = np.any([fine.feature[name] == color for name in ("red", "green", "blue")], axis=0)
    seen = np.unique(inverse[kept])
    state, workload = array_fixed(design.array, design.splat, SplatLists(
        width=frame.width, height=frame.height, starts=starts, records=records,
        pairs=np.diff(starts), places=(np.arange(len(places)) - starts[tile]).astype(np.int32),
        gaussians=stored.cut.gaussians, gaussians_visible=len(seen),
        sh_degree=stored.cut.scene.sh_degree,
        gaussians_saturated=len(np.unique(inverse[kept & saturated]))))
    red, green, blue = design.resolve.background.quantize(background).tolist()
    return StreaminggsFrame(
        design=design, state=state, background=(red, green, blue),
        workload=StreaminggsWorkload(
            vsu=vsu, visits=visits, cfu=cfu, visit=visit, number=number, fine=fine, spans=spans,
            kept=kept, order=order, splat_places=places, records=records, array=workload))
