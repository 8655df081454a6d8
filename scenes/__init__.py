"""What is drawn: Gaussian scenes, cameras and trajectories; readers, writers and generators."""

from splatforge.scenes.camera import Camera
from splatforge.scenes.files import load, open_scene, save
from splatforge.scenes.scene import Scene, SceneError, merge
from splatforge.scenes.trajectory import Trajectory, fly_through, head_jitter, orbit
from splatforge.scenes.transform import transform

__all__ = [
    "Camera",
    "Scene",
    "SceneError",
    "Trajectory",
    "fly_through",
    "head_jitter",
    "load",
    "merge",
    "open_scene",
    "orbit",
    "save",
    "transform",
]
