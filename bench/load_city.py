"""Load a city of many files merged: time, peak memory, throughput.

    python bench/load_city.py ../shared/scenes/semarang_city_*_sh3.sog

The project's bars for the ten semarang files (4,972,767 Gaussians of SH degree 3) are 60 s and
6 GiB; the exit code is 1 when one is missed.
"""

import argparse
import resource
import sys
import time
from pathlib import Path

from splatforge.scenes import load

LIMIT_S = 60.0
LIMIT_GIB = 6.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("files", nargs="+", type=Path, help="scene files to load as one scene")
    files = parser.parse_args().files

    def progress(done: int, total: int) -> None:
        print(f"\r{done / total:4.0%}", end="", file=sys.stderr, flush=True)

    start = time.perf_counter()
    scene = load(*files, progress=progress)
    load_s = time.perf_counter() - start
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(file=sys.stderr)
    arrays = (scene.means, scene.log_scales, scene.quats, scene.opacity_logits, scene.sh)
    arrays_gib = sum(array.nbytes for array in arrays) / 2**30
    print(f"files      {len(files)}, {sum(file.stat().st_size for file in files) / 1e6:.1f} MB")
    print(f"gaussians  {scene.gaussians:,} of SH degree {scene.sh_degree}")
    print(f"load       {load_s:.2f} s, {scene.gaussians / load_s / 1e6:.2f} M Gaussians/s")
    print(f"peak RSS   {peak_gib:.2f} GiB for {arrays_gib:.2f} GiB of arrays")
    return int(load_s > LIMIT_S or peak_gib > LIMIT_GIB)


if __name__ == "__main__":
    raise SystemExit(main())
