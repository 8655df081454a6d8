"""Costs by which a frame's energy is recomputed: numbers of the files, at 65 nm."""

import tomllib
from functools import cache
from importlib.resources import files

import numpy as np

from splatforge.sim.costs import default_costs

__all__ = ["ADD", "MULTIPLY", "REGISTER", "entries_of", "shift", "sram"]

_TABLE = default_costs()
_LOGIC = _TABLE.scale("energy", 45, 65).value
#: Of a bit of a product, of a bit of a sum, and of a flip-flop in a cycle, in pJ.
MULTIPLY, ADD = 3.1e-3 * _LOGIC, 3.4e-3 * _LOGIC
REGISTER = _TABLE.scale("energy", 40, 65).value * 9.0e-3
_SHIFTER = _TABLE.scale("energy", 40, 65).value * 2.6e-3


@cache
def entries_of(name):
    """What stands in a file of costs."""
    return tomllib.loads(files("splatforge.sim").joinpath(name).read_text())


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
