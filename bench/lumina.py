"""What Lumina's sharing and caching cost in pictures and save in work, on real motion and orbits.

    python bench/lumina.py [--scene FILE|NAME ...] [--trace CSV ...] [--size WxH] [--frames N]
                           [--parts sharing,caching,turning] [--json FILE]

Everything is the float form against the float reference, unless it says bit by bit.
"""

import argparse
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from splatforge.algos import reference
from splatforge.algos.lumina import render_sequence, render_sequence_float
from splatforge.algos.lumina.sharing import order_changes, render_shared, share, windows
from splatforge.algos.quality import psnr_db
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.sharing import SharingDesign
from splatforge.scenes import (
    Camera,
    Scene,
    default_camera,
    follow,
    guess_up,
    load_eyenavgs,
    orbit,
    resolve,
    turn_deg,
)

WINDOWS = (1, 2, 4, 6, 8, 12, 16)
MARGINS = (0, 1, 2, 4, 8)
#: Degrees of an orbit between two frames: the paper's 25 degrees a second at 90 frames.
ORBIT_STEP_DEG = 0.28


def mean_psnr(values: list[float]) -> float:
    """PSNR of the mean squared error."""
    return float(-10 * np.log10(np.mean([10 ** (-0.1 * min(value, 200)) for value in values])))


def motion(scene: Scene, first: Camera, source: str, frames: int, start: int) -> list[Camera]:
    """Frames of a trace from a sample on, or of an orbit about what is seen."""
    if source == "orbit":
        forward = first.w2c[2, :3]
        away = float((np.median(scene.means, axis=0) - first.position) @ forward)
        target = first.position + forward * max(away, 2 * first.near)
        return list(orbit(first, target, guess_up(scene), frames=frames,
                          turns=frames * ORBIT_STEP_DEG / 360).cameras)
    return list(follow(first, load_eyenavgs(source).cameras[start:start + frames]))


def sharing(scene: Scene, cameras: list[Camera]) -> dict:
    """Order changes between adjacent poses; PSNR over window and margin."""
    lists = [share(scene, camera, 0) for camera in cameras[:9]]
    changes = [order_changes(a, b) for a, b in pairwise(lists)]
    exact = [reference.render(scene, camera).image for camera in cameras]
    table = {}
    for window in WINDOWS:
        for margin in MARGINS:
            design = SharingDesign(window=window, margin_px=margin,
                                   rotation_limit_deg=float("inf"))
            psnr, entries = [], 0
            for one in windows(cameras, design):
                lists = share(scene, one.pose, margin)
                entries += len(lists.ids) * one.frames
                for number in range(one.first, one.first + one.frames):
                    image = render_shared(scene, cameras[number], lists).image
                    psnr.append(psnr_db(image, exact[number]))
            table[f"{window},{margin}"] = {
                "psnr_db": mean_psnr(psnr), "worst_db": float(min(psnr)),
                "entries": entries / len(cameras)}
    return {"inverted": float(np.mean([a for a, _ in changes])),
            "gone": float(np.mean([b for _, b in changes])), "table": table}


def caching(scene: Scene, cameras: list[Camera]) -> list[dict]:
    """Hits, aliases, avoided work and PSNR over k; the first frame, which fills, left out."""
    rows = []
    exact = [reference.render(scene, camera).image for camera in cameras]
    for k in range(1, 9):
        design = LuminaDesign()
        design = replace(design, radiance=replace(design.radiance, record_ids=k))
        totals = dict.fromkeys(("pixels", "lookups", "hits", "false", "evaluations",
                                "evaluations_cached", "significant", "blended",
                                "blended_cached"), 0)
        cached, both, fixed, shared = [], [], [], []
        frames = zip(render_sequence(scene, cameras, design),
                     render_sequence_float(scene, cameras, design), exact, strict=True)
        for number, (bits, floats, image) in enumerate(frames):
            if number == 0:
                continue
            work = bits.workload
            for name, value in zip(totals, (
                work.pixels, work.lookups, work.hits, work.false_hits, work.evaluations_uncached,
                work.evaluations, work.significant_uncached, work.blended_uncached, work.blended,
            ), strict=True):
                totals[name] += value
            cached.append(psnr_db(floats.image, floats.uncached))
            both.append(psnr_db(floats.image, image))
            shared.append(psnr_db(floats.uncached, image))
            fixed.append(psnr_db(bits.image, floats.image))
        rows.append({
            "k": k, "lookups": totals["lookups"] / totals["pixels"],
            "hits": totals["hits"] / totals["pixels"],
            "hits_of_lookups": totals["hits"] / max(totals["lookups"], 1),
            "false_of_hits": totals["false"] / max(totals["hits"], 1),
            "significant": totals["significant"] / totals["evaluations"],
            "integration_avoided": 1 - totals["blended_cached"] / totals["blended"],
            "tests_avoided": 1 - totals["evaluations_cached"] / totals["evaluations"],
            "cache_psnr_db": mean_psnr(cached), "lumina_psnr_db": mean_psnr(both),
            "sharing_psnr_db": mean_psnr(shared), "fixed_psnr_db": mean_psnr(fixed),
            "fixed_worst_db": float(min(fixed))})
    return rows


def turning(scene: Scene, cameras: list[Camera]) -> list[dict]:
    """PSNR of shared sorting by how fast the head turns, without a limit."""
    design = SharingDesign(rotation_limit_deg=float("inf"))
    psnr: dict[int, list[float]] = {}
    for one in windows(cameras, design):
        lists = share(scene, one.pose, design.margin_px)
        for number in range(max(one.first, 1), one.first + one.frames):
            exact = reference.render(scene, cameras[number]).image
            image = render_shared(scene, cameras[number], lists).image
            speed = int(2 * turn_deg(cameras[number - 1], cameras[number]))
            psnr.setdefault(speed, []).append(psnr_db(image, exact))
    return [{"from_deg": speed / 2, "frames": len(values), "psnr_db": mean_psnr(values),
             "worst_db": float(min(values))} for speed, values in sorted(psnr.items())]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--scene", nargs="+", default=["default"])
    parser.add_argument("--trace", nargs="*", default=[])
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--frames", type=int, default=25)
    parser.add_argument("--start", type=int, default=200)
    parser.add_argument("--parts", default="sharing,caching")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    width, height = map(int, given.size.split("x"))
    record = {}
    for name in given.scene:
        scene = resolve(name)
        first = default_camera(scene, width, height)
        for source in ["orbit", *given.trace]:
            cameras = motion(scene, first, source, given.frames, given.start)
            here = record[f"{Path(name).name} {Path(source).name}"] = {
                "turn_deg": float(np.median(
                    [turn_deg(a, b) for a, b in pairwise(cameras)]))}
            print(f"\n{Path(name).name}, {Path(source).name}: {len(cameras)} frames of "
                  f"{width}x{height}, median turn {here['turn_deg']:.2f} degrees")
            for part in given.parts.split(","):
                found = here[part] = globals()[part](scene, cameras)
                show(found)
            if given.json:
                given.json.write_text(json.dumps(record, indent=1))


def show(found: dict | list[dict]) -> None:
    """Print a part's table."""
    if isinstance(found, list):
        print(" ".join(f"{name:>20}" for name in found[0]))
        for row in found:
            print(" ".join(f"{value:>20.4g}" for value in row.values()), flush=True)
        return
    print(f"order inverted {found['inverted']:.4%}, entries gone {found['gone']:.4%}")
    print("PSNR in dB: window down, margin across", *MARGINS)
    for window in WINDOWS:
        print(f"{window:>4}", *(f"{found['table'][f'{window},{m}']['psnr_db']:>7.2f}"
                                for m in MARGINS), flush=True)


if __name__ == "__main__":
    main()
