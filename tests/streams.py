"""Streams in the Amaranth simulator: sources with gaps, sinks with stalls, the rules checked."""

from collections.abc import Awaitable, Callable, Iterable
from typing import NamedTuple

import numpy as np
from amaranth.hdl import Value
from amaranth.lib import data
from amaranth.sim import Simulator

__all__ = ["Bench", "Sink", "Source", "Transfer", "construct", "pack", "unpack"]

PERIOD = 1e-8


class Transfer(NamedTuple):
    cycle: int
    word: int


class Source:
    """Sends `words` in order from cycle `after` on; sits out a cycle with probability `gap`."""

    def __init__(self, port, words: Iterable[int], gap: float = 0.0, after: int = 0) -> None:
        self.port, self.words, self.gap, self.after = port, list(words), gap, after
        self.sent: list[Transfer] = []
        self.offered = False

    @property
    def done(self) -> bool:
        return len(self.sent) == len(self.words)


class Sink:
    """Receives `count` words; sits out a cycle with probability `stall`."""

    def __init__(self, port, count: int, stall: float = 0.0) -> None:
        self.port, self.count, self.stall = port, count, stall
        self.received: list[Transfer] = []
        self.held: int | None = None

    @property
    def done(self) -> bool:
        return len(self.received) >= self.count

    def see(self, cycle: int, valid: int, ready: int, word: int) -> None:
        """One rising edge: the rules of the stream, and the transfer if there is one."""
        if self.held is not None:
            assert valid, "valid was dropped before a transfer"
            assert word == self.held, "payload changed before a transfer"
        self.held = word if valid and not ready else None
        if valid and ready:
            self.received.append(Transfer(cycle, word))

    @property
    def words(self) -> list[int]:
        return [transfer.word for transfer in self.received]


def construct(component, *arguments, **named):
    """A component that is only looked at; Amaranth warns of one that is never elaborated."""
    dut = component.__new__(component)
    dut._MustUse__used = True
    dut.__init__(*arguments, **named)
    return dut


def pack(layout: data.Layout, fields: dict) -> int:
    """One payload as an integer."""
    return layout.const(fields).as_value().value


def unpack(layout: data.Layout, word: int) -> data.Const:
    """One payload's fields."""
    return layout.from_bits(word)


class Bench:
    """One component under the simulator, which is built once and reset for every run."""

    def __init__(self, dut) -> None:
        self.dut = dut
        self.scenario: Callable[..., Awaitable[None]] | None = None
        self.simulator: Simulator | None = None

    async def _bench(self, ctx) -> None:
        assert self.scenario is not None
        await self.scenario(ctx)

    def play(self, scenario: Callable[..., Awaitable[None]]) -> None:
        """Run ``scenario(ctx)`` from reset until it returns."""
        self.scenario = scenario
        if self.simulator is None:
            self.simulator = Simulator(self.dut)
            self.simulator.add_clock(PERIOD)
            self.simulator.add_testbench(self._bench)
        else:
            self.simulator.reset()
        self.simulator.run()

    def run(
        self,
        sources: Iterable[Source] = (),
        sinks: Iterable[Sink] = (),
        *,
        seed: int = 1,
        limit: int = 10_000,
        tail: int = 0,
        drive: Callable | None = None,
        watch: dict[str, Value] | None = None,
    ) -> dict[str, list[int]]:
        """Clock until every source and sink is done, then `tail` cycles more.

        ``drive(ctx, cycle)`` is called before every rising edge. Returns each value of `watch` as
        it stood before every rising edge. Fails if that takes `limit` cycles: a deadlock is a
        failing test, not a hung one.
        """
        sources, sinks, watch = list(sources), list(sinks), watch or {}
        rng = np.random.default_rng(seed)
        trace: dict[str, list[int]] = {name: [] for name in watch}
        ports = [each.port for each in (*sources, *sinks)]
        finished = []

        async def scenario(ctx) -> None:
            left = tail
            for cycle in range(limit):
                if all(each.done for each in (*sources, *sinks)):
                    if not left:
                        finished.append(cycle)
                        return
                    left -= 1
                for source in sources:
                    if (not source.offered and not source.done and cycle >= source.after
                            and rng.random() >= source.gap):
                        ctx.set(Value.cast(source.port.payload), source.words[len(source.sent)])
                        source.offered = True
                    ctx.set(source.port.valid, source.offered)
                for sink in sinks:
                    ctx.set(sink.port.ready, rng.random() >= sink.stall)
                if drive is not None:
                    drive(ctx, cycle)
                _, _, *sampled = await ctx.tick().sample(
                    *(port.valid for port in ports), *(port.ready for port in ports),
                    *(Value.cast(sink.port.payload) for sink in sinks), *watch.values())
                valid, ready = sampled[:len(ports)], sampled[len(ports):2 * len(ports)]
                words = sampled[2 * len(ports):2 * len(ports) + len(sinks)]
                for name, value in zip(watch, sampled[2 * len(ports) + len(sinks):], strict=True):
                    trace[name].append(int(value))
                for number, source in enumerate(sources):
                    if valid[number] and ready[number]:
                        source.sent.append(Transfer(cycle, source.words[len(source.sent)]))
                        source.offered = False
                for sink, here, taken, word in zip(
                        sinks, valid[len(sources):], ready[len(sources):], words, strict=True):
                    sink.see(cycle, here, taken, word)

        self.play(scenario)
        assert finished, f"not done after {limit} cycles"
        return trace
