"""What is drawn: Gaussian scenes, cameras and trajectories; readers, writers and generators."""

from splatforge.scenes.atomic_file import check_writable
from splatforge.scenes.camera import Camera
from splatforge.scenes.catalog import CAPTURES, GENERATED, get, make_default, resolve
from splatforge.scenes.files import load, open_scene, save
from splatforge.scenes.generate_city import make_city
from splatforge.scenes.generate_object import make_object
from splatforge.scenes.read_cameras import DistortionWarning, load_cameras, load_eyenavgs
from splatforge.scenes.regular_file import check_regular_file
from splatforge.scenes.scene import Scene, SceneError, merge
from splatforge.scenes.trajectory import (
    Trajectory,
    extrapolate,
    fly_through,
    follow,
    head_jitter,
    orbit,
    travel,
    turn_deg,
)
from splatforge.scenes.transform import transform
from splatforge.scenes.view import default_camera, guess_up, surround

__all__ = [
    "CAPTURES",
    "GENERATED",
    "Camera",
    "DistortionWarning",
    "Scene",
    "SceneError",
    "Trajectory",
    "check_regular_file",
    "check_writable",
    "default_camera",
    "extrapolate",
    "fly_through",
    "follow",
    "get",
    "guess_up",
    "head_jitter",
    "load",
    "load_cameras",
    "load_eyenavgs",
    "make_city",
    "make_default",
    "make_object",
    "merge",
    "open_scene",
    "orbit",
    "resolve",
    "save",
    "surround",
    "transform",
    "travel",
    "turn_deg",
]
