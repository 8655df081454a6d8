"""Yosys in a process of its own: an error in it ends the process, not this one."""

import importlib.metadata
import sys
from pathlib import Path

from splatforge.verification.lib.processes import Children

__all__ = ["SynthesisError", "run", "version"]

_CHILD = """
import sys
import pyosys.libyosys as yosys
yosys.run_pass(f"tee -q -o {sys.argv[1]}.log script {sys.argv[1]}.ys", yosys.Design())
"""


class SynthesisError(RuntimeError):
    """A tool failed; the message is one line that says what it said."""


def version_of(package: str) -> str:
    """Version of an installed tool.

    Raises
    ------
    SynthesisError
        If it is not installed.
    """
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        raise SynthesisError(
            f"splatforge needs the {package} package: pip install 'splatforge[verify]'") from None


def version() -> str:
    """Version of Yosys; raises as :func:`version_of`."""
    return version_of("pyosys")


def run(script: str, folder: Path, name: str) -> str:
    """Run `script` in `folder`; returns the log, which stays there as ``name.log``.

    Raises
    ------
    SynthesisError
        If Yosys ends with an error.
    """
    version()
    (folder / f"{name}.ys").write_text(script)
    done = Children().run([sys.executable, "-c", _CHILD, name], folder)
    path = folder / f"{name}.log"
    log = path.read_text(errors="replace") if path.exists() else ""
    if done.returncode:
        lines = [line for line in (log + done.stdout + done.stderr).splitlines()
                 if "ERROR" in line]
        raise SynthesisError(
            f"Yosys failed on {name}: {lines[-1] if lines else f'exit code {done.returncode}'}")
    return log
