"""What is drawn: Gaussian scenes, cameras and trajectories; readers, writers and generators."""

from splatforge.scenes.camera import Camera
from splatforge.scenes.scene import Scene, SceneError, merge
from splatforge.scenes.trajectory import Trajectory, fly_through, head_jitter, orbit

__all__ = [
    "Camera",
    "Scene",
    "SceneError",
    "Trajectory",
    "fly_through",
    "head_jitter",
    "merge",
    "orbit",
]
