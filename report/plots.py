"""Vega-Lite specifications of the page's plots, each with the table of what it draws."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import altair as alt
import numpy as np

from splatforge.report.records import EnergyPart, Machine, Share, Stage

__all__ = ["COLORS", "Plot", "breakdown", "chart_spec", "energy", "ratio", "roofline", "si",
           "stages"]

#: Colours that stay apart in grey and for the colour-blind: Okabe and Ito (2008), the light ones
#: darkened until they reach a contrast of 3 : 1 on white.
COLORS = ("#0072b2", "#c46a00", "#00896b", "#b0569a", "#56748f", "#8a6d00", "#d55e00", "#444b54")
BUSY, STALL, IDLE = "#0072b2", "#d08a1c", "#dfe3e8"
FONT = 'system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif'


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One figure of the page.

    Parameters
    ----------
    key : str
        Identifier on the page.
    title : str
        Heading.
    caption : str
        What it shows and how to read it.
    spec : dict
        Vega-Lite.
    columns : sequence of str
        Headings of the table of what is drawn.
    rows : sequence of sequence of str
        Its cells.
    aspect : float, optional
        Width over height, where the shape of the drawing matters.
    """

    key: str
    title: str
    caption: str
    spec: dict[str, Any]
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    aspect: float | None = None


def si(value: float, unit: str = "", digits: int = 3) -> str:
    """Return a number with an SI prefix: ``si(1.5e-6, "J")`` is ``1.5 µJ``."""
    if not math.isfinite(value):
        return "∞" if value > 0 else "unknown"
    if value == 0:
        return f"0 {unit}".rstrip()
    power = min(max(math.floor(math.log10(abs(value)) / 3 + 1e-9), -5), 5)
    scaled = value / 1000.0**power
    if abs(float(f"{scaled:.{digits}g}")) >= 1000 and power < 5:
        power, scaled = power + 1, scaled / 1000
    prefix = {-5: "f", -4: "p", -3: "n", -2: "µ", -1: "m", 0: "", 1: "k", 2: "M", 3: "G", 4: "T",
              5: "P"}[power]
    number = f"{scaled:.{digits}g}"
    return f"{float(number):g} {prefix}{unit}".rstrip()


def ratio(value: float) -> str:
    """Return a ratio to three digits, in full: ``1,370``, ``13.8``, ``0.25``."""
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def chart_spec(chart: alt.TopLevelMixin, height: int | None = None) -> dict[str, Any]:
    """Vega-Lite of a chart that fills its container, in the page's type and colours."""
    properties: dict[str, Any] = {"width": "container"}
    if height is not None:
        properties["height"] = height
    styled = (
        chart.properties(**properties)  # pyright: ignore[reportAttributeAccessIssue]
        .configure(font=FONT, background="transparent", autosize=alt.AutoSizeParams(
            type="fit", contains="padding", resize=True))
        .configure_view(stroke=None)
        .configure_axis(
            labelFontSize=12, titleFontSize=12, titleFontWeight="normal", labelColor="#3a424d",
            titleColor="#3a424d", gridColor="#e8ebef", domainColor="#9aa3ae", tickColor="#9aa3ae",
            labelLimit=190, labelOverlap=True,
        )
        .configure_legend(
            orient="top", direction="horizontal", labelFontSize=12, title=None, columns=4,
            labelColor="#3a424d", symbolType="square", labelLimit=220,
        )
        .configure_range(category=list(COLORS))
    )
    return styled.to_dict()


def stages(units: Sequence[Stage], cycles: int) -> Plot:
    """Busy, stalled and idle cycles of every unit as shares of the frame's cycles."""
    rows = []
    for unit in units:
        idle = max(cycles - unit.busy_cycles - unit.stall_cycles, 0)
        for order, (state, count) in enumerate(
            (("busy", unit.busy_cycles), ("stalled", unit.stall_cycles), ("idle", idle))
        ):
            rows.append({"unit": unit.name, "state": state, "order": order, "cycles": count,
                         "share": count / max(cycles, 1)})
    chart = alt.Chart(alt.Data(values=rows)).mark_bar(height={"band": 0.72}).encode(
        x=alt.X("share:Q").axis(format="%", tickCount=5).title("share of the cycles")
        .scale(domain=[0, 1]),
        y=alt.Y("unit:N").sort(None).title(None),
        color=alt.Color("state:N").scale(domain=["busy", "stalled", "idle"],
                                         range=[BUSY, STALL, IDLE]),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("unit:N"), alt.Tooltip("state:N"), alt.Tooltip("cycles:Q", format=","),
                 alt.Tooltip("share:Q", format=".1%")],
    )
    return Plot(
        key="stages", title="Units",
        caption="Cycles in which each unit worked, had work and could not go on, or had none.",
        spec=chart_spec(chart, 34 * len(units) + 50),
        columns=("unit", "busy cycles", "stalled cycles", "busy share"),
        rows=[(unit.name, f"{unit.busy_cycles:,}", f"{unit.stall_cycles:,}",
               f"{unit.busy_cycles / max(cycles, 1):.1%}") for unit in units],
    )


def breakdown(shares: Sequence[Share]) -> Plot:
    """Where all cycles of the frame went."""
    total = max(sum(share.cycles for share in shares), 1)
    rows = [{"part": share.name, "cycles": share.cycles, "share": share.cycles / total,
             "label": f"{share.cycles / total:.1%}"} for share in shares]
    base = alt.Chart(alt.Data(values=rows)).encode(
        y=alt.Y("part:N").sort(None).title(None),
        x=alt.X("share:Q").axis(format="%", tickCount=4).title("share of the cycles")
        .scale(domain=[0, min(max(row["share"] for row in rows) * 1.3, 1.3)], nice=False),
    )
    bars = base.mark_bar(height={"band": 0.72}, color=BUSY).encode(
        tooltip=[alt.Tooltip("part:N"), alt.Tooltip("cycles:Q", format=","),
                 alt.Tooltip("share:Q", format=".2%")])
    labels = base.mark_text(align="left", dx=5, fontSize=12, color="#3a424d").encode(
        text=alt.Text("label:N"))
    return Plot(
        key="breakdown", title="Where the cycles went",
        caption="Every cycle from the accepted start to the last write response, counted once.",
        spec=chart_spec(alt.layer(bars, labels), 34 * len(rows) + 40),
        columns=("part", "cycles", "share"),
        rows=[(share.name, f"{share.cycles:,}", f"{share.cycles / total:.2%}") for share in shares],
    )


def roofline(machines: Sequence[Machine]) -> Plot:
    """Evaluations per second over evaluations per DRAM byte, under each machine's two roofs."""
    intensities = [machine.evaluations_per_byte for machine in machines]
    ridges = [machine.peak_evaluations_per_s / machine.peak_bytes_per_s for machine in machines]
    low = 10 ** math.floor(math.log10(min(intensities + ridges) / 2))
    high = 10 ** math.ceil(math.log10(max(intensities + ridges) * 2))
    roofs = []
    for machine, ridge in zip(machines, ridges, strict=True):
        for x in sorted({*np.geomspace(low, high, 9).tolist(), ridge}):
            roof = min(machine.peak_evaluations_per_s, x * machine.peak_bytes_per_s)
            roofs.append({"machine": machine.name, "intensity": x, "rate": roof})
    points = [
        {"machine": machine.name, "intensity": machine.evaluations_per_byte,
         "rate": machine.evaluations_per_s,
         "of roof": machine.evaluations_per_s / min(
             machine.peak_evaluations_per_s,
             machine.evaluations_per_byte * machine.peak_bytes_per_s)}
        for machine in machines
    ]
    # Marks in one place are rings, the last one on top.
    for number, point in enumerate(points):
        point["size"] = 110 * (1 + sum(
            all(abs(math.log10(other[key] / point[key])) < 0.02 for key in ("intensity", "rate"))
            for other in points[number + 1:]))
    names = [machine.name for machine in machines]
    x = alt.X("intensity:Q").scale(type="log", domain=[low, high], nice=False).axis(
        format="~s", tickCount=5).title("evaluations per DRAM byte")
    y = alt.Y("rate:Q").scale(type="log").axis(format="~s", tickCount=5).title(
        "evaluations per second")
    color = alt.Color("machine:N").scale(domain=names, range=list(COLORS[: len(names)])).legend(
        symbolType="circle", symbolSize=90, symbolStrokeWidth=0)
    lines = alt.Chart(alt.Data(values=roofs)).mark_line(strokeWidth=2).encode(x=x, y=y, color=color)
    dots = alt.Chart(alt.Data(values=points)).mark_point(
        filled=True, stroke="white", strokeWidth=1, opacity=1).encode(
        x=x, y=y, color=color, size=alt.Size("size:Q").scale(None).legend(None),
        tooltip=[alt.Tooltip("machine:N"), alt.Tooltip("intensity:Q", format=".3s"),
                 alt.Tooltip("rate:Q", format=".3s"), alt.Tooltip("of roof:Q", format=".1%")])
    return Plot(
        key="roofline", title="Roofline",
        caption=(
            "The slope is the memory's roof, the flat part the arithmetic's; the mark is what the "
            "frame reached. An evaluation is one Gaussian at one pixel, useful or not."
        ),
        spec=chart_spec(alt.layer(lines, dots), 300),
        columns=("machine", "evaluations per byte", "reached", "compute roof", "memory roof",
                 "of its roof"),
        rows=[(machine.name, f"{machine.evaluations_per_byte:.3g}",
               si(machine.evaluations_per_s, "/s"), si(machine.peak_evaluations_per_s, "/s"),
               si(machine.peak_bytes_per_s, "B/s"), f"{point['of roof']:.1%}")
              for machine, point in zip(machines, points, strict=True)],
    )


def energy(parts: Sequence[EnergyPart], band_j: tuple[float, float] | None = None) -> Plot:
    """Energy per part, stacked, with the band of the sum."""
    total = sum(part.energy_j for part in parts)
    low, high = band_j or (sum(part.low_j for part in parts), sum(part.high_j for part in parts))
    rows = [{"bar": "all frames", "part": part.name, "order": order, "energy": part.energy_j,
             "share": part.energy_j / max(total, 1e-300)} for order, part in enumerate(parts)]
    names = [part.name for part in parts]
    bars = alt.Chart(alt.Data(values=rows)).mark_bar(height={"band": 0.7}).encode(
        x=alt.X("energy:Q").axis(
            labelExpr="format(datum.value, '~s') + 'J'", tickCount=5).title("energy"),
        y=alt.Y("bar:N").title(None).axis(None),
        color=alt.Color("part:N").scale(domain=names, range=list(COLORS[: len(names)])),
        order=alt.Order("order:Q"),
        tooltip=[alt.Tooltip("part:N"), alt.Tooltip("energy:Q", format=".2s", title="joules"),
                 alt.Tooltip("share:Q", format=".1%")],
    )
    span = alt.Data(values=[{"bar": "all frames", "low": low, "high": high, "total": total}])
    rule = alt.Chart(span).mark_rule(strokeWidth=2, color="#1c232b").encode(
        x=alt.X("low:Q"), x2="high:Q", y="bar:N")
    ends = [alt.Chart(span).mark_tick(thickness=2, size=22, color="#1c232b").encode(
        x=alt.X(f"{end}:Q"), y="bar:N") for end in ("low", "high")]
    return Plot(
        key="energy", title="Energy",
        caption=(
            f"{si(total, 'J', 2)} in all; the line spans the band in which the cited costs leave "
            f"the sum, {si(low, 'J', 2)} to {si(high, 'J', 2)}."
        ),
        spec=chart_spec(alt.layer(bars, rule, *ends), 150),
        columns=("part", "energy", "band", "share", "source"),
        rows=[(part.name, si(part.energy_j, "J", 2),
               f"{si(part.low_j, 'J', 2)} to {si(part.high_j, 'J', 2)}",
               f"{part.energy_j / max(total, 1e-300):.1%}", part.source) for part in parts],
    )
