"""Cells with power tables small enough to do by hand, netlists of them, a naive simulator."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from splatforge.verification.lib.ports import PortTrace

__all__ = ["FUNCTIONS", "LIBRARY", "Netlist", "naive", "trace_of"]

#: Output function of each gate, which Python reads as well.
FUNCTIONS = {
    "INV": "!A", "BUF": "A", "NAND2": "!(A & B)", "NOR2": "!(A | B)", "XOR2": "A ^ B",
    "XNOR2": "!(A ^ B)", "MUX2": "(A & !S) | (B & S)", "AOI21": "!((A & B) | C)",
    "OAI33": "!((A | B | C) & (D | E | F))", "MAJ3": "(A & B) | (A & C) | (B & C)", "TIE1": "1",
}


def _inputs(function: str) -> str:
    return "".join(sorted({letter for letter in function if letter.isalpha()}))


def _table(kind: str, value: float) -> str:
    return f'{kind} (scalar) {{ values ("{value}"); }}'


def _gate(number: int, name: str, function: str) -> str:
    """A gate: 1 + `number` fF a pin, 10 + `number` fJ a rise and half of it a fall."""
    pins = "".join(f"pin ({pin}) {{ direction : input; capacitance : {1 + number}; }}\n"
                   for pin in _inputs(function))
    energy = 10 + number
    arc = "" if not pins else (
        f"internal_power () {{ {_table('rise_power', energy)} "
        f"{_table('fall_power', energy / 2)} }}\n")
    return (f'cell ({name}) {{ area : {1 + number}; cell_leakage_power : {100 * (1 + number)};\n'
            f'{pins}pin (Y) {{ direction : output; function : "{function}";\n{arc}}}\n}}\n')


def _flip_flop(name: str, state: str, next_state: str, outputs: str) -> str:
    pins = "".join(f"pin ({pin}) {{ direction : input; capacitance : 2; }}\n"
                   for pin in ("D", "E", "RN") if pin in next_state or pin == "RN")
    return f"""cell ({name}) {{ area : 9; cell_leakage_power : 1000;
  ff (IQ, IQN) {{ clocked_on : CK; next_state : "{next_state}"; clear : "!RN"; }}
  pin (CK) {{ direction : input; clock : true; capacitance : 3;
    internal_power () {{ when : "{state}"; {_table("rise_power", 4)} {_table("fall_power", 2)} }}
    internal_power () {{ {_table("rise_power", 8)} {_table("fall_power", 2)} }}
  }}
  {pins}{outputs}
}}
"""


LIBRARY = (
    """library (gates) {
  time_unit : "1ps"; voltage_unit : "1V"; leakage_power_unit : "1pW"; nom_voltage : 2;
  capacitive_load_unit (1, ff);
""" + "".join(_gate(number, *item) for number, item in enumerate(FUNCTIONS.items()))
    + _flip_flop("DFF", "Q", "D", 'pin (Q) { direction : output; function : "IQ"; }')
    + _flip_flop("DFFQN", "!QN", "D", 'pin (QN) { direction : output; function : "IQN"; }')
    + _flip_flop("EDFF", "Q", "(D & E) | (IQ & !E)",
                 'pin (Q) { direction : output; function : "IQ"; }\n'
                 'pin (QN) { direction : output; function : "IQN"; }')
    + "cell (LATCH) { latch (IQ, IQN) { } pin (Q) { direction : output; function : IQ; } }\n}\n")


class Netlist:
    """A module in Yosys' JSON; nets are numbers from 2 on."""

    def __init__(self) -> None:
        self.ports: dict[str, dict[str, Any]] = {}
        self.cells: dict[str, dict[str, Any]] = {}
        self.count = 2

    def nets(self, number: int) -> list[int]:
        self.count += number
        return list(range(self.count - number, self.count))

    def input(self, name: str, width: int = 1) -> list[int]:
        bits = self.nets(width)
        self.ports[name] = {"direction": "input", "bits": bits}
        return bits

    def output(self, name: str, bits: Sequence[int | str]) -> None:
        self.ports[name] = {"direction": "output", "bits": list(bits)}

    def cell(self, kind: str, parameters: Mapping[str, str] | None = None, **pins) -> None:
        connections = {pin: bits if isinstance(bits, list) else [bits]
                       for pin, bits in pins.items()}
        self.cells[f"c{len(self.cells)}"] = {
            "type": kind, "connections": connections, "parameters": parameters or {}}

    def gate(self, kind: str, *operands: int | str) -> int:
        (out,) = self.nets(1)
        self.cell(kind, **dict(zip(_inputs(FUNCTIONS[kind]), operands, strict=True)), Y=out)
        return out

    def json(self) -> dict[str, Any]:
        return {"ports": self.ports, "cells": self.cells}


def naive(
    modules: Mapping[str, Mapping[str, Any]], top: str, stimulus: Mapping[str, np.ndarray]
) -> tuple[dict[str, np.ndarray], dict[tuple[str, int], np.ndarray]]:
    """Cycle by cycle, instance by instance, each gate until nothing changes any more.

    Returns
    -------
    outputs, nets
        Of shape [cycles, width] for each output; of shape [cycles] for each (path, net).
    """
    cells = []

    def flatten(path: str, name: str, outer: Mapping[Any, Any]) -> None:
        """`outer`: the module's bits that its parent knows under another name."""
        def at(bit):
            return bit if isinstance(bit, str) else outer.get(bit, (path, bit))

        for label, cell in modules[name]["cells"].items():
            pins = {pin: [at(bit) for bit in bits] for pin, bits in cell["connections"].items()}
            if cell["type"] in modules:
                inner: dict[Any, Any] = {}
                ports = modules[cell["type"]]["ports"]
                for port in sorted(ports, key=lambda port: ports[port]["direction"]):
                    for bit, net in zip(ports[port]["bits"], pins[port], strict=True):
                        if bit in inner or isinstance(bit, str):  # the same net under two names
                            cells.append(("BUF", {"A": [inner.get(bit, bit)], "Y": [net]}, {}))
                        else:
                            inner[bit] = net
                flatten(f"{path}/{label}", cell["type"], inner)
            else:
                cells.append((cell["type"], pins, cell["parameters"]))

    flatten("", top, {})
    value: dict[Any, int] = {"0": 0, "1": 1}
    memory: dict[int, dict[int, list[int]]] = {}
    cycles = len(next(iter(stimulus.values())))
    ports = modules[top]["ports"]
    outputs = {name: np.zeros((cycles, len(port["bits"])), np.uint8)
               for name, port in ports.items() if port["direction"] == "output"}
    history: dict[tuple[str, int], list[int]] = {}

    def get(net) -> int:
        return value.get(net, 0)

    state: dict[int, int] = {}
    for cycle in range(cycles):
        for name, bits in stimulus.items():
            for place, bit in enumerate(ports[name]["bits"]):
                value["", bit] = int(bits[cycle, place])
        for _ in range(len(cells) + 1):
            changed = False
            for number, (kind, pins, _) in enumerate(cells):
                if kind in FUNCTIONS:
                    names = {pin: get(bits[0]) for pin, bits in pins.items() if pin != "Y"}
                    text = FUNCTIONS[kind].replace("!", "~")
                    new = {"Y": eval(text, {}, names) & 1}
                elif kind.startswith("sram"):
                    continue
                else:
                    new = {"Q": state.get(number, 0), "QN": 1 - state.get(number, 0)}
                for pin, bit in new.items():
                    if pin in pins and get(pins[pin][0]) != bit:
                        value[pins[pin][0]] = bit
                        changed = True
            if not changed:
                break
        for name, port in ports.items():
            if port["direction"] == "output":
                for place, bit in enumerate(port["bits"]):
                    net = bit if isinstance(bit, str) else ("", bit)
                    outputs[name][cycle, place] = get(net)
        for net, bit in value.items():
            if isinstance(net, tuple):
                history.setdefault(net, [0] * cycle).append(bit)
        later: dict[Any, int] = {}
        for number, (kind, pins, _) in enumerate(cells):
            if kind.startswith("sram"):
                def whole(port: str, pins=pins) -> int:
                    return sum(get(net) << k for k, net in enumerate(pins[port]))
                words = memory.setdefault(number, {})
                if get(pins["RD_EN"][0]):
                    word = words.get(whole("RD_ADDR"), [0] * len(pins["RD_DATA"]))
                    later |= dict(zip(pins["RD_DATA"], word, strict=True))
                old = words.get(whole("WR_ADDR"), [0] * len(pins["WR_DATA"]))
                words[whole("WR_ADDR")] = [
                    get(data) if get(enable) else bit for data, enable, bit in
                    zip(pins["WR_DATA"], pins["WR_EN"], old, strict=True)]
            elif kind in ("DFF", "DFFQN") or (kind == "EDFF" and get(pins["E"][0])):
                later[number] = get(pins["D"][0])
        for key, bit in later.items():
            if isinstance(key, int):
                state[key] = bit
            else:
                value[key] = bit
    return outputs, {net: np.array(bits) for net, bits in history.items()}


def trace_of(stimulus: Mapping[str, np.ndarray], outputs: Mapping[str, np.ndarray]) -> PortTrace:
    """What a recording of these ports would be."""
    def packed(side: Mapping[str, np.ndarray]) -> np.ndarray:
        return np.packbits(np.concatenate(list(side.values()), axis=1), axis=1, bitorder="little")
    return PortTrace(
        unit="unit", inputs=tuple((name, bits.shape[1]) for name, bits in stimulus.items()),
        outputs=tuple((name, bits.shape[1]) for name, bits in outputs.items()),
        input_bytes=packed(stimulus), output_bytes=packed(outputs))
