"""Many designs through the models: every workload once, whatever hardware it is put to.

What an algorithm reads of a design is watched (:mod:`splatforge.sim.reading`), so a workload serves
all points that agree in that; the cycle model and the costs are worked out for each. Points go to
an executor of :mod:`concurrent.futures`: processes here (:func:`processes`) or the workers of a
Dask cluster. Whatever is done is written at once (:mod:`splatforge.sim.sweep_results`), so that a
sweep that was ended goes on from there.
"""

import hashlib
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from functools import cache, cached_property, lru_cache
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numba
import numpy as np

from splatforge.algos import reference
from splatforge.algos.quality import psnr_db
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.memory import BankedMemory, Memory, MemoryTiming
from splatforge.designs.shell import AcceleratorDesign
from splatforge.scenes import Camera, Scene, resolve
from splatforge.scenes.cache import cache_folder
from splatforge.scenes.scene import SceneError
from splatforge.sim.area import area_of_units
from splatforge.sim.costs import default_costs
from splatforge.sim.dram_energy import dram_costs
from splatforge.sim.energy import energy_of_units
from splatforge.sim.reading import watch
from splatforge.sim.run import Run
from splatforge.sim.simulate import MODELS, Work, clock_of
from splatforge.sim.sweep_cache import SweepCache, digest_of, values_digest
from splatforge.sim.sweep_results import Results

__all__ = ["LaneArea", "Outcome", "Point", "View", "evaluate", "processes", "scene_digest", "sweep"]

#: Points of a task: what may be lost of a sweep that is killed, for each worker.
_CHUNK = 8
#: Runs of the cycle model that a process remembers.
_RUNS = 256
#: Packages whose files say what a point comes to.
_PROGRAM = ("algos", "designs", "scenes", "sim")


class LaneArea(Protocol):
    """From a design to the area of a lane of its array in um^2; `name` tells one from another."""

    @property
    def name(self) -> str:
        """What tells one from another."""
        ...

    def __call__(self, design: Any) -> float:
        """The area in um^2."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class View:
    """What is drawn, and from where.

    Parameters
    ----------
    scene : tuple of str
        Names or files of scenes, merged, as :func:`splatforge.scenes.resolve` takes them.
    digest : str
        Of the scene, see :func:`scene_digest`: a worker must find the same one.
    cameras : tuple of Camera
        Frames in a row, of one size.
    antialiased : bool, optional
        Flag in place of the scene's own.
    background : tuple of float
        Linear red, green, blue in [0, 1].
    """

    scene: tuple[str, ...]
    digest: str
    cameras: tuple[Camera, ...]
    antialiased: bool | None = None
    background: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @cached_property
    def key(self) -> str:
        """Digest of all that there is to see."""
        parts: list[object] = [self.digest, self.background]
        for camera in self.cameras:
            parts += [value.tolist() if isinstance(value, np.ndarray) else value for value in (
                getattr(camera, each.name) for each in fields(camera))]
        return digest_of(*parts)


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """A design in a setting.

    Parameters
    ----------
    view : View
        What is drawn.
    name, preset : str
        The accelerator, and the configuration that the parameters differ from.
    design : AcceleratorDesign or None
        None if there can be no such design; `error` says why.
    parameters : Mapping
        Dotted name -> value of what was turned.
    turned : str
        Which of them is turned alone, where one is.
    memory : MemoryTiming or str
        Of fixed latency, or the name of a DRAM.
    clock_hz : float or None
        Clock; None for what synthesis supports.
    node_nm : float
        Process node, 7 to 130.
    """

    view: View
    name: str
    preset: str
    design: AcceleratorDesign | None
    error: str = ""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    turned: str = ""
    memory: MemoryTiming | str = field(default_factory=MemoryTiming)
    clock_hz: float | None = None
    node_nm: float = 28.0

    def key(self, *more: object) -> str:
        """What the result is known by: all that it depends on, the program and `more` with it."""
        return digest_of(
            program_digest(), self.view.key, self.view.scene, self.name, self.preset, self.design,
            self.error, sorted((name, str(value)) for name, value in self.parameters.items()),
            self.turned, self.memory, self.clock_hz, float(self.node_nm), *more)

    def row(self) -> dict[str, Any]:
        """What is known of its result before it is computed."""
        camera = self.view.cameras[0]
        return {
            "design": self.name, "preset": self.preset, "turned": self.turned,
            "scene": " ".join(Path(name).name for name in self.view.scene),
            "width": camera.width, "height": camera.height, "frames": len(self.view.cameras),
            "memory": self.memory if isinstance(self.memory, str) else "fixed",
            "node_nm": float(self.node_nm), "program": program_digest()[:16],
            **{name: value if isinstance(value, (bool, int, float)) else str(value)
               for name, value in self.parameters.items()}}


@cache
def program_digest() -> str:
    """Digest of the program's files that a result depends on."""
    digest = hashlib.sha256()
    for package in _PROGRAM:
        for folder in map(Path, import_module(f"splatforge.{package}").__path__):
            for path in sorted(folder.rglob("*")):
                if path.suffix in (".py", ".toml") and path.is_file():
                    name = path.relative_to(folder).as_posix()
                    digest.update(f"{package}/{name}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def scene_digest(scene: Scene) -> str:
    """Digest of all arrays of a scene, and of its flag."""
    digest = hashlib.sha256(repr(scene.antialiased).encode())
    for array in (scene.means, scene.log_scales, scene.quats, scene.opacity_logits, scene.sh):
        digest.update(repr(array.shape).encode() + np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()


# ---- A worker -----------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def _scene(names: tuple[str, ...], antialiased: bool | None, digest: str) -> Scene:
    scene = resolve(*names, antialiased=antialiased)
    if scene_digest(scene) != digest:
        raise SceneError(f"{' '.join(names)}: is another scene for this worker: every worker must "
                         "see the same files")
    return scene


def _works(view: View, name: str, design: AcceleratorDesign, store: SweepCache) -> Any:
    """Workloads of all frames and the PSNR of the worst, from the store or for it."""
    # The reference is the same for all designs.
    def draw(_: Any) -> list[Any]:
        scene = _scene(view.scene, view.antialiased, view.digest)
        return [reference.render(scene, camera, background=view.background).image
                for camera in view.cameras]

    def work(watched: Any) -> tuple[tuple[Work, ...], float]:
        scene = _scene(view.scene, view.antialiased, view.digest)
        exact = store.get(
            digest_of("reference", program_digest(), view.key), _Nothing(), draw).value
        works, ratios = [], []
        frames = MODELS[name].work(scene, view.cameras, watched, view.background)
        for frame, picture in zip(frames, exact, strict=True):
            ratios.append(psnr_db(frame.picture.image, picture))
            works.append(replace(frame, picture=None))
        return tuple(works), min(ratios)

    return store.get(workload_key(view, name), design, work)


@dataclass(frozen=True)
class _Nothing:
    """A design of which nothing can be read."""


def workload_key(view: View, name: str) -> str:
    """What workloads of an algorithm depend on beside its design."""
    return digest_of("workload", program_digest(), view.key, name)


#: Runs by workload and memory: parameters that were read, and for their values what was said.
_runs: OrderedDict[str, tuple[Run, ...]] = OrderedDict()
_run_paths: dict[str, set[tuple[str, ...]]] = {}


def _runs_of(works: Sequence[Work], workload: str, name: str, design: AcceleratorDesign,
             timing: Memory) -> tuple[tuple[Run, ...], tuple[str, ...]]:
    """The cycle model's, and which parameters it read."""
    key = digest_of(workload, timing)
    known = _run_paths.setdefault(name, set())
    for paths in known:
        found = _runs.get(f"{key}{digest_of(*paths)}{values_digest(design, paths)}")
        if found is not None:
            return found, paths
    watched, reads = watch(design)
    runs = tuple(MODELS[name].run(work, watched, timing) for work in works)
    paths = tuple(sorted(reads))
    known.add(paths)
    _runs[f"{key}{digest_of(*paths)}{values_digest(design, paths)}"] = runs
    while len(_runs) > _RUNS:
        _runs.popitem(last=False)
    return runs, paths


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a worker says of a task.

    Parameters
    ----------
    rows : list of dict
        Results, by the names of :data:`splatforge.sim.sweep_results.COLUMNS`.
    work_paths, run_paths : tuple of str
        Parameters that the algorithm and the cycle model read; empty where every point failed.
    """

    rows: list[dict[str, Any]]
    work_paths: tuple[str, ...] = ()
    run_paths: tuple[str, ...] = ()


def evaluate(points: Sequence[Point], folder: str, lane: LaneArea | None = None) -> Outcome:
    """Work points of one view out, one after another.

    Parameters
    ----------
    points : sequence of Point
        All with a design.
    folder : str
        Of workloads, see :class:`splatforge.sim.sweep_cache.SweepCache`.
    lane : callable, optional
        Area of a lane by synthesis, for the column ``lane_um2``.

    Returns
    -------
    Outcome
        A row for each. A point that has no result has an ``error``.

    Raises
    ------
    SceneError
        Of a scene or of the folder; of no point alone.
    """
    store = SweepCache(Path(folder))
    rows, work_paths, run_paths = [], (), ()
    for point in points:
        start = time.process_time()
        row = point.row()
        try:
            figures, work_paths, run_paths = _figures(point, store, lane)
            row |= figures | {"status": "done"}
        except (SceneError, OSError, MemoryError):
            raise
        except Exception as error:
            row |= {"status": "failed", "error": _line(error)}
        rows.append(row | {"spent_s": time.process_time() - start})
    return Outcome(rows=rows, work_paths=work_paths, run_paths=run_paths)


def _line(error: BaseException) -> str:
    """An error in a line, its kind where it is no statement about a value."""
    text = " ".join(str(error).split())
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _figures(point: Point, store: SweepCache, lane: LaneArea | None
             ) -> tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]:
    """Figures of one point, and what was read for them."""
    design, name, node_nm = point.design, point.name, point.node_nm
    assert design is not None  # such a point is not evaluated
    models, table = MODELS[name], default_costs()
    found = _works(point.view, name, design, store)
    works, psnr = found.value
    clock_hz = point.clock_hz or clock_of(design, table, node_nm).value
    timing: Memory
    of_dram: dict[str, Any] = {}
    if isinstance(point.memory, str):
        dram = DRAMS[point.memory]
        timing = BankedMemory(dram=dram, clock_hz=clock_hz)
        of_dram = {"dram": dram.name, "costs": dram_costs(dram)}
    else:
        timing = point.memory
    runs, run_paths = _runs_of(works, found.digest, name, design, timing)
    energies = [
        energy_of_units(models.events(work, design, run, clock_hz, table), node_nm=node_nm,
                        table=table, **of_dram)
        for work, run in zip(works, runs, strict=True)]
    areas = area_of_units(models.inventory(design, table), node_nm=node_nm, table=table)
    cycles = sum(run.cycles for run in runs)
    lane_um2 = None
    if lane is not None:
        lane_um2 = store.get(digest_of("lane", lane.name, name), design, lane).value
    return {
        "cycles": cycles, "clock_hz": clock_hz, "time_s": cycles / clock_hz,
        "energy_j": sum(each.energy_j for each in energies),
        "energy_low_j": sum(each.low_j for each in energies),
        "energy_high_j": sum(each.high_j for each in energies),
        "area_mm2": areas.area_mm2, "area_low_mm2": areas.band_mm2[0],
        "area_high_mm2": areas.band_mm2[1], "psnr_db": psnr,
        "bytes_read": sum(run.bytes_read for run in runs),
        "bytes_written": sum(run.bytes_written for run in runs),
        "lane_um2": lane_um2, "workload": found.digest, "workload_made": found.made,
        "counters": {counter: sum(run.counters[counter] for run in runs)
                     for counter in runs[0].counters},
    }, found.paths, run_paths


# ---- Who works ----------------------------------------------------------------------------------


class Here(Executor):
    """Runs what it is given at once, in this thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """A future that is done."""
        future = Future[Any]()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _begin(parent: Connection, threads: int) -> None:
    """Of a worker: it ends with its parent, however that ends, and leaves interrupts to it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    numba.set_num_threads(max(1, min(threads, numba.get_num_threads())))

    def watch_parent() -> None:
        try:
            parent.recv()
        except (EOFError, OSError):
            os._exit(1)

    threading.Thread(target=watch_parent, daemon=True).start()


@contextmanager
def processes(number: int) -> Iterator[Executor]:
    """So many workers here, in processes of their own; one alone works in this one.

    They end when the block does, or when this process is killed.
    """
    if number == 1:
        yield Here()
        return
    # What a killed sweep leaves is cleared up by multiprocessing's tracker, which need not warn.
    quiet = "ignore::UserWarning:multiprocessing.resource_tracker"
    if quiet not in sys.warnoptions:
        sys.warnoptions.append(quiet)
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    threads = max(1, (os.cpu_count() or 1) // number)
    pool = ProcessPoolExecutor(number, mp_context=context, initializer=_begin,
                               initargs=(theirs, threads))
    try:
        yield pool
        pool.shutdown()
    except BaseException:
        # Closed, it ends them in the midst of what they do.
        ours.close()
        pool.shutdown(wait=False, cancel_futures=True)
        raise
    finally:
        ours.close()
        theirs.close()


# ---- Who hands out ------------------------------------------------------------------------------


class _Queue:
    """Tasks of points that share a workload: one of them first, the others when that is there."""

    def __init__(self, points: Sequence[tuple[str, Point]]) -> None:
        self.ready: list[list[tuple[str, Point]]] = []
        # By view and accelerator: points whose workload nobody computes yet.
        self._waiting: dict[tuple[str, str], list[tuple[str, Point]]] = {}
        # By the key of the point that computes a workload: those that wait for it.
        self._behind: dict[str, list[tuple[str, Point]]] = {}
        for key, point in points:
            self._waiting.setdefault((point.view.key, point.name), []).append((key, point))
        for group in self._waiting.values():
            self.ready.append([group.pop(0)])

    def _lead(self, entries: list[tuple[str, Point]]) -> None:
        """The first of points that share a workload computes it."""
        first, *others = entries
        self.ready.append([first])
        self._behind[first[0]] = others

    def finished(self, task: Sequence[tuple[str, Point]], outcome: Outcome) -> None:
        """A task is done; others may be ready for it."""
        key, point = task[0]
        group = (point.view.key, point.name)
        waiting = self._waiting.get(group, [])
        if waiting and not outcome.work_paths:
            # It failed before anything was known: the next one is the first.
            self.ready.append([waiting.pop(0)])
            return
        others = self._behind.pop(key, [])
        if others and not outcome.work_paths:
            # Those behind it have no workload yet.
            self._lead(others)
            return
        if waiting:
            # Which parameters the algorithm reads is known: tell the workloads apart by them.
            self._waiting[group] = []
            shared: dict[str, list[tuple[str, Point]]] = {}
            for entry in waiting:
                shared.setdefault(values_digest(
                    entry[1].design, outcome.work_paths), []).append(entry)
            others = shared.pop(values_digest(point.design, outcome.work_paths), [])
            for entries in shared.values():
                self._lead(entries)
        # Those that even the cycle model cannot tell apart go to one worker.
        alike: dict[str, list[tuple[str, Point]]] = {}
        for entry in others:
            alike.setdefault(digest_of(
                values_digest(entry[1].design, outcome.run_paths), entry[1].memory,
                entry[1].clock_hz if isinstance(entry[1].memory, str) else None), []).append(entry)
        chunk: list[tuple[str, Point]] = []
        for entries in alike.values():
            chunk += entries
            if len(chunk) >= _CHUNK:
                self.ready.append(chunk)
                chunk = []
        if chunk:
            self.ready.append(chunk)


def sweep(
    points: Sequence[Point], folder: str | os.PathLike[str], *,
    executor: Executor | None = None, window: int = 2, cache: Path | None = None,
    lane: LaneArea | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[dict[str, Any]]:
    """Work all points out that a folder of results does not hold yet.

    Parameters
    ----------
    points : sequence of Point
        What is to be known.
    folder : path-like
        Of the results.
    executor : Executor, optional
        Who works: :func:`processes`, or the workers of a Dask cluster. This thread by default.
    window : int
        Tasks handed out at a time: twice as many as there are workers keep them busy.
    cache : Path, optional
        Folder of workloads: that of :func:`splatforge.scenes.cache.cache_folder`. Every worker must
        be able to write to it.
    lane : callable, optional
        Area of a lane by synthesis, for the column ``lane_um2``.
    progress : callable, optional
        Called with the points that are finished, and all of them.

    Returns
    -------
    list of dict
        A row for each point, in order, as :meth:`splatforge.sim.sweep_results.Results.rows` has it.

    Raises
    ------
    SceneError
        A folder cannot be written to, or a file of results cannot be read.
    RuntimeError
        Workers were killed.
    """
    store = SweepCache(cache_folder(cache) / "sweeps")
    store.trim()
    tell = progress or (lambda done, total: None)
    more = ("lane", lane.name) if lane is not None else ()
    known = {point.key(*more): point for point in points}
    values: dict[str, list[Any]] = {}
    for point in known.values():
        row = point.row()
        for name in point.parameters:
            values.setdefault(name, []).append(row[name])
    with Results(folder) as results:
        done = results.keys() & known.keys()
        tell(len(done), len(known))
        impossible = [
            point.row() | {"key": key, "status": "failed", "error": point.error}
            for key, point in known.items() if point.design is None and key not in done]
        if impossible:
            results.append(impossible, values)
            done |= {row["key"] for row in impossible}
        queue = _Queue([(key, point) for key, point in known.items() if key not in done])
        pending: dict[Future[Outcome], list[tuple[str, Point]]] = {}
        pool = executor or Here()
        try:
            while queue.ready or pending:
                while queue.ready and len(pending) < window:
                    task = queue.ready.pop(0)
                    pending[pool.submit(
                        evaluate, [point for _, point in task], str(store.folder), lane)] = task
                finished, _ = wait(pending, return_when=FIRST_COMPLETED)
                for future in finished:
                    task = pending.pop(future)
                    outcome = future.result()
                    results.append([row | {"key": key} for (key, _), row in zip(
                        task, outcome.rows, strict=True)], values)
                    done |= {key for key, _ in task}
                    queue.finished(task, outcome)
                    tell(len(done), len(known))
        except BaseException:
            for future in pending:
                future.cancel()
            raise
        rows = {row["key"]: row for row in results.rows(known)}
    return [rows[key] for key in known]
