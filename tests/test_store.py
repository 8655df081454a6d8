"""Records on their way to memory: each whole, in its place, in the cycle that the model says."""

from collections import deque

import numpy as np
import pytest
from amaranth.sim import Simulator

from splatforge.hw.lib.store import RecordStore
from splatforge.sim import store as model

ADDRESS = 0x12_3456_7E20


@pytest.mark.parametrize("beats", [1, 2, 4])
@pytest.mark.parametrize("pace", [0.2, 0.6, 1.0])
def test_records_go_where_they_belong(beats, pace):
    outstanding, count = 3, 40
    rng = np.random.default_rng(beats)
    records = [int.from_bytes(rng.bytes(16 * beats), "little") for _ in range(count)]
    dut, state = RecordStore(16 * beats, outstanding), model.new_store(beats, outstanding)
    memory = {}

    async def bench(ctx):
        ctx.set(dut.address, ADDRESS)
        ctx.set(dut.start, 1)
        await ctx.tick()
        ctx.set(dut.start, 0)
        sent, at, data, whole = 0, deque(), deque(), 0
        limited = 0
        while not (sent == count and ctx.get(dut.idle)):
            offered, address_ready, data_ready = (bool(rng.random() < pace) for _ in range(3))
            offered = sent < count and (offered or bool(ctx.get(dut.i.valid)))
            response = whole > 0 and bool(rng.random() < 0.15 * pace)
            # Beats are taken only when the bus has their address.
            data_ready = data_ready and bool(at)
            ctx.set(dut.i.valid, offered)
            ctx.set(dut.i.payload, records[min(sent, count - 1)])
            ctx.set(dut.o_address.ready, address_ready)
            ctx.set(dut.o_data.ready, data_ready)
            ctx.set(dut.i_response, response)
            assert bool(ctx.get(dut.i.ready)) == model.ready(state)
            assert bool(ctx.get(dut.o_address.valid)) == bool(state[model.ADDRESS_VALID])
            assert bool(ctx.get(dut.o_data.valid)) == (state[model.LEFT] > 0)
            assert bool(ctx.get(dut.idle)) == (state[model.IN_FLIGHT] == 0)
            limited += state[model.IN_FLIGHT] == outstanding
            took = offered and bool(ctx.get(dut.i.ready))
            if ctx.get(dut.o_address.valid) and address_ready:
                assert ctx.get(dut.o_address.p.length) == beats - 1
                at.append(ctx.get(dut.o_address.p.address))
            whole -= response
            if ctx.get(dut.o_data.valid) and data_ready:
                assert ctx.get(dut.o_data.p.strobe) == 0xFFFF
                data.append(ctx.get(dut.o_data.p.data))
                assert bool(ctx.get(dut.o_data.p.last)) == (len(data) == beats)
                if len(data) == beats:
                    memory[at.popleft()] = sum(word << 128 * n for n, word in enumerate(data))
                    data.clear()
                    whole += 1
            model.step(state, offered, address_ready, data_ready, response)
            await ctx.tick()
            sent += took
        assert limited

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
    assert memory == {ADDRESS + 16 * beats * n: record for n, record in enumerate(records)}
    assert state[model.RECORDS] == count


def test_nothing_is_taken_after_stop():
    dut = RecordStore(32, 4)

    async def bench(ctx):
        ctx.set(dut.i.valid, 1)
        assert ctx.get(dut.i.ready)
        ctx.set(dut.stop, 1)
        assert not ctx.get(dut.i.ready)
        await ctx.tick().repeat(3)
        assert ctx.get(dut.idle)
        assert not ctx.get(dut.o_address.valid)

    simulator = Simulator(dut)
    simulator.add_clock(1e-8)
    simulator.add_testbench(bench)
    simulator.run()
