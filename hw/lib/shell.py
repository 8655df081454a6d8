"""What stands around the units of every accelerator: registers, frame control, errors, counters."""

from functools import reduce
from operator import or_

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import (
    DESCRIPTOR_BYTES,
    DESCRIPTOR_VERSION,
    AcceleratorDesign,
    FrameError,
)
from splatforge.hw.lib.axi import (
    BURST_INCR,
    READ_DESCRIPTOR,
    axi4_lite_members,
    axi4_members,
    size_code,
)
from splatforge.hw.lib.component import Component
from splatforge.hw.registers import Registers

__all__ = ["EVENT_BITS", "Accelerator", "Shell", "descriptor_layout", "is_misaligned"]

#: Bits of what a counter may grow by in a cycle.
EVENT_BITS = 18


def descriptor_layout(design: AcceleratorDesign) -> data.StructLayout:
    """Fields of the frame descriptor."""
    return data.StructLayout({name: 8 * size for name, _, size in design.descriptor_fields})


def is_misaligned(fields: data.View, address_bits: int, **units: int) -> Value:
    """Whether addresses of a frame descriptor are no multiples of what they must be, or too large.

    Parameters
    ----------
    fields : View
        Of :func:`descriptor_layout`. Address and pitch of the framebuffer are multiples of 16
        pixels, at most of 256 bytes.
    address_bits : int
        Of the bus.
    units : int
        Other fields by name, and the lowest bits of each that must be zero.
    """
    shift = fields.pixel_format[:2] + 6
    return reduce(or_, (
        *(fields[name][:bits].any() for name, bits in units.items()),
        *((fields[name] & ((1 << shift) - 1)[:8]).any()
          for name in ("frame_address", "pitch_bytes")),
        *(fields[name][address_bits:].any() for name in (*units, "frame_address"))))


class Shell(Component):
    """Start, describe, run, drain and finish a frame, for whatever units are within.

    A frame begins with the read of its descriptor, which goes before the first burst of the units.
    A bus error, an abort, a bad descriptor or an error of the units stops all requests, waits until
    the units are ``quiet``, and ends the frame with a
    :class:`splatforge.designs.shell.FrameError`; the first of a frame is the one reported.

    Latency: START to descriptor address 1 cycle; last beat of the descriptor to ``start`` 2 cycles.
    Throughput: a read burst, a beat and a write burst a cycle; streams go through without a
    register. Stall: any AXI channel may stall for ever.

    Parameters
    ----------
    design : AcceleratorDesign
        Descriptor, counters and bus.

    Members
    -------
    m_axi_*, s_axil_*, irq :
        The accelerator's ports.
    start : ``Out(1)``
        For one cycle: the descriptor is there and good.
    stop : ``Out(1)``
        Ask for nothing more.
    clear : ``Out(1)``
        For one cycle behind a frame: units start the next from reset.
    descriptor : ``Out(StructLayout)``
        Its fields; they hold until the frame ends.
    bad : ``In(4)``
        What is wrong with the descriptor besides version, size, pixel format and the length of a
        row, or 0.
    failed : ``In(4)``
        What went wrong in the units while they run, or 0.
    done : ``In(1)``
        The frame is written and answered.
    quiet : ``In(1)``
        The units have no address waiting and no burst in flight.
    counting : ``Out(1)``
        The frame's cycles are counted.
    event : ``In(ArrayLayout(18, counters))``
        What each counter grows by in this cycle.
    i_address : ``In(stream.Signature(Burst))``
        Read bursts of the units.
    o_beat : ``Out(stream.Signature(Beat))``
        All read beats; ``ready`` must be high for those that were asked for.
    i_write_address, i_write_data : ``In(stream.Signature(...))``
        Write bursts of the units and their beats.
    o_response : ``Out(1)``
        A write response arrives in this cycle.
    """

    i_address: stream.Interface
    o_beat: stream.Interface
    i_write_address: stream.Interface
    i_write_data: stream.Interface

    def __init__(self, design: AcceleratorDesign) -> None:
        self.design = design
        #: Its register file, for who wants to look into it.
        self.registers = Registers.for_design(design)
        shell = design.shell
        super().__init__(axi4_members(shell) | axi4_lite_members(shell) | {
            "irq": Out(1),
            "start": Out(1), "stop": Out(1), "clear": Out(1),
            "descriptor": Out(descriptor_layout(design)),
            "bad": In(4), "failed": In(4), "done": In(1), "quiet": In(1), "counting": Out(1),
            "event": In(data.ArrayLayout(EVENT_BITS, len(design.counters))),
            "i_address": In(stream.Signature(data.StructLayout({
                "id": 2, "address": shell.address_bits, "length": 8}))),
            "o_beat": Out(stream.Signature(data.StructLayout({
                "id": 2, "data": shell.data_bits, "last": 1}))),
            "i_write_address": In(stream.Signature(data.StructLayout({
                "address": shell.address_bits, "length": 8}))),
            "i_write_data": In(stream.Signature(data.StructLayout({
                "data": shell.data_bits, "strobe": shell.data_bytes, "last": 1}))),
            "o_response": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        shell = self.design.shell
        m.submodules.registers = registers = self.registers
        for name in axi4_lite_members(shell):
            inner, outer = getattr(registers, name), getattr(self, name)
            if self.signature.members[name].flow is In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        m.d.comb += self.irq.eq(registers.irq)

        # ---- The frame descriptor, field by field as it arrives.
        fields = self.descriptor
        beats = DESCRIPTOR_BYTES // shell.data_bytes
        word = Signal(range(beats + 1))
        arrived = Signal()
        m.d.comb += arrived.eq(self.m_axi_rvalid & (self.m_axi_rid == READ_DESCRIPTOR))
        with m.If(arrived):
            m.d.sync += word.eq(word + 1)
            with m.Switch(word):
                for beat in range(beats):
                    with m.Case(beat):
                        for name, offset, size in self.design.descriptor_fields:
                            if offset // shell.data_bytes == beat:
                                at = 8 * (offset % shell.data_bytes)
                                m.d.sync += fields[name].eq(
                                    self.m_axi_rdata[at:at + 8 * size])

        # ---- Frame control.
        error = Signal(4)
        failing = Signal()
        resetting = Signal()
        descriptor_address = Signal(shell.address_bits)
        ask = Signal()
        in_flight = Signal()
        running = Signal()
        busy = Signal()
        bad = Signal(4)
        side = shell.max_side
        with m.If(fields.version != DESCRIPTOR_VERSION):
            m.d.comb += bad.eq(FrameError.VERSION)
        with m.Elif(~fields.width.any() | (fields.width > side)
                    | ~fields.height.any() | (fields.height > side)):
            m.d.comb += bad.eq(FrameError.SIZE)
        with m.Elif(fields.pixel_format > max(PixelFormat)):
            m.d.comb += bad.eq(FrameError.FORMAT)
        with m.Elif(self.bad.any()):
            m.d.comb += bad.eq(self.bad)
        # A row of the frame must end before the next begins. Pixels are 4, 8 or 16 bytes.
        with m.Elif(fields.pitch_bytes < fields.width << (fields.pixel_format[:2] + 2)):
            m.d.comb += bad.eq(FrameError.SIZE)

        with m.FSM(name="frame") as frame:
            with m.State("idle"):
                m.d.sync += [error.eq(0), word.eq(0), resetting.eq(0)]
                # The driver may write the register while the burst waits for the bus.
                m.d.sync += descriptor_address.eq(registers.descriptor_address)
                with m.If(registers.start):
                    m.d.sync += busy.eq(1)
                    # A descriptor address that is not aligned must not reach the bus.
                    with m.If(registers.descriptor_address[:6].any()):
                        m.d.sync += error.eq(FrameError.ALIGNMENT)
                        m.next = "drain"
                    with m.Else():
                        m.d.sync += ask.eq(1)
                        m.next = "describe"
                with m.If(registers.reset):
                    m.d.comb += registers.clear.eq(1)
            with m.State("describe"):
                with m.If(failing):
                    m.next = "drain"
                with m.Elif(word == beats):
                    with m.If(bad.any()):
                        m.d.sync += error.eq(bad)
                        m.next = "drain"
                    with m.Else():
                        m.d.comb += self.start.eq(1)
                        m.next = "run"
            with m.State("run"):
                m.d.comb += running.eq(1)
                with m.If(failing | self.done):
                    m.next = "drain"
            with m.State("drain"):
                with m.If(self.quiet & ~ask & ~in_flight):
                    m.next = "finish"
            with m.State("finish"):
                m.d.comb += [
                    self.clear.eq(1), registers.finish.eq(~resetting),
                    registers.clear.eq(resetting),
                ]
                m.d.sync += busy.eq(0)
                m.next = "idle"
        m.d.comb += [
            registers.busy.eq(busy), registers.error.eq(error),
            self.stop.eq(frame.ongoing("drain")),
            self.counting.eq(frame.ongoing("describe") | (frame.ongoing("run") & ~self.done)),
        ]

        # The first error of a frame is the one reported; a soft reset reports none.
        with m.If(busy & ~error.any()):
            for condition, code in (
                (registers.abort, FrameError.ABORTED),
                (self.failed.any() & running, self.failed),
                (self.m_axi_bvalid & self.m_axi_bresp[1], FrameError.WRITE),
                (self.m_axi_rvalid & self.m_axi_rresp[1], FrameError.READ),
            ):
                with m.If(condition):
                    m.d.sync += error.eq(code)
        with m.If(busy & registers.reset):
            m.d.sync += resetting.eq(1)
        m.d.comb += failing.eq(error.any() | resetting)

        # ---- AXI4: the descriptor's burst goes before the units' first.
        with m.If(ask & self.m_axi_arready):
            m.d.sync += [ask.eq(0), in_flight.eq(1)]
        with m.If(arrived & self.m_axi_rlast):
            m.d.sync += in_flight.eq(0)
        size = size_code(shell)
        read, beat, written = self.i_address, self.o_beat, self.i_write_address
        m.d.comb += [
            self.m_axi_arid.eq(Mux(ask, READ_DESCRIPTOR, read.p.id)),
            self.m_axi_araddr.eq(Mux(ask, descriptor_address, read.p.address)),
            self.m_axi_arlen.eq(Mux(ask, beats - 1, read.p.length)),
            self.m_axi_arvalid.eq(ask | read.valid),
            read.ready.eq(self.m_axi_arready & ~ask),
            self.m_axi_arsize.eq(size), self.m_axi_arburst.eq(BURST_INCR),
            # Normal memory, non-cacheable, bufferable; unprivileged data.
            self.m_axi_arcache.eq(0b0011), self.m_axi_arprot.eq(0b000),
            self.m_axi_rready.eq(1),
            beat.valid.eq(self.m_axi_rvalid), beat.p.id.eq(self.m_axi_rid),
            beat.p.data.eq(self.m_axi_rdata), beat.p.last.eq(self.m_axi_rlast),
            self.m_axi_awid.eq(0), self.m_axi_awaddr.eq(written.p.address),
            self.m_axi_awlen.eq(written.p.length), self.m_axi_awvalid.eq(written.valid),
            written.ready.eq(self.m_axi_awready),
            self.m_axi_awsize.eq(size), self.m_axi_awburst.eq(BURST_INCR),
            self.m_axi_awcache.eq(0b0011), self.m_axi_awprot.eq(0b000),
            self.m_axi_wdata.eq(self.i_write_data.p.data),
            self.m_axi_wstrb.eq(self.i_write_data.p.strobe),
            self.m_axi_wlast.eq(self.i_write_data.p.last),
            self.m_axi_wvalid.eq(self.i_write_data.valid),
            self.i_write_data.ready.eq(self.m_axi_wready),
            self.m_axi_bready.eq(1),
            self.o_response.eq(self.m_axi_bvalid),
        ]

        # ---- Performance counters, from one START to the next.
        counter = Signal(data.ArrayLayout(shell.counter_bits, len(self.design.counters)))
        m.d.comb += registers.counter.eq(counter)
        for number in range(len(self.design.counters)):
            with m.If(registers.start | registers.clear):
                m.d.sync += counter[number].eq(0)
            with m.Elif(busy):
                m.d.sync += counter[number].eq(counter[number] + self.event[number])
        return m


class Accelerator(Component):
    """What the tops of all accelerators share: ports, shell, framebuffer, counters.

    Parameters
    ----------
    design : AcceleratorDesign
        All parameters.

    Members
    -------
    m_axi_*, s_axil_*, irq :
        The accelerator's ports.
    """

    def __init__(self, design: AcceleratorDesign) -> None:
        # Each top has it as `design`, of its own type.
        super().__init__(
            axi4_members(design.shell) | axi4_lite_members(design.shell) | {"irq": Out(1)})

    def _shell(self, m: Module) -> Shell:
        """The shell, with all ports of the accelerator."""
        m.submodules.shell = shell = Shell(self.design)
        for name, member in self.signature.members.items():
            inner, outer = getattr(shell, name), getattr(self, name)
            m.d.comb += inner.eq(outer) if member.flow is In else outer.eq(inner)
        return shell

    def _describe(self, m: Module, shell: Shell, *units: Component) -> None:
        """What the descriptor says of the framebuffer, to the units that it concerns."""
        fields = shell.descriptor
        for unit in units:
            members = unit.signature.members
            m.d.comb += [getattr(unit, name).eq(fields[name])
                         for name in ("width", "height", "frame_address", "pitch_bytes",
                                      "pixel_format") if name in members]
            if "background" in members:
                m.d.comb += [unit.background[c].eq(fields[f"background_{name}"])
                             for c, name in enumerate(("red", "green", "blue"))]

    def _count(
        self, m: Module, shell: Shell, resolve: Component, **events: ValueLike,
    ) -> None:
        """What grows each counter: what all accelerators count, and `events` by their names."""
        pixels = resolve.o_data.valid & resolve.o_data.ready
        strobes = Signal(range(self.design.shell.data_bytes + 1))
        m.d.comb += strobes.eq(
            sum(resolve.o_data.p.strobe[n] for n in range(self.design.shell.data_bytes)))
        events = {
            "cycles": shell.counting, "resolve_busy": pixels,
            "resolve_stalled": resolve.o_data.valid & ~resolve.o_data.ready,
            "descriptor_bytes":
                (self.m_axi_rvalid & (self.m_axi_rid == READ_DESCRIPTOR)) << 4,
            "pixel_bytes": Mux(pixels, strobes, 0), **events}
        m.d.comb += [shell.event[number].eq(events[name])
                     for number, (name, _, _) in enumerate(self.design.counters)]
