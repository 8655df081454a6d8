"""Voyager and Nebula on a city that is streamed: bytes, quality, and what a client takes.

``streamed_runs.json`` holds what paths through the semarang city took: the code that cloud and
client run, counted; frames of the same paths as video; how near both are to frames of all
Gaussians; new Gaussians of straight ways over speed. The captures are not shipped: where they are
at hand, ``python -m splatforge.claims.streamed SCENES CAMERAS`` builds the tree and counts anew;
with a third argument a tree that is there is taken.
"""

import json
import math
import sys
import tempfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache, partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from splatforge.algos.project import project
from splatforge.algos.quality import psnr_db
from splatforge.algos.reference import render
from splatforge.algos.voyager.build import build
from splatforge.algos.voyager.city import TreeCity, due, search_pose
from splatforge.algos.voyager.codec import Codec
from splatforge.algos.voyager.delta import CloudStream
from splatforge.algos.voyager.tree import LodTree
from splatforge.algos.voyager.wire import HEADER_BYTES, pack_ids
from splatforge.claims.lod import CITY, HEADS, PATHS, path, straight
from splatforge.claims.mean import over_views
from splatforge.designs.lod import SearchDesign, TreeDesign
from splatforge.designs.streaming import LoopDesign, StreamingDesign
from splatforge.scenes import Camera, Scene, load
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.client import count_frame
from splatforge.sim.costs import Sourced
from splatforge.sim.gpu import FrameWork, devices, gpu_frame, gpu_search
from splatforge.sim.streaming import gaussian_bytes, on_air, speed_point
from splatforge.sim.video import ENCODERS, encode_video, raw_video_rate

__all__ = ["SPEEDS", "TAUS", "count", "count_all", "count_likeness", "count_speeds", "count_video",
           "energy_saving", "psnr_loss", "raw_rate", "reduction", "speedup"]

_TABLE = Path(str(files("splatforge.claims"))) / "streamed_runs.json"
_COUNTED = "counted of the stream of our city's tree"
#: Thresholds in pixels: nearly all nodes of a cut below 6 are leaves.
TAUS = (6, 24, 48)
#: Metres a second of straight ways, in steps of two: from a slow walk to 160 km/h.
SPEEDS = tuple(0.35 * 2**step for step in range(8))
#: Frames of a path, and those of them that are a video. The last is drawn as a client does.
_FRAMES, _VIDEO = 65, 65
#: Frames of a straight way: four reuse windows.
_STRAIGHT = 129
_WINDOW = 4
#: Every so many Gaussians of a first cut are coded: all of them would take minutes.
_STRIDE = 256


def _rate_hz(name: str) -> float:
    return 71.0 if name in HEADS else 90.0


def _start_bytes(codec: Codec, city: TreeCity, cut: npt.NDArray[np.int64]) -> int:
    """Bytes of a first delta by a sample of its Gaussians, coded and packed; its ids are whole."""
    some = cut[::_STRIDE]
    coded = zlib.compress(codec.encode(city.scene(some)), 6)
    return (HEADER_BYTES + len(zlib.compress(pack_ids(cut), 6))
            + round(len(coded) / len(some) * len(cut)))


def _pictures(city: TreeCity, codec: Codec, camera: Camera, late: npt.NDArray[np.int64],
              own: npt.NDArray[np.int64]) -> tuple[dict[str, float], FrameWork]:
    """PSNR of a client's frame against what it could be, and the work of the frame.

    Parameters
    ----------
    city, codec, camera : TreeCity, Codec, Camera
        What is drawn.
    late, own : ndarray
        The cut that the client has, and that of the frame's pose.
    """
    scene = city.scene(late)
    exact = render(scene, camera).image
    shown = project(scene, camera).ids
    visible = scene.select(np.sort(shown))
    coded = render(codec.decode(codec.encode(visible), visible.gaussians), camera).image
    work = replace(count_frame(visible, camera), gaussians=scene.gaussians)
    del scene, visible
    full = exact if np.array_equal(late, own) else render(city.scene(own), camera).image
    return {"coded_vs_exact": psnr_db(coded, exact), "coded_vs_full": psnr_db(coded, full),
            "exact_vs_full": psnr_db(exact, full)}, work


def count(tree: LodTree, codec: Codec, name: str, cameras: Path, tau_px: float) -> dict[str, Any]:
    """What a path takes at a threshold.

    Parameters
    ----------
    tree, codec : LodTree, Codec
        The city's.
    name, cameras : str, Path
        Of :data:`splatforge.claims.lod.PATHS`; folder of the recordings.
    tau_px : float
        Size that a node of a cut is below.

    Returns
    -------
    dict
        Bytes on air (packet headers included) at the start and a second after it, of what is
        streamed and of whole cuts; new Gaussians a second; nodes that searches visit; PSNR of
        the last frame at the client, and its work.
    """
    city = TreeCity(tree, SearchDesign(tau_px=tau_px, window_frames=_WINDOW))
    way, rate_hz = path(name, cameras)[:_FRAMES], _rate_hz(name)
    find, cloud = city.finder(), CloudStream(codec, city.scene, 1)
    first = find(way[0])
    # As if the client had the first delta: of those behind it every byte is made.
    cloud.table.commit(cloud.table.plan(0, first))
    cloud.sequence = 1
    start_bytes = _start_bytes(codec, city, first.entered)
    sizes, cuts, new, visited, shares = [start_bytes], [len(first.entered)], 0, [], []
    late = first.entered
    for number in range(_WINDOW, _FRAMES - _WINDOW, _WINDOW):
        found = find(search_pose(way, number, _WINDOW))
        sent = cloud.step(number, found)
        cloud.acknowledge(sent.sequence)
        sizes.append(len(sent.data))
        shares.append(1 - len(found.left) / cuts[-1])
        cuts.append(cuts[-1] + len(found.entered) - len(found.left))
        visited.append(found.visited)
        new += sent.gaussians
        if number == due(_FRAMES - 1, _WINDOW):
            late = cloud.table.cut
    duration_s = len(visited) * _WINDOW / rate_hz
    ways = {"streaming": sizes,
            "cuts": [HEADER_BYTES + cut * gaussian_bytes(codec.sh_degree) for cut in cuts],
            "cuts_coded": [HEADER_BYTES + codec.size_bytes(cut) for cut in cuts]}
    air = {each: on_air(some, duration_s, LoopDesign()) for each, some in ways.items()}
    quality, work = _pictures(city, codec, way[-1], late, _own_cut(city, way[-1]))
    return {
        "cut": cuts[-1], "held": cloud.table.held, "unchanged": float(np.mean(shares)),
        "gaussians_per_s": new / duration_s,
        "start_bytes": {each: taken.start_bytes for each, taken in air.items()},
        "bytes_per_s": {each: taken.bytes_per_s for each, taken in air.items()},
        "visited_first": first.visited, "visited": float(np.mean(visited)),
        # Frames that are equal are infinitely near, which JSON cannot say.
        "psnr_db": {each: db if math.isfinite(db) else None for each, db in quality.items()},
        "work": asdict(work)}


def _own_cut(city: TreeCity, camera: Camera) -> npt.NDArray[np.int64]:
    """The cut at a pose."""
    return city.finder()(camera).entered


def count_video(whole: Scene, name: str, cameras: Path) -> dict[str, Any]:
    """What the same path takes as video of all Gaussians: bytes on air a second after the first."""
    way, rate_hz = path(name, cameras)[:_VIDEO], _rate_hz(name)
    frames = np.stack([np.rint(np.clip(render(whole, camera).image, 0, 1) * 255).astype(np.uint8)
                       for camera in way])
    later, found = len(way) - 1, {}
    for encoder in ENCODERS:
        made = encode_video(frames, encoder, rate_hz=rate_hz)
        sizes = [made.first_bytes, *[(made.size_bytes - made.first_bytes) / later] * later]
        found[encoder] = {**asdict(on_air(sizes, later / rate_hz, LoopDesign())),
                          "psnr_db": made.psnr_db}
    return found


def count_likeness(tree: LodTree, codec: Codec, camera: Camera, tau_px: float,
                   image: npt.NDArray[np.float32]) -> dict[str, float]:
    """PSNR of a cut, as it is and as a client has it, against an image of all Gaussians."""
    city = TreeCity(tree, SearchDesign(tau_px=tau_px))
    scene = city.scene(_own_cut(city, camera))
    scene = scene.select(np.sort(project(scene, camera).ids))
    return {"exact": psnr_db(render(scene, camera).image, image),
            "coded": psnr_db(render(codec.decode(codec.encode(scene), scene.gaussians),
                                    camera).image, image)}


def count_speeds(tree: LodTree, tau_px: float) -> list[dict[str, Any]]:
    """New Gaussians of straight ways at a threshold, one of each of :data:`SPEEDS`."""
    city = TreeCity(tree, SearchDesign(tau_px=tau_px, window_frames=_WINDOW))
    return [asdict(speed_point(city, straight(speed, _STRAIGHT), window=_WINDOW, rate_hz=90.0,
                               reuse_window=StreamingDesign().reuse_window)) for speed in SPEEDS]


def count_all(scenes: Path, cameras: Path, tree_file: Path | None = None,
              tell: Callable[[str], None] = lambda line: None) -> str:
    """JSON text of all paths and thresholds, of the captures in two folders."""
    with tempfile.TemporaryDirectory() as folder:
        if tree_file is None:
            tree_file = Path(folder) / "city.lod"
            build([partial(load, scenes / part) for part in CITY], tree_file, TreeDesign())
        tree = LodTree.open(tree_file)
        codec = TreeCity(tree, SearchDesign()).codec(StreamingDesign())
        tell("codec")
        counted: dict[str, Any] = {
            "gaussians": tree.leaves, "nodes": tree.nodes, "width": 1280, "height": 720,
            "window_frames": _WINDOW, "setup_bytes": len(codec.to_bytes()), "speeds": {},
            "runs": {}, "video": {}}
        for tau_px in TAUS:
            counted["speeds"][str(tau_px)] = count_speeds(tree, tau_px)
            tell(f"speeds {tau_px}")
        for tau_px in TAUS:
            for name in PATHS:
                counted["runs"][f"{name}_{tau_px}"] = count(tree, codec, name, cameras, tau_px)
                tell(f"{name} {tau_px}")
        whole = tree.scene(np.flatnonzero(np.diff(tree.first_child) == 0))
        for name in PATHS:
            counted["video"][name] = count_video(whole, name, cameras)
            tell(f"{name} video")
        lasts = {name: path(name, cameras)[_FRAMES - 1] for name in PATHS}
        images = {name: render(whole, last).image for name, last in lasts.items()}
        del whole
        counted["psnr_db_of_all"] = {
            f"{name}_{tau_px}": count_likeness(tree, codec, lasts[name], tau_px, images[name])
            for tau_px in TAUS for name in PATHS}
    return json.dumps(counted, indent=1) + "\n"


@cache
def _table() -> dict[str, Any]:
    return json.loads(_TABLE.read_text("utf-8"))


def _chosen(paths: Sequence[str], taus: Sequence[int]) -> list[str]:
    """Names of runs."""
    names = [f"{name}_{tau}" for tau in taus for name in paths]
    for name in names:
        if name not in _table()["runs"]:
            raise ValueError(f"Run must be one of {', '.join(_table()['runs'])}, not {name!r}")
    return names


def _over(paths: Sequence[str], taus: Sequence[int], figure: Callable[[dict[str, Any]], Sourced]
          ) -> Sourced:
    """Mean over paths and thresholds of what a run says."""
    return over_views(_chosen(paths, taus), lambda name: figure(_table()["runs"][name]))


def reduction(paths: Sequence[str], taus: Sequence[int], against: str) -> Sourced:
    """Bytes on air a second of another way to send paths over those of the stream, once begun.

    All of the one over all of the other: a head that stands still asks for next to nothing, and a
    mean of ratios would be its own.

    Parameters
    ----------
    paths, taus : sequence of str, sequence of int
        Of :data:`splatforge.claims.lod.PATHS`, and of :data:`TAUS`.
    against : str
        ``cuts`` or ``cuts_coded``, whole cuts at every search, plain or coded alike; ``h264``,
        ``h265``; ``video_raw``, 8-bit RGB.
    """
    def other(name: str) -> float:
        run, way = _table()["runs"][name], name.rpartition("_")[0]
        if against == "video_raw":
            return raw_video_rate(_table()["width"], _table()["height"], _rate_hz(way)) / 8
        if against in ENCODERS:
            return _table()["video"][way][against]["bytes_per_s"]
        if against in run["bytes_per_s"]:
            return run["bytes_per_s"][against]
        raise ValueError(f"Way must be one of cuts, cuts_coded, {', '.join(ENCODERS)}, video_raw, "
                         f"not {against!r}")
    names = _chosen(paths, taus)
    streams = [_table()["runs"][name]["bytes_per_s"]["streaming"] for name in names]
    others = [other(name) for name in names]
    ratios = [theirs / ours for theirs, ours in zip(others, streams, strict=True)]
    exact = Sourced.exact(math.fsum(others) / math.fsum(streams), "1", _COUNTED)
    return replace(exact, scatter=(min(ratios), max(ratios)))


def psnr_loss(paths: Sequence[str], taus: Sequence[int], base_db: float) -> Sourced:
    """What a scene at some PSNR loses by being coded, in dB, at the end of a path.

    What coding changes adds to what the scene differs from photographs: as if both were
    independent.

    Parameters
    ----------
    paths, taus
        As of :func:`reduction`.
    base_db : float
        PSNR of the scene's own pictures against photographs.
    """
    return _over(paths, taus, lambda run: Sourced.exact(
        10 * math.log10(1 + 10 ** ((base_db - run["psnr_db"]["coded_vs_exact"]) / 10)), "1",
        _COUNTED))


def _times(run: dict[str, Any], device: str, search: str) -> tuple[Sourced, Sourced]:
    """Of a frame with a search of the whole tree and plain exponentials, and of a client's."""
    known = devices()
    if device not in known:
        raise ValueError(f"GPU must be one of {', '.join(known)}, not {device!r}")
    searched = {"cloud": 0.0, "device": run["visited"]}
    if search not in searched:
        raise ValueError(f"Search must be one of {', '.join(searched)}, not {search!r}")
    gpu = known[device]
    work = FrameWork(**run["work"])
    plain, client = (gpu_frame(work, gpu, falloff).time for falloff in ("exp", "table"))
    return (plain + gpu_search(gpu, visited=run["visited_first"]).time,
            client + gpu_search(gpu, visited=round(searched[search])).time)


def _best(paths: Sequence[str], taus: Sequence[int], device: str, search: str) -> Sourced:
    """The highest ratio of the two times."""
    def ratio(run: dict[str, Any]) -> Sourced:
        before, after = _times(run, device, search)
        # Both with the same efficiencies: the ends of the band are those of the same frame.
        ends = [getattr(before, end) / getattr(after, end) for end in ("low", "value", "high")]
        return Sourced(ends[1], "1", before.source, min(ends), max(ends), before.points)
    runs = [_over([name], [tau], ratio) for tau in taus for name in paths]
    return max(runs, key=lambda each: each.value)


def speedup(paths: Sequence[str], taus: Sequence[int], device: str, search: str) -> Sourced:
    """Highest speedup over the same GPU that searches the whole tree for every frame.

    Parameters
    ----------
    paths, taus
        As of :func:`reduction`.
    device : str
        Of :func:`splatforge.sim.gpu.devices`.
    search : str
        Where it is searched from the last cut: in the ``cloud``, beside the frames, or on the
        ``device``. In either case exponents are filtered and exponentials are out of a table.
    """
    return _best(paths, taus, device, search)


def energy_saving(paths: Sequence[str], taus: Sequence[int], device: str, search: str) -> Sourced:
    """Highest share of the energy that :func:`speedup` saves: a GPU's is time times power."""
    best = _best(paths, taus, device, search)
    return Sourced(1 - 1 / best.value, "1", best.source, 1 - 1 / best.low, 1 - 1 / best.high,
                   best.points)


def raw_rate(width: int, height: int, rate_hz: float) -> Sourced:
    """Bits a second of a video of 8-bit RGB as it is."""
    return Sourced.exact(raw_video_rate(width, height, rate_hz), "bps", "24 bits a pixel")


if __name__ == "__main__":
    made = count_all(*map(Path, sys.argv[1:]),
                     tell=lambda line: print(line, file=sys.stderr, flush=True))
    with atomic_file(_TABLE) as file:
        file.write(made.encode())
