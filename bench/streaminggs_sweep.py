"""Turn one parameter of StreamingGS at a time and write bench/streaminggs_sweep.md.

    python bench/streaminggs_sweep.py ../shared/scenes/inari_fox_50k.ply [--size 320x240]

Cycles of the cycle model behind a memory of 100 cycles and a beat a cycle, DRAM bytes, energy and
area at 28 nm, and the PSNR of the bit-true picture against the float reference. Some minutes.
"""

import argparse
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from splatforge.algos import reference, streaminggs
from splatforge.algos.quality import psnr_db
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.streaminggs import PRESETS, StreaminggsDesign
from splatforge.scenes import Camera, Scene, default_camera, resolve
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import default_costs
from splatforge.sim.energy import energy_of_units
from splatforge.sim.parts import streaminggs_events, streaminggs_inventory
from splatforge.sim.simulate import clock_of
from splatforge.sim.streaminggs import busiest, simulate

TABLE = Path(__file__).parent / "streaminggs_sweep.md"
NODE_NM = 28
BASE = StreaminggsDesign()


def changed(**units: dict[str, Any]) -> StreaminggsDesign:
    """The default with other parameters of some units."""
    return replace(BASE, **{name: replace(getattr(BASE, name), **values)
                            for name, values in units.items()})


def coarser(bits: int) -> CodebookDesign:
    """The default codebooks with so many bits less in every index."""
    books = CodebookDesign()
    return replace(books, **{name: tuple(width - bits for width in widths)
                             for name, _, widths in books.vectors()})


def points() -> Iterator[tuple[str, str, StreaminggsDesign]]:
    """What is turned, to what, and the design."""
    yield "default", "", BASE
    for cells in (125, 250, 500, 2000, 4000):
        yield "occupied cells, 1000", f"{cells:,}", changed(
            partition={"occupied_cells": cells}, vsu={"voxels": 8192 if cells > 2000 else 4096})
    for units in (1, 4):
        yield "coarse filters, 2", f"{units}", changed(cfu={"units": units})
    for interval in (2, 8):
        yield "cycles a Gaussian in the fine filter, 4", f"{interval}", changed(
            ffu={"interval": interval})
    for units, interval in ((1, 8), (4, 2)):
        yield "coarse filters, cycles of the fine one", f"{units}, {interval}", changed(
            cfu={"units": units}, ffu={"interval": interval})
    for lanes in (16, 32, 128):
        yield "lanes, 64", f"{lanes}", changed(array={"lanes": lanes})
    for bits in (1, 2, 4):
        books = coarser(bits)
        yield "codebooks, 240 KiB", f"{books.size_bytes / 1024:.0f} KiB", changed(
            ffu={"codebooks": books})
    for side in (1, 4):
        yield "tiles of a group's side, 2", f"{side}", changed(
            **{name: {"group_tiles": side} for name in ("vsu", "cfu", "ffu", "array")})
    for units in (1, 4):
        yield "sorters, 2", f"{units}", changed(vsort={"units": units})
    for waiting in (4, 64, 256):
        yield "tokens in front of the sorters, 512", f"{waiting}", changed(
            vsort={"waiting": waiting})
    for waiting in (32, 64, 128):
        yield "tokens in front of the fine filter, 256", f"{waiting}", changed(
            ffu={"waiting": waiting, "buffer_beats": max(waiting, 64)})
    for queue, ahead in ((64, 8), (128, 16)):
        yield "Gaussians behind coarse filters and voxels ahead, 512, 64", (
            f"{queue}, {ahead}"), changed(cfu={"queue": queue, "voxels_ahead": ahead})
    for width in (4, 8):
        yield "rectangles a cycle, 16", f"{width}", changed(vsu={"scan_width": width})
    yield "prefixes of voxels", "none", changed(vsu={"prefixes": False})
    yield "published configuration", "", PRESETS["published"]


def figures(
    scene: Scene, view: Camera, exact: Any, design: StreaminggsDesign
) -> tuple[str, ...]:
    """Cells of a row."""
    stored = streaminggs.prepare(scene, view, design)
    drawn = streaminggs.render(stored, design)
    run = simulate(stored, drawn.workload, design)
    table = default_costs()
    events = streaminggs_events(
        design, run, pixels=view.width * view.height,
        significant=int(drawn.workload.array.significant.sum()),
        clock_hz=clock_of(design, table, NODE_NM).value, table=table)
    counters = run.counters
    waited_for = busiest(design, counters)
    return (
        f"{run.cycles:,}", f"{waited_for['name']} {1 / waited_for['ratio']:.0%}",
        f"{counters['voxels_visible']:,}", f"{counters['coarse_bytes']:,}",
        f"{counters['fine_bytes']:,}", f"{run.bytes_read:,}",
        f"{1e3 * energy_of_units(events, node_nm=NODE_NM).energy_j:.2f}",
        f"{area_of_units(streaminggs_inventory(design, table), node_nm=NODE_NM).area_mm2:.2f}",
        f"{psnr_db(drawn.image, exact.image):.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scene")
    parser.add_argument("--size", default="320x240")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    scene = resolve(arguments.scene)
    view = default_camera(scene, width, height)
    exact = reference.render(scene, view)
    name = Path(arguments.scene).name
    lines = [
        "# StreamingGS with one parameter turned", "",
        f"`python bench/streaminggs_sweep.py {name} --size {arguments.size}`: cycle model, memory",
        "of 100 cycles and a beat a cycle, codebooks loaded with the frame; energy with DRAM and",
        f"area at {NODE_NM} nm; PSNR of the picture against the float reference.", "",
        ("| turned, from | to | cycles | busiest | voxels | coarse B | fine B | read B | mJ | mm² "
         "| dB |"),
        "|---|--:|--:|---|--:|--:|--:|--:|--:|--:|--:|"]
    for what, value, design in points():
        cells = figures(scene, view, exact, design)
        lines.append(f"| {what} | {value} | {' | '.join(cells)} |")
        print(lines[-1], flush=True)
    with atomic_file(TABLE) as file:
        file.write(("\n".join(lines) + "\n").encode())


if __name__ == "__main__":
    main()
