"""Scene files of every format: detect, load, merge, save."""

import os
from dataclasses import fields
from pathlib import Path

import numpy as np

from splatforge.scenes.compressed_ply import CompressedPlySource
from splatforge.scenes.gltf import GltfSource
from splatforge.scenes.ply import PlySource, read_ply_header, write_ply
from splatforge.scenes.regular_file import check_regular_file
from splatforge.scenes.scene import (
    SH_COEFFICIENTS,
    Scene,
    SceneError,
    check_scene_arrays,
    valid_gaussians,
)
from splatforge.scenes.slots import Progress, Slots, Source, check_gaussians
from splatforge.scenes.sog import SogSource
from splatforge.scenes.splat import SplatSource, write_splat
from splatforge.scenes.spz import SpzSource, write_spz

_READABLE = (".ply", ".splat", ".spz", ".sog", ".glb", ".gltf")
_WRITABLE = (".ply", ".splat", ".spz")
_MAGIC = {
    ".ply": (b"ply",),
    ".spz": (b"\x1f\x8b", b"NGSP"),
    ".sog": (b"PK",),
    ".glb": (b"glTF",),
}
# What people rename by mistake.
_OTHERS = {
    b"\x89PNG": "a PNG image",
    b"\xff\xd8\xff": "a JPEG image",
    b"RIFF": "a WebP image",
    b"PK\x03\x04": "a zip archive (.sog?)",
    b"\x1f\x8b": "a gzip file (.spz?)",
    b"ply": "a PLY file",
    b"glTF": "a GLB file",
    b"%PDF": "a PDF document",
    b"\x7fELF": "a program",
    b"<!DO": "a web page: the download went wrong",
    b"<htm": "a web page: the download went wrong",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file itself with `git lfs pull`",
}


def open_scene(path: str | os.PathLike[str]) -> Source:
    """Return the reader of a scene file, its header read and checked against the file's size.

    Parameters
    ----------
    path : path-like
        A .ply (INRIA or PlayCanvas compressed), .splat, .spz, .sog, .glb or .gltf file, or the
        ``meta.json`` of an unbundled .sog.

    Raises
    ------
    SceneError
        The file is missing, of another kind, truncated or damaged.
    """
    file = Path(path)
    try:
        check_regular_file(file, "scene")
        suffix = file.suffix.lower()
        if suffix not in _READABLE and file.name != "meta.json":
            raise SceneError(
                f"{file}: extension must be one of {', '.join(_READABLE)}, not {suffix!r}: "
                "rename or convert the file"
            )
        with file.open("rb") as stream:
            head = stream.read(64)
        if not head:
            raise SceneError(f"{file}: size is 0 bytes: the file is empty, fetch it again")
        _check_magic(file, suffix, head)
        match suffix:
            case ".ply":
                header = read_ply_header(file)
                packed = header.element("chunk") is not None
                return CompressedPlySource(file, header) if packed else PlySource(file, header)
            case ".splat":
                return SplatSource(file)
            case ".spz":
                return SpzSource(file)
            case ".glb" | ".gltf":
                return GltfSource(file)
            case _:
                return SogSource(file)
    except (OSError, SceneError) as error:
        raise _as_scene_error(file, error) from error


def load(
    *paths: str | os.PathLike[str],
    progress: Progress | None = None,
    drop_non_finite: bool = False,
    antialiased: bool | None = None,
) -> Scene:
    """Return the scene of one file, or several files merged, in their order.

    Parameters
    ----------
    *paths : path-like
        Files as for :func:`open_scene`, at least one.
    progress : callable, optional
        Called after each file with the Gaussians read so far and in all.
    drop_non_finite : bool
        Leave out Gaussians with a value that is not finite or overflows when it is projected,
        instead of raising.
    antialiased : bool, optional
        Flag of the scene, whatever the files say.

    Raises
    ------
    SceneError
        A file cannot be read (the message names it, the field and what to do), the antialiased
        flags of the files differ and none is given, or the scene does not fit in memory.
    """
    if not paths:
        raise SceneError("paths must be at least one scene file, not none")
    sources = [open_scene(path) for path in paths]
    if antialiased is None:
        if len({source.antialiased for source in sources}) > 1:
            plain = next(source.path for source in sources if not source.antialiased)
            raise SceneError(
                f"{plain}: antialiased must be the same in all files to merge, not mixed: "
                "render them apart, or say --antialiased or --no-antialiased for all"
            )
        antialiased = sources[0].antialiased
    total = sum(source.gaussians for source in sources)
    check_gaussians(sources[0].path, "number of Gaussians", total)
    degree = max(source.sh_degree for source in sources)
    try:
        slots = Slots.allocate(total, degree)
    except MemoryError as error:
        raise _no_memory(sources[0].path, total, degree) from error
    start = 0
    for source in sources:
        part = slots.part(start, start + source.gaussians)
        try:
            # A hostile file may make any arithmetic overflow; the values are checked afterwards.
            with np.errstate(all="ignore"):
                source.read(part)
            if not drop_non_finite:
                check_scene_arrays(**_arrays(part))
        except MemoryError as error:
            raise _no_memory(source.path, total, degree) from error
        except (OSError, SceneError) as error:
            raise _as_scene_error(source.path, error) from error
        start += source.gaussians
        if progress is not None:
            progress(start, total)
    arrays = _arrays(slots)
    if drop_non_finite:
        good = valid_gaussians(**arrays)
        if not good.any():
            raise SceneError(f"{sources[0].path}: means are nowhere finite: the file is damaged")
        if not good.all():
            arrays = {name: array[good] for name, array in arrays.items()}
    return Scene(**arrays, antialiased=antialiased)


def save(scene: Scene, path: str | os.PathLike[str], *, spz_version: int = 3) -> None:
    """Write ``scene`` to a .ply, .splat or .spz file, whole or not at all.

    Raises
    ------
    SceneError
        The extension is not one of these, the format cannot hold the scene, or the file cannot
        be written; a file that was there before is untouched then.
    """
    file = Path(path)
    if not scene.gaussians:
        raise SceneError(f"{file}: scene must have at least one Gaussian, not none")
    match file.suffix.lower():
        case ".ply" if not file.name.lower().endswith(".compressed.ply"):
            write_ply(scene, file)
        case ".splat":
            write_splat(scene, file)
        case ".spz":
            write_spz(scene, file, version=spz_version)
        case suffix:
            raise SceneError(
                f"{file}: extension must be one of {', '.join(_WRITABLE)}, not {suffix!r}: "
                "these formats can be written"
            )


def _arrays(slots: Slots) -> dict[str, np.ndarray]:
    return {field.name: getattr(slots, field.name) for field in fields(slots)}


def _check_magic(path: Path, suffix: str, head: bytes) -> None:
    wanted = _MAGIC.get(suffix, ())
    if wanted and head.startswith(wanted):
        return
    for magic, kind in _OTHERS.items():
        # A position in a .splat file may begin with any bytes, so only long ones count there.
        if head.startswith(magic) and (suffix != ".splat" or len(magic) >= 4):
            raise SceneError(f"{path}: content is {kind}, not what {suffix!r} says: rename it")
    if wanted:
        raise SceneError(
            f"{path}: magic must be {wanted[0]!r} for {suffix!r}, not {head[:4]!r}: "
            "the file is damaged or of another kind"
        )


def _as_scene_error(path: Path, error: OSError | SceneError) -> SceneError:
    if isinstance(error, SceneError):
        text = str(error)
        if text.startswith(str(path)):
            return error
        return SceneError(
            f"{path}: {text}: the file is damaged; drop_non_finite=True leaves such Gaussians out"
        )
    reason = error.strerror or str(error)
    return SceneError(f"{path}: file cannot be read ({reason[:200]}): check it and its permissions")


def _no_memory(path: Path, gaussians: int, degree: int) -> SceneError:
    size = gaussians * 4 * (11 + 3 * SH_COEFFICIENTS[degree]) / 2**30
    return SceneError(
        f"{path}: {gaussians} Gaussians of SH degree {degree} need {size:.1f} GiB of memory: "
        "load fewer files or use a larger machine"
    )
