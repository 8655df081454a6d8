"""What GPUs do with a frame, and what a frame holds: counted workloads through our models.

``workloads.json`` holds what the float reference counted on captures at the sizes of papers. The
captures are not shipped: where they are at hand, ``python -m splatforge.claims.frames FOLDER``
counts them anew, and a test compares.
"""

import json
import sys
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from math import atan, degrees
from pathlib import Path

import numpy as np
import numpy.typing as npt

from splatforge.algos.project import project
from splatforge.claims.mean import over_scenes, over_views
from splatforge.scenes import Camera, Scene, default_camera, load, resolve
from splatforge.scenes.atomic_file import atomic_file
from splatforge.sim.client import count_frame
from splatforge.sim.costs import Sourced
from splatforge.sim.gpu import FrameWork, GpuRun, devices, gpu_frame

__all__ = ["RECIPES", "Recipe", "bandwidth", "duplicates", "filter_gain", "frame_rate",
           "intermediate_share", "iterated", "masked", "parameter_bytes", "parameters", "peak",
           "preprocess_flop", "preprocess_intensity", "significant", "stage_share", "traffic",
           "traffic_share", "utilisation", "workload"]

_COUNTED = "counted by the float reference"
_TABLE = Path(str(files("splatforge.claims"))) / "workloads.json"


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a workload is counted.

    Parameters
    ----------
    captures : tuple of str
        File names, merged.
    width, height : int
        Size in pixels.
    position : tuple of float, optional
        Eye that looks at the origin with a focal length of 0.79 widths; the default view without.
    """

    captures: tuple[str, ...]
    width: int
    height: int
    position: tuple[float, float, float] | None = None

    def camera(self, scene: Scene) -> Camera:
        """The view on the loaded scene."""
        if self.position is None:
            return default_camera(scene, self.width, self.height)
        return Camera.look_at(self.position, (0, 0, 0), (0, -1, 0), width=self.width,
                              height=self.height, fov_x_deg=2 * degrees(atan(0.5 / 0.79)))


_CITY = tuple(f"semarang_city_{part}_sh3.sog" for part in range(10))
_OBJECTS = {
    "fox": "inari_fox_50k.ply", "fourth_st": "fourth_st_131k_sh3.spz",
    "playbot": "playbot_lod0_500k_sh2.sog", "plant": "plant_114k.splat",
    "tarot": "tarot_115k.splat", "angel": "statue_angel_71k.sog",
}
#: Six objects, and a district of a city from low and from above, at the sizes of Mip-NeRF 360 in
#: GBU (smallest and largest), of Tanks and Temples, of QHD, and of HD from above.
RECIPES: dict[str, Recipe] = {
    **{f"{name}_800x800": Recipe(captures=(file,), width=800, height=800)
       for name, file in _OBJECTS.items()},
    **{f"city_{view}_{width}x{height}": Recipe(captures=_CITY, width=width, height=height,
                                               position=position)
       for view, position in (("street", (0.0, -40.0, -150.0)), ("above", (0.0, -250.0, -500.0)))
       for width, height in ((779, 519), (980, 545), (1245, 825), (2560, 1440))},
    "city_above_1920x1080": Recipe(captures=_CITY, width=1920, height=1080,
                                   position=(0.0, -250.0, -500.0)),
}


@cache
def _table() -> dict[str, dict[str, int]]:
    return json.loads(_TABLE.read_text("utf-8"))


def workload(name: str) -> FrameWork:
    """A counted workload by name.

    Raises
    ------
    ValueError
        If there is none of that name.
    """
    table = _table()
    if name not in table:
        raise ValueError(f"Workload must be one of {', '.join(table)}, not {name!r}")
    return FrameWork(**table[name])


def count_all(folder: Path) -> str:
    """JSON text of all workloads, counted from the captures in a folder."""
    counted, loaded = dict[str, dict[str, int]](), dict[tuple[str, ...], Scene]()
    for name, recipe in RECIPES.items():
        if recipe.captures not in loaded:
            loaded = {recipe.captures: load(*(folder / file for file in recipe.captures))}
        scene = loaded[recipe.captures]
        counted[name] = asdict(count_frame(scene, recipe.camera(scene)))
    return json.dumps(counted, indent=1) + "\n"


def _over_views(workloads: Sequence[str], figure: Callable[[FrameWork], Sourced]) -> Sourced:
    """Mean over workloads that show one scene."""
    return over_views(workloads, lambda name: figure(workload(name)))


def _over_scenes(workloads: Sequence[str], figure: Callable[[FrameWork], Sourced]) -> Sourced:
    """Mean over workloads of scenes."""
    return over_scenes(workloads, lambda name: figure(workload(name)))


def _run(device: str, work: FrameWork) -> GpuRun:
    known = devices()
    if device not in known:
        raise ValueError(f"GPU must be one of {', '.join(known)}, not {device!r}")
    return gpu_frame(work, known[device])


def frame_rate(device: str, workloads: Sequence[str]) -> Sourced:
    """Frames a second of a GPU, in Hz."""
    one = Sourced.exact(1, "1", _COUNTED)
    return _over_views(workloads, lambda work: one / _run(device, work).time)


def filter_gain(device: str, workloads: Sequence[str], falloff: str) -> Sourced:
    """Frame rate of a GPU with exponentials from `falloff` over that of one that takes them all."""
    if device not in devices():
        raise ValueError(f"GPU must be one of {', '.join(devices())}, not {device!r}")
    card = devices()[device]

    def gain(work: FrameWork) -> Sourced:
        before, after = gpu_frame(work, card).time, gpu_frame(work, card, falloff).time
        # Both with the same efficiencies: the ends of the band are those of the same frame.
        ends = [getattr(before, end) / getattr(after, end) for end in ("low", "value", "high")]
        return Sourced(ends[1], "1", before.source, min(ends), max(ends), before.points)

    return _over_views(workloads, gain)


def stage_share(device: str, workloads: Sequence[str], stages: Sequence[str]) -> Sourced:
    """Share of some stages in the time of a frame on a GPU."""
    return _over_views(workloads, lambda work: _run(device, work).share(*stages))


def _bytes(run: GpuRun, names: Iterable[str] | None = None) -> Sourced:
    traffics = [stage.traffic.to("B") for stage in run.stages
                if names is None or stage.name in names]
    total = traffics[0]
    for each in traffics[1:]:
        total += each
    return total


def traffic(device: str, workloads: Sequence[str], frames: int) -> Sourced:
    """DRAM traffic of frames on a GPU, in bytes."""
    return _over_views(workloads, lambda work: _bytes(_run(device, work)) * frames)


def traffic_share(device: str, workloads: Sequence[str], stages: Sequence[str]) -> Sourced:
    """Share of some stages in the DRAM traffic of a frame on a GPU."""
    def figure(work: FrameWork) -> Sourced:
        run = _run(device, work)
        part = _bytes(run.part(*stages))
        rest = _bytes(run, {stage.name for stage in run.stages} - set(stages))
        return Sourced(part.value / (part.value + rest.value), "1", _COUNTED,
                       part.low / (part.low + rest.high), part.high / (part.high + rest.low),
                       part.points | rest.points)
    return _over_views(workloads, figure)


def intermediate_share(device: str, workloads: Sequence[str]) -> Sourced:
    """Share of the DRAM traffic of a frame on a GPU that is neither Gaussians nor pixels.

    Of Gaussians outside of the image only the mean is read.
    """
    def figure(work: FrameWork) -> Sourced:
        run = _run(device, work)
        culled = Sourced.exact(3 * 4, "B", "our scenes") * (work.gaussians - work.gaussians_visible)
        outside = (parameter_bytes(work.sh_degree).to("B") * work.gaussians_visible + culled
                   + _bytes(run.part("write")))
        total = _bytes(run)
        return Sourced(1 - outside.value / total.value, "1", _COUNTED,
                       1 - outside.high / total.low, 1 - outside.low / total.high,
                       total.points)
    return _over_views(workloads, figure)


def bandwidth(device: str, workloads: Sequence[str], fps: float) -> Sourced:
    """DRAM bandwidth that a frame rate would take, over what the GPU has."""
    rate = Sourced.exact(fps, "Hz", _COUNTED)
    return _over_views(workloads, lambda work:
                 _bytes(_run(device, work)) * rate / devices()[device].bandwidth)


def peak(device: str, per_lane: int) -> Sourced:
    """Peak of a GPU in FLOP/s, with a number of fused multiply-adds per lane and cycle."""
    return devices()[device].peak * per_lane


def utilisation(device: str) -> Sourced:
    """Share of the lanes of a GPU that a kernel that masks and waits issues to."""
    gpu = devices()[device]
    # A peak has two operations a lane and cycle; what is issued has one.
    return gpu.issued * 2.0 / gpu.peak


def parameters(sh_degree: int) -> Sourced:
    """Numbers that describe a Gaussian: mean, scale, rotation, opacity, colour."""
    def zeros(*shape: int) -> npt.NDArray[np.float32]:
        return np.zeros(shape, np.float32)

    scene = Scene(means=zeros(1, 3), log_scales=zeros(1, 3), quats=zeros(1, 4) + np.float32(1),
                  opacity_logits=zeros(1), sh=zeros(1, (sh_degree + 1) ** 2, 3))
    arrays = (scene.means, scene.log_scales, scene.quats, scene.opacity_logits, scene.sh)
    return Sourced.exact(sum(array.size for array in arrays), "1", "our scenes")


def parameter_bytes(sh_degree: int) -> Sourced:
    """Bytes of a Gaussian in single precision."""
    return parameters(sh_degree) * Sourced.exact(4, "B", "our scenes")


def _one_gaussian(sh_degree: int) -> FrameWork:
    zeros = dict.fromkeys(("pairs", "pairs_reached", "pixels", "tiles", "evaluations",
                           "significant", "warp_steps", "warp_blends"), 0)
    return FrameWork(gaussians=1, gaussians_visible=1, sh_degree=sh_degree, **zeros)


def preprocess_flop(sh_degree: int) -> Sourced:
    """Operations of the preprocess stage per Gaussian in the image."""
    return _run("orin_nx_16gb", _one_gaussian(sh_degree)).stages[0].flop


def preprocess_intensity(sh_degree: int) -> Sourced:
    """Operations per byte of parameters in the preprocess stage."""
    return preprocess_flop(sh_degree) / parameter_bytes(sh_degree)


def _ratio(part: float, whole: float) -> Sourced:
    return Sourced.exact(part / whole, "1", _COUNTED)


def significant(workloads: Sequence[str]) -> Sourced:
    """Share of the evaluations with alpha of at least 1/255."""
    return _over_scenes(workloads, lambda work: _ratio(work.significant, work.evaluations))


def masked(workloads: Sequence[str]) -> Sourced:
    """Share of the lanes that wait in the blend branch."""
    return _over_scenes(workloads, lambda work: Sourced.exact(work.masked, "1", _COUNTED))


def iterated(workloads: Sequence[str]) -> Sourced:
    """Gaussians that a pixel looks at."""
    return _over_scenes(workloads, lambda work: _ratio(work.evaluations, work.pixels))


def duplicates(scene: str, width: int, height: int, tile_px: int) -> Sourced:
    """Tile pairs with tiles of some size over those with tiles of 16, by the 3-sigma square."""
    loaded = resolve(scene)
    projected = project(loaded, default_camera(loaded, width, height))
    edge = np.array([width, height])

    def pairs(side: int) -> int:
        radius = projected.radius_px[:, None].astype(np.float64)
        tiles = -(-edge // side)
        first = np.clip(np.floor((projected.mean_px - radius) / side), 0, tiles)
        end = np.clip(np.ceil((projected.mean_px + radius) / side), 0, tiles)
        return int(np.maximum(end - first, 0).prod(axis=1).sum())

    return _ratio(pairs(tile_px), pairs(16))


if __name__ == "__main__":
    with atomic_file(_TABLE) as file:
        file.write(count_all(Path(sys.argv[1])).encode())
