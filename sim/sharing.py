"""What a GPU does of Lumina's frames: sorts of windows, projections, and all the rest without RTL.

A GPU sorts once for a window of frames: geometry of all Gaussians at the window's pose, pairs by
widened tiles, radix passes. In every frame it projects and colours the Gaussians of the window's
lists, and writes a feature of each to memory, where LuminCore takes them. While LuminCore draws,
the GPU is free: a sort whose pose was predicted goes on beside the frames that lie between the last
known pose and its window, and only what is longer than they are is waited for.

Frames follow each other: a frame's projection waits for the frame before, as its pose does.

Without LuminCore the GPU rasterizes too (:func:`walk`): warps go through the lists of the window,
and a pixel that finds its colour in the cache stops behind its record, but its warp does not before
its last pixel does. What is not modelled:
:data:`NOT_MODELLED`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from operator import add
from typing import Any

import numba as nb
import numpy as np

from splatforge.algos.lumina.render import LuminaWorkload
from splatforge.algos.lumina.sharing import SharedLists
from splatforge.designs.feature import FEATURE_BYTES
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.radiance import BEAT_BYTES, RadianceDesign
from splatforge.sim.costs import Sourced
from splatforge.sim.gpu import NOT_MODELLED as GPU_NOT_MODELLED
from splatforge.sim.gpu import (
    GpuDevice,
    GpuRun,
    gpu_project,
    gpu_rasterize,
    gpu_sort,
)

__all__ = ["NOT_MODELLED", "FrameTimes", "GpuPart", "SharedRun", "SortWork", "Walk", "frame_times",
           "rasterize", "refresh", "run_shared", "sort", "walk"]

#: What no time or energy here holds.
NOT_MODELLED = (
    *GPU_NOT_MODELLED,
    "the order in which threads of a GPU put colours into a cache in memory",
    "sectors of parameters that are gathered by number",
    "what the GPU draws while it waits for the accelerator",
    "memory that the GPU and the accelerator use at the same time",
)

_PIXELS = TILE_PX * TILE_PX
_WARPS = 8
_DEFINITION = "definition"


@dataclass(frozen=True, kw_only=True)
class SortWork:
    """What a window's sort and its frames' projections ask of a GPU.

    Parameters
    ----------
    gaussians : int
        Of the scene.
    listed : int
        Those that are in a list of the window.
    pairs, tiles : int
        Entries of the lists, and tiles.
    sh_degree : int
        0 to 3.
    """

    gaussians: int
    listed: int
    pairs: int
    tiles: int
    sh_degree: int

    @classmethod
    def of(cls, lists: SharedLists, gaussians: int, sh_degree: int) -> "SortWork":
        """That of a window's lists."""
        return cls(gaussians=gaussians, listed=len(lists.listed), pairs=len(lists.ids),
                   tiles=lists.tiles_x * lists.tiles_y, sh_degree=sh_degree)


@dataclass(frozen=True, kw_only=True)
class Walk:
    """What warps of a GPU do in one frame with the lists of its window.

    Parameters
    ----------
    pixels, pairs_reached, warp_steps, warp_blends : int
        As in :class:`splatforge.sim.gpu.FrameWork`.
    lookups, inserts : int
        Pixels that look for their colour, and that leave it in the cache.
    """

    pixels: int
    pairs_reached: int
    warp_steps: int
    warp_blends: int
    lookups: int
    inserts: int


@nb.njit(cache=True, nogil=True)
def _walk_kernel(starts, significant, ends, complete, hit, counts):
    """Steps and blends of every warp, two rows of a tile each."""
    for tile in range(len(starts) - 1):
        count = starts[tile + 1] - starts[tile]
        steps = np.zeros(_WARPS, np.int64)
        last = np.zeros(_PIXELS, np.int64)
        for pixel in range(_PIXELS):
            at = complete[tile, pixel] if hit[tile, pixel] else ends[tile, pixel]
            last[pixel] = min(at + 1, count)
            steps[pixel // 32] = max(steps[pixel // 32], last[pixel])
        counts[0] += steps.max()
        counts[1] += steps.sum()
        for warp in range(_WARPS):
            for place in range(steps[warp]):
                bits = significant[starts[tile] + place, warp >> 1] >> np.uint64(32 * (warp & 1))
                for lane in range(32):
                    if (bits >> np.uint64(lane)) & np.uint64(1) and place < last[32 * warp + lane]:
                        counts[2] += 1
                        break


def walk(workload: LuminaWorkload) -> Walk:
    """Count what warps do of a frame, hits of the cache as its workload has them."""
    counts = np.zeros(3, np.int64)
    frame = workload.nru
    _walk_kernel(workload.starts, frame.significant, frame.ends, frame.complete, workload.hit,
                 counts)
    reached, steps, blends = counts.tolist()
    return Walk(pixels=workload.pixels, pairs_reached=reached, warp_steps=steps,
                warp_blends=blends, lookups=workload.lookups,
                inserts=workload.lookups - workload.hits)


def _count(number: float, unit: str) -> Sourced:
    return Sourced.exact(number, unit, _DEFINITION)


def sort(work: SortWork, device: GpuDevice) -> GpuRun:
    """A window's sort: geometry at its pose without colours, pairs, radix passes."""
    return GpuRun(device=device, stages=(
        gpu_project(device, gaussians=work.gaussians, visible=work.listed, coefficients=0),
        *gpu_sort(device, gaussians=work.gaussians, visible=work.listed, pairs=work.pairs,
                  tiles=work.tiles)))


def refresh(work: SortWork, device: GpuDevice, *, features: bool = True) -> GpuRun:
    """A frame's projection of the Gaussians that its window lists, with their colours.

    Parameters
    ----------
    work : SortWork
        Of the window.
    device : GpuDevice
        What does it.
    features : bool
        Whether it writes what LuminCore reads, or what its own rasterization does.
    """
    stage = gpu_project(
        device, gaussians=work.listed, visible=work.listed,
        coefficients=(work.sh_degree + 1) ** 2,
        written=_count(FEATURE_BYTES, "B") if features else None)
    return GpuRun(device=device, stages=(replace(stage, name="refresh"),))


def rasterize(done: Walk, radiance: RadianceDesign, device: GpuDevice) -> GpuRun:
    """A frame's rasterization on the GPU, look-ups in its memory among it.

    A look-up reads a set, an insert writes an entry.
    """
    entry = BEAT_BYTES * radiance.entry_beats
    cached = entry * (radiance.ways * done.lookups + done.inserts)
    return GpuRun(device=device, stages=gpu_rasterize(
        device, pairs_reached=done.pairs_reached, warp_steps=done.warp_steps,
        warp_blends=done.warp_blends, pixels=done.pixels, cached=_count(cached, "B")))


@dataclass(frozen=True, kw_only=True)
class FrameTimes:
    """How long a frame takes, in s.

    Parameters
    ----------
    waited : Sourced
        For the sort of its window, in the window's first frame.
    refresh, draw : Sourced
        Its projection, and its rasterization.
    """

    waited: Sourced
    refresh: Sourced
    draw: Sourced

    @property
    def total(self) -> Sourced:
        """From one to the next."""
        return self.waited + self.refresh + self.draw


def _beyond(whole: Sourced, hidden: Sourced) -> Sourced:
    """What of a time goes on when another is over."""
    return Sourced(max(0.0, whole.value - hidden.value), "s", whole.source,
                   max(0.0, whole.low - hidden.high), max(0.0, whole.high - hidden.low),
                   whole.points | hidden.points)


def frame_times(
    refreshes: Sequence[Sourced], draws: Sequence[Sourced],
    sorts: Sequence[tuple[int, Sourced, int]],
) -> list[FrameTimes]:
    """Times of frames, one after the other.

    Parameters
    ----------
    refreshes, draws : sequence of Sourced
        Of every frame, in s.
    sorts : sequence of (int, Sourced, int)
        Of every window its first frame, the time of its sort in s, and beside the rasterization of
        how many frames before the window it goes on: none where its pose is not predicted, or
        where the GPU itself rasterizes.
    """
    none = _count(0, "s")
    waited = [none] * len(draws)
    for first, time, beside in sorts:
        hidden = reduce(add, draws[max(0, first - beside):first], none)
        waited[first] = _beyond(time, hidden)
    return [FrameTimes(waited=wait, refresh=fresh, draw=draw)
            for wait, fresh, draw in zip(waited, refreshes, draws, strict=True)]


@dataclass(frozen=True, kw_only=True)
class GpuPart:
    """What a GPU has to do with a frame of Lumina.

    Parameters
    ----------
    work : SortWork
        Of its window.
    sorts : bool
        Whether it is the first of its window.
    beside : int
        Frames before the window beside which its sort goes on.
    walk : Walk
        Where the GPU rasterizes it itself.
    """

    work: SortWork
    sorts: bool
    beside: int
    walk: Walk


@dataclass(frozen=True, kw_only=True)
class SharedRun:
    """Frames of Lumina on a GPU with an accelerator that rasterizes, and on the GPU alone.

    Parameters
    ----------
    device : GpuDevice
        The GPU.
    whole : tuple of GpuRun
        Of every frame, all stages of the reference implementation on the same GPU.
    sorts : tuple of (int, GpuRun, int)
        Of every window the first frame, the sort, and frames beside which it goes on.
    refreshes, draws : tuple
        Of every frame, the GPU's projection, and the accelerator's time (s).
    own : tuple of Sourced
        Of every frame, energy of the accelerator and its memory, J.
    alone : tuple of GpuRun
        Of every frame, projection and rasterization where the GPU does all.
    """

    device: GpuDevice
    whole: tuple[GpuRun, ...]
    sorts: tuple[tuple[int, GpuRun, int], ...]
    refreshes: tuple[GpuRun, ...]
    draws: tuple[Sourced, ...]
    own: tuple[Sourced, ...]
    alone: tuple[GpuRun, ...]

    @property
    def first(self) -> int:
        """The first frame behind the first window, whose sort nothing could go on beside.

        0 where there is one window.
        """
        return self.sorts[1][0] if len(self.sorts) > 1 else 0

    @property
    def frames(self) -> list[FrameTimes]:
        """Times of the frames with the accelerator."""
        return frame_times([run.time for run in self.refreshes], self.draws,
                           [(first, run.time, beside) for first, run, beside in self.sorts])

    @property
    def frames_alone(self) -> list[FrameTimes]:
        """Times of the frames on the GPU alone: it sorts, then draws."""
        none = _count(0, "s")
        return frame_times([none] * len(self.alone), [run.time for run in self.alone],
                           [(first, run.time, 0) for first, run, _ in self.sorts])

    def _sorted(self) -> list[Sourced]:
        """Energies of the sorts of the frames from :attr:`first` on."""
        return [run.energy for first, run, _ in self.sorts if first >= self.first]

    @property
    def energy(self) -> Sourced:
        """With the accelerator, in J from :attr:`first` on: what the GPU computes, and its own."""
        return reduce(add, [run.energy for run in self.refreshes[self.first:]] + self._sorted(),
                      reduce(add, self.own[self.first:]))

    @property
    def energy_alone(self) -> Sourced:
        """Of the GPU alone, in J from :attr:`first` on."""
        return reduce(add, [run.energy for run in self.alone[self.first:]] + self._sorted())

    def record(self) -> dict[str, Any]:
        """The run for JSON, over the frames from :attr:`first` on; times of frames for all."""
        theirs = reduce(add, (run.time for run in self.whole[self.first:]))
        spent = reduce(add, (run.energy for run in self.whole[self.first:]))

        def system(times: Sequence[FrameTimes], energy: Sourced) -> dict[str, Any]:
            kept = times[self.first:]
            total = reduce(add, (each.total for each in kept))
            parts = {name: sum(getattr(each, name).value for each in kept)
                     for name in ("waited", "refresh", "draw")}
            return {
                "time_s": total.value, "time_band_s": [total.low, total.high],
                "fps": len(kept) / total.value,
                **{f"{name}_s": value for name, value in parts.items()},
                "speedup": theirs.value / total.value,
                "speedup_band": [theirs.low / total.high, theirs.high / total.low],
                "energy_j": energy.value, "energy_band_j": [energy.low, energy.high],
                "energy_saving": spent.value / energy.value,
                "energy_saving_band": [spent.low / energy.high, spent.high / energy.low],
                "frame_times_s": [each.total.value for each in times]}

        return {
            "device": self.device.name, "frames": len(self.whole), "first_frame": self.first,
            "windows": len(self.sorts),
            "gpu": {"time_s": theirs.value, "time_band_s": [theirs.low, theirs.high],
                    "energy_j": spent.value, "energy_band_j": [spent.low, spent.high]},
            "accelerated": system(self.frames, self.energy),
            "gpu_alone": system(self.frames_alone, self.energy_alone),
            "sort_s": [run.time.value for _, run, _ in self.sorts],
            "not_modelled": list(NOT_MODELLED)}


def run_shared(
    parts: Sequence[GpuPart], whole: Sequence[GpuRun], draws: Sequence[Sourced],
    own: Sequence[Sourced], radiance: RadianceDesign, device: GpuDevice,
) -> SharedRun:
    """Frames of Lumina on a GPU.

    Parameters
    ----------
    parts : sequence of GpuPart
        Of every frame.
    whole : sequence of GpuRun
        The same frames, all stages, of the reference implementation.
    draws, own : sequence of Sourced
        The accelerator's time for every frame (s), and its energy, its memory's included (J).
    radiance : RadianceDesign
        The cache.
    device : GpuDevice
        The GPU.
    """
    alone = [
        GpuRun(device=device, stages=(
            *refresh(part.work, device, features=False).stages,
            *rasterize(part.walk, radiance, device).stages)) for part in parts]
    return SharedRun(
        device=device, whole=tuple(whole),
        sorts=tuple((number, sort(part.work, device), part.beside)
                    for number, part in enumerate(parts) if part.sorts),
        refreshes=tuple(refresh(part.work, device) for part in parts), draws=tuple(draws),
        own=tuple(own), alone=tuple(alone))
