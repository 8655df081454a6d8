"""Files that are written whole or not at all."""

import errno
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from splatforge.scenes.scene import SceneError


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Open a temporary file beside ``path`` and rename it to ``path`` when the block ends well.

    When the block raises, is interrupted or the disk fills, ``path`` stays as it was and the
    temporary file is removed.

    Raises
    ------
    SceneError
        The file cannot be written; the message names ``path`` and the reason.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        _check_replaceable(target)
        descriptor, temporary = _temporary(target, target.parent)
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp makes the file private; an ordinary new file follows the umask.
        mask = os.umask(0)
        os.umask(mask)
        temporary.chmod(0o666 & ~mask)
        temporary.replace(target)
        temporary = None
    except OSError as error:
        raise _not_writable(target, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise unless a file can be written to ``path``, before the work that it is to hold.

    Folders that are not there do not matter: whether they can be made does.

    Raises
    ------
    SceneError
        The file cannot be written; the message names ``path`` and the reason.
    """
    target = Path(path)
    try:
        _check_replaceable(target)
        folder = target.absolute().parent
        while not folder.exists():
            folder = folder.parent
        descriptor, temporary = _temporary(target, folder)
        os.close(descriptor)
        temporary.unlink()
    except OSError as error:
        raise _not_writable(target, error) from error


def _check_replaceable(target: Path) -> None:
    """Raise if renaming would put a file in the place of a folder, a pipe or a device."""
    if target.is_dir():
        raise OSError(errno.EISDIR, "is a folder")
    if target.exists() and not target.is_file():
        raise OSError(errno.EINVAL, "not a regular file")


def _temporary(target: Path, folder: Path) -> tuple[int, Path]:
    """Open a new file in ``folder`` whose name says what it becomes."""
    descriptor, name = tempfile.mkstemp(dir=folder, prefix=f".{target.name[:64]}.", suffix=".part")
    return descriptor, Path(name)


def _not_writable(target: Path, error: OSError) -> SceneError:
    reason = error.strerror or str(error)
    return SceneError(
        f"{target}: cannot be written ({reason}): check the folder, its permissions and the "
        "free space"
    )
