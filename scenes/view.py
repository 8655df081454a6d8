"""Sensible views of a scene that nobody has described: a first one, and many around it."""

import numpy as np
import numpy.typing as npt

from splatforge.scenes.camera import NEAR, Camera
from splatforge.scenes.scene import Scene
from splatforge.scenes.trajectory import Trajectory

Float64Array = npt.NDArray[np.float64]

_SAMPLES = 200_000
# f = 0.79 x width, a field of view of 64.7 degrees, unless the image is upright.
_FOCAL = 0.79

# How likely a direction is up before a scene is looked at. COLMAP, hence INRIA PLY and most files
# made from it, has -y up; .spz and glTF +y, Blender and surveys +z.
_UP_PRIOR = {(1, -1): 1.2, (1, 1): 0.0, (2, 1): 0.2}
_OTHER_UP_PRIOR = -0.3


def guess_up(scene: Scene) -> Float64Array:
    """Return the likely upward direction of a scene, a unit vector of shape [3].

    Things stand on something: the lower end of a scene is broader than the upper, the ground is
    a crowd of flat Gaussians with one normal, and what rises from it rises less and less. Each of
    the six axis directions is scored by that and by how common it is among the formats; where a
    ground is plain to see, the axis is then tilted to its normal.
    """
    sample = _Sample(scene)
    if sample.count < 16:
        return np.array([0.0, -1.0, 0.0])
    scores = {}
    for axis in range(3):
        low, mid, high = _quantiles(sample.means[:, axis], sample.mass, (0.02, 0.5, 0.98))
        skew = (high + low - 2 * mid) / max(high - low, 1e-12)
        spread = np.log(sample.spread_below(axis, 0.2) / sample.spread_above(axis, 0.8))
        flat = sample.share_facing(np.eye(3)[axis])
        for sign in (-1, 1):
            prior = _UP_PRIOR.get((axis, sign), _OTHER_UP_PRIOR)
            scores[axis, sign] = sign * float(skew + np.clip(spread, -1.5, 1.5)) + 2 * flat + prior
    axis, sign = max(scores, key=lambda key: scores[key])
    return sample.tilted_to_ground(np.eye(3)[axis]) * sign


def default_camera(
    scene: Scene, width: int, height: int, *, up: npt.ArrayLike | None = None
) -> Camera:
    """Return a view that shows a scene well, whatever its units and axes.

    The camera looks at the opacity-weighted median, from slightly above, at a distance at which
    the bulk of the scene fills the image: floaters and a background shell count for nothing. A
    wide, flat scene (a city, a landscape) is seen from a steeper angle and from within its
    borders. The eye starts beside the side that holds the most Gaussians, on which the capture
    dwelt, and goes around to where little stands between it and the scene.

    Parameters
    ----------
    scene : Scene
        Any scene; an empty one gives a camera at the origin.
    width, height : int
        Image size in pixels.
    up : array_like, optional
        Upward direction of shape [3]; guessed by :func:`guess_up` where it is not given.

    Returns
    -------
    Camera
        Square pixels; the near plane is that of the reference, or nearer where the scene is
        small.

    Raises
    ------
    ValueError
        A size is not positive, or ``up`` is zero or not finite.
    """
    fx = _FOCAL * max(width, height * 4 / 3)
    sample = _Sample(scene)
    upward = guess_up(scene) if up is None else np.asarray(up, dtype=np.float64)
    length = np.linalg.norm(upward)
    if upward.shape != (3,) or not (np.isfinite(length) and length > 0):
        raise ValueError(f"Camera up must be a finite direction and not zero, not {up!r}")
    upward = upward / length
    front = _front(upward)
    if not sample.count:
        return Camera.look_at(
            (0, 0, 0), front, upward, width=width, height=height, fx=fx, near=NEAR
        )
    side = np.cross(front, upward)
    frame = np.stack([side, upward, front])
    points = sample.means @ frame.T
    keep, flat = _bulk(points, sample.opacity)
    points, weight, mass = points[keep], sample.opacity[keep], sample.mass[keep]
    low, centre, high = (
        np.array([_quantiles(points[:, i], weight, (q,))[0] for i in range(3)])
        for q in (0.005, 0.5, 0.995)
    )
    best_side_deg = 0
    if not flat:
        centre = (low + high) / 2
        best_side_deg = _best_side_deg(points, weight, sample.normals()[keep] @ frame.T)
    elevation = np.radians(27.0 if flat else 14.0)
    best: tuple[float, Float64Array, float] | None = None
    for turn_deg in (20, -20, 45, -45, 0, 75, -75, 110, -110, 145, -145, 180):
        turn = np.radians(best_side_deg + turn_deg)
        # From the eye to the centre, in the frame (side, up, front).
        forward = np.array(
            [
                np.sin(turn) * np.cos(elevation),
                -np.sin(elevation),
                np.cos(turn) * np.cos(elevation),
            ]
        )
        distance = _distance(points - centre, weight, forward, width / fx, height / fx, flat)
        blocked = _blocked(points - centre, mass, forward, distance)
        if best is None or blocked < best[0] - 0.02:
            best = blocked, forward, distance
        if blocked < 0.02:
            break
    assert best is not None
    _, forward, distance = best
    eye = centre - forward * distance
    return Camera.look_at(
        eye @ frame,
        centre @ frame,
        upward,
        width=width,
        height=height,
        fx=fx,
        near=min(NEAR, max(0.02 * distance, 1e-6)),
    )


def surround(
    scene: Scene, width: int, height: int, *, frames: int, up: npt.ArrayLike | None = None
) -> Trajectory:
    """Return views of a scene from all around it, say to train on every second one.

    The eye of :func:`default_camera` goes three times around what it looks at, and rises from 0.15
    of the distance below to 0.35 above while it does: neighbours see much the same, and no two
    views are alike.

    Parameters
    ----------
    scene : Scene
        Any scene.
    width, height : int
        Image size in pixels.
    frames : int
        Number of views, at least 1.
    up : array_like, optional
        Upward direction of shape [3]; guessed by :func:`guess_up` where it is not given.

    Raises
    ------
    ValueError
        ``frames`` or a size is not positive, or ``up`` is zero or not finite.
    """
    if int(frames) != frames or frames < 1:
        raise ValueError(f"Trajectory frames must be a whole number of at least 1, not {frames!r}")
    upward = guess_up(scene) if up is None else np.asarray(up, dtype=np.float64)
    first = default_camera(scene, width, height, up=upward)
    upward = upward / np.linalg.norm(upward)
    forward = first.w2c[2, :3]
    # What it looks at: on its axis, as deep as the middle of the scene.
    middle = np.median(scene.means, axis=0).astype(np.float64) if scene.gaussians else forward
    distance = max(float((middle - first.position) @ forward), 2 * first.near)
    target = first.position + distance * forward
    cameras = []
    for k in range(frames):
        share = k / frames
        turn = 2 * np.pi * 3 * share
        side = first.position - target
        # Rodrigues about the vertical.
        around = (
            side * np.cos(turn)
            + np.cross(upward, side) * np.sin(turn)
            + upward * (upward @ side) * (1 - np.cos(turn))
        )
        eye = target + around + upward * distance * (-0.15 + 0.5 * share)
        cameras.append(
            Camera.look_at(
                eye, target, upward, width=width, height=height, fx=first.fx, near=first.near
            )
        )
    return Trajectory(
        name="surround", cameras=tuple(cameras), times_s=np.arange(frames, dtype=np.float64)
    )


class _Sample:
    """Every so many-th Gaussian, with what the guesses weigh it by."""

    def __init__(self, scene: Scene) -> None:
        step = max(1, scene.gaussians // _SAMPLES)
        opacity = 1 / (1 + np.exp(-scene.opacity_logits[::step].astype(np.float64)))
        log_scales = scene.log_scales[::step].astype(np.float64)
        self.means = scene.means[::step].astype(np.float64)
        self.count = len(self.means)
        self.opacity = np.where(opacity > 0.1, opacity, 0.0)
        if self.count and not self.opacity.any():
            self.opacity = np.ones(self.count)
        ordered = np.sort(log_scales, axis=1)
        area = np.exp(ordered[:, 1] + ordered[:, 2])
        if self.count:
            # A background shell is a few enormous Gaussians; they are not what is to be seen.
            area = np.minimum(area, np.quantile(area, 0.95))
        #: Opaque area, shape [N].
        self.mass = self.opacity * np.maximum(area, 1e-300)
        self._is_flat = ordered[:, 0] - ordered[:, 1] < np.log(0.3)
        self._smallest = log_scales.argmin(axis=1)
        self._quats = scene.quats[::step].astype(np.float64)

    def spread_below(self, axis: int, share: float) -> float:
        """Horizontal spread of the lowest ``share`` of the mass along an axis."""
        bound = _quantiles(self.means[:, axis], self.mass, (share,))[0]
        return self._spread(axis, self.means[:, axis] <= bound)

    def spread_above(self, axis: int, share: float) -> float:
        """Horizontal spread of what lies above ``share`` of the mass along an axis."""
        bound = _quantiles(self.means[:, axis], self.mass, (share,))[0]
        return self._spread(axis, self.means[:, axis] >= bound)

    def _spread(self, axis: int, inside: npt.NDArray[np.bool_]) -> float:
        spreads = []
        for other in {0, 1, 2} - {axis}:
            low, high = _quantiles(self.means[inside, other], self.mass[inside], (0.1, 0.9))
            spreads.append(high - low)
        return max(float(np.hypot(*spreads)), 1e-12)

    def share_facing(self, direction: Float64Array) -> float:
        """Share of the flat mass whose normal is within 18 degrees of an axis."""
        facing = np.abs(self.normals() @ direction) > 0.95
        mass = self.mass * self._is_flat
        return float(mass[facing].sum() / max(mass.sum(), 1e-300))

    def normals(self) -> Float64Array:
        """Shortest principal axis of each Gaussian, shape [N, 3]."""
        w, x, y, z = (self._quats / np.linalg.norm(self._quats, axis=1, keepdims=True)).T
        columns = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)],
                [2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)],
                [2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        return columns[self._smallest, :, np.arange(len(w))]

    def tilted_to_ground(self, axis: Float64Array) -> Float64Array:
        """Return ``axis``, or the normal of a plain ground within 25 degrees of it."""
        normals, mass = self.normals(), self.mass * self._is_flat
        tilted = axis
        for narrow in (0.85, 0.93, 0.97):
            facing = np.abs(normals @ tilted) > narrow
            share = mass[facing].sum() / max(mass.sum(), 1e-300)
            # Normals in all directions would have a share of 1 - narrow in there.
            if share < 3 * (1 - narrow) + 0.05:
                return axis
            moment = (normals[facing] * mass[facing, None]).T @ normals[facing]
            tilted = np.linalg.eigh(moment)[1][:, -1]
            tilted = tilted * np.sign(tilted @ axis)
        return tilted if tilted @ axis > np.cos(np.radians(25)) else axis


def _front(up: Float64Array) -> Float64Array:
    """Direction in which the formats' own front view looks, at right angles to ``up``."""
    axis = int(np.argmax(np.abs(up)))
    # -y up: OpenCV, looking along +z. +y up: OpenGL, along -z. z up: Blender, along +y.
    look = np.array([0.0, 1.0, 0.0]) if axis == 2 else np.array([0.0, 0.0, -np.sign(up[1])])
    if axis == 0:
        look = np.array([0.0, 0.0, 1.0])
    look = look - (look @ up) * up
    return look / np.linalg.norm(look)


def _bulk(points: Float64Array, weight: Float64Array) -> tuple[npt.NDArray[np.bool_], bool]:
    """Return which points are the subject and whether they lie flat, in (side, up, front)."""
    keep = np.ones(len(points), bool)
    extent = np.empty(3)
    for axis in (0, 2):
        low, near, middle, far, high = _quantiles(
            points[:, axis], weight, (0.02, 0.2, 0.5, 0.8, 0.98)
        )
        core, extent[axis] = far - near, high - low
        # Tails far beyond the core: a background around a foreground, or floaters.
        if extent[axis] > 4.0 * core:
            reach = 1.25 * max(core, 1e-12)
            keep &= np.abs(points[:, axis] - middle) <= reach
            extent[axis] = 2 * reach
    # The height is that of what is left: a sky above a foreground went with the tails. A figure
    # on a wide ground may have few of the Gaussians and still be the subject.
    inside = points[keep, 1]
    if len(inside):
        low, middle, high = _quantiles(inside, weight[keep], (0.005, 0.5, 0.995))
        extent[1] = high - low
        reach = 1.25 * max(extent[0], extent[2])
        keep &= np.abs(points[:, 1] - middle) <= reach
        extent[1] = min(extent[1], 2 * reach)
    if keep.mean() < 0.05:
        keep[:] = True
    return keep, bool(extent[1] < 0.25 * min(extent[0], extent[2]))


def _best_side_deg(points: Float64Array, weight: Float64Array, normals: Float64Array) -> int:
    """Direction around the vertical, in steps of 30 degrees, in which most Gaussians face.

    0 is the front by the conventions of the axes. A capture dwells on the front of its subject,
    and detail takes Gaussians. In (side, up, front), as everything here.
    """
    horizontal = points[:, [0, 2]]
    low, high = _quantiles(points[:, 1], weight, (0.01, 0.99))
    level = np.clip((points[:, 1] - low) / max(high - low, 1e-12) * 24, 0, 23).astype(int)
    outward = np.zeros_like(horizontal)
    for i in range(24):
        rows = level == i
        if np.count_nonzero(rows) < 20:
            continue
        for j in range(2):
            left, right = _quantiles(horizontal[rows, j], weight[rows], (0.05, 0.95))
            outward[rows, j] = horizontal[rows, j] - (left + right) / 2
    facing = normals[:, [0, 2]]
    facing = facing * np.sign((facing * outward).sum(axis=1, keepdims=True))
    # Not the ground, which faces nowhere around.
    shown = (weight > 0) & (level >= 6)
    if not shown.any():
        return 0
    turns = np.arange(0, 360, 30)
    to_eye = -np.stack([np.sin(np.radians(turns)), np.cos(np.radians(turns))])
    counts = (np.maximum(0, facing[shown] @ to_eye) ** 2).sum(axis=0)
    # A small preference for the front by convention decides where the sides hardly differ.
    return int(
        turns[np.argmax(counts / max(counts.max(), 1e-300) + 0.1 * np.cos(np.radians(turns)))]
    )


def _distance(
    points: Float64Array,
    weight: Float64Array,
    forward: Float64Array,
    aspect_x: float,
    aspect_y: float,
    flat: bool,
) -> float:
    """Distance of an eye that looks along ``forward`` at the origin and sees the points."""
    right = np.cross(forward, (0.0, 1.0, 0.0))
    # The frame (side, up, front) is left-handed or right-handed; only magnitudes count here.
    right = right / np.linalg.norm(right)
    down = np.cross(forward, right)
    depth = points @ forward
    needed = np.maximum(
        np.abs(points @ right) / (0.45 * aspect_x), np.abs(points @ down) / (0.47 * aspect_y)
    )
    share = 0.6 if flat else 0.99
    return max(_quantiles(needed - depth, weight, (share,))[0], 1e-6)


def _blocked(
    points: Float64Array, mass: Float64Array, forward: Float64Array, distance: float
) -> float:
    """Share of the view that opaque things near the eye take up, roughly."""
    depth = points @ forward + distance
    across = np.linalg.norm(points - (points @ forward)[:, None] * forward, axis=1)
    near = (depth > 0) & (depth < 0.35 * distance) & (across < 0.4 * depth)
    # An opaque area a at depth d takes a / d^2 of the solid angle.
    return float((mass[near] / np.maximum(depth[near], 0.02 * distance) ** 2).sum() * 4)


def _quantiles(
    values: Float64Array, weight: Float64Array, shares: tuple[float, ...]
) -> tuple[float, ...]:
    order = np.argsort(values, kind="stable")
    total = np.cumsum(weight[order])
    return tuple(float(values[order][np.searchsorted(total, s * total[-1])]) for s in shares)
