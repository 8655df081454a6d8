"""Surfaces that generated scenes are made of, and the Gaussians that cover them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from splatforge.scenes import statistics
from splatforge.scenes.scene import SH_COEFFICIENTS, Scene
from splatforge.scenes.slots import SH_C0
from splatforge.scenes.transform import sh_basis

Float64Array = npt.NDArray[np.float64]

#: Colour of points: positions [N, 3], normals [N, 3] and surface coordinates [N, 2] in [0, 1] to
#: RGB [N, 3] in [0, 1], before light.
Paint = Callable[[Float64Array, Float64Array, Float64Array], Float64Array]


@dataclass(frozen=True, kw_only=True)
class Surface:
    """A piece of surface.

    Parameters
    ----------
    grid : ndarray
        Points of shape [U, V, 3]; the surface is bilinear between them, and its outer side is
        that of ``dP/du x dP/dv``.
    paint : callable
        Colour before light.
    density : float
        Gaussians per area, relative to other surfaces.
    gloss : float
        How much the highlight of the light shows, 0 (matt) to 1.
    fuzz : float
        Depth of the layer around the surface in which Gaussians lie, in scene units: foliage.
    """

    grid: Float64Array
    paint: Paint
    density: float = 1.0
    gloss: float = 0.1
    fuzz: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Surfels:
    """Points on surfaces; arrays of one row each."""

    positions: Float64Array
    normals: Float64Array
    tangents: Float64Array
    colors: Float64Array
    edge: Float64Array
    spacing: Float64Array
    gloss: Float64Array
    solid: npt.NDArray[np.bool_]


def sample(surfaces: Sequence[Surface], count: int, random: np.random.Generator) -> Surfels:
    """Return ``count`` points spread over ``surfaces``, denser where there is detail.

    As training does it, edges of shape and colour get more and smaller Gaussians, drawn out along
    the edge; how much detail there is and along which way comes from the structure tensor of
    colour and normal on the grid.
    """
    spacing = np.sqrt(sum(_cell_areas(surface.grid).sum() for surface in surfaces) / count)
    details = [_detail(surface, spacing) for surface in surfaces]
    weights = np.array([detail.weight.sum() for detail in details])
    ends = np.rint(np.cumsum(weights) / weights.sum() * count).astype(int)
    starts = np.concatenate([[0], ends[:-1]])
    columns: list[list[npt.NDArray]] = [[] for _ in range(8)]
    for surface, detail, start, end in zip(surfaces, details, starts, ends, strict=True):
        n = int(end - start)
        if n == 0:
            continue
        row = _sample_one(surface, detail, n, random)
        row[5] = row[5] * np.sqrt(weights.sum() / count)
        row += [np.full(n, surface.gloss), np.full(n, surface.fuzz == 0)]
        for column, values in zip(columns, row, strict=True):
            column.append(values)
    names = (*("positions", "normals", "tangents", "colors", "edge", "spacing", "gloss", "solid"),)
    values = (np.concatenate(column) for column in columns)
    return Surfels(**dict(zip(names, values, strict=True)))


@dataclass(frozen=True, kw_only=True)
class _Detail:
    """Per cell of a grid: how many Gaussians it wants, per area and in all, and its edges."""

    density: Float64Array  # [U, V] Gaussians per area, relative
    weight: Float64Array  # [U, V] Gaussians, relative
    along: Float64Array  # [U, V, 3] direction in which shape and colour change least
    edge: Float64Array  # [U, V] 0 where all directions are alike, 1 on a sharp edge


def _cell_areas(grid: Float64Array) -> Float64Array:
    first = grid[1:, 1:] - grid[:-1, :-1]
    second = grid[1:, :-1] - grid[:-1, 1:]
    return 0.5 * np.linalg.norm(np.cross(first, second), axis=2)


def _detail(surface: Surface, spacing: float) -> _Detail:
    grid = surface.grid
    centre = (grid[1:, 1:] + grid[:-1, :-1] + grid[1:, :-1] + grid[:-1, 1:]) / 4
    along_u = (grid[1:, 1:] + grid[1:, :-1] - grid[:-1, 1:] - grid[:-1, :-1]) / 2
    along_v = (grid[1:, 1:] + grid[:-1, 1:] - grid[1:, :-1] - grid[:-1, :-1]) / 2
    normal = unit(np.cross(along_u, along_v))
    shape = normal.shape[:2]
    coordinates = np.stack(
        np.meshgrid(
            (np.arange(shape[0]) + 0.5) / shape[0],
            (np.arange(shape[1]) + 0.5) / shape[1],
            indexing="ij",
        ),
        axis=2,
    )
    color = surface.paint(
        centre.reshape(-1, 3), normal.reshape(-1, 3), coordinates.reshape(-1, 2)
    ).reshape(*shape, 3)
    # Colour counts more than shape: a step of a half is as sharp an edge as a right angle.
    features = np.concatenate([3.0 * color, normal], axis=2)
    by_u, by_v = (
        np.gradient(features, axis=axis) if shape[axis] > 1 else np.zeros_like(features)
        for axis in (0, 1)
    )
    x = unit(along_u)
    y = np.cross(normal, x)
    # From steps of the grid to steps of length along x and y.
    length = np.maximum(np.linalg.norm(along_u, axis=2), 1e-9)[..., None]
    skew = (along_v * x).sum(axis=2)[..., None]
    height = np.maximum(np.abs((along_v * y).sum(axis=2)), 1e-9)[..., None]
    by_x = by_u / length
    by_y = (by_v - by_x * skew) / height
    xx, yy, xy = ((p * q).sum(axis=2) for p, q in ((by_x, by_x), (by_y, by_y), (by_x, by_y)))
    half, gap = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
    turn = 0.5 * np.arctan2(2 * xy, xx - yy) + np.pi / 2
    along = np.cos(turn)[..., None] * x + np.sin(turn)[..., None] * y
    rate = np.sqrt(2 * half) * spacing
    density = surface.density * (1 + np.minimum(0.35 * rate, 2.0) ** 2)
    return _Detail(
        density=density,
        weight=density * _cell_areas(grid),
        along=along,
        edge=gap / np.maximum(half, 1e-12) * np.minimum(rate, 1.0),
    )


def _sample_one(
    surface: Surface, detail: _Detail, n: int, random: np.random.Generator
) -> list[npt.NDArray]:
    total = np.cumsum(detail.weight.reshape(-1))
    # One point per equal share of the weight: even without looking regular.
    share = (np.arange(n) + random.random(n)) / n * total[-1]
    cell = np.minimum(np.searchsorted(total, share, side="right"), len(total) - 1)
    i, j = np.divmod(cell, detail.weight.shape[1])
    s, t = random.random((2, n))[:, :, None]
    grid = surface.grid
    a, b, c, d = grid[i, j], grid[i + 1, j], grid[i, j + 1], grid[i + 1, j + 1]
    positions = (1 - s) * ((1 - t) * a + t * c) + s * ((1 - t) * b + t * d)
    along_u = (1 - t) * (b - a) + t * (d - c)
    along_v = (1 - s) * (c - a) + s * (d - b)
    normals = unit(np.cross(along_u, along_v))
    coordinates = np.stack(
        [(i + s[:, 0]) / (grid.shape[0] - 1), (j + t[:, 0]) / (grid.shape[1] - 1)], axis=1
    )
    colors = np.clip(surface.paint(positions, normals, coordinates), 0, 1)
    tangents, edge = detail.along[i, j], detail.edge[i, j]
    if surface.fuzz:
        positions = positions + normals * surface.fuzz * (random.random((n, 1)) - 0.7)
        normals = unit(normals + 1.6 * (random.random((n, 3)) - 0.5))
        tangents = np.cross(normals, random.random((n, 3)) - 0.5)
        edge = np.zeros(n)
    return [positions, normals, tangents, colors, edge, detail.density[i, j] ** -0.5]


def unit(vectors: Float64Array) -> Float64Array:
    """Return vectors of shape [..., 3] with their lengths made 1; zero vectors stay zero."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-12)


def cover(
    surfels: Surfels,
    profile: str,
    light: npt.ArrayLike,
    up: npt.ArrayLike,
    random: np.random.Generator,
) -> Scene:
    """Return Gaussians on lit surfels, with the statistics of the captures of ``profile``.

    What each Gaussian should be like relative to the others (larger on plain surfaces, opaque
    where solid, more view-dependent where glossy) gives it a rank in every quantity; the value at
    that rank is the captures' own, so the distributions agree by construction.

    Parameters
    ----------
    surfels : Surfels
        Points with colours after light.
    profile : str
        ``object`` or ``city``; see :mod:`splatforge.scenes.statistics`.
    light : array_like
        Direction to the light, shape [3].
    up : array_like
        Upward direction, shape [3].
    random : numpy.random.Generator
        Source of all randomness.
    """
    n = len(surfels.positions)
    extent = statistics.scene_extent(surfels.positions)
    noise = random.random((8, n))
    log_spacing = np.log(surfels.spacing)
    chance = (noise[0] + noise[1]) / 2
    log_size = _by_rank(profile, "log_size", log_spacing + 0.8 * chance)
    log_size += np.log(extent) - 0.5 * np.log(n)
    # What is large among its neighbours is round and opaque, too: it carries the surface.
    stretch = _by_rank(profile, "log_stretch", noise[2] + 1.2 * surfels.edge - 0.8 * chance)
    flatness = _by_rank(profile, "log_flatness", noise[3] + 0.5 * surfels.solid + 0.5 * log_spacing)
    opacity = _by_rank(profile, "opacity", noise[4] + 0.6 * surfels.solid + 0.8 * chance)
    log_scales = np.stack([log_size, log_size - stretch, log_size - stretch - flatness], axis=1)
    normals = surfels.normals
    tangents = unit(
        surfels.tangents - (surfels.tangents * normals).sum(axis=1, keepdims=True) * normals
    )
    # Along the edge where there is one, any way where there is none.
    turn = (2 * np.pi * noise[5] * (1 - surfels.edge) ** 2)[:, None]
    long: Float64Array = np.cos(turn) * tangents + np.sin(turn) * np.cross(normals, tangents)
    axes: Float64Array = np.stack([long, np.cross(normals, long), normals], axis=2)
    quats = matrix_quats(axes)
    sh = np.zeros((n, SH_COEFFICIENTS[3], 3))
    sh[:, 0] = (surfels.colors - 0.5) / SH_C0
    _shine(sh, surfels, profile, np.asarray(light, np.float64), np.asarray(up, np.float64), noise)
    return Scene(
        means=surfels.positions.astype(np.float32),
        log_scales=log_scales.astype(np.float32),
        quats=quats.astype(np.float32),
        opacity_logits=np.log(opacity / (1 - opacity)).astype(np.float32),
        sh=sh.astype(np.float32),
    )


def _by_rank(profile: str, quantity: str, wish: Float64Array) -> Float64Array:
    """Return values with the captures' distribution in the order of ``wish``."""
    n = len(wish)
    share = np.empty(n)
    share[np.argsort(wish, kind="stable")] = (np.arange(n) + 0.5) / n
    values = np.interp(share, statistics.LEVELS, statistics.quantiles(profile, quantity))
    return np.clip(values, 1e-4, 1 - 1e-4) if quantity == "opacity" else values


def _shine(
    sh: Float64Array,
    surfels: Surfels,
    profile: str,
    light: Float64Array,
    up: Float64Array,
    noise: Float64Array,
) -> None:
    """Fill the bands above 0: a highlight where glossy, slow drifts elsewhere, as captures have."""
    normals = surfels.normals
    mirrored = 2 * (normals @ light)[:, None] * normals - light
    lit = np.clip(normals @ light, 0, 1)
    # The basis is evaluated at directions from the eye to the Gaussian; the highlight is seen by
    # an eye in the mirrored direction.
    lobe = sh_basis(-unit(mirrored))
    sky = sh_basis(np.broadcast_to(-up, normals.shape))
    extent = statistics.scene_extent(surfels.positions)
    drift = _drift(surfels.positions / extent, SH_COEFFICIENTS[3])
    gloss = surfels.gloss * lit
    # Neighbours disagree in what training left undetermined, so it cancels in the picture.
    sign = np.where(noise[7] < 0.5, -1.0, 1.0)[:, None, None]
    for degree in (1, 2, 3):
        band = slice(SH_COEFFICIENTS[degree - 1], SH_COEFFICIENTS[degree])
        shape = (
            gloss[:, None, None] * lobe[:, band, None] * (1.0, 0.97, 0.9)
            + 0.05 * surfels.gloss[:, None, None] * sky[:, band, None] * (0.8, 0.9, 1.0)
            + 0.06 * sign * drift[:, band]
        )
        rms = np.sqrt((shape**2).mean(axis=(1, 2)))
        energy = _by_rank(profile, f"sh_energy_{degree}", gloss + 0.25 * noise[6])
        sh[:, band] = shape * (energy / np.maximum(rms, 1e-12))[:, None, None]


def _drift(points: Float64Array, coefficients: int) -> Float64Array:
    """Smooth pseudo-random fields of a position, shape [N, coefficients, 3]."""
    # Fixed frequencies and phases from the golden ratio: no two coefficients drift alike.
    index = np.arange(coefficients * 3)
    phase = 2 * np.pi * np.modf(0.6180339887498949 * (index + 1))[0]
    directions = np.stack(
        [np.sin(1.3 * index + 0.4), np.sin(2.1 * index + 1.7), np.sin(3.7 * index + 2.9)]
    )
    waves = np.sin(9.0 * points @ directions + phase).reshape(len(points), coefficients, 3)
    # Brightness varies more than hue does.
    return 0.92 * waves.mean(axis=2, keepdims=True) + 0.08 * waves


def matrix_quats(matrices: Float64Array) -> Float64Array:
    """Return quaternions w, x, y, z of shape [N, 4] of rotation matrices of shape [N, 3, 3]."""
    (a, b, c), (d, e, f), (g, h, i) = np.moveaxis(matrices, 0, 2)
    candidates = np.stack(
        [
            np.stack([1 + a + e + i, h - f, c - g, d - b], axis=1),
            np.stack([h - f, 1 + a - e - i, b + d, c + g], axis=1),
            np.stack([c - g, b + d, 1 - a + e - i, f + h], axis=1),
            np.stack([d - b, c + g, f + h, 1 - a - e + i], axis=1),
        ],
        axis=1,
    )
    best = np.argmax(np.einsum("nii->ni", candidates), axis=1)
    quats = candidates[np.arange(len(best)), best]
    return quats / np.linalg.norm(quats, axis=1, keepdims=True)


def grid_of(
    point: Callable[[Float64Array, Float64Array], Sequence[Float64Array | float]],
    u: tuple[float, float],
    v: tuple[float, float],
    shape: tuple[int, int],
) -> Float64Array:
    """Return the grid [U, V, 3] of a parametric surface ``point(u, v) -> (x, y, z)``."""
    uu, vv = np.meshgrid(np.linspace(*u, shape[0]), np.linspace(*v, shape[1]), indexing="ij")
    return np.stack([np.broadcast_to(p, uu.shape) for p in point(uu, vv)], axis=2)


def value_noise(points: Float64Array, frequency: float) -> Float64Array:
    """Smooth noise in [0, 1] of positions of shape [N, 3], the same on every machine."""
    scaled = points * frequency
    cell = np.floor(scaled).astype(np.int64)
    t = scaled - cell
    t = t * t * (3 - 2 * t)
    total = np.zeros(len(points))
    for corner in range(8):
        offset = np.array([corner & 1, corner >> 1 & 1, corner >> 2])
        x, y, z = (cell + offset).T.astype(np.uint64)
        h = x * np.uint64(73856093) ^ y * np.uint64(19349663) ^ z * np.uint64(83492791)
        h = (h ^ h >> np.uint64(13)) * np.uint64(0x9E3779B97F4A7C15)
        value = (h >> np.uint64(40)).astype(np.float64) / 2**24
        total += value * np.where(offset, t, 1 - t).prod(axis=1)
    return total
