"""Testbench of the registers: an AXI4-Lite manager written by someone else, a model beside it."""

import logging
import random
from collections import deque
from typing import Any

import cocotb
from cocotb.triggers import ClockCycles, RisingEdge
from cocotbext.axi import AxiLiteBus, AxiLiteMaster, AxiResp

from splatforge.algos.registers import OKAY, SLVERR, RegisterFile, Write
from splatforge.designs.raster import COUNTERS
from splatforge.designs.shell import (
    CONTROL_ABORT,
    CONTROL_RESET,
    CONTROL_SNAPSHOT,
    CONTROL_START,
    COUNTER_BASE,
    HEAD_REGISTERS,
    IDENTITY,
)
from splatforge.hw.registers import Registers
from splatforge.verification.lib.runner import TESTED
from splatforge.verification.lib.stream import pauses, start

SHELL = TESTED.shell
OFFSET = {register.name: register.offset for register in HEAD_REGISTERS}
TOP = COUNTER_BASE + 8 * len(COUNTERS)
#: Bytes where an access may begin: every register, and the words behind the head and the counters.
OFFSETS = [*OFFSET.values(), 0x2C, COUNTER_BASE - 4, *range(COUNTER_BASE, TOP + 8, 4)]


class Core:
    """Plays the accelerator, and holds every output against the model before every rising edge.

    Parameters
    ----------
    dut :
        The unit.
    rng : random.Random
        Draws when frames end, with what, and the running counters.
    """

    def __init__(self, dut, rng: random.Random) -> None:
        self.dut, self.rng = dut, rng
        self.file = RegisterFile(
            SHELL, number=1, lanes=TESTED.array.lanes, counters=len(COUNTERS))
        self.finish = self.clear = False
        self.error = 0
        #: What the model answered and the unit has yet to: (response,) or (data, response).
        self.answers: dict[str, deque] = {"b": deque(), "r": deque()}
        #: Responses seen by channel, and commands.
        self.seen: set[tuple[str, int]] = set()
        self.commands: set[str] = set()

    def drive(self) -> None:
        """Inputs of the coming cycle."""
        dut, rng = self.dut, self.rng
        self.finish = self.file.busy and rng.random() < 0.05
        self.clear = rng.random() < 0.01
        self.error = rng.choice([0, rng.randrange(1, 9)])
        if rng.random() < 0.3:
            # Every bit of every counter, and the largest value now and then.
            self.file.counter = [
                rng.choice([rng.getrandbits(SHELL.counter_bits), (1 << SHELL.counter_bits) - 1])
                for _ in COUNTERS]
            dut.counter.value = sum(
                count << SHELL.counter_bits * n for n, count in enumerate(self.file.counter))
        dut.busy.value, dut.finish.value = int(self.file.busy), int(self.finish)
        dut.error.value, dut.clear.value = self.error, int(self.clear)

    def answer(self, channel: str, got: tuple[int, ...]) -> None:
        """An answer is there the cycle behind its request, and stays until it is taken."""
        valid = getattr(self.dut, f"s_axil_{channel}valid").value == 1
        waiting = self.answers[channel]
        assert valid == bool(waiting), f"{channel}valid is {valid}, {len(waiting)} answers are due"
        if valid:
            assert got == waiting[0]
            if getattr(self.dut, f"s_axil_{channel}ready").value == 1:
                waiting.popleft()

    def see(self) -> None:
        """What stands before a rising edge."""
        dut, file = self.dut, self.file
        assert dut.irq.value == file.irq
        assert int(dut.descriptor_address.value) == file.descriptor_address
        self.answer("b", (int(dut.s_axil_bresp.value),))
        self.answer("r", (int(dut.s_axil_rdata.value), int(dut.s_axil_rresp.value)))
        if dut.s_axil_arvalid.value == 1 and dut.s_axil_arready.value == 1:
            data, response = file.read(int(dut.s_axil_araddr.value))
            self.answers["r"].append((data, response))
            self.seen.add(("r", response))
        took = [getattr(dut, f"s_axil_{each}valid").value == 1
                and getattr(dut, f"s_axil_{each}ready").value == 1 for each in ("aw", "w")]
        assert took[0] == took[1], "address and data of a write are taken together"
        done = Write(OKAY)
        if took[0]:
            done = file.write(*(int(getattr(dut, f"s_axil_{name}").value)
                                for name in ("awaddr", "wdata", "wstrb")))
            self.answers["b"].append((done.response,))
            self.seen.add(("b", done.response))
        for name in ("start", "abort", "reset"):
            assert getattr(dut, name).value == getattr(done, name), name
            if getattr(done, name):
                self.commands.add(name)
        if self.finish:
            file.finish(self.error)
            file.busy = False
        if self.clear:
            file.clear()
            file.busy = False
        if done.start:
            file.busy = True

    async def run(self) -> None:
        """Play for ever."""
        while True:
            self.drive()
            await RisingEdge(self.dut.clk)
            self.see()


async def begin(dut, rng: random.Random, gap: float, stall: float) -> tuple[Any, Core]:
    """Reset; the manager and the model."""
    dut.busy.value = dut.finish.value = dut.clear.value = dut.error.value = 0
    dut.counter.value = 0
    for name in ("awvalid", "wvalid", "arvalid", "bready", "rready"):
        getattr(dut, f"s_axil_{name}").value = 0
    await start(dut)
    # The manager says something of every access. Any: cocotbext-axi has no types, and what a
    # checker infers of it is wrong.
    logging.getLogger(f"cocotb.{dut._name}").setLevel(logging.ERROR)
    master: Any = AxiLiteMaster(AxiLiteBus.from_prefix(dut, "s_axil"), dut.clk)
    write, read = master.write_if, master.read_if
    for channel, probability in (
        (write.aw_channel, gap), (write.w_channel, gap), (read.ar_channel, gap),
        (write.b_channel, stall), (read.r_channel, stall),
    ):
        channel.set_pause_generator(pauses(rng, probability))
    core = Core(dut, rng)
    cocotb.start_soon(core.run())
    return master, core


async def write_at_random(master: Any, rng: random.Random, count: int) -> None:
    """Writes of one to eight bytes anywhere: any strobes, one or more words."""
    commands = (CONTROL_START, CONTROL_START, CONTROL_ABORT, CONTROL_RESET, CONTROL_SNAPSHOT,
                CONTROL_START | CONTROL_ABORT, CONTROL_START | CONTROL_SNAPSHOT, 0)
    for _ in range(count):
        if rng.random() < 0.4:
            await master.write(OFFSET["CONTROL"], bytes([rng.choice(commands)]))
        else:
            await master.write(rng.choice(OFFSETS) + rng.randrange(4),
                               rng.randbytes(rng.randrange(1, 9)))


async def read_at_random(master: Any, rng: random.Random, count: int) -> None:
    """Reads of one to eight bytes anywhere."""
    for _ in range(count):
        await master.read(rng.choice(OFFSETS) + rng.randrange(4), rng.randrange(1, 9))


@cocotb.test(timeout_time=300, timeout_unit="us")
@cocotb.parametrize(seed=[1, 2], gap=[0.0, 0.4], stall=[0.0, 0.4])
async def against_model(dut, seed: int, gap: float, stall: float) -> None:
    """Reads and writes at once, frames that begin and end: every output in every cycle."""
    rng = random.Random(f"{cocotb.RANDOM_SEED} {seed}")
    master, core = await begin(dut, rng, gap, stall)
    # Corners first: every word of the map, and the one behind it, is read and written whole.
    for offset in OFFSETS:
        await master.read(offset, 4)
        if offset != OFFSET["CONTROL"]:
            await master.write(offset, b"\xff" * 4)
        await master.read(offset, 4)
    writing = cocotb.start_soon(write_at_random(master, rng, 250))
    reading = cocotb.start_soon(read_at_random(master, rng, 250))
    await writing
    await reading
    await ClockCycles(dut.clk, 3)
    assert not core.answers["b"]
    assert not core.answers["r"]
    assert core.seen == {(way, code) for way in "br" for code in (OKAY, SLVERR)}
    assert core.commands == {"start", "abort", "reset"}


@cocotb.test(timeout_time=100, timeout_unit="us")
async def what_a_driver_sees(dut) -> None:
    """Through the manager, without the model: constants, byte strobes, responses."""
    master, _ = await begin(dut, random.Random(cocotb.RANDOM_SEED), 0.0, 0.0)
    assert await master.read_dword(OFFSET["IDENTITY"]) == IDENTITY
    assert await master.read_dword(OFFSET["LANES"]) == TESTED.array.lanes
    assert await master.read_dword(OFFSET["COUNTERS"]) == len(COUNTERS)
    await master.write_dword(OFFSET["DESCRIPTOR_LOW"], 0x1122_3344)
    assert (await master.write(OFFSET["DESCRIPTOR_LOW"] + 1, b"\xaa\xbb")).resp is AxiResp.OKAY
    assert await master.read_dword(OFFSET["DESCRIPTOR_LOW"]) == 0x11BB_AA44
    assert int(dut.descriptor_address.value) == 0x11BB_AA44
    assert (await master.read(TOP, 4)).resp is AxiResp.SLVERR
    assert (await master.write(OFFSET["STATUS"], bytes(4))).resp is AxiResp.SLVERR


@cocotb.test(timeout_time=20, timeout_unit="us")
async def latency(dut) -> None:
    """An answer can be taken as many cycles behind its request as the unit says."""
    master, core = await begin(dut, random.Random(cocotb.RANDOM_SEED), 0.0, 0.0)
    asked = cocotb.start_soon(master.read(OFFSET["IDENTITY"], 4))
    while not core.answers["r"]:
        await RisingEdge(dut.clk)
    cycles = 0
    while core.answers["r"]:
        await RisingEdge(dut.clk)
        cycles += 1
    assert cycles == Registers.latency
    await asked
