"""The page that compares designs on the same frames: one self-contained file, as that of a run."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from splatforge.report import claims, pictures, plots
from splatforge.report.assemble import cycle_shares, design_machine, energy_parts, gpu_machines
from splatforge.report.compared import compared_plots
from splatforge.report.page import flat, publish, render, scene_title, script_json
from splatforge.report.records import ComparedDesign, Comparison, UnitArea, plain

__all__ = ["compared", "comparison_html", "write_comparison"]


def compared(
    name: str, simulate: Mapping[str, Any], rendered: npt.NDArray[np.float32],
    psnr_db: float | None,
) -> ComparedDesign:
    """One design of a comparison, from what ``splatforge simulate --json`` writes of it.

    Parameters
    ----------
    name : str
        That no other of the page has.
    simulate : mapping
        The figures.
    rendered : ndarray
        The frame of the bit-true model, of shape [height, width, 3] in [0, 1].
    psnr_db : float or None
        The worst of the frames against the float reference; None where they are equal.
    """
    low, high = simulate["energy_band_j"]
    return ComparedDesign(
        name=name, simulate=simulate, rendered=rendered, psnr_db=psnr_db,
        breakdown=cycle_shares(simulate), energy=energy_parts(simulate["energy"])[0],
        energy_band_j=(low, high), bytes=simulate["bytes"],
        unit_areas=[UnitArea(unit=unit, area_mm2=each["area_mm2"], low_mm2=each["area_band_mm2"][0],
                             high_mm2=each["area_band_mm2"][1])
                    for unit, each in simulate["units"].items() if each["area_mm2"]],
        machines=[*design_machine(simulate, name), *gpu_machines(simulate)])


def _rows(comparison: Comparison) -> Iterator[Sequence[str]]:
    for each in comparison.designs:
        of = each.simulate
        yield (
            each.name, f"{of['cycles']:,}",
            plots.si(of["clock_hz"], "Hz") + (", assumed" if of["clock_assumed"] else ""),
            plots.si(of["time_s"], "s"), plots.ratio(of["fps"]),
            plots.si(of["energy_j"], "J", 3),
            "-" if of["area_mm2"] is None else f"{of['area_mm2']:.3g} mm²",
            plots.si(of["bytes_read"], "B"), plots.si(of["bytes_written"], "B"),
            "∞" if each.psnr_db is None else f"{each.psnr_db:.1f} dB",
            "yes" if comparison.fronts[each.name] else "no",
            ", ".join(of["gpu_stages"]))


def _notes(designs: Sequence[ComparedDesign]) -> Iterator[str]:
    """What is not the same of all designs, or left out of a figure."""
    missing: dict[str, None] = {}
    for each in designs:
        for report in each.simulate["energy"]:
            missing |= dict.fromkeys(report["not_modelled"])
    for each in designs:
        if each.simulate["clock_warning"]:
            yield f"Beware of {each.name}: {each.simulate['clock_warning']}."
    yield ("Not every design does the whole of a frame: the table says which stages of a GPU each "
           "stands for. What goes before them is in no figure here.")
    if missing:
        yield f"The energy leaves out: {'; '.join(missing)}."


def comparison_html(comparison: Comparison) -> str:
    """Return the page as text."""
    drawn = list(compared_plots(
        comparison.designs, comparison.fronts, comparison.points))
    height, width, _ = comparison.reference.shape
    shown: Mapping[str, str] = {
        name: pictures.data_uri(pictures.to_bytes(image)) for name, image in (
            *((each.name, each.rendered) for each in comparison.designs),
            ("float reference", comparison.reference))}
    differences = []
    for each in comparison.designs:
        apart, gain = comparison.difference(each), comparison.difference_gain(each)
        differences.append((each.name, pictures.data_uri(pictures.to_bytes(apart * gain)), gain,
                            float(apart.max(initial=0.0)) * 255))
    first, *others = shown
    return render(
        "comparison.html", drawn, comparison=comparison, report=comparison, width=width,
        height=height, shown=shown, first=first, second=others[0],
        differences=differences, pictures=script_json(shown), rows=list(_rows(comparison)),
        notes=list(_notes(comparison.designs)),
        title=f"{len(comparison.designs)} designs on {scene_title(comparison.scene_name)}",
        statuses=list(claims.statuses(comparison.systems)),
        scene=list(flat(plain(comparison.scene))),
        clocks=[(each.name, each.simulate["clock_source"]) for each in comparison.designs],
        memories=[(each.name, list(flat(plain(each.simulate["memory"]))))
                  for each in comparison.designs])


def write_comparison(comparison: Comparison, path: str | os.PathLike[str]) -> Path:
    """Write the page to ``path``, all of it or nothing; folders are made as needed."""
    return publish(path, lambda: comparison_html(comparison))
