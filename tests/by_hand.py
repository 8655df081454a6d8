"""Costs by which a frame's energy is recomputed: numbers of the files, at 65 nm."""

import tomllib
from dataclasses import replace
from functools import cache
from importlib.resources import files

import numpy as np
import pytest

from splatforge.sim.costs import LIBRARIES, default_costs
from splatforge.sim.parts import OPERATORS
from splatforge.synth.actions import OWN_ACTIONS

__all__ = ["ADD", "BY_OPERATORS", "MULTIPLY", "REGISTER", "check_measured", "check_scaled",
           "entries_of", "shift", "sram"]

_TABLE = default_costs()
_LOGIC = _TABLE.scale("energy", 45, 65).value
#: Of a bit of a product, of a bit of a sum, and of a flip-flop in a cycle, in pJ.
MULTIPLY, ADD = 3.1e-3 * _LOGIC, 3.4e-3 * _LOGIC
REGISTER = _TABLE.scale("energy", 40, 65).value * 9.0e-3
#: The committed costs without what was measured of units that one accelerator has for itself.
BY_OPERATORS = replace(_TABLE, entries={
    name: entry for name, entry in _TABLE.entries.items()
    if not (name.startswith("measured.") and name.split(".")[2] in OWN_ACTIONS)})
_SHIFTER = _TABLE.scale("energy", 40, 65).value * 2.6e-3


@cache
def entries_of(name):
    """What stands in a file of costs."""
    return tomllib.loads(files("splatforge.sim").joinpath(name).read_text())


def _measured(design):
    """Own units of a design of which the library in use has figures, and those."""
    return entries_of(f"energy_{design}_{LIBRARIES[-1]}.toml")["measured"][LIBRARIES[-1]]


def check_measured(design, by_gates, by_operators, actions, cycles, others=(), absent=()):
    """A frame's energies at 200 MHz: what was measured by the file's numbers, the rest as it was.

    Memories cost what they do where the logic is priced by operators. `others` are units that were
    measured in another design, `absent` are actions that the frame has none of.
    """
    law = entries_of("costs.toml")["scaling"]["energy_hp"]
    for name, block in _measured(design).items():
        counts = actions[name]
        assert {what for what, count in counts.items() if not count} <= set(absent)
        clock = block["flip_flop_cycle"]
        scale = np.polyval(law["65"], 0.9) / np.polyval(law["130"], clock["supply_v"])
        data = sum(count * block[what]["value"] for what, count in counts.items())
        clocked = cycles * block["flip_flops"]["value"] * clock["value"]
        known = (data + clocked) * scale + block["leakage"]["value"] * cycles / 200
        memories = sum(row.energy.value for row in by_operators.rows
                       if row.unit == name and row.event.startswith("sram_"))
        assert by_gates.units[name][0] == pytest.approx(known * 1e-12 + memories, rel=1e-3), name
        assert not any(row.event.startswith(("register", *OPERATORS)) for row in by_gates.rows
                       if row.unit == name)
    for name in set(by_operators.units) - set(_measured(design)) - set(others):
        assert by_gates.units[name] == by_operators.units[name]


def check_scaled(design, ours, usual, laws, usual_laws):
    """Events of a frame by unit, of other parameters and of the default ones.

    The first two with what was measured, the others by operators: the former take as much more as
    the latter.
    """
    def data(events):
        return sum(count * _TABLE.energy_of(event, node_nm=45).value
                   for event, count in events.items() if event.startswith(OPERATORS))

    for name in _measured(design):
        # Of a unit without operators all cost the same.
        whole = data(usual_laws[name])
        more = data(laws[name]) / whole if whole else 1
        for what, as_much in (
                *((action, more) for action in OWN_ACTIONS[name]),
                *((mine, laws[name][event] / usual_laws[name][event]) for mine, event in (
                    ("flip_flop_cycle", "register_bit_clock"),
                    ("leakage", f"{design}_{name}_leakage")) if event in laws[name])):
            event = f"{name}_{what}"
            assert ours[name][event] == pytest.approx(as_much * usual[name][event]), event
        assert {event: count for event, count in ours[name].items() if "sram_" in event} == {
            event: count for event, count in laws[name].items() if "sram_" in event}


def shift(bits):
    """Of a shift by any number of places, in pJ."""
    return bits * int(np.ceil(np.log2(bits))) * _SHIFTER


def sram(words, bits, columns=slice(3, 5)):
    """(read, write) of a macro in pJ by the logarithms, as the table is read."""
    points = np.array(entries_of("sram.toml")["sram"]["points"])
    wide, size = max(32, bits), -(-words * bits // 8)
    size = max(size, 4 << (wide - 1).bit_length())
    of = {tuple(row[1:3].astype(int)): np.log(row[columns]) for row in points if row[0] == 65}
    sizes, widths = (sorted({key[n] for key in of}) for n in (0, 1))
    low, lower = max(s for s in sizes if s <= size), max(w for w in widths if w <= wide)
    high, upper = min(s for s in sizes if s >= size), min(w for w in widths if w >= wide)
    share = np.log(size / low) / np.log(high / low) if high > low else 0
    part = np.log(wide / lower) / np.log(upper / lower) if upper > lower else 0
    return np.exp(
        (1 - share) * (1 - part) * of[low, lower] + share * (1 - part) * of[high, lower]
        + (1 - share) * part * of[low, upper] + share * part * of[high, upper])
