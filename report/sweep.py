"""Plots of a sweep: fronts of designs, and what one parameter is worth at a time."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from splatforge.report.page import fill, script_json

__all__ = ["fronts", "grid", "page", "together", "turned"]

#: Figure -> axis title, factor, whether more is better.
FIGURES: Mapping[str, tuple[str, float, bool]] = {
    "time_s": ("time of the frames, ms", 1e3, False),
    "energy_j": ("energy, mJ", 1e3, False),
    "area_mm2": ("area, mm²", 1.0, False),
    "psnr_db": ("PSNR against the float reference, dB", 1.0, True),
    "lane_um2": ("cells of a lane, µm²", 1.0, False),
}
_COLORS = ("#0072b2", "#c46a00", "#00896b", "#b0569a", "#56748f", "#8a6d00", "#d55e00", "#444b54")
#: Two fit side by side on a desk, one on a telephone.
_SIZE = {"width": 290, "height": 220}
#: Marks as near as that are one, which tells so many of its designs.
_COVERED_PX, _NAMED = 3.0, 4


def _finite(rows: Sequence[Mapping[str, Any]], *names: str) -> list[Mapping[str, Any]]:
    return [row for row in rows
            if all(row.get(name) is not None and math.isfinite(row[name]) for name in names)]


def _axis(kind: Any, name: str, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Axis of a figure, with room for marks at its ends."""
    axis, factor = kind(f"{name}:Q").title(FIGURES[name][0]), FIGURES[name][1]
    values = [row[name] * factor for row in _finite(rows, name)]
    if values and math.isclose(min(values), max(values), rel_tol=1e-6):
        # Of one value alone Vega rounds the label of the only tick: 68.8 dB would stand at 69.
        return axis.scale(domain=[0.95 * values[0], 1.05 * values[0]], nice=False)
    return axis.scale(zero=False, padding=10)


def together(points: Sequence[Mapping[str, Any]], x: str, y: str) -> list[dict[str, Any]]:
    """Marks that would cover each other as one; small ones, and a front's, above others.

    Parameters
    ----------
    points : sequence of mapping
        ``design``, ``front``, ``parameters``, figures `x` and `y`, and perhaps ``size``. Points of
        one design, all or none of them on the front, become one where some 3 pixels apart.

    Returns
    -------
    list of dict
        The first of each place, with ``count``, how many are there, and in ``parameters`` what some
        of them are.
    """
    if not points:
        return []
    spans = {name: (max(each[name] for each in points) - min(each[name] for each in points)) or 1.0
             for name in (x, y)}
    places: dict[tuple[object, ...], list[Mapping[str, Any]]] = {}
    for each in points:
        at = (round(each[x] / spans[x] * _SIZE["width"] / _COVERED_PX),
              round(each[y] / spans[y] * _SIZE["height"] / _COVERED_PX))
        places.setdefault((each["design"], each["front"], *at), []).append(each)
    made = []
    for here in places.values():
        names = list(dict.fromkeys(each["parameters"] for each in here if each["parameters"]))
        more = f" | {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        made.append({**here[0], "count": len(here),
                     "parameters": " | ".join(names[:_NAMED]) + more})
    return sorted(made, key=lambda each: (-each.get("size", 0), each["front"]))


def _values(rows: Sequence[Mapping[str, Any]], x: str, y: str) -> alt.Data:
    return alt.Data(values=together([
        {**{name: row[name] for name in ("design", "scene", "turned", "front", "parameters")},
         x: row[x] * FIGURES[x][1], y: row[y] * FIGURES[y][1]} for row in _finite(rows, x, y)],
        x, y))


#: Charts of one heading.
Group = tuple[str, list[dict[str, Any]]]


def fronts(rows: Sequence[Mapping[str, Any]], figures: Sequence[str]) -> list[Group]:
    """Vega-Lite of every pair of figures; what is on the front over all of them is filled.

    Frames of one scene and size have charts of their own, and so have the designs that do the same
    part of them: nothing else is there to be compared.

    Parameters
    ----------
    rows : sequence of mapping
        Finished points: the figures, ``design``, ``scene``, ``turned``, ``front`` (bool),
        ``parameters`` and ``view``, the heading that they stand under (text).
    figures : sequence of str
        Names in :data:`FIGURES`, two at least.

    Returns
    -------
    list of (str, list of dict)
        A heading, and its charts.

    Raises
    ------
    ValueError
        If there are fewer than two.
    """
    if len(figures) < 2:
        raise ValueError(f"Figures must be two at least, not {', '.join(figures)}")
    groups = []
    designs = list(dict.fromkeys(row["design"] for row in rows))
    for view in dict.fromkeys(row["view"] for row in rows):
        own = [row for row in rows if row["view"] == view]
        charts = [_front(own, x, y, designs)
                  for number, x in enumerate(figures) for y in figures[number + 1:]]
        groups.append((view, charts))
    return groups


def _front(rows: Sequence[Mapping[str, Any]], x: str, y: str, designs: Sequence[str]
           ) -> dict[str, Any]:
    # A design has one colour on the whole page.
    color = alt.Color("design:N").title(None).scale(
        domain=list(designs), range=list(_COLORS)).legend(
        orient="bottom", values=list(dict.fromkeys(row["design"] for row in rows)))
    return alt.Chart(_values(rows, x, y)).mark_point().encode(
        x=_axis(alt.X, x, rows), y=_axis(alt.Y, y, rows), color=color,
        size=alt.Size("count:Q").scale(type="log", domain=[1, 100], range=[45, 320],
                                       clamp=True).legend(None),
        opacity=alt.condition("datum.front", alt.value(1.0), alt.value(0.4)),
        fill=alt.condition("datum.front", color, alt.value("transparent")),
        tooltip=["design:N", "scene:N", "parameters:N",
                 alt.Tooltip("count:Q", title="designs here"),
                 *(alt.Tooltip(f"{name}:Q", format=".4g", title=FIGURES[name][0])
                   for name in (x, y))],
    ).properties(**_SIZE).to_dict()


def _short(parameters: str) -> str:
    """A parameter for people: the last two parts of its first name."""
    return ".".join(parameters.split(",")[0].strip().split(".")[-2:])


def _rank(value: str) -> tuple[float, str]:
    """What a parameter's values are sorted by: the last number, of formats the fraction bits."""
    numbers = re.findall(r"\d+(?:\.\d+)?", value)
    return (float(numbers[-1]) if numbers else math.inf, value)


def turned(rows: Sequence[Mapping[str, Any]], x: str, y: str = "psnr_db") -> list[Group]:
    """Vega-Lite of a curve for every parameter that is turned alone, under a heading a design.

    The curves of a design have one scale of `y`, and an `x` of their own.

    Parameters
    ----------
    rows : sequence of mapping
        As :func:`fronts` takes them, and ``value``: what the parameter was turned to. Those that
        turn nothing have in ``values`` what each turned parameter is there; they are part of every
        curve.
    x, y : str
        Names in :data:`FIGURES`.

    Returns
    -------
    list of (str, list of dict)
        A design, and its charts.
    """
    groups = []
    known = _finite(rows, x, y)
    for design in dict.fromkeys(row["design"] for row in known):
        own = [row for row in known if row["design"] == design]
        heights = [row[y] * FIGURES[y][1] for row in own]
        margin = 0.1 * (max(heights) - min(heights)) or 1.0
        charts = []
        for name in dict.fromkeys(row["turned"] for row in own if row["turned"]):
            points = [
                {"value": str(row["value"] if row["turned"] else row["values"][name]),
                 "scene": row["scene"], "usual": not row["turned"],
                 "x": row[x] * FIGURES[x][1], "y": row[y] * FIGURES[y][1]}
                for row in own
                if row["turned"] == name or (not row["turned"] and name in row["values"])]
            points.sort(key=lambda point: _rank(point["value"]))
            points = [point | {"rank": rank} for rank, point in enumerate(points)]
            base = alt.Chart(alt.Data(values=points)).encode(
                x=alt.X("x:Q").title(FIGURES[x][0]).scale(zero=False, padding=28).axis(
                    tickCount=4),
                y=alt.Y("y:Q").title(FIGURES[y][0]).scale(
                    domain=[min(heights) - 1.5 * margin, max(heights) + 1.5 * margin], nice=False),
                detail="scene:N", tooltip=["value:N", "scene:N", *(
                    alt.Tooltip(f"{name}:Q", format=".4g", title=FIGURES[figure][0])
                    for name, figure in (("x", x), ("y", y)))])
            if len({row["scene"] for row in own}) > 1:
                base = base.encode(color=alt.Color("scene:N").title(None).scale(
                    range=list(_COLORS)).legend(orient="bottom"))
            dot = alt.condition("datum.usual", alt.value("black"), alt.value("white"))
            text = {"text": alt.Text("value:N"), "color": alt.value("#222")}
            charts.append((
                base.mark_line().encode(order="rank:Q")
                + base.mark_point(size=40, filled=True, strokeWidth=1.5, opacity=1.0).encode(
                    fill=dot, stroke=alt.value(_COLORS[0]))
                # Neighbours on a plateau would cover each other.
                + base.transform_filter("datum.rank % 2 == 0").mark_text(
                    dy=-10, fontSize=10).encode(**text)
                + base.transform_filter("datum.rank % 2 == 1").mark_text(
                    dy=13, fontSize=10).encode(**text)
            ).properties(title=_short(name), **_SIZE).to_dict())
        if charts:
            groups.append((design, charts))
    return groups


def grid(groups: Sequence[Group]) -> dict[str, Any]:
    """All charts in one picture, a row for each heading or, of one heading, two in a row."""
    config = next((spec["config"] for _, charts in groups for spec in charts), {})

    def beside(title: str, charts: list[dict[str, Any]], columns: int) -> dict[str, Any]:
        return {"title": title, "columns": columns, "concat": [
            {key: value for key, value in spec.items() if key not in ("config", "$schema")}
            for spec in charts]}

    schema = {"$schema": alt.SCHEMA_URL, "config": config}
    if len(groups) == 1:
        return schema | beside(*groups[0], columns=2)
    return schema | {"vconcat": [
        beside(title, charts, columns=len(charts)) for title, charts in groups]}


def page(groups: Sequence[Group], title: str, note: str) -> str:
    """All charts as a page that loads nothing over a network, as many in a row as there is room.

    Parameters
    ----------
    groups : sequence of (str, list of dict)
        From :func:`fronts` or :func:`turned`.
    title, note : str
        Its heading, and the line below.
    """
    return fill(
        "sweep.html", title=title, note=note,
        groups=[(heading, len(charts)) for heading, charts in groups],
        specs=script_json([spec for _, charts in groups for spec in charts]))
