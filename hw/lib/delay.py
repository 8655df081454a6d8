"""A word as it was some cycles ago, out of a memory."""

from amaranth.hdl import *
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.hw.lib.component import Component

__all__ = ["Delay"]


class Delay(Component):
    """What was at ``i`` so many cycles ago.

    A memory that is written and read at the same place in every cycle, instead of registers that
    all change in every cycle.

    Parameters
    ----------
    width : int
        Bits of a word.
    latency : int
        Cycles from a word at ``i`` to the same at ``o``, 3 or more.

    Members
    -------
    i : ``In(width)``
        A word in every cycle.
    o : ``Out(width)``
        That of ``latency`` cycles ago; not defined in the first ``latency`` cycles.
    """

    def __init__(self, width: int, latency: int) -> None:
        self.width, self.latency = width, latency
        super().__init__({"i": In(width), "o": Out(width)})

    def elaborate(self, platform):
        m = Module()
        depth = self.latency - 1
        m.submodules.words = words = Memory(shape=self.width, depth=depth, init=[])
        # Reads what the write of the same cycle replaces.
        write, read = words.write_port(), words.read_port()
        place = Signal(range(depth))
        m.d.sync += place.eq(Mux(place == depth - 1, 0, place + 1))
        m.d.comb += [
            write.en.eq(1), write.addr.eq(place), write.data.eq(self.i),
            read.addr.eq(place), self.o.eq(read.data),
        ]
        return m
