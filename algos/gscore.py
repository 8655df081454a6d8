"""GSCore's algorithm: a scene to features and tile entries, entries in order to a frame."""

from dataclasses import dataclass

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.algos.array import Workload, array_fixed
from splatforge.algos.ccu import (
    FRUSTUM_MARGIN,
    CcuFrame,
    ccu_fixed,
    gaussian_numbers,
    pack_camera,
    pack_gaussians,
)
from splatforge.algos.falloff import real_table, step_of
from splatforge.algos.fetch import MemoryImage, SplatLists, align, encode_descriptor
from splatforge.algos.footprint import DILATION, SIGMAS
from splatforge.algos.project import Projected, project
from splatforge.algos.rasterize import ALPHA_MAX, ALPHA_MIN, TRANSMITTANCE_MIN
from splatforge.algos.records import decode_record
from splatforge.algos.reference import Frame
from splatforge.algos.resolve import FixedFrame
from splatforge.algos.vru import vru_fixed
from splatforge.algos.workers import Workers
from splatforge.designs.ccu import BEAT_WORDS, gaussian_beats
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.feature import FEATURE_BYTES
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.gscore import DESCRIPTOR_FIELDS, GscoreDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import DESCRIPTOR_VERSION
from splatforge.designs.vru import REGION_PX
from splatforge.scenes import Camera, Scene

__all__ = ["GscoreFrame", "GscoreInput", "GscoreWorkload", "Layout", "lay_out", "pack", "prepare",
           "render", "render_float", "workspace_pages"]

UInt32Array = npt.NDArray[np.uint32]
Float64Array = npt.NDArray[np.float64]

#: Alignment of what lies in memory behind the descriptor: what no burst crosses.
ALIGNMENT = 4096
#: Entries that are made into splats at once.
_CHUNK = 1 << 16


@dataclass(frozen=True, kw_only=True, eq=False)
class GscoreInput:
    """What is in memory when a frame starts.

    Parameters
    ----------
    width, height : int
        Frame in pixels.
    gaussians : ndarray
        Records of the Gaussians, shape [N, words]; the same for every frame of a scene.
    camera : ndarray
        Record of the camera.
    sh_degree : int
        Of the Gaussians.
    """

    width: int
    height: int
    gaussians: UInt32Array
    camera: UInt32Array
    sh_degree: int

    @property
    def tiles_x(self) -> int:
        """Tiles side by side."""
        return -(-self.width // TILE_PX)

    @property
    def tiles_y(self) -> int:
        """Tiles on top of each other."""
        return -(-self.height // TILE_PX)

    def project(self, design: GscoreDesign) -> CcuFrame:
        """Features and entries of the frame."""
        return ccu_fixed(
            design.ccu, self.gaussians, self.camera, self.sh_degree, self.width, self.height)


def prepare(scene: Scene, camera: Camera, design: GscoreDesign) -> GscoreInput:
    """Records of a scene and a camera, as they stand in memory.

    Raises
    ------
    ValueError
        If the frame is larger than the design allows.
    """
    width, height, side = camera.width, camera.height, design.shell.max_side
    if not (1 <= width <= side and 1 <= height <= side):
        raise ValueError(f"Frame must be 1x1 to {side}x{side} pixels, not {width}x{height}")
    frame = GscoreInput(
        width=width, height=height, gaussians=pack_gaussians(design.ccu, scene),
        camera=pack_camera(design.ccu, camera, antialiased=scene.antialiased),
        sh_degree=scene.sh_degree)
    if frame.tiles_x * frame.tiles_y > design.lists.tiles:
        raise ValueError(
            f"Frame must have at most {design.lists.tiles} tiles, "
            f"not {frame.tiles_x * frame.tiles_y}")
    return frame


def workspace_pages(
    design: GscoreDesign, gaussians: int, counts: npt.NDArray[np.int64]
) -> int:
    """Pages of the workspace that are enough for a frame of so many Gaussians.

    Feature records come first, then the tiles' lists, as long as they are, each with a page that is
    allotted ahead. What the partitions of one tile take is free again at its end, so the longest
    list decides. A level of partitions copies at most all of it; each of its partitions is of more
    than a chunk, and leaves in every bucket a page that is not full and one that is allotted ahead.

    Parameters
    ----------
    design : GscoreDesign
        Lists and pages.
    gaussians : int
        Of the scene.
    counts : ndarray
        Entries of every tile.
    """
    lists = design.lists
    pages = -(-gaussians * FEATURE_BYTES // lists.page_bytes)
    in_pages = -(-counts // lists.page_entries)
    longest = int(counts.max(initial=0))
    partitions = longest // (design.qsu.chunk + 1)
    parts = longest // lists.page_entries + 2 * design.qsu.buckets * partitions
    levels = design.qsu.levels(lists) if partitions else 0
    return pages + int(in_pages.sum() + np.count_nonzero(counts)) + levels * parts


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of a frame lie in memory, in bytes."""

    descriptor_address: int
    camera_address: int
    scene_address: int
    workspace_address: int
    workspace_bytes: int
    frame_address: int
    pitch_bytes: int


def lay_out(
    design: GscoreDesign, width: int, gaussians: int, sh_degree: int, pages: int,
    pixel_format: PixelFormat = PixelFormat.RGBA8, base_address: int = 0x1000_0000,
) -> Layout:
    """Addresses of a frame: descriptor, camera, Gaussians, workspace, framebuffer.

    Parameters
    ----------
    design : GscoreDesign
        Pages.
    width : int
        Of the frame in pixels.
    gaussians, sh_degree : int
        Records, and their degree.
    pages : int
        Of the workspace.
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
    camera_address = base_address + ALIGNMENT
    scene_address = camera_address + ALIGNMENT
    scene_bytes = gaussians * gaussian_beats(sh_degree) * BEAT_WORDS * 4
    workspace_address = scene_address + align(scene_bytes, ALIGNMENT)
    workspace_bytes = pages * design.lists.page_bytes
    return Layout(
        descriptor_address=base_address, camera_address=camera_address,
        scene_address=scene_address, workspace_address=workspace_address,
        workspace_bytes=workspace_bytes,
        frame_address=workspace_address + align(workspace_bytes, ALIGNMENT),
        pitch_bytes=align(width, TILE_PX) * pixel_format.size_bytes)


def pack(
    frame: GscoreInput,
    design: GscoreDesign,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    pixel_format: PixelFormat = PixelFormat.RGBA8,
    base_address: int = 0x1000_0000,
    pages: int | None = None,
) -> MemoryImage:
    """Lay a frame out in memory: descriptor, camera, Gaussians, workspace, framebuffer.

    Parameters
    ----------
    frame : GscoreInput
        From :func:`prepare`.
    design : GscoreDesign
        Pages of the workspace, and the background's format.
    background : tuple of float
        Linear red, green, blue in [0, 1], rounded to the design's background format.
    pixel_format : PixelFormat
        What the framebuffer is to hold.
    base_address : int
        Where the descriptor goes, a multiple of 4096; the rest follows.
    pages : int, optional
        Pages of the workspace; enough of them by default.

    Returns
    -------
    MemoryImage
        The frame. Addresses ascend; nothing overlaps.

    Raises
    ------
    ValueError
        If the base is not aligned, the background is outside [0, 1], or there are 2^32 Gaussians or
        more.
    """
    if not all(0 <= channel <= 1 for channel in background):
        raise ValueError(f"Background must be in [0, 1], not {background!r}")
    if len(frame.gaussians) >= 1 << 32:
        raise ValueError(f"A frame must have fewer than 2^32 Gaussians, not {len(frame.gaussians)}")
    if pages is None:
        pages = workspace_pages(
            design, len(frame.gaussians), np.bincount(frame.project(design).tiles))
    place = lay_out(design, frame.width, len(frame.gaussians), frame.sh_degree, pages,
                    pixel_format, base_address)
    red, green, blue = design.resolve.background.quantize(background).tolist()
    values = {
        "version": DESCRIPTOR_VERSION, "width": frame.width, "height": frame.height,
        "pixel_format": int(pixel_format), "background_red": red, "background_green": green,
        "background_blue": blue, "scene_address": place.scene_address,
        "workspace_address": place.workspace_address, "frame_address": place.frame_address,
        "pitch_bytes": place.pitch_bytes, "gaussians": len(frame.gaussians),
        "camera_address": place.camera_address, "workspace_pages": pages,
        "sh_degree": frame.sh_degree,
    }
    segments = [
        (address, np.ascontiguousarray(words, "<u4").reshape(-1).view(np.uint8))
        for address, words in ((place.camera_address, frame.camera),
                               (place.scene_address, frame.gaussians))
        if len(words)]
    return MemoryImage(
        segments=((base_address, encode_descriptor(DESCRIPTOR_FIELDS, values)), *segments),
        descriptor_address=base_address, frame_address=place.frame_address, width=frame.width,
        height=frame.height, pixel_format=pixel_format, pitch_bytes=place.pitch_bytes,
        core=design.name, workspace_address=place.workspace_address,
        workspace_bytes=place.workspace_bytes)


@dataclass(frozen=True, kw_only=True, eq=False)
class GscoreWorkload:
    """What happened in one frame; depends on formats and tests, not on how fast they are.

    Parameters
    ----------
    ccu : CcuFrame
        What leaves the first pass, in its order.
    entries : ndarray
        The same entries tile after tile, in the order of their keys, shape [entries]; uint64. Those
        of tile t are ``array.starts[t]`` to ``array.starts[t + 1]``.
    array : Workload
        What happened in the rendering array.
    """

    ccu: CcuFrame
    entries: npt.NDArray[np.uint64]
    array: Workload


@dataclass(frozen=True, kw_only=True, eq=False)
class GscoreFrame(FixedFrame):
    """A frame of the bit-true model.

    Parameters
    ----------
    workload : GscoreWorkload
        What happened.
    """

    workload: GscoreWorkload


def render(
    frame: GscoreInput, design: GscoreDesign,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> GscoreFrame:
    """Render a prepared frame, bit-true to :class:`splatforge.hw.gscore.Gscore`.

    Parameters
    ----------
    frame : GscoreInput
        From :func:`prepare`.
    design : GscoreDesign
        Number formats.
    background : tuple of float
        Linear red, green, blue in [0, 1].

    Returns
    -------
    GscoreFrame
        The frame and its workload.
    """
    ccu = frame.project(design)
    tiles = frame.tiles_x * frame.tiles_y
    order = np.lexsort((design.ccu.entry.key(ccu.entries), ccu.tiles))
    entries, tile = ccu.entries[order], ccu.tiles[order].astype(np.int64)
    starts = np.zeros(tiles + 1, np.int64)
    np.cumsum(np.bincount(tile, minlength=tiles), out=starts[1:])
    fields = design.ccu.entry.decode(entries)
    records = np.zeros((len(entries), 2), np.uint64)
    for first in range(0, len(entries), _CHUNK):
        part = slice(first, first + _CHUNK)
        records[part] = vru_fixed(
            design.vru, ccu.features[fields["feature"][part]], fields["subtiles"][part],
            tile[part] % frame.tiles_x, tile[part] // frame.tiles_x)
    color = design.vru.feature.color.raw_max
    features = decode_record(design.vru.feature.fields(), ccu.features)
    saturated = np.any([features[name] == color for name in ("red", "green", "blue")], axis=0)
    state, workload = array_fixed(design.array, design.splat, SplatLists(
        width=frame.width, height=frame.height, starts=starts, records=records,
        pairs=np.diff(starts), places=(np.arange(len(entries)) - starts[tile]).astype(np.int32),
        gaussians=len(frame.gaussians), gaussians_visible=len(ccu.ids),
        sh_degree=frame.sh_degree, gaussians_saturated=int(saturated.sum())))
    red, green, blue = design.resolve.background.quantize(background).tolist()
    return GscoreFrame(
        design=design, state=state, background=(red, green, blue),
        workload=GscoreWorkload(ccu=ccu, entries=entries, array=workload))


@nb.njit(cache=True, nogil=True)
def _walk_kernel(mean, half, box, axis, tiles_x, tiles_y, count, tiles, masks, owners):
    """Walk the tiles of every box in float64; with `tiles` empty only count into `count`."""
    reach = REGION_PX / 2
    at = 0
    for n in range(len(mean)):
        first_x = int(max(np.floor((mean[n, 0] - box[n, 0]) / TILE_PX), 0))
        first_y = int(max(np.floor((mean[n, 1] - box[n, 1]) / TILE_PX), 0))
        end_x = int(min(np.ceil((mean[n, 0] + box[n, 0]) / TILE_PX), tiles_x))
        end_y = int(min(np.ceil((mean[n, 1] + box[n, 1]) / TILE_PX), tiles_y))
        shadow = reach * (abs(axis[n, 0]) + abs(axis[n, 1]))
        for tile_y in range(first_y, end_y):
            for tile_x in range(first_x, end_x):
                mask = 0
                for region in range(4):
                    x = tile_x * TILE_PX + reach * (1 + 2 * (region & 1)) - mean[n, 0]
                    y = tile_y * TILE_PX + reach * (1 + 2 * (region >> 1)) - mean[n, 1]
                    along = abs(x * axis[n, 0] + y * axis[n, 1])
                    across = abs(y * axis[n, 0] - x * axis[n, 1])
                    if (abs(x) < box[n, 0] + reach and abs(y) < box[n, 1] + reach
                            and along < half[n, 0] + shadow and across < half[n, 1] + shadow):
                        mask |= 1 << region
                if mask == 0:
                    continue
                if len(tiles):
                    tiles[at], masks[at], owners[at] = tile_y * tiles_x + tile_x, mask, n
                at += 1
    count[0] = at


@nb.njit(cache=True, nogil=True)
def _blend_kernel(
    band, starts, owners, masks, mean, conic, opacity, color, background, step, table, image,
    transmittance
):  # fmt: skip
    """Blend the tiles of a row in float64.

    With a `table` of exponentials, by steps of so many nats, each with what it falls to the next,
    a fragment is tested by its exponent and multiplied by what is found there.
    """
    height, width = transmittance.shape
    tiles_x = (width + TILE_PX - 1) // TILE_PX
    left = np.empty((TILE_PX, TILE_PX))
    ended = np.empty((TILE_PX, TILE_PX), np.bool_)
    sums = np.empty((TILE_PX, TILE_PX, 3))
    for tile in range(band * tiles_x, (band + 1) * tiles_x):
        x0, y0 = tile % tiles_x * TILE_PX, tile // tiles_x * TILE_PX
        columns, rows = min(TILE_PX, width - x0), min(TILE_PX, height - y0)
        left[:], sums[:], ended[:] = 1.0, 0.0, False
        for pair in range(starts[tile], starts[tile + 1]):
            n = owners[pair]
            for y in range(rows):
                for x in range(columns):
                    region = y // REGION_PX * 2 + x // REGION_PX
                    if ended[y, x] or not masks[pair] >> region & 1:
                        continue
                    dx, dy = x0 + x + 0.5 - mean[n, 0], y0 + y + 0.5 - mean[n, 1]
                    power = 0.5 * (conic[n, 0] * dx * dx + conic[n, 2] * dy * dy)
                    if len(table) == 0:
                        alpha = opacity[n] * np.exp(-power - conic[n, 1] * dx * dy)
                        if alpha < ALPHA_MIN:
                            continue
                    else:
                        exponent = power + conic[n, 1] * dx * dy
                        if not 0 <= exponent <= np.log(opacity[n] / ALPHA_MIN):
                            continue
                        place = exponent / step
                        index = min(int(place), len(table) - 1)
                        alpha = opacity[n] * (table[index, 0] - table[index, 1] * (place - index))
                    alpha = min(alpha, ALPHA_MAX)
                    behind = left[y, x] * (1.0 - alpha)
                    if behind < TRANSMITTANCE_MIN:
                        ended[y, x] = True
                        continue
                    for channel in range(3):
                        sums[y, x, channel] += left[y, x] * alpha * color[n, channel]
                    left[y, x] = behind
        for y in range(rows):
            for x in range(columns):
                transmittance[y0 + y, x0 + x] = left[y, x]
                for channel in range(3):
                    image[y0 + y, x0 + x, channel] = (
                        sums[y, x, channel] + left[y, x] * background[channel])


def _covariance(scene: Scene, camera: Camera, projected: Projected) -> Float64Array:
    """Dilated covariances on the image, float64, of shape [M, 2, 2]."""
    numbers = gaussian_numbers(scene.select(projected.ids))
    factor = np.zeros((len(projected), 3, 3))
    for row in range(3):
        for column in range(row + 1):
            factor[:, row, column] = numbers[f"l{row}{column}"]
    rotation, means = camera.w2c[:3, :3], scene.means[projected.ids].astype(np.float64)
    x, y, z = rotation @ means.T + camera.w2c[:3, 3:]
    jacobian = np.zeros((len(projected), 2, 3))
    for row, (focal, center, side, at) in enumerate((
        (camera.fx, camera.cx, camera.width, x / z), (camera.fy, camera.cy, camera.height, y / z),
    )):
        margin = FRUSTUM_MARGIN * side / 2
        at = np.clip(at, (-center - margin) / focal, (side - center + margin) / focal)
        jacobian[:, row, row] = focal / z
        jacobian[:, row, 2] = -focal * at / z
    shape = jacobian @ rotation @ factor
    return shape @ shape.transpose(0, 2, 1) + DILATION * np.eye(2)


def render_float(
    scene: Scene, camera: Camera, design: GscoreDesign,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Frame:
    """Render a scene by GSCore's rules in float64: what :func:`render` is measured against.

    As :func:`splatforge.algos.reference.render`, but with the table of exponentials of a design
    that has one, see :mod:`splatforge.designs.falloff`, and with the lists of GSCore: a Gaussian
    whose longer axis is more than ``obb_ratio`` times its shorter one is drawn where its box of
    three standard deviations meets a region of 8x8 pixels (a tile without subtiles), all others
    where their square does. Left out are those that reach 1/255 nowhere, and those whose mean the
    feature cannot hold.

    Parameters
    ----------
    scene, camera : Scene, Camera
        What is seen from where.
    design : GscoreDesign
        Its tests; formats do not matter.
    background : tuple of float
        Linear red, green, blue.

    Returns
    -------
    Frame
        Image and transmittance.
    """
    width, height = camera.width, camera.height
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    projected = project(scene, camera)
    covariance = _covariance(scene, camera, projected)
    variances, axes = np.linalg.eigh(covariance)
    # Shorter axis first.
    half = SIGMAS * np.sqrt(variances[:, ::-1])
    axis = axes[:, :, 1]
    oblong = half[:, 0] > design.ccu.obb_ratio * half[:, 1]
    if not design.ccu.obb_ratio:
        oblong[:] = False
    side = projected.radius_px.astype(np.float64)[:, None]
    half = np.where(oblong[:, None], half, side)
    axis = np.where(oblong[:, None], axis, [1.0, 0.0])
    box = np.abs(axis) * half[:, :1] + np.abs(axis[:, ::-1]) * half[:, 1:]
    mean = projected.mean_px.astype(np.float64)
    opacity = projected.opacity.astype(np.float64)
    limit = 2.0 ** (design.vru.feature.mean.int_bits - 1)
    kept = (opacity >= ALPHA_MIN) & (np.abs(mean) < limit).all(axis=1)
    mean, half, box, axis, covariance, opacity = (
        part[kept] for part in (mean, half, np.where(oblong[:, None], box, side), axis, covariance,
                                opacity))
    depth, color = projected.depth[kept], projected.color[kept].astype(np.float64)
    inverse = np.linalg.inv(covariance)
    conic = np.stack([inverse[:, 0, 0], inverse[:, 0, 1], inverse[:, 1, 1]], axis=1)

    count = np.zeros(1, np.int64)
    tiles = masks = owners = np.zeros(0, np.int64)
    for _ in range(2):
        _walk_kernel(mean, half, box, axis, tiles_x, tiles_y, count, tiles, masks, owners)
        if not len(tiles):
            tiles, masks, owners = (np.zeros(count[0], np.int64) for _ in range(3))
    if not design.ccu.subtiles:
        masks[:] = 15
    order = np.lexsort((owners, depth[owners], tiles))
    starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    np.cumsum(np.bincount(tiles, minlength=tiles_x * tiles_y), out=starts[1:])
    step, table = 1.0, np.zeros((0, 2))
    if isinstance(design.array.alpha, FalloffDesign):
        step, table = step_of(design.array.alpha), real_table(design.array.alpha)
    image = np.empty((height, width, 3), np.float32)
    transmittance = np.empty((height, width), np.float32)
    with Workers() as workers:
        workers.run_chunks(
            _blend_kernel, tiles_y, starts, owners[order], masks[order], mean, conic, opacity,
            color, np.asarray(background, np.float64), step, table, image, transmittance)
    return Frame(image=image, transmittance=transmittance, statistics=None, stages_ms={})
