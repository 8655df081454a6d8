"""In front of the rendering array: features fetched through a cache and made into splats."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.entry import TILE_TAG_BITS, EntryFormat
from splatforge.designs.feature import FEATURE_BYTES
from splatforge.designs.fetch import TILE_PX, SplatFormat
from splatforge.designs.shell import ShellDesign
from splatforge.designs.vru import REGION_PX, VruDesign
from splatforge.hw.array import splat_layout, tile_layout
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_FEATURES
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.splat_setup import SplatSetup, feature_layout

__all__ = ["TILES_AHEAD", "Vru", "entry_layout", "is_older", "listed_tile_layout",
           "numbered_splat_layout", "placed_tile_layout"]

#: Tiles that may have been announced and not yet be taken by the array.
TILES_AHEAD = 8


def entry_layout(entry: EntryFormat) -> data.StructLayout:
    """One entry of a tile's list in its place; its depth has done its work."""
    return data.StructLayout({
        "feature": entry.feature_bits, "subtiles": entry.subtile_bits, "tile": TILE_TAG_BITS})


def listed_tile_layout() -> data.StructLayout:
    """A tile before its entries: its number, its part in the frame, and how many will come."""
    return data.StructLayout({
        "tile": TILE_TAG_BITS, "columns": range(TILE_PX + 1), "rows": range(TILE_PX + 1),
        "splats": 32})


def placed_tile_layout() -> data.StructLayout:
    """The same with the tile's column and row in the frame."""
    return data.StructLayout({**listed_tile_layout().members, "x": 12, "y": 12})


def numbered_splat_layout(splat: SplatFormat, number_bits: int) -> data.StructLayout:
    """A splat, and the lowest bits of its feature's number."""
    return data.StructLayout({"splat": splat_layout(splat), "id": number_bits})


def is_older(tile: Value, oldest: Value) -> Value:
    """Whether the tile numbered `tile` lies before `oldest`.

    They are of the same width, and at most half of its range apart.
    """
    return (tile - oldest)[len(oldest) - 1]


class Vru(Component):
    """Fetch the feature of every entry, and work out its splat in coordinates of its tile.

    Bit-true model: :func:`splatforge.algos.vru.vru_fixed`. Cycle model:
    :mod:`splatforge.sim.vru`.

    An entry looks its feature's number up among the cache's tags, in three stages; a miss takes the
    place of what was there and asks for two beats. What the two before have written is passed on.
    Entries wait in order between the tags and the data: there a miss takes what has arrived and
    leaves it in the cache, a hit finds what an earlier entry left. So hits never wait for anything
    but the entries before them, and a burst is asked for only when there is room for it:
    ``i_beat`` is always ready. Then come eight stages of arithmetic.

    ``skip`` ends the current tile. What is left of it is dropped: behind ``oldest``, an entry asks
    for nothing, and a splat is not offered.

    Latency: :attr:`latency` cycles from an entry that hits to its splat on ``o_splat``. Throughput:
    one entry and one splat a cycle, one miss every two. Stall: ``o_splat`` and ``o_tile`` may stall
    for ever; entries then stall. Behind ``start`` entries wait until the tags are cleared, one a
    cycle. No ``ready`` depends on an input combinationally.

    Parameters
    ----------
    design : VruDesign
        Cache and formats.
    shell : ShellDesign
        Bus.
    placed : bool
        Whether tiles come with their place in the frame, in any order, or in raster order.
    number_bits : int
        Lowest bits of a feature's number that go with its splat, at least those of its place in the
        cache; 0 for none.

    Members
    -------
    start : ``In(1)``
        Begin a frame with the parameters below, which must hold until it ends.
    stop : ``In(1)``
        Ask for nothing more.
    width : ``In(16)``
        Frame in pixels; not where tiles are placed.
    feature_address : ``In(address_bits)``
        Of the feature records, a multiple of 32.
    i_tile : ``In(stream.Signature(ListedTile))``
        Tiles in order, each before its entries; :func:`placed_tile_layout` where they are placed.
    i_entry : ``In(stream.Signature(Entry))``
        Entries of the tiles in order, see :func:`entry_layout`.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 3.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel, beats of ID 3; others are not looked at.
    o_tile : ``Out(stream.Signature(Tile))``
        See :func:`splatforge.hw.array.tile_layout`.
    o_splat : ``Out(stream.Signature(Splat))``
        See :func:`splatforge.hw.array.splat_layout`, or :func:`numbered_splat_layout` where
        numbers go with them.
    skip : ``In(1)``
        The tile taken last from ``o_tile`` ends here.
    oldest : ``Out(4)``
        Number of the oldest tile that is still wanted.
    behind : ``Out(1)``
        An entry of a tile before that waits for its feature: a tile more could be taken for it.
    hit, miss : ``Out(1)``
        For the counters: an entry found its feature in the cache, or asked for it.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    """

    i_tile: stream.Interface
    i_entry: stream.Interface
    o_address: stream.Interface
    i_beat: stream.Interface
    o_tile: stream.Interface
    o_splat: stream.Interface

    #: Cycles from the transfer of an entry that hits to the first in which its splat can transfer:
    #: three of the tags, three of the queue, the cache's data, eight of arithmetic.
    latency = 15

    def __init__(
        self,
        design: VruDesign = VruDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
        placed: bool = False,
        number_bits: int = 0,
    ) -> None:
        self.design, self.shell = design, shell
        self.placed, self.number_bits = placed, number_bits
        splat = splat_layout(design.splat)
        if number_bits:
            splat = numbered_splat_layout(design.splat, number_bits)
        super().__init__({
            "start": In(1), "stop": In(1), **({} if placed else {"width": In(16)}),
            "feature_address": In(shell.address_bits),
            "i_tile": In(stream.Signature(
                placed_tile_layout() if placed else listed_tile_layout())),
            "i_entry": In(stream.Signature(entry_layout(design.entry))),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_tile": Out(stream.Signature(tile_layout())),
            "o_splat": Out(stream.Signature(splat)),
            "skip": In(1), "oldest": Out(TILE_TAG_BITS), "behind": Out(1),
            "hit": Out(1), "miss": Out(1), "idle": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        place = self._tiles(m)
        waiting = self._tags(m)
        arrived = self._arrivals(m)
        # What is in front of the stages moves with them.
        move = Signal(init=1, attrs={"keep": "true"})
        feature, tile, subtiles, number, valid = self._data(m, waiting, arrived, move)
        self._setup(m, place, feature, tile, subtiles, number, valid, move)
        return m

    def _tiles(self, m):
        """Tiles to the array, and where each lies in the frame by its number."""
        places = data.StructLayout({"x": 12, "y": 12})
        m.submodules.places = memory = Memory(
            shape=places.size, depth=1 << TILE_TAG_BITS, init=[])
        write, read = memory.write_port(), memory.read_port(domain="comb")
        m.submodules.tiles = tiles = SyncFIFOBuffered(
            width=listed_tile_layout().size, depth=TILES_AHEAD)
        x, y, last_x = Signal(12), Signal(12), Signal(12)
        came, went = Signal(), Signal()
        head = data.View(listed_tile_layout(), tiles.r_data)
        if self.placed:
            m.d.comb += [x.eq(self.i_tile.p.x), y.eq(self.i_tile.p.y)]
        else:
            m.d.comb += last_x.eq((self.width - 1) >> 4)
            with m.If(came):
                m.d.sync += x.eq(x + 1)
                with m.If(x == last_x):
                    m.d.sync += [x.eq(0), y.eq(y + 1)]
        m.d.comb += [
            self.i_tile.ready.eq(tiles.w_rdy),
            came.eq(self.i_tile.valid & self.i_tile.ready),
            tiles.w_en.eq(self.i_tile.valid),
            tiles.w_data.eq(Value.cast(self.i_tile.payload)[:listed_tile_layout().size]),
            write.en.eq(came), write.addr.eq(self.i_tile.p.tile), write.data.eq(Cat(x, y)),
            self.o_tile.valid.eq(tiles.r_rdy), tiles.r_en.eq(self.o_tile.ready),
            went.eq(self.o_tile.valid & self.o_tile.ready),
        ]
        m.d.comb += [self.o_tile.p[name].eq(head[name]) for name in ("columns", "rows", "splats")]
        with m.If(went):
            m.d.sync += self.oldest.eq(head.tile)
        with m.Elif(self.skip):
            m.d.sync += self.oldest.eq(self.oldest + 1)

        def will_be_older(number: Value) -> Value:
            """Whether the tile of a number lies before what is the oldest behind this cycle."""
            return Mux(went, is_older(number, head.tile), Mux(
                self.skip, is_older(number, (self.oldest + 1)[:TILE_TAG_BITS]),
                is_older(number, self.oldest)))

        self._will_be_older = will_be_older
        return read

    def _tags(self, m):
        """Look entries up, ask for what is missing; returns the queue of those that wait."""
        design, shell = self.design, self.shell
        bits = design.index_bits
        tag = data.StructLayout({"valid": 1, "upper": design.entry.feature_bits - bits})
        m.submodules.tags = tags = Memory(
            shape=tag.size, depth=design.cache_features, init=[])
        write = tags.write_port()
        read = tags.read_port(transparent_for=[write])
        m.submodules.waiting = waiting = SyncFIFOBuffered(
            width=self._waiting_layout().size, depth=design.waiting)

        clearing = Signal()
        line = Signal(bits)
        # Three entries one behind the other: one whose tag comes out of the memory, one that is
        # compared with it, one that is decided on.
        entries = [Signal(entry_layout(design.entry), name=f"entry_{n}") for n in range(3)]
        valids = [Signal(name=f"valid_{n}") for n in range(3)]
        _, compared, entry = entries
        valid = valids[2]
        move, take, go, dead, hit, fetch = (
            Signal(name=name) for name in ("move", "take", "go", "dead", "hit", "fetch"))
        found = Signal(tag)
        matches = Signal()
        # What was written behind an entry's reading: whether the one that was decided on when it
        # moved on, to the second place or the third, has written a tag, of its line, and its own.
        wrote, same_line, same_upper = (Signal(2, name=name) for name in (
            "wrote", "same_line", "same_upper"))
        asked, placed = (Signal(range(2 * design.outstanding_features), name=name)
                         for name in ("asked", "placed"))
        # Of a cycle ago: what was asked for since is known before the next miss can go.
        room = Signal()
        self._placed = placed
        m.d.comb += [
            move.eq(~valid | go),
            self.i_entry.ready.eq(~clearing & move),
            take.eq(self.i_entry.valid & self.i_entry.ready),
            read.addr.eq(self.i_entry.p.feature), read.en.eq(move),
            hit.eq(Mux(wrote[1] & same_line[1], same_upper[1], matches)),
            go.eq(dead | (waiting.w_rdy & (hit | (~self.o_address.valid & room & ~self.stop)))),
            fetch.eq(valid & go & ~dead & ~hit),
            waiting.w_en.eq(valid & go & ~dead),
            waiting.w_data.eq(Cat(
                entry.feature[:bits], entry.subtiles, entry.tile, ~hit,
                *([entry.feature[bits:self.number_bits]] if self.number_bits else []))),
            write.addr.eq(Mux(clearing, line, entry.feature[:bits])),
            write.data.eq(Mux(clearing, 0, Cat(C(1, 1), entry.feature[bits:]))),
            write.en.eq(clearing | fetch),
            self.hit.eq(waiting.w_en & hit), self.miss.eq(fetch),
        ]
        m.d.sync += [
            room.eq((asked - placed)[:len(asked)] != design.outstanding_features),
            dead.eq(Mux(move, is_older(compared.tile, self.oldest),
                        is_older(entry.tile, self.oldest))),
        ]
        with m.If(move):
            m.d.sync += [
                *(after.eq(before) for before, after in pairwise([take, *valids])),
                *(after.eq(before) for before, after in pairwise([self.i_entry.payload, *entries])),
                found.eq(read.data),
                matches.eq(Mux(
                    wrote[0] & same_line[0], same_upper[0],
                    found.valid & (found.upper == compared.feature[bits:]))),
                wrote.eq(fetch.replicate(2)),
                *(same_line[n].eq(entries[n].feature[:bits] == entry.feature[:bits])
                  for n in range(2)),
                *(same_upper[n].eq(entries[n].feature[bits:] == entry.feature[bits:])
                  for n in range(2)),
            ]
        with m.If(self.start):
            m.d.sync += clearing.eq(1)
        with m.Elif(clearing):
            m.d.sync += [line.eq(line + 1), clearing.eq(line != design.cache_features - 1)]

        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(fetch):
            m.d.sync += [
                self.o_address.valid.eq(1), asked.eq(asked + 1),
                self.o_address.p.id.eq(READ_FEATURES),
                self.o_address.p.address.eq(
                    self.feature_address + (entry.feature << (FEATURE_BYTES - 1).bit_length())),
                self.o_address.p.length.eq(FEATURE_BYTES // shell.data_bytes - 1),
            ]
        return waiting

    def _waiting_layout(self):
        """An entry between the cache's tags and its data."""
        upper = self.number_bits - self.design.index_bits
        return data.StructLayout({
            "index": self.design.index_bits, "subtiles": self.design.entry.subtile_bits,
            "tile": TILE_TAG_BITS, "miss": 1, **({"upper": upper} if self.number_bits else {})})

    def _arrivals(self, m):
        """Pairs of beats, in order of the bursts."""
        design = self.design
        m.submodules.arrived = arrived = SyncFIFOBuffered(
            width=design.feature.width, depth=design.outstanding_features + 1)
        first = Signal(self.shell.data_bits)
        here = Signal()
        m.d.comb += [
            self.i_beat.ready.eq(1),
            here.eq(self.i_beat.valid & (self.i_beat.p.id == READ_FEATURES)),
            arrived.w_en.eq(here & self.i_beat.p.last),
            arrived.w_data.eq(Cat(first, self.i_beat.p.data)),
        ]
        with m.If(here & ~self.i_beat.p.last):
            m.d.sync += first.eq(self.i_beat.p.data)
        in_flight = Signal(range(design.outstanding_features + 1))
        went = self.o_address.valid & self.o_address.ready
        m.d.sync += in_flight.eq(in_flight + went - arrived.w_en)
        m.d.comb += self.idle.eq(~self.o_address.valid & ~in_flight.any())
        return arrived

    def _data(self, m, waiting, arrived, move):
        """The oldest entry that waits takes its feature out of the cache, or into it."""
        design = self.design
        m.submodules.features = features = Memory(
            shape=design.feature.width, depth=design.cache_features, init=[])
        write, read = features.write_port(), features.read_port()
        # Two entries wait in registers, so that nothing of the queue depends on who takes them.
        head, following = (Signal(self._waiting_layout(), name=name)
                           for name in ("head", "following"))
        waits, follows = Signal(), Signal()
        take = Signal()
        valid, miss = Signal(), Signal()
        tile, subtiles = Signal.like(head.tile), Signal.like(head.subtiles)
        fresh = Signal(design.feature.width)
        feature = Signal(feature_layout(design.feature))
        m.d.comb += [
            take.eq(move & waits & (~head.miss | arrived.r_rdy)),
            waiting.r_en.eq(~follows),
            arrived.r_en.eq(take & head.miss),
            read.addr.eq(head.index), read.en.eq(move),
            write.addr.eq(head.index), write.data.eq(arrived.r_data),
            write.en.eq(take & head.miss),
            feature.eq(Mux(miss, fresh, read.data)),
            self.behind.eq(waits & is_older(head.tile, self.oldest)),
        ]
        with m.If(take | ~waits):
            m.d.sync += [
                head.eq(Mux(follows, following, waiting.r_data)),
                waits.eq(follows | waiting.r_rdy), follows.eq(0)]
        with m.Else():
            m.d.sync += follows.eq(follows | waiting.r_rdy)
        with m.If(~follows):
            m.d.sync += following.eq(waiting.r_data)
        with m.If(arrived.r_en):
            m.d.sync += self._placed.eq(self._placed + 1)
        with m.If(move):
            m.d.sync += [
                valid.eq(take), miss.eq(head.miss), fresh.eq(arrived.r_data),
                tile.eq(head.tile), subtiles.eq(head.subtiles),
            ]
        number = Signal(self.number_bits)
        if self.number_bits:
            with m.If(move):
                m.d.sync += number.eq(Cat(head.index, head.upper))
        return feature, tile, subtiles, number, valid

    def _setup(self, m, place, feature, tile, subtiles, number, valid, move):
        """Stages that move together; the last is the output's register.

        A splat that the array does not take leaves it for another register, so that whether the
        stages move depends on no input; that stands in two registers, for the stages and for what
        is in front of them.
        """
        m.submodules.setup = setup = SplatSetup(self.design.setup)
        stages = setup.latency
        valids = [valid] + [Signal(name=f"valid_{n}") for n in range(stages)]
        tiles = [tile] + [Signal.like(tile, name=f"tile_{n}") for n in range(stages)]
        regions = [subtiles] + [Signal.like(subtiles, name=f"subtiles_{n}") for n in range(stages)]
        numbers = [number] + [Signal.like(number, name=f"number_{n}") for n in range(stages)]
        # Whether the last, and the splat that waits, is of a tile that is over.
        dead, waiting_dead = Signal(), Signal()
        waits, will_wait = Signal(), Signal()
        waiting_tile = Signal.like(tile)
        found, waiting = (Signal.like(self.o_splat.payload, name=name)
                          for name in ("found", "waiting"))
        stages_move = Signal(init=1, attrs={"keep": "true"})
        m.d.sync += [
            dead.eq(Mux(stages_move, self._will_be_older(tiles[-2]),
                        self._will_be_older(tiles[-1]))),
            waiting_dead.eq(Mux(waits, self._will_be_older(waiting_tile),
                                self._will_be_older(tiles[-1]))),
            waits.eq(will_wait), move.eq(~will_wait), stages_move.eq(~will_wait),
        ]
        m.d.comb += [
            place.addr.eq(tile),
            self.o_splat.valid.eq(Mux(waits, ~waiting_dead, valids[-1] & ~dead)),
            self.o_splat.payload.eq(Mux(waits, waiting, found)),
            will_wait.eq(self.o_splat.valid & ~self.o_splat.ready),
            setup.enable.eq(stages_move), setup.feature.eq(feature),
            Cat(setup.x, setup.y).eq(place.data),
        ]
        with m.If(stages_move):
            for line in (valids, tiles, regions, *([numbers] if self.number_bits else [])):
                m.d.sync += [after.eq(before) for before, after in pairwise(line)]
        with m.If(~waits):
            m.d.sync += [waiting.eq(found), waiting_tile.eq(tiles[-1])]
        side = TILE_PX // REGION_PX
        splat = found.splat if self.number_bits else found
        if self.number_bits:
            m.d.comb += found.id.eq(numbers[-1])
        m.d.comb += [splat[name].eq(getattr(setup, name)) for name, _, _ in
                     self.design.splat.fields() if name != "subtiles"]
        m.d.comb += splat.subtiles.eq(Cat(
            regions[-1][subtile // 4 // 2 * side + subtile % 4 // 2] for subtile in range(16)))
