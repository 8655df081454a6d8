"""What a sweep is made of, from a TOML file."""

import itertools
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass, replace
from pathlib import Path
from typing import Any

from splatforge.designs.accelerators import ACCELERATORS
from splatforge.designs.dram import PRESETS as DRAMS
from splatforge.designs.memory import MemoryTiming
from splatforge.designs.parameters import configured, names_of, nested, parsed
from splatforge.scenes import check_regular_file
from splatforge.sim.sweep import Point, View

__all__ = ["Axes", "SweepFile", "read"]

_SIZE = re.compile(r"([1-9]\d{0,5})x([1-9]\d{0,5})")
#: Names beside those of a design: its memory, its clock, its process.
_MEMORY, _CLOCK, _NODE = "memory", "clock_mhz", "node_nm"
_KEYS = ("scenes", "sizes", "cameras", "trajectory", "frames", "designs")
#: What TOML calls them.
_KINDS = {str: "strings", list: "lists", dict: "tables, [[designs]]"}
_DESIGN_KEYS = ("name", "preset", "set", "grid", "zip", "each")


@dataclass(frozen=True, kw_only=True)
class Axes:
    """A design, and what is turned in it.

    Parameters
    ----------
    name, preset : str
        The accelerator, and its named configuration.
    fixed : Mapping
        Parameter -> value of all points.
    steps : tuple of tuple of Mapping
        Of every axis its steps, each parameters and their values; points are the product.
    each : Mapping
        Parameters -> values that they take while all others stay as they are.
    """

    name: str
    preset: str = "default"
    fixed: Mapping[str, Any] = field(default_factory=dict)
    steps: tuple[tuple[Mapping[str, Any], ...], ...] = ()
    each: Mapping[str, tuple[Mapping[str, Any], ...]] = field(default_factory=dict)

    def settings(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """What is turned alone, if so, and parameters with their values, point after point."""
        for place in itertools.product(*self.steps):
            values = {name: value for step in place for name, value in step.items()}
            yield "", values
            for turned, steps in self.each.items():
                for step in steps:
                    yield turned, {**values, **step}


@dataclass(frozen=True, kw_only=True)
class SweepFile:
    """A sweep.

    Parameters
    ----------
    path : Path
        The file.
    scenes : tuple of tuple of str
        Names or files of each scene.
    sizes : tuple of tuple of int
        Widths and heights.
    cameras, trajectory : str or None
        File of cameras; named path.
    frames : int
        Of each view.
    designs : tuple of Axes
        Designs and what is turned in them.
    """

    path: Path
    scenes: tuple[tuple[str, ...], ...]
    sizes: tuple[tuple[int, int], ...]
    cameras: str | None
    trajectory: str | None
    frames: int
    designs: tuple[Axes, ...]

    def points(self, views: Sequence[View]) -> list[Point]:
        """All points, view after view."""
        return [self._point(view, axes, turned, values) for view in views for axes in self.designs
                for turned, values in axes.settings()]

    def _point(self, view: View, axes: Axes, turned: str, values: Mapping[str, Any]) -> Point:
        given = {**axes.fixed, **values}
        point = Point(view=view, name=axes.name, preset=axes.preset, design=None,
                      parameters=dict(given), turned=turned)
        memory = given.pop(_MEMORY, "fixed")
        if memory == "fixed":
            memory = MemoryTiming()
        clock_mhz, node_nm = given.pop(_CLOCK, None), given.pop(_NODE, 28.0)
        behind = {name.removeprefix(f"{_MEMORY}."): given.pop(name) for name in list(given)
                  if name.startswith(f"{_MEMORY}.")}
        point = replace(point, node_nm=node_nm, memory=memory,
                        clock_hz=None if clock_mhz is None else 1e6 * clock_mhz)
        # What cannot be is found out here, point by point; what is no parameter was before.
        try:
            if not 7 <= node_nm <= 130:
                raise ValueError(f"Process node must be 7 to 130 nm, not {node_nm!r}")
            if clock_mhz is not None and not 1e-3 <= clock_mhz <= 1e4:
                raise ValueError(f"Clock must be 0.001 to 10000 MHz, not {clock_mhz!r}")
            if behind:
                if isinstance(memory, str):
                    raise ValueError(f"Memory must be fixed to have {', '.join(behind)}, "
                                     f"not {memory}")
                point = replace(point, memory=configured(memory, behind, "memory: "))
            design = configured(_preset(axes.name, axes.preset), nested(given), f"{axes.name}: ")
        except ValueError as error:
            return replace(point, error=str(error))
        return replace(point, design=design)


def _preset(name: str, preset: str) -> Any:
    accelerator = ACCELERATORS[name]
    return accelerator.presets.get(preset, accelerator.design)


def read(path: Path) -> SweepFile:
    """Read a sweep.

    Raises
    ------
    ValueError
        If it is no such file; the message names the file, the field and what may stand there.
    """
    check_regular_file(path, "TOML")
    try:
        table = tomllib.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not TOML: {error}") from None
    _known(path, "", table, _KEYS)
    scenes = _list(path, "scenes", table.get("scenes", ["default"]), (str, list))
    sizes = []
    for text in _list(path, "sizes", table.get("sizes", ["320x240"]), (str,)):
        match = _SIZE.fullmatch(text)
        if match is None:
            raise ValueError(f"{path}: sizes must be such as 640x480, not {text!r}")
        sizes.append((int(match[1]), int(match[2])))
    frames = table.get("frames", 1)
    if type(frames) is not int or frames < 1:
        raise ValueError(f"{path}: frames must be at least 1, not {frames!r}")
    for name in ("cameras", "trajectory"):
        if not isinstance(table.get(name, ""), str):
            raise ValueError(f"{path}: {name} must be a string, not {table[name]!r}")
    designs = _list(path, "designs", table.get("designs"), (dict,))
    return SweepFile(
        path=path, sizes=tuple(sizes), frames=frames,
        scenes=tuple((each,) if isinstance(each, str) else tuple(map(str, each))
                     for each in scenes),
        cameras=table.get("cameras"), trajectory=table.get("trajectory"),
        designs=tuple(_axes(path, f"designs[{number}]", each)
                      for number, each in enumerate(designs)))


def _known(path: Path, where: str, table: Mapping[str, Any], names: Sequence[str]) -> None:
    for key in table:
        if key not in names:
            raise ValueError(f"{path}: {where}{key} is no field; there are {', '.join(names)}")


def _list(path: Path, what: str, value: Any, kinds: tuple[type, ...]) -> list[Any]:
    if not isinstance(value, list) or not value or not all(
            isinstance(each, kinds) for each in value):
        kind = " or ".join(_KINDS[each] for each in kinds)
        raise ValueError(f"{path}: {what} must be a list of {kind}, one at least, not {value!r}")
    return value


def _table(path: Path, what: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{path}: {what} must be a table, not {value!r}")
    return value


def _axes(path: Path, where: str, table: Mapping[str, Any]) -> Axes:
    """A design's part of the file."""
    _known(path, f"{where}.", table, _DESIGN_KEYS)
    name, preset = table.get("name"), table.get("preset", "default")
    if name not in ACCELERATORS:
        raise ValueError(f"{path}: {where}.name must be one of {', '.join(ACCELERATORS)}, "
                         f"not {name!r}")
    presets = ("default", *(each for each in ACCELERATORS[name].presets if each != "default"))
    if preset not in presets:
        raise ValueError(f"{path}: {where}.preset must be one of {', '.join(presets)}, "
                         f"not {preset!r}")
    design = _preset(name, preset)

    def value_of(field_name: str, value: Any, what: str) -> Any:
        return _value(path, what, name, design, field_name, value)

    fixed = {key: value_of(key, value, f"{where}.set.{key}")
             for key, value in _table(path, f"{where}.set", table.get("set", {})).items()}

    def axis(kind: str, keys: str, values: Any) -> tuple[Mapping[str, Any], ...]:
        what = f"{where}.{kind}.{keys}"
        if isinstance(values, Mapping):
            raise ValueError(f"{path}: {what} must stand in quotes, with all of its dots: "
                             f"\"{keys}.{next(iter(values), 'NAME')}\" = [...]")
        if not isinstance(values, list) or not values:
            raise ValueError(f"{path}: {what} must be a list of values, one at least, "
                             f"not {values!r}")
        # One value for several fields that must agree.
        return tuple({key.strip(): value_of(key.strip(), value, what) for key in keys.split(",")}
                     for value in values)

    steps = [axis("grid", keys, values)
             for keys, values in _table(path, f"{where}.grid", table.get("grid", {})).items()]
    together = [axis("zip", keys, values)
                for keys, values in _table(path, f"{where}.zip", table.get("zip", {})).items()]
    if len({len(each) for each in together}) > 1:
        raise ValueError(f"{path}: {where}.zip must have lists of one length, "
                         f"not of {', '.join(str(len(each)) for each in together)}")
    if together:
        steps.append(tuple({key: value for step in row for key, value in step.items()}
                           for row in zip(*together, strict=True)))
    each = {keys: axis("each", keys, values)
            for keys, values in _table(path, f"{where}.each", table.get("each", {})).items()}
    return Axes(name=name, preset=preset, fixed=fixed, steps=tuple(steps), each=each)


def _value(path: Path, what: str, name: str, design: Any, key: str, value: Any) -> Any:
    """A value of a parameter; raises where there is no such parameter, or it is of another kind."""
    if key == _MEMORY:
        if value not in ("fixed", *DRAMS):
            raise ValueError(f"{path}: {what} must be one of fixed, {', '.join(DRAMS)}, "
                             f"not {value!r}")
        return value
    if key in (_CLOCK, _NODE):
        return parsed(28.0, value, f"{path}: {what}")
    where, root = design, name
    parts = key.split(".")
    if parts[0] == _MEMORY:
        where, root, parts = MemoryTiming(), _MEMORY, parts[1:]
    for number, part in enumerate(parts):
        names = [each for each in vars(where) if each in type(where).__dataclass_fields__]
        if part not in names:
            inside = ".".join((root, *parts[:number]))
            more = "" if number or root == _MEMORY else f", {_MEMORY}, {_CLOCK}, {_NODE}"
            raise ValueError(f"{path}: {what}: {part!r} is no parameter; {inside} has "
                             f"{', '.join(names)}{more}")
        where = getattr(where, part)
    if is_dataclass(where) and not isinstance(value, str):
        fields = ", ".join(names_of(where, f"{key}."))
        raise ValueError(f"{path}: {what}: {key} is made of parameters; turn one of {fields}")
    return parsed(where, value, f"{path}: {what}")
