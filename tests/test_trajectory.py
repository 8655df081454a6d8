"""Trajectories and their generators."""

from itertools import pairwise

import numpy as np
import pytest

from splatforge.scenes import (
    Camera,
    Trajectory,
    fly_through,
    follow,
    head_jitter,
    orbit,
    travel,
)

FIRST = Camera.look_at((0, -1, -4), (0, 0, 0), (0, -1, 0), width=64, height=48, near=0.1)


def turns_deg(trajectory: Trajectory) -> np.ndarray:
    rotations = np.array([camera.w2c[:3, :3] for camera in trajectory.cameras])
    traces = np.einsum("nij,nij->n", rotations[1:], rotations[:-1])
    return np.degrees(np.arccos(np.clip((traces - 1) / 2, -1, 1)))


def positions(trajectory: Trajectory) -> np.ndarray:
    return np.array([camera.position for camera in trajectory.cameras])


def test_orbit_keeps_height_distance_and_target():
    path = orbit(FIRST, (0, 0, 0), (0, -1, 0), frames=12, duration_s=6)
    assert np.allclose(positions(path)[0], FIRST.position)
    assert np.allclose(positions(path)[:, 1], -1)
    assert np.allclose(np.linalg.norm(positions(path), axis=1), np.sqrt(17))
    for camera in path.cameras:
        centre = camera.w2c[:3, 3]
        assert np.allclose(centre[:2], 0, atol=1e-9)
        assert camera.near == 0.1
    assert np.allclose(np.diff(path.times_s), 0.5)
    # A whole turn loops: the step from last to first is like the others.
    steps = np.linalg.norm(positions(path) - np.roll(positions(path), 1, axis=0), axis=1)
    assert np.allclose(steps, steps[0])


def test_fly_through_reaches_its_keys():
    keys = [
        FIRST,
        Camera.look_at((3, -1, 0), (0, 0, 0), (0, -1, 0), width=64, height=48),
        Camera.look_at((0, -2, 4), (0, 0, 0), (0, -1, 0), width=64, height=48),
    ]
    path = fly_through(keys, frames=201, duration_s=2)
    for key, index in zip(keys, (0, 100, 200), strict=True):
        assert np.allclose(path.cameras[index].w2c, key.w2c, atol=1e-9)
    assert turns_deg(path).max() < 2
    assert np.linalg.norm(np.diff(positions(path), axis=0), axis=1).max() < 0.1
    assert (path.times_s[0], path.times_s[-1]) == (0, 2)


def test_fly_through_turns_about_any_axis():
    """Half a turn and nearly none: both ends of the logarithm of a rotation."""
    for angle in (np.pi, np.pi - 1e-7, 1e-9, 0.0, 2.0):
        for axis in np.eye(3):
            x, y, z = axis
            cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
            rotation = np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross
            w2c = np.eye(4)
            w2c[:3, :3] = rotation
            start = Camera(width=8, height=8, fx=8, fy=8, cx=4, cy=4, w2c=np.eye(4))
            end = Camera(width=8, height=8, fx=8, fy=8, cx=4, cy=4, w2c=w2c)
            path = fly_through([start, end], frames=3)
            assert np.allclose(path.cameras[2].w2c, w2c, atol=1e-6)
            assert np.allclose(turns_deg(path), np.degrees(angle) / 2, atol=1e-4)


def test_head_jitter_moves_as_the_traces_do():
    path = head_jitter(FIRST, frames=4000, seed=3)
    turns = turns_deg(path)
    assert np.median(turns) == pytest.approx(0.49, rel=0.25)
    assert np.percentile(turns, 99) == pytest.approx(2.35, rel=0.35)
    assert 1 / np.diff(path.times_s).mean() == pytest.approx(71)
    away = np.linalg.norm(positions(path) - FIRST.position, axis=1)
    assert 0 < away.max() < 1
    assert np.array_equal(path.cameras[0].w2c, FIRST.w2c)


def test_head_jitter_matches_the_real_trace(shared_cameras):
    from splatforge.scenes import load_cameras

    real = turns_deg(load_cameras(shared_cameras("eyenavgs_user101_bicycle.csv.gz")))
    ours = turns_deg(head_jitter(FIRST, frames=6000, seed=0))
    assert np.median(ours) == pytest.approx(np.median(real), rel=0.25)
    assert np.percentile(ours, 99) == pytest.approx(np.percentile(real, 99), rel=0.4)


def test_head_jitter_is_made_by_its_seed():
    one, two, other = (head_jitter(FIRST, frames=50, seed=seed) for seed in (1, 1, 2))
    assert np.array_equal(positions(one), positions(two))
    assert not np.array_equal(positions(one), positions(other))


def test_resized_trajectory():
    path = orbit(FIRST, (0, 0, 0), (0, -1, 0), frames=3).resized(128, 96)
    assert {(camera.width, camera.height) for camera in path.cameras} == {(128, 96)}
    assert len(path) == 3


@pytest.mark.parametrize(
    ("cameras", "times", "message"),
    [
        ([], [], "cameras must be at least one"),
        ([FIRST], [0, 1], r"times_s must have the shape \(1,\)"),
        ([FIRST, FIRST], [1, 0], "never decrease"),
        ([FIRST], [np.nan], "must be finite"),
    ],
)
def test_wrong_trajectories_are_refused(cameras, times, message):
    with pytest.raises(ValueError, match=message):
        Trajectory(name="x", cameras=cameras, times_s=times)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: orbit(FIRST, (0, 0, 0), (0, -1, 0), frames=0), "frames must be a whole number"),
        (lambda: orbit(FIRST, (0, 0, 0), (0, 0, 0), frames=2), "Direction must be finite"),
        (
            lambda: orbit(FIRST, (0, 0, 0), (0, -1, 0), frames=2, duration_s=0),
            "duration must be positive",
        ),
        (lambda: fly_through([FIRST], frames=2), "keys must be at least 2"),
        (lambda: head_jitter(FIRST, frames=2, seed=0, rate_hz=0), "duration must be positive"),
    ],
)
def test_wrong_paths_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_follow_moves_as_the_trace_does():
    trace = orbit(FIRST, (0, 0, 0), (0, -1, 0), frames=12).cameras
    other = Camera.look_at((5, 2, 1), (0, 3, 0), (0, 1, 0), width=32, height=20)
    path = follow(other, trace)
    np.testing.assert_allclose(path[0].w2c, other.w2c, atol=1e-12)
    for (a, b), (c, d) in zip(pairwise(path),
                              pairwise(trace), strict=True):
        np.testing.assert_allclose(
            b.w2c @ np.linalg.inv(a.w2c), d.w2c @ np.linalg.inv(c.w2c), atol=1e-12)
        assert (b.width, b.fx) == (32, other.fx)


def test_travel_is_straight_and_level():
    first = Camera.look_at((0, -3, 0), (10, 0, 0), (0, -1, 0), width=64, height=48)
    path = travel(first, (0, -2, 0), frames=5, speed=9.0, rate_hz=90.0)
    eyes = np.array([camera.position for camera in path.cameras])
    np.testing.assert_allclose(eyes, [[0.1 * i, -3, 0] for i in range(5)], atol=1e-12)
    assert all(np.array_equal(camera.w2c[:3, :3], first.w2c[:3, :3]) for camera in path.cameras)
    np.testing.assert_allclose(path.times_s, np.arange(5) / 90)
    with pytest.raises(ValueError, match="up must not be along the view"):
        travel(Camera.look_at((0, 0, 0), (0, 1, 0), (1, 0, 0), width=9, height=9), (0, -1, 0),
               frames=2, speed=1)
    with pytest.raises(ValueError, match="speed must be at least 0"):
        travel(first, (0, -1, 0), frames=2, speed=-1.0)
