"""Tile lists of Gaussians' numbers: read tile after tile, group after group."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFO, SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.shell import ShellDesign
from splatforge.designs.tilelists import BEAT_IDS, TilelistsDesign
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.ahead import Ahead
from splatforge.hw.lib.axi import READ_TABLE
from splatforge.hw.lib.component import Component
from splatforge.hw.vru import TILES_AHEAD, entry_layout, is_older, placed_tile_layout

__all__ = ["Tilelists"]


class Tilelists(Component):
    """Read the tile table, and the list of every tile, a number an entry.

    Bit-true model: :func:`splatforge.algos.tilelists.tilelists_fixed`. Cycle model:
    :mod:`splatforge.sim.tilelists`.

    The table and the lists share an ID; whose a burst is, is remembered in order. A burst is asked
    for only when there is room for it, so ``i_beat`` is always ready. A list is fetched whole: what
    is left of it when its tile is over is dropped, a beat a cycle.

    Latency: :attr:`latency` cycles from the beat that brings a tile's table entry, if the unit
    waits for it, to the address of its list; a beat that arrives shows its first entry four cycles
    later. Throughput: an entry a cycle, a burst every two cycles. Stall: ``o_address``, ``o_tile``
    and ``o_entry`` may stall for ever; requests stop when the buffer is full.

    Parameters
    ----------
    design : TilelistsDesign
        Buffers.
    shell : ShellDesign
        Bus.
    side : int
        Tiles along a side of the groups in whose order they come, 1, 2 or 4.

    Members
    -------
    start : ``In(1)``
        Begin a frame with the parameters below, which must hold until it ends.
    stop : ``In(1)``
        Ask for nothing more.
    width, height : ``In(16)``
        Frame in pixels.
    table_address, list_address : ``In(address_bits)``
        Of the tile table and of the lists, multiples of 256.
    list_beats : ``In(32)``
        Beats of lists that there are.
    oldest : ``In(4)``
        Number of the oldest tile that is still wanted, of :class:`splatforge.hw.vru.Vru`.
    behind : ``In(1)``
        Something of a tile before `oldest` is on its way behind ``o_entry``.
    overlong : ``Out(1)``
        A tile's list reaches beyond ``list_beats``; stays high until reset.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 1.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel, beats of ID 1; others are not looked at.
    o_tile : ``Out(stream.Signature(Tile))``
        See :func:`splatforge.hw.vru.placed_tile_layout`; each before its entries, at most 7 beyond
        the oldest.
    o_entry : ``Out(stream.Signature(Entry))``
        See :func:`splatforge.hw.vru.entry_layout`; all regions of the tile are reached.
    table_beat, list_beat : ``Out(1)``
        For the counters: a beat of the table, of a list arrives.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    """

    o_address: stream.Interface
    i_beat: stream.Interface
    o_tile: stream.Interface
    o_entry: stream.Interface

    #: Cycles from the beat that brings a tile's table entry to its list's first address: two into
    #: the buffer's output, six of states, the tile's transfer, the register.
    latency = 9

    def __init__(
        self,
        design: TilelistsDesign = TilelistsDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
        side: int = 1,
    ) -> None:
        self.design, self.shell, self.side = design, shell, side
        super().__init__({
            "start": In(1), "stop": In(1), "width": In(16), "height": In(16),
            "table_address": In(shell.address_bits), "list_address": In(shell.address_bits),
            "list_beats": In(32), "oldest": In(TILE_TAG_BITS), "behind": In(1),
            "overlong": Out(1),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_tile": Out(stream.Signature(placed_tile_layout())),
            "o_entry": Out(stream.Signature(entry_layout(design.entry))),
            "table_beat": Out(1), "list_beat": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design, beats = self.design, self.design.burst_beats
        m.submodules.table = table = SyncFIFOBuffered(width=128, depth=2 * beats)
        m.submodules.lists = lists = SyncFIFOBuffered(width=128, depth=design.buffer_beats)
        m.submodules.ahead = ahead = Ahead(unsigned(128))
        self._named = data.StructLayout({"tag": TILE_TAG_BITS, "count": 32})
        m.submodules.names = names = SyncFIFOBuffered(
            width=self._named.size, depth=TILES_AHEAD)
        m.submodules.owners = owners = SyncFIFO(width=1, depth=design.outstanding_bursts + 2)

        # ---- Beats come.
        here, last = Signal(), Signal()
        m.d.comb += [
            self.i_beat.ready.eq(1),
            here.eq(self.i_beat.valid & (self.i_beat.p.id == READ_TABLE)),
            last.eq(here & self.i_beat.p.last),
            owners.r_en.eq(last),
            self.table_beat.eq(here & ~owners.r_data), self.list_beat.eq(here & owners.r_data),
            table.w_en.eq(self.table_beat), table.w_data.eq(self.i_beat.p.data),
            lists.w_en.eq(self.list_beat), lists.w_data.eq(self.i_beat.p.data),
            ahead.i.valid.eq(lists.r_rdy), ahead.i.payload.eq(lists.r_data),
            lists.r_en.eq(ahead.i.ready),
        ]

        # ---- Bursts are asked for. What is reserved was asked for and has not left its buffer.
        table_ask, list_ask = Signal(), Signal()
        table_left, table_index = Signal(24), Signal(24)
        table_length = Signal(range(beats + 1))
        table_reserved = Signal(range(2 * beats + 1))
        list_length = Signal(range(beats + 1))
        list_left, list_index = Signal(31), Signal(32)
        list_reserved = Signal(range(design.buffer_beats + 1))
        list_flying = Signal(range(design.outstanding_bursts + 1))
        flying = Signal(range(design.outstanding_bursts + 3))
        space = Signal(range(beats + 1))
        asking = Signal()
        # Of a cycle ago: nothing is asked for in the cycle behind one in which something was.
        table_due, list_room = Signal(), Signal(init=1)
        m.d.sync += [
            table_due.eq(table_left.any() & (table_reserved <= beats)),
            list_room.eq((list_reserved <= design.buffer_beats - beats)
                         & (list_flying != design.outstanding_bursts)),
        ]
        m.d.comb += [
            table_length.eq(Mux(table_left < beats, table_left, beats)),
            table_ask.eq(table_due & ~self.o_address.valid & ~self.stop),
            # A burst ends where an aligned one would.
            space.eq(beats - list_index % beats),
            list_ask.eq(asking & list_room & ~table_due & ~self.o_address.valid & ~self.stop),
            owners.w_en.eq(table_ask | list_ask), owners.w_data.eq(list_ask),
            self.idle.eq(~flying.any()),
        ]
        m.d.sync += [
            table_reserved.eq(table_reserved + Mux(table_ask, table_length, 0)
                              - (table.r_rdy & table.r_en)),
            list_reserved.eq(list_reserved + Mux(list_ask, list_length, 0)
                             - (lists.r_rdy & lists.r_en)),
            list_flying.eq(list_flying + list_ask - (last & owners.r_data)),
            flying.eq(flying + owners.w_en - last),
        ]
        table_place, list_place = (Signal(self.shell.address_bits, name=name)
                                   for name in ("table_place", "list_place"))
        m.d.sync += [
            table_place.eq(self.table_address + (table_index << 4)),
            list_place.eq(self.list_address + (list_index << 4)),
        ]
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(~self.o_address.valid):
            m.d.sync += [
                self.o_address.valid.eq(owners.w_en), self.o_address.p.id.eq(READ_TABLE),
                self.o_address.p.address.eq(Mux(table_ask, table_place, list_place)),
                self.o_address.p.length.eq(Mux(table_ask, table_length, list_length) - 1),
            ]
        with m.If(table_ask):
            m.d.sync += [
                table_left.eq(table_left - table_length),
                table_index.eq(table_index + table_length)]

        # ---- Tiles, group after group.
        side = self.side
        x, y, last_x, last_y = (Signal(12, name=name) for name in ("x", "y", "last_x", "last_y"))
        last_columns, last_rows = (Signal(range(TILE_PX + 1), name=name)
                                   for name in ("last_columns", "last_rows"))
        columns, rows = (Signal(13, name=name) for name in ("columns", "rows"))
        tiles = Signal(24)
        tag = Signal(TILE_TAG_BITS)
        odd = Signal()
        count, list_end = Signal(32), Signal(33)
        entry = data.View(data.StructLayout({"first": 32, "count": 32}),
                          table.r_data.word_select(odd, 64))
        old = self._entries(m, names, ahead.o)
        tile = self.o_tile
        m.d.comb += [
            tile.p.tile.eq(tag), tile.p.splats.eq(count), tile.p.x.eq(x), tile.p.y.eq(y),
            tile.p.columns.eq(Mux(x == last_x, last_columns, TILE_PX)),
            tile.p.rows.eq(Mux(y == last_y, last_rows, TILE_PX)),
            names.w_data.eq(Cat(tag, count)),
        ]
        with m.FSM(name="tile"):
            with m.State("idle"):
                with m.If(self.start):
                    m.d.sync += [
                        last_x.eq((self.width - 1) >> 4), last_y.eq((self.height - 1) >> 4),
                        columns.eq((self.width + TILE_PX - 1) >> 4),
                        rows.eq((self.height + TILE_PX - 1) >> 4),
                        last_columns.eq((self.width - 1)[:4] + 1),
                        last_rows.eq((self.height - 1)[:4] + 1),
                    ]
                    m.next = "size"
            with m.State("size"):
                m.d.sync += tiles.eq(columns * rows)
                m.next = "begin"
            with m.State("begin"):
                m.d.sync += table_left.eq((tiles + 1) >> 1)
                m.next = "wait"
            with m.State("wait"):
                m.d.comb += table.r_en.eq(odd)
                m.d.sync += [list_index.eq(entry.first), count.eq(entry.count)]
                with m.If(table.r_rdy):
                    m.d.sync += odd.eq(~odd)
                    m.next = "round"
            with m.State("round"):
                m.d.sync += list_left.eq((count + BEAT_IDS - 1) >> 2)
                m.next = "sum"
            with m.State("sum"):
                m.d.sync += list_end.eq(list_index + list_left)
                m.next = "judge"
            with m.State("judge"):
                with m.If(list_end > self.list_beats):
                    m.d.sync += self.overlong.eq(1)
                    m.next = "end"
                # Not until its number can be told from all that are on their way.
                with m.Elif(~is_older(tag, self.oldest) & ~old & ~self.behind & names.w_rdy):
                    m.next = "announce"
            with m.State("announce"):
                m.d.comb += [
                    tile.valid.eq(1), names.w_en.eq(tile.ready & count.any())]
                with m.If(tile.ready):
                    m.next = "aim"
                    with m.If(~count.any()):
                        m.next = "next"
            with m.State("aim"):
                m.d.sync += [list_length.eq(Mux(list_left < space, list_left, space)), asking.eq(1)]
                m.next = "ask"
            with m.State("ask"):
                with m.If(list_ask):
                    m.d.sync += [
                        asking.eq(0),
                        list_index.eq(list_index + list_length),
                        list_left.eq(list_left - list_length)]
                    m.next = "aim"
                    with m.If(list_left == list_length):
                        m.next = "next"
            with m.State("next"):
                ends_row = ((x & (side - 1)) == side - 1) | (x == last_x)
                ends_group = ((y & (side - 1)) == side - 1) | (y == last_y)
                m.d.sync += tag.eq(tag + 1)
                with m.If(~ends_row):
                    m.d.sync += x.eq(x + 1)
                with m.Elif(~ends_group):
                    m.d.sync += [x.eq(x & ~C(side - 1, 12)), y.eq(y + 1)]
                with m.Elif(x == last_x):
                    m.d.sync += [x.eq(0), y.eq(y + 1)]
                with m.Else():
                    m.d.sync += [x.eq(x + 1), y.eq(y & ~C(side - 1, 12))]
                m.next = "wait"
                with m.If((x == last_x) & (y == last_y)):
                    m.next = "end"
            with m.State("end"):
                pass
        return m

    def _entries(self, m, names, lists):
        """Beats taken apart; returns whether something here is of a tile that is over."""
        out = self.o_entry
        active, left, place, tag = Signal(), Signal(32), Signal(range(BEAT_IDS)), Signal(
            TILE_TAG_BITS, name="entries_tag")
        head = data.View(self._named, names.r_data)
        dead, emit, drop = Signal(), Signal(), Signal()
        gone = Signal(range(BEAT_IDS + 1))
        m.d.comb += [
            dead.eq(is_older(tag, self.oldest)),
            emit.eq(active & lists.valid & ~dead & (~out.valid | out.ready)),
            drop.eq(active & lists.valid & dead),
            # Numbers of the beat that go.
            gone.eq(Mux(drop, BEAT_IDS - place, 1)),
            lists.ready.eq(drop | (emit & ((place == BEAT_IDS - 1) | (left == 1)))),
            names.r_en.eq(~active),
        ]
        with m.If(out.ready):
            m.d.sync += out.valid.eq(0)
        with m.If(emit):
            m.d.sync += [
                out.valid.eq(1), out.p.feature.eq(lists.payload.word_select(place, 32)),
                out.p.subtiles.eq(~0), out.p.tile.eq(tag)]
        with m.If(emit | drop):
            m.d.sync += [
                place.eq(Mux(lists.ready, 0, place + 1)),
                left.eq(left - gone), active.eq(left > gone)]
        with m.If(~active):
            m.d.sync += [active.eq(names.r_rdy), tag.eq(head.tag), left.eq(head.count)]
        old = Signal()
        m.d.comb += old.eq(
            (active & dead) | (names.r_rdy & is_older(head.tag, self.oldest))
            | (out.valid & is_older(out.p.tile, self.oldest)))
        return old
