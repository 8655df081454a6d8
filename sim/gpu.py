"""Mobile GPUs that run the reference renderer, stage by stage, as rooflines.

The same workload that an accelerator runs goes through the kernels of the reference
implementation (Kerbl et al. 2023, diff-gaussian-rasterization):

* ``preprocess``: parameters read, projection and colour computed, projected Gaussians written;
* ``duplicate``: tile counts summed, a (tile, depth) key and an id written per tile and Gaussian;
* ``sort``: keys read for the histograms of all digits, radix passes of 8 bits that read and write
  12-byte pairs, as many as 32 bits of depth and the bits of a tile number need; tile ranges found;
* ``rasterize``: a warp of two rows of 16 pixels walks the list of its tile in lockstep until all
  its pixels have stopped; masked lanes cost what live ones cost, in the test and in the blend;
* ``write``: colour, transmittance and last contributor of each pixel.

A stage takes the longer of its operations over what schedulers and lanes take of the mix of
instructions, and its bytes over the reachable part of the bandwidth. A scheduler issues one
instruction a cycle; where it has 16 FP32 lanes (Volta) a warp takes them for two cycles and the
integer instructions go beside it, where it has 32 (Ampere) a warp takes one and the integers have
their turns: 2 cycles against 1.36 for an operation of a warp. Two efficiencies serve all devices
and stages: one is calibrated on one published utilisation (FLICKER, Xavier NX), the memory one is
a measured copy; no scene was fitted, and no frame rate.
Devices, efficiencies and counts stand in ``devices.toml``, each with its source, its interval and,
where it was calibrated on a published figure, the id of that claim; the band of a result puts all
of them at their low or high end at once.

What is not modelled: :data:`NOT_MODELLED`. How far all this is from published frame rates, splits
and traffic: ``splatforge claims``.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Protocol, Self

import numpy as np
import numpy.typing as npt

from splatforge.designs.fetch import TILE_PX
from splatforge.scenes import check_regular_file
from splatforge.sim.costs import Entry, Sourced, read_entries

__all__ = ["FALLOFFS", "NOT_MODELLED", "FrameWork", "GpuDevice", "GpuRun", "GpuStage", "TileCounts",
           "compare", "devices", "gpu_frame", "gpu_project", "gpu_rasterize", "gpu_search",
           "gpu_sort", "read_devices"]

#: What no stage holds.
NOT_MODELLED = (
    "kernel launches, some twenty a frame, and the read-back of the number of pairs",
    "load imbalance between tiles",
    "reuse between tiles in the second-level cache",
    "throttling in smaller power modes",
    "power that depends on the load: energy is time times a power mode of the whole module",
)

_TILE_PIXELS = TILE_PX**2
_WARP = 32
_RADIX_BITS, _DEPTH_BITS = 8, 32
_DEFINITION = "definition"
#: What a device's card says, and its dimension.
_CARD = {"sms": "1", "cores": "1", "clock": "Hz", "bandwidth": "B/s", "power": "W"}


class TileCounts(Protocol):
    """Per-tile counts of a frame, as :class:`splatforge.algos.reference.TileStatistics`."""

    @property
    def pairs(self) -> npt.NDArray[np.int64]:
        """Entries of the tile's 3-sigma list, of shape [tiles]."""
        ...

    @property
    def pairs_reached(self) -> npt.NDArray[np.int64]:
        """Entries reached before every pixel of the tile had stopped, of shape [tiles]."""
        ...

    @property
    def evaluations(self) -> npt.NDArray[np.int64]:
        """Pixel-Gaussian evaluations of live pixels, of shape [tiles]."""
        ...

    @property
    def significant(self) -> npt.NDArray[np.int64]:
        """Evaluations with alpha of at least 1/255, of shape [tiles]."""
        ...

    @property
    def warp_steps(self) -> npt.NDArray[np.int64]:
        """Entries walked by each warp until its last pixel stopped, of shape [tiles]."""
        ...

    @property
    def warp_blends(self) -> npt.NDArray[np.int64]:
        """Of these the ones significant to at least one pixel of the warp, of shape [tiles]."""
        ...


@dataclass(frozen=True, kw_only=True)
class FrameWork:
    """What one frame asks of a renderer.

    Parameters
    ----------
    gaussians, gaussians_visible : int
        In the scene, and projected into the image.
    sh_degree : int
        0 to 3.
    pairs, pairs_reached : int
        (tile, Gaussian) entries by the 3-sigma rule, and those reached before their tile ended.
    pixels, tiles : int
        Of the image; tiles of 16x16.
    evaluations, significant : int
        Evaluations of live pixels, and those with alpha of at least 1/255.
    warp_steps, warp_blends : int
        Steps of warps of 32 threads in lockstep, and those in which at least one blends.

    Raises
    ------
    ValueError
        If a count is negative or contradicts another.
    """

    gaussians: int
    gaussians_visible: int
    sh_degree: int
    pairs: int
    pairs_reached: int
    pixels: int
    tiles: int
    evaluations: int
    significant: int
    warp_steps: int
    warp_blends: int

    def __post_init__(self) -> None:
        for field in fields(self):
            if getattr(self, field.name) < 0:
                raise ValueError(f"{field.name} must be non-negative, "
                                 f"not {getattr(self, field.name)!r}")
        if self.sh_degree > 3:
            raise ValueError(f"SH degree must be 0 to 3, not {self.sh_degree!r}")
        slots = self.pairs_reached * _TILE_PIXELS
        warps = _TILE_PIXELS // _WARP
        for small, large, limit in (
            ("gaussians_visible", "gaussians", self.gaussians),
            ("pairs_reached", "pairs", self.pairs),
            ("pixels", f"{_TILE_PIXELS} x tiles", self.tiles * _TILE_PIXELS),
            ("evaluations", f"{_TILE_PIXELS} x pairs_reached", slots),
            ("significant", "evaluations", self.evaluations),
            ("warp_steps", f"{warps} x pairs_reached", warps * self.pairs_reached),
            ("evaluations", f"{_WARP} x warp_steps", _WARP * self.warp_steps),
            ("warp_blends", "warp_steps", self.warp_steps),
            ("significant", f"{_WARP} x warp_blends", _WARP * self.warp_blends),
        ):
            if getattr(self, small) > limit:
                raise ValueError(f"{small} must be at most {large}, {limit}, "
                                 f"not {getattr(self, small)!r}")

    @classmethod
    def from_statistics(cls, statistics: TileCounts, *, gaussians: int, gaussians_visible: int,
                        sh_degree: int, pixels: int) -> Self:
        """Sum the counts of all tiles of a frame."""
        return cls(
            gaussians=gaussians, gaussians_visible=gaussians_visible, sh_degree=sh_degree,
            pairs=int(statistics.pairs.sum()), pairs_reached=int(statistics.pairs_reached.sum()),
            pixels=pixels, tiles=int(statistics.pairs.size),
            evaluations=int(statistics.evaluations.sum()),
            significant=int(statistics.significant.sum()),
            warp_steps=int(statistics.warp_steps.sum()),
            warp_blends=int(statistics.warp_blends.sum()),
        )

    @property
    def masked(self) -> float:
        """Share of the lanes that wait in the blend branch for others of their warp."""
        lanes = _WARP * self.warp_blends
        return 1 - self.significant / lanes if lanes else 0.0


@dataclass(frozen=True, kw_only=True)
class GpuDevice:
    """A GPU as data.

    Parameters
    ----------
    name : str
        Key in ``devices.toml``.
    sms, cores, clock, bandwidth, power : Sourced
        Streaming multiprocessors, FP32 lanes, maximum clock, DRAM bandwidth, power of the whole
        module in a power mode (the interval spans the modes).
    """

    name: str
    sms: Sourced
    cores: Sourced
    clock: Sourced
    bandwidth: Sourced
    power: Sourced

    @property
    def peak(self) -> Sourced:
        """FP32 peak in FLOP/s: a fused multiply-add per lane and cycle."""
        return self.cores * Sourced.exact(2, "FLOP", self.cores.source) * self.clock

    @property
    def issued(self) -> Sourced:
        """Floating-point operations issued per second by a kernel that masks and waits.

        An instruction of a warp takes its scheduler as long as its lanes, or as long as it and its
        share of integer instructions are issued.
        """
        entries = _constants()
        schedulers, mix = entries["architecture.schedulers"].cost, entries["architecture.integers"]
        lanes = self.cores / (self.sms * schedulers)

        def cycles(of_lanes: float, integers: float) -> float:
            return max(_WARP / of_lanes, 1 + integers)

        share = mix.cost
        taken = Sourced(cycles(lanes.value, share.value), "1", share.source,
                        cycles(lanes.high, share.low), cycles(lanes.low, share.high))
        most = self.sms * schedulers * _count(_WARP, "FLOP") * self.clock / taken
        return most * entries["efficiency.busy"].cost


@dataclass(frozen=True, kw_only=True)
class GpuStage:
    """One stage of a frame.

    Parameters
    ----------
    name : str
        ``preprocess``, ``duplicate``, ``sort``, ``rasterize`` or ``write``.
    flop, traffic, time : Sourced
        Operations (FLOP), DRAM traffic (B) and duration (s).
    bound_by : str
        ``compute`` or ``memory``.
    """

    name: str
    flop: Sourced
    traffic: Sourced
    time: Sourced
    bound_by: str

    @property
    def intensity(self) -> float:
        """Operations per byte, the abscissa of the roofline plot."""
        return self.flop.value / self.traffic.to("B").value if self.traffic.value else math.inf

    @property
    def rate(self) -> float:
        """FLOP/s reached, the ordinate of the roofline plot."""
        return self.flop.value / self.time.value if self.time.value else 0.0


@dataclass(frozen=True, kw_only=True)
class GpuRun:
    """One frame on one GPU.

    Parameters
    ----------
    device : GpuDevice
        What ran it.
    stages : tuple of GpuStage
        In order; they do not overlap.
    """

    device: GpuDevice
    stages: tuple[GpuStage, ...]

    @property
    def time(self) -> Sourced:
        """Sum over the stages in seconds."""
        total = self.stages[0].time
        for stage in self.stages[1:]:
            total += stage.time
        return total

    @property
    def energy(self) -> Sourced:
        """Time times power in joules."""
        return (self.time * self.device.power).to("J")

    @property
    def traffic_bytes(self) -> float:
        """DRAM traffic in bytes."""
        return math.fsum(stage.traffic.to("B").value for stage in self.stages)

    def part(self, *names: str) -> "GpuRun":
        """The run with some of its stages alone, for an accelerator that does only those.

        Raises
        ------
        ValueError
            If there is no such stage.
        """
        stages = {stage.name: stage for stage in self.stages}
        for name in names:
            if name not in stages:
                raise ValueError(f"Stage must be {', '.join(stages)}, not {name!r}")
        return replace(self, stages=tuple(stages[name] for name in names))

    def record(self) -> dict[str, object]:
        """The run for JSON: totals, and every stage with its point under the roofline."""
        device = self.device
        return {
            "device": device.name, "peak_flop_per_s": device.peak.value,
            "bandwidth_bytes_per_s": device.bandwidth.to("B/s").value,
            "time_s": self.time.value, "time_band_s": [self.time.low, self.time.high],
            "energy_j": self.energy.value, "energy_band_j": [self.energy.low, self.energy.high],
            "traffic_bytes": self.traffic_bytes,
            "stages": [{"name": stage.name, "time_s": stage.time.value,
                        "time_band_s": [stage.time.low, stage.time.high],
                        "bound_by": stage.bound_by, "flop": stage.flop.value,
                        "bytes": stage.traffic.to("B").value,
                        "flop_per_s": stage.rate} for stage in self.stages],
            "not_modelled": list(NOT_MODELLED),
        }

    def share(self, *names: str) -> Sourced:
        """Share of some of the stages in the time of all.

        Its low end has these stages at their low end and all others at their high one.

        Raises
        ------
        ValueError
            If there is no such stage, or the frame takes no time.
        """
        if not self.time.value:
            raise ValueError("Frame must take time to be shared among stages, not 0 s")
        rest = tuple(stage for stage in self.stages if stage.name not in names)
        part = self.part(*names).time
        others = replace(self, stages=rest).time if rest else _count(0, "s")
        def of(mine: float, theirs: float) -> float:
            return mine / (mine + theirs) if mine else 0.0
        return Sourced(of(part.value, others.value), "1", self.time.source,
                       of(part.low, others.high), of(part.high, others.low), self.time.points)


@cache
def _constants() -> dict[str, Entry]:
    where = "devices.toml"
    text = files("splatforge.sim").joinpath(where).read_text()
    return read_entries(where, tomllib.loads(text))


def _cards(entries: Mapping[str, Entry]) -> dict[str, GpuDevice]:
    """The devices of some entries ``device.<name>.<part>``."""
    names = dict.fromkeys(key.split(".")[1] for key in entries if key.startswith("device."))
    return {name: GpuDevice(name=name, **{part: entries[f"device.{name}.{part}"].cost
                                          for part in _CARD})
            for name in names}


@cache
def devices() -> dict[str, GpuDevice]:
    """The committed devices by name."""
    return _cards(_constants())


def read_devices(path: Path) -> dict[str, GpuDevice]:
    """Devices of a user's file, by name.

    Parameters
    ----------
    path : Path
        TOML with tables ``device.<name>.sms``, ``.cores``, ``.clock``, ``.bandwidth`` and
        ``.power``, each with value, unit, low, high and source, as in ``sim/devices.toml``.

    Raises
    ------
    ValueError
        If the file is not there or no TOML, holds something else, or a card is not whole.
    """
    check_regular_file(path, "TOML")
    try:
        tree = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    entries = read_entries(str(path), tree)
    for key, entry in entries.items():
        kind, *rest = key.split(".")
        if kind != "device" or len(rest) != 2 or rest[1] not in _CARD:
            raise ValueError(f"{path}: {key} must be device.NAME with one of {', '.join(_CARD)}")
        try:
            entry.cost.to(_CARD[rest[1]])
        except ValueError:
            raise ValueError(f"{path}: {key}.unit must be one of {_CARD[rest[1]]}, "
                             f"not {entry.cost.unit!r}") from None
        if entry.cost.low <= 0:
            raise ValueError(f"{path}: {key}.low must be above zero, not {entry.cost.low!r}")
    for name in dict.fromkeys(key.split(".")[1] for key in entries):
        for part in _CARD:
            if f"device.{name}.{part}" not in entries:
                raise ValueError(f"{path}: device.{name}.{part} is missing: every card states it")
    return _cards(entries)


def _count(number: float, unit: str = "1") -> Sourced:
    return Sourced.exact(number, unit, _DEFINITION)


def _stage(name: str, flop: Sourced, traffic: Sourced, device: GpuDevice) -> GpuStage:
    entries = _constants()
    compute = flop / device.issued
    memory = traffic / (entries["efficiency.memory"].cost * device.bandwidth)
    slower = compute if compute.value > memory.value else memory
    time = Sourced(slower.value, "s", slower.source, max(compute.low, memory.low),
                   max(compute.high, memory.high), compute.points | memory.points)
    return GpuStage(name=name, flop=flop, traffic=traffic, time=time,
                    bound_by="compute" if slower is compute else "memory")


def _radix_passes(tiles: int) -> int:
    """Passes over the bits of a depth and of a tile number."""
    return -(-(_DEPTH_BITS + tiles.bit_length()) // _RADIX_BITS)


#: Which exponentials a rasterizer takes: of every evaluation; of those alone whose exponent is at
#: most ln(255 o), as Voyager's client filters them; of these out of a table in shared memory.
FALLOFFS = ("exp", "filtered", "table")


def gpu_frame(work: FrameWork, device: GpuDevice, falloff: str = "exp") -> GpuRun:
    """Time, traffic and energy of one frame on a GPU.

    Parameters
    ----------
    work : FrameWork
        The frame.
    device : GpuDevice
        One of :func:`devices`, or one of your own.
    falloff : str
        One of :data:`FALLOFFS`.

    Returns
    -------
    GpuRun
        Stages with their bounds; totals with their bands.

    Notes
    -----
    Divergence comes from the workload, not from a constant: a warp pays 32 lanes for every entry
    that one of its live pixels looks at, and 32 more for every entry that one of them blends.

    References
    ----------
    Kerbl et al., "3D Gaussian Splatting for Real-Time Radiance Field Rendering", ACM TOG 42(4),
    2023; Williams, Waterman and Patterson, "Roofline", CACM 52(4), 2009.
    """
    return GpuRun(device=device, stages=(
        gpu_project(device, gaussians=work.gaussians, visible=work.gaussians_visible,
                    coefficients=(work.sh_degree + 1) ** 2),
        *gpu_sort(device, gaussians=work.gaussians, visible=work.gaussians_visible,
                  pairs=work.pairs, tiles=work.tiles),
        *gpu_rasterize(device, pairs_reached=work.pairs_reached, warp_steps=work.warp_steps,
                       warp_blends=work.warp_blends, pixels=work.pixels, falloff=falloff),
    ))


def _per(name: str) -> Sourced:
    return _constants()[f"work.{name}"].cost


def gpu_project(device: GpuDevice, *, gaussians: int, visible: int, coefficients: int,
                written: Sourced | None = None) -> GpuStage:
    """Stage ``preprocess``: Gaussians are read, projected, coloured, and written.

    Parameters
    ----------
    device : GpuDevice
        What does it.
    gaussians, visible : int
        Gaussians that are looked at, and of these those that are projected.
    coefficients : int
        Of SH, 1 to 16; 0 where no colour is asked for.
    written : Sourced, optional
        Bytes of a projected Gaussian; by default what the reference implementation writes.
    """
    parameters = _count(4 * (11 + 3 * coefficients), "B")
    traffic = (parameters + (written or _per("preprocess_write_bytes"))) * visible
    traffic += _per("culled_bytes") * (gaussians - visible)
    traffic += _count(8, "B") * gaussians  # radius and tile count are cleared for all
    project = (_per("geometry_flop") + _per("color_flop") * coefficients) * visible
    return _stage("preprocess", project, traffic, device)


def gpu_search(device: GpuDevice, *, visited: int) -> GpuStage:
    """Stage ``search``: nodes of a level-of-detail tree are read and measured.

    Parameters
    ----------
    device : GpuDevice
        What does it.
    visited : int
        Nodes that are looked at: of each a box, the parent and the first child, 32 bytes, and 20
        operations (:func:`splatforge.algos.voyager.search.Search.full`).
    """
    return _stage("search", _count(20, "FLOP") * visited, _count(32, "B") * visited, device)


def gpu_sort(device: GpuDevice, *, gaussians: int, visible: int, pairs: int, tiles: int
             ) -> tuple[GpuStage, GpuStage]:
    """Stages ``duplicate`` and ``sort``: a pair for every tile of a Gaussian, put in order.

    Parameters
    ----------
    device : GpuDevice
        What does it.
    gaussians, visible : int
        Gaussians that are looked at, and those that are projected.
    pairs, tiles : int
        (tile, Gaussian) entries, and tiles.
    """
    per_visible = _count(4 + 8 + 4 + 4, "B")  # depth, mean, radius and offset read
    duplicate = _per("pair_bytes") * pairs + per_visible * visible
    duplicate += _count(4 + 4, "B") * gaussians  # tile counts summed: read and written

    passes = _per("radix_passes_more") + _count(_radix_passes(tiles))
    radix = passes * (_per("pair_bytes") * 2 + _per("radix_extra_bytes"))
    # The keys are read once before the passes, for their histograms, and once behind, for ranges.
    sort = (radix + _per("histogram_bytes") + _count(8, "B")) * pairs
    sort += _count(2 * 8, "B") * tiles  # ranges cleared and written

    nothing = _count(0, "FLOP")
    return (_stage("duplicate", nothing, duplicate, device),
            _stage("sort", nothing, sort, device))


def gpu_rasterize(device: GpuDevice, *, pairs_reached: int, warp_steps: int, warp_blends: int,
                  pixels: int, cached: Sourced | None = None, falloff: str = "exp",
                  ) -> tuple[GpuStage, GpuStage]:
    """Stages ``rasterize`` and ``write``: warps walk the lists of their tiles.

    Parameters
    ----------
    device : GpuDevice
        What does it.
    pairs_reached, warp_steps, warp_blends, pixels : int
        As in :class:`FrameWork`.
    cached : Sourced, optional
        Bytes that are read and written of a cache of colours.
    falloff : str
        One of :data:`FALLOFFS`. A warp in which one lane's exponent passes the filter goes on with
        all of them.

    Raises
    ------
    ValueError
        If it is not one of those.
    """
    if falloff not in FALLOFFS:
        raise ValueError(f"Falloff must be one of {', '.join(FALLOFFS)}, not {falloff!r}")
    test, blend = _per("evaluate_flop"), _per("blend_flop")
    if falloff != "exp":
        test = _per("exponent_flop")
        blend += _per("exponential_flop" if falloff == "filtered" else "lookup_flop")
    tests = test * (_WARP * warp_steps)
    blends = blend * (_WARP * warp_blends)
    traffic = _per("reached_bytes") * pairs_reached
    return (_stage("rasterize", tests + blends, traffic + cached if cached else traffic, device),
            _stage("write", _count(0, "FLOP"), _per("pixel_bytes") * pixels, device))


def compare(*, time_s: float, energy_j: float, gpu_runs: Iterable[GpuRun],
            energy_band_j: tuple[float, float] | None = None,
            time_band_s: tuple[float, float] | None = None) -> dict[str, dict[str, object]]:
    """Baselines of a run for ``simulate --json``.

    Parameters
    ----------
    time_s, energy_j : float
        Of the accelerator, the same frame; above zero.
    gpu_runs : iterable of GpuRun
        Of the same frame, and of the same stages (:meth:`GpuRun.part`).
    energy_band_j, time_band_s : tuple of float, optional
        Of the accelerator; they widen the bands of the ratios.

    Returns
    -------
    dict
        Device name -> ``time_s``, ``energy_j``, ``speedup`` and ``energy_saving`` (both ratios,
        GPU over accelerator), each with its ``_band`` as [low, high].

    Raises
    ------
    ValueError
        If a time or an energy is not above zero.
    """
    low_j, high_j = energy_band_j or (energy_j, energy_j)
    low_s, high_s = time_band_s or (time_s, time_s)
    for name, number in (("Time in s", time_s), ("Low end of the time in s", low_s),
                         ("Energy in J", energy_j),
                         ("Low end of the energy in J", low_j)):
        if not (math.isfinite(number) and number > 0):
            raise ValueError(f"{name} must be above zero, not {number!r}")
    baselines = dict[str, dict[str, object]]()
    for run in gpu_runs:
        time, spent = run.time, run.energy
        baselines[run.device.name] = {
            "time_s": time.value, "time_band_s": [time.low, time.high],
            "energy_j": spent.value, "energy_band_j": [spent.low, spent.high],
            "speedup": time.value / time_s,
            "speedup_band": [time.low / high_s, time.high / low_s],
            "energy_saving": spent.value / energy_j,
            "energy_saving_band": [spent.low / high_j, spent.high / low_j],
        }
    return baselines
