"""Tables, plots and the HTML page, made from result records.

Nothing here imports what makes the results: a record is plain numbers, text and arrays, so that a
page can be made again from a JSON file and the pictures, without the tools that ran.
"""

from splatforge.report.assemble import assemble
from splatforge.report.claims import by_system
from splatforge.report.page import html, write
from splatforge.report.records import (
    Baseline,
    EnergyPart,
    Machine,
    PublishedClaim,
    Report,
    Share,
    Stage,
    SystemClaims,
    TileGrid,
    UnitArea,
    UnitEnergy,
    UnitTrack,
)
from splatforge.report.trace import chrome_trace

__all__ = [
    "Baseline",
    "EnergyPart",
    "Machine",
    "PublishedClaim",
    "Report",
    "Share",
    "Stage",
    "SystemClaims",
    "TileGrid",
    "UnitArea",
    "UnitEnergy",
    "UnitTrack",
    "assemble",
    "by_system",
    "chrome_trace",
    "html",
    "write",
]
