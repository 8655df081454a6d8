"""Cells of one lane of a rendering array: what number formats and tables cost."""

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import splatforge.hw
from splatforge.synth.library import Library, find_library, read_library
from splatforge.synth.netlist import gate_level
from splatforge.synth.parts import LANE

__all__ = ["LaneCells"]


@cache
def _library(name: str) -> Library:
    return read_library(find_library(name))


@cache
def _sources() -> str:
    """Digest of the RTL's sources."""
    digest = hashlib.sha256()
    for folder in map(Path, splatforge.hw.__path__):
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.read_bytes())
    return digest.hexdigest()


@dataclass(frozen=True)
class LaneCells:
    """Area of a lane, from alpha to the accumulated colour, in the cells of an installed library.

    What the lanes of a row, a column or the array share is no part of it: the slopes times a
    pixel's place, the control, the order of tiles. Neither are wires.

    Parameters
    ----------
    library : str
        Such as ``osu018``, as :func:`splatforge.synth.library.find_library` knows it.

    Raises
    ------
    LibraryError
        If it is not installed.
    """

    library: str

    def __post_init__(self) -> None:
        _library(self.library)

    @property
    def name(self) -> str:
        """What tells one from another: the library, all that is in its files, and the RTL."""
        return f"{self.library} {_library(self.library).digest} {_sources()}"

    def __call__(self, design: Any) -> float:
        """The area in um^2 of an accelerator's lane.

        Raises
        ------
        SynthesisError
            If Yosys is not installed or fails.
        """
        # Nothing of a lane is a macro: a memory that becomes one would leave the sum by a bit more.
        return sum(gate_level(unit, design, _library(self.library), flatten=True,
                              banks=False).area_um2 for unit in LANE)
