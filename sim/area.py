"""Area of a design: instances times sourced costs.

:func:`area` prices any inventory of the vocabulary of :mod:`splatforge.sim.costs`;
:func:`array_inventory` writes down the operators and flip-flops that the formats of the rendering
array imply. It follows the data flow of `designs`, not the RTL: sharing, retiming and constant
folding by synthesis are not seen. A synthesised unit stands in its place as one entry
``area.<design>_<unit>``, and the operators say how it grows with the parameters.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import TILE_PX
from splatforge.sim.costs import CostTable, Sourced, default_costs

__all__ = ["NOT_MODELLED", "NOT_MODELLED_OF_OPERATORS", "AreaReport", "AreaRow", "area",
           "area_of_units", "array_inventory", "lane_operators"]

#: What no row of a report holds.
NOT_MODELLED = ("placement (utilisation below one), wires and clock tree",)
#: What it also leaves out where a unit is made of operators and flip-flops.
NOT_MODELLED_OF_OPERATORS = (
    "control, multiplexers and FIFO pointers of units that were not synthesised",
    "their tables in logic, such as the exponential's",
)


@dataclass(frozen=True, kw_only=True)
class AreaRow:
    """One kind of instance: its name, how many, the area of one in um^2, and in which unit."""

    item: str
    count: float
    cost: Sourced
    unit: str = ""

    @cached_property
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

    @property
    def units(self) -> dict[str, Sourced]:
        """Area in mm^2 of each unit, in the order of the rows."""
        totals = dict[str, Sourced]()
        for row in self.rows:
            before = totals.get(row.unit)
            totals[row.unit] = row.area if before is None else before + row.area
        return totals


def area(inventory: Mapping[str, float], *, node_nm: float,
         table: CostTable | None = None) -> AreaReport:
    """Cell area of an inventory, whatever unit it belongs to.

    Parameters
    ----------
    inventory : mapping
        Item of the vocabulary of :mod:`splatforge.sim.costs` -> instances.
    node_nm, table
        As :func:`area_of_units` takes them.
    """
    return area_of_units({"": inventory}, node_nm=node_nm, table=table)


def area_of_units(units: Mapping[str, Mapping[str, float]], *, node_nm: float,
                  table: CostTable | None = None) -> AreaReport:
    """Cell area of the inventories of units.

    Parameters
    ----------
    units : mapping
        Unit -> item of the vocabulary of :mod:`splatforge.sim.costs` -> instances.
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
    for unit, inventory in units.items():
        for item, count in inventory.items():
            if not (math.isfinite(count) and count >= 0):
                raise ValueError(
                    f"Number of {item} must be finite and non-negative, not {count!r}")
            rows.append(AreaRow(item=item, count=float(count), unit=unit,
                                cost=table.area_of(item, node_nm=node_nm)))
    missing = NOT_MODELLED
    if any("register_bit" in inventory for inventory in units.values()):
        missing += NOT_MODELLED_OF_OPERATORS
    return AreaReport(rows=tuple(rows), node_nm=node_nm, not_modelled=missing)


def _power_operators(alpha: AlphaDesign) -> list[tuple[str, int]]:
    """From the exponent of what is significant to its alpha."""
    interpolation = [(f"multiply_{alpha.delta_width}x{alpha.slope_bits}", 1),
                     (f"add_{alpha.table.width}", 1)]
    if not isinstance(alpha, FalloffDesign):
        return [*interpolation, (f"shift_{alpha.table.width}", 1)]
    return [*(interpolation if alpha.interpolated else []),
            (f"multiply_{alpha.table.width}x{alpha.opacity.width}", 1)]


def lane_operators(array: ArrayDesign) -> dict[str, dict[str, int]]:
    """Operators of one lane, by what uses them.

    Returns
    -------
    dict
        ``evaluate``: once per evaluation issued to the lane, up to the comparison with the
        cut-off; ``blend``: once per significant evaluation. Operator -> copies.

    Notes
    -----
    Evaluate: two additions for ``u``, one for ``v``, two squares, two additions for the exponent,
    one comparison. Blend: interpolation of the table (a multiplication, an addition, a shift;
    where the whole exponential is in a table the former two if it is interpolated, and a product
    with the opacity), the weight ``T alpha``, the new ``T`` and its comparison, three products with
    the colour, three accumulations. The slopes times the pixel's position are shared by the lanes
    of a row or column and left out.
    """
    alpha, blend = array.alpha, array.blend
    form, exponent = alpha.form.width, alpha.exponent.width
    transmittance = blend.transmittance.width
    parts = {
        "evaluate": [
            (f"add_{alpha.form_sum.width}", 3),
            (f"multiply_{form}x{form}", 2),
            (f"add_{exponent}", 3),
        ],
        "blend": [
            *_power_operators(alpha),
            (f"multiply_{transmittance}x{alpha.alpha.width}", 1),
            (f"add_{transmittance}", 2),
            (f"multiply_{transmittance}x{blend.color.width}", 3),
            (f"add_{blend.accumulator.width}", 3),
        ],
    }
    operators = dict[str, dict[str, int]]()
    for part, rows in parts.items():
        operators[part] = {}
        for name, copies in rows:  # two widths may agree, then their copies add up
            operators[part][name] = operators[part].get(name, 0) + copies
    return operators


def _result_bits(operator: str) -> int:
    """Bits of an operator's full-width result."""
    kind, _, widths = operator.partition("_")
    bits = [int(width) for width in widths.split("x")]
    return sum(bits) if kind == "multiply" else bits[0]


def array_inventory(array: ArrayDesign) -> dict[str, int]:
    """Operators and flip-flops of the rendering array.

    Notes
    -----
    The operators of :func:`lane_operators`, every result registered once at full width, and the
    state of a tile, or of a group of them, in flip-flops, twice. At 130 nm 64 lanes take 7.0
    mm^2 by this, 2.9 to 12.6; ``splatforge synth raster --unit array`` with the cells of IHP SG13G2
    gave 11.0 (alpha in thirteen stages, control and multiplexers with it).
    """
    blend = array.blend
    pixel_bits = blend.transmittance.width + 3 * blend.accumulator.width
    inventory = dict[str, int]()
    registers = 2 * array.side**2 * (TILE_PX**2 // array.lanes) * pixel_bits
    for part in lane_operators(array).values():
        for name, copies in part.items():
            inventory[name] = inventory.get(name, 0) + copies * array.lanes
            registers += copies * _result_bits(name)
    inventory["register_bit"] = registers * array.lanes
    return inventory
