"""Fine-tune captures for StreamingGS and write claims/tuning_runs.json.

    python bench/tuning_runs.py ../shared/scenes

The folder holds the captures; some minutes each. A record is what `splatforge scenes tune` says
with the arguments that stand beside it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from splatforge.scenes.atomic_file import atomic_file

TABLE = Path(__file__).parents[1] / "claims" / "tuning_runs.json"
CAPTURES = {"fox": "inari_fox_50k.ply", "fourth_st": "fourth_st_131k_sh3.spz",
            "plant": "plant_114k.splat"}
ARGUMENTS = ("--size", "320x240", "--views", "40", "--steps", "400", "--boundary-weight", "0.03",
             "--quantized")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    runs = {}
    with tempfile.TemporaryDirectory() as name:
        for scene, capture in CAPTURES.items():
            record = Path(name) / "record.json"
            subprocess.run(
                [Path(sys.executable).parent / "splatforge", "scenes", "tune", folder / capture,
                 "-o", Path(name) / "tuned.ply", *ARGUMENTS, "--json", record], check=True)
            made = json.loads(record.read_text())
            runs[scene] = {
                "capture": capture, "arguments": list(ARGUMENTS),
                **{key: value for key, value in made.items()
                   if key not in ("scene", "output", "tune_s")}}
            with atomic_file(TABLE) as file:
                file.write((json.dumps(runs, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
