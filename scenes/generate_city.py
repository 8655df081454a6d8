"""A city district with levels of detail: blocks of houses and towers, trees, streets, a park."""

import numpy as np
import numpy.typing as npt

from splatforge.scenes.generate_object import Z_UP_TO_Y_DOWN
from splatforge.scenes.scene import SH_COEFFICIENTS, Scene
from splatforge.scenes.surface import (
    Paint,
    Surface,
    Surfels,
    cover,
    grid_of,
    matrix_quats,
    sample,
    unit,
    value_noise,
)
from splatforge.scenes.transform import transform

Float64Array = npt.NDArray[np.float64]

_LIGHT = unit(np.array([-0.55, -0.45, 0.8]))
_BLOCK = 58.0  # metres from street to street
_STREET = 13.0
# Gaussians that become one in the next level.
_MERGE = 4
_METRES_PER_GAUSSIAN = 0.95  # along one side of the ground


def make_city(gaussians: int, seed: int, levels: int = 1) -> list[Scene]:
    """Return a generated city district at several levels of detail, finest first.

    SH degree 3, -y up, in metres. The district grows with the number of Gaussians, so that their
    size stays that of a drone capture. Opacity, size, shape and SH energy of the finest level
    follow the city captures in :mod:`splatforge.scenes.statistics`. Every further level has a
    quarter of the Gaussians: four neighbours each become the one with their mean, covariance,
    colour and opaque area. The same arguments give the same bytes, whatever the number of
    threads.

    Parameters
    ----------
    gaussians : int
        Number of Gaussians of the finest level, at least 5000; 100,000 and more look good.
    seed : int
        Seed of the plan and of all randomness.
    levels : int
        Number of levels, 1 to 8.

    Raises
    ------
    ValueError
        ``gaussians`` is below 5000, or ``levels`` is not 1 to 8 or leaves fewer than one Gaussian.
    """
    if gaussians < 5000:
        raise ValueError(f"City gaussians must be at least 5000, not {gaussians!r}")
    if not 1 <= levels <= 8 or gaussians // _MERGE ** (levels - 1) < 1:
        raise ValueError(f"City levels must be 1 to 8 with a Gaussian in each, not {levels!r}")
    random = np.random.default_rng(seed)
    blocks = max(2, round(np.sqrt(gaussians) * _METRES_PER_GAUSSIAN / _BLOCK))
    surfels = sample(_plan(blocks, random), gaussians, random)
    colors = np.clip(surfels.colors * _light(surfels, blocks), 0.01, 0.99)
    lit = Surfels(**{**vars(surfels), "colors": colors ** (1 / 1.5)})
    scenes = [cover(lit, "city", _LIGHT, (0, 0, 1), random)]
    while len(scenes) < levels:
        scenes.append(merge_neighbours(scenes[-1]))
    return [transform(scene, Z_UP_TO_Y_DOWN) for scene in scenes]


def merge_neighbours(scene: Scene, group: int = _MERGE) -> Scene:
    """Return the scene with every ``group`` neighbours along a space-filling curve made one.

    Mean and covariance are those of the group as a mixture weighted by opaque area, but for the
    few groups that are spread out far more than the others, which stay compact; colour
    coefficients and opacity are the weighted means.
    """
    order = np.argsort(_morton(scene.means), kind="stable")
    n = -(-len(order) // group)
    # A last group that is not full repeats its last member, with no weight.
    index = np.minimum(np.arange(n * group), len(order) - 1)
    rows = order[index].reshape(n, group)
    means = scene.means.astype(np.float64)[rows]
    scales = np.exp(scene.log_scales.astype(np.float64))[rows]
    opacity = 1 / (1 + np.exp(-scene.opacity_logits.astype(np.float64)))[rows]
    ordered = np.sort(scales, axis=2)
    weight = opacity * ordered[:, :, 1] * ordered[:, :, 2]
    weight[np.arange(n * group).reshape(n, group) >= len(order)] = 0
    weight = weight / weight.sum(axis=1, keepdims=True)
    mean = (means * weight[:, :, None]).sum(axis=1)
    rotation = _matrices(scene.quats.astype(np.float64))[rows]
    spread = rotation * scales[:, :, None, :]
    offset = means - mean[:, None]
    covariance = np.einsum("ng,ngij,ngkj->nik", weight, spread, spread)
    covariance += np.einsum("ng,ngi,ngk->nik", weight, offset, offset)
    variance, axes = np.linalg.eigh(covariance)
    # Where the curve jumps, a group spans the gap; it must not become a needle across it.
    radius = np.sqrt((weight[:, :, None] * offset**2).sum(axis=(1, 2)))
    limit = np.maximum(scales.max(axis=(1, 2)), 2.0 * np.median(radius))
    variance = np.minimum(variance, limit[:, None] ** 2)
    axes[:, :, 2] = np.cross(axes[:, :, 0], axes[:, :, 1])
    merged = np.clip((opacity * weight).sum(axis=1), 1e-4, 1 - 1e-4)
    return Scene(
        means=mean.astype(np.float32),
        log_scales=(0.5 * np.log(np.maximum(variance, 1e-12))).astype(np.float32),
        quats=matrix_quats(axes).astype(np.float32),
        opacity_logits=np.log(merged / (1 - merged)).astype(np.float32),
        sh=np.einsum("ng,ngkc->nkc", weight, scene.sh.astype(np.float64)[rows]).astype(np.float32)
        if scene.gaussians
        else np.zeros((0, SH_COEFFICIENTS[scene.sh_degree], 3), np.float32),
        antialiased=scene.antialiased,
    )


def _morton(means: npt.NDArray[np.float32]) -> npt.NDArray[np.uint64]:
    low, high = means.min(axis=0), means.max(axis=0)
    side = max(float((high - low).max()), 1e-12)
    cells = ((means.astype(np.float64) - low) / side * (2**20 - 1)).astype(np.uint64)
    code = np.zeros(len(means), np.uint64)
    for bit in range(20):
        for axis in range(3):
            code |= (cells[:, axis] >> np.uint64(bit) & np.uint64(1)) << np.uint64(3 * bit + axis)
    return code


def _matrices(quats: Float64Array) -> Float64Array:
    w, x, y, z = (quats / np.linalg.norm(quats, axis=1, keepdims=True)).T
    return np.stack(
        [
            np.stack([1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)], axis=1),
            np.stack([2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)], axis=1),
            np.stack([2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)], axis=1),
        ],
        axis=1,
    )


def _plan(blocks: int, random: np.random.Generator) -> list[Surface]:
    half = blocks * _BLOCK / 2

    def ground(u: Float64Array, v: Float64Array) -> tuple[Float64Array, Float64Array, float]:
        return u, v, 0.0

    steps = min(16 * blocks, 400) + 1
    surfaces = [
        Surface(
            grid=grid_of(ground, (-half, half), (-half, half), (steps, steps)),
            paint=_ground_paint(half),
            density=0.8,
        ),
        Surface(
            grid=grid_of(ground, (-0.9 * half, 0.9 * half), (-0.9 * half, 0.9 * half), (9, 9))
            - np.array([0, 0, 1.5]),
            paint=_plain(np.array([0.38, 0.36, 0.32])),
            density=0.12,
        ),
    ]
    park = (int(random.integers(blocks)), int(random.integers(blocks)))
    for bx in range(blocks):
        for by in range(blocks):
            corner = np.array([bx, by]) * _BLOCK - half + _STREET / 2
            inner = _BLOCK - _STREET
            if (bx, by) == park:
                surfaces += _park(corner, inner, random)
                continue
            # Towers crowd in the middle.
            centre = np.hypot(bx - (blocks - 1) / 2, by - (blocks - 1) / 2) / max(blocks / 2, 1)
            surfaces += _block(corner, inner, float(np.exp(-3 * centre**2)), random)
    return surfaces


def _block(
    corner: Float64Array, inner: float, urban: float, random: np.random.Generator
) -> list[Surface]:
    surfaces: list[Surface] = []
    if random.random() < 0.25 + 0.5 * urban:
        lots = [(0.5, 0.5, 0.58 + 0.25 * random.random(), 0.58 + 0.25 * random.random())]
    else:
        lots = [
            (x, y, 0.26 + 0.04 * random.random(), 0.26 + 0.04 * random.random())
            for x in (0.18, 0.5, 0.82)
            for y in (0.18, 0.5, 0.82)
            if (x, y) != (0.5, 0.5) or random.random() < 0.5
        ]
    for x, y, wide, deep in lots:
        low = corner + inner * (np.array([x, y]) - np.array([wide, deep]) / 2)
        high = low + inner * np.array([wide, deep])
        if random.random() < 0.08:
            surfaces += _trees(low, high, 5, random)
        elif len(lots) == 1:
            height = 14 + 12 * random.random() + 75 * urban * random.random() ** 1.5
            surfaces += _tower(low, high, height, random)
        else:
            surfaces += _house(low, high, 4.5 + 5.5 * random.random(), random)
    surfaces += _trees(corner - 2.5, corner + np.array([inner + 2.5, 0]), 4, random)
    surfaces += _trees(corner + np.array([-2.5, inner]), corner + inner + 2.5, 4, random)
    return surfaces


def _wall(start: Float64Array, end: Float64Array, top: float, paint: Paint) -> Surface:
    def point(u: Float64Array, v: Float64Array) -> list[Float64Array]:
        return [start[0] + (end[0] - start[0]) * u, start[1] + (end[1] - start[1]) * u, top * v]

    length = float(np.hypot(*(end - start)))
    shape = (max(3, min(64, int(length / 1.1))), max(3, min(192, int(top / 0.6))))
    return Surface(grid=grid_of(point, (0, 1), (0, 1), shape), paint=paint, density=1.1, gloss=0.3)


def _walls(low: Float64Array, high: Float64Array, top: float, paint: Paint) -> list[Surface]:
    corners = [low, np.array([high[0], low[1]]), high, np.array([low[0], high[1]])]
    return [_wall(corners[i], corners[(i + 1) % 4], top, paint) for i in range(4)]


def _quad(corners: list[tuple[float, float, float]], paint: Paint, cells: int = 10) -> Surface:
    a, b, c, d = np.asarray(corners, dtype=np.float64)

    def point(u: Float64Array, v: Float64Array) -> list[Float64Array]:
        return [
            (1 - v) * ((1 - u) * a[i] + u * b[i]) + v * ((1 - u) * d[i] + u * c[i])
            for i in range(3)
        ]

    return Surface(grid=grid_of(point, (0, 1), (0, 1), (cells, cells)), paint=paint)


def _tower(
    low: Float64Array, high: Float64Array, height: float, random: np.random.Generator
) -> list[Surface]:
    palette = ((0.80, 0.78, 0.74), (0.62, 0.66, 0.70), (0.74, 0.66, 0.56), (0.88, 0.87, 0.84))
    color = np.array(palette[int(random.integers(len(palette)))]) * (0.85 + 0.2 * random.random())
    storey, bay = 4.2, 12.0 + 8.0 * random.random()
    glass = np.array([0.16, 0.24, 0.32])
    share = 0.35 + 0.2 * random.random()

    def facade(p: Float64Array, n: Float64Array, _: Float64Array) -> Float64Array:
        along = np.where(np.abs(n[:, 0]) > np.abs(n[:, 1]), p[:, 1], p[:, 0])
        pane = (np.mod(p[:, 2], storey) / storey < share) & (np.mod(along, bay) < bay - 0.8)
        tone = 0.92 + 0.16 * value_noise(p, 0.15)
        return np.where((pane & (p[:, 2] > 1.5))[:, None], glass, color * tone[:, None])

    roof = np.array([0.52, 0.51, 0.50]) * (0.8 + 0.4 * random.random())
    surfaces = _walls(low, high, height, facade)
    surfaces += _core(low, high, height, _plain(0.55 * color + 0.45 * glass))
    surfaces.append(_roof(low, high, height, _plain(roof)))
    size = (high - low) * 0.3
    start = low + (high - low) * (0.1 + 0.5 * random.random(2))
    hut = [_raised(wall, height) for wall in _walls(start, start + size, 3.0, _plain(color * 0.9))]
    return [*surfaces, *hut, _roof(start, start + size, height + 3.0, _plain(roof * 1.2))]


def _core(low: Float64Array, high: Float64Array, top: float, paint: Paint) -> list[Surface]:
    """Walls within the walls, so that gaps in these are not windows to the far side."""
    inside = _walls(low + 1.2, high - 1.2, top - 0.5, paint)
    return [Surface(grid=wall.grid, paint=paint, density=0.6) for wall in inside]


def _raised(surface: Surface, height: float) -> Surface:
    return Surface(grid=surface.grid + np.array([0, 0, height]), paint=surface.paint)


def _roof(low: Float64Array, high: Float64Array, z: float, paint: Paint) -> Surface:
    corners = [(low[0], low[1], z), (high[0], low[1], z), (high[0], high[1], z),
               (low[0], high[1], z)]  # fmt: skip
    return _quad(corners, paint, 16)


def _house(
    low: Float64Array, high: Float64Array, height: float, random: np.random.Generator
) -> list[Surface]:
    walls = ((0.86, 0.82, 0.74), (0.82, 0.70, 0.56), (0.76, 0.78, 0.74), (0.80, 0.62, 0.52))
    roofs = ((0.60, 0.25, 0.14), (0.66, 0.33, 0.20), (0.44, 0.22, 0.16), (0.40, 0.40, 0.42))
    wall = np.array(walls[int(random.integers(len(walls)))])
    roof = np.array(roofs[int(random.integers(len(roofs)))]) * (0.85 + 0.3 * random.random())

    def facade(p: Float64Array, n: Float64Array, _: Float64Array) -> Float64Array:
        along = np.where(np.abs(n[:, 0]) > np.abs(n[:, 1]), p[:, 1], p[:, 0])
        storey = np.mod(p[:, 2] - 0.9, 3.0)
        pane = (storey < 1.3) & (np.mod(along, 2.6) < 1.0) & (p[:, 2] > 0.9)
        return np.where(pane[:, None], np.array([0.20, 0.22, 0.25]), wall)

    def shingles(p: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
        tone = 0.82 + 0.36 * value_noise(p, 0.7)
        return roof * tone[:, None]

    surfaces = _walls(low, high, height, facade)
    surfaces += _core(low, high, height, _plain(wall))
    ridge = height + 0.32 * min(high - low)
    x0, y0, x1, y1 = *(low - 0.5), *(high + 0.5)
    if high[0] - low[0] > high[1] - low[1]:
        middle = (y0 + y1) / 2
        sides = [
            [(x0, y0, height), (x1, y0, height), (x1, middle, ridge), (x0, middle, ridge)],
            [(x1, y1, height), (x0, y1, height), (x0, middle, ridge), (x1, middle, ridge)],
        ]
    else:
        middle = (x0 + x1) / 2
        sides = [
            [(x0, y1, height), (x0, y0, height), (middle, y0, ridge), (middle, y1, ridge)],
            [(x1, y0, height), (x1, y1, height), (middle, y1, ridge), (middle, y0, ridge)],
        ]
    return surfaces + [_quad(corners, shingles) for corners in sides]


def _trees(
    low: Float64Array, high: Float64Array, count: int, random: np.random.Generator
) -> list[Surface]:
    surfaces = []
    for _ in range(count):
        x, y = low + (high - low) * random.random(2)
        radius = 1.8 + 1.8 * random.random()
        z = radius * (1.1 + 0.5 * random.random()) + 1.0
        green = np.array([0.20, 0.34, 0.11]) * (0.7 + 0.7 * random.random())

        def crown(u: Float64Array, v: Float64Array, x=x, y=y, z=z, r=radius) -> list[Float64Array]:
            return [
                x + r * np.sin(u) * np.cos(v),
                y + r * np.sin(u) * np.sin(v),
                z + r * np.cos(u),
            ]

        surfaces.append(
            Surface(
                grid=grid_of(crown, (0.05, 2.6), (0, 2 * np.pi), (7, 12)),
                paint=_leaves(green),
                density=0.8,
                fuzz=0.6 * radius,
            )
        )
    return surfaces


def _park(corner: Float64Array, inner: float, random: np.random.Generator) -> list[Surface]:
    return _trees(corner + 2, corner + inner - 2, 26, random)


def _plain(color: Float64Array) -> Paint:
    def paint(p: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
        return color * (0.88 + 0.24 * value_noise(p, 0.3))[:, None]

    return paint


def _leaves(green: Float64Array) -> Paint:
    def paint(p: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
        return green * (0.55 + 0.9 * value_noise(p, 1.1))[:, None]

    return paint


def _ground_paint(half: float) -> Paint:
    def paint(p: Float64Array, _: Float64Array, __: Float64Array) -> Float64Array:
        x, y = (np.abs(np.mod(p[:, i] + half + _BLOCK / 2, _BLOCK) - _BLOCK / 2) for i in (0, 1))
        nearest = np.minimum(x, y)
        tone = (0.85 + 0.3 * value_noise(p, 0.4))[:, None]
        yard = np.where(
            value_noise(p, 0.06)[:, None] > 0.5,
            np.array([0.30, 0.36, 0.17]),
            np.array([0.50, 0.45, 0.38]),
        )
        asphalt, pavement = np.array([0.27, 0.27, 0.28]), np.array([0.58, 0.56, 0.53])
        colors = np.where((nearest < _STREET / 2 - 2.0)[:, None], asphalt, pavement)
        colors = np.where((nearest > _STREET / 2)[:, None], yard, colors)
        dash = (nearest < 0.35) & (np.maximum(x, y) > _STREET / 2)
        dash &= np.mod(p[:, 0] + p[:, 1], 6.0) < 3.0
        return np.where(dash[:, None], np.array([0.80, 0.79, 0.74]), colors * tone)

    return paint


def _light(surfels: Surfels, blocks: int) -> Float64Array:
    """Sun with shadows from a height map, and a sky that streets see less of."""
    positions, normals = surfels.positions, surfels.normals
    cell = 2.0
    half = blocks * _BLOCK / 2 + 20
    side = int(2 * half / cell) + 1
    heights = np.zeros((side, side))
    column = np.clip(((positions[:, :2] + half) / cell).astype(int), 0, side - 1)
    np.maximum.at(heights, (column[:, 0], column[:, 1]), positions[:, 2])
    sun = np.clip(normals @ _LIGHT, 0, 1)
    openness = np.ones(len(positions))
    for step in range(1, 25):
        reach = 1.6 * step**1.25
        point = positions + normals * 0.8 + _LIGHT * reach
        at = np.clip(((point[:, :2] + half) / cell).astype(int), 0, side - 1)
        above = point[:, 2] - heights[at[:, 0], at[:, 1]]
        # The edge of the shadow softens with the distance of what casts it.
        sun = np.minimum(sun, np.clip(0.5 + above / (0.6 + 0.06 * reach), 0.0, 1.0))
    for angle in np.arange(8) * np.pi / 4:
        for reach in (4.0, 9.0, 18.0):
            offset = reach * np.array([np.cos(angle), np.sin(angle)])
            at = np.clip(((positions[:, :2] + offset + half) / cell).astype(int), 0, side - 1)
            rise = np.maximum(0, heights[at[:, 0], at[:, 1]] - positions[:, 2] - 0.5)
            openness -= 0.03 * np.minimum(rise / reach, 1.5)
    sky = (0.55 + 0.45 * normals[:, 2]) * np.clip(openness, 0.15, 1)
    return sun[:, None] * np.array([0.98, 0.92, 0.80]) + sky[:, None] * np.array([0.44, 0.48, 0.54])
