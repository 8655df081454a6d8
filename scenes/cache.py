"""Where fetched captures are kept, and what is built from designs."""

import os
from pathlib import Path

import platformdirs

__all__ = ["cache_folder"]


def cache_folder(folder: Path | None = None) -> Path:
    """Return `folder`, else the one that ``SPLATFORGE_CACHE`` names, else the user's cache."""
    if folder is not None:
        return folder
    if environment := os.environ.get("SPLATFORGE_CACHE"):
        return Path(environment)
    return Path(platformdirs.user_cache_dir("splatforge", appauthor=False))
