"""The camera, the first view of a scene, and the readers of cameras."""

import gzip
import json
import os
import struct
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest

from splatforge.scenes import (
    Camera,
    DistortionWarning,
    SceneError,
    default_camera,
    guess_up,
    load,
    load_cameras,
    load_eyenavgs,
    make_city,
    make_object,
    surround,
    transform,
)

sys.path.insert(0, str(Path(__file__).parent))
from scene_files import small_scene


def camera(**changes) -> Camera:
    values = {"width": 64, "height": 48, "fx": 50, "fy": 50, "cx": 32, "cy": 24, "w2c": np.eye(4)}
    return Camera(**{**values, **changes})


def seen(view: Camera, point) -> np.ndarray:
    """Pixel coordinates and depth of a point."""
    x, y, z = view.w2c[:3, :3] @ np.asarray(point) + view.w2c[:3, 3]
    return np.array([view.fx * x / z + view.cx, view.fy * y / z + view.cy, z])


def test_look_at_has_opencv_axes():
    view = Camera.look_at((0, 0, -3), (0, 0, 0), (0, -1, 0), width=64, height=48)
    assert np.allclose(view.position, (0, 0, -3))
    assert np.allclose(seen(view, (0, 0, 0)), (32, 24, 3))
    assert seen(view, (1, 0, 0))[0] > 32
    assert seen(view, (0, -1, 0))[1] < 24
    # The left edge of the image is at half the field of view.
    assert view.fx == pytest.approx(32 / np.tan(np.radians(30)))
    assert view.near == 0.2


def test_look_at_with_y_up_is_not_mirrored():
    view = Camera.look_at((0, 0, 5), (0, 0, 0), (0, 1, 0), width=64, height=48, fx=10)
    assert seen(view, (1, 0, 0))[0] > 32
    assert seen(view, (0, 1, 0))[1] < 24
    assert view.fx == view.fy == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 0}, "width must be a whole number"),
        ({"height": 1.5}, "height must be a whole number"),
        ({"width": 10**6}, "width must be a whole number"),
        ({"fx": -1}, "fx must be positive"),
        ({"fy": np.nan}, "fy must be positive"),
        ({"near": 0}, "near must be positive"),
        ({"cx": np.inf}, "cx must be finite"),
        ({"w2c": np.eye(3)}, "w2c must be a finite 4 x 4"),
        ({"w2c": np.full((4, 4), np.nan)}, "w2c must be a finite 4 x 4"),
        ({"w2c": np.diag([1, 1, -1, 1])}, "w2c must be rigid"),
        ({"w2c": np.diag([2, 2, 2, 1])}, "w2c must be rigid"),
        ({"w2c": np.diag([1, 1, 1, 2])}, "w2c must be rigid"),
    ],
)
def test_wrong_cameras_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        camera(**changes)


@pytest.mark.parametrize(
    ("eye", "up", "extra", "message"),
    [
        ((0, 0, 0), (0, 1, 0), {}, "eye must differ"),
        ((0, 0, 1), (0, 0, 2), {}, "up must not be along"),
        ((0, 0, 1), (0, 0, 0), {}, "up must not be along"),
        ((0, 0, 1), (0, 1, 0), {"fov_x_deg": 180}, "fov_x_deg must be between"),
    ],
)
def test_wrong_look_at_is_refused(eye, up, extra, message):
    with pytest.raises(ValueError, match=message):
        Camera.look_at(eye, (0, 0, 0), up, width=64, height=48, **extra)


def test_resized_keeps_the_view():
    view = camera(cx=30, cy=25)
    double = view.resized(128, 96)
    assert np.allclose(seen(double, (0.1, 0.2, 1))[:2], 2 * seen(view, (0.1, 0.2, 1))[:2])
    wide = view.resized(128, 48)
    assert wide.fx == view.fx
    assert np.allclose(
        seen(wide, (0.1, 0.2, 1))[:2], seen(view, (0.1, 0.2, 1))[:2] + np.array([32, 0])
    )


def test_camera_matrix_cannot_be_changed():
    with pytest.raises(ValueError, match="read-only"):
        camera().w2c[0, 0] = 2


# The first view.

SCENES = {
    "inari_fox_50k.ply": (0, 0, 1),
    "inari_fox_50k_khr.glb": (0, 0, 1),
    "plant_114k.splat": (0, -1, 0),
    "tarot_115k.splat": (0, -1, 0),
    "fourth_st_131k_sh3.spz": (0, 1, 0),
    "playbot_lod0_500k_sh2.sog": (0, -1, 0),
    "playbot_lod4_8k_sh2.sog": (0, -1, 0),
    "statue_angel_71k.sog": (0, -1, 0),
    "statue_massa_59k.sog": (0, -1, 0),
    "statue_trumpet_89k.sog": (0, -1, 0),
    "semarang_city_0_sh3.sog": (0, -1, 0),
}


def fraction_in_view(scene, view: Camera) -> float:
    points = scene.means @ view.w2c[:3, :3].T + view.w2c[:3, 3]
    z = np.maximum(points[:, 2], 1e-9)
    x, y = view.fx * points[:, 0] / z + view.cx, view.fy * points[:, 1] / z + view.cy
    inside = (points[:, 2] > view.near) & (x > 0) & (x < view.width) & (y > 0) & (y < view.height)
    weight = 1 / (1 + np.exp(-scene.opacity_logits))
    return float((inside * weight).sum() / weight.sum())


@pytest.mark.parametrize("name", SCENES)
def test_up_and_view_of_captures(shared_scene, name):
    scene = load(shared_scene(name))
    assert guess_up(scene) @ SCENES[name] > np.cos(np.radians(20))
    view = default_camera(scene, 320, 240)
    assert fraction_in_view(scene, view) > (0.5 if "city" in name else 0.9)


@pytest.mark.parametrize("size", [(320, 240), (240, 320), (333, 217)])
def test_view_of_generated_scenes(size):
    scene = make_object(5000, 0)
    view = default_camera(scene, *size)
    assert (view.width, view.height) == size
    assert guess_up(scene) @ (0, -1, 0) > 0.99
    assert fraction_in_view(scene, view) > 0.9
    assert (
        fraction_in_view(make_city(8000, 0)[0], default_camera(make_city(8000, 0)[0], *size)) > 0.4
    )


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4])
def test_view_does_not_depend_on_units(scale):
    scene = make_object(5000, 0)
    moved = transform(scene, np.eye(3), (0, 0, 0), scale)
    a, b = default_camera(scene, 320, 240), default_camera(moved, 320, 240)
    assert np.allclose(b.position, a.position * scale, rtol=1e-3)
    assert fraction_in_view(moved, b) > 0.9


def test_view_ignores_floaters_and_a_background():
    scene = make_object(5000, 0)
    before = default_camera(scene, 320, 240).position
    random = np.random.default_rng(0)
    n = 500
    shell = random.normal(size=(n, 3))
    shell *= 300 / np.linalg.norm(shell, axis=1, keepdims=True)
    background = small_scene(n, 3, means=shell, log_scales=np.full((n, 3), 2.0))
    from splatforge.scenes import merge

    after = default_camera(merge([scene, background]), 320, 240)
    assert np.linalg.norm(after.position) < 3 * np.linalg.norm(before)
    assert fraction_in_view(scene, after) > 0.8


def test_view_with_a_given_up():
    view = default_camera(make_object(5000, 0), 320, 240, up=(0, 1, 0))
    assert view.w2c[1, 1] < -0.5  # the image's down is the world's -y
    for up in ((0, 0, 0), (np.nan, 0, 1)):
        with pytest.raises(ValueError, match="up must be a finite direction"):
            default_camera(small_scene(), 320, 240, up=up)


def test_surround():
    """Three turns that rise, all looking at the scene; no two alike, neighbours close."""
    scene = make_object(5000, 0)
    path = surround(scene, 160, 120, frames=30)
    first = default_camera(scene, 160, 120)
    assert len(path) == 30
    eyes = np.array([camera.position for camera in path.cameras])
    assert all(camera.near == first.near and camera.fx == first.fx for camera in path.cameras)
    assert all(fraction_in_view(scene, camera) > 0.9 for camera in path.cameras)
    up = guess_up(scene)
    assert (np.diff(eyes @ up) > 0).all()
    away = np.linalg.norm(eyes[:, None] - eyes[None], axis=2) + 1e9 * np.eye(30)
    distance = np.linalg.norm(first.position - scene.means.mean(axis=0))
    assert 0.1 * distance < away.min(axis=1).min() <= away.min(axis=1).max() < 0.8 * distance
    level = eyes - np.outer(eyes @ up, up)
    turned = np.cross(level[:-1], level[1:]) @ up
    assert (turned > 0).all()
    with pytest.raises(ValueError, match=r"^Trajectory frames must be a whole number of at least"):
        surround(scene, 160, 120, frames=0)
    assert len(surround(scene.select(slice(0)), 16, 16, frames=2)) == 2


@pytest.mark.parametrize("gaussians", [0, 1, 2, 15])
def test_view_of_hardly_anything(gaussians):
    scene = small_scene(20, 0).select(slice(0, gaussians))
    assert default_camera(scene, 64, 48).width == 64


def test_view_of_one_point_and_of_nothing_opaque():
    scene = small_scene(50, 0, means=np.zeros((50, 3)), opacity_logits=np.full(50, -20))
    assert np.isfinite(default_camera(scene, 64, 48).position).all()


# Readers.

POSE = Camera.look_at((1, 2, 3), (0, 0.5, 0), (0, -1, 0.2), width=640, height=480, fx=500)


def same(view: Camera, fx=500.0, fy=500.0) -> None:
    assert np.allclose(view.w2c, POSE.w2c, atol=1e-6)
    assert (view.width, view.height, view.cx, view.cy) == (640, 480, 320, 240)
    assert view.fx == pytest.approx(fx)
    assert view.fy == pytest.approx(fy)


def quat_of(matrix: np.ndarray) -> np.ndarray:
    values, vectors = np.linalg.eigh(
        np.array(
            [
                [np.trace(matrix), 0, 0, 0],
                [matrix[2, 1] - matrix[1, 2], 2 * matrix[0, 0] - np.trace(matrix), 0, 0],
                [matrix[0, 2] - matrix[2, 0], matrix[1, 0] + matrix[0, 1], 0, 0],
                [matrix[1, 0] - matrix[0, 1], matrix[2, 0] + matrix[0, 2], 0, 0],
            ]
        )
        + np.diag([0, 0, 2 * matrix[1, 1] - np.trace(matrix), 2 * matrix[2, 2] - np.trace(matrix)])
        + np.array([[0] * 4, [0] * 4, [0] * 4, [0, 0, matrix[2, 1] + matrix[1, 2], 0]])
    )
    return vectors[:, np.argmax(values)]


def test_inria(tmp_path):
    path = tmp_path / "cameras.json"
    item = {
        "id": 0,
        "img_name": "a",
        "width": 640,
        "height": 480,
        "position": POSE.position.tolist(),
        "rotation": POSE.w2c[:3, :3].T.tolist(),
        "fx": 500,
        "fy": 400,
    }
    path.write_text(json.dumps([item, item]))
    cameras = load_cameras(path).cameras
    assert len(cameras) == 2
    same(cameras[0], fy=400)


def test_inria_real(shared_cameras):
    trajectory = load_cameras(shared_cameras("tnt_train_antimatter15_cameras.json"))
    assert len(trajectory.cameras) == 10
    assert np.allclose(trajectory.cameras[0].position, (-3.00899, -0.11086, -3.75276), atol=1e-4)


def _transforms(**changes):
    c2w = np.linalg.inv(POSE.w2c) @ np.diag([1, -1, -1, 1])
    frames = [{"file_path": "a.png", "transform_matrix": c2w.tolist()}]
    return {"w": 640, "h": 480, "fl_x": 500, "frames": frames, **changes}


@pytest.mark.parametrize(
    "intrinsics",
    [
        {},
        {"fl_y": 500, "cx": 320, "cy": 240},
        {"fl_x": None, "camera_angle_x": 2 * np.arctan(320 / 500)},
        {"fl_y": None, "camera_angle_y": 2 * np.arctan(240 / 500)},
    ],
)
def test_transforms(tmp_path, intrinsics):
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(_transforms(**intrinsics)))
    same(load_cameras(path).cameras[0])


def test_transforms_of_frames_and_without_a_size(tmp_path):
    path = tmp_path / "transforms.json"
    value = _transforms(w=None, h=None, fl_x=None)
    value["frames"][0] |= {"w": 640, "h": 480, "fl_x": 500}
    path.write_text(json.dumps(value))
    same(load_cameras(path).cameras[0])
    value = _transforms(w=None, h=None, fl_x=None, camera_angle_x=1.0)
    path.write_text(json.dumps(value))
    assert load_cameras(path).cameras[0].width == 800


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"frames": None}, "frames must be an array"),
        ({"frames": []}, "cameras must be at least one"),
        ({"frames": [{}]}, "transform_matrix is missing"),
        ({"frames": [{"transform_matrix": np.eye(3).tolist()}]}, "finite numbers of the shape"),
        ({"frames": [{"transform_matrix": (2 * np.eye(4)).tolist()}]}, "must be a rotation"),
        ({"fl_x": "wide"}, "fl_x must be a finite number"),
        ({"fl_x": -5}, "fx must be positive"),
        ({"w": 0}, "w must be a whole number"),
        ({"fl_x": None}, "camera_angle_x is missing"),
        ({"fl_x": None, "camera_angle_x": 9}, "camera_angle_x must be between"),
    ],
)
def test_transforms_faults(tmp_path, changes, match):
    path = tmp_path / "transforms.json"
    path.write_text(json.dumps(_transforms(**changes)))
    with pytest.raises(SceneError, match=match):
        load_cameras(path)


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"camera_model": "OPENCV", "k1": -0.05, "k2": 0, "p1": 1e-4}, "(k1 -0.05, p1 0.0001)"),
        ({"k6": 2}, "(k6 2, p1 1e-05)"),
        ({"distortion_params": [0, 0, -0.25]}, "(distortion_params[2] -0.25, p1 1e-05)"),
    ],
)
def test_distortion_of_transforms_is_named_once(tmp_path, changes, shown):
    path = tmp_path / "transforms.json"
    value = _transforms(**changes)
    value["frames"].append(value["frames"][0] | {"p1": 1e-5})
    path.write_text(json.dumps(value))
    with pytest.warns(DistortionWarning) as caught:
        same(load_cameras(path).cameras[0])
    (warning,) = caught
    assert str(warning.message).startswith(f"{path}: lens distortion {shown} is left out")
    assert warning.filename == __file__


def test_distortion_of_one_frame_is_named(tmp_path):
    path = tmp_path / "transforms.json"
    value = _transforms(k1=0, is_fisheye=False, camera_model="PINHOLE", distortion_params=[0] * 6)
    path.write_text(json.dumps(value))
    same(load_cameras(path).cameras[0])
    value["frames"][0]["k1"] = 0.125
    path.write_text(json.dumps(value))
    with pytest.warns(DistortionWarning, match=r"\(k1 0\.125\)"):
        load_cameras(path)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"camera_model": "OPENCV_FISHEYE"}, "camera_model must be that of a pinhole, not 'OPENCV"),
        ({"camera_model": "EQUIRECTANGULAR"}, "camera_model must be that of a pinhole, not 'EQUI"),
        ({"camera_model": 3}, "camera_model must be a string, not 3"),
        ({"is_fisheye": True}, "is_fisheye must be that of a pinhole, not 'True'"),
        ({"equirectangular": 1}, "equirectangular must be that of a pinhole"),
        ({"ftheta_p0": 0.0}, "ftheta_p0 must be that of a pinhole"),
        ({"k1": "much"}, "k1 must be a finite number, not 'much'"),
        ({"distortion_params": ["much"]}, "distortion_params must be finite numbers"),
    ],
)
@pytest.mark.parametrize("inner", [False, True])
def test_lenses_that_are_no_pinhole_are_refused(tmp_path, changes, match, inner):
    path = tmp_path / "transforms.json"
    value = _transforms()
    (value["frames"][0] if inner else value).update(changes)
    path.write_text(json.dumps(value))
    where = r"frames\[0\]\." if inner else ""
    with pytest.raises(SceneError, match=f"^{path}: {where}{match}"):
        load_cameras(path)


QUAT = quat_of(POSE.w2c[:3, :3])


#: COLMAP's number of each model, its name, its pinhole and its distortion.
COLMAP_MODELS = {
    0: ("SIMPLE_PINHOLE", [500, 320, 240], {}),
    1: ("PINHOLE", [500, 500, 320, 240], {}),
    2: ("SIMPLE_RADIAL", [500, 320, 240], {"k": 0.01}),
    3: ("RADIAL", [500, 320, 240], {"k1": 0.01, "k2": -0.02}),
    4: ("OPENCV", [500, 500, 320, 240], {"k1": 0.01, "k2": 0, "p1": 0.001, "p2": 0}),
    6: ("FULL_OPENCV", [500, 500, 320, 240], dict.fromkeys(
        ("k1", "k2", "p1", "p2", "k3", "k4", "k5"), 0) | {"k6": 0.5}),
}


def write_colmap(folder: Path, *, binary: bool, model: int = 1) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    t = POSE.w2c[:3, 3]
    name, parameters, distortion = COLMAP_MODELS[model]
    parameters = [*parameters, *distortion.values()]
    if binary:
        lens = struct.pack("<QiiQQ", 1, 3, model, 640, 480)
        (folder / "cameras.bin").write_bytes(
            lens + struct.pack(f"<{len(parameters)}d", *parameters)
        )
        data = struct.pack("<Q", 2)
        for image, points in (("b.png", 2), ("a.png", 0)):
            data += struct.pack("<i7di", 1, *QUAT, *t, 3) + image.encode() + b"\0"
            data += struct.pack("<Q", points) + bytes(24 * points)
        (folder / "images.bin").write_bytes(data)
    else:
        words = " ".join(map(str, parameters))
        (folder / "cameras.txt").write_text(f"# cameras\n3 {name} 640 480 {words}\n")
        row = " ".join(map(repr, [*QUAT.tolist(), *t.tolist()]))
        (folder / "images.txt").write_text(
            f"# images\n1 {row} 3 b c.png\n1 2 -1 3 4 5\n2 {row} 3 a.png\n\n"
        )
    return folder


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("model", COLMAP_MODELS)
def test_colmap(tmp_path, binary, model):
    suffix = ".bin" if binary else ".txt"
    folder = write_colmap(tmp_path / "sparse" / "0", binary=binary, model=model)
    names = {name: value for name, value in COLMAP_MODELS[model][2].items() if value}
    for path in (tmp_path, folder / f"images{suffix}"):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            trajectory = load_cameras(path)
        assert len(trajectory.cameras) == 2
        same(trajectory.cameras[0])
        shown = ", ".join(f"{name} {value:g}" for name, value in names.items())
        assert [str(warning.message).partition(" is left out")[0] for warning in caught] == [
            f"{folder / 'cameras'}{suffix}: lens distortion ({shown})"][: bool(names)]


@pytest.mark.parametrize(
    ("name", "change", "match"),
    [
        ("images.bin", lambda data: data[:-30], "truncated"),
        ("images.bin", lambda data: data[:50], "count must fit"),
        ("images.bin", lambda data: b"\xff" * 8 + data[8:], "count must fit"),
        ("images.bin", lambda data: data[:4], "truncated"),
        ("cameras.bin", lambda data: data[:-8], "truncated"),
        ("cameras.bin", lambda data: data[:12] + b"\x63" + data[13:], "model must be 0 to 10"),
        ("cameras.bin", lambda data: data[:12] + b"\x07" + data[13:] + bytes(8), "undistort"),
        ("cameras.bin", lambda data: data[:8] + b"\x09" + data[9:], "CAMERA_ID must be in"),
        ("cameras.bin", lambda data: b"", "camera file is empty"),
        ("cameras.txt", lambda data: data.replace(b"PINHOLE", b"FISHEYE"),
         r"cameras\.txt: camera model must be a pinhole, with distortion or without, not FISHEYE"),
        ("cameras.txt", lambda data: data.replace(b"PINHOLE", b"RADIAL"), "not understood"),
        ("cameras.txt", lambda data: data.replace(b"640", b"wide"), "not understood"),
        ("images.txt", lambda data: data.replace(b" 3 a.png", b""), "not understood"),
        ("images.txt", lambda data: b"\xff\xfe" + data, "must be UTF-8"),
        ("images.txt", lambda data: b"1 0 0 0 0 0 0 0 3 a.png\n\n", "must not be zero"),
    ],
)
def test_colmap_faults(tmp_path, name, change, match):
    write_colmap(tmp_path, binary=name.endswith("bin"))
    (tmp_path / name).write_bytes(change((tmp_path / name).read_bytes()))
    with pytest.raises(SceneError, match=match):
        load_cameras(tmp_path)


def test_camera_files_of_no_known_kind(tmp_path):
    with pytest.raises(SceneError, match="camera file is missing"):
        load_cameras(tmp_path / "none.json")
    with pytest.raises(SceneError, match="folder must hold COLMAP's"):
        load_cameras(tmp_path)
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SceneError, match="camera file must be a COLMAP folder"):
        load_cameras(tmp_path / "a.txt")
    (tmp_path / "images.txt").write_text("")
    with pytest.raises(SceneError, match="COLMAP file is missing"):
        load_cameras(tmp_path)
    for text in ("", "{", "[[1]]", "[]", "3"):
        (tmp_path / "cameras.json").write_text(text)
        with pytest.raises(SceneError):
            load_cameras(tmp_path / "cameras.json")


@pytest.mark.parametrize("name", ["a.json", "a.csv", "images.txt", "images.bin"])
def test_pipes_are_no_camera_files(tmp_path, name):
    os.mkfifo(tmp_path / name)
    with pytest.raises(SceneError, match="path is not a regular file: copy the camera to one"):
        load_cameras(tmp_path / name)


def test_pipes_beside_a_camera_file(tmp_path):
    write_colmap(tmp_path, binary=True)
    (tmp_path / "cameras.bin").unlink()
    os.mkfifo(tmp_path / "cameras.bin")
    with pytest.raises(SceneError, match="COLMAP file is missing"):
        load_cameras(tmp_path)
    write_trace(tmp_path / "a.csv", [ROW.format(view=0, time=0)])
    os.mkfifo(tmp_path / "settings.csv")
    with pytest.raises(SceneError, match="not a regular file"):
        load_eyenavgs(tmp_path / "a.csv", scene="truck", settings=tmp_path / "settings.csv")
    with pytest.raises(SceneError, match="path is a folder: name the camera file in it"):
        load_eyenavgs(tmp_path)


# EyeNavGS.

HEADER = (
    "ViewIndex,FOV1,FOV2,FOV3,FOV4,PositionX,PositionY,PositionZ,QuaternionX,QuaternionY,"
    "QuaternionZ,QuaternionW,Timestamp"
)
ROW = "{view},-0.8,0.6,-0.9,0.7,1,2,3,0,0,0,1,{time}"


def write_trace(path: Path, rows: list[str], header: str = HEADER) -> Path:
    text = "\n".join([header, *rows]) + "\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_eyenavgs_pose_and_field_of_view(tmp_path):
    rows = [ROW.format(view=v, time=t) for v, t in ((0, 100), (1, 105), (0, 114), (1, 119))]
    trajectory = load_cameras(write_trace(tmp_path / "a.csv.gz", rows))
    assert np.allclose(trajectory.times_s, [0, 0.014])
    view = trajectory.cameras[0]
    assert np.allclose(view.position, (1, 2, 3))
    # No turn in OpenXR: looking along -z with +y up.
    assert np.allclose(view.w2c[:3, :3], np.diag([1, -1, -1]))
    assert seen(view, (1 + np.tan(-0.8), 2, 2))[0] == pytest.approx(0)
    assert seen(view, (1 + np.tan(0.6), 2, 2))[0] == pytest.approx(view.width)
    assert seen(view, (1, 2 + np.tan(0.7), 2))[1] == pytest.approx(0, abs=0.6)
    assert seen(view, (1, 2 + np.tan(-0.9), 2))[1] == pytest.approx(view.height, abs=0.6)
    assert len(load_eyenavgs(tmp_path / "a.csv.gz", view=1).cameras) == 2


def test_eyenavgs_in_its_scene(tmp_path):
    write_trace(tmp_path / "a.csv", [ROW.format(view=0, time=0)])
    (tmp_path / "scene_setting.csv").write_text(
        '\ufeffScene_Name,Quaternion,Scale,Initial_Position\ntruck,"0, 0, 0, 1",2,"0,2.1,-4"\n'
    )
    trajectory = load_eyenavgs(tmp_path / "a.csv", scene="truck")
    assert np.allclose(trajectory.cameras[0].position, (2, 6.1, 2))
    with pytest.raises(SceneError, match="scene must be one of truck, not 'moon'"):
        load_eyenavgs(tmp_path / "a.csv", scene="moon")
    (tmp_path / "scene_setting.csv").write_text(
        'Scene_Name,Quaternion,Scale,Initial_Position\ntruck,"0, 0, 0",2,"0,2.1,-4"\n'
    )
    with pytest.raises(SceneError, match="row 'truck' is not understood"):
        load_eyenavgs(tmp_path / "a.csv", scene="truck")
    (tmp_path / "scene_setting.csv").unlink()
    with pytest.raises(SceneError, match="must stand beside the trace"):
        load_eyenavgs(tmp_path / "a.csv", scene="truck")


def test_eyenavgs_real(shared_cameras):
    settings = shared_cameras("eyenavgs_scene_setting.csv")
    trajectory = load_eyenavgs(
        shared_cameras("eyenavgs_user101_truck.csv.gz"), scene="truck", settings=settings
    )
    assert len(trajectory.cameras) == 5463
    assert 1 / np.median(np.diff(trajectory.times_s)) == pytest.approx(71, abs=3)


@pytest.mark.parametrize(
    ("rows", "header", "match"),
    [
        ([], HEADER, "rows must be at least one"),
        ([ROW.format(view=0, time=0)], HEADER.replace("FOV3", "X"), "column FOV3 is missing"),
        ([ROW.format(view=0, time="now")], HEADER, "rows must be numbers"),
        ([ROW.format(view=0, time="nan")], HEADER, "row 2 must be finite"),
        (["0,1"], HEADER, "rows must be numbers|must be finite"),
        ([ROW.format(view=1, time=0)], HEADER, "ViewIndex must be 0"),
        ([ROW.format(view=0, time=9), ROW.format(view=0, time=1)], HEADER, "never decrease"),
        ([ROW.replace("0,0,0,1", "0,0,0,0").format(view=0, time=1)], HEADER, "length of 1"),
        ([ROW.replace("0.6", "-0.9").format(view=0, time=1)], HEADER, "must span an angle"),
    ],
)
def test_eyenavgs_faults(tmp_path, rows, header, match):
    with pytest.raises(SceneError, match=match):
        load_cameras(write_trace(tmp_path / "a.csv", rows, header))


def test_eyenavgs_damaged_gzip_and_missing(tmp_path):
    path = write_trace(tmp_path / "a.csv.gz", [ROW.format(view=0, time=0)])
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    with pytest.raises(SceneError, match="gzip stream must end"):
        load_cameras(path)
    path.write_bytes(data[:10] + b"\xff" * 40)
    with pytest.raises(SceneError, match="gzip stream is damaged"):
        load_cameras(path)
    with pytest.raises(SceneError, match="camera file is missing"):
        load_eyenavgs(tmp_path / "none.csv")
