"""The raster core: AXI4 in front, tile lists in, framebuffer out."""

from amaranth.hdl import *
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from splatforge.designs.raster import COUNTERS, DESCRIPTOR_FIELDS, RasterDesign
from splatforge.designs.resolve import PixelFormat
from splatforge.designs.shell import (
    DESCRIPTOR_BYTES,
    DESCRIPTOR_VERSION,
    FrameError,
)
from splatforge.hw.array import Array
from splatforge.hw.fetch import Fetch
from splatforge.hw.lib.axi import (
    BURST_INCR,
    READ_DESCRIPTOR,
    READ_SPLATS,
    READ_TABLE,
    axi4_lite_members,
    axi4_members,
    size_code,
)
from splatforge.hw.lib.component import Component
from splatforge.hw.registers import Registers
from splatforge.hw.resolve import Resolve

__all__ = ["Raster"]


class Raster(Component):
    """Render a packed frame: read the descriptor, blend every tile, write the framebuffer.

    Bit-true model: :func:`splatforge.algos.raster.render`. Cycle model:
    :mod:`splatforge.sim.raster`.

    Latency and throughput are those of :mod:`splatforge.sim.raster`; a frame's start costs the
    descriptor's read and :attr:`latency` cycles around it. Stall: any AXI channel may stall for
    ever. A bus error, an abort, a bad descriptor or an overlong list stops all requests, waits for
    what is in flight, and ends the frame with a :class:`splatforge.designs.shell.FrameError`.

    Parameters
    ----------
    design : RasterDesign
        All parameters.

    Members
    -------
    m_axi_* :
        AXI4 manager, 128 data bits, 40 address bits, INCR bursts within 4 KiB. Read IDs: 0
        descriptor, 1 tile table, 2 splats. Write ID 0.
    s_axil_* :
        AXI4-Lite subordinate; ``splatforge verilog`` writes its register map.
    irq : ``Out(1)``
        High while an enabled interrupt is pending.
    """

    #: Cycles that a frame's start costs besides the memory's latency: START to descriptor address,
    #: and last descriptor beat to the first address of the tile table.
    latency = 4

    def __init__(self, design: RasterDesign = RasterDesign()) -> None:  # noqa: B008
        self.design = design
        super().__init__(
            axi4_members(design.shell) | axi4_lite_members(design.shell) | {"irq": Out(1)})

    def elaborate(self, platform):
        m = Module()
        design, shell = self.design, self.design.shell
        m.submodules.registers = registers = Registers.for_design(design)
        for name in axi4_lite_members(shell):
            inner, outer = getattr(registers, name), getattr(self, name)
            if self.signature.members[name].flow is In:
                m.d.comb += inner.eq(outer)
            else:
                m.d.comb += outer.eq(inner)
        m.d.comb += self.irq.eq(registers.irq)

        # Everything behind the registers starts every frame from reset.
        clear = Signal()
        m.submodules.fetch = fetch = ResetInserter(clear)(Fetch(design.fetch, shell))
        m.submodules.array = array = ResetInserter(clear)(Array(design.array, design.fetch.splat))
        m.submodules.resolve = resolve = ResetInserter(clear)(
            Resolve(design.array.blend, design.resolve, shell))

        wiring.connect(m, fetch.o_tile, array.i_tile)
        wiring.connect(m, fetch.o_splat, array.i_splat)
        wiring.connect(m, array.o_tile, resolve.i_tile)
        wiring.connect(m, array.o, resolve.i)
        m.d.comb += fetch.skip.eq(array.skip)

        # ---- The frame descriptor, field by field as it arrives.
        fields = {name: Signal(8 * size, name=name) for name, _, size in DESCRIPTOR_FIELDS}
        word = Signal(range(DESCRIPTOR_BYTES // shell.data_bytes + 1))
        arrived = Signal()
        m.d.comb += arrived.eq(self.m_axi_rvalid & (self.m_axi_rid == READ_DESCRIPTOR))
        with m.If(arrived):
            m.d.sync += word.eq(word + 1)
            with m.Switch(word):
                for beat in range(DESCRIPTOR_BYTES // shell.data_bytes):
                    with m.Case(beat):
                        for name, offset, size in DESCRIPTOR_FIELDS:
                            if offset // shell.data_bytes == beat:
                                at = 8 * (offset % shell.data_bytes)
                                m.d.sync += fields[name].eq(
                                    self.m_axi_rdata[at:at + 8 * size])

        for unit in (fetch, resolve):
            m.d.comb += [unit.width.eq(fields["width"]), unit.height.eq(fields["height"])]
        m.d.comb += [
            fetch.table_address.eq(fields["table_address"]),
            fetch.splat_address.eq(fields["splat_address"]),
            fetch.splats.eq(fields["splats"]),
            resolve.frame_address.eq(fields["frame_address"]),
            resolve.pitch_bytes.eq(fields["pitch_bytes"]),
            resolve.pixel_format.eq(fields["pixel_format"]),
        ]
        m.d.comb += [resolve.background[c].eq(fields[f"background_{name}"])
                     for c, name in enumerate(("red", "green", "blue"))]

        # ---- Frame control.
        error = Signal(4)
        failing = Signal()
        resetting = Signal()
        start_units = Signal()
        descriptor_address = Signal(shell.address_bits)
        ask = Signal()
        descriptor_in_flight = Signal()
        running = Signal()
        bad = Signal(4)
        shift = fields["pixel_format"][:2] + 6
        misaligned = Signal()
        m.d.comb += misaligned.eq(
            fields["table_address"][:8].any() | fields["splat_address"][:8].any()
            | (fields["frame_address"] & ((1 << shift) - 1)[:8]).any()
            | (fields["pitch_bytes"] & ((1 << shift) - 1)[:8]).any()
            | fields["table_address"][shell.address_bits:].any()
            | fields["splat_address"][shell.address_bits:].any()
            | fields["frame_address"][shell.address_bits:].any()
            | descriptor_address[:6].any())
        side = shell.max_side
        with m.If(fields["version"] != DESCRIPTOR_VERSION):
            m.d.comb += bad.eq(FrameError.VERSION)
        with m.Elif(~fields["width"].any() | (fields["width"] > side)
                    | ~fields["height"].any() | (fields["height"] > side)):
            m.d.comb += bad.eq(FrameError.SIZE)
        with m.Elif(fields["pixel_format"] > max(PixelFormat)):
            m.d.comb += bad.eq(FrameError.FORMAT)
        with m.Elif(misaligned):
            m.d.comb += bad.eq(FrameError.ALIGNMENT)

        quiet = fetch.idle & resolve.idle & ~ask & ~descriptor_in_flight
        with m.FSM(name="frame") as frame:
            with m.State("idle"):
                m.d.sync += [error.eq(0), word.eq(0), resetting.eq(0)]
                # The driver may write the register while the burst waits for the bus.
                m.d.sync += descriptor_address.eq(registers.descriptor_address)
                with m.If(registers.start):
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
                with m.Elif(word == DESCRIPTOR_BYTES // shell.data_bytes):
                    with m.If(bad.any()):
                        m.d.sync += error.eq(bad)
                        m.next = "drain"
                    with m.Else():
                        m.d.comb += start_units.eq(1)
                        m.next = "run"
            with m.State("run"):
                m.d.comb += running.eq(1)
                with m.If(failing):
                    m.next = "drain"
                with m.Elif(resolve.done):
                    m.next = "drain"
            with m.State("drain"):
                with m.If(quiet):
                    m.next = "finish"
            with m.State("finish"):
                m.d.comb += [
                    clear.eq(1), registers.finish.eq(~resetting), registers.clear.eq(resetting),
                ]
                m.next = "idle"
        m.d.comb += [
            registers.busy.eq(~frame.ongoing("idle")),
            registers.error.eq(error),
            fetch.start.eq(start_units), resolve.start.eq(start_units),
            fetch.stop.eq(frame.ongoing("drain")), resolve.stop.eq(frame.ongoing("drain")),
        ]
        busy = ~frame.ongoing("idle")

        # The first error of a frame is the one reported; a soft reset reports none.
        read_error = Signal()
        write_error = Signal()
        m.d.comb += [
            read_error.eq(self.m_axi_rvalid & self.m_axi_rresp[1]),
            write_error.eq(self.m_axi_bvalid & self.m_axi_bresp[1]),
        ]
        with m.If(busy & ~error.any()):
            for condition, code in (
                (registers.abort, FrameError.ABORTED), (fetch.overlong & running, FrameError.LIST),
                (write_error, FrameError.WRITE), (read_error, FrameError.READ),
            ):
                with m.If(condition):
                    m.d.sync += error.eq(code)
        with m.If(busy & registers.reset):
            m.d.sync += resetting.eq(1)
        m.d.comb += failing.eq(error.any() | resetting)

        # ---- AXI4: the descriptor's burst goes before the fetch unit's first.
        with m.If(ask & self.m_axi_arready):
            m.d.sync += [ask.eq(0), descriptor_in_flight.eq(1)]
        with m.If(arrived & self.m_axi_rlast):
            m.d.sync += descriptor_in_flight.eq(0)
        size = size_code(shell)
        m.d.comb += [
            self.m_axi_arid.eq(Mux(ask, READ_DESCRIPTOR, fetch.o_address.p.id)),
            self.m_axi_araddr.eq(Mux(
                ask, descriptor_address, fetch.o_address.p.address)),
            self.m_axi_arlen.eq(Mux(
                ask, DESCRIPTOR_BYTES // shell.data_bytes - 1, fetch.o_address.p.length)),
            self.m_axi_arvalid.eq(ask | fetch.o_address.valid),
            fetch.o_address.ready.eq(self.m_axi_arready & ~ask),
            self.m_axi_arsize.eq(size), self.m_axi_arburst.eq(BURST_INCR),
            # Normal memory, non-cacheable, bufferable; unprivileged data.
            self.m_axi_arcache.eq(0b0011), self.m_axi_arprot.eq(0b000),
            self.m_axi_rready.eq(1),
            fetch.i_beat.valid.eq(self.m_axi_rvalid),
            fetch.i_beat.p.id.eq(self.m_axi_rid), fetch.i_beat.p.data.eq(self.m_axi_rdata),
            fetch.i_beat.p.last.eq(self.m_axi_rlast),
            self.m_axi_awid.eq(0), self.m_axi_awaddr.eq(resolve.o_address.p.address),
            self.m_axi_awlen.eq(resolve.o_address.p.length),
            self.m_axi_awvalid.eq(resolve.o_address.valid),
            resolve.o_address.ready.eq(self.m_axi_awready),
            self.m_axi_awsize.eq(size), self.m_axi_awburst.eq(BURST_INCR),
            self.m_axi_awcache.eq(0b0011), self.m_axi_awprot.eq(0b000),
            self.m_axi_wdata.eq(resolve.o_data.p.data),
            self.m_axi_wstrb.eq(resolve.o_data.p.strobe),
            self.m_axi_wlast.eq(resolve.o_data.p.last),
            self.m_axi_wvalid.eq(resolve.o_data.valid),
            resolve.o_data.ready.eq(self.m_axi_wready),
            self.m_axi_bready.eq(1),
            resolve.i_response.eq(self.m_axi_bvalid),
        ]

        # ---- Performance counters, from one START to the next.
        beat = self.m_axi_rvalid
        written = self.m_axi_wvalid & self.m_axi_wready
        strobes = Signal(range(shell.data_bytes + 1))
        m.d.comb += strobes.eq(sum(self.m_axi_wstrb[n] for n in range(shell.data_bytes)))
        events = {
            "cycles": (frame.ongoing("describe")
                       | (frame.ongoing("run") & ~resolve.done)),
            "array_busy": array.busy, "array_starved": array.starved,
            "array_skipped": array.skipped, "array_blocked": array.blocked,
            "fetch_busy": beat & (self.m_axi_rid == READ_SPLATS),
            "fetch_stalled": self.m_axi_arvalid & ~self.m_axi_arready,
            "resolve_busy": written,
            "resolve_stalled": self.m_axi_wvalid & ~self.m_axi_wready,
            "descriptor_bytes": (beat & (self.m_axi_rid == READ_DESCRIPTOR)) << 4,
            "table_bytes": (beat & (self.m_axi_rid == READ_TABLE)) << 4,
            "splat_bytes": (beat & (self.m_axi_rid == READ_SPLATS)) << 4,
            "overfetch_bytes": fetch.dropped << 4,
            "pixel_bytes": Mux(written, strobes, 0),
            "tiles": array.o_tile.valid & array.o_tile.ready,
            "tiles_stopped": array.stopped,
        }
        counter = Signal(data.ArrayLayout(shell.counter_bits, len(COUNTERS)))
        m.d.comb += registers.counter.eq(counter)
        for number, (name, _, _) in enumerate(COUNTERS):
            with m.If(registers.start | registers.clear):
                m.d.sync += counter[number].eq(0)
            with m.Elif(busy):
                m.d.sync += counter[number].eq(counter[number] + events[name])
        return m
