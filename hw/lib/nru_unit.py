"""A neural rendering unit: a few pixels that share a back end, behind a queue."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.nru import RECORD_ID_BITS, NruDesign
from splatforge.hw.alpha import power_stages
from splatforge.hw.array import bit_number, lowest_bit, one_of, several_bits
from splatforge.hw.blend import Blend, BlendLane
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import shape_of

__all__ = ["NruUnit", "entry_layout", "splat_layout"]


def splat_layout(design: NruDesign) -> data.StructLayout:
    """What is blended of a splat, and whose it is."""
    return data.StructLayout({
        "color": data.ArrayLayout(shape_of(design.blend.color), 3), "id": RECORD_ID_BITS})


def entry_layout(design: NruDesign) -> data.StructLayout:
    """What is tested at once, significant in the places that ``mask`` says.

    There are as many places as the unit has pixels. In lockstep one splat at all of these:
    ``splat`` of place 0 is that of all. Remapped as many splats in order, at the pixel ``pixel``.
    """
    pixels = design.unit_pixels
    return data.StructLayout({
        "splat": data.ArrayLayout(splat_layout(design), pixels),
        "p": data.ArrayLayout(design.exponent_bits, pixels),
        "mask": pixels, "remapped": 1, "pixel": range(pixels),
    })


class NruUnit(Component):
    """Blend the significant fragments of a few pixels one by one, and record whose they are.

    Bit-true model: :func:`splatforge.algos.nru.nru_fixed`. Cycle model:
    :mod:`splatforge.sim.nru_unit`.

    Entries wait in a queue. The first one's fragments leave it lowest place first, one a cycle, the
    next one's behind them without a pause. Behind the queue nothing stalls. The state of two tiles
    is held: that of one is read while the other is blended.

    Latency: from a transfer on ``i`` to an empty unit until ``ended`` or ``complete`` tell of its
    first fragment, :attr:`latency` cycles, until ``state`` shows it :attr:`state_latency`.
    Throughput: a fragment a cycle. Stall: ``i`` stalls while the queue is full; ``i.ready`` depends
    on no input.

    Parameters
    ----------
    design : NruDesign
        Formats, pixels, and the queue's depth.
    record_ids : int
        k, ids of a record.

    Members
    -------
    i : ``In(stream.Signature(Entry))``
        See :func:`entry_layout`; not without a fragment. Exponents are at most the cut-off.
    room : ``Out(1)``
        The queue has room for two entries more.
    begin : ``In(1)``
        The entries from the next cycle on are of another tile, whose state is the other half's. All
        entries have left the queue.
    ended, complete : ``Out(unit_pixels)``, half : ``Out(1)``
        A fragment found that its pixel has ended, or ended it; a pixel's record has become
        complete; in which half of the state.
    busy : ``Out(1)``
        Fragments are in the queue or on the way to ``ended``.
    current : ``Out(1)``
        Half of the state that is blended.
    read_slot : ``In(range(2 * unit_pixels))``
        Pixel, and half above it, whose state and record are read, combinationally.
    state : ``Out(State)``
        Colour 3 x UQ(3,18) and T UQ(1,17) of the slot; black and one where nothing was blended.
    record : ``Out(ArrayLayout(18, k))``
        The lowest 18 bits of the first ids that were blended; of fewer, anything behind them.
    """

    i: stream.Interface

    #: Cycles from a transfer on ``i`` until ``ended`` and ``complete`` tell of it.
    latency = 2 + 5 + Blend.dead_latency
    #: Cycles from a transfer on ``i`` until ``state`` has its colour.
    state_latency = 2 + 5 + Blend.latency

    def __init__(
        self, design: NruDesign = NruDesign(), record_ids: int = 5  # noqa: B008
    ) -> None:
        self.design, self.record_ids = design, record_ids
        pixels = design.unit_pixels
        super().__init__({
            "i": In(stream.Signature(entry_layout(design))),
            "room": Out(1), "begin": In(1),
            "ended": Out(pixels), "complete": Out(pixels), "half": Out(1),
            "busy": Out(1), "current": Out(1),
            "read_slot": In(range(2 * pixels)),
            "state": Out(Blend.state_layout(design.array)),
            "record": Out(data.ArrayLayout(RECORD_ID_BITS, record_ids)),
        })

    def elaborate(self, platform):
        m = Module()
        design, pixels = self.design, self.design.unit_pixels
        slots = 2 * pixels
        depth = design.queue_entries
        layout = entry_layout(design)

        # ---- The queue.
        m.submodules.queue = queue = Memory(shape=layout, depth=depth, init=[])
        write, read = queue.write_port(), queue.read_port(domain="comb")
        # Which places are to go is known of the oldest entry in a register: of the one behind it
        # when that comes, be it in the queue or on its way into it.
        m.submodules.masks = masks = Memory(shape=pixels, depth=depth, init=[])
        write_mask, next_mask = masks.write_port(), masks.read_port(domain="comb")
        count, first, last = Signal(range(depth + 1)), Signal(range(depth)), Signal(range(depth))
        left, lowest = Signal(pixels), Signal(pixels)
        push, issue, pop = Signal(), Signal(), Signal()
        head = read.data
        m.d.comb += [
            self.i.ready.eq(count != depth), self.room.eq(count < depth - 1),
            push.eq(self.i.valid & self.i.ready),
            write.addr.eq(last), write.data.eq(self.i.payload), write.en.eq(push),
            write_mask.addr.eq(last), write_mask.data.eq(self.i.p.mask), write_mask.en.eq(push),
            read.addr.eq(first), next_mask.addr.eq(first + 1),
            issue.eq(count.any()),
            lowest.eq(lowest_bit(left)),
            pop.eq(issue & ~several_bits(left)),
        ]
        m.d.sync += count.eq(count + push - pop)
        with m.If(push):
            m.d.sync += last.eq(last + 1)
        m.d.sync += left.eq(left & ~lowest)
        with m.If(pop):
            m.d.sync += [first.eq(first + 1), left.eq(next_mask.data)]
        with m.If(~issue | (pop & (count == 1))):
            m.d.sync += left.eq(self.i.p.mask)

        # ---- A fragment: its exponent, its splat, its slot.
        half = Signal(init=1)
        place, source, pixel = (Signal(range(pixels), name=name)
                                for name in ("place", "source", "pixel"))
        slot_0 = Signal(range(slots))
        p = Signal(design.alpha.exponent.width, reset_less=True)
        alpha = Signal(shape_of(design.alpha.alpha))
        m.d.comb += [
            place.eq(bit_number(lowest)),
            source.eq(Mux(head.remapped, place, 0)),
            pixel.eq(Mux(head.remapped, head.pixel, place)),
            slot_0.eq(Cat(pixel, half)),
            self.current.eq(half),
        ]
        m.d.sync += [half.eq(half ^ self.begin), p.eq(one_of(list(head.p), place))]
        m.d.sync += power_stages(m, design.alpha, C(1, 1), p, C(1, 1), alpha)

        # Beside the stages: 0 leaves the queue, 1 the exponent, 6 alpha, 11 the end, 14 the colour.
        def line(name, begin, first, last, **options):
            stages = {first: begin}
            for n in range(first + 1, last + 1):
                stages[n] = Signal.like(begin, name=f"{name}_{n}", **options)
                m.d.sync += stages[n].eq(stages[n - 1])
            return stages

        chosen = splat_layout(design)
        splat_0 = data.View(chosen, Signal(chosen.size, name="splat_0"))
        m.d.comb += splat_0.eq(one_of(list(head.splat), source))
        valid = line("valid", issue, 0, 14)
        slot = line("slot", slot_0, 0, 14, reset_less=True)
        color = line("color", splat_0.color, 0, 12, reset_less=True)
        owner = line("id", splat_0.id, 0, 11, reset_less=True)
        # A slot is fresh until a fragment of its tile comes by.
        fresh = Signal(slots)
        first_6, chained_6, again_6 = Signal(), Signal(), Signal()
        halves = Cat((~half).replicate(pixels), half.replicate(pixels))
        m.d.comb += [
            first_6.eq(fresh.bit_select(slot[6], 1)),
            chained_6.eq(valid[7] & (slot[7] == slot[6]) & ~first_6),
            again_6.eq(valid[8] & (slot[8] == slot[6])),
        ]
        # What begins is the other half.
        m.d.sync += fresh.eq(
            fresh & ~Mux(valid[6], 1 << slot[6], 0)
            | ~halves & self.begin.replicate(slots))
        first = line("first", first_6, 6, 12, reset_less=True)
        chained = line("chained", chained_6, 6, 12, reset_less=True)
        again = line("again", again_6, 6, 12, reset_less=True)

        # ---- Blending, see BlendLane for the stages.
        m.submodules.lane = lane = BlendLane(design.array, slots)
        untouched = Signal(Blend.state_layout(design.array))
        m.d.comb += [
            lane.enable.eq(1), lane.alpha.eq(alpha), lane.inside.eq(1),
            lane.slot.eq(slot[7]), lane.first.eq(first[7]), lane.again.eq(again[7]),
            lane.chained.eq(chained[7]),
            lane.slot_product.eq(slot[9]), lane.write_product.eq(valid[9]),
            lane.slot_transmittance.eq(slot[11]), lane.first_transmittance.eq(first[11]),
            lane.write_transmittance.eq(valid[11]),
            lane.color.eq(color[12]), lane.slot_color.eq(slot[12]),
            lane.first_color.eq(first[12]), lane.again_color.eq(again[12]),
            lane.chained_color.eq(chained[12]),
            lane.slot_final.eq(slot[14]), lane.write_final.eq(valid[14]),
            lane.read_slot.eq(self.read_slot),
            untouched.transmittance.eq(design.blend.one),
            self.state.eq(Mux(fresh.bit_select(self.read_slot, 1), untouched.as_value(),
                              lane.state.as_value())),
            self.busy.eq(count.any() | Cat(valid[n] for n in range(1, 12)).any()),
        ]

        # ---- Records: ids of what is blended, known where it is known whether the pixel has ended.
        k = self.record_ids
        m.submodules.records = records = Memory(
            shape=data.ArrayLayout(RECORD_ID_BITS, k), depth=slots, init=[])
        keep, look = records.write_port(granularity=1), records.read_port(domain="comb")
        m.submodules.counts = counts = Memory(shape=range(k + 1), depth=slots, init=[])
        counted, before = counts.write_port(), counts.read_port(domain="comb")
        number, behind = Signal(range(k + 1)), Signal(range(k + 1))
        stored = Signal()
        # Read a stage before it is told whether the pixel has ended: past what is counted then.
        m.d.sync += number.eq(Mux(first[10], 0, Mux(chained[10], behind, before.data)))
        m.d.comb += [
            behind.eq(number + stored),
            stored.eq(valid[11] & ~lane.dead & (number != k)),
            keep.addr.eq(slot[11]), keep.data.eq(owner[11].replicate(k)),
            keep.en.eq(Mux(stored, 1 << number, 0)),
            look.addr.eq(self.read_slot), self.record.eq(look.data),
            before.addr.eq(slot[10]),
            counted.addr.eq(slot[11]), counted.data.eq(behind), counted.en.eq(stored),
        ]
        of = Mux(valid[11], 1 << slot[11][:-1], 0)
        m.d.sync += [
            self.ended.eq(Mux(lane.dead, of, 0)),
            self.complete.eq(Mux(stored & (number == k - 1), of, 0)),
            self.half.eq(slot[11][-1]),
        ]
        return m
