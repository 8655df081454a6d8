"""Scenes by name: generated ones, and public captures fetched by URL and SHA-256."""

import os
import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from splatforge.scenes.cache import cache_folder
from splatforge.scenes.files import load
from splatforge.scenes.generate_city import make_city
from splatforge.scenes.generate_object import make_object
from splatforge.scenes.scene import Scene, SceneError, merge
from splatforge.scenes.slots import Progress
from splatforge.scenes.spz import write_spz

#: The committed scene, made by :func:`make_default`.
DEFAULT = Path(__file__).parent / "data" / "default.spz"

DEFAULT_GAUSSIANS = 32_000
DEFAULT_SEED = 1


def _city_level(level: int) -> Scene:
    return make_city(200_000, 1, levels=level + 1)[level]


#: Name -> what makes the scene.
GENERATED: dict[str, Callable[[], Scene]] = {
    "default": partial(load, DEFAULT),
    "object": partial(make_object, 100_000, DEFAULT_SEED),
    "city": partial(_city_level, 0),
    "city_lod1": partial(_city_level, 1),
    "city_lod2": partial(_city_level, 2),
}


@dataclass(frozen=True, kw_only=True)
class Capture:
    """A public capture: where it is, what it must hash to, and whose it is."""

    url: str
    sha256: str
    licence: str
    what: str


_PLAYCANVAS = (
    "https://raw.githubusercontent.com/playcanvas/web-components/{}/examples/assets/splats/"
    "statues/{}"
)

#: Public captures whose URL and checksum are known.
CAPTURES: dict[str, Capture] = {
    # Pinned to the commits that added the files to the public repository.
    "statue_massa": Capture(
        url=_PLAYCANVAS.format("14aac27a217a03a60e929393e27bc40175ff15bc", "massa.sog"),
        sha256="d60f8a4da99349847aeb59a284320f7fd6960bb7db6d6d7dc803dc09111b5050",
        licence="MIT, PlayCanvas web-components",
        what="marble bust of a bearded man, 58,649 Gaussians of SH degree 0",
    ),
    "statue_trumpet": Capture(
        url=_PLAYCANVAS.format("efa6f66c84890500f3c09acdcf212cb0806e3238", "trumpet.sog"),
        sha256="5b1c7018f8445e9cb8687cdfb4ebcb85d4a9e9ca9a1ceb9f929dd060de8c6a79",
        licence="MIT, PlayCanvas web-components",
        what="bronze figure on a rock, 89,292 Gaussians of SH degree 0",
    ),
}


def get(
    name: str,
    *,
    url: str | None = None,
    sha256: str | None = None,
    folder: str | os.PathLike[str] | None = None,
) -> Path:
    """Return the file of a public capture, fetched unless it is in the cache folder already.

    Parameters
    ----------
    name : str
        Name in :data:`CAPTURES`; or, with ``url`` and ``sha256``, the file name to keep it under,
        with its extension.
    url, sha256 : str, optional
        Where another capture is and what it must hash to, 64 hexadecimal digits.
    folder : path-like, optional
        Cache folder; :func:`splatforge.scenes.cache.cache_folder` by default.

    Raises
    ------
    SceneError
        The name is not known, only one of ``url`` and ``sha256`` is given, the file cannot be
        fetched, or it does not have the checksum.
    """
    if (url is None) != (sha256 is None):
        raise SceneError(f"{name}: url and sha256 must be given together, not one of them alone")
    where = cache_folder(None if folder is None else Path(folder))
    if url is None or sha256 is None:
        if name not in CAPTURES:
            found = _cached(name, where)
            if found is not None:
                return found
            known = ", ".join(sorted(CAPTURES)) or "none"
            raise SceneError(
                f"{name}: name must be a capture of the catalog ({known}) or a file in {where}: "
                "give --url and --sha256 for another"
            )
        url, sha256 = CAPTURES[name].url, CAPTURES[name].sha256
        name += Path(url.partition("?")[0]).suffix
    if name != Path(name).name or name.startswith(".") or not Path(name).suffix:
        raise SceneError(f"{name}: name must be a file name with an extension, not a path")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", sha256):
        raise SceneError(f"{name}: sha256 must be 64 hexadecimal digits, not {sha256[:80]!r}")
    import pooch  # takes a tenth of a second, which only this needs

    try:
        return Path(
            pooch.retrieve(url, known_hash=f"sha256:{sha256.lower()}", fname=name, path=where)
        )
    # pooch passes on whatever its downloaders raise: requests, ftplib, os.
    except (OSError, ValueError, ImportError) as error:
        said = textwrap.shorten(str(error), 300, placeholder=" ...")
        raise SceneError(
            f"{name}: capture cannot be fetched from {url} ({said}): check the "
            f"network, or put the file into {where} by hand"
        ) from error


def resolve(
    *names_or_paths: str | os.PathLike[str],
    progress: Progress | None = None,
    antialiased: bool | None = None,
) -> Scene:
    """Return the scene of names and files, merged: what ``--scene`` takes.

    Parameters
    ----------
    *names_or_paths : str or path-like
        At least one; each the name of a generated scene (:data:`GENERATED`), the name of a
        capture that is fetched (:func:`get`), or a file. A file that exists wins over a name.
    progress, antialiased : optional
        As for :func:`splatforge.scenes.files.load`.

    Raises
    ------
    SceneError
        A name is not known, or a file cannot be read.
    """
    if not names_or_paths:
        raise SceneError("scene must be a name or a file, not nothing")
    items: list[Scene | Path] = []
    for item in names_or_paths:
        path = Path(item)
        name = str(item)
        if path.exists() or path.suffix or len(path.parts) != 1:
            fetched = None if path.exists() else _cached(name, cache_folder())
            items.append(fetched or path)
        elif name in GENERATED:
            items.append(GENERATED[name]())
        elif name in CAPTURES:
            items.append(get(name))
        else:
            known = ", ".join([*GENERATED, *CAPTURES])
            raise SceneError(
                f"{name}: scene must be a file or one of {known}: check the name, or fetch it "
                "with `splatforge scenes get`"
            )
    if all(isinstance(item, Path) for item in items):
        return load(
            *(item for item in items if isinstance(item, Path)), progress=progress,
            antialiased=antialiased)
    scenes = [item if isinstance(item, Scene) else load(item) for item in items]
    if antialiased is not None:
        scenes = [replace(scene, antialiased=antialiased) for scene in scenes]
    return merge(scenes)


def make_default(path: str | os.PathLike[str] = DEFAULT) -> None:
    """Write the default scene: what the repository commits as ``scenes/data/default.spz``."""
    # SH in 5 and 4 bits, as the writer of the format has it, is half the file.
    scene = make_object(DEFAULT_GAUSSIANS, DEFAULT_SEED)
    write_spz(scene, Path(path), version=3, sh_bits=(5, 4))


def _cached(name: str, folder: Path) -> Path | None:
    if name != Path(name).name:
        return None
    if (folder / name).is_file():
        return folder / name
    matching = (file for file in folder.glob("*.*") if file.name.partition(".")[0] == name)
    return min(matching, default=None)
