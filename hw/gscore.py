"""GSCore: AXI4 in front, Gaussians and a camera in, framebuffer out."""

from amaranth.hdl import *
from amaranth.lib import wiring

from splatforge.designs.feature import FEATURE_BYTES
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.gscore import WRITES_IN_FLIGHT, GscoreDesign
from splatforge.designs.shell import FrameError
from splatforge.hw.array import Array
from splatforge.hw.bsu import Bsu
from splatforge.hw.ccu import Ccu
from splatforge.hw.lib.arbiter import ReadArbiter, WriteArbiter
from splatforge.hw.lib.axi import (
    READ_CHUNKS,
    READ_DESCRIPTOR,
    READ_FEATURES,
    READ_GAUSSIANS,
    READ_LISTS,
)
from splatforge.hw.lib.shell import Accelerator, is_misaligned
from splatforge.hw.lib.store import RecordStore
from splatforge.hw.lists import Lists
from splatforge.hw.qsu import Qsu
from splatforge.hw.resolve import Resolve
from splatforge.hw.vru import Vru

__all__ = ["Gscore"]


class Gscore(Accelerator):
    """Render a packed scene: project all Gaussians and list them, then sort and blend the tiles.

    Bit-true model: :func:`splatforge.algos.gscore.render`. Cycle model:
    :mod:`splatforge.sim.gscore`.

    Pass 1: :class:`splatforge.hw.ccu.Ccu` reads the camera and Gaussian after Gaussian; what it
    sees goes to memory as feature records, and tile after tile into the lists of
    :class:`splatforge.hw.lists.Lists`. When all of that is written and answered, pass 2:
    :class:`splatforge.hw.qsu.Qsu` partitions the lists of long tiles,
    :class:`splatforge.hw.bsu.Bsu` sorts chunks, :class:`splatforge.hw.vru.Vru` fetches features,
    and the rendering array blends.

    Latency and throughput are those of :mod:`splatforge.sim.gscore`; a frame's start costs the
    descriptor's read and :attr:`latency` cycles around it. Stall: any AXI channel may stall for
    ever. A bus error, an abort, a bad descriptor or a workspace that is too small stops all
    requests, waits for what is in flight, and ends the frame with a
    :class:`splatforge.designs.shell.FrameError`.

    Parameters
    ----------
    design : GscoreDesign
        All parameters.

    Members
    -------
    m_axi_* :
        AXI4 manager, 128 data bits, 40 address bits, INCR bursts within 4 KiB. Read IDs: 0
        descriptor; 1 camera and Gaussians, in pass 2 lists that are partitioned; 2 chunks;
        3 features. Write ID 0.
    s_axil_* :
        AXI4-Lite subordinate; ``splatforge verilog`` writes its register map.
    irq : ``Out(1)``
        High while an enabled interrupt is pending.
    """

    #: Cycles that a frame's start costs besides the memory's latency: START to descriptor address,
    #: and last descriptor beat to the camera's address.
    latency = 5

    def __init__(self, design: GscoreDesign = GscoreDesign()) -> None:  # noqa: B008
        self.design = design
        super().__init__(design)

    def elaborate(self, platform):
        m = Module()
        design = self.design
        shell = self._shell(m)

        # Everything behind the registers starts every frame from reset.
        renewed = ResetInserter(shell.clear)
        m.submodules.ccu = ccu = renewed(Ccu(design.ccu, design.shell))
        m.submodules.store = store = renewed(
            RecordStore(FEATURE_BYTES, design.outstanding_records, design.shell))
        m.submodules.lists = lists = renewed(Lists(design.lists, design.shell))
        m.submodules.qsu = qsu = renewed(Qsu(design.qsu, design.lists, design.shell))
        m.submodules.bsu = bsu = renewed(Bsu(design.bsu, design.lists, design.shell))
        m.submodules.vru = vru = renewed(Vru(design.vru, design.shell))
        m.submodules.array = array = renewed(Array(design.array, design.splat))
        m.submodules.resolve = resolve = renewed(
            Resolve(design.array.blend, design.resolve, design.shell))
        m.submodules.reads = reads = renewed(ReadArbiter(3, design.shell))
        m.submodules.writes = writes = renewed(
            WriteArbiter(3, design.shell, WRITES_IN_FLIGHT))

        # ---- The bus. What is nearer to the framebuffer goes first.
        second = Signal()
        wiring.connect(m, vru.o_address, reads.i_0)
        wiring.connect(m, bsu.o_address, reads.i_1)
        m.d.comb += [
            reads.i_2.valid.eq(Mux(second, qsu.o_address.valid, ccu.o_address.valid)),
            reads.i_2.payload.eq(Mux(
                second, qsu.o_address.payload.as_value(), ccu.o_address.payload.as_value())),
            ccu.o_address.ready.eq(~second & reads.i_2.ready),
            qsu.o_address.ready.eq(second & reads.i_2.ready),
        ]
        wiring.connect(m, reads.o, shell.i_address)
        beat = shell.o_beat
        m.d.comb += beat.ready.eq(1)
        for unit, here in ((ccu, ~second), (qsu, second), (bsu, 1), (vru, 1)):
            m.d.comb += [
                unit.i_beat.payload.eq(beat.payload), unit.i_beat.valid.eq(beat.valid & here)]
        for port, unit in enumerate((resolve, lists, store)):
            wiring.connect(m, unit.o_address, getattr(writes, f"i_address_{port}"))
            wiring.connect(m, unit.o_data, getattr(writes, f"i_data_{port}"))
            m.d.comb += unit.i_response.eq(getattr(writes, f"o_response_{port}"))
        wiring.connect(m, writes.o_address, shell.i_write_address)
        wiring.connect(m, writes.o_data, shell.i_write_data)
        m.d.comb += writes.i_response.eq(shell.o_response)

        # ---- From unit to unit.
        wiring.connect(m, ccu.o_feature, store.i)
        wiring.connect(m, qsu.o_tile, vru.i_tile)
        wiring.connect(m, qsu.o_chunk, bsu.i_chunk)
        wiring.connect(m, bsu.o_entry, vru.i_entry)
        wiring.connect(m, qsu.o_query, lists.i_query)
        wiring.connect(m, lists.o_answer, qsu.i_answer)
        wiring.connect(m, vru.o_tile, array.i_tile)
        wiring.connect(m, vru.o_splat, array.i_splat)
        wiring.connect(m, array.o_tile, resolve.i_tile)
        wiring.connect(m, array.o, resolve.i)
        # Pass 1 lists what the Gaussians meet, pass 2 what is partitioned.
        entry = lists.i_entry
        m.d.comb += [
            entry.valid.eq(Mux(second, qsu.o_entry.valid, ccu.o_entry.valid)),
            entry.p.list.eq(Mux(second, qsu.o_entry.p.list, ccu.o_entry.p.tile)),
            entry.p.entry.eq(Mux(second, qsu.o_entry.p.entry, ccu.o_entry.p.entry)),
            ccu.o_entry.ready.eq(~second & entry.ready), qsu.o_entry.ready.eq(second & entry.ready),
        ]
        fields = shell.descriptor
        for unit in (ccu, store, lists, qsu, bsu, vru, resolve):
            m.d.comb += unit.stop.eq(shell.stop)
        for unit in (ccu, store, lists, vru, resolve):
            m.d.comb += unit.start.eq(shell.start)
        for unit in (lists, qsu, bsu):
            m.d.comb += unit.base_address.eq(fields.workspace_address)
        page_bits = design.lists.page_bytes.bit_length() - 1
        feature_bits = FEATURE_BYTES.bit_length() - 1
        feature_pages = Signal(32)
        m.d.comb += [
            ccu.gaussians.eq(fields.gaussians), ccu.sh_degree.eq(fields.sh_degree),
            ccu.camera_address.eq(fields.camera_address),
            ccu.scene_address.eq(fields.scene_address),
            store.address.eq(fields.workspace_address),
            vru.feature_address.eq(fields.workspace_address),
            feature_pages.eq(
                (fields.gaussians + (1 << page_bits - feature_bits) - 1)
                >> (page_bits - feature_bits)),
            lists.first_page.eq(feature_pages), lists.limit.eq(fields.workspace_pages),
            qsu.behind.eq(bsu.behind | vru.behind), qsu.oldest.eq(vru.oldest),
            bsu.oldest.eq(vru.oldest), vru.skip.eq(array.skip),
            qsu.i_loaded.eq(bsu.loaded), qsu.i_lists_idle.eq(lists.idle),
        ]
        self._describe(m, shell, ccu, qsu, vru, resolve)

        # ---- From pass to pass.
        columns, rows = Signal(12), Signal(12)
        tiles = Signal(24)
        ranges = Signal()
        flushes = Signal()
        span = lists.i_range
        passes = Module()
        with passes.FSM(name="at") as at:
            with passes.State("wait"):
                with passes.If(shell.start):
                    passes.next = "clear"
            with passes.State("clear"):
                with passes.If(span.ready):
                    passes.next = "project"
            with passes.State("project"):
                with passes.If(ccu.done):
                    passes.next = "flush"
            with passes.State("flush"):
                with passes.If(span.ready):
                    passes.next = "settle"
            with passes.State("settle"):
                with passes.If(lists.idle & store.idle):
                    passes.next = "turn"
            with passes.State("turn"):
                passes.next = "render"
            with passes.State("render"):
                pass
        passes.d.comb += [
            flushes.eq(at.ongoing("flush")), ranges.eq(at.ongoing("clear") | flushes),
            lists.mark.eq(at.ongoing("turn")), qsu.start.eq(at.ongoing("turn")),
            second.eq(at.ongoing("render")),
        ]
        m.submodules.passes = renewed(passes)
        m.d.comb += [
            columns.eq((fields.width + TILE_PX - 1) >> 4),
            rows.eq((fields.height + TILE_PX - 1) >> 4), tiles.eq(columns * rows),
            span.valid.eq(Mux(second, qsu.o_range.valid, ranges)),
            span.p.first.eq(Mux(second, qsu.o_range.p.first, 0)),
            span.p.count.eq(Mux(second, qsu.o_range.p.count, tiles)),
            span.p.flush.eq(Mux(second, qsu.o_range.p.flush, flushes)),
            qsu.o_range.ready.eq(second & span.ready),
            lists.release.eq(qsu.release),
        ]

        # ---- What may be wrong.
        features = 1 << design.ccu.entry.feature_bits
        bad = Signal(4)
        with m.If(tiles > design.lists.tiles):
            m.d.comb += bad.eq(FrameError.SIZE)
        with m.Elif(fields.sh_degree > 3):
            m.d.comb += bad.eq(FrameError.FORMAT)
        with m.Elif(is_misaligned(
                fields, design.shell.address_bits, scene_address=8, camera_address=8,
                workspace_address=page_bits)):
            m.d.comb += bad.eq(FrameError.ALIGNMENT)
        with m.Elif((feature_pages > fields.workspace_pages) | (fields.gaussians > features)):
            m.d.comb += bad.eq(FrameError.WORKSPACE)
        m.d.comb += [
            shell.bad.eq(bad),
            shell.failed.eq(Mux(lists.overflow, FrameError.WORKSPACE, FrameError.NONE)),
            shell.done.eq(resolve.done),
            shell.quiet.eq(
                ccu.idle & store.idle & lists.idle & qsu.idle & bsu.idle & vru.idle
                & resolve.idle),
        ]

        # ---- What is counted.
        here = self.m_axi_rvalid
        of_first = here & (self.m_axi_rid == READ_GAUSSIANS) & ~second
        self._count(
            m, shell, resolve, projecting=shell.counting & ~second,
            ccu_busy=ccu.busy, ccu_stalled=ccu.stalled,
            lists_busy=lists.busy, lists_stalled=lists.stalled,
            qsu_busy=qsu.busy, qsu_stalled=qsu.stalled, bsu_busy=bsu.busy,
            array_busy=array.busy, array_starved=array.starved,
            array_skipped=array.skipped, array_blocked=array.blocked,
            read_stalled=self.m_axi_arvalid & ~self.m_axi_arready,
            descriptor_bytes=(
                (here & (self.m_axi_rid == READ_DESCRIPTOR)) | (of_first & ~ccu.busy)) << 4,
            gaussian_bytes=ccu.busy << 4,
            partition_bytes=(here & (self.m_axi_rid == READ_LISTS) & second) << 4,
            chunk_bytes=(here & (self.m_axi_rid == READ_CHUNKS)) << 4,
            feature_bytes=(here & (self.m_axi_rid == READ_FEATURES)) << 4,
            feature_written_bytes=(store.o_data.valid & store.o_data.ready) << 4,
            list_written_bytes=lists.tile_bytes, bucket_written_bytes=lists.slot_bytes,
            gaussians=ccu.projected, visible=ccu.visible, pairs=ccu.pair,
            partitions=qsu.partitioned,
            chunks_sorted=bsu.sorted, entries_sorted=bsu.entries,
            feature_hits=vru.hit, feature_misses=vru.miss,
            tiles=array.o_tile.valid & array.o_tile.ready, tiles_stopped=array.stopped)
        return m
