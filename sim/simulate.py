"""A scene and a path of cameras through an accelerator's models: cycles, traffic, energy, area."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from types import ModuleType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from splatforge.algos import gscore as gscore_algorithm
from splatforge.algos import lumina as lumina_algorithm
from splatforge.algos import raster as raster_algorithm
from splatforge.algos import reference
from splatforge.algos import streaminggs as streaminggs_algorithm
from splatforge.algos.array import Workload
from splatforge.algos.lumina.render import LuminaInput, LuminaWorkload
from splatforge.algos.lumina.sharing import group_order
from splatforge.algos.project import project
from splatforge.algos.records import decode_record
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.gscore import PRESETS as GSCORE_PRESETS
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.memory import BankedMemory, Memory, MemoryTiming
from splatforge.designs.shell import AcceleratorDesign
from splatforge.scenes import Camera, Scene
from splatforge.sim.area import AreaReport, area_of_units
from splatforge.sim.costs import CostTable, Sourced, default_costs
from splatforge.sim.dram import DramCounts
from splatforge.sim.dram_energy import dram_costs, dram_record
from splatforge.sim.energy import EnergyReport, energy_of_units
from splatforge.sim.gpu import FrameWork, GpuDevice, GpuRun, compare, devices, gpu_frame
from splatforge.sim.gscore import simulate as simulate_gscore
from splatforge.sim.lumina import simulate as simulate_lumina
from splatforge.sim.parts import (
    gscore_events,
    gscore_inventory,
    lumina_events,
    lumina_inventory,
    raster_events,
    raster_inventory,
    streaminggs_events,
    streaminggs_inventory,
)
from splatforge.sim.raster import simulate as simulate_raster
from splatforge.sim.run import Run
from splatforge.sim.sharing import GpuPart, SharedRun, SortWork, run_shared, walk
from splatforge.sim.streaminggs import busiest as busiest_of_streaminggs
from splatforge.sim.streaminggs import simulate as simulate_streaminggs
from splatforge.sim.timeline import Track

__all__ = ["ASSUMED_CLOCK", "DESIGNS", "GPUS", "MODELS", "FrameCounts", "Models", "Rival",
           "Simulation", "Work", "clock_of", "memory_record", "not_mapped", "simulate"]

#: Linear red, green, blue in [0, 1].
Background = tuple[float, float, float]
#: Told with the share of a frame that is done.
Progress = Callable[[float], None]

#: Baselines of every simulation.
GPUS = ("orin_nx_16gb", "agx_xavier")
#: The clock that papers assume, shown beside that which synthesis supports.
ASSUMED_CLOCK = Sourced.exact(1e9, "Hz", "assumed: GSCore (ASPLOS 2024) at 28 nm")


#: Parameters that no RTL holds: how a scene is cut.
_OFFLINE = ("partition",)


def not_mapped(design: AcceleratorDesign) -> dict[str, tuple[Any, Any]]:
    """Parameters of the RTL that are not those whose critical paths are known.

    Parameters
    ----------
    design : AcceleratorDesign
        What is asked for; the default of its kind is what was mapped.

    Returns
    -------
    dict
        Dotted name -> its value, and the one that was mapped.
    """
    found: dict[str, tuple[Any, Any]] = {}

    def compare(ours: Any, mapped: Any, name: str) -> None:
        if is_dataclass(ours) and type(ours) is type(mapped):
            for each in fields(ours):
                if name or each.name not in _OFFLINE:
                    compare(getattr(ours, each.name), getattr(mapped, each.name),
                            f"{name}.{each.name}".lstrip("."))
        elif ours != mapped:
            found[name] = ours, mapped

    compare(design, type(design)(), "")
    return found


def clock_of(design: AcceleratorDesign, table: CostTable, node_nm: float) -> Sourced:
    """What synthesis of a design's units supports, in Hz; what is assumed where they are untimed.

    It is that of the default parameters, whose units were mapped; where others are asked for the
    source says which.

    Parameters
    ----------
    design : AcceleratorDesign
        The design.
    table : CostTable
        Its critical paths.
    node_nm : float
        Process node, 7 to 130.
    """
    if not table.is_timed(design.name):
        return ASSUMED_CLOCK
    clock = table.clock(design.name, node_nm=node_nm)
    others = ", ".join(f"{name} {ours!r} instead of {mapped!r}"
                       for name, (ours, mapped) in not_mapped(design).items())
    if not others:
        return replace(clock, source=f"{clock.source}; of the default parameters")
    return replace(clock, source=f"{clock.source}; of the default parameters, those asked for were "
                   f"not mapped: {others}")


def memory_record(timing: Memory, counts: Sequence[DramCounts | None]) -> dict[str, Any]:
    """The memory of some frames, and what it did, for ``--json``."""
    if isinstance(timing, BankedMemory):
        known = [each for each in counts if each is not None]
        return dram_record(timing, sum(known[1:], known[0]))
    return {
        "name": "fixed",
        "latency_cycles": timing.latency_cycles,
        "read_beats_per_cycle": float(timing.read_beats_per_cycle),
        "write_beats_per_cycle": float(timing.write_beats_per_cycle),
        "outstanding": timing.outstanding,
    }


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameCounts:
    """What is kept of a frame's workload: its tiles' counts.

    Parameters
    ----------
    width, height, gaussians, gaussians_visible, gaussians_saturated, sh_degree : int
        As in :class:`splatforge.algos.array.Workload`.
    pairs, pairs_reached, records_reached, evaluations, live, significant, blended, \
    pixels_stopped : ndarray
        The same, of shape [tiles].
    """

    width: int
    height: int
    gaussians: int
    gaussians_visible: int
    gaussians_saturated: int
    sh_degree: int
    pairs: npt.NDArray[np.int64]
    pairs_reached: npt.NDArray[np.int64]
    records_reached: npt.NDArray[np.int64]
    evaluations: npt.NDArray[np.int64]
    live: npt.NDArray[np.int64]
    significant: npt.NDArray[np.int64]
    blended: npt.NDArray[np.int64]
    pixels_stopped: npt.NDArray[np.int64]

    @classmethod
    def of(cls, workload: Workload) -> Self:
        """Those of a workload."""
        return cls(**{each.name: getattr(workload, each.name) for each in fields(cls)})

    def totals(self) -> dict[str, int]:
        """Sums over the tiles."""
        return {name: int(value.sum()) for name, value in vars(self).items()
                if isinstance(value, np.ndarray)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Work:
    """What an algorithm says of one frame: all that the other models need.

    Parameters
    ----------
    counts : FrameCounts
        What happened in its tiles.
    drawn, workload : object
        What is in memory, and what happened, as the cycle model takes them.
    picture : object
        The bit-true frame; None where it is not kept.
    pixels : int
        Of the frame.
    gpu : GpuPart or None
        What a GPU does for it, of an accelerator that leaves a part to one.
    """

    counts: FrameCounts
    drawn: Any
    workload: Any
    picture: Any
    pixels: int
    gpu: GpuPart | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class Models:
    """Models of an accelerator.

    `work` runs the algorithm for frames one after another, `run` the cycle model on one of them,
    and `events` counts what costs energy in it; `inventory` is what stands on the chip by unit,
    `stages` are the names of its units in a result with their busy and stall counters (none where
    it never waits; the former may be Gaussians, which take a number of cycles each), and
    `gpu_stages` those that a GPU must do in its place. `rival` is the accelerator that it is
    compared with, if any; `busiest` tells from a design and counters which unit the frame waited
    for. `issues` are the counter of cycles in which an array issues, and those of cycles in which
    it could not.
    """

    work: Callable[[Scene, Sequence[Camera], Any, Background], Iterator[Work]]
    run: Callable[..., Run]
    events: Callable[..., Mapping[str, Mapping[str, float]]]
    inventory: Callable[[Any, CostTable], Mapping[str, Mapping[str, float]]]
    stages: tuple[tuple[str, str, str | None], ...]
    gpu_stages: tuple[str, ...]
    cycles_of: Callable[[Any], Mapping[str, float]] = lambda design: {}
    rival: str = ""
    busiest: Callable[[Any, Mapping[str, int]], Mapping[str, Any]] | None = None
    issues: tuple[str, tuple[str, ...]] = "array_busy", ("array_starved", "array_skipped")


def _each(algorithm: ModuleType, array: Callable[[Any], Workload]
          ) -> Callable[[Scene, Sequence[Camera], Any, Background], Iterator[Work]]:
    """Frames that know nothing of each other; `array` finds the array's part of a workload."""
    def work(scene: Scene, cameras: Sequence[Camera], design: Any, background: Background
             ) -> Iterator[Work]:
        for camera in cameras:
            drawn = algorithm.prepare(scene, camera, design)
            picture = algorithm.render(drawn, design, background)
            yield Work(counts=FrameCounts.of(array(picture.workload)), drawn=drawn,
                       workload=picture.workload, picture=picture,
                       pixels=camera.width * camera.height)

    return work


def _raster_run(work: Work, design: Any, timing: Memory, log: bool = False,
                progress: Progress | None = None) -> Run:
    return simulate_raster(work.workload, design, timing, log=log)


def _raster_events(work: Work, design: Any, run: Run, clock_hz: float, table: CostTable
                   ) -> Mapping[str, Mapping[str, float]]:
    return raster_events(work.workload, design, run, clock_hz=clock_hz, table=table)


def _gscore_run(work: Work, design: Any, timing: Memory, log: bool = False,
                progress: Progress | None = None) -> Run:
    return simulate_gscore(work.workload, design, timing, log=log, progress=progress)


def _gscore_events(work: Work, design: Any, run: Run, clock_hz: float, table: CostTable
                   ) -> Mapping[str, Mapping[str, float]]:
    return gscore_events(
        design, run, pixels=work.pixels, significant=int(work.counts.significant.sum()),
        walked=int(work.workload.ccu.walked.sum()), clock_hz=clock_hz, table=table)


def _streaminggs_run(work: Work, design: Any, timing: Memory, log: bool = False,
                     progress: Progress | None = None) -> Run:
    return simulate_streaminggs(work.drawn, work.workload, design, timing, log=log)


def _streaminggs_events(work: Work, design: Any, run: Run, clock_hz: float, table: CostTable
                        ) -> Mapping[str, Mapping[str, float]]:
    return streaminggs_events(
        design, run, pixels=work.pixels, significant=int(work.counts.significant.sum()),
        clock_hz=clock_hz, table=table)


def _lumina_counts(frame: LuminaInput, workload: LuminaWorkload, visible: int,
                   design: LuminaDesign) -> FrameCounts:
    """Counts of tiles in raster order. What hits ends with its record."""
    work, hit, length = workload.nru, workload.hit, np.diff(workload.starts)
    last = np.where(hit, work.complete, work.ends)
    tested = np.minimum(last + 1, length[:, None])
    stopped = ~hit & (work.ends >= 0) & (work.ends < length[:, None])
    blended = np.where(hit, workload.record_ids, work.blended)
    fields = decode_record(design.setup.feature.fields(), frame.features)
    saturated = [fields[name] == design.setup.feature.color.raw_max
                 for name in ("red", "green", "blue")]
    raster = np.argsort(workload.tiles)

    def of_tiles(counts: npt.NDArray) -> npt.NDArray[np.int64]:
        return counts[raster].astype(np.int64)

    evaluations, reached = of_tiles(tested.sum(axis=1)), of_tiles(tested.max(axis=1))
    return FrameCounts(
        width=workload.width, height=workload.height, gaussians=frame.gaussians,
        gaussians_visible=visible, gaussians_saturated=int(np.any(saturated, axis=0).sum()),
        sh_degree=frame.sh_degree, pairs=of_tiles(length), pairs_reached=reached,
        records_reached=reached, evaluations=evaluations, live=evaluations,
        # A significant splat is blended, or ends its pixel.
        significant=of_tiles((blended + stopped).sum(axis=1)),
        blended=of_tiles(blended.sum(axis=1)), pixels_stopped=of_tiles(stopped.sum(axis=1)))


def _lumina_work(scene: Scene, cameras: Sequence[Camera], design: Any, background: Background
                 ) -> Iterator[Work]:
    """Frames in a row: lists are shared, and each finds the banks that the one before left."""
    banks = None
    frames = lumina_algorithm.prepare_sequence(scene, cameras, design)
    for camera, frame in zip(cameras, frames, strict=True):
        picture = lumina_algorithm.render(frame, design, background, banks)
        banks, workload = picture.banks, picture.workload
        yield Work(
            counts=_lumina_counts(frame, workload, len(project(scene, camera)), design),
            drawn=frame, workload=workload, picture=picture, pixels=workload.pixels,
            gpu=GpuPart(
                work=SortWork.of(frame.lists, frame.gaussians, frame.sh_degree),
                sorts=frame.number == 0,
                beside=design.sharing.lead_frames if frame.window.predicted else 0,
                walk=walk(workload)))


def _lumina_run(work: Work, design: Any, timing: Memory, log: bool = False,
                progress: Progress | None = None) -> Run:
    return simulate_lumina(work.drawn, work.workload, design, timing, log=log)


def _lumina_events(work: Work, design: Any, run: Run, clock_hz: float, table: CostTable
                   ) -> Mapping[str, Mapping[str, float]]:
    return lumina_events(
        design, run, pixels=work.pixels, fragments=int(work.counts.significant.sum()),
        clock_hz=clock_hz, table=table)


def _gscore_preset(cameras: Sequence[Camera]) -> str:
    """The published configuration, with lists for as many tiles as the frames have."""
    tiles = max(-(-camera.width // TILE_PX) * -(-camera.height // TILE_PX) for camera in cameras)
    published = GSCORE_PRESETS["published"]
    return "published" if tiles <= published.lists.tiles else "large"


_ARRAY_STAGES = (("array", "array_busy", "array_starved"),
                 ("resolve", "resolve_busy", "resolve_stalled"))
#: Voyager's client has all units of GSCore.
_OF_GSCORE = Models(
    work=_each(gscore_algorithm, lambda workload: workload.array), run=_gscore_run,
    events=_gscore_events, inventory=gscore_inventory,
    stages=(("ccu", "ccu_busy", "ccu_stalled"), ("lists", "lists_busy", "lists_stalled"),
            ("qsu", "qsu_busy", "qsu_stalled"), ("bsu", "bsu_busy", None), *_ARRAY_STAGES),
    gpu_stages=("preprocess", "duplicate", "sort", "rasterize", "write"),
)
MODELS = {
    "raster": Models(
        work=_each(raster_algorithm, lambda workload: workload), run=_raster_run,
        events=_raster_events, inventory=raster_inventory,
        stages=(("fetch", "fetch_busy", "fetch_stalled"), *_ARRAY_STAGES),
        gpu_stages=("rasterize", "write"),
    ),
    "gscore": _OF_GSCORE,
    "streaminggs": Models(
        work=_each(streaminggs_algorithm, lambda workload: workload.array),
        run=_streaminggs_run, events=_streaminggs_events, inventory=streaminggs_inventory,
        stages=(("vsu", "vsu_busy", "vsu_stalled"), ("cfu", "gaussians", "cfu_stalled"),
                ("ffu", "gaussians_projected", "ffu_stalled"), ("vsort", "vsort_busy", None),
                *_ARRAY_STAGES),
        gpu_stages=("preprocess", "duplicate", "sort", "rasterize", "write"),
        cycles_of=lambda design: {"cfu": 1 / design.cfu.units, "ffu": design.ffu.interval},
        rival="gscore", busiest=busiest_of_streaminggs,
    ),
    "lumina": Models(
        work=_lumina_work, run=_lumina_run, events=_lumina_events, inventory=lumina_inventory,
        stages=(("nru", "issued", "starved"),), gpu_stages=("rasterize", "write"),
        issues=("issued", ("stalled", "starved")),
    ),
    "voyager": _OF_GSCORE,
}
#: Designs that can be simulated.
DESIGNS = tuple(MODELS)


#: Unit -> counters of more states than a unit's two, of those that have them.
_MORE_STATES = {"array": {"skipping": "array_skipped", "stalled": "array_blocked"},
                "nru": {"stalled": "stalled"}}
#: Units of a timeline that a result's stages do not have: in front of them, and behind.
_UNITS_BEFORE = (("tilelists", "tilelists_busy", "tilelists_stalled"),
                 ("vru", "vru_busy", "vru_stalled"))
_UNITS_BEHIND = (("radiance", "radiance_busy", "radiance_stalled"),
                 ("resolve", "resolve_busy", "resolve_stalled"),
                 ("reads", "read_beats", "read_stalled"))


@dataclass(frozen=True, kw_only=True, eq=False)
class Rival:
    """Another accelerator on the same frames, behind the same memory.

    Parameters
    ----------
    design, preset : str
        Its name, and that of its parameters.
    runs, clock, energies, areas :
        As of :class:`Simulation`.
    """

    design: str
    preset: str
    runs: tuple[Run, ...]
    clock: Sourced
    energies: tuple[EnergyReport, ...]
    areas: AreaReport

    def baseline(
        self, time_s: float, energy_j: float, band_s: Sequence[float], band_j: Sequence[float]
    ) -> dict[str, Any]:
        """Its figures, over time and energy of ours.

        The band of a time is that of the clock for the cycles counted at its value. Where the
        memory's timing is in ns there are fewer cycles at a slower clock and more at a faster one:
        the band is an outer one. Both clocks come from one library by one rule, whose error they
        share: of the ratio, the ends are taken together.
        """
        cycles = sum(run.cycles for run in self.runs)
        time = cycles / self.clock.value
        times = [cycles / self.clock.high, cycles / self.clock.low]
        ratios = [time / time_s, *(each / ours for each, ours in zip(times, band_s, strict=True))]
        spent = sum(report.energy_j for report in self.energies)
        spent_band = [sum(report.band_j[end] for report in self.energies) for end in (0, 1)]
        return {
            "preset": self.preset, "cycles": cycles, "clock_hz": self.clock.value,
            "clock_source": self.clock.source,
            "time_s": time, "time_band_s": times,
            "energy_j": spent, "energy_band_j": spent_band,
            "speedup": time / time_s,
            "speedup_band": [end(ratios) for end in (min, max)],
            "energy_saving": spent / energy_j,
            "energy_saving_band": [spent_band[0] / band_j[1], spent_band[1] / band_j[0]],
            "area_mm2": self.areas.area_mm2, "area_band_mm2": list(self.areas.band_mm2),
            "bytes_read": sum(run.bytes_read for run in self.runs),
            "bytes_written": sum(run.bytes_written for run in self.runs)}


@dataclass(frozen=True, kw_only=True, eq=False)
class Simulation:
    """Figures of a run of frames.

    Parameters
    ----------
    design, scene : str
        Their names.
    parameters : AcceleratorDesign
        What was simulated.
    timing : MemoryTiming or BankedMemory
        The memory behind it.
    runs : tuple of Run
        One for each frame.
    counts : tuple of FrameCounts
        What happened in each frame.
    clock : Sourced
        Clock in Hz, and who says so.
    supported : Sourced
        The clock that synthesis supports, as :func:`clock_of` has it.
    energies : tuple of EnergyReport
        One for each frame.
    areas : AreaReport
        Of the design.
    gpus : tuple of tuple of GpuRun
        For each baseline the frames, of them the stages that the accelerator replaces.
    rival : Rival or None
        The accelerator that it is compared with.
    systems : tuple of SharedRun
        Where a GPU does a part: for each baseline what it and the accelerator make of the frames.
    """

    design: str
    scene: str
    parameters: AcceleratorDesign
    timing: Memory
    runs: tuple[Run, ...]
    counts: tuple[FrameCounts, ...]
    clock: Sourced
    supported: Sourced
    energies: tuple[EnergyReport, ...]
    areas: AreaReport
    gpus: tuple[tuple[GpuRun, ...], ...]
    rival: Rival | None = None
    systems: tuple[SharedRun, ...] = ()

    @property
    def cycles(self) -> int:
        """Cycles of all frames."""
        return sum(run.cycles for run in self.runs)

    @property
    def counters(self) -> dict[str, int]:
        """Counters of all frames."""
        return {name: sum(run.counters[name] for run in self.runs)
                for name in self.runs[0].counters}

    @property
    def utilisation(self) -> float:
        """Share of cycles in which the array issued, of those in which a tile had work."""
        busy, idle = MODELS[self.design].issues
        issued = self._events(busy)
        work = issued + self._events(*idle)
        return issued / work if work else 0.0

    def _events(self, *names: str) -> int:
        """Counters or actions of all frames together."""
        return sum({**run.counters, **run.actions}[name] for run in self.runs for name in names)

    @property
    def useful(self) -> float:
        """Share of the lane-cycles issued that evaluated a live pixel with alpha over 1/255."""
        issued = self._events(MODELS[self.design].issues[0]) * self.parameters.array.lanes
        significant = sum(int(counts.significant.sum()) for counts in self.counts)
        return significant / issued if issued else 0.0

    def tile_cycles(self, frame: int) -> npt.NDArray[np.int64]:
        """Cycles of every tile of a frame, in raster order: from one end to the next.

        Where a group of tiles ends at once, each of its tiles has the group's. The first tile has
        what goes before it, but not what is done for all tiles before any.
        """
        run, counts, design = self.runs[frame], self.counts[frame], self.parameters
        rows, columns = -(-counts.height // TILE_PX), -(-counts.width // TILE_PX)
        begun = max(run.counters.get(name, 0) for name in ("projecting", "sorting"))
        cycles = np.diff(run.tile_ends, prepend=begun)
        if isinstance(design, LuminaDesign):
            # Tiles go group by group of a bank of the cache, each by itself.
            tiles, _ = group_order(counts.width, counts.height, design.radiance.group_tiles)
            return cycles[np.argsort(tiles)]
        side = design.array.side
        row, column = np.divmod(np.arange(rows * columns), columns)
        return cycles[row // side * -(-columns // side) + column // side]

    def tile_spans(self, frame: int) -> list[tuple[str, int, int]]:
        """What the array ended, in that order: name, end of what it ended before, its own end.

        Names are the tile's column and row, or of a group of tiles the group's.
        """
        run, counts, design = self.runs[frame], self.counts[frame], self.parameters
        columns = -(-counts.width // TILE_PX)
        numbers, text = np.arange(len(run.tile_ends)), "tile"
        if isinstance(design, LuminaDesign):
            numbers, _ = group_order(counts.width, counts.height, design.radiance.group_tiles)
        elif design.array.side > 1:
            columns, text = -(-columns // design.array.side), "group"
        begun = max(run.counters.get(name, 0) for name in ("projecting", "sorting"))
        return [(f"{text} {number % columns}, {number // columns}", int(first), int(last))
                for number, first, last in zip(
                    numbers.tolist(), [begun, *run.tile_ends[:-1]], run.tile_ends, strict=True)]

    def tracks(self, frame: int) -> tuple[Track, ...]:
        """States of every unit over the cycles of a frame, from the cycle model's counters.

        A stall is ``stalled`` where the unit had work and could not go on, ``starved`` where none
        came; ``skipping`` is an array passing splats over that meet no live block.
        """
        models, run = MODELS[self.design], self.runs[frame]
        cycles_of = models.cycles_of(self.parameters)
        named = {unit for unit, _, _ in models.stages}
        found = list[Track]()
        more = [[each for each in units if each[0] not in named]
                for units in (_UNITS_BEFORE, _UNITS_BEHIND)]
        for unit, busy, stall in (*more[0], *models.stages, *more[1]):
            windows = next((each for each in run.windows if busy in each.counts), None)
            if windows is None:
                continue
            names = {"busy": busy, **_MORE_STATES.get(unit, {})}
            if stall is not None:
                names["starved" if stall.endswith("starved") else "stalled"] = stall
            states = {state: windows.counts[name].astype(np.float64)
                      for state, name in names.items() if name in windows.counts}
            states["busy"] *= cycles_of.get(unit, 1)
            found.append(Track(unit=unit, edges=windows.edges, states=states))
        return tuple(found)

    @property
    def is_clock_assumed(self) -> bool:
        """Whether no synthesis supports the clock: it is above what does, or nothing is timed."""
        return self.supported is ASSUMED_CLOCK or self.clock.value > self.supported.value

    @property
    def clock_warning(self) -> str:
        """What to say of a clock that no synthesis supports; nothing of another."""
        if not self.is_clock_assumed or self.clock is ASSUMED_CLOCK:
            return ""
        return (f"no synthesis supports {self.clock.value / 1e6:,.4g} MHz, "
                f"{self.clock.value / self.supported.value:.3g} times the "
                f"{self.supported.value / 1e6:,.4g} MHz that it does: times, powers and speedups "
                "are of an assumed clock")

    def _assumed(self, baselines: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Figures at the clock that papers assume, where cycles do not depend on it."""
        said = {"clock_hz": ASSUMED_CLOCK.value, "clock_source": ASSUMED_CLOCK.source}
        if isinstance(self.timing, BankedMemory):
            return {**said, "time_s": None, "fps": None, "speedup": {}, "note": (
                "the memory's timing is in ns, and the cycles were counted at another clock: "
                f"--clock-mhz {ASSUMED_CLOCK.value / 1e6:g} counts them at this one")}
        time_s = self.cycles / ASSUMED_CLOCK.value
        speedups = {name: each["time_s"] / time_s for name, each in baselines.items()}
        if self.rival is not None:
            # Both at the clock that is assumed.
            speedups[self.rival.design] = baselines[self.rival.design]["cycles"] / self.cycles
        return {**said, "time_s": time_s, "fps": len(self.runs) / time_s, "speedup": speedups}

    def _units(self) -> dict[str, dict[str, object]]:
        """Energy and area of every unit; null where only one of them is known."""
        energies, areas = [report.units for report in self.energies], self.areas.units
        units: dict[str, dict[str, object]] = {}
        for name in dict.fromkeys((*energies[0], *areas)):
            spent = [sum(each[name][end] for each in energies) for end in range(3)
                     ] if name in energies[0] else None
            stands = areas.get(name)
            units[name] = {
                "energy_j": spent and spent[0], "energy_band_j": spent and spent[1:],
                "area_mm2": stands and stands.value,
                "area_band_mm2": stands and [stands.low, stands.high]}
        return units

    def record(self) -> dict[str, Any]:
        """The figures for ``--json``; keys carry their units."""
        time_s = self.cycles / self.clock.value
        band_s = (self.cycles / self.clock.high, self.cycles / self.clock.low)
        counters, frames = self.counters, len(self.runs)
        color = self.parameters.splat.color
        energy_j = sum(report.energy_j for report in self.energies)
        band = [sum(report.band_j[end] for report in self.energies) for end in (0, 1)]
        totals = [counts.totals() for counts in self.counts]
        pairs = sum(each["pairs_reached"] for each in totals)
        baselines: dict[str, dict[str, Any]] = {}
        for each in self.gpus:
            # All frames as one run: their stages one after the other.
            whole = replace(each[0], stages=tuple(s for run in each for s in run.stages))
            baselines |= compare(
                time_s=time_s, energy_j=energy_j, gpu_runs=[whole],
                energy_band_j=(band[0], band[1]), time_band_s=band_s)
        if self.rival is not None:
            baselines[self.rival.design] = self.rival.baseline(
                time_s, energy_j, band_s, band)
        for each in baselines.values():
            each["clock_assumed"] = self.is_clock_assumed
        models = MODELS[self.design]
        cycles_of = models.cycles_of(self.parameters)
        return {
            "design": self.design, "scene": self.scene, "frames": frames,
            "cycles": self.cycles, "frame_cycles": [run.cycles for run in self.runs],
            "clock_hz": self.clock.value, "clock_source": self.clock.source,
            "clock_band_hz": [self.clock.low, self.clock.high],
            "clock_assumed": self.is_clock_assumed, "clock_supported_hz": self.supported.value,
            "clock_warning": self.clock_warning or None,
            "clock_not_mapped": {name: {"asked": str(ours), "mapped": str(mapped)} for name, (
                ours, mapped) in not_mapped(self.parameters).items()},
            "time_s": time_s, "fps": frames / time_s,
            "assumed": self._assumed(baselines),
            "bytes_read": sum(run.bytes_read for run in self.runs),
            "bytes_written": sum(run.bytes_written for run in self.runs),
            "bytes": {name.removesuffix("_bytes"): counters[name] for name in (
                *self.parameters.read_counters, *self.parameters.write_counters)},
            "energy_j": energy_j, "energy_band_j": band,
            "energy": [report.record() for report in self.energies],
            "area_mm2": self.areas.area_mm2, "area_band_mm2": list(self.areas.band_mm2),
            "units": self._units(),
            "issued": self._events(models.issues[0]),
            "utilisation": self.utilisation, "useful_share": self.useful,
            "pairs_reached": pairs, "cycles_per_pair": self.cycles / pairs if pairs else None,
            "gaussians_saturated": max(each.gaussians_saturated for each in self.counts),
            "color_max": float(color.to_float(color.raw_max)),
            "lanes": self.parameters.array.lanes,
            "memory": memory_record(self.timing, [run.dram for run in self.runs]),
            "counters": counters,
            "actions": {name: self._events(name) for name in self.runs[0].actions
                        if name not in counters},
            "stages": [{"name": name, "busy": round(self._events(busy) * cycles_of.get(name, 1)),
                        "stall": 0 if stall is None else self._events(stall)}
                       for name, busy, stall in models.stages],
            "busiest": models.busiest and models.busiest(self.parameters, counters),
            "workload": {name: sum(each[name] for each in totals) for name in totals[0]},
            "gpu_stages": list(models.gpu_stages),
            "baselines": baselines,
            "gpu": [[run.record() for run in runs] for runs in self.gpus],
            "systems": {each.device.name: each.record() for each in self.systems},
        }


def _system(
    design: AcceleratorDesign, parts: Sequence[GpuPart], runs: Sequence[Run],
    energies: Sequence[EnergyReport], clock: Sourced, whole: Sequence[GpuRun],
) -> SharedRun:
    """Frames of which a GPU does a part, on a GPU; `whole` are the reference's on it."""
    assert isinstance(design, LuminaDesign)  # no other leaves a part to a GPU
    one = Sourced.exact(1, "1", clock.source)
    draws = [(one / clock * run.cycles).to("s") for run in runs]
    own = [Sourced(report.energy_j, "J", "counted by the cycle model", *report.band_j)
           for report in energies]
    return run_shared(parts, whole, draws, own, design.radiance, whole[0].device)


def simulate(
    design_name: str,
    design: AcceleratorDesign,
    scene: Scene,
    cameras: Sequence[Camera],
    *,
    scene_name: str = "scene",
    timing: Memory = MemoryTiming(),  # noqa: B008
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    clock: Sourced | None = None,
    node_nm: float = 28,
    log: bool = False,
    gpus: Sequence[str | GpuDevice] = GPUS,
    rival: bool = True,
    table: CostTable | None = None,
    progress: Callable[[float], None] | None = None,
    pictures: Callable[[int, npt.NDArray[np.float32], npt.NDArray[np.float32]], None] | None = None,
) -> Simulation:
    """Work out cycles, traffic, energy and area of frames, and those of mobile GPUs beside them.

    Parameters
    ----------
    design_name : str
        One of :data:`DESIGNS`.
    design : AcceleratorDesign
        Its parameters.
    scene, cameras : Scene, sequence of Camera
        What is drawn.
    scene_name : str
        For the record.
    timing : MemoryTiming or BankedMemory
        The memory.
    log : bool
        Whether to keep commands and requests of a banked memory in the runs.
    background : tuple of float
        Linear red, green, blue in [0, 1].
    clock : Sourced, optional
        Clock in Hz; by default that of :func:`clock_of`.
    node_nm : float
        Process node of energy and area.
    gpus : sequence of str or GpuDevice
        Baselines: names of :func:`splatforge.sim.gpu.devices`, or devices of one's own.
    rival : bool
        Whether to run the accelerator that the design is compared with, if there is one.
    table : CostTable, optional
        Costs of energy and area; the committed tables by default.
    progress : callable, optional
        Called with the number of frames done, in the midst of a long one with a part of it.
    pictures : callable, optional
        Called with the number of a frame, the bit-true picture and the float reference, both of
        shape [height, width, 3], while they are there: they are not kept.

    Returns
    -------
    Simulation
        All figures.

    Raises
    ------
    ValueError
        If the design or a GPU is unknown, or there is no camera.
    """
    if design_name not in DESIGNS:
        raise ValueError(f"Design must be one of {', '.join(DESIGNS)}, not {design_name!r}")
    known = devices()
    boards = list[GpuDevice]()
    for each in gpus:
        if isinstance(each, str) and each not in known:
            raise ValueError(f"GPU must be one of {', '.join(known)}, not {each!r}")
        boards.append(known[each] if isinstance(each, str) else each)
    if not cameras:
        raise ValueError("Cameras must hold at least one view, not 0")
    models = MODELS[design_name]
    table = table or default_costs()
    supported = clock_of(design, table, node_nm)
    clock = clock or supported
    of_dram: dict[str, Any] = {}
    if isinstance(timing, BankedMemory):
        of_dram = {"dram": timing.dram.name, "costs": dram_costs(timing.dram)}
    tell = progress or (lambda done: None)
    other, other_design = None, models.rival if rival else ""
    preset = ""
    if other_design:
        preset = _gscore_preset(cameras)
        other = MODELS[other_design]
    runs, kept, energies, parts = [], [], [], []
    their_runs, their_energies = [], []
    their_clock = clock_of(GSCORE_PRESETS[preset], table, node_nm) if other else clock
    gpu_runs: list[list[GpuRun]] = [[] for _ in boards]

    def modeled(of: Models, work: Work, parameters: Any, at: Sourced, begun: float, share: float
                ) -> tuple[Run, EnergyReport]:
        memory = timing
        if isinstance(timing, BankedMemory) and at is not clock:
            memory = replace(timing, clock_hz=at.value)
        run = of.run(work, parameters, memory, log, lambda done: tell(begun + share * done))
        events = of.events(work, parameters, run, at.value, table)
        return run, energy_of_units(events, node_nm=node_nm, table=table, **of_dram)

    works = models.work(scene, cameras, design, background)
    their_works = other and other.work(scene, cameras, GSCORE_PRESETS[preset], background)
    for number, (camera, work) in enumerate(zip(cameras, works, strict=True)):
        # Of a frame's workload only the tiles' counts are kept.
        counts = work.counts
        kept.append(counts)
        parts.append(work.gpu)
        run, spent = modeled(models, work, design, clock, number, 0.5 if other else 1.0)
        runs.append(run)
        energies.append(spent)
        if other and their_works:
            tell(number + 0.5)
            run, spent = modeled(
                other, next(their_works), GSCORE_PRESETS[preset], their_clock, number + 0.5, 0.5)
            their_runs.append(run)
            their_energies.append(spent)
        # A GPU walks the 3-sigma list pixel by pixel: its evaluations are the reference's.
        frame = reference.render(scene, camera, background=background, statistics=True)
        if pictures is not None:
            pictures(number, work.picture.image, frame.image)
        if frame.statistics is None:
            raise RuntimeError("The reference must count when asked to")
        gpu_work = FrameWork.from_statistics(
            frame.statistics, gaussians=counts.gaussians,
            gaussians_visible=counts.gaussians_visible, sh_degree=counts.sh_degree,
            pixels=camera.width * camera.height)
        for place, board in enumerate(boards):
            gpu_runs[place].append(gpu_frame(gpu_work, board))
        tell(number + 1)
    return Simulation(
        design=design_name, scene=scene_name, parameters=design, timing=timing,
        runs=tuple(runs), counts=tuple(kept), clock=clock, supported=supported,
        energies=tuple(energies),
        areas=area_of_units(models.inventory(design, table), node_nm=node_nm, table=table),
        gpus=tuple(tuple(run.part(*models.gpu_stages) for run in each) for each in gpu_runs),
        systems=tuple(
            _system(design, [part for part in parts if part], runs, energies, clock, whole)
            for whole in gpu_runs if all(parts)),
        rival=None if other is None else Rival(
            design=other_design, preset=preset, runs=tuple(their_runs), clock=their_clock,
            energies=tuple(their_energies), areas=area_of_units(
                other.inventory(GSCORE_PRESETS[preset], table), node_nm=node_nm, table=table)),
    )
