"""Cameras and head-motion traces that came from elsewhere, all as trajectories.

COLMAP (``cameras`` and ``images``, text and binary), nerfstudio and instant-ngp
``transforms.json``, INRIA ``cameras.json``, EyeNavGS traces (CSV, plain or gzip).
"""

import csv
import io
import math
import os
import re
import struct
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from splatforge.scenes.camera import Camera
from splatforge.scenes.json_fields import Fields, parse_json
from splatforge.scenes.regular_file import check_regular_file
from splatforge.scenes.scene import SceneError
from splatforge.scenes.trajectory import Trajectory

Float64Array = npt.NDArray[np.float64]

_TEXT_LIMIT = 1 << 28
_CAMERAS_LIMIT = 1 << 20
# COLMAP's camera models: number -> name and parameters.
_MODELS = {
    0: ("SIMPLE_PINHOLE", 3),
    1: ("PINHOLE", 4),
    2: ("SIMPLE_RADIAL", 4),
    3: ("RADIAL", 5),
    4: ("OPENCV", 8),
    5: ("OPENCV_FISHEYE", 8),
    6: ("FULL_OPENCV", 12),
    7: ("FOV", 5),
    8: ("SIMPLE_RADIAL_FISHEYE", 4),
    9: ("RADIAL_FISHEYE", 5),
    10: ("THIN_PRISM_FISHEYE", 12),
}
# What follows the pinhole's parameters: focal length or two, principal point.
_ONE_FOCAL = {"SIMPLE_PINHOLE": (), "SIMPLE_RADIAL": ("k",), "RADIAL": ("k1", "k2")}
_TWO_FOCAL = {
    "PINHOLE": (),
    "OPENCV": ("k1", "k2", "p1", "p2"),
    "FULL_OPENCV": ("k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"),
}
# Distortion coefficients of transforms.json, of nerfstudio and instant-ngp, and what makes its
# lens another than a pinhole.
_COEFFICIENTS = ("k1", "k2", "k3", "k4", "k5", "k6", "p1", "p2", "s1", "s2", "s3", "s4")
_OTHER_LENSES = ("is_fisheye", "latlong", "equirectangular", "orthographic", "ftheta_p0")
_FRAME_S = 1 / 30
_EYENAV_COLUMNS = (
    *(f"FOV{i}" for i in (1, 2, 3, 4)),
    *(f"Position{axis}" for axis in "XYZ"),
    *(f"Quaternion{axis}" for axis in "XYZW"),
)


class DistortionWarning(UserWarning):
    """A camera file has lens distortion, which is left out; the message names both."""


def load_cameras(path: str | os.PathLike[str]) -> Trajectory:
    """Return the cameras of a file or folder, whose kind is found out from its contents.

    Parameters
    ----------
    path : path-like
        A COLMAP model folder or its ``images.txt`` or ``images.bin`` (``cameras`` beside it); a
        nerfstudio or instant-ngp ``transforms.json``; an INRIA ``cameras.json``; an EyeNavGS
        trace, ``.csv`` or ``.csv.gz``, which keeps its own world (see :func:`load_eyenavgs`).

    Returns
    -------
    Trajectory
        In the order of the file, by image name for COLMAP. Times are 1/30 s apart but for traces,
        which have their own. Lens distortion is left out, with a `DistortionWarning`: a splatting
        camera is a pinhole.

    Raises
    ------
    SceneError
        The file is missing, of no known kind, truncated or damaged, or its lens is no pinhole but
        a fisheye or a panorama; the message names the path, the field and what to do.
    """
    file = Path(path)
    try:
        if file.is_dir():
            return _load_colmap(_colmap_folder(file))
        check_regular_file(file, "camera")
        if file.name in ("images.txt", "images.bin", "cameras.txt", "cameras.bin"):
            return _load_colmap(file.parent)
        if file.suffix == ".json":
            value = parse_json(file, _read(file), "camera file")
            if isinstance(value, list):
                return _load_inria(file, value)
            return _load_transforms(Fields(file, value))
        if file.name.endswith((".csv", ".csv.gz")):
            return load_eyenavgs(file)
    except OSError as error:
        raise SceneError(
            f"{file}: camera file cannot be read ({error.strerror}): check its permissions"
        ) from error
    raise SceneError(
        f"{file}: camera file must be a COLMAP folder, transforms.json, cameras.json or an "
        "EyeNavGS .csv: convert it to one of these"
    )


def load_eyenavgs(
    path: str | os.PathLike[str],
    *,
    scene: str | None = None,
    settings: str | os.PathLike[str] | None = None,
    view: int = 0,
    width: int = 1280,
    height: int | None = None,
) -> Trajectory:
    """Return the head motion of an EyeNavGS trace as seen by one eye.

    The trace is in the axes of OpenXR: +x right, +y up, +z backwards, metres. With ``scene`` it
    is put into the scene as the recorder did: the pose is turned, scaled and moved by the row of
    the settings table.

    Parameters
    ----------
    path : path-like
        Trace, ``.csv`` or ``.csv.gz``: columns ViewIndex, FOV1..4 (angles of the left, right,
        bottom and top edge, or top and bottom, in radians), Position, Quaternion (x, y, z, w) and
        Timestamp (ms).
    scene : str, optional
        Name in the settings table; without it the trace stays in its own world.
    settings : path-like, optional
        ``scene_setting.csv``; beside the trace by default.
    view : int
        0 for the left eye, 1 for the right.
    width, height : int
        Image size in pixels; the height follows from the field of view unless it is given.

    Raises
    ------
    SceneError
        A file cannot be read, a column or row is missing or not numeric, or ``scene`` is not in
        the table.
    """
    file = Path(path)
    try:
        rows = _rows(file)
        turn, scale, offset = np.eye(3), 1.0, np.zeros(3)
        if scene is not None:
            table = Path(settings) if settings is not None else _settings_beside(file)
            turn, scale, offset = _setting(table, scene)
    except OSError as error:
        raise SceneError(
            f"{file}: trace cannot be read ({error.strerror}): check the path"
        ) from error
    values = _numbers(file, rows, ("ViewIndex", *_EYENAV_COLUMNS, "Timestamp"))
    values = values[values[:, 0] == view]
    if not len(values):
        raise SceneError(f"{file}: ViewIndex must be {view} in some row: ask for another view")
    # OpenXR camera axes to OpenCV's: y and z turn around.
    flip = np.diag([1.0, -1.0, -1.0])
    cameras = []
    for row in values:
        left, right = np.tan(row[1:3])
        bottom, top = np.sort(np.tan(row[3:5]))
        if not (right > left and top > bottom):
            raise SceneError(f"{file}: FOV1..4 must span an angle, not {row[1:5]}: damaged")
        fx = width / (right - left)
        rows_px = height or max(1, round(fx * (top - bottom)))
        fy = rows_px / (top - bottom)
        length = np.linalg.norm(row[8:12])
        if not 0.5 < length < 2:
            raise SceneError(
                f"{file}: Quaternion must have a length of 1, not {length:g}: the file is damaged"
            )
        x, y, z, w = row[8:12] / length
        pose = turn @ quat_matrix(np.array([w, x, y, z]))
        eye = turn @ (row[5:8] * scale) + offset
        w2c = np.eye(4)
        w2c[:3, :3] = flip @ pose.T
        w2c[:3, 3] = -w2c[:3, :3] @ eye
        cameras.append(
            Camera(
                width=width,
                height=rows_px,
                fx=fx,
                fy=fy,
                cx=-left * fx,
                cy=top * fy,
                w2c=w2c,
            )
        )
    times = (values[:, -1] - values[0, -1]) / 1000
    return Trajectory(name=file.name.partition(".")[0], cameras=tuple(cameras), times_s=times)


def quat_matrix(quat: Float64Array) -> Float64Array:
    """Return the rotation matrix of a unit quaternion w, x, y, z."""
    w, x, y, z = quat
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def _read(path: Path) -> bytes:
    check_regular_file(path, "camera")
    with path.open("rb") as file:
        data = file.read(_TEXT_LIMIT + 1)
    if len(data) > _TEXT_LIMIT:
        raise SceneError(f"{path}: camera file must be at most {_TEXT_LIMIT} bytes: split it")
    if not data:
        raise SceneError(f"{path}: camera file is empty: fetch it again")
    return data


def _camera(path: Path, where: str, **values: Any) -> Camera:
    try:
        return Camera(**values)
    except (ValueError, OverflowError) as error:
        raise SceneError(f"{path}: {where}: {error}: the file is damaged") from error


def _path(path: Path, name: str, cameras: list[Camera]) -> Trajectory:
    if not cameras:
        raise SceneError(f"{path}: cameras must be at least one, not none: the file is empty")
    times = np.arange(len(cameras), dtype=np.float64) * _FRAME_S
    return Trajectory(name=name, cameras=tuple(cameras), times_s=times)


def _warn_of_distortion(path: Path, lenses: Iterable[Mapping[str, float]]) -> None:
    """Warn once of the coefficients that are not zero, each with its largest value."""
    largest: dict[str, float] = {}
    for lens in lenses:
        for name, value in lens.items():
            if abs(value) > abs(largest.get(name, 0.0)):
                largest[name] = value
    if largest:
        shown = ", ".join(f"{name} {largest[name]:.3g}" for name in sorted(largest))
        warnings.warn(
            f"{path}: lens distortion ({shown}) is left out, since a splatting camera is a "
            "pinhole: undistort the images to compare with them",
            DistortionWarning,
            stacklevel=4,
        )


def _load_inria(path: Path, items: list[Any]) -> Trajectory:
    cameras = []
    for i, item in enumerate(items):
        fields = Fields(path, item, f"[{i}]")
        rotation = fields.numbers("rotation", (3, 3))
        position = fields.numbers("position", (3,))
        w2c = _rigid(path, f"[{i}].rotation", rotation.T, position)
        width, height = fields.integer("width", 1, 65536), fields.integer("height", 1, 65536)
        cameras.append(
            _camera(
                path,
                f"[{i}]",
                width=width,
                height=height,
                fx=fields.number("fx"),
                fy=fields.number("fy"),
                cx=width / 2,
                cy=height / 2,
                w2c=w2c,
            )
        )
    return _path(path, path.stem, cameras)


def _load_transforms(fields: Fields) -> Trajectory:
    path = fields.path
    cameras, lenses = [], []
    for i, frame in enumerate(fields.objects("frames")):
        where = frame.where

        def either(key: str, frame: Fields = frame) -> Fields:
            return frame if key in frame else fields

        for key in ("camera_model", *_OTHER_LENSES):
            _check_lens(either(key), key)
        lenses.append(_coefficients(either))
        c2w = frame.numbers("transform_matrix", (4, 4))
        # OpenGL camera axes to OpenCV's: y and z turn around.
        rotation = c2w[:3, :3] * (1, -1, -1)
        width, height = (_size(either(key), key, fields) for key in ("w", "h"))
        if "fl_x" in either("fl_x"):
            fx = either("fl_x").number("fl_x")
        else:
            fx = width / 2 / math.tan(_angle(either("camera_angle_x"), "camera_angle_x") / 2)
        fy = fx
        if "fl_y" in either("fl_y"):
            fy = either("fl_y").number("fl_y")
        elif "camera_angle_y" in either("camera_angle_y"):
            fy = height / 2 / math.tan(_angle(either("camera_angle_y"), "camera_angle_y") / 2)
        cameras.append(
            _camera(
                path,
                f"frames[{i}]",
                width=width,
                height=height,
                fx=fx,
                fy=fy,
                cx=either("cx").number("cx") if "cx" in either("cx") else width / 2,
                cy=either("cy").number("cy") if "cy" in either("cy") else height / 2,
                w2c=_rigid(path, f"{where}.transform_matrix", rotation.T, c2w[:3, 3]),
            )
        )
    _warn_of_distortion(path, lenses)
    return _path(path, path.stem, cameras)


def _coefficients(either: Callable[[str], Fields]) -> dict[str, float]:
    """Distortion of a frame of transforms.json, one by one or as a list."""
    found = {key: either(key).number(key) for key in _COEFFICIENTS if key in either(key)}
    key = "distortion_params"
    if key in (fields := either(key)):
        values = fields.numbers(key, (len(fields.array(key)),))
        found |= {f"{key}[{i}]": value for i, value in enumerate(values.tolist())}
    return found


def _check_lens(fields: Fields, key: str) -> None:
    """Raise if a field of transforms.json says that the lens is no pinhole."""
    if key not in fields:
        return
    if key == "camera_model":
        model = fields.text(key)
        if model.upper() in {*_ONE_FOCAL, *_TWO_FOCAL, "PERSPECTIVE"}:
            return
    # The first coefficient of an f-theta lens is one at zero, too; the others are true or false.
    elif not (model := fields.values[key]) and key != "ftheta_p0":
        return
    raise SceneError(
        f"{fields.path}: {fields.name(key)} must be that of a pinhole, not {str(model)[:40]!r}: "
        "undistort the images and their cameras"
    )


def _size(fields: Fields, key: str, outer: Fields) -> int:
    if key not in fields and "camera_angle_x" in outer and "w" not in outer:
        return 800  # the synthetic NeRF scenes, whose files leave it out
    return fields.integer(key, 1, 65536)


def _angle(fields: Fields, key: str) -> float:
    angle = fields.number(key)
    if not 0 < angle < math.pi:
        raise SceneError(
            f"{fields.path}: {fields.name(key)} must be between 0 and pi, not {angle:g}: "
            "the file is damaged"
        )
    return angle


def _rigid(path: Path, where: str, rotation: Float64Array, position: Float64Array) -> Float64Array:
    """World-to-camera matrix of a rotation that is nearly one, and a centre of projection."""
    with np.errstate(over="ignore", invalid="ignore"):
        error = np.abs(rotation @ rotation.T - np.eye(3)).max()
    if not error < 0.02 or np.linalg.det(rotation) < 0:
        raise SceneError(f"{path}: {where} must be a rotation: the file is damaged or scaled")
    # Files round; the camera wants a rotation to a thousandth.
    u, _, vt = np.linalg.svd(rotation)
    w2c = np.eye(4)
    w2c[:3, :3] = u @ vt
    w2c[:3, 3] = -w2c[:3, :3] @ position
    return w2c


def _colmap_folder(folder: Path) -> Path:
    for candidate in (folder, folder / "sparse" / "0", folder / "sparse", folder / "0"):
        if any((candidate / f"images{suffix}").is_file() for suffix in (".bin", ".txt")):
            return candidate
    raise SceneError(
        f"{folder}: folder must hold COLMAP's images.bin or images.txt, or sparse/0 with them: "
        "name the camera file"
    )


def _load_colmap(folder: Path) -> Trajectory:
    suffix = ".bin" if (folder / "images.bin").is_file() else ".txt"
    cameras_path, images_path = folder / f"cameras{suffix}", folder / f"images{suffix}"
    for path in (cameras_path, images_path):
        if not path.is_file():
            raise SceneError(f"{path}: COLMAP file is missing: export the whole model")
    if suffix == ".bin":
        lenses = _colmap_cameras_bin(cameras_path, _read(cameras_path))
        images = _colmap_images_bin(images_path, _read(images_path))
    else:
        lenses = _colmap_cameras_text(cameras_path, _read(cameras_path))
        images = _colmap_images_text(images_path, _read(images_path))
    cameras, used = [], []
    for name, quat, translation, camera_id in sorted(images, key=lambda image: image[0]):
        if camera_id not in lenses:
            raise SceneError(
                f"{images_path}: CAMERA_ID must be in {cameras_path.name}, not {camera_id}: "
                "export both files together"
            )
        length = np.linalg.norm(quat)
        if not (np.isfinite(length) and length > 1e-6):
            raise SceneError(f"{images_path}: {name[:60]!r} quaternion must not be zero: damaged")
        w2c = np.eye(4)
        w2c[:3, :3] = quat_matrix(quat / length)
        w2c[:3, 3] = translation
        lens = lenses[camera_id]
        used.append(lens.distortion)
        cameras.append(_camera(images_path, name[:60], w2c=w2c, **lens.pinhole))
    _warn_of_distortion(cameras_path, used)
    return _path(images_path, folder.name, cameras)


class _Lens(NamedTuple):
    """Arguments of a `Camera`, and what is left out of it."""

    pinhole: dict[str, float]
    distortion: dict[str, float]


def _lens(path: Path, model: str, width: int, height: int, parameters: list[float]) -> _Lens:
    if model in _ONE_FOCAL:
        fx, cx, cy, *rest = parameters
        fy = fx
    elif model in _TWO_FOCAL:
        fx, fy, cx, cy, *rest = parameters
    else:
        raise SceneError(
            f"{path}: camera model must be a pinhole, with distortion or without, not "
            f"{model[:30]}: undistort the images with COLMAP's image_undistorter"
        )
    names = (_ONE_FOCAL | _TWO_FOCAL)[model]
    return _Lens(
        pinhole={"width": width, "height": height, "fx": fx, "fy": fy, "cx": cx, "cy": cy},
        distortion=dict(zip(names, rest, strict=True)),
    )


def _colmap_cameras_text(path: Path, data: bytes) -> dict[int, _Lens]:
    lenses = {}
    needed = dict(_MODELS.values())
    for line in _lines(path, data):
        words = line.split()
        try:
            camera_id, model, width, height = int(words[0]), words[1], int(words[2]), int(words[3])
            parameters = [float(word) for word in words[4:]]
        except (ValueError, IndexError) as error:
            raise _bad_line(path, line) from error
        # A model that is not known has any number of parameters; it is refused by its name.
        if len(parameters) != needed.get(model, len(parameters)):
            raise _bad_line(path, line)
        lenses[camera_id] = _lens(path, model, width, height, parameters)
    return lenses


def _colmap_images_text(
    path: Path, data: bytes
) -> list[tuple[str, Float64Array, Float64Array, int]]:
    images = []
    lines = [line for line in _decode(path, data).split("\n") if not line.startswith("#")]
    # Two lines an image, the second with its points, which may be empty.
    for line in lines[::2]:
        if not line.strip():
            continue
        words = line.split(maxsplit=9)
        try:
            values = np.array([float(word) for word in words[1:8]])
            camera_id, name = int(words[8]), words[9]
        except (ValueError, IndexError) as error:
            raise _bad_line(path, line) from error
        images.append((name.strip(), values[:4], values[4:7], camera_id))
    return images


def _colmap_cameras_bin(path: Path, data: bytes) -> dict[int, _Lens]:
    lenses = {}
    try:
        (count,) = struct.unpack_from("<Q", data)
        _check_count(path, count, len(data) // 24)
        at = 8
        for _ in range(count):
            camera_id, model, width, height = struct.unpack_from("<iiQQ", data, at)
            if model not in _MODELS:
                raise SceneError(f"{path}: camera model must be 0 to 10, not {model}: damaged")
            name, parameters = _MODELS[model]
            values = struct.unpack_from(f"<{parameters}d", data, at + 24)
            lenses[camera_id] = _lens(path, name, width, height, list(values))
            at += 24 + 8 * parameters
    except struct.error as error:
        raise SceneError(f"{path}: cameras must not break off: the file is truncated") from error
    return lenses


def _colmap_images_bin(
    path: Path, data: bytes
) -> list[tuple[str, Float64Array, Float64Array, int]]:
    images = []
    try:
        (count,) = struct.unpack_from("<Q", data)
        _check_count(path, count, len(data) // 73)
        at = 8
        for _ in range(count):
            values = np.array(struct.unpack_from("<7d", data, at + 4))
            (camera_id,) = struct.unpack_from("<i", data, at + 60)
            end = data.index(b"\0", at + 64)
            name = data[at + 64 : end].decode("utf-8", "replace")
            (points,) = struct.unpack_from("<Q", data, end + 1)
            at = end + 9 + 24 * points
            if at > len(data):
                raise SceneError(f"{path}: {name[:60]!r} points must fit: the file is truncated")
            images.append((name, values[:4], values[4:7], camera_id))
    except (struct.error, ValueError) as error:
        if isinstance(error, SceneError):
            raise
        raise SceneError(f"{path}: images must not break off: the file is truncated") from error
    return images


def _check_count(path: Path, count: int, most: int) -> None:
    if count > min(most, _CAMERAS_LIMIT):
        raise SceneError(
            f"{path}: count must fit the file, not {count}: the file is truncated or damaged"
        )


def _decode(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        raise SceneError(f"{path}: text must be UTF-8 ({error.reason}): damaged") from error


def _lines(path: Path, data: bytes) -> list[str]:
    lines = _decode(path, data).split("\n")
    return [line for line in lines if line.strip() and not line.startswith("#")]


def _bad_line(path: Path, line: str) -> SceneError:
    return SceneError(f"{path}: line {line[:60]!r} is not understood: the file is damaged")


def _rows(path: Path) -> list[dict[str, str]]:
    data = _read(path)
    if data[:2] == b"\x1f\x8b":
        stream = zlib.decompressobj(31)
        try:
            data = stream.decompress(data, _TEXT_LIMIT)
        except zlib.error as error:
            raise SceneError(f"{path}: gzip stream is damaged ({error}): fetch it again") from error
        if not stream.eof:
            raise SceneError(
                f"{path}: gzip stream must end within {_TEXT_LIMIT} bytes: truncated or hostile"
            )
    try:
        return list(csv.DictReader(io.StringIO(_decode(path, data)), strict=True))
    except csv.Error as error:
        raise SceneError(f"{path}: text must be CSV ({error}): the file is damaged") from error


def _numbers(path: Path, rows: list[dict[str, str]], names: tuple[str, ...]) -> Float64Array:
    if not rows:
        raise SceneError(f"{path}: rows must be at least one, not none: the file is empty")
    missing = [name for name in names if name not in rows[0]]
    if missing:
        raise SceneError(f"{path}: column {missing[0]} is missing: this is no EyeNavGS trace")
    try:
        values = np.array([[float(row[name] or "nan") for name in names] for row in rows])
    except (TypeError, ValueError) as error:
        raise SceneError(f"{path}: rows must be numbers ({error}): the file is damaged") from error
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise SceneError(
            f"{path}: row {int(np.argmax(bad)) + 2} must be finite numbers: the file is damaged"
        )
    if (np.diff(values[:, -1]) < 0).any():
        raise SceneError(f"{path}: {names[-1]} must never decrease: the file is damaged")
    return values


def _settings_beside(path: Path) -> Path:
    for name in ("scene_setting.csv", "eyenavgs_scene_setting.csv"):
        if (path.parent / name).is_file():
            return path.parent / name
    raise SceneError(f"{path}: scene_setting.csv must stand beside the trace: name it")


def _setting(path: Path, scene: str) -> tuple[Float64Array, float, Float64Array]:
    rows = {str(row.get("Scene_Name")): row for row in _rows(path)}
    if scene not in rows:
        raise SceneError(f"{path}: scene must be one of {', '.join(rows)}, not {scene!r}")
    row = rows[scene]
    try:
        quat, offset = (
            np.array([float(word) for word in re.split(r"[,\s]+", (row[key] or "").strip())])
            for key in ("Quaternion", "Initial_Position")
        )
        scale = float(row["Scale"])
        length = np.linalg.norm(quat)
        if quat.shape != (4,) or not 0.5 < length < 2:
            raise ValueError("no quaternion")
        x, y, z, w = quat / length
        if offset.shape != (3,) or not (np.isfinite(offset).all() and 0 < scale < 1e6):
            raise ValueError("out of range")
    except (KeyError, TypeError, ValueError) as error:
        raise SceneError(f"{path}: row {scene!r} is not understood ({error}): damaged") from error
    return quat_matrix(np.array([w, x, y, z])), scale, offset
