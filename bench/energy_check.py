"""Measured energies beside what others say: the operators' estimate, SRAM macros beside CACTI.

    python bench/energy_check.py [../shared/liberty]

Lane: data and clock of one lane in one cycle in which an evaluation is issued to it, each library
brought to 45 nm and 0.9 V by the rule of sim/costs.py, beside the operators of the same formats at
45 nm (Horowitz). SRAM: internal energy of IHP's single-port macros (130 nm, 1.2 V) from their
Liberty beside CACTI's table at its node nearest to 130 nm, brought to 130 nm and 1.2 V by the rule.
"""

import json
import sys
from pathlib import Path

import numpy as np

from splatforge.designs.raster import RasterDesign
from splatforge.sim.area import array_inventory, lane_operators
from splatforge.sim.costs import CostTable, default_costs
from splatforge.synth.liberty import Liberty

SHARE = 0.102  # significant evaluations of the default scene's frame at 160x120
WORDS, BITS, NODE_NM, SUPPLY_V = (256, 512, 1024, 2048), 64, 130, 1.2


def lane_pj(table: CostTable, library: str, node_nm: float, share: float) -> dict[str, float]:
    """Energy of a lane in a cycle with an evaluation, in pJ."""
    def cost(block: str, what: str) -> float:
        entry = table.entry(f"measured.{library}.{block}.{what}")
        assert entry.node_nm is not None
        scale = table.scale("energy", entry.node_nm, node_nm, supply_v=entry.supply_v)
        return (entry.cost * scale).to("pJ").value

    data = sum(cost(block, "evaluation") + share * cost(block, "significant")
               for block in ("alpha", "blend"))
    count = {block: table.entry(f"measured.{library}.{block}.flip_flops").cost.value
             / table.entry(f"measured.{library}.{block}.instances").cost.value
             for block in ("alpha", "blend")}
    clock = sum(number * cost(block, "flip_flop_cycle") for block, number in count.items())
    return {"data_pj": data, "clock_pj": clock}


def operators_pj(table: CostTable, node_nm: float, share: float) -> dict[str, float]:
    """The same from the operators and registers that the formats imply."""
    design = RasterDesign()
    parts = {part: sum(copies * table.energy_of(name, node_nm=node_nm).value
                       for name, copies in operators.items())
             for part, operators in lane_operators(design.array).items()}
    bits = array_inventory(design.array)["register_bit"] / design.array.lanes
    return {"data_pj": parts["evaluate"] + share * parts["blend"],
            "clock_pj": bits * table.energy_of("register_bit_clock", node_nm=node_nm).value}


def macros(table: CostTable, folder: Path) -> list[dict[str, float]]:
    """IHP's macros beside CACTI."""
    nearest = max(table.sram.nodes_nm)
    # To 130 nm at the macro's supply: the rule's way back.
    scale = 1 / table.scale("energy", NODE_NM, nearest, supply_v=SUPPLY_V).value
    rows = []
    for words in WORDS:
        library = Liberty([folder / f"RM_IHPSG13_1P_{words}x{BITS}_c2_bm_bist_typ.lib.gz"])
        cell = library.cell(library.names[0])
        row: dict[str, float] = {"words": words, "leakage_nw": cell.leakage_nw}
        for what, when in (("read", {"A_MEN", "!A_WEN", "A_REN"}),
                           ("write", {"A_MEN", "A_WEN", "!A_REN"})):
            (arc,) = [arc for arc in cell.pins["A_CLK"].power
                      if set(arc.when.replace(" ", "").split("&")) == when]
            at = np.zeros(1)
            ours = sum(float(each.at(at, at)[0]) for each in arc.tables) / 1e3
            theirs = table.sram.cost(what, size_bytes=words * BITS // 8, width_bits=BITS,
                                     node_nm=nearest).to("pJ").value * scale
            row |= {f"{what}_macro_pj": ours, f"{what}_cacti_pj": theirs,
                    f"{what}_ratio": ours / theirs}
        rows.append(row)
    return rows


def main() -> None:
    table = default_costs()
    record: dict[str, object] = {
        "lane_at_45nm_0.9v": {library: lane_pj(table, library, 45, SHARE)
                              for library in table.libraries},
        "operators_at_45nm": operators_pj(table, 45, SHARE),
    }
    if len(sys.argv) > 1:
        record["sram_130nm_1.2v"] = macros(table, Path(sys.argv[1]))
    print(json.dumps(record, indent=2))


if __name__ == "__main__":
    main()
