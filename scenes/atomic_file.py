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
        if target.exists() and not target.is_file():
            # Renaming would put a file in the place of a pipe or a device.
            number = errno.EISDIR if target.is_dir() else errno.EINVAL
            raise OSError(number, "is a folder" if target.is_dir() else "not a regular file")
        descriptor, name = tempfile.mkstemp(
            dir=target.parent or Path("."), prefix=f".{target.name[:64]}.", suffix=".part"
        )
        temporary = Path(name)
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
        reason = error.strerror or str(error)
        raise SceneError(
            f"{target}: cannot be written ({reason}): check the folder, its permissions and the "
            "free space"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
