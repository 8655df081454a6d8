"""StreamingGS's voxel sorting: a table of voxels out of memory, and for each group its voxels."""

from typing import Any

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO
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
    group. So the next group is scanned while what was found for one is being taken.

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
    #: transfer: a row asked for, read, compared, queued, taken, its voxel looked up, compared and
    #: offered.
    latency = 8

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
        m.submodules.records = records = Memory(
            shape=data.StructLayout({
                "voxel": voxel_layout(design.floating),
                "beyond": data.ArrayLayout(rectangle, len(self._shifts))}),
            depth=design.voxels, init=[])
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
            memory = Memory(shape=self._index_bits + 1, depth=1 << DIGIT_BITS, init=[])
            m.submodules[f"counts_{digit}"] = memory
            write = memory.write_port()
            counts.append((memory.read_port(transparent_for=(write,)), write))

        columns, rows = (Signal(GROUP_BITS, name=name) for name in ("columns", "rows"))
        px_bits = design.group_px.bit_length() - 1
        m.d.comb += [columns.eq((self.width + design.group_px - 1) >> px_bits),
                     rows.eq((self.height + design.group_px - 1) >> px_bits)]
        #: Voxels that are visible.
        self._kept = Signal(range(design.voxels + 1))
        folded, side = self._load(m)
        under_way = self._keep(
            m, folded, side, columns, rows, records.write_port(), places.write_port(), counts)
        passes = Signal(DIGITS)
        sorted_out = self._sort(m, passes, places.read_port(), counts, banks)
        group = _Group()
        empty = self._find(m, group, banks, records.read_port())

        # ---- What the unit is at.
        left = Signal(32)
        number = Signal(DIGIT_BITS + 1)
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
            self.streamed.eq(folded.o.valid & folded.o.ready),
        ]
        with m.FSM(name="at") as fsm:
            with m.State("wait"):
                with m.If(self.start):
                    m.d.sync += [left.eq(self.voxels), number.eq(0)]
                    m.next = "clear"
            with m.State("clear"):
                # Counts stay in their memories from frame to frame.
                m.d.sync += number.eq(number + 1)
                with m.If(number == (1 << DIGIT_BITS) - 1):
                    m.d.sync += number.eq(0)
                    m.next = "load"
            with m.State("load"):
                m.d.comb += folded.o.ready.eq(1)
                with m.If(self.loaded & ~left.any() & ~under_way):
                    m.next = "add"
            with m.State("add"):
                m.d.sync += number.eq(number + 1)
                with m.If(number[-1]):
                    m.next = "pass_0"
            for digit in range(DIGITS):
                with m.State(f"pass_{digit}"):
                    m.d.comb += passes[digit].eq(1)
                    with m.If(sorted_out):
                        m.next = f"pass_{digit + 1}" if digit + 1 < DIGITS else "announce"
            with m.State("announce"):
                m.d.sync += [
                    said.tag.eq(group.tag),
                    said.columns.eq(Mux(pixels_x > design.group_px, design.group_px, pixels_x)),
                    said.rows.eq(Mux(pixels_y > design.group_px, design.group_px, pixels_y)),
                    said.x.eq(group.column << tile_bits), said.y.eq(group.row << tile_bits),
                    group.line.eq(0),
                ]
                with m.If((ahead <= GROUPS_AHEAD) & ~self.behind & ~self.others_behind
                          & ~self.overflow):
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
                with m.If(group.column == columns - 1):
                    m.d.sync += [group.column.eq(0), group.row.eq(group.row + 1)]
                    with m.If(group.row == rows - 1):
                        m.next = "done"
            with m.State("done"):
                m.d.comb += self.done.eq(empty)
        self._add(m, counts, fsm.ongoing("clear"), fsm.ongoing("add"), number)
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
        look_at_camera, ask = Signal(), Signal()
        reserved = Signal(range(design.buffer_beats + 1))
        in_flight = Signal(range(design.outstanding_bursts + 1))
        space, length = (Signal(range(beats + 1), name=name) for name in ("space", "length"))
        free, here, camera_beat = Signal(), Signal(), Signal(range(STREAM_CAMERA_BEATS + 1))
        camera_here, to_table, second = Signal(), Signal(), Signal()
        size = Signal(design.floating.width)
        words = data.View(data.ArrayLayout(BINARY32.width, 4), self.i_beat.p.data)
        m.d.comb += [
            free.eq(~self.stop & (~self.o_address.valid | self.o_address.ready)
                    & (in_flight != design.outstanding_bursts)),
            space.eq(beats - place[:(beats - 1).bit_length()]),
            length.eq(Mux(left < space, left, space)),
            ask.eq(free & ~look_at_camera & left.any()
                   & (reserved <= design.buffer_beats - beats)),
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
            in_flight.eq(in_flight + ((free & look_at_camera) | ask)
                         - (here & self.i_beat.p.last)),
            reserved.eq(reserved + Mux(ask, length, 0) - Mux(folded.freed, VOXEL_BEATS, 0)),
        ]
        with m.If(self.start):
            m.d.sync += [look_at_camera.eq(1), place.eq(self.voxel_address >> beat_bits),
                         left.eq(self.voxels * VOXEL_BEATS)]
        return folded, read.data

    def _keep(self, m, folded, side, columns, rows, record, place, counts):
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
        some = [Signal(name=f"some_{n}") for n in range(1, 7)]
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
            "voxel": record.data.voxel.shape(), "seen": 1, "clear": 1,
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
                "beyond": record.data.beyond.shape()}
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

        # 6: into memory; counts of its digits are read, then one more is written.
        full = self._kept[-1]
        m.d.comb += [
            self.visible.eq(some[4] & ~full),
            record.en.eq(self.visible), place.en.eq(self.visible),
            record.addr.eq(self._kept), place.addr.eq(self._kept),
            record.data.voxel.eq(five.voxel), record.data.beyond.eq(five.beyond),
            place.data.key.eq(five.key), place.data.rectangle.eq(five.rectangle),
        ]
        m.d.sync += [self._kept.eq(self._kept + self.visible), some[5].eq(self.visible)]
        with m.If(some[4] & full):
            m.d.sync += self.overflow.eq(1)
        for n, (read, write) in enumerate(counts):
            digit = five.key.word_select(n, DIGIT_BITS)
            counted = Signal.like(digit, name="counted")
            m.d.sync += counted.eq(digit)
            m.d.comb += [read.addr.eq(digit), write.en.eq(some[5]), write.addr.eq(counted),
                         write.data.eq(read.data + 1)]
        return Cat(some).any()

    def _add(self, m, counts, clears, adds, number):
        """Clear all counts, or replace each by the sum of those before it."""
        reads = Signal()
        m.d.sync += reads.eq(adds & ~number[-1])
        for digit, (read, write) in enumerate(counts):
            total = Signal(self._index_bits + 1, name=f"total_{digit}")
            with m.If(clears):
                m.d.comb += [write.en.eq(1), write.addr.eq(number), write.data.eq(0)]
                m.d.sync += total.eq(0)
            with m.If(adds):
                m.d.comb += read.addr.eq(number)
            with m.If(reads):
                m.d.comb += [write.en.eq(1), write.addr.eq(number - 1), write.data.eq(total)]
                m.d.sync += total.eq(total + read.data)

    def _sort(self, m, passes, place, counts, banks):
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
        sorting, done = Signal(), Signal()
        some = [Signal(name=f"sorts_{n}") for n in range(3)]
        next_index, index, at_index, now, at = (Signal(self._index_bits, name=name) for name in (
            "next_index", "index", "at_index", "now", "at"))
        rectangle = Signal.like(place.data.rectangle)
        m.d.comb += [
            sorting.eq(passes.any()), now.eq(next_index), place.addr.eq(now),
            done.eq(sorting & (number == self._kept) & ~Cat(some).any()),
        ]
        m.d.sync += [
            # 1: the voxel that is next by the lower digits, or the next of all. 2: its key. 3: the
            # place of its digit.
            some[0].eq(sorting & (number != self._kept)), next_index.eq(number),
            some[1].eq(some[0]), index.eq(now),
            some[2].eq(some[1]), at_index.eq(index), rectangle.eq(place.data.rectangle),
        ]
        with m.If(sorting):
            m.d.sync += number.eq(Mux(done, 0, number + (number != self._kept)))
        for n, (get, put) in enumerate(between):
            m.d.comb += [get.addr.eq(number), put.en.eq(some[2] & passes[n]), put.addr.eq(at),
                         put.data.eq(at_index)]
            with m.If(passes[n + 1]):
                m.d.comb += now.eq(get.data)
        for n, (read, write) in enumerate(counts):
            digit = place.data.key.word_select(n, DIGIT_BITS)
            placed = Signal.like(digit, name="placed")
            m.d.sync += placed.eq(digit)
            with m.If(passes[n]):
                m.d.comb += at.eq(read.data)
            with m.If(sorting):
                m.d.comb += [
                    read.addr.eq(digit), write.en.eq(some[2] & passes[n]), write.addr.eq(placed),
                    write.data.eq(read.data + 1)]
        for lane, bank in enumerate(banks):
            write = bank.write_port()
            m.d.comb += [
                write.en.eq(some[2] & passes[-1] & (at[:lane_bits] == lane)),
                write.addr.eq(at[lane_bits:]), write.data.index.eq(at_index),
                write.data.rectangle.eq(rectangle),
            ]
        return done

    def _find(self, m, group, banks, record):
        """Compare rows with a group, and look up what meets it; returns whether nothing is here."""
        design = self.design
        lanes, lane_bits = design.scan_width, design.scan_width.bit_length() - 1
        last_line = Signal.like(group.line)
        place = {"tag": GROUP_TAG_BITS, "column": GROUP_BITS, "row": GROUP_BITS}
        oldest = self.oldest

        def here(valid: Value, at: Any) -> Value:
            return valid & is_older(at.tag, oldest)

        # 1: a row is read. Its last may be shorter.
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
            *(port.en.eq(group.move) for port in ports),
        ]
        with m.If(group.move):
            m.d.sync += [
                some_looked.eq(group.scans), looked.end.eq(group.ends), looked.tag.eq(group.tag),
                looked.column.eq(group.column), looked.row.eq(group.row),
                looked.lanes.eq(Cat(
                    whole | (lane < rest) if lane + 1 < lanes else whole
                    for lane in range(lanes))),
            ]

        # 2: which of it meet the group; the end takes the way of a hit.
        found = Signal(data.StructLayout({
            **place, "hits": lanes, "end": 1,
            "indices": data.ArrayLayout(self._index_bits, lanes)}), name="found")
        some_found = Signal()
        with m.If(group.move):
            m.d.sync += [
                some_found.eq(some_looked), *(found[name].eq(looked[name]) for name in place),
                found.end.eq(looked.end),
                *(found.indices[lane].eq(port.data.index) for lane, port in enumerate(ports)),
                found.hits.eq(Mux(looked.end, 1, Cat(
                    looked.lanes[lane]
                    & (port.data.rectangle.left <= looked.column)
                    & (looked.column <= port.data.rectangle.right)
                    & (port.data.rectangle.top <= looked.row)
                    & (looked.row <= port.data.rectangle.bottom)
                    for lane, port in enumerate(ports)))),
            ]

        # 3: rows with a hit wait.
        m.submodules.waiting = waiting = SyncFIFO(
            width=len(found.as_value()), depth=design.waiting_rows)
        head = data.View(found.shape(), waiting.r_data)
        wanted = some_found & found.hits.any() & ~is_older(found.tag, oldest)
        m.d.comb += [
            waiting.w_data.eq(found), waiting.w_en.eq(wanted),
            group.move.eq(~wanted | waiting.w_rdy),
        ]

        # 4: hit after hit of one of them.
        held = Signal.like(found, name="held")
        some_held, goes, move, moves_on = Signal(), Signal(), Signal(), Signal()
        others = held.hits & (held.hits - 1)
        dead = is_older(held.tag, oldest)
        chosen = Signal(self._index_bits)
        for lane in reversed(range(lanes)):
            with m.If(held.hits[lane]):
                m.d.comb += chosen.eq(held.indices[lane])
        m.d.comb += [
            goes.eq(some_held & ~dead & move),
            moves_on.eq(~some_held | dead | (move & ~others.any())),
            waiting.r_en.eq(moves_on), self.found.eq(goes & ~held.end),
            record.addr.eq(chosen), record.en.eq(move),
        ]
        with m.If(goes):
            m.d.sync += held.hits.eq(others)
        with m.If(moves_on):
            m.d.sync += [some_held.eq(waiting.r_rdy), held.eq(head)]

        # 5: its voxel is read. 6: is something beyond its prefixes wanted? 7: it is offered.
        fetched = Signal(data.StructLayout({**place, "end": 1}), name="fetched")
        compared = Signal(data.StructLayout({
            **place, "end": 1, "voxel": record.data.voxel.shape(), "beyond": len(self._shifts),
            "prefixes": data.ArrayLayout(POPULATION_BITS, len(self._shifts))}), name="compared")
        some_fetched, some_compared, compares, takes = Signal(), Signal(), Signal(), Signal()
        token = self.o_voxel
        m.d.comb += [
            takes.eq(~token.valid | token.ready), compares.eq(~some_compared | takes),
            move.eq(~some_fetched | compares)]
        with m.If(move):
            m.d.sync += [some_fetched.eq(goes), fetched.end.eq(held.end),
                         *(fetched[name].eq(held[name]) for name in place)]
        with m.If(compares):
            m.d.sync += [
                some_compared.eq(some_fetched), *(compared[name].eq(fetched[name])
                                                  for name in fetched.shape().members),
                compared.voxel.eq(record.data.voxel)]
            for n, shift in enumerate(self._shifts):
                at, step = record.data.beyond[n], PREFIX_STEP << shift
                whole = (record.data.voxel.count + (step - 1)) >> (step.bit_length() - 1)
                m.d.sync += [
                    compared.beyond[n].eq(
                        (at.left <= fetched.column) & (fetched.column <= at.right)
                        & (at.top <= fetched.row) & (fetched.row <= at.bottom)),
                    compared.prefixes[n].eq(whole << (PREFIX_STEP.bit_length() - 1))]
        prefix: Value = compared.voxel.count
        does = C(1, 1)
        for n in range(len(self._shifts)):
            does &= ~compared.beyond[n]
            prefix = Mux(does, compared.prefixes[n], prefix)
        with m.If(takes):
            m.d.sync += [
                token.valid.eq(some_compared & ~is_older(compared.tag, oldest)),
                token.p.last.eq(compared.end), token.p.voxel.eq(compared.voxel),
                token.p.prefix.eq(prefix),
                *(token.p[name].eq(compared[name]) for name in place),
            ]
        m.d.comb += self.behind.eq(
            here(some_looked, looked) | here(some_found, found) | here(waiting.r_rdy, head)
            | here(some_held, held) | here(some_fetched, fetched) | here(some_compared, compared)
            | here(token.valid, token.p))
        return ~(some_looked | some_found | waiting.r_rdy | some_held | some_fetched
                 | some_compared | token.valid)


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
