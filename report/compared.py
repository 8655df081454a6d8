"""Plots of several designs on the same frames: one bar, roof or point for each."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import altair as alt

from splatforge.report.plots import COLORS, Plot, chart_spec, roofline, si
from splatforge.report.records import ComparedDesign
from splatforge.report.sweep import FIGURES, together

__all__ = ["compared_plots"]

#: More parts than the eye tells apart by their colours are told apart by where they stand.
_PALETTE = (*COLORS, "#9fb8cc", "#e3b26b", "#7fc9b5", "#dba3cb", "#b9c4cf", "#d8c36a", "#f0a070",
            "#a7adb4")


#: Parts of a bar below this share of it in every design are drawn as one.
_SMALL = 0.005
_FRONTS = (("Energy over time", "time_s", "energy_j"), ("Area over time", "time_s", "area_mm2"),
           ("PSNR over time", "time_s", "psnr_db"), ("Area over energy", "energy_j", "area_mm2"))


def compared_plots(designs: Sequence[ComparedDesign], fronts: Mapping[str, bool],
                   swept: Sequence[Mapping[str, Any]] = ()) -> Iterator[Plot]:
    """Cycles, energy, DRAM, area, roofline, and the fronts of figure over figure.

    Parameters
    ----------
    designs : sequence of ComparedDesign
        One at least.
    fronts : mapping
        Name of a design -> whether no other that does the same stages is better in every figure.
    swept : sequence of mapping
        More points for the fronts, as in :class:`splatforge.report.records.Comparison`.

    Yields
    ------
    Plot
        Those for which there are numbers.
    """
    cycles = {each.name: {share.name: share.cycles for share in each.breakdown}
              for each in designs}
    yield _stacked(
        "cycles", "Cycles", "Where the cycles of the frames went, each counted once.", cycles,
        "cycles", lambda value: f"{value:,.0f}")
    yield _stacked(
        "energy", "Energy", "All frames, by what took it. The line is the band of the costs.",
        {each.name: {part.name: part.energy_j for part in each.energy} for each in designs},
        "energy, J", lambda value: si(value, "J", 3),
        bands={each.name: each.energy_band_j for each in designs})
    yield _stacked(
        "traffic", "DRAM traffic", "Bytes of all frames, by what was read and written.",
        {each.name: {name.replace("_", " "): count for name, count in each.bytes.items() if count}
         for each in designs}, "bytes", lambda value: si(value, "B"))
    areas = {each.name: each for each in designs if each.unit_areas}
    if areas:
        yield _areas(list(areas.values()))
    # The designs first, as in the other plots, so that each has its colour; then the GPUs.
    machines = {machine.name: machine
                for part in (slice(1), slice(1, None)) for each in designs
                for machine in each.machines[part]}
    if machines:
        yield roofline(list(machines.values()))
    rows = [{"design": each.name, "parameters": "", "front": fronts[each.name], "size": 130,
             **each.figures()} for each in designs]
    rows += [{**row, "design": f"{row['design']}, swept", "size": 35} for row in swept]
    for title, x, y in _FRONTS:
        (title_x, factor_x, _), (title_y, factor_y, _) = FIGURES[x], FIGURES[y]
        points = [{**{name: row[name] for name in ("design", "parameters", "front", "size")},
                   "x": row[x] * factor_x, "y": row[y] * factor_y} for row in rows
                  if row[x] is not None and row[y] is not None]
        if not points:
            continue
        names = list(dict.fromkeys(point["design"] for point in points))
        color = alt.Color("design:N").scale(domain=names, range=list(_PALETTE[: len(names)]))
        marks = [{**each, "size": each["size"] * (1 + math.log10(each["count"]))}
                 for each in together(points, "x", "y")]
        chart = alt.Chart(alt.Data(values=marks)).mark_point().encode(
            x=alt.X("x:Q").title(title_x).scale(zero=True),
            y=alt.Y("y:Q").title(title_y).scale(zero=y != "psnr_db"), color=color,
            opacity=alt.condition("datum.front", alt.value(1.0), alt.value(0.4)),
            size=alt.Size("size:Q").scale(None).legend(None),
            fill=alt.condition("datum.front", color, alt.value("transparent")),
            tooltip=[alt.Tooltip("design:N"), alt.Tooltip("parameters:N"),
                     alt.Tooltip("count:Q", title="designs here"),
                     alt.Tooltip("x:Q", format=".4g", title=title_x),
                     alt.Tooltip("y:Q", format=".4g", title=title_y)])
        yield Plot(
            key=f"front_{x}_{y}", title=title,
            caption="Filled: no other that does the same part of a frame is better in time, "
            "energy, area and PSNR together. Larger: several in one place.",
            spec=chart_spec(chart, 280),
            columns=("design", "parameters", title_x, title_y, "on the front"),
            rows=[(row["design"], row["parameters"] or "-",
                   *("-" if row[name] is None else f"{row[name] * factor:.4g}"
                     for name, factor in ((x, factor_x), (y, factor_y))),
                   "yes" if row["front"] else "no") for row in rows])


def _stacked(
    key: str, title: str, caption: str, parts: Mapping[str, Mapping[str, float]], axis: str,
    text: Callable[[float], str], bands: Mapping[str, tuple[float, float]] | None = None,
) -> Plot:
    """One bar a design, of parts that are named."""
    names = list(dict.fromkeys(name for each in parts.values() for name in each))
    whole = {design: sum(each.values()) or 1.0 for design, each in parts.items()}
    large = [name for name in names if any(
        each.get(name, 0) >= _SMALL * whole[design] for design, each in parts.items())]
    values = [{"design": design, "part": name, "order": large.index(name), "value": each[name],
               "share": each[name] / whole[design]}
              for design, each in parts.items() for name in large if name in each]
    if len(large) < len(names):
        values += [{"design": design, "part": "smaller ones", "order": len(large), "value": rest,
                    "share": rest / whole[design]} for design, each in parts.items()
                   if (rest := sum(value for name, value in each.items() if name not in large))]
        large.append("smaller ones")
    base = alt.Y("design:N").sort(list(parts)).title(None)
    bars = alt.Chart(alt.Data(values=values)).mark_bar(height={"band": 0.7}).encode(
        x=alt.X("value:Q").axis(
            labelExpr="format(datum.value, '~s')", tickCount=5).title(axis), y=base,
        color=alt.Color("part:N").scale(domain=large, range=list(_PALETTE[: len(large)])),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("design:N"), alt.Tooltip("part:N"),
                 alt.Tooltip("value:Q", format=".4s", title=axis),
                 alt.Tooltip("share:Q", format=".1%")])
    layers: list[alt.Chart] = [bars]
    if bands:
        spans = [{"design": design, "low": low, "high": high}
                 for design, (low, high) in bands.items()]
        layers.append(alt.Chart(alt.Data(values=spans)).mark_rule(
            strokeWidth=2, color="#1c232b").encode(x="low:Q", x2="high:Q", y=base))
    return Plot(
        key=key, title=title, caption=caption,
        spec=chart_spec(alt.layer(*layers) if bands else bars, 36 * len(parts) + 60),
        columns=("design", *names, "all"),
        rows=[(design, *(text(each[name]) if name in each else "-" for name in names),
               text(sum(each.values()))) for design, each in parts.items()])


def _areas(designs: Sequence[ComparedDesign]) -> Plot:
    """One bar a design, a box for each unit, the largest first."""
    values = [{"design": each.name, "unit": unit.unit, "order": place, "area": unit.area_mm2}
              for each in designs
              for place, unit in enumerate(sorted(each.unit_areas, key=lambda u: -u.area_mm2))]
    chart = alt.Chart(alt.Data(values=values)).mark_bar(
        height={"band": 0.7}, color=COLORS[0], stroke="white", strokeWidth=1).encode(
        x=alt.X("area:Q").stack("zero").axis(tickCount=5).title("area, mm²"),
        y=alt.Y("design:N").sort([each.name for each in designs]).title(None),
        detail="unit:N", order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("design:N"), alt.Tooltip("unit:N"),
                 alt.Tooltip("area:Q", format=".3g", title="mm²")])
    return Plot(
        key="area", title="Area",
        caption="One box for each unit, the largest first; pointing at it tells which. From the "
        "cost table, not placed.",
        spec=chart_spec(chart, 36 * len(designs) + 50),
        columns=("design", "area", "largest units"),
        rows=[(each.name, f"{sum(unit.area_mm2 for unit in each.unit_areas):.3g} mm²",
               ", ".join(f"{unit.unit} {unit.area_mm2:.2g}" for unit in sorted(
                   each.unit_areas, key=lambda u: -u.area_mm2)[:3])) for each in designs])
