"""Heat maps of the frame: what every tile took, one map for each count."""

from collections.abc import Iterator

import altair as alt
import numpy as np

from splatforge.report.plots import Plot, chart_spec
from splatforge.report.records import TileGrid

__all__ = ["heat_maps"]

#: Count -> title, and what is counted; any other count stands under its own name.
_COUNTS = {
    "cycles": ("Cycles", "From the end of the tile before to its own."),
    "cycles of the group": (
        "Cycles of the group", "From the end of the group before to the end of the tile's."),
    "pairs": ("Gaussians listed", "Entries of the tile's list."),
    "pairs_reached": (
        "Gaussians fetched", "Entries of its list that were reached before the tile ended."),
    "pairs_spared": (
        "Gaussians spared", "Entries of its list that its early end spared."),
    "evaluations": (
        "Evaluations", "Pixels at which a Gaussian was evaluated, each time counted."),
    "significant": ("Significant", "Evaluations of a live pixel with alpha of 1/255 or more."),
    "blended": ("Blended", "Evaluations that were added to a pixel."),
    "pixels_stopped": (
        "Pixels ended early", "Pixels in which a Gaussian was the last that could be seen."),
}


def heat_maps(grid: TileGrid, width: int, height: int) -> Iterator[Plot]:
    """Draw every count of every tile; a hover says the tile and the number.

    Parameters
    ----------
    grid : TileGrid
        The counts.
    width, height : int
        Of the frame in pixels.

    Yields
    ------
    Plot
        Of one count, its key ``tiles_`` and the count's name.
    """
    rows, columns = grid.shape
    for name, counts in grid.counts.items():
        title, about = _COUNTS.get(name, (name.replace("_", " "), ""))
        values = [{"row": row, "column": column, "count": int(counts[row, column])}
                  for row in range(rows) for column in range(columns)]
        chart = (
            alt.Chart(alt.Data(values=values))
            # A little larger than their places: smoothing would leave seams between the squares.
            .mark_rect(width={"band": 1.06}, height={"band": 1.06})
            .encode(
                x=alt.X("column:O").axis(None).scale(padding=0),
                y=alt.Y("row:O").axis(None).scale(padding=0),
                color=alt.Color("count:Q").scale(
                    scheme="viridis", domain=[0, max(1, int(np.max(counts, initial=0)))]).legend(
                    orient="bottom", gradientLength=200, direction="horizontal", title=None,
                    format="~s", tickCount=4),
                tooltip=[alt.Tooltip("column:O", title="tile, column"),
                         alt.Tooltip("row:O", title="tile, row"),
                         alt.Tooltip("count:Q", title=title, format=",")],
            )
        )
        yield Plot(
            key="tiles_" + name.replace(" ", "_"), title=title, caption=about,
            spec=chart_spec(chart), aspect=width / height,
            columns=("tiles", "in all", "mean", "largest", "tiles with none"),
            rows=[(f"{np.size(counts):,}", f"{int(np.sum(counts)):,}",
                   f"{float(np.mean(counts)) if np.size(counts) else 0.0:.1f}",
                   f"{int(np.max(counts, initial=0)):,}",
                   f"{int(np.sum(np.equal(counts, 0))):,}")],
        )
