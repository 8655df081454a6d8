"""The register head and counters of an accelerator behind AXI4-Lite."""

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from splatforge.designs.shell import (
    CONTROL_ABORT,
    CONTROL_RESET,
    CONTROL_SNAPSHOT,
    CONTROL_START,
    COUNTER_BASE,
    DESCRIPTOR_VERSION,
    HEAD_REGISTERS,
    IDENTITY,
    AcceleratorDesign,
    ShellDesign,
)
from splatforge.hw.lib.axi import OKAY, SLVERR, axi4_lite_members
from splatforge.hw.lib.component import Component

__all__ = ["Registers"]


class Registers(Component):
    """The register map that all accelerators share, and their performance counters.

    Bit-true model: :class:`splatforge.algos.registers.RegisterFile`. Cycle model:
    :mod:`splatforge.sim.registers`.

    Latency: an access is answered :attr:`latency` cycles after it is accepted; address and data of
    a write are accepted together. Throughput: one read and one write every two cycles. Stall: a
    stalled answer stalls the next access. No output depends on an input combinationally. An access
    outside of the map, or a write to a read-only register, is answered with SLVERR and changes
    nothing; byte strobes are obeyed.

    Parameters
    ----------
    shell : ShellDesign
        Widths.
    number : int
        Design number in the VERSION register.
    lanes : int
        Content of the LANES register.
    counters : int
        Number of performance counters.

    Members
    -------
    s_axil_* :
        AXI4-Lite subordinate, 32 data bits.
    irq : ``Out(1)``
        High while an enabled interrupt is pending.
    start, abort, reset : ``Out(1)``
        For one cycle, when the driver asks for it; ``start`` only alone and while not ``busy``.
    descriptor_address : ``Out(address_bits)``
        Of the frame descriptor.
    busy : ``In(1)``
        A frame is running.
    finish : ``In(1)``, error : ``In(4)``
        A frame ends in this cycle, with this :class:`splatforge.designs.shell.FrameError`.
    clear : ``In(1)``
        Clears status, interrupts and the counters' copy: the end of a soft reset.
    counter : ``In(ArrayLayout(counter_bits, counters))``
        Running counters.
    """

    #: Cycles from the transfer of a request to the first cycle in which its answer can transfer.
    latency = 1

    def __init__(self, shell: ShellDesign, *, number: int, lanes: int, counters: int) -> None:
        if COUNTER_BASE + 8 * counters > 1 << shell.register_address_bits:
            raise ValueError(
                f"Register space must hold {counters} counters, "
                f"not {shell.register_address_bits} address bits")
        self.shell, self.number, self.lanes, self.counters = shell, number, lanes, counters
        super().__init__(axi4_lite_members(shell) | {
            "irq": Out(1), "start": Out(1), "abort": Out(1), "reset": Out(1),
            "descriptor_address": Out(shell.address_bits),
            "busy": In(1), "finish": In(1), "error": In(4), "clear": In(1),
            "counter": In(data.ArrayLayout(shell.counter_bits, counters)),
        })

    @classmethod
    def for_design(cls, design: AcceleratorDesign) -> "Registers":
        """Registers of an accelerator."""
        return cls(design.shell, number=design.number, lanes=design.array.lanes,
                   counters=len(design.counters))

    def elaborate(self, platform):
        m = Module()
        offset = {register.name: register.offset for register in HEAD_REGISTERS}
        done, failed, error = Signal(), Signal(), Signal(4)
        irq_status, irq_enable = Signal(2), Signal(2)
        address = Signal(64)
        snapshot = Signal.like(self.counter)
        take_snapshot = Signal()
        m.d.comb += [
            self.irq.eq((irq_status & irq_enable).any()),
            self.descriptor_address.eq(address),
        ]

        # Writes: once address and data are both there, they are taken together, from a register:
        # AXI allows no combinational path from an input to an output.
        write, word, strobe = Signal(), Signal(len(self.s_axil_awaddr) - 2), Signal(32)
        write_ready = Signal()
        both = self.s_axil_awvalid & self.s_axil_wvalid
        m.d.sync += write_ready.eq(
            both & ~write_ready & (~self.s_axil_bvalid | self.s_axil_bready))
        m.d.comb += [
            write.eq(write_ready),
            self.s_axil_awready.eq(write_ready), self.s_axil_wready.eq(write_ready),
            word.eq(self.s_axil_awaddr >> 2),
            strobe.eq(Cat(self.s_axil_wstrb[n].replicate(8) for n in range(4))),
        ]
        value = self.s_axil_wdata & strobe
        # What has been offered stays until it is taken: so commands, which many registers far away
        # wait for, are decoded in the cycle before.
        start, abort, reset, snapshot_asked = (Signal(name=f"asked_{name}") for name in (
            "start", "abort", "reset", "snapshot"))
        asked = {flag: value[flag.bit_length() - 1] & (word == offset["CONTROL"] >> 2) for flag in (
            CONTROL_START, CONTROL_ABORT, CONTROL_RESET, CONTROL_SNAPSHOT)}
        m.d.sync += [
            start.eq(asked[CONTROL_START] & ~asked[CONTROL_ABORT] & ~asked[CONTROL_RESET]),
            abort.eq(asked[CONTROL_ABORT]), reset.eq(asked[CONTROL_RESET]),
            snapshot_asked.eq(asked[CONTROL_SNAPSHOT]),
        ]
        m.d.comb += [
            self.start.eq(write & start & ~self.busy),
            self.abort.eq(write & abort), self.reset.eq(write & reset),
            take_snapshot.eq(write & snapshot_asked),
        ]
        with m.If(self.s_axil_bready):
            m.d.sync += self.s_axil_bvalid.eq(0)
        with m.If(write):
            m.d.sync += [self.s_axil_bvalid.eq(1), self.s_axil_bresp.eq(OKAY)]
            with m.Switch(word):
                with m.Case(offset["CONTROL"] >> 2):
                    pass  # see `asked`
                with m.Case(offset["IRQ_STATUS"] >> 2):
                    m.d.sync += irq_status.eq(irq_status & ~value[:2])
                with m.Case(offset["IRQ_ENABLE"] >> 2):
                    m.d.sync += irq_enable.eq((irq_enable & ~strobe[:2]) | value[:2])
                with m.Case(offset["DESCRIPTOR_LOW"] >> 2):
                    m.d.sync += address[:32].eq((address[:32] & ~strobe) | value)
                with m.Case(offset["DESCRIPTOR_HIGH"] >> 2):
                    m.d.sync += address[32:].eq((address[32:] & ~strobe) | value)
                with m.Default():
                    m.d.sync += self.s_axil_bresp.eq(SLVERR)

        # Reads.
        read, read_word = Signal(), Signal.like(word)
        m.d.comb += [
            self.s_axil_arready.eq(~self.s_axil_rvalid),
            read.eq(self.s_axil_arvalid & self.s_axil_arready),
            read_word.eq(self.s_axil_araddr >> 2),
        ]
        contents = {
            "IDENTITY": IDENTITY, "VERSION": self.number << 16 | DESCRIPTOR_VERSION,
            "CONTROL": 0, "STATUS": Cat(self.busy, done, failed), "ERROR": error,
            "IRQ_STATUS": irq_status, "IRQ_ENABLE": irq_enable, "DESCRIPTOR_LOW": address[:32],
            "DESCRIPTOR_HIGH": address[32:self.shell.address_bits], "LANES": self.lanes,
            "COUNTERS": self.counters,
        }
        with m.If(self.s_axil_rready):
            m.d.sync += self.s_axil_rvalid.eq(0)
        # Low and high words of the counters in turns, of as many as the address can tell apart.
        bits = (self.counters - 1).bit_length() + 1
        words = Signal(data.ArrayLayout(32, 1 << bits))
        for number in range(self.counters):
            m.d.comb += Cat(words[2 * number], words[2 * number + 1]).eq(snapshot[number])
        place, counted, in_counters = Signal.like(word), Signal(32), Signal()
        m.d.comb += [
            place.eq(read_word - (COUNTER_BASE >> 2)), counted.eq(words[place[:bits]]),
            in_counters.eq(place < 2 * self.counters),
        ]
        with m.If(read):
            m.d.sync += [self.s_axil_rvalid.eq(1), self.s_axil_rresp.eq(OKAY)]
            with m.Switch(read_word):
                for name, content in contents.items():
                    with m.Case(offset[name] >> 2):
                        m.d.sync += self.s_axil_rdata.eq(content)
                with m.Default():
                    m.d.sync += [
                        self.s_axil_rdata.eq(Mux(in_counters, counted, 0)),
                        self.s_axil_rresp.eq(Mux(in_counters, OKAY, SLVERR)),
                    ]

        with m.If(self.start):
            m.d.sync += [done.eq(0), failed.eq(0), error.eq(0)]
        with m.If(self.finish):
            m.d.sync += [
                done.eq(1), failed.eq(self.error.any()), error.eq(self.error),
                irq_status[0].eq(1),
            ]
            with m.If(self.error.any()):
                m.d.sync += irq_status[1].eq(1)
        with m.If(take_snapshot | self.finish):
            m.d.sync += snapshot.eq(self.counter)
        with m.If(self.clear):
            m.d.sync += [done.eq(0), failed.eq(0), error.eq(0), irq_status.eq(0), snapshot.eq(0)]
        return m
