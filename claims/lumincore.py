"""Lumina whole on captures, before a head in motion: a mobile GPU with LuminCore, or alone.

``lumincore_runs.json`` holds what was counted of a window of frames, behind the one that fills the
cache: by the cycle model with all of Lumina, without its cache, without shared sorting, and without
either; of warps of a GPU that draws the same by itself; and of the reference on that GPU. Memory is
that of the paper, its timing in ns, the clock the paper's. With them stands a digest of the
parameters: other parameters are counted anew. Captures and traces of heads are not shipped: where
they are at hand, ``python -m splatforge.claims.lumincore SCENES CAMERAS [FRAME...]`` runs them
anew, and a test compares. Times, energies and ratios are worked out from the counts.
"""

import hashlib
import json
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache, reduce
from importlib.resources import files
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from splatforge.algos import reference
from splatforge.algos.lumina import prepare_sequence, render
from splatforge.algos.lumina.render import LuminaFrame, LuminaInput
from splatforge.algos.project import project
from splatforge.algos.quality import psnr_db
from splatforge.claims.frames import RECIPES
from splatforge.claims.mean import over_scenes
from splatforge.claims.techniques import counts_of
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.lumina import PRESETS, LuminaDesign
from splatforge.designs.memory import BankedMemory
from splatforge.scenes import follow, load, load_eyenavgs
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import Sourced, default_costs
from splatforge.sim.dram import DramCounts
from splatforge.sim.dram_energy import dram_costs
from splatforge.sim.energy import EnergyReport, energy_of_units
from splatforge.sim.gpu import FrameWork, GpuDevice, GpuRun, devices, gpu_frame
from splatforge.sim.lumina import simulate
from splatforge.sim.parts import lumina_events, lumina_inventory, lumina_parts
from splatforge.sim.run import Run
from splatforge.sim.sharing import SortWork, Walk, frame_times, rasterize, refresh, sort, walk
from splatforge.sim.simulate import ASSUMED_CLOCK

__all__ = ["FRAMES", "MEMORY", "TRACE", "VARIANTS", "chip_area", "count", "count_all",
           "digest", "energy_saved", "energy_saving", "feature_buffer", "frame_rate",
           "memory_bytes", "output_buffer", "psnr_loss", "queue", "speedup"]

_COUNTED = "counted by the cycle model"
_TABLE = Path(str(files("splatforge.claims"))) / "lumincore_runs.json"
#: Captures that are run, names of :data:`splatforge.claims.frames.RECIPES`.
FRAMES = tuple(f"{name}_800x800" for name in ("fox", "fourth_st", "angel"))
#: Presets of :class:`splatforge.designs.lumina.LuminaDesign`: all of it, shared sorting alone, the
#: cache alone, neither.
VARIANTS = ("default", "sharing", "caching", "plain")
#: The memory of the paper: four channels.
MEMORY = "lpddr3-1600"
#: A trace of EyeNavGS, and its first sample that is followed.
TRACE, _START = "eyenavgs_user101_truck.csv.gz", 200
#: Frames of a path: two windows, of which the second is counted.
_WINDOW = PRESETS["default"].sharing.window
_LENGTH = 2 * _WINDOW


def digest(variant: str) -> str:
    """What changes if a parameter of a variant, or of its memory, does."""
    text = f"{PRESETS[variant]!r} {DRAMS[MEMORY]!r}"
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Frames as lists by name."""
    return {name: [row[name] for row in rows] for name in rows[0]}


def _rows(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """The inverse."""
    return [dict(zip(columns, values, strict=True))
            for values in zip(*columns.values(), strict=True)]


def _counted(frame: LuminaInput, picture: LuminaFrame, design: LuminaDesign) -> dict[str, Any]:
    """What a frame of a variant takes."""
    work = picture.workload
    memory = BankedMemory(dram=DRAMS[MEMORY], clock_hz=ASSUMED_CLOCK.value)
    run = simulate(frame, work, design, memory)
    assert run.dram is not None  # it is banked
    return {
        "counters": dict(run.counters), "actions": dict(run.actions), "dram": asdict(run.dram),
        "sort": asdict(SortWork.of(frame.lists, frame.gaussians, frame.sh_degree)),
        "walk": asdict(walk(work)),
        "work": {
            "first": frame.number == 0,
            "beside": design.sharing.lead_frames if frame.window.predicted else 0,
            "fragments": work.significant, "evaluations": work.evaluations,
            "false_hits": work.false_hits}}


def count(name: str, scenes: Path, cameras: Path) -> dict[str, Any]:
    """What is counted of a path before a capture.

    Parameters
    ----------
    name : str
        Of :data:`FRAMES`.
    scenes, cameras : Path
        Where the captures and the traces are.
    """
    recipe = RECIPES[name]
    scene = load(*(scenes / file for file in recipe.captures))
    trace = load_eyenavgs(cameras / TRACE).cameras[_START:_START + _LENGTH]
    path = follow(recipe.camera(scene), trace)
    exact = [reference.render(scene, camera, statistics=True) for camera in path[_WINDOW:]]
    gpu = []
    for camera, frame in zip(path[_WINDOW:], exact, strict=True):
        assert frame.statistics is not None  # it was asked for
        gpu.append(asdict(FrameWork.from_statistics(
            frame.statistics, gaussians=scene.gaussians,
            gaussians_visible=len(project(scene, camera)), sh_degree=scene.sh_degree,
            pixels=camera.width * camera.height)))
    rows: dict[str, list[dict[str, Any]]] = {variant: [] for variant in VARIANTS}
    before: dict[str, int] = dict.fromkeys(VARIANTS, 0)
    for cached, plain in (("default", "sharing"), ("caching", "plain")):
        banks = None
        for number, frame in enumerate(prepare_sequence(scene, path, PRESETS[cached])):
            picture = render(frame, PRESETS[cached], banks=banks)
            banks = picture.banks
            # Without the cache: what is blended is the same, and nothing hits.
            without = replace(picture, state=picture.uncached.state, banks=None,
                              workload=replace(picture.workload, visits=None))
            for variant, seen in ((cached, picture), (plain, without)):
                design = PRESETS[variant]
                # Beside the frame before the window its sort goes on, if it is predicted.
                beside = design.sharing.lead_frames if design.sharing.window > 1 else 0
                if number < _WINDOW - beside:
                    continue
                counted = _counted(frame, seen, design)
                if number < _WINDOW:
                    before[variant] += counted["counters"]["cycles"]
                    continue
                counted["work"]["psnr_db"] = float(
                    psnr_db(seen.image, exact[number - _WINDOW].image))
                rows[variant].append(counted)
    return {
        "clock_hz": ASSUMED_CLOCK.value, "gpu": _columns(gpu),
        "variants": {variant: {
            "digest": digest(variant), "cycles_before": before[variant],
            **{part: _columns([row[part] for row in rows[variant]])
               for part in ("work", "sort", "walk", "counters", "actions", "dram")}}
            for variant in VARIANTS}}


@cache
def _table() -> dict[str, dict[str, Any]]:
    return json.loads(_TABLE.read_text("utf-8"))


def _variant(name: str, variant: str) -> dict[str, Any]:
    return counts_of({each: of["variants"] for each, of in _table().items()}, name, variant)


def _device(name: str) -> GpuDevice:
    known = devices()
    if name not in known:
        raise ValueError(f"GPU must be one of {', '.join(known)}, not {name!r}")
    return known[name]


@cache
def _energies(name: str, variant: str, node_nm: float) -> tuple[EnergyReport, ...]:
    """Energy of the accelerator and its memory, of every frame."""
    counted, design, dram = _variant(name, variant), PRESETS[variant], DRAMS[MEMORY]
    reports = []
    for work, counters, actions, moved in zip(*(
            _rows(counted[part]) for part in ("work", "counters", "actions", "dram")), strict=True):
        run = Run.of(design, counters, np.zeros(0, np.int64), actions=actions,
                     dram=DramCounts(**moved))
        events = lumina_events(
            design, run, pixels=RECIPES[name].width * RECIPES[name].height,
            fragments=work["fragments"], clock_hz=_table()[name]["clock_hz"],
            table=default_costs())
        reports.append(energy_of_units(
            events, node_nm=node_nm, dram=dram.name, costs=dram_costs(dram)))
    return tuple(reports)


@dataclass(frozen=True, kw_only=True)
class _Total:
    """A window of frames: time in s, the parts of it by name, energy in J without LuminCore's."""

    time: Sourced
    parts: Mapping[str, float]
    gpu_energy: Sourced


def _gpu_total(runs: Sequence[GpuRun]) -> _Total:
    return _Total(time=reduce(add, (run.time for run in runs)), parts={},
                  gpu_energy=reduce(add, (run.energy for run in runs)))


def _reference(name: str, device: GpuDevice) -> _Total:
    """The reference on a GPU."""
    return _gpu_total([gpu_frame(FrameWork(**row), device) for row in _rows(_table()[name]["gpu"])])


def _sorts(counted: Mapping[str, Any], device: GpuDevice) -> list[tuple[int, GpuRun, int]]:
    """First frames, sorts and frames that these go on beside, of the windows that are counted."""
    return [(number, sort(SortWork(**work), device), row["beside"])
            for number, (row, work) in enumerate(zip(
                _rows(counted["work"]), _rows(counted["sort"]), strict=True)) if row["first"]]


def _alone(name: str, variant: str, device: GpuDevice) -> _Total:
    """What a variant is on the GPU alone: it sorts, then draws."""
    counted = _variant(name, variant)
    draws = [GpuRun(device=device, stages=(
        *refresh(SortWork(**work), device, features=False).stages,
        *rasterize(Walk(**done), PRESETS[variant].radiance, device).stages))
        for work, done in zip(_rows(counted["sort"]), _rows(counted["walk"]), strict=True)]
    return _gpu_total([*draws, *(run for _, run, _ in _sorts(counted, device))])


def _accelerated(name: str, variant: str, device: GpuDevice) -> _Total:
    """A variant on the GPU with LuminCore."""
    counted, clock_hz = _variant(name, variant), _table()[name]["clock_hz"]
    source = f"{_COUNTED} at {clock_hz / 1e6:g} MHz, which the paper assumes"
    none = Sourced.exact(0, "s", source)
    draws = [Sourced.exact(cycles / clock_hz, "s", source) for cycles in (
        counted["cycles_before"], *counted["counters"]["cycles"])]
    refreshes = [refresh(SortWork(**work), device) for work in _rows(counted["sort"])]
    sorts = _sorts(counted, device)
    # What lies before the window counts as one frame.
    times = frame_times(
        [none, *(run.time for run in refreshes)], draws,
        [(number + 1, run.time, min(beside, 1)) for number, run, beside in sorts])[1:]
    return _Total(
        time=reduce(add, (each.total for each in times)),
        parts={part: math.fsum(getattr(each, part).value for each in times)
               for part in ("waited", "refresh", "draw")},
        gpu_energy=reduce(add, (run.energy for run in (
            *refreshes, *(run for _, run, _ in sorts)))))


def _ladder(frames: Sequence[str], device: GpuDevice) -> str:
    """Where the time of all of Lumina goes, and what its two halves are on the GPU alone."""
    said = []
    for name in frames:
        ours, base = _accelerated(name, "default", device), _reference(name, device).time.value
        shares = ", ".join(f"{part} {value / ours.time.value:.0%}"
                           for part, value in ours.parts.items())
        alone = ", ".join(
            f"{variant} {base / _alone(name, variant, device).time.value:.2f}x"
            for variant in ("sharing", "caching", "default"))
        said.append(f"{name}: {shares}; on the GPU alone {alone}")
    return "; ".join(said)


def speedup(device: str, frames: Sequence[str], variant: str = "default", *,
            alone: bool = False) -> Sourced:
    """Time of frames of the reference on a GPU over that of Lumina.

    Parameters
    ----------
    device : str
        Of :func:`splatforge.sim.gpu.devices`; it is Lumina's GPU as well.
    frames : sequence of str
        Of :data:`FRAMES`.
    variant : str
        Of :data:`VARIANTS`.
    alone : bool
        Whether the GPU draws Lumina's frames, too.
    """
    gpu = _device(device)
    ours = _alone if alone else _accelerated
    ratio = over_scenes(frames, lambda name: (
        _reference(name, gpu).time / ours(name, variant, gpu).time).to("1"))
    return replace(ratio, source=f"{ratio.source}; {_ladder(frames, gpu)}")


def _joules(name: str, variant: str, device: GpuDevice, node_nm: float) -> Sourced:
    """Of a window: LuminCore, its memory, and what the GPU computes."""
    own = [Sourced(report.energy_j, "J", _COUNTED, *report.band_j)
           for report in _energies(name, variant, node_nm)]
    return reduce(add, own) + _accelerated(name, variant, device).gpu_energy


def energy_saving(device: str, frames: Sequence[str], node_nm: float, variant: str = "default"
                  ) -> Sourced:
    """Energy of frames of the reference on a GPU over that of Lumina, memory on both sides.

    Parameters
    ----------
    device, frames, variant
        As of :func:`speedup`.
    node_nm : float
        Of LuminCore, 7 to 130.
    """
    gpu = _device(device)
    saving = over_scenes(frames, lambda name: (
        _reference(name, gpu).gpu_energy / _joules(name, variant, gpu, node_nm)).to("1"))
    shares = ", ".join(
        f"{name} {share.value / _joules(name, variant, gpu, node_nm).value:.0%}"
        for name in frames for share in [_accelerated(name, variant, gpu).gpu_energy])
    return replace(saving, source=f"{saving.source}; of ours the GPU takes: {shares}")


def energy_saved(device: str, frames: Sequence[str], node_nm: float, variant: str = "default"
                 ) -> Sourced:
    """The same as a share of the reference's energy; none is the least."""
    saving = energy_saving(device, frames, node_nm, variant)

    def share(ratio: float) -> float:
        return max(0.0, 1 - 1 / ratio)
    return Sourced(
        share(saving.value), "1", saving.source, share(saving.low), share(saving.high),
        saving.points, saving.scatter and (share(saving.scatter[0]), share(saving.scatter[1])))


def frame_rate(device: str, frames: Sequence[str]) -> Sourced:
    """Frames a second of Lumina, in Hz."""
    gpu = _device(device)

    def rate(name: str) -> Sourced:
        number = len(_variant(name, "default")["counters"]["cycles"])
        return (Sourced.exact(number, "1", _COUNTED)
                / _accelerated(name, "default", gpu).time).to("Hz")
    mean = over_scenes(frames, rate)
    base = ", ".join(
        f"{name} {len(_table()[name]['gpu']['pixels']) / _reference(name, gpu).time.value:.0f}"
        for name in frames)
    return replace(mean, source=f"{mean.source}; the reference on the GPU: {base} FPS")


def psnr_loss(frames: Sequence[str], base_db: float, variant: str = "default") -> Sourced:
    """What a scene at some PSNR loses where Lumina draws it, in dB.

    What differs from the reference's pictures adds to what these differ from the photographs: as if
    both were independent.

    Parameters
    ----------
    frames, variant
        As of :func:`speedup`.
    base_db : float
        PSNR of the reference's pictures against photographs.
    """
    def loss(name: str) -> Sourced:
        errors = [10 ** (-each / 10) for each in _variant(name, variant)["work"]["psnr_db"]]
        error = math.fsum(errors) / len(errors)
        return Sourced.exact(10 * math.log10(1 + error / 10 ** (-base_db / 10)), "1",
                             "measured of the bit-true model's frames")
    return over_scenes(frames, loss)


def chip_area(node_nm: float) -> Sourced:
    """Area in mm^2 of LuminCore, all units with their macros."""
    areas = area_of_units(
        lumina_inventory(LuminaDesign(), default_costs()), node_nm=node_nm).units
    total = reduce(add, areas.values())
    shares = ", ".join(f"{unit} {area.value / total.value:.0%}" for unit, area in areas.items())
    return replace(total, source=f"{total.source}; {shares}")


def _macros(keep: Callable[[str, str], bool]) -> Sourced:
    """Bytes of some memories, by unit and name."""
    bits = sum(macro.words * macro.bits for unit, part in lumina_parts(LuminaDesign()).items()
               for name, macro in part.memories.items() if keep(unit, name))
    return Sourced.exact(bits / 8, "B", "our memories")


def memory_bytes() -> Sourced:
    """Bytes of all memories that are not flip-flops."""
    return _macros(lambda unit, name: True)


def feature_buffer() -> Sourced:
    """Bytes of memories between the bus and the array: features, and chunks of splats."""
    return _macros(lambda unit, name: unit == "vru" or name.startswith("splats"))


def output_buffer() -> Sourced:
    """Bytes of what units hold of the pixels of two tiles: colours and T."""
    nru = LuminaDesign().nru
    bits = 3 * nru.blend.accumulator.width + nru.blend.transmittance.width
    return Sourced.exact(
        2 * nru.unit_pixels * nru.units * bits / 8, "B", "state of our units")


def queue() -> Sourced:
    """Bytes of the queue of a unit, between tests and back end."""
    return _macros(lambda unit, name: name == "queue_0")


def _text(runs: Mapping[str, Any]) -> str:
    """JSON text with lists on a line each."""
    text = json.dumps({name: runs[name] for name in FRAMES if name in runs}, indent=1)
    return re.sub(r"\[[^][{}]*\]", lambda found: " ".join(found[0].split()), text) + "\n"


def count_all(scenes: Path, cameras: Path, names: Sequence[str] = FRAMES) -> str:
    """JSON text of all runs, those of `names` anew, of captures and traces in folders."""
    runs = dict(_table()) if _TABLE.exists() else {}
    return _text(runs | {name: count(name, scenes, cameras) for name in names})


def main(arguments: Sequence[str]) -> None:
    """Count the frames that are named, or all, and write the table after each."""
    scenes, cameras, *names = arguments
    for name in names or FRAMES:
        text = count_all(Path(scenes), Path(cameras), [name])
        with atomic_file(_TABLE) as table:
            table.write(text.encode())
        _table.cache_clear()
        print(name, {variant: sum(_variant(name, variant)["counters"]["cycles"])
                     for variant in VARIANTS}, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
