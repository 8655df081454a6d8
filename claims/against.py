"""StreamingGS on captures: how much faster and leaner it is than GPUs and GSCore, and how large.

``streaminggs_runs.json`` holds what the cycle model counted of frames, with the published
configuration and without its filters, behind the memory that GSCore's publication assumes, whose
timing is in ns, at a clock that synthesis of both supports; GSCore's frames are those of
:mod:`splatforge.claims.techniques`. The captures are not shipped: where they are at hand,
``python -m splatforge.claims.against FOLDER [FRAME...]`` runs them anew, and a test compares.
Times, energies and ratios are worked out from the counts.
"""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, reduce
from importlib.resources import files
from operator import add
from pathlib import Path
from typing import Any

import numpy as np

from splatforge.algos import gscore, streaminggs
from splatforge.algos.ffu import ffu_schedule
from splatforge.claims.frames import RECIPES, workload
from splatforge.claims.mean import over_scenes
from splatforge.claims.techniques import CLOCK_HZ, counts_of
from splatforge.claims.techniques import FRAMES as GSCORE_FRAMES
from splatforge.claims.techniques import runs as gscore_runs
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.gscore import PRESETS as GSCORE_PRESETS
from splatforge.designs.memory import BankedMemory
from splatforge.designs.streaminggs import PUBLISHED, PUBLISHED_MEMORY, StreaminggsDesign
from splatforge.designs.voxel import COARSE_RECORD
from splatforge.scenes import load
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import Sourced, default_costs
from splatforge.sim.dram import DramCounts
from splatforge.sim.dram_energy import dram_costs
from splatforge.sim.energy import EnergyReport, energy_of_units
from splatforge.sim.gpu import devices, gpu_frame
from splatforge.sim.gscore import simulate as simulate_gscore
from splatforge.sim.parts import (
    gscore_events,
    streaminggs_events,
    streaminggs_inventory,
    streaminggs_parts,
)
from splatforge.sim.run import Run
from splatforge.sim.streaminggs import simulate

__all__ = ["CITIES", "FRAMES", "VARIANTS", "chip_area", "coarse_parameters", "coarse_products",
           "codebook_memory", "count", "count_all", "cross_boundary", "design_of",
           "energy_over_gscore", "energy_saving", "fine_products", "frame_rate", "psnr_loss",
           "quantization_saving", "slowdown", "speedup", "speedup_over_gscore", "variants"]

_COUNTED, _TUNED_BY = "counted by the cycle model", "measured on held-out views"
_TABLE = Path(str(files("splatforge.claims"))) / "streaminggs_runs.json"
#: What ``bench/tuning_runs.py`` measured of fine-tuned captures.
_TUNED = Path(str(files("splatforge.claims"))) / "tuning_runs.json"
#: Numbers of a Gaussian with SH of degree 3 that are not in the coarse half: two scales, rotation,
#: opacity, colour.
_FINE_NUMBERS = 2 + 4 + 1 + 48
#: Frames with more voxels than the published configuration keeps, and more tiles than GSCore's:
#: they get larger memories for both.
CITIES = ("city_above_1920x1080",)
#: Frames of :data:`splatforge.claims.frames.RECIPES` that are run.
FRAMES = (*GSCORE_FRAMES, *CITIES)
#: Frames that are run without the coarse filter, when everything that is loaded is projected: the
#: others take the model too long.
UNFILTERED = ("fox_800x800",)
#: The published configuration, ours with groups of four tiles, without the coarse filter; GSCore,
#: of the frames that its own claims do not have.
VARIANTS = ("published", "default", "unfiltered", "gscore")


def variants(name: str) -> tuple[str, ...]:
    """Those of :data:`VARIANTS` that a frame is run with."""
    if name in CITIES:
        return "published", "gscore"
    return ("published", "default", *(["unfiltered"] if name in UNFILTERED else []))


def design_of(name: str, variant: str) -> StreaminggsDesign:
    """Parameters of a variant for a frame."""
    design = {"published": PUBLISHED, "default": StreaminggsDesign(),
              "unfiltered": replace(PUBLISHED, cfu=replace(PUBLISHED.cfu, filters=False))}[variant]
    if name in CITIES:
        return replace(design, vsu=replace(design.vsu, voxels=65536, scan_width=16))
    return design


def count(name: str, variant: str, folder: Path) -> dict[str, Any]:
    """What the cycle model counts of a frame.

    Parameters
    ----------
    name, variant : str
        Of :data:`FRAMES` and :func:`variants`.
    folder : Path
        Where the captures are.
    """
    recipe = RECIPES[name]
    scene = load(*(folder / file for file in recipe.captures))
    camera = recipe.camera(scene)
    memory = BankedMemory(dram=DRAMS[PUBLISHED_MEMORY], clock_hz=CLOCK_HZ)
    more = {}
    if variant == "gscore":
        large = GSCORE_PRESETS["large"]
        made = gscore.render(gscore.prepare(scene, camera, large), large).workload
        run = simulate_gscore(made, large, memory)
        more["walked"] = int(made.ccu.walked.sum())
    else:
        design = design_of(name, variant)
        stored = streaminggs.prepare(scene, camera, design)
        made = streaminggs.render(stored, design).workload
        # As behind the first frame: codebooks stay on chip.
        run = simulate(stored, made, design, memory, load_codebooks=False)
    assert run.dram is not None  # it is banked
    return {
        "clock_hz": CLOCK_HZ, "pixels": recipe.width * recipe.height, **more,
        "significant": int(made.array.significant.sum()),
        "counters": dict(run.counters), "actions": dict(run.actions), "dram": asdict(run.dram)}


@cache
def _table() -> dict[str, dict[str, dict[str, Any]]]:
    return json.loads(_TABLE.read_text("utf-8"))


def _counts(name: str, variant: str) -> dict[str, Any]:
    if variant == "gscore" and name in gscore_runs():
        return counts_of(gscore_runs(), name, "published")
    return counts_of(_table(), name, variant)


def _cycles(name: str, variant: str) -> int:
    return _counts(name, variant)["counters"]["cycles"]


def _seconds(name: str, variant: str) -> Sourced:
    counted = _counts(name, variant)
    return Sourced.exact(counted["counters"]["cycles"] / counted["clock_hz"], "s",
                         f"{_COUNTED} at {counted['clock_hz'] / 1e6:g} MHz, which synthesis of our "
                         "units supports")


@cache
def _energy(name: str, variant: str, node_nm: float) -> EnergyReport:
    """Energy of a frame by unit."""
    counts, table = _counts(name, variant), default_costs()
    design: Any = (GSCORE_PRESETS["large" if name in CITIES else "published"]
                   if variant == "gscore" else design_of(name, variant))
    run = Run.of(design, counts["counters"], np.zeros(0, np.int64), actions=counts["actions"],
                 dram=DramCounts(**counts["dram"]))
    happened = {"pixels": counts["pixels"], "significant": counts["significant"],
                "clock_hz": counts["clock_hz"], "table": table}
    events = (gscore_events(design, run, walked=counts["walked"], **happened)
              if variant == "gscore" else streaminggs_events(design, run, **happened))
    dram = DRAMS[PUBLISHED_MEMORY]
    return energy_of_units(events, node_nm=node_nm, dram=dram.name, costs=dram_costs(dram))


def _joules(name: str, variant: str, node_nm: float) -> Sourced:
    report = _energy(name, variant, node_nm)
    return Sourced(report.energy_j, "J", _COUNTED, *report.band_j)


def _gpu(device: str) -> Any:
    known = devices()
    if device not in known:
        raise ValueError(f"GPU must be one of {', '.join(known)}, not {device!r}")
    return known[device]


def speedup(device: str, frames: Sequence[str], *, highest: bool = False) -> Sourced:
    """Whole frames of a GPU over those of the published configuration.

    Parameters
    ----------
    device : str
        Of :func:`splatforge.sim.gpu.devices`.
    frames : sequence of str
        Of :data:`FRAMES`.
    highest : bool
        Of the frame with the highest, instead of the mean.
    """
    gpu = _gpu(device)

    def figure(name: str) -> Sourced:
        return (gpu_frame(workload(name), gpu).time / _seconds(name, "published")).to("1")
    return _most(frames, figure) if highest else over_scenes(frames, figure)


def _most(frames: Sequence[str], figure: Callable[[str], Sourced]) -> Sourced:
    """The highest of the frames."""
    over_scenes(frames, figure)
    return max((figure(name) for name in frames), key=lambda each: each.value)


def energy_saving(device: str, frames: Sequence[str], node_nm: float, *, highest: bool = False
                  ) -> Sourced:
    """Energy of whole frames of a GPU over ours, DRAM on both sides."""
    gpu = _gpu(device)

    def figure(name: str) -> Sourced:
        return (gpu_frame(workload(name), gpu).energy
                / _joules(name, "published", node_nm)).to("1")
    saving = _most(frames, figure) if highest else over_scenes(frames, figure)
    shares = ", ".join(f"{name} {_memory_share(name, node_nm):.0%}" for name in frames)
    return replace(saving, source=f"{saving.source}; of ours the memory takes: {shares}")


def _memory_share(name: str, node_nm: float) -> float:
    """Of the energy of a frame."""
    report = _energy(name, "published", node_nm)
    return report.units["memory"][0] / report.energy_j


def speedup_over_gscore(frames: Sequence[str], variant: str = "published") -> Sourced:
    """Cycles of GSCore's published configuration over ours, same clock, same memory."""
    return over_scenes(frames, lambda name: Sourced.exact(
        _cycles(name, "gscore") / _cycles(name, variant), "1", _COUNTED))


def energy_over_gscore(frames: Sequence[str], node_nm: float, variant: str = "published"
                       ) -> Sourced:
    """Energy of GSCore's frames over ours, DRAM on both sides.

    What both spend on the same kind of event costs the same in both: the band is of all costs at
    their low ends together and of all at their high ends.
    """
    def figure(name: str) -> Sourced:
        theirs, ours = (_joules(name, which, node_nm) for which in ("gscore", variant))
        ratios = [a / b for a, b in zip((theirs.value, theirs.low, theirs.high),
                                        (ours.value, ours.low, ours.high), strict=True)]
        return Sourced(ratios[0], "1", _COUNTED, min(ratios), max(ratios))
    return over_scenes(frames, figure)


def slowdown(frames: Sequence[str]) -> Sourced:
    """Speed without the coarse filter over that with it."""
    return over_scenes(frames, lambda name: Sourced.exact(
        _cycles(name, "published") / _cycles(name, "unfiltered"), "1", _COUNTED))


def frame_rate(frames: Sequence[str]) -> Sourced:
    """Frames a second of the published configuration, of the slowest frame."""
    if not frames:
        raise ValueError("Frames must hold at least one name, not 0")
    one = Sourced.exact(1, "1", _COUNTED)
    rates = [(one / _seconds(name, "published")).to("Hz") for name in frames]
    return min(rates, key=lambda each: each.value)


def chip_area(node_nm: float) -> Sourced:
    """Area in mm^2 of all units of the published configuration with their macros."""
    return reduce(add, area_of_units(
        streaminggs_inventory(PUBLISHED, default_costs()), node_nm=node_nm).units.values())


def quantization_saving(frames: Sequence[str], *, coarse: bool) -> Sourced:
    """Share of the bytes of voxel loads that codebooks save, against binary32.

    What was read of fine halves for a Gaussian that is projected, what is read in vain where a
    group ends included, against its numbers of degree 3.

    Parameters
    ----------
    frames : sequence of str
        Of :data:`FRAMES`.
    coarse : bool
        Whether coarse halves, which are the same in both, are part of a load.
    """
    def saved(name: str) -> float:
        counters = _counts(name, "published")["counters"]
        same = counters["coarse_bytes"] if coarse else 0
        plain = 4 * _FINE_NUMBERS * counters["gaussians_projected"]
        return 1 - (same + counters["fine_bytes"]) / (same + plain)
    return over_scenes(frames, lambda name: Sourced.exact(saved(name), "1", _COUNTED))


def coarse_parameters() -> Sourced:
    """Numbers of a Gaussian's coarse half."""
    return Sourced.exact(len(COARSE_RECORD), "1", "format of the coarse half")


def codebook_memory() -> Sourced:
    """Bytes of all entries on chip."""
    return Sourced.exact(PUBLISHED.ffu.codebooks.size_bytes, "B", "our codebooks")


def coarse_products() -> Sourced:
    """Multiplications of a Gaussian in a coarse filter."""
    of_units = [sum(
        number for name, number in streaminggs_parts(replace(
            PUBLISHED, cfu=replace(PUBLISHED.cfu, units=units)))["cfu"].operators.items()
        if name.startswith("multiply")) for units in (1, 2)]
    return Sourced.exact(of_units[1] - of_units[0], "1", "our filter")


def fine_products() -> Sourced:
    """Multiplications of a Gaussian in the fine filter, its tables' not among them."""
    return Sourced.exact(
        sum(len(unit.placed) for unit in ffu_schedule(PUBLISHED.ffu).units
            if unit.kind in ("multiply", "wide_multiply")), "1", "our schedule")


@cache
def _tuned() -> dict[str, dict[str, Any]]:
    return json.loads(_TUNED.read_text("utf-8"))


def _tuning(scene: str) -> dict[str, Any]:
    if scene not in _tuned():
        raise ValueError(f"Scene must be one of {', '.join(_tuned())}, not {scene!r}")
    return _tuned()[scene]


def cross_boundary(scenes: Sequence[str]) -> Sourced:
    """Share of the rendered Gaussians of fine-tuned scenes that are late: their mean.

    Parameters
    ----------
    scenes : sequence of str
        Of ``tuning_runs.json``.
    """
    return over_scenes(scenes, lambda name: Sourced.exact(
        _tuning(name)["cross_boundary_share_after"], "1", _TUNED_BY))


def psnr_loss(scenes: Sequence[str], base_db: float) -> Sourced:
    """What a scene at some PSNR loses where it is drawn by codebooks, voxel after voxel.

    What differs from the scene's own pictures, on held-out views after fine-tuning, adds to what
    these differ from the photographs: as if both were independent.

    Parameters
    ----------
    scenes : sequence of str
        Of ``tuning_runs.json``.
    base_db : float
        PSNR of the scene's own pictures against photographs.
    """
    return over_scenes(scenes, lambda name: Sourced.exact(
        10 * math.log10(1 + 10 ** ((base_db - _tuning(name)["psnr_db_after"]) / 10)), "1",
        _TUNED_BY))


def count_all(
    folder: Path, names: Sequence[str] = FRAMES, tell: Callable[[str], None] = lambda line: None
) -> str:
    """JSON text of all runs, those of `names` anew, of the captures in a folder."""
    runs = dict(_table()) if _TABLE.exists() else {}
    for name in names:
        runs[name] = {}
        for variant in variants(name):
            runs[name][variant] = count(name, variant, folder)
            tell(f"{name} {variant}: {runs[name][variant]['counters']['cycles']:,} cycles")
    return json.dumps({name: runs[name] for name in FRAMES if name in runs}, indent=1) + "\n"


def main(arguments: Sequence[str]) -> None:
    """Count the frames that are named, or all, and write the table after each."""
    folder, *names = arguments
    for name in names or FRAMES:
        text = count_all(Path(folder), [name],
                         lambda line: print(line, file=sys.stderr, flush=True))
        with atomic_file(_TABLE) as table:
            table.write(text.encode())
        _table.cache_clear()


if __name__ == "__main__":
    main(sys.argv[1:])
