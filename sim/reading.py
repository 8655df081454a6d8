"""Which parameters a computation reads: they are watched, not listed.

A design is a frozen dataclass of frozen dataclasses. :func:`watch` returns one that behaves as it
does and notes every field that is read. What is computed from it depends on nothing else: for any
design that has the same values in these fields it is the same (:func:`agrees`). A field that is
read only behind a branch is noted only where that branch is taken; the field that chose the branch
is noted, too, so that what :func:`agrees` says holds all the same.
"""

from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Any

__all__ = ["Reads", "agrees", "plain", "value_at", "watch"]

#: Dotted name of a field -> its value; of one that holds a dataclass, the class.
Reads = dict[str, Any]
_READS, _PATH, _SEEN = "_splatforge_reads", "_splatforge_path", "_splatforge_seen"


@cache
def _watched(cls: type) -> type:
    """A class whose instances note what is read of them, and pass for `cls`."""
    names = frozenset(each.name for each in fields(cls))
    get = object.__getattribute__

    def read(self: Any, name: str) -> Any:
        if name not in names:
            return get(self, name)
        value = get(self, name)
        reads, path = get(self, _READS), get(self, _PATH) + name
        if not is_dataclass(value) or isinstance(value, type):
            reads[path] = value
            return value
        reads[path] = type(value)
        seen = get(self, _SEEN)
        if name not in seen:
            seen[name] = _new(value, f"{path}.", reads)
        return seen[name]

    def equal(self: Any, other: Any) -> bool:
        if self is other:
            return True
        if cls is not other.__class__:
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in sorted(names))

    # A cache keyed by a design must not answer with what an earlier one read: no two watched
    # designs have the same hash, and what is computed from one is computed under its watch.
    return type(cls.__name__, (cls,), {
        "__getattribute__": read, "__class__": property(lambda self: cls),
        "__eq__": equal, "__hash__": object.__hash__, "__module__": cls.__module__,
        "__reduce_ex__": lambda self, protocol: plain(self).__reduce_ex__(protocol)})


def _new(value: Any, path: str, reads: Reads) -> Any:
    made = object.__new__(_watched(type(value)))
    for each in fields(value):
        object.__setattr__(made, each.name, getattr(value, each.name))
    for name, own in ((_READS, reads), (_PATH, path), (_SEEN, {})):
        object.__setattr__(made, name, own)
    return made


def watch(design: Any) -> tuple[Any, Reads]:
    """A design that notes what is read of it, and where it does.

    Parameters
    ----------
    design : dataclass
        A frozen one, without slots; fields may hold such dataclasses.

    Returns
    -------
    object, dict
        It compares equal to `design`, is an instance of its class, and is pickled as that, which
        reads all of it.
    """
    reads: Reads = {}
    return _new(design, "", reads), reads


def plain(watched: Any) -> Any:
    """The design under a watch; all of it is read.

    A cache that is keyed by designs knows it again, which it never does a watched one.
    """
    cls = watched.__class__
    made = object.__new__(cls)
    for each in fields(cls):
        value = getattr(watched, each.name)
        object.__setattr__(made, each.name, plain(value) if type(value) is not value.__class__
                           else value)
    return made


def value_at(design: Any, path: str) -> Any:
    """What :data:`Reads` would hold of a field; None where `design` has no such field."""
    value = design
    for name in path.split("."):
        if not hasattr(value, name):
            return None
        value = getattr(value, name)
    return type(value) if is_dataclass(value) else value


def agrees(design: Any, reads: Mapping[str, Any] | Iterable[tuple[str, Any]]) -> bool:
    """Whether a computation that read these values of another design is the same of this one."""
    return all(value_at(design, path) == value for path, value in dict(reads).items())
