"""Measure the energies per action in every library of a folder and write the tables of sim/.

    python bench/energy_tables.py ../shared/liberty [--scene default --size 160x120] [--only sg13g2]

The folder holds the Liberty files named below, plain or gzipped. One frame is recorded, then mapped
and replayed in each library; a quarter of an hour on two cores.
"""

import argparse
import json
import sys
from pathlib import Path

from splatforge.designs.raster import RasterDesign
from splatforge.scenes import default_camera, resolve
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.costs import LIBRARIES
from splatforge.synth import actions
from splatforge.synth.library import read_library
from splatforge.verification.lib.ports import record_frame

ROOT = Path(__file__).parents[1]
FILES = {
    "sg13g2": ["sg13g2_typ_1p20V_25C"],
    "sky130hd": ["sky130hd_tt"],
    "asap7": ["asap7sc7p5t_SIMPLE_RVT_FF_nldm_211120", "asap7sc7p5t_INVBUF_RVT_FF_nldm_220122",
              "asap7sc7p5t_SEQ_RVT_FF_nldm_220123", "asap7sc7p5t_OA_RVT_FF_nldm_211120"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--scene", default="default")
    parser.add_argument("--size", default="160x120")
    parser.add_argument("--only", choices=LIBRARIES, action="append")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    design = RasterDesign()
    scene = resolve(arguments.scene)
    recording = record_frame(design, scene, default_camera(scene, width, height))
    print(f"recorded {recording.run.cycles} cycles", file=sys.stderr)
    for name in arguments.only or LIBRARIES:
        paths = [path for stem in FILES[name] for path in arguments.folder.glob(f"{stem}.lib*")]
        library = read_library(paths)
        measured = actions.measure(
            design, library, recording, scene=f"{arguments.scene} at {arguments.size}",
            progress=lambda unit, done, total: print(f"{done}/{total} {unit}", file=sys.stderr))
        command = (f"python bench/energy_tables.py FOLDER --scene {arguments.scene} "
                   f"--size {arguments.size}")
        text = actions.cost_table(measured, design, command)
        with atomic_file(ROOT / "sim" / f"energy_{library.name}.toml") as file:
            file.write(text.encode())
        print(json.dumps(measured.to_json()), flush=True)


if __name__ == "__main__":
    main()
