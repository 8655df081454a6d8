"""Build the system of this folder around a generated raster core, and run its test.

``python examples/shared_memory/run.py [FOLDER]``; results and the log go to FOLDER.
"""

import sys
from pathlib import Path

from splatforge.designs.raster import PRESETS
from splatforge.hw.generate import verilog
from splatforge.verification.lib.runner import build_cocotb, run_module

HERE = Path(__file__).parent


def run(folder: Path, seed: int = 1) -> None:
    """Run ``test_system.py`` on ``system.v``, ``axi_two_to_one.v`` and the core."""
    # cocotb starts a Python of its own inside of the simulation, which inherits this path.
    sys.path.insert(0, str(HERE))
    sources = [(HERE / name).read_text() for name in ("axi_two_to_one.v", "system.v")]
    binary = build_cocotb(
        "\n".join([*sources, verilog("raster", PRESETS["16-lane"])]), "system")
    run_module("test_system", "system", binary, folder, seed=seed)


if __name__ == "__main__":
    run(Path(sys.argv[1] if len(sys.argv) > 1 else "build/shared_memory"))
    print("the frame is that of the bit-true model, beside another master")
