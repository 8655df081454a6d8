"""Signals to the process alone: it ends at once, and nothing is left behind."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from splatforge.designs.raster import PRESETS
from splatforge.verification.lib.frame import Waves, build_frame

pytestmark = [
    pytest.mark.rtl,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc"),
]

#: Seconds in which a command must end. One is usual; the machine may be busy with other tests.
END_S = 120.0
#: Seconds until a command must have come to what it is interrupted in.
BEGIN_S = 120.0
COSIM = ("cosim", "raster", "--preset", "16-lane", "--scene", "default")


def descendants(pid: int) -> dict[int, str]:
    """Command lines of the processes that a process has started, and of those they have."""
    found = {}
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                command = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ")
                found |= {child: command.decode(), **descendants(child)}
    return found


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not asked for its status does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Command:
    """A command in a folder of its own."""

    def __init__(self, folder: Path, *arguments: str, cache: Path) -> None:
        self.folder, self.temporary = folder, folder / "temporary"
        self.temporary.mkdir()
        self.process = subprocess.Popen(
            [sys.executable, "-m", "splatforge", *arguments], cwd=folder, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            env={**os.environ, "SPLATFORGE_CACHE": str(cache), "TMPDIR": str(self.temporary)})
        self.children: dict[int, str] = {}

    def wait_for(self, words: str) -> None:
        """Wait until a process whose command line holds `words` runs."""
        deadline = time.monotonic() + BEGIN_S
        while not any(words in command for command in self.children.values()):
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"no {words} among {self.children}"
            time.sleep(0.02)
            self.children = descendants(self.process.pid)

    def end(self, number: int) -> tuple[int, str]:
        """Send a signal to the process alone; exit status and what it said on stderr."""
        began = time.monotonic()
        self.process.send_signal(number)
        _, err = self.process.communicate(timeout=60)
        assert time.monotonic() - began < END_S
        return self.process.returncode, err

    def check_gone(self, within_s: float = 0.0) -> None:
        """Check that no process is left; one that is killed may take a moment."""
        deadline = time.monotonic() + within_s
        while left := [self.children[pid] for pid in self.children if alive(pid)]:
            assert time.monotonic() < deadline, left
            time.sleep(0.05)


@pytest.fixture
def start(tmp_path):
    """Start commands, none of which outlives the test."""
    started: list[Command] = []

    def start(*arguments: str, cache: Path) -> Command:
        started.append(Command(tmp_path, *arguments, cache=cache))
        return started[-1]

    yield start
    for command in started:
        command.process.kill()
        command.process.communicate()


@pytest.mark.parametrize(("number", "words"), [
    (signal.SIGINT, "hw.generate"), (signal.SIGINT, "cc1plus"), (signal.SIGHUP, "hw.generate"),
    pytest.param(signal.SIGINT, "verilator_bin", marks=pytest.mark.matrix),
    pytest.param(signal.SIGTERM, "cc1plus", marks=pytest.mark.matrix),
])
def test_a_build_that_is_interrupted(start, tmp_path, number, words):
    """While Amaranth, Verilator or the compiler work: no entry, no half entry, no picture."""
    cache = tmp_path / "cache"
    command = start(*COSIM, "--size", "32x32", "-o", "frame.png", cache=cache)
    command.wait_for(words)
    assert command.end(number) == (128 + number, "splatforge: interrupted\n")
    command.check_gone()
    assert not list(cache.glob("building-*"))
    assert not list(cache.glob("raster-*/")), "the build was waited for"
    assert all((entry / "sums.json").exists() for entry in cache.iterdir() if entry.is_dir())
    assert not list(command.temporary.iterdir())
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "temporary"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("processes", ["1", "2"])
def test_a_simulation_that_is_interrupted(start, tmp_path, number, processes):
    binary = build_frame(PRESETS["16-lane"])
    command = start(*COSIM, "--size", "640x480", "--frames", "2", "--processes", processes, "-o",
                    "frame.png", "--json", "frame.json", cache=binary.path.parents[1])
    command.wait_for("simulate /dev/stdin results")
    assert command.end(number) == (128 + number, "splatforge: interrupted\n")
    command.check_gone()
    assert not list(command.temporary.iterdir())
    assert [path.name for path in tmp_path.iterdir()] == ["temporary"]


@pytest.mark.matrix
def test_waves_that_are_interrupted(start, tmp_path):
    """No half file: the old one stays, the new one goes."""
    waves = tmp_path / "a.vcd"
    binary = build_frame(PRESETS["16-lane"], waves=Waves(path=waves))
    waves.write_text("old")
    command = start(*COSIM, "--size", "640x480", "--waves", "a.vcd", "--waves-cycles",
                    "0:100000000", cache=binary.path.parents[1])
    command.wait_for("simulate /dev/stdin results")
    time.sleep(1)
    assert list(tmp_path.glob(".a.vcd.*.part/frame.vcd"))
    assert command.end(signal.SIGINT) == (130, "splatforge: interrupted\n")
    assert {path.name for path in tmp_path.iterdir()} == {"temporary", "a.vcd"}
    assert waves.read_text() == "old"


def test_a_simulation_does_not_outlive_a_process_that_is_killed(start):
    binary = build_frame(PRESETS["16-lane"])
    command = start(
        *COSIM, "--size", "640x480", "--processes", "1", cache=binary.path.parents[1])
    command.wait_for("simulate /dev/stdin results")
    (pid,) = (pid for pid, line in command.children.items() if "simulate /dev/stdin" in line)
    # One that runs would end as soon as it wants to tell how far it is.
    os.kill(pid, signal.SIGSTOP)
    assert command.end(signal.SIGKILL)[0] == -signal.SIGKILL
    try:
        command.check_gone(within_s=END_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_wait_for_another_builder_is_interrupted(start, tmp_path):
    """Two commands that need the same binary: the second waits for the first, and ends alone."""
    cache = tmp_path / "cache"
    first = start(*COSIM, "--size", "32x32", cache=cache)
    first.wait_for("hw.generate")
    (tmp_path / "second").mkdir()
    second = Command(tmp_path / "second", *COSIM, "--size", "32x32", cache=cache)
    try:
        time.sleep(4)
        assert second.process.poll() is None
        assert second.end(signal.SIGINT) == (130, "splatforge: interrupted\n")
        assert first.process.poll() is None
    finally:
        second.process.kill()
    assert first.end(signal.SIGINT)[0] == 130
    first.check_gone()


def test_a_process_that_does_not_hear_a_signal_ends(tmp_path):
    """A main thread in LLVM, or in a lock that is never freed; its children end with it."""
    code = f"""
import ctypes, sys, threading
from pathlib import Path
from splatforge import cli
from splatforge.verification.lib.processes import Children

def deaf(names, antialiased):
    children, folder = Children(), Path({str(tmp_path)!r})
    threading.Thread(target=children.run, args=(["sleep", "600"], folder), daemon=True).start()
    libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(128)
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)

cli._scene = deaf
threading.excepthook = lambda _: None
cli._GRACE_S = 0.5
sys.argv = ["splatforge", "render", "--scene", "x"]
cli.entry()
"""
    with subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE) as process:
        deadline = time.monotonic() + BEGIN_S
        while not (children := descendants(process.pid)):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=END_S)
    assert (process.returncode, err) == (143, b"splatforge: interrupted\n")
    assert not any(map(alive, children))


def test_a_job_behind_a_script_is_interrupted(start, tmp_path):
    """A shell that is no terminal starts background jobs with SIGINT ignored."""
    script = (f"SPLATFORGE_CACHE={tmp_path / 'cache'} {sys.executable} -m splatforge "
              f"{' '.join(COSIM)} --size 32x32 & echo $!; wait $!; echo $?")
    with subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                          text=True) as shell:
        assert shell.stdout is not None
        pid = int(shell.stdout.readline())
        deadline = time.monotonic() + BEGIN_S
        while not any("hw.generate" in line for line in descendants(pid).values()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(pid, signal.SIGINT)
        assert shell.stdout.read() == "130\n"


def test_what_is_left_half_made_says_nothing():
    """An object whose making was interrupted may raise when it is taken away."""
    program = """
import os, signal, sys, time
from splatforge import cli

class Half:
    def __del__(self):
        raise AttributeError("half made")

def app(**_):
    half = Half()
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(60)

cli.app = app
sys.exit(cli.main([]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          timeout=END_S)
    assert (done.returncode, done.stderr) == (143, "splatforge: interrupted\n")
