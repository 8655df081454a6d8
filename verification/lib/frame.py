"""Whole frames under Verilator: ``verification/frame.cpp`` started from Python.

The harness is a process of its own. It gets a job file and the bytes of the memory, and leaves one
record for every frame; Python touches no cycle.
"""

import contextlib
import importlib
import importlib.metadata
import json
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import numpy.typing as npt

from splatforge.algos.fetch import MemoryImage
from splatforge.designs.accelerators import ACCELERATORS
from splatforge.designs.memory import BankedMemory, Memory, MemoryTiming
from splatforge.designs.shell import AcceleratorDesign, FrameError
from splatforge.sim.dram import DramCounts, banked_constants
from splatforge.verification.lib.build import (
    Binary,
    BuildError,
    build,
    cached,
    digest,
    register_reset,
)
from splatforge.verification.lib.processes import Children

__all__ = ["DECERR", "HARNESS", "SLVERR", "BusFault", "FrameJob", "FrameRun", "SimulationError",
           "Stall", "Waves", "build_frame", "core_verilog", "rtl_key", "run_frames",
           "stream_frames"]

#: The harness.
HARNESS = Path(__file__).parents[1] / "frame.cpp"
#: What framebuffer and workspace hold before the frame; what is not written must keep it.
CANARY = 0xA5

SLVERR, DECERR = 2, 3

#: Link in the harness's folder to where waves are written until they are whole: the job file
#: splits its lines at blanks, which the user's folders may have in their names.
_WAVES = "waves"

#: Amaranth, which takes seconds for many lanes, in a process of its own: one that can be ended.
_GENERATE = """
import pathlib, pickle, sys
from splatforge.hw.generate import verilog
design = pickle.load(sys.stdin.buffer)
pathlib.Path(sys.argv[1]).write_text(verilog(design.name, design))
"""


class SimulationError(RuntimeError):
    """A run broke a rule of the bus, did not end, or the harness itself failed."""


@dataclass(frozen=True, kw_only=True)
class Stall:
    """How often each AXI channel sits out a cycle, on top of the memory's timing.

    Parameters
    ----------
    ar, r, aw, w, b, registers : float
        Probability in [0, 1) of each channel of the manager, and of the register accesses.
    seed : int
        Of the random numbers.

    Raises
    ------
    ValueError
        If a probability is out of its range.
    """

    ar: float = 0.0
    r: float = 0.0
    aw: float = 0.0
    w: float = 0.0
    b: float = 0.0
    registers: float = 0.0
    seed: int = 1

    def __post_init__(self) -> None:
        for probability in self.probabilities:
            if not 0 <= probability < 1:
                raise ValueError(f"Stall must be at least 0 and below 1, not {probability!r}")

    @property
    def probabilities(self) -> tuple[float, ...]:
        """In the order of the harness."""
        return self.ar, self.r, self.aw, self.w, self.b, self.registers

    @classmethod
    def every_channel(cls, probability: float, seed: int) -> "Stall":
        """The same probability everywhere."""
        return cls(ar=probability, r=probability, aw=probability, w=probability, b=probability,
                   registers=probability, seed=seed)


@dataclass(frozen=True, kw_only=True)
class BusFault:
    """One error response of the memory.

    Parameters
    ----------
    write : bool
        Whether a write burst gets it, else a beat of a read burst.
    read_id : int
        ID of the read: 0 descriptor, 1 tile table, 2 splats.
    burst, beat : int
        Which burst of the frame (of that ID), and which beat of a read burst, from 0.
    response : int
        `SLVERR` or `DECERR`.
    """

    write: bool = False
    read_id: int = 0
    burst: int = 0
    beat: int = 0
    response: int = SLVERR


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameJob:
    """One frame to run, and what is to happen to it.

    Parameters
    ----------
    image : MemoryImage
        The packed frame.
    abort_at, reset_at, snapshot_at : int, optional
        Cycles after START at which the driver writes ABORT, RESET or SNAPSHOT.
    faults : tuple of BusFault
        Error responses.
    irq_enable : int
        Interrupts that are enabled; with none, the driver polls STATUS.
    frame_bytes : int, optional
        Memory behind ``frame_address``, when not that of the image.
    keep_workspace : bool
        Whether to return what the workspace holds behind the frame.
    """

    image: MemoryImage
    abort_at: int | None = None
    reset_at: int | None = None
    snapshot_at: int | None = None
    faults: tuple[BusFault, ...] = ()
    irq_enable: int = 3
    frame_bytes: int | None = None
    keep_workspace: bool = False


@dataclass(frozen=True, kw_only=True)
class Waves:
    """Which cycles go into a wave file, FST or VCD as its name ends in ``.fst`` or ``.vcd``."""

    path: Path
    first_cycle: int = 0
    last_cycle: int = 100_000

    def __post_init__(self) -> None:
        if self.path.suffix not in (".fst", ".vcd"):
            raise ValueError(f"{self.path}: waves must end in .fst or .vcd, not in "
                             f"{self.path.suffix!r}")
        if not 0 <= self.first_cycle < self.last_cycle:
            raise ValueError(
                f"Waves must end after they begin, not {self.first_cycle} to {self.last_cycle}")

    @property
    def kind(self) -> str:
        """What the binary must be built with."""
        return self.path.suffix.removeprefix(".")


@dataclass(frozen=True, kw_only=True, eq=False)
class FrameRun:
    """What one frame did.

    Parameters
    ----------
    status, error, irq_status : int
        Registers behind the frame.
    irq, irq_cleared : bool
        The interrupt line at the end, and whether writing ones cleared it.
    cycles : int or None
        From the accepted START write to the last write response, counted on the bus; None if
        nothing was written.
    ended_after : int
        Cycles from START until the driver saw the end.
    counters : Mapping
        The core's own counters by name.
    snapshot : Mapping or None
        The counters behind a SNAPSHOT in mid-frame.
    read_bytes, read_bursts : tuple of int
        By ID, counted on the bus.
    written_bytes, write_bursts, write_beats : int
        Strobed bytes, bursts and beats, counted on the bus.
    ar_waits, aw_waits, w_waits : int
        Cycles in which the channel was valid and not ready.
    dram : DramCounts or None
        What a banked memory did, up to the last posted write.
    commands : ndarray or None
        Its commands of shape [n, 5] as in :class:`splatforge.sim.dram.Replay`, where they were
        asked for.
    injected : bool
        Whether the ABORT, RESET or SNAPSHOT came before the end of the frame.
    hang : str or None
        Why the frame was given up.
    frame : ndarray
        Bytes of the framebuffer; uint8.
    image : MemoryImage
        What was run.
    workspace : ndarray or None
        Bytes of the workspace behind the frame, where they were asked for; uint8.
    """

    image: MemoryImage
    frame: npt.NDArray[np.uint8]
    ended_after: int
    cycles: int | None = None
    status: int = 0
    error: int = 0
    irq_status: int = 0
    irq: bool = False
    irq_cleared: bool = False
    was_reset: bool = False
    injected: bool = False
    hang: str | None = None
    counters: Mapping[str, int] = field(default_factory=dict)
    snapshot: Mapping[str, int] | None = None
    read_bytes: tuple[int, ...] = ()
    read_bursts: tuple[int, ...] = ()
    written_bytes: int = 0
    write_bursts: int = 0
    write_beats: int = 0
    ar_waits: int = 0
    aw_waits: int = 0
    w_waits: int = 0
    dram: DramCounts | None = None
    commands: npt.NDArray[np.int64] | None = None
    workspace: npt.NDArray[np.uint8] | None = None

    @property
    def frame_error(self) -> FrameError:
        """The error register by name."""
        return FrameError(self.error)

    @property
    def pixels(self) -> npt.NDArray:
        """The framebuffer as pixels of shape [height, width, 4]."""
        return self.image.pixels(self.frame)

    @property
    def stray_bytes(self) -> int:
        """Bytes of the framebuffer outside of the pixels that were changed."""
        row_bytes = self.image.width * self.image.pixel_format.size_bytes
        rows = self.frame[: self.image.frame_bytes].reshape(-1, self.image.pitch_bytes)
        rest = self.frame[self.image.frame_bytes:]
        return int((rows[:, row_bytes:] != CANARY).sum()) + int((rest != CANARY).sum())


def build_frame(
    design: AcceleratorDesign, *, waves: Waves | None = None, cache: Path | None = None,
    children: Children | None = None,
) -> Binary:
    """Harness and Verilog of `design` as a binary; see :func:`build`."""
    began = time.perf_counter()
    binary = build(
        register_reset(core_verilog(design, cache=cache, children=children), design.name),
        design.name, [HARNESS], trace=waves.kind if waves else None, cache=cache, children=children)
    return replace(binary, build_s=time.perf_counter() - began)


def rtl_key(design: AcceleratorDesign) -> str:
    """Digest of what RTL of `design` is made of: parameters, all sources behind it, Amaranth."""
    sources = []
    for package in ("designs", "algos", "hw", "hw.lib"):
        folder = Path(importlib.import_module(f"splatforge.{package}").__path__[0])
        sources += [path.read_text() for path in sorted(folder.glob("*.py"))]
    return digest(repr(design), importlib.metadata.version("amaranth"), *sources)


def core_verilog(
    design: AcceleratorDesign, *, cache: Path | None = None, children: Children | None = None
) -> str:
    """Verilog of an accelerator, from the cache while its sources are the same.

    Writing 64 lanes takes Amaranth several seconds, as long as half of the C++.
    """
    key, name = rtl_key(design), f"{design.name}.v"

    started = children or Children()

    def make(folder: Path) -> None:
        done = started.run(
            [sys.executable, "-c", _GENERATE, name], folder, content=pickle.dumps(design))
        if done.returncode:
            last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise BuildError(f"Generating {name} failed: {last}")

    entry, _ = cached(f"verilog-{key}", make, [name], cache, started)
    return (entry / name).read_text()


def _memory_command(timing: Memory) -> str:
    """Line of the job file for the memory."""
    if isinstance(timing, BankedMemory):
        return "dram " + " ".join(map(str, banked_constants(timing).tolist()))
    read, write = timing.read_beats_per_cycle, timing.write_beats_per_cycle
    return (f"timing {timing.latency_cycles} {read.numerator} {read.denominator} "
            f"{write.numerator} {write.denominator} {timing.outstanding}")


def _setup_commands(
    timing: Memory, stall: Stall, interleave: bool, idle_limit_cycles: int, waves: Waves | None
) -> Iterator[str]:
    """Lines of the job that hold for all frames."""
    yield _memory_command(timing)
    yield f"stall {' '.join(str(p) for p in stall.probabilities)} {stall.seed}"
    yield f"interleave {int(interleave)}"
    latency = 0 if isinstance(timing, BankedMemory) else timing.latency_cycles
    yield f"idle_limit {idle_limit_cycles + 4 * latency}"
    if waves:
        yield f"trace {_WAVES}/frame{waves.path.suffix} {waves.first_cycle} {waves.last_cycle}"


def _frame_commands(
    number: int, job: FrameJob, folder: Path, watchdog_cycles: int | None, log: bool
) -> Iterator[str]:
    """Lines of the job for one frame; writes its memory."""
    image = job.image
    yield "unmap"
    yield f"counters {len(ACCELERATORS[image.core].design.counters)}"
    carried = False
    with (folder / f"memory{number}").open("wb") as memory:
        for address, content in image.segments:
            # What a frame goes on with lies in its workspace.
            given = bool(image.workspace_bytes) and address == image.workspace_address
            carried |= given
            mode = "w" if given else "r"
            yield f"map {address} {content.size} {mode} memory{number} {memory.tell()}"
            memory.write(np.ascontiguousarray(content).data)
    size = image.frame_bytes if job.frame_bytes is None else job.frame_bytes
    yield f"map {image.frame_address} {size} w - {CANARY}"
    if image.workspace_bytes and not carried:
        yield (f"map {image.workspace_address} {image.workspace_bytes} w - {CANARY}")
    for fault in job.faults:
        yield (f"fault {'write' if fault.write else 'read'} {fault.read_id} {fault.burst} "
               f"{fault.beat} {fault.response}")
    run = f"run descriptor {image.descriptor_address} irq_enable {job.irq_enable}"
    for name in ("abort_at", "reset_at", "snapshot_at"):
        if (value := getattr(job, name)) is not None:
            run += f" {name} {value}"
    if log:
        yield f"dram_log commands{number}"
    if watchdog_cycles is not None:
        run += f" watchdog {watchdog_cycles}"
    yield run
    yield f"dump {image.frame_address} {size} frame{number}"
    if job.keep_workspace and image.workspace_bytes:
        yield f"dump {image.workspace_address} {image.workspace_bytes} workspace{number}"
    yield "over"


def _dram_counts(memory: BankedMemory, values: Sequence[int]) -> DramCounts:
    """Counts from the harness's list."""
    org = memory.dram.organization
    clocks, *counts, open_clocks = values
    names = ("activates", "precharges", "reads", "writes", "refreshes", "bank_refreshes",
             "row_hits", "row_misses", "row_conflicts")
    return DramCounts(
        clocks=clocks, **dict(zip(names, counts, strict=True)), open_clocks=open_clocks,
        closed_clocks=org.channels * org.ranks * clocks - open_clocks,
        access_bytes=org.access_bytes)


class _Harness:
    """The harness at work in a folder: frames in, one after the other, what they did out."""

    def __init__(
        self, process: subprocess.Popen[bytes], folder: Path,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._process, self._folder, self._progress = process, folder, progress
        self._results: TextIO | None = None
        self.said: list[str] = []

    def __enter__(self) -> "_Harness":
        return self

    def __exit__(self, *_: object) -> None:
        if self._results is not None:
            self._results.close()

    def send(self, commands: Iterable[str]) -> None:
        """Pass lines of the job on; one that has ended says why by itself."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(("\n".join(commands) + "\n").encode())
            self._process.stdin.flush()

    def listen(self) -> bool:
        """Wait until all commands have been done; false if the harness has ended instead."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line == b"over\n":
                return True
            if line.startswith(b"cycles "):
                if self._progress:
                    self._progress(int(line.split()[1]))
            else:
                self.said.append(line.decode(errors="replace").rstrip())
        return False

    def results(self) -> Iterator[dict[str, Any]]:
        """Results that have not been looked at."""
        if self._results is None:
            self._results = (self._folder / "results").open()
        while line := self._results.readline():
            yield json.loads(line)

    def end(self) -> None:
        """Say that there is no frame any more, and wait."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        while self.listen():
            pass


def _named(core: str, values: Sequence[int]) -> dict[str, int]:
    counters = ACCELERATORS[core].design.counters
    return dict(zip((name for name, _, _ in counters), values, strict=True))


def _frame_run(
    job: FrameJob, number: int, record: Mapping[str, Any], folder: Path, timing: Memory, log: bool
) -> FrameRun:
    """What a frame did, from its record and its files, which go."""
    values = dict(record)
    for key in ("counters", "snapshot"):
        if key in values:
            values[key] = _named(job.image.core, values[key])
    for key in ("read_bytes", "read_bursts"):
        values[key] = tuple(values[key])
    if "dram" in values and isinstance(timing, BankedMemory):
        values["dram"] = _dram_counts(timing, values["dram"])
        if log:
            kept = folder / f"commands{number}"
            commands = np.fromfile(kept, np.int64).reshape(-1, 5)
            kept.unlink()
            # Behind the last posted write only refreshes go on.
            values["commands"] = commands[commands[:, 0] <= values["dram"].clocks]
    dumped = folder / f"frame{number}"
    content = np.fromfile(dumped, np.uint8)
    dumped.unlink()
    (folder / f"memory{number}").unlink()
    workspace = None
    if job.keep_workspace:
        kept = folder / f"workspace{number}"
        workspace = np.fromfile(kept, np.uint8) if kept.exists() else np.zeros(0, np.uint8)
        kept.unlink(missing_ok=True)
    return FrameRun(image=job.image, frame=content, workspace=workspace, **values)


def stream_frames(
    binary: Path,
    frames: Iterable[MemoryImage | FrameJob],
    *,
    timing: Memory = MemoryTiming(),  # noqa: B008
    stall: Stall = Stall(),
    interleave: bool = False,
    log: bool = False,
    watchdog_cycles: int | None = None,
    idle_limit_cycles: int = 100_000,
    waves: Waves | None = None,
    folder: Path | None = None,
    progress: Callable[[int], None] | None = None,
    children: Children | None = None,
) -> Iterator[FrameRun]:
    """Run frames back to back, without a reset in between, each when it is asked for.

    The simulation waits between frames. Of a frame that is over nothing is kept.

    Parameters
    ----------
    binary : Path
        From :func:`build_frame`.
    frames : iterable of MemoryImage or FrameJob
        The frames. Every one has the whole memory for itself.
    timing : MemoryTiming or BankedMemory
        The memory.
    stall : Stall
        Random stalls on top of it.
    interleave : bool
        Whether read data of different IDs come in random order, beat by beat. The timing is then
        no longer that of `timing`, which must be a fixed latency.
    log : bool
        Whether to keep the commands of a banked memory.
    watchdog_cycles : int, optional
        Cycles after START after which a frame is given up.
    idle_limit_cycles : int
        Cycles without a transfer after which a frame is given up, besides four latencies.
    waves : Waves, optional
        Waves to write, all of them or no file; the binary must have been built with the same.
    folder : Path, optional
        Where the harness runs, and the Verilog leaves what it writes; else a folder that goes.
    progress : callable, optional
        Called now and then with the cycles simulated so far.
    children : Children, optional
        The work that the run is part of.

    Yields
    ------
    FrameRun
        What each frame did.

    Raises
    ------
    ValueError
        If data of a banked memory are to come out of order.
    SimulationError
        If a rule of the bus was broken (behind the last frame), a frame did not end, or the
        harness failed.
    """
    if interleave and isinstance(timing, BankedMemory):
        raise ValueError("Read data in random order must come from a memory of fixed latency, "
                         "not from a banked one")
    started = children or Children()
    with contextlib.ExitStack() as stack:
        if folder is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="splatforge-")))
        if waves:
            beside = Path(stack.enter_context(tempfile.TemporaryDirectory(
                dir=waves.path.absolute().parent, prefix=f".{waves.path.name[:64]}.",
                suffix=".part")))
            (folder / _WAVES).symlink_to(beside)
        process = stack.enter_context(started.start(
            [binary, "/dev/stdin", "results"], folder, errors_apart=False, has_input=True))
        harness = stack.enter_context(_Harness(process, folder, progress))
        harness.send(_setup_commands(timing, stall, interleave, idle_limit_cycles, waves))
        number = 0
        for number, frame in enumerate(frames):
            job = frame if isinstance(frame, FrameJob) else FrameJob(image=frame)
            harness.send(_frame_commands(number, job, folder, watchdog_cycles, log))
            if not harness.listen():
                break
            (record,) = harness.results()
            yield _frame_run(job, number, record["run"], folder, timing, log)
        harness.end()
        code = process.wait()
        started.check()
        if code:
            raise SimulationError(
                f"The simulation ended with code {code}: {' '.join(harness.said)[-500:]}")
        if waves:
            # Whole, whatever the frames have come to.
            (folder / _WAVES / f"frame{waves.path.suffix}").replace(waves.path)
            (folder / _WAVES).unlink()
        *hung, last = harness.results()
    hangs = [f"frame {number}: {record['run']['hang']}" for record in hung]
    if hangs or last["violations"]:
        raise SimulationError("; ".join([*hangs, *last["violations"]]))


def run_frames(
    binary: Path, frames: Sequence[MemoryImage | FrameJob], **options: Any
) -> list[FrameRun]:
    """Run frames back to back: :func:`stream_frames` with what it yields as a list."""
    return list(stream_frames(binary, frames, **options))
