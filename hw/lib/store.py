"""Records to memory, one behind the other."""

from amaranth.hdl import *
from amaranth.lib import stream
from amaranth.lib.wiring import In, Out

from splatforge.designs.shell import ShellDesign
from splatforge.hw.lib.arbiter import write_address_layout, write_data_layout
from splatforge.hw.lib.component import Component

__all__ = ["RecordStore"]


class RecordStore(Component):
    """Write each record as one burst, the first at ``address``, the others behind it.

    Cycle model: :mod:`splatforge.sim.store`.

    Latency: 1 cycle from a record to its address and to its first beat. Throughput: a record every
    ``beats + 1`` cycles. Stall: ``o_address`` and ``o_data`` may stall for ever. No ``ready``
    depends on an input.

    Parameters
    ----------
    record_bytes : int
        A power of two of beats.
    outstanding : int
        Bursts between being begun and being answered.
    shell : ShellDesign
        Bus.

    Members
    -------
    start : ``In(1)``
        Begin anew at ``address``.
    stop : ``In(1)``
        Take no more records.
    address : ``In(address_bits)``
        Of the first record, a multiple of ``record_bytes``.
    i : ``In(stream.Signature(8 * record_bytes))``
        Records.
    o_address, o_data : ``Out(stream.Signature(...))``
        To the write channels.
    i_response : ``In(1)``
        A response to one of the bursts arrives in this cycle.
    idle : ``Out(1)``
        No burst is begun or in flight.
    """

    i: stream.Interface
    o_address: stream.Interface
    o_data: stream.Interface

    def __init__(
        self, record_bytes: int, outstanding: int, shell: ShellDesign = ShellDesign()  # noqa: B008
    ) -> None:
        self.record_bytes, self.outstanding, self.shell = record_bytes, outstanding, shell
        super().__init__({
            "start": In(1), "stop": In(1), "address": In(shell.address_bits),
            "i": In(stream.Signature(8 * record_bytes)),
            "o_address": Out(stream.Signature(write_address_layout(shell))),
            "o_data": Out(stream.Signature(write_data_layout(shell))),
            "i_response": In(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        beats = self.record_bytes // self.shell.data_bytes
        left = Signal(range(beats + 1))
        record = Signal(8 * self.record_bytes)
        next_address = Signal(self.shell.address_bits)
        in_flight = Signal(range(self.outstanding + 1))
        came = Signal()
        m.d.comb += [
            self.i.ready.eq(~self.o_address.valid & ~left.any() & ~self.stop
                            & (in_flight != self.outstanding)),
            came.eq(self.i.valid & self.i.ready),
            self.o_address.p.length.eq(beats - 1),
            self.o_data.valid.eq(left.any()),
            self.o_data.p.data.eq(record[:self.shell.data_bits]),
            self.o_data.p.strobe.eq(~0), self.o_data.p.last.eq(left == 1),
            self.idle.eq(~in_flight.any()),
        ]
        m.d.sync += in_flight.eq(in_flight + came - self.i_response)
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(self.o_data.ready & self.o_data.valid):
            m.d.sync += [left.eq(left - 1), record.eq(record >> self.shell.data_bits)]
        with m.If(came):
            m.d.sync += [
                self.o_address.valid.eq(1), self.o_address.p.address.eq(next_address),
                next_address.eq(next_address + self.record_bytes),
                left.eq(beats), record.eq(self.i.payload),
            ]
        with m.If(self.start):
            m.d.sync += next_address.eq(self.address)
        return m
