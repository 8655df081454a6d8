"""Area of a design: instances times sourced costs. An estimate until synthesis of our own RTL.

:func:`area` prices any inventory of the vocabulary of :mod:`splatforge.sim.costs`;
:func:`array_inventory` writes down the operators and flip-flops that the formats of the rendering
array imply. It follows the data flow of `designs`, not the RTL: sharing, retiming and constant
folding by synthesis are not seen. A synthesised unit replaces it as one entry ``area.<name>``.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from splatforge.designs.array import ArrayDesign
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.raster import RasterDesign
from splatforge.sim.costs import CostTable, Sourced, default_costs

__all__ = ["NOT_MODELLED", "AreaReport", "AreaRow", "area", "array_inventory",
           "raster_inventory"]

#: What no row of a report holds.
NOT_MODELLED = (
    "control, multiplexers and FIFO pointers",
    "the exponential's table",
    "placement (utilisation below one), wires and clock tree",
    "the bus adapters of the shell",
)


@dataclass(frozen=True, kw_only=True)
class AreaRow:
    """One kind of instance: its name, how many, and the area of one in um^2."""

    item: str
    count: float
    cost: Sourced

    @property
    def area(self) -> Sourced:
        """Count times cost in mm^2."""
        return (self.cost * self.count).to("mm^2")


@dataclass(frozen=True, kw_only=True)
class AreaReport:
    """Area of a design at a node, with every row."""

    rows: tuple[AreaRow, ...]
    node_nm: float
    not_modelled: tuple[str, ...] = NOT_MODELLED

    @property
    def area_mm2(self) -> float:
        """Total in mm^2."""
        return math.fsum(row.area.value for row in self.rows)

    @property
    def band_mm2(self) -> tuple[float, float]:
        """Low and high end in mm^2."""
        return (math.fsum(row.area.low for row in self.rows),
                math.fsum(row.area.high for row in self.rows))


def area(inventory: Mapping[str, float], *, node_nm: float,
         table: CostTable | None = None) -> AreaReport:
    """Cell area of an inventory.

    Parameters
    ----------
    inventory : mapping
        Item of the vocabulary of :mod:`splatforge.sim.costs` -> instances.
    node_nm : float
        Process node, 7 to 130.
    table : CostTable, optional
        The committed tables by default.

    Raises
    ------
    ValueError
        If a number of instances is negative or not finite, or an item has no sourced cost.
    """
    table = table or default_costs()
    rows = list[AreaRow]()
    for item, count in inventory.items():
        if not (math.isfinite(count) and count >= 0):
            raise ValueError(f"Number of {item} must be finite and non-negative, not {count!r}")
        rows.append(AreaRow(item=item, count=float(count),
                            cost=table.area_of(item, node_nm=node_nm)))
    return AreaReport(rows=tuple(rows), node_nm=node_nm)


def array_inventory(array: ArrayDesign) -> dict[str, int]:
    """Operators and flip-flops of the rendering array.

    Notes
    -----
    A lane: two additions for ``u``, one for ``v``, two squares, two additions for the exponent,
    one comparison with the cut-off, the interpolation of the table (a multiplication, an addition,
    a shift), the weight ``T alpha``, the new ``T`` and its comparison, three products with the
    colour and three accumulations. Every result is registered once. Tile state in flip-flops,
    twice: less than 1 Kbit a lane. The slopes times the pixel's position are shared by the lanes
    of a row or column and left out.
    """
    alpha, blend = array.alpha, array.blend
    form, form_sum, exponent = alpha.form.width, alpha.form_sum.width, alpha.exponent.width
    transmittance, color = blend.transmittance.width, blend.color.width
    accumulator = blend.accumulator.width
    operators = [  # (name, copies, bits registered behind each)
        (f"add_{form_sum}", 3, form_sum),
        (f"multiply_{form}x{form}", 2, 2 * form),
        (f"add_{exponent}", 3, exponent),
        (f"multiply_{alpha.delta_width}x{alpha.slope_bits}", 1,
         alpha.delta_width + alpha.slope_bits),
        (f"add_{alpha.table.width}", 1, alpha.table.width),
        (f"shift_{alpha.table.width}", 1, alpha.alpha.width),
        (f"multiply_{transmittance}x{alpha.alpha.width}", 1, transmittance),
        (f"add_{transmittance}", 2, transmittance),
        (f"multiply_{transmittance}x{color}", 3, accumulator),
        (f"add_{accumulator}", 3, 0),
    ]
    inventory = dict[str, int]()
    registers = 2 * (TILE_PX**2 // array.lanes) * (transmittance + 3 * accumulator)
    for name, copies, bits in operators:
        inventory[name] = inventory.get(name, 0) + copies * array.lanes
        registers += copies * bits
    inventory["register_bit"] = registers * array.lanes
    return inventory


def raster_inventory(design: RasterDesign) -> dict[str, int]:
    """The array and the splat buffer of the raster core."""
    bits = 8 * math.ceil(design.fetch.splat.width / 8)
    size = design.fetch.buffer_splats * bits // 8
    inventory = array_inventory(design.array)
    # A macro of the next power of two in width: CACTI's table holds no odd ones.
    width = max(32, 1 << (bits - 1).bit_length())
    inventory[f"sram_{width}b_{size * width // bits}B"] = 1
    return inventory
