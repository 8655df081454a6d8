"""GSCore on captures: what its techniques are worth, how much faster it is, what its parts take.

``gscore_runs.json`` holds what the cycle model counted with and without each technique, behind the
published memory, whose timing is in ns: at a clock that synthesis of our units supports, and with
all techniques also at the 1 GHz that the paper assumes. Figures are of the former; that of the
latter is named in their source. The captures are not shipped: where they are at hand,
``python -m splatforge.claims.techniques FOLDER`` runs them anew, and a test compares. Times,
energies and ratios are worked out from the counts.
"""

import json
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import cache, reduce
from importlib.resources import files
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from splatforge.algos import gscore
from splatforge.algos.ccu import ccu_schedule
from splatforge.claims.frames import RECIPES, workload
from splatforge.claims.mean import over_scenes
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.gscore import PRESETS, PUBLISHED, PUBLISHED_MEMORY
from splatforge.designs.memory import BankedMemory
from splatforge.scenes import load
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import Sourced, default_costs
from splatforge.sim.dram import DramCounts
from splatforge.sim.dram_energy import dram_costs
from splatforge.sim.energy import EnergyReport, energy_of_units
from splatforge.sim.gpu import GpuRun, devices, gpu_frame
from splatforge.sim.gscore import simulate
from splatforge.sim.parts import gscore_events, gscore_inventory, gscore_parts
from splatforge.sim.run import Run
from splatforge.sim.simulate import ASSUMED_CLOCK

__all__ = ["CLOCK_HZ", "FRAMES", "VARIANTS", "at_clock", "chip_area", "chip_power", "count",
           "count_all", "counts_of", "energy_saving", "gain", "gain_beyond", "latency",
           "memory_bytes", "memory_power", "memory_share", "runs", "speedup",
           "stages", "unit_area", "unit_power"]

_COUNTED = "counted by the cycle model"
#: Presets of variants that have none of their name.
_PRESET = {"assumed": "published"}
_TABLE = Path(str(files("splatforge.claims"))) / "gscore_runs.json"
#: What synthesis of GSCore's and of StreamingGS's units supports at 28 nm and at 32 nm, rounded
#: down: runs are counted at it.
CLOCK_HZ = 700e6
#: Frames of :data:`splatforge.claims.frames.RECIPES` that are run.
FRAMES = tuple(name for name in RECIPES if name.endswith("_800x800"))
#: With both techniques, without one of them, without both; with both at the clock that is assumed.
VARIANTS = ("published", "aabb", "whole-tiles", "aabb-whole-tiles", "assumed")


def count(name: str, variant: str, folder: Path) -> dict[str, Any]:
    """What the cycle model counts of a frame with a preset of GSCore.

    Parameters
    ----------
    name, variant : str
        Of :data:`FRAMES` and :data:`VARIANTS`.
    folder : Path
        Where the captures are.
    """
    recipe, design = RECIPES[name], PRESETS[_PRESET.get(variant, variant)]
    clock_hz = ASSUMED_CLOCK.value if variant == "assumed" else CLOCK_HZ
    scene = load(*(folder / file for file in recipe.captures))
    workload = gscore.render(
        gscore.prepare(scene, recipe.camera(scene), design), design).workload
    memory = BankedMemory(dram=DRAMS[PUBLISHED_MEMORY], clock_hz=clock_hz)
    run = simulate(workload, design, memory)
    assert run.dram is not None  # it is banked
    return {
        "clock_hz": clock_hz, "pixels": recipe.width * recipe.height,
        "walked": int(workload.ccu.walked.sum()),
        "significant": int(workload.array.significant.sum()),
        "counters": dict(run.counters), "actions": dict(run.actions), "dram": asdict(run.dram)}


@cache
def runs() -> dict[str, dict[str, dict[str, Any]]]:
    """Counts by frame and variant, as they are committed."""
    return json.loads(_TABLE.read_text("utf-8"))


def counts_of(
    table: Mapping[str, Mapping[str, dict[str, Any]]], name: str, variant: str
) -> dict[str, Any]:
    """What was counted of a frame.

    Raises
    ------
    ValueError
        If the frame or the variant is not in the table.
    """
    if name not in table:
        raise ValueError(f"Frame must be one of {', '.join(table)}, not {name!r}")
    if variant not in table[name]:
        raise ValueError(f"Variant must be one of {', '.join(table[name])}, not {variant!r}")
    return table[name][variant]


def _counts(name: str, variant: str) -> dict[str, Any]:
    return counts_of(runs(), name, variant)


def _cycles(name: str, variant: str) -> int:
    return _counts(name, variant)["counters"]["cycles"]


def _seconds(name: str, variant: str) -> Sourced:
    counted = _counts(name, variant)
    return Sourced.exact(counted["counters"]["cycles"] / counted["clock_hz"], "s",
                         f"{_COUNTED} at {counted['clock_hz'] / 1e6:g} MHz")


def at_clock(figure: Callable[[str], Sourced]) -> Sourced:
    """A figure of variant ``published``; that of ``assumed`` stands in its source."""
    ours, assumed = figure("published"), figure("assumed")
    return replace(ours, source=(
        f"{ours.source}; {CLOCK_HZ / 1e6:g} MHz are what synthesis of our units supports, rounded "
        f"down; at the {ASSUMED_CLOCK.value / 1e6:g} MHz that the paper assumes: {assumed}"))


@cache
def _energy(name: str, node_nm: float, variant: str = "published") -> EnergyReport:
    """Energy of a frame with the published configuration, by unit."""
    counts = _counts(name, variant)
    run = Run.of(PUBLISHED, counts["counters"], np.zeros(0, np.int64), actions=counts["actions"],
                 dram=DramCounts(**counts["dram"]))
    events = gscore_events(
        PUBLISHED, run, pixels=counts["pixels"], significant=counts["significant"],
        walked=counts["walked"], clock_hz=counts["clock_hz"], table=default_costs())
    dram = DRAMS[PUBLISHED_MEMORY]
    return energy_of_units(events, node_nm=node_nm, dram=dram.name, costs=dram_costs(dram))


def gain(without: str, to: str, frames: Sequence[str]) -> Sourced:
    """Cycles of one variant over those of another: a speedup.

    Parameters
    ----------
    without, to : str
        Of :data:`VARIANTS`: what is slower, and what is faster by techniques that it has.
    frames : sequence of str
        Of :data:`FRAMES`.
    """
    return over_scenes(frames, lambda name: Sourced.exact(
        _cycles(name, without) / _cycles(name, to), "1", _COUNTED))


def gain_beyond(without: str, to: str, frames: Sequence[str]) -> Sourced:
    """The same, less one: by what share it is faster."""
    ratio = gain(without, to, frames)
    scatter = ratio.scatter and (ratio.scatter[0] - 1, ratio.scatter[1] - 1)
    return Sourced(ratio.value - 1, "1", ratio.source, max(0.0, ratio.low - 1), ratio.high - 1,
                   scatter=scatter)


def _gpu(device: str, name: str) -> GpuRun:
    known = devices()
    if device not in known:
        raise ValueError(f"GPU must be one of {', '.join(known)}, not {device!r}")
    return gpu_frame(workload(name), known[device])


def speedup(device: str, frames: Sequence[str]) -> Sourced:
    """Whole frames of a GPU over those of the published configuration."""
    return at_clock(lambda variant: over_scenes(frames, lambda name: (
        _gpu(device, name).time / _seconds(name, variant)).to("1")))


def energy_saving(device: str, frames: Sequence[str], node_nm: float) -> Sourced:
    """Energy of whole frames of a GPU over ours, DRAM on both sides."""
    def figure(name: str, variant: str) -> Sourced:
        report = _energy(name, node_nm, variant)
        ours = Sourced(report.energy_j, "J", _COUNTED, *report.band_j)
        return (_gpu(device, name).energy / ours).to("1")
    return at_clock(lambda variant: over_scenes(frames, lambda name: figure(name, variant)))


def _is_memory(item: str) -> bool:
    return item.startswith("sram_")


def unit_area(unit: str, parts: int, node_nm: float) -> Sourced:
    """Cell area in mm^2 of a unit of ours without its macros, or of one of so many equal parts.

    Parameters
    ----------
    unit : str
        ``ccu``, ``lists``, ``qsu``, ``bsu`` or ``vru``.
    parts : int
        How many of theirs it stands for.
    node_nm : float
        Process node, 7 to 130.
    """
    inventory = gscore_inventory(PUBLISHED, default_costs())
    if unit not in gscore_parts(PUBLISHED):
        raise ValueError(f"Unit must be one of {', '.join(gscore_parts(PUBLISHED))}, not {unit!r}")
    items = {item: count for item, count in inventory[unit].items() if not _is_memory(item)}
    rows = area_of_units({unit: items}, node_nm=node_nm).units[unit]
    return rows * (1 / parts)


def chip_area(node_nm: float) -> Sourced:
    """Area in mm^2 of all units with their macros."""
    return reduce(add, area_of_units(
        gscore_inventory(PUBLISHED, default_costs()), node_nm=node_nm).units.values())


def memory_share(node_nm: float) -> Sourced:
    """Share of the macros in the area of all units."""
    inventory = gscore_inventory(PUBLISHED, default_costs())
    macros, cells = (reduce(add, area_of_units({
        unit: {item: count for item, count in items.items() if _is_memory(item) == of_memory}
        for unit, items in inventory.items()}, node_nm=node_nm).units.values())
        for of_memory in (True, False))

    def of(mine: float, theirs: float) -> float:
        return mine / (mine + theirs)
    return Sourced(of(macros.value, cells.value), "1", "our units with their memories",
                   of(macros.low, cells.high), of(macros.high, cells.low),
                   macros.points | cells.points)


def memory_bytes() -> Sourced:
    """Bytes of all memories of the published configuration that are not flip-flops."""
    bits = sum(macro.words * macro.bits for part in gscore_parts(PUBLISHED).values()
               for macro in part.memories.values())
    return Sourced.exact(bits / 8, "B", "our memories")


def _power(frames: Sequence[str], node_nm: float, keep: Callable[[str, str], bool]) -> Sourced:
    """Mean power in W of some events (unit, event) of frames."""
    def figure(name: str, variant: str) -> Sourced:
        rows = [row for row in _energy(name, node_nm, variant).rows if keep(row.unit, row.event)]
        return (reduce(add, (row.energy for row in rows)) / _seconds(name, variant)).to("W")
    return at_clock(lambda variant: over_scenes(frames, lambda name: figure(name, variant)))


def unit_power(unit: str, parts: int, node_nm: float, frames: Sequence[str]) -> Sourced:
    """Power in W of a unit of ours without its macros, or of one of so many equal parts."""
    if unit not in gscore_parts(PUBLISHED):
        raise ValueError(f"Unit must be one of {', '.join(gscore_parts(PUBLISHED))}, not {unit!r}")
    return _power(frames, node_nm, lambda of, event: of == unit and not _is_memory(event)) * (
        1 / parts)


def memory_power(node_nm: float, frames: Sequence[str]) -> Sourced:
    """Power in W of all macros: accesses, and what they leak."""
    return _power(frames, node_nm, lambda _, event: _is_memory(event))


def chip_power(node_nm: float, frames: Sequence[str]) -> Sourced:
    """Power in W of all units, DRAM apart."""
    return _power(frames, node_nm, lambda unit, _: unit != "memory")


def latency() -> Sourced:
    """Cycles from a Gaussian's first beat to its results in our culling and conversion."""
    return Sourced.exact(ccu_schedule(PUBLISHED.ccu).finish, "1", "our schedule")


def stages() -> Sourced:
    """Stages of the network of one of our sorters."""
    return Sourced.exact(PUBLISHED.bsu.stages, "1", "our network")


def _counted(job: tuple[str, str, Path]) -> dict[str, Any]:
    return count(*job)


def count_all(folder: Path) -> str:
    """JSON text of all runs, of the captures in a folder."""
    jobs = [(name, variant, folder) for name in FRAMES for variant in VARIANTS]
    runs: dict[str, dict[str, Any]] = {name: {} for name in FRAMES}
    with ProcessPoolExecutor() as pool:
        for (name, variant, _), counted in zip(jobs, pool.map(_counted, jobs), strict=True):
            runs[name][variant] = counted
            print(f"{name} {variant}: {counted['counters']['cycles']:,} cycles", file=sys.stderr)
    return json.dumps(runs, indent=1) + "\n"


if __name__ == "__main__":
    with atomic_file(_TABLE) as file:
        file.write(count_all(Path(sys.argv[1])).encode())
