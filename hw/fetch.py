"""Reading tile lists: the tile table ahead, splat records into a buffer, early stops cut short."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.fetch import TILE_PX, FetchDesign
from splatforge.designs.shell import ShellDesign
from splatforge.hw.array import splat_layout, tile_layout
from splatforge.hw.lib.axi import READ_SPLATS, READ_TABLE
from splatforge.hw.lib.component import Component

__all__ = ["TILES_AHEAD", "Fetch", "address_layout", "beat_layout"]

#: Tiles whose splats may have been requested while an older tile is blended.
TILES_AHEAD = 4


def address_layout(shell: ShellDesign) -> data.StructLayout:
    """One read burst."""
    return data.StructLayout({"id": 2, "address": shell.address_bits, "length": 8})


def beat_layout(shell: ShellDesign) -> data.StructLayout:
    """One beat of read data."""
    return data.StructLayout({"id": 2, "data": shell.data_bits, "last": 1})


class Fetch(Component):
    """Read the tile table and the splats of tile after tile in raster order.

    Bit-true model: :func:`splatforge.algos.fetch.fetch_fixed`. Cycle model:
    :mod:`splatforge.sim.fetch`.

    Two sequences of read bursts share the address channel, the tile table first. Splat bursts end
    at aligned multiples of ``burst_beats``, so that none crosses 4 KiB. A burst is asked for only
    when the buffer has room for it, so ``i_beat`` is always ready. A ``skip`` ends the current
    tile's list: what is buffered or in flight of it is dropped without being looked at, what has
    not been asked for is not.

    Latency: :attr:`latency` cycles from the beat that completes a tile's table entry to the address
    of its first splats; a beat that arrives can leave on ``o_splat`` two cycles later. Throughput:
    one splat and one burst address per cycle. Stall: ``o_splat`` and ``o_tile`` may stall for ever;
    requests stop when the buffer is full.

    Parameters
    ----------
    design : FetchDesign
        Buffers.
    shell : ShellDesign
        Bus.

    Members
    -------
    start : ``In(1)``
        Begin a frame with the parameters below, which must hold until it ends.
    stop : ``In(1)``
        Ask for nothing more.
    width, height : ``In(16)``
        Frame in pixels.
    table_address, splat_address : ``In(address_bits)``
        Of the tile table and of the records, multiples of 256.
    splats : ``In(32)``
        Records that there are.
    overlong : ``Out(1)``
        A tile's list reaches beyond ``splats``; stays high until reset.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel, beats of IDs 1 and 2; ``ready`` is constantly high.
    o_tile : ``Out(stream.Signature(Tile))``
        See :func:`splatforge.hw.array.tile_layout`.
    o_splat : ``Out(stream.Signature(Splat))``
        Records of the tiles in order.
    skip : ``In(1)``
        The tile taken last from ``o_tile`` ends here.
    dropped : ``Out(range)``
        Records dropped in this cycle.
    """

    i_beat: stream.Interface
    o_address: stream.Interface
    o_tile: stream.Interface
    o_splat: stream.Interface

    #: Cycles from the beat that completes a tile table entry to the tile's first burst address.
    latency = 7

    def __init__(
        self,
        design: FetchDesign = FetchDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        self.design, self.shell = design, shell
        super().__init__({
            "start": In(1), "stop": In(1), "width": In(16), "height": In(16),
            "table_address": In(shell.address_bits), "splat_address": In(shell.address_bits),
            "splats": In(32), "overlong": Out(1), "idle": Out(1),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_tile": Out(stream.Signature(tile_layout())),
            "o_splat": Out(stream.Signature(splat_layout(design.splat))),
            "skip": In(1),
            "dropped": Out(range(design.buffer_splats + 2)),
        })

    def elaborate(self, platform):
        m = Module()
        design, shell = self.design, self.shell
        beats = design.burst_beats
        depth = design.buffer_splats
        # Positions in the splat stream, modulo a power of two that tells apart all that can be
        # in flight, buffered, or dropped while in flight.
        position = range(4 * max(depth, design.outstanding_bursts * beats))
        running = Signal()

        # The bus address register: a burst waits here until it is accepted.
        ask = Signal()
        ask_payload = Signal(address_layout(shell))
        ask_free = Signal()
        m.d.comb += [
            self.o_address.valid.eq(ask), self.o_address.payload.eq(ask_payload),
            ask_free.eq(~ask | self.o_address.ready),
        ]
        with m.If(self.o_address.ready):
            m.d.sync += ask.eq(0)

        arrived_table = Signal()
        arrived_splat = Signal()
        m.d.comb += [
            self.i_beat.ready.eq(1),
            arrived_table.eq(self.i_beat.valid & (self.i_beat.p.id == READ_TABLE)),
            arrived_splat.eq(self.i_beat.valid & (self.i_beat.p.id == READ_SPLATS)),
        ]

        # ---- Tile table: beats of two entries, buffered two bursts deep.
        # Of the frame, from its start on: tiles, and pixels of the last ones.
        tiles_x, tiles_y, last_column, last_row = (
            Signal(12, name=name) for name in ("tiles_x", "tiles_y", "last_column", "last_row"))
        last_columns, last_rows = (Signal(range(TILE_PX + 1), name=name)
                                   for name in ("last_columns", "last_rows"))
        tiles = Signal(24)
        table_left = Signal(24)
        table_more = Signal()
        entry_here = Signal()
        table_room = Signal(init=1)
        table_ahead = Signal(range(2 * beats + 1))
        table_asked = Signal(24)
        table_next = Signal(25)
        table_arrived = Signal(24)
        m.submodules.table = table = Memory(shape=128, depth=2 * beats, init=[])
        table_write, table_read = table.write_port(), table.read_port()
        table_whole = Signal()
        table_length = Signal(range(beats + 1))
        table_ask = Signal()
        m.d.comb += [
            table_write.addr.eq(table_arrived % (2 * beats)),
            table_write.data.eq(self.i_beat.p.data),
            table_write.en.eq(arrived_table),
            table_read.addr.eq((table_next >> 1) % (2 * beats)),
            table_read.en.eq(1),
            table_whole.eq(table_left >= beats),
            table_length.eq(Mux(table_whole, beats, table_left)),
            table_ask.eq(running & ~self.stop & ask_free & table_more & table_room),
            # Never more than the buffer holds: a few bits tell.
            table_ahead.eq(table_asked - (table_next >> 1)),
        ]
        # Whether another burst has room: an entry that is read makes room a cycle later.
        m.d.sync += table_room.eq(Mux(
            table_ask, table_ahead + table_length <= beats, table_ahead <= beats))
        with m.If(arrived_table):
            m.d.sync += table_arrived.eq(table_arrived + 1)
        m.d.sync += entry_here.eq(
            (table_arrived - (table_next >> 1))[:(2 * beats).bit_length()].any())

        # ---- Tiles: read an entry, announce the tile, ask for its splats.
        entry = data.View(data.StructLayout({"first": 32, "count": 32}),
                          table_read.data.word_select(table_next[0], 64))
        first, count = (Signal(32, name=name) for name in ("first", "count"))
        list_end = Signal(33)
        column = Signal(12)
        row = Signal(12)
        index = Signal(32)
        tile_number, tile_taken = (Signal(range(2 * TILES_AHEAD + 2), name=name)
                                   for name in ("tile_number", "tile_taken"))
        m.submodules.tiles = queue = SyncFIFOBuffered(
            width=tile_layout().size, depth=TILES_AHEAD)
        announced = Signal(tile_layout())
        m.d.comb += [
            announced.columns.eq(Mux(column == last_column, last_columns, TILE_PX)),
            announced.rows.eq(Mux(row == last_row, last_rows, TILE_PX)),
            announced.splats.eq(count),
            queue.w_data.eq(announced),
            self.o_tile.valid.eq(queue.r_rdy),
            self.o_tile.payload.eq(queue.r_data),
            queue.r_en.eq(self.o_tile.ready),
        ]

        requested = Signal(position)
        taken = Signal(position)
        arrived = Signal(position)
        used = Signal(position)
        room = Signal(init=1)
        outstanding = Signal(range(design.outstanding_bursts + 1))
        finished_burst = Signal()
        splat_ask = Signal()
        # The next burst of the tile's splats, and how many are to come behind it.
        length = Signal(range(beats + 1))
        behind = Signal(32)
        behind_any = Signal()
        behind_first = Signal(signed(34))
        space = Signal(range(beats + 1))
        skip_here = Signal()
        m.d.comb += [
            used.eq(requested - taken),
            behind_first.eq(count - space),
            finished_burst.eq(arrived_splat & self.i_beat.p.last),
            # The tile that is cut short is the one whose splats are being asked for.
            skip_here.eq(self.skip & ((tile_number + 1)[:len(tile_taken)] == tile_taken)),
        ]
        with m.FSM(name="tile"):
            with m.State("idle"):
                with m.If(self.start):
                    m.d.sync += [
                        tiles_x.eq((self.width + TILE_PX - 1) >> 4),
                        tiles_y.eq((self.height + TILE_PX - 1) >> 4),
                        last_column.eq((self.width - 1) >> 4),
                        last_row.eq((self.height - 1) >> 4),
                        last_columns.eq((self.width - 1)[:4] + 1),
                        last_rows.eq((self.height - 1)[:4] + 1),
                    ]
                    m.next = "count"
            with m.State("count"):
                m.d.sync += tiles.eq(tiles_x * tiles_y)
                m.next = "begin"
            with m.State("begin"):
                m.d.sync += [running.eq(1), table_more.eq(1), table_left.eq((tiles + 1) >> 1)]
                m.next = "wait"
            with m.State("wait"):
                # The read port takes this cycle.
                with m.If(entry_here):
                    m.next = "sum"
            with m.State("sum"):
                m.d.sync += [
                    first.eq(entry.first), count.eq(entry.count),
                    # A burst ends where an aligned one would.
                    space.eq(beats - entry.first % beats),
                    list_end.eq(entry.first + entry.count),
                ]
                m.next = "announce"
            with m.State("announce"):
                with m.If(list_end > self.splats):
                    m.d.sync += self.overlong.eq(1)
                    m.next = "end"
                with m.Elif(queue.w_rdy):
                    m.d.comb += queue.w_en.eq(1)
                    m.d.sync += [
                        index.eq(first), table_next.eq(table_next + 1),
                        length.eq(Mux(behind_first < 0, count, space)),
                        behind.eq(Mux(behind_first < 0, 0, behind_first)),
                    ]
                    m.next = "aim"
            with m.State("aim"):
                m.d.sync += behind_any.eq(behind.any())
                m.next = "ask"
            with m.State("ask"):
                m.d.comb += splat_ask.eq(
                    ~self.stop & ask_free & ~table_ask & ~skip_here & length.any()
                    & room & (outstanding < design.outstanding_bursts))
                with m.If(splat_ask):
                    m.d.sync += [
                        index.eq(index + length),
                        length.eq(Mux(behind < beats, behind, beats)),
                        behind.eq(Mux(behind < beats, 0, behind - beats)),
                        behind_any.eq(behind > beats),
                    ]
                with m.If(skip_here | ~length.any() | (splat_ask & ~behind_any)):
                    m.d.sync += tile_number.eq(tile_number + 1)
                    with m.If(column == last_column):
                        m.d.sync += [column.eq(0), row.eq(row + 1)]
                    with m.Else():
                        m.d.sync += column.eq(column + 1)
                    m.next = "wait"
                    with m.If((column == last_column) & (row == last_row)):
                        m.next = "end"
            with m.State("end"):
                pass

        with m.If(table_ask):
            m.d.sync += [
                ask.eq(1), ask_payload.id.eq(READ_TABLE),
                ask_payload.address.eq(self.table_address + (table_asked << 4)),
                ask_payload.length.eq(table_length - 1),
                table_asked.eq(table_asked + table_length),
                table_left.eq(Mux(table_whole, table_left - beats, 0)),
                table_more.eq(table_left > beats),
            ]
        with m.Elif(splat_ask):
            m.d.sync += [
                ask.eq(1), ask_payload.id.eq(READ_SPLATS),
                ask_payload.address.eq(self.splat_address + (index << 4)),
                ask_payload.length.eq(length - 1),
                requested.eq(requested + length),
            ]
        m.d.sync += outstanding.eq(outstanding + splat_ask - finished_burst)
        # Whether a whole burst fits behind what has been asked for: what the array takes makes room
        # a cycle later.
        m.d.sync += room.eq(Mux(
            splat_ask, (used + length)[:len(used)] <= depth - beats, used <= depth - beats))

        # ---- Splat buffer: written in order of arrival, read ahead into the output register.
        m.submodules.splats = buffer = Memory(shape=128, depth=depth, init=[])
        write, read = buffer.write_port(), buffer.read_port()
        valid = Signal()
        advance = Signal()
        m.d.comb += [
            write.addr.eq(arrived % depth), write.data.eq(self.i_beat.p.data),
            write.en.eq(arrived_splat),
            advance.eq(~valid | self.o_splat.ready),
            read.addr.eq(taken % depth), read.en.eq(advance),
            self.o_splat.valid.eq(valid), self.o_splat.payload.eq(read.data),
        ]
        ahead = Signal(signed(len(arrived)))
        m.d.comb += ahead.eq(arrived - taken)
        with m.If(arrived_splat):
            m.d.sync += arrived.eq(arrived + 1)
        with m.If(advance):
            m.d.sync += valid.eq(ahead > 0)
            with m.If(ahead > 0):
                m.d.sync += taken.eq(taken + 1)

        # ---- Early stop: jump to the end of the tile, or to all that was asked for of it.
        tile_end = Signal(position)
        stop_at = Signal(position)
        with m.If(self.o_tile.valid & self.o_tile.ready):
            m.d.sync += [
                tile_end.eq(taken - valid + self.o_tile.p.splats), tile_taken.eq(tile_taken + 1),
            ]
        m.d.comb += stop_at.eq(Mux(skip_here, requested, tile_end))
        with m.If(self.skip):
            m.d.sync += [valid.eq(0), taken.eq(stop_at)]
            m.d.comb += self.dropped.eq(stop_at - (taken - valid))

        in_flight = Signal(range(2 * design.outstanding_bursts + 8))
        went = Signal()
        came = Signal()
        m.d.comb += [
            went.eq(self.o_address.valid & self.o_address.ready),
            came.eq((arrived_table | arrived_splat) & self.i_beat.p.last),
            self.idle.eq(~ask & ~in_flight.any()),
        ]
        m.d.sync += in_flight.eq(in_flight + went - came)
        return m
