"""Plots of what every unit costs: energy by unit and kind, area by unit."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from splatforge.report.plots import COLORS, Plot, chart_spec, si
from splatforge.report.records import UnitArea, UnitEnergy

__all__ = ["unit_areas", "unit_energies"]

_BAR = {"band": 0.72}


def unit_energies(parts: Sequence[UnitEnergy]) -> Plot:
    """Energy of every unit, stacked by what took it."""
    total = sum(part.energy_j for part in parts) or 1.0
    kinds = list(dict.fromkeys(part.kind for part in parts))
    units = dict.fromkeys(part.unit for part in parts)
    sums = {unit: sum(part.energy_j for part in parts if part.unit == unit) for unit in units}
    order = sorted(units, key=lambda unit: -sums[unit])
    values: list[Mapping[str, Any]] = [
        {"unit": part.unit, "kind": part.kind, "order": kinds.index(part.kind),
         "energy": part.energy_j, "share": part.energy_j / total} for part in parts]
    chart = alt.Chart(alt.Data(values=values)).mark_bar(height=_BAR).encode(
        x=alt.X("energy:Q").axis(
            labelExpr="format(datum.value, '~s') + 'J'", tickCount=4).title("energy"),
        y=alt.Y("unit:N").sort(order).title(None),
        color=alt.Color("kind:N").scale(domain=kinds, range=list(COLORS[: len(kinds)])),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("unit:N"), alt.Tooltip("kind:N"),
                 alt.Tooltip("energy:Q", format=".3s", title="joules"),
                 alt.Tooltip("share:Q", format=".1%")],
    )
    by_kind = {(part.unit, part.kind): part.energy_j for part in parts}
    return Plot(
        key="unit_energy", title="Energy by unit and kind",
        caption="Counts of events times sourced costs; the DRAM is the unit that moves the bytes.",
        spec=chart_spec(chart, 26 * len(units) + 70),
        columns=("unit", *kinds, "all"),
        rows=[(unit, *(si(by_kind[unit, kind], "J", 2) if (unit, kind) in by_kind else "-"
                       for kind in kinds), si(sums[unit], "J", 2)) for unit in order],
    )


def unit_areas(parts: Sequence[UnitArea]) -> Plot:
    """Area of every unit, largest first, with its band."""
    order = [part.unit for part in sorted(parts, key=lambda part: -part.area_mm2)]
    values: list[Mapping[str, Any]] = [
        {"unit": part.unit, "area": part.area_mm2, "low": part.low_mm2, "high": part.high_mm2}
        for part in parts]
    base = alt.Chart(alt.Data(values=values)).encode(y=alt.Y("unit:N").sort(order).title(None))
    bars = base.mark_bar(height=_BAR, color=COLORS[0]).encode(
        x=alt.X("area:Q").axis(tickCount=4).title("area, mm²"),
        tooltip=[alt.Tooltip("unit:N"), *(
            alt.Tooltip(f"{name}:Q", format=".3g", title=f"{name}, mm²")
            for name in ("area", "low", "high"))])
    rule = base.mark_rule(strokeWidth=2, color="#1c232b").encode(x=alt.X("low:Q"), x2="high:Q")
    total = sum(part.area_mm2 for part in parts) or 1.0
    return Plot(
        key="unit_area", title="Area by unit",
        caption="From the cost table, not placed; the line is the band of its source.",
        spec=chart_spec(alt.layer(bars, rule), 26 * len(parts) + 50),
        columns=("unit", "area", "band", "share"),
        rows=[(part.unit, f"{part.area_mm2:.3g} mm²",
               f"{part.low_mm2:.3g} to {part.high_mm2:.3g} mm²", f"{part.area_mm2 / total:.1%}")
              for part in sorted(parts, key=lambda part: -part.area_mm2)],
    )
