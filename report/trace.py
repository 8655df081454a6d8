"""Frames as a trace in Chrome's Trace Event Format, which Perfetto and chrome://tracing load."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from splatforge.report.records import UnitTrack

__all__ = ["chrome_trace"]

#: Everything is of one process: the accelerator.
_PROCESS = 1
_FRAMES, _TILES, _UNITS = 1, 2, 3


def chrome_trace(
    title: str, frames: Sequence[Sequence[UnitTrack]], cycles: Sequence[int], clock_hz: float, *,
    tiles: Sequence[Sequence[tuple[str, int, int]]] = (),
) -> dict[str, Any]:
    """Return frames one after another as the object of a trace file.

    Every unit is a thread; a slice is a run of windows in which one state took the most cycles, its
    arguments the cycles of every state in it, and a counter beside it has the shares of each
    window. What a window had inside is not known, and not drawn. Begin and end of a slice are whole
    nanoseconds: Perfetto rounds what it reads to those, and drops a slice that then begins before
    the one in front of it has ended.

    Parameters
    ----------
    title : str
        Of the accelerator.
    frames : sequence of sequence of UnitTrack
        Of every frame its units.
    cycles : sequence of int
        Of every frame.
    clock_hz : float
        Makes times of cycles.
    tiles : sequence of sequence of tuple
        Of every frame the name, first and last cycle of what the array ended, in that order.

    Raises
    ------
    ValueError
        If the clock is not positive.
    """
    if not clock_hz > 0:
        raise ValueError(f"Clock must be positive, not {clock_hz!r} Hz")
    ns = 1e9 / clock_hz
    units = list(dict.fromkeys(track.unit for tracks in frames for track in tracks))
    threads = {_FRAMES: "frames", **({_TILES: "tiles"} if tiles else {}),
               **{_UNITS + place: unit for place, unit in enumerate(units)}}
    events: list[dict[str, Any]] = [
        {"ph": "M", "pid": _PROCESS, "name": "process_name", "args": {"name": title}}]
    for thread, name in threads.items():
        events.append({"ph": "M", "pid": _PROCESS, "tid": thread, "name": "thread_name",
                       "args": {"name": name}})
        events.append({"ph": "M", "pid": _PROCESS, "tid": thread, "name": "thread_sort_index",
                       "args": {"sort_index": thread}})
    begun = 0
    for number, (tracks, length) in enumerate(zip(frames, cycles, strict=True)):
        events.append(_slice(f"frame {number}", "frame", _FRAMES, begun * ns,
                             (begun + length) * ns, {"cycles": length}))
        for name, first, last in tiles[number] if tiles else ():
            if last > first:
                events.append(_slice(name, "tile", _TILES, (begun + first) * ns,
                                     (begun + last) * ns, {"cycles": last - first}))
        for track in tracks:
            events += _unit(track, _UNITS + units.index(track.unit), begun, ns)
        begun += length
    return {"traceEvents": events, "displayTimeUnit": "ns",
            "otherData": {"clock_hz": clock_hz, "cycles": begun}}


def _slice(name: str, category: str, thread: int, begun_ns: float, ended_ns: float,
           arguments: dict[str, Any]) -> dict[str, Any]:
    begun, ended = round(begun_ns), round(ended_ns)
    return {"ph": "X", "pid": _PROCESS, "tid": thread, "name": name, "cat": category,
            "ts": begun / 1000, "dur": (ended - begun) / 1000, "args": arguments}


def _unit(track: UnitTrack, thread: int, begun: int, ns: float) -> Iterator[dict[str, Any]]:
    edges, states = np.asarray(track.edges), track.every_state()
    names = list(states)
    spent = np.array([states[name] for name in names])
    most = np.argmax(spent, axis=0)
    firsts = np.flatnonzero(np.diff(most, prepend=-1))
    for first, behind in zip(firsts, [*firsts[1:], len(most)], strict=True):
        yield _slice(
            names[most[first]], track.unit, thread, (begun + int(edges[first])) * ns,
            (begun + int(edges[behind])) * ns,
            {f"{name} cycles": float(row[first:behind].sum())
             for name, row in zip(names, spent, strict=True)})
    shares = 100 * spent / np.maximum(spent.sum(axis=0), 1e-12)
    for window in range(len(most)):
        yield {"ph": "C", "pid": _PROCESS, "name": f"{track.unit}, %",
               "ts": round((begun + int(edges[window])) * ns) / 1000,
               "args": {name: round(float(share), 4) for name, share in zip(
                   names, shares[:, window], strict=True) if name != "idle"}}
