"""A cell library small enough to check by hand: one time constant a cell, one load each."""

_HEAD = """library ({name}) {{
  time_unit : "1ns"; capacitive_load_unit (1,pf); delay_model : table_lookup;
  voltage_unit : "1V"; current_unit : "1uA"; leakage_power_unit : "1nW";
  pulling_resistance_unit : "1kohm";
  nom_process : 1; nom_temperature : 25; nom_voltage : 1.0; default_max_transition : 5;
  lu_table_template (grid) {{
    variable_1 : input_net_transition; variable_2 : total_output_net_capacitance;
    index_1 ("0.01, 0.1, 1"); index_2 ("0.001, 0.01, 0.1");
  }}
  lu_table_template (check) {{
    variable_1 : related_pin_transition; variable_2 : constrained_pin_transition;
    index_1 ("0.01, 0.1, 1"); index_2 ("0.01, 0.1, 1");
  }}
"""


def _table(kind: str, template: str, rows: list[list[float]]) -> str:
    values = ", ".join(f'"{", ".join(map(str, row))}"' for row in rows)
    return f"{kind} ({template}) {{ values ({values}); }}"


def _delays(delay: float) -> str:
    """`delay` ns at no load, 1 ns more for each 0.1 pF; whatever the slope."""
    rows = [[delay + 10 * load for load in (0.001, 0.01, 0.1)]] * 3
    slopes = [[0.02, 0.02, 0.02]] * 3
    return " ".join([_table("cell_rise", "grid", rows), _table("cell_fall", "grid", rows),
                     _table("rise_transition", "grid", slopes),
                     _table("fall_transition", "grid", slopes)])


def _gate(name: str, area: float, function: str, inputs: str, delay: float) -> str:
    pins = "".join(f"pin ({pin}) {{ direction : input; capacitance : 0.001; }}\n"
                   for pin in inputs)
    sense = "positive_unate" if function == "A" else "negative_unate"
    arcs = "".join(f'timing () {{ related_pin : "{pin}"; timing_sense : {sense}; '
                   f'{_delays(delay)} }}\n' for pin in inputs)
    return (f"  cell ({name}) {{ area : {area};\n{pins}pin (Y) {{ direction : output; "
            f'function : "{function}"; max_capacitance : 0.5;\n{arcs}}}\n}}\n')


def tiny_library(name: str = "tiny") -> str:
    """Liberty of a buffer, an inverter, a NAND, a NOR and a flip-flop (0.3 ns, setup 0.1 ns)."""
    setup = [[0.1, 0.1, 0.1]] * 3
    flip_flop = f"""  cell (DFF) {{ area : 6;
    ff (IQ, IQN) {{ next_state : "D"; clocked_on : "CK"; }}
    pin (CK) {{ direction : input; clock : true; capacitance : 0.001; }}
    pin (D) {{ direction : input; capacitance : 0.001;
      timing () {{ related_pin : "CK"; timing_type : setup_rising;
        {_table("rise_constraint", "check", setup)} {_table("fall_constraint", "check", setup)} }}
    }}
    pin (Q) {{ direction : output; function : "IQ"; max_capacitance : 0.5;
      timing () {{ related_pin : "CK"; timing_type : rising_edge; {_delays(0.3)} }}
    }}
  }}
"""
    return (_HEAD.format(name=name) + _gate("INV", 1, "!A", "A", 0.05)
            + _gate("BUF", 2, "A", "A", 0.08) + _gate("NAND", 2, "!(A&B)", "AB", 0.1)
            + _gate("NOR", 2.5, "!(A|B)", "AB", 0.12) + flip_flop + "}\n")
