"""Compilers, simulators and generators as processes that end with the work they are part of.

Each is the head of a process group: what it starts itself (a compiler behind a driver, Yosys behind
Amaranth) ends with it. A terminal's Ctrl-C does not reach them; whoever waits for them ends them.
"""

import contextlib
import os
import signal
import subprocess
import threading
import weakref
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

__all__ = ["Children", "EndedError", "end_all"]


class EndedError(RuntimeError):
    """The work that a process is part of has failed or was interrupted."""


#: All work that somebody may go on with.
_works: "weakref.WeakSet[Children]" = weakref.WeakSet()


class Children:
    """The processes of one piece of work, started from as many threads as it likes.

    A context manager. When its block is left by an exception, an interruption among them, every
    process is killed with all that it has started, and no other begins: threads that wait for one
    raise `EndedError` at once. Blocks may nest; a thread pool must be around one, not inside,
    since it waits for its threads.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False
        _works.add(self)

    def __enter__(self) -> "Children":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is not None:
            self.end()

    def end(self) -> None:
        """Kill what runs, and let nothing begin."""
        with self._lock:
            self._ended = True
            for process in self._running:
                _kill(process)

    def check(self) -> None:
        """Raise if the work has ended.

        Raises
        ------
        EndedError
            If it has.
        """
        if self._ended:
            raise EndedError("The work has ended")

    @contextlib.contextmanager
    def start(
        self, command: Sequence[str | Path], folder: Path,
        environment: Mapping[str, str] | None = None, *, errors_apart: bool = True,
        has_input: bool = False,
    ) -> Iterator[subprocess.Popen[bytes]]:
        """Start a process, wait for it behind the block, and kill it if the block raises.

        Parameters
        ----------
        command : sequence of str or Path
            Program and arguments.
        folder : Path
            Where it runs.
        environment : Mapping, optional
            Changes to the environment.
        errors_apart : bool
            Whether its standard error is a pipe of its own, or that of its standard output.
        has_input : bool
            Whether its standard input is a pipe; else there is none.

        Raises
        ------
        EndedError
            If the work has ended.
        """
        with self._lock:
            self.check()
            process = subprocess.Popen(
                [str(word) for word in command], cwd=folder, process_group=0,
                env={**os.environ, **(environment or {})},
                stdin=subprocess.PIPE if has_input else subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if errors_apart else subprocess.STDOUT)
            self._running.add(process)
        try:
            with process:
                try:
                    yield process
                except BaseException:
                    _kill(process)
                    raise
                finally:
                    if process.stdin is not None:
                        # It may have ended without reading all.
                        with contextlib.suppress(BrokenPipeError):
                            process.stdin.close()
        finally:
            with self._lock:
                self._running.discard(process)

    def run(
        self, command: Sequence[str | Path], folder: Path,
        environment: Mapping[str, str] | None = None, content: bytes | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run a process to its end with `content` as its standard input.

        Returns
        -------
        subprocess.CompletedProcess
            Its exit code and what it said.

        Raises
        ------
        EndedError
            If the work ends before.
        """
        with self.start(command, folder, environment, has_input=content is not None) as process:
            out, said = process.communicate(content)
        self.check()
        return subprocess.CompletedProcess(
            command, process.returncode, out.decode(errors="replace"),
            said.decode(errors="replace"))


def end_all() -> None:
    """End all work of this process: the last thing to do before it ends itself."""
    for work in list(_works):
        work.end()


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and its group; nothing happens to one that has been waited for."""
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
