"""Co-simulation of whole frames: the Verilog beside its bit-true, float and cycle models."""

import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from splatforge.algos import gscore, lumina, raster, reference, streaminggs
from splatforge.algos.fetch import MemoryImage, pack
from splatforge.algos.lumina.frame import look_up
from splatforge.algos.lumina.render import LuminaInput
from splatforge.algos.quality import psnr_db
from splatforge.algos.radiance import Banks
from splatforge.algos.records import decode_record
from splatforge.algos.streaminggs.frame import render_float
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.memory import Memory, MemoryTiming
from splatforge.designs.raster import RasterDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import AcceleratorDesign, FrameError
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.scenes import Camera, Scene, check_writable
from splatforge.sim.dram import DramCounts
from splatforge.sim.gscore import simulate as simulate_gscore
from splatforge.sim.lumina import simulate as simulate_lumina
from splatforge.sim.raster import simulate as simulate_raster
from splatforge.sim.simulate import memory_record
from splatforge.sim.streaminggs import busiest
from splatforge.sim.streaminggs import simulate as simulate_streaminggs
from splatforge.verification.lib.build import Binary
from splatforge.verification.lib.frame import (
    FrameJob,
    FrameRun,
    SimulationError,
    Stall,
    Waves,
    build_frame,
    core_verilog,
    stream_frames,
)
from splatforge.verification.lib.processes import Children
from splatforge.verification.lib.wave_views import view_paths, write_views

__all__ = ["DESIGNS", "CosimFrame", "CosimPictures", "CosimResult", "Difference", "cosim"]

#: A pixel whose background shows less than this lets an 8-bit picture see the scene.
BACKGROUND_TRANSMITTANCE = 1 - 1 / 255

#: Memory images that are modeled ahead at most, while the simulation is being built.
MODELED_BYTES = 1 << 28

#: Counters that no timing changes.
CACHE_COUNTERS = ("lookups", "hits", "bypassed")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The first pixel of a frame that is not what the bit-true model says.

    Parameters
    ----------
    pixel_format : str
        Write-out in which it was seen.
    x, y, tile : int
        Pixel in the frame, and its tile, row-major.
    expected, got : tuple of int
        The four channels.
    """

    pixel_format: str
    x: int
    y: int
    tile: int
    expected: tuple[int, ...]
    got: tuple[int, ...]

    def __str__(self) -> str:
        return (f"{self.pixel_format} pixel ({self.x}, {self.y}) of tile {self.tile} must be "
                f"{self.expected}, not {self.got}")


@dataclass(frozen=True, kw_only=True, eq=False)
class CosimFrame:
    """One frame of a co-simulation.

    Parameters
    ----------
    pixels, pixels_differing : int
        Pixels, and how many differ from the bit-true model in the RGBA8 picture.
    state_pixels_differing : int or None
        How many differ in colour or T at accumulator width; None if that was not written out.
    difference : Difference or None
        The first of them.
    psnr_db_vs_float : float
        RGBA8 picture of the RTL against the design's own algorithm in float, which of StreamingGS
        draws the Gaussians that memory holds, voxel after voxel; infinite where equal. Lumina's has
        a cache of its own, which goes other ways where rounding decides what a record holds.
    psnr_db_vs_float_same_hits : float or None
        Lumina's against the same, but with pixels that look for their colour by the records of the
        bit-true model, in a cache of float colours: what arithmetic costs alone. None without a
        cache.
    psnr_db_vs_float_non_background : float or None
        The same over the pixels in which something is drawn; None if there is none.
    psnr_db_vs_reference : float
        The RGBA8 picture against the float reference, whatever the algorithm.
    rtl_cycles, model_cycles : int
        From the accepted START write to the last write response: counted on the bus of the RTL,
        and worked out by the cycle model.
    rtl_counters, model_counters : Mapping
        Performance counters of the RTL, and of the model.
    gaussians_saturated : int
        Gaussians whose colour is beyond the record's format, and is drawn at its end.
    cache_bytes_differing : int or None
        Bytes of Lumina's banks behind the frame that differ from the bit-true model, of the run
        with most of them; None where the frame has no cache.
    rtl_dram, model_dram : DramCounts or None
        What a banked memory did behind the RTL, and in the cycle model.
    """

    pixels: int
    pixels_differing: int
    state_pixels_differing: int | None
    difference: Difference | None
    psnr_db_vs_float: float
    psnr_db_vs_float_non_background: float | None
    psnr_db_vs_float_same_hits: float | None
    psnr_db_vs_reference: float
    rtl_cycles: int
    model_cycles: int
    rtl_counters: Mapping[str, int]
    model_counters: Mapping[str, int]
    gaussians_saturated: int
    rtl_dram: DramCounts | None = None
    model_dram: DramCounts | None = None
    cache_bytes_differing: int | None = None

    @property
    def cycle_error(self) -> float:
        """Relative error of the modeled cycles."""
        return abs(self.model_cycles - self.rtl_cycles) / self.rtl_cycles

    def to_json(self) -> dict[str, Any]:
        """Figures of the frame."""
        return {
            "pixels": self.pixels, "pixels_differing": self.pixels_differing,
            "state_pixels_differing": self.state_pixels_differing,
            "psnr_db_vs_float": _finite(self.psnr_db_vs_float),
            "psnr_db_vs_float_non_background": _finite(self.psnr_db_vs_float_non_background),
            "psnr_db_vs_reference": _finite(self.psnr_db_vs_reference),
            "rtl_cycles": self.rtl_cycles, "model_cycles": self.model_cycles,
            "cycle_error": self.cycle_error, "gaussians_saturated": self.gaussians_saturated,
            "cache_bytes_differing": self.cache_bytes_differing,
            "difference": asdict(self.difference) if self.difference else None,
            "dram": {"rtl": asdict(self.rtl_dram), "model": asdict(self.model_dram)}
            if self.rtl_dram and self.model_dram else None,
        }


def _worst(values: Iterable[float | None]) -> float | None:
    """The least of those that are there, if any is."""
    return min((value for value in values if value is not None), default=None)


def _finite(value: float | None) -> float | None:
    """Null in JSON where two pictures are equal or there is nothing to compare."""
    return None if value is None or math.isinf(value) else value


@dataclass(frozen=True, kw_only=True, eq=False)
class CosimPictures:
    """The pictures of one frame of a co-simulation.

    Parameters
    ----------
    number : int
        Of the frame, from 0.
    rtl : ndarray
        RGBA8 of shape [height, width, 4]; uint8.
    exact : ndarray
        By the design's algorithm in float, of shape [height, width, 3]; float32.
    """

    number: int
    rtl: npt.NDArray[np.uint8]
    exact: npt.NDArray[np.float32]


@dataclass(frozen=True, kw_only=True, eq=False)
class CosimResult:
    """A co-simulation of one or more frames.

    Parameters
    ----------
    design : AcceleratorDesign
        What was co-simulated.
    scene : str
        Name.
    timing : MemoryTiming or BankedMemory
        The memory behind the RTL and the model.
    frames : tuple of CosimFrame
        Frame by frame.
    worst : CosimPictures
        Of the frame with the lowest PSNR, the first of them; those of the others are not kept.
    build_s, simulate_s, wall_s : float
        Time for the binary (from the cache near zero), during which a simulation ran, and in all.
    """

    design: AcceleratorDesign
    scene: str
    timing: Memory
    frames: tuple[CosimFrame, ...]
    worst: CosimPictures
    build_s: float
    simulate_s: float
    wall_s: float

    @property
    def pixels_differing(self) -> int:
        """Pixels of all frames that differ from the bit-true model, in any write-out."""
        return sum(max(frame.pixels_differing, frame.state_pixels_differing or 0)
                   for frame in self.frames)

    @property
    def psnr_db_vs_float(self) -> float:
        """PSNR of the worst frame, against the design's algorithm in float."""
        return min(frame.psnr_db_vs_float for frame in self.frames)

    @property
    def psnr_db_vs_reference(self) -> float:
        """PSNR of the worst frame, against the float reference."""
        return min(frame.psnr_db_vs_reference for frame in self.frames)

    @property
    def psnr_db_vs_float_non_background(self) -> float | None:
        """PSNR over non-background pixels of the worst frame that has any."""
        return _worst(frame.psnr_db_vs_float_non_background for frame in self.frames)

    @property
    def psnr_db_vs_float_same_hits(self) -> float | None:
        """PSNR of the worst frame, against the float form with the same hits."""
        return _worst(frame.psnr_db_vs_float_same_hits for frame in self.frames)

    @property
    def cycle_error(self) -> float:
        """Relative error of the modeled cycles on the worst frame."""
        return max(frame.cycle_error for frame in self.frames)

    def counters(self) -> dict[str, dict[str, int]]:
        """Every performance counter, summed over the frames: ``rtl`` beside ``model``."""
        return {
            name: {"rtl": sum(frame.rtl_counters[name] for frame in self.frames),
                   "model": sum(frame.model_counters[name] for frame in self.frames)}
            for name, _, _ in self.design.counters}

    def check(self) -> None:
        """Raise if the RTL is not equal to the bit-true model.

        Raises
        ------
        SimulationError
            If a pixel differs; the message names the first one. If a byte of the saved cache does,
            or what is counted of look-ups.
        """
        for number, frame in enumerate(self.frames):
            if frame.difference is not None:
                differing = max(frame.pixels_differing, frame.state_pixels_differing or 0)
                raise SimulationError(
                    f"Frame {number}: {differing} of {frame.pixels} pixels differ from the "
                    f"bit-true model; the first: {frame.difference}")
            if frame.cache_bytes_differing:
                raise SimulationError(
                    f"Frame {number}: {frame.cache_bytes_differing} bytes of the saved cache "
                    "differ from the bit-true model")
            for name in CACHE_COUNTERS:
                rtl, model = frame.rtl_counters.get(name), frame.model_counters.get(name)
                if rtl != model:
                    raise SimulationError(
                        f"Frame {number}: {name} must be {model}, not {rtl}")

    def to_json(self) -> dict[str, Any]:
        """The figures of ``splatforge cosim --json``."""
        frames = self.frames
        color = self.design.splat.color
        totals = self.counters()
        read, written = (
            {model: sum(totals[name][model] for name in names) for model in ("rtl", "model")}
            for names in (self.design.read_counters, self.design.write_counters))
        return {
            "design": self.design.name,
            "scene": self.scene,
            "frames": len(frames),
            "pixels": sum(frame.pixels for frame in frames),
            "pixels_differing": self.pixels_differing,
            "psnr_db_vs_float": _finite(self.psnr_db_vs_float),
            "psnr_db_vs_float_non_background": _finite(self.psnr_db_vs_float_non_background),
            "psnr_db_vs_float_same_hits": _finite(self.psnr_db_vs_float_same_hits),
            "psnr_db_vs_reference": _finite(self.psnr_db_vs_reference),
            "gaussians_saturated": max(frame.gaussians_saturated for frame in frames),
            "color_max": float(color.to_float(color.raw_max)),
            "memory": memory_record(self.timing, [frame.rtl_dram for frame in frames]),
            "rtl_cycles": sum(frame.rtl_cycles for frame in frames),
            "model_cycles": sum(frame.model_cycles for frame in frames),
            "cycle_error": self.cycle_error,
            "rtl_bytes_read": read["rtl"],
            "rtl_bytes_written": written["rtl"],
            "model_bytes_read": read["model"],
            "model_bytes_written": written["model"],
            "build_s": self.build_s,
            "simulate_s": self.simulate_s,
            "wall_s": self.wall_s,
            "counters": totals,
            "cache_bytes_differing": max(
                (frame.cache_bytes_differing for frame in frames
                 if frame.cache_bytes_differing is not None), default=None),
            "busiest": busiest(self.design, {name: each["rtl"] for name, each in totals.items()})
            if isinstance(self.design, StreaminggsDesign) else None,
            "per_frame": [frame.to_json() for frame in frames],
        }


class _Picture(Protocol):
    """A frame of a bit-true model."""

    def pixels(self, pixel_format: PixelFormat) -> npt.NDArray[np.unsignedinteger]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class _Modeled:
    """One camera through the models of an accelerator.

    `pack` lays the frame out in memory in a pixel format; the float image, by the design's own
    algorithm, and the reference's are of shape [height, width, 3], the transmittance behind the
    first of shape [height, width]. Lumina's banks behind the frame are `banks`, and
    `same_hits_image` is its float image with the hits of the bit-true one.
    """

    picture: _Picture
    gaussians_saturated: int
    pack: Callable[[PixelFormat], MemoryImage]
    cycles: int
    counters: Mapping[str, int]
    dram: DramCounts | None
    float_image: npt.NDArray[np.float32]
    reference_image: npt.NDArray[np.float32]
    transmittance: npt.NDArray[np.float32]
    banks: npt.NDArray[np.uint8] | None = None
    same_hits_image: npt.NDArray[np.float32] | None = None


Background = tuple[float, float, float]


def _model_raster(
    scene: Scene, camera: Camera, design: AcceleratorDesign, timing: Memory,
    background: Background,
) -> _Modeled:
    assert isinstance(design, RasterDesign)
    lists = raster.prepare(scene, camera, design)
    picture = raster.render(lists, design, background)
    exact = reference.render(scene, camera, background=background)
    run = simulate_raster(picture.workload, design, timing)
    return _Modeled(
        picture=picture, gaussians_saturated=lists.gaussians_saturated,
        cycles=run.cycles, counters=run.counters, dram=run.dram,
        pack=lambda pixel_format: pack(
            lists, background=background, pixel_format=pixel_format, resolve=design.resolve),
        float_image=exact.image, reference_image=exact.image, transmittance=exact.transmittance)


def _model_gscore(
    scene: Scene, camera: Camera, design: AcceleratorDesign, timing: Memory,
    background: Background,
) -> _Modeled:
    assert isinstance(design, GscoreDesign)
    frame = gscore.prepare(scene, camera, design)
    picture = gscore.render(frame, design, background)
    exact = gscore.render_float(scene, camera, design, background)
    run = simulate_gscore(picture.workload, design, timing)
    return _Modeled(
        picture=picture, cycles=run.cycles, counters=run.counters, dram=run.dram,
        gaussians_saturated=picture.workload.array.gaussians_saturated,
        pack=lambda pixel_format: gscore.pack(
            frame, design, background=background, pixel_format=pixel_format),
        float_image=exact.image,
        reference_image=reference.render(scene, camera, background=background).image,
        transmittance=exact.transmittance)


def _model_streaminggs(
    scene: Scene, camera: Camera, design: AcceleratorDesign, timing: Memory,
    background: Background, load_codebooks: bool = True,
) -> _Modeled:
    assert isinstance(design, StreaminggsDesign)
    frame = streaminggs.prepare(scene, camera, design)
    picture = streaminggs.render(frame, design, background)
    exact = render_float(
        frame.stored.cut, camera, group_tiles=design.array.side, scene=frame.stored.decode(),
        background=background)
    run = simulate_streaminggs(
        frame, picture.workload, design, timing, load_codebooks=load_codebooks)
    return _Modeled(
        picture=picture, cycles=run.cycles, counters=run.counters, dram=run.dram,
        gaussians_saturated=picture.workload.array.gaussians_saturated,
        pack=lambda pixel_format: streaminggs.pack(
            frame, design, background=background, pixel_format=pixel_format,
            load_codebooks=load_codebooks),
        float_image=exact.image,
        reference_image=reference.render(scene, camera, background=background).image,
        transmittance=exact.transmittance)


def _model_lumina(
    scene: Scene, cameras: Sequence[Camera], design: AcceleratorDesign, timing: Memory,
    background: Background,
) -> Iterator[_Modeled]:
    """Frames in a row: lists are shared, and each finds the banks that the one before left."""
    assert isinstance(design, LuminaDesign)
    banks = float_banks = same_hits = None
    colors = design.setup.feature.color
    frames = lumina.prepare_sequence(scene, cameras, design)
    floats = lumina.render_sequence_float(scene, cameras, design, background)
    for camera, frame, exact in zip(cameras, frames, floats, strict=True):
        picture = lumina.render(frame, design, background, banks)
        run = simulate_lumina(frame, picture.workload, design, timing)
        if design.caching:
            records = picture.workload.nru
            same_hits = look_up(
                exact, design.radiance, records.ids, records.complete >= 0, float_banks)
            float_banks = same_hits.banks
        fields = decode_record(design.setup.feature.fields(), frame.features)
        saturated = np.stack([fields[name] == colors.raw_max for name in ("red", "green", "blue")])
        yield _Modeled(
            picture=picture, cycles=run.cycles, counters=run.counters, dram=run.dram,
            gaussians_saturated=int(saturated.any(axis=0).sum()),
            pack=partial(_pack_lumina, frame, design, background, banks),
            float_image=exact.image, transmittance=exact.transmittance,
            reference_image=reference.render(scene, camera, background=background).image,
            banks=picture.banks.images(design.radiance).reshape(-1) if picture.banks else None,
            same_hits_image=same_hits and same_hits.image)
        banks = picture.banks


def _pack_lumina(
    frame: LuminaInput, design: LuminaDesign, background: Background,
    banks: Banks | None, pixel_format: PixelFormat,
) -> MemoryImage:
    return lumina.pack(frame, design, background=background, pixel_format=pixel_format,
                       banks=None if frame.flush else banks)


_MODELS = {"gscore": _model_gscore, "raster": _model_raster, "streaminggs": _model_streaminggs,
           "voyager": _model_gscore}
#: Designs that can be co-simulated.
DESIGNS = ("gscore", "lumina", "raster", "streaminggs", "voyager")


def _model(
    scene: Scene, cameras: Sequence[Camera], design: AcceleratorDesign, timing: Memory,
    background: Background, keep_codebooks: bool,
) -> Iterator[_Modeled]:
    """Frames one after another through the models of their accelerator, each as it is wanted."""
    if isinstance(design, LuminaDesign):
        yield from _model_lumina(scene, cameras, design, timing, background)
        return
    for number, camera in enumerate(cameras):
        modeled = _MODELS[design.name]
        if keep_codebooks and number:
            modeled = partial(_model_streaminggs, load_codebooks=False)
        yield modeled(scene, camera, design, timing, background)


@dataclass(frozen=True, kw_only=True, eq=False)
class _Expected:
    """One frame as the RTL must render it."""

    picture: _Picture
    gaussians_saturated: int
    jobs: tuple[FrameJob, ...]
    float_image: npt.NDArray[np.float32]
    same_hits_image: npt.NDArray[np.float32] | None
    reference_image: npt.NDArray[np.float32]
    drawn: npt.NDArray[np.bool_]
    model_cycles: int
    model_counters: Mapping[str, int]
    model_dram: DramCounts | None
    banks: npt.NDArray[np.uint8] | None


def _expect(model: _Modeled, formats: Sequence[PixelFormat]) -> _Expected:
    return _Expected(
        picture=model.picture, gaussians_saturated=model.gaussians_saturated,
        jobs=tuple(FrameJob(image=model.pack(pixel_format), keep_workspace=model.banks is not None)
                   for pixel_format in formats),
        float_image=model.float_image, same_hits_image=model.same_hits_image,
        reference_image=model.reference_image,
        drawn=model.transmittance < BACKGROUND_TRANSMITTANCE,
        model_cycles=model.cycles, model_counters=model.counters, model_dram=model.dram,
        banks=model.banks,
    )


def _difference(run: FrameRun, expected: npt.NDArray) -> tuple[int, Difference | None]:
    """Pixels that differ, and the first of them."""
    got = run.pixels
    wrong = np.argwhere((got != expected).any(axis=-1))
    if not len(wrong):
        return 0, None
    y, x = wrong[0].tolist()
    tile = y // TILE_PX * -(-run.image.width // TILE_PX) + x // TILE_PX
    return len(wrong), Difference(
        pixel_format=run.image.pixel_format.name, x=x, y=y, tile=tile,
        expected=tuple(expected[y, x].tolist()), got=tuple(got[y, x].tolist()))


def _bytes_differing(
    got: npt.NDArray[np.uint8] | None, expected: npt.NDArray[np.uint8]
) -> int:
    """Bytes that differ; all of them where there are more or fewer than expected."""
    if got is None or got.shape != expected.shape:
        return expected.size
    return int((got != expected).sum())


def _compare(
    number: int, expected: _Expected, runs: Sequence[FrameRun]
) -> tuple[CosimFrame, CosimPictures]:
    for run in runs:
        if run.error:
            raise SimulationError(
                f"Frame {number} ended with the error {FrameError(run.error).name}")
        if run.stray_bytes:
            raise SimulationError(
                f"Frame {number}: {run.stray_bytes} bytes outside of the picture were written")
    counts: dict[PixelFormat, int] = {}
    first: Difference | None = None
    for run in runs:
        pixel_format = run.image.pixel_format
        counts[pixel_format], difference = _difference(run, expected.picture.pixels(pixel_format))
        first = first or difference
    run = runs[0]
    picture = run.pixels.astype(np.uint8)
    shown = picture[..., :3].astype(np.float32) / 255
    drawn = expected.drawn
    assert run.cycles is not None
    frame = CosimFrame(
        pixels=drawn.size, pixels_differing=counts[PixelFormat.RGBA8],
        state_pixels_differing=counts.get(PixelFormat.STATE), difference=first,
        psnr_db_vs_float=psnr_db(shown, expected.float_image),
        psnr_db_vs_float_non_background=(
            psnr_db(shown, expected.float_image, drawn) if drawn.any() else None),
        psnr_db_vs_float_same_hits=(
            None if expected.same_hits_image is None
            else psnr_db(shown, expected.same_hits_image)),
        psnr_db_vs_reference=psnr_db(shown, expected.reference_image),
        rtl_cycles=run.cycles, model_cycles=expected.model_cycles,
        rtl_counters=run.counters, model_counters=expected.model_counters,
        gaussians_saturated=expected.gaussians_saturated,
        rtl_dram=run.dram, model_dram=expected.model_dram,
        cache_bytes_differing=None if expected.banks is None else max(
            _bytes_differing(each.workspace, expected.banks) for each in runs),
    )
    return frame, CosimPictures(number=number, rtl=picture, exact=expected.float_image)


@dataclass
class _Lane:
    """One simulation and the thread that feeds it, frame by frame.

    `runs` gets what each of the `jobs` comes to, in their order; `busy` when the simulation began
    and ended each.
    """

    jobs: SimpleQueue[FrameJob | None] = field(default_factory=SimpleQueue)
    runs: SimpleQueue[FrameRun | BaseException] = field(default_factory=SimpleQueue)
    busy: list[tuple[float, float]] = field(default_factory=list)
    cycles: int = 0

    def _taken(self) -> Iterator[FrameJob]:
        while (job := self.jobs.get()) is not None:
            self.busy.append((time.perf_counter(), math.inf))
            yield job

    def work(
        self, building: Future[Binary], options: Mapping[str, Any], report: Callable[[], None]
    ) -> None:
        """Run what comes until None does."""
        def progress(cycles: int) -> None:
            self.cycles = cycles
            report()

        try:
            runs = stream_frames(
                building.result().path, self._taken(), progress=progress, **options)
            for run in runs:
                self.busy[-1] = self.busy[-1][0], time.perf_counter()
                self.runs.put(run)
        except BaseException as error:
            # Whoever waits for a run hears of it; so does who waits for the work.
            self.runs.put(error)
            raise

    def next(self) -> FrameRun:
        """The next run, or the error that it came to."""
        run = self.runs.get()
        if isinstance(run, BaseException):
            raise run
        return run


def _covered_s(spans: Sequence[tuple[float, float]]) -> float:
    """Seconds that lie in at least one of the spans."""
    total, until = 0.0, -math.inf
    for begin, end in sorted(spans):
        total += max(0.0, end - max(begin, until))
        until = max(until, end)
    return total


class _Running:
    """Frames on their way through the simulations, oldest first, and what has come of them."""

    def __init__(
        self, lanes: Sequence[_Lane], total: int,
        pictures: Callable[[CosimPictures], None] | None,
    ) -> None:
        self._lanes, self._total, self._pictures = lanes, total, pictures
        self._waiting: deque[tuple[int, _Expected, list[_Lane]]] = deque()
        self._jobs = 0
        self._model_cycles = 0
        self._worst_psnr_db = math.inf
        self.frames: list[CosimFrame] = []
        self.worst: CosimPictures | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    @property
    def size_bytes(self) -> int:
        """Memory images of the frames that wait."""
        return sum(content.nbytes for _, expected, _ in self._waiting for job in expected.jobs
                   for _, content in job.image.segments)

    @property
    def expected_cycles(self) -> int:
        """Cycles of all simulations together, by the frames that have been modeled."""
        modeled = len(self.frames) + len(self)
        return self._model_cycles * self._total // max(1, modeled)

    def send(self, expected: _Expected) -> None:
        """Have the simulations render a frame."""
        lanes = []
        for job in expected.jobs:
            lanes.append(self._lanes[self._jobs % len(self._lanes)])
            lanes[-1].jobs.put(job)
            self._jobs += 1
        self._model_cycles += expected.model_cycles * len(expected.jobs)
        self._waiting.append((len(self.frames) + len(self), expected, lanes))

    def finish(self) -> None:
        """Wait for the oldest frame and compare it."""
        number, expected, lanes = self._waiting.popleft()
        frame, pictures = _compare(number, expected, [lane.next() for lane in lanes])
        if self._pictures is not None:
            self._pictures(pictures)
        if self.worst is None or frame.psnr_db_vs_float < self._worst_psnr_db:
            self.worst, self._worst_psnr_db = pictures, frame.psnr_db_vs_float
        self.frames.append(frame)


def cosim(
    design_name: str,
    design: AcceleratorDesign,
    scene: Scene,
    cameras: Sequence[Camera],
    *,
    scene_name: str = "",
    timing: Memory = MemoryTiming(),  # noqa: B008
    background: Background = (0.0, 0.0, 0.0),
    state: bool = True,
    stall: Stall = Stall(),  # noqa: B008
    keep_codebooks: bool = False,
    processes: int = 1,
    waves: Waves | None = None,
    cache: Path | None = None,
    progress: Progress | None = None,
    pictures: Callable[[CosimPictures], None] | None = None,
) -> CosimResult:
    """Render frames with the Verilog, and compare them with every model.

    Each frame is compared as it ends; of those that are over, figures are kept and the pictures of
    the worst. A path of any length takes the memory of a few frames, or :data:`MODELED_BYTES` of
    them while the simulation is being built.

    Parameters
    ----------
    design_name : str
        One of `DESIGNS`.
    design : AcceleratorDesign
        Parameters; of that name.
    scene : Scene
        What is drawn.
    cameras : sequence of Camera
        One for each frame; the frames run back to back, without a reset.
    scene_name : str
        Name of the scene in the result.
    timing : MemoryTiming or BankedMemory
        The memory behind the RTL and behind the cycle model.
    background : tuple of float
        Linear red, green, blue in [0, 1].
    state : bool
        Whether to run every frame a second time and compare colour and T at accumulator width.
    stall : Stall
        Random stalls of the bus; pixels must not change, cycles do.
    keep_codebooks : bool
        Whether the first frame alone loads the codebooks of StreamingGS, and the others, all in one
        simulation behind it, find them on chip.
    processes : int
        Simulations side by side, each with a part of the frames.
    waves : Waves, optional
        Waves of the first cycles, and beside them save files that group signals by unit.
    cache : Path, optional
        Folder of built binaries, see :func:`splatforge.scenes.cache.cache_folder`.
    progress : callable, optional
        Called with a stage (``build``, ``prepare``, ``simulate``), what is done and the total.
    pictures : callable, optional
        Called with the pictures of every frame, in their order.

    Returns
    -------
    CosimResult
        What differs is in it; :meth:`CosimResult.check` raises if anything does.

    Raises
    ------
    ValueError
        If there is no such design, no camera, a number of processes below 1, codebooks are to be
        kept that the design does not have, or no file can be written where waves are to be.
    BuildError
        If the simulation cannot be built.
    SimulationError
        If a rule of the bus was broken, a frame ended with an error or not at all, or bytes
        outside of the picture were written.
    """
    if design_name not in DESIGNS:
        raise ValueError(f"Design must be one of {list(DESIGNS)}, not {design_name!r}")
    if not cameras:
        raise ValueError("Cameras must be at least one, not none")
    if processes < 1:
        raise ValueError(f"Processes must be at least 1, not {processes!r}")
    if keep_codebooks and design_name != StreaminggsDesign.name:
        raise ValueError(f"Codebooks must be kept of {StreaminggsDesign.name}, not of "
                         f"{design_name}, which has none")
    if waves is not None:
        for path in (waves.path, *view_paths(waves.path)):
            check_writable(path)
    tell = progress or (lambda stage, done, total: None)
    began = time.perf_counter()
    formats = (PixelFormat.RGBA8, PixelFormat.STATE)[: 1 + state]
    alone = waves is not None or keep_codebooks
    count = 1 if alone else min(processes, len(cameras) * len(formats))
    lanes = [_Lane() for _ in range(count)]
    running = _Running(lanes, len(cameras), pictures)
    # Enough frames for every simulation to have one at hand when it has finished another.
    ahead = 1 + -(-count // len(formats))

    def report() -> None:
        total = running.expected_cycles
        tell("simulate", min(sum(lane.cycles for lane in lanes), total), total)

    def built(building: Future[Binary]) -> None:
        if not building.exception():
            tell("build", 1, 1)

    with ThreadPoolExecutor(1 + count) as pool, Children() as children:
        # The compiler works in processes of its own while the models run here.
        tell("build", 0, 1)
        building: Future[Binary] = pool.submit(
            build_frame, design, waves=waves, cache=cache, children=children)
        building.add_done_callback(built)
        options = {"timing": timing, "stall": stall, "waves": waves, "children": children}
        try:
            working = [pool.submit(lane.work, building, options, report) for lane in lanes]
            modeled = _model(scene, cameras, design, timing, background, keep_codebooks)
            for number in range(len(cameras)):
                tell("prepare", number, len(cameras))
                running.send(_expect(next(modeled), formats))
                # While the compiler has one core, the other one has the models.
                while len(running) > ahead and (
                        building.done() or running.size_bytes > MODELED_BYTES):
                    running.finish()
            while running:
                running.finish()
        finally:
            for lane in lanes:
                lane.jobs.put(None)
        for work in working:
            work.result()
        build_s = building.result().build_s
    if waves is not None:
        write_views(core_verilog(design, cache=cache), design, waves.path)
    tell("simulate", running.expected_cycles, running.expected_cycles)
    assert running.worst is not None  # there is a camera
    return CosimResult(
        design=design, scene=scene_name, timing=timing, frames=tuple(running.frames),
        worst=running.worst, build_s=build_s,
        simulate_s=_covered_s([span for lane in lanes for span in lane.busy]),
        wall_s=time.perf_counter() - began)
