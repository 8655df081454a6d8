"""Energy per action of the accelerators' units, and the cost tables that hold it.

An action is what a unit is there for: an evaluation issued to a lane, a splat fetched, a pixel
written. What moves with the data is shared out over the actions of a whole frame, tile by tile;
what the clock costs is kept apart, per flip-flop and cycle, and leakage per time.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from splatforge.designs.raster import RasterDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import AcceleratorDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.synth.activity import Circuit, simulate_activity
from splatforge.synth.energy import CLOCK_PARTS, PARTS, ModuleEnergy, module_energies
from splatforge.synth.liberty import Liberty
from splatforge.synth.library import Library
from splatforge.synth.netlist import gate_level
from splatforge.synth.parts import rtl_digests, rtl_table
from splatforge.verification.lib.ports import OwnRecording, PortTrace, Recording

__all__ = ["ACTIONS", "FALLOFF_ACTIONS", "OWN_ACTIONS", "WINDOWS", "Block", "Measurement",
           "cost_table", "measure", "measure_own_units"]

#: Block of a unit -> what it does, best described first; a block is a module of a netlist.
ACTIONS = {
    "alpha": ("evaluation", "significant"), "blend": ("evaluation", "significant"),
    "array": ("block",), "fetch": ("splat",), "resolve": ("pixel",), "registers": (),
}
#: The same where exponentials are looked up: alpha's lanes, and what the lanes of the array share.
FALLOFF_ACTIONS = {"falloff": ("evaluation", "significant"), "falloffarray": ("block",)}
#: What those blocks are in place of.
_OF_FALLOFF = {"alpha": "falloff", "array": "falloffarray"}
#: Unit that one accelerator has for itself -> action -> ports whose product is how often it happens
#: in a cycle, or a port's bit and what it must be; and others to be added. They are the counts of
#: :mod:`splatforge.sim.parts`. What took nothing beside another action is none: misses beside the
#: entries of `vru`, voxels beside the Gaussians of `cfu`, tiles of `nru`. A voxel's visits in the
#: passes that sort it are part of the action, since nearly all are seen. A product of no ports is
#: every cycle: the stages of `cfu` always move, and what chooses operands in the arithmetic of
#: `vsu`.
OWN_ACTIONS: dict[str, dict[str, tuple[tuple[str | tuple[str, int, int], ...], ...]]] = {
    "bsu": {"entry": (("entries",),), "row": (("busy",),)},
    "ccu": {"gaussian": (("projected",),), "pair": (("pair",),)},
    # Of a tile's list, or of one of a bucket's, which are the ones behind them.
    "lists": {"pair": (("i_entry__valid", "i_entry__ready", ("i_entry__payload", 12, 0)),),
              "bucketed": (("i_entry__valid", "i_entry__ready", ("i_entry__payload", 12, 1)),)},
    "qsu": {"entry": (("o_entry__valid", "o_entry__ready"),),
            "tile": (("o_tile__valid", "o_tile__ready"),)},
    "vru": {"entry": (("hit",), ("miss",))},
    "cfu": {"gaussian": (("given",),), "cycle": ((),)},
    "ffu": {"gaussian": (("projected",),)},
    "setup": {"splat": (("o_splat__valid", "o_splat__ready"),)},
    "vsort": {"row": (("busy",),)},
    "vsu": {"voxel": (("streamed",),), "row": (("busy",),), "cycle": ((),)},
    "tilelists": {"tile": (("o_tile__valid", "o_tile__ready"),),
                  "beat": (("list_beat",),)},
    "nru": {"lockstep": (("lockstep",),), "remapped": (("remapped",),)},
    # A pixel that was looked up, or a tile's end; a beat of a bank. To load one is next to nothing.
    "radiance": {"walked": (("i_walk__valid", "i_walk__ready"),),
                 "saved": (("o_write_data__valid", "o_write_data__ready"),), "cycle": ((),)},
}
#: Stretches of a frame, all as long, over which the energies of those are shared out.
WINDOWS = 64
#: Cycles behind reset in which a unit gets ready, and those kept in front of its first action.
START, LEAD = 6000, 200
#: A unit that takes longer: codebooks are read.
STARTS = {"ffu": 27_000}
#: What the table's bounds are made of. Lower: internal energies may be half of what is worked out.
#: Upper: they may be twice that; wires double the energy of nets; glitches double the logic; the
#: tree doubles what the clock pins take.
INTERNAL, WIRES, GLITCHES, TREE = 2.0, 2.0, 2.0, 2.0
_INTERVAL = (
    "low: internal energies halved; high: internal energies doubled (OpenSTA of 2019 against ours "
    "on one netlist: 2), nets doubled for wires (Magen et al., Interconnect-power dissipation in a "
    "microprocessor, SLIP 2004: half of dynamic power at 130 nm), logic doubled for glitches "
    "(Shah, Glitch analysis and reduction in digital circuits, IJVDCS 7(4), 2016: 20 to 70 % of "
    "power, so 1.25 to 3.3 times), clock pins doubled for the tree (as the wires)")


@dataclass(frozen=True, kw_only=True, eq=False)
class Block:
    """A block of the core: the lanes' alpha or blend part, the rest of the array, another unit.

    Parameters
    ----------
    name : str
        One of :data:`ACTIONS` or :data:`FALLOFF_ACTIONS`, or a unit.
    instances, cells, flip_flops : int
        How often the core has it, and what all of them hold.
    cycles : int
        Cycles counted in.
    clock_fj : mapping
        Part -> energy of one flip-flop in one cycle, in fJ.
    actions_fj : mapping
        Action -> part -> energy of one action in fJ; of a block without actions, ``cycle``.
    leakage_nw : float
        Of all instances, in nW.
    counts : mapping
        Action -> how often it happened in the frame.
    prediction_error : float
        Energy of the frame's second half by what the first half says of an action, relative to
        what it was; the clock is not in it. Of a unit with an action in the second half alone,
        energy of every other stretch by those between.
    """

    name: str
    instances: int
    cells: int
    flip_flops: int
    cycles: int
    clock_fj: Mapping[str, float]
    actions_fj: Mapping[str, Mapping[str, float]]
    leakage_nw: float
    counts: Mapping[str, int]
    prediction_error: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Measurement:
    """A frame at gate level in one library.

    Parameters
    ----------
    library : Library
        The cells.
    supply_v : float
        Their supply.
    scene : str
        What was drawn.
    cycles_compared, output_bits : mapping
        Unit -> cycles in which its outputs were compared with the RTL's, and how many bits.
    activity : mapping
        Unit -> mean toggles of a cell's output in a cycle.
    blocks : tuple of Block
        The blocks.
    """

    library: Library
    supply_v: float
    scene: str
    cycles_compared: Mapping[str, int]
    output_bits: Mapping[str, int]
    activity: Mapping[str, float]
    blocks: tuple[Block, ...]

    @property
    def cycles(self) -> int:
        """Cycles counted in, of the block that has the most."""
        return max(block.cycles for block in self.blocks)

    def beside(self, other: "Measurement") -> "Measurement":
        """These blocks and those of another measurement, of the same frame and library."""
        return replace(
            self, cycles_compared={**self.cycles_compared, **other.cycles_compared},
            output_bits={**self.output_bits, **other.output_bits},
            activity={**self.activity, **other.activity}, blocks=(*self.blocks, *other.blocks))

    def to_json(self) -> dict[str, object]:
        """The figures of ``splatforge energy --json``."""
        return {
            "library": self.library.name, "node_nm": self.library.node_nm,
            "supply_v": self.supply_v, "scene": self.scene, "cycles": self.cycles,
            "cycles_compared": dict(self.cycles_compared), "activity": dict(self.activity),
            "blocks": {block.name: {
                "instances": block.instances, "cells": block.cells,
                "flip_flops": block.flip_flops, "cycles": block.cycles,
                "leakage_nw": block.leakage_nw,
                "clock_fj_per_flip_flop_cycle": dict(block.clock_fj),
                "actions_fj": {name: dict(parts) for name, parts in block.actions_fj.items()},
                "counts": dict(block.counts), "prediction_error": block.prediction_error,
            } for block in self.blocks},
        }


def _block_of(unit: str, module: str) -> str:
    """Block that a module of a unit's netlist belongs to."""
    for name in ("alpha", "blend"):
        if unit == "array" and f".{name}.lane" in module:
            return name
    return unit


def _window_counts(
    recording: Recording, design: AcceleratorDesign, windows: Sequence[tuple[int, int]]
) -> dict[str, npt.NDArray[np.int64]]:
    """How often each action happened in each tile's window, from the recorded ports."""
    def per_window(events: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        return np.array([events[first:last].sum() for first, last in windows], np.int64)

    busy = per_window(recording.traces["array"].values("busy"))
    significant = recording.workload.significant[:len(windows)]
    counts = {
        **{f"{block}_{action}": count for block in ("alpha", "falloff", "blend")
           for action, count in (("evaluation", busy * design.array.lanes),
                                 ("significant", significant))},
        "array_block": busy, "falloffarray_block": busy}
    if "fetch" not in recording.traces:
        return counts
    fetch, resolve = (recording.traces[unit] for unit in ("fetch", "resolve"))
    splats = fetch.values("i_beat__valid") & (fetch.values("i_beat__payload", 0, 2) == 2)
    # Strobes follow the data of a beat.
    strobes = resolve.values("o_data__payload", design.shell.data_bits, design.shell.data_bytes)
    written = resolve.values("o_data__valid") & resolve.values("o_data__ready")
    written *= np.bitwise_count(strobes.astype(np.uint64)).astype(np.int64)
    return {**counts, "fetch_splat": per_window(splats),
            "resolve_pixel": per_window(written) // PixelFormat.RGBA8.size_bytes}


def _share_out(
    energy_fj: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Energy of one of each action, by least squares, none below zero, the total kept.

    Parameters
    ----------
    energy_fj : ndarray
        Of each window, of shape [windows].
    counts : ndarray
        Of each action in it, of shape [windows, actions].
    """
    used = list(range(counts.shape[1]))
    found = np.zeros(counts.shape[1])
    while used:
        part = np.linalg.lstsq(counts[:, used], energy_fj, rcond=None)[0]
        if (part >= 0).all() or len(used) == 1:
            found[used] = np.maximum(part, 0)
            break
        used.pop(int(np.argmin(part)))
    whole = float((counts @ found).sum())
    return found * (energy_fj.sum() / whole) if whole else found


def _own_counts(
    trace: PortTrace, windows: Sequence[tuple[int, int]]
) -> dict[str, npt.NDArray[np.int64]]:
    """How often each action of a unit happened in each window, from its ports."""
    return {f"{trace.unit}_{action}": np.array(
        [events[first:last].sum() for first, last in windows], np.int64)
        for action, events in _own_events(trace).items()}


def _stretch(
    trace: PortTrace, windows: int, cycles: int | None
) -> tuple[PortTrace, tuple[tuple[int, int], ...]]:
    """What of a unit's trace is simulated, and equal windows in it.

    All of it, or so many cycles around the first action. What lies between the start and that, in
    which a unit of a later pass stands still, is left out.
    """
    first, end, start = 1, trace.cycles, STARTS.get(trace.unit, START)
    if cycles is not None and end > start + cycles:
        events = np.add.reduce([each for each in _own_events(trace).values() if not each.all()])
        begin = max(0, int(np.argmax(events > 0)) - LEAD)
        if begin > start:
            trace, begin = trace.without(start, begin), start
        first, end = max(1, begin), start + cycles
    length = (end - first) // windows
    if length < 1:
        raise ValueError(f"Trace must have more than {windows} cycles, not {end - first}")
    return trace, tuple(
        (first + k * length, first + (k + 1) * length) for k in range(windows))


def _own_events(trace: PortTrace) -> dict[str, npt.NDArray[np.int64]]:
    """How often each action of a unit happened in each cycle, from its ports."""
    def factor(port: str | tuple[str, int, int]) -> npt.NDArray[np.int64]:
        if isinstance(port, str):
            return trace.values(port)
        name, bit, value = port
        return (trace.values(name, bit, 1) == value).astype(np.int64)

    every = np.ones(trace.cycles, np.int64)
    return {action: np.sum([np.prod([every, *(factor(port) for port in ports)], axis=0)
                            for ports in terms], axis=0)
            for action, terms in OWN_ACTIONS[trace.unit].items()}


def _prediction_error(
    energy_fj: npt.NDArray[np.float64], counts: npt.NDArray[np.float64]
) -> float:
    """What the first half of the windows says of the second, relative to what it was.

    Windows in which the unit had nothing to do are left out: it works in one pass of a frame only.
    Where an action is one of the second half alone, every other window predicts those between.
    """
    active = counts.any(axis=1)
    energy_fj, counts = energy_fj[active], counts[active]
    known = np.arange(len(counts)) < len(counts) // 2
    if (counts[~known].any(axis=0) & ~counts[known].any(axis=0)).any():
        known = np.arange(len(counts)) % 2 == 0
    predicted = counts[~known] @ _share_out(energy_fj[known], counts[known])
    return float(abs(predicted.sum() / energy_fj[~known].sum() - 1))


def _block(
    name: str, energies: Sequence[ModuleEnergy], counts: Mapping[str, npt.NDArray[np.int64]],
    cycles: npt.NDArray[np.float64], names: Sequence[str] | None = None,
) -> Block:
    """A block from the energies of its modules; `names` are its actions, if it is of own units."""
    flip_flops = sum(each.flip_flops for each in energies)
    parts = {part: sum((each.parts_fj[part] for each in energies), np.zeros(len(cycles)))
             for part in PARTS}
    verbs = (ACTIONS | FALLOFF_ACTIONS)[name] if names is None else tuple(names)
    actions = verbs or ("cycle",)
    columns = np.stack([counts[f"{name}_{action}"] if action != "cycle" else cycles
                        for action in actions], axis=1).astype(np.float64)
    data = {part: parts[part] for part in PARTS if part not in CLOCK_PARTS}
    total = sum(data.values(), np.zeros(len(cycles)))
    per_action = _share_out(total, columns)
    # The parts of an action are as the parts of the windows, weighted by how much of it they hold.
    shares = dict[str, dict[str, float]]()
    for number, action in enumerate(actions):
        alone = {part: float(_share_out(each, columns)[number]) for part, each in data.items()}
        whole = sum(alone.values())
        shares[action] = {part: float(per_action[number]) * value / whole if whole else 0.0
                          for part, value in alone.items()}
    return Block(
        name=name, instances=sum(each.instances for each in energies),
        cells=sum(each.cells for each in energies), flip_flops=flip_flops,
        cycles=int(cycles.sum()),
        clock_fj={part: float(parts[part].sum() / cycles.sum() / flip_flops)
                  for part in CLOCK_PARTS},
        actions_fj=shares, leakage_nw=sum(each.leakage_nw for each in energies),
        counts={action: int(columns[:, number].sum()) for number, action in enumerate(actions)},
        prediction_error=_prediction_error(total, columns))


def measure(
    design: RasterDesign | VoyagerDesign, library: Library, recording: Recording, *,
    scene: str = "", cycles: int | None = None, cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Measurement:
    """Map the recorded units of a core to a library, replay the frame, work out energies.

    Parameters
    ----------
    design : RasterDesign or VoyagerDesign
        The core, as it was recorded.
    library : Library
        The cells.
    recording : Recording
        A frame, see :func:`splatforge.verification.lib.ports.record_frame`.
    scene : str
        What was drawn.
    cycles : int, optional
        Of Voyager's array so many are simulated from the first tile on; all by default.
    cache : Path, optional
        Cache folder of the netlists.
    progress : callable, optional
        Called with the unit, how many are done and their number.

    Raises
    ------
    ValueError
        If a netlist does not give the RTL's outputs, or the frame has fewer than four tiles.
    SynthesisError
        If Yosys fails.
    """
    if isinstance(design, VoyagerDesign):
        recording = recording.of_array(cycles)
    windows = recording.tile_windows()
    if len(windows) < 4:
        raise ValueError(f"Frame must have at least five tiles, not {len(windows) + 1}")
    liberty = Liberty(library.paths)
    counts = _window_counts(recording, design, windows)
    lengths = np.array([last - first for first, last in windows], np.float64)
    modules = dict[str, list[ModuleEnergy]]()
    compared, bits, activities = dict[str, int](), dict[str, int](), dict[str, float]()
    units = tuple(recording.traces)
    called = _OF_FALLOFF if isinstance(design, VoyagerDesign) else {}
    for number, unit in enumerate(units):
        if progress is not None:
            progress(unit, number, len(units))
        netlist = gate_level(unit, design, library, banks=False, cache=cache).netlist
        activity = simulate_activity(
            Circuit(netlist, unit, liberty), recording.traces[unit], windows)
        compared[unit], bits[unit] = activity.cycles_compared, activity.output_bits
        activities[unit] = activity.factor
        for module, energy in module_energies(activity, liberty).items():
            block = _block_of(unit, module)
            modules.setdefault(called.get(block, block), []).append(energy)
    if progress is not None:
        progress("done", len(units), len(units))
    return Measurement(
        library=library, supply_v=liberty.supply_v, scene=scene,
        cycles_compared=compared, output_bits=bits, activity=activities,
        blocks=tuple(_block(name, modules[name], counts, lengths)
                     for name in (ACTIONS | FALLOFF_ACTIONS) if name in modules))


def measure_own_units(
    design: AcceleratorDesign, library: Library, recording: OwnRecording, *, scene: str = "",
    windows: int = WINDOWS, cycles: int | None = None, cache: Path | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Measurement:
    """As :func:`measure`, of units that one accelerator has for itself.

    Memories that are macros are no part of it, those in banks neither.

    Parameters
    ----------
    design : AcceleratorDesign
        The accelerator, as it was recorded.
    library : Library
        The cells.
    recording : OwnRecording
        A frame, see :func:`splatforge.verification.lib.ports.record_own_units`; all units in it
        are measured.
    scene : str
        What was drawn.
    windows : int
        Stretches of the frame over which energies are shared out.
    cycles : int, optional
        So many of each unit are simulated from its first action on, behind its start; all of the
        frame by default, minutes for a unit of 100,000 cells.
    cache, progress
        As in :func:`measure`.

    Raises
    ------
    ValueError
        If a netlist does not give the RTL's outputs, or no action happens in a frame.
    SynthesisError
        If Yosys fails.
    """
    liberty = Liberty(library.paths)
    compared, bits, activities = dict[str, int](), dict[str, int](), dict[str, float]()
    blocks = []
    for number, (unit, whole) in enumerate(recording.traces.items()):
        if progress is not None:
            progress(unit, number, len(recording.traces))
        trace, spans = _stretch(whole, windows, cycles)
        counts = _own_counts(trace, spans)
        if not sum(each.sum() for each in counts.values()):
            raise ValueError(f"Frame must hold an action of {unit}")
        netlist = gate_level(unit, design, library, cache=cache).netlist
        activity = simulate_activity(Circuit(netlist, unit, liberty), trace, spans)
        compared[unit], bits[unit] = activity.cycles_compared, activity.output_bits
        activities[unit] = activity.factor
        lengths = np.array([last - first for first, last in spans], np.float64)
        blocks.append(_block(
            unit, list(module_energies(activity, liberty).values()), counts, lengths,
            tuple(OWN_ACTIONS[unit])))
    if progress is not None:
        progress("done", len(recording.traces), len(recording.traces))
    return Measurement(
        library=library, supply_v=liberty.supply_v, scene=scene,
        cycles_compared=compared, output_bits=bits, activity=activities, blocks=tuple(blocks))


def _bounds(parts: Mapping[str, float]) -> tuple[float, float]:
    """Interval of an energy from its parts; see `_INTERVAL`."""
    low = high = 0.0
    for part, value in parts.items():
        internal = part in ("combinational", "flip_flop_data", "flip_flop_clock")
        low += value / INTERNAL if internal else value
        glitches = GLITCHES if part in ("combinational", "nets") else 1.0
        match part:
            case "nets":
                more = WIRES
            case "clock_pins":
                more = TREE
            case _:
                more = INTERNAL
        high += value * more * glitches
    return min(low, high), max(low, high)


def cost_table(measurement: Measurement, design: AcceleratorDesign, command: str) -> str:
    """The measurement as a cost table (TOML) for :mod:`splatforge.sim.costs`.

    Parameters
    ----------
    measurement : Measurement
        What was measured.
    design : RasterDesign
        Of what.
    command : str
        How to make the table again, for its head.
    """
    library = measurement.library
    lanes = design.array.lanes
    lines = [
        f"# Energy per action of the {design.name} core in {library.title} ({library.licence}).",
        f"# Made by: {command}",
        "# Pre-layout, zero delay: no wires, no glitches, no clock tree above the flip-flops; SRAM",
        "# apart. Outputs of all netlists were those of the RTL in every cycle.",
        "# <block>.flip_flops and .instances: of the whole core. <block>.<action>: of the data.",
        "# <block>.flip_flop_cycle: clock, one flip-flop, one cycle. <block>.leakage: one us, all.",
        "# rtl: digests of the RTL that was measured; a test compares them with what it is now.",
        "",
        *rtl_table(design, rtl_digests(design, measurement.cycles_compared)),
    ]

    def entry(
        block: Block, what: str, value: float, unit: str, low: float, high: float, note: str, *,
        interval: str = "",
    ) -> None:
        source = (f"gate-level simulation of this RTL ({lanes} lanes) in {library.title}, "
                  f"{block.cycles} cycles of a frame of {measurement.scene}")
        lines.extend([
            f"[measured.{library.name}.{block.name}.{what}]",
            f"value = {value:.4g}", f'unit = "{unit}"',
            f"low = {min(low, float(f'{value:.4g}')):.4g}",
            f"high = {max(high, float(f'{value:.4g}')):.4g}",
            f"node_nm = {library.node_nm:g}", f"supply_v = {measurement.supply_v:g}",
            'kind = "measured"', 'confidence = "medium"', f'source = "{source}"'])
        lines.extend([f'interval = "{interval}"'] if interval else [])
        lines.extend([f'note = "{note}"', ""])

    for block in measurement.blocks:
        for what in ("instances", "flip_flops", "cells"):
            number = getattr(block, what)
            entry(block, what, number, "1", number, number, f"{what} of the core")
        for action, parts in (*block.actions_fj.items(), ("flip_flop_cycle", block.clock_fj)):
            total = sum(parts.values())
            low, high = _bounds(parts)
            split = ", ".join(f"{part.replace('_', ' ')} {value:.3g}"
                              for part, value in parts.items())
            note = f"fJ: {split}"
            if action in block.counts and action != "cycle":
                note += (f"; {block.counts[action]} times; half of the frame predicts the rest "
                         f"within {block.prediction_error:.1%}")
            entry(block, action, total / 1e3, "pJ", low / 1e3, high / 1e3, note,
                  interval=_INTERVAL)
        # 1 nW for 1 us is 1 fJ. It depends on the process and its options, not on a scaling rule.
        leakage = block.leakage_nw / 1e3
        entry(block, "leakage", leakage, "pJ", leakage / 2, leakage * 2,
              "one microsecond, typical corner", interval="the internal tables' factor of two")
    return "\n".join(lines)
