import re
import sys
from pathlib import Path

import numpy as np
import pytest

from splatforge.algos.registers import OKAY, SLVERR, RegisterFile, Write
from splatforge.designs.array import ArrayDesign
from splatforge.designs.raster import COUNTERS, RasterDesign
from splatforge.designs.shell import (
    CONTROL_ABORT,
    CONTROL_RESET,
    CONTROL_SNAPSHOT,
    CONTROL_START,
    COUNTER_BASE,
    DESCRIPTOR_VERSION,
    HEAD_REGISTERS,
    IDENTITY,
    IRQ_DONE,
    IRQ_ERROR,
    STATUS_BUSY,
    STATUS_DONE,
    STATUS_ERROR,
    FrameError,
    ShellDesign,
)
from splatforge.hw.registers import Registers
from splatforge.sim import registers as model

sys.path.insert(0, str(Path(__file__).parent))
import streams

OFFSET = {register.name: register.offset for register in HEAD_REGISTERS}
SHELL = ShellDesign()


def registers(shell=SHELL, counters=3):
    return RegisterFile(shell, number=7, lanes=64, counters=counters)


def test_counters_must_fit_the_register_space():
    narrow = ShellDesign(register_address_bits=10)
    message = "Register space must hold 100 counters, not 10 address bits"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        streams.construct(Registers, narrow, number=1, lanes=64, counters=100)
    assert streams.construct(Registers, narrow, number=1, lanes=64, counters=96).counters == 96


def test_number_of_accesses_must_not_be_negative():
    with pytest.raises(ValueError, match="Number of accesses must be non-negative, not -1"):
        model.cycles(-1)


def test_registers_of_the_raster_core():
    dut = Registers.for_design(RasterDesign(array=ArrayDesign(lanes=32)))
    streams.Bench(dut).run()
    assert (dut.number, dut.lanes, dut.counters) == (1, 32, len(COUNTERS))


def test_constants_by_hand():
    file = registers()
    assert file.read(OFFSET["IDENTITY"]) == (IDENTITY, OKAY)
    assert file.read(OFFSET["VERSION"]) == (7 << 16 | DESCRIPTOR_VERSION, OKAY)
    assert file.read(OFFSET["LANES"] + 3) == (64, OKAY)
    assert file.read(OFFSET["COUNTERS"]) == (3, OKAY)
    assert file.read(OFFSET["CONTROL"]) == (0, OKAY)
    assert file.read(COUNTER_BASE + 8 * 3) == (0, SLVERR)
    assert file.read(0x2C) == (0, SLVERR)
    for name in ("IDENTITY", "VERSION", "STATUS", "ERROR", "LANES", "COUNTERS"):
        before = file.read(OFFSET[name])
        assert file.write(OFFSET[name], 0xFFFF_FFFF) == Write(SLVERR)
        assert file.read(OFFSET[name]) == before
    assert file.write(COUNTER_BASE, 1).response == SLVERR


def test_strobes_and_address_by_hand():
    file = registers()
    assert file.write(OFFSET["DESCRIPTOR_LOW"], 0x11223344).response == OKAY
    file.write(OFFSET["DESCRIPTOR_LOW"], 0xAABBCCDD, 0b0101)
    assert file.read(OFFSET["DESCRIPTOR_LOW"]) == (0x11BB33DD, OKAY)
    file.write(OFFSET["DESCRIPTOR_HIGH"], 0xFFFF_FF12)
    assert file.read(OFFSET["DESCRIPTOR_HIGH"]) == (0x12, OKAY)
    assert file.descriptor_address == 0x12_11BB_33DD
    file.write(OFFSET["IRQ_ENABLE"], 0xFFFF_FFFF)
    assert file.read(OFFSET["IRQ_ENABLE"]) == (3, OKAY)
    file.write(OFFSET["IRQ_ENABLE"], 0, 0b1110)
    assert file.read(OFFSET["IRQ_ENABLE"]) == (3, OKAY)


def test_frame_by_hand():
    file = registers()
    file.write(OFFSET["IRQ_ENABLE"], IRQ_ERROR)
    assert file.write(OFFSET["CONTROL"], CONTROL_START) == Write(OKAY, start=True)
    file.busy = True
    assert file.read(OFFSET["STATUS"])[0] == STATUS_BUSY
    # A running frame is not started again.
    assert file.write(OFFSET["CONTROL"], CONTROL_START) == Write(OKAY)
    file.counter = [5, (1 << 40) - 1, 7]
    assert file.read(COUNTER_BASE)[0] == 0
    file.write(OFFSET["CONTROL"], CONTROL_SNAPSHOT)
    file.counter = [6, 0, 0]
    assert [file.read(COUNTER_BASE + 4 * n)[0] for n in range(6)] == [
        5, 0, 0xFFFF_FFFF, 0xFF, 7, 0]
    assert file.write(OFFSET["CONTROL"], CONTROL_ABORT) == Write(OKAY, abort=True)
    file.finish(FrameError.ABORTED)
    file.busy = False
    assert file.read(OFFSET["STATUS"])[0] == STATUS_DONE | STATUS_ERROR
    assert file.read(OFFSET["ERROR"])[0] == FrameError.ABORTED
    assert file.read(OFFSET["IRQ_STATUS"])[0] == IRQ_DONE | IRQ_ERROR
    assert file.read(COUNTER_BASE)[0] == 6
    assert file.irq
    file.write(OFFSET["IRQ_STATUS"], IRQ_ERROR)
    assert not file.irq
    assert file.read(OFFSET["IRQ_STATUS"])[0] == IRQ_DONE
    # START beside ABORT or RESET asks for the end of a frame, not for one.
    for other in (CONTROL_ABORT, CONTROL_RESET):
        assert not file.write(OFFSET["CONTROL"], CONTROL_START | other).start
        assert file.read(OFFSET["ERROR"])[0] == FrameError.ABORTED
    assert file.write(OFFSET["CONTROL"], CONTROL_START).start
    assert file.read(OFFSET["STATUS"])[0] == file.read(OFFSET["ERROR"])[0] == 0
    file.finish(FrameError.NONE)
    assert file.read(OFFSET["STATUS"])[0] == STATUS_DONE
    assert file.write(OFFSET["CONTROL"], CONTROL_RESET) == Write(OKAY, reset=True)
    file.clear()
    assert [file.read(OFFSET[name])[0] for name in ("STATUS", "ERROR", "IRQ_STATUS")] == [0] * 3
    assert file.read(COUNTER_BASE)[0] == 0
    assert file.read(OFFSET["IRQ_ENABLE"])[0] == IRQ_ERROR


class Driver:
    """Random accesses, each channel on its own, held until it is taken; random frame events."""

    def __init__(self, dut, file, seed, gap, stall, events=True):
        self.dut, self.file, self.gap, self.stall, self.events = dut, file, gap, stall, events
        self.rng = np.random.default_rng(seed)
        self.awaddr = self.wdata = self.araddr = None
        self.answers = {"b": [], "r": []}
        self.accepted = {"b": [], "r": []}
        self.answered = {"b": [], "r": []}
        self.responses = set()
        self.offsets = [*OFFSET.values(), *OFFSET.values(), OFFSET["CONTROL"], OFFSET["CONTROL"],
                        0x2C, COUNTER_BASE - 4,
                        *range(COUNTER_BASE, COUNTER_BASE + 8 * dut.counters + 8, 4)]

    def offset(self):
        return int(self.rng.choice(self.offsets)) + int(self.rng.integers(4))

    def drive(self, ctx, cycle):
        rng, dut, file = self.rng, self.dut, self.file
        if self.awaddr is None and rng.random() >= self.gap:
            self.awaddr = self.offset()
        if self.wdata is None and rng.random() >= self.gap:
            value = int(rng.integers(1 << 32))
            if rng.random() < 0.5:
                value = 1 << int(rng.integers(4))
            self.wdata = value, int(rng.choice([0b1111, 0b1111, int(rng.integers(16))]))
        if self.araddr is None and rng.random() >= self.gap:
            self.araddr = self.offset()
        ctx.set(dut.s_axil_awvalid, self.awaddr is not None)
        ctx.set(dut.s_axil_awaddr, self.awaddr or 0)
        ctx.set(dut.s_axil_wvalid, self.wdata is not None)
        value, strobe = self.wdata or (0, 0)
        ctx.set(dut.s_axil_wdata, value)
        ctx.set(dut.s_axil_wstrb, strobe)
        ctx.set(dut.s_axil_arvalid, self.araddr is not None)
        ctx.set(dut.s_axil_araddr, self.araddr or 0)
        self.bready, self.rready = rng.random(2) >= self.stall
        ctx.set(dut.s_axil_bready, bool(self.bready))
        ctx.set(dut.s_axil_rready, bool(self.rready))
        self.finish = self.events and file.busy and rng.random() < 0.1
        self.clear = self.events and rng.random() < 0.02
        self.error = int(rng.integers(9)) * int(rng.integers(2))
        top = (1 << dut.shell.counter_bits) - 1
        file.counter = [int(rng.integers(top, dtype=np.uint64, endpoint=True))
                        for _ in file.counter]
        ctx.set(dut.busy, file.busy)
        ctx.set(dut.finish, self.finish)
        ctx.set(dut.error, self.error)
        ctx.set(dut.clear, self.clear)
        for number, count in enumerate(file.counter):
            ctx.set(dut.counter[number], count)

    def see(self, cycle, seen):
        """What stood before the rising edge, against the model."""
        file = self.file
        assert seen["irq"] == file.irq
        assert seen["descriptor_address"] == file.descriptor_address
        for channel, ready in (("b", self.bready), ("r", self.rready)):
            if seen[f"s_axil_{channel}valid"]:
                assert self.answers[channel], "an answer without a request"
                if channel == "b":
                    got = seen["s_axil_bresp"]
                else:
                    got = seen["s_axil_rdata"], seen["s_axil_rresp"]
                # Held, unchanged, for as long as it is not taken.
                assert got == self.answers[channel][0]
                if ready:
                    self.answers[channel].pop(0)
                    self.answered[channel].append(cycle)
        if self.araddr is not None and seen["s_axil_arready"]:
            self.answers["r"].append(file.read(self.araddr))
            self.accepted["r"].append(cycle)
            self.responses.add(("r", file.read(self.araddr)[1]))
            self.araddr = None
        done = Write(OKAY)
        took = (self.awaddr is not None and bool(seen["s_axil_awready"]),
                self.wdata is not None and bool(seen["s_axil_wready"]))
        assert took in ((False, False), (True, True)), "address and data are taken together"
        if took[0]:
            done = file.write(self.awaddr, *self.wdata)
            self.answers["b"].append(done.response)
            self.accepted["b"].append(cycle)
            self.responses.add(("b", done.response))
            self.awaddr = self.wdata = None
        assert (seen["start"], seen["abort"], seen["reset"]) == (
            done.start, done.abort, done.reset)
        if self.finish:
            file.finish(self.error)
            file.busy = False
        if self.clear:
            file.clear()
            file.busy = False
        if done.start and self.events:
            file.busy = True


OUTPUTS = ("irq", "descriptor_address", "start", "abort", "reset", "s_axil_awready",
           "s_axil_wready", "s_axil_arready", "s_axil_bvalid", "s_axil_bresp", "s_axil_rvalid",
           "s_axil_rdata", "s_axil_rresp")


def play(driver, cycles):
    """Random accesses for `cycles` cycles: every output against the model before every edge."""
    async def bench(ctx):
        for cycle in range(cycles):
            driver.drive(ctx, cycle)
            _, _, *values = await ctx.tick().sample(
                *(getattr(driver.dut, name) for name in OUTPUTS))
            driver.see(cycle, dict(zip(OUTPUTS, map(int, values), strict=True)))

    streams.Bench(driver.dut).play(bench)


@pytest.mark.parametrize("shell", [
    SHELL, ShellDesign(address_bits=32, counter_bits=33, register_address_bits=10),
    ShellDesign(address_bits=64, counter_bits=64)], ids=["40 bits", "32 bits", "64 bits"])
@pytest.mark.parametrize(("gap", "stall"), [(0.0, 0.0), (0.4, 0.0), (0.0, 0.4), (0.3, 0.3)])
def test_rtl_against_model(shell, gap, stall):
    dut = Registers(shell, number=7, lanes=64, counters=3)
    driver = Driver(dut, registers(shell), 1, gap, stall)
    play(driver, 1500)
    assert driver.responses == {(way, code) for way in "br" for code in (OKAY, SLVERR)}
    assert min(len(driver.answered[way]) for way in "br") > 200


def test_cycles_match_rtl():
    dut = Registers(SHELL, number=7, lanes=64, counters=3)
    driver = Driver(dut, registers(), 2, 0.0, 0.0, events=False)
    play(driver, 60)
    for way in "br":
        accepted, answered = driver.accepted[way], driver.answered[way]
        assert answered[0] - accepted[0] == dut.latency == model.LATENCY
        for count in (1, 2, 7, 20):
            assert answered[count - 1] - accepted[0] + 1 == model.cycles(count)
    assert model.cycles(0) == 0


def test_no_output_depends_on_an_input_combinationally():
    """AXI forbids it: what the bus sees changes only at a rising edge."""
    dut = Registers(SHELL, number=7, lanes=64, counters=3)
    bus = [name for name in OUTPUTS if name not in ("start", "abort", "reset")]
    rng = np.random.default_rng(3)
    inputs = [getattr(dut, f"s_axil_{name}") for name in (
        "awvalid", "wvalid", "arvalid", "bready", "rready", "awaddr", "wdata", "wstrb", "araddr")]
    stood = []

    async def bench(ctx):
        for _ in range(200):
            await ctx.tick()
            before = [ctx.get(getattr(dut, name)) for name in bus]
            for signal in inputs:
                ctx.set(signal, int(rng.integers(1 << len(signal))))
            assert [ctx.get(getattr(dut, name)) for name in bus] == before
            stood.append(tuple(before))

    streams.Bench(dut).play(bench)
    assert len(set(stood)) > 5


@pytest.mark.rtl
def test_verilog_against_model(run_testbench):
    run_testbench("registers", seed=7)
