"""Registers that move into multipliers: the same outputs in every cycle, fewer flip-flops."""

import copy
import json
import random
from collections import Counter

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from splatforge.hw.generate import to_rtlil
from splatforge.synth import ecp5, yosys
from splatforge.synth.dsp import move_registers

A_BITS, B_BITS = 12, 10


class Pipeline(wiring.Component):
    """A product between registers, its own moved by ``enable`` where it is."""

    def __init__(self, *, enabled=False, reset=False, watched=False, read_twice=False):
        self.enabled, self.reset, self.watched = enabled, reset, watched
        self.read_twice = read_twice
        super().__init__({
            "a": In(A_BITS), "b": In(B_BITS), "enable": In(1),
            "product": Out(A_BITS + B_BITS), "factor": Out(A_BITS), "again": Out(1)})

    def elaborate(self, platform):
        m = Module()
        a, b, product = (Signal(width, name=name, reset_less=not self.reset) for name, width in (
            ("a_1", A_BITS), ("b_1", B_BITS), ("product_1", A_BITS + B_BITS)))
        m.d.sync += [a.eq(self.a), b.eq(self.b)]
        with m.If(self.enable if self.enabled else 1):
            m.d.sync += product.eq(a * b)
        m.d.comb += self.product.eq(product)
        if self.watched:
            m.d.comb += self.factor.eq(a)
        if self.read_twice:
            m.d.comb += self.again.eq((a * b)[A_BITS])
        return m


def mapped(folder, **options):
    """Netlist of a pipeline in cells of the technology."""
    (folder / "unit.il").write_text(to_rtlil(Pipeline(**options), "unit"))
    yosys.run(ecp5._SYNTH.format(top="unit", hide=""), folder, "synth")
    return json.loads((folder / "netlist.json").read_text())["modules"]["unit"]


def play(module, cycles, seed):
    """Outputs of a netlist of flip-flops and multipliers in every cycle."""
    rng = random.Random(seed)
    cells = [cell for cell in module["cells"].values() if cell["type"] != "$scopeinfo"]
    assert {cell["type"] for cell in cells} <= {"TRELLIS_FF", "MULT18X18D"}
    nets = {"0": 0, "1": 1, "x": 0}
    held = {}
    trace = []

    def word(nets_of, prefix):
        return sum(nets.get(nets_of[f"{prefix}{n}"][0], 0) << n
                   for n in range(36) if f"{prefix}{n}" in nets_of)

    def enabled(cell, registers):
        number = cell["parameters"].get(f"REG_{registers}_CLK", "")[3:]
        return number and nets[cell["connections"][f"CE{number}"][0]]

    def drive(net, value):
        if isinstance(net, int):
            nets[net] = value

    for _ in range(cycles):
        for name, port in module["ports"].items():
            if port["direction"] == "input" and name != "clk":
                for net in port["bits"]:
                    nets[net] = rng.getrandbits(1)
        for number, cell in enumerate(cells):
            if cell["type"] == "TRELLIS_FF":
                drive(cell["connections"]["Q"][0], held.get(number, 0))
        # Registers in a multiplier are what `held` has of it; a product without one is now.
        for number, cell in enumerate(cells):
            if cell["type"] != "MULT18X18D":
                continue
            parameters, pins = cell["parameters"], cell["connections"]
            state = held.setdefault(number, {"INPUTA": 0, "INPUTB": 0, "OUTPUT": 0})
            factors = [state[f"INPUT{port}"] if f"REG_INPUT{port}_CLK" in parameters
                       else word(pins, port) for port in "AB"]
            state["now"] = factors[0] * factors[1]
            value = state["OUTPUT"] if "REG_OUTPUT_CLK" in parameters else state["now"]
            for n in range(36):
                drive(pins[f"P{n}"][0], value >> n & 1)
        trace.append([
            [nets.get(net, 0) for net in module["ports"][name]["bits"]]
            for name in ("product", "factor", "again")])
        for number, cell in enumerate(cells):
            pins = cell["connections"]
            if cell["type"] == "MULT18X18D":
                state = held[number]
                for port in "AB":
                    if enabled(cell, f"INPUT{port}"):
                        state[f"INPUT{port}"] = word(pins, port)
                if enabled(cell, "OUTPUT"):
                    state["OUTPUT"] = state["now"]
            elif cell["parameters"].get("CEMUX", "1").strip() == "1" or nets[pins["CE"][0]]:
                reset = nets.get(pins.get("LSR", ["0"])[0], 0)
                held[number] = 0 if reset else nets[pins["DI"][0]]
    return trace


@pytest.mark.parametrize(("options", "moved", "left"), [
    ({}, {"product": 1, "factors": 1}, 0),
    ({"enabled": True}, {"product": 1, "factors": 1}, 0),
    # A factor that something else reads, too, keeps its flip-flops.
    ({"watched": True}, {"product": 1, "factors": 1}, A_BITS),
    # A product that something else reads keeps them, and so do registers with a reset.
    ({"read_twice": True}, {"product": 0, "factors": 1}, A_BITS + B_BITS),
    ({"reset": True}, {"product": 0, "factors": 0}, 2 * (A_BITS + B_BITS)),
], ids=lambda value: "-".join(value) if isinstance(value, dict) else None)
def test_a_netlist_does_the_same_with_registers_moved(options, moved, left, tmp_path):
    before = mapped(tmp_path, **options)
    after = copy.deepcopy(before)
    assert move_registers(after) == moved
    kinds = Counter(cell["type"] for cell in after["cells"].values())
    assert (kinds["MULT18X18D"], kinds["TRELLIS_FF"]) == (1, left)
    trace = play(after, 200, 5)
    assert trace == play(before, 200, 5)
    # The netlist is one of a product: what `play` says is not all zero.
    assert len({tuple(product) for product, _, _ in trace}) > 50


def test_only_units_with_multipliers_change():
    text = json.dumps({"modules": {"unit": {"cells": {}, "ports": {}}}}, indent=1)
    assert ecp5._with_registers(text, "unit") == text
