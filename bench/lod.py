"""Searches of a city's tree side by side, and what cuts look like: ratios of one run.

    python bench/lod.py CITY.lod [--cameras FOLDER] [--tau-px 6 12 ...] [--json FILE]

Along paths on foot, by car and of recorded heads (EyeNavGS, from the folder): nodes visited and
processor time of the streaming search, of that from the last cut, and of that from the last cut
without safe distances; how much of a cut stays. Then per tau the cut's share of all Gaussians, and
PSNR against all of them, drawn by the float reference, without and with the mip filter. Exit code 1
if two searches disagree.
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from splatforge.algos import reference
from splatforge.algos.quality import psnr_db
from splatforge.algos.voyager.path import search_path
from splatforge.algos.voyager.search import Search
from splatforge.algos.voyager.tree import LodTree
from splatforge.designs.lod import SearchDesign
from splatforge.scenes import Camera, Scene, follow, load_eyenavgs, travel
from splatforge.scenes.atomic_file import atomic_file

UP = (0.0, -1.0, 0.0)
#: Good views of the semarang city.
EYES = ((0, -40, -150), (0, -250, -500), (-200, -60, 100))


def view(eye, width=1280, height=720) -> Camera:
    return Camera.look_at(eye, (0, 0, 0), UP, width=width, height=height, fx=0.79 * width)


def paths(folder: Path | None, frames: int) -> dict[str, tuple[Camera, ...]]:
    first = view(EYES[0])
    found = {"walk 1.4 m/s": travel(first, UP, frames=frames, speed=1.4).cameras,
             "drive 50 km/h": travel(first, UP, frames=frames, speed=50 / 3.6).cameras}
    for path in sorted(folder.glob("eyenavgs_user*.csv.gz")) if folder else ():
        trace = load_eyenavgs(path).cameras[200:200 + frames]
        found["head " + path.name.split("_")[-1].split(".")[0]] = follow(first, trace)
    return found


def drawn(scene: Scene, camera: Camera, mip: bool) -> np.ndarray:
    return reference.render(replace(scene, antialiased=mip), camera).image


def main() -> int:
    parser = argparse.ArgumentParser(description="searches and cuts of a city's tree")
    parser.add_argument("tree", type=Path)
    parser.add_argument("--cameras", type=Path)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--tau-px", type=float, nargs="*", default=[6, 12, 24, 48, 96])
    parser.add_argument("--size", type=int, nargs=2, default=[1280, 720])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    tree = LodTree.open(arguments.tree)
    record: dict = {"nodes": tree.nodes, "paths": {}, "quality": []}
    print(f"{tree.nodes:,} nodes, {len(tree.roots):,} subtrees")
    print("tau  path            cut nodes  visited: streaming, last cut, all its subtrees   "
          "time: ratios   unchanged 1, 64")
    agree = True
    for tau in arguments.tau_px[:3]:
        for name, cameras in paths(arguments.cameras, arguments.frames).items():
            found = search_path(tree, cameras, SearchDesign(tau_px=tau))
            agree &= found.identical
            record["paths"][f"{name}, {tau:g} px"] = asdict(found)
            one, two, three = found.streaming, found.temporal, found.temporal_all
            gaps = " ".join(f"{100 * share:8.4f} %" for share in found.unchanged.values())
            print(f"{tau:4g} {name:14} {found.cut_nodes:10,.0f}  {one.visited:11,.0f} "
                  f"{two.visited:9,.0f} {three.visited:11,.0f}   {1e3 * one.time_s:.2f} ms "
                  f"{one.time_s / two.time_s:6.1f}x {one.time_s / three.time_s:5.2f}x   {gaps}",
                  flush=True)
    print("tau      cut of all   PSNR of views, dB; the same with the mip filter")
    everything = tree.scene(np.flatnonzero(np.diff(tree.first_child) == 0))
    views = [view(eye, *arguments.size) for eye in EYES]
    whole = {mip: [drawn(everything, camera, mip) for camera in views] for mip in (False, True)}
    gaussians = everything.gaussians
    del everything
    for tau in arguments.tau_px:
        search = Search(tree, SearchDesign(tau_px=tau))
        cuts = [search.full(camera).ids for camera in views]
        share = float(np.mean([len(ids) for ids in cuts])) / gaussians
        found = {mip: [psnr_db(drawn(tree.scene(ids), camera, mip), image)
                       for ids, camera, image in zip(cuts, views, images, strict=True)]
                 for mip, images in whole.items()}
        record["quality"].append({"tau_px": tau, "share": share, "psnr_db": found[False],
                                  "psnr_db_mip": found[True]})
        print(f"{tau:4g} {100 * share:12.2f} %   " + "   ".join(
            " ".join(f"{each:.2f}" for each in found[mip]) for mip in (False, True)), flush=True)
    if arguments.json:
        with atomic_file(arguments.json) as file:
            file.write((json.dumps(record, indent=1) + "\n").encode())
    if not agree:
        print("searches do not agree", file=sys.stderr)
    return int(not agree)


if __name__ == "__main__":
    raise SystemExit(main())
