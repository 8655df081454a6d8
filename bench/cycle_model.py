"""The cycle model beside the RTL that it models, in one run: agreement and speed.

python bench/cycle_model.py [SCENE ...]
"""

import argparse
import time

from splatforge.algos import raster
from splatforge.algos.fetch import pack
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.raster import PRESETS
from splatforge.scenes import default_camera, resolve
from splatforge.sim.raster import simulate
from splatforge.verification.lib.frame import build_frame, run_frames

TIMINGS = MemoryTiming(), MemoryTiming(latency_cycles=400)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("scenes", nargs="*", default=["default"])
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--lanes", type=int, nargs="*", default=[16, 64])
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    print(f"{'scene':<30}{'lanes':>6}{'latency':>8}{'RTL cycles':>12}{'model':>12}"
          f"{'RTL s':>9}{'model ms':>10}{'faster':>9}{'cycles/pair':>13}{'array busy':>12}")
    for name in arguments.scenes:
        scene = resolve(name)
        camera = default_camera(scene, width, height)
        for lanes in arguments.lanes:
            design = PRESETS[f"{lanes}-lane"]
            binary = build_frame(design).path
            lists = raster.prepare(scene, camera, design)
            workload = raster.render(lists, design).workload
            image = pack(lists)
            for timing in TIMINGS:
                simulate(workload, design, timing)  # compiled here, or read from the disk
                best = float("inf")
                for _ in range(5):
                    began = time.perf_counter()
                    model = simulate(workload, design, timing)
                    best = min(best, time.perf_counter() - began)
                began = time.perf_counter()
                run, = run_frames(binary, [image], timing=timing)
                spent = time.perf_counter() - began
                work = sum(run.counters[key] for key in
                           ("array_busy", "array_starved", "array_skipped"))
                pairs = int(workload.pairs_reached.sum())
                print(f"{name.rpartition('/')[2]:<30}{lanes:>6}{timing.latency_cycles:>8}"
                      f"{run.cycles:>12,}{model.cycles:>12,}{spent:>9.2f}{best * 1e3:>10.2f}"
                      f"{spent / best:>8.0f}x{model.cycles / max(1, pairs):>13.2f}"
                      f"{run.counters['array_busy'] / max(1, work):>12.1%}", flush=True)


if __name__ == "__main__":
    main()
