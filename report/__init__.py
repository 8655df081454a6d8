"""Tables, plots and the HTML page, made from result records.

Nothing here imports what makes the results: a record is plain numbers, text and arrays, so that a
page can be made again from a JSON file and the pictures, without the tools that ran.
"""

from splatforge.report.assemble import assemble
from splatforge.report.claims import by_system
from splatforge.report.comparison import compared, comparison_html, write_comparison
from splatforge.report.page import html, write
from splatforge.report.records import (
    Baseline,
    ComparedDesign,
    Comparison,
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
    "ComparedDesign",
    "Comparison",
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
    "compared",
    "comparison_html",
    "html",
    "write",
    "write_comparison",
]
