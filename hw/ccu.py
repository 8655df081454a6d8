"""GSCore's culling and conversion: Gaussians out of memory to feature records and tile entries."""

from typing import Any, NamedTuple

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from splatforge.algos.ccu import ccu_graph, ccu_schedule
from splatforge.designs.ccu import (
    CAMERA_BEATS,
    CAMERA_WORDS,
    FLAG_ANTIALIASED,
    CcuDesign,
    gaussian_beats,
)
from splatforge.designs.feature import FEATURE_BYTES
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.floating import BINARY32
from splatforge.designs.shell import ShellDesign
from splatforge.designs.vru import REGION_PX
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_GAUSSIANS
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift, saturate, shape_of
from splatforge.hw.lib.folded import Folded
from splatforge.hw.lib.footprint import compensation, is_out_of_range, square_side
from splatforge.hw.lib.splat_setup import feature_layout

__all__ = ["Ccu", "tile_entry_layout"]


def tile_entry_layout(design: CcuDesign, shell: ShellDesign) -> data.StructLayout:
    """An entry, and the number of the tile, row-major, whose list it is for."""
    side = -(-shell.max_side // TILE_PX)
    return data.StructLayout({"tile": range(side * side), "entry": design.entry.width})


class _Stage(NamedTuple):
    """A place for one Gaussian, that takes one only when it is empty."""

    valid: Signal
    held: Any
    taken: Signal
    """One is taken in this cycle."""
    leave: Signal
    """It is to be empty behind this cycle."""


class Ccu(Component):
    """Project every Gaussian of a scene, and tell the tiles that each meets.

    Bit-true model: :func:`splatforge.algos.ccu.ccu_fixed`. Cycle model:
    :mod:`splatforge.sim.ccu`.

    The camera's record is read, then the Gaussians' in bursts that end at aligned multiples of
    ``burst_beats``; a burst is asked for only when the buffer has room for it, so ``i_beat`` is
    always ready. The arithmetic runs on shared units, see
    :class:`splatforge.hw.lib.folded.Folded`. Five stages, through which Gaussians go one by one,
    make integers of what it gives: box or square, opacity, the tiles of the upright box, and, in
    eight cycles with one multiplier, where the box's axes are at the first of these tiles. Then
    the tiles are walked, one a cycle; sums that grow by a constant from tile to tile say which of
    a tile's four regions are met. A Gaussian that is culled, or whose box has no tile of the
    image, is dropped before the walk; a feature record is sent with the first tile that is met.

    Latency: :attr:`latency` cycles from the transfer of a Gaussian's results inside to its first
    entry on ``o_entry``; before it the schedule's. Throughput: a Gaussian every ``interval``
    cycles, a tile a cycle and one more of each. Stall: ``o_feature`` and ``o_entry`` may stall for
    ever; the walk, the stages and the arithmetic then wait one for the other. No ``valid`` depends
    on an input combinationally.

    Parameters
    ----------
    design : CcuDesign
        Formats, speed, buffers.
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
    gaussians : ``In(32)``
        Records that there are.
    sh_degree : ``In(2)``
        Of the records.
    camera_address : ``In(address_bits)``
        Of the camera's record, a multiple of 256.
    scene_address : ``In(address_bits)``
        Of the Gaussians' records, a multiple of 16.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 1.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel, beats of ID 1; others are not looked at.
    o_feature : ``Out(stream.Signature(256))``
        Feature records in the order of their numbers, see
        :class:`splatforge.designs.feature.FeatureFormat`.
    o_entry : ``Out(stream.Signature(TileEntry))``
        See :func:`tile_entry_layout`; each behind its Gaussian's feature record or beside it.
    done : ``Out(1)``
        The camera has come, all Gaussians are projected, and all that is sent is taken.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    busy, stalled, projected, visible, pair : ``Out(1)``
        For the counters: a beat of a Gaussian arrives; a Gaussian would begin but for those
        before, whose results wait; a Gaussian is
        through it; a feature record, an entry is made.
    """

    o_address: stream.Interface
    i_beat: stream.Interface
    o_feature: stream.Interface
    o_entry: stream.Interface

    #: Cycles from the transfer of results out of the arithmetic to the first in which an entry of
    #: the first tile walked can transfer: five stages, eight cycles of products, the walk's four.
    latency = 16

    def __init__(
        self,
        design: CcuDesign = CcuDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        self.design, self.shell = design, shell
        super().__init__({
            "start": In(1), "stop": In(1), "width": In(16), "height": In(16), "gaussians": In(32),
            "sh_degree": In(2), "camera_address": In(shell.address_bits),
            "scene_address": In(shell.address_bits),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_feature": Out(stream.Signature(8 * FEATURE_BYTES)),
            "o_entry": Out(stream.Signature(tile_entry_layout(design, shell))),
            "done": Out(1), "idle": Out(1), "busy": Out(1), "stalled": Out(1), "projected": Out(1),
            "visible": Out(1), "pair": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        flow = ccu_graph(design, 3)
        m.submodules.folded = folded = Folded(
            ccu_schedule(design), design.floating, len(flow.constants), design.buffer_beats)
        camera = Signal(data.ArrayLayout(BINARY32.width, len(CAMERA_WORDS)))
        camera_here = self._load(m, folded, camera)
        m.d.comb += [folded.start.eq(self.start), *(
            folded.constants[place].eq(camera[CAMERA_WORDS.index(name)])
            for place, name in enumerate(flow.constants))]
        #: Whether there is something in each place behind the arithmetic.
        self.occupied: list[Value] = []
        shaped = self._shape(m, folded, camera)
        placed = self._place(m, shaped)
        self._send(m, *self._walk(m, *placed))

        left = Signal(32)
        m.d.comb += [
            self.stalled.eq(folded.stalled),
            self.projected.eq(folded.o.valid & folded.o.ready),
            self.done.eq(camera_here & ~left.any() & ~Cat(self.occupied).any()),
        ]
        with m.If(self.projected):
            m.d.sync += left.eq(left - 1)
        with m.If(self.start):
            m.d.sync += left.eq(self.gaussians)
        return m

    def _load(self, m, folded, camera):
        """Ask for the camera and for the Gaussians; take what comes."""
        design, shell = self.design, self.shell
        beats = design.burst_beats
        beat_bits = (shell.data_bytes - 1).bit_length()
        with m.Switch(self.sh_degree):
            for degree in range(4):
                with m.Case(degree):
                    m.d.comb += folded.beats.eq(gaussian_beats(degree))
        # Of the Gaussians: the next beat, and beats that have not been asked for.
        place = Signal(shell.address_bits - beat_bits)
        left = Signal(36)
        look_at_camera, ask = Signal(), Signal()
        reserved = Signal(range(design.buffer_beats + 1))
        in_flight = Signal(range(design.outstanding_bursts + 1))
        space, length = (Signal(range(beats + 1), name=name) for name in ("space", "length"))
        # Of a cycle ago: nothing is asked for in the cycle behind one in which something was.
        some_left, room, few = Signal(), Signal(init=1), Signal(init=1)
        free, here, camera_beat = Signal(), Signal(), Signal(range(CAMERA_BEATS + 1))
        camera_here = Signal()
        m.d.comb += [
            free.eq(~self.stop & ~self.o_address.valid & few),
            space.eq(beats - place[:(beats - 1).bit_length()]),
            ask.eq(free & ~look_at_camera & some_left & room),
            self.i_beat.ready.eq(1),
            here.eq(self.i_beat.valid & (self.i_beat.p.id == READ_GAUSSIANS)),
            camera_here.eq(camera_beat == CAMERA_BEATS),
            self.busy.eq(here & camera_here),
            folded.i.valid.eq(self.busy), folded.i.payload.eq(self.i_beat.p.data),
            self.idle.eq(~in_flight.any()),
        ]
        with m.If(here & ~camera_here):
            m.d.sync += camera_beat.eq(camera_beat + 1)
            with m.Switch(camera_beat):
                for beat in range(CAMERA_BEATS):
                    with m.Case(beat):
                        at = beat * shell.data_bits
                        m.d.sync += camera.as_value()[at:at + shell.data_bits].eq(
                            self.i_beat.p.data)
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(free & look_at_camera):
            m.d.sync += [
                look_at_camera.eq(0), self.o_address.valid.eq(1),
                self.o_address.p.id.eq(READ_GAUSSIANS),
                self.o_address.p.address.eq(self.camera_address),
                self.o_address.p.length.eq(CAMERA_BEATS - 1),
            ]
        with m.If(ask):
            m.d.sync += [
                self.o_address.valid.eq(1), self.o_address.p.id.eq(READ_GAUSSIANS),
                self.o_address.p.address.eq(place << beat_bits),
                self.o_address.p.length.eq(length - 1),
                place.eq(place + length), left.eq(left - length),
            ]
        m.d.sync += [
            some_left.eq(left.any()), length.eq(Mux(left < space, left, space)),
            room.eq(reserved <= design.buffer_beats - beats),
            few.eq(in_flight != design.outstanding_bursts),
            in_flight.eq(in_flight + ((free & look_at_camera) | ask)
                         - (here & self.i_beat.p.last)),
            reserved.eq(reserved + Mux(ask, length, 0) - Mux(folded.freed, folded.beats, 0)),
        ]
        # How many beats that is takes a product: the camera is asked for behind it.
        started, multiplied, total = Signal(), Signal(), Signal.like(left)
        factor = Signal.like(folded.beats)
        m.d.sync += [started.eq(self.start), multiplied.eq(started), factor.eq(folded.beats),
                     total.eq(self.gaussians * factor)]
        with m.If(multiplied):
            m.d.sync += [look_at_camera.eq(1), left.eq(total),
                         place.eq(self.scene_address >> beat_bits)]
        return camera_here

    def _stage(self, m, name, layout, offered: Value, keep: Value | int = 1) -> _Stage:
        """A place for one Gaussian of those that are `offered`; if not `keep`, it is dropped."""
        valid, taken, leave = (Signal(name=f"{name}_{part}") for part in (
            "valid", "taken", "leave"))
        held = Signal(layout, name=name)
        self.occupied.append(valid)
        m.d.comb += taken.eq(offered & ~valid)
        m.d.sync += valid.eq(Mux(valid, ~leave, taken & keep))
        return _Stage(valid, held, taken, leave)

    def _shape(self, m, folded, camera):
        """Box or square, and opacity: three stages."""
        design = self.design
        fmt, extent, log = design.floating, design.extent, design.logarithm
        mean, opacity = design.feature.mean, design.feature.log_opacity
        given = folded.o.p
        shapes = given.shape().members

        def is_positive(word: Value) -> Value:
            return ~word[-1] & word[fmt.fraction_bits:-1].any()

        # 1: what is culled or oblong, the square's side, the compensation of the opacity.
        passed = [name for name in shapes
                  if name not in ("depth", "oblong", "log_det", "log_det_sharp")]
        first = self._stage(m, "first", data.StructLayout({
            **{name: shapes[name] for name in passed}, "culled": 1, "oblong": 1,
            "beyond": BINARY32.width - 1,
            "side": extent.width, "compensation": log.width}), folded.o.valid)
        one = first.held
        m.d.comb += folded.o.ready.eq(~first.valid)
        near, flags = (camera[CAMERA_WORDS.index(name)] for name in ("near", "flags"))
        with m.If(first.taken):
            m.d.sync += [one[name].eq(given[name]) for name in passed]
            m.d.sync += [
                one.beyond.eq(given.depth[:-1] - near[:-1]),
                one.culled.eq(given.depth[-1] | (given.depth[:-1] <= near[:-1])
                              | is_out_of_range(given, mean)),
                one.oblong.eq(is_positive(given.oblong) if design.obb_ratio else 0),
                one.side.eq(square_side(given.long, extent)),
                one.compensation.eq(compensation(
                    given, log, (flags & FLAG_ANTIALIASED).any())),
            ]

        # 2: the box; the sum of the logarithms, twice as fine as these.
        passed = ("depth", "culled", "position_x", "position_y", "long", "short", "box_x", "box_y",
                  "axis_x", "axis_y")
        box = data.StructLayout({
            "feature": feature_layout(design.feature), "depth": design.entry.depth_bits,
            "culled": 1,
            "position_x": shape_of(design.position), "position_y": shape_of(design.position),
            **dict.fromkeys(("long", "short", "box_x", "box_y"), extent.width),
            "axis_x": shape_of(design.axis), "axis_y": shape_of(design.axis)})
        second = self._stage(m, "second", data.StructLayout({
            **box.members, "opacity": signed(log.width + 3)}), first.valid)
        two = second.held
        m.d.comb += first.leave.eq(second.taken)
        down = mean.frac_bits - extent.frac_bits
        # Depths that have no number of their own.
        deepest = one.beyond[design.depth_drop + design.entry.depth_bits:]
        with m.If(second.taken):
            m.d.sync += [two.feature[name].eq(one[name]) for name in (
                "mean_x", "mean_y", "a", "b", "c", "red", "green", "blue")]
            m.d.sync += [
                two.depth.eq(Mux(deepest.any(), ~0, one.beyond >> design.depth_drop)),
                two.culled.eq(one.culled),
                two.position_x.eq(round_shift(one.mean_x, down)),
                two.position_y.eq(round_shift(one.mean_y, down)),
                two.opacity.eq((one.log_opacity << 1) + one.compensation),
            ]
            for name, square in (
                ("long", one.side), ("short", one.side), ("box_x", one.side), ("box_y", one.side),
                ("axis_x", 1 << design.axis.frac_bits), ("axis_y", 0),
            ):
                m.d.sync += two[name].eq(
                    Mux(one.oblong, one[name], square) if design.obb_ratio else square)

        # 3: the opacity; where the upright box begins, and where it ends, rounded up to tiles.
        tile = TILE_PX << extent.frac_bits
        bound = signed(design.position.width + 2)
        third = self._stage(m, "third", data.StructLayout({
            **box.members,
            **dict.fromkeys(("low_x", "low_y", "high_x", "high_y"), bound)}), second.valid)
        three = third.held
        rounded = Signal(signed(log.width + 3))
        m.d.comb += [
            second.leave.eq(third.taken),
            rounded.eq(round_shift(two.opacity, log.frac_bits + 1 - opacity.frac_bits)),
        ]
        with m.If(third.taken):
            m.d.sync += [three[name].eq(two[name]) for name in passed]
            m.d.sync += [
                three.feature.eq(two.feature),
                three.feature.log_opacity.eq(saturate(rounded, opacity)),
                three.culled.eq(two.culled | (rounded > opacity.raw_max)),
            ]
            for axis in "xy":
                at, side = two[f"position_{axis}"], two[f"box_{axis}"]
                m.d.sync += [
                    three[f"low_{axis}"].eq(at - side),
                    three[f"high_{axis}"].eq(at + side + (tile - 1)),
                ]
        return third

    def _place(self, m, third):
        """The tiles of the upright box, and where the box's axes are at the first of them.

        Two stages; the second takes eight cycles with its multiplier.
        """
        design, three = self.design, third.held
        extent = design.extent
        tile_bits = (TILE_PX - 1).bit_length() + extent.frac_bits
        side_bits = 12
        tiles = {"x": Signal(side_bits, name="tiles_x"), "y": Signal(side_bits, name="tiles_y")}
        m.d.comb += [
            tiles["x"].eq((self.width + TILE_PX - 1) >> 4),
            tiles["y"].eq((self.height + TILE_PX - 1) >> 4),
        ]
        passed = ("depth", "long", "short", "box_x", "box_y", "axis_x", "axis_y")
        kept = {name: three.shape().members[name] for name in ("feature", *passed)}

        # 4: first tile and end, cut to the image.
        span = dict.fromkeys(("first_x", "first_y", "end_x", "end_y"), side_bits)
        fourth = self._stage(m, "fourth", data.StructLayout({
            **kept, **span, "culled": 1,
            "position_x": shape_of(design.position), "position_y": shape_of(design.position),
        }), third.valid)
        four = fourth.held
        m.d.comb += third.leave.eq(fourth.taken)
        with m.If(fourth.taken):
            m.d.sync += [four[name].eq(three[name]) for name in (
                *passed, "culled", "position_x", "position_y")]
            m.d.sync += four.feature.eq(three.feature)
            for axis in "xy":
                for end, bound in (("first", "low"), ("end", "high")):
                    at = three[f"{bound}_{axis}"] >> tile_bits
                    m.d.sync += four[f"{end}_{axis}"].eq(
                        Mux(at < 0, 0, Mux(at > tiles[axis], tiles[axis], at)))

        # 5: the centre of the first region, from that of the box.
        offset = signed(design.position.width + 2)
        self.sum_shape = signed(offset.width + design.axis.width + 1)
        keep = (~four.culled & (four.first_x < four.end_x) & (four.first_y < four.end_y))
        step = Signal(range(8))
        ready = Signal()
        fifth = self._stage(m, "fifth", data.StructLayout({
            **kept, **span, "x": offset, "y": offset,
            "along": self.sum_shape, "across": self.sum_shape, "tile": 2 * side_bits,
            "shadow": design.axis.width, "reach": self.sum_shape, "width": self.sum_shape,
        }), fourth.valid, keep)
        five = fifth.held
        m.d.comb += fourth.leave.eq(fifth.taken)
        half = (REGION_PX // 2) << extent.frac_bits
        with m.If(fifth.taken):
            m.d.sync += [five[name].eq(four[name]) for name in (*passed, *span)]
            m.d.sync += five.feature.eq(four.feature)
            for axis in "xy":
                m.d.sync += five[axis].eq(
                    (four[f"first_{axis}"] << tile_bits) + half - four[f"position_{axis}"])
        # Nothing is in the walk in the cycle behind this one.
        ends = Signal()
        load = Signal(attrs={"keep": "true"})
        with m.If(~fifth.valid | load):
            m.d.sync += [step.eq(0), ready.eq(0)]
        with m.Elif(~ready):
            m.d.sync += [step.eq(step + 1), ready.eq(step == 6)]
        # Goes into the walk when that is empty: known a cycle ahead, for it steers all of the walk.
        # Not in the cycle of the last tile before.
        m.d.sync += load.eq(
            ~load & ends & (ready | (fifth.valid & (step == 6))))
        m.d.comb += fifth.leave.eq(load)

        # The products, one by one, each a cycle behind its factors and a cycle before its sum.
        left = Signal(offset, reset_less=True)
        right = Signal(signed(max(design.axis.width, side_bits + 1)), reset_less=True)
        product = Signal(signed(len(left) + len(right)))
        with m.Switch(step):
            for number, (first, second) in enumerate((
                (five.x, five.axis_x), (five.y, five.axis_y), (five.y, five.axis_x),
                (five.x, five.axis_y), (five.first_y, tiles["x"]))):
                with m.Case(number):
                    m.d.sync += [left.eq(first), right.eq(second)]
        m.d.sync += product.eq(left * right)
        with m.Switch(step):
            with m.Case(0):
                m.d.sync += five.shadow.eq(abs(five.axis_x) + abs(five.axis_y))
            with m.Case(1):
                axis_bits, half_bits = design.axis.frac_bits, (half - 1).bit_length()
                m.d.sync += [
                    five.reach.eq((five.long << axis_bits) + (five.shadow << half_bits)),
                    five.width.eq((five.short << axis_bits) + (five.shadow << half_bits)),
                ]
            with m.Case(2):
                m.d.sync += five.along.eq(product)
            with m.Case(3):
                m.d.sync += five.along.eq(five.along + product)
            with m.Case(4):
                m.d.sync += five.across.eq(product)
            with m.Case(5):
                m.d.sync += five.across.eq(five.across - product)
            with m.Case(6):
                m.d.sync += five.tile.eq(product + five.first_x)
        return fifth, load, ends, tiles["x"]

    def _walk(self, m, fifth, load, ends, tiles_x):
        """From tile to tile, row after row; in each the four regions. Three stages."""
        design, five = self.design, fifth.held
        extent = design.extent
        tile_bits = (TILE_PX - 1).bit_length() + extent.frac_bits
        half = (REGION_PX // 2) << extent.frac_bits
        offset, total = five.x.shape(), self.sum_shape
        side_bits = len(five.first_x)
        record = {name: five.shape().members[name] for name in ("feature", "depth")}
        # Each with its negation, so that both ends are compared with at once.
        limits = data.StructLayout({
            f"{end}_{name}": signed(bits) for end in ("least", "most") for name, bits in (
                ("x", extent.width + 2), ("y", extent.width + 2),
                ("reach", len(five.reach)), ("width", len(five.width)))})
        go = Signal()

        # 1: one tile.
        here = Signal(data.StructLayout({
            **record, "limits": limits, "axis_x": shape_of(design.axis),
            "axis_y": shape_of(design.axis), "tile": 2 * side_bits, "x": offset, "y": offset,
            "along": total, "across": total,
            # What a step to the right adds across the axis, and a step both right and down.
            "minus_y": signed(design.axis.width + 1), "sum": signed(design.axis.width + 1),
            "difference": signed(design.axis.width + 1),
            # Where the row began, tiles to the right of this one, rows below, and in a row.
            "row_tile": 2 * side_bits, "row_x": offset, "row_along": total, "row_across": total,
            "columns": side_bits, "rows": side_bits, "in_row": side_bits}), name="walk")
        walking = Signal()
        # Whether there is no tile to the right, and whether no row below.
        last_in_row, last_row = Signal(), Signal()
        last = last_in_row & last_row
        m.d.comb += ends.eq(~walking | (go & last))
        with m.If(load):
            columns = five.end_x - five.first_x - 1
            m.d.sync += [
                last_in_row.eq(five.first_x + 1 == five.end_x),
                last_row.eq(five.first_y + 1 == five.end_y),
                walking.eq(1), here.feature.eq(five.feature), here.depth.eq(five.depth),
                *(here.limits[f"most_{axis}"].eq(five[f"box_{axis}"] + half) for axis in "xy"),
                *(here.limits[f"least_{axis}"].eq(-half - five[f"box_{axis}"]) for axis in "xy"),
                here.limits.most_reach.eq(five.reach), here.limits.least_reach.eq(-five.reach),
                here.limits.most_width.eq(five.width), here.limits.least_width.eq(-five.width),
                here.minus_y.eq(-five.axis_y), here.sum.eq(five.axis_x + five.axis_y),
                here.difference.eq(five.axis_x - five.axis_y),
                here.axis_x.eq(five.axis_x), here.axis_y.eq(five.axis_y),
                here.tile.eq(five.tile), here.row_tile.eq(five.tile),
                here.x.eq(five.x), here.row_x.eq(five.x), here.y.eq(five.y),
                here.along.eq(five.along), here.row_along.eq(five.along),
                here.across.eq(five.across), here.row_across.eq(five.across),
                here.columns.eq(columns), here.in_row.eq(columns),
                here.rows.eq(five.end_y - five.first_y - 1),
            ]
        with m.Elif(go & walking):
            along, across = Signal(total), Signal(total)
            m.d.comb += [
                along.eq(Mux(last_in_row, here.row_along, here.along)
                         + (Mux(last_in_row, here.axis_y, here.axis_x) << tile_bits)),
                across.eq(Mux(last_in_row, here.row_across, here.across)
                          + (Mux(last_in_row, here.axis_x, here.minus_y) << tile_bits)),
            ]
            m.d.sync += [here.along.eq(along), here.across.eq(across)]
            with m.If(last_in_row):
                tile = here.row_tile + tiles_x
                m.d.sync += [
                    here.tile.eq(tile), here.row_tile.eq(tile),
                    here.x.eq(here.row_x), here.y.eq(here.y + (1 << tile_bits)),
                    here.row_along.eq(along), here.row_across.eq(across),
                    here.columns.eq(here.in_row), here.rows.eq(here.rows - 1),
                    last_in_row.eq(~here.in_row.any()), last_row.eq(here.rows == 1),
                    walking.eq(~last),
                ]
            with m.Else():
                m.d.sync += [
                    here.tile.eq(here.tile + 1), here.x.eq(here.x + (1 << tile_bits)),
                    here.columns.eq(here.columns - 1), last_in_row.eq(here.columns == 1),
                ]

        # 2: where the four regions' centres are.
        regions = Signal(data.StructLayout({
            **record, "limits": limits, "tile": 2 * side_bits, "last": 1,
            "x": data.ArrayLayout(offset, 2), "y": data.ArrayLayout(offset, 2),
            "along": data.ArrayLayout(total, 4), "across": data.ArrayLayout(total, 4),
        }), name="regions")
        some_regions = Signal()
        region_bits = tile_bits - 1
        with m.If(go):
            m.d.sync += [
                some_regions.eq(walking), regions.feature.eq(here.feature),
                regions.depth.eq(here.depth), regions.limits.eq(here.limits),
                regions.tile.eq(here.tile), regions.last.eq(last),
            ]
            for n in range(2):
                m.d.sync += [regions.x[n].eq(here.x + (n << region_bits)),
                             regions.y[n].eq(here.y + (n << region_bits))]
            # Of the region itself, of that to the right, below, and of both.
            for region, (along, across) in enumerate((
                    (C(0, 1), C(0, 1)), (here.axis_x, here.minus_y), (here.axis_y, here.axis_x),
                    (here.sum, here.difference))):
                m.d.sync += [
                    regions.along[region].eq(here.along + (along << region_bits)),
                    regions.across[region].eq(here.across + (across << region_bits)),
                ]

        # 3: which of them are met.
        met = Signal(data.StructLayout({
            **record, "tile": 2 * side_bits, "last": 1, "mask": 4, "any": 1}), name="met")
        some_met = Signal()

        def is_near(distance: Value, name: str) -> Value:
            return ((distance < regions.limits[f"most_{name}"])
                    & (regions.limits[f"least_{name}"] < distance))

        x, y = (Cat(is_near(regions[axis][n], axis) for n in range(2)) for axis in "xy")
        mask = Cat(
            x[region % 2] & y[region // 2] & is_near(regions.along[region], "reach")
            & is_near(regions.across[region], "width") for region in range(4))
        with m.If(go):
            m.d.sync += [
                some_met.eq(some_regions), met.feature.eq(regions.feature),
                met.depth.eq(regions.depth), met.tile.eq(regions.tile),
                met.last.eq(regions.last),
                met.mask.eq(mask if design.subtiles else mask.any().replicate(4)),
                met.any.eq(some_regions & mask.any()),
            ]
        self.occupied += [walking, some_regions, some_met]
        return some_met, met, go

    def _send(self, m, valid, met, go):
        """A feature record with the first tile that is met, and an entry for each.

        What finds an output taken waits in a register of its own, and only then the walk waits: so
        nothing of the walk depends on who takes what is sent.
        """
        design = self.design
        entry, feature = self.o_entry, self.o_feature
        number, seen = Signal(design.entry.feature_bits), Signal()
        sent = data.StructLayout({
            "feature": met.feature.shape(), "first": 1, "tile": met.tile.shape(),
            "entry": design.entry.width})
        found, waiting, send = (
            Signal(sent, name=name) for name in ("found", "waiting", "send"))
        # The one steers what is sent, the other the walk: they are far apart.
        waits, walks = (Signal(init=init, name=name, attrs={"keep": "true"})
                        for name, init in (("waits", 0), ("walks", 1)))
        there, free = Signal(), Signal()
        m.d.comb += [
            go.eq(walks), self.pair.eq(met.any & go), self.visible.eq(self.pair & ~seen),
            found.feature.eq(met.feature), found.first.eq(~seen), found.tile.eq(met.tile),
            found.entry.eq(Cat(number, met.depth, met.mask)),
            send.eq(Mux(waits, waiting, found)), there.eq(waits | met.any),
            free.eq((~entry.valid | entry.ready)
                    & (~send.first | ~feature.valid | feature.ready)),
        ]
        m.d.sync += [waits.eq(there & ~free), walks.eq(~there | free)]
        with m.If(walks):
            m.d.sync += waiting.eq(found)
        # What is not valid may be anything: fewer signals steer it.
        with m.If(~entry.valid | entry.ready):
            m.d.sync += [
                entry.valid.eq(there & free), entry.p.tile.eq(send.tile),
                entry.p.entry.eq(send.entry)]
        with m.If(~feature.valid | feature.ready):
            m.d.sync += [
                feature.valid.eq(there & free & send.first), feature.payload.eq(send.feature)]
        with m.If(self.pair):
            m.d.sync += seen.eq(1)
        with m.If(valid & go & met.last):
            m.d.sync += [seen.eq(0), number.eq(number + (seen | met.any))]
        # What waits does so behind what is offered.
        self.occupied += [entry.valid, feature.valid]
