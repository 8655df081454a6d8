"""Energy of a mapped unit from the toggles of its nets and the tables of its cell library.

Internal energy comes from the library's tables at the net's own load and slew, chosen by which
input toggles and by how often each condition holds; the energy of nets is half of C V^2 a toggle
with the capacitances of the pins; every flip-flop is clocked in every cycle.

Not in it: wires, the clock tree above the pins of the flip-flops, glitches, SRAM macros.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.synth.activity import CLOCK, ONE, Activity, CellGroup, Circuit
from splatforge.synth.liberty import Arc, Liberty

__all__ = ["CLOCK_PARTS", "PARTS", "ModuleEnergy", "module_energies", "net_slews"]

#: What the energy of a module is made of.
PARTS = ("combinational", "nets", "flip_flop_data", "flip_flop_clock", "clock_pins")
#: The parts that a cycle costs whatever the data do.
CLOCK_PARTS = ("flip_flop_clock", "clock_pins")
#: Slews have settled when none changes by more than this share, within as many rounds.
SETTLED, ROUNDS = 0.01, 50

_Nets = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class ModuleEnergy:
    """Energy of all instances of one module of a unit.

    Parameters
    ----------
    module : str
        Name in the netlist.
    instances, cells, flip_flops : int
        How often the unit has it, and what all of them hold.
    parts_fj : mapping
        One of :data:`PARTS` -> energy of each window, of shape [windows], in fJ.
    leakage_nw : float
        Leakage of all of them in nW.
    """

    module: str
    instances: int
    cells: int
    flip_flops: int
    parts_fj: Mapping[str, npt.NDArray[np.float64]]
    leakage_nw: float

    @property
    def clock_fj(self) -> npt.NDArray[np.float64]:
        """Energy of the clock in each window, in fJ."""
        return sum((self.parts_fj[part] for part in CLOCK_PARTS),
                   np.zeros(len(self.parts_fj["nets"])))

    @property
    def data_fj(self) -> npt.NDArray[np.float64]:
        """Energy of everything else that moves in each window, in fJ."""
        return sum((self.parts_fj[part] for part in PARTS if part not in CLOCK_PARTS),
                   np.zeros(len(self.parts_fj["nets"])))


def _loads(circuit: Circuit) -> _Nets:
    """Capacitance in fF that the driver of each net sees."""
    seen = np.zeros(len(circuit.lanes))
    for group in circuit.groups:
        for pin in group.cell.inputs:
            np.add.at(seen, group.pins[pin], group.cell.pins[pin].capacitance_ff)
    crossing = circuit.crossing
    # From the innermost modules outwards: crossings are noted when a module is entered.
    for place in range(len(crossing.driver) - 1, -1, -1):
        seen[crossing.driver[place]] += crossing.share[place] * seen[crossing.load[place]]
    return seen


def _related(arc: Arc, group: CellGroup) -> tuple[str, ...]:
    """Inputs that an arc is about; all of them where it does not say."""
    named = tuple(pin for pin in arc.related if pin in group.pins)
    return named or group.cell.inputs


def net_slews(circuit: Circuit, seen_ff: _Nets) -> _Nets:
    """Slew of each net in ps, from the library's tables.

    Parameters
    ----------
    circuit : Circuit
        The unit.
    seen_ff : ndarray
        Load that each net's driver sees, of shape [nets].

    Returns
    -------
    ndarray
        Mean over edges and causing inputs, of shape [nets]. Ports and the clock, whose drivers
        are not there, have the median of the nets that cells drive.
    """
    slew = np.zeros(len(seen_ff))
    driven = np.zeros(len(seen_ff), np.bool_)
    for group in circuit.groups:
        for pin in group.cell.outputs:
            driven[group.pins[pin]] = True
    crossing = circuit.crossing
    crossed = np.zeros(len(slew), np.bool_)
    crossed[crossing.load] = True
    sources = np.bincount(crossing.load, minlength=len(slew))
    for _ in range(ROUNDS):
        before = slew.copy()
        for group in circuit.groups:
            for pin in group.cell.outputs:
                nets = group.pins[pin]
                found = [table.at(before[group.pins[cause]], seen_ff[nets])
                         for arc in group.cell.pins[pin].slew for cause in _related(arc, group)
                         for table in arc.tables]
                if found:
                    slew[nets] = np.mean(found, axis=0)
        inner = np.bincount(crossing.load, weights=slew[crossing.driver], minlength=len(slew))
        slew[crossed] = inner[crossed] / sources[crossed]
        if driven.any():
            free = ~driven & ~crossed
            slew[free] = np.median(slew[driven])
        if (np.abs(slew - before) <= SETTLED * np.maximum(before, 1e-3)).all():
            break
    return slew


def _energy(arc: Arc, slew_ps: _Nets, load_ff: _Nets) -> _Nets:
    """Energy in fJ of one transition, the mean of both edges; an absent table is zero."""
    total = np.zeros(len(slew_ps))
    for table in arc.tables:
        total += table.at(slew_ps, load_ff)
    return total / 2


def _shares(arcs: list[Arc], group: CellGroup, duty: _Nets) -> list[_Nets]:
    """How much of the time each arc of the same pin and cause holds.

    An arc without a condition stands for the time in which none of the others holds.
    """
    count = len(next(iter(group.pins.values())))
    shares = [duty[group.conditions[arc.when]] if arc.when else np.zeros(count) for arc in arcs]
    rest = np.clip(1.0 - sum(shares, np.zeros(count)), 0.0, 1.0)
    return [share if arc.when else rest for arc, share in zip(arcs, shares, strict=True)]


def _output_energy(
    group: CellGroup, pin: str, activity: Activity, slew: _Nets, load: _Nets
) -> _Nets:
    """Energy in fJ of one toggle of each cell's output, weighted over causes and conditions."""
    arcs = group.cell.pins[pin].power
    nets = group.pins[pin]
    total, weight = np.zeros(len(nets)), np.zeros(len(nets))
    causes = dict.fromkeys(cause for arc in arcs for cause in _related(arc, group))
    every = activity.toggles.sum(axis=0)
    for cause in causes:
        these = [arc for arc in arcs if cause in _related(arc, group)]
        inputs = group.pins[cause]
        # The clock moves twice in every cycle, and each output of a flip-flop follows it.
        toggles = np.where(inputs == CLOCK, activity.cycles * group.lanes * 2.0, every[inputs])
        shares = _shares(these, group, activity.duty)
        whole = sum(shares, np.zeros(len(nets)))
        for arc, share in zip(these, shares, strict=True):
            part = toggles * np.divide(share, whole, out=np.full(len(nets), 1 / len(these)),
                                       where=whole > 0)
            total += part * _energy(arc, slew[inputs], load[nets])
            weight += part
    # A cell whose inputs never move has no toggles to weigh either.
    return np.divide(total, weight, out=np.zeros(len(nets)), where=weight > 0)


def _leakage_nw(group: CellGroup, duty: _Nets) -> float:
    """Leakage of all cells of a group in nW, by how often each condition holds."""
    count = len(next(iter(group.pins.values())))
    total, held = np.zeros(count), np.zeros(count)
    for when, power_nw in group.cell.leakage:
        share = duty[group.conditions[when]]
        total += share * power_nw
        held += share
    total += np.clip(1.0 - held, 0.0, 1.0) * group.cell.leakage_nw
    return float(total.sum()) * group.lanes


def module_energies(activity: Activity, liberty: Liberty) -> dict[str, ModuleEnergy]:
    """Energy of each module of a unit.

    Parameters
    ----------
    activity : Activity
        What its nets did.
    liberty : Liberty
        The cells.

    Returns
    -------
    dict of str to ModuleEnergy
        By the module's name in the netlist.
    """
    circuit = activity.circuit
    seen = _loads(circuit)
    slew = net_slews(circuit, seen)
    square = liberty.supply_v**2
    windows = len(activity.windows)
    cycles = np.array([last - first for first, last in activity.windows], np.float64)
    toggles = activity.toggles.astype(np.float64)
    parts: dict[str, dict[str, npt.NDArray[np.float64]]] = {}
    leakage = defaultdict[str, float](float)
    cells, flip_flops = defaultdict[str, int](int), defaultdict[str, int](int)
    for group in circuit.groups:
        part = parts.setdefault(group.module, {name: np.zeros(windows) for name in PARTS})
        stores = group.cell.flip_flop is not None
        data = "flip_flop_data" if stores else "combinational"
        count = len(next(iter(group.pins.values()))) * group.lanes
        cells[group.module] += count
        flip_flops[group.module] += count * stores
        leakage[group.module] += _leakage_nw(group, activity.duty)
        for name, pin in group.cell.pins.items():
            if name not in group.pins:
                continue
            nets = group.pins[name]
            if pin.direction == "output":
                part[data] += toggles[:, nets] @ _output_energy(group, name, activity, slew, seen)
                continue
            clocked = nets == CLOCK
            # Capacitance of the pin, charged and discharged with its net.
            part["nets"] += 0.5 * square * pin.capacitance_ff * toggles[:, nets].sum(axis=1)
            part["clock_pins"] += (
                square * pin.capacitance_ff * cycles * clocked.sum() * group.lanes)
            if not pin.power:
                continue
            shares = _shares(list(pin.power), group, activity.duty)
            inside = sum((share * _energy(arc, slew[nets], np.zeros(len(nets)))
                          for arc, share in zip(pin.power, shares, strict=True)),
                         np.zeros(len(nets)))
            part[data] += toggles[:, nets] @ np.where(nets > ONE, inside, 0.0)
            part["flip_flop_clock"] += 2 * cycles * inside[clocked].sum() * group.lanes
    return {module: ModuleEnergy(
        module=module, instances=circuit.instances[module], cells=cells[module],
        flip_flops=flip_flops[module], parts_fj=each, leakage_nw=leakage[module])
        for module, each in parts.items()}
