"""Finished tiles to the framebuffer: background, clip, pixel format, write bursts."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.wiring import In, Out

from splatforge.designs.blend import BlendDesign
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.resolve import PixelFormat, ResolveDesign
from splatforge.designs.shell import ShellDesign
from splatforge.hw.array import PIXELS_PER_GROUP
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift, shape_of

__all__ = ["Resolve"]


class Resolve(Component):
    """Put the background behind each pixel and write each row of a tile as one burst.

    Bit-true model: :func:`splatforge.algos.resolve.resolve_fixed`. Cycle model:
    :mod:`splatforge.sim.resolve`.

    A row of a tile is one burst; only pixels inside of the frame are written, the last beat of a
    row by its strobes. Addresses run ahead of the data within a tile: the array delivers every tile
    that it has begun, so data never waits for anything but the bus.

    Latency: :attr:`latency` cycles from a group on ``i`` to its first beat on ``o_data``.
    Throughput: one beat per cycle; a group of four pixels is 1, 2 or 4 beats (RGBA8, RGBA16,
    STATE). Stall: ``o_data`` and ``o_address`` may stall for ever; ``i`` then stalls.

    Parameters
    ----------
    blend : BlendDesign
        Formats of ``i``.
    design : ResolveDesign
        Background format, write bursts in flight.
    shell : ShellDesign
        Bus.
    side : int
        Tiles along a side of the groups in which they come, 1, 2 or 4.

    Members
    -------
    start : ``In(1)``
        Begin a frame with the parameters below, which must hold until it ends.
    stop : ``In(1)``
        Begin no further burst.
    width, height : ``In(16)``
        Frame in pixels.
    pixel_format : ``In(2)``
        A :class:`splatforge.designs.resolve.PixelFormat`.
    background : ``In(ArrayLayout(UQ(1,8), 3))``
        Red, green and blue.
    frame_address : ``In(address_bits)``, pitch_bytes : ``In(32)``
        Of the framebuffer; multiples of the bytes of a full tile row.
    i_tile : ``In(stream.Signature(Tile))``
        ``columns`` and ``rows`` of the next tile: in raster order, or group after group, in raster
        order both the groups and the tiles of each.
    i : ``In(stream.Signature(Group))``
        Its pixels, see :class:`splatforge.hw.array.Array`.
    o_address : ``Out(stream.Signature(Burst))``
        To the write address channel: ``address`` and ``length`` (beats less one).
    o_data : ``Out(stream.Signature(Beat))``
        To the write data channel: ``data``, ``strobe``, ``last``.
    i_response : ``In(1)``
        A write response arrives in this cycle.
    done : ``Out(1)``
        All tiles of the frame are written and answered; stays high until reset.
    idle : ``Out(1)``
        No burst is begun or in flight.
    """

    i_tile: stream.Interface
    i: stream.Interface
    o_address: stream.Interface
    o_data: stream.Interface

    #: Cycles from a transfer on ``i`` to the first beat of the group on ``o_data``.
    latency = 4

    def __init__(
        self,
        blend: BlendDesign = BlendDesign(),  # noqa: B008
        design: ResolveDesign = ResolveDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
        side: int = 1,
    ) -> None:
        self.blend, self.design, self.shell, self.side = blend, design, shell, side
        state = data.StructLayout({
            "color": data.ArrayLayout(shape_of(blend.accumulator), 3),
            "transmittance": shape_of(blend.transmittance),
        })
        super().__init__({
            "start": In(1), "stop": In(1), "width": In(16), "height": In(16),
            "pixel_format": In(2),
            "background": In(data.ArrayLayout(shape_of(design.background), 3)),
            "frame_address": In(shell.address_bits), "pitch_bytes": In(32),
            "i_tile": In(stream.Signature(data.StructLayout({
                "columns": range(TILE_PX + 1), "rows": range(TILE_PX + 1)}))),
            "i": In(stream.Signature(data.ArrayLayout(state, PIXELS_PER_GROUP))),
            "o_address": Out(stream.Signature(data.StructLayout({
                "address": shell.address_bits, "length": 8}))),
            "o_data": Out(stream.Signature(data.StructLayout({
                "data": shell.data_bits, "strobe": shell.data_bytes, "last": 1}))),
            "i_response": In(1), "done": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        blend, design = self.blend, self.design
        frac_bits = blend.transmittance.frac_bits + design.background.frac_bits
        up = frac_bits - blend.accumulator.frac_bits
        wide = self.pixel_format == PixelFormat.RGBA16
        state = self.pixel_format == PixelFormat.STATE

        # ---- Pixels: three stages that move together, then the register that feeds the bus.
        ready = Signal()
        valid = Signal(3)
        group = [self.i.payload] + [Signal.like(self.i.payload, name=f"group_{n}")
                                    for n in range(1, 4)]
        behind = Signal(data.ArrayLayout(data.ArrayLayout(
            blend.transmittance.width + design.background.width, 3), PIXELS_PER_GROUP))
        total = Signal(data.ArrayLayout(data.ArrayLayout(
            blend.accumulator.width + up + 1, 3), PIXELS_PER_GROUP))
        color = Signal(data.ArrayLayout(data.ArrayLayout(16, 3), PIXELS_PER_GROUP))
        m.d.comb += self.i.ready.eq(ready)
        with m.If(ready):
            m.d.sync += valid.eq(Cat(self.i.valid, valid[:-1]))
            m.d.sync += [group[n + 1].eq(group[n]) for n in range(3)]
            for pixel in range(PIXELS_PER_GROUP):
                for c in range(3):
                    sum_ = total[pixel][c]
                    eight = round_shift((sum_ << 8) - sum_, frac_bits)
                    sixteen = round_shift((sum_ << 16) - sum_, frac_bits)
                    m.d.sync += [
                        # Stage 1: T times the background.
                        behind[pixel][c].eq(group[0][pixel].transmittance * self.background[c]),
                        # Stage 2: over it the accumulated colour.
                        total[pixel][c].eq((group[1][pixel].color[c] << up) + behind[pixel][c]),
                        # Stage 3: to the pixel's integers.
                        color[pixel][c].eq(Mux(
                            wide,
                            Mux(sixteen > 65535, 65535, sixteen),
                            Mux(eight > 255, 255, eight))),
                    ]

        # ---- Beats of a group.
        words = Signal(data.ArrayLayout(128, PIXELS_PER_GROUP))
        full8, full16, raw = [], [], []
        for pixel in range(PIXELS_PER_GROUP):
            channels = [color[pixel][c] for c in range(3)]
            full8.append(Cat(*(channel[:8] for channel in channels), C(255, 8)))
            full16.append(Cat(*channels, C(65535, 16)))
            held = group[3][pixel]
            raw.append(Cat(
                *(Cat(held.color[c], C(0, 32 - blend.accumulator.width)) for c in range(3)),
                held.transmittance, C(0, 32 - blend.transmittance.width)))
        m.d.comb += [
            words[0].eq(Mux(state, raw[0], Mux(wide, Cat(full16[0:2]), Cat(full8)))),
            words[1].eq(Mux(state, raw[1], Cat(full16[2:4]))),
            words[2].eq(raw[2]),
            words[3].eq(raw[3]),
        ]

        # ---- Rows: addresses ahead, data behind, both counted within one tile.
        busy = Signal()
        columns = Signal(range(TILE_PX + 1))
        address_rows, data_rows, granted = (Signal(range(TILE_PX + 1), name=name)
                                            for name in ("address_rows", "data_rows", "granted"))
        row_address = Signal(self.shell.address_bits)
        tile_address = Signal.like(row_address)
        band_address = Signal.like(row_address)
        # First tile of the group, and of its row.
        group_begin, row_begin = Signal.like(row_address), Signal.like(row_address)
        begins = (group_begin, row_begin) if self.side > 1 else ()
        tile_column = Signal(12)
        tile_row = Signal(12)
        # Of the frame, from its start on.
        last_column = Signal(12)
        tiles_y = Signal(12)
        shift = Mux(state, 4, Mux(wide, 3, 2))
        row_beats = Signal(range(TILE_PX + 1))
        in_flight = Signal(range(design.outstanding_bursts + 1))
        left = Signal(range(TILE_PX + 1))
        beat = Signal(2)
        # Beats of the group behind the next one; whether the bus has taken the row's address.
        beats_behind = Signal(2)
        granted_any = Signal()
        group_pixels = Signal(3)
        address_move = Signal()
        begin = Signal()
        more = Signal()
        m.d.comb += [
            row_beats.eq(((columns << shift) + 15) >> 4),
            more.eq(busy & ~self.stop & address_rows.any()
                    & (in_flight < design.outstanding_bursts)),
            address_move.eq(~self.o_address.valid | self.o_address.ready),
            begin.eq(more & address_move),
        ]
        with m.If(address_move):
            m.d.sync += [
                self.o_address.valid.eq(more),
                self.o_address.p.address.eq(row_address),
                self.o_address.p.length.eq(row_beats - 1),
            ]
        with m.If(begin):
            m.d.sync += [
                row_address.eq(row_address + self.pitch_bytes),
                address_rows.eq(address_rows - 1),
            ]
        m.d.sync += in_flight.eq(in_flight + begin - self.i_response)

        def beats_behind_first(pixels: Value) -> Value:
            """Beats of a group behind its first, where `pixels` are left of the row."""
            return Mux(state, Mux(pixels >= 4, 3, (pixels - 1)[:2]), Mux(wide, pixels > 2, 0))

        # Data follows only addresses that the bus has taken.
        went = Signal()
        beat_move = Signal()
        beat_begin = Signal()
        group_end = Signal()
        row_end = Signal()
        m.d.comb += [
            went.eq(self.o_address.valid & self.o_address.ready),
            group_pixels.eq(Mux(left < PIXELS_PER_GROUP, left, PIXELS_PER_GROUP)),
            beat_move.eq(~self.o_data.valid | self.o_data.ready),
            beat_begin.eq(beat_move & valid[2] & granted_any),
            group_end.eq(beat_begin & ~beats_behind.any()),
            row_end.eq(group_end & (left <= PIXELS_PER_GROUP)),
            ready.eq(~valid[2] | group_end),
        ]
        strobe_bytes = Signal(7)
        m.d.comb += strobe_bytes.eq((group_pixels << shift) - (beat << 4))
        with m.If(beat_move):
            m.d.sync += self.o_data.valid.eq(beat_begin)
        with m.If(beat_begin):
            m.d.sync += [
                self.o_data.p.data.eq(words.as_value().word_select(beat, 128)),
                self.o_data.p.strobe.eq(Cat(n < strobe_bytes for n in range(16))),
                self.o_data.p.last.eq(row_end),
                beat.eq(Mux(group_end, 0, beat + 1)),
                beats_behind.eq(Mux(beats_behind.any(), beats_behind - 1, Mux(
                    left <= PIXELS_PER_GROUP, beats_behind_first(columns),
                    beats_behind_first(left - PIXELS_PER_GROUP)))),
            ]
        with m.If(row_end):
            m.d.sync += [left.eq(columns), data_rows.eq(data_rows - 1)]
        with m.Elif(group_end):
            m.d.sync += left.eq(left - PIXELS_PER_GROUP)
        m.d.sync += [
            granted.eq(granted + went - row_end),
            granted_any.eq(went | (granted > 1) | (granted.any() & ~row_end)),
        ]

        # ---- Tiles in raster order.
        finished, moves = Signal(), Signal()
        next_address = Signal.like(row_address)
        m.d.comb += [
            finished.eq(busy & (data_rows == 1) & row_end),
            self.i_tile.ready.eq(~busy & ~self.stop),
            self.idle.eq(~self.o_address.valid & ~self.o_data.valid & ~granted.any()
                         & ~in_flight.any()),
        ]
        with m.If(self.start):
            m.d.sync += [
                tile_address.eq(self.frame_address), band_address.eq(self.frame_address),
                *(begin.eq(self.frame_address) for begin in begins),
                last_column.eq((self.width - 1) >> 4),
                tiles_y.eq((self.height + TILE_PX - 1) >> 4),
            ]
        with m.If(self.i_tile.valid & self.i_tile.ready):
            m.d.sync += [
                busy.eq(1), columns.eq(self.i_tile.p.columns), left.eq(self.i_tile.p.columns),
                beats_behind.eq(beats_behind_first(self.i_tile.p.columns)), beat.eq(0),
                address_rows.eq(self.i_tile.p.rows), data_rows.eq(self.i_tile.p.rows),
                row_address.eq(Mux(moves, next_address, tile_address)),
            ]
        # Where the next tile lies is in registers before a tile ends: nothing that it depends on
        # changes meanwhile. The counts of tiles move in the cycle behind the end, `moves`, and two
        # registers follow them; from one end to the next it is at least four cycles.
        m.d.sync += moves.eq(finished)
        with m.If(finished):
            m.d.sync += busy.eq(0)
        bits = self.side.bit_length() - 1
        at_last_column, ends_row, ends_group = (
            Signal(name=name) for name in ("at_last_column", "ends_row", "ends_group"))
        m.d.sync += at_last_column.eq(tile_column == last_column)
        step = tile_address + (TILE_PX << shift)
        below = band_address + (self.pitch_bytes << (4 + bits))
        with m.If(moves):
            m.d.sync += [tile_address.eq(next_address), tile_column.eq(tile_column + 1)]
        if self.side == 1:
            m.d.sync += next_address.eq(Mux(at_last_column, below, step))
            ends_band = moves & at_last_column
        else:
            # The next row of the group begins where this one did, and the next group beside it.
            m.d.sync += [
                ends_row.eq(tile_column[:bits].all() | (tile_column == last_column)),
                ends_group.eq(tile_row[:bits].all() | (tile_row + 1 == tiles_y)),
                next_address.eq(Mux(
                    ends_row,
                    Mux(ends_group,
                        Mux(at_last_column, below,
                            group_begin + ((TILE_PX * self.side) << shift)),
                        row_begin + (self.pitch_bytes << 4)),
                    step)),
            ]
            with m.If(moves & ends_row):
                m.d.sync += row_begin.eq(next_address)
                with m.If(ends_group):
                    m.d.sync += [
                        group_begin.eq(next_address), tile_row.eq(tile_row[bits:] << bits)]
                with m.Else():
                    m.d.sync += [
                        tile_column.eq(tile_column[bits:] << bits), tile_row.eq(tile_row + 1)]
            ends_band = moves & at_last_column & ends_group
        with m.If(ends_band):
            m.d.sync += [
                tile_column.eq(0), tile_row.eq(tile_row + 1), band_address.eq(next_address)]
        m.d.comb += self.done.eq((tile_row == tiles_y) & tiles_y.any() & self.idle)
        return m
