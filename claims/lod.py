"""Cuts of a city's level-of-detail tree: how much of one is in the cut some frames later.

``lod_runs.json`` holds what paths through the city took. The captures are not shipped: where they
are at hand, ``python -m splatforge.claims.lod SCENES CAMERAS`` builds the tree and counts anew;
with a third argument a tree that is there is taken.
"""

import json
import sys
import tempfile
from collections.abc import Sequence
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import numpy as np

from splatforge.algos.voyager.build import build
from splatforge.algos.voyager.search import Search
from splatforge.algos.voyager.search import unchanged as share_unchanged
from splatforge.algos.voyager.tree import LodTree
from splatforge.claims.mean import over_views
from splatforge.designs.lod import SearchDesign, TreeDesign
from splatforge.scenes import Camera, follow, load, load_eyenavgs, travel
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.costs import Sourced

__all__ = ["CITY", "GAPS", "HEADS", "PATHS", "TAUS", "count", "count_all", "path", "straight",
           "unchanged"]

_TABLE = Path(str(files("splatforge.claims"))) / "lod_runs.json"
#: Gaps in frames that papers tell of.
GAPS = (1, 64)
#: Thresholds in pixels: nearly all nodes of a cut below 6 are leaves.
TAUS = (6, 24, 48)
#: Captures of the city.
CITY = tuple(f"semarang_city_{part}_sh3.sog" for part in range(10))
_UP = (0.0, -1.0, 0.0)
#: Metres a second on foot and at 50 km/h, at 90 frames a second; recorded heads at 71.
_SPEEDS = {"walk": 1.4, "drive": 50 / 3.6}
#: Recordings of heads.
HEADS = {f"head_{scene}": f"eyenavgs_user101_{scene}.csv.gz" for scene in ("truck", "bicycle")}
PATHS = (*_SPEEDS, *HEADS)
#: Frames of a path, and the first sample of a recording: before it heads are put into place.
_FRAMES, _FIRST = 129, 200


def _first() -> Camera:
    width = 1280
    return Camera.look_at((0, -40, -150), (0, 0, 0), _UP, width=width, height=720, fx=0.79 * width)


def straight(speed: float, frames: int) -> tuple[Camera, ...]:
    """Cameras on a straight way through the city, metres a second at 90 frames a second."""
    return travel(_first(), _UP, frames=frames, speed=speed).cameras


def path(name: str, cameras: Path) -> tuple[Camera, ...]:
    """The cameras of one of :data:`PATHS` through the city, a unit of which is a metre."""
    if name in _SPEEDS:
        return straight(_SPEEDS[name], _FRAMES)
    trace = load_eyenavgs(cameras / HEADS[name]).cameras
    return follow(_first(), trace[_FIRST:_FIRST + _FRAMES])


def count(tree: LodTree, name: str, cameras: Path, tau_px: float) -> dict[str, float]:
    """What a path takes.

    Parameters
    ----------
    tree : LodTree
        The city's.
    name : str
        Of :data:`PATHS`.
    cameras : Path
        Folder of the recordings.
    tau_px : float
        Size that a node of a cut is below.

    Returns
    -------
    dict
        Nodes of the cut, mean; the share of it that is there after each of :data:`GAPS`, mean and
        worst; new nodes a frame.
    """
    search = Search(tree, SearchDesign(tau_px=tau_px))
    found = [search.step(camera) for camera in path(name, cameras)]
    counted = {"cut_nodes": float(np.mean([len(each.ids) for each in found])),
               "added_nodes": float(np.mean([len(each.added) for each in found[1:]]))}
    for gap in GAPS:
        shares = [share_unchanged(before.ids, now.ids)
                  for before, now in zip(found, found[gap:], strict=False)]
        counted[f"unchanged_{gap}"] = float(np.mean(shares))
        counted[f"unchanged_{gap}_worst"] = min(shares)
    return counted


def count_all(scenes: Path, cameras: Path, tree_file: Path | None = None) -> str:
    """JSON text of all paths and thresholds, of the captures in two folders."""
    with tempfile.TemporaryDirectory() as folder:
        if tree_file is None:
            tree_file = Path(folder) / "city.lod"
            build([partial(load, scenes / part) for part in CITY], tree_file, TreeDesign())
        tree = LodTree.open(tree_file)
        counted = {f"{name}_{tau}": count(tree, name, cameras, tau)
                   for tau in TAUS for name in PATHS}
    return json.dumps(counted, indent=1) + "\n"


@cache
def _table() -> dict[str, dict[str, float]]:
    return json.loads(_TABLE.read_text("utf-8"))


def unchanged(paths: Sequence[str], taus: Sequence[int], gap: int) -> Sourced:
    """Share of a cut that the cut ``gap`` frames later has, mean over paths and thresholds."""
    if gap not in GAPS:
        raise ValueError(f"Gap must be one of {', '.join(map(str, GAPS))}, not {gap!r}")

    def of(name: str) -> Sourced:
        if name not in _table():
            raise ValueError(f"Path must be one of {', '.join(_table())}, not {name!r}")
        return Sourced.exact(_table()[name][f"unchanged_{gap}"], "1", "cuts of our city's tree")
    return over_views([f"{name}_{tau}" for tau in taus for name in paths], of)


if __name__ == "__main__":
    with atomic_file(_TABLE) as file:
        file.write(count_all(*map(Path, sys.argv[1:])).encode())
