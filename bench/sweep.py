"""Sweep 1,000 hardware points of StreamingGS, and write bench/sweep.md.

    python bench/sweep.py ../shared/scenes/inari_fox_50k.ply [--size 640x480] [--points 1000]
        [--processes 2] [--dask]

Wall and CPU time of a sweep whose workload is computed anew but whose kernels are compiled, and how
many results differ. With --dask also the same points on a cluster of one worker and of two: how
much faster the latter is, by the wall clock, which counts on an idle machine alone, and by the CPU
time that a point takes with one worker and with two. The workload, which one worker computes while
the other waits, is part of it.
"""

import argparse
import itertools
import os
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from splatforge.algos.voyager.build import cluster
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.scenes import default_camera, resolve
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.sweep import Point, View, processes, scene_digest, sweep

TABLE = Path(__file__).parent / "sweep.md"


def points(view: View, number: int, latency: int) -> list[Point]:
    """Designs that differ in hardware alone, 540 of them, behind memories of `latency` and more."""
    base = StreaminggsDesign()
    found = []
    for behind in itertools.count(latency):
        for units, interval, lanes, sorters, waiting in itertools.product(
                (1, 2, 4), (2, 4, 8), (16, 32, 64, 128, 256), (1, 2, 4), (64, 128, 256, 512)):
            if len(found) == number:
                return found
            values = {"cfu.units": units, "ffu.interval": interval, "array.lanes": lanes,
                      "vsort.units": sorters, "vsort.waiting": waiting,
                      "memory.latency_cycles": behind}
            found.append(Point(
                view=view, name="streaminggs", preset="default", parameters=values,
                memory=MemoryTiming(latency_cycles=behind), design=replace(
                    base, cfu=replace(base.cfu, units=units),
                    ffu=replace(base.ffu, interval=interval),
                    array=replace(base.array, lanes=lanes),
                    vsort=replace(base.vsort, units=sorters, waiting=waiting))))
    raise AssertionError("latencies do not end")


def timed(asked: list[Point], folder: Path, executor: Any, window: int) -> tuple[float, float, int]:
    """Seconds on the wall, seconds of CPU of all points, and results that differ."""
    start = time.perf_counter()
    rows = sweep(asked, folder / "out", executor=executor, window=window, cache=folder / "cache")
    wall_s = time.perf_counter() - start
    failed = [row["error"] for row in rows if row["status"] != "done"]
    if failed:
        raise RuntimeError(f"{len(failed)} points failed: {failed[0]}")
    return wall_s, sum(row["spent_s"] for row in rows), len(
        {(row["cycles"], row["energy_j"], row["area_mm2"]) for row in rows})


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("scene")
    parser.add_argument("--size", default="640x480")
    parser.add_argument("--points", type=int, default=1000)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--dask", action="store_true")
    arguments = parser.parse_args()
    width, height = map(int, arguments.size.split("x"))
    scene = resolve(arguments.scene)
    view = View(scene=(str(Path(arguments.scene).absolute()),), digest=scene_digest(scene),
                cameras=(default_camera(scene, width, height),))
    lines = [
        "# Sweeps", "",
        (f"`python bench/sweep.py {Path(arguments.scene).name} --size {arguments.size}"
         f" --points {arguments.points} --processes {arguments.processes}"
         f"{' --dask' * arguments.dask}`,"),
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f} when it began.", "",
        "| who | points | results that differ | wall s | CPU s | CPU ms a point |",
        "|---|--:|--:|--:|--:|--:|"]

    def measured(who: str, asked: list[Point], executor: Any, window: int) -> tuple[float, float]:
        with tempfile.TemporaryDirectory() as folder:
            wall_s, spent_s, different = timed(asked, Path(folder), executor, window)
        lines.append(f"| {who} | {len(asked):,} | {different:,} | {wall_s:.1f} | {spent_s:.1f} | "
                     f"{1e3 * spent_s / len(asked):.0f} |")
        print(lines[-1], flush=True)
        return wall_s, spent_s

    with processes(arguments.processes) as pool:
        # Kernels are compiled, and workers there.
        measured(f"{arguments.processes} processes, their start and the compiler with it",
                 points(view, 2 * arguments.processes, 1), pool, 2 * arguments.processes)
        measured(f"{arguments.processes} processes", points(view, arguments.points, 100), pool,
                 2 * arguments.processes)
    if arguments.dask:
        from distributed import LocalCluster

        figures = []
        for workers in (1, 2):
            made: Any = LocalCluster(
                n_workers=workers, threads_per_worker=1, dashboard_address=":0")
            with made as local, cluster(local.scheduler_address) as pool:
                measured(f"{workers} Dask, their start", points(view, 2 * workers, 1), pool, 64)
                figures.append(measured(
                    f"{workers} Dask", points(view, arguments.points, 100), pool, 64))
        (wall_1, spent_1), (wall_2, spent_2) = figures
        said = (f"Two workers are {wall_1 / wall_2:.2f} times one by the wall clock; with cores "
                f"of their own {2 * spent_1 / spent_2:.2f} times by CPU time.")
        print(said)
        lines += ["", said]
    with atomic_file(TABLE) as file:
        file.write(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
