"""Arithmetic written once, as a graph of operations on named values.

A graph is built by writing formulas with :class:`Value`, and then evaluated: on floating words, bit
by bit as hardware does, or in float64 with a bound of how far the words can be from it. Hardware
takes the same graph for its schedule.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt

from splatforge.algos import floating
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating

__all__ = ["KINDS", "OF_WIDE", "TO_FIXED", "TO_WIDE", "Builder", "Dataflow", "Operation", "Value",
           "evaluate"]

Int64Array = npt.NDArray[np.int64]

#: Operands of every kind of operation.
KINDS = {
    "multiply": 2, "add": 2, "subtract": 2, "minimum": 2, "maximum": 2,
    #: The second operand where the first is not negative, else the third.
    "select": 3,
    "reciprocal": 1,
    #: ``1 / sqrt(|a|)``.
    "reciprocal_root": 1,
    #: Changes of sign.
    "negate": 1, "magnitude": 1,
    #: Of wide words, which are of binary32, to wide words.
    "wide_add": 2, "wide_subtract": 2, "wide_multiply": 2,
    #: From a wide word to one of the graph's format.
    "narrow": 1,
    #: From words to raw integers of `Operation.to`, which no other operation takes.
    "to_fixed": 1, "ceil_fixed": 1, "log2": 1,
}
#: Kinds whose results are raw integers.
TO_FIXED = ("to_fixed", "ceil_fixed", "log2")
#: Kinds whose results are wide words, and those whose operands are.
TO_WIDE = ("wide_add", "wide_subtract", "wide_multiply")
OF_WIDE = (*TO_WIDE, "narrow")


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One operation.

    Parameters
    ----------
    name : str
        Of its result.
    kind : str
        One of :data:`KINDS`.
    operands : tuple of str
        Names of the values that it takes.
    to : Fixed
        Of :data:`TO_FIXED`: the format of the result.
    """

    name: str
    kind: str
    operands: tuple[str, ...]
    to: Fixed | None = None


@dataclass(frozen=True, kw_only=True)
class Dataflow:
    """A graph of operations, each behind those whose results it takes.

    Parameters
    ----------
    inputs : tuple of str
        Values that are new for every evaluation.
    constants : tuple of str
        Values that stay for many evaluations.
    wide : frozenset of str
        Which of both, and of the literals, are wide words.
    literals : tuple
        (name, number) of what never changes.
    operations : tuple of Operation
        In an order in which they can be carried out.
    outputs : tuple
        (name, name of the value) of the results.

    Raises
    ------
    ValueError
        If an operation takes what is not there before it, or not the kind of word that it must be,
        or its kind, number of operands or format is wrong, or a name is there twice.
    """

    inputs: tuple[str, ...]
    constants: tuple[str, ...]
    wide: frozenset[str] = frozenset()
    literals: tuple[tuple[str, float], ...]
    operations: tuple[Operation, ...]
    outputs: tuple[tuple[str, str], ...]

    def __post_init__(self) -> None:
        #: Format of every value: None of a word.
        there: dict[str, Fixed | str | None] = {}
        for name in (*self.inputs, *self.constants, *(name for name, _ in self.literals)):
            if name in there:
                raise ValueError(f"Values must have one name each, not {name!r} twice")
            there[name] = "wide" if name in self.wide else None
        for operation in self.operations:
            if KINDS.get(operation.kind) != len(operation.operands):
                raise ValueError(
                    f"Operation {operation.name!r} must be one of {', '.join(KINDS)} with its "
                    f"operands, not {operation.kind!r} of {len(operation.operands)}")
            if (operation.to is None) == (operation.kind in TO_FIXED):
                raise ValueError(
                    f"Operation {operation.name!r} must have a format if it leads to fixed point, "
                    f"and only then, not {operation.to}")
            must = "wide" if operation.kind in OF_WIDE else None
            for name in operation.operands:
                if name not in there or there[name] != must:
                    raise ValueError(f"Operand of {operation.name!r} must be a "
                                     f"{'wide ' if must else ''}word before it, not {name!r}")
            if operation.name in there:
                raise ValueError(f"Values must have one name each, not {operation.name!r} twice")
            there[operation.name] = operation.to or (
                "wide" if operation.kind in TO_WIDE else None)
        for _, name in self.outputs:
            if name not in there:
                raise ValueError(f"Output must be a value of the graph, not {name!r}")

    @property
    def wide_values(self) -> frozenset[str]:
        """Names of all wide words."""
        made = (operation.name for operation in self.operations if operation.kind in TO_WIDE)
        return self.wide.union(made)

    def counts(self) -> dict[str, int]:
        """Number of operations of every kind that is there."""
        kinds = [operation.kind for operation in self.operations]
        return {kind: kinds.count(kind) for kind in KINDS if kind in kinds}


class Value:
    """A value of a graph that is being built; formulas of values add operations to it."""

    def __init__(self, builder: "Builder", name: str) -> None:
        self.builder = builder
        self.name = name

    def __add__(self, other: "Value") -> "Value":
        return self.builder.operation("add", self, other)

    def __sub__(self, other: "Value") -> "Value":
        return self.builder.operation("subtract", self, other)

    def __mul__(self, other: "Value") -> "Value":
        return self.builder.operation("multiply", self, other)

    def __neg__(self) -> "Value":
        return self.builder.operation("negate", self)

    def __abs__(self) -> "Value":
        return self.builder.operation("magnitude", self)


class Builder:
    """Collects the operations of a graph.

    The same operation of the same values is there once, whatever the order of the operands of a
    product or a sum. What no output needs is left out of the graph.
    """

    def __init__(self) -> None:
        self._inputs: list[str] = []
        self._constants: list[str] = []
        self._wide: set[str] = set()
        self._literals: dict[str, float] = {}
        self._operations: dict[tuple[str, tuple[str, ...], Fixed | None], Operation] = {}
        self._outputs: dict[str, str] = {}

    def input(self, name: str, *, wide: bool = False) -> Value:
        """New input."""
        self._inputs.append(name)
        return self._given(name, wide)

    def constant(self, name: str, *, wide: bool = False) -> Value:
        """New constant."""
        self._constants.append(name)
        return self._given(name, wide)

    def _given(self, name: str, wide: bool) -> Value:
        if wide:
            self._wide.add(name)
        return Value(self, name)

    def literal(self, name: str, number: float, *, wide: bool = False) -> Value:
        """New literal."""
        self._literals[name] = number
        return self._given(name, wide)

    def operation(self, kind: str, *operands: Value, to: Fixed | None = None) -> Value:
        """New operation, or the one that is there already."""
        names = tuple(value.name for value in operands)
        if kind in ("multiply", "add", "wide_multiply", "wide_add"):
            names = tuple(sorted(names))
        operation = Operation(
            name=f"v{len(self._operations)}", kind=kind, operands=names, to=to)
        operation = self._operations.setdefault((kind, names, to), operation)
        return Value(self, operation.name)

    def minimum(self, a: Value, b: Value) -> Value:
        """The smaller one."""
        return self.operation("minimum", a, b)

    def maximum(self, a: Value, b: Value) -> Value:
        """The larger one."""
        return self.operation("maximum", a, b)

    def select(self, sign: Value, a: Value, b: Value) -> Value:
        """`a` where `sign` is not negative, else `b`."""
        return self.operation("select", sign, a, b)

    def reciprocal(self, a: Value) -> Value:
        """``1 / a``."""
        return self.operation("reciprocal", a)

    def reciprocal_root(self, a: Value) -> Value:
        """``1 / sqrt(|a|)``."""
        return self.operation("reciprocal_root", a)

    def wide_add(self, a: Value, b: Value) -> Value:
        """``a + b`` of wide words."""
        return self.operation("wide_add", a, b)

    def wide_subtract(self, a: Value, b: Value) -> Value:
        """``a - b`` of wide words."""
        return self.operation("wide_subtract", a, b)

    def wide_multiply(self, a: Value, b: Value) -> Value:
        """``a * b`` of wide words."""
        return self.operation("wide_multiply", a, b)

    def narrow(self, a: Value) -> Value:
        """Word nearest to a wide one."""
        return self.operation("narrow", a)

    def to_fixed(self, a: Value, to: Fixed) -> Value:
        """Raw integer of `to`, to nearest."""
        return self.operation("to_fixed", a, to=to)

    def ceil_fixed(self, a: Value, to: Fixed) -> Value:
        """Raw integer of `to` next above ``|a|``."""
        return self.operation("ceil_fixed", a, to=to)

    def log2(self, a: Value, to: Fixed) -> Value:
        """Raw ``log2(|a|)`` in `to`."""
        return self.operation("log2", a, to=to)

    def sum(self, values: Iterable[Value]) -> Value:
        """Sum as a tree: of neighbours, of their sums, and so on; zeros behind change nothing."""
        level = list(values)
        while len(level) > 1:
            pairs = [a + b for a, b in zip(level[::2], level[1::2], strict=False)]
            level = pairs + level[2 * len(pairs):]
        return level[0]

    def dot(self, a: Iterable[Value], b: Iterable[Value]) -> Value:
        """Sum of the products."""
        return self.sum(x * y for x, y in zip(a, b, strict=True))

    def output(self, name: str, value: Value) -> None:
        """Name a result."""
        self._outputs[name] = value.name

    def build(self) -> Dataflow:
        """Return the graph of what has been written, its operations numbered v0, v1 and so on."""
        needed = set(self._outputs.values())
        kept: list[Operation] = []
        for operation in reversed(self._operations.values()):
            if operation.name in needed:
                needed.update(operation.operands)
                kept.insert(0, operation)
        names = {operation.name: f"v{place}" for place, operation in enumerate(kept)}
        return Dataflow(
            inputs=tuple(self._inputs), constants=tuple(self._constants),
            wide=frozenset(self._wide.difference(set(self._literals) - needed)),
            literals=tuple((name, number) for name, number in self._literals.items()
                           if name in needed),
            operations=tuple(
                replace(operation, name=names[operation.name],
                        operands=tuple(names.get(name, name) for name in operation.operands))
                for operation in kept),
            outputs=tuple((name, names.get(value, value))
                          for name, value in self._outputs.items()))


def _words_of(fmt: Floating) -> dict[str, Callable[..., Int64Array]]:
    def select(sign: Int64Array, a: Int64Array, b: Int64Array) -> Int64Array:
        return np.where(floating.less(fmt, sign, 0), b, a)

    def magnitude(a: Int64Array) -> Int64Array:
        return np.where(floating.less(fmt, a, 0), floating.negate(fmt, a), a)

    functions: dict[str, Callable[..., Int64Array]] = {
        kind: partial(getattr(floating, kind), fmt) for kind in (
            "multiply", "add", "subtract", "minimum", "maximum", "reciprocal", "reciprocal_root",
            "negate")}
    functions |= {kind: partial(getattr(floating, kind.removeprefix("wide_")), BINARY32)
                  for kind in TO_WIDE}
    functions["narrow"] = lambda a: floating.narrow(fmt, a, BINARY32)
    return functions | {"select": select, "magnitude": magnitude}


def evaluate(
    flow: Dataflow, fmt: Floating, inputs: Mapping[str, Int64Array],
    constants: Mapping[str, int],
) -> dict[str, Int64Array]:
    """Outputs of a graph, bit-true to hardware that carries out its operations.

    Parameters
    ----------
    flow : Dataflow
        The graph.
    fmt : Floating
        Format of all words but the wide ones.
    inputs : Mapping
        Words of shape [N] of every input.
    constants : Mapping
        Word of every constant.

    Returns
    -------
    dict
        Words or raw integers of shape [N] of every output.
    """
    functions = _words_of(fmt)
    last = {name: place for place, operation in enumerate(flow.operations)
            for name in operation.operands}
    for _, name in flow.outputs:
        last.pop(name, None)
    values: dict[str, Any] = {name: inputs[name] for name in flow.inputs}
    values |= {name: np.int64(constants[name]) for name in flow.constants}
    values |= {name: np.int64((BINARY32 if name in flow.wide else fmt).quantize(number))
               for name, number in flow.literals}
    for place, operation in enumerate(flow.operations):
        operands = [values[name] for name in operation.operands]
        if operation.to:
            convert = getattr(floating, operation.kind)
            values[operation.name] = convert(fmt, *operands, operation.to)
        else:
            values[operation.name] = functions[operation.kind](*operands)
        for name in operation.operands:
            if last.get(name) == place:
                values.pop(name, None)
    return {name: values[value] for name, value in flow.outputs}
