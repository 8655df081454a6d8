"""What algorithms said, on disk: computed once for all designs that they cannot tell apart.

An entry is known by what it was computed from: scene, cameras, program, and those parameters that
the computation read (:mod:`splatforge.sim.reading`).
"""

import hashlib
import json
import os
import pickle
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any, ClassVar

from splatforge.scenes.atomic_file import atomic_file
from splatforge.scenes.scene import SceneError
from splatforge.sim.reading import Reads, value_at, watch

__all__ = ["Entry", "SweepCache", "digest_of"]

#: Entries that a process keeps in memory.
_KEPT = 2
_DIGEST_BYTES = 32
_DAY_S = 86_400


def digest_of(*parts: object) -> str:
    """SHA-256 of texts and of what has an exact ``repr``."""
    return hashlib.sha256("\0".join(
        part if isinstance(part, str) else repr(part) for part in parts).encode()).hexdigest()


def _text(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}" if isinstance(value, type) else repr(value)


def values_digest(design: Any, paths: Sequence[str]) -> str:
    """Digest of the values of a design at dotted names, in order."""
    return digest_of(*(f"{path}={_text(value_at(design, path))}" for path in paths))


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A computation's result, and what it is known by.

    Parameters
    ----------
    value : object
        The result.
    digest : str
        Of all that it depends on.
    paths : tuple of str
        Dotted names of the parameters that were read.
    made : bool
        Whether it was computed now, or found.
    """

    value: Any
    digest: str
    paths: tuple[str, ...]
    made: bool


class SweepCache:
    """Results by what they were computed from, in a folder and, the last ones, in memory.

    Parameters
    ----------
    folder : Path
        Where they lie; made as needed. Entries are pickled, so it must be one's own.
    limit_bytes : int
        Kept at most, see :meth:`trim`.
    """

    _recent: ClassVar[OrderedDict[str, Any]] = OrderedDict()
    _lock: ClassVar[Lock] = Lock()

    def __init__(self, folder: Path, limit_bytes: int = 4 << 30) -> None:
        self.folder, self.limit_bytes = folder, limit_bytes

    def known_paths(self, key: str) -> list[tuple[str, ...]]:
        """Sets of parameters that computations of this key have read so far."""
        return [tuple(json.loads(path.read_text()))
                for path in sorted((self.folder / key).glob("*.json"))]

    def get(self, key: str, design: Any, compute: Callable[[Any], Any]) -> Entry:
        """What `compute` says of a design.

        Parameters
        ----------
        key : str
            Digest of all that it depends on beside the design.
        design : dataclass
            The design; of it only what is read counts.
        compute : callable
            From a design to what can be pickled.

        Raises
        ------
        SceneError
            The folder cannot be written to.
        """
        for paths in self.known_paths(key):
            digest = values_digest(design, paths)
            value = self._load(key, digest)
            if value is not None:
                return Entry(value=value[0], digest=f"{key}{digest}", paths=paths, made=False)
        watched, reads = watch(design)
        payload = pickle.dumps(compute(watched), protocol=pickle.HIGHEST_PROTOCOL)
        return self._keep(key, design, reads, payload)

    def _keep(self, key: str, design: Any, reads: Reads, payload: bytes) -> Entry:
        paths = tuple(sorted(reads))
        digest = values_digest(design, paths)
        folder = self.folder / key
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise SceneError(f"{folder}: cannot be made ({error.strerror}): check the folder and "
                             "its permissions, or set SPLATFORGE_CACHE") from error
        with atomic_file(folder / f"{digest}.pickle") as file:
            file.write(hashlib.sha256(payload).digest() + payload)
        with atomic_file(folder / f"{digest_of(*paths)}.json") as file:
            file.write(json.dumps(paths).encode())
        # As it would be found: nothing in it is under a watch any more.
        value = pickle.loads(payload)
        self._remember(f"{self.folder}{key}{digest}", value)
        return Entry(value=value, digest=f"{key}{digest}", paths=paths, made=True)

    def _load(self, key: str, digest: str) -> tuple[Any] | None:
        """A result in a tuple of one; None if there is none, or it is damaged."""
        name = f"{self.folder}{key}{digest}"
        with self._lock:
            if name in self._recent:
                self._recent.move_to_end(name)
                return (self._recent[name],)
        path = self.folder / key / f"{digest}.pickle"
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            return None
        payload = memoryview(content)[_DIGEST_BYTES:]
        if hashlib.sha256(payload).digest() != content[:_DIGEST_BYTES]:
            return None
        os.utime(path)
        value = pickle.loads(payload)
        self._remember(name, value)
        return (value,)

    def _remember(self, name: str, value: Any) -> None:
        with self._lock:
            self._recent[name] = value
            while len(self._recent) > _KEPT:
                self._recent.popitem(last=False)

    def trim(self) -> None:
        """Remove what was left half written, then what was not used for longest, to the limit."""
        # What a kill left of an entry that was being written; no writer takes a day.
        for path in self.folder.glob("*/.*.part"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < time.time() - _DAY_S:
                    path.unlink()
        found = []
        for path in self.folder.glob("*/*.pickle"):
            try:
                found.append((path.stat().st_mtime, path.stat().st_size, path))
            except FileNotFoundError:
                continue
        total = sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit_bytes:
                return
            path.unlink(missing_ok=True)
            total -= size
