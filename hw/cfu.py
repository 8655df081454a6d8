"""Coarse filters: Gaussians of a voxel out of memory, those that may reach a group of tiles on."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.algos.cfu import (
    BEYOND_DOWN,
    COUNT_BIAS,
    DILATED_DOWN,
    FORM_DOWN,
    HALF_DOWN,
    LARGE_DOWN,
    NEAR_SLACK,
    OFFSET_UP,
    REACH_DOWN,
    RECORD,
    SCALE_BIAS,
    SCALE_UP,
    SHALLOW_BITS,
    SLACK,
    cfu_graph,
    cfu_schedule,
)
from splatforge.designs.cfu import DEPTH, DILATION_BITS, DISTANCE, NORM, SCALE, CfuDesign
from splatforge.designs.floating import BINARY32
from splatforge.designs.shell import ShellDesign
from splatforge.designs.tokens import GROUP_TAG_BITS, INDEX_BITS, SurvivorKind
from splatforge.designs.voxel import COARSE_INTEGERS, STREAM_CAMERA_WORDS
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.ahead import Ahead
from splatforge.hw.lib.axi import READ_COARSE
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.delay import Delay
from splatforge.hw.lib.folded import Folded, result_layout
from splatforge.hw.lib.tokens import survivor_layout, voxel_token_layout
from splatforge.hw.vru import is_older

__all__ = ["Cfu"]

#: Bits of the FPGA's multipliers.
_MULTIPLIER_BITS = 18
#: Bits of a word of binary16, and of its fraction.
_HALF_BITS = 16
_FRACTION_BITS = 10


def _gaussian_layout(design: CfuDesign) -> data.StructLayout:
    """A Gaussian as in its token, behind its number as in memory."""
    body: Any = survivor_layout(design.floating).members["body"]
    return body.members["gaussian"]


def _parameters_layout(design: CfuDesign) -> data.StructLayout:
    """What the filters know of a voxel and a group: the forms, the near plane, the scale's unit."""
    forms = result_layout(cfu_schedule(design), design.floating).members
    return data.StructLayout({**forms, "near": signed(DEPTH.width + 1), "down": 6})


class _Filters(Component):
    """Filters side by side, whose stages move in every cycle.

    Members
    -------
    i : ``In(ArrayLayout(Gaussian, units))``
        A Gaussian for each.
    parameters : ``In(StructLayout)``
        Of the voxel that they are in, in the same cycle.
    constants : ``In(StructLayout)``
        Integers of the camera.
    o : ``Out(units)``
        Which of those of ``latency`` cycles ago pass.
    """

    #: Cycles from Gaussians to whether they pass.
    latency = 11

    def __init__(self, design: CfuDesign) -> None:
        self.design = design
        super().__init__({
            "i": In(data.ArrayLayout(_gaussian_layout(design), design.units)),
            "parameters": In(_parameters_layout(design)),
            "constants": In(data.StructLayout(dict.fromkeys(COARSE_INTEGERS, 18))),
            "o": Out(design.units),
        })

    def elaborate(self, platform):
        m = Module()
        given = self.parameters

        def late(value: Value, cycles: int, name: str) -> Value:
            """What a value was some cycles ago."""
            line = [value, *(Signal(value.shape(), name=f"{name}_{n + 1}", reset_less=True)
                             for n in range(cycles))]
            m.d.sync += [after.eq(before) for before, after in pairwise(line)]
            return line[-1]

        far_x, far_y = self.constants.coarse_far_x, self.constants.coarse_far_y

        def least(norm: Value, far: Value, name: str) -> Value:
            smaller = Signal(NORM.width, name=name)
            m.d.sync += smaller.eq(Mux(norm < far, norm, far))
            return smaller

        # Of the voxel, in the stage in which it is wanted.
        offsets = {form: late(given[f"{form}_0"], 1, f"offset_{form}") for form in "uvz"}
        near = late(given.near, 3, "near")
        half = late(given.half, 4, "half")
        norms = [late(least(given[f"norm_{axis}"], far, f"least_{axis}"), 4, f"norm_{axis}")
                 for axis, far in (("x", far_x), ("y", far_y))]
        for unit in range(self.design.units):
            m.d.sync += self.o[unit].eq(self._filter(
                m, self.i[unit], offsets, near, half, norms, late, str(unit)))
        return m

    def _filter(self, m, gaussian, offsets, near, half, norms, late, unit):
        """Whether one passes: ten stages; the last is the caller's."""
        given = self.parameters

        def register(value: Any, name: str) -> Any:
            value = Value.cast(value)
            held = Signal(value.shape(), name=f"{name}_of_{unit}", reset_less=True)
            m.d.sync += held.eq(value)
            return held

        # 1 to 3: the forms, exact until they are cut.
        forms = {}
        for form in "uvz":
            parts = [register(given[f"{form}_{n}"] * gaussian[f"q_{axis}"], f"part_{form}_{n}")
                     for n, axis in enumerate("xyz", 1)]
            first = register(parts[0] + parts[1], f"first_{form}")
            other = register(parts[2] + (offsets[form] << OFFSET_UP), f"other_{form}")
            forms[form] = register((first + other) >> FORM_DOWN, f"form_{form}")

        # 1 to 3: the scale in the voxel's unit, rounded up.
        exponent = gaussian.scale[_FRACTION_BITS:_HALF_BITS - 1]
        down = Signal(signed(8), name=f"down_{unit}")
        m.d.comb += down.eq(given.down - exponent)
        normal = exponent.any()
        huge = late(register((down < 0) & normal, "huge"), 9, f"huge_{unit}")
        shift = register(Mux(
            down < 0, 0, Mux(down > SCALE.frac_bits, SCALE.frac_bits, down))[:5], "shift")
        significand = register(Mux(
            normal, Cat(C(0, SCALE_UP), gaussian.scale[:_FRACTION_BITS], C(1, 1)), 0),
            "significand")
        # Below the point what is shifted out.
        shifted = Signal(2 * SCALE.width, name=f"shifted_{unit}")
        m.d.comb += shifted.eq(Cat(C(0, SCALE.width), significand) >> shift)
        scale = register(shifted[SCALE.width:], "scale")
        lost = register(shifted[:SCALE.width].any(), "lost")
        scale = register((scale + lost)[:SCALE.width], "ceiling")

        # 4: distances from the group's centre and depths that are positive.
        z = forms["z"]
        depth = register(Mux(z < 0, 0, Mux(z > DEPTH.raw_max, DEPTH.raw_max, z))[:DEPTH.width],
                         "depth")
        alive = late(register(z > near, "alive"), 6, f"alive_{unit}")
        away = [register(abs(forms[form])[:20], f"away_{form}") for form in "uv"]
        constants = self.constants
        limit = register((scale * constants.coarse_large)[LARGE_DOWN:], "limit")

        # 5, 6: beyond the group's sides; what a point reaches; whether it is large, which is in a
        # register before it chooses among many bits.
        half_z = register((depth * half)[HALF_DOWN:], "half_z")
        dilation = constants.coarse_dilation[:DILATION_BITS]
        dilated = register((depth * dilation)[DILATED_DOWN:], "dilated")
        large = register((limit >= depth) | ~depth[SHALLOW_BITS:].any(), "large")
        beyond = []
        for form, distance in zip("uv", away, strict=True):
            distance = register(distance, f"away_5_{form}")
            rest = Signal(signed(22), name=f"rest_{form}_{unit}")
            m.d.comb += rest.eq(distance - half_z - (1 + SLACK))
            at = rest >> BEYOND_DOWN
            beyond.append(register(
                Mux(rest < 0, 0, Mux(at > DISTANCE.raw_max, DISTANCE.raw_max, at))[:18],
                f"beyond_{form}"))
        point = register(dilated + 1, "point")
        factors = [register(Mux(large, far, norm), f"factor_{axis}") for axis, far, norm in (
            ("x", constants.coarse_far_x, norms[0]), ("y", constants.coarse_far_y, norms[1]))]
        scale = late(scale, 3, f"scale_{unit}")

        # 7 to 10: squares of what it reaches and of how far it is.
        square = register(point * point, "square")
        square = late(register((square >> 6) + 1, "floor"), 1, f"floor_{unit}")
        passes = C(1, 1)
        for axis, factor, distance in zip("xy", factors, beyond, strict=True):
            product = register((scale * factor)[REACH_DOWN:], f"product_{axis}")
            reach = register(product + 1, f"reach_{axis}")
            # One multiplier of the FPGA and a sum: what is beyond its 18 bits is added apart.
            low, high = reach[:_MULTIPLIER_BITS], reach[_MULTIPLIER_BITS:]
            reached = register(low * low, f"reached_{axis}")
            beyond_it = register(high * Cat(C(0, 1), low) + (high * high << _MULTIPLIER_BITS),
                                 f"beyond_reached_{axis}")
            total = register(
                reached + (beyond_it << _MULTIPLIER_BITS) + square, f"total_{axis}")
            distance = late(distance, 3, f"distance_{axis}_{unit}")
            far = register(distance * distance, f"far_{axis}")
            passes &= far <= total
        return alive & (huge | passes)


class Cfu(Component):
    """Look at a voxel's Gaussians, all or a prefix, and hand on those that may reach the group.

    Bit-true model: :func:`splatforge.algos.cfu.cfu_fixed`. Cycle model:
    :mod:`splatforge.sim.cfu`.

    The coarse half of a voxel is asked for as soon as it is known, in bursts that end at aligned
    multiples of ``burst_beats`` and only when the buffer has room for them, so that ``i_beat`` is
    always ready; up to ``voxels_ahead`` voxels are under way. In the meantime shared units work out
    what the filters must know of it, see :class:`splatforge.hw.lib.folded.Folded`. Then ``units``
    Gaussians a cycle go through as many filters, whose stages never stand still: a Gaussian is
    given to them only when the queue behind has a place for it should it pass. Those that pass
    are packed into that queue in order, up to ``units`` a cycle.

    A group that is over, before ``oldest``, costs no more than it must: a voxel of which nothing
    has been asked for is dropped; of others the Gaussians are taken out of the buffer a beat a
    cycle and no longer looked at, those in the queue are dropped one a cycle. A voxel that has
    been announced gets its end all the same. That a group is over is known a cycle later than it
    is; what is decided about comes out of registers, not out of a memory.

    Latency: the schedule's ``finish`` and at most two intervals more from a voxel to its first
    Gaussian in the filters, or a memory's; :attr:`latency` cycles from there to its token.
    Throughput: ``units`` Gaussians a cycle without a gap between voxels, of which one that passes
    leaves per cycle, and with it each voxel's token and end; a beat of the bus brings two
    Gaussians, so that four units are no faster than the bus but for what waits in the buffer; a
    voxel every ``interval`` cycles, and never more than one in three. Stall: ``o_token`` and
    ``o_address`` may stall for ever. ``i_voxel.ready`` depends on no input.

    Parameters
    ----------
    design : CfuDesign
        Filters and buffers.
    shell : ShellDesign
        Bus.

    Members
    -------
    start : ``In(1)``
        Begin a frame; once after reset.
    stop : ``In(1)``
        Ask for nothing more.
    scene_address : ``In(address_bits)``
        Of the scene, a multiple of 16.
    camera : ``In(ArrayLayout(32))``
        The camera's record, :data:`splatforge.designs.voxel.STREAM_CAMERA_WORDS`; holds from before
        the first voxel on.
    oldest : ``In(5)``
        Number of the oldest group that is still wanted.
    i_voxel : ``In(stream.Signature(Visit))``
        Voxels of the groups in order, see
        :func:`splatforge.hw.lib.tokens.voxel_token_layout`; 1 to 256 Gaussians each, and no more in
        the prefix.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 2.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel, beats of ID 2; others are not looked at.
    o_token : ``Out(stream.Signature(Survivor))``
        See :func:`splatforge.hw.lib.tokens.survivor_layout`. A voxel, its Gaussians that pass, its
        end, and so on; a voxel of which none passes is left out. The end of a group behind its
        voxels.
    behind : ``Out(1)``
        Something of a group before ``oldest`` is inside.
    given, passed : ``Out(range(units + 1))``
        For the counters: Gaussians that the filters take, and that pass.
    stalled : ``Out(1)``
        Gaussians are there, but the queue has no place for them.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    """

    i_voxel: stream.Interface
    o_address: stream.Interface
    i_beat: stream.Interface
    o_token: stream.Interface

    #: Cycles from a Gaussian in front of the filters to the first in which its voxel's token can
    #: transfer: those of the filters, the queue's four, the token's register.
    latency = _Filters.latency + 5

    def __init__(
        self,
        design: CfuDesign = CfuDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        self.design, self.shell = design, shell
        super().__init__({
            "start": In(1), "stop": In(1), "scene_address": In(shell.address_bits),
            "camera": In(data.ArrayLayout(BINARY32.width, len(STREAM_CAMERA_WORDS))),
            "oldest": In(GROUP_TAG_BITS),
            "i_voxel": In(stream.Signature(voxel_token_layout(design.floating))),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_token": Out(stream.Signature(survivor_layout(design.floating))),
            "behind": Out(1), "given": Out(range(design.units + 1)),
            "passed": Out(range(design.units + 1)), "stalled": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        #: Tags of what is inside, each with whether it is there.
        self.inside: list[tuple[Value, Value]] = []
        popped = Signal(range(self.design.banks + 1))
        entered, visit = self._ask(m, popped)
        beats = self._arrive(m)
        chosen = self._prepare(m, *self._headers(m, entered, visit), entered, visit)
        voxel, opened, closed = self._announce(m, chosen)
        credit, *given = self._give(m, beats, popped, voxel, closed)
        self._tell(m, opened, *self._queue(m, credit, *self._filter(m, *given)))
        m.d.comb += self.behind.eq(Cat(
            there & is_older(tag, self.oldest) for there, tag in self.inside).any())
        return m

    def _ask(self, m, popped):
        """Take voxels and ask for their Gaussians; returns when one is under way, and what."""
        design, shell = self.design, self.shell
        beat_bits = (shell.data_bytes - 1).bit_length()
        burst = design.burst_beats
        held, begun = Signal(), Signal()
        visit = Signal(voxel_token_layout(design.floating))
        place = Signal(shell.address_bits - beat_bits)
        left, rest = Signal(INDEX_BITS), Signal(INDEX_BITS)
        # Beats of the buffer that are not reserved.
        unreserved = Signal(range(design.buffer_beats + 1), init=design.buffer_beats)
        in_flight = Signal(range(design.outstanding_bursts + 1))
        # Of the next burst: known before it is asked for, as is whether the group is over.
        length, late = Signal(range(burst + 1)), Signal()
        space = Signal(range(burst + 1))
        free, ask, enter, drop, here, takes = (Signal(name=name) for name in (
            "free", "ask", "enter", "drop", "here", "takes"))
        # Whether one burst more may be in flight, and fits: as of a cycle ago, which is after the
        # last one was asked for.
        few, fits = Signal(), Signal()
        given = self.i_voxel.p
        first, beats = Signal.like(place, name="first"), Signal.like(left, name="beats")
        self.header_room = Signal()
        self.inside.append((held, visit.tag))
        m.d.comb += [
            self.i_voxel.ready.eq(~held), takes.eq(self.i_voxel.valid & ~held),
            drop.eq(held & ~begun & late),
            first.eq((self.scene_address >> beat_bits) + given.voxel.address),
            beats.eq((given.prefix + 1) >> 1),
            space.eq(burst - first[:(burst - 1).bit_length()]),
            rest.eq(left - length),
            free.eq(~self.stop & ~self.o_address.valid & few & fits),
            ask.eq(held & ~visit.last & ~drop & free & (begun | self.header_room)),
            enter.eq(held & ~drop & ~begun & self.header_room & (visit.last | ask)),
            self.i_beat.ready.eq(1),
            here.eq(self.i_beat.valid & (self.i_beat.p.id == READ_COARSE)),
            self.idle.eq(~in_flight.any()),
        ]
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(~self.o_address.valid):
            m.d.sync += [
                self.o_address.valid.eq(ask), self.o_address.p.id.eq(READ_COARSE),
                self.o_address.p.address.eq(place << beat_bits),
                self.o_address.p.length.eq(length - 1),
            ]
        with m.If(ask):
            m.d.sync += [
                # Behind the first one bursts begin where they may be longest.
                place.eq(place + length), left.eq(rest), begun.eq(1),
                length.eq(Mux(rest < burst, rest, burst)),
            ]
        with m.If(drop | (enter & visit.last) | (ask & (left == length))):
            m.d.sync += held.eq(0)
        with m.If(takes):
            m.d.sync += [
                held.eq(1), begun.eq(0), visit.eq(given), place.eq(first), left.eq(beats),
                length.eq(Mux(beats < space, beats, space)),
            ]
        m.d.sync += [
            in_flight.eq(in_flight + ask - (here & self.i_beat.p.last)),
            few.eq(in_flight != design.outstanding_bursts), fits.eq(unreserved >= burst),
            unreserved.eq(unreserved - Mux(ask, length, 0) + popped),
            late.eq(Mux(held, is_older(visit.tag, self.oldest),
                        is_older(given.tag, self.oldest))),
        ]
        self.here = here
        return enter, visit

    def _arrive(self, m):
        """Beats in the order of the scene, in turn into as many queues as are looked at at once."""
        design = self.design
        queues = []
        turn = Signal(range(max(2, design.banks)))
        for bank in range(design.banks):
            m.submodules[f"beats_{bank}"] = queue = SyncFIFOBuffered(
                width=self.shell.data_bits, depth=design.buffer_beats // design.banks)
            m.d.comb += [queue.w_en.eq(self.here & (turn == bank)),
                         queue.w_data.eq(self.i_beat.p.data)]
            queues.append(queue)
        with m.If(self.here):
            m.d.sync += turn.eq(Mux(turn == design.banks - 1, 0, turn + 1))
        return queues

    def _headers(self, m, entered, visit):
        """Voxels and ends of groups whose Gaussians, if any, are under way, and their units.

        A cycle after they are asked for: in it the unit's exponent is worked out.
        """
        fmt = self.design.floating
        header = Signal(data.StructLayout({
            "visit": voxel_token_layout(fmt), "block": fmt.exponent_bits + 1}), name="header")
        enters = Signal(name="header_enters")
        m.submodules.headers = headers = SyncFIFOBuffered(
            width=len(header.as_value()), depth=self.design.voxels_ahead)
        m.d.sync += [
            enters.eq(entered), header.visit.eq(visit), header.block.eq(self._block(visit.voxel))]
        m.d.comb += [headers.w_en.eq(enters), headers.w_data.eq(header)]
        # Between two of them is a cycle at least: what is seen in one holds in the next.
        m.d.sync += self.header_room.eq(headers.w_level + enters < headers.depth - 1)
        return headers, header

    def _block(self, voxel) -> Value:
        """Exponent of the voxel's unit, see :func:`splatforge.algos.cfu.block_exponent`."""
        fmt = self.design.floating
        exponents = [voxel[name][fmt.fraction_bits:-1] for name in ("d_x", "d_y", "d_z")]
        exponents.append(voxel["size"][fmt.fraction_bits:-1] + 1)

        def larger(a: Value, b: Value) -> Value:
            return Mux(a < b, b, a)

        return larger(larger(exponents[0], exponents[1]), larger(exponents[2], exponents[3]))

    def _prepare(self, m, headers, header, entered, visit):
        """Work out what the filters must know; returns the next voxel with that."""
        design, fmt = self.design, self.design.floating
        layout = voxel_token_layout(design.floating)
        head = data.View(header.shape(), headers.r_data)
        fields: dict[str, Any] = {"visit": layout}
        plan, flow = cfu_schedule(design), cfu_graph(design)
        if design.filters:
            fields |= {"forms": result_layout(plan, fmt), "block": header.block.shape()}
        following = Signal(data.StructLayout({"valid": 1, **fields}), name="following")
        self.inside.append((following.valid, following.visit.tag))
        # What decides about the oldest comes out of a register, not the memory.
        known, last, tag = Signal(name="known"), Signal(name="header_last"), Signal(GROUP_TAG_BITS)
        # There is none: the same as its `valid`, for what takes the next.
        take, vacant = Signal(), Signal(init=1)
        self.vacant = vacant
        # It has been taken, and leaves the queue.
        leaves = Signal(name="header_leaves")
        m.d.sync += [
            leaves.eq(take), known.eq(headers.r_rdy & ~take & ~leaves),
            last.eq(head.visit.last), tag.eq(head.visit.tag)]
        self.inside.append((known, tag))
        m.d.comb += [take.eq(~following.valid & known), headers.r_en.eq(leaves)]
        with m.If(take):
            m.d.sync += [following.valid.eq(1), vacant.eq(0)]
        with m.If(vacant):
            m.d.sync += following.visit.eq(head.visit)
        if design.filters:
            m.submodules.folded = folded = Folded(
                plan, fmt, len(flow.constants), design.voxels_ahead)
            # In the voxel's unit: one cycle for the unit, one for the words.
            fresh, before, block = Signal(2), header.visit, header.block
            words = Signal(data.ArrayLayout(BINARY32.width, len(RECORD)))
            up = BINARY32.fraction_bits - fmt.fraction_bits
            m.d.sync += fresh.eq(Cat(entered & ~visit.last, fresh))
            for place, name in enumerate(RECORD[:4]):
                word = before.voxel[name]
                exponent = word[fmt.fraction_bits:-1]
                moved = Signal(signed(fmt.exponent_bits + 2), name=f"moved_{name}")
                m.d.comb += moved.eq(exponent + (fmt.bias - 1) - block)
                m.d.sync += words[place].eq(Mux(
                    exponent.any() & (moved > 0),
                    Cat(C(0, up), word[:fmt.fraction_bits], moved[:fmt.exponent_bits], word[-1]),
                    0))
            bias = int(BINARY32.quantize(COUNT_BIAS))
            side = design.group_px
            for place, number in ((4, before.column), (5, before.row)):
                m.d.sync += words[place].eq(bias + number * side + side // 2)
            m.d.comb += [
                folded.start.eq(self.start), folded.beats.eq(1), folded.i.valid.eq(fresh[1]),
                folded.i.payload.eq(words),
                folded.o.ready.eq(~following.valid & known & ~last),
                take.eq(~following.valid & known & (last | folded.o.valid)),
                *(folded.constants[place].eq(
                    bias if name == "count_bias" else self.camera[STREAM_CAMERA_WORDS.index(name)])
                  for place, name in enumerate(flow.constants))]
            with m.If(vacant):
                m.d.sync += [
                    following.forms.eq(folded.o.payload), following.block.eq(head.block)]
        return following

    def _announce(self, m, following):
        """The voxel whose turn it is, and those whose tokens are to come, in order.

        Returns the registers of the voxel, the latter's queue, and a signal that tells that the
        voxel's last Gaussians are given in this cycle.
        """
        design = self.design
        layout = voxel_token_layout(design.floating)
        m.submodules.opened = opened = SyncFIFOBuffered(
            width=layout.size, depth=design.voxels_ahead)
        closed = Signal()
        voxel = Signal(data.StructLayout({
            "valid": 1, "tag": GROUP_TAG_BITS, "late": 1, "left": INDEX_BITS + 1,
            "number": self._number_bits}), name="voxel", init={
                "number": (1 << self._number_bits) - 1})
        enters = Signal()
        visit = following.visit
        # It goes into the queue a cycle later, in which no other enters: what is seen of the
        # queue's room in it holds in the next.
        opens, room = Signal(name="opens"), Signal(name="room_to_open")
        next_number = Signal(self._number_bits)
        m.d.comb += [
            enters.eq(following.valid & room & (visit.last | ~voxel.valid | closed)),
            opened.w_en.eq(opens), opened.w_data.eq(visit),
        ]
        m.d.sync += [opens.eq(enters), room.eq(opened.w_level + opens < opened.depth - 1)]
        self.inside.append((opens, visit.tag))
        m.d.sync += voxel.late.eq(Mux(
            enters & ~visit.last, is_older(visit.tag, self.oldest),
            is_older(voxel.tag, self.oldest)))
        with m.If(closed):
            m.d.sync += voxel.valid.eq(0)
        with m.If(enters):
            m.d.sync += [following.valid.eq(0), self.vacant.eq(1)]
            with m.If(~visit.last):
                m.d.sync += [
                    voxel.valid.eq(1), voxel.tag.eq(visit.tag), voxel.left.eq(visit.prefix),
                    voxel.number.eq(next_number)]
        with m.If(opens & ~visit.last):
            m.d.sync += next_number.eq(next_number + 1)
        if design.filters:
            # What the filters know of it comes a cycle later, as its first Gaussians do.
            self.parameters = Signal(_parameters_layout(design), name="parameters")
            entered = Signal()
            m.d.sync += entered.eq(enters & ~visit.last)
            near, block = self.camera[STREAM_CAMERA_WORDS.index("near")], following.block
            drop = BINARY32.fraction_bits + 1 - DEPTH.width
            least, down = Signal(signed(10)), Signal(signed(11))
            depth, shifted = Signal(DEPTH.width), Signal(DEPTH.width)
            exponent = near[BINARY32.fraction_bits:-1]
            m.d.comb += [
                down.eq(block + least),
                shifted.eq(Mux(down < drop, DEPTH.raw_max, Mux(
                    down > BINARY32.fraction_bits + 1, 0,
                    Cat(near[:BINARY32.fraction_bits], C(1, 1)) >> down[:5]))),
            ]
            m.d.sync += [
                least.eq((BINARY32.fraction_bits + 1 - DEPTH.frac_bits) - exponent),
                depth.eq(Mux(exponent.any(), shifted, 0))]
            with m.If(entered):
                m.d.sync += [
                    *(self.parameters[name].eq(following.forms[name])
                      for name in following.forms.shape().members),
                    self.parameters.near.eq(depth - NEAR_SLACK),
                    self.parameters.down.eq(Mux(
                        block < SCALE_BIAS, 0, Mux(block > SCALE_BIAS + 63, 63,
                                                   block - SCALE_BIAS))),
                ]
        return voxel, opened, closed

    @property
    def _number_bits(self) -> int:
        """Bits of a voxel's running number: it tells those apart that are on their way."""
        return self.design.voxels_ahead.bit_length() + 1

    def _give(self, m, beats, popped, voxel, closed):
        """Up to `units` Gaussians of the voxel a cycle, if the queue has a place for each."""
        design = self.design
        units, banks = design.units, design.banks
        credit, dead, go = Signal(), Signal(), Signal()
        turn, odd = Signal(range(max(2, banks))), Signal()
        number = Signal(range(2 * banks + 1))
        index = Signal(INDEX_BITS)
        arrived = [queue.r_rdy for queue in beats]
        words = [queue.r_data for queue in beats]
        if banks == 2:
            arrived = [Mux(turn, arrived[1], arrived[0]), Mux(turn, arrived[0], arrived[1])]
            words = [Mux(turn, words[1], words[0]), Mux(turn, words[0], words[1])]
        most = Signal(range(2 * banks + 1))
        m.d.comb += dead.eq(voxel.late)
        if units == 1:
            # A Gaussian a cycle; of a group that is over, what is left of the beat.
            m.d.comb += most.eq(Mux(dead & ~odd, 2, 1))
        else:
            m.d.comb += most.eq(units)
        there = arrived[0]
        if banks == 2:
            there = there & (arrived[1] | (voxel.left <= 2))
        last = Signal()
        m.d.comb += [
            last.eq(voxel.left <= most), number.eq(Mux(last, voxel.left, most)),
            go.eq(voxel.valid & there & (credit | dead)),
            self.stalled.eq(voxel.valid & there & ~credit & ~dead),
            popped.eq(Mux(go, Mux(number > 2, 2, 1), 0)),
        ]
        if units == 1:
            m.d.comb += popped.eq(go & (odd | last | dead))
        for place, queue in enumerate(beats):
            m.d.comb += queue.r_en.eq((popped == 2) | ((popped == 1) & (turn == place)))
        m.d.comb += closed.eq(go & last)
        with m.If(go):
            m.d.sync += [
                index.eq(Mux(last, 0, index + number)), odd.eq((odd ^ number[0]) & ~last),
                turn.eq(turn ^ popped[0] if banks == 2 else 0)]
            with m.If(~last):
                m.d.sync += voxel.left.eq(voxel.left - number)
        gaussians = Signal(data.ArrayLayout(_gaussian_layout(design), units))
        valid, ends, named = Signal(units), Signal(), Signal(self._number_bits)
        both = Cat(*words)
        count = Signal(range(units + 1))
        for unit in range(units):
            word = both.word_select(unit, 64) if units > 1 else Mux(odd, both[64:], both[:64])
            m.d.sync += [
                gaussians[unit].eq(Cat((index + unit)[:INDEX_BITS], word)),
                valid[unit].eq(go & ~dead & (unit < number)),
            ]
        m.d.comb += [count.eq(Mux(go & ~dead, number, 0)), self.given.eq(count)]
        m.d.sync += [ends.eq(closed), named.eq(voxel.number)]
        return credit, gaussians, valid, named, ends

    def _filter(self, m, gaussians, valid, number, ends):
        """Gaussians behind the filters, which of them pass, which were there, and the rest."""
        if not self.design.filters:
            return gaussians, valid, valid, number, ends
        m.submodules.filters = filters = _Filters(self.design)
        cycles = filters.latency
        m.submodules.past = past = Delay(len(Cat(gaussians, number)), cycles)
        looked = [Signal(cycles, name=f"looked_{n}") for n in range(self.design.units)]
        ended = Signal(cycles)
        m.d.comb += [
            filters.i.eq(gaussians), filters.parameters.eq(self.parameters),
            past.i.eq(Cat(gaussians, number)),
            *(filters.constants[name].eq(self.camera[STREAM_CAMERA_WORDS.index(name)])
              for name in COARSE_INTEGERS)]
        m.d.sync += [ended.eq(Cat(ends, ended)),
                     *(line.eq(Cat(one, line)) for one, line in zip(valid, looked, strict=True))]
        bits = len(Value.cast(gaussians))
        there = Cat(line[-1] for line in looked)
        return (data.View(gaussians.shape(), past.o[:bits]), filters.o & there, there,
                past.o[bits:], ended[-1])

    def _queue(self, m, credit, gaussians, passes, looked, number, ends):
        """Those that pass, packed; returns them in order, voxels that ended, and how one leaves."""
        design = self.design
        units, bits = design.units, (design.units - 1).bit_length()
        entry = data.StructLayout({
            "gaussian": _gaussian_layout(design), "number": self._number_bits})
        into, out = (Signal(range(2 * design.queue), name=name) for name in ("into", "out"))
        used = Signal(range(design.queue + 1))
        pop = Signal()
        ranks = [Signal(range(units + 1), name=f"rank_{n}") for n in range(units + 1)]
        for n in range(units):
            m.d.comb += ranks[n + 1].eq(ranks[n] + passes[n])
        m.d.comb += [
            self.passed.eq(ranks[-1])]
        m.d.sync += [
            into.eq(into + ranks[-1]),
            # A cycle late, in which as many again may have been given.
            credit.eq(used <= design.queue - 2 * units),
            used.eq(used + self.given - sum(looked[n] & ~passes[n] for n in range(units)) - pop),
        ]
        m.submodules.ahead = ahead = Ahead(entry)
        reads, some = Signal(), Signal()
        here, bank_of = Signal(), Signal(bits)
        m.d.comb += [reads.eq(~here | ahead.i.ready), some.eq(out != into)]
        heads = []
        for bank in range(units):
            m.submodules[f"queue_{bank}"] = memory = Memory(
                shape=entry.size, depth=design.queue // units, init=[])
            write, read = memory.write_port(), memory.read_port()
            mine = [passes[n] & ((into + ranks[n])[:bits] == bank) for n in range(units)]
            word = Signal(entry.size, name=f"entry_{bank}")
            for n in range(units):
                with m.If(mine[n]):
                    m.d.comb += word.eq(Cat(gaussians[n], number))
            # The place of the bank behind what is there.
            beyond = Signal(bits, name=f"beyond_{bank}") if bits else C(0, 1)
            if bits:
                m.d.comb += beyond.eq(bank - into)
            m.d.comb += [
                write.en.eq(Cat(mine).any()), write.data.eq(word),
                write.addr.eq((into + beyond)[bits:]), read.addr.eq(out[bits:]),
                read.en.eq(reads)]
            heads.append(read.data)
        with m.If(reads):
            m.d.sync += [here.eq(some), out.eq(out + some), bank_of.eq(out[:bits])]
        m.d.comb += [
            ahead.i.valid.eq(here),
            ahead.i.payload.eq(Array(heads)[bank_of] if bits else heads[0])]
        # Voxels count when what they have left in the queue has had the time to come out.
        ended = [Signal(self._number_bits, name=f"ended_{n}") for n in range(3)]
        m.d.sync += [ended[0].eq(ended[0] + ends),
                     *(after.eq(before) for before, after in pairwise(ended))]
        return ahead.o, ended[-1], pop

    def _tell(self, m, opened, queue, over, pop):
        """Tokens of the voxel that is oldest, of the group's end.

        The voxel and the oldest Gaussian are in registers, and what is to be known of both.
        """
        visit = Signal(voxel_token_layout(self.design.floating), name="told")
        coming = data.View(visit.shape(), opened.r_data)
        oldest = self.oldest
        there, dead, advance = (Signal(name=name) for name in ("there", "dead", "advance"))
        token = self.o_token
        # Voxels that have been told.
        done = Signal(self._number_bits)
        # The group ends; the oldest Gaussian is the voxel's; none is, and the voxel has ended.
        closes, mine, ended = (Signal(name=name) for name in ("closes", "mine", "ended"))
        announced, move, emit, leave = (Signal(name=name) for name in (
            "announced", "move", "emit", "leave"))
        kind = Signal(2)
        body: Any = Signal(token.p.body.shape())
        voxel = body.voxel

        # The oldest Gaussian and what is told: of both what will be there in the next cycle.
        head: Any = Signal(queue.payload.shape(), name="head")
        some, loads = Signal(), Signal()
        visits, same, some_next, ends = (Signal(name=name) for name in (
            "visits", "same", "some_next", "ends"))
        owned, over_now = Signal(), Signal()
        # The contrary, for what steers all of a Gaussian's or a token's registers.
        foreign, stays = Signal(init=1), Signal(init=1)
        takes, owned_next, closes_next = Signal(), Signal(), Signal()
        number = queue.payload.number
        m.d.comb += [
            loads.eq(~some | pop), queue.ready.eq(loads), some_next.eq(Mux(loads, queue.valid, 1)),
            opened.r_en.eq(~there),
            visits.eq(Mux(there, ~leave, opened.r_rdy)),
            # Behind a voxel's end is a cycle without one: this is of the voxel that stays or comes.
            owned_next.eq(visits & some_next & same),
            closes_next.eq(Mux(there, visit.last & ~leave, opened.r_rdy & coming.last)),
            same.eq(Mux(loads, number == done, head.number == done)), ends.eq(over != done),
        ]
        m.d.sync += [
            some.eq(some_next), owned.eq(owned_next), foreign.eq(~owned_next),
            over_now.eq(visits & ~owned_next & ends),
            closes.eq(closes_next), stays.eq(~closes_next),
            dead.eq(Mux(there, is_older(visit.tag, oldest), is_older(coming.tag, oldest))),
        ]
        m.d.comb += takes.eq(~some | (~foreign & stays & (dead | (announced & move))))
        with m.If(takes):
            m.d.sync += head.eq(queue.payload)
        with m.If(~there):
            m.d.sync += [there.eq(opened.r_rdy), visit.eq(coming)]
        with m.Elif(leave):
            m.d.sync += there.eq(0)
        self.inside.append((there, visit.tag))

        m.d.comb += [
            mine.eq(owned & ~closes), ended.eq(over_now & ~closes),
            move.eq(~token.valid | token.ready), advance.eq(leave & ~closes),
            pop.eq(mine & (dead | (announced & move))),
            leave.eq((closes & (dead | move)) | (ended & (~announced | move))),
            emit.eq(Mux(ended, announced, (closes | mine) & ~dead)),
        ]
        # What is told is a voxel before its first Gaussian.
        with m.If(announced):
            m.d.comb += body.gaussian.eq(head.gaussian)
        with m.Else():
            m.d.comb += [
                *(voxel[name].eq(visit.voxel[name]) for name in ("d_x", "d_y", "d_z", "size")),
                voxel.address.eq(visit.voxel.address + ((visit.voxel.count + 1) >> 1)),
                voxel.column.eq(visit.column), voxel.row.eq(visit.row)]
        with m.If(closes):
            m.d.comb += kind.eq(SurvivorKind.GROUP_END)
        with m.Elif(ended):
            m.d.comb += kind.eq(SurvivorKind.VOXEL_END)
        with m.Elif(announced):
            m.d.comb += kind.eq(SurvivorKind.GAUSSIAN)
        with m.Else():
            m.d.comb += kind.eq(SurvivorKind.VOXEL)
        with m.If(token.ready):
            m.d.sync += token.valid.eq(0)
        with m.If(emit & move):
            m.d.sync += [
                token.valid.eq(1), token.p.kind.eq(kind), token.p.tag.eq(visit.tag),
                token.p.body.eq(Mux(foreign | ~stays, 0, body)), announced.eq(mine)]
        with m.If(advance):
            m.d.sync += [done.eq(done + 1), announced.eq(0)]
        self.inside.append((token.valid, token.p.tag))
