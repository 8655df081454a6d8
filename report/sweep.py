"""Plots of a sweep: fronts of designs, and what one parameter is worth at a time."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

__all__ = ["fronts", "turned"]

#: Figure -> axis title, factor, whether more is better.
FIGURES: Mapping[str, tuple[str, float, bool]] = {
    "time_s": ("time of the frames, ms", 1e3, False),
    "energy_j": ("energy, mJ", 1e3, False),
    "area_mm2": ("area, mm²", 1.0, False),
    "psnr_db": ("PSNR against the float reference, dB", 1.0, True),
    "lane_um2": ("cells of a lane, µm²", 1.0, False),
}
_COLORS = ("#0072b2", "#c46a00", "#00896b", "#b0569a", "#56748f", "#8a6d00", "#d55e00", "#444b54")
_SIZE = {"width": 380, "height": 260}


def _finite(rows: Sequence[Mapping[str, Any]], *names: str) -> list[Mapping[str, Any]]:
    return [row for row in rows
            if all(row.get(name) is not None and math.isfinite(row[name]) for name in names)]


def _axis(kind: Any, name: str) -> Any:
    return kind(f"{name}:Q").title(FIGURES[name][0]).scale(zero=False)


def _values(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> alt.Data:
    return alt.Data(values=[
        {**{name: row[name] for name in ("design", "scene", "turned", "front", "parameters")},
         x: row[x] * FIGURES[x][1], y: row[y] * FIGURES[y][1]} for row in _finite(rows, x, y)])


def fronts(rows: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> dict[str, Any]:
    """Vega-Lite of every pair of figures; what is on the front over all of them is filled.

    Parameters
    ----------
    rows : sequence of mapping
        Finished points: the figures, ``design``, ``scene``, ``turned``, ``front`` (bool) and
        ``parameters`` (text).
    figures : sequence of str
        Names in :data:`FIGURES`, two at least.

    Raises
    ------
    ValueError
        If there are fewer than two.
    """
    if len(figures) < 2:
        raise ValueError(f"Figures must be two at least, not {', '.join(figures)}")
    charts = []
    for number, x in enumerate(figures):
        for y in figures[number + 1:]:
            charts.append(alt.Chart(_values(rows, x, y)).mark_point(size=45).encode(
                x=_axis(alt.X, x), y=_axis(alt.Y, y),
                color=alt.Color("design:N").title(None).scale(range=list(_COLORS)),
                opacity=alt.condition("datum.front", alt.value(1.0), alt.value(0.25)),
                fill=alt.condition("datum.front", alt.Color("design:N").legend(None),
                                   alt.value("transparent")),
                tooltip=["design:N", "scene:N", "parameters:N", f"{x}:Q", f"{y}:Q"],
            ).properties(**_SIZE))
    return alt.concat(*charts, columns=2).properties(
        title="Designs; filled: no other is better in every figure").to_dict()


def turned(rows: Sequence[Mapping[str, Any]], x: str, y: str = "psnr_db") -> dict[str, Any]:
    """Vega-Lite of a curve for every parameter that is turned alone, a chart for each design.

    Parameters
    ----------
    rows : sequence of mapping
        As :func:`fronts` takes them, and ``value``: what the parameter was turned to.
    x, y : str
        Names in :data:`FIGURES`.
    """
    charts = []
    for design in dict.fromkeys(row["design"] for row in rows):
        own = [row for row in _finite(rows, x, y) if row["design"] == design]
        values = alt.Data(values=[
            {"parameter": row["turned"] or "default", "value": str(row["value"]),
             "scene": row["scene"], "x": row[x] * FIGURES[x][1], "y": row[y] * FIGURES[y][1]}
            for row in own])
        base = alt.Chart(values).encode(
            x=alt.X("x:Q").title(FIGURES[x][0]).scale(zero=False),
            y=alt.Y("y:Q").title(FIGURES[y][0]).scale(zero=False),
            color=alt.Color("parameter:N").title(None).scale(range=list(_COLORS)),
            detail="scene:N", tooltip=["parameter:N", "value:N", "scene:N", "x:Q", "y:Q"])
        charts.append((base.mark_line(point=True).encode(order="x:Q")
                       + base.mark_text(dy=-9, fontSize=9).encode(text="value:N")).properties(
                           title=design, **_SIZE))
    return alt.concat(*charts, columns=2).resolve_scale(color="independent").to_dict()
