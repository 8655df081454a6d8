"""A room-scale object scene: a glazed teapot on a stone plinth on a tiled floor."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt

from splatforge.scenes.scene import Scene
from splatforge.scenes.surface import (
    Paint,
    Surface,
    Surfels,
    cover,
    grid_of,
    sample,
    unit,
    value_noise,
)
from splatforge.scenes.transform import transform

Float64Array = npt.NDArray[np.float64]

# From z up, in which the scene is laid out, to -y up, which most captures have.
Z_UP_TO_Y_DOWN = np.array([[1.0, 0, 0], [0, 0, -1], [0, 1, 0]])

_LIGHT = unit(np.array([-0.5, -0.62, 0.95]))
_TOP = 0.86  # height of the plinth
_SIZE = 0.215  # of the teapot: scene units per unit of its profile
_FLOOR = 1.2

# Bezier control points of the Utah teapot (M. Newell, 1975): radius and height of the body and
# lid; x and height of the upper and lower outline of handle and spout.
_BODY = [
    [(1.4, 2.4), (1.3375, 2.53125), (1.4375, 2.53125), (1.5, 2.4)],
    [(1.5, 2.4), (1.75, 1.875), (2.0, 1.35), (2.0, 0.9)],
    [(2.0, 0.9), (2.0, 0.45), (1.5, 0.225), (1.5, 0.15)],
    [(1.5, 0.15), (1.5, 0.1), (1.45, 0.02), (1.4, 0.0)],
]
_LID = [
    [(0.0, 3.15), (0.8, 3.15), (0.0, 2.7), (0.2, 2.55)],
    [(0.2, 2.55), (0.4, 2.4), (1.3, 2.4), (1.3, 2.25)],
]
_HANDLE = [
    ([(-1.5, 2.25), (-2.5, 2.25), (-3.0, 2.25), (-3.0, 1.8)],
     [(-1.6, 2.025), (-2.3, 2.025), (-2.7, 2.025), (-2.7, 1.8)]),
    ([(-3.0, 1.8), (-3.0, 1.35), (-2.65, 0.9375), (-1.9, 0.6)],
     [(-2.7, 1.8), (-2.7, 1.575), (-2.5, 1.125), (-2.0, 0.9)]),
]  # fmt: skip
_SPOUT = (
    [(1.7, 1.425), (2.6, 1.425), (2.3, 2.1), (2.7, 2.4)],
    [(1.7, 0.45), (3.1, 0.675), (2.4, 2.025), (3.3, 2.4)],
)


def make_object(gaussians: int, seed: int) -> Scene:
    """Return a generated object scene of SH degree 3, -y up, about 3 units across.

    A glazed teapot stands on a stone plinth, a lemon and two apples beside it on the tiled floor.
    Opacity, size, shape and SH energy follow the object captures in
    :mod:`splatforge.scenes.statistics`. The same arguments give the same bytes, whatever the
    number of threads.

    Parameters
    ----------
    gaussians : int
        Number of Gaussians, at least 1000; 20,000 and more look good.
    seed : int
        Seed of all randomness.

    Raises
    ------
    ValueError
        ``gaussians`` is below 1000.
    """
    if gaussians < 1000:
        raise ValueError(f"Object gaussians must be at least 1000, not {gaussians!r}")
    random = np.random.default_rng(seed)
    surfels = sample(_surfaces(), gaussians, random)
    shade = _light(surfels.positions, surfels.normals)
    tint = 0.97 + 0.06 * random.random((gaussians, 1))
    colors = np.clip(surfels.colors * shade * tint, 0.01, 0.99)
    # Display-referred, as captures are: photographs are stored with a gamma.
    lit = Surfels(**{**vars(surfels), "colors": colors ** (1 / 1.6)})
    scene = cover(lit, "object", _LIGHT, (0, 0, 1), random)
    return transform(scene, Z_UP_TO_Y_DOWN)


def _surfaces() -> list[Surface]:
    def floor(u: Float64Array, v: Float64Array) -> tuple[Float64Array, Float64Array, float]:
        return _FLOOR * np.sqrt(u) * np.cos(v), _FLOOR * np.sqrt(u) * np.sin(v), 0.0

    surfaces = [
        Surface(
            grid=grid_of(floor, (0.0, 1.0), (0, 2 * np.pi), (96, 384)),
            paint=_tiles,
            density=1.0,
            gloss=0.35,
        ),
        # The large, faint Gaussians that captures have below a ground.
        Surface(
            grid=grid_of(floor, (0.0, 0.3), (0, 2 * np.pi), (24, 48)) - (0, 0, 0.16),
            paint=_bed,
            density=0.12,
        ),
    ]
    plinth = [(0.0, _TOP), (0.42, _TOP), (0.44, _TOP - 0.03), (0.44, _TOP - 0.09),
              (0.39, _TOP - 0.13), (0.36, _TOP - 0.17), (0.335, 0.5), (0.35, 0.2),
              (0.40, 0.15), (0.46, 0.12), (0.46, 0.02), (0.48, 0.0)]  # fmt: skip
    surfaces.append(
        Surface(grid=_revolve(_densify(plinth), 160), paint=_stone, density=1.5, gloss=0.12)
    )
    glaze = _glaze
    for segments in (_BODY, _LID):
        profile = np.concatenate([_bezier(segment, 24) for segment in segments])
        grid = _revolve(profile, 240) * _SIZE + (0, 0, _TOP)
        surfaces.append(Surface(grid=grid, paint=glaze, density=2.5, gloss=1.0))
        # Behind the glaze, so that gaps in it are not windows to the far side.
        centre = np.array([0, 0, _TOP + 1.3 * _SIZE])
        surfaces.append(Surface(grid=centre + 0.9 * (grid - centre), paint=_clay, density=1.4))
    for (upper, lower), depth in ((_HANDLE[0], (0.3, 0.3)), (_HANDLE[1], (0.3, 0.3)),
                                  (_SPOUT, (0.66, 0.25))):  # fmt: skip
        grid = _tube(_bezier(upper, 24), _bezier(lower, 24), depth) * _SIZE + (0, 0, _TOP)
        surfaces.append(Surface(grid=grid, paint=glaze, density=2.5, gloss=1.0))
    fruits = (
        ((-0.80, -0.42), (0.105, 0.105, 0.095), (0.72, 0.07, 0.05), 0.8),
        ((-0.62, -0.66), (0.10, 0.10, 0.092), (0.50, 0.62, 0.10), 0.8),
        ((0.72, -0.55), (0.14, 0.095, 0.095), (0.90, 0.70, 0.06), 0.5),
    )
    for (x, y), radii, color, gloss in fruits:
        grid = _ellipsoid((x, y, radii[2]), radii)
        surfaces.append(
            Surface(grid=grid, paint=_skin(color, (x, y, radii[2])), density=2.4, gloss=gloss)
        )
    return surfaces


def _bezier(control: list[tuple[float, float]], steps: int) -> Float64Array:
    t = np.linspace(0, 1, steps)[:, None]
    a, b, c, d = np.asarray(control, dtype=np.float64)
    return (1 - t) ** 3 * a + 3 * (1 - t) ** 2 * t * b + 3 * (1 - t) * t**2 * c + t**3 * d


def _densify(points: list[tuple[float, float]]) -> Float64Array:
    pieces = [np.linspace(start, end, 6) for start, end in pairwise(points)]
    return np.concatenate(pieces)


def _revolve(profile: Float64Array, around: int) -> Float64Array:
    angle = np.linspace(0, 2 * np.pi, around)
    radius, height = profile[:, 0, None], profile[:, 1, None]
    # Profiles run from the top down, which makes the outside the side of du x dv.
    return np.stack(
        [
            radius * np.cos(angle),
            radius * np.sin(angle),
            np.broadcast_to(height, (len(profile), around)),
        ],
        axis=2,
    )


def _tube(upper: Float64Array, lower: Float64Array, depth: tuple[float, float]) -> Float64Array:
    """Tube between two outlines in the x-z plane, with the half depths in y at its ends."""
    angle = np.linspace(0, 2 * np.pi, 40)
    centre, half = (upper + lower) / 2, (upper - lower) / 2
    deep = np.linspace(depth[0], depth[1], len(upper))[:, None]
    plane = centre[:, None] + half[:, None] * np.cos(angle)[:, None]
    y = deep * np.sin(angle)
    grid = np.stack([plane[:, :, 0], y, plane[:, :, 1]], axis=2)
    # Outwards, whichever way the outlines run.
    normal = np.cross(grid[1, 0] - grid[0, 0], grid[0, 1] - grid[0, 0])
    outward = upper[0] - lower[0]
    return grid if normal[[0, 2]] @ outward > 0 else grid[:, ::-1]


def _ellipsoid(
    centre: tuple[float, float, float], radii: tuple[float, float, float]
) -> Float64Array:
    def point(u: Float64Array, v: Float64Array) -> list[Float64Array]:
        return [
            centre[0] + radii[0] * np.sin(u) * np.cos(v),
            centre[1] + radii[1] * np.sin(u) * np.sin(v),
            centre[2] + radii[2] * np.cos(u),
        ]

    return grid_of(point, (0.01, np.pi - 0.01), (0, 2 * np.pi), (24, 48))


def _tiles(positions: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
    side = 0.3
    x, y = positions[:, 0] / side, positions[:, 1] / side
    even = (np.floor(x) + np.floor(y)) % 2 == 0
    light, dark = np.array([0.80, 0.74, 0.63]), np.array([0.40, 0.19, 0.12])
    colors = np.where(even[:, None], light, dark)
    tone = value_noise(np.floor(np.stack([x, y, 0 * x], axis=1)) + 0.5, 1.7) - 0.5
    grain = value_noise(positions, 23.0) - 0.5
    joint = np.minimum(np.abs(x - np.rint(x)), np.abs(y - np.rint(y))) < 0.035
    colors = colors * (1 + 0.25 * tone + 0.22 * grain)[:, None]
    return np.where(joint[:, None], np.array([0.36, 0.34, 0.31]), colors)


def _clay(positions: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
    return np.broadcast_to(np.array([0.03, 0.20, 0.42]), positions.shape)


def _bed(positions: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
    return np.broadcast_to(np.array([0.45, 0.33, 0.26]), positions.shape)


def _stone(positions: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
    speck = value_noise(positions, 70.0)
    cloud = value_noise(positions, 9.0)
    vein = np.abs(value_noise(positions, 5.0) - 0.5) < 0.03
    tone = 0.46 + 0.12 * (cloud - 0.5) + 0.30 * (speck - 0.5) - 0.10 * vein
    return tone[:, None] * np.array([1.0, 0.98, 0.94])


def _glaze(positions: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
    height = (positions[:, 2] - _TOP) / _SIZE
    angle = np.arctan2(positions[:, 1], positions[:, 0])
    blue, cream = np.array([0.03, 0.16, 0.46]), np.array([0.88, 0.84, 0.74])
    deep = np.array([0.02, 0.34, 0.46])
    mix = (0.5 + 0.5 * np.sin(2.2 * height + value_noise(positions, 6.0) * 2))[:, None]
    colors = (1 - mix) * blue + mix * deep
    band = (np.abs(height - 1.45) < 0.34) & (np.hypot(*positions[:, :2].T) < 2.05 * _SIZE)
    wave = np.sin(10 * angle) * 0.16
    inside = np.abs(height - 1.45 - wave) < 0.085
    edge = (np.abs(np.abs(height - 1.45) - 0.33) < 0.035) & band
    return np.where(((band & inside) | edge)[:, None], cream, colors)


def _skin(color: tuple[float, float, float], centre: tuple[float, float, float]) -> Paint:
    def paint(positions: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
        blush = value_noise(positions, 14.0)[:, None]
        pole = np.exp(-(((positions[:, :2] - centre[:2]) / 0.03) ** 2).sum(axis=1))[:, None]
        base = np.array(color) * (0.8 + 0.4 * blush)
        top = positions[:, 2:] > centre[2]
        return np.where(top, base * (1 - 0.55 * pole), base)

    return paint


def _light(positions: Float64Array, normals: Float64Array) -> Float64Array:
    """Light at points of the scene: a lamp with soft shadows, a bluish sky, the floor's bounce."""
    occluders = [((0.0, 0.0, _TOP + 0.95 * _SIZE), 1.85 * _SIZE)]
    occluders += [((0.0, 0.0, z), 0.37) for z in np.linspace(0.2, 0.7, 4)]
    occluders += [((-0.80, -0.42, 0.095), 0.10), ((-0.62, -0.66, 0.092), 0.10),
                  ((0.72, -0.55, 0.095), 0.11)]  # fmt: skip
    lamp = np.clip(normals @ _LIGHT, 0, 1)
    sky = 0.5 + 0.5 * normals[:, 2]
    for centre, radius in occluders:
        offset = np.array(centre) - positions
        along = offset @ _LIGHT
        gap = np.linalg.norm(offset - along[:, None] * _LIGHT, axis=1) - radius
        # A point on the occluder itself is shaded by its normal already.
        outside = np.linalg.norm(offset, axis=1) > radius * 1.12
        softness = 0.03 + 0.10 * np.maximum(along, 0)
        shadow = np.clip(0.5 - gap / (2 * softness), 0, 1) * ((along > 0) & outside)
        lamp = lamp * (1 - shadow)
        distance = np.maximum(np.linalg.norm(offset, axis=1), 1.0 * radius)
        facing = np.clip((offset * normals).sum(axis=1) / distance, 0, 1)
        sky = sky * (1 - 0.75 * facing * (radius / distance) ** 2 * outside)
    # The crease between plinth and floor, and the foot of the teapot.
    around = np.hypot(positions[:, 0], positions[:, 1])
    foot = np.exp(-np.clip(positions[:, 2], 0, None) / 0.08) * np.exp(-np.abs(around - 0.46) / 0.1)
    rest = np.exp(-np.abs(positions[:, 2] - _TOP) / 0.04) * (around < 0.4)
    sky = sky * (1 - 0.45 * foot) * (1 - 0.35 * rest)
    bounce = np.clip(-normals[:, 2] * 0.5 + 0.5, 0, 1) * np.exp(
        -np.clip(positions[:, 2], 0, 2) / 0.6
    )
    return (
        lamp[:, None] * np.array([1.02, 0.96, 0.84])
        + sky[:, None] * np.array([0.34, 0.38, 0.45])
        + 0.10 * bounce[:, None] * np.array([1.0, 0.75, 0.55])
    )
