"""Parameters by name: dataclasses with the values of a TOML table in place of their own."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from fractions import Fraction
from typing import Any

from splatforge.designs.fixed import Fixed

__all__ = ["configured", "names_of", "nested", "parsed"]

_FIXED = re.compile(r"([US])Q\((\d{1,2}), ?(\d{1,2})\)")


def configured(design: Any, table: Mapping[str, Any], where: str) -> Any:
    """Return a parameter dataclass with the values of a TOML table in place of its own.

    Parameters
    ----------
    design : dataclass
        What the values of `table` replace.
    table : Mapping
        Field -> value; a table for a dataclass, ``"UQ(1,16)"`` for a format, ``"1/2"`` for a
        fraction, a list for a tuple.
    where : str
        Begins the message of an error: a file, say, and a colon.

    Raises
    ------
    ValueError
        If there is no such parameter, or a value is not what it must be.
    """
    changes: dict[str, Any] = {}
    for key, value in table.items():
        names = [entry.name for entry in fields(design)]
        if key not in names:
            near = get_close_matches(key, names, 1, 0)
            raise ValueError(f"{where}{key} is no parameter; the nearest is {(near or names)[0]}")
        old = getattr(design, key)
        if is_dataclass(old) and isinstance(value, Mapping):
            changes[key] = configured(old, value, f"{where}{key}.")
        else:
            changes[key] = parsed(old, value, f"{where}{key}")
    try:
        return replace(design, **changes)
    except ValueError as error:
        raise ValueError(f"{where.rstrip('.: ')}: {error}") from None


def parsed(old: Any, value: Any, what: str) -> Any:
    """A value of a TOML file as one of the kind of `old`.

    Raises
    ------
    ValueError
        If it is of another kind; the message begins with `what`.
    """
    if isinstance(old, Fixed) and isinstance(value, str):
        match = _FIXED.fullmatch(value)
        if match is None:
            raise ValueError(f"{what} must be such as UQ(1,16), not {value!r}")
        return Fixed(int_bits=int(match[2]), frac_bits=int(match[3]), signed=match[1] == "S")
    if isinstance(old, Fraction) and isinstance(value, (str, int)):
        try:
            return Fraction(value)
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"{what} must be a fraction such as 1/2, not {value!r}") from None
    if isinstance(old, tuple) and isinstance(value, list):
        return tuple(value)
    if type(old) is float and type(value) is int:
        return float(value)
    if type(value) is not type(old):
        kind = "a table" if is_dataclass(old) else f"of type {type(old).__name__}"
        raise ValueError(f"{what} must be {kind}, not {value!r}")
    return value


def names_of(design: Any, prefix: str = "") -> Iterator[str]:
    """Dotted names of all parameters, those of dataclasses in it one by one; a format is one."""
    for each in fields(design):
        value = getattr(design, each.name)
        if is_dataclass(value) and not isinstance(value, Fixed):
            yield from names_of(value, f"{prefix}{each.name}.")
        else:
            yield prefix + each.name


def nested(values: Mapping[str, Any]) -> dict[str, Any]:
    """Dotted names and values as a table of tables."""
    table: dict[str, Any] = {}
    for path, value in values.items():
        *parents, name = path.split(".")
        inner = table
        for parent in parents:
            inner = inner.setdefault(parent, {})
        inner[name] = value
    return table
