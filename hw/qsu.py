"""Tiles in raster order, their lists partitioned into chunks in order of depth."""

from amaranth.hdl import *
from amaranth.lib import data, stream, wiring
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.entry import TILE_TAG_BITS
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.lists import ListsDesign
from splatforge.designs.qsu import QsuDesign
from splatforge.designs.shell import ShellDesign
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_LISTS
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.list_reader import ListReader, listed_layout
from splatforge.hw.lists import answer_layout, append_layout, range_layout
from splatforge.hw.vru import is_older, listed_tile_layout

__all__ = ["Qsu"]


class Qsu(Component):
    """Announce tile after tile, and give its entries as chunks, nearest first.

    Bit-true model: :func:`splatforge.algos.qsu.qsu_fixed`. Cycle model:
    :mod:`splatforge.sim.qsu`.

    A list no longer than a chunk is one. A longer one is read, each entry goes to the list of its
    bucket, and then bucket after bucket is looked at in the same way; how far each level has come
    is on a stack. Nothing further is asked of a tile that is over, but a partition that has begun
    is finished. Pages of buckets are used again for the next tile that is partitioned, when all
    chunks that were given have been read.

    Latency: :attr:`latency` cycles from the end of a tile to the first chunk of the next, 6 of them
    the answer's, if it is not partitioned; an entry passes in 3. Throughput: an entry a cycle while
    partitioning.
    Stall: every output may stall for ever. No ``ready`` depends on an input.

    Parameters
    ----------
    design : QsuDesign
        Buckets and chunk.
    lists : ListsDesign
        The lists, those of buckets among them.
    shell : ShellDesign
        Bus.

    Members
    -------
    start : ``In(1)``
        Begin with the first tile; the lists of all tiles are flushed.
    stop : ``In(1)``
        Read nothing more.
    width, height : ``In(16)``
        Frame in pixels; must hold until it ends.
    base_address : ``In(address_bits)``
        Of page 0.
    oldest : ``In(4)``
        Number of the oldest tile that is still wanted, of :class:`splatforge.hw.vru.Vru`.
    behind : ``In(1)``
        Something of a tile before `oldest` is on its way, in :class:`splatforge.hw.bsu.Bsu` or
        :class:`splatforge.hw.vru.Vru`. Of tiles more than 8 apart a number does not tell which is
        older: none is announced.
    o_tile : ``Out(stream.Signature(ListedTile))``
        Tiles in raster order, each before its chunks, at most 7 beyond the oldest.
    o_chunk : ``Out(stream.Signature(Listed))``
        Lists of one chunk each, with the tile's number; all of a tile's before the next tile's.
    i_loaded : ``In(1)``
        In this cycle a chunk has been read, or will not be.
    o_query : ``Out(stream.Signature(range(lists)))``, i_answer : ``In(stream.Signature(Answer))``
        To and from :class:`splatforge.hw.lists.Lists`, as the next three.
    o_range : ``Out(stream.Signature(Range))``
        Buckets to clear and to flush.
    o_entry : ``Out(stream.Signature(Append))``
        Entries to their buckets.
    i_lists_idle : ``In(1)``
        All that was taken is written and answered.
    release : ``Out(1)``
        Pages of buckets are free again.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 1.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel.
    partitioned : ``Out(1)``
        For the counters: a list is going to be partitioned.
    busy, stalled : ``Out(1)``
        For the counters: a beat of entries is taken, one waits.
    done : ``Out(1)``
        All of the frame has been given.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    """

    o_tile: stream.Interface
    o_chunk: stream.Interface
    o_query: stream.Interface
    i_answer: stream.Interface
    o_range: stream.Interface
    o_entry: stream.Interface
    o_address: stream.Interface
    i_beat: stream.Interface

    #: Cycles from the transfer of a tile's last chunk to the first in which the next one's can be
    #: given, if its list is one and the answer takes the six of the lists.
    latency = 12

    def __init__(
        self,
        design: QsuDesign = QsuDesign(),  # noqa: B008
        lists: ListsDesign = ListsDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        design.check_lists(lists)
        self.design, self.lists, self.shell = design, lists, shell
        super().__init__({
            "start": In(1), "stop": In(1), "width": In(16), "height": In(16),
            "base_address": In(shell.address_bits), "oldest": In(TILE_TAG_BITS),
            "behind": In(1),
            "o_tile": Out(stream.Signature(listed_tile_layout())),
            "o_chunk": Out(stream.Signature(listed_layout(lists))),
            "i_loaded": In(1),
            "o_query": Out(stream.Signature(range(lists.lists))),
            "i_answer": In(stream.Signature(answer_layout(lists))),
            "o_range": Out(stream.Signature(range_layout(lists))),
            "o_entry": Out(stream.Signature(append_layout(lists))),
            "i_lists_idle": In(1), "release": Out(1),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "partitioned": Out(1), "busy": Out(1), "stalled": Out(1), "done": Out(1),
            "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design, lists = self.design, self.lists
        buckets, bucket_bits = design.buckets, design.buckets.bit_length() - 1
        levels = design.levels(lists)
        m.submodules.reader = reader = ListReader(READ_LISTS, lists, self.shell)
        wiring.connect(m, reader.o_address, wiring.flipped(self.o_address))
        wiring.connect(m, wiring.flipped(self.i_beat), reader.i_beat)
        m.d.comb += [
            reader.stop.eq(self.stop), reader.base_address.eq(self.base_address),
            self.idle.eq(reader.idle),
        ]

        # ---- Where the frame is, and what is known of the list that is looked at.
        column, row, last_column, last_row = (
            Signal(12, name=name) for name in ("column", "row", "last_column", "last_row"))
        tile = Signal(range(lists.tiles))
        tag = tile[:TILE_TAG_BITS]
        known = Signal(answer_layout(lists))
        at = Signal(range(lists.lists))
        inside = Signal()
        level = Signal(range(levels + 1))
        bucket = Signal(range(buckets + 1))
        first = Signal(range(lists.lists))
        unread = Signal(range(lists.tiles))
        span = Signal(lists.entry.key_bits)
        shift = Signal(range(lists.entry.key_bits))
        dead = Signal()
        sent = Signal()
        m.d.comb += [
            first.eq(lists.tiles + (level << bucket_bits)),
            sent.eq(self.o_chunk.valid & self.o_chunk.ready),
        ]
        m.d.sync += [
            unread.eq(unread + sent - self.i_loaded),
            # As of a cycle ago.
            dead.eq(inside & is_older(tag, self.oldest)),
            last_column.eq((self.width - 1) >> 4), last_row.eq((self.height - 1) >> 4),
        ]
        m.submodules.stack = stack = Memory(shape=len(bucket), depth=levels, init=[])
        push, pop = stack.write_port(), stack.read_port(domain="comb")
        m.d.comb += [push.addr.eq(level), push.data.eq(bucket), pop.addr.eq(level)]

        pixels_x, pixels_y = Signal(16), Signal(16)
        m.d.sync += [
            pixels_x.eq(self.width - (column << 4)), pixels_y.eq(self.height - (row << 4))]
        m.d.comb += [
            self.o_chunk.p.page.eq(known.page), self.o_chunk.p.count.eq(known.count),
            self.o_chunk.p.tag.eq(tag),
            self.o_query.payload.eq(at),
            self.o_range.p.first.eq(first), self.o_range.p.count.eq(buckets),
            reader.i_list.p.page.eq(known.page), reader.i_list.p.count.eq(known.count),
            reader.i_list.p.tag.eq(tag),
        ]

        ended = self._partition(m, reader, known.low, shift, first)
        with m.FSM(name="sort") as fsm:
            with m.State("wait"):
                with m.If(self.start):
                    m.d.sync += [tile.eq(0), column.eq(0), row.eq(0), at.eq(0)]
                    m.next = "query"
            with m.State("query"):
                m.d.comb += self.o_query.valid.eq(1)
                with m.If(self.o_query.ready):
                    m.next = "answer"
            with m.State("answer"):
                m.d.comb += self.i_answer.ready.eq(1)
                m.d.sync += known.eq(self.i_answer.payload)
                with m.If(self.i_answer.valid):
                    m.next = "decide"
                    with m.If(~inside):
                        m.next = "announce"
            with m.State("announce"):
                tile_now = self.o_tile.p
                m.d.sync += [
                    tile_now.tile.eq(tag), tile_now.splats.eq(known.count),
                    tile_now.columns.eq(Mux(pixels_x > TILE_PX, TILE_PX, pixels_x)),
                    tile_now.rows.eq(Mux(pixels_y > TILE_PX, TILE_PX, pixels_y)),
                ]
                with m.If(~is_older(tag, self.oldest) & ~self.behind):
                    m.next = "tell"
            with m.State("tell"):
                m.d.comb += self.o_tile.valid.eq(1)
                with m.If(self.o_tile.ready):
                    m.next = "decide"
            with m.State("decide"):
                m.d.sync += span.eq(known.high - known.low)
                with m.If(dead | ~known.count.any()):
                    m.next = "next"
                with m.Elif(known.count <= design.chunk):
                    m.next = "chunk"
                with m.Elif(inside):
                    # Where this level goes on when the next one is through.
                    m.d.comb += push.en.eq(1)
                    m.d.sync += level.eq(level + 1)
                    m.next = "clear"
                with m.Else():
                    m.next = "release"
            with m.State("chunk"):
                m.d.comb += self.o_chunk.valid.eq(1)
                with m.If(self.o_chunk.ready):
                    m.next = "next"
            with m.State("release"):
                with m.If(~unread.any()):
                    m.d.comb += self.release.eq(1)
                    m.d.sync += inside.eq(1)
                    m.next = "clear"
            with m.State("clear"):
                m.d.comb += self.o_range.valid.eq(1)
                m.d.sync += shift.eq(0)
                for bit in range(bucket_bits, lists.entry.key_bits):
                    with m.If(span[bit]):
                        m.d.sync += shift.eq(bit + 1 - bucket_bits)
                with m.If(self.o_range.ready):
                    m.next = "read"
            with m.State("read"):
                m.d.comb += reader.i_list.valid.eq(1)
                with m.If(reader.i_list.ready):
                    m.d.comb += self.partitioned.eq(1)
                    m.next = "partition"
            with m.State("partition"):
                with m.If(ended):
                    m.next = "flush"
            with m.State("flush"):
                m.d.comb += self.o_range.valid.eq(1)
                with m.If(self.o_range.ready):
                    m.next = "settle"
            with m.State("settle"):
                m.d.sync += [bucket.eq(0), at.eq(first)]
                with m.If(self.i_lists_idle):
                    m.next = "query"
            with m.State("next"):
                m.d.sync += bucket.eq(bucket + 1)
                with m.If(inside & ~dead & (bucket != buckets - 1)):
                    m.d.sync += at.eq(at + 1)
                    m.next = "query"
                with m.Elif(inside & ~dead & level.any()):
                    # The level above goes on; its last bucket may have been the one behind.
                    m.d.sync += level.eq(level - 1)
                    m.next = "pop"
                with m.Else():
                    m.d.sync += [
                        inside.eq(0), level.eq(0), tile.eq(tile + 1), at.eq(tile + 1),
                        column.eq(column + 1),
                    ]
                    m.next = "query"
                    with m.If(column == last_column):
                        m.d.sync += [column.eq(0), row.eq(row + 1)]
                        with m.If(row == last_row):
                            m.next = "done"
            with m.State("pop"):
                m.d.sync += [bucket.eq(pop.data), at.eq(first + pop.data)]
                m.next = "next"
            with m.State("done"):
                m.d.comb += self.done.eq(1)
        # Beside the FSM: a payload of which a part is constant must not be driven within it, the
        # constant would be an `always @*` that nothing triggers.
        m.d.comb += self.o_range.p.flush.eq(fsm.ongoing("flush"))
        return m

    def _partition(self, m, reader, low, shift, first):
        """Entries of a pair one after another, to their buckets; returns when the last has gone."""
        design, entry = self.design, self.lists.entry
        bits = design.buckets.bit_length() - 1
        pair = reader.o_pair
        waits = Signal(2)
        held = Signal(data.ArrayLayout(entry.width, 2))
        held_last = Signal()
        move = Signal()
        valid, last = Signal(), Signal()
        distance = Signal(entry.key_bits)
        word = Signal(entry.width)
        o_last = Signal()
        ended = Signal()
        low_goes = waits[0]
        m.d.comb += [
            move.eq(~self.o_entry.valid | self.o_entry.ready),
            pair.ready.eq(~waits.any() | (move & ~waits.all())),
            self.busy.eq(pair.valid & pair.ready), self.stalled.eq(pair.valid & ~pair.ready),
            ended.eq(self.o_entry.valid & self.o_entry.ready & o_last),
        ]
        chosen = Mux(low_goes, held[0], held[1])
        with m.If(move):
            m.d.sync += [
                # 1: an entry of the pair, and how far it is from the least.
                valid.eq(waits.any()), word.eq(chosen),
                distance.eq(chosen[:entry.key_bits] - low),
                last.eq(held_last & ~waits.all()),
                waits.eq(Mux(low_goes, waits & 2, 0)),
                # 2: its bucket.
                self.o_entry.valid.eq(valid), self.o_entry.p.entry.eq(word), o_last.eq(last),
                self.o_entry.p.list.eq(first + (distance >> shift)[:bits]),
            ]
        with m.If(self.busy):
            m.d.sync += [waits.eq(pair.p.valid), held.eq(pair.p.entries),
                         held_last.eq(pair.p.last)]
        return ended
