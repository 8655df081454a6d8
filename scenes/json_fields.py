"""JSON that came from elsewhere, read field by field, every error naming the path and the field."""

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from splatforge.scenes.scene import SceneError


class Fields:
    """A JSON object of a file.

    Parameters
    ----------
    path : Path
        File that the errors name.
    value : object
        What was parsed; must be a ``dict``.
    where : str
        Name of the object in the file, for the errors; empty for the outermost.
    """

    def __init__(self, path: Path, value: Any, where: str = "") -> None:
        self.path = path
        self.where = where
        if not isinstance(value, dict):
            self._refuse("", "must be a JSON object", value)
        self.values: dict[str, Any] = value

    @classmethod
    def parse(cls, path: Path, text: bytes, what: str) -> "Fields":
        """Return the outermost object of ``text``; ``what`` names the text in errors."""
        return cls(path, parse_json(path, text, what))

    def name(self, key: str) -> str:
        """Full name of a field, as the errors give it."""
        return ".".join(part for part in (self.where, key) if part) or "the JSON text"

    def __contains__(self, key: str) -> bool:
        return self.values.get(key) is not None

    def object(self, key: str) -> "Fields":
        """Return the object at ``key``."""
        return Fields(self.path, self._get(key), self.name(key))

    def objects(self, key: str) -> list["Fields"]:
        """Return the objects of the array at ``key``."""
        return [
            Fields(self.path, item, f"{self.name(key)}[{i}]")
            for i, item in enumerate(self.array(key))
        ]

    def array(self, key: str) -> list[Any]:
        """Return the array at ``key``."""
        value = self._get(key)
        if not isinstance(value, list):
            self._refuse(key, "must be an array", value)
        return value

    def text(self, key: str) -> str:
        """Return the string at ``key``."""
        value = self._get(key)
        if not isinstance(value, str):
            self._refuse(key, "must be a string", value)
        return value

    def texts(self, key: str, count: int) -> list[str]:
        """Return the ``count`` strings of the array at ``key``."""
        value = self.array(key)
        if len(value) != count or not all(isinstance(item, str) for item in value):
            self._refuse(key, f"must be {count} strings", value)
        return value

    def boolean(self, key: str) -> bool:
        """Return the boolean at ``key``; false where it is absent."""
        value = self.values.get(key, False)
        if not isinstance(value, bool):
            self._refuse(key, "must be true or false", value)
        return value

    def integer(self, key: str, low: int = 0, high: int = 2**53) -> int:
        """Return the whole number at ``key``, which must be from ``low`` to ``high``."""
        value = self._get(key)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
            self._refuse(key, f"must be a whole number from {low} to {high}", value)
        return value

    def number(self, key: str) -> float:
        """Return the finite number at ``key``."""
        return float(self.numbers(key, ()))

    def numbers(self, key: str, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Return the finite numbers at ``key`` as an array of ``shape``."""
        value = self._get(key)
        if not _numbers_fit(value, shape):
            rule = "a finite number" if shape == () else f"finite numbers of the shape {shape}"
            self._refuse(key, f"must be {rule}", value)
        return np.array(value, dtype=np.float64)

    def _get(self, key: str) -> Any:
        if key not in self.values:
            raise SceneError(f"{self.path}: {self.name(key)} is missing: the file is incomplete")
        return self.values[key]

    def _refuse(self, key: str, rule: str, value: Any) -> NoReturn:
        # A hostile value may be megabytes long.
        shown = repr(value) if isinstance(value, int | float | bool | None) else ""
        if isinstance(value, str):
            shown = repr(value[:40])
        shown = shown[:60] or f"a value of type {type(value).__name__}"
        raise SceneError(
            f"{self.path}: {self.name(key)} {rule}, not {shown}: "
            "the file is damaged or of another kind"
        )


def parse_json(path: Path, text: bytes, what: str) -> Any:
    """Return the value of a JSON text; ``what`` names the text in errors."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)[:200]
        raise SceneError(
            f"{path}: {what} is not JSON ({reason}): the file is damaged or of another kind"
        ) from error


def _numbers_fit(value: Any, shape: tuple[int, ...]) -> bool:
    if shape:
        return (
            isinstance(value, list)
            and len(value) == shape[0]
            and all(_numbers_fit(item, shape[1:]) for item in value)
        )
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    # An integer beyond float64 cannot be converted; it is no more finite than 1e999.
    return abs(value) <= 1e300
