"""Kernels that call compiled functions of other files, and yet are cached on disk.

numba looks at the file of a cached kernel only: when a function that it calls changes elsewhere,
the old machine code stays. What a kernel closes over is part of numba's key, so a kernel that
closes over a digest of the files it calls into is compiled anew when one of them changes.
"""

import hashlib
from pathlib import Path
from types import ModuleType

__all__ = ["source_digest"]


def source_digest(*modules: ModuleType) -> str:
    """Digest of the source files of `modules`.

    Raises
    ------
    ValueError
        If a module has no file.
    """
    digest = hashlib.sha256()
    for module in modules:
        if module.__file__ is None:
            raise ValueError(f"Module must have a source file, not {module.__name__}")
        digest.update(Path(module.__file__).read_bytes())
    return digest.hexdigest()
