"""What a report shows, as frozen dataclasses; every field's name carries its unit."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

__all__ = [
    "Baseline",
    "ComparedDesign",
    "Comparison",
    "EnergyPart",
    "Machine",
    "Report",
    "Share",
    "Stage",
    "TileGrid",
    "UnitArea",
    "UnitEnergy",
    "UnitTrack",
    "plain",
]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Cycles of one unit.

    Parameters
    ----------
    name : str
        The unit.
    busy_cycles : int
        Cycles in which it worked.
    stall_cycles : int
        Cycles in which it had work and could not go on.

    Raises
    ------
    ValueError
        If a count is negative.
    """

    name: str
    busy_cycles: int
    stall_cycles: int

    def __post_init__(self) -> None:
        if self.busy_cycles < 0 or self.stall_cycles < 0:
            raise ValueError(f"Stage cycles must not be negative, not {self}")


@dataclass(frozen=True, kw_only=True)
class Share:
    """One part of a frame's cycles; the parts of a frame add up to all of them.

    Parameters
    ----------
    name : str
        What the cycles went into.
    cycles : int
        How many.
    """

    name: str
    cycles: int


@dataclass(frozen=True, kw_only=True)
class EnergyPart:
    """Energy that one part took.

    Parameters
    ----------
    name : str
        What took it.
    energy_j : float
        Joules.
    low_j, high_j : float
        The band in which the source leaves it.
    source : str
        Where the cost per action is from.

    Raises
    ------
    ValueError
        If the energy is outside its own band.
    """

    name: str
    energy_j: float
    low_j: float
    high_j: float
    source: str = ""

    def __post_init__(self) -> None:
        if not 0 <= self.low_j <= self.energy_j <= self.high_j:
            raise ValueError(f"Energy must lie in its band and not below zero, not {self}")


@dataclass(frozen=True, kw_only=True)
class UnitEnergy:
    """Energy that one unit spent in one way.

    Parameters
    ----------
    unit, kind : str
        The unit, and what took the energy there.
    energy_j : float
        Joules.
    """

    unit: str
    kind: str
    energy_j: float


@dataclass(frozen=True, kw_only=True)
class UnitArea:
    """Area of one unit.

    Parameters
    ----------
    unit : str
        The unit.
    area_mm2, low_mm2, high_mm2 : float
        Square millimetres, and the band in which the source leaves them.
    """

    unit: str
    area_mm2: float
    low_mm2: float
    high_mm2: float


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One point under its two roofs.

    Parameters
    ----------
    name : str
        The machine.
    peak_evaluations_per_s : float
        Compute roof: pixel-Gaussian evaluations per second when nothing is missing.
    peak_bytes_per_s : float
        Memory roof.
    evaluations_per_byte : float
        Evaluations per byte of DRAM traffic in this workload.
    evaluations_per_s : float
        What was reached.
    source : str
        Where the roofs are from.

    Raises
    ------
    ValueError
        If a number is not positive and finite.
    """

    name: str
    peak_evaluations_per_s: float
    peak_bytes_per_s: float
    evaluations_per_byte: float
    evaluations_per_s: float
    source: str = ""

    def __post_init__(self) -> None:
        for name in ("peak_evaluations_per_s", "peak_bytes_per_s", "evaluations_per_byte",
                     "evaluations_per_s"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ValueError(f"Machine {name} must be positive and finite, not {value!r}")


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Another machine on the same frames.

    Parameters
    ----------
    name : str
        The machine.
    time_s, energy_j : float
        What it takes.
    speedup, energy_saving : float
        Its time and energy divided by ours.
    source : str
        How the figures were made.
    """

    name: str
    time_s: float
    energy_j: float
    speedup: float
    energy_saving: float
    source: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class TileGrid:
    """Counts of every tile of the frame.

    Parameters
    ----------
    tile_px : int
        Side of a tile in pixels.
    counts : mapping of str to array_like
        Name of what was counted to an integer array of shape [tiles_y, tiles_x]; equal shapes.

    Raises
    ------
    ValueError
        If there is no count or the shapes differ.
    """

    tile_px: int
    counts: Mapping[str, npt.NDArray[np.int64]]

    def __post_init__(self) -> None:
        shapes = {np.shape(grid) for grid in self.counts.values()}
        if len(shapes) != 1 or len(next(iter(shapes))) != 2:
            raise ValueError(f"Tile counts must share one shape [rows, columns], not {shapes}")

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of tiles."""
        rows, columns = np.shape(next(iter(self.counts.values())))
        return rows, columns


@dataclass(frozen=True, kw_only=True)
class UnitTrack:
    """What one unit did over the cycles of a frame.

    Parameters
    ----------
    unit : str
        The unit.
    edges : sequence of int
        Cycles between the windows, both ends of the frame included.
    states : mapping of str to sequence of float
        ``busy``, ``skipping``, ``stalled``, ``starved`` -> cycles of each window; the rest of a
        window the unit was idle.

    Raises
    ------
    ValueError
        If edges do not rise, or a state has not one number for each window.
    """

    unit: str
    edges: Sequence[int]
    states: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        if len(self.edges) < 2 or (np.diff(self.edges) <= 0).any():
            raise ValueError(f"Track edges must be two or more that rise, of {self.unit}")
        for name, cycles in self.states.items():
            if len(cycles) != len(self.edges) - 1:
                raise ValueError(f"Track {name} must have {len(self.edges) - 1} windows, not "
                                 f"{len(cycles)}, of {self.unit}")

    @classmethod
    def of(cls, track: Any) -> Self:
        """From whatever has ``unit``, ``edges`` and ``states``."""
        return cls(unit=track.unit, edges=[int(edge) for edge in track.edges],
                   states={name: [float(each) for each in cycles]
                           for name, cycles in track.states.items()})

    def every_state(self) -> dict[str, npt.NDArray[np.float64]]:
        """All states and ``idle``, of shape [windows]: together no less than a window's cycles.

        A unit that is done with several things at once has more in a window than the window is
        long; it was not idle then.
        """
        states = {name: np.asarray(cycles, np.float64) for name, cycles in self.states.items()}
        spent = np.sum(list(states.values()), axis=0) if states else np.float64(0)
        return {**states, "idle": np.maximum(np.diff(self.edges) - spent, 0.0)}


@dataclass(frozen=True, kw_only=True)
class PublishedClaim:
    """A published figure and what a model of ours says, as text.

    Parameters
    ----------
    id, quantity : str
        Of the claim; what was measured.
    published, computed, band : str
        Numbers with their units; empty where there is none.
    status, reason : str
        As it was computed, and why.
    setting, source : str
        What ours has in the place of the paper's; where the figure was read.
    """

    id: str
    quantity: str
    published: str
    computed: str
    band: str
    status: str
    reason: str = ""
    setting: str = ""
    source: str = ""


@dataclass(frozen=True, kw_only=True)
class SystemClaims:
    """Claims on one system.

    Parameters
    ----------
    name, about, paper : str
        Its key, what it is, and where it was published.
    claims : sequence of PublishedClaim
        In the order of their table.
    """

    name: str
    about: str
    paper: str
    claims: Sequence[PublishedClaim]

    def count(self, status: str) -> int:
        """Claims of a status."""
        return sum(claim.status == status for claim in self.claims)


@dataclass(frozen=True, kw_only=True, eq=False)
class Report:
    """Everything that the page shows.

    Parameters
    ----------
    command : str
        The command line that made it.
    versions : mapping of str to str
        Package to version.
    scene, cosim, simulate : mapping
        The figures of the verbs ``scenes info``, ``cosim`` and ``simulate``, keys as in their JSON.
    design : mapping
        Every parameter of the design, nested as the design is.
    rendered, reference : array_like
        Pictures of shape [height, width, 3] in [0, 1]: of the RTL, and of the float reference for
        the same camera.
    frame : int
        Which of the frames the pictures show.
    stages, breakdown, energy, machines, baselines : sequence
        The units, the parts of all cycles, of the energy, the machines of the roofline plot, and
        the machines to compare with.
    tiles : TileGrid, optional
        Work of every tile of the shown frame.
    tracks : sequence of UnitTrack
        What every unit did over the cycles of the shown frame.
    unit_energies, unit_areas : sequence
        Energy of every unit by kind, and its area, of all units whose is known.
    sources : mapping of str to str
        Cost or constant to where it is from.
    notes : sequence of str
        What a reader must know to not misread the figures.
    systems : sequence of SystemClaims
        Published figures of the accelerator and of GPU-side systems beside ours.

    Raises
    ------
    ValueError
        If the pictures are not two of one shape [height, width, 3].
    """

    command: str
    versions: Mapping[str, str]
    scene: Mapping[str, Any]
    cosim: Mapping[str, Any]
    simulate: Mapping[str, Any]
    design: Mapping[str, Any]
    rendered: npt.NDArray[np.float32]
    reference: npt.NDArray[np.float32]
    frame: int = 0
    stages: Sequence[Stage] = ()
    breakdown: Sequence[Share] = ()
    energy: Sequence[EnergyPart] = ()
    machines: Sequence[Machine] = ()
    baselines: Sequence[Baseline] = ()
    tiles: TileGrid | None = None
    tracks: Sequence[UnitTrack] = ()
    unit_energies: Sequence[UnitEnergy] = ()
    unit_areas: Sequence[UnitArea] = ()
    sources: Mapping[str, str] = field(default_factory=dict)
    notes: Sequence[str] = ()
    systems: Sequence[SystemClaims] = ()

    def __post_init__(self) -> None:
        shape = np.shape(self.rendered)
        if len(shape) != 3 or shape[2] != 3 or np.shape(self.reference) != shape:
            raise ValueError(
                "Pictures must be two of one shape [height, width, 3], "
                f"not {shape} and {np.shape(self.reference)}"
            )

    @property
    def difference(self) -> npt.NDArray[np.float32]:
        """Absolute difference of the pictures, shape [height, width, 3]."""
        return _apart(self.rendered, self.reference)

    @property
    def difference_gain(self) -> int:
        """Power of two from 1 to 256 by which the shown difference is amplified."""
        return _gain(float(self.difference.max(initial=0.0)))

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures as plain data, units in the names of the keys."""
        record = {
            entry.name: getattr(self, entry.name)
            for entry in fields(self)
            if entry.name not in ("rendered", "reference")
        }
        record["difference"] = {
            "gain": self.difference_gain,
            "largest": float(self.difference.max(initial=0.0)),
            "mean": float(self.difference.mean()) if self.difference.size else 0.0,
        }
        return plain(record)


@dataclass(frozen=True, kw_only=True, eq=False)
class ComparedDesign:
    """One of several designs on the same frames.

    Parameters
    ----------
    name : str
        That no other has.
    simulate : mapping
        The figures of the verb ``simulate``, keys as in its JSON.
    rendered : array_like
        The shown frame of the bit-true model, of shape [height, width, 3] in [0, 1].
    psnr_db : float or None
        The worst of its frames against the float reference; None where they are equal.
    breakdown, energy, unit_areas, machines : sequence
        As in :class:`Report`.
    energy_band_j : tuple of float
        The band of the energy.
    bytes : mapping of str to int
        Stream of DRAM traffic -> bytes.
    """

    name: str
    simulate: Mapping[str, Any]
    rendered: npt.NDArray[np.float32]
    psnr_db: float | None
    breakdown: Sequence[Share]
    energy: Sequence[EnergyPart]
    energy_band_j: tuple[float, float]
    bytes: Mapping[str, int]
    unit_areas: Sequence[UnitArea]
    machines: Sequence[Machine]

    def figures(self) -> dict[str, float | None]:
        """Those of a front: time, energy, area and PSNR."""
        return {**{name: self.simulate[name] for name in ("time_s", "energy_j", "area_mm2")},
                "psnr_db": self.psnr_db}


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """Everything that a page of several designs shows.

    Parameters
    ----------
    command, versions, scene
        As in :class:`Report`.
    scene_name : str
        As it was asked for.
    frames, frame : int
        How many, and which of them the pictures show.
    reference : array_like
        The shown frame of the float reference, of shape [height, width, 3].
    designs : sequence of ComparedDesign
        Two at least.
    fronts : mapping of str to bool
        Design -> whether no other that does its stages is better in time, energy, area and PSNR.
    points : sequence of mapping
        More points of a sweep for the fronts: ``design``, ``parameters``, ``front`` as the former,
        ``time_s``, ``energy_j``, ``area_mm2``, ``psnr_db``; the last None where pictures are equal.
    systems : sequence of SystemClaims
        Published figures of the designs beside ours.

    Raises
    ------
    ValueError
        If there are fewer than two designs, two of one name, or pictures of two shapes.
    """

    command: str
    versions: Mapping[str, str]
    scene: Mapping[str, Any]
    scene_name: str
    frames: int
    frame: int
    reference: npt.NDArray[np.float32]
    designs: Sequence[ComparedDesign]
    fronts: Mapping[str, bool]
    points: Sequence[Mapping[str, Any]] = ()
    systems: Sequence[SystemClaims] = ()

    def __post_init__(self) -> None:
        names = [each.name for each in self.designs]
        if len(names) < 2 or len(set(names)) < len(names):
            raise ValueError(f"Designs must be two or more of different names, not {names}")
        for each in self.designs:
            if np.shape(each.rendered) != np.shape(self.reference):
                raise ValueError(f"Pictures must be of one shape, not {np.shape(each.rendered)} "
                                 f"and {np.shape(self.reference)}, of {each.name}")

    def difference(self, design: ComparedDesign) -> npt.NDArray[np.float32]:
        """Absolute difference of a design's picture from the reference."""
        return _apart(design.rendered, self.reference)

    def difference_gain(self, design: ComparedDesign) -> int:
        """Power of two from 1 to 256 by which a design's shown difference is amplified."""
        return _gain(float(self.difference(design).max(initial=0.0)))

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures as plain data."""
        record = {entry.name: getattr(self, entry.name) for entry in fields(self)
                  if entry.name not in ("reference", "designs")}
        record["designs"] = [
            {entry.name: getattr(each, entry.name) for entry in fields(each)
             if entry.name != "rendered"} for each in self.designs]
        return plain(record)


def _apart(one: npt.ArrayLike, other: npt.ArrayLike) -> npt.NDArray[np.float32]:
    return np.abs(np.clip(one, 0, 1) - np.clip(other, 0, 1)).astype(np.float32)


def _gain(largest: float) -> int:
    """Power of two from 1 to 256 that leaves what it amplifies in [0, 1]."""
    gain = 256
    while gain > 1 and gain * largest > 1:
        gain //= 2
    return gain


def plain(value: Any) -> Any:
    """Return ``value`` as what JSON can hold.

    Dataclasses become objects, arrays and tuples lists, numpy scalars numbers. JSON has no
    infinity and no NaN: both become null (the PSNR of equal pictures is infinite).
    """
    if is_dataclass(value) and not isinstance(value, type):
        return {entry.name: plain(getattr(value, entry.name)) for entry in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, np.ndarray):
        return plain(value.tolist())
    if isinstance(value, np.generic):
        return plain(value.item())
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)
