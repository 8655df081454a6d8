"""From the figures of the verbs to a report: parts, shares, points and sources."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from splatforge.report.plots import ratio
from splatforge.report.records import (
    Baseline,
    EnergyPart,
    Machine,
    Report,
    Share,
    Stage,
    SystemClaims,
    TileGrid,
    UnitArea,
    UnitEnergy,
    UnitTrack,
)

__all__ = ["assemble", "cycle_shares", "design_machine", "energy_parts", "gpu_machines"]

#: Bytes of one beat of the bus, and pixel slots that a tile of 16x16 offers to one Gaussian.
_BEAT_BYTES, _TILE_SLOTS = 16, 256
#: Counters, or what a model counts beside them, that exclude each other, and what a cycle of each
#: was spent on; a design without one spends none on it.
_CYCLES = (
    ("projecting", "projecting"),
    ("sorting", "sorting voxels"),
    ("array_busy", "evaluating"),
    ("array_skipped", "skipping splats"),
    ("array_starved", "waiting for splats"),
    ("array_blocked", "waiting for a buffer"),
    ("lockstep", "testing a splat at all pixels"),
    ("remapped", "testing several in passes"),
    ("stalled", "waiting for a queue"),
    ("starved", "waiting for a chunk"),
)
_PARTS = {"arithmetic": "arithmetic", "registers": "registers", "leakage": "leakage",
          "sram": "on-chip memory", "dram": "DRAM"}


def _memory_peak(memory: Mapping[str, Any], clock_hz: float) -> float:
    """Bytes per second that the memory gives and the bus takes."""
    port = _BEAT_BYTES * clock_hz
    if "peak_bytes_per_s" in memory:
        return min(port, memory["peak_bytes_per_s"])
    return port * memory["read_beats_per_cycle"]


def assemble(
    *,
    command: str,
    versions: Mapping[str, str],
    scene: Mapping[str, Any],
    cosim: Mapping[str, Any],
    simulate: Mapping[str, Any],
    design: Mapping[str, Any],
    rendered: npt.NDArray[np.float32],
    reference: npt.NDArray[np.float32],
    tiles: TileGrid | None = None,
    frame: int = 0,
    tracks: Sequence[UnitTrack] = (),
    systems: Sequence[SystemClaims] = (),
) -> Report:
    """Return the report of one co-simulation and one simulation of the same frames.

    Parameters
    ----------
    command, versions, scene, cosim, simulate, design, rendered, reference, tiles, \
    frame, tracks, systems
        As the fields of :class:`Report`; `simulate` also holds ``counters``, ``actions``,
        ``issued``, ``energy``, ``units``, ``workload`` and ``gpu`` as ``splatforge simulate
        --json`` writes them.
    """
    energy, sources = energy_parts(simulate["energy"])
    return Report(
        command=command, versions=versions, scene=scene, cosim=cosim, simulate=simulate,
        design=design, rendered=rendered, reference=reference, tiles=tiles, frame=frame,
        tracks=tracks,
        stages=[Stage(name=stage["name"], busy_cycles=stage["busy"], stall_cycles=stage["stall"])
                for stage in simulate["stages"]],
        breakdown=cycle_shares(simulate), energy=energy,
        sources=sources | {"clock": simulate["clock_source"]},
        unit_energies=_unit_energies(simulate["energy"]),
        unit_areas=[
            UnitArea(unit=name, area_mm2=unit["area_mm2"], low_mm2=unit["area_band_mm2"][0],
                     high_mm2=unit["area_band_mm2"][1])
            for name, unit in simulate["units"].items() if unit["area_mm2"]],
        machines=[*design_machine(simulate), *gpu_machines(simulate)],
        baselines=[
            Baseline(name=name, time_s=each["time_s"], energy_j=each["energy_j"],
                     speedup=each["speedup"], energy_saving=each["energy_saving"],
                     source=_bands(each, simulate["gpu_stages"]))
            for name, each in simulate["baselines"].items()
        ],
        notes=_notes(simulate), systems=systems,
    )


def cycle_shares(simulate: Mapping[str, Any]) -> list[Share]:
    """What the cycles of all frames went into, each counted once."""
    counters = simulate["actions"] | simulate["counters"]
    shares = [Share(name=text, cycles=counters[name]) for name, text in _CYCLES
              if name in counters]
    rest = simulate["cycles"] - sum(share.cycles for share in shares)
    return [*shares, Share(name="start, changes, drain", cycles=rest)]


def energy_parts(reports: Sequence[Mapping[str, Any]]) -> tuple[list[EnergyPart], dict[str, str]]:
    """Parts of the energy of all frames, and events to the source of their cost."""
    events: dict[str, dict[str, None]] = {}
    by_part: dict[str, list[str]] = {}
    for report in reports:
        for row in report["rows"]:
            events.setdefault(row["source"], {})[row["event"]] = None
            texts = by_part.setdefault(row["component"], [])
            if row["source"] not in texts:
                texts.append(row["source"])
    parts = []
    for key, texts in by_part.items():
        entries = [report["components"][key] for report in reports]
        low, high = (sum(entry["energy_band_j"][end] for entry in entries) for end in (0, 1))
        total = sum(entry["energy_j"] for entry in entries)
        parts.append(EnergyPart(
            name=_PARTS.get(key, key), energy_j=total, low_j=min(low, total),
            high_j=max(high, total), source="; ".join(texts)))
    return parts, {f"energy of {', '.join(names)}": source for source, names in events.items()}


def _unit_energies(reports: Sequence[Mapping[str, Any]]) -> list[UnitEnergy]:
    """Energy of every unit by kind, of all frames."""
    sums: dict[tuple[str, str], float] = {}
    for report in reports:
        for row in report["rows"]:
            key = row["unit"], _PARTS.get(row["component"]) or row["component"]
            sums[key] = sums.get(key, 0.0) + row["energy_j"]
    return [UnitEnergy(unit=unit, kind=kind, energy_j=energy_j)
            for (unit, kind), energy_j in sums.items()]


def design_machine(simulate: Mapping[str, Any], name: str = "") -> list[Machine]:
    """The point of the array under its name; none where nothing was evaluated."""
    clock, lanes = simulate["clock_hz"], simulate["lanes"]
    issued = simulate["issued"] * lanes
    return [] if not issued else [Machine(
        name=f"{name or simulate['design']}, {lanes} lanes",
        peak_evaluations_per_s=lanes * clock,
        peak_bytes_per_s=_memory_peak(simulate["memory"], clock),
        evaluations_per_byte=issued / simulate["bytes_read"],
        evaluations_per_s=issued / simulate["time_s"],
        source="one evaluation per lane and cycle; bytes and roof of the read channel",
    )]


def gpu_machines(simulate: Mapping[str, Any]) -> list[Machine]:
    """The rasterizing stage of every GPU, in evaluations instead of floating-point operations."""
    machines = []
    slots = _TILE_SLOTS * simulate["workload"]["pairs_reached"]
    for runs in simulate["gpu"]:
        stages = [stage for run in runs for stage in run["stages"] if stage["name"] == "rasterize"]
        flop, traffic, time_s = (
            sum(stage[key] for stage in stages) for key in ("flop", "bytes", "time_s"))
        if not (slots and flop and traffic and time_s):
            continue
        machines.append(Machine(
            name=runs[0]["device"],
            peak_evaluations_per_s=runs[0]["peak_flop_per_s"] * slots / flop,
            peak_bytes_per_s=runs[0]["bandwidth_bytes_per_s"],
            evaluations_per_byte=slots / traffic, evaluations_per_s=slots / time_s,
            source="rasterization alone, every pixel of a tile while the tile lasts",
        ))
    return machines


def _bands(baseline: Mapping[str, Any], stages: Sequence[str]) -> str:
    low, high = baseline["speedup_band"]
    least, most = baseline["energy_saving_band"]
    how = f"roofline of {', '.join(stages)}"
    if "cycles" in baseline:
        how = (f"cycle model, {baseline['cycles']:,} cycles behind the same memory at "
               f"{baseline['clock_hz'] / 1e6:.4g} MHz, {baseline['area_mm2']:.2g} mm²")
    return (f"{how}; speedup {ratio(low)} to {ratio(high)}, "
            f"saving {ratio(least)} to {ratio(most)}")


def _notes(simulate: Mapping[str, Any]) -> list[str]:
    missing = dict.fromkeys(
        text for report in simulate["energy"] for text in report["not_modelled"])
    assumed, warning = simulate["assumed"], simulate.get("clock_warning")
    return [
        f"Clock: {simulate['clock_source']}.",
        *([f"Beware: {warning}."] if warning else []),
        (f"At {assumed['clock_hz'] / 1e6:g} MHz, {assumed['clock_source']}: "
         + (f"{assumed['note']}." if assumed["time_s"] is None else
            f"{assumed['fps']:.4g} frames per second.")),
        (f"Of the evaluations that the array issued, {simulate['useful_share']:.1%} were of a live "
         "pixel with alpha of at least 1/255."),
        f"The energy leaves out: {'; '.join(missing)}.",
    ]
