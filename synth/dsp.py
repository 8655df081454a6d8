"""Registers of an ECP5's multipliers: those of the netlist that stand beside one move into it.

A MULT18X18D has a register behind its product and one in front of each factor. Lattice's own tools
use them, Yosys does not: it leaves flip-flops in slices, from which to the multiplier and back it
may be far. What the registers do is the same, cycle for cycle.
"""

from collections import defaultdict
from typing import Any

__all__ = ["move_registers"]

Cell = dict[str, Any]


def _register(cell: Cell) -> tuple[Any, Any] | None:
    """Clock and enable of a flip-flop that a multiplier could hold; the enable 1 if it has none."""
    parameters, nets = cell["parameters"], cell["connections"]
    reset = nets.get("LSR", ["0"])[0]
    if (cell["type"] != "TRELLIS_FF" or reset != "0" or "DI" not in nets
            or parameters.get("REGSET", "RESET") != "RESET"
            or parameters.get("CLKMUX", "CLK") != "CLK"):
        return None
    match parameters.get("CEMUX", "1").strip():
        case "1":
            return nets["CLK"][0], "1"
        case "CE":
            return nets["CLK"][0], nets["CE"][0]
    return None


def _pins(cell: Cell, port: str) -> list[str]:
    """Pins of a port of many bits that are connected to a net."""
    return [pin for pin, (net,) in cell["connections"].items()
            if pin[0] == port and pin[1:].isdigit() and isinstance(net, int)]


def move_registers(module: dict[str, Any]) -> dict[str, int]:
    """Move registers into the multipliers of a module of Yosys' JSON.

    The product's go where each of its bits feeds one flip-flop and nothing else. A factor's go in
    where both factors' bits come from flip-flops without a reset: those that feed something else,
    too, are there twice then. All bits of a register must have one clock and one enable.

    Parameters
    ----------
    module : dict
        Mapped for an ECP5. Is changed.

    Returns
    -------
    dict of str to int
        Multipliers whose ``product``, and whose ``factors``, have a register now.
    """
    cells: dict[str, Cell] = module["cells"]
    driver: dict[int, tuple[str, str]] = {}
    readers: dict[int, set[tuple[str, str]]] = defaultdict(set)
    for name, cell in cells.items():
        for pin, nets in cell["connections"].items():
            for net in nets:
                if not isinstance(net, int):
                    continue
                if cell["port_directions"][pin] == "output":
                    driver[net] = name, pin
                else:
                    readers[net].add((name, pin))
    for port in module["ports"].values():
        for net in port["bits"]:
            readers[net].add(("", ""))

    def steer(cell: Cell, registers: str, number: int, control: tuple[Any, Any]) -> None:
        """Switch registers of a multiplier on, with the clock and the enable of this number."""
        clock, enable = control
        cell["parameters"].update({
            f"REG_{registers}_CLK": f"CLK{number}", f"REG_{registers}_CE": f"CE{number}",
            f"REG_{registers}_RST": f"RST{number}"})
        for pin, net in ((f"CLK{number}", clock), (f"CE{number}", enable), (f"RST{number}", "0")):
            cell["connections"][pin] = [net]
            cell["port_directions"][pin] = "input"

    def drop(name: str) -> None:
        """Take a cell out of the module."""
        for pin, nets in cells.pop(name)["connections"].items():
            for net in nets:
                readers[net].discard((name, pin))

    moved = {"product": 0, "factors": 0}
    for name in [name for name, cell in cells.items() if cell["type"] == "MULT18X18D"]:
        cell = cells[name]
        nets = cell["connections"]
        # Behind the product.
        behind = {pin: readers[nets[pin][0]] for pin in _pins(cell, "P") if readers[nets[pin][0]]}
        flip_flops = {pin: next(iter(each)) for pin, each in behind.items()}
        controls = {_register(cells[reader]) if pin == "DI" else None
                    for reader, pin in flip_flops.values()}
        if behind and all(len(each) == 1 for each in behind.values()) and \
                len(controls) == 1 and (control := controls.pop()) is not None:
            for pin, (reader, _) in flip_flops.items():
                nets[pin] = cells[reader]["connections"]["Q"]
                driver[nets[pin][0]] = name, pin
                drop(reader)
            steer(cell, "OUTPUT", 0, control)
            moved["product"] += 1
        # In front of the factors.
        sources = {port: {pin: driver[nets[pin][0]][0] for pin in _pins(cell, port)}
                   for port in "AB"}
        steered = [{_register(cells[source]) for source in of.values()}
                   for of in sources.values()]
        first, second = (each.pop() if len(each) == 1 else None for each in steered)
        if first and second:
            for number, ((port, of), control) in enumerate(
                    zip(sources.items(), (first, second), strict=True), 1):
                for pin, source in of.items():
                    readers[nets[pin][0]].discard((name, pin))
                    nets[pin] = cells[source]["connections"]["DI"]
                    readers[nets[pin][0]].add((name, pin))
                steer(cell, f"INPUT{port}", number, control)
            for source in {source for of in sources.values() for source in of.values()}:
                if not readers[cells[source]["connections"]["Q"][0]]:
                    drop(source)
            moved["factors"] += 1
    return moved
