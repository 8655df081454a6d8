"""What of an accelerator is synthesised on its own: its units, and the shell around them."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from amaranth.lib import wiring

from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.shell import AcceleratorDesign
from splatforge.hw.alpha import AlphaLane
from splatforge.hw.blend import BlendLane
from splatforge.hw.falloff import FalloffLane
from splatforge.hw.generate import UNITS, component, to_rtlil
from splatforge.hw.lib.shell import Shell
from splatforge.verification.lib.build import cached, digest
from splatforge.verification.lib.frame import rtl_key

__all__ = ["LANE", "SHELL", "part", "parts", "rtl_digests", "rtl_table"]

#: Frame control, bus and counters around the units, the registers in it.
SHELL = "shell"
#: A lane of the array on its own: what makes alpha, and what blends it.
LANE = ("alpha_lane", "blend_lane")


def parts(design: AcceleratorDesign) -> tuple[str, ...]:
    """Names of what a design is made of, without its top."""
    return tuple(sorted({*UNITS[design.name], SHELL} - {design.name}))


def part(name: str, design: AcceleratorDesign) -> wiring.Component:
    """One of :func:`parts` or of :data:`LANE`, or the top by the design's name.

    Raises
    ------
    ValueError
        If `design` has no such unit.
    """
    if name == SHELL:
        return Shell(design)
    if name == "alpha_lane":
        alpha = design.array.alpha
        return FalloffLane(alpha) if isinstance(alpha, FalloffDesign) else AlphaLane(alpha)
    if name == "blend_lane":
        return BlendLane(design.array, 2 * design.array.places)
    known = {*parts(design), *UNITS[design.name]}
    if name not in known:
        raise ValueError(f"Unit must be one of {', '.join(sorted(known))}, not {name!r}")
    return component(name, design)


def rtl_digests(design: AcceleratorDesign, units: Iterable[str]) -> dict[str, str]:
    """Part -> digest of its RTL: what was measured, to tell when it is something else by now.

    To write the RTL takes seconds, of LuminCore's array half a minute: digests are kept on disk
    while the sources are the same.
    """
    key = rtl_key(design)

    def of(unit: str) -> str:
        def make(folder: Path) -> None:
            (folder / "digest").write_text(digest(to_rtlil(part(unit, design), unit)))

        entry, _ = cached(f"rtl-{unit}-{key}", make, ["digest"])
        return (entry / "digest").read_text()

    return {unit: of(unit) for unit in units}


def rtl_table(design: AcceleratorDesign, digests: Mapping[str, str]) -> list[str]:
    """Those digests as lines of TOML, a table ``rtl.<design>``."""
    return [f"[rtl.{design.name}]", *(f'{unit} = "{of}"' for unit, of in digests.items()), ""]
