"""Graphs on few units: every operation in its place, results and cycles as the models say."""

import re
import sys
from collections import Counter
from functools import cache
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos import floating
from splatforge.algos import schedule as schedules
from splatforge.algos.dataflow import Builder, Dataflow, Operation, evaluate
from splatforge.algos.schedule import (
    LATENCY,
    OPERAND_LATENCY,
    READ_LATENCY,
    RESULT_LATENCY,
    Schedule,
    schedule,
)
from splatforge.designs.fixed import Fixed
from splatforge.designs.floating import BINARY32, Floating
from splatforge.hw.lib import floating as units
from splatforge.hw.lib.folded import Folded
from splatforge.sim import folded as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

FP = Floating()
MEAN, LOG = Fixed(int_bits=9, frac_bits=6, signed=True), Fixed(int_bits=9, frac_bits=7, signed=True)
RECORD = tuple(f"x{n}" for n in range(12))
UNITS = {"multiply": units.Multiply, "add": units.Add, "compare": units.Compare,
         "reciprocal": units.Reciprocal, "wide_multiply": units.WideMultiply,
         "wide_add": units.Add, "narrow": units.Narrow, "to_fixed": units.ToFixed,
         "log2": units.Log2}


def random_graph(seed, operations=60):
    """Operations of every kind, of values near and far."""
    rng = np.random.default_rng(seed)
    g = Builder()
    # Two words are wide, one is in the record for a conversion only, and one for nothing.
    inputs = [g.input(name, wide=n < 2) for n, name in enumerate(RECORD[:-1])]
    constants = [g.constant(f"k{n}", wide=n == 0) for n in range(4)]
    far = [g.wide_subtract(value, constants[0]) for value in inputs[:2]]
    values = [*inputs[2:-1], *constants[1:], g.literal("third", -1 / 3),
              *(g.narrow(value) for value in far)]
    kinds = ["multiply"] * 8 + ["add"] * 5 + ["subtract"] * 3 + [
        "minimum", "maximum", "select", "reciprocal", "reciprocal_root", "negate", "magnitude"]
    arity = {"select": 3} | dict.fromkeys(kinds[:16] + kinds[16:18], 2)
    for _ in range(operations):
        kind = kinds[rng.integers(len(kinds))]
        # Young ones more often than old ones.
        chosen = [values[len(values) - 1 - int(len(values) * rng.random() ** 2)]
                  for _ in range(arity.get(kind, 1))]
        values.append(g.operation(kind, *chosen))
    for n, value in enumerate(values[-7:]):
        g.output(f"y{n}", value)
    g.output("mean", g.to_fixed(values[-7], MEAN))
    g.output("reach", g.ceil_fixed(-values[-7], LOG))
    g.output("log", g.log2(values[-6], LOG))
    g.output("passed", g.to_fixed(inputs[-1], MEAN))
    g.output("same", inputs[-1])
    g.output("wide", g.wide_add(g.wide_multiply(*far), inputs[1]))
    g.output("farther", g.wide_add(far[0], g.literal("tenth", 0.1, wide=True)))
    g.output("as_wide", inputs[0])
    return g.build()


def words(seed, *shape):
    """Words of binary32 around one, some any at all, some zeros; the last bits are not zero."""
    rng = np.random.default_rng(seed)
    near = BINARY32.quantize(rng.choice([-1, 1], shape) * 2.0 ** rng.uniform(-4, 4, shape))
    rare = rng.choice([0, 1, 2, 1 << 31, 5, 0x7F80_0001], shape)
    draw = rng.random(shape)
    return np.where(draw < 0.05, rare, np.where(
        draw < 0.1, rng.integers(0, 1 << 32, shape), near))


def expected(flow, record, constants):
    """Results of every record, by name."""
    drop = BINARY32.width - FP.width
    given = {name: record[:, n] >> (0 if name in flow.wide else drop)
             for n, name in enumerate(RECORD)}
    fixed = {name: int(word) >> (0 if name in flow.wide else drop)
             for name, word in zip(flow.constants, constants, strict=True)}
    results = evaluate(flow, FP, given, fixed)
    return {name: np.broadcast_to(value, len(record)) for name, value in results.items()}


@cache
def bench(seed, interval, depth, lanes=4):
    flow = random_graph(seed)
    plan = schedule(flow, FP, interval, RECORD, lanes=lanes)
    return flow, plan, streams.Bench(Folded(plan, FP, len(flow.constants), depth))


@pytest.mark.parametrize("kind", LATENCY)
def test_latencies_are_those_of_the_units(kind):
    assert UNITS[kind].latency == LATENCY[kind]


@pytest.mark.parametrize(("interval", "lanes"), [
    (1, 12), (2, 6), (2, 8), (3, 4), (4, 4), (7, 4), (16, 4), (100, 4), (16, 1)])
@pytest.mark.parametrize("seed", [1, 2])
def test_schedule_is_legal(seed, interval, lanes):
    """Played by hand: in each cycle every source holds the very value that is asked for."""
    flow = random_graph(seed)
    plan = schedule(flow, FP, interval, RECORD, lanes=lanes)
    assert plan == schedule(flow, FP, interval, RECORD, lanes=lanes)
    record, constants = words(seed, 40, len(RECORD)), words(seed + 9, 1, len(flow.constants))[0]
    results = expected(flow, record, constants)
    slots = [[(p.cycle % interval) for p in unit.placed] for unit in plan.units]
    assert all(len(set(each)) == len(each) for each in slots)
    # As few units of a kind as can be.
    for kind, number in Counter(unit.kind for unit in plan.units).items():
        total = sum(len(unit.placed) for unit in plan.units if unit.kind == kind)
        assert number == -(-total // interval)
    got = play_schedule(plan, record, constants)
    for name, value in results.items():
        assert got[name] == value.tolist(), name


def play_schedule(plan: Schedule, record, constants):
    """Results of a schedule, whose units know what they are told and nothing of the graph."""
    drop = BINARY32.width - FP.width
    sign_of = {schedules.Sign.KEPT: lambda w, s: w, schedules.Sign.TURNED: lambda w, s: w ^ s,
               schedules.Sign.CLEARED: lambda w, s: w & ~s, schedules.Sign.SET: lambda w, s: w | s}
    registers, coming = [0] * len(plan.registers), {}
    outputs = {output.name: [] for output in plan.outputs}
    for now in range(len(record) * plan.interval + plan.finish):
        beat = {}
        for number, cycle in enumerate(plan.reads):
            sample, rest = divmod(now - cycle, plan.interval)
            if cycle and rest == 0 and 0 <= sample < len(record):
                assert not beat, "two beats at once"
                first = plan.lanes * number
                for lane, word in enumerate(record[sample, first:first + plan.lanes].tolist()):
                    beat[lane] = word

        def look(source, wide, beat=beat, now=now):
            down = 0 if wide else drop
            return {"register": lambda n: registers[n], "word": lambda n: n,
                    "constant": lambda n: int(constants[n]) >> down,
                    "read": lambda n: beat.get(n, 0) >> down,
                    "unit": lambda n: coming.get((n, now), 0)}[source.kind](source.number)

        for number, unit in enumerate(plan.units):
            for placed in unit.placed:
                if (now - placed.cycle) % plan.interval or now < placed.cycle:
                    continue
                wide = unit.kind in ("wide_multiply", "wide_add", "narrow")
                fmt = BINARY32 if wide else FP
                a, *more = [
                    exact(fmt, sign_of[o.sign](look(o.source, wide), fmt.sign_bit), o.sign)
                    for o in placed.operands]
                match placed.kind:
                    case "select":
                        value = more[0] if floating.less(FP, more[1], 0) else a
                    case "subtract" | "wide_subtract":
                        value = floating.add(fmt, a, *more)
                    case "narrow":
                        value = floating.narrow(FP, a, fmt)
                    case "wide_add" | "wide_multiply":
                        value = getattr(floating, placed.kind.removeprefix("wide_"))(fmt, a, *more)
                    case "to_fixed" | "ceil_fixed" | "log2":
                        value = getattr(floating, placed.kind)(FP, a, placed.to)
                    case kind:
                        value = getattr(floating, kind)(FP, a, *more)
                coming[number, now + OPERAND_LATENCY + LATENCY[unit.kind]] = int(value)
        if now >= plan.finish and (now - plan.finish) % plan.interval == 0:
            for output in plan.outputs:
                value = look(output.operand.source, output.wide)
                if not output.to and not output.wide:
                    value = exact(FP, sign_of[output.operand.sign](value, FP.sign_bit),
                                  output.operand.sign)
                outputs[output.name].append(int(value))
        loads = [(number, look(source, plan.registers[number].width == BINARY32.width))
                 for number, register in enumerate(plan.registers)
                 for slot, source in register.loads if slot == now % plan.interval]
        for number, value in loads:
            registers[number] = value
    return outputs


def exact(fmt, word, sign):
    """A zero whose sign was turned is the word 0."""
    turned = sign in (schedules.Sign.TURNED, schedules.Sign.SET)
    some = word >> fmt.fraction_bits & (1 << fmt.exponent_bits) - 1
    return 0 if turned and not some else word


@pytest.mark.parametrize(("seed", "interval", "depth", "lanes", "beats", "gap", "stall"), [
    (1, 4, 64, 4, 3, 0.0, 0.0), (1, 4, 64, 4, 3, 0.5, 0.0), (1, 4, 16, 4, 3, 0.0, 0.6),
    (2, 7, 16, 4, 3, 0.3, 0.9), (2, 7, 16, 4, 2, 0.1, 0.5), (3, 12, 16, 4, 1, 0.0, 0.0),
    (3, 2, 128, 7, 2, 0.2, 0.3), (3, 2, 128, 7, 2, 0.0, 0.0)])
def test_rtl_against_both_models(seed, interval, depth, lanes, beats, gap, stall):
    flow, plan, held = bench(seed, interval, depth, lanes)
    dut, count = held.dut, 60
    rng = np.random.default_rng(seed)
    record = words(seed, count, len(RECORD))
    record[:, lanes * beats:] = 0
    constants = words(seed + 9, 1, len(flow.constants))[0]
    state = model.new_folded(plan, beats, depth)
    padded = np.zeros((count, lanes * beats), np.int64)
    padded[:, :min(len(RECORD), lanes * beats)] = record[:, :lanes * beats]
    stream = [sum(int(word) << 32 * lane for lane, word in enumerate(beat))
              for beat in padded.reshape(-1, lanes)]
    layout = dut.o.payload.shape()
    got, times = [], []

    async def scenario(ctx):
        ctx.set(dut.beats, beats)
        # The round before the first is cut short.
        await ctx.tick().repeat(seed)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        for n, word in enumerate(constants):
            ctx.set(dut.constants[n], int(word))
        sent, offered = 0, False
        for cycle in range(100 * count):
            if len(got) == count:
                return
            offered = sent < len(stream) and (offered or rng.random() >= gap)
            ready = rng.random() >= stall
            ctx.set(dut.i.valid, offered)
            if offered:
                ctx.set(dut.i.payload, stream[sent])
            ctx.set(dut.o.ready, ready)
            expects = model.offers(state)
            busy, stalled = model.is_busy(state), model.is_stalled(state)
            _, _, *seen, word, freed, is_busy, is_stalled = await ctx.tick().sample(
                dut.i.ready, dut.o.valid, dut.o.payload.as_value(), dut.freed, dut.busy,
                dut.stalled)
            assert tuple(map(bool, seen)) == tuple(map(bool, expects)), cycle
            assert (bool(is_busy), bool(is_stalled)) == (busy, stalled)
            assert bool(freed) == model.step(state, offered, ready)
            if offered and seen[0]:
                sent, offered = sent + 1, False
            if seen[1] and ready:
                got.append(layout.from_bits(word))
                times.append(cycle)
        raise AssertionError("not done")

    held.play(scenario)
    results = expected(flow, record, constants)
    for name, value in results.items():
        assert [row[name] for row in got] == value.tolist(), name
    assert state[model.FREED] == state[model.TAKEN] == count
    if gap == stall == 0.0:
        assert set(np.diff(times)) == {interval}
        assert times[0] >= plan.finish + RESULT_LATENCY


def test_longer_intervals_need_fewer_units_and_registers():
    flow = random_graph(1, operations=200)
    plans = [schedule(flow, FP, interval, RECORD)
             for interval in (4, 8, 16, 64)]
    for first, second in pairwise(plans):
        assert len(second.units) < len(first.units)
        assert second.register_bits < first.register_bits
        assert second.choices < first.choices
    # The first beat is addressed in the first cycle.
    assert all(min(filter(None, plan.reads)) == READ_LATENCY for plan in plans)


def test_arguments_are_checked():
    flow = random_graph(1)
    with pytest.raises(ValueError, match=re.escape(
            "Interval must be at least 3, the beats of a record, not 2")):
        schedule(flow, FP, 2, RECORD)
    flow = Dataflow(
        inputs=("x",), constants=(), literals=(), outputs=(("y", "square"),),
        operations=(Operation(name="square", kind="multiply", operands=("x", "x")),))
    with pytest.raises(ValueError, match=re.escape(
            "Record must hold all inputs of the graph, not all but 'x'")):
        schedule(flow, FP, 4, ("z",))
