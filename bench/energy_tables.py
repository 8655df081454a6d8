"""Measure the energies per action in every library of a folder and write the tables of sim/.

    python bench/energy_tables.py ../shared/liberty [--scene default --size 160x120] [--only sg13g2]
                                  [--design gscore [--units qsu ...] [--cycles 40000]
                                   [--recording FILE]]

The folder holds the Liberty files named below, plain or gzipped. One frame is recorded, then mapped
and replayed in each library; a quarter of an hour on two cores. Of Voyager the array is measured;
what blends in it, which is the raster core's, for comparison alone: it stays out of the table. Of
another design the units that it has for itself are measured, or the named ones in that order, over
so many cycles of each from its first action on, by default CYCLES below; what a table holds of
others stays in it.
A recording of all units is kept in the file that is named, and taken from it if it is there.
"""

import argparse
import json
import pickle
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import numpy as np

from splatforge.designs.accelerators import ACCELERATORS
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.raster import RasterDesign
from splatforge.designs.shell import AcceleratorDesign
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.scenes import Camera, Scene, default_camera, resolve
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.costs import LIBRARIES
from splatforge.synth import actions
from splatforge.synth.library import Library, read_library
from splatforge.verification.lib.ports import (
    OwnRecording,
    Recording,
    record_frame,
    record_own_units,
)

ROOT = Path(__file__).parents[1]
#: Cycles of a unit, of which 20,000 of 200,000 cells take half a minute; others' are the frame.
CYCLES = {"bsu": 20_000, "ccu": 20_000, "cfu": 60_000, "ffu": 6_000, "qsu": 40_000,
          "vru": 40_000, "vsort": 60_000, "vsu": 60_000}
#: Behind a memory so near the array of Voyager works in most cycles.
NEAR = MemoryTiming(latency_cycles=20)
FILES = {
    "sg13g2": ["sg13g2_typ_1p20V_25C"],
    "sky130hd": ["sky130hd_tt"],
    "asap7": ["asap7sc7p5t_SIMPLE_RVT_FF_nldm_211120", "asap7sc7p5t_INVBUF_RVT_FF_nldm_220122",
              "asap7sc7p5t_SEQ_RVT_FF_nldm_220123", "asap7sc7p5t_OA_RVT_FF_nldm_211120"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scene", default="default")
    parser.add_argument("--size", default="160x120")
    parser.add_argument("--gaussians", type=int, help="So many of the scene, evenly picked.")
    parser.add_argument("--only", choices=LIBRARIES, action="append")
    parser.add_argument("--design", default="raster",
                        choices=("raster", "gscore", "streaminggs", "lumina", "voyager"))
    parser.add_argument("--units", nargs="+")
    parser.add_argument("--cycles", type=int)
    parser.add_argument("--recording", type=Path)
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    design = ACCELERATORS[arguments.design].design
    scene, drawn = resolve(arguments.scene), arguments.scene
    if arguments.gaussians:
        scene = scene.select(
            np.linspace(0, scene.gaussians - 1, arguments.gaussians).astype(np.int64))
        drawn += f", {scene.gaussians} Gaussians,"
    camera = default_camera(scene, width, height)
    drawn += f" at {arguments.size}"
    if arguments.recording is not None and arguments.recording.exists():
        recording = pickle.loads(arguments.recording.read_bytes())
    else:
        recording = record(design, scene, camera, None if arguments.recording else arguments.units)
        if arguments.recording is not None:
            with atomic_file(arguments.recording) as file:
                pickle.dump(recording, file, protocol=5)
    print(f"recorded {recording.run.cycles} cycles", file=sys.stderr)
    command = (f"python bench/energy_tables.py FOLDER --scene {arguments.scene} "
               f"--size {arguments.size}")
    if not isinstance(design, RasterDesign):
        command += f" --design {design.name}"
        command += f" --cycles {arguments.cycles}" if arguments.cycles else ""
    command += f" --gaussians {arguments.gaussians}" if arguments.gaussians else ""

    def tell(unit: str, done: int, total: int) -> None:
        print(f"{time.strftime('%H:%M:%S')} {done}/{total} {unit}", file=sys.stderr)

    for name in arguments.only or LIBRARIES:
        paths = [path for stem in FILES[name] for path in arguments.folder.glob(f"{stem}.lib*")]
        library = read_library(paths)
        if isinstance(recording, Recording):
            assert isinstance(design, RasterDesign | VoyagerDesign)
            measured = actions.measure(design, library, recording, scene=drawn, progress=tell,
                                       cycles=arguments.cycles)
            if isinstance(design, VoyagerDesign):
                print(json.dumps(measured.to_json()["blocks"]), file=sys.stderr)
                measured = replace(measured, blocks=tuple(
                    block for block in measured.blocks if block.name != "blend"))
            write(measured, design, command)
            continue
        units = arguments.units or recording.traces
        chosen = replace(recording, traces={unit: recording.traces[unit] for unit in units})
        parts = measure_each(design, library, chosen, drawn, arguments.cycles, tell)
        # A table holds what there is so far: a unit of 200,000 cells takes minutes.
        for measured in accumulate(parts, actions.Measurement.beside):
            write(measured, design, command)


def record(
    design: AcceleratorDesign, scene: Scene, camera: Camera, units: list[str] | None
) -> Recording | OwnRecording:
    """A frame of a design, and what its units saw."""
    if isinstance(design, RasterDesign):
        return record_frame(design, scene, camera)
    if isinstance(design, VoyagerDesign):
        return record_frame(design, scene, camera, timing=NEAR)
    assert isinstance(design, GscoreDesign | LuminaDesign | StreaminggsDesign)
    return record_own_units(design, scene, camera, units=units)


def measure_each(
    design: AcceleratorDesign, library: Library, recording: OwnRecording, scene: str,
    cycles: int | None, tell: Callable[[str, int, int], None],
) -> Iterator[actions.Measurement]:
    """Units one by one."""
    for unit, trace in recording.traces.items():
        yield actions.measure_own_units(
            design, library, replace(recording, traces={unit: trace}), scene=scene, progress=tell,
            cycles=cycles or CYCLES.get(unit))


def beside(text: str, before: str) -> str:
    """A table with what another one holds of other units, unit by unit."""
    head, digests, *entries = text.rstrip("\n").split("\n\n")
    _, others, *more = before.rstrip("\n").split("\n\n")
    name, *lines = digests.split("\n")
    of = {line.split(" ")[0]: line for line in (*others.split("\n")[1:], *lines)}
    measured = {line.split(" ")[0] for line in lines}

    def unit(entry: str) -> str:
        return entry.split(".")[2]

    kept = [entry for entry in more if unit(entry) not in measured]
    digests = "\n".join([name, *(of[each] for each in sorted(of))])
    return "\n\n".join([head, digests, *sorted([*entries, *kept], key=unit)]) + "\n"


def write(measured: actions.Measurement, design: AcceleratorDesign, command: str) -> None:
    """One table, and its figures on standard output."""
    text = actions.cost_table(measured, design, command)
    own = "" if isinstance(design, RasterDesign) else f"{design.name}_"
    path = ROOT / "sim" / f"energy_{own}{measured.library.name}.toml"
    if own and path.exists() and not isinstance(design, VoyagerDesign):
        text = beside(text, path.read_text())
    with atomic_file(path) as file:
        file.write(text.encode())
    print(json.dumps(measured.to_json()), flush=True)


if __name__ == "__main__":
    main()
