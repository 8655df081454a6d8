"""Energy at gate level by hand, and its way into a cost table."""

import importlib.util
import sys
import tomllib
from dataclasses import replace
from importlib.resources import files
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from splatforge.designs.array import ArrayDesign
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.raster import RasterDesign
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.sim.costs import LIBRARIES, CostTable, default_costs
from splatforge.synth import actions
from splatforge.synth.activity import Circuit, simulate_activity
from splatforge.synth.energy import PARTS, module_energies, net_slews
from splatforge.synth.liberty import Liberty
from splatforge.synth.library import read_library
from splatforge.synth.parts import rtl_digests
from splatforge.verification.lib.ports import UNITS, PortTrace, own_units

sys.path.insert(0, str(Path(__file__).parent))
from cells import tiny_library
from gates import FUNCTIONS, LIBRARY, Netlist, naive, trace_of
from test_activity import CYCLES, whole_unit

SQUARE = 4.0  # the supply of the library is 2 V


@pytest.fixture(scope="module")
def liberty(tmp_path_factory) -> Liberty:
    path = tmp_path_factory.mktemp("gates") / "gates.lib"
    path.write_text(LIBRARY)
    return Liberty([path])


def energies(modules: dict[str, Any], stimulus, liberty: Liberty, windows):
    outputs, history = naive(modules, "unit", stimulus)
    activity = simulate_activity(
        Circuit({"modules": modules}, "unit", liberty), trace_of(stimulus, outputs), windows)
    return module_energies(activity, liberty), history


def test_three_cells_by_hand(liberty: Liberty) -> None:
    """An inverter and a buffer before a flip-flop, whose input changes every third cycle."""
    top = Netlist()
    clk, _, a = top.input("clk"), top.input("rst"), top.input("a")
    d = top.gate("BUF", top.gate("INV", a[0]))
    (q,) = top.nets(1)
    top.cell("DFF", CK=clk, D=d, RN="1", Q=q)
    top.output("o", [q])
    cycles = 32 * 6 * 10
    bits = (np.arange(cycles) // 3 % 2).astype(np.uint8)[:, None]
    found, _ = energies({"unit": top.json()}, {"rst": np.zeros_like(bits), "a": bits}, liberty,
                        [(32, 32 + 960), (32 + 960, cycles)])
    energy = found["unit"]
    assert (energy.instances, energy.cells, energy.flip_flops) == (1, 3, 1)
    toggles = np.array([960, cycles - 992]) / 3
    parts = {name: value / toggles for name, value in energy.parts_fj.items()}
    # INV 1 fF, BUF 2 fF, D 2 fF; 10 and 5 fJ, 11 and 5.5 fJ.
    assert parts["nets"] == pytest.approx(SQUARE / 2 * (1 + 2 + 2), rel=0.01)
    assert parts["combinational"] == pytest.approx((10 + 5) / 2 + (11 + 5.5) / 2, rel=0.01)
    assert parts["flip_flop_data"] == pytest.approx(0.0)
    # 3 fF charged once a cycle; 6 fJ a cycle while Q is high, 10 else, half of the time each.
    assert parts["clock_pins"] == pytest.approx(3 * SQUARE * 3)
    assert parts["flip_flop_clock"] == pytest.approx(3 * 8, rel=0.05)
    assert energy.leakage_nw == pytest.approx(0.1 + 0.2 + 1.0)
    assert energy.data_fj + energy.clock_fj == pytest.approx(
        sum(energy.parts_fj[part] for part in PARTS))


@pytest.mark.parametrize(("seed", "lanes"), [(6, 3), (7, 9)])
def test_a_random_unit_beside_the_naive_simulator(
    liberty: Liberty, seed: int, lanes: int
) -> None:
    """Every instance and pin for itself: 0.75 (10 + n) fJ a toggle, (1 + n) fF a pin."""
    modules, stimulus = whole_unit(seed, lanes)
    found, history = energies(modules, stimulus, liberty, [(1, CYCLES)])
    changes = {net: int((np.diff(bits) != 0).sum()) for net, bits in history.items()}
    inside = dict.fromkeys(modules, 0.0)
    nets = dict.fromkeys(modules, 0.0)
    clocks = dict.fromkeys(modules, 0.0)

    def walk(path: str, name: str, outer: dict[Any, Any]) -> None:
        for label, cell in modules[name]["cells"].items():
            pins = {pin: [outer.get(bit, bit if isinstance(bit, str) else (path, bit))
                          for bit in bits] for pin, bits in cell["connections"].items()}
            kind = cell["type"]
            if kind in modules:
                inner = {}
                ports = modules[kind]["ports"]
                for port in sorted(ports, key=lambda port: ports[port]["direction"]):
                    for bit, net in zip(ports[port]["bits"], pins[port], strict=True):
                        if not isinstance(bit, str):
                            inner.setdefault(bit, net)
                walk(f"{path}/{label}", kind, inner)
                continue
            for pin, (net, *_) in pins.items():
                moved = changes.get(net, 0)
                if kind in FUNCTIONS:
                    number = list(FUNCTIONS).index(kind)
                    if pin == "Y" and number < len(FUNCTIONS) - 1:  # a constant has no energy
                        inside[name] += moved * 0.75 * (10 + number)
                    elif pin != "Y":
                        nets[name] += SQUARE / 2 * (1 + number) * moved
                elif kind.endswith(("DFF", "DFFQN")):
                    if pin == "CK":
                        clocks[name] += SQUARE * 3 * (CYCLES - 1)
                    elif pin in ("D", "E"):
                        nets[name] += SQUARE / 2 * 2 * moved

    walk("", "unit", {})
    for name in modules:
        parts = found[name].parts_fj
        assert parts["combinational"] == pytest.approx(inside[name])
        assert parts["nets"] == pytest.approx(nets[name])
        assert parts["clock_pins"] == pytest.approx(clocks[name])
        assert inside[name] > 50


def test_slews_follow_the_tables(tmp_path: Path) -> None:
    """The tiny library says 20 ps everywhere, also behind a boundary and at the ports."""
    path = tmp_path / "tiny.lib"
    path.write_text(tiny_library())
    lane, top = Netlist(), Netlist()
    (i,) = lane.input("i")
    (out,) = lane.nets(1)
    lane.cell("NAND", A=i, B=i, Y=out)
    lane.output("o", [out])
    top.input("clk")
    a = top.input("a", 3)
    made = top.nets(3)
    for bit, net in zip(a, made, strict=True):
        top.cell("lane", i=bit, o=net)
    top.output("o", made)
    circuit = Circuit({"modules": {"unit": top.json(), "lane": lane.json()}}, "unit",
                      Liberty([path]))
    slew = net_slews(circuit, np.full(len(circuit.lanes), 1.0))
    pins = np.concatenate([nets for group in circuit.groups for nets in group.pins.values()])
    assert slew[pins] == pytest.approx(20.0)


# --- Shares of actions ---------------------------------------------------------------------------


def test_actions_are_recovered() -> None:
    rng = np.random.default_rng(1)
    counts = rng.integers(1, 1000, (40, 2)).astype(float)
    assert actions._share_out(counts @ [3.0, 0.5], counts) == pytest.approx([3.0, 0.5])
    # Never below zero, and the total is kept.
    odd = counts @ [3.0, -0.2]
    found = actions._share_out(odd, counts)
    assert found[1] == 0.0
    assert (counts @ found).sum() == pytest.approx(odd.sum())


def block(name: str, **changes: Any) -> actions.Block:
    parts = {"combinational": 100.0, "nets": 50.0, "flip_flop_data": 10.0}
    names = actions.ACTIONS[name] or ("cycle",)
    made = actions.Block(
        name=name, instances=64 if name in ("alpha", "blend") else 1, cells=10, flip_flops=640,
        cycles=100,
        clock_fj={"flip_flop_clock": 20.0, "clock_pins": 4.0},
        actions_fj=dict.fromkeys(names, parts), leakage_nw=7.0,
        counts=dict.fromkeys(names, 5), prediction_error=0.01)
    return replace(made, **changes)


def test_table_is_read_by_the_models(tmp_path: Path) -> None:
    (tmp_path / "tiny.lib").write_text(tiny_library("mine"))
    library = read_library([tmp_path / "tiny.lib"], node_nm=130)
    measurement = actions.Measurement(
        library=library, supply_v=1.0, scene="default",
        cycles_compared=dict.fromkeys(UNITS, 100), output_bits={}, activity={},
        blocks=tuple(block(name) for name in actions.ACTIONS))
    path = tmp_path / "energy_mine.toml"
    text = actions.cost_table(measurement, RasterDesign(), "splatforge energy raster")
    path.write_text(text)
    table = CostTable.load(path)
    assert table.libraries == (*LIBRARIES, "mine")
    entry = table.measured("alpha", "evaluation")
    assert (entry.cost.value, entry.cost.unit, entry.node_nm, entry.supply_v, entry.kind) == (
        0.16, "pJ", 130, 1.0, "measured")
    # Internal halved; and doubled, with glitches and wires on top.
    assert entry.cost.low == pytest.approx((100 / 2 + 50 + 10 / 2) / 1e3)
    assert entry.cost.high == pytest.approx((100 * 2 * 2 + 50 * 2 * 2 + 10 * 2) / 1e3)
    assert "fJ: combinational 100, nets 50, flip flop data 10; 5 times" in entry.note
    clock = table.measured("array", "flip_flop_cycle").cost
    assert (clock.value, clock.low, clock.high) == pytest.approx((0.024, 0.014, 0.048))
    assert table.measured("blend", "instances").cost.value == 64
    assert tomllib.loads(text)["rtl"] == {"raster": rtl_digests(RasterDesign(), UNITS)}
    assert table.energy_of("fetch_leakage", node_nm=28).value == pytest.approx(0.007)
    # At its own node and supply only the supply of the rule remains.
    own = table.energy_of("alpha_evaluation", node_nm=130).value
    law = [7.171, -6.709, 2.904]
    assert own == pytest.approx(0.16 * np.polyval(law, 0.9) / np.polyval(law, 1.0))
    assert table.energy_of("alpha_evaluation", node_nm=28).value < own


def vru_trace(events: np.ndarray) -> PortTrace:
    """`hit` and `miss` of every cycle, of shape [cycles, 2]."""
    return PortTrace(
        unit="vru", inputs=(("rst", 1),), outputs=(("hit", 1), ("miss", 1)),
        input_bytes=np.arange(len(events), dtype=np.int64).astype(np.uint8)[:, None],
        output_bytes=np.packbits(events.astype(np.uint8), axis=1, bitorder="little"))


def test_actions_are_counted_at_the_ports() -> None:
    events = np.zeros((100, 2), np.uint8)
    events[10:20, 0] = events[15:50, 1] = 1
    counts = actions._own_counts(vru_trace(events), [(1, 18), (18, 100)])
    assert {name: each.tolist() for name, each in counts.items()} == {
        "vru_entry": [8 + 3, 2 + 32]}


def test_an_action_may_be_every_cycle() -> None:
    """A stretch begins with what is none."""
    events = np.zeros((20000, 1), np.uint8)
    events[9000:9100:2] = 1
    trace = PortTrace(
        unit="cfu", inputs=(("rst", 1),), outputs=(("given", 1),), output_bytes=events,
        input_bytes=np.zeros((20000, 1), np.uint8))
    trace, windows = actions._stretch(trace, 10, 640)
    assert windows[0][0] == actions.START
    counts = actions._own_counts(trace, windows)
    assert counts["cfu_cycle"].tolist() == [last - first for first, last in windows]
    assert counts["cfu_gaussian"].sum() == 50


@pytest.mark.parametrize(("first", "cycles", "kept", "begin"), [
    (9000, 640, 6000 + 200 + 20000 - 9000, 6000),  # what is between start and action is left out
    (9000, None, 20000, 1), (100, 640, 20000, 1), (9000, 19000, 20000, 1)])
def test_stretch_around_the_first_action(first, cycles, kept, begin) -> None:
    events = np.zeros((20000, 2), np.uint8)
    events[first:, 0] = 1
    trace, windows = actions._stretch(vru_trace(events), 10, cycles)
    assert trace.cycles == kept
    assert windows[0][0] == begin
    assert all(last == after for (_, last), (after, _) in pairwise(windows))
    seen = trace.values("hit")[begin:windows[-1][1]]
    if cycles == 640:
        assert windows[-1][1] == 6000 + 640 - (6640 - begin) % 10
        assert int(np.argmax(seen)) == (200 if first > 6000 else first - 1)
    else:
        assert len(seen) >= 19990


def test_stretch_that_is_too_short() -> None:
    with pytest.raises(ValueError, match="Trace must have more than 64 cycles, not 63"):
        actions._stretch(vru_trace(np.ones((64, 2), np.uint8)), 64, None)


def test_what_the_first_half_says() -> None:
    """Windows without an action do not count; the second half costs a tenth more."""
    counts = np.array([[0], [1], [2], [0], [2], [1]], np.float64)
    energy_fj = np.array([5.0, 10, 20, 7, 22, 11])
    assert actions._prediction_error(energy_fj, counts) == pytest.approx(1 - 1 / 1.1)


def test_what_every_other_window_says() -> None:
    """Where one half holds one action and the other another."""
    counts = np.array([[4, 0], [4, 0], [0, 3], [0, 6]], np.float64)
    energy_fj = np.array([40.0, 44, 27, 54])
    assert actions._prediction_error(energy_fj, counts) == pytest.approx(1 - 94 / 98)


def test_units_that_were_measured_one_after_the_other(tmp_path: Path) -> None:
    """A table of both says of each from how many cycles it is."""
    (tmp_path / "tiny.lib").write_text(tiny_library("mine"))
    library = read_library([tmp_path / "tiny.lib"], node_nm=130)
    first, second = (actions.Measurement(
        library=library, supply_v=1.0, scene="default", cycles_compared={unit: cycles},
        output_bits={unit: 8}, activity={unit: 0.1},
        blocks=(replace(block("resolve"), name=unit, cycles=cycles),))
        for unit, cycles in (("qsu", 900), ("vru", 400)))
    both = first.beside(second)
    assert (both.cycles, both.cycles_compared) == (900, {"qsu": 900, "vru": 400})
    table = tomllib.loads(actions.cost_table(both, GscoreDesign(), "bench"))
    assert set(table["rtl"]["gscore"]) == {"qsu", "vru"}
    for unit, cycles in (("qsu", 900), ("vru", 400)):
        assert f" {cycles} cycles" in table["measured"]["mine"][unit]["pixel"]["source"]


def test_a_table_keeps_what_it_holds_of_other_units(tmp_path: Path) -> None:
    """What is measured anew takes the place of what was there."""
    path = Path(__file__).parents[1] / "bench" / "energy_tables.py"
    spec = importlib.util.spec_from_file_location("energy_tables", path)
    assert spec is not None
    assert spec.loader is not None
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)
    (tmp_path / "tiny.lib").write_text(tiny_library("mine"))
    library = read_library([tmp_path / "tiny.lib"], node_nm=130)

    def table(*cycles: tuple[str, int]) -> str:
        return actions.cost_table(actions.Measurement(
            library=library, supply_v=1.0, scene="default", cycles_compared=dict(cycles),
            output_bits={}, activity={}, blocks=tuple(
                replace(block("resolve"), name=unit, cycles=count) for unit, count in cycles)),
            GscoreDesign(), "bench")

    both = bench.beside(table(("qsu", 900)), table(("qsu", 5), ("vru", 400)))
    assert both == table(("qsu", 900), ("vru", 400))
    assert bench.beside(table(("vru", 400)), table(("qsu", 900))) == both


def test_own_units_and_their_actions() -> None:
    for design in (GscoreDesign(), StreaminggsDesign(), LuminaDesign()):
        assert set(own_units(design)) < set(actions.OWN_ACTIONS)
    with pytest.raises(ValueError, match="one of gscore, lumina, streaminggs, not 'raster'"):
        own_units(RasterDesign())


def test_frames_that_are_too_small() -> None:
    class Small:
        def tile_windows(self):
            return ((1, 2), (2, 3), (3, 4))

    with pytest.raises(ValueError, match="Frame must have at least five tiles, not 4"):
        actions.measure(RasterDesign(array=ArrayDesign(lanes=16)), None, Small())


def test_committed_tables_hold_every_block() -> None:
    table = default_costs()
    assert table.libraries == LIBRARIES
    for library in LIBRARIES:
        for name, verbs in actions.ACTIONS.items():
            for what in (*(verbs or ("cycle",)), "flip_flop_cycle", "leakage"):
                entry = table.entry(f"measured.{library}.{name}.{what}")
                assert entry.kind == "measured"
                assert entry.supply_v
                # Where all of it is in nets, nothing could be lower.
                assert 0 < entry.cost.low <= entry.cost.value < entry.cost.high
            assert table.entry(f"measured.{library}.{name}.flip_flops").cost.value > 100


def test_committed_tables_are_of_this_rtl() -> None:
    """What was measured is what is generated."""
    now = rtl_digests(RasterDesign(), UNITS)
    for library in LIBRARIES:
        name = f"energy_{library}.toml"
        measured = tomllib.loads((files("splatforge.sim") / name).read_text())["rtl"]["raster"]
        stale = [unit for unit in now if measured.get(unit) != now[unit]]
        assert not stale, (
            f"{name} was measured of another {', '.join(stale)}: "
            "python bench/energy_tables.py FOLDER --size 96x80, with the libraries in FOLDER")


def test_committed_tables_of_voyager() -> None:
    """Of this array; what blends in it is the raster core's, and is measured there."""
    now = rtl_digests(VoyagerDesign(), ("array", "blend"))
    assert now["blend"] == rtl_digests(RasterDesign(), ("blend",))["blend"]
    assert (files("splatforge.sim") / f"energy_voyager_{LIBRARIES[-1]}.toml").is_file()
    for each in files("splatforge.sim").iterdir():
        if not each.name.startswith("energy_voyager_"):
            continue
        table = tomllib.loads(each.read_text())
        assert table["rtl"] == {"voyager": {"array": now["array"]}}, (
            f"{each.name} was measured of another array: "
            "python bench/energy_tables.py FOLDER --size 96x80 --gaussians 3000 --design voyager")
        (blocks,) = table["measured"].values()
        assert set(blocks) == {"falloff", "falloffarray"}
        for name, entries in blocks.items():
            assert set(entries) == {
                *actions.FALLOFF_ACTIONS[name], "instances", "flip_flops", "cells",
                "flip_flop_cycle", "leakage"}


@pytest.mark.parametrize("design", [GscoreDesign(), StreaminggsDesign(), LuminaDesign()],
                         ids=lambda d: d.name)
def test_committed_tables_of_own_units(design) -> None:
    """Of this RTL, and with every action."""
    tables = sorted(each.name for each in files("splatforge.sim").iterdir()
                    if each.name.startswith(f"energy_{design.name}_"))
    assert f"energy_{design.name}_{LIBRARIES[-1]}.toml" in tables
    units = {name: tomllib.loads((files("splatforge.sim") / name).read_text()) for name in tables}
    now = rtl_digests(design, {unit for table in units.values()
                               for unit in table["rtl"][design.name]})
    for name, table in units.items():
        measured = table["rtl"][design.name]
        stale = [unit for unit in measured if now[unit] != measured[unit]]
        assert not stale, (
            f"{name} was measured of another {', '.join(stale)}: "
            f"python bench/energy_tables.py FOLDER --size 96x80 --design {design.name}")
        (blocks,) = table["measured"].values()
        assert set(blocks) == set(measured)
        for unit, entries in blocks.items():
            assert set(entries) == {*actions.OWN_ACTIONS[unit], "instances", "flip_flops", "cells",
                                    "flip_flop_cycle", "leakage"}
