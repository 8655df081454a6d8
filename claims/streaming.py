"""StreamingGS on captures: what its filters remove.

``streaming_runs.json`` holds what frames took by the float form of its algorithm, with the paper's
groups of a tile. The captures are not shipped: where they are at hand,
``python -m splatforge.claims.streaming FOLDER`` counts them anew, and a test compares.
"""

import json
import sys
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

from splatforge.algos.streaminggs.frame import render_float
from splatforge.algos.streaminggs.partition import partition
from splatforge.claims.frames import RECIPES
from splatforge.claims.mean import over_scenes
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.scenes import load
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.costs import Sourced

__all__ = ["FRAMES", "count", "count_all", "filtered"]

_TABLE = Path(str(files("splatforge.claims"))) / "streaming_runs.json"
#: Frames of :data:`splatforge.claims.frames.RECIPES` that are counted.
FRAMES = tuple(name for name in RECIPES if name.endswith("_800x800"))


def count(name: str, folder: Path) -> dict[str, int]:
    """What a frame takes: voxels, and Gaussians before and behind each filter.

    Parameters
    ----------
    name : str
        Of :data:`FRAMES`.
    folder : Path
        Where the captures are.
    """
    recipe = RECIPES[name]
    scene = load(*(folder / file for file in recipe.captures))
    cut = partition(scene, PartitionDesign())
    work = render_float(cut, recipe.camera(scene), group_tiles=1).work
    return {
        "occupied_cells": cut.occupied_cells, "voxels": int(work.voxels.sum()),
        "loaded": int(work.loaded.sum()), "coarse": int(work.coarse.sum()),
        "fine": int(work.fine.sum())}


def count_all(folder: Path) -> str:
    """JSON text of all counts, of the captures in a folder."""
    return json.dumps({name: count(name, folder) for name in FRAMES}, indent=1) + "\n"


@cache
def _table() -> dict[str, dict[str, int]]:
    return json.loads(_TABLE.read_text("utf-8"))


def filtered(frames: Sequence[str]) -> Sourced:
    """Share of the loaded Gaussians that the two filters remove: mean over frames.

    Parameters
    ----------
    frames : sequence of str
        Of :data:`FRAMES`.

    Raises
    ------
    ValueError
        If there are none, or one is not known.
    """
    def share(name: str) -> Sourced:
        if name not in _table():
            raise ValueError(f"Frame must be one of {', '.join(_table())}, not {name!r}")
        counted = _table()[name]
        return Sourced.exact(1 - counted["fine"] / counted["loaded"], "1",
                             "counted by the float form of the algorithm")
    return over_scenes(frames, share)


if __name__ == "__main__":
    with atomic_file(_TABLE) as file:
        file.write(count_all(Path(sys.argv[1])).encode())
