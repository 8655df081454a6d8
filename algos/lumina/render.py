"""Frames of Lumina in integers: what is in memory, the picture, and what happened."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from splatforge.algos.fetch import MemoryImage, align, encode_descriptor
from splatforge.algos.lumina.frame import from_tiles
from splatforge.algos.lumina.sharing import (
    ListedGaussians,
    SharedLists,
    Window,
    gaussians_at,
    group_order,
    share,
    windows,
)
from splatforge.algos.nru import OUTSIDE, SPLAT_FIELDS, NruFrame, nru_fixed
from splatforge.algos.radiance import Banks, Visits, radiance_fixed
from splatforge.algos.rasterize import ALPHA_MIN
from splatforge.algos.records import decode_record, encode_record
from splatforge.algos.resolve import FixedFrame, resolve_fixed
from splatforge.algos.splat_setup import splat_fields
from splatforge.designs.blend import BlendDesign
from splatforge.designs.feature import FEATURE_BYTES, FeatureFormat
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.lumina import (
    DESCRIPTOR_FIELDS,
    FLAG_CACHE,
    FLAG_FLUSH,
    FLAG_REMAP,
    ID_BITS,
    LuminaDesign,
)
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import DESCRIPTOR_VERSION
from splatforge.scenes import Camera, Scene

__all__ = ["Layout", "LuminaFrame", "LuminaInput", "LuminaWorkload", "absent_record",
           "cached_state", "feature_records", "lay_out", "pack", "prepare", "prepare_sequence",
           "render", "render_sequence"]

Int32Array = npt.NDArray[np.int32]
Int64Array = npt.NDArray[np.int64]
UInt64Array = npt.NDArray[np.uint64]

#: Alignment of what lies in memory behind the descriptor: what no burst crosses.
ALIGNMENT = 4096
#: Alignment of a list in bytes and in beats, and ids of a beat.
LIST_ALIGNMENT = 256
_BEAT_IDS = 4
#: ``E * log2(e) = u^2 + v^2``: the factor between the conic's Cholesky factor and the forms.
_SCALE = np.sqrt(np.log2(np.e) / 2)
#: Splats made at once.
_CHUNK = 1 << 16


def absent_record(feature: FeatureFormat) -> dict[str, int]:
    """Raw fields of a Gaussian that a list names and that is not to be seen anywhere.

    It lies as far off as a record can say, is as thin as one can be and next to transparent: its
    forms saturate on every tile of any frame.
    """
    steep = int(feature.slope.quantize(1.5))
    return {"mean_x": feature.mean.raw_min, "mean_y": feature.mean.raw_min, "a": steep, "b": 0,
            "c": steep, "log_opacity": feature.log_opacity.raw_max, "red": 0, "green": 0,
            "blue": 0}


def feature_records(feature: FeatureFormat, gaussians: ListedGaussians) -> UInt64Array:
    """Records of the Gaussians of a window's lists for one of its frames, shape [L, 4].

    What is not visible, fainter than 1/255, or farther off than a record can say is absent.
    """
    limit = 2.0 ** (feature.mean.int_bits - 1)
    present = gaussians.visible & (gaussians.opacity >= ALPHA_MIN) & (
        np.abs(gaussians.mean_px) < limit).all(axis=1)
    conic = np.where(present[:, None], gaussians.conic, 1).astype(np.float64)
    root = np.sqrt(conic[:, 0])
    shear = np.where(present, conic[:, 1], 0) / root
    slopes = {"a": root, "b": shear, "c": np.sqrt(np.maximum(conic[:, 2] - shear * shear, 0))}
    opacity = np.maximum(gaussians.opacity.astype(np.float64), 2.0**-8)
    raw = {
        "mean_x": feature.mean.quantize(gaussians.mean_px[:, 0]),
        "mean_y": feature.mean.quantize(gaussians.mean_px[:, 1]),
        **{name: feature.slope.quantize(_SCALE * values) for name, values in slopes.items()},
        "log_opacity": feature.log_opacity.quantize(-np.log2(opacity)),
        **{name: feature.color.quantize(gaussians.color[:, channel])
           for channel, name in enumerate(("red", "green", "blue"))}}
    absent = absent_record(feature)
    return encode_record("Feature", feature.fields(), FEATURE_BYTES // 8, {
        name: np.where(present, values, absent[name]) for name, values in raw.items()})


def cached_state(blend: BlendDesign, colors: npt.ArrayLike) -> Int32Array:
    """State of pixels that take 8-bit colours [..., 3] from the cache, shape [..., 4].

    The colours in the accumulator, rounded to nearest, and nothing of the background: what
    :func:`splatforge.algos.resolve.resolve_fixed` makes of it in RGBA8 are the same bytes.
    """
    colors = np.asarray(colors, np.int64)
    state = np.zeros((*colors.shape[:-1], 4), np.int32)
    # 255 is odd: there are no ties.
    state[..., :3] = ((colors << (blend.accumulator.frac_bits + 1)) + 255) // 510
    return state


@dataclass(frozen=True, kw_only=True, eq=False)
class LuminaInput:
    """What is in memory when a frame starts, the cache's contents left out.

    Parameters
    ----------
    lists : SharedLists
        Of the frame's window; the same object in all its frames.
    window : Window
        The window.
    number : int
        Place of the frame in its window.
    features : ndarray
        Records of ``lists.listed``, shape [L, 4].
    flush : bool
        Whether the cache starts empty.
    gaussians, sh_degree : int
        Of the scene.
    """

    lists: SharedLists
    window: Window
    number: int
    features: UInt64Array
    flush: bool
    gaussians: int
    sh_degree: int

    @property
    def width(self) -> int:
        """Columns of the frame."""
        return self.lists.width

    @property
    def height(self) -> int:
        """Rows of the frame."""
        return self.lists.height


def prepare_sequence(
    scene: Scene, cameras: Sequence[Camera], design: LuminaDesign
) -> Iterator[LuminaInput]:
    """Frames as they stand in memory, one after another: what the GPU does.

    Parameters
    ----------
    scene : Scene
        The scene.
    cameras : sequence of Camera
        Views of the frames, of one size.
    design : LuminaDesign
        Sharing and formats.

    Raises
    ------
    ValueError
        If a frame is larger than the design allows, of another size than the first, the scene
        has more Gaussians than there are ids, or the design cannot be built for whole frames.
    """
    design.check_frames()
    side = design.shell.max_side
    for camera in cameras:
        width, height = camera.width, camera.height
        if not (1 <= width <= side and 1 <= height <= side):
            raise ValueError(f"Frame must be 1x1 to {side}x{side} pixels, not {width}x{height}")
        if (width, height) != (cameras[0].width, cameras[0].height):
            raise ValueError(
                f"Frames must be of one size, {cameras[0].width}x{cameras[0].height}, "
                f"not {width}x{height}")
    if scene.gaussians > 1 << ID_BITS:
        raise ValueError(
            f"Scene must have at most {1 << ID_BITS} Gaussians, not {scene.gaussians}")
    for window in windows(cameras, design.sharing):
        lists = share(scene, window.pose, design.sharing.margin_px)
        for number in range(window.frames):
            seen = gaussians_at(scene, lists.listed, cameras[window.first + number])
            yield LuminaInput(
                lists=lists, window=window, number=number,
                features=feature_records(design.setup.feature, seen),
                flush=window.first + number == 0, gaussians=scene.gaussians,
                sh_degree=scene.sh_degree)


def prepare(scene: Scene, camera: Camera, design: LuminaDesign) -> LuminaInput:
    """A frame by itself: sorted at its own pose, the cache empty."""
    return next(prepare_sequence(scene, (camera,), design))


@dataclass(frozen=True, kw_only=True, eq=False)
class LuminaWorkload:
    """What happened in one frame; depends on formats and the cache, not on time.

    Tiles are group by group, pixels of a tile in raster order.

    Parameters
    ----------
    width, height : int
        Frame in pixels.
    tiles : ndarray
        Raster numbers of the tiles, shape [tiles].
    groups : ndarray
        First tile of every group, shape [groups + 1].
    starts : ndarray
        First splat of every tile, shape [tiles + 1].
    ids : ndarray
        Gaussian of every splat, shape [splats].
    splats : ndarray
        Raw :data:`SPLAT_FIELDS` in coordinates of their tiles, shape [splats, 9].
    nru : NruFrame
        What the pixels blend without the cache.
    visits : Visits or None
        What they find in the cache and leave there; None without it.
    record_ids : int
        k of the cache.
    """

    width: int
    height: int
    tiles: Int64Array
    groups: Int64Array
    starts: Int64Array
    ids: Int32Array
    splats: Int32Array
    nru: NruFrame
    visits: Visits | None
    record_ids: int

    @property
    def hit(self) -> npt.NDArray[np.bool_]:
        """Which pixels take their colour from the cache, shape [tiles, 256]."""
        if self.visits is None:
            return np.zeros(self.nru.ends.shape, bool)
        return self.visits.hit

    @property
    def pixels(self) -> int:
        """Pixels of the frame."""
        return self.width * self.height

    @property
    def lookups(self) -> int:
        """Pixels that looked for their colour."""
        return 0 if self.visits is None else int((self.nru.complete >= 0).sum())

    @property
    def hits(self) -> int:
        """Pixels that found it."""
        return int(self.hit.sum())

    @property
    def false_hits(self) -> int:
        """Of these, those that found the colour of other Gaussians."""
        return 0 if self.visits is None else int(self.visits.false_hit.sum())

    @cached_property
    def evaluations(self) -> int:
        """Splats that pixels test until they end or, where they hit, until their record."""
        length = np.diff(self.starts)[:, None]
        last = np.where(self.hit, self.nru.complete, self.nru.ends)
        inside = self.nru.ends != OUTSIDE
        return int(np.minimum(last + 1, length)[inside].sum())

    @cached_property
    def evaluations_uncached(self) -> int:
        """Splats that pixels test until they end."""
        inside = self.nru.ends != OUTSIDE
        return int(np.minimum(self.nru.ends + 1, np.diff(self.starts)[:, None])[inside].sum())

    @cached_property
    def significant_uncached(self) -> int:
        """Of these, those with alpha of at least 1/255."""
        return int(np.bitwise_count(self.nru.significant).sum())

    @cached_property
    def significant(self) -> int:
        """Of the splats that pixels test, those that are blended or end their pixel."""
        ended = ~self.hit & (self.nru.ends >= 0) & (
            self.nru.ends < np.diff(self.starts)[:, None])
        return self.blended + int(ended.sum())

    @property
    def blended(self) -> int:
        """Splats that are blended; k where a pixel hits."""
        return int(np.where(self.hit, self.record_ids, self.nru.blended).sum())

    @property
    def blended_uncached(self) -> int:
        """Splats that would be blended without the cache."""
        return int(self.nru.blended.sum())


@dataclass(frozen=True, kw_only=True, eq=False)
class LuminaFrame(FixedFrame):
    """A frame of the bit-true model.

    Parameters
    ----------
    workload : LuminaWorkload
        What happened.
    banks : Banks or None
        Contents of the cache behind the frame; None without it.
    """

    workload: LuminaWorkload
    banks: Banks | None

    @property
    def uncached(self) -> FixedFrame:
        """The frame without the cache."""
        work = self.workload
        return FixedFrame(
            design=self.design, background=self.background,
            state=from_tiles(work.nru.state, work.tiles, work.width, work.height))


def render(
    frame: LuminaInput, design: LuminaDesign,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0), banks: Banks | None = None,
) -> LuminaFrame:
    """Render a prepared frame, bit-true to :class:`splatforge.hw.lumina.Lumina`.

    Parameters
    ----------
    frame : LuminaInput
        From :func:`prepare` or :func:`prepare_sequence`.
    design : LuminaDesign
        Number formats and the cache.
    background : tuple of float
        Linear red, green, blue in [0, 1].
    banks : Banks, optional
        Contents of the cache before the frame; not looked at where the frame starts empty.

    Returns
    -------
    LuminaFrame
        The frame, its workload and the cache behind it.

    Raises
    ------
    ValueError
        If the frame needs the contents of the cache and they are not there.
    """
    lists, radiance, blend = frame.lists, design.radiance, design.nru.blend
    tiles, groups = group_order(frame.width, frame.height, radiance.group_tiles)
    counts = np.diff(lists.starts)[tiles]
    starts = np.zeros(len(tiles) + 1, np.int64)
    np.cumsum(counts, out=starts[1:])
    entries = np.repeat(lists.starts[tiles] - starts[:-1], counts) + np.arange(starts[-1])
    tile_x, tile_y = tiles % lists.tiles_x, tiles // lists.tiles_x
    of = np.repeat(np.arange(len(tiles)), counts)
    fields = decode_record(design.setup.feature.fields(), frame.features)
    splats = np.empty((len(entries), len(SPLAT_FIELDS)), np.int32)
    for first in range(0, len(entries), _CHUNK):
        part = slice(first, first + _CHUNK)
        place = lists.places[entries[part]]
        made = splat_fields(
            design.setup, {name: values[place] for name, values in fields.items()},
            tile_x[of[part]], tile_y[of[part]])
        for column, name in enumerate(SPLAT_FIELDS):
            splats[part, column] = made[name]
    ids = lists.ids[entries]
    nru = nru_fixed(
        design.nru, design.splat, radiance.record_ids, frame.width, frame.height, tile_x, tile_y,
        starts, ids, splats)
    red, green, blue = design.resolve.background.quantize(background).tolist()
    state, visits, kept = nru.state, None, None
    if design.caching:
        if frame.flush:
            banks = Banks.empty(radiance, len(groups) - 1)
        elif banks is None:
            raise ValueError("Frame must come with the cache's contents, or start with it empty")
        final = resolve_fixed(
            blend, design.resolve, state, (red, green, blue), PixelFormat.RGBA8)[..., :3]
        visits, kept = radiance_fixed(
            radiance, banks, groups, nru.ids, nru.complete >= 0, final.astype(np.uint8))
        state = np.where(visits.hit[..., None], cached_state(blend, visits.colors), state)
    return LuminaFrame(
        design=design, state=from_tiles(state, tiles, frame.width, frame.height),
        background=(red, green, blue), banks=kept,
        workload=LuminaWorkload(
            width=frame.width, height=frame.height, tiles=tiles, groups=groups, starts=starts,
            ids=ids, splats=splats, nru=nru, visits=visits, record_ids=radiance.record_ids))


def render_sequence(
    scene: Scene, cameras: Sequence[Camera], design: LuminaDesign,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Iterator[LuminaFrame]:
    """Render frames one after another, lists shared and the cache carried on."""
    banks = None
    for frame in prepare_sequence(scene, cameras, design):
        rendered = render(frame, design, background, banks)
        banks = rendered.banks
        yield rendered


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where the parts of a frame lie in memory, in bytes.

    All but the end of the lists is the same in every frame of a sequence.
    """

    descriptor_address: int
    table_address: int
    cache_address: int
    cache_bytes: int
    feature_address: int
    frame_address: int
    pitch_bytes: int
    list_address: int


def lay_out(
    design: LuminaDesign, width: int, height: int, gaussians: int,
    pixel_format: PixelFormat = PixelFormat.RGBA8, base_address: int = 0x1000_0000,
) -> Layout:
    """Addresses of a frame: descriptor, tile table, cache, features, framebuffer, lists.

    Parameters
    ----------
    design : LuminaDesign
        The cache.
    width, height : int
        Frame in pixels.
    gaussians : int
        Of the scene.
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
    tiles, groups = group_order(width, height, design.radiance.group_tiles)
    pitch_bytes = align(width, TILE_PX) * pixel_format.size_bytes
    cache_bytes = (len(groups) - 1) * design.radiance.image_bytes if design.caching else 0
    at, addresses = base_address + ALIGNMENT, []
    for size in (8 * len(tiles), cache_bytes, FEATURE_BYTES * gaussians, pitch_bytes * height):
        addresses.append(at)
        at += align(size, ALIGNMENT)
    table_address, cache_address, feature_address, frame_address = addresses
    return Layout(
        descriptor_address=base_address, table_address=table_address, cache_address=cache_address,
        cache_bytes=cache_bytes, feature_address=feature_address, frame_address=frame_address,
        pitch_bytes=pitch_bytes, list_address=at)


def pack(
    frame: LuminaInput,
    design: LuminaDesign,
    *,
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    pixel_format: PixelFormat = PixelFormat.RGBA8,
    base_address: int = 0x1000_0000,
    banks: Banks | None = None,
) -> MemoryImage:
    """Lay a frame out in memory.

    Parameters
    ----------
    frame : LuminaInput
        From :func:`prepare` or :func:`prepare_sequence`.
    design : LuminaDesign
        The cache, and the background's format.
    background : tuple of float
        Linear red, green, blue in [0, 1], rounded to the design's background format.
    pixel_format : PixelFormat
        What the framebuffer is to hold.
    base_address : int
        Where the descriptor goes, a multiple of 4096; the rest follows.
    banks : Banks, optional
        Contents of the cache, as the frame before left them; where they are not given the memory
        that has them is left as it is.

    Returns
    -------
    MemoryImage
        The frame. Nothing overlaps. Features of Gaussians that no list names are zero; the cache
        is the workspace.

    Raises
    ------
    ValueError
        If the base is not aligned, or the background is outside [0, 1].
    """
    if not all(0 <= channel <= 1 for channel in background):
        raise ValueError(f"Background must be in [0, 1], not {background!r}")
    lists = frame.lists
    place = lay_out(design, frame.width, frame.height, frame.gaussians, pixel_format, base_address)
    tiles, _ = group_order(frame.width, frame.height, design.radiance.group_tiles)
    counts = np.diff(lists.starts)[tiles]
    ids_aligned = LIST_ALIGNMENT // 4
    firsts = np.zeros(len(tiles) + 1, np.int64)
    np.cumsum(-(-counts // ids_aligned) * ids_aligned, out=firsts[1:])
    words = np.zeros(firsts[-1], "<u4")
    within = np.arange(len(lists.ids)) - np.repeat(np.cumsum(counts) - counts, counts)
    words[np.repeat(firsts[:-1], counts) + within] = lists.ids[
        np.repeat(lists.starts[tiles], counts) + within]
    table = np.zeros((align(len(tiles), 2), 2), "<u4")
    table[:len(tiles), 0] = firsts[:-1] // _BEAT_IDS
    table[:len(tiles), 1] = counts
    features = np.zeros((frame.gaussians, FEATURE_BYTES // 8), "<u8")
    features[lists.listed] = frame.features
    red, green, blue = design.resolve.background.quantize(background).tolist()
    values = {
        "version": DESCRIPTOR_VERSION, "width": frame.width, "height": frame.height,
        "pixel_format": int(pixel_format),
        "flags": (design.caching * (FLAG_CACHE | frame.flush * FLAG_FLUSH)
                  | design.remapping * FLAG_REMAP),
        "background_red": red, "background_green": green, "background_blue": blue,
        "table_address": place.table_address, "list_address": place.list_address,
        "frame_address": place.frame_address, "pitch_bytes": place.pitch_bytes,
        "list_beats": len(words) // _BEAT_IDS, "feature_address": place.feature_address,
        "cache_address": place.cache_address,
    }
    parts: list[tuple[int, npt.NDArray]] = [
        (base_address, encode_descriptor(DESCRIPTOR_FIELDS, values)), (place.table_address, table)]
    if banks is not None and design.caching:
        parts.append((place.cache_address, banks.images(design.radiance)))
    parts += [(place.feature_address, features), (place.list_address, words)]
    return MemoryImage(
        segments=tuple((address, part.reshape(-1).view(np.uint8))
                       for address, part in parts if len(part)),
        descriptor_address=base_address, frame_address=place.frame_address, width=frame.width,
        height=frame.height, pixel_format=pixel_format, pitch_bytes=place.pitch_bytes,
        core=design.name, workspace_address=place.cache_address, workspace_bytes=place.cache_bytes)
