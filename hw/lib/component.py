"""A component whose ports depend on its parameters, legible to a type checker."""

from typing import TYPE_CHECKING, Any

from amaranth.lib import wiring

__all__ = ["Component"]


class Component(wiring.Component):
    """What :class:`amaranth.lib.wiring.Component` is.

    Ports that are made from parameters in ``__init__`` cannot be declared in the class; a type
    checker is told that any attribute may be one.
    """

    if TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any: ...
