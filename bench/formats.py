"""Write the tables of bench/formats.md from a sweep of number formats.

    splatforge sweep examples/sweeps/formats.toml --library osu018 -o formats.sweep
    python bench/formats.py formats.sweep

What stands in the file above its first table stays.
"""

import argparse
import re
from collections.abc import Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

from splatforge.designs.accelerators import ACCELERATORS
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.sweep_results import Results

TABLE = Path(__file__).parent / "formats.md"
#: Where the tables begin.
BEGIN = "\n## "


def bits(value: Any) -> int:
    """Last number of a value: fraction bits of a format, entries of a table."""
    return int((re.findall(r"\d+", str(value)) or ["0"])[-1])


def tables(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A table for each design, a row for each value of each parameter."""
    lines = []
    for name in ("raster", "gscore", "streaminggs", "lumina", "voyager"):
        own = [row for row in rows if row["design"] == name]
        (usual,) = (row for row in own if not row["turned"])
        lines += ["", f"## {name}", "",
                  "| parameter | value | dB | cells of a lane, um2 | dB more | cells more |",
                  "|---|---|--:|--:|--:|--:|",
                  f"| as it is | | {usual['psnr_db']:.2f} | {usual['lane_um2']:,.0f} | | |"]
        for turned in sorted({row["turned"] for row in own} - {""}):
            first = turned.split(",")[0].strip()
            part = ".".join(first.split(".")[-2:])
            known = attrgetter(first)(ACCELERATORS[name].design)
            for row in sorted(own, key=lambda row: bits(row.get(first))):
                if row["turned"] == turned:
                    lines.append(
                        f"| {part} | {row[first]} (is {known}) | {row['psnr_db']:.2f} | "
                        f"{row['lane_um2']:,.0f} | {row['psnr_db'] - usual['psnr_db']:+.2f} | "
                        f"{100 * (row['lane_um2'] / usual['lane_um2'] - 1):+.1f} % |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("folder")
    rows = Results(parser.parse_args().folder).rows()
    failed = [row for row in rows if row["status"] != "done"]
    if failed:
        raise SystemExit(f"{failed[0]['design']}: {failed[0]['error']}")
    head = TABLE.read_text("utf-8").partition(BEGIN)[0].rstrip() + "\n"
    with atomic_file(TABLE) as file:
        file.write(head.encode() + ("\n".join(tables(rows)) + "\n").encode())


if __name__ == "__main__":
    main()
