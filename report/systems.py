"""Plots of the GPU-side systems, from plain curves."""

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

__all__ = ["bars", "curves", "groups", "picture"]

_SIZE = {"width": 480, "height": 260}
#: Points of a curve at most that are drawn as such.
_DOTS = 60


def curves(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Vega-Lite of figures one below the other.

    Parameters
    ----------
    figures : sequence of mapping
        Each with ``title``, ``x``, ``y`` and ``series``: name -> points (x, y).
    """
    charts = list[alt.Chart]()
    for figure in figures:
        values = [{"series": name, "x": x, "y": y}
                  for name, points in figure["series"].items() for x, y in points]
        chart = alt.Chart(alt.Data(values=values), title=figure["title"])
        dots = max(map(len, figure["series"].values()), default=0) <= _DOTS
        charts.append(chart.mark_line(point=dots, strokeJoin="round").encode(
            x=alt.X("x:Q").title(figure["x"]).scale(zero=False), y=alt.Y("y:Q").title(figure["y"]),
            color=alt.Color("series:N").title(None).sort(None), detail="series:N",
            order=alt.Order("x:Q"),
        ).properties(**_SIZE))
    return alt.vconcat(*charts).resolve_scale(color="independent").to_dict()


def bars(title: str, values: Mapping[str, float]) -> dict[str, Any]:
    """Vega-Lite of one value for each name."""
    rows = [{"name": name, "value": value} for name, value in values.items()]
    return alt.Chart(alt.Data(values=rows), title=title).mark_bar().encode(
        x=alt.X("value:Q").title(None), y=alt.Y("name:N").title(None).sort(None),
    ).properties(width=_SIZE["width"]).to_dict()


def groups(runs: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """Vega-Lite of the metrics of several runs: one below the other, each with its own scale."""
    rows = [{"run": run, "metric": metric, "value": value}
            for run, metrics in runs.items() for metric, value in metrics.items()]
    return alt.Chart(alt.Data(values=rows)).mark_bar().encode(
        x=alt.X("value:Q").title(None), y=alt.Y("run:N").title(None).sort(None),
        row=alt.Row("metric:N").title(None).sort(None).header(labelAngle=0, labelAlign="left"),
    ).properties(width=_SIZE["width"]).resolve_scale(x="independent").to_dict()


def picture(spec: Mapping[str, Any], extension: str) -> bytes:
    """A plot as the bytes of a file: ``.svg``, ``.png``, ``.html`` or ``.json``.

    Raises
    ------
    ValueError
        If the extension is another.
    """
    import json

    import vl_convert

    makers = {
        ".svg": lambda: vl_convert.vegalite_to_svg(dict(spec)).encode(),
        ".png": lambda: vl_convert.vegalite_to_png(dict(spec), scale=2),
        ".html": lambda: vl_convert.vegalite_to_html(dict(spec), bundle=True).encode(),
        ".json": lambda: (json.dumps(spec, indent=1) + "\n").encode(),
    }
    if extension not in makers:
        raise ValueError(f"Plot must be one of {', '.join(makers)}, not {extension!r}")
    return makers[extension]()
