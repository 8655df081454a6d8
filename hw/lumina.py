"""Lumina's LuminCore: AXI4 in front, lists and features in, pixels out, a cache beside them."""

from amaranth.hdl import *
from amaranth.lib import wiring

from splatforge.designs.lumina import FLAG_CACHE, FLAG_FLUSH, FLAG_REMAP, LuminaDesign
from splatforge.designs.nru import RECORD_ID_BITS
from splatforge.designs.shell import FrameError
from splatforge.hw.lib.arbiter import ReadArbiter, WriteArbiter
from splatforge.hw.lib.axi import (
    READ_BANKS,
    READ_FEATURES,
)
from splatforge.hw.lib.shell import Accelerator, is_misaligned
from splatforge.hw.nru import Nru
from splatforge.hw.radiance import Radiance
from splatforge.hw.resolve import Resolve
from splatforge.hw.tilelists import Tilelists
from splatforge.hw.vru import Vru

__all__ = ["Lumina"]


class Lumina(Accelerator):
    """Draw the tiles of a frame from shared lists, colours of pixels from the cache where it can.

    Bit-true model: :func:`splatforge.algos.lumina.render.render`. Cycle model:
    :mod:`splatforge.sim.lumina`.

    :class:`splatforge.hw.tilelists.Tilelists` reads lists of numbers;
    :class:`splatforge.hw.vru.Vru` fetches their features through a cache and makes splats of them;
    :class:`splatforge.hw.nru.Nru` blends, and asks :class:`splatforge.hw.radiance.Radiance` for the
    colours of pixels whose record is complete; :class:`splatforge.hw.resolve.Resolve` writes.

    Latency and throughput are those of :mod:`splatforge.sim.lumina`; a frame's start costs the
    descriptor's read and :attr:`latency` cycles around it. Stall: any AXI channel may stall for
    ever. A bus error, an abort, a bad descriptor or a list that is too long stops all requests,
    waits for what is in flight, and ends the frame with a
    :class:`splatforge.designs.shell.FrameError`.

    Parameters
    ----------
    design : LuminaDesign
        All parameters.

    Members
    -------
    m_axi_* :
        AXI4 manager, 128 data bits, 40 address bits, INCR bursts within 4 KiB. Read IDs: 0
        descriptor; 1 tile table and lists; 2 banks of the cache; 3 features. Write ID 0.
    s_axil_* :
        AXI4-Lite subordinate; ``splatforge verilog`` writes its register map.
    irq : ``Out(1)``
        High while an enabled interrupt is pending.

    Raises
    ------
    ValueError
        If the units are not as many as a tile's pixels need.
    """

    #: Cycles that a frame's start costs besides the memory's latency.
    latency = 7

    def __init__(self, design: LuminaDesign = LuminaDesign()) -> None:  # noqa: B008
        self.design = design
        super().__init__(design)

    def elaborate(self, platform):
        self.design.check_frames()
        m = Module()
        design = self.design
        shell = self._shell(m)

        # Everything behind the registers starts every frame from reset: banks are in memory.
        renewed = ResetInserter(shell.clear)
        side = design.radiance.group_tiles
        m.submodules.tilelists = tilelists = renewed(
            Tilelists(design.tilelists, design.shell, side))
        m.submodules.vru = vru = renewed(
            Vru(design.vru, design.shell, placed=True, number_bits=RECORD_ID_BITS))
        m.submodules.nru = nru = renewed(
            Nru(design.nru, design.splat, design.radiance.record_ids, design.resolve))
        m.submodules.radiance = radiance = renewed(Radiance(design.radiance, design.shell))
        m.submodules.resolve = resolve = renewed(
            Resolve(design.nru.blend, design.resolve, design.shell, side))
        m.submodules.reads = reads = renewed(ReadArbiter(3, design.shell))
        m.submodules.writes = writes = renewed(WriteArbiter(
            2, design.shell,
            design.resolve.outstanding_bursts + design.radiance.outstanding_bursts + 2))

        # ---- The bus. What is nearer to the framebuffer goes first; banks are a group ahead.
        beat = shell.o_beat
        m.d.comb += beat.ready.eq(1)
        for port, unit in enumerate((vru, tilelists, radiance)):
            wiring.connect(m, unit.o_address, getattr(reads, f"i_{port}"))
            m.d.comb += [
                unit.i_beat.payload.eq(beat.payload), unit.i_beat.valid.eq(beat.valid)]
        wiring.connect(m, reads.o, shell.i_address)
        for port, (unit, address, data) in enumerate((
                (resolve, resolve.o_address, resolve.o_data),
                (radiance, radiance.o_write_address, radiance.o_write_data))):
            wiring.connect(m, address, getattr(writes, f"i_address_{port}"))
            wiring.connect(m, data, getattr(writes, f"i_data_{port}"))
            m.d.comb += unit.i_response.eq(getattr(writes, f"o_response_{port}"))
        wiring.connect(m, writes.o_address, shell.i_write_address)
        wiring.connect(m, writes.o_data, shell.i_write_data)
        m.d.comb += writes.i_response.eq(shell.o_response)

        # ---- From unit to unit.
        wiring.connect(m, tilelists.o_tile, vru.i_tile)
        wiring.connect(m, tilelists.o_entry, vru.i_entry)
        wiring.connect(m, vru.o_tile, nru.i_tile)
        wiring.connect(m, vru.o_splat, nru.i_splat)
        wiring.connect(m, nru.o_lookup, radiance.i_lookup)
        wiring.connect(m, radiance.o_answer, nru.i_answer)
        wiring.connect(m, nru.o_walk, radiance.i_walk)
        wiring.connect(m, nru.o_tile, resolve.i_tile)
        wiring.connect(m, nru.o, resolve.i)
        fields = shell.descriptor
        caching = (fields.flags & FLAG_CACHE).any()
        for unit in (tilelists, vru, radiance, resolve):
            m.d.comb += [unit.start.eq(shell.start), unit.stop.eq(shell.stop)]
        m.d.comb += [
            tilelists.table_address.eq(fields.table_address),
            tilelists.list_address.eq(fields.list_address),
            tilelists.list_beats.eq(fields.list_beats),
            tilelists.oldest.eq(vru.oldest), tilelists.behind.eq(vru.behind),
            vru.feature_address.eq(fields.feature_address), vru.skip.eq(nru.skip),
            nru.caching.eq(caching), nru.remapping.eq((fields.flags & FLAG_REMAP).any()),
            radiance.enable.eq(caching), radiance.flush.eq((fields.flags & FLAG_FLUSH).any()),
            radiance.cache_address.eq(fields.cache_address),
        ]
        self._describe(m, shell, tilelists, nru, radiance, resolve)

        # ---- What may be wrong.
        m.d.comb += [
            shell.bad.eq(Mux(is_misaligned(
                fields, design.shell.address_bits, table_address=8, list_address=8,
                feature_address=8, cache_address=8), FrameError.ALIGNMENT, FrameError.NONE)),
            shell.failed.eq(Mux(tilelists.overlong, FrameError.LIST, FrameError.NONE)),
            shell.done.eq(resolve.done & radiance.done),
            shell.quiet.eq(tilelists.idle & vru.idle & radiance.idle & resolve.idle),
        ]

        # ---- What is counted.
        here = self.m_axi_rvalid
        saved = radiance.o_write_data
        self._count(
            m, shell, resolve,
            lookups=radiance.lookup, hits=radiance.hit, bypassed=nru.bypassed,
            table_bytes=tilelists.table_beat << 4, list_bytes=tilelists.list_beat << 4,
            feature_bytes=(here & (self.m_axi_rid == READ_FEATURES)) << 4,
            cache_read_bytes=(here & (self.m_axi_rid == READ_BANKS)) << 4,
            cache_written_bytes=(saved.valid & saved.ready) << 4)
        return m
