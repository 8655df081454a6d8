"""Lumina on captures: how orders change, what the cache finds, saves and gets wrong.

``lumina_runs.json`` holds what a few frames of an orbit took by the float form of its algorithm, at
the paper's speed of the head. The captures are not shipped: where they are at hand,
``python -m splatforge.claims.lumina FOLDER`` counts them anew, and a test compares.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import numpy as np

from splatforge.algos.lumina.frame import render_sequence_float, to_tiles
from splatforge.algos.lumina.sharing import group_order, order_changes, share
from splatforge.claims.frames import RECIPES
from splatforge.claims.mean import over_scenes
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.nru import RECORD_ID_BITS
from splatforge.scenes import Camera, default_camera, guess_up, load, orbit
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.costs import Sourced

__all__ = ["FRAMES", "avoided", "cache_capacity", "count", "count_all", "hit_rate", "inverted",
           "record_difference", "record_registers"]

_TABLE = Path(str(files("splatforge.claims"))) / "lumina_runs.json"
#: Captures that are counted, names of :data:`splatforge.claims.frames.RECIPES`.
FRAMES = tuple(f"{name}_800x800" for name in ("fox", "fourth_st", "plant", "angel"))
#: Frames of a path, the first of which fills the cache and is not counted.
_LENGTH = 4
#: Side of the pictures: half of the recipes', so that a count takes seconds.
_SIDE = 400
#: The paper's mean rotation, degrees a second, and frames a second.
_TURN_DEG, _RATE = 25, 90


def _path(scene, camera: Camera) -> tuple[Camera, ...]:
    """The orbit: about the point of the view's axis that is level with the middle of the scene."""
    forward = camera.w2c[2, :3]
    away = float((np.median(scene.means.astype(np.float64), axis=0) - camera.position) @ forward)
    target = camera.position + forward * max(away, 2 * camera.near)
    return orbit(camera, target, guess_up(scene), frames=_LENGTH,
                 turns=_LENGTH * _TURN_DEG / _RATE / 360).cameras


def count(name: str, folder: Path) -> dict[str, float]:
    """What the frames of a capture take.

    Parameters
    ----------
    name : str
        Of :data:`FRAMES`.
    folder : Path
        Where the captures are.

    Returns
    -------
    dict
        Pixels, those that look for their colour, those that find it, Gaussians blended without and
        with the cache; the share of listed pairs that change places from frame to frame; the mean
        difference of found colours, of 255.
    """
    scene = load(*(folder / file for file in RECIPES[name].captures))
    cameras = _path(scene, default_camera(scene, _SIDE, _SIDE))
    design = LuminaDesign()
    tiles, _ = group_order(_SIDE, _SIDE, design.radiance.group_tiles)
    counted = dict.fromkeys(("pixels", "lookups", "hits", "blended", "blended_cached"), 0)
    differences = 0.0
    for number, frame in enumerate(render_sequence_float(scene, cameras, design)):
        if number == 0 or frame.visits is None:
            continue
        hit = frame.visits.hit
        plain = to_tiles(frame.uncached, tiles)
        counted["pixels"] += _SIDE * _SIDE
        counted["lookups"] += int(np.count_nonzero(frame.visits.outcome))
        counted["hits"] += int(hit.sum())
        counted["blended"] += frame.blended
        counted["blended_cached"] += frame.blended_cached
        wrong = np.clip(frame.visits.colors[hit], 0, 1) - np.clip(plain[hit], 0, 1)
        differences += 255 * float(np.abs(wrong).mean(axis=1).sum(dtype=np.float64))
    lists = [share(scene, camera, 0) for camera in cameras]
    inverted = [order_changes(before, after)[0] for before, after in pairwise(lists)]
    return {**counted, "inverted": float(np.mean(inverted)),
            "difference": differences / max(counted["hits"], 1)}


def count_all(folder: Path) -> str:
    """JSON text of all counts, of the captures in a folder."""
    return json.dumps({name: count(name, folder) for name in FRAMES}, indent=1) + "\n"


@cache
def _table() -> dict[str, dict[str, float]]:
    return json.loads(_TABLE.read_text("utf-8"))


def _over(frames: Sequence[str], unit: str, figure: Callable[[dict[str, float]], float]) -> Sourced:
    """Mean over captures."""
    def of(name: str) -> Sourced:
        if name not in _table():
            raise ValueError(f"Frame must be one of {', '.join(_table())}, not {name!r}")
        return Sourced.exact(figure(_table()[name]), unit,
                             "counted by the float form of the algorithm")
    return over_scenes(frames, of)


def inverted(frames: Sequence[str]) -> Sourced:
    """Share of the pairs that a tile lists at two adjacent poses that change places."""
    return _over(frames, "1", lambda counted: counted["inverted"])


def hit_rate(frames: Sequence[str]) -> Sourced:
    """Share of the pixels with a whole record that find it in the cache."""
    return _over(frames, "1", lambda counted: counted["hits"] / counted["lookups"])


def avoided(frames: Sequence[str]) -> Sourced:
    """Share of the Gaussians that would be blended and are not, since pixels find their colour."""
    return _over(frames, "1", lambda counted: 1 - counted["blended_cached"] / counted["blended"])


def record_difference(frames: Sequence[str]) -> Sourced:
    """Mean difference of a found colour from the pixel's own, of 255."""
    return _over(frames, "1", lambda counted: counted["difference"])


def cache_capacity() -> Sourced:
    """Bytes of tags and colours of the cache of the default geometry."""
    return Sourced.exact(LuminaDesign().radiance.capacity_bytes, "B", "geometry of the cache")


def record_registers() -> Sourced:
    """Bytes of the registers of records of a unit: of its pixels, of two tiles."""
    design = LuminaDesign()
    bits = 2 * design.nru.unit_pixels * design.radiance.record_ids * RECORD_ID_BITS
    return Sourced.exact(bits / 8, "B", "records of a unit")


if __name__ == "__main__":
    with atomic_file(_TABLE) as file:
        file.write(count_all(Path(sys.argv[1])).encode())
