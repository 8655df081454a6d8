"""The float reference: the picture that every accelerator's picture is compared with.

Source: Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG
42(4), 2023, eq. (3) and its rasterizer.
"""

from dataclasses import dataclass, fields
from time import perf_counter

import numpy as np
import numpy.typing as npt

from splatforge.algos.bin_tiles import list_spans
from splatforge.algos.project import TILE_PX, project_geometry
from splatforge.algos.rasterize import (
    ALPHA_MAX,
    ALPHA_MIN,
    TRANSMITTANCE_MIN,
    blend_tiles,
    pack_records,
)
from splatforge.algos.sort import sort_depths
from splatforge.algos.workers import Workers
from splatforge.scenes import Camera, Scene

__all__ = ["ALPHA_MAX", "ALPHA_MIN", "TRANSMITTANCE_MIN", "Frame", "TileStatistics", "render"]

Float32Array = npt.NDArray[np.float32]
Int64Array = npt.NDArray[np.int64]

# Pairs listed at once; a frame that has more (1 GiB of them) is rendered in bands of tile rows.
_PAIRS_AT_ONCE = 1 << 28


@dataclass(frozen=True, kw_only=True, eq=False)
class TileStatistics:
    """What each tile did; every array has shape [tiles] (row-major), int64.

    Counted as the plain loop over pixels would do the work: it walks the list of the tile for each
    pixel of the image in it until that pixel stops. All counts are exact.

    Parameters
    ----------
    tiles_x, tiles_y : int
        Tiles across and down.
    pairs : numpy.ndarray
        Entries of the tile's 3-sigma list.
    pairs_reached : numpy.ndarray
        Entries that at least one pixel looked at, before all pixels had stopped.
    evaluations : numpy.ndarray
        Pixel-Gaussian evaluations: entries looked at, summed over the tile's pixels.
    significant : numpy.ndarray
        Evaluations with power <= 0 and alpha >= 1/255.
    blended : numpy.ndarray
        Significant evaluations that changed the pixel: all but the one that stopped it.
    stopped_pixels : numpy.ndarray
        Pixels that stopped early. ``significant == blended + stopped_pixels``.
    warp_steps : numpy.ndarray
        Entries looked at, summed over the warps of the tile: 32 threads in lockstep, two rows of
        16 pixels as diff-gaussian-rasterization launches them, go on until all have stopped.
    warp_blends : numpy.ndarray
        Of these, the ones in which at least one thread was significant: there the others wait.
    """

    tiles_x: int
    tiles_y: int
    pairs: Int64Array
    pairs_reached: Int64Array
    evaluations: Int64Array
    significant: Int64Array
    blended: Int64Array
    stopped_pixels: Int64Array
    warp_steps: Int64Array
    warp_blends: Int64Array

    def totals(self) -> dict[str, int]:
        """Sum of every count over the frame."""
        return {
            field.name: int(getattr(self, field.name).sum())
            for field in fields(self)
            if not field.name.startswith("tiles_")
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Frame:
    """A rendered frame.

    Parameters
    ----------
    image : numpy.ndarray
        Linear colour of shape [height, width, 3], float32, background included; not clipped.
    transmittance : numpy.ndarray
        What of the background is seen, shape [height, width], float32, in [1e-4, 1].
    statistics : TileStatistics or None
        Work per tile, on request.
    stages_ms : dict
        Wall time per stage in milliseconds: project, color, sort, bin, blend.
    """

    image: Float32Array
    transmittance: Float32Array
    statistics: TileStatistics | None
    stages_ms: dict[str, float]


def render(
    scene: Scene,
    camera: Camera,
    *,
    background: npt.ArrayLike = (0.0, 0.0, 0.0),
    statistics: bool = False,
) -> Frame:
    """Render a scene: the float reference.

    A pixel at (i + 0.5, j + 0.5) walks the list of its 16 x 16 tile front to back. With
    ``power = -0.5 (A dx^2 + C dy^2) - B dx dy`` an entry is skipped if power > 0; alpha is
    ``min(0.99, opacity exp(power))`` and skipped below 1/255; an entry that would take the
    transmittance T below 1e-4 is not blended and ends the pixel; otherwise the pixel gains
    ``T alpha color`` and T becomes ``T (1 - alpha)``. At the end it gains ``T background``.

    Parameters
    ----------
    scene : Scene
        The Gaussians.
    camera : Camera
        The pinhole camera.
    background : array_like
        Linear colour of shape [3].
    statistics : bool
        Also count the work per tile, in the same pass. The image is the same; the lists are then
        the full 3-sigma lists, and the frame takes about twice as long.

    Returns
    -------
    Frame
        Image, transmittance, statistics on request, wall time per stage.

    Raises
    ------
    ValueError
        If the background is not three finite numbers.

    Notes
    -----
    Lists hold only tiles that alpha >= 1/255 can reach, and rows are walked only where it can:
    the entries and pixels left out are those that the rule above skips. Powers, alphas and
    transmittances are rounded as the expressions stand (no contraction, no reassociation); exp
    has a relative error below 2e-7. The result does not depend on the number of threads, which is
    ``numba.get_num_threads()``. The first call of a process loads, and the first after an
    installation compiles (about 4 s), the kernels.
    """
    background = np.asarray(background, np.float32)
    if background.shape != (3,) or not np.isfinite(background).all():
        raise ValueError(f"Background must be three finite numbers, not {background!r}")
    width, height = int(camera.width), int(camera.height)
    tiles_x, tiles_y = -(-width // TILE_PX), -(-height // TILE_PX)
    stages_ms: dict[str, float] = {}
    clock = perf_counter()

    def stage(name: str) -> None:
        nonlocal clock
        now = perf_counter()
        stages_ms[name] = stages_ms.get(name, 0.0) + 1e3 * (now - clock)
        clock = now

    image = np.empty((height, width, 3), np.float32)
    transmittance = np.empty((height, width), np.float32)
    counts = np.zeros((8, tiles_x * tiles_y), np.int64) if statistics else None
    with Workers() as workers:
        geometry = project_geometry(scene, camera, workers)
        stage("project")
        records, _, depth, spans = pack_records(
            scene, camera, geometry, not statistics, workers
        )
        del geometry
        stage("color")
        order = sort_depths(depth, workers)
        stage("sort")
        for first_row, end_row in _bands(spans, tiles_y):
            lists = list_spans(order, spans, tiles_x, first_row, end_row, workers)
            stage("bin")
            blend_tiles(
                lists, first_row * tiles_x, records, background, image, transmittance, counts,
                workers,
            )  # fmt: skip
            stage("blend")
    return Frame(
        image=image,
        transmittance=transmittance,
        statistics=TileStatistics(
            tiles_x=tiles_x,
            tiles_y=tiles_y,
            pairs=counts[0],
            pairs_reached=counts[1],
            evaluations=counts[2],
            significant=counts[3],
            blended=counts[4],
            stopped_pixels=counts[5],
            warp_steps=counts[6],
            warp_blends=counts[7],
        )
        if counts is not None
        else None,
        stages_ms=stages_ms,
    )


def _bands(spans: npt.NDArray[np.int16], tiles_y: int) -> list[tuple[int, int]]:
    """Runs of tile rows, (first, end), with at most ``_PAIRS_AT_ONCE`` pairs or one row each."""
    columns = (spans[:, 2] - spans[:, 0]).astype(np.int64)
    if int((columns * (spans[:, 3] - spans[:, 1])).sum()) <= _PAIRS_AT_ONCE:
        return [(0, tiles_y)]
    change = np.bincount(spans[:, 1], columns, tiles_y + 1)
    change -= np.bincount(spans[:, 3], columns, tiles_y + 1)
    pairs_of_row = np.cumsum(change)[:tiles_y]
    bands, first, pairs = [], 0, 0.0
    for row in range(tiles_y):
        if row > first and pairs + pairs_of_row[row] > _PAIRS_AT_ONCE:
            bands.append((first, row))
            first, pairs = row, 0.0
        pairs += pairs_of_row[row]
    return [*bands, (first, tiles_y)]
