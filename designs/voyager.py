"""Voyager's client: GSCore's front end, and an array that looks its exponentials up.

The client of "Voyager: Real-Time Splatting City-Scale 3D Gaussians on Your Phone", arXiv
2506.02774, in the common shell. The paper's client was a GPU whose rasterizer tests each fragment
in the log domain and takes the exponential out of a table in shared memory; no hardware of it is
published. Here its rasterizer is a rendering array (:mod:`splatforge.designs.falloff`), and what is
in front of it, which the paper leaves as it was, is GSCore's: projection, lists, sorting and
features (:mod:`splatforge.designs.gscore`), their records and the frame descriptor.
"""

from dataclasses import dataclass, replace
from typing import ClassVar

from splatforge.designs.array import ArrayDesign
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.gscore import GscoreDesign

__all__ = ["PRESETS", "VoyagerDesign"]


@dataclass(frozen=True, kw_only=True)
class VoyagerDesign(GscoreDesign):
    """Everything that a designer may turn in Voyager's client.

    Parameters
    ----------
    ccu, lists, qsu, bsu, outstanding_records, vru, resolve, shell :
        See :class:`splatforge.designs.gscore.GscoreDesign`.
    array : ArrayDesign
        The rendering array; its alpha must be a
        :class:`splatforge.designs.falloff.FalloffDesign`.

    Attributes
    ----------
    name, number, counters, read_counters, write_counters, descriptor_fields :
        See :class:`splatforge.designs.shell.AcceleratorDesign`; all but the first two are GSCore's.

    Raises
    ------
    ValueError
        As GSCore's; or if the array has no table of exponentials.
    """

    name: ClassVar[str] = "voyager"
    number: ClassVar[int] = 5

    array: ArrayDesign = ArrayDesign(alpha=FalloffDesign())

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.array.alpha, FalloffDesign):
            raise ValueError(
                "Alpha of the array must be a FalloffDesign, "
                f"not a {type(self.array.alpha).__name__}")


def _with(**falloff: object) -> VoyagerDesign:
    """The default with another table."""
    default = VoyagerDesign()
    assert isinstance(default.array.alpha, FalloffDesign)
    return replace(default, array=replace(
        default.array, alpha=replace(default.array.alpha, **falloff)))


#: Named configurations for ``--preset``: other tables, and 16 lanes.
PRESETS = {
    "default": VoyagerDesign(),
    "16-entries": _with(table_entries=16),
    "32-entries": _with(table_entries=32),
    "128-entries": _with(table_entries=128),
    "256-entries": _with(table_entries=256),
    "interpolated": _with(interpolated=True),
    "16-lane": replace(VoyagerDesign(), array=ArrayDesign(lanes=16, alpha=FalloffDesign())),
}
