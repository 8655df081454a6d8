import re
import sys
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import floating
from splatforge.algos.dataflow import (
    KINDS,
    Builder,
    Dataflow,
    Operation,
    evaluate,
)
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating

sys.path.insert(0, str(Path(__file__).parent))
from bounds import error_bounds

FP = Floating()
FIXED = Fixed(int_bits=9, frac_bits=6, signed=True)


def graph():
    """One of everything."""
    g = Builder()
    x, y, far, k = g.input("x"), g.input("y"), g.input("far", wide=True), g.constant("k")
    near, third = g.constant("near", wide=True), g.literal("third", 1 / 3)
    total = x * y + k
    root = g.reciprocal_root(total * total)
    g.output("chosen", g.select(x - y, root, -third * x))
    g.output("inverse", g.reciprocal(abs(y) + third))
    g.output("between", g.minimum(g.maximum(x, y), k))
    g.output("double", g.sum([y * x, k, x]))
    g.output("fixed", g.to_fixed(x, FIXED))
    g.output("above", g.ceil_fixed(y, FIXED))
    g.output("logarithm", g.log2(total, FIXED))
    distance = g.wide_subtract(far, near)
    g.output("distance", g.narrow(distance))
    tenth = g.literal("tenth", 0.1, wide=True)
    g.output("wide", g.wide_multiply(g.wide_add(tenth, distance), distance))
    g.output("same", x)
    return g.build()


def test_graph_is_what_was_written():
    flow = graph()
    assert flow.inputs == ("x", "y", "far")
    assert flow.constants == ("k", "near")
    assert flow.literals == (("third", 1 / 3), ("tenth", 0.1))
    assert flow.wide == {"far", "near", "tenth"} < flow.wide_values
    assert len(flow.wide_values) == 6
    assert flow.counts() == dict.fromkeys(KINDS, 1) | {"multiply": 3, "add": 3}
    assert [name for name, _ in flow.outputs] == [
        "chosen", "inverse", "between", "double", "fixed", "above", "logarithm", "distance",
        "wide", "same"]
    assert dict(flow.outputs)["same"] == "x"
    # x * y and y * x are one, and so are their sums with k.
    product = next(o for o in flow.operations if o.operands == ("x", "y") and o.kind == "multiply")
    assert [o.kind for o in flow.operations if product.name in o.operands] == ["add"]


def test_sums_are_trees_that_zeros_behind_do_not_change():
    rng = np.random.default_rng(2)
    term = FP.quantize(rng.normal(size=(9, 500)))
    found = []
    for count in (9, 16):
        g = Builder()
        values = [g.input(f"x{k}") for k in range(count)]
        g.output("total", g.sum(values))
        flow = g.build()
        assert flow.counts() == {"add": count - 1}
        found.append(evaluate(flow, FP, {
            f"x{k}": term[k] if k < 9 else np.zeros(500, np.int64) for k in range(count)}, {}))
    np.testing.assert_array_equal(found[0]["total"], found[1]["total"])
    # Neighbours, and neighbours of these.
    g = Builder()
    values = [g.input(f"x{k}") for k in range(4)]
    g.output("total", g.sum(values))
    assert [o.operands for o in g.build().operations] == [
        ("x0", "x1"), ("x2", "x3"), ("v0", "v1")]


def test_what_nothing_needs_is_left_out():
    g = Builder()
    x, unused = g.input("x"), g.literal("unused", 2.0)
    g.reciprocal(x * unused)
    g.wide_add(*[g.literal("far", 3.0, wide=True)] * 2)
    one = x + x
    g.output("first", one)
    g.output("second", one)
    flow = g.build()
    assert flow.literals == ()
    assert flow.wide == frozenset()
    assert flow.operations == (Operation(name="v0", kind="add", operands=("x", "x")),)
    assert flow.outputs == (("first", "v0"), ("second", "v0"))


def values(count=4000, seed=1):
    rng = np.random.default_rng(seed)
    size = np.exp2(rng.uniform(-6, 6, (3, count))) * rng.choice([-1, 1], (3, count))
    return {"x": size[0], "y": size[1], "far": 1000 + size[2]}, {"k": 0.7, "near": 1000.3}


def encode(numbers):
    return {name: (BINARY32 if name in ("far", "near") else FP).quantize(number)
            for name, number in numbers.items()}


def test_words_are_those_of_the_operations():
    inputs, constants = (encode(numbers) for numbers in values())
    got = evaluate(graph(), FP, inputs, constants)
    x, y, k = inputs["x"], inputs["y"], constants["k"]
    third = FP.quantize(1 / 3)
    product = floating.multiply(FP, x, y)
    total = floating.add(FP, product, k)
    root = floating.reciprocal_root(FP, floating.multiply(FP, total, total))
    other = floating.multiply(FP, x, floating.negate(FP, third))
    np.testing.assert_array_equal(
        got["chosen"], np.where(FP.to_float(x) >= FP.to_float(y), root, other))
    np.testing.assert_array_equal(got["inverse"], floating.reciprocal(
        FP, floating.add(FP, y & FP.magnitude_max, third)))
    np.testing.assert_array_equal(
        got["between"], floating.minimum(FP, floating.maximum(FP, x, y), k))
    np.testing.assert_array_equal(got["double"], floating.add(FP, total, x))
    np.testing.assert_array_equal(got["fixed"], floating.to_fixed(FP, x, FIXED))
    np.testing.assert_array_equal(got["above"], floating.ceil_fixed(FP, y, FIXED))
    np.testing.assert_array_equal(got["logarithm"], floating.log2(FP, total, FIXED))
    wide = floating.subtract(BINARY32, inputs["far"], constants["near"])
    # As close to the difference of two float32 as the narrow format allows.
    np.testing.assert_array_equal(got["distance"], FP.quantize(BINARY32.to_float(wide)))
    np.testing.assert_array_equal(got["wide"], floating.multiply(
        BINARY32, floating.add(BINARY32, BINARY32.quantize(0.1), wide), wide))
    np.testing.assert_array_equal(got["same"], x)


def test_words_are_within_their_bounds():
    inputs, constants = values()
    got = evaluate(graph(), FP, encode(inputs), encode(constants))
    bounds = error_bounds(graph(), FP, inputs, constants)
    x, y = inputs["x"], inputs["y"]
    exact = {
        "chosen": np.where(x >= y, 1 / np.abs(x * y + 0.7), -x / 3), "double": x * y + 0.7 + x,
        "fixed": x, "above": np.abs(y), "logarithm": np.log2(np.abs(x * y + 0.7)),
        "inverse": 1 / (np.abs(y) + 1 / 3), "between": np.minimum(np.maximum(x, y), 0.7),
        "distance": inputs["far"] - 1000.3, "same": x,
        "wide": (0.1 + (inputs["far"] - 1000.3)) * (inputs["far"] - 1000.3)}
    for name, (value, bound) in bounds.items():
        np.testing.assert_allclose(value, exact[name], rtol=1e-12)
        of = FIXED if name in ("fixed", "above", "logarithm") else (
            BINARY32 if name == "wide" else FP)
        error = np.abs(of.to_float(got[name]) - value)
        assert (error <= bound).all(), name
        # The bound is one: some come close to it.
        finite = np.isfinite(bound)
        assert finite.mean() > 0.99
        assert (error[finite] / bound[finite]).max() > 0.25, name


@pytest.mark.parametrize(("change", "message"), [
    ({"inputs": ("a", "a")}, "Values must have one name each, not 'a' twice"),
    ({"operations": (Operation(name="a", kind="add", operands=("a", "a")),)},
     "Values must have one name each, not 'a' twice"),
    ({"operations": (Operation(name="b", kind="add", operands=("a", "c")),)},
     "Operand of 'b' must be a word before it, not 'c'"),
    ({"operations": (Operation(name="b", kind="log2", operands=("a",), to=FIXED),
                     Operation(name="c", kind="add", operands=("a", "b")))},
     "Operand of 'c' must be a word before it, not 'b'"),
    ({"operations": (Operation(name="b", kind="narrow", operands=("a",)),)},
     "Operand of 'b' must be a wide word before it, not 'a'"),
    ({"wide": frozenset("a"), "operations": (
        Operation(name="b", kind="negate", operands=("a",)),)},
     "Operand of 'b' must be a word before it, not 'a'"),
    ({"operations": (Operation(name="b", kind="log2", operands=("a",)),)},
     "Operation 'b' must have a format if it leads to fixed point, and only then, not None"),
    ({"operations": (Operation(name="b", kind="add", operands=("a", "a"), to=FIXED),)},
     "Operation 'b' must have a format if it leads to fixed point, and only then, not SQ(9,6)"),
    ({"outputs": (("x", "c"),)}, "Output must be a value of the graph, not 'c'"),
    ({"operations": (Operation(name="b", kind="divide", operands=("a", "a")),)},
     f"Operation 'b' must be one of {', '.join(KINDS)} with its operands, not 'divide' of 2"),
    ({"operations": (Operation(name="b", kind="add", operands=("a",)),)},
     f"Operation 'b' must be one of {', '.join(KINDS)} with its operands, not 'add' of 1"),
])
def test_wrong_graphs_are_refused(change, message):
    parts = {"inputs": ("a",), "constants": (), "wide": frozenset(), "literals": (),
             "operations": (), "outputs": ()}
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        Dataflow(**(parts | change))
