"""Gate-level simulation of a mapped unit: every net, every cycle, checked against the RTL.

A netlist of library cells is broken down into two-input operations on words of 64 bits and put in
order; a kernel evaluates them all once a cycle. Modules that a unit has many times are evaluated
side by side, one instance in each bit, so that 64 lanes cost what one does; of a memory in them
each has its own. The unit is driven with the inputs that were recorded from its RTL and its outputs
are compared with ``==`` in every cycle: a wrong mapping, a wrong reading of the library or a wrong
simulation cannot go unnoticed.

Zero delay: a net changes at most once a cycle, so glitches are not seen.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.synth.liberty import Cell, Function, Liberty, evaluate, parse_function
from splatforge.verification.lib.ports import PortTrace

__all__ = ["Activity", "CellGroup", "Circuit", "Crossing", "simulate_activity"]

#: Nets that are always there.
ZERO, ONE, CLOCK = 0, 1, 2
#: Instances side by side in a word.
WORD = 64
#: One in 32 cycles, in no step with anything periodic, the conditions of the library's tables are
#: looked at: where the product with this number (2^64 over the golden ratio) has five zeros on top.
SAMPLE = 0x9E3779B97F4A7C15

_AND, _XOR, _BROADCAST, _EXTRACT, _GATHER = range(5)
_OPERATION = np.dtype([("kind", "u1"), ("a", "i4"), ("b", "i4"), ("out", "i4"), ("invert_a", "?"),
                       ("invert_b", "?"), ("invert_out", "?"), ("shift", "u1")])


@dataclass(frozen=True, eq=False)
class CellGroup:
    """Cells of one type in one module.

    Parameters
    ----------
    module : str
        Module of the netlist.
    lanes : int
        Instances of the module side by side in the nets' words.
    cell : Cell
        What they are.
    pins : mapping
        Pin -> net of each cell, of shape [cells]; int32.
    conditions : mapping
        Condition of the library -> net of its value, of shape [cells]; int32.
    """

    module: str
    lanes: int
    cell: Cell
    pins: Mapping[str, npt.NDArray[np.int32]]
    conditions: Mapping[str, npt.NDArray[np.int32]]


@dataclass(frozen=True, eq=False)
class Crossing:
    """Nets that cross into or out of modules side by side: the same wires under two numbers.

    Parameters
    ----------
    driver, load : ndarray
        Net that is driven, and what it drives, of shape [crossings]; int32.
    share : ndarray
        Loads of `load` that one wire of `driver` sees; float64.
    """

    driver: npt.NDArray[np.int32]
    load: npt.NDArray[np.int32]
    share: npt.NDArray[np.float64]


@cache
def _template(function: Function) -> tuple[tuple[tuple[object, ...], ...], tuple[object, bool]]:
    """Operations of a function, and where its value is: (operand, inverted).

    An operation is (kind, operand, inverted, operand, inverted); an operand is the name of a pin,
    or the number of an earlier operation.
    """
    steps = list[tuple[object, ...]]()

    def compile_(part: Function) -> tuple[object, bool]:
        if isinstance(part, str):
            return ("", part == "1") if part in ("0", "1") else (part, False)
        operator, *operands = part
        values = [compile_(operand) for operand in operands]
        if operator == "!":
            return values[0][0], not values[0][1]
        (first, invert_first), (second, invert_second) = values
        if operator == "^":
            steps.append((_XOR, first, False, second, False))
            return len(steps) - 1, invert_first != invert_second
        # De Morgan: an OR is an AND of inverses, inverted.
        either = operator == "|"
        steps.append((_AND, first, invert_first != either, second, invert_second != either))
        return len(steps) - 1, either

    value = compile_(function)
    return tuple(steps), value


class Circuit:
    """A unit's netlist, ready to be simulated.

    Parameters
    ----------
    netlist : mapping
        Yosys' JSON.
    top : str
        Name of the unit's module.
    liberty : Liberty
        Its cells.

    Attributes
    ----------
    groups : list of CellGroup
        All cells.
    crossing : Crossing
        Boundaries of modules side by side.
    lanes : ndarray
        Bits of each net's word, of shape [nets]; uint8.
    instances : dict
        Module of the netlist -> how often the unit has it.
    macros : list of dict
        Memories that are cells of their own, one for each bit of the nets' words: ``words``,
        ``bits``, whether a read is ``transparent`` to the write of its cycle, nets of the ports,
        and which ``lane`` of them.

    Raises
    ------
    ValueError
        If a cell is not in the library, is no gate or flip-flop, is not clocked by ``clk``, or has
        a live asynchronous input; if there is a combinational loop; if a memory has not one
        clocked read port and one write port.
    """

    def __init__(self, netlist: Mapping[str, Any], top: str, liberty: Liberty) -> None:
        self.top, self._liberty = top, liberty
        self._modules = netlist["modules"]
        self._lanes = [1, WORD, WORD]
        self._parts: list[npt.NDArray[np.void]] = []
        self._conditions: list[npt.NDArray[np.void]] = []
        self._crossings: list[tuple[int, int, float]] = []
        self._states: list[npt.NDArray[np.int32]] = []
        self._nexts: list[npt.NDArray[np.int32]] = []
        self._starts: list[npt.NDArray[np.bool_]] = []
        self.groups: list[CellGroup] = []
        self.instances: dict[str, int] = defaultdict(int)
        self.macros: list[dict[str, Any]] = []
        ports = self._modules[top]["ports"]
        self.inputs: dict[str, list[int]] = {}
        outputs = {}
        for name, port in ports.items():
            nets = [CLOCK] if name == "clk" else [self._net(1) for _ in port["bits"]]
            (self.inputs if port["direction"] == "input" else outputs)[name] = nets
        self._module(top, self.inputs | outputs, 1)
        self.outputs: dict[str, list[int]] = outputs
        del self.inputs["clk"]
        self.lanes = np.array(self._lanes, np.uint8)
        self.operations = _ordered(self._parts, len(self._lanes))
        self.observers = _joined(self._conditions)
        self.state = _concatenate(self._states)
        self.next = _concatenate(self._nexts)
        self.start = (np.concatenate(self._starts) if self._starts else np.zeros(0, np.bool_))
        driver, load, share = (list(part) for part in zip(*self._crossings, strict=True)) \
            if self._crossings else ([], [], [])
        self.crossing = Crossing(np.array(driver, np.int32), np.array(load, np.int32),
                                 np.array(share, np.float64))

    # ---- Nets and operations.

    def _net(self, lanes: int) -> int:
        self._lanes.append(lanes)
        return len(self._lanes) - 1

    def _nets(self, count: int, lanes: int) -> npt.NDArray[np.int32]:
        first = len(self._lanes)
        self._lanes += [lanes] * count
        return np.arange(first, first + count, dtype=np.int32)

    def _operate(
        self, kind: int, a: int, b: int, out: int, *, shift: int = 0
    ) -> None:
        self._parts.append(np.array([(kind, a, b, out, False, False, False, shift)], _OPERATION))

    def _compute(
        self, function: Function, pins: Mapping[str, npt.NDArray[np.int32]], lanes: int,
        out: npt.NDArray[np.int32] | None, into: list[npt.NDArray[np.void]],
    ) -> npt.NDArray[np.int32]:
        """Nets of a function's value for many cells at once; `out` if they are given."""
        steps, (result, inverted) = _template(function)
        count = len(next(iter(pins.values())))
        zero = np.full(count, ZERO, np.int32)
        made = list[npt.NDArray[np.int32]]()

        def operand(which: object) -> npt.NDArray[np.int32]:
            if isinstance(which, int):
                return made[which]
            if which == "":
                return zero
            if which not in pins:
                raise ValueError(f"Function must be of {', '.join(pins)}, not {which!r}")
            return pins[str(which)]

        if not isinstance(result, int):
            if not inverted and out is None:
                return operand(result)
            steps, result = ((_AND, result, False, result, False),), 0
        for number, (kind, a, invert_a, b, invert_b) in enumerate(steps):
            last = number == result
            nets = out if last and out is not None else self._nets(count, lanes)
            part = np.zeros(count, _OPERATION)
            part["kind"], part["a"], part["b"], part["out"] = kind, operand(a), operand(b), nets
            part["invert_a"], part["invert_b"] = invert_a, invert_b
            part["invert_out"] = last and inverted
            into.append(part)
            made.append(nets)
        return made[-1]

    # ---- Modules.

    def _module(self, name: str, ports: Mapping[str, Sequence[int]], lanes: int) -> None:
        """Build a module between the nets of its ports."""
        module = self._modules[name]
        self.instances[name] += lanes
        local: dict[object, int] = {"0": ZERO, "1": ONE, "x": ZERO, "z": ZERO}
        for direction in ("input", "output"):
            for port, content in module["ports"].items():
                if content["direction"] != direction:
                    continue
                for bit, own in zip(content["bits"], ports[port], strict=True):
                    if bit in local:  # an output that is another port or a constant
                        self._operate(_AND, local[bit], ONE, own)
                        self._crossings.append((local[bit], own, 1.0))
                    else:
                        local[bit] = own

        def net(bit: object) -> int:
            if bit not in local:
                local[bit] = self._net(lanes)
            return local[bit]

        cells = defaultdict[str, list[Mapping[str, Any]]](list)
        for cell in module["cells"].values():
            cells[cell["type"]].append(cell)
        for kind, instances in cells.items():
            if kind in self._modules and kind not in self._liberty.names:
                self._children(kind, instances, net, lanes)
            elif kind.startswith("sram_"):
                for instance in instances:
                    self._macro(kind, instance, net, lanes)
            else:
                self._cells(name, self._liberty.cell(kind), instances, net, lanes)

    def _children(
        self, kind: str, instances: Sequence[Mapping[str, Any]], net: Any, lanes: int
    ) -> None:
        """Instances of a module: side by side, or one after the other where all else is that."""
        ports = self._modules[kind]["ports"]
        if lanes > 1 or len(instances) == 1:
            for instance in instances:
                nets = {}
                for port, content in ports.items():
                    bits = instance["connections"].get(port, [])
                    nets[port] = [net(bit) for bit in bits] or [
                        self._net(lanes) for _ in content["bits"]]
                self._module(kind, nets, lanes)
            return
        for first in range(0, len(instances), WORD):
            side = instances[first:first + WORD]
            inner = {
                port: [self._enter([net(each["connections"][port][bit]) for each in side])
                       if content["direction"] == "input" else self._net(len(side))
                       for bit in range(len(content["bits"]))]
                for port, content in ports.items()}
            for port, content in ports.items():
                if content["direction"] == "input":
                    continue
                for bit, vector in enumerate(inner[port]):
                    for number, each in enumerate(side):
                        bits = each["connections"].get(port, [])
                        if bits:
                            self._operate(_EXTRACT, vector, ZERO, net(bits[bit]), shift=number)
                            self._crossings.append((vector, net(bits[bit]), 1 / len(side)))
            self._module(kind, inner, len(side))

    def _enter(self, nets: Sequence[int]) -> int:
        """One net of modules side by side from the nets outside."""
        if len(set(nets)) == 1:
            if nets[0] in (ZERO, ONE, CLOCK):
                return nets[0]
            inner = self._net(len(nets))
            self._operate(_BROADCAST, nets[0], ZERO, inner)
            self._crossings.append((nets[0], inner, float(len(nets))))
            return inner
        inner = ZERO
        for number, each in enumerate(nets):
            before, inner = inner, self._net(len(nets))
            self._operate(_GATHER, each, before, inner, shift=number)
        self._crossings += [(each, inner, 1.0) for each in nets if each not in (ZERO, ONE)]
        return inner

    def _cells(
        self, module: str, cell: Cell, instances: Sequence[Mapping[str, Any]], net: Any, lanes: int
    ) -> None:
        pins = dict[str, npt.NDArray[np.int32]]()
        for pin in (*cell.inputs, *cell.outputs):
            nets = list[int]()
            for each in instances:
                bits = each["connections"].get(pin, [])
                if not bits and pin in cell.inputs:
                    raise ValueError(f"Cell {cell.name} must have its input {pin} connected")
                nets.append(net(bits[0]) if bits else self._net(lanes))
            pins[pin] = np.array(nets, np.int32)
        names: dict[str, npt.NDArray[np.int32]] = dict(pins)
        if cell.flip_flop is not None:
            names |= self._flip_flops(cell, pins, lanes)
        elif cell.storage:
            raise ValueError(f"Cell {cell.name} must be a gate or a flip-flop, not {cell.storage}")
        clocks = {pin for pin in cell.inputs if (pins[pin] == CLOCK).any()}
        if clocks and (cell.flip_flop is None or clocks != {cell.flip_flop.clocked_on}):
            raise ValueError(f"Clock must only go to flip-flops, not to {cell.name}.{min(clocks)}")
        for pin in cell.outputs:
            function = parse_function(cell.pins[pin].function)
            if not (isinstance(function, str) and names.get(function) is pins[pin]):
                self._compute(function, names, lanes, pins[pin], self._parts)
        texts = {when for when, _ in cell.leakage}
        texts |= {arc.when for pin in cell.pins.values() for arc in pin.power if arc.when}
        conditions = {text: self._compute(parse_function(text), names, lanes, None,
                                          self._conditions) for text in sorted(texts)}
        self.groups.append(CellGroup(module, lanes, cell, pins, conditions))

    def _flip_flops(
        self, cell: Cell, pins: Mapping[str, npt.NDArray[np.int32]], lanes: int
    ) -> dict[str, npt.NDArray[np.int32]]:
        """Register flip-flops; returns the nets of state and complement."""
        flip_flop = cell.flip_flop
        assert flip_flop is not None
        count = len(pins[flip_flop.clocked_on]) if flip_flop.clocked_on in pins else 0
        if not count or (pins[flip_flop.clocked_on] != CLOCK).any():
            raise ValueError(f"Flip-flop {cell.name} must be clocked by a rising clk, "
                             f"not by {flip_flop.clocked_on!r}")
        for what in (flip_flop.clear, flip_flop.preset):
            if not what:
                continue
            tied = {pin: 0 for pin in cell.inputs if (pins[pin] == ZERO).all()}
            tied |= {pin: 1 for pin in cell.inputs if (pins[pin] == ONE).all()}
            try:
                live = evaluate(parse_function(what), tied, 1)
            except ValueError:
                live = 1
            if live:
                raise ValueError(f"Flip-flop {cell.name} must have its {what} tied off: "
                                 "asynchronous resets are not simulated")
        by_function = {cell.pins[pin].function.strip("()"): pins[pin] for pin in cell.outputs}
        # An output that is the state is the state's net.
        state = by_function.get(flip_flop.state)
        if state is None:
            state = self._nets(count, lanes)
        names = {**pins, flip_flop.state: state}
        inverse = self._compute(("!", flip_flop.state), names, lanes, None, self._parts)
        names[flip_flop.inverse] = inverse
        function = parse_function(flip_flop.next_state)
        self._states.append(state)
        self._nexts.append(self._compute(function, names, lanes, None, self._parts))
        # Nothing is known at power-up; RTL starts from zeros, also behind an inverting cell.
        start = evaluate(function, dict.fromkeys(names, 0), 1)
        self._starts.append(np.full(count, bool(start)))
        return {flip_flop.state: state, flip_flop.inverse: inverse}

    def _macro(self, kind: str, cell: Mapping[str, Any], net: Any, lanes: int) -> None:
        number = {key: int(value, 2) if isinstance(value, str) and set(value) <= set("01") else 0
                  for key, value in cell["parameters"].items()}
        wanted = {"RD_PORTS": 1, "WR_PORTS": 1, "RD_CLK_ENABLE": 1, "WR_CLK_ENABLE": 1,
                  "OFFSET": 0}
        for key, value in wanted.items():
            if number.get(key, 0) != value:
                raise ValueError(f"Memory {kind} must have {key} of {value}, "
                                 f"not {number.get(key, 0)}")
        nets = {port: [net(bit) for bit in cell["connections"][port]] for port in (
            "RD_ADDR", "RD_DATA", "RD_EN", "WR_ADDR", "WR_DATA", "WR_EN")}
        self.macros += [{
            "words": number["SIZE"], "bits": number["WIDTH"], "lane": lane,
            "transparent": number.get("RD_TRANSPARENCY_MASK", 0) == 1, **nets}
            for lane in range(lanes)]


def _concatenate(parts: Sequence[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


def _joined(parts: Sequence[npt.NDArray[np.void]]) -> npt.NDArray[np.void]:
    return np.concatenate(parts) if parts else np.zeros(0, _OPERATION)


def _ordered(parts: Sequence[npt.NDArray[np.void]], nets: int) -> npt.NDArray[np.void]:
    """Operations in an order in which every operand is there."""
    operations = _joined(parts)
    producer = np.full(nets, -1, np.int32)
    producer[operations["out"]] = np.arange(len(operations), dtype=np.int32)
    order, done = _sort(producer[operations["a"]], producer[operations["b"]])
    if done < len(operations):
        raise ValueError(f"Netlist must have no combinational loop: {len(operations) - done} of "
                         f"{len(operations)} operations cannot be ordered")
    return operations[order]


@nb.njit(cache=True)
def _sort(first, second):
    """Topological order by levels; `first` and `second` are the operations of the operands."""
    count = len(first)
    level = np.zeros(count, np.int32)
    heads = np.full(count, -1, np.int64)
    links = np.full(2 * count, -1, np.int64)
    open_ = np.zeros(count, np.int32)
    for number in range(count):
        for side, source in enumerate((first[number], second[number])):
            if source >= 0:
                links[2 * number + side] = heads[source]
                heads[source] = 2 * number + side
                open_[number] += 1
    queue = np.empty(count, np.int64)
    end = 0
    for number in range(count):
        if open_[number] == 0:
            queue[end] = number
            end += 1
    place = 0
    while place < end:
        number = queue[place]
        place += 1
        link = heads[number]
        while link >= 0:
            user = link // 2
            level[user] = max(level[user], level[number] + 1)
            open_[user] -= 1
            if open_[user] == 0:
                queue[end] = user
                end += 1
            link = links[link]
    return np.argsort(level, kind="mergesort"), end


@nb.njit(inline="always")
def _popcount(word):
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + (
        (word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return (word * np.uint64(0x0101010101010101)) >> np.uint64(56)


@nb.njit(cache=True)
def _evaluate(value, kind, a, b, out, mask_a, mask_b, mask_out, shift):
    one = np.uint64(1)
    for k in range(len(kind)):
        if kind[k] == _AND:
            word = (value[a[k]] ^ mask_a[k]) & (value[b[k]] ^ mask_b[k])
        elif kind[k] == _XOR:
            word = value[a[k]] ^ value[b[k]]
        elif kind[k] == _BROADCAST:
            word = np.uint64(0) - (value[a[k]] & one)
        elif kind[k] == _EXTRACT:
            word = (value[a[k]] >> shift[k]) & one
        else:
            word = value[b[k]] | ((value[a[k]] & one) << shift[k])
        value[out[k]] = word ^ mask_out[k]


@nb.njit(cache=True)
def _run(
    value, operations, observers, state, following, macros, memories, inputs, input_bytes, outputs,
    output_bytes, counted, counted_mask, watched, watched_mask, window_of, toggles, ones, samples,
):
    """Simulate all cycles of `window_of`; (cycle, output bit) of the first difference, or -1."""
    (read_address, read_data, read_enable, write_address, write_data, write_enable,
     transparent, lanes) = macros
    every, one = ~np.uint64(0), np.uint64(1)
    scratch = np.empty(len(state), np.uint64)
    read = np.zeros((len(memories), memories.shape[2]), np.uint8)
    enabled = np.zeros(len(memories), np.bool_)
    previous = np.zeros(len(counted), np.uint64)
    moved = True
    for cycle in range(len(window_of)):
        for k in range(len(inputs)):
            bit = np.uint64((input_bytes[cycle, k >> 3] >> (k & 7)) & 1)
            moved = moved or value[inputs[k]] != bit
            value[inputs[k]] = bit
        # A unit that waits costs nothing here.
        if moved:
            _evaluate(value, *operations)
        if cycle:  # the first edge resets what the outputs depend on
            for k in range(len(outputs)):
                wanted = (output_bytes[cycle, k >> 3] >> (k & 7)) & 1
                if (value[outputs[k]] & np.uint64(1)) != wanted:
                    return cycle, k
        window = window_of[cycle]
        if window >= 0:
            if moved:
                for k in range(len(counted)):
                    word = value[counted[k]]
                    toggles[window, k] += _popcount((word ^ previous[k]) & counted_mask[k])
            if (np.uint64(cycle) * np.uint64(SAMPLE)) >> np.uint64(59) == 0:
                samples[window] += 1
                for level in range(2):
                    value[CLOCK] = every * np.uint64(level)
                    _evaluate(value, *observers)
                    for k in range(len(watched)):
                        ones[window, k] += _popcount(value[watched[k]] & watched_mask[k])
        if moved:
            for k in range(len(counted)):
                previous[k] = value[counted[k]]
        moved = False
        for k in range(len(state)):
            scratch[k] = value[following[k]]
        for m in range(len(memories)):
            lane = lanes[m]
            enabled[m] = (value[read_enable[m]] >> lane) & one != 0
            where = into = 0
            for k in range(read_address.shape[1]):
                where |= np.int64((value[read_address[m, k]] >> lane) & one) << k
            if not transparent[m]:
                read[m, :] = memories[m, where]
            for k in range(write_address.shape[1]):
                into |= np.int64((value[write_address[m, k]] >> lane) & one) << k
            for k in range(write_data.shape[1]):
                if (value[write_enable[m, k]] >> lane) & one:
                    memories[m, into, k] = (value[write_data[m, k]] >> lane) & one
            if transparent[m]:
                read[m, :] = memories[m, where]
        # What one memory gives may be what another takes: after all have taken.
        for m in range(len(memories)):
            if enabled[m]:
                for k in range(read_data.shape[1]):
                    if read_data[m, k] > CLOCK:
                        word = value[read_data[m, k]]
                        given = (word & ~(one << lanes[m])) | (np.uint64(read[m, k]) << lanes[m])
                        moved = moved or given != word
                        value[read_data[m, k]] = given
        for k in range(len(state)):
            moved = moved or value[state[k]] != scratch[k]
            value[state[k]] = scratch[k]
    return -1, -1


@dataclass(frozen=True, kw_only=True, eq=False)
class Activity:
    """What the nets of a unit did.

    Parameters
    ----------
    circuit : Circuit
        The unit.
    windows : tuple of (int, int)
        First cycle and the one behind the last, as in the trace.
    cycles_compared : int
        Cycles in which all outputs were those of the RTL.
    output_bits : int
        Outputs that were compared.
    toggles : ndarray
        Changes of each net in each window, over the lanes of its word, of shape [windows, nets];
        int64.
    duty : ndarray
        Share of time in which a condition's net holds, over all windows and the lanes of its
        word, of shape [nets]; zero for other nets; float64.
    """

    circuit: Circuit
    windows: tuple[tuple[int, int], ...]
    cycles_compared: int
    output_bits: int
    toggles: npt.NDArray[np.int64]
    duty: npt.NDArray[np.float64]

    @property
    def cycles(self) -> int:
        """Cycles of all windows."""
        return sum(last - first for first, last in self.windows)

    @property
    def factor(self) -> float:
        """Mean toggles of a cell's output in a cycle: the activity factor."""
        nets = np.concatenate([
            group.pins[pin] for group in self.circuit.groups for pin in group.cell.outputs])
        return float(self.toggles[:, nets].sum()
                     / self.circuit.lanes[nets].sum(dtype=np.int64) / self.cycles)


def simulate_activity(
    circuit: Circuit, trace: PortTrace, windows: Sequence[tuple[int, int]]
) -> Activity:
    """Replay recorded inputs, compare the outputs, count toggles.

    Parameters
    ----------
    circuit : Circuit
        The mapped unit.
    trace : PortTrace
        Its ports, cycle by cycle from reset on.
    windows : sequence of (int, int)
        Cycles of the trace to count in, each a first cycle and the one behind the last, one behind
        the other. All cycles before the end of the last window are simulated and compared.

    Returns
    -------
    Activity
        Toggles per net.

    Raises
    ------
    ValueError
        If a window is not inside of the trace, the ports are not the circuit's, or an output
        differs from the RTL's; the message names cycle, port and bit.
    """
    end = 0
    for first, last in windows:
        if not (max(1, end) <= first < last <= trace.cycles):
            raise ValueError(f"Window must lie in cycles {max(1, end)} to {trace.cycles}, behind "
                             f"the one before, not {first} to {last}")
        end = last
    window_of = np.full(end, -1, np.int32)
    for number, (first, last) in enumerate(windows):
        window_of[first:last] = number
    ports = {}
    for side, nets, recorded in (("input", circuit.inputs, trace.inputs),
                                 ("output", circuit.outputs, trace.outputs)):
        wanted = {name: len(each) for name, each in nets.items()}
        if wanted != dict(recorded):
            raise ValueError(f"Trace of {trace.unit} must have the {side}s of the netlist: "
                             f"{dict(set(wanted.items()) ^ set(recorded))} differ")
        ports[side] = np.array([net for name, _ in recorded for net in nets[name]], np.int32)
    counted = np.unique(np.concatenate(
        [nets for group in circuit.groups for nets in group.pins.values()]
        or [np.zeros(0, np.int32)]))
    counted = counted[counted > CLOCK]
    watched = np.unique(np.concatenate(
        [nets for group in circuit.groups for nets in group.conditions.values()]
        or [np.zeros(0, np.int32)])).astype(np.int32)
    lanes = circuit.lanes.astype(np.uint64)
    mask = np.where(lanes >= WORD, ~np.uint64(0), (np.uint64(1) << (lanes % WORD)) - np.uint64(1))
    value = np.zeros(len(lanes), np.uint64)
    value[ONE] = ~np.uint64(0)
    value[circuit.state[circuit.start]] = ~np.uint64(0)
    toggles = np.zeros((len(windows), len(counted)), np.int64)
    ones = np.zeros((len(windows), len(watched)), np.int64)
    samples = np.zeros(len(windows), np.int64)
    cycle, bit = _run(
        value, _columns(circuit.operations), _columns(circuit.observers), circuit.state,
        circuit.next, *_macro_arrays(circuit.macros), ports["input"], trace.input_bytes,
        ports["output"], trace.output_bytes, counted, mask[counted], watched, mask[watched],
        window_of, toggles, ones, samples)
    if cycle >= 0:
        names = [f"{name}[{k}]" for name, width in trace.outputs for k in range(width)]
        raise ValueError(f"Netlist of {trace.unit} must give the RTL's outputs: {names[bit]} "
                         f"differs in cycle {cycle}")
    every = np.zeros((len(windows), len(lanes)), np.int64)
    every[:, counted] = toggles
    # Conditions are looked at over all windows together: a window may hold no sample.
    duty = np.zeros(len(lanes))
    duty[watched] = ones.sum(axis=0) / np.maximum(
        1, 2 * samples.sum() * lanes[watched].astype(np.int64))
    return Activity(
        circuit=circuit, windows=tuple(windows), cycles_compared=end - 1,
        output_bits=len(ports["output"]), toggles=every, duty=duty)


def _columns(operations: npt.NDArray[np.void]) -> tuple[npt.NDArray[Any], ...]:
    """Columns for the kernel, inversions as masks."""
    masks = [np.where(operations[name], ~np.uint64(0), np.uint64(0))
             for name in ("invert_a", "invert_b", "invert_out")]
    return (*(np.ascontiguousarray(operations[name]) for name in ("kind", "a", "b", "out")),
            *masks, operations["shift"].astype(np.uint64))


def _macro_arrays(
    macros: Sequence[Mapping[str, Any]]
) -> tuple[tuple[npt.NDArray[Any], ...], npt.NDArray[np.uint8]]:
    """Nets of the memories' ports, padded with the constant zero, and their content."""
    def nets(port: str) -> npt.NDArray[np.int32]:
        width = max((len(macro[port]) for macro in macros), default=0)
        return np.array([macro[port] + [ZERO] * (width - len(macro[port])) for macro in macros],
                        np.int32).reshape(len(macros), width)

    content = np.zeros((len(macros), max((macro["words"] for macro in macros), default=0),
                        max((macro["bits"] for macro in macros), default=0)), np.uint8)
    return ((nets("RD_ADDR"), nets("RD_DATA"), nets("RD_EN").reshape(-1), nets("WR_ADDR"),
             nets("WR_DATA"), nets("WR_EN"),
             np.array([macro["transparent"] for macro in macros], np.bool_),
             np.array([macro["lane"] for macro in macros], np.uint64)), content)
