"""StreamingGS: AXI4 in front, voxels and a camera in, framebuffer out, nothing in between."""

from amaranth.hdl import *
from amaranth.lib import wiring

from splatforge.designs.shell import FrameError
from splatforge.designs.streaminggs import StreaminggsDesign
from splatforge.hw.array import Array
from splatforge.hw.cfu import Cfu
from splatforge.hw.ffu import Ffu
from splatforge.hw.lib.arbiter import ReadArbiter
from splatforge.hw.lib.axi import (
    READ_COARSE,
    READ_VOXELS,
)
from splatforge.hw.lib.shell import Accelerator, is_misaligned
from splatforge.hw.resolve import Resolve
from splatforge.hw.setup import Setup
from splatforge.hw.vsort import Vsort
from splatforge.hw.vsu import Vsu

__all__ = ["Streaminggs"]


class Streaminggs(Accelerator):
    """Render a packed scene group of tiles after group of tiles, each from its voxels.

    Bit-true model: :func:`splatforge.algos.streaminggs.render.render`. Cycle model:
    :mod:`splatforge.sim.streaminggs`.

    :class:`splatforge.hw.vsu.Vsu` reads the camera and the table of voxels, sorts those that can be
    seen, and lists them for every group; :class:`splatforge.hw.cfu.Cfu` reads positions and scales
    of their Gaussians and passes those that may reach the group; :class:`splatforge.hw.ffu.Ffu`
    reads the rest of these, decodes and projects them; :class:`splatforge.hw.vsort.Vsort` sorts
    what is left of each voxel; :class:`splatforge.hw.setup.Setup` makes splats for the tiles, and
    the rendering array blends them into the group's pixels. All are at work at once, on up to
    fifteen groups. What belongs to a group that is over is dropped wherever it is.

    Latency and throughput are those of :mod:`splatforge.sim.streaminggs`; a frame's start costs the
    descriptor's read and :attr:`latency` cycles around it. Stall: any AXI channel may stall for
    ever. A bus error, an abort, a bad descriptor or too many visible voxels stops all requests,
    waits for what is in flight, and ends the frame with a
    :class:`splatforge.designs.shell.FrameError`.

    Parameters
    ----------
    design : StreaminggsDesign
        All parameters.

    Members
    -------
    m_axi_* :
        AXI4 manager, 128 data bits, 40 address bits, INCR bursts within 4 KiB. Read IDs: 0
        descriptor; 1 camera and voxels; 2 coarse halves; 3 codebooks, then fine halves. Write ID 0.
    s_axil_* :
        AXI4-Lite subordinate; ``splatforge verilog`` writes its register map.
    irq : ``Out(1)``
        High while an enabled interrupt is pending.
    """

    #: Cycles that a frame's start costs besides the memory's latency: START to descriptor address,
    #: and last descriptor beat to the camera's address.
    latency = 5

    def __init__(self, design: StreaminggsDesign = StreaminggsDesign()) -> None:  # noqa: B008
        self.design = design
        super().__init__(design)

    def elaborate(self, platform):
        m = Module()
        design = self.design
        shell = self._shell(m)

        # Everything behind the registers starts every frame from reset; codebooks stay.
        renewed = ResetInserter(shell.clear)
        m.submodules.vsu = vsu = renewed(Vsu(design.vsu, design.shell))
        m.submodules.cfu = cfu = renewed(Cfu(design.cfu, design.shell))
        m.submodules.ffu = ffu = renewed(Ffu(design.ffu, design.shell))
        m.submodules.vsort = vsort = renewed(Vsort(design.vsort, design.ffu))
        m.submodules.setup = setup = renewed(Setup(design.setup, design.ffu))
        m.submodules.array = array = renewed(Array(design.array, design.splat))
        m.submodules.resolve = resolve = renewed(Resolve(
            design.array.blend, design.resolve, design.shell, design.array.side))
        m.submodules.reads = reads = renewed(ReadArbiter(4, design.shell))

        # ---- The bus. What is nearer to the framebuffer goes first, but for the codebooks: what
        # others ask for in the meantime is then there when these are.
        beat = shell.o_beat
        m.d.comb += beat.ready.eq(1)
        for unit in (ffu, cfu, vsu):
            m.d.comb += [
                unit.i_beat.payload.eq(beat.payload), unit.i_beat.valid.eq(beat.valid)]
        wiring.connect(m, cfu.o_address, reads.i_1)
        wiring.connect(m, vsu.o_address, reads.i_2)
        fine, last = ffu.o_address, reads.i_3
        m.d.comb += [
            reads.i_0.payload.eq(fine.payload), last.payload.eq(fine.payload),
            reads.i_0.valid.eq(fine.valid & ~ffu.patient),
            last.valid.eq(fine.valid & ffu.patient),
            fine.ready.eq(Mux(ffu.patient, last.ready, reads.i_0.ready)),
        ]
        wiring.connect(m, reads.o, shell.i_address)
        wiring.connect(m, resolve.o_address, shell.i_write_address)
        wiring.connect(m, resolve.o_data, shell.i_write_data)
        m.d.comb += resolve.i_response.eq(shell.o_response)

        # ---- From unit to unit.
        wiring.connect(m, vsu.o_group, setup.i_group)
        wiring.connect(m, vsu.o_voxel, cfu.i_voxel)
        wiring.connect(m, cfu.o_token, ffu.i_token)
        wiring.connect(m, ffu.o_token, vsort.i_token)
        wiring.connect(m, vsort.o_token, setup.i_token)
        wiring.connect(m, setup.o_group, array.i_group)
        wiring.connect(m, setup.o_splat, array.i_splat)
        wiring.connect(m, array.o_tile, resolve.i_tile)
        wiring.connect(m, array.o, resolve.i)
        fields = shell.descriptor
        for unit in (vsu, cfu, ffu, resolve):
            m.d.comb += [unit.start.eq(shell.start), unit.stop.eq(shell.stop)]
        for unit in (cfu, ffu):
            m.d.comb += [
                unit.scene_address.eq(fields.scene_address), unit.camera.eq(vsu.camera)]
        for unit in (vsu, cfu, ffu, vsort):
            m.d.comb += unit.oldest.eq(setup.oldest)
        m.d.comb += [
            vsu.voxels.eq(fields.voxels), vsu.camera_address.eq(fields.camera_address),
            vsu.voxel_address.eq(fields.voxel_address),
            vsu.others_behind.eq(cfu.behind | ffu.behind | vsort.behind | setup.behind),
            ffu.load.eq(fields.codebook_address.any()),
            ffu.codebook_address.eq(fields.codebook_address), ffu.sh_degree.eq(fields.sh_degree),
            array.finish.eq(setup.finish), setup.dead.eq(array.dead), setup.ended.eq(array.ended),
        ]
        self._describe(m, shell, vsu, ffu, resolve)

        # ---- What may be wrong.
        bad = Signal(4)
        with m.If(fields.sh_degree > 3):
            m.d.comb += bad.eq(FrameError.FORMAT)
        with m.Elif(is_misaligned(
                fields, design.shell.address_bits, scene_address=8, camera_address=8,
                voxel_address=8, codebook_address=8)):
            m.d.comb += bad.eq(FrameError.ALIGNMENT)
        m.d.comb += [
            shell.bad.eq(bad),
            shell.failed.eq(Mux(vsu.overflow, FrameError.WORKSPACE, FrameError.NONE)),
            shell.done.eq(resolve.done),
            shell.quiet.eq(vsu.idle & cfu.idle & ffu.idle & resolve.idle),
        ]

        # ---- What is counted.
        here = self.m_axi_rvalid
        announced = Signal()
        begun = Module()
        with begun.If(vsu.o_group.valid):
            begun.d.sync += announced.eq(1)
        m.submodules.begun = renewed(begun)
        self._count(
            m, shell, resolve, sorting=shell.counting & ~announced,
            vsu_busy=vsu.busy, vsu_stalled=vsu.stalled,
            cfu_stalled=cfu.stalled, ffu_stalled=ffu.stalled, vsort_busy=vsort.busy,
            array_busy=array.busy, array_starved=array.starved,
            array_skipped=array.skipped, array_blocked=array.blocked,
            read_stalled=self.m_axi_arvalid & ~self.m_axi_arready,
            voxel_bytes=(here & (self.m_axi_rid == READ_VOXELS)) << 4,
            codebook_bytes=ffu.coded << 4,
            coarse_bytes=(here & (self.m_axi_rid == READ_COARSE)) << 4,
            fine_bytes=ffu.busy << 4,
            voxels=vsu.streamed, voxels_visible=vsu.visible, voxels_loaded=vsu.found,
            gaussians=cfu.given, gaussians_passed=cfu.passed,
            gaussians_projected=ffu.projected, gaussians_kept=ffu.kept,
            voxels_sorted=vsort.sorted,
            splats=array.i_splat.valid & array.i_splat.ready,
            groups=array.ended, groups_stopped=array.stopped)
        return m
