"""The raster core: AXI4 in front, tile lists in, framebuffer out."""

from amaranth.hdl import *
from amaranth.lib import wiring

from splatforge.designs.raster import RasterDesign
from splatforge.designs.shell import FrameError
from splatforge.hw.array import Array
from splatforge.hw.fetch import Fetch
from splatforge.hw.lib.axi import (
    READ_SPLATS,
    READ_TABLE,
)
from splatforge.hw.lib.shell import Accelerator, is_misaligned
from splatforge.hw.resolve import Resolve

__all__ = ["Raster"]


class Raster(Accelerator):
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
    latency = 6

    def __init__(self, design: RasterDesign = RasterDesign()) -> None:  # noqa: B008
        self.design = design
        super().__init__(design)

    def elaborate(self, platform):
        m = Module()
        design = self.design
        shell = self._shell(m)

        # Everything behind the registers starts every frame from reset.
        renewed = ResetInserter(shell.clear)
        m.submodules.fetch = fetch = renewed(Fetch(design.fetch, design.shell))
        m.submodules.array = array = renewed(Array(design.array, design.splat))
        m.submodules.resolve = resolve = renewed(
            Resolve(design.array.blend, design.resolve, design.shell))

        wiring.connect(m, fetch.o_tile, array.i_tile)
        wiring.connect(m, fetch.o_splat, array.i_splat)
        wiring.connect(m, array.o_tile, resolve.i_tile)
        wiring.connect(m, array.o, resolve.i)
        wiring.connect(m, fetch.o_address, shell.i_address)
        wiring.connect(m, shell.o_beat, fetch.i_beat)
        wiring.connect(m, resolve.o_address, shell.i_write_address)
        wiring.connect(m, resolve.o_data, shell.i_write_data)
        fields = shell.descriptor
        for unit in (fetch, resolve):
            m.d.comb += [
                unit.start.eq(shell.start), unit.stop.eq(shell.stop)]
        m.d.comb += [
            fetch.skip.eq(array.skip),
            fetch.table_address.eq(fields.table_address),
            fetch.splat_address.eq(fields.splat_address),
            fetch.splats.eq(fields.splats),
            resolve.i_response.eq(shell.o_response),
        ]
        self._describe(m, shell, fetch, resolve)

        misaligned = Signal()
        m.d.comb += [
            misaligned.eq(is_misaligned(
                fields, design.shell.address_bits, table_address=8, splat_address=8)),
            shell.bad.eq(Mux(misaligned, FrameError.ALIGNMENT, FrameError.NONE)),
            shell.failed.eq(Mux(fetch.overlong, FrameError.LIST, FrameError.NONE)),
            shell.done.eq(resolve.done), shell.quiet.eq(fetch.idle & resolve.idle),
        ]

        # ---- What is counted.
        beat = self.m_axi_rvalid
        self._count(
            m, shell, resolve,
            array_busy=array.busy, array_starved=array.starved,
            array_skipped=array.skipped, array_blocked=array.blocked,
            fetch_busy=beat & (self.m_axi_rid == READ_SPLATS),
            fetch_stalled=self.m_axi_arvalid & ~self.m_axi_arready,
            table_bytes=(beat & (self.m_axi_rid == READ_TABLE)) << 4,
            splat_bytes=(beat & (self.m_axi_rid == READ_SPLATS)) << 4,
            overfetch_bytes=fetch.dropped << 4,
            tiles=array.o_tile.valid & array.o_tile.ready,
            tiles_stopped=array.stopped)
        return m
