"""Camera paths: the trajectory and the generators of orbits, fly-throughs and head motion."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from splatforge.scenes.camera import Camera

Float64Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Trajectory:
    """Cameras in time.

    Parameters
    ----------
    name : str
        What it is, for reports.
    cameras : sequence of Camera
        At least one.
    times_s : array_like
        Time of each camera in seconds, shape [F], never decreasing.

    Raises
    ------
    ValueError
        There is no camera, or the times do not fit the cameras or run backwards.
    """

    name: str
    cameras: tuple[Camera, ...]
    times_s: Float64Array

    def __post_init__(self) -> None:
        object.__setattr__(self, "cameras", tuple(self.cameras))
        times = np.array(self.times_s, dtype=np.float64)
        if not self.cameras:
            raise ValueError("Trajectory cameras must be at least one, not none")
        if times.shape != (len(self.cameras),):
            raise ValueError(
                f"Trajectory times_s must have the shape ({len(self.cameras)},), not {times.shape}"
            )
        if not np.isfinite(times).all() or (np.diff(times) < 0).any():
            raise ValueError("Trajectory times_s must be finite and never decrease")
        times.setflags(write=False)
        object.__setattr__(self, "times_s", times)

    def __len__(self) -> int:
        return len(self.cameras)

    def resized(self, width: int, height: int) -> "Trajectory":
        """Return the same path with every camera at ``width`` x ``height`` pixels."""
        return Trajectory(
            name=self.name,
            cameras=tuple(camera.resized(width, height) for camera in self.cameras),
            times_s=self.times_s,
        )


def orbit(
    camera: Camera,
    target: npt.ArrayLike,
    up: npt.ArrayLike,
    *,
    frames: int,
    turns: float = 1.0,
    duration_s: float = 4.0,
) -> Trajectory:
    """Return a circle around ``target`` that starts at ``camera`` and keeps its height.

    Parameters
    ----------
    camera : Camera
        First camera; the others share its intrinsics.
    target : array_like
        Point of shape [3] that every camera looks at.
    up : array_like
        Axis of the circle, shape [3], of any length.
    frames : int
        Number of cameras, at least 1.
    turns : float
        Turns about ``up``; the last camera stops one step before the end, so a whole number of
        turns loops.
    duration_s : float
        Time of all turns in seconds.
    """
    _check_path(frames, duration_s)
    centre = np.asarray(target, dtype=np.float64)
    axis = _unit(up)
    offset = camera.position - centre
    cameras = []
    for angle in 2 * np.pi * turns * np.arange(frames) / frames:
        eye = centre + _rotation(axis * angle) @ offset
        cameras.append(_moved(camera, eye, centre, axis))
    return Trajectory(
        name="orbit",
        cameras=tuple(cameras),
        times_s=np.arange(frames, dtype=np.float64) * (duration_s / frames),
    )


def fly_through(keys: Sequence[Camera], *, frames: int, duration_s: float = 4.0) -> Trajectory:
    """Return a smooth flight through ``keys``, each reached in equal time.

    Positions follow a Catmull-Rom spline through the key positions, orientations the spherical
    interpolation between neighbours; intrinsics are those of the first key.

    Parameters
    ----------
    keys : sequence of Camera
        At least two.
    frames : int
        Number of cameras, at least 1; the first is the first key, the last the last key.
    duration_s : float
        Time of the whole flight in seconds.

    Raises
    ------
    ValueError
        There are fewer than two keys, or ``frames`` or ``duration_s`` is out of range.
    """
    _check_path(frames, duration_s)
    if len(keys) < 2:
        raise ValueError(f"Fly-through keys must be at least 2, not {len(keys)}")
    points = np.array([key.position for key in keys])
    padded = np.vstack([2 * points[0] - points[1], points, 2 * points[-1] - points[-2]])
    cameras = []
    for s in np.linspace(0, len(keys) - 1, frames):
        i = min(int(s), len(keys) - 2)
        t = s - i
        p0, p1, p2, p3 = padded[i : i + 4]
        eye = 0.5 * (
            2 * p1
            + (p2 - p0) * t
            + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2
            + (3 * p1 - p0 - 3 * p2 + p3) * t**3
        )
        first, second = keys[i].w2c[:3, :3], keys[i + 1].w2c[:3, :3]
        rotation = _rotation(t * _rotation_vector(second @ first.T)) @ first
        cameras.append(_placed(keys[0], rotation, eye))
    return Trajectory(
        name="fly-through",
        cameras=tuple(cameras),
        times_s=np.linspace(0, duration_s, frames),
    )


def travel(
    camera: Camera,
    up: npt.ArrayLike,
    *,
    frames: int,
    speed: float,
    rate_hz: float = 90.0,
) -> Trajectory:
    """Return a straight and level way at constant speed in the direction of the view.

    Parameters
    ----------
    camera : Camera
        First camera; the others share its intrinsics and look the same way.
    up : array_like
        Upward direction of shape [3], of any length.
    frames : int
        Number of cameras, at least 1.
    speed : float
        Scene units per second.
    rate_hz : float
        Frames per second.

    Raises
    ------
    ValueError
        The view is along ``up``, or a number is out of range.
    """
    _check_path(frames, frames / rate_hz if rate_hz > 0 else -1.0)
    if not (np.isfinite(speed) and speed >= 0):
        raise ValueError(f"Travel speed must be at least 0 and finite, not {speed!r}")
    upward, forward = _unit(up), camera.w2c[2, :3]
    level = forward - (forward @ upward) * upward
    if np.linalg.norm(level) < 1e-6:
        raise ValueError(f"Travel up must not be along the view direction, not {up!r}")
    step = _unit(level) * speed / rate_hz
    rotation, eye = camera.w2c[:3, :3], camera.position
    return Trajectory(
        name="travel",
        cameras=tuple(_placed(camera, rotation, eye + i * step) for i in range(frames)),
        times_s=np.arange(frames) / rate_hz,
    )


def head_jitter(
    camera: Camera,
    *,
    frames: int,
    seed: int,
    rate_hz: float = 71.0,
    median_turn_deg: float = 0.49,
    position_step: float = 0.002,
) -> Trajectory:
    """Return the small motion of a worn headset around ``camera``.

    The angular velocity is a first-order autoregressive process whose length per sample has a
    log-normal spread: its median is ``median_turn_deg`` and its 99th percentile 4.8 times that,
    as in the EyeNavGS trace of user 101 in the bicycle scene (0.49 and 2.35 degrees at 71 samples
    per second; 0.34 and 1.50 in the truck scene). The head is pulled back to where it began, so
    the view stays on the scene.

    Parameters
    ----------
    camera : Camera
        First camera; the others share its intrinsics.
    frames : int
        Number of cameras, at least 1.
    seed : int
        Seed of the motion; equal seeds give equal trajectories.
    rate_hz : float
        Samples per second.
    median_turn_deg : float
        Median turn between two samples, in degrees.
    position_step : float
        Root-mean-square step of the position between two samples, in scene units.
    """
    _check_path(frames, frames / rate_hz if rate_hz > 0 else -1.0)
    random = np.random.default_rng(seed)
    spread = np.log(2.35 / 0.49) / 2.326
    rotation = camera.w2c[:3, :3]
    home = camera.position
    eye = home.copy()
    turned = np.zeros(3)
    direction = random.normal(size=3)
    log_speed = random.normal(0.0, spread)
    step = np.zeros(3)
    cameras = [camera]
    for _ in range(frames - 1):
        log_speed = 0.95 * log_speed + np.sqrt(1 - 0.95**2) * random.normal(0.0, spread)
        # Yaw moves most, roll least, and a turn away from home is bent back towards it.
        direction = 0.9 * direction + 0.44 * random.normal(size=3) * (0.6, 1.0, 0.2)
        direction = direction - 0.08 * turned / np.radians(10.0)
        turn = _unit(direction) * np.radians(median_turn_deg) * np.exp(log_speed)
        turned = turned + turn
        step = 0.9 * step + np.sqrt(1 - 0.9**2) * random.normal(size=3) * position_step / 3**0.5
        eye = eye + step - 0.02 * (eye - home)
        cameras.append(_placed(camera, _rotation(turned) @ rotation, eye))
    return Trajectory(
        name="head-jitter", cameras=tuple(cameras), times_s=np.arange(frames) / rate_hz
    )


def follow(first: Camera, trace: Sequence[Camera]) -> tuple[Camera, ...]:
    """Return the motion of ``trace`` from ``first`` on, which takes the place of its first camera.

    A unit of the trace is one of the scene; sizes and lenses are those of ``first``.
    """
    start = np.linalg.inv(trace[0].w2c)
    return tuple(replace(first, w2c=pose.w2c @ start @ first.w2c) for pose in trace)


def extrapolate(before: Camera, now: Camera, frames: float) -> Camera:
    """Return the view ``frames`` after ``now``, a frame after ``before``, if motion goes on.

    The eye goes on along a line, the view turns on about its axis, both as fast as they did.
    Everything else is as in ``now``.
    """
    rotation = now.w2c[:3, :3]
    turn = _rotation_vector(rotation @ before.w2c[:3, :3].T)
    eye = now.position + frames * (now.position - before.position)
    return _placed(now, _rotation(frames * turn) @ rotation, eye)


def turn_deg(before: Camera, now: Camera) -> float:
    """Return the angle between two views, in degrees, from 0 to 180."""
    turn = _rotation_vector(now.w2c[:3, :3] @ before.w2c[:3, :3].T)
    return float(np.degrees(np.linalg.norm(turn)))


def _check_path(frames: int, duration_s: float) -> None:
    if int(frames) != frames or frames < 1:
        raise ValueError(f"Trajectory frames must be a whole number of at least 1, not {frames!r}")
    if not (np.isfinite(duration_s) and duration_s > 0):
        raise ValueError(f"Trajectory duration must be positive and finite, not {duration_s!r} s")


def _moved(camera: Camera, eye: Float64Array, target: Float64Array, up: Float64Array) -> Camera:
    aimed = Camera.look_at(eye, target, up, width=camera.width, height=camera.height)
    return _placed(camera, aimed.w2c[:3, :3], eye)


def _placed(camera: Camera, rotation: Float64Array, eye: Float64Array) -> Camera:
    w2c = np.eye(4)
    w2c[:3, :3] = rotation
    w2c[:3, 3] = -rotation @ eye
    return Camera(
        width=camera.width,
        height=camera.height,
        fx=camera.fx,
        fy=camera.fy,
        cx=camera.cx,
        cy=camera.cy,
        w2c=w2c,
        near=camera.near,
    )


def _unit(vector: npt.ArrayLike) -> Float64Array:
    array = np.asarray(vector, dtype=np.float64)
    length = np.linalg.norm(array)
    if not (np.isfinite(length) and length > 0):
        raise ValueError(f"Direction must be finite and not zero, not {vector!r}")
    return array / length


def _rotation(vector: Float64Array) -> Float64Array:
    """Rotation matrix about ``vector`` by its length in radians (Rodrigues)."""
    angle = np.linalg.norm(vector)
    if angle == 0:
        return np.eye(3)
    x, y, z = vector / angle
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * (cross @ cross)


def _rotation_vector(rotation: Float64Array) -> Float64Array:
    """Axis times angle of a rotation matrix; the inverse of :func:`_rotation`."""
    # Through the quaternion of the largest component: stable at angles near 0 and near pi.
    (a, b, c), (d, e, f), (g, h, i) = rotation
    candidates = np.array(
        [
            [1 + a + e + i, h - f, c - g, d - b],
            [h - f, 1 + a - e - i, b + d, c + g],
            [c - g, b + d, 1 - a + e - i, f + h],
            [d - b, c + g, f + h, 1 - a - e + i],
        ]
    )
    quat = candidates[int(np.argmax(np.diag(candidates)))]
    quat = quat / np.linalg.norm(quat) * (1 if quat[0] >= 0 else -1)
    sine = np.linalg.norm(quat[1:])
    if sine == 0:
        return np.zeros(3)
    return quat[1:] / sine * 2 * np.arctan2(sine, quat[0])
