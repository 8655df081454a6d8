"""Map every unit of all accelerators to IHP SG13G2 and write sim/paths.toml.

    python bench/paths.py ../shared/liberty [--design NAME]

Critical paths, areas and leakage. The folder holds the library, plain or gzipped; an hour, or what
has changed since the cache was filled. With a design its units alone are mapped, and what the table
says of the others stays; of the same RTL in one of those it says what it says there.
"""

import argparse
import re
import sys
from pathlib import Path

from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.raster import RasterDesign
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.scenes.atomic_file import atomic_file
from splatforge.synth.liberty import Liberty
from splatforge.synth.library import read_library
from splatforge.synth.paths import path_table

TABLE = Path(__file__).parents[1] / "sim" / "paths.toml"
DESIGNS = (RasterDesign(), GscoreDesign(), StreaminggsDesign(), LuminaDesign(),
           VoyagerDesign())
_TABLE_OF = re.compile(r"\[(rtl|path|area|energy)\.([a-z]+)")


def merged(made: str, before: str) -> str:
    """The tables of `made`, and those of `before` that are of other designs, in their order."""
    def tables(text: str) -> list[tuple[str, str, str]]:
        found = []
        for block in text.strip().split("\n\n"):
            if match := _TABLE_OF.match(block):
                found.append((*match.groups(), block))
        return found

    here = tables(made)
    new = {design for _, design, _ in here}
    every = here + [each for each in tables(before) if each[1] not in new]
    names = [design.name for design in DESIGNS]
    every.sort(key=lambda each: (each[0] != "rtl", names.index(each[1])))
    return "\n\n".join((made[:made.index("\n\n")], *(block for _, _, block in every))) + "\n"


def _without(text: str, design: str | None) -> str:
    """A table without what it says of a design."""
    return "\n\n".join(block for block in text.strip().split("\n\n")
                       if not (match := _TABLE_OF.match(block)) or match.group(2) != design)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--design", choices=[design.name for design in DESIGNS])
    arguments = parser.parse_args()
    paths = list(arguments.folder.glob("sg13g2_typ_1p20V_25C.lib*"))
    designs = [design for design in DESIGNS if arguments.design in (None, design.name)]
    before = TABLE.read_text() if arguments.design else ""
    text = path_table(
        designs, read_library(paths), Liberty(paths), "python bench/paths.py FOLDER",
        before=_without(before, arguments.design),
        progress=lambda unit: print(unit, file=sys.stderr))
    with atomic_file(TABLE) as file:
        file.write(merged(text, TABLE.read_text()).encode())


if __name__ == "__main__":
    main()
