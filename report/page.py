"""The HTML page: one self-contained file that loads nothing over a network."""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vl_convert
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from splatforge.report import claims, pictures, plots
from splatforge.report.heat_maps import heat_maps
from splatforge.report.records import Report, plain
from splatforge.report.timeline import timeline
from splatforge.report.unit_costs import unit_areas, unit_energies

__all__ = ["flat", "html", "publish", "render", "scene_title", "script_json", "write"]


@dataclass(frozen=True, kw_only=True)
class _Figure:
    """One headline figure: a label, the number, and a line below it."""

    label: str
    value: str
    note: str
    state: str = ""


def html(report: Report) -> str:
    """Return the page as text.

    Parameters
    ----------
    report : Report
        What to show. Sections of which it holds nothing are left out.
    """
    gain = report.difference_gain
    height, width, _ = report.rendered.shape
    return render(
        "page.html", list(_plots(report)), report=report, width=width, height=height, gain=gain,
        largest=float(report.difference.max(initial=0.0)),
        title=_title(report), figures=_figures(report),
        picture_rtl=pictures.data_uri(pictures.to_bytes(report.rendered)),
        float_of=_float_of(report.cosim),
        picture_float=pictures.data_uri(pictures.to_bytes(report.reference)),
        picture_difference=pictures.data_uri(pictures.to_bytes(report.difference * gain)),
        parameters=list(flat(plain(report.design))),
        memory=list(flat(plain(report.cosim.get("memory", {})))),
        scene=list(flat(plain(report.scene))),
        units=list(_units(report.simulate.get("units", {}))),
        systems=list(_systems(report.simulate.get("systems", {}))),
        streams=list(_streams(report.simulate.get("bytes", {}))),
        statuses=list(claims.statuses(report.systems)),
        si=plots.si, ratio=plots.ratio, frames=_frames(report))


def render(template: str, drawn: Sequence[plots.Plot], **values: Any) -> str:
    """Return a page from its template: the plots, and whatever it needs beside them."""
    page = Path(__file__).parent
    specs = [{"key": plot.key, "spec": plot.spec, "aspect": plot.aspect} for plot in drawn]
    return fill(
        template,
        plots={plot.key: plot for plot in drawn}, specs=script_json(specs),
        css=Markup((page / "page.css").read_text("utf-8")),
        js=Markup((page / "page.js").read_text("utf-8")),
        **values)


def fill(template: str, **values: Any) -> str:
    """Return a page from its template; ``vega`` in it is all that draws a plot."""
    environment = Environment(
        loader=PackageLoader("splatforge.report", "."), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )
    return environment.get_template(template).render(
        vega=Markup(
            vl_convert.javascript_bundle()  # pyright: ignore[reportCallIssue] - has a default
            .replace("</script", "<\\/script")), **values)


def write(report: Report, path: str | os.PathLike[str]) -> Path:
    """Write the page to ``path``, all of it or nothing; folders are made as needed."""
    return publish(path, lambda: html(report))


def publish(path: str | os.PathLike[str], make: Callable[[], str]) -> Path:
    """Write what `make` returns to ``path``, all of it or nothing."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=target.parent, suffix=".part", delete=False
    ) as file:
        try:
            file.write(make())
        except BaseException:
            Path(file.name).unlink()
            raise
    os.chmod(file.name, 0o644)
    os.replace(file.name, target)
    return target


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element."""
    return Markup(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))


def _frames(report: Report) -> str:
    count = report.cosim.get("frames", 1)
    return "1 frame" if count == 1 else f"{count} frames"


def _title(report: Report) -> str:
    cosim = report.cosim
    return f"{cosim.get('design', 'design')} on {scene_title(cosim.get('scene', 'scene'))}"


def scene_title(names: object) -> str:
    """Short name of a scene of one file or more."""
    first, *more = [Path(name).name for name in str(names).split()]
    return first + (f" and {len(more)} more" if more else "")


def _plots(report: Report) -> Iterator[plots.Plot]:
    cycles = int(report.simulate.get("cycles") or 0)
    height, width, _ = report.rendered.shape
    if report.stages:
        yield plots.stages(report.stages, cycles)
    if report.breakdown:
        yield plots.breakdown(report.breakdown)
    if report.tracks:
        yield timeline(report.tracks)
    if report.machines:
        yield plots.roofline(report.machines)
    if report.energy:
        band = report.simulate.get("energy_band_j")
        yield plots.energy(report.energy, (band[0], band[1]) if band else None)
    if report.unit_energies:
        yield unit_energies(report.unit_energies)
    if report.unit_areas:
        yield unit_areas(report.unit_areas)
    if report.tiles is not None:
        yield from heat_maps(report.tiles, width, height)


def _float_of(cosim: Mapping[str, Any]) -> str:
    """What ``psnr_db_vs_float`` and the picture beside the RTL's are of."""
    return ("the float reference" if cosim.get("design", "raster") == "raster"
            else "the design's algorithm in float")


def _same_hits(cosim: Mapping[str, Any]) -> str:
    """What arithmetic alone costs, of a design with a cache."""
    psnr = cosim.get("psnr_db_vs_float_same_hits")
    return "" if psnr is None else f"; {psnr:.1f} dB with the same hits of the cache"


def _figures(report: Report) -> Iterator[_Figure]:
    cosim, simulate = report.cosim, report.simulate
    if "pixels_differing" in cosim:
        differing = cosim["pixels_differing"]
        yield _Figure(
            label="pixels differing", value=f"{differing:,}",
            note=f"of {cosim['pixels']:,}, RTL against the bit-true model",
            state="bad" if differing else "good",
        )
    if "psnr_db_vs_float" in cosim:
        psnr = cosim["psnr_db_vs_float"]
        infinite = psnr is None or psnr == float("inf")
        yield _Figure(
            label="PSNR", value="∞ dB" if infinite else f"{psnr:.1f} dB",
            note=f"RTL against {_float_of(cosim)}, worst frame{_same_hits(cosim)}",
        )
    if cosim.get("cache_bytes_differing") is not None:
        lookups, hits = (cosim["counters"][name]["rtl"] for name in ("lookups", "hits"))
        differing = cosim["cache_bytes_differing"]
        yield _Figure(
            label="cache hits", value=f"{hits / lookups:.1%}" if lookups else "none",
            note=f"{hits:,} of {lookups:,} look-ups; of the saved cache {differing:,} bytes "
                 "differ from the bit-true model",
            state="bad" if differing else "",
        )
    if "rtl_cycles" in cosim:
        yield _Figure(
            label="RTL cycles", value=f"{cosim['rtl_cycles']:,}",
            note=f"{_frames(report)}, start to last write response",
        )
    if "model_cycles" in cosim:
        yield _Figure(
            label="model cycles", value=f"{cosim['model_cycles']:,}",
            note=f"{cosim['cycle_error']:.3%} off at the most",
        )
    if "rtl_bytes_read" in cosim:
        verdict, state = _traffic_verdict(cosim)
        yield _Figure(
            label="DRAM traffic",
            value=plots.si(cosim["rtl_bytes_read"] + cosim["rtl_bytes_written"], "B"),
            note=f"{plots.si(cosim['rtl_bytes_read'], 'B')} read, "
                 f"{plots.si(cosim['rtl_bytes_written'], 'B')} written; {verdict}",
            state=state,
        )
    if "time_s" in simulate:
        yield _Figure(
            label="time", value=plots.si(simulate["time_s"], "s"),
            note=f"at {plots.si(simulate['clock_hz'], 'Hz')}, "
                 f"{simulate['fps']:.4g} frames per second",
        )
    if "energy_j" in simulate:
        low, high = simulate["energy_band_j"]
        yield _Figure(
            label="energy", value=plots.si(simulate["energy_j"], "J", 2),
            note=f"{plots.si(low, 'J', 2)} to {plots.si(high, 'J', 2)} by the cited costs",
        )
    if simulate.get("area_mm2") is not None:
        band = simulate.get("area_band_mm2")
        note = f"{band[0]:.2g} to {band[1]:.2g} mm² " if band else ""
        yield _Figure(label="area", value=f"{simulate['area_mm2']:.2g} mm²",
                      note=f"{note}from the cost table, not placed")


def _units(units: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Rows of energy and area of every unit, a dash where one is not known."""
    for name, unit in units.items():
        energy = area = ("-", "-")
        if unit["energy_j"] is not None:
            low, high = unit["energy_band_j"]
            energy = (plots.si(unit["energy_j"], "J", 2),
                      f"{plots.si(low, 'J', 2)} to {plots.si(high, 'J', 2)}")
        if unit["area_mm2"] is not None:
            low, high = unit["area_band_mm2"]
            area = f"{unit['area_mm2']:.2g} mm²", f"{low:.2g} to {high:.2g} mm²"
        yield name, *energy, *area


def _systems(systems: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Rows of whole frames of a GPU: the reference, with the accelerator, the same without it."""
    for device, system in systems.items():
        frames = system["frames"] - system["first_frame"]
        whole = system["gpu"]
        yield (f"{device}, reference", plots.si(whole["time_s"] / frames, "s"), "-", "-", "-",
               plots.si(whole["energy_j"] / frames, "J"), "1 \u00d7", "1 \u00d7")
        for name, text in (("accelerated", "with the accelerator"), ("gpu_alone", "alone")):
            each = system[name]
            time, waits, projects, draws = (
                plots.si(each[f"{part}_s"] / frames, "s")
                for part in ("time", "waited", "refresh", "draw"))
            yield (f"{device} {text}", time, waits, projects if name == "accelerated" else "-",
                   draws,
                   plots.si(each["energy_j"] / frames, "J"),
                   *(f"{plots.ratio(each[key])} \u00d7" for key in ("speedup", "energy_saving")))


def _streams(streams: Mapping[str, int]) -> Iterator[tuple[str, ...]]:
    """Rows of the bytes of every stream of which there are any."""
    whole = sum(streams.values())
    for name, number in streams.items():
        if number:
            yield name.replace("_", " "), f"{number:,}", f"{number / whole:.1%}"


def _traffic_verdict(cosim: Mapping[str, Any]) -> tuple[str, str]:
    """What the model says of the RTL's bytes, and the state of the figure.

    What is fetched behind an early stop depends on when the stop comes, to the cycle; it is
    counted apart, and all other bytes must be equal.
    """
    difference = [cosim[f"rtl_bytes_{way}"] - cosim.get(f"model_bytes_{way}", 0)
                  for way in ("read", "written")]
    if difference == [0, 0]:
        return "the model says the same", ""
    behind = cosim.get("counters", {}).get("overfetch_bytes", {"rtl": 0, "model": 0})
    if difference == [behind["rtl"] - behind["model"], 0]:
        return f"the model says {abs(difference[0]):,} B other, all behind early stops", ""
    return "the model says something else", "bad"


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Leaves of nested plain data as (dotted name, text)."""
    if isinstance(value, Mapping):
        for key, entry in value.items():
            yield from flat(entry, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list) and any(isinstance(entry, list | Mapping) for entry in value):
        for number, entry in enumerate(value):
            yield from flat(entry, f"{prefix}[{number}]")
    elif isinstance(value, list):
        yield prefix, ", ".join(_text(entry) for entry in value)
    else:
        yield prefix, _text(value)


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
