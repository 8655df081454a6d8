"""The Liberty reader: functions, tables, flip-flops, units, and errors that name file and line."""

import gzip
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from splatforge.synth.liberty import Function, Liberty, evaluate, parse_function

SHARED = Path(__file__).parents[2] / "shared" / "liberty"
OSU018 = Path("/usr/share/qflow/tech/osu018/osu018_stdcells.lib")

#: A library of three cells, with what the open ones do differently: quotes, axes in either order,
#: a template that holds the axes, supply pins that share an energy, a missing semicolon.
TEXT = r"""
/* a comment
   of two lines */
library (small) {
  time_unit : "1ps";
  voltage_unit : "1V";
  leakage_power_unit : "1pW";
  capacitive_load_unit (1, ff);
  nom_voltage : 0.8
  define (colour, cell, string);
  power_lut_template (energy) {
    variable_1 : total_output_net_capacitance;
    variable_2 : input_transition_time;
    index_1 ("1, 3");
    index_2 ("10, 20, 40");
  }
  lu_table_template ("delay") {
    variable_1 : "input_net_transition";
    variable_2 : "total_output_net_capacitance";
  }
  lu_table_template (hidden) { variable_1 : input_transition_time; }
  cell (NAND2) {
    area : 1.5;
    leakage_power () { when : "A & B"; value : 4000; }
    leakage_power () { when : "!A"; value : 2000; related_pg_pin : VDD; }
    leakage_power () { when : "!A"; value : 500; related_pg_pin : VSS; }
    pin (A, B) {
      direction : input;
      capacitance : 0.5;
      internal_power () {
        when : "Y";
        rise_power (hidden) { index_1 ("10, 20"); values ("0.1, 0.3"); }
        fall_power (scalar) { values ("-0.05"); }
      }
    }
    pin (Y) {
      direction : output;
      function : "(A B)'";
      timing () {
        related_pin : "A";
        rise_transition (delay) {
          index_1 ("10, 20"); index_2 ("1, 3");
          values ("5, 9", \
                  "6, 12");
        }
      }
      internal_power () {
        related_pin : "A B";
        rise_power (energy) { values ("1, 2, 4", "3, 4, 6"); }
      }
      internal_power () { related_pin : "A B"; related_pg_pin : VSS;
        rise_power (scalar) { values (0.25); }
      }
    }
  }
  cell (DFF) {
    area : 6;
    cell_leakage_power : 7000;
    ff ("IQ", "IQN") { clocked_on : "CK"; next_state : "(E D) + (!E IQ)"; clear : "!RN"; }
    pin (CK) { direction : "input"; clock : "true"; capacitance : 1; }
    pin (D) { direction : input; capacitance : 1; }
    pin (E) { direction : input; capacitance : 1; }
    pin (RN) { direction : input; capacitance : 1; }
    pin (Q) { direction : output; function : "IQ"; }
    pin (QN) { direction : output; function : "IQN"; }
  }
  cell (LATCH) { latch (IQ, IQN) { enable : G; data_in : D; } pin (G) { direction : input; } }
}
"""


@pytest.fixture
def small(tmp_path: Path) -> Liberty:
    (tmp_path / "small.lib").write_text(TEXT)
    return Liberty([tmp_path / "small.lib"])


def values_of(function: Function, names: str) -> list[int]:
    return [evaluate(function, dict(zip(names, bits, strict=True)), 1)
            for bits in product((0, 1), repeat=len(names))]


def test_units_become_ff_ps_fj_nw(small: Liberty) -> None:
    nand = small.cell("NAND2")
    assert (small.name, small.supply_v, nand.area_um2) == ("small", 0.8, 1.5)
    assert small.names == ("NAND2", "DFF", "LATCH")
    assert nand.pins["A"].capacitance_ff == nand.pins["B"].capacitance_ff == pytest.approx(0.5)
    assert dict(nand.leakage) == pytest.approx({"A & B": 4.0, "!A": 2.5})
    assert nand.leakage_nw == pytest.approx(3.25)
    assert small.cell("DFF").leakage_nw == pytest.approx(7.0)
    (slew,) = nand.pins["Y"].slew
    assert slew.rise is not None
    assert slew.fall is None
    assert slew.rise.at(np.array([10.0]), np.array([3.0])) == pytest.approx([9.0])


def test_picojoules_and_nanoseconds(tmp_path: Path) -> None:
    """Energy is in the capacitance unit times the voltage unit squared: here pF, so pJ."""
    text = TEXT.replace("(1, ff)", '(1, "pF")').replace('"1ps"', '"1ns"')
    (tmp_path / "large.lib.gz").write_bytes(gzip.compress(text.encode()))
    nand = Liberty([tmp_path / "large.lib.gz"]).cell("NAND2")
    assert nand.pins["A"].capacitance_ff == pytest.approx(500.0)
    rise = nand.pins["Y"].power[0].rise
    assert rise is not None
    assert rise.at(np.array([10e3]), np.array([1e3])) == pytest.approx([1250.0])


def test_tables_are_slew_by_load_whatever_the_file_says(small: Liberty) -> None:
    (arc,) = small.cell("NAND2").pins["Y"].power
    assert arc.related == ("A", "B")
    assert arc.rise is not None
    assert arc.fall is None
    # Load first in the file; the constant of the second supply pin is added.
    assert arc.rise.values == pytest.approx(np.array([[1.25, 3.25], [2.25, 4.25], [4.25, 6.25]]))
    slew, load = np.array([10.0, 30.0, 1.0, 99.0]), np.array([2.0, 3.0, 1.0, 99.0])
    # Bilinear inside; the value at the end outside.
    assert arc.rise.at(slew, load) == pytest.approx([2.25, 5.25, 1.25, 6.25])


def test_hidden_power_of_an_input(small: Liberty) -> None:
    (arc,) = small.cell("NAND2").pins["B"].power
    assert (arc.related, arc.when) == ((), "Y")
    rise, fall = arc.tables
    assert rise.at(np.array([15.0]), np.array([7.0])) == pytest.approx([0.2])
    assert fall.at(np.array([15.0]), np.array([7.0])) == pytest.approx([-0.05])


def test_flip_flops(small: Liberty) -> None:
    cell = small.cell("DFF")
    ff = cell.flip_flop
    assert cell.storage == "ff"
    assert ff is not None
    assert (ff.state, ff.inverse, ff.clocked_on, ff.clear, ff.preset) == (
        "IQ", "IQN", "CK", "!RN", "")
    # In order of IQ, D, E.
    next_state = [evaluate(parse_function(ff.next_state), {"IQ": q, "D": d, "E": e}, 1)
                  for q, d, e in product((0, 1), repeat=3)]
    assert next_state == [0, 0, 0, 1, 1, 0, 1, 1]
    assert cell.pins["CK"].clock
    assert not cell.pins["D"].clock
    assert cell.inputs == ("CK", "D", "E", "RN")
    assert cell.outputs == ("Q", "QN")
    latch = small.cell("LATCH")
    assert latch.storage == "latch"
    assert latch.flip_flop is None


@pytest.mark.parametrize(("text", "table"), [
    ("A B", [0, 0, 0, 1]), ("(A*B)", [0, 0, 0, 1]), ("!(A&B)", [1, 1, 1, 0]),
    ("(A B)'", [1, 1, 1, 0]), ("!A | !B", [1, 1, 1, 0]), ("A^B", [0, 1, 1, 0]),
    ("A' B + A B'", [0, 1, 1, 0]), ("A + B ^ B", [0, 0, 1, 1]), ("!A ^ B", [1, 0, 0, 1]),
    ("1", [1, 1, 1, 1]), ("A & 0", [0, 0, 0, 0]), ("A''", [0, 0, 1, 1]), ("!!B", [0, 1, 0, 1]),
])
def test_functions(text: str, table: list[int]) -> None:
    assert values_of(parse_function(text), "AB") == table


@st.composite
def functions(draw: st.DrawFn) -> tuple[str, str]:
    """A Liberty function and the same in Python."""
    ours, python = st.just(("A", "A")) | st.just(("B", "B")) | st.just(("C", "C")), {
        "&": " and ", "*": " and ", "|": " or ", "+": " or "}
    def wider(inner: st.SearchStrategy[tuple[str, str]]) -> st.SearchStrategy[tuple[str, str]]:
        return (st.tuples(inner, st.sampled_from(sorted(python)), inner).map(
            lambda t: (f"({t[0][0]} {t[1]} {t[2][0]})", f"({t[0][1]}{python[t[1]]}{t[2][1]})"))
            | inner.map(lambda f: (f"!{f[0]}", f"(not {f[1]})"))
            | inner.map(lambda f: (f"({f[0]})'", f"(not {f[1]})"))
            | st.tuples(inner, inner).map(
                lambda t: (f"({t[0][0]} ^ {t[1][0]})", f"({t[0][1]} != {t[1][1]})")))
    return draw(st.recursive(ours, wider, max_leaves=8))


@settings(max_examples=40)
@given(functions())
def test_functions_against_python(pair: tuple[str, str]) -> None:
    ours, python = pair
    for bits in product((0, 1), repeat=3):
        values = dict(zip("ABC", bits, strict=True))
        wanted = eval(python, {}, {name: bool(bit) for name, bit in values.items()})
        assert evaluate(parse_function(ours), values, 1) == int(wanted)


@pytest.mark.parametrize(("text", "message"), [
    ("A &", "Function must have an operand at each operator, not 'A &'"),
    ("(A", r"Function must close its parentheses, not '\(A'"),
    ("A)", r"Function must open its parentheses, not 'A\)'"),
    ("A ? B", r"Function must be of names and operators, not 'A \? B'"),
    ("", "Function must have an operand at each operator, not ''"),
])
def test_malformed_functions(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_function(text)


def test_function_of_another_pin() -> None:
    with pytest.raises(ValueError, match="Function must be of A, B, not 'C'"):
        evaluate(parse_function("A C"), {"A": 1, "B": 1}, 1)


@pytest.mark.parametrize(("old", "new", "message"), [
    ("library (small)", "liberty (small)",
     "a Liberty file must begin with 'library', not 'liberty'"),
    ("library (small) {", "library small {", r"library must be followed by '\('"),
    ("library (small) {", "library (small) }", r"library must be followed by '\{'"),
    ("cell (DFF) {", "cell [DFF] {", r"cell must be followed by ':' or '\('"),
    ("  cell (DFF) {", "  ) {", r"a statement must begin with a name, not '\)'"),
    ("cell (DFF) {", "cell (DFF; {", "an argument must be a name or a number, not ';'"),
    ("(1, ff)", "(1, furlong)", "library must state capacitive_load_unit"),
    ('"1ps"', '"1 parsec"', "library must state time_unit as a number of s, not '1 parsec'"),
    ("  leakage_power_unit", "  other_unit", "library must state leakage_power_unit"),
    ("nom_voltage : 0.8", "nom_voltage : high",
     "nom_voltage of library small must be a supply in volts, not 'high'"),
])
def test_malformed_files(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    path = tmp_path / "bad.lib"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"bad\.lib: line \d+: {message}"):
        Liberty([path])


@pytest.mark.parametrize(("old", "new", "message"), [
    ('"1, 2, 4", "3, 4, 6"', '"1, 2", "3, 4"', "as many values as its axes have points, not 4"),
    ('values ("1, 2, 4"', 'values ("1, x, 4"', "rise_power must hold numbers, not '1, x, 4"),
    ('values ("1, 2, 4", "3, 4, 6");', "", "rise_power must hold values"),
    ('index_2 ("10, 20, 40")', 'index_2 ("10, 40, 20")', "rise_power must have ascending axes"),
    ("variable_2 : input_transition_time", "variable_2 : normalized_voltage",
     "rise_power must be over slew and capacitance, not 'normalized_voltage'"),
    ("variable_2 : input_transition_time", "variable_2 : total_output_net_capacitance",
     "rise_power must have two different axes"),
    ("direction : output;\n      function", "direction : sideways;\n      function",
     "pin Y must have a direction of input, output, inout or internal, not 'sideways'"),
    ("area : 1.5", "area : wide", "area of cell NAND2 must be an area, not 'wide'"),
    ("value : 4000", "value : much", "value of leakage_power must be a power, not 'much'"),
])
def test_malformed_cells(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in TEXT
    path = tmp_path / "bad.lib"
    path.write_text(TEXT.replace(old, new, 1))
    with pytest.raises(ValueError, match=rf"bad\.lib: line \d+: .*{message}"):
        Liberty([path]).cell("NAND2")


def test_error_names_the_line(tmp_path: Path) -> None:
    """Comments and continued lines before it count."""
    path = tmp_path / "bad.lib"
    path.write_text(TEXT.replace("  cell (DFF) {", "  ) {"))
    line = TEXT[:TEXT.index("  cell (DFF)")].count("\n") + 1
    with pytest.raises(ValueError, match=rf"bad\.lib: line {line}: a statement must begin"):
        Liberty([path])


def test_malformed_flip_flop(tmp_path: Path) -> None:
    path = tmp_path / "bad.lib"
    path.write_text(TEXT.replace('ff ("IQ", "IQN")', 'ff ("IQ")'))
    with pytest.raises(ValueError, match="ff of DFF must name its state and the complement"):
        Liberty([path]).cell("DFF")


def test_supply_pins_with_other_axes(tmp_path: Path) -> None:
    path = tmp_path / "bad.lib"
    path.write_text(TEXT.replace(
        "(scalar) { values (0.25); }", '(energy) { index_1 ("1, 2"); values ("1,2,3,4,5,6"); }'))
    with pytest.raises(ValueError, match="Power tables of two supply pins must have the same"):
        Liberty([path]).cell("NAND2")


def test_truncated_file(tmp_path: Path) -> None:
    path = tmp_path / "cut.lib"
    for length in range(30, len(TEXT) - 3, 97):
        path.write_text(TEXT[:length])
        with pytest.raises(ValueError, match=r"cut\.lib: line \d+: "):
            Liberty([path])


def test_absent_and_unknown(tmp_path: Path, small: Liberty) -> None:
    with pytest.raises(ValueError, match=r"none\.lib: cannot be read as a Liberty file"):
        Liberty([tmp_path / "none.lib"])
    (tmp_path / "bad.lib.gz").write_bytes(gzip.compress(TEXT.encode())[:200])
    with pytest.raises(ValueError, match=r"bad\.lib\.gz: cannot be read as a Liberty file"):
        Liberty([tmp_path / "bad.lib.gz"])
    with pytest.raises(ValueError, match="Liberty files must be at least one, not 0"):
        Liberty([])
    with pytest.raises(ValueError, match="Cell must be one of library small, not 'XOR9'"):
        small.cell("XOR9")


def test_several_files_are_one_library(tmp_path: Path, small: Liberty) -> None:
    (tmp_path / "a.lib").write_text(TEXT)
    (tmp_path / "b.lib").write_text(
        TEXT.replace("(small)", "(other)").replace("0.8", "0.9").replace("NAND2", "NOR2"))
    both = Liberty([tmp_path / "a.lib", tmp_path / "b.lib"])
    assert (both.name, both.supply_v) == ("small", 0.9)
    assert both.names == ("NAND2", "DFF", "LATCH", "NOR2")


# --- The libraries that people have --------------------------------------------------------------

LIBRARIES = {
    "osu018": [OSU018],
    "sky130hd": [SHARED / "sky130hd_tt.lib.gz"],
    "sg13g2": [SHARED / "sg13g2_typ_1p20V_25C.lib.gz"],
    "asap7": [SHARED / f"asap7sc7p5t_{part}.lib.gz" for part in (
        "SIMPLE_RVT_FF_nldm_211120", "INVBUF_RVT_FF_nldm_220122", "SEQ_RVT_FF_nldm_220123")],
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_real_library(name: str) -> None:
    """Every cell reads; functions, conditions and next states are of the cell's own pins."""
    missing = [path for path in LIBRARIES[name] if not path.exists()]
    if missing:
        pytest.skip(f"{missing[0].name} is not here")
    library = Liberty(LIBRARIES[name])
    cells = [library.cell(each) for each in library.names]
    flip_flops = gates = 0
    for cell in cells:
        pins = dict.fromkeys(cell.pins, 0)
        for pin in cell.pins.values():
            assert 0 <= pin.capacitance_ff < 1000
            for arc in pin.power:
                assert all(related in cell.pins for related in arc.related)
                if arc.when:
                    evaluate(parse_function(arc.when), pins, 1)
                for table in arc.tables:
                    assert np.isfinite(table.values).all()
        for when, power_nw in cell.leakage:
            evaluate(parse_function(when), pins, 1)
            assert power_nw >= 0
        states = {}
        if cell.flip_flop is not None:
            flip_flops += 1
            states = {cell.flip_flop.state: 0, cell.flip_flop.inverse: 1}
            evaluate(parse_function(cell.flip_flop.next_state), pins | states, 1)
        for output in cell.outputs:
            if cell.storage in ("", "ff") and cell.pins[output].function:
                gates += 1
                evaluate(parse_function(cell.pins[output].function), pins | states, 1)
    assert flip_flops >= 3
    assert gates >= 28


@pytest.mark.parametrize(("name", "inverter", "flip_flop", "low_fj", "high_fj"), [
    ("osu018", "INVX1", "DFFPOSX1", 1, 100), ("sky130hd", "sky130_fd_sc_hd__inv_1",
     "sky130_fd_sc_hd__dfxtp_1", 0.5, 50), ("sg13g2", "sg13g2_inv_1", "sg13g2_dfrbpq_1", 0.5, 50),
    ("asap7", "INVx1_ASAP7_75t_R", "DFFHQNx1_ASAP7_75t_R", 0.01, 1),
])
def test_real_units(
    name: str, inverter: str, flip_flop: str, low_fj: float, high_fj: float
) -> None:
    """An inverter's internal energy is of the order of C V^2 of its own pin: units are right."""
    if not all(path.exists() for path in LIBRARIES[name]):
        pytest.skip(f"{name} is not here")
    library = Liberty(LIBRARIES[name])
    pin = next(iter(library.cell(inverter).inputs))
    own_fj = library.cell(inverter).pins[pin].capacitance_ff * library.supply_v**2
    output = library.cell(inverter).pins[library.cell(inverter).outputs[0]]
    at = np.array([output.power[0].tables[0].slew_ps[1]]), np.array([2.0])
    energies = [float(table.at(*at)[0]) for table in output.power[0].tables]
    mean_fj = sum(energies) / len(energies)
    assert low_fj < mean_fj < high_fj
    assert 0.02 < mean_fj / own_fj < 5
    assert library.cell(flip_flop).flip_flop is not None


def test_memory_macro() -> None:
    path = SHARED / "RM_IHPSG13_1P_256x64_c2_bm_bist_typ.lib.gz"
    if not path.exists():
        pytest.skip(f"{path.name} is not here")
    library = Liberty([path])
    (name,) = library.names
    cell = library.cell(name)
    assert cell.storage == "memory"
    assert 10_000 < cell.area_um2 < 1_000_000
    clock = cell.pins["A_CLK"]
    conditions = [arc.when for arc in clock.power]
    assert any("A_REN" in when for when in conditions)
    assert any("A_WEN" in when for when in conditions)
