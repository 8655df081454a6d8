"""How much a step of fine-tuning costs beside a picture, and beside a plain loop backwards.

    python bench/gradient.py [--quick] [--json FILE]

Everything runs on one thread in process CPU time, interleaved, and the least of several runs
counts: the ratios hold on a machine that does other work. See bench/README.md.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit
from render import SHARED, least, on_threads, slab

from splatforge.algos.adam import Adam
from splatforge.algos.gradient import Trace, gradients, trace
from splatforge.algos.photometric import PhotometricLoss
from splatforge.algos.reference import render
from splatforge.algos.streaminggs.order import streaming_order
from splatforge.algos.streaminggs.partition import partition
from splatforge.designs.streaminggs import PartitionDesign
from splatforge.scenes import Camera, Scene, default_camera, load

PARAMETERS = ("log_scales", "quats", "opacity_logits", "sh")


@njit(fastmath=True)
def plain_backward(starts, entries, records, image, image_gradient, transmittance, sums):
    """Every pixel walks its list back from its end, as Kerbl et al. do; sums per Gaussian."""
    height, width = transmittance.shape
    tiles_x = (width + 15) // 16
    alphas = np.empty(len(entries), np.float32)
    for tile in range(len(starts) - 1):
        top, left = tile // tiles_x * 16, tile % tiles_x * 16
        begin, end = starts[tile], starts[tile + 1]
        for y in range(top, min(height, top + 16)):
            for x in range(left, min(width, left + 16)):
                t, last = np.float32(1), begin
                for k in range(begin, end):
                    i = entries[k]
                    dx = records[i, 0] - x - np.float32(0.5)
                    dy = records[i, 1] - y - np.float32(0.5)
                    power = records[i, 2] * dx * dx + records[i, 4] * dy * dy
                    power -= records[i, 3] * dx * dy
                    alphas[k] = 0
                    if power > 0 or power < -8:
                        continue
                    alpha = min(np.float32(0.99), records[i, 5] * np.exp(power))
                    if alpha < np.float32(1 / 255):
                        continue
                    if t * (1 - alpha) < np.float32(1e-4):
                        break
                    t *= 1 - alpha
                    alphas[k], last = alpha, k + 1
                behind = np.float32(0)
                for k in range(last - 1, begin - 1, -1):
                    alpha = alphas[k]
                    if alpha == 0:
                        continue
                    i = entries[k]
                    t /= 1 - alpha
                    dot = np.float32(0)
                    for channel in range(3):
                        by = image_gradient[y, x, channel]
                        sums[i, channel] += alpha * t * by
                        dot += by * records[i, 6 + channel]
                    change = alpha * (t * dot - behind / (1 - alpha))
                    behind += alpha * t * dot
                    dx = records[i, 0] - x - np.float32(0.5)
                    dy = records[i, 1] - y - np.float32(0.5)
                    sums[i, 3] += change
                    sums[i, 4] += change * dx * dx
                    sums[i, 5] += change * dx * dy
                    sums[i, 6] += change * dy * dy


def plain(drawn: Trace, by_image: np.ndarray) -> np.ndarray:
    sums = np.zeros((len(drawn.ids), 7), np.float32)
    plain_backward(
        drawn.lists.starts, drawn.lists.entries, drawn.records, drawn.image, by_image,
        drawn.transmittance, sums,
    )  # fmt: skip
    return sums


def measure(name: str, scene: Scene, camera: Camera, rounds: int) -> dict[str, Any]:
    drawn = trace(scene, camera)
    target = render(scene, camera).image + np.float32(0.01)
    loss = PhotometricLoss(target)
    _, by_image = loss(drawn.image)
    by = gradients(drawn, by_image)
    values = {part: getattr(scene, part).copy() for part in PARAMETERS}
    slopes = {part: getattr(by, part) for part in PARAMETERS}
    adam, rates = Adam.start(values), dict.fromkeys(PARAMETERS, 0.0)
    order = streaming_order(partition(scene, PartitionDesign()))
    # What the plain loop finds, as a check that both do the same work.
    sums = plain(drawn, by_image)
    ours = np.zeros((scene.gaussians, 3))
    ours[by.ids] = by.sh[:, 0] / 0.28209479177387814
    listed = drawn.ids >= 0
    theirs = np.where(drawn.records[listed, 6:9] > 0, sums[listed, :3], 0)
    difference = np.abs(ours[drawn.ids[listed]] - theirs).max() / np.abs(theirs).max()
    if not difference < 1e-3:
        raise SystemExit(f"{name}: the plain loop finds other gradients: {difference:.2g}")
    parts = {
        "forward": lambda: trace(scene, camera),
        "forward_streaming": lambda: trace(scene, camera, order=order),
        "loss": lambda: loss(drawn.image),
        "backward": lambda: gradients(drawn, by_image),
        "adam": lambda: adam.step(values, by.ids, slopes, rates),
        "plain_backward": lambda: plain(drawn, by_image),
    }
    best = dict.fromkeys(parts, np.inf)
    for _ in range(rounds):
        for part, run in parts.items():
            best[part] = min(best[part], least(run, 2, time.process_time))
    step = sum(best[part] for part in ("forward_streaming", "loss", "backward", "adam"))
    return {
        "scene": name, "size": f"{camera.width}x{camera.height}", "gaussians": scene.gaussians,
        "pairs": len(drawn.lists.entries), **{f"{part}_ms": 1e3 * s for part, s in best.items()},
        "step_ms": 1e3 * step, "backward_to_forward": best["backward"] / best["forward"],
        "plain_to_backward": best["plain_backward"] / best["backward"],
        "colour_difference": float(difference),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--json", metavar="FILE")
    arguments = parser.parse_args()
    cases = [("slab", *slab(20_000 if arguments.quick else 100_000, 320, 240))]
    if not arguments.quick:
        for file in ("inari_fox_50k.ply", "plant_114k.splat", "fourth_st_131k_sh3.spz"):
            if (SHARED / file).exists():
                scene = load(SHARED / file)
                cases.append((file, scene, default_camera(scene, 320, 240)))
    rows = []
    for case in cases:
        row = on_threads(1, lambda case=case: measure(*case, 3 if arguments.quick else 8))
        rows.append(row)
        print(
            f"{row['scene']}, {row['size']}: forward {row['forward_ms']:.1f} ms, in streaming order"
            f" {row['forward_streaming_ms']:.1f}, loss {row['loss_ms']:.1f}, backward"
            f" {row['backward_ms']:.1f}, Adam {row['adam_ms']:.1f}; a step {row['step_ms']:.1f} ms;"
            f" backward : forward {row['backward_to_forward']:.2f}; plain loop"
            f" {row['plain_backward_ms']:.0f} ms, {row['plain_to_backward']:.1f}x ours",
            flush=True,
        )
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
