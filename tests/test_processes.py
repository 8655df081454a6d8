"""Processes that end with the work they are part of."""

import contextlib
import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from splatforge.verification.lib.processes import Children, EndedError

#: Says the process IDs of itself and of a child of its own, and waits with it for ever.
FAMILY = """
import subprocess, sys, os, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(os.getpid(), child.pid, flush=True)
time.sleep(600)
"""


def alive(pid: int) -> bool:
    """Whether a process runs, and is not merely waited for."""
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def gone(*pids: int) -> bool:
    """Whether processes end; a signal may take a moment."""
    deadline = time.monotonic() + 10
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return not any(map(alive, pids))


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_run(tmp_path):
    """Folder, environment, input, both outputs and the exit code."""
    code = ("import os, sys; print(os.getcwd(), os.environ['MINE'], sys.stdin.read());"
            "print('bad \\u00e9', file=sys.stderr); sys.exit(3)")
    done = Children().run(
        python(code), tmp_path, {"MINE": "1", "PYTHONIOENCODING": "utf-8"}, b"in")
    assert (done.returncode, done.stdout, done.stderr) == (3, f"{tmp_path} 1 in\n", "bad \u00e9\n")
    code = "import sys; sys.stdout.buffer.write(b'\\xff' + sys.stdin.buffer.read())"
    done = Children().run(python(code), tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "\ufffd", "")


def test_a_process_leads_a_group_of_its_own(tmp_path):
    """Ctrl-C of a terminal goes to the group in front: children do not get it."""
    done = Children().run(python("import os; print(os.getpgrp() == os.getpid())"), tmp_path)
    assert done.stdout == "True\n"


def test_an_error_in_the_block_ends_the_process_and_its_children(tmp_path):
    pids: list[int] = []

    def work() -> None:
        with Children().start(python(FAMILY), tmp_path) as process:
            assert process.stdout is not None
            pids.extend(int(word) for word in process.stdout.readline().split())
            assert all(map(alive, pids))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert gone(*pids)


def test_work_that_fails_ends_what_other_threads_wait_for(tmp_path):
    """The pool is around the block: it waits for its threads, which then have ended."""
    pids: list[int] = []
    began = threading.Event()

    def wait(children: Children) -> None:
        with children.start(python(FAMILY), tmp_path) as process:
            assert process.stdout is not None
            pids.extend(int(word) for word in process.stdout.readline().split())
            began.set()
            process.communicate()
        children.check()

    children = Children()
    futures = []

    def work() -> None:
        with ThreadPoolExecutor(2) as pool, children:
            futures.append(pool.submit(wait, children))
            sleep = python("import time; time.sleep(600)")
            futures.append(pool.submit(children.run, sleep, tmp_path))
            assert began.wait(60)
            raise ZeroDivisionError

    before = time.monotonic()
    with pytest.raises(ZeroDivisionError):
        work()
    assert time.monotonic() - before < 60
    assert gone(*pids)
    for future in futures:
        with pytest.raises(EndedError, match=r"^The work has ended$"):
            future.result()
    with pytest.raises(EndedError):
        children.run(python("pass"), tmp_path)


def test_work_that_ends_well_goes_on(tmp_path):
    """A block may be entered again, by another part of the same work."""
    with Children() as children:
        with children:
            assert children.run(["true"], tmp_path).returncode == 0
        assert children.run(["false"], tmp_path).returncode == 1
    children.check()
    with pytest.raises(FileNotFoundError):
        children.run([tmp_path / "none"], tmp_path)
    assert children.run(["true"], tmp_path).returncode == 0


def test_outputs_together(tmp_path):
    code = "import os; os.write(2, b'one'); os.write(1, b'two')"
    with Children().start(python(code), tmp_path, errors_apart=False) as process:
        assert process.communicate() == (b"onetwo", None)
    assert process.returncode == 0
    assert not alive(process.pid)
    assert os.getpgrp() != process.pid
