"""What StreamingGS's order and its codebooks cost a picture, each alone and both: a Markdown table.

    python bench/streaminggs_quality.py default ../shared/scenes/inari_fox_50k.ply
    ... [--size 320x240] [--preset default] [--json FILE]

PSNR against the float reference, which draws the scene as it is, by depth. "Order" draws the same
Gaussians voxel after voxel, "codebooks" those that memory holds by depth, "both" these voxel after
voxel: the algorithm in float. "Bits" is the bit-true model's picture, which the RTL equals.
"""

import argparse
import json
import sys
from pathlib import Path

from splatforge.algos import reference, streaminggs
from splatforge.algos.quality import psnr_db
from splatforge.algos.streaminggs.frame import render_float
from splatforge.designs.streaminggs import PRESETS, StreaminggsDesign
from splatforge.scenes import Camera, Scene, default_camera, resolve
from splatforge.scenes.atomic_file import atomic_file

#: Keys of a record, and what the table calls them.
COLUMNS = {"psnr_db_order": "order", "psnr_db_codebooks": "codebooks", "psnr_db_both": "both",
           "psnr_db_bits": "bits", "psnr_db_bits_vs_both": "bits from both"}


def measure(scene: Scene, view: Camera, design: StreaminggsDesign) -> dict[str, float]:
    """PSNR in dB by the keys of :data:`COLUMNS`."""
    exact = reference.render(scene, view).image
    frame = streaminggs.prepare(scene, view, design)
    cut, decoded, side = frame.stored.cut, frame.stored.decode(), design.array.side
    both = render_float(cut, view, group_tiles=side, scene=decoded).image
    order = render_float(cut, view, group_tiles=side, scene=scene.select(cut.ids)).image
    bits = streaminggs.render(frame, design).image
    return {
        "psnr_db_order": psnr_db(order, exact),
        "psnr_db_codebooks": psnr_db(reference.render(decoded, view).image, exact),
        "psnr_db_both": psnr_db(both, exact), "psnr_db_bits": psnr_db(bits, exact),
        "psnr_db_bits_vs_both": psnr_db(bits, both)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("scenes", nargs="+", metavar="scene")
    parser.add_argument("--size", default="320x240")
    parser.add_argument("--preset", default="default", choices=PRESETS)
    parser.add_argument("--json", type=Path, help="File for the unrounded figures.")
    arguments = parser.parse_args()
    width, height = (int(side) for side in arguments.size.split("x"))
    print(f"| scene, {arguments.size} | Gaussians | {' | '.join(COLUMNS.values())} |")
    print(f"|---|--:|{'--:|' * len(COLUMNS)}", flush=True)
    records = []
    for number, name in enumerate(arguments.scenes):
        print(f"{number + 1} of {len(arguments.scenes)}: {name}", file=sys.stderr, flush=True)
        scene = resolve(name)
        found = measure(scene, default_camera(scene, width, height), PRESETS[arguments.preset])
        records.append({"scene": Path(name).name, "gaussians": scene.gaussians, "width": width,
                        "height": height, "preset": arguments.preset, **found})
        cells = " | ".join(f"{found[key]:.1f}" for key in COLUMNS)
        print(f"| {Path(name).name} | {scene.gaussians:,} | {cells} |", flush=True)
    if arguments.json:
        with atomic_file(arguments.json) as file:
            file.write((json.dumps(records, indent=1) + "\n").encode())


if __name__ == "__main__":
    main()
