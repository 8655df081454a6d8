"""Map every unit of all accelerators to IHP SG13G2 and write sim/paths.toml.

    python bench/paths.py ../shared/liberty

Critical paths, areas and leakage. The folder holds the library, plain or gzipped; half an hour, or
what has changed since the cache was filled.
"""

import argparse
import sys
from pathlib import Path

from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.raster import RasterDesign
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.scenes.atomic_file import atomic_file
from splatforge.synth.liberty import Liberty
from splatforge.synth.library import read_library
from splatforge.synth.paths import path_table

TABLE = Path(__file__).parents[1] / "sim" / "paths.toml"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    paths = list(parser.parse_args().folder.glob("sg13g2_typ_1p20V_25C.lib*"))
    designs = (RasterDesign(), GscoreDesign(), StreaminggsDesign())
    text = path_table(
        designs, read_library(paths), Liberty(paths), "python bench/paths.py FOLDER",
        progress=lambda unit: print(unit, file=sys.stderr))
    with atomic_file(TABLE) as file:
        file.write(text.encode())


if __name__ == "__main__":
    main()
