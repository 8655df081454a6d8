"""Files that a user names: looked at before they are opened, since a pipe would never end."""

import errno
import stat
from pathlib import Path

from splatforge.scenes.scene import SceneError

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG)


def check_regular_file(path: Path, what: str) -> None:
    """Raise unless ``path`` is a file that can be read from its beginning to its end.

    Pipes, sockets and devices are refused: opening one may wait for ever, reading one may never
    end.

    Parameters
    ----------
    path : Path
        What the user named.
    what : str
        What it is to be, for the message: ``scene``, ``camera`` and so on.

    Raises
    ------
    SceneError
        It is not there, a folder, no regular file, or in a folder that may not be searched.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        if error.errno in _ABSENT:
            raise SceneError(f"{path}: {what} file is missing: check the path") from error
        raise SceneError(
            f"{path}: {what} file cannot be read ({error.strerror}): check it and its permissions"
        ) from error
    if stat.S_ISDIR(mode):
        raise SceneError(f"{path}: path is a folder: name the {what} file in it")
    if not stat.S_ISREG(mode):
        raise SceneError(f"{path}: path is not a regular file: copy the {what} to one")
