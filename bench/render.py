"""How fast the float reference is: beside a plain loop, over threads, over Gaussians, over peak.

    python bench/render.py [--quick] [--json FILE]

Ours and the plain loop run interleaved in one process, and the least time of several runs
counts: the ratios hold on a machine that does other work, the milliseconds less so. One thread is
timed in process CPU time, two threads on the wall. See bench/README.md.
"""

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llvmlite.binding
import llvmlite.ir as ll
import numba
import numpy as np
from numba import njit, types
from numba.extending import intrinsic

from splatforge.algos.rasterize import _LANES, _Lanes
from splatforge.algos.reference import Frame, render
from splatforge.algos.workers import Workers
from splatforge.scenes import Camera, Scene, load

SHARED = Path(__file__).resolve().parents[2] / "shared" / "scenes"
C0 = 0.28209479177387814

# Floating-point operations of one evaluation as written in algos/rasterize.py, a fused
# multiply-add as two: dx and form 4, exp 24, alpha 2, transmittance 2, weight 1, colour 6.
FLOP_PER_EVALUATION = 39


def slab(n: int, width: int, height: int) -> tuple[Scene, Camera]:
    """Gaussians of about 0.02 in a slab from 2 to 10 in front of a 60 degree camera."""
    rng = np.random.default_rng(0)
    focal = 0.5 * width / np.tan(np.radians(30))
    z = rng.uniform(2, 10, n)
    x = (rng.uniform(-0.1, 1.1, n) * width - width / 2) * z / focal
    y = (rng.uniform(-0.1, 1.1, n) * height - height / 2) * z / focal
    log_scales = rng.normal(np.log(0.02), 0.5, (n, 3))
    quats = rng.normal(size=(n, 4))
    opacity = rng.beta(1.2, 1.8, n).clip(0.01, 0.99)
    color = rng.uniform(0, 1, (n, 1, 3))
    scene = Scene(
        means=np.stack([x, y, z], 1), log_scales=log_scales, quats=quats,
        opacity_logits=np.log(opacity / (1 - opacity)), sh=(color - 0.5) / C0,
    )  # fmt: skip
    camera = Camera(
        width=width, height=height, fx=focal, fy=focal, cx=width / 2, cy=height / 2, w2c=np.eye(4)
    )
    return scene, camera


@njit(fastmath=True)
def plain_project(means, scales, quats, fx, fy, cx, cy, width, height):
    n = len(means)
    center, conic = np.empty((n, 2), np.float32), np.empty((n, 3), np.float32)
    radius = np.zeros(n, np.int32)
    for i in range(n):
        z = means[i, 2]
        if z <= np.float32(0.2):
            continue
        w, x, y, k = quats[i]
        rotation = (
            (1 - 2 * (y * y + k * k), 2 * (x * y - w * k), 2 * (x * k + w * y)),
            (2 * (x * y + w * k), 1 - 2 * (x * x + k * k), 2 * (y * k - w * x)),
            (2 * (x * k - w * y), 2 * (y * k + w * x), 1 - 2 * (x * x + y * y)),
        )
        u, v = means[i, 0] / z, means[i, 1] / z
        xx = xy = yy = np.float32(0)
        for axis in range(3):
            g = fx / z * (rotation[0][axis] - u * rotation[2][axis]) * scales[i, axis]
            h = fy / z * (rotation[1][axis] - v * rotation[2][axis]) * scales[i, axis]
            xx, xy, yy = xx + g * g, xy + g * h, yy + h * h
        xx, yy = xx + np.float32(0.3), yy + np.float32(0.3)
        det = xx * yy - xy * xy
        conic[i] = yy / det, -xy / det, xx / det
        mid = np.float32(0.5) * (xx + yy)
        r = int(np.ceil(3 * np.sqrt(mid + np.sqrt(max(np.float32(0.1), mid * mid - det)))))
        center[i] = fx * u + cx, fy * v + cy
        if -r < center[i, 0] < width + r and -r < center[i, 1] < height + r:
            radius[i] = r
    return center, conic, radius


@njit
def plain_bin(order, center, radius, width, height):
    tiles_x, tiles_y = (width + 15) // 16, (height + 15) // 16
    starts = np.zeros(tiles_x * tiles_y + 1, np.int64)
    entries = np.empty(0, np.int32)
    slots = starts
    for write in (False, True):
        for i in order:
            r = radius[i]
            if r == 0:
                continue
            x0, x1 = max(0, int((center[i, 0] - r) // 16)), int((center[i, 0] + r) // 16)
            y0, y1 = max(0, int((center[i, 1] - r) // 16)), int((center[i, 1] + r) // 16)
            for y in range(y0, min(tiles_y - 1, y1) + 1):
                for x in range(x0, min(tiles_x - 1, x1) + 1):
                    tile = y * tiles_x + x
                    if write:
                        entries[slots[tile]] = i
                        slots[tile] += 1
                    else:
                        starts[tile + 1] += 1
        if not write:
            starts = np.cumsum(starts)
            slots = starts.copy()
            entries = np.empty(starts[-1], np.int32)
    return starts, entries


@njit(fastmath=True)
def plain_blend(starts, entries, center, conic, opacity, color, width, height):
    image = np.zeros((height, width, 3), np.float32)
    tiles_x = (width + 15) // 16
    for tile in range(len(starts) - 1):
        top, left = tile // tiles_x * 16, tile % tiles_x * 16
        for y in range(top, min(height, top + 16)):
            for x in range(left, min(width, left + 16)):
                t = np.float32(1)
                red = green = blue = np.float32(0)
                for k in range(starts[tile], starts[tile + 1]):
                    i = entries[k]
                    dx = center[i, 0] - x - np.float32(0.5)
                    dy = center[i, 1] - y - np.float32(0.5)
                    power = (
                        np.float32(-0.5) * (conic[i, 0] * dx * dx + conic[i, 2] * dy * dy)
                        - conic[i, 1] * dx * dy
                    )
                    # Below -8 alpha is below 1/255: even a plain loop would spare the exp.
                    if power > 0 or power < -8:
                        continue
                    alpha = min(np.float32(0.99), opacity[i] * np.exp(power))
                    if alpha < np.float32(1 / 255):
                        continue
                    after = t * (1 - alpha)
                    if after < np.float32(1e-4):
                        break
                    weight = alpha * t
                    red += weight * color[i, 0]
                    green += weight * color[i, 1]
                    blue += weight * color[i, 2]
                    t = after
                image[y, x] = red, green, blue
    return image


def plain_render(inputs: dict[str, Any], camera: Camera) -> np.ndarray:
    """The plain loop: activated inputs, an axis-parallel camera at the origin, one thread."""
    size = camera.width, camera.height
    intrinsics = (np.float32(value) for value in (camera.fx, camera.fy, camera.cx, camera.cy))
    center, conic, radius = plain_project(
        inputs["means"], inputs["scales"], inputs["quats"], *intrinsics, *size
    )
    order = np.argsort(inputs["means"][:, 2], kind="stable")
    starts, entries = plain_bin(order, center, radius, *size)
    return plain_blend(
        starts, entries, center, conic, inputs["opacity"], inputs["color"], *size
    )


def plain_inputs(scene: Scene) -> dict[str, Any]:
    return {
        "means": scene.means,
        "scales": np.exp(scene.log_scales),
        "quats": scene.quats / np.linalg.norm(scene.quats, axis=1, keepdims=True),
        "opacity": 1 / (1 + np.exp(-scene.opacity_logits)),
        "color": (scene.sh[:, 0] * np.float32(C0) + np.float32(0.5)).astype(np.float32),
    }


@intrinsic
def _fma_block(typingctx, factor, count):
    """``count`` rounds of 12 independent vector multiply-adds; returns one lane of their sum."""

    def codegen(context, builder, signature, args):
        kind = ll.VectorType(ll.FloatType(), _LANES)
        x = _Lanes.splat(builder, args[0], _LANES)
        slots = [builder.alloca(kind) for _ in range(12)]
        for i, slot in enumerate(slots):
            builder.store(_Lanes.iota(builder, _LANES, float(i)).value, slot)
        left = builder.alloca(ll.IntType(64))
        builder.store(args[1], left)
        body, done = builder.append_basic_block("fma"), builder.append_basic_block("done")
        builder.branch(body)
        builder.position_at_end(body)
        for slot in slots:
            builder.store(_Lanes(builder, builder.load(slot)).fma(x, 0.001).value, slot)
        remaining = builder.sub(builder.load(left), ll.IntType(64)(1))
        builder.store(remaining, left)
        builder.cbranch(builder.icmp_signed(">", remaining, ll.IntType(64)(0)), body, done)
        builder.position_at_end(done)
        total = _Lanes(builder, builder.load(slots[0]))
        for slot in slots[1:]:
            total = total + _Lanes(builder, builder.load(slot))
        return builder.extract_element(total.value, ll.IntType(32)(0))

    return types.float32(types.float32, types.int64), codegen


@njit(nogil=True)
def _fma_kernel(worker, workers, count, sums):
    sums[worker] = _fma_block(np.float32(0.999), count)


@njit(nogil=True)
def _triad_kernel(worker, workers, a, b, c):
    for i in range(worker * len(a) // workers, (worker + 1) * len(a) // workers):
        a[i] = b[i] + np.float32(3) * c[i]


def least(run: Callable[[], Any], times: int, clock: Callable[[], float]) -> float:
    best = np.inf
    for _ in range(times):
        start = clock()
        run()
        best = min(best, clock() - start)
    return best


def measure_peaks(threads: int) -> dict[str, float]:
    """Bandwidth of a STREAM triad and rate of vector multiply-adds on this machine."""
    count, n = 10_000_000, 20_000_000
    a, b, c = (np.ones(n, np.float32) for _ in range(3))
    sums = np.zeros(threads, np.float32)
    with Workers(threads) as workers:
        workers.run(_fma_kernel, 10, sums)
        workers.run(_triad_kernel, a, b, c)
        fma_s = least(lambda: workers.run(_fma_kernel, count, sums), 5, time.perf_counter)
        triad_s = least(lambda: workers.run(_triad_kernel, a, b, c), 7, time.perf_counter)
    return {
        "gflop_per_s": threads * count * 12 * _LANES * 2 / fma_s / 1e9,
        "triad_gbyte_per_s": 3 * 4 * n / triad_s / 1e9,
    }


def on_threads(threads: int, run: Callable[[], Any]) -> Any:
    before = numba.get_num_threads()
    numba.set_num_threads(threads)
    try:
        return run()
    finally:
        numba.set_num_threads(before)


def compare(n: int, width: int, height: int, rounds: int) -> dict[str, Any]:
    """Ours and the plain loop, interleaved."""
    scene, camera = slab(n, width, height)
    inputs = plain_inputs(scene)
    ours = on_threads(1, lambda: render(scene, camera))
    difference = np.abs(ours.image - plain_render(inputs, camera)).max(axis=-1)
    one, plain, two_wall, one_wall = np.inf, np.inf, np.inf, np.inf

    def run() -> Frame:
        return render(scene, camera)

    for _ in range(rounds):
        plain = min(plain, least(lambda: plain_render(inputs, camera), 1, time.process_time))
        for _ in range(4):
            one = min(one, on_threads(1, lambda: least(run, 1, time.process_time)))
            one_wall = min(one_wall, on_threads(1, lambda: least(run, 1, time.perf_counter)))
            two_wall = min(two_wall, on_threads(2, lambda: least(run, 2, time.perf_counter)))
    return {
        "gaussians": n, "size": f"{width}x{height}", "plain_ms": 1e3 * plain,
        "ours_one_thread_ms": 1e3 * one, "ratio": plain / one,
        "ours_two_threads_ms": 1e3 * two_wall, "second_thread": one_wall / two_wall,
        "difference_max": float(difference.max()),
        "pixels_above_1e-3": int((difference > 1e-3).sum()),
    }  # fmt: skip


def least_render(scene: Scene, camera: Camera, times: int) -> float:
    """CPU seconds on one thread."""
    return on_threads(1, lambda: least(lambda: render(scene, camera), times, time.process_time))


def best_frame(scene: Scene, camera: Camera, threads: int, times: int) -> Frame:
    frames = (on_threads(threads, lambda: render(scene, camera)) for _ in range(times))
    return min(frames, key=lambda frame: sum(frame.stages_ms.values()))


def stage_report(scene: Scene, frame: Frame, counts: dict[str, int], peaks: dict) -> dict:
    """Where a frame's time goes, and how far that is from what the machine can do."""
    n, visible = scene.gaussians, counts["visible"]
    # Bytes that must move through memory: what is read of the scene and what a stage leaves.
    moved = {
        "project": n * (12 + 12 + 16 + 4) + visible * (40 + 4 + 8),
        "color": visible * (52 + 64 + 4 + 4 + 8 + 12 + 12 * scene.sh.shape[1]),
        "sort": visible * 3 * (4 + 8 + 8),
        "bin": visible * 2 * (4 + 8) + counts["pairs"] * 4,
    }
    report = {}
    for name, ms in frame.stages_ms.items():
        entry = {"ms": ms, "share": ms / sum(frame.stages_ms.values())}
        if name in moved:
            entry["gbyte_per_s"] = moved[name] / ms / 1e6
            entry["of_triad"] = entry["gbyte_per_s"] / peaks["triad_gbyte_per_s"]
        else:
            entry["significant_per_s"] = counts["significant"] / ms * 1e3
            entry["gflop_per_s"] = counts["significant"] * FLOP_PER_EVALUATION / ms / 1e6
            entry["of_peak"] = entry["gflop_per_s"] / peaks["gflop_per_s"]
        report[name] = entry
    return report


def counts_of(scene: Scene, camera: Camera) -> dict[str, int]:
    from splatforge.algos.project import project

    statistics = render(scene, camera, statistics=True).statistics
    assert statistics is not None
    return statistics.totals() | {"visible": len(project(scene, camera))}


def print_stages(report: dict[str, dict[str, float]]) -> None:
    for name, entry in report.items():
        if "gbyte_per_s" in entry:
            rate = f"{entry['gbyte_per_s']:6.1f} GB/s, {entry['of_triad']:.0%} of triad"
        else:
            rate = (
                f"{entry['significant_per_s'] / 1e6:6.0f} M significant evaluations/s,"
                f" {entry['of_peak']:.0%} of peak flop/s"
            )
        print(f"    {name:8s} {entry['ms']:8.1f} ms {entry['share']:5.0%}  {rate}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds, no city")
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    rounds = 2 if arguments.quick else 5
    result: dict[str, Any] = {}

    features = llvmlite.binding.get_host_cpu_features()
    vector = [name for name in ("avx2", "fma", "avx512f", "neon") if features.get(name)]
    result["cpu"] = {"name": llvmlite.binding.get_host_cpu_name(), "vector": vector}
    result["peaks"] = {str(threads): measure_peaks(threads) for threads in (1, 2)}
    result["load_average"] = os.getloadavg()[0]
    print(f"CPU {result['cpu']['name']} with {', '.join(vector)}; kernels use {_LANES} lanes")
    if result["load_average"] > 0.5:
        print(f"  load average {result['load_average']:.1f}: do not trust times of two threads")
    for threads, peaks in result["peaks"].items():
        print(
            f"  {threads} thread(s): {peaks['gflop_per_s']:.0f} Gflop/s of {_LANES}-lane fma,"
            f" triad {peaks['triad_gbyte_per_s']:.1f} GB/s"
        )

    compare(1000, 64, 64, 1)  # compile
    print("beside the plain loop on one thread (CPU time), and the second thread (wall)")
    result["compare"] = [
        compare(100_000, width, height, rounds) for width, height in ((640, 480), (1280, 720))
    ]
    for row in result["compare"]:
        print(
            f"  100k {row['size']:9s} plain {row['plain_ms']:5.0f} ms, ours"
            f" {row['ours_one_thread_ms']:5.1f} ms: {row['ratio']:.1f}x; two threads"
            f" {row['ours_two_threads_ms']:5.1f} ms: {row['second_thread']:.2f}x more;"
            f" difference {row['difference_max']:.1e},"
            f" {row['pixels_above_1e-3']} pixels above 1e-3"
        )

    print("over Gaussians, 640x480, one thread, CPU time")
    result["scaling"] = []
    for n in (10_000, 30_000, 100_000, 300_000, 1_000_000):
        scene, camera = slab(n, 640, 480)
        seconds = least_render(scene, camera, 2 * rounds)
        result["scaling"].append(
            {"gaussians": n, "ms": 1e3 * seconds, "us_each": 1e6 * seconds / n}
        )
        print(f"  {n:9,d}: {1e3 * seconds:7.1f} ms, {1e6 * seconds / n:.2f} us each")

    scene, camera = slab(100_000, 640, 480)
    frame = best_frame(scene, camera, 1, 4 * rounds)
    result["stages"] = stage_report(scene, frame, counts_of(scene, camera), result["peaks"]["1"])
    print("stages of 100k 640x480 on one thread")
    print_stages(result["stages"])

    parts = sorted(SHARED.glob("semarang_city_*_sh3.sog"))
    if parts and not arguments.quick:
        start = time.perf_counter()
        scene = load(*parts)
        print(f"city: {scene.gaussians:,} Gaussians, loaded in {time.perf_counter() - start:.1f} s")
        result["city"] = []
        for eye in ((0, -250, -500), (0, -40, -150)):
            camera = Camera.look_at(
                eye, (0, 0, 0), (0, -1, 0), width=1920, height=1080, fx=0.79 * 1920
            )
            frame = best_frame(scene, camera, 2, 5)
            gibyte = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
            stages = stage_report(scene, frame, counts_of(scene, camera), result["peaks"]["2"])
            total = sum(frame.stages_ms.values())
            result["city"].append(
                {"eye": eye, "ms": total, "memory_gibyte": gibyte, "stages": stages}
            )
            print(f"  from {eye} at 1920x1080, two threads: {total:.0f} ms, {gibyte:.2f} GiB")
            print_stages(stages)
    elif not arguments.quick:
        print(f"city: not rendered, its files are not in {SHARED}", file=sys.stderr)
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
