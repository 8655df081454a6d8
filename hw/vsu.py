"""StreamingGS's voxel sorting: a table of voxels out of memory, and for each group its voxels."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.algos.vsu import MARGIN_PX, voxels_under_way, vsu_graph, vsu_schedule
from splatforge.designs.floating import BINARY32
from splatforge.designs.shell import ShellDesign
from splatforge.designs.tokens import GROUP_BITS, GROUP_TAG_BITS, GROUPS_AHEAD
from splatforge.designs.voxel import (
    CELL_BITS,
    CHILD_WEIGHT_BITS,
    LEVEL_BIT,
    OCTAVE_BITS,
    OCTREE_LEVELS,
    POPULATION_BITS,
    PREFIX_SHIFTS,
    PREFIX_STEP,
    STREAM_CAMERA_BEATS,
    STREAM_CAMERA_WORDS,
    VOXEL_BEATS,
    WEIGHT_BITS,
)
from splatforge.designs.vsu import (
    BLUR,
    DIGIT_BITS,
    DIGITS,
    DISTANCE_BITS,
    KEY_BITS,
    RECTANGLE,
    ROWS_UNDER_WAY,
    TOKENS_UNDER_WAY,
    VsuDesign,
)
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_VOXELS
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.folded import Folded
from splatforge.hw.lib.tokens import group_layout, voxel_layout, voxel_token_layout
from splatforge.hw.vru import is_older

__all__ = ["Vsu", "camera_layout"]


def camera_layout() -> data.ArrayLayout:
    """The camera's record, :data:`splatforge.designs.voxel.STREAM_CAMERA_WORDS`."""
    return data.ArrayLayout(BINARY32.width, len(STREAM_CAMERA_WORDS))


class Vsu(Component):
    """Sort all visible voxels once a frame, then tell group after group which of them it meets.

    Bit-true model: :func:`splatforge.algos.vsu.vsu_fixed`. Cycle model:
    :mod:`splatforge.sim.vsu`.

    The camera's record is read, then the table in bursts that end at aligned multiples of
    ``burst_beats``; a burst is asked for only when the buffer has room for it, so ``i_beat`` is
    always ready. Shared units compute a rectangle for every voxel, see
    :class:`splatforge.hw.lib.folded.Folded`; six stages make groups and a key of it, and what is
    visible is kept, with rectangles of what is beyond its prefixes. Counts of the keys' digits are
    taken on the way. Three passes, a voxel a cycle, then put the voxels' rectangles in order. For
    every group they are read in rows of ``scan_width`` and compared; rows with a hit wait in a
    queue, from which hit after hit looks its voxel up, and which prefix of it is enough for the
    group. No row and no hit waits between two queues: each is begun when it has a place in the
    second. So the next group is scanned while what was found for one is being taken.

    Of a group that is over nothing further is looked for, and what was found is dropped, its end
    too. A group is announced at most 14 beyond the oldest, and while nothing lingers of one that is
    over: tags of 5 bits do not tell how old that is.

    Latency: :attr:`latency` cycles from the transfer of a group to its first voxel, if that is
    found in the first row. Throughput: a voxel of the table every ``interval`` cycles, then three
    times one a cycle; a row a cycle, a hit a cycle. Stall: every output may stall for ever; the
    scan then waits. No ``ready`` depends on an input.

    Parameters
    ----------
    design : VsuDesign
        Formats, speed, what is kept.
    shell : ShellDesign
        Bus, and the largest image.

    Members
    -------
    start : ``In(1)``
        Begin a frame with the parameters below, which must hold until it ends; once after reset.
    stop : ``In(1)``
        Ask for nothing more.
    width, height : ``In(16)``
        Frame in pixels.
    voxels : ``In(32)``
        Records of the table.
    camera_address : ``In(address_bits)``
        Of the camera's record, a multiple of 256.
    voxel_address : ``In(address_bits)``
        Of the table, a multiple of 16.
    oldest : ``In(5)``
        Tag of the oldest group that is still wanted.
    others_behind : ``In(1)``
        Something of a group before `oldest` is on its way elsewhere: none is announced.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 1.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel, beats of ID 1; others are not looked at. Until `loaded` all of
        ID 1 must be this unit's.
    o_group : ``Out(stream.Signature(Group))``
        Groups in raster order, each before its voxels, see
        :func:`splatforge.hw.lib.tokens.group_layout`.
    o_voxel : ``Out(stream.Signature(VoxelToken))``
        Voxels of the groups, each group's from front to back and its end behind, see
        :func:`splatforge.hw.lib.tokens.voxel_token_layout`.
    camera : ``Out(ArrayLayout(32, words))``
        The camera's record, from before the first voxel on, until the next frame's comes.
    behind : ``Out(1)``
        Something of a group before `oldest` is here.
    loaded : ``Out(1)``
        Camera and table have been read.
    overflow : ``Out(1)``
        More voxels are visible than are kept; no group is announced.
    done : ``Out(1)``
        All groups have been announced, and all that was found is taken.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    busy, stalled, streamed, visible, found : ``Out(1)``
        For the counters: a row is scanned; one waits for those before to be taken; a voxel of the
        table is through the arithmetic, is kept; a voxel is looked up for a group.
    """

    o_address: stream.Interface
    i_beat: stream.Interface
    o_group: stream.Interface
    o_voxel: stream.Interface

    #: Cycles from the transfer of a group to the first in which a voxel of the first row can
    #: transfer: a row asked for, read, in registers, compared, queued, read again, taken, its index
    #: in a register, its voxel looked up, in registers, compared, queued, read again and offered.
    latency = 14

    def __init__(
        self,
        design: VsuDesign = VsuDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        self.design, self.shell = design, shell
        self._group_bits = design.group_bits(shell)
        #: Prefixes that there are beside all of a voxel.
        self._shifts = PREFIX_SHIFTS if design.prefixes else ()
        super().__init__({
            "start": In(1), "stop": In(1), "width": In(16), "height": In(16), "voxels": In(32),
            "camera_address": In(shell.address_bits), "voxel_address": In(shell.address_bits),
            "oldest": In(GROUP_TAG_BITS), "others_behind": In(1),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_group": Out(stream.Signature(group_layout(design.group_tiles))),
            "o_voxel": Out(stream.Signature(voxel_token_layout(design.floating))),
            "camera": Out(camera_layout()),
            "behind": Out(1), "loaded": Out(1), "overflow": Out(1), "done": Out(1), "idle": Out(1),
            "busy": Out(1), "stalled": Out(1), "streamed": Out(1), "visible": Out(1),
            "found": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        self._index_bits = design.voxels.bit_length() - 1
        #: First and last column, first and last row of groups.
        rectangle = data.StructLayout(dict.fromkeys(
            ("left", "right", "top", "bottom"), self._group_bits))
        # Even voxels and odd ones: one of the two is read, each has a register behind it.
        records = [Memory(
            shape=data.StructLayout({
                "voxel": voxel_layout(design.floating),
                "beyond": data.ArrayLayout(rectangle, len(self._shifts))}),
            depth=design.voxels // 2, init=[]) for _ in range(2)]
        m.submodules.even, m.submodules.odd = records
        m.submodules.places = places = Memory(
            shape=data.StructLayout({"key": KEY_BITS, "rectangle": rectangle}),
            depth=design.voxels, init=[])
        banks, counts = [], []
        for lane in range(design.scan_width):
            bank = Memory(
                shape=data.StructLayout({"index": self._index_bits, "rectangle": rectangle}),
                depth=design.voxels // design.scan_width, init=[])
            m.submodules[f"bank_{lane}"] = bank
            banks.append(bank)
        for digit in range(DIGITS):
            bins = _Bins(self._index_bits + 1)
            m.submodules[f"counts_{digit}"] = bins
            counts.append(bins)

        columns, rows, last_column, last_row = (Signal(GROUP_BITS, name=name) for name in (
            "columns", "rows", "last_column", "last_row"))
        px_bits = design.group_px.bit_length() - 1
        m.d.sync += [columns.eq((self.width + design.group_px - 1) >> px_bits),
                     rows.eq((self.height + design.group_px - 1) >> px_bits),
                     last_column.eq(columns - 1), last_row.eq(rows - 1)]
        #: Voxels that are visible.
        self._kept = Signal(range(design.voxels + 1))
        folded, side = self._load(m)
        under_way = self._keep(
            m, folded, side, columns, rows, [each.write_port() for each in records],
            places.write_port(), counts)
        passes = Signal(DIGITS)
        sorting = Signal()
        sorted_out = self._sort(m, sorting, passes, places.read_port(), counts, banks)
        group = _Group()
        empty = self._find(m, group, banks, [each.read_port() for each in records])

        left = Signal(32)
        number = Signal(DIGIT_BITS + 1)
        # ---- What the unit is at; some of it once more in registers of their own.
        loads, clears, adds, lingers, all_in = (Signal(name=name) for name in (
            "loads", "clears", "adds", "lingers", "all_in"))
        m.d.sync += [
            lingers.eq(self.behind | self.others_behind | self.overflow),
            all_in.eq(self.loaded & ~left.any() & ~under_way)]
        with m.If(self.streamed):
            m.d.sync += left.eq(left - 1)
        said = self.o_group.p
        tile_bits = design.group_tiles.bit_length() - 1
        pixels_x, pixels_y = Signal(16), Signal(16)
        ahead = Signal(GROUP_TAG_BITS)
        m.d.comb += [
            pixels_x.eq(self.width - (group.column << px_bits)),
            pixels_y.eq(self.height - (group.row << px_bits)),
            ahead.eq(group.tag - self.oldest),
            folded.o.ready.eq(loads), self.streamed.eq(folded.o.valid & loads),
        ]
        # Until all is sorted, one of these after the other.
        with m.If(self.start):
            m.d.sync += [left.eq(self.voxels), number.eq(0), clears.eq(1)]
        with m.If(clears):
            # Counts stay in their memories from frame to frame.
            m.d.sync += number.eq(number + 1)
            with m.If(number == (1 << DIGIT_BITS) - 1):
                m.d.sync += [number.eq(0), clears.eq(0), loads.eq(1)]
        with m.If(loads & all_in):
            m.d.sync += [loads.eq(0), adds.eq(1)]
        with m.If(adds):
            m.d.sync += number.eq(number + 1)
            with m.If(number == (1 << DIGIT_BITS) + 1):
                m.d.sync += [adds.eq(0), sorting.eq(1), passes[0].eq(1)]
        with m.If(sorted_out):
            m.d.sync += [passes.eq(passes << 1), sorting.eq(~passes[-1])]

        with m.FSM(name="at"):
            with m.State("wait"):
                with m.If(self.start):
                    m.next = "sort"
            with m.State("sort"):
                with m.If(sorted_out & passes[-1]):
                    m.next = "announce"
            with m.State("announce"):
                m.d.sync += [
                    said.tag.eq(group.tag),
                    said.columns.eq(Mux(pixels_x > design.group_px, design.group_px, pixels_x)),
                    said.rows.eq(Mux(pixels_y > design.group_px, design.group_px, pixels_y)),
                    said.x.eq(group.column << tile_bits), said.y.eq(group.row << tile_bits),
                    group.line.eq(0),
                ]
                with m.If((ahead <= GROUPS_AHEAD) & ~lingers):
                    m.next = "tell"
            with m.State("tell"):
                m.d.comb += self.o_group.valid.eq(1)
                with m.If(self.o_group.ready):
                    m.next = "scan"
            with m.State("scan"):
                with m.If(is_older(group.tag, self.oldest)):
                    m.next = "next"
                with m.Else():
                    m.d.comb += group.scans.eq(1)
                    with m.If(group.move):
                        m.d.sync += group.line.eq(group.line + 1)
                        with m.If(group.ends):
                            m.next = "next"
            with m.State("next"):
                m.d.sync += [group.column.eq(group.column + 1), group.tag.eq(group.tag + 1)]
                m.next = "announce"
                with m.If(group.column == last_column):
                    m.d.sync += [group.column.eq(0), group.row.eq(group.row + 1)]
                    with m.If(group.row == last_row):
                        m.next = "done"
            with m.State("done"):
                m.d.comb += self.done.eq(empty)
        self._add(m, counts, clears, adds, number, sorting)
        return m

    def _load(self, m):
        """Ask for the camera and the table; the arithmetic, and what goes around it."""
        design, shell = self.design, self.shell
        flow, plan = vsu_graph(design), vsu_schedule(design)
        beats = design.burst_beats
        beat_bits = (shell.data_bytes - 1).bit_length()
        m.submodules.folded = folded = Folded(
            plan, design.floating, len(flow.constants), design.buffer_beats)
        # As many records as there may be between their arrival and their results.
        depth = voxels_under_way(design)
        m.submodules.side = side = Memory(
            shape=data.StructLayout({"size": design.floating.width, "address": 32,
                                     "population": 32, "cell": 3 * CELL_BITS}),
            depth=1 << (depth - 1).bit_length(), init=[])
        write, read = side.write_port(), side.read_port()
        # Of the table: the next beat, and beats that have not been asked for.
        place = Signal(shell.address_bits - beat_bits)
        left = Signal(33)
        look_at_camera, ask, some_left = Signal(), Signal(), Signal()
        reserved = Signal(range(design.buffer_beats + 1))
        in_flight = Signal(range(design.outstanding_bursts + 1))
        space, length = (Signal(range(beats + 1), name=name) for name in ("space", "length"))
        free, here, camera_beat = Signal(), Signal(), Signal(range(STREAM_CAMERA_BEATS + 1))
        # Whether one burst more may be in flight, and fits: as of a cycle ago, which is after the
        # last one was asked for.
        few, fits = Signal(), Signal()
        camera_here, to_table, second = Signal(), Signal(), Signal()
        size = Signal(design.floating.width)
        words = data.View(data.ArrayLayout(BINARY32.width, 4), self.i_beat.p.data)
        m.d.comb += [
            # A cycle at least between two bursts: in it the next one's length is worked out.
            free.eq(~self.stop & ~self.o_address.valid & few),
            space.eq(beats - place[:(beats - 1).bit_length()]),
            ask.eq(free & ~look_at_camera & some_left & fits),
            self.i_beat.ready.eq(1),
            here.eq(self.i_beat.valid & (self.i_beat.p.id == READ_VOXELS)),
            camera_here.eq(camera_beat == STREAM_CAMERA_BEATS),
            to_table.eq(here & camera_here),
            self.idle.eq(~in_flight.any()),
            self.loaded.eq(camera_here & ~left.any() & ~in_flight.any()),
            folded.start.eq(self.start), folded.beats.eq(VOXEL_BEATS),
            *(folded.constants[n].eq(self.camera[STREAM_CAMERA_WORDS.index(name)])
              for n, name in enumerate(flow.constants)),
            # The second beat is the reach alone; the rest goes by.
            folded.i.valid.eq(to_table),
            folded.i.payload.eq(Mux(
                second, Cat(_half_to_binary32(words[3][:16]), _half_to_binary32(words[3][16:])),
                self.i_beat.p.data)),
            write.en.eq(to_table & second),
            write.data.size.eq(size), write.data.address.eq(words[0]),
            write.data.population.eq(words[1]), write.data.cell.eq(words[2]),
        ]
        with m.If(here & ~camera_here):
            m.d.sync += camera_beat.eq(camera_beat + 1)
            with m.Switch(camera_beat):
                for beat in range(STREAM_CAMERA_BEATS):
                    with m.Case(beat):
                        at = beat * shell.data_bits
                        m.d.sync += self.camera.as_value()[at:at + shell.data_bits].eq(
                            self.i_beat.p.data)
        with m.If(to_table):
            m.d.sync += second.eq(~second)
            with m.If(second):
                m.d.sync += write.addr.eq(write.addr + 1)
            with m.Else():
                m.d.sync += size.eq(words[3][-len(size):])
        # No two results come in consecutive cycles: what goes with one has left the memory before
        # it comes, and is in a register the cycle after.
        beside = Signal.like(read.data, name="beside")
        m.d.sync += beside.eq(read.data)
        with m.If(self.streamed):
            m.d.sync += read.addr.eq(read.addr + 1)
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(free & look_at_camera):
            m.d.sync += [
                look_at_camera.eq(0), self.o_address.valid.eq(1),
                self.o_address.p.id.eq(READ_VOXELS),
                self.o_address.p.address.eq(self.camera_address),
                self.o_address.p.length.eq(STREAM_CAMERA_BEATS - 1),
            ]
        with m.If(ask):
            m.d.sync += [
                self.o_address.valid.eq(1), self.o_address.p.id.eq(READ_VOXELS),
                self.o_address.p.address.eq(place << beat_bits),
                self.o_address.p.length.eq(length - 1),
                place.eq(place + length), left.eq(left - length),
            ]
        m.d.sync += [
            length.eq(Mux(left < space, left, space)), some_left.eq(left.any()),
            few.eq(in_flight != design.outstanding_bursts),
            fits.eq(reserved <= design.buffer_beats - beats),
            in_flight.eq(in_flight + ((free & look_at_camera) | ask)
                         - (here & self.i_beat.p.last)),
            reserved.eq(reserved + Mux(ask, length, 0) - Mux(folded.freed, VOXEL_BEATS, 0)),
        ]
        with m.If(self.start):
            m.d.sync += [look_at_camera.eq(1), place.eq(self.voxel_address >> beat_bits),
                         left.eq(self.voxels * VOXEL_BEATS)]
        return folded, beside

    def _keep(self, m, folded, side, columns, rows, records, place, counts):
        """Groups and key of every voxel; what is visible is kept, and its digits are counted."""
        design, fmt = self.design, self.design.floating
        given = folded.o.p
        margin = int(MARGIN_PX * 2**RECTANGLE.frac_bits)
        shift = (design.group_px << RECTANGLE.frac_bits).bit_length() - 1
        sides = ("left", "right", "top", "bottom")
        d = dict.fromkeys(("d_x", "d_y", "d_z"), fmt.width)

        def is_positive(word: Value) -> Value:
            return ~word[-1] & word[fmt.fraction_bits:-1].any()

        # 1: both ends of the means, with the margin.
        some = [Signal(name=f"some_{n}") for n in range(1, 9)]
        ends = data.ArrayLayout(signed(RECTANGLE.width + 1), 4)
        one = Signal(data.StructLayout({
            **d, "seen": 1, "clear": 1, "ends": ends,
            "blurs": data.ArrayLayout(BLUR.width, 2)}), name="one")
        blurs = [given.blur_x, given.blur_y]
        m.d.sync += [
            some[0].eq(self.streamed), *(one[name].eq(given[name]) for name in d),
            one.seen.eq(is_positive(given.seen)),
            one.clear.eq(is_positive(given.clear) & ~blurs[0].all() & ~blurs[1].all()),
            *(one.ends[n].eq(given[name] + (margin if n % 2 else -margin))
              for n, name in enumerate(sides)),
            *(one.blurs[axis].eq(blur) for axis, blur in enumerate(blurs)),
        ]

        # 2: what Gaussians reach around their means, all of them and those beyond a prefix.
        two = Signal(data.StructLayout({
            **one.shape().members,
            "reach": data.ArrayLayout(data.ArrayLayout(BLUR.width, 2), 1 + len(self._shifts)),
            "side": side.shape()}), name="two")
        octaves = side.population[POPULATION_BITS:LEVEL_BIT]
        m.d.sync += [
            some[1].eq(some[0]), *(two[name].eq(one[name]) for name in one.shape().members),
            two.reach[0].eq(one.blurs), two.side.eq(side),
            *(two.reach[1 + n][axis].eq(one.blurs[axis] >> octaves.word_select(n, OCTAVE_BITS))
              for n in range(len(self._shifts)) for axis in range(2)),
        ]

        # 3: ends in groups; per axis how far the base cells are apart, and where children are.
        rectangle = place.data.rectangle.shape()
        three = Signal(data.StructLayout({
            "voxel": records[0].data.voxel.shape(), "seen": 1, "clear": 1,
            "ends": data.ArrayLayout(data.ArrayLayout(
                signed(RECTANGLE.width + 2 - shift), 4), 1 + len(self._shifts)),
            "distances": data.ArrayLayout(CELL_BITS, 3),
            "away": data.ArrayLayout(CHILD_WEIGHT_BITS, OCTREE_LEVELS)}), name="three")
        m.d.sync += [
            some[2].eq(some[1]), *(three.voxel[name].eq(two[name]) for name in d),
            three.seen.eq(two.seen), three.clear.eq(two.clear),
            three.voxel.size.eq(two.side.size), three.voxel.address.eq(two.side.address),
            three.voxel.count.eq(two.side.population[:POPULATION_BITS]),
        ]
        for n in range(1 + len(self._shifts)):
            for end in range(4):
                reach = Cat(two.reach[n][end // 2], C(0, 1)).as_signed()
                # What the shift has lost is made up for by one more, -(~x): no further sum.
                low = two.ends[end] + ~reach if n else two.ends[end] - reach
                high = two.ends[end] - ~reach if n else two.ends[end] + reach
                m.d.sync += three.ends[n][end].eq((high if end % 2 else low) >> shift)
        level = two.side.population[LEVEL_BIT:LEVEL_BIT + 2]
        path = two.side.population[LEVEL_BIT + 2:]
        weights, child_weights = (
            self.camera[STREAM_CAMERA_WORDS.index(name)] for name in ("weights", "child_weights"))
        far: list[list[Value]] = [[] for _ in range(OCTREE_LEVELS)]
        for axis in range(3):
            cell = two.side.cell.word_select(axis, CELL_BITS)
            eye = self.camera[STREAM_CAMERA_WORDS.index("cell_x") + axis][
                :CELL_BITS + OCTREE_LEVELS]
            eye_cell = eye[OCTREE_LEVELS:]
            m.d.sync += three.distances[axis].eq(
                Mux(cell > eye_cell, cell - eye_cell, eye_cell - cell))
            # From below the cell, or a child of it, up to the plane that halves it.
            corner = cell
            for n in range(OCTREE_LEVELS):
                child = path[3 * n + axis]
                middle = Cat(C(1, 1), corner)
                is_far = (child ^ (eye[OCTREE_LEVELS - 1 - n:] >= middle)) & (level > n)
                far[n].append(
                    Mux(is_far, child_weights.word_select(axis, CHILD_WEIGHT_BITS), 0))
                corner = Cat(child, corner)
        m.d.sync += [three.away[n].eq(sum(far[n], C(0, 1))) for n in range(OCTREE_LEVELS)]

        # 4: cut to the image; what the distances count. 5: the key.
        kept = {"voxel": three.voxel.shape(), "rectangle": rectangle,
                "beyond": records[0].data.beyond.shape()}
        four = Signal(data.StructLayout({
            **kept, "steps": data.ArrayLayout(CELL_BITS + WEIGHT_BITS, 3),
            "away": CHILD_WEIGHT_BITS * OCTREE_LEVELS}), name="four")
        five = Signal(data.StructLayout({**kept, "key": KEY_BITS}), name="five")
        meets = three.seen & three.voxel.count.any()
        for n, cut in enumerate([four.rectangle, *(
                four.beyond[n] for n in range(len(self._shifts)))]):
            on_image = Signal(name=f"on_image_{n}")
            within = C(1, 1)
            for axis, (first, last, groups) in enumerate(
                    (("left", "right", columns), ("top", "bottom", rows))):
                low, high = three.ends[n][2 * axis], three.ends[n][2 * axis + 1]
                within &= (low < groups) & (high >= 0)
                m.d.sync += [
                    cut[first].eq(Mux(three.clear & (low >= 0), low, 0)),
                    cut[last].eq(Mux(three.clear & (high < groups), high, groups - 1))]
            m.d.comb += on_image.eq(~three.clear | within)
            if n == 0:
                meets &= on_image
            else:
                # Nowhere.
                with m.If(~on_image):
                    m.d.sync += [cut.left.eq(~0), cut.right.eq(0)]
        distance = Signal(CELL_BITS + WEIGHT_BITS + 2)
        m.d.comb += distance.eq(four.steps[0] + four.steps[1] + four.steps[2])
        m.d.sync += [
            some[3].eq(some[2] & meets), four.voxel.eq(three.voxel),
            four.away.eq(Cat(*(three.away[n] for n in reversed(range(OCTREE_LEVELS))))),
            *(four.steps[axis].eq(three.distances[axis] * weights.word_select(axis, WEIGHT_BITS))
              for axis in range(3)),
            some[4].eq(some[3]), *(five[name].eq(four[name]) for name in kept),
            five.key.eq(Cat(four.away, Mux(
                distance[DISTANCE_BITS:].any(), ~0, distance[:DISTANCE_BITS]))),
        ]

        # 6: into memory; its digits are counted. 7, 8: they still are.
        full = self._kept[-1]
        m.d.comb += [
            self.visible.eq(some[4] & ~full),
            place.en.eq(self.visible), place.addr.eq(self._kept),
            place.data.key.eq(five.key), place.data.rectangle.eq(five.rectangle),
        ]
        for odd, record in enumerate(records):
            m.d.comb += [
                record.en.eq(self.visible & (self._kept[0] == odd)),
                record.addr.eq(self._kept[1:]),
                record.data.voxel.eq(five.voxel), record.data.beyond.eq(five.beyond)]
        m.d.sync += [self._kept.eq(self._kept + self.visible), some[5].eq(self.visible),
                     some[6].eq(some[5]), some[7].eq(some[6])]
        with m.If(some[4] & full):
            m.d.sync += self.overflow.eq(1)
        for n, bins in enumerate(counts):
            m.d.comb += [bins.at.eq(five.key.word_select(n, DIGIT_BITS)),
                         bins.comes.eq(self.visible)]
        return Cat(some).any()

    def _add(self, m, counts, clears, adds, number, sorting):
        """Clear all counts, or replace each by the sum of those before it."""
        reads = Signal(2)
        m.d.sync += reads.eq(Cat(adds & ~number[-1], reads))
        for digit, bins in enumerate(counts):
            total = Signal(self._index_bits + 1, name=f"total_{digit}")
            m.d.comb += bins.total.eq(Mux(clears, 0, total))
            with m.If(clears):
                m.d.comb += [bins.put.eq(1), bins.put_at.eq(number)]
                m.d.sync += total.eq(0)
            with m.If(adds):
                m.d.comb += bins.at.eq(number)
            with m.If(reads[-1]):
                m.d.comb += [bins.put.eq(1), bins.put_at.eq(number - 2)]
                m.d.sync += total.eq(total + bins.held)

    def _sort(self, m, sorting, passes, place, counts, banks):
        """Passes by digit, the lowest first, each keeping the order of what is equal.

        A voxel's number goes where its digit's next place is; in the last pass its rectangle, too,
        into the rows of the scan. Returns whether a pass is over.
        """
        design = self.design
        lane_bits = design.scan_width.bit_length() - 1
        # What each pass but the last leaves.
        between = []
        for digit in range(DIGITS - 1):
            memory = Memory(shape=self._index_bits, depth=design.voxels, init=[])
            m.submodules[f"order_{digit}"] = memory
            between.append((memory.read_port(), memory.write_port()))
        number = Signal(range(design.voxels + 1))
        # A cycle late: what was read before is still on its way then.
        done, all_read = Signal(), Signal()
        some = [Signal(name=f"sorts_{n}") for n in range(7)]
        next_index, now, at = (Signal(self._index_bits, name=name) for name in (
            "next_index", "now", "at"))
        indices = [Signal(self._index_bits, name=f"index_{n}") for n in range(6)]
        at_place = Signal(self._index_bits)
        keyed = Signal.like(place.data, name="keyed")
        rectangles = [Signal.like(place.data.rectangle, name=f"rectangle_{n}") for n in range(3)]
        m.d.comb += [
            now.eq(next_index), place.addr.eq(indices[0]),
            done.eq(sorting & all_read & ~Cat(some).any()),
        ]
        m.d.sync += [
            # 1, 2: the voxel that is next by the lower digits, or the next of all. 3, 4: its key.
            # 5, 6: the place of its digit. Each as it leaves a memory, then in a register. 7: there
            # it goes.
            some[0].eq(sorting & (number != self._kept)), next_index.eq(number),
            *(after.eq(before) for before, after in pairwise(some)),
            *(after.eq(before) for before, after in pairwise([now, *indices])),
            keyed.eq(place.data), rectangles[0].eq(keyed.rectangle),
            all_read.eq(Mux(done, 0, number) == self._kept),
            *(after.eq(before) for before, after in pairwise(rectangles)), at_place.eq(at),
        ]
        with m.If(sorting):
            m.d.sync += number.eq(Mux(done, 0, number + (number != self._kept)))
        for n, (get, put) in enumerate(between):
            m.d.comb += [get.addr.eq(number), put.en.eq(some[-1] & passes[n]),
                         put.addr.eq(at_place), put.data.eq(indices[-1])]
            with m.If(passes[n + 1]):
                m.d.comb += now.eq(get.data)
        for n, bins in enumerate(counts):
            with m.If(passes[n]):
                m.d.comb += at.eq(bins.value)
            with m.If(sorting):
                m.d.comb += [bins.at.eq(keyed.key.word_select(n, DIGIT_BITS)),
                             bins.comes.eq(some[3] & passes[n])]
        for lane, bank in enumerate(banks):
            write = bank.write_port()
            m.d.comb += [
                write.en.eq(some[-1] & passes[-1] & (at_place[:lane_bits] == lane)),
                write.addr.eq(at_place[lane_bits:]), write.data.index.eq(indices[-1]),
                write.data.rectangle.eq(rectangles[-1]),
            ]
        return done

    def _find(self, m, group, banks, records):
        """Compare rows with a group, and look up what meets it; returns whether nothing is here."""
        design = self.design
        lanes, lane_bits = design.scan_width, design.scan_width.bit_length() - 1
        last_line = Signal.like(group.line)
        place = {"tag": GROUP_TAG_BITS, "column": GROUP_BITS, "row": GROUP_BITS}
        oldest = self.oldest

        def here(valid: Value, at: Any) -> Value:
            return valid & is_older(at.tag, oldest)

        # 1: a row is read. Its last may be shorter. What is read has a place in the queue.
        looked = Signal(data.StructLayout({**place, "lanes": lanes, "end": 1}), name="looked")
        some_looked = Signal()
        rest = self._kept[:lane_bits]
        whole = (group.line != last_line) | ~rest.any()
        ports = [bank.read_port() for bank in banks]
        m.d.comb += [
            last_line.eq((self._kept - 1) >> lane_bits),
            group.ends.eq((group.line << lane_bits) >= self._kept),
            self.busy.eq(group.scans & group.move & ~group.ends),
            self.stalled.eq(group.scans & ~group.move),
            *(port.addr.eq(group.line) for port in ports),
        ]
        m.d.sync += [
            some_looked.eq(group.scans & group.move), looked.end.eq(group.ends),
            looked.tag.eq(group.tag), looked.column.eq(group.column), looked.row.eq(group.row),
            looked.lanes.eq(Cat(
                whole | (lane < rest) if lane + 1 < lanes else whole for lane in range(lanes))),
        ]

        # 2: it is in registers.
        taken = Signal(data.StructLayout({
            **looked.shape().members, "lanes": lanes,
            "words": data.ArrayLayout(ports[0].data.shape(), lanes)}), name="taken")
        some_taken = Signal()
        m.d.sync += [
            some_taken.eq(some_looked),
            *(taken[name].eq(looked[name]) for name in looked.shape().members),
            *(taken.words[lane].eq(port.data) for lane, port in enumerate(ports))]

        # 3: which of it meet the group; the end takes the way of a hit.
        found = Signal(data.StructLayout({
            **place, "hits": lanes, "end": 1,
            "indices": data.ArrayLayout(self._index_bits, lanes)}), name="found")
        some_found = Signal()
        words = [taken.words[lane] for lane in range(lanes)]
        m.d.sync += [
            some_found.eq(some_taken), *(found[name].eq(taken[name]) for name in place),
            found.end.eq(taken.end),
            *(found.indices[lane].eq(word.index) for lane, word in enumerate(words)),
            found.hits.eq(Mux(taken.end, 1, Cat(
                taken.lanes[lane]
                & (word.rectangle.left <= taken.column) & (taken.column <= word.rectangle.right)
                & (word.rectangle.top <= taken.row) & (taken.row <= word.rectangle.bottom)
                for lane, word in enumerate(words)))),
        ]

        # 4: rows with a hit wait, in a memory; what was written is seen from when it is read on.
        m.submodules.waiting = waiting = SyncFIFOBuffered(
            width=len(found.as_value()), depth=design.waiting_rows + ROWS_UNDER_WAY)
        head = data.View(found.shape(), waiting.r_data)
        written = Signal(data.StructLayout({"tag": GROUP_TAG_BITS}), name="written")
        some_written = Signal()
        m.d.comb += [
            waiting.w_data.eq(found),
            waiting.w_en.eq(some_found & found.hits.any() & ~is_older(found.tag, oldest))]
        m.d.sync += [
            group.move.eq(waiting.w_level < design.waiting_rows),
            some_written.eq(waiting.w_en), written.tag.eq(found.tag)]

        # 5: hit after hit of one of them, of which it is known whether it is the last, and whether
        # the group is over.
        held = Signal.like(found, name="held")
        some_held, single, late, goes, moves_on = (Signal(name=name) for name in (
            "some_held", "single", "late", "goes", "moves_on"))
        # Tokens behind it, which never wait: each has a place in their queue.
        room, leaves, behind_it = Signal(), Signal(), Signal(range(TOKENS_UNDER_WAY + 1))
        # Hits but the first.
        others = Signal(lanes)

        def rest_of(hits: Value) -> Value:
            return hits & (hits - 1)

        chosen = Signal(self._index_bits)
        for lane in reversed(range(lanes)):
            with m.If(held.hits[lane]):
                m.d.comb += chosen.eq(held.indices[lane])
        m.d.comb += [
            room.eq(~behind_it[-1]), goes.eq(some_held & ~late & room),
            moves_on.eq(~some_held | late | (room & single)),
            waiting.r_en.eq(moves_on), self.found.eq(goes & ~held.end),
        ]
        with m.If(goes):
            m.d.sync += [held.hits.eq(others), others.eq(rest_of(others)),
                         single.eq(~rest_of(others).any())]
        with m.If(moves_on):
            m.d.sync += [some_held.eq(waiting.r_rdy), held.eq(head),
                         others.eq(rest_of(head.hits)), single.eq(~rest_of(head.hits).any())]
        m.d.sync += [
            late.eq(Mux(moves_on, is_older(head.tag, oldest), is_older(held.tag, oldest))),
            behind_it.eq(behind_it + goes - leaves)]

        # 6: its index. 7: its voxel is read. 8: it and its neighbour are in registers: between
        # memories, which are large, and these is nothing, a reset either. 9: is something beyond
        # its prefixes wanted?
        picked = Signal(data.StructLayout({**place, "end": 1, "index": self._index_bits}),
                        name="picked", reset_less=True)
        fetched = Signal(data.StructLayout({**place, "end": 1, "odd": 1}), name="fetched",
                         reset_less=True)
        record_shape = records[0].data.shape()
        known = Signal(data.StructLayout({
            **fetched.shape().members, "records": data.ArrayLayout(record_shape, 2)}), name="known",
            reset_less=True)
        compared = Signal(data.StructLayout({
            **place, "end": 1, "voxel": record_shape["voxel"].shape,
            "beyond": len(self._shifts),
            "prefixes": data.ArrayLayout(POPULATION_BITS, len(self._shifts))}), name="compared",
            reset_less=True)
        some_picked, some_fetched, some_known, some_compared = (Signal(name=name) for name in (
            "some_picked", "some_fetched", "some_known", "some_compared"))
        record: Any = Signal(record_shape, name="record")
        voxel = record.voxel
        m.d.comb += record.eq(Mux(known.odd, known.records[1], known.records[0]))
        for odd, each in enumerate(records):
            m.d.comb += [each.addr.eq(picked.index[1:]),
                         each.en.eq(some_picked & (picked.index[0] == odd))]
        m.d.sync += [
            some_picked.eq(goes), picked.index.eq(chosen), picked.end.eq(held.end),
            *(picked[name].eq(held[name]) for name in place),
            some_fetched.eq(some_picked), some_known.eq(some_fetched), some_compared.eq(some_known),
            *(fetched[name].eq(picked[name]) for name in (*place, "end")),
            fetched.odd.eq(picked.index[0]),
            *(known.records[odd].eq(each.data) for odd, each in enumerate(records)),
            compared.voxel.eq(voxel),
            *(known[name].eq(fetched[name]) for name in fetched.shape().members),
            *(compared[name].eq(known[name]) for name in (*place, "end")),
        ]
        for n, shift in enumerate(self._shifts):
            at, step = record.beyond[n], PREFIX_STEP << shift
            most = (voxel.count + (step - 1)) >> (step.bit_length() - 1)
            m.d.sync += [
                compared.beyond[n].eq(
                    (at.left <= known.column) & (known.column <= at.right)
                    & (at.top <= known.row) & (known.row <= at.bottom)),
                compared.prefixes[n].eq(most << (PREFIX_STEP.bit_length() - 1))]

        # 10: tokens wait. 11: one is offered.
        prefix: Value = compared.voxel.count
        does = C(1, 1)
        for n in range(len(self._shifts)):
            does &= ~compared.beyond[n]
            prefix = Mux(does, compared.prefixes[n], prefix)
        token, takes = self.o_voxel, Signal()
        m.submodules.tokens = tokens = SyncFIFOBuffered(
            width=len(token.payload.as_value()), depth=TOKENS_UNDER_WAY)
        queued = Signal(data.StructLayout({"tag": GROUP_TAG_BITS}), name="queued")
        some_queued = Signal()
        layout = voxel_token_layout(design.floating)
        made: Any = Signal(layout, name="made")
        following = data.View(layout, tokens.r_data)
        m.d.comb += [
            made.last.eq(compared.end), made.voxel.eq(compared.voxel), made.prefix.eq(prefix),
            *(made[name].eq(compared[name]) for name in place),
            tokens.w_en.eq(some_compared), tokens.w_data.eq(made),
            takes.eq(~token.valid | token.ready), tokens.r_en.eq(takes),
            leaves.eq(takes & tokens.r_rdy),
        ]
        m.d.sync += [some_queued.eq(some_compared), queued.tag.eq(compared.tag)]
        with m.If(takes):
            m.d.sync += [
                token.valid.eq(tokens.r_rdy & ~is_older(following.tag, oldest)),
                token.payload.eq(following)]
        stages = (
            (some_looked, looked), (some_taken, taken), (some_found, found),
            (some_written, written), (waiting.r_rdy, head), (some_held, held),
            (some_picked, picked), (some_fetched, fetched), (some_known, known),
            (some_compared, compared), (some_queued, queued), (tokens.r_rdy, following),
            (token.valid, token.p))
        m.d.comb += self.behind.eq(Cat(here(*stage) for stage in stages).any())
        return ~Cat(valid for valid, _ in stages).any()


class _Bins(Component):
    """How many there are of each digit, of which one may be counted in every cycle.

    Between the memory's output and what is written are registers; what is counted in the two cycles
    before is not in memory yet when a count is read, and comes from there.

    Members
    -------
    at : ``In(8)``
        A digit.
    comes : ``In(1)``
        One more of it.
    held : ``Out(width)``
        The count in memory of the digit of two cycles ago.
    value : ``Out(width)``
        How many of that had come before.
    put, put_at, total : ``In``
        Write a count, a cycle later; not while digits come, or in the two cycles after.
    """

    def __init__(self, width: int) -> None:
        self._width = width
        super().__init__({
            "at": In(DIGIT_BITS), "comes": In(1), "held": Out(width), "value": Out(width),
            "put": In(1), "put_at": In(DIGIT_BITS), "total": In(width)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.counts = memory = Memory(
            shape=self._width, depth=1 << DIGIT_BITS, init=[])
        write = memory.write_port()
        read = memory.read_port(transparent_for=(write,))
        digits = [self.at, *(Signal(DIGIT_BITS, name=f"digit_{n}") for n in range(1, 4))]
        some = [self.comes, *(Signal(name=f"some_{n}") for n in range(1, 4))]
        again = Signal(2)
        puts, puts_at, total = Signal(), Signal(DIGIT_BITS), Signal(self._width)
        one, two = Signal(self._width), Signal(self._width)
        m.d.sync += [
            *(after.eq(before) for line in (digits, some) for before, after in pairwise(line)),
            self.held.eq(read.data), one.eq(self.value + 1), two.eq(one),
            again.eq(Cat((digits[1] == digits[n]) & some[n] for n in (2, 3))),
            puts.eq(self.put), puts_at.eq(self.put_at), total.eq(self.total),
        ]
        m.d.comb += [
            read.addr.eq(self.at),
            self.value.eq(Mux(again[0], one, Mux(again[1], two, self.held))),
            write.en.eq(puts | some[3]), write.addr.eq(Mux(puts, puts_at, digits[3])),
            write.data.eq(Mux(puts, total, one)),
        ]
        return m


class _Group:
    """The group that is scanned."""

    def __init__(self) -> None:
        self.tag = Signal(GROUP_TAG_BITS, name="group_tag")
        self.column, self.row = (Signal(GROUP_BITS, name=f"group_{name}")
                                 for name in ("column", "row"))
        #: The next row of the scan; behind the last one comes the end.
        self.line = Signal(17, name="line")
        #: It is scanned, the row goes on, and it is behind the last one.
        self.scans, self.move, self.ends = (
            Signal(name=name) for name in ("scans", "scan_move", "scan_ends"))


def _half_to_binary32(half: Value) -> Value:
    """Word of binary32 of one of binary16 without sign, that is normal or zero."""
    exponent = half[10:15]
    return Mux(exponent.any(), Cat(C(0, 13), half[:10], (exponent + 112)[:8], C(0, 1)), 0)
