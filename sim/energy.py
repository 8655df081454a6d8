"""Energy of a run: event counts times sourced costs.

A cycle model hands over how often each event of :mod:`splatforge.sim.costs` happened; the report
keeps every row, so that the total can be recomputed by hand. The band adds the low ends and the
high ends of all costs, that is, as if every source erred the same way: it is wide on purpose.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from splatforge.sim.costs import CostTable, Sourced, default_costs

__all__ = ["NOT_MODELLED", "NOT_MODELLED_LEAKAGE", "NOT_MODELLED_OF_OPERATORS", "EnergyReport",
           "EnergyRow", "component", "energy", "energy_of_units"]

#: What no row of a report holds.
NOT_MODELLED = (
    "wires, glitches and the clock tree above the flip-flops, which are in the band alone",
    "frame control and bus multiplexers of the core's top level, but for their clock",
    "DRAM background and refresh power while idle, and the memory controller",
)
#: What it also leaves out where a design's energy is made of operators.
NOT_MODELLED_OF_OPERATORS = (
    "control logic, FIFO pointers and bus adapters that no event counts",
    "tables in logic, such as the exponential's (a look-up has no sourced cost)",
)
#: Where the leakage of a unit's cells is not known.
NOT_MODELLED_LEAKAGE = "leakage of logic that was not synthesised"
#: What stands in the place of the last of them where the DRAM was simulated.
NOT_MODELLED_DRAM = "DRAM power-down, the memory controller and its PHY"


def component(event: str) -> str:
    """What an event belongs to: ``arithmetic``, ``registers``, ``leakage``, ``sram``, ``dram``."""
    kind = event.partition("_")[0]
    if event.endswith("_leakage") or event.startswith("sram_leakage_"):
        return "leakage"
    if event.endswith("_flip_flop_cycle"):
        return "registers"
    return {"register": "registers", "sram": "sram", "dram": "dram"}.get(kind, "arithmetic")


@dataclass(frozen=True, kw_only=True)
class EnergyRow:
    """One event of a report.

    Parameters
    ----------
    event, component : str
        Name of the vocabulary, and what it belongs to.
    count : float
        How often it happened.
    cost : Sourced
        Energy of one, in pJ at the report's node.
    unit : str
        Of the design; empty where no units are told apart.
    """

    event: str
    component: str
    count: float
    cost: Sourced
    unit: str = ""

    @cached_property
    def energy(self) -> Sourced:
        """Count times cost in joules."""
        return (self.cost * self.count).to("J")


@dataclass(frozen=True, kw_only=True)
class EnergyReport:
    """Energy of one run.

    Parameters
    ----------
    rows : tuple of EnergyRow
        Every event, in the order of the counts.
    node_nm : float
        Process node of logic and SRAM.
    dram : str
        DRAM entry used.
    not_modelled : tuple of str
        What the total leaves out.
    """

    rows: tuple[EnergyRow, ...]
    node_nm: float
    dram: str
    not_modelled: tuple[str, ...] = NOT_MODELLED

    @property
    def energy_j(self) -> float:
        """Total in joules."""
        return math.fsum(row.energy.value for row in self.rows)

    @property
    def low_j(self) -> float:
        """Lower end of the band in joules."""
        return math.fsum(row.energy.low for row in self.rows)

    @property
    def high_j(self) -> float:
        """Upper end of the band in joules."""
        return math.fsum(row.energy.high for row in self.rows)

    @property
    def band_j(self) -> tuple[float, float]:
        """Both ends of the band in joules."""
        return (self.low_j, self.high_j)

    @property
    def components(self) -> dict[str, tuple[float, float, float]]:
        """Energy, low end and high end in joules of each component, in the order of the rows."""
        return self._totals("component")

    @property
    def units(self) -> dict[str, tuple[float, float, float]]:
        """The same of each unit."""
        return self._totals("unit")

    def _totals(self, key: str) -> dict[str, tuple[float, float, float]]:
        totals = dict[str, tuple[float, float, float]]()
        for row in self.rows:
            value, low, high = totals.get(getattr(row, key), (0.0, 0.0, 0.0))
            part = row.energy
            totals[getattr(row, key)] = (value + part.value, low + part.low, high + part.high)
        return totals

    def record(self) -> dict[str, object]:
        """The report for JSON: totals, components, units, and every row with its source."""
        components, units = (
            {name: {"energy_j": value, "energy_band_j": [low, high]}
             for name, (value, low, high) in totals.items()}
            for totals in (self.components, self.units))
        return {
            "energy_j": self.energy_j, "energy_band_j": list(self.band_j),
            "node_nm": self.node_nm, "dram": self.dram,
            "components": components, "units": units,
            "rows": [{"unit": row.unit, "event": row.event, "component": row.component,
                      "count": row.count,
                      "cost_pj": row.cost.value, "cost_band_pj": [row.cost.low, row.cost.high],
                      "energy_j": row.energy.value, "source": row.cost.source}
                     for row in self.rows],
            "not_modelled": list(self.not_modelled),
        }

    def __str__(self) -> str:
        lines = [f"{'event':<26}{'count':>10}  {'cost':<28}{'energy':<34}source"]
        lines += [f"{row.event:<26}{row.count:>10.3g}  {row.cost!s:<28}"
                  f"{row.energy.to('mJ')!s:<34}{row.cost.source}" for row in self.rows]
        total = Sourced(self.energy_j, "J", "sum of the rows", self.low_j, self.high_j)
        lines.append(f"total {total.to('mJ')} at {self.node_nm:g} nm with {self.dram}")
        lines.append(f"not modelled: {'; '.join(self.not_modelled)}")
        return "\n".join(lines)


def energy(counts: Mapping[str, float], *, node_nm: float, dram: str = "lpddr4",
           table: CostTable | None = None,
           costs: Mapping[str, Sourced] | None = None) -> EnergyReport:
    """Energy of a run from its event counts, whatever unit they belong to.

    Parameters
    ----------
    counts : mapping
        Event of the vocabulary of :mod:`splatforge.sim.costs` -> how often it happened.
    node_nm, dram, table, costs
        As :func:`energy_of_units` takes them.
    """
    return energy_of_units({"": counts}, node_nm=node_nm, dram=dram, table=table, costs=costs)


def energy_of_units(units: Mapping[str, Mapping[str, float]], *, node_nm: float,
                    dram: str = "lpddr4", table: CostTable | None = None,
                    costs: Mapping[str, Sourced] | None = None) -> EnergyReport:
    """Energy of a run from the event counts of its units.

    Parameters
    ----------
    units : mapping
        Unit -> event of the vocabulary of :mod:`splatforge.sim.costs` -> how often it happened.
    node_nm : float
        Process node of logic and SRAM, 7 to 130.
    dram : str
        ``lpddr4`` or ``lpddr5``: the entry that DRAM bytes cost.
    table : CostTable, optional
        The committed tables by default.
    costs : Mapping, optional
        Costs in pJ of events that no table holds: those of
        :func:`splatforge.sim.dram_energy.dram_costs`, whose DRAM then is `dram`.

    Returns
    -------
    EnergyReport
        Rows and totals.

    Raises
    ------
    ValueError
        If a count is negative or not finite, or an event has no sourced cost.
    """
    table = table or default_costs()
    rows = list[EnergyRow]()
    of_operators = leaks = False
    for unit, counts in units.items():
        for event, count in counts.items():
            if not (math.isfinite(count) and count >= 0):
                raise ValueError(
                    f"Count of {event} must be finite and non-negative, not {count!r}")
            cost = ((costs or {}).get(event)
                    or table.energy_of(event, node_nm=node_nm, dram=dram))
            rows.append(EnergyRow(event=event, component=component(event), count=float(count),
                                  cost=cost, unit=unit))
        of_operators |= not any(
            event.endswith("_flip_flop_cycle") or component(event) == "dram" for event in counts)
        leaks |= not any(
            event.endswith("_leakage") or component(event) == "dram" for event in counts)
    missing = NOT_MODELLED if costs is None else (*NOT_MODELLED[:-1], NOT_MODELLED_DRAM)
    if of_operators:
        missing += NOT_MODELLED_OF_OPERATORS
    if leaks:
        missing += (NOT_MODELLED_LEAKAGE,)
    return EnergyReport(rows=tuple(rows), node_nm=node_nm, dram=dram, not_modelled=missing)
