"""What the size of Voyager's table of exponentials costs a picture: a Markdown table.

    python bench/falloff.py ../shared/scenes/inari_fox_50k.ply [SCENE ...]
    ... [--size 320x240] [--json FILE]

The table alone: by how much its entries in real numbers, and as the hardware holds them, are off
from exp(-E) at most, over every exponent that is looked up. Pictures: PSNR of the client's rules in
real numbers with that table, and of its bit-true frame, which the RTL equals, both against the same
rules in real numbers with the exponential itself. The last row is GSCore's bit-true frame, whose
alpha interpolates a power of two: formats alone.
"""

import argparse
import json
import math
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from splatforge.algos import gscore, voyager
from splatforge.algos.falloff import exponentials, falloff_float
from splatforge.algos.quality import psnr_db
from splatforge.designs.array import ArrayDesign
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.scenes import default_camera, resolve
from splatforge.scenes.atomic_file import atomic_file

#: Sizes of the table, flat; and those of it that are interpolated as well.
ENTRIES, INTERPOLATED = (16, 32, 64, 128, 256), (16, 64)


def errors(alpha: FalloffDesign) -> dict[str, float]:
    """Largest difference of a table from the exponential, of real numbers and of integers."""
    exponent = np.arange(alpha.cutoff + 1) * alpha.exponent.resolution * math.log(2)
    exact = np.exp(-exponent)
    return {"error_real": float(np.abs(falloff_float(exponent, alpha) - exact).max()),
            "error_bits": float(np.abs(
                alpha.table.to_float(exponentials(alpha)) - exact).max())}


def measure(names: list[str], width: int, height: int) -> list[dict[str, object]]:
    """A record for each table and, last, one for GSCore's alpha."""
    tables = [FalloffDesign(table_entries=entries, interpolated=interpolated)
              for interpolated, sizes in ((False, ENTRIES), (True, INTERPOLATED))
              for entries in sizes]
    records: list[dict[str, object]] = [
        {"entries": each.table_entries, "interpolated": each.interpolated, **errors(each)}
        for each in tables] + [{"entries": None, "interpolated": None}]
    for number, name in enumerate(names):
        print(f"{number + 1} of {len(names)}: {name}", file=sys.stderr, flush=True)
        scene = resolve(name)
        view = default_camera(scene, width, height)
        exact = gscore.render_float(scene, view, GscoreDesign()).image
        # Lists, order and features do not depend on the array.
        packed = voyager.prepare(scene, view, VoyagerDesign())
        for record, alpha in zip(records, tables, strict=False):
            design = replace(VoyagerDesign(), array=ArrayDesign(alpha=alpha))
            record[Path(name).name] = {
                "psnr_db_real": psnr_db(
                    voyager.render_float(scene, view, design).image, exact),
                "psnr_db_bits": psnr_db(voyager.render(packed, design).image, exact)}
        records[-1][Path(name).name] = {"psnr_db_real": None, "psnr_db_bits": psnr_db(
            gscore.render(packed, GscoreDesign()).image, exact)}
    return records


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("scenes", nargs="+", metavar="scene")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--json", type=Path, help="File for the unrounded figures.")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    records = measure(arguments.scenes, width, height)
    names = [Path(name).name for name in arguments.scenes]
    print("| table | off from exp, real | in integers | "
          + " | ".join(f"{name}, real, dB | bits, dB" for name in names) + " |")
    print("|---|--:|--:|" + "--:|" * 2 * len(names))
    for record in records:
        cells = ["GSCore's power of two", "", ""]
        if record["entries"]:
            cells = [f"{record['entries']}{', interpolated' if record['interpolated'] else ''}",
                     f"{record['error_real']:.2g}", f"{record['error_bits']:.2g}"]
        for name in names:
            found = record[name]
            assert isinstance(found, dict)
            cells += [f"{found['psnr_db_real']:.1f}" if record["entries"] else "",
                      f"{found['psnr_db_bits']:.1f}"]
        print(f"| {' | '.join(cells)} |")
    if arguments.json:
        with atomic_file(arguments.json) as file:
            file.write((json.dumps(records, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
