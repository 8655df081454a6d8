"""The pipeline over the cycles of a frame: every unit a band, its states stacked."""

from collections.abc import Sequence

import altair as alt
import numpy as np

from splatforge.report.plots import BUSY, IDLE, STALL, Plot, chart_spec
from splatforge.report.records import UnitTrack

__all__ = ["timeline"]

#: State -> colour, in the order in which they are stacked.
STATES = {"busy": BUSY, "skipping": "#7db8dc", "stalled": STALL, "starved": "#a8483b",
          "idle": IDLE}
#: Windows at most that are drawn of a unit: more are narrower than a pixel of a phone.
_DRAWN = 160


def timeline(tracks: Sequence[UnitTrack]) -> Plot:
    """Draw what share of each window every unit spent in which state."""
    values, rows = [], []
    for place, track in enumerate(tracks):
        every = track.every_state()
        names = [name for name in STATES if name in every]
        edges = np.asarray(track.edges)
        merged = -(-(len(edges) - 1) // _DRAWN)
        firsts = np.arange(0, len(edges) - 1, merged)
        ends = np.append(firsts[1:], len(edges) - 1)
        sums = np.array([np.add.reduceat(every[name], firsts) for name in names])
        shares = sums / np.maximum(sums.sum(axis=0), 1e-12)
        tops = np.cumsum(shares, axis=0)
        for at, name in enumerate(names):
            if name == "idle":
                continue  # the band behind is of its colour
            for window in np.flatnonzero(sums[at] > 0):
                values.append({
                    "unit": track.unit, "state": name,
                    "from": int(edges[firsts[window]]), "to": int(edges[ends[window]]),
                    "low": round(place + 0.92 - 0.84 * float(tops[at, window]), 4),
                    "high": round(
                        place + 0.92 - 0.84 * float(tops[at, window] - shares[at, window]), 4),
                    "cycles": round(float(sums[at, window]), 1),
                    "share": round(float(shares[at, window]), 4)})
        total = int(edges[-1])
        rows.append((track.unit, *(
            f"{float(every[name].sum()) / total:.1%}" if name in every else "-"
            for name in STATES), f"{len(edges) - 1:,}"))
    end = max(int(track.edges[-1]) for track in tracks)
    bands = alt.Data(values=[
        {"unit": track.unit, "from": 0, "to": end, "low": place + 0.08, "high": place + 0.92}
        for place, track in enumerate(tracks)])
    names = [name for name in STATES if name == "idle" or any(
        name in track.states for track in tracks)]
    units = [track.unit for track in tracks]
    x = alt.X("from:Q").scale(domain=[0, end], nice=False).axis(
        format="~s", tickCount=6).title("cycle of the frame")
    y = alt.Y("low:Q").scale(domain=[0, len(units)], reverse=True, nice=False).title(None).axis(
        values=[place + 0.5 for place in range(len(units))], grid=False, ticks=False,
        domain=False, labelExpr=f"{units!r}[floor(datum.value)]")
    behind = alt.Chart(bands).mark_rect(color=IDLE).encode(
        x=x, x2="to:Q", y=y, y2="high:Q")
    # Strokes close the seams that smoothing leaves between neighbours.
    front = alt.Chart(alt.Data(values=values)).mark_rect(strokeWidth=0.6).encode(
        x=x, x2="to:Q", y=y, y2="high:Q",
        color=alt.Color("state:N").scale(
            domain=names, range=[STATES[name] for name in names]),
        stroke=alt.Stroke("state:N").scale(
            domain=names, range=[STATES[name] for name in names]),
        tooltip=[alt.Tooltip("unit:N"), alt.Tooltip("state:N"),
                 alt.Tooltip("from:Q", format=",", title="from cycle"),
                 alt.Tooltip("to:Q", format=",", title="to cycle"),
                 alt.Tooltip("cycles:Q", format=","), alt.Tooltip("share:Q", format=".1%")])
    return Plot(
        key="timeline", title="Timeline of the units",
        caption=(
            "The shares of its states in each stretch of the frame, from the cycle model's "
            "counters. Stalled: it had work and could not go on; starved: none came; skipping: the "
            "array passed over Gaussians that meet no live pixel. Reads: beats on the read "
            "channel, stalled where an address waits."),
        spec=chart_spec(alt.layer(behind, front), 46 * len(units) + 70),
        columns=("unit", *STATES, "windows"), rows=rows,
    )
