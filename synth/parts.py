"""What of an accelerator is synthesised on its own: its units, and the shell around them."""

from amaranth.lib import wiring

from splatforge.designs.shell import AcceleratorDesign
from splatforge.hw.generate import UNITS, component
from splatforge.hw.lib.shell import Shell

__all__ = ["SHELL", "part", "parts"]

#: Frame control, bus and counters around the units, the registers in it.
SHELL = "shell"


def parts(design: AcceleratorDesign) -> tuple[str, ...]:
    """Names of what a design is made of, without its top."""
    return tuple(sorted({*UNITS[design.name], SHELL} - {design.name}))


def part(name: str, design: AcceleratorDesign) -> wiring.Component:
    """One of :func:`parts`, or the top by the design's name.

    Raises
    ------
    ValueError
        If `design` has no such unit.
    """
    if name == SHELL:
        return Shell(design)
    known = {*parts(design), *UNITS[design.name]}
    if name not in known:
        raise ValueError(f"Unit must be one of {', '.join(sorted(known))}, not {name!r}")
    return component(name, design)
