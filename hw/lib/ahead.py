"""Registers behind a queue, so that who takes from it does not act back on its memory."""

from typing import Any

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from splatforge.hw.lib.component import Component

__all__ = ["Ahead"]


class Ahead(Component):
    """Two words in registers that are filled in turn.

    The output of a memory is late, and its address and enable are many: between it and what
    decides about a word stand these.

    Latency: one cycle. Throughput: a word a cycle. Stall: ``o`` may stall for ever. Neither
    ``ready`` nor ``valid`` depends on an input combinationally.

    Parameters
    ----------
    shape : ShapeCastable
        Of a word.

    Members
    -------
    i : ``In(stream.Signature(shape))``
        Words.
    o : ``Out(stream.Signature(shape))``
        The same a cycle later.
    """

    i: stream.Interface
    o: stream.Interface

    def __init__(self, shape: Any) -> None:
        self._shape = shape
        super().__init__({
            "i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    def elaborate(self, platform):
        m = Module()
        words = Signal(data.ArrayLayout(self._shape, 2))
        level, into, out_of = Signal(range(3)), Signal(), Signal()
        comes, goes = Signal(), Signal()
        m.d.comb += [
            self.i.ready.eq(~level[1]), self.o.valid.eq(level.any()),
            self.o.payload.eq(words[out_of]),
            comes.eq(self.i.valid & self.i.ready), goes.eq(self.o.valid & self.o.ready),
        ]
        m.d.sync += [
            level.eq(level + comes - goes), into.eq(into ^ comes), out_of.eq(out_of ^ goes)]
        for number in range(2):
            with m.If(self.i.ready & (into == number)):
                m.d.sync += words[number].eq(self.i.payload)
        return m
