"""Gate-level simulation beside a naive one, net by net, and beside the RTL of a frame."""

import copy
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splatforge.algos.fetch import pack
from splatforge.designs.array import ArrayDesign
from splatforge.designs.raster import RasterDesign
from splatforge.synth.activity import Circuit, simulate_activity
from splatforge.synth.liberty import Liberty
from splatforge.synth.library import read_library
from splatforge.synth.netlist import gate_level
from splatforge.verification.lib.lists import random_lists
from splatforge.verification.lib.ports import record_ports

sys.path.insert(0, str(Path(__file__).parent))

from cells import tiny_library
from gates import FUNCTIONS, LIBRARY, Netlist, naive, trace_of

CYCLES = 48


@pytest.fixture(scope="module")
def liberty(tmp_path_factory) -> Liberty:
    path = tmp_path_factory.mktemp("gates") / "gates.lib"
    path.write_text(LIBRARY)
    return Liberty([path])


def random_module(rng: np.random.Generator, inputs: int, gates: int, outputs: int) -> Netlist:
    """Gates and flip-flops of every kind over random earlier nets; feedback through flip-flops."""
    module = Netlist()
    clk, rst = module.input("clk"), module.input("rst")
    known: list[int | str] = ["0", "1", *rst, *module.input("i", inputs)]
    later = []
    for number in range(gates):
        kind = str(rng.choice([*FUNCTIONS, "DFF", "DFFQN", "EDFF"]))
        def pick(count: int) -> list[int | str]:
            return [known[k] for k in rng.integers(0, len(known), count)]
        if kind in FUNCTIONS:
            arity = len({letter for letter in FUNCTIONS[kind] if letter.isalpha()})
            known.append(module.gate(kind, *pick(arity)))
            continue
        q, d = module.nets(2)
        later.append(d)
        pins: dict[str, Any] = {"CK": clk, "D": d, "RN": "1"}
        if kind == "EDFF":
            pins["E"] = pick(1)[0]
            if number % 2:
                pins["QN"] = module.nets(1)[0]
                known.append(pins["QN"])
        module.cell(kind, **pins, **{"QN" if kind == "DFFQN" else "Q": q})
        known.append(q)
    for d in later:
        module.cell("BUF", A=known[int(rng.integers(0, len(known)))], Y=d)
    module.output("o", [known[k] for k in rng.integers(0, len(known), outputs)])
    return module


def whole_unit(seed: int, lanes: int) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """A unit with `lanes` instances of one module, one of another, and a memory; its stimulus."""
    rng = np.random.default_rng(seed)
    lane = random_module(rng, 5, 30, 3)
    once = random_module(rng, 4, 20, 4)
    top = Netlist()
    clk, rst, data = top.input("clk"), top.input("rst"), top.input("data", 12)
    made = []
    for _ in range(lanes):
        out = top.nets(3)
        # One input is the same everywhere, one constant, the others differ.
        top.cell("lane", clk=clk, rst=rst, o=out,
                 i=[data[0], "1", *(data[k] for k in rng.integers(0, 12, 3))])
        made += out
    inner = top.nets(4)
    top.cell("once", clk=clk, rst=rst, i=[made[k] for k in rng.integers(0, len(made), 4)], o=inner)
    read = top.nets(6)
    top.cell("sram_8x6", {
        "SIZE": "1000", "WIDTH": "110", "RD_PORTS": "1", "WR_PORTS": "1", "RD_CLK_ENABLE": "1",
        "WR_CLK_ENABLE": "1", "RD_TRANSPARENCY_MASK": "0", "MEMID": "words"},
        RD_ADDR=data[:3], RD_DATA=read, RD_EN=data[3], RD_CLK=clk, WR_ADDR=data[4:7],
        WR_DATA=[*inner, *data[7:9]], WR_EN=[*data[9:12], *data[9:12]], WR_CLK=clk)
    folded = [top.gate("XOR2", *pair) for pair in zip(made[::2], made[1::2], strict=False)]
    top.output("o", [*folded, *inner, *read, data[5], "1"])
    modules = {"unit": top.json(), "lane": lane.json(), "once": once.json()}
    stimulus = {"rst": np.zeros((CYCLES, 1), np.uint8),
                "data": rng.integers(0, 2, (CYCLES, 12), dtype=np.uint8)}
    return modules, stimulus


@pytest.mark.parametrize("transparent", [0, 1])
def test_reads_of_what_is_being_written(liberty: Liberty, transparent: int) -> None:
    """The word of a read in the cycle of its write: as it was, or the new one where transparent."""
    top = Netlist()
    clk, _, i, d = top.input("clk"), top.input("rst"), top.input("i", 3), top.input("d", 2)
    read = top.nets(2)
    top.cell("sram_8x2", {
        "SIZE": "1000", "WIDTH": "10", "RD_PORTS": "1", "WR_PORTS": "1", "RD_CLK_ENABLE": "1",
        "WR_CLK_ENABLE": "1", "RD_TRANSPARENCY_MASK": str(transparent)},
        RD_ADDR=i, RD_DATA=read, RD_EN="1", RD_CLK=clk, WR_ADDR=i, WR_DATA=d, WR_EN=[d[0], d[1]],
        WR_CLK=clk)
    top.output("o", read)
    rng = np.random.default_rng(3)
    stimulus = {"rst": np.zeros((CYCLES, 1), np.uint8),
                "i": rng.integers(0, 2, (CYCLES, 3), dtype=np.uint8),
                "d": rng.integers(0, 2, (CYCLES, 2), dtype=np.uint8)}
    words, out = np.zeros((8, 2), np.uint8), np.zeros((CYCLES, 2), np.uint8)
    for cycle in range(CYCLES - 1):
        place, data = int(stimulus["i"][cycle] @ [1, 2, 4]), stimulus["d"][cycle]
        before = words[place].copy()
        words[place] |= data  # a bit is written where it is one
        out[cycle + 1] = words[place] if transparent else before
    circuit = Circuit({"modules": {"unit": top.json()}}, "unit", liberty)
    simulate_activity(circuit, trace_of(stimulus, {"o": out}), [(1, CYCLES)])
    other = Circuit({"modules": {"unit": top.json()}}, "unit", liberty)
    other.macros[0]["transparent"] = not transparent
    with pytest.raises(ValueError, match="Netlist of unit must give the RTL's outputs"):
        simulate_activity(other, trace_of(stimulus, {"o": out}), [(1, CYCLES)])


def test_memory_that_writes_into_another(liberty: Liberty) -> None:
    """What one gives at an edge the other takes at the next, whichever of them comes first."""
    top = Netlist()
    clk, _, i, d = top.input("clk"), top.input("rst"), top.input("i", 3), top.input("d", 2)
    reads = [top.nets(2) for _ in range(3)]
    parameters = {
        "SIZE": "1000", "WIDTH": "10", "RD_PORTS": "1", "WR_PORTS": "1", "RD_CLK_ENABLE": "1",
        "WR_CLK_ENABLE": "1"}
    for number, data in ((1, reads[0]), (0, d), (2, reads[1])):
        top.cell("sram_8x2", parameters, RD_ADDR=i, RD_DATA=reads[number], RD_EN="1", RD_CLK=clk,
                 WR_ADDR=i, WR_DATA=data, WR_EN=["1", "1"], WR_CLK=clk)
    for number, read in enumerate(reads):
        top.output(f"o_{number}", read)
    rng = np.random.default_rng(4)
    stimulus = {"rst": np.zeros((CYCLES, 1), np.uint8),
                "i": rng.integers(0, 2, (CYCLES, 3), dtype=np.uint8),
                "d": rng.integers(0, 2, (CYCLES, 2), dtype=np.uint8)}
    words, out = np.zeros((3, 8, 2), np.uint8), np.zeros((3, CYCLES, 2), np.uint8)
    for cycle in range(CYCLES - 1):
        place = int(stimulus["i"][cycle] @ [1, 2, 4])
        out[:, cycle + 1] = words[:, place]
        words[0, place] = stimulus["d"][cycle]
        words[1:, place] = out[:2, cycle]
    outputs = {f"o_{number}": each for number, each in enumerate(out)}
    circuit = Circuit({"modules": {"unit": top.json()}}, "unit", liberty)
    assert len(circuit.macros) == 3
    simulate_activity(circuit, trace_of(stimulus, outputs), [(1, CYCLES)])


@pytest.mark.parametrize(("seed", "lanes"), [(1, 2), (2, 5), (3, 1), (4, 66)])
def test_every_net_beside_the_naive_simulator(liberty: Liberty, seed: int, lanes: int) -> None:
    modules, stimulus = whole_unit(seed, lanes)
    outputs, history = naive(modules, "unit", stimulus)
    circuit = Circuit({"modules": modules}, "unit", liberty)
    windows = [(1, 20), (25, CYCLES)]
    activity = simulate_activity(circuit, trace_of(stimulus, outputs), windows)
    assert activity.cycles_compared == CYCLES - 1
    assert activity.output_bits == sum(bits.shape[1] for bits in outputs.values()) > 10
    assert circuit.instances == {"unit": 1, "lane": lanes, "once": 1}
    # Toggles of each gate's output, summed over the instances of its module.
    changes = defaultdict(lambda: np.zeros(CYCLES, np.bool_), {
        net: np.diff(bits, prepend=0) != 0 for net, bits in history.items()})
    for window, (first, last) in enumerate(windows):
        for module in modules:
            paths = [f"/{label}" for label, cell in modules["unit"]["cells"].items()
                     if cell["type"] == module] or [""]
            for kind in FUNCTIONS:
                nets = [cell["connections"]["Y"][0] for cell in modules[module]["cells"].values()
                        if cell["type"] == kind]
                # A port's net is its parent's.
                outer = set() if module == "unit" else {
                    bit for port in modules[module]["ports"].values() for bit in port["bits"]}
                wanted = sorted(sum(int(changes[path, net][first:last].sum()) for path in paths)
                                for net in nets if net not in outer)
                got = sorted(
                    int(toggles) for group in circuit.groups
                    if group.module == module and group.cell.name == kind
                    for toggles in activity.toggles[window, group.pins["Y"]])
                if lanes <= 64 or module != "lane":
                    hidden = len([net for net in nets if net in outer])
                    assert len(got) == len(wanted) + hidden
                    assert not set(wanted) - set(got)
                    if not hidden:
                        assert got == wanted


def test_conditions_hold_as_often_as_they_do(liberty: Liberty) -> None:
    """The clock's condition of a flip-flop is its state: high in a quarter of the cycles."""
    top = Netlist()
    clk, _, d = top.input("clk"), top.input("rst"), top.input("d")
    (q,) = top.nets(1)
    top.cell("DFF", CK=clk, D=d, RN="1", Q=q)
    top.output("q", [q])
    high = (np.arange(32 * 32) // 32 % 4 == 1).astype(np.uint8)[:, None]
    stimulus = {"rst": np.zeros_like(high), "d": high}
    modules = {"unit": top.json()}
    outputs, _ = naive(modules, "unit", stimulus)
    circuit = Circuit({"modules": modules}, "unit", liberty)
    activity = simulate_activity(circuit, trace_of(stimulus, outputs), [(1, len(high))])
    (group,) = circuit.groups
    assert activity.duty[group.conditions["Q"]] == pytest.approx(0.25, abs=0.1)  # of 32 samples
    assert activity.factor == pytest.approx(16 / (len(high) - 1), rel=0.01)


def test_a_wrong_gate_is_found(liberty: Liberty) -> None:
    modules, stimulus = whole_unit(2, 5)
    outputs, _ = naive(modules, "unit", stimulus)
    found = 0
    for label, cell in modules["unit"]["cells"].items():
        if cell["type"] != "XOR2":
            continue
        wrong = copy.deepcopy(modules)
        wrong["unit"]["cells"][label]["type"] = "XNOR2"
        with pytest.raises(ValueError, match=r"Netlist of unit must give the RTL's outputs: "
                                             r"o\[\d+\] differs in cycle 1"):
            simulate_activity(Circuit({"modules": wrong}, "unit", liberty),
                              trace_of(stimulus, outputs), [(1, CYCLES)])
        found += 1
    assert found == 7


def test_a_wrong_output_is_found_in_its_cycle(liberty: Liberty) -> None:
    modules, stimulus = whole_unit(3, 4)
    outputs, _ = naive(modules, "unit", stimulus)
    outputs["o"][37, 2] ^= 1
    circuit = Circuit({"modules": modules}, "unit", liberty)
    with pytest.raises(ValueError, match=r"o\[2\] differs in cycle 37"):
        simulate_activity(circuit, trace_of(stimulus, outputs), [(1, CYCLES)])
    assert simulate_activity(circuit, trace_of(stimulus, outputs), [(1, 37)]).cycles == 36


def one_cell(kind: str, **pins: Any) -> dict[str, Any]:
    top = Netlist()
    clk, a = top.input("clk"), top.input("a", 2)
    (out,) = top.nets(1)
    named = {"clk": clk, "a": a[0], "b": a[1], "out": out}
    top.cell(kind, **{pin: named.get(net, net) for pin, net in pins.items()})
    top.output("o", [out])
    return {"modules": {"unit": top.json()}}


@pytest.mark.parametrize(("kind", "pins", "message"), [
    ("FOO", {"A": "a", "Y": "out"}, "Cell must be one of library gates, not 'FOO'"),
    ("LATCH", {"Q": "out"}, "Cell LATCH must be a gate or a flip-flop, not latch"),
    ("NAND2", {"A": "a", "Y": "out"}, "Cell NAND2 must have its input B connected"),
    ("NAND2", {"A": "a", "B": "clk", "Y": "out"}, r"Clock must only go to .* not to NAND2\.B"),
    ("DFF", {"CK": "a", "D": "b", "RN": "1", "Q": "out"},
     "Flip-flop DFF must be clocked by a rising clk, not by 'CK'"),
    ("DFF", {"CK": "clk", "D": "clk", "RN": "1", "Q": "out"}, r"Clock must only .* not to DFF\.CK"),
    ("DFF", {"CK": "clk", "D": "b", "RN": "0", "Q": "out"}, "Flip-flop DFF must have its !RN tied"),
    ("DFF", {"CK": "clk", "D": "b", "RN": "a", "Q": "out"}, "Flip-flop DFF must have its !RN tied"),
    ("AOI21", {"A": "a", "B": "b", "C": "out", "Y": "out"},
     "Netlist must have no combinational loop: [12] of [12] operations cannot be ordered"),
])
def test_what_is_not_simulated_is_refused(
    liberty: Liberty, kind: str, pins: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        Circuit(one_cell(kind, **pins), "unit", liberty)


def test_function_of_no_pin(tmp_path: Path) -> None:
    path = tmp_path / "odd.lib"
    path.write_text(LIBRARY.replace('"!(A & B)"', '"!(A & Z)"'))
    with pytest.raises(ValueError, match="Function must be of A, B, Y, not 'Z'"):
        Circuit(one_cell("NAND2", A="a", B="b", Y="out"), "unit", Liberty([path]))


def test_memories_that_are_not_simulated(liberty: Liberty) -> None:
    modules, _ = whole_unit(1, 2)
    for key, value in (("RD_PORTS", "10"), ("RD_CLK_ENABLE", "0"), ("WR_PORTS", "10")):
        wrong = copy.deepcopy(modules)
        for cell in wrong["unit"]["cells"].values():
            if cell["type"] == "sram_8x6":
                cell["parameters"][key] = value
        with pytest.raises(ValueError, match=f"Memory sram_8x6 must have {key} of"):
            Circuit({"modules": wrong}, "unit", liberty)


def test_modules_side_by_side_have_memories_of_their_own(liberty: Liberty) -> None:
    """Three banks of one kind, each with a buffer behind it, two levels down."""
    rng = np.random.default_rng(5)
    bank, pair, top = Netlist(), Netlist(), Netlist()
    clk, i = bank.input("clk"), bank.input("i", 12)
    read = bank.nets(6)
    (memory,) = [cell for cell in whole_unit(1, 2)[0]["unit"]["cells"].values()
                 if cell["type"] == "sram_8x6"]
    bank.cell("sram_8x6", {**memory["parameters"]}, RD_ADDR=i[:3], RD_DATA=read, RD_EN=i[3],
              RD_CLK=clk, WR_ADDR=i[4:7], WR_DATA=[*i[:4], *i[10:12]], WR_EN=[i[7]] * 6, WR_CLK=clk)
    bank.output("o", [bank.gate("BUF", net) for net in read])
    clk, i = pair.input("clk"), pair.input("i", 12)
    out = pair.nets(6)
    pair.cell("bank", clk=clk, i=i, o=out)
    pair.output("o", out)
    clk, _, data = top.input("clk"), top.input("rst"), top.input("data", 12)
    made = []
    for number in range(3):
        out = top.nets(6)
        top.cell("pair", clk=clk, i=[*data[number:], *data[:number]], o=out)
        made += out
    top.output("o", made)
    modules = {"unit": top.json(), "pair": pair.json(), "bank": bank.json()}
    stimulus = {"rst": np.zeros((CYCLES, 1), np.uint8),
                "data": rng.integers(0, 2, (CYCLES, 12), dtype=np.uint8)}
    outputs, _ = naive(modules, "unit", stimulus)
    circuit = Circuit({"modules": modules}, "unit", liberty)
    activity = simulate_activity(circuit, trace_of(stimulus, outputs), [(1, CYCLES)])
    assert circuit.instances == {"unit": 1, "pair": 3, "bank": 3}
    assert [macro["lane"] for macro in circuit.macros] == [0, 1, 2]
    assert all(macro["RD_DATA"] == circuit.macros[0]["RD_DATA"] for macro in circuit.macros)
    changed = int((np.diff(outputs["o"][:CYCLES].astype(int), axis=0) != 0).sum())
    buffers = [group for group in circuit.groups if group.module == "bank"]
    assert sum(int(activity.toggles[0, group.pins["Y"]].sum()) for group in buffers) == changed > 50


def test_windows_and_ports_are_checked(liberty: Liberty) -> None:
    modules, stimulus = whole_unit(1, 2)
    outputs, _ = naive(modules, "unit", stimulus)
    circuit = Circuit({"modules": modules}, "unit", liberty)
    trace = trace_of(stimulus, outputs)
    for windows in ([(0, 5)], [(5, 5)], [(9, CYCLES + 1)], [(5, 9), (8, 12)]):
        with pytest.raises(ValueError, match="Window must lie in cycles"):
            simulate_activity(circuit, trace, windows)
    with pytest.raises(ValueError, match="Trace of unit must have the outputs of the netlist"):
        simulate_activity(circuit, trace_of(stimulus, outputs | {"o": outputs["o"][:, :-1]}),
                          [(1, 9)])


# --- From the RTL --------------------------------------------------------------------------------

SMALL = RasterDesign(array=ArrayDesign(lanes=16))


@cache
def recorded():
    lists = random_lists(7, tiles_x=2, tiles_y=2, longest=20)
    return record_ports(SMALL, pack(lists))


def check_netlist(folder: Path, unit: str) -> None:
    """The unit's netlist gives what its RTL gave, in every cycle of the frame."""
    path = folder / "tiny.lib"
    path.write_text(tiny_library())
    netlist = gate_level(unit, SMALL, read_library([path], node_nm=100), banks=False)
    circuit = Circuit(netlist.netlist, unit, Liberty([path]))
    trace = recorded()[1][unit]
    activity = simulate_activity(circuit, trace, [(1, trace.cycles)])
    assert activity.cycles_compared == trace.cycles - 1 > 300
    assert activity.output_bits == sum(width for _, width in trace.outputs) > 80
    assert {group.cell.name for group in circuit.groups if group.cell.storage} == {"DFF"}
    assert 0 < activity.factor < 0.2


@pytest.mark.rtl
def test_a_frame_of_the_rtl(tmp_path: Path) -> None:
    """Recorded ports add up to the core's counters, and netlists repeat them."""
    run, traces = recorded()
    array, fetch, resolve = traces["array"], traces["fetch"], traces["resolve"]
    for name in ("busy", "starved", "skipped", "blocked"):
        assert array.values(name).sum() == run.counters[f"array_{name}"]
    splats = fetch.values("i_beat__valid") & (fetch.values("i_beat__payload", 0, 2) == 2)
    assert splats.sum() == run.counters["fetch_busy"] > 20
    written = resolve.values("o_data__valid") & resolve.values("o_data__ready")
    assert written.sum() == run.counters["resolve_busy"]
    # Four cycles of the bench, and the first one of the register that the reset comes out of.
    assert 0 < traces["registers"].values("rst").sum() <= 5
    assert len({trace.cycles for trace in traces.values()}) == 1
    with pytest.raises(ValueError, match="Port of array must be one of rst, "):
        array.values("nothing")
    with pytest.raises(ValueError, match="Part of busy must be of 1 to 57 of its 1 bits, not 2 f"):
        array.values("busy", 0, 2)
    with pytest.raises(ValueError, match="Part of o__payload must be of 1 to 57 of its"):
        array.values("o__payload")
    for unit in ("fetch", "registers"):
        check_netlist(tmp_path, unit)


@pytest.mark.rtl
@pytest.mark.matrix
@pytest.mark.parametrize("unit", ["array", "resolve"])
def test_large_netlists_give_what_the_rtl_gave(tmp_path: Path, unit: str) -> None:
    check_netlist(tmp_path, unit)


def test_unknown_unit_cannot_be_recorded() -> None:
    with pytest.raises(ValueError, match="Unit must be one of array, fetch, registers, resolve"):
        record_ports(SMALL, pack(random_lists(1, tiles_x=1, tiles_y=1, longest=1)), ["lane"])
