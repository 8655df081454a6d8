"""Several units at one bus: bursts one after another, and what comes back to whom it is for."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
from amaranth.lib.wiring import In, Out

from splatforge.designs.shell import ShellDesign
from splatforge.hw.fetch import address_layout
from splatforge.hw.lib.component import Component

__all__ = ["ReadArbiter", "WriteArbiter", "write_address_layout", "write_data_layout"]


def write_address_layout(shell: ShellDesign) -> data.StructLayout:
    """A write burst: ``address``, and ``length`` in beats less one."""
    return data.StructLayout({"address": shell.address_bits, "length": 8})


def write_data_layout(shell: ShellDesign) -> data.StructLayout:
    """A beat of a write burst."""
    return data.StructLayout({
        "data": shell.data_bits, "strobe": shell.data_bytes, "last": 1})


class ReadArbiter(Component):
    """Read bursts of several units through one register; the first that asks goes first.

    Data find their way back by the burst's ID. Cycle model: :mod:`splatforge.sim.arbiter`.

    Latency: 1 cycle. Throughput: a burst a cycle. Stall: ``o`` may stall for ever; a burst that has
    been taken stays. Starvation: a later port waits while an earlier one asks in every cycle.

    Parameters
    ----------
    ports : int
        Units.
    shell : ShellDesign
        Bus.

    Members
    -------
    i_0, i_1, ... : ``In(stream.Signature(Burst))``
        Bursts of the units, the first goes before the second and so on.
    o : ``Out(stream.Signature(Burst))``
        To the read address channel.
    """

    o: stream.Interface

    def __init__(self, ports: int, shell: ShellDesign = ShellDesign()) -> None:  # noqa: B008
        self.ports = ports
        burst = stream.Signature(address_layout(shell))
        super().__init__({f"i_{port}": In(burst) for port in range(ports)} | {"o": Out(burst)})

    def elaborate(self, platform):
        m = Module()
        move = Signal()
        m.d.comb += move.eq(~self.o.valid | self.o.ready)
        with m.If(self.o.ready):
            m.d.sync += self.o.valid.eq(0)
        before = C(0, 1)
        for port in range(self.ports):
            i = getattr(self, f"i_{port}")
            m.d.comb += i.ready.eq(move & ~before)
            with m.If(i.valid & i.ready):
                m.d.sync += [self.o.valid.eq(1), self.o.payload.eq(i.payload)]
            before = before | i.valid
        return m


class WriteArbiter(Component):
    """Write bursts of several units: addresses through one register, data behind them in order.

    Beats of a burst are asked for when the bus has taken its address and the bursts before it have
    all of theirs; responses, which come in order, go to the unit whose burst it was. A unit must
    give the beats of a burst without waiting for anything but the bus. Cycle model:
    :mod:`splatforge.sim.arbiter`.

    Latency: 1 cycle for addresses, 1 from the bus taking an address until its data may go, none for
    data and responses. Throughput: an address and a beat a cycle. Stall: ``o_address`` and
    ``o_data`` may stall for ever; a burst that has been taken stays. Starvation: as
    :class:`ReadArbiter`.

    Parameters
    ----------
    ports : int
        Units.
    shell : ShellDesign
        Bus.
    outstanding : int
        Bursts between their address and their response.

    Members
    -------
    i_address_0, ... : ``In(stream.Signature(Burst))``
        Bursts of the units, the first goes before the second and so on.
    i_data_0, ... : ``In(stream.Signature(Beat))``
        Their beats.
    o_response_0, ... : ``Out(1)``
        A response of the unit's arrives in this cycle.
    o_address : ``Out(stream.Signature(Burst))``
        To the write address channel.
    o_data : ``Out(stream.Signature(Beat))``
        To the write data channel.
    i_response : ``In(1)``
        A response arrives in this cycle.
    """

    o_address: stream.Interface
    o_data: stream.Interface

    def __init__(
        self, ports: int, shell: ShellDesign, outstanding: int
    ) -> None:
        self.ports, self.outstanding = ports, outstanding
        address = stream.Signature(write_address_layout(shell))
        beat = stream.Signature(write_data_layout(shell))
        members = {"o_address": Out(address), "o_data": Out(beat), "i_response": In(1)}
        for port in range(ports):
            members |= {f"i_address_{port}": In(address), f"i_data_{port}": In(beat),
                        f"o_response_{port}": Out(1)}
        super().__init__(members)

    def elaborate(self, platform):
        m = Module()
        width = max(1, (self.ports - 1).bit_length())
        m.submodules.owners = owners = SyncFIFO(width=width, depth=self.outstanding)
        m.submodules.answers = answers = SyncFIFO(width=width, depth=self.outstanding)
        asks = Signal(width)
        move, went = Signal(), Signal()
        # A burst in the register has its place in both queues, or will find one.
        m.d.comb += [
            move.eq((~self.o_address.valid | self.o_address.ready)
                    & (answers.r_level < self.outstanding - 1)),
            went.eq(self.o_address.valid & self.o_address.ready),
            owners.w_en.eq(went), owners.w_data.eq(asks),
            answers.w_en.eq(went), answers.w_data.eq(asks),
            answers.r_en.eq(self.i_response),
            owners.r_en.eq(self.o_data.valid & self.o_data.ready & self.o_data.p.last),
        ]
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        before = C(0, 1)
        for port in range(self.ports):
            i = getattr(self, f"i_address_{port}")
            m.d.comb += i.ready.eq(move & ~before)
            with m.If(i.valid & i.ready):
                m.d.sync += [
                    self.o_address.valid.eq(1), self.o_address.payload.eq(i.payload),
                    asks.eq(port),
                ]
            before = before | i.valid
            beat = getattr(self, f"i_data_{port}")
            with m.If(owners.r_rdy & (owners.r_data == port)):
                m.d.comb += [
                    self.o_data.valid.eq(beat.valid), self.o_data.payload.eq(beat.payload),
                    beat.ready.eq(self.o_data.ready),
                ]
            m.d.comb += getattr(self, f"o_response_{port}").eq(
                self.i_response & (answers.r_data == port))
        return m
