"""Ready/valid drivers for cocotb, with the protocol's rules checked on every cycle.

A coroutine that wakes at a rising edge reads what stood before it, under Verilator as well:
cocotb calls back before the model is evaluated. One wake a cycle is enough.
"""

import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import cocotb
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge

__all__ = ["Port", "axi_port", "check_silence", "check_stream", "pauses", "port", "sink", "source",
           "start"]


class Port(NamedTuple):
    """Signals of one stream."""

    payload: Any
    """The payload, or for an AXI channel a tuple of its signals."""
    valid: Any
    ready: Any


def port(dut: Any, name: str) -> Port:
    """Stream `name` of a component, as Amaranth names its signals."""
    return Port(*(getattr(dut, f"{name}__{part}") for part in ("payload", "valid", "ready")))


def axi_port(dut: Any, channel: str, payload: Iterable[str]) -> Port:
    """AXI channel `channel`, as in ``m_axi_ar``, with the signals `payload`, for `check_stream`."""
    return Port(tuple(getattr(dut, channel + name) for name in payload),
                getattr(dut, f"{channel}valid"), getattr(dut, f"{channel}ready"))


def pauses(rng: random.Random, probability: float) -> Iterator[bool]:
    """Endless pauses: true in a cycle that the endpoint must sit out."""
    while True:
        yield rng.random() < probability


async def start(dut: Any, *, inputs: Iterable[str] = (), outputs: Iterable[str] = ()) -> None:
    """Start the clock, watch the streams `outputs`, and leave reset with everything quiet."""
    for name in inputs:
        port(dut, name).valid.value = 0
    for name in outputs:
        port(dut, name).ready.value = 0
    Clock(dut.clk, 10, unit="ns", impl="gpi").start()
    dut.rst.value = 1
    await ClockCycles(dut.clk, 3)
    dut.rst.value = 0
    for name in outputs:
        cocotb.start_soon(check_stream(dut.clk, port(dut, name)))


async def source(
    clk: Any, stream: Port, payloads: Iterable[int], pause: Iterator[bool],
    sent: Callable[[int], None] | None = None,
) -> None:
    """Send every payload in order; `sent` is called with the number of each that was taken."""
    for number, word in enumerate(payloads):
        while next(pause):
            stream.valid.value = 0
            await RisingEdge(clk)
        stream.payload.value = word
        stream.valid.value = 1
        while True:
            await RisingEdge(clk)
            if stream.ready.value == 1:
                break
        stream.valid.value = 0
        if sent:
            sent(number)


async def sink(clk: Any, stream: Port, count: int, pause: Iterator[bool]) -> list[int]:
    """Receive `count` payloads."""
    words: list[int] = []
    while len(words) < count:
        ready = not next(pause)
        stream.ready.value = int(ready)
        await RisingEdge(clk)
        if ready and stream.valid.value == 1:
            words.append(int(stream.payload.value))
    stream.ready.value = 0
    return words


async def check_silence(clk: Any, *streams: Port, cycles: int = 40) -> None:
    """Fail if any of `streams` has something left to send when it is let."""
    for stream in streams:
        stream.ready.value = 1
    for _ in range(cycles):
        await RisingEdge(clk)
        for stream in streams:
            assert stream.valid.value == 0, "more was sent than there is"
    for stream in streams:
        stream.ready.value = 0


async def check_stream(
    clk: Any, stream: Port, released: Callable[[], bool] | None = None
) -> None:
    """Fail if a producer drops ``valid`` or changes ``payload`` before a transfer.

    `released` says, at a rising edge, that what is offered may be withdrawn behind it.
    """
    parts = stream.payload if isinstance(stream.payload, tuple) else (stream.payload,)
    held = None
    while True:
        await RisingEdge(clk)
        valid = stream.valid.value == 1
        if held is not None:
            assert valid, "valid was dropped before a transfer"
            now = [int(part.value) for part in parts]
            assert now == held, "payload changed before a transfer"
        held = None
        if valid and stream.ready.value == 0 and not (released and released()):
            held = [int(part.value) for part in parts]
