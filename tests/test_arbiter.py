"""The arbiters: nothing lost, nothing mixed, whose turn it is as the model says."""

from collections import deque

import numpy as np
import pytest
from amaranth.sim import Simulator

from splatforge.designs.shell import ShellDesign
from splatforge.hw.lib.arbiter import ReadArbiter, WriteArbiter
from splatforge.sim import arbiter as model

PORTS = 3
CYCLES = 700


def traffic(seed):
    """Random numbers, and how often each port asks and the bus answers: from seldom to always."""
    rng = np.random.default_rng(seed)
    return rng, rng.choice((0.05, 0.3, 1.0), PORTS), rng.choice((0.2, 0.7, 1.0))


@pytest.mark.parametrize("seed", range(6))
def test_read_bursts_one_after_another(seed):
    dut, state = ReadArbiter(PORTS), model.new_arbiter()
    rng, asks, takes = traffic(seed)
    sent, came = [[] for _ in range(PORTS)], []

    async def bench(ctx):
        held = None
        for cycle in range(CYCLES):
            ready = bool(rng.random() < takes)
            ctx.set(dut.o.ready, ready)
            valids = []
            for port in range(PORTS):
                i = getattr(dut, f"i_{port}")
                if not ctx.get(i.valid) and rng.random() < asks[port]:
                    ctx.set(i.valid, 1)
                    ctx.set(i.p.address, cycle << 8 | port)
                    ctx.set(i.p.length, cycle % 256)
                valids.append(bool(ctx.get(i.valid)))
            granted = model.grant(state, ready, *valids)
            taken = [port for port in range(PORTS)
                     if valids[port] and ctx.get(getattr(dut, f"i_{port}").ready)]
            assert taken == [granted] * (granted >= 0)
            valid = bool(ctx.get(dut.o.valid))
            assert valid == bool(state[model.VALID])
            burst = (ctx.get(dut.o.p.address), ctx.get(dut.o.p.length)) if valid else None
            if valid:
                assert burst[0] == state[model.ADDRESS]
                assert held is None or burst == held
            held = burst if valid and not ready else None
            if valid and ready:
                came.append(burst)
            address = 0
            if granted >= 0:
                i = getattr(dut, f"i_{granted}")
                address = ctx.get(i.p.address)
                sent[granted].append((address, ctx.get(i.p.length)))
            model.step(state, ready, granted, address, 0, False, False)
            await ctx.tick()
            if granted >= 0:
                ctx.set(getattr(dut, f"i_{granted}").valid, 0)

    run(dut, bench)
    for port in range(PORTS):
        seen = [burst for burst in came if burst[0] & 0xFF == port]
        assert seen == sent[port][:len(seen)]
        assert len(sent[port]) - len(seen) <= 1
    assert len(came) > 20


@pytest.mark.parametrize("seed", range(6))
def test_write_bursts_with_their_beats_and_responses(seed):
    outstanding = 4
    dut = WriteArbiter(PORTS, ShellDesign(), outstanding)
    state = model.new_arbiter(outstanding)
    rng, asks, takes = traffic(seed)
    sent, answers = [0] * PORTS, [0] * PORTS
    owed = [deque() for _ in range(PORTS)]
    accepted, unanswered, begun = deque(), deque(), deque()
    full = 0

    async def bench(ctx):
        nonlocal full
        beats_left = 0
        for _ in range(CYCLES):
            ready, data_ready = (bool(rng.random() < takes) for _ in range(2))
            response = bool(unanswered) and bool(rng.random() < 0.3 * takes)
            ctx.set(dut.o_address.ready, ready)
            ctx.set(dut.o_data.ready, data_ready)
            ctx.set(dut.i_response, response)
            valids = []
            for port in range(PORTS):
                i, beat = getattr(dut, f"i_address_{port}"), getattr(dut, f"i_data_{port}")
                if not ctx.get(i.valid) and rng.random() < asks[port]:
                    ctx.set(i.valid, 1)
                    ctx.set(i.p.address, sent[port] << 4 | port)
                    ctx.set(i.p.length, int(rng.integers(0, 4)))
                if not ctx.get(beat.valid) and owed[port] and rng.random() < 0.7:
                    number, left = owed[port][0]
                    ctx.set(beat.valid, 1)
                    ctx.set(beat.p.data, number << 8 | left << 4 | port)
                    ctx.set(beat.p.last, left == 0)
                valids.append(bool(ctx.get(i.valid)))
            granted = model.grant(state, ready, *valids)
            taken = [port for port in range(PORTS)
                     if valids[port] and ctx.get(getattr(dut, f"i_address_{port}").ready)]
            assert taken == [granted] * (granted >= 0)
            full += any(valids) and granted < 0 and not ctx.get(dut.o_address.valid)

            owner = model.writes(state)
            last = False
            for port in range(PORTS):
                beat = getattr(dut, f"i_data_{port}")
                assert bool(ctx.get(beat.ready)) == (port == owner and data_ready)
            assert bool(ctx.get(dut.o_data.valid)) == (
                owner >= 0 and bool(ctx.get(getattr(dut, f"i_data_{owner}").valid)))
            moved = ctx.get(dut.o_data.valid) and data_ready
            if moved:
                if not beats_left:
                    begun.append(accepted.popleft())
                    beats_left = begun[-1][1] + 1
                word = ctx.get(dut.o_data.p.data)
                beats_left -= 1
                assert word == begun[-1][0] >> 4 << 8 | beats_left << 4 | begun[-1][0] & 15
                last = bool(ctx.get(dut.o_data.p.last))
                assert last == (beats_left == 0)
            if response:
                port = unanswered.popleft()
                assert model.answered(state) == port
                answers[port] += 1
            for port in range(PORTS):
                assert bool(ctx.get(getattr(dut, f"o_response_{port}"))) == (
                    response and model.answered(state) == port)
            if ctx.get(dut.o_address.valid) and ready:
                accepted.append((ctx.get(dut.o_address.p.address), ctx.get(dut.o_address.p.length)))
            address = 0
            if granted >= 0:
                i = getattr(dut, f"i_address_{granted}")
                address = ctx.get(i.p.address)
                owed[granted].extend((sent[granted], left)
                                     for left in range(ctx.get(i.p.length), -1, -1))
                sent[granted] += 1
            model.step(state, ready, granted, address, 0, last, response)
            await ctx.tick()
            if granted >= 0:
                ctx.set(getattr(dut, f"i_address_{granted}").valid, 0)
            if moved:
                owed[owner].popleft()
                ctx.set(getattr(dut, f"i_data_{owner}").valid, 0)
                if last:
                    unanswered.append(owner)

    run(dut, bench)
    assert sum(answers) > 20
    assert sum(sent) - sum(answers) <= outstanding + 1
    assert full or takes < 0.7


def run(dut, bench):
    """Simulate `bench` beside `dut`."""
    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
