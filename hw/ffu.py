"""StreamingGS's fine filter: what may be seen of a voxel decoded, projected and tested exactly."""

from typing import Any, NamedTuple

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.algos.ffu import decoded_beats, ffu_graph, ffu_schedule, records_under_way
from splatforge.designs.ccu import FLAG_ANTIALIASED
from splatforge.designs.codebook import codebook_degree, entry_beats
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.ffu import FfuDesign
from splatforge.designs.floating import BINARY32
from splatforge.designs.shell import ShellDesign
from splatforge.designs.tokens import GROUP_BITS, GROUP_TAG_BITS, INDEX_BITS, FineKind, SurvivorKind
from splatforge.designs.voxel import STREAM_CAMERA_WORDS
from splatforge.hw.fetch import address_layout, beat_layout
from splatforge.hw.lib.axi import READ_FINE
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift, saturate
from splatforge.hw.lib.folded import Folded
from splatforge.hw.lib.footprint import compensation, is_out_of_range, square_side
from splatforge.hw.lib.splat_setup import feature_layout
from splatforge.hw.lib.tokens import fine_token_layout, survivor_layout
from splatforge.hw.vru import is_older

__all__ = ["Ffu"]

#: Addresses of a burst differ in these bits of the beat's number: none crosses 4 KiB.
_PAGE_BITS = 8


class _Stage(NamedTuple):
    """A place for one token, that takes one only when it is empty."""

    valid: Signal
    held: Any
    taken: Signal
    """One is taken in this cycle."""
    leave: Signal
    """It is to be empty behind this cycle."""


class _Head(NamedTuple):
    """What is next in a queue."""

    valid: Signal
    held: Any
    late: Value
    """Its group is over; 0 of what has no group."""


class Ffu(Component):
    """Fetch the indices of every Gaussian that may be seen, decode, project and test it.

    Bit-true model: :func:`splatforge.algos.ffu.project_fine`. Cycle model:
    :mod:`splatforge.sim.ffu`.

    Gaussians that are neighbours in memory make a run, which is asked for as one burst as soon as
    something else is offered behind it. Tokens wait in order for their beats, for which room is
    reserved before they are asked for: ``i_beat`` is always ready. What is next in a queue is in
    registers behind its memory. A beat's indices read all
    codebooks at once; from registers behind these the words of the decoded record go to the
    arithmetic in beats of :attr:`FfuDesign.lanes`. The arithmetic runs on shared units, see
    :class:`splatforge.hw.lib.folded.Folded`. Three stages make integers of what it gives, and
    a Gaussian that is culled, or that meets no tile of the group, is dropped behind them. Ends of
    voxels and of groups keep their places among the Gaussians.

    What is of a group before ``oldest`` is dropped, ends included: where it comes in, where it
    waits to be decoded, and before it is sent; a run of it that is open is still asked for.

    With ``load`` at ``start`` the codebooks are read first, those of SH as far as the scene has it;
    else they are what they were. Of these fewer bursts are in flight than may be, and ``patient``
    tells that the burst that is offered is one: nothing waits for them but this unit's tokens, and
    these wait for what others read.

    Latency: :attr:`latency` cycles from the transfer of results inside to their token on
    ``o_token``; before it the schedule's. Throughput: a Gaussian every ``interval`` cycles, an end
    of a voxel or a group every other cycle beside them. Stall: ``o_token`` may stall for ever; the
    stages, the arithmetic, the decoding and the fetch then wait one for the other. No ``valid`` and
    no ``ready`` depends on an input combinationally.

    Parameters
    ----------
    design : FfuDesign
        Formats, speed, codebooks, buffers.
    shell : ShellDesign
        Bus, and the largest image.

    Members
    -------
    start : ``In(1)``
        Begin a frame with the parameters below, which must hold until it ends; once after reset.
    stop : ``In(1)``
        Ask for nothing more.
    load : ``In(1)``
        Whether the codebooks are read, with ``start``.
    sh_degree : ``In(2)``
        Of the scene: SH of higher degrees are zero.
    width, height : ``In(16)``
        Frame in pixels.
    codebook_address, scene_address : ``In(address_bits)``
        Of the codebooks, a multiple of 256; of the scene, a multiple of 16.
    camera : ``In(ArrayLayout(32, ...))``
        The camera's record, :data:`splatforge.designs.voxel.STREAM_CAMERA_WORDS`; holds from before
        the first token on.
    oldest : ``In(5)``
        Number of the oldest group that is still wanted.
    i_token : ``In(stream.Signature(Survivor))``
        See :func:`splatforge.hw.lib.tokens.survivor_layout`; numbers of a voxel's Gaussians ascend.
    o_address : ``Out(stream.Signature(Burst))``
        To the read address channel, ID 3.
    patient : ``Out(1)``
        The burst there is of codebooks.
    i_beat : ``In(stream.Signature(Beat))``
        From the read data channel, beats of ID 3; others are not looked at.
    o_token : ``Out(stream.Signature(FineToken))``
        See :func:`splatforge.hw.lib.tokens.fine_token_layout`.
    behind : ``Out(1)``
        Something of a group before ``oldest`` is still inside.
    idle : ``Out(1)``
        No address is waiting and no burst is in flight.
    coded, busy, stalled, projected, kept : ``Out(1)``
        For the counters: a beat of codebooks, a beat of indices arrives; the arithmetic stands
        still; a Gaussian is through it; a feature is sent.
    """

    i_token: stream.Interface
    o_address: stream.Interface
    i_beat: stream.Interface
    o_token: stream.Interface

    #: Cycles from the transfer of results out of the arithmetic to the first in which their token
    #: can transfer: three stages, and the output's register.
    latency = 4

    def __init__(
        self,
        design: FfuDesign = FfuDesign(),  # noqa: B008
        shell: ShellDesign = ShellDesign(),  # noqa: B008
    ) -> None:
        self.design, self.shell = design, shell
        super().__init__({
            "start": In(1), "stop": In(1), "load": In(1), "sh_degree": In(2),
            "width": In(16), "height": In(16),
            "codebook_address": In(shell.address_bits), "scene_address": In(shell.address_bits),
            "camera": In(data.ArrayLayout(BINARY32.width, len(STREAM_CAMERA_WORDS))),
            "oldest": In(GROUP_TAG_BITS),
            "i_token": In(stream.Signature(survivor_layout(design.floating))),
            "o_address": Out(stream.Signature(address_layout(shell))),
            "i_beat": In(stream.Signature(beat_layout(shell))),
            "o_token": Out(stream.Signature(fine_token_layout(design))),
            "patient": Out(1), "behind": Out(1), "idle": Out(1), "coded": Out(1), "busy": Out(1),
            "stalled": Out(1), "projected": Out(1), "kept": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        flow = ffu_graph(design)
        m.submodules.folded = folded = Folded(
            ffu_schedule(design), design.floating, len(flow.constants), decoded_beats(design))
        m.d.comb += [
            folded.start.eq(self.start), folded.beats.eq(len(ffu_schedule(design).reads)),
            self.stalled.eq(folded.stalled), *(
                folded.constants[place].eq(self._camera(name))
                for place, name in enumerate(flow.constants))]
        #: Whether there is something of a group that is over in each place.
        self.late: list[Value] = []
        #: Indices leave their queue.
        self.decoded = Signal(name="decoded")
        waiting, run = self._collect(m)
        arrived = self._fetch(m, *run)
        context = self._decode(m, waiting, arrived, folded)
        self._send(m, self._finish(m, context, folded))
        m.d.comb += self.behind.eq(Cat(self.late).any())
        return m

    def _camera(self, name: str) -> Value:
        return self.camera[STREAM_CAMERA_WORDS.index(name)]

    def _is_late(self, valid: Value, tag: Value) -> Value:
        """Whether something is there that is of a group that is over; it then counts as behind."""
        late = valid & is_older(tag, self.oldest)
        self.late.append(late)
        return late

    def _waiting_layout(self):
        """A token between its fetch and its decoding, without addresses."""
        given: Any = survivor_layout(self.design.floating).members["body"]
        voxel, gaussian = (given.members[name].members for name in ("voxel", "gaussian"))
        return data.StructLayout({
            "kind": 2, "tag": GROUP_TAG_BITS, "body": data.UnionLayout({
                "voxel": data.StructLayout({name: shape for name, shape in voxel.items()
                                            if name != "address"}),
                "gaussian": data.StructLayout({name: shape for name, shape in gaussian.items()
                                               if name != "index"})})})

    def _context_layout(self):
        """What is told of a token while it is in the arithmetic, or beside it."""
        return data.StructLayout({
            "kind": 2, "tag": GROUP_TAG_BITS, "column": GROUP_BITS, "row": GROUP_BITS})

    def _collect(self, m):
        """Take tokens into a queue, and neighbours into runs; one run may wait to be asked for."""
        design, shell = self.design, self.shell
        token: Any = Signal(self.i_token.p.shape(), reset_less=True, name="token")
        there, body = Signal(), token.body
        layout = self._waiting_layout()
        m.submodules.waiting = waiting = SyncFIFOBuffered(width=layout.size, depth=design.waiting)
        place_bits = shell.address_bits - (shell.data_bytes - 1).bit_length()
        runs = data.StructLayout({"place": place_bits, "length": range(design.burst_beats + 1)})
        run, closed = Signal(runs), Signal(runs)
        some, some_closed, asked = (Signal(name=name) for name in ("some", "some_closed", "asked"))
        base, place = Signal(place_bits), Signal(place_bits)
        # Of the Gaussian before: the index behind it, and whether a page ends with it. The run is
        # as long as a burst.
        following, page_ends, full = Signal(INDEX_BITS + 1), Signal(), Signal()
        # Of the token: whether it is a Gaussian, the index behind it, and whether its own is the
        # one behind the Gaussian before.
        is_gaussian, behind_it, matches = (
            Signal(name="is_gaussian"), Signal.like(following, name="behind_it"),
            Signal(name="matches"))
        dead, gaussian, extends, take = (
            Signal(name=name) for name in ("dead", "gaussian", "extends", "take"))
        queued = Signal(layout)
        m.d.comb += [
            gaussian.eq(is_gaussian & ~dead),
            place.eq(base + body.gaussian.index),
            extends.eq(some & gaussian & matches & ~full & ~page_ends),
            take.eq(there & (dead | waiting.w_rdy) & (~some | extends | ~some_closed)),
            self.i_token.ready.eq(~there | take),
            waiting.w_en.eq(take & ~dead), waiting.w_data.eq(queued),
            queued.kind.eq(token.kind), queued.tag.eq(token.tag),
        ]
        # Whether it is of a group that is over is known from the cycle before.
        self._is_late(there, token.tag)
        coming = self.i_token.p.body.gaussian.index
        with m.If(self.i_token.ready):
            m.d.sync += [there.eq(self.i_token.valid), token.eq(self.i_token.p),
                         is_gaussian.eq(self.i_token.p.kind == SurvivorKind.GAUSSIAN),
                         behind_it.eq(coming + 1),
                         matches.eq(coming == Mux(there & gaussian, behind_it, following)),
                         dead.eq(is_older(self.i_token.p.tag, self.oldest))]
        with m.Else():
            m.d.sync += dead.eq(is_older(token.tag, self.oldest))
        with m.If(token.kind == SurvivorKind.VOXEL):
            m.d.comb += [queued.body.voxel[name].eq(body.voxel[name])
                         for name in queued.body.voxel.shape().members]
        with m.Else():
            m.d.comb += [queued.body.gaussian[name].eq(body.gaussian[name])
                         for name in queued.body.gaussian.shape().members]
        with m.If(asked):
            m.d.sync += some_closed.eq(0)
        with m.If(take):
            with m.If(some & ~extends):
                m.d.sync += [some.eq(0), some_closed.eq(1), closed.eq(run)]
            with m.If(extends):
                m.d.sync += [run.length.eq(run.length + 1),
                             full.eq(run.length == design.burst_beats - 1)]
            with m.Elif(gaussian):
                m.d.sync += [some.eq(1), run.place.eq(place), run.length.eq(1),
                             full.eq(design.burst_beats == 1)]
            with m.If(gaussian):
                m.d.sync += [following.eq(behind_it),
                             page_ends.eq(place[:_PAGE_BITS].all())]
            with m.If(~dead & (token.kind == SurvivorKind.VOXEL)):
                m.d.sync += base.eq(
                    (self.scene_address >> (shell.data_bytes - 1).bit_length())
                    + body.voxel.address)
        return waiting, (closed, some_closed, asked)

    def _fetch(self, m, run, some_run, asked):
        """Ask for codebooks, then for runs; returns the queue of indices that have come."""
        design, shell = self.design, self.shell
        beats, books = design.burst_beats, design.codebooks
        beat_bits = (shell.data_bytes - 1).bit_length()
        m.submodules.arrived = arrived = SyncFIFOBuffered(
            width=books.index_bits, depth=design.buffer_beats + 1)
        place = Signal(shell.address_bits - beat_bits)
        left, coming = (Signal(range(books.beats + 1), name=name) for name in ("left", "coming"))
        reserved = Signal(range(design.buffer_beats + 1))
        in_flight = Signal(range(design.outstanding_bursts + 1))
        space, length = (Signal(range(beats + 1), name=name) for name in ("space", "length"))
        free, asks_books, here = (Signal(name=name) for name in ("free", "asks_books", "here"))
        # Of a cycle ago: nothing is asked for in the cycle behind one in which something was.
        some_left, room = Signal(), Signal(init=1)
        # Codebooks are to come.
        loads = Signal()
        m.d.comb += [
            free.eq(~self.stop & ~self.o_address.valid
                    & (in_flight != design.outstanding_bursts)),
            space.eq(beats - place[:(beats - 1).bit_length()]),
            asks_books.eq(free & some_left & (in_flight < design.codebook_bursts)),
            asked.eq(free & ~some_left & some_run & room),
            self.i_beat.ready.eq(1),
            here.eq(self.i_beat.valid & (self.i_beat.p.id == READ_FINE)),
            self.coded.eq(here & loads), self.busy.eq(here & ~loads),
            arrived.w_en.eq(self.busy), arrived.w_data.eq(self.i_beat.p.data),
            self.idle.eq(~in_flight.any()),
        ]
        with m.If(self.o_address.ready):
            m.d.sync += self.o_address.valid.eq(0)
        with m.If(asks_books | asked):
            m.d.sync += [self.o_address.valid.eq(1), self.o_address.p.id.eq(READ_FINE),
                         self.patient.eq(asks_books)]
        with m.If(asks_books):
            m.d.sync += [
                self.o_address.p.address.eq(place << beat_bits),
                self.o_address.p.length.eq(length - 1),
                place.eq(place + length), left.eq(left - length),
            ]
        with m.Elif(asked):
            m.d.sync += [
                self.o_address.p.address.eq(run.place << beat_bits),
                self.o_address.p.length.eq(run.length - 1),
            ]
        m.d.sync += [
            some_left.eq(left.any()), length.eq(Mux(left < space, left, space)),
            room.eq(reserved <= design.buffer_beats - beats),
            in_flight.eq(in_flight + (asks_books | asked) - (here & self.i_beat.p.last)),
            reserved.eq(reserved + Mux(asked, run.length, 0) - self.decoded),
        ]
        with m.If(self.coded):
            m.d.sync += [coming.eq(coming - 1), loads.eq(coming != 1)]
        with m.If(self.start & self.load):
            m.d.sync += [place.eq(self.codebook_address >> beat_bits), loads.eq(1)]
            with m.Switch(self.sh_degree):
                for degree in range(4):
                    with m.Case(degree):
                        beats = books.loaded_beats(degree)
                        m.d.sync += [left.eq(beats), coming.eq(beats)]
        return arrived

    def _head(self, m, name: str, queue, layout, taken: Value) -> _Head:
        """What is next in a queue, in registers: out of a block of memory it comes late.

        What is not taken is followed by one more, so that the queue need not know it.
        """
        valid, waits, free = (
            Signal(name=f"{name}_{part}") for part in ("valid", "waits", "free"))
        held: Any = Signal(layout, name=name, reset_less=True)
        waiting = Signal.like(queue.r_data, name=f"{name}_waiting", reset_less=True)
        m.d.comb += [free.eq(~valid | taken), queue.r_en.eq(~waits)]
        m.d.sync += waits.eq(~free & (waits | queue.r_rdy))
        with m.If(free):
            m.d.sync += [valid.eq(waits | queue.r_rdy),
                         Value.cast(held).eq(Mux(waits, waiting, queue.r_data))]
        with m.If(~waits):
            m.d.sync += waiting.eq(queue.r_data)
        late = C(0, 1)
        if isinstance(layout, data.Layout):
            # Whether its group is over is known a cycle later than it is.
            late = Signal(name=f"{name}_late")
            coming = data.View(layout, Mux(waits, waiting, queue.r_data))
            m.d.sync += late.eq(Mux(free, is_older(coming.tag, self.oldest),
                                    is_older(held.tag, self.oldest)))
        return _Head(valid, held, late)

    def _codebooks(self, m, index_bits: Value, read) -> dict[str, Value]:
        """Words of binary16 of the entries whose indices were there in the last cycle of `read`.

        Loading: beats of an entry, entries of a codebook, codebooks one behind the other.
        """
        design = self.design.codebooks
        books = design.codebooks()
        number, entry = Signal(range(len(books))), Signal(range(1 << 14))
        most = max(entry_beats(len(names)) for _, _, names in books)
        part = Signal(range(most))
        earlier = Signal(data.ArrayLayout(self.shell.data_bits, max(most - 1, 1)))
        indices = data.View(data.StructLayout(
            {name: width for name, width, _ in design.fields()}), index_bits)
        words: dict[str, Value] = {}
        # A beat reaches the memories a cycle after it came.
        code, coded = Signal(self.shell.data_bits, reset_less=True), Signal()
        m.d.sync += [coded.eq(self.coded), code.eq(self.i_beat.p.data)]
        with m.If(coded):
            m.d.sync += earlier.eq(Cat(code, earlier))
        for place, (name, entries, names) in enumerate(books):
            m.submodules[name] = memory = Memory(
                shape=16 * len(names), depth=entries, init=[])
            write, port = memory.write_port(), memory.read_port()
            parts = entry_beats(len(names))
            degree = codebook_degree(name)
            is_there = self.sh_degree >= degree if degree else C(1, 1)
            m.d.comb += [
                write.addr.eq(entry),
                write.data.eq(Cat(*(earlier[n] for n in reversed(range(parts - 1))),
                                  code)),
                write.en.eq(coded & (number == place) & (part == parts - 1)),
                port.addr.eq(indices[name]), port.en.eq(read & is_there),
            ]
            with m.If(coded & (number == place)):
                m.d.sync += part.eq(part + 1)
                with m.If(part == parts - 1):
                    m.d.sync += [part.eq(0), entry.eq(entry + 1)]
                    with m.If(entry == entries - 1):
                        m.d.sync += [entry.eq(0), number.eq(number + 1)]
            words |= {word: Mux(is_there, port.data[16 * k:16 * k + 16], 0)
                      for k, word in enumerate(names)}
        return words

    def _decode(self, m, waiting, arrived, folded):
        """Tokens with their beats, in order: records to the arithmetic, all else beside it.

        Returns the queue of what is beside it.
        """
        design = self.design
        layout = self._waiting_layout()
        go, decoded = Signal(), self.decoded
        there, head, dead = self._head(m, "next_token", waiting, layout, go)
        indices_there, indices, _ = self._head(
            m, "next_indices", arrived, unsigned(design.codebooks.index_bits), decoded)
        context_layout = self._context_layout()
        m.submodules.beside = context = SyncFIFOBuffered(
            width=context_layout.size, depth=records_under_way(design))
        beats = len(ffu_schedule(design).reads)
        # A record whose entries have been read, and one that goes to the arithmetic.
        fetched, sending, beat = Signal(), Signal(), Signal(range(beats))
        last_beat, following = Signal(init=beats == 1), Signal(range(beats))
        # No record's entries are to be kept: for the codebooks, which are everywhere.
        reads = Signal(init=1, attrs={"keep": "true"})
        body: Any = layout.members["body"]
        voxel: Any = Signal(body.members["voxel"])
        places = data.StructLayout({
            **dict.fromkeys(("d_x", "d_y", "d_z", "size"), design.floating.width),
            "gaussian": body.members["gaussian"]})
        ahead, place = Signal(places), Signal(places)
        sent, move, read, is_gaussian = (Signal(name=name) for name in (
            "sent", "move", "read", "is_gaussian"))
        told = Signal(context_layout)
        self._is_late(there, head.tag)
        m.d.comb += [
            is_gaussian.eq(head.kind == SurvivorKind.GAUSSIAN),
            sent.eq(sending & folded.i.ready & last_beat),
            move.eq(fetched & (~sending | sent)), following.eq(Mux(last_beat, 0, beat + 1)),
            decoded.eq(go & is_gaussian),
            read.eq(go & is_gaussian & ~dead),
            context.w_en.eq(go & ~dead & (head.kind != SurvivorKind.VOXEL)),
            context.w_data.eq(told), told.tag.eq(head.tag),
            told.column.eq(voxel.column), told.row.eq(voxel.row),
            folded.i.valid.eq(sending),
        ]
        with m.Switch(head.kind):
            with m.Case(SurvivorKind.VOXEL):
                m.d.comb += go.eq(there)
            with m.Case(SurvivorKind.GAUSSIAN):
                m.d.comb += [told.kind.eq(FineKind.FEATURE), go.eq(
                    there & indices_there & (dead | (~fetched & context.w_rdy)))]
            with m.Default():
                m.d.comb += [
                    told.kind.eq(Mux(head.kind == SurvivorKind.VOXEL_END, FineKind.VOXEL_END,
                                     FineKind.GROUP_END)),
                    go.eq(there & (dead | context.w_rdy))]
        with m.If(go & (head.kind == SurvivorKind.VOXEL)):
            m.d.sync += voxel.eq(head.body.voxel)
        with m.If(sending & folded.i.ready):
            m.d.sync += [beat.eq(following), last_beat.eq(following == beats - 1)]
        m.d.sync += [fetched.eq(Mux(fetched, ~move, read)), reads.eq(Mux(fetched, move, ~read)),
                     sending.eq(Mux(sending, ~sent | move, move))]
        with m.If(read):
            m.d.sync += [ahead.gaussian.eq(head.body.gaussian), *(
                ahead[name].eq(voxel[name]) for name in ("d_x", "d_y", "d_z", "size"))]

        # What memories give is in registers before anything is done with it.
        entries = self._codebooks(m, indices, reads)
        halves = Signal(data.ArrayLayout(16, len(entries)))
        with m.If(move):
            m.d.sync += [halves.eq(Cat(entries.values())), place.eq(ahead)]
        gaussian = place.gaussian
        drop = BINARY32.width - design.floating.width
        one = C(BINARY32.bias, BINARY32.exponent_bits)
        words: dict[str, Value] = {"": C(0, BINARY32.width)}
        words |= {name: Cat(C(0, drop), place[name]) for name in ("d_x", "d_y", "d_z", "size")}
        words |= {f"q_{axis}": Cat(
            C(0, BINARY32.fraction_bits - 16), gaussian[f"q_{axis}"], one, C(0, 1))
            for axis in "xyz"}
        words |= {"scale": _widened(gaussian.scale), **{
            name: _widened(halves[n]) for n, name in enumerate(entries)}}
        with m.Switch(beat):
            for n in range(beats):
                names = design.record[n * design.lanes:(n + 1) * design.lanes]
                with m.Case(n):
                    m.d.comb += folded.i.payload.eq(Cat(words[name] for name in names))
        return context

    def _stage(self, m, name, layout, offered: Value) -> _Stage:
        """A place for one token of those that are `offered`."""
        valid, taken, leave = (Signal(name=f"{name}_{part}") for part in (
            "valid", "taken", "leave"))
        held = Signal(layout, name=name)
        m.d.comb += taken.eq(offered & ~valid)
        m.d.sync += valid.eq(Mux(valid, ~leave, taken))
        return _Stage(valid, held, taken, leave)

    def _finish(self, m, context, folded):
        """Box, opacity, and the tiles that are met: three stages."""
        design = self.design
        fmt, extent, log = design.floating, design.extent, design.logarithm
        mean, opacity = design.feature.mean, design.feature.log_opacity
        given, told = folded.o.p, self._context_layout()
        shapes = given.shape().members
        takes = Signal()
        there, head, _ = self._head(m, "next_told", context, told, takes)
        is_feature = head.kind == FineKind.FEATURE
        self._is_late(there, head.tag)

        # 1: what is culled, the square's side, the compensation of the opacity.
        passed = [name for name in shapes if name not in (
            "depth", "z", "long", "log_det", "log_det_sharp")]
        first = self._stage(m, "first", data.StructLayout({
            "told": told, **{name: shapes[name] for name in passed},
            "depth": design.depth_bits, "culled": 1, "side": extent.width,
            "compensation": log.width}), there & (~is_feature | folded.o.valid))
        one = first.held
        m.d.comb += [
            takes.eq(first.taken), folded.o.ready.eq(there & is_feature & ~first.valid),
            self.projected.eq(folded.o.valid & folded.o.ready),
        ]
        near = self._camera("near")[-fmt.width:]
        antialiased = (self._camera("flags") & FLAG_ANTIALIASED).any()
        with m.If(~first.valid):
            m.d.sync += [one[name].eq(given[name]) for name in passed]
            m.d.sync += [
                one.told.eq(head),
                one.depth.eq(given.depth[:BINARY32.fraction_bits][-design.depth_bits:]),
                one.culled.eq(given.z[-1] | (given.z[:-1] <= near[:-1]) | near[-1]
                              | is_out_of_range(given, mean)),
                one.side.eq(square_side(given.long, extent)),
                one.compensation.eq(compensation(given, log, antialiased)),
            ]
        self._is_late(first.valid, one.told.tag)

        # 2: the box, from the group's corner; the sum of the logarithms, twice as fine as these.
        tile_bits = (TILE_PX - 1).bit_length() + extent.frac_bits
        group_bits = (design.group_tiles - 1).bit_length()
        position = signed(max(
            design.position.width, GROUP_BITS + group_bits + tile_bits + 1) + 1)
        tiles = range(design.group_tiles + 1)
        second = self._stage(m, "second", data.StructLayout({
            "told": told, "feature": feature_layout(design.feature), "depth": design.depth_bits,
            "culled": 1, "opacity": signed(log.width + 3),
            **{f"extent_{axis}": extent.width for axis in "xy"},
            **{f"position_{axis}": position for axis in "xy"},
            **{f"tiles_{axis}": tiles for axis in "xy"}}), first.valid)
        two = second.held
        m.d.comb += first.leave.eq(second.taken)
        down = mean.frac_bits - extent.frac_bits
        with m.If(~second.valid):
            m.d.sync += [two.feature[name].eq(one[name]) for name in (
                "mean_x", "mean_y", "a", "b", "c", "red", "green", "blue")]
            m.d.sync += [
                two.told.eq(one.told), two.depth.eq(one.depth), two.culled.eq(one.culled),
                two.opacity.eq((one.log_opacity << 1) + one.compensation),
            ]
            for axis, place, side in (
                ("x", one.told.column, self.width), ("y", one.told.row, self.height)):
                reach = one[f"reach_{axis}"]
                left = ((side + TILE_PX - 1) >> 4) - (place << group_bits)
                m.d.sync += [
                    two[f"extent_{axis}"].eq(Mux(reach < one.side, reach, one.side)),
                    two[f"position_{axis}"].eq(round_shift(one[f"mean_{axis}"], down)
                                               - (place << (group_bits + tile_bits))),
                    two[f"tiles_{axis}"].eq(Mux(
                        left < 0, 0,
                        Mux(left > design.group_tiles, design.group_tiles, left))),
                ]
        self._is_late(second.valid, two.told.tag)

        # 3: the opacity; first tile and end, cut to the group.
        third = self._stage(m, "third", data.StructLayout({
            "told": told, "feature": feature_layout(design.feature), "depth": design.depth_bits,
            "culled": 1, **{f"extent_{axis}": extent.width for axis in "xy"},
            **{f"{end}_{axis}": tiles for end in ("first", "end") for axis in "xy"}}),
            second.valid)
        three = third.held
        rounded = Signal(signed(log.width + 3))
        m.d.comb += [
            second.leave.eq(third.taken),
            rounded.eq(round_shift(two.opacity, log.frac_bits + 1 - opacity.frac_bits)),
        ]
        with m.If(~third.valid):
            m.d.sync += [
                three.told.eq(two.told), three.feature.eq(two.feature), three.depth.eq(two.depth),
                three.feature.log_opacity.eq(saturate(rounded, opacity)),
                three.culled.eq(two.culled | (rounded > opacity.raw_max)),
            ]
            for axis in "xy":
                at, side, end = two[f"position_{axis}"], two[f"extent_{axis}"], two[f"tiles_{axis}"]
                m.d.sync += three[f"extent_{axis}"].eq(side)
                for name, bound in (("first", at - side),
                                    ("end", at + side + ((1 << tile_bits) - 1))):
                    tile = bound >> tile_bits
                    m.d.sync += three[f"{name}_{axis}"].eq(
                        Mux(tile < 0, 0, Mux(tile > end, end, tile)))
        return third

    def _send(self, m, third):
        """What is kept, and ends, to the output's register; the rest is dropped."""
        three, out = third.held, self.o_token
        late = self._is_late(third.valid, three.told.tag)
        self._is_late(out.valid, out.p.tag)
        is_feature, drop, free = (Signal(name=name) for name in ("is_feature", "drop", "room"))
        m.d.comb += [
            is_feature.eq(three.told.kind == FineKind.FEATURE),
            drop.eq(late | (is_feature & (
                three.culled | (three.first_x >= three.end_x) | (three.first_y >= three.end_y)))),
            free.eq(~out.valid | out.ready),
            third.leave.eq(drop | free), self.kept.eq(third.valid & is_feature & ~drop & free),
        ]
        with m.If(out.ready):
            m.d.sync += out.valid.eq(0)
        with m.If(third.valid & free & ~drop):
            m.d.sync += [
                out.valid.eq(1), out.payload.eq(0), out.p.kind.eq(three.told.kind),
                out.p.tag.eq(three.told.tag),
            ]
            with m.If(is_feature):
                m.d.sync += [out.p.feature.eq(three.feature), out.p.depth.eq(three.depth)]
                for axis in "xy":
                    m.d.sync += [
                        out.p[f"extent_{axis}"].eq(three[f"extent_{axis}"]),
                        out.p[f"first_{axis}"].eq(three[f"first_{axis}"]),
                        out.p[f"last_{axis}"].eq(three[f"end_{axis}"] - 1),
                    ]


def _widened(half: Value) -> Value:
    """A word of binary32 from one of binary16; denormals are zero."""
    some = half[10:15].any()
    exponent = (half[10:15] + (BINARY32.bias - 15))[:8]
    return Mux(some, Cat(C(0, 13), half[:10], exponent, half[15]), 0)
