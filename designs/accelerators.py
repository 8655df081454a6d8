"""The accelerators by name, with their parameters and named configurations."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from splatforge.designs.gscore import PRESET_MEMORIES as GSCORE_MEMORIES
from splatforge.designs.gscore import PRESETS as GSCORE_PRESETS
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import PRESETS as LUMINA_PRESETS
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.parameters import configured, nested
from splatforge.designs.raster import PRESETS as RASTER_PRESETS
from splatforge.designs.raster import RasterDesign
from splatforge.designs.shell import AcceleratorDesign
from splatforge.designs.streaminggs import PRESET_MEMORIES as STREAMINGGS_MEMORIES
from splatforge.designs.streaminggs import PRESETS as STREAMINGGS_PRESETS
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.voyager import PRESETS as VOYAGER_PRESETS
from splatforge.designs.voyager import VoyagerDesign

__all__ = ["ACCELERATORS", "Accelerator", "design"]


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """What a name of an accelerator stands for.

    Parameters
    ----------
    design : AcceleratorDesign
        Its default parameters.
    presets : Mapping
        Its named configurations.
    memories : Mapping
        Names of memories (:mod:`splatforge.designs.dram`) that some of them stand before.
    """

    design: AcceleratorDesign
    presets: Mapping[str, AcceleratorDesign]
    memories: Mapping[str, str] = field(default_factory=dict)


#: Every accelerator.
ACCELERATORS: dict[str, Accelerator] = {
    GscoreDesign.name: Accelerator(
        design=GscoreDesign(), presets=GSCORE_PRESETS, memories=GSCORE_MEMORIES),
    LuminaDesign.name: Accelerator(design=LuminaDesign(), presets=LUMINA_PRESETS),
    RasterDesign.name: Accelerator(design=RasterDesign(), presets=RASTER_PRESETS),
    StreaminggsDesign.name: Accelerator(
        design=StreaminggsDesign(), presets=STREAMINGGS_PRESETS, memories=STREAMINGGS_MEMORIES),
    VoyagerDesign.name: Accelerator(design=VoyagerDesign(), presets=VOYAGER_PRESETS),
}


def design(
    name: str, preset: str | None = None, *, parameters: Mapping[str, Any] | None = None
) -> AcceleratorDesign:
    """Parameters of an accelerator; :func:`dataclasses.replace` changes them, too.

    Parameters
    ----------
    name : str
        One of :data:`ACCELERATORS`.
    preset : str, optional
        One of its named configurations; its defaults without one.
    parameters : Mapping, optional
        What differs from it, by the dotted names that a sweep takes: ``{"array.lanes": 16}``.

    Raises
    ------
    ValueError
        If there is no such accelerator, preset or parameter, or a value is not what it must be.
    """
    if name not in ACCELERATORS:
        raise ValueError(f"Design must be one of {', '.join(ACCELERATORS)}, not {name!r}")
    presets = ACCELERATORS[name].presets
    if preset is not None and preset not in presets:
        raise ValueError(f"Preset must be one of {', '.join(presets)}, not {preset!r}")
    base = ACCELERATORS[name].design if preset is None else presets[preset]
    return configured(base, nested(parameters), f"{name}: ") if parameters else base
