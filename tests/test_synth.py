"""Synthesis: libraries, netlists, macros, the lane that is made once and multiplied."""

import gzip
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from splatforge.designs.array import ArrayDesign
from splatforge.designs.fetch import FetchDesign
from splatforge.designs.raster import RasterDesign
from splatforge.hw.generate import rtlil
from splatforge.synth import library, netlist, yosys
from splatforge.synth.library import LibraryError, read_library
from splatforge.synth.netlist import Macro, gate_level

sys.path.insert(0, str(Path(__file__).parent))
from cells import tiny_library

SMALL = RasterDesign(
    array=ArrayDesign(lanes=16),
    fetch=FetchDesign(buffer_splats=32, burst_beats=4, outstanding_bursts=2))


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
    with pytest.raises(LibraryError, match="the node of tiny is not known: pass --node-nm"):
        read_library([path])
    path.write_text("library (empty) { }")
    with pytest.raises(LibraryError, match="must have a buffer and a two-input NAND"):
        read_library([path], node_nm=45)
    path.write_text(tiny_library())
    with pytest.raises(LibraryError, match="must have the cell 'XOR'"):
        read_library([path], node_nm=45).cell("XOR")
    path.write_text(tiny_library()[:-30])
    with pytest.raises(LibraryError, match="must close every brace"):
        read_library([path], node_nm=45).cell("DFF")
    monkeypatch.setattr(library, "OSU018", tmp_path / "absent")
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
