"""A scene and a path of cameras through an accelerator's models: cycles, traffic, energy, area."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from splatforge.algos import raster as raster_algorithm
from splatforge.algos import reference
from splatforge.algos.array import Workload
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.blend import BlendDesign
from splatforge.designs.fetch import TILE_PX, SplatFormat
from splatforge.designs.memory import BankedMemory, Memory, MemoryTiming
from splatforge.designs.raster import COUNTERS, RasterDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.shell import DESCRIPTOR_BYTES, AcceleratorDesign
from splatforge.scenes import Camera, Scene
from splatforge.sim.area import AreaReport, area, lane_operators, raster_inventory
from splatforge.sim.costs import CostTable, Sourced, default_costs
from splatforge.sim.dram import DramCounts
from splatforge.sim.dram_energy import dram_costs, dram_events, dram_record
from splatforge.sim.energy import EnergyReport, energy
from splatforge.sim.gpu import FrameWork, GpuRun, compare, devices, gpu_frame
from splatforge.sim.raster import Run
from splatforge.sim.raster import simulate as simulate_raster

__all__ = ["ASSUMED_CLOCK", "DESIGNS", "GPUS", "Simulation", "flip_flops", "memory_record",
           "raster_events", "simulate"]

#: Baselines of every simulation.
GPUS = ("orin_nx_16gb", "agx_xavier")
#: The clock of a time, until synthesis of this RTL supports one.
ASSUMED_CLOCK = Sourced.exact(
    1e9, "Hz", "assumed: GSCore (ASPLOS 2024) at 28 nm; no synthesis of this RTL supports it yet")
#: Blocks of the core whose energies are measured, see :mod:`splatforge.sim.costs`.
MEASURED_BLOCKS = ("alpha", "blend", "array", "fetch", "resolve", "registers")


def is_measured(design: RasterDesign) -> bool:
    """Whether the measured energies are of the formats of `design`."""
    return (design.array.alpha, design.array.blend, design.fetch.splat, design.resolve.background) \
        == (AlphaDesign(), BlendDesign(), SplatFormat(), ResolveDesign().background)


def flip_flops(design: RasterDesign, table: CostTable) -> dict[str, float]:
    """Flip-flops of each measured block, for any number of lanes.

    The counts are those of the mapped netlists. Lanes multiply `alpha` and `blend`; a lane of
    `blend` holds a colour and twice a T for each of its pixels of two tiles. Counters and the frame
    descriptor of the core's top level count as registers.
    """
    array = design.array
    pixel = 2 * array.blend.transmittance.width + 3 * array.blend.accumulator.width
    counts = {}
    for block in MEASURED_BLOCKS:
        counts[block] = table.measured(block, "flip_flops").cost.value
        if block in ("alpha", "blend"):
            measured_lanes = table.measured(block, "instances").cost.value
            counts[block] *= array.lanes / measured_lanes
            if block == "blend":
                pixels = 2 * TILE_PX**2 * (1 / array.lanes - 1 / measured_lanes)
                counts[block] += array.lanes * pixels * pixel
    counts["registers"] += design.shell.counter_bits * len(COUNTERS) + 8 * DESCRIPTOR_BYTES
    return counts


def _measured_events(
    workload: Workload, design: RasterDesign, run: Run, clock_hz: float, table: CostTable
) -> dict[str, float]:
    """Actions, clock and leakage of the measured blocks."""
    counters = run.counters
    issued = counters["array_busy"] * design.array.lanes
    significant = int(workload.significant.sum())
    events: dict[str, float] = {
        "alpha_evaluation": issued, "alpha_significant": significant,
        "blend_evaluation": issued, "blend_significant": significant,
        "array_block": counters["array_busy"], "fetch_splat": counters["fetch_busy"],
        "resolve_pixel": workload.width * workload.height, "registers_cycle": run.cycles,
    }
    for block, count in flip_flops(design, table).items():
        events[f"{block}_flip_flop_cycle"] = count * run.cycles
    for block in MEASURED_BLOCKS:
        lanes = design.array.lanes if block in ("alpha", "blend") else 1
        events[f"{block}_leakage"] = (
            1e6 * run.cycles / clock_hz * lanes / table.measured(block, "instances").cost.value)
    return events


def _operator_events(workload: Workload, design: RasterDesign, run: Run) -> dict[str, float]:
    """Operators that the formats imply, and the registers behind them."""
    operators = lane_operators(design.array)
    issued = run.counters["array_busy"] * design.array.lanes
    significant = int(workload.significant.sum())
    events: dict[str, float] = {}
    for part, times in (("evaluate", issued), ("blend", significant)):
        for name, copies in operators[part].items():
            events[name] = events.get(name, 0) + copies * times
    events["register_bit_clock"] = raster_inventory(design)["register_bit"] * run.cycles
    return events


def raster_events(
    workload: Workload, design: RasterDesign, run: Run, *, clock_hz: float,
    table: CostTable | None = None,
) -> dict[str, float]:
    """Events of one frame in the vocabulary of :mod:`splatforge.sim.costs`.

    Evaluations are those issued, live or not; what is behind the test counts where an evaluation
    is significant; every register is clocked in every cycle, since nothing is gated. The measured
    blocks are taken where their formats are those of the design, else the operators that the
    formats imply.

    Parameters
    ----------
    workload : Workload
        What happened.
    design : RasterDesign
        The core.
    run : Run
        Its cycles and counters.
    clock_hz : float
        Clock: leakage lasts as long as the frame.
    table : CostTable, optional
        Flip-flops of the measured blocks; the committed tables by default.
    """
    if is_measured(design):
        events = _measured_events(workload, design, run, clock_hz, table or default_costs())
    else:
        events = _operator_events(workload, design, run)
    buffer = next(name for name in raster_inventory(design) if name.startswith("sram_"))
    splats = run.counters["fetch_busy"]
    dropped = run.counters["overfetch_bytes"] // design.shell.data_bytes
    events[buffer.replace("sram_", "sram_write_")] = splats
    events[buffer.replace("sram_", "sram_read_")] = splats - dropped
    if run.dram is not None:
        return events | dram_events(run.dram)
    events["dram_read_byte"] = run.bytes_read
    events["dram_write_byte"] = run.bytes_written
    return events


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
class Frame:
    """One frame through the models of an accelerator.

    Parameters
    ----------
    workload : Workload
        What happened in its rendering array.
    run : Run
        Cycles and counters.
    events : Mapping
        In the vocabulary of :mod:`splatforge.sim.costs`.
    """

    workload: Workload
    run: Run
    events: Mapping[str, float]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Models:
    """Models of an accelerator.

    `frame` runs one frame, `inventory` is what stands on the chip, `stages` are the names of its
    units in a result with their busy and stall counters, and `gpu_stages` those that a GPU must do
    in its place.
    """

    frame: Callable[..., Frame]
    inventory: Callable[..., Mapping[str, float]]
    stages: tuple[tuple[str, str, str], ...]
    gpu_stages: tuple[str, ...]


def _raster_frame(
    scene: Scene, camera: Camera, design: RasterDesign, timing: Memory,
    background: tuple[float, float, float], log: bool, clock_hz: float, table: CostTable | None,
) -> Frame:
    lists = raster_algorithm.prepare(scene, camera, design)
    workload = raster_algorithm.render(lists, design, background).workload
    run = simulate_raster(workload, design, timing, log=log)
    return Frame(workload=workload, run=run, events=raster_events(
        workload, design, run, clock_hz=clock_hz, table=table))


_MODELS = {
    "raster": _Models(
        frame=_raster_frame, inventory=raster_inventory,
        stages=(
            ("fetch", "fetch_busy", "fetch_stalled"),
            ("array", "array_busy", "array_starved"),
            ("resolve", "resolve_busy", "resolve_stalled"),
        ),
        gpu_stages=("rasterize", "write"),
    ),
}
#: Designs that can be simulated.
DESIGNS = tuple(_MODELS)


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
    workloads : tuple of Workload
        What happened in each frame.
    clock : Sourced
        Clock in Hz, and who says so.
    energies : tuple of EnergyReport
        One for each frame.
    areas : AreaReport
        Of the design.
    gpus : tuple of tuple of GpuRun
        For each baseline the frames' rasterization, the stages that the core replaces.
    """

    design: str
    scene: str
    parameters: AcceleratorDesign
    timing: Memory
    runs: tuple[Run, ...]
    workloads: tuple[Workload, ...]
    clock: Sourced
    energies: tuple[EnergyReport, ...]
    areas: AreaReport
    gpus: tuple[tuple[GpuRun, ...], ...]

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
        counters = self.counters
        work = sum(counters[name] for name in
                   ("array_busy", "array_starved", "array_skipped"))
        return counters["array_busy"] / work if work else 0.0

    @property
    def useful(self) -> float:
        """Share of the lane-cycles issued that evaluated a live pixel with alpha over 1/255."""
        issued = self.counters["array_busy"] * self.parameters.array.lanes
        significant = sum(int(workload.significant.sum()) for workload in self.workloads)
        return significant / issued if issued else 0.0

    def record(self) -> dict[str, Any]:
        """The figures for ``--json``; keys carry their units."""
        time_s = self.cycles / self.clock.value
        counters, frames = self.counters, len(self.runs)
        color = self.parameters.splat.color
        energy_j = sum(report.energy_j for report in self.energies)
        band = [sum(report.band_j[end] for report in self.energies) for end in (0, 1)]
        pairs = sum(int(workload.pairs_reached.sum()) for workload in self.workloads)
        baselines: dict[str, dict[str, object]] = {}
        for each in self.gpus:
            # All frames as one run: their stages one after the other.
            whole = replace(each[0], stages=tuple(s for run in each for s in run.stages))
            baselines |= compare(
                time_s=time_s, energy_j=energy_j, gpu_runs=[whole],
                energy_band_j=(band[0], band[1]))
        return {
            "design": self.design, "scene": self.scene, "frames": frames,
            "cycles": self.cycles, "frame_cycles": [run.cycles for run in self.runs],
            "clock_hz": self.clock.value, "clock_source": self.clock.source,
            "time_s": time_s, "fps": frames / time_s,
            "bytes_read": sum(run.bytes_read for run in self.runs),
            "bytes_written": sum(run.bytes_written for run in self.runs),
            "energy_j": energy_j, "energy_band_j": band,
            "energy": [report.record() for report in self.energies],
            "area_mm2": self.areas.area_mm2, "area_band_mm2": list(self.areas.band_mm2),
            "utilisation": self.utilisation, "useful_share": self.useful,
            "pairs_reached": pairs, "cycles_per_pair": self.cycles / pairs if pairs else None,
            "gaussians_saturated": max(each.gaussians_saturated for each in self.workloads),
            "color_max": float(color.to_float(color.raw_max)),
            "lanes": self.parameters.array.lanes,
            "memory": memory_record(self.timing, [run.dram for run in self.runs]),
            "counters": counters,
            "stages": [{"name": name, "busy": counters[busy], "stall": counters[stall]}
                       for name, busy, stall in _MODELS[self.design].stages],
            "workload": {
                name: sum(int(getattr(workload, name).sum()) for workload in self.workloads)
                for name in ("pairs", "pairs_reached", "records_reached", "evaluations", "live",
                             "significant", "blended", "pixels_stopped")
            },
            "baselines": baselines,
            "gpu": [[run.record() for run in runs] for runs in self.gpus],
        }


def simulate(
    design_name: str,
    design: AcceleratorDesign,
    scene: Scene,
    cameras: Sequence[Camera],
    *,
    scene_name: str = "scene",
    timing: Memory = MemoryTiming(),  # noqa: B008
    background: tuple[float, float, float] = (0.0, 0.0, 0.0),
    clock: Sourced = ASSUMED_CLOCK,
    node_nm: float = 28,
    log: bool = False,
    gpus: Sequence[str] = GPUS,
    table: CostTable | None = None,
    progress: Callable[[int], None] | None = None,
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
    clock : Sourced
        Clock in Hz.
    node_nm : float
        Process node of energy and area.
    gpus : sequence of str
        Baselines, names of :func:`splatforge.sim.gpu.devices`.
    table : CostTable, optional
        Costs of energy and area; the committed tables by default.
    progress : callable, optional
        Called with the number of frames done.

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
    for name in gpus:
        if name not in known:
            raise ValueError(f"GPU must be one of {', '.join(known)}, not {name!r}")
    if not cameras:
        raise ValueError("Cameras must hold at least one view, not 0")
    models = _MODELS[design_name]
    of_dram: dict[str, Any] = {}
    if isinstance(timing, BankedMemory):
        of_dram = {"dram": timing.dram.name, "costs": dram_costs(timing.dram)}
    runs, workloads, energies = [], [], []
    gpu_runs: list[list[GpuRun]] = [[] for _ in gpus]
    for number, camera in enumerate(cameras):
        modeled = models.frame(scene, camera, design, timing, background, log, clock.value, table)
        workload = modeled.workload
        runs.append(modeled.run)
        workloads.append(workload)
        energies.append(energy(modeled.events, node_nm=node_nm, table=table, **of_dram))
        # A GPU walks the 3-sigma list pixel by pixel: its evaluations are the reference's.
        frame = reference.render(scene, camera, background=background, statistics=True)
        if frame.statistics is None:
            raise RuntimeError("The reference must count when asked to")
        work = FrameWork.from_statistics(
            frame.statistics, gaussians=workload.gaussians,
            gaussians_visible=workload.gaussians_visible, sh_degree=workload.sh_degree,
            pixels=camera.width * camera.height)
        for place, name in enumerate(gpus):
            gpu_runs[place].append(gpu_frame(work, known[name]).part(*models.gpu_stages))
        if progress is not None:
            progress(number + 1)
    return Simulation(
        design=design_name, scene=scene_name, parameters=design, timing=timing,
        runs=tuple(runs), workloads=tuple(workloads), clock=clock, energies=tuple(energies),
        areas=area(models.inventory(design), node_nm=node_nm, table=table),
        gpus=tuple(tuple(each) for each in gpu_runs),
    )
