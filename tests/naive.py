"""The float reference again: slow, obvious, float64, one Gaussian and one pixel at a time.

Written from the formulas and not from `splatforge.algos`: matrices where that multiplies out,
associated Legendre functions where that has a table, all pixels of all listed tiles where that
walks rows. Nothing here is fast, and nothing is clever.
"""

from dataclasses import dataclass, field
from math import ceil, cos, exp, factorial, inf, pi, sin, sqrt
from types import SimpleNamespace

import numpy as np

from splatforge.scenes import Camera, Scene

TILE_PX = 16
ALPHA_MIN = 1 / 255
ALPHA_MAX = 0.99
TRANSMITTANCE_MIN = 1e-4


def legendre(degree: int, order: int, u: float) -> float:
    """Associated Legendre function with the Condon-Shortley phase, by its recurrences."""
    value = 1.0
    for i in range(order):
        value *= -(2 * i + 1) * sqrt(max(0.0, 1.0 - u * u))
    below = 0.0
    for i in range(order, degree):
        value, below = ((2 * i + 1) * u * value - (i + order) * below) / (i + 1 - order), value
    return value


def spherical_harmonics(direction: np.ndarray, coefficients: int) -> np.ndarray:
    """Real spherical harmonics with the Condon-Shortley phase, in the order (l, m = -l..l)."""
    x, y, z = direction / np.linalg.norm(direction)
    angle = np.arctan2(y, x)
    values = []
    for degree in range(4):
        for order in range(-degree, degree + 1):
            m = abs(order)
            norm = sqrt((2 * degree + 1) / (4 * pi) * factorial(degree - m) / factorial(degree + m))
            turn = 1.0 if m == 0 else sqrt(2) * (cos(m * angle) if order > 0 else sin(m * angle))
            values.append(norm * turn * legendre(degree, m, z))
    return np.array(values[:coefficients])


def rotation(quat: np.ndarray) -> np.ndarray:
    """Rotation matrix of a quaternion w, x, y, z: the images of the axes under q v q*."""
    norm = np.linalg.norm(quat)
    if norm == 0:
        return np.eye(3)
    w, axis = quat[0] / norm, quat[1:] / norm
    cross = np.array([[0, -axis[2], axis[1]], [axis[2], 0, -axis[0]], [-axis[1], axis[0], 0]])
    return np.eye(3) + 2 * w * cross + 2 * cross @ cross


def project(scene, camera) -> list[SimpleNamespace]:
    """Splats in front of the camera whose 3-sigma square meets a tile, in scene order."""
    tiles_x, tiles_y = ceil(camera.width / TILE_PX), ceil(camera.height / TILE_PX)
    w2c = np.asarray(camera.w2c, np.float64)
    splats = []
    for i in range(scene.gaussians):
        mean = scene.means[i].astype(np.float64)
        x, y, z = w2c[:3, :3] @ mean + w2c[:3, 3]
        if not z > camera.near:
            continue
        # The Jacobian at a point at most 0.3 half-widths out of the frustum.
        left, right = -camera.cx / camera.fx, (camera.width - camera.cx) / camera.fx
        top, bottom = -camera.cy / camera.fy, (camera.height - camera.cy) / camera.fy
        u = np.clip(x / z, left - 0.15 * (right - left), right + 0.15 * (right - left))
        v = np.clip(y / z, top - 0.15 * (bottom - top), bottom + 0.15 * (bottom - top))
        jacobian = np.array(
            [[camera.fx / z, 0, -camera.fx * u / z], [0, camera.fy / z, -camera.fy * v / z]]
        )
        scale = np.diag(np.exp(scene.log_scales[i].astype(np.float64)))
        # The square root of the covariance: its singular values stay exact for needles.
        root = jacobian @ w2c[:3, :3] @ rotation(scene.quats[i].astype(np.float64)) @ scale
        sharp = root @ root.T
        cov = sharp + 0.3 * np.eye(2)
        s0, s1 = np.linalg.svd(root, compute_uv=False)
        det_sharp, det = s0**2 * s1**2, (s0**2 + 0.3) * (s1**2 + 0.3)
        mid = (cov[0, 0] + cov[1, 1]) / 2
        radius = ceil(3 * sqrt(mid + sqrt(max(0.1, ((s0**2 - s1**2) / 2) ** 2))))
        center = np.array([camera.fx * x / z + camera.cx, camera.fy * y / z + camera.cy])
        tiles = tiles_of(center, radius, tiles_x, tiles_y)
        if not tiles:
            continue
        opacity = 1 / (1 + exp(-float(scene.opacity_logits[i])))
        if scene.antialiased:
            opacity *= sqrt(max(0.000025, det_sharp / det))
        basis = spherical_harmonics(mean - camera.position, scene.sh.shape[1])
        splats.append(
            SimpleNamespace(
                id=i,
                center=center,
                conic=np.array([cov[1, 1], -cov[0, 1], cov[0, 0]]) / det,
                depth=np.float32(z),
                opacity=opacity,
                color=np.maximum(0, basis @ scene.sh[i].astype(np.float64) + 0.5),
                radius=radius,
                tiles=tiles,
            )
        )
    return splats


def tiles_of(center, radius, tiles_x: int, tiles_y: int) -> list[tuple[int, int]]:
    """Tiles (x, y) whose area the square center +- radius meets, one by one."""

    def meets(tile: int, at: float) -> bool:
        return at - radius < (tile + 1) * TILE_PX and at + radius > tile * TILE_PX

    columns = [x for x in range(tiles_x) if meets(x, center[0])]
    rows = [y for y in range(tiles_y) if meets(y, center[1])]
    return [(x, y) for y in rows for x in columns]


def entries_of(lists, tile: int) -> np.ndarray:
    """Entries of one tile of a `TileLists`."""
    return lists.entries[lists.starts[tile] : lists.starts[tile + 1]]


def bin_tiles(splats, width: int, height: int) -> dict[tuple[int, int], list[int]]:
    """Indices of splats per tile, front to back, equal depths in scene order."""
    lists: dict[tuple[int, int], list[int]] = {
        (x, y): [] for y in range(ceil(height / TILE_PX)) for x in range(ceil(width / TILE_PX))
    }
    for index in sorted(range(len(splats)), key=lambda k: (splats[k].depth, splats[k].id)):
        for tile in splats[index].tiles:
            lists[tile].append(index)
    return lists


@dataclass
class Pixel:
    """What one pixel became, and how near its decisions came to going the other way."""

    color: np.ndarray = field(default_factory=lambda: np.zeros(3))
    transmittance: float = 1.0
    evaluations: int = 0
    significant: int = 0
    significant_at: set[int] = field(default_factory=set)
    blended: int = 0
    stopped: bool = False
    margin: float = inf


def shade(splats, listed: list[int], x: int, y: int) -> Pixel:
    """Walk one pixel's list, front to back."""
    pixel = Pixel()
    for index in listed:
        splat = splats[index]
        pixel.evaluations += 1
        dx, dy = splat.center[0] - (x + 0.5), splat.center[1] - (y + 0.5)
        a, b, c = splat.conic
        alpha = splat.opacity * exp(-0.5 * (a * dx * dx + c * dy * dy) - b * dx * dy)
        pixel.margin = min(pixel.margin, abs(alpha / ALPHA_MIN - 1))
        alpha = min(ALPHA_MAX, alpha)
        if alpha < ALPHA_MIN:
            continue
        pixel.significant += 1
        pixel.significant_at.add(pixel.evaluations)
        after = pixel.transmittance * (1 - alpha)
        pixel.margin = min(pixel.margin, abs(after / TRANSMITTANCE_MIN - 1))
        if after < TRANSMITTANCE_MIN:
            pixel.stopped = True
            break
        pixel.blended += 1
        pixel.color += pixel.transmittance * alpha * splat.color
        pixel.transmittance = after
    return pixel


def render(scene, camera, background=(0.0, 0.0, 0.0)) -> SimpleNamespace:
    """Image, transmittance, margin per pixel, and counts per tile [tiles]."""
    splats = project(scene, camera)
    lists = bin_tiles(splats, camera.width, camera.height)
    image = np.zeros((camera.height, camera.width, 3))
    transmittance = np.ones((camera.height, camera.width))
    margin = np.full((camera.height, camera.width), inf)
    tiles_x = ceil(camera.width / TILE_PX)
    names = ("pairs", "pairs_reached", "evaluations", "significant", "blended", "stopped_pixels",
             "warp_steps", "warp_blends")
    counts = {name: np.zeros(len(lists), int) for name in names}
    for (tile_x, tile_y), listed in lists.items():
        tile = tile_y * tiles_x + tile_x
        counts["pairs"][tile] = len(listed)
        warps: dict[int, list[Pixel]] = {}
        for y in range(tile_y * TILE_PX, min(camera.height, (tile_y + 1) * TILE_PX)):
            for x in range(tile_x * TILE_PX, min(camera.width, (tile_x + 1) * TILE_PX)):
                pixel = shade(splats, listed, x, y)
                image[y, x] = pixel.color + pixel.transmittance * np.asarray(background)
                transmittance[y, x], margin[y, x] = pixel.transmittance, pixel.margin
                counts["pairs_reached"][tile] = max(
                    counts["pairs_reached"][tile], pixel.evaluations
                )
                counts["evaluations"][tile] += pixel.evaluations
                counts["significant"][tile] += pixel.significant
                counts["blended"][tile] += pixel.blended
                counts["stopped_pixels"][tile] += pixel.stopped
                warps.setdefault(y // 2, []).append(pixel)
        for warp in warps.values():
            counts["warp_steps"][tile] += max(pixel.evaluations for pixel in warp)
            counts["warp_blends"][tile] += len(set().union(*(p.significant_at for p in warp)))
    return SimpleNamespace(
        image=image, transmittance=transmittance, margin=margin, counts=counts, splats=splats
    )


def assert_close_but_for_flips(actual, expected, margin, *, tolerance, band, share) -> None:
    """Close wherever no decision is within ``band`` of its threshold; those pixels are few.

    Thresholds make a picture discontinuous, so float32 and float64 may differ by a whole
    contribution where a decision is near one: allowed to ``share`` of the pixels and no others.
    """
    near = margin < band
    difference = np.abs(np.asarray(actual, np.float64) - expected)
    if difference.ndim > near.ndim:
        difference = difference.max(axis=-1)
    worst = np.where(near, 0.0, difference)
    at = np.unravel_index(worst.argmax(), worst.shape)
    assert worst.max() <= tolerance, f"{worst.max():.3g} at {at}, margin {margin[at]:.3g}"
    assert near.mean() <= share, f"{near.mean():.3g} of the pixels are near a threshold"
    # One flipped alpha is worth 1/255 of a colour; a flipped stop, one Gaussian of at most 1 %.
    assert difference.max() <= 0.05


def random_scene(seed: int, n: int, *, degree: int = 0, antialiased: bool = False, spread=1.0):
    """Gaussians in front of :func:`front_camera`, from smaller than a pixel to half an image."""
    rng = np.random.default_rng(seed)
    return Scene(
        means=rng.normal(0, spread, (n, 3)),
        log_scales=rng.normal(-2.2, 1.2, (n, 3)),
        quats=rng.normal(0, 1, (n, 4)),
        opacity_logits=rng.normal(0.5, 2.5, n),
        sh=rng.normal(0, 0.4, (n, (degree + 1) ** 2, 3)),
        antialiased=antialiased,
    )


def front_camera(width: int, height: int) -> Camera:
    """A camera four units before the origin that sees about two units around it."""
    return Camera.look_at(
        (0.3, -0.4, -4.0), (0, 0, 0), (0, -1, 0), width=width, height=height, fov_x_deg=55
    )
