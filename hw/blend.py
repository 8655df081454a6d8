"""Blending of one block of fragments a cycle into the pixel state of a tile, two tiles deep."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.array import ArrayDesign
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.copies import copy_of
from splatforge.hw.lib.fixed import shape_of

__all__ = ["Blend", "BlendLane"]


class BlendLane(Component):
    """State of one lane's pixels. No handshake: every register moves when ``enable`` is high.

    The product of 1 - alpha must be multiplied once a cycle, and a multiplier leaves no time for
    the addition that rounds. So the product P of a pixel is kept in two parts, ``P = H + k`` with k
    of one bit, and the product of ``2 H + 1`` with ``1 - alpha`` has the next H in its upper bits:
    rounded half up, the next P is this H or one more, whatever k is. What the addition would have
    carried, the next k, is worked out a cycle later, while the next H is already in the multiplier.

    Parameters
    ----------
    design : ArrayDesign
        Formats.
    slots : int
        Pixels whose state the lane holds, those of two tiles or of two groups of them.

    Members
    -------
    enable : ``In(1)``
        Moves all stages.
    alpha, inside : ``In``
        Stage 1: the fragment, and whether its pixel lies in the frame.
    slot, first, again, chained : ``In``
        Stage 2: where the pixel's state lies, whether it is still that of another tile, and whether
        the fragment two before, and the one before, had this slot.
    slot_product, write_product : ``In``
        Stage 4: the slot, and whether there is a fragment at all.
    slot_transmittance, first_transmittance, write_transmittance : ``In``
        Stage 6: ``slot``, ``first`` and whether there is a fragment.
    dead : ``Out(1)``
        Stage 6: the pixel has ended.
    color, slot_color, first_color, again_color, chained_color : ``In``
        Stage 7: the splat's colour, and ``slot``, ``first``, ``again`` and ``chained``.
    slot_final, write_final : ``In``
        Stage 9: the slot, and whether there is a fragment.
    read_slot : ``In``
        Slot to read; ``state`` follows combinationally.
    state : ``Out``
        Colour and T of the slot.
    """

    def __init__(self, design: ArrayDesign, slots: int) -> None:
        self.design, self.slots = design, slots
        blend = design.blend
        super().__init__({
            "enable": In(1),
            "alpha": In(shape_of(design.alpha.alpha)),
            "inside": In(1),
            "slot": In(range(slots)),
            "first": In(1),
            "again": In(1),
            "chained": In(1),
            "slot_product": In(range(slots)),
            "write_product": In(1),
            "slot_transmittance": In(range(slots)),
            "first_transmittance": In(1),
            "write_transmittance": In(1),
            "dead": Out(1),
            "color": In(data.ArrayLayout(shape_of(blend.color), 3)),
            "slot_color": In(range(slots)),
            "first_color": In(1),
            "again_color": In(1),
            "chained_color": In(1),
            "slot_final": In(range(slots)),
            "write_final": In(1),
            "read_slot": In(range(slots)),
            "state": Out(Blend.state_layout(design)),
        })

    def elaborate(self, platform):
        m = Module()
        final, dead = self._product(m)
        self._color(m, final, dead)
        return m

    def _bank(self, m, name, shape, depth):
        """A memory of one word a pixel, and its two ports."""
        m.submodules[name] = memory = Memory(shape=shape, depth=depth, init=[])
        return memory, memory.read_port(domain="comb"), memory.write_port()

    def _product(self, m):
        """Stages 1 to 5: the product behind the fragment, what it weighs, whether it ends."""
        design, blend = self.design, self.design.blend
        frac = design.alpha.alpha.frac_bits
        shape = shape_of(blend.transmittance)
        parts = data.StructLayout({"low": 1, "high": blend.transmittance.frac_bits})
        # Only the tile that is blended has products: one for both halves of the state.
        _, read, write = self._bank(m, "product", parts, max(2, self.slots // 2))

        # Data registers need no reset: what is in them matters only when `write` says so.
        def register(name, shape):
            return Signal(shape, name=name, reset_less=True)

        stored, current, before, after = (
            Signal(parts, name=name, reset_less=True)
            for name in ("stored", "current", "before", "after"))
        arrived, alpha = (register(f"alpha_{n}", shape_of(design.alpha.alpha)) for n in (1, 2))
        inside = register("inside_1", 1)
        keep = register("keep", range((1 << frac) + 1))
        wide = register("wide", blend.transmittance.frac_bits + frac + 2)
        rest = register("rest", frac + 2)
        total = Signal.like(wide, name="product_total")
        product_before, product_after = register("product_before", shape), \
            register("product_after", shape)
        ended = Signal()
        weight, final, dead = register("weight", shape), register("final", shape), \
            register("dead_5", 1)
        chained = copy_of(m, self.chained, self.enable)
        m.d.comb += [
            read.addr.eq(self.slot),
            current.eq(Mux(chained, after, stored)),
            # P (1 - alpha) 2^(frac + 1), rounding's half in it, is `wide` and `rest`. What their
            # sum carries into the upper bits is where its lowest upper bit differs from `wide`.
            total.eq(wide + rest),
            after.low.eq(total[frac + 1] ^ wide[frac + 1]),
            after.high.eq(wide[frac + 1:]),
            write.addr.eq(self.slot_product),
            write.data.eq(after),
            write.en.eq(self.write_product & self.enable),
            ended.eq(product_after < blend.stop),
        ]
        with m.If(self.enable):
            m.d.sync += [
                # Stage 1.
                arrived.eq(self.alpha), inside.eq(self.inside),
                # Stage 2: the product before, one where the pixel is new; 1 - alpha.
                stored.as_value().eq(Mux(
                    self.first, inside.replicate(parts.size),
                    Mux(self.again, after, read.data))),
                alpha.eq(arrived), keep.eq((1 << frac) - arrived),
                # Stage 3: multiplied.
                wide.eq(Cat(C(1, 1), current.high) * keep),
                rest.eq(Mux(current.low, keep + (1 << frac), alpha)),
                before.eq(current),
                # Stage 4: the product behind, rounded, in one part.
                product_before.eq(before.high + before.low),
                product_after.eq(total[frac + 1:]),
                # Stage 5: what the fragment weighs.
                weight.eq(Mux(ended, 0, product_before - product_after)),
                final.eq(product_after), dead.eq(ended),
            ]
        m.d.comb += self.dead.eq(dead)
        self._weight = weight
        return final, dead

    def _color(self, m, final, dead):
        """Stages 6 to 9: T of what has been blended; weight times colour, accumulated."""
        blend = self.design.blend
        memory, _, write = self._bank(
            m, "transmittance", shape_of(blend.transmittance), self.slots)
        look = memory.read_port(domain="comb")
        m.d.comb += [
            write.addr.eq(self.slot_transmittance),
            write.data.eq(Mux(dead, blend.one, final)),
            write.en.eq(self.write_transmittance & self.enable
                        & (self.first_transmittance | ~dead)),
            look.addr.eq(self.read_slot),
            self.state.transmittance.eq(look.data),
        ]
        shift = (blend.transmittance.frac_bits + blend.color.frac_bits
                 - blend.accumulator.frac_bits)
        shape = shape_of(blend.accumulator)
        chained = copy_of(m, self.chained_color, self.enable)
        first, again = self.first_color, self.again_color
        # Stage 6: the way to the multipliers, which are where an FPGA has them.
        weight = Signal.like(self._weight, name="weight_6", reset_less=True)
        with m.If(self.enable):
            m.d.sync += weight.eq(self._weight)
        for c in range(3):
            memory, read, write = self._bank(m, f"color_{c}", shape, self.slots)
            look = memory.read_port(domain="comb")
            product = Signal(blend.transmittance.width + blend.color.width,
                             name=f"weighted_{c}", reset_less=True)
            stored, total = (Signal(shape, name=f"{name}_{c}", reset_less=True)
                             for name in ("before", "total"))
            # Rounding half up adds the first bit that is dropped: it is the carry of the sum.
            half = product[shift - 1] if shift else C(0, 1)
            base = Mux(chained, total, stored)
            m.d.comb += [
                read.addr.eq(self.slot_color),
                write.addr.eq(self.slot_final),
                write.data.eq(total),
                write.en.eq(self.write_final & self.enable),
                look.addr.eq(self.read_slot),
                self.state.color[c].eq(look.data),
            ]
            with m.If(self.enable):
                m.d.sync += [
                    product.eq(weight * self.color[c]),
                    stored.eq(Mux(first, 0, Mux(again, total, read.data))),
                    total.eq((Cat(C(1, 1), base) + Cat(half, product >> shift)) >> 1),
                ]


class Blend(Component):
    """Blend one block of fragments a cycle into the state of its pixels.

    Bit-true model: :func:`splatforge.algos.blend.blend_fixed`. Cycle model:
    :mod:`splatforge.sim.blend`.

    Latency is :attr:`latency` cycles from a transfer on ``i`` to the colour that ``state`` shows,
    and :attr:`dead_latency` to T there and to ``o``; throughput is one block per cycle, the same
    block in consecutive cycles included. A stall of ``o`` stalls ``i`` in the same cycle
    (``i.ready`` depends on ``o.ready`` combinationally); no payload is lost or reordered.

    Per lane one multiplier 18x15 in a loop of one cycle with nothing but a choice beside it, three
    18x10 behind it, four memories of ``2 * places`` words and one of ``places``. What steers the
    lanes has a register for each row of them, or for each lane.

    Parameters
    ----------
    design : ArrayDesign
        Lanes and formats.

    Members
    -------
    i : ``In(stream.Signature(Fragments))``
        ``alpha`` of every lane, UQ(0,14) by default; ``color`` 3 x UQ(2,8); ``slot``, the block
        within the two halves of the state; ``first``, set on the first fragments of a tile's block,
        whose old state is another tile's; ``columns`` and ``rows`` of the block that lie in the
        frame, one bit each. A block's fragments in one half never come between those in the other.
    o : ``Out(stream.Signature(Ended))``
        For every block: its ``slot``, and whether all its pixels have ended (``dead``).
    read_enable, read_slot : ``In``
        Whether to look at another slot from the next cycle on, and at which.
    state : ``Out(ArrayLayout(State, lanes))``
        Colour 3 x UQ(3,18) and T UQ(1,17) of every lane in the slot that is looked at.
    """

    i: stream.Interface
    o: stream.Interface

    #: Cycles from a transfer on ``i`` until its effect is visible in the colour of ``state``.
    latency = 9
    #: Cycles from a transfer on ``i`` to the first cycle in which ``o`` can transfer it.
    dead_latency = 6

    def __init__(self, design: ArrayDesign = ArrayDesign()) -> None:  # noqa: B008
        self.design = design
        self.slots = 2 * design.places
        super().__init__({
            "i": In(stream.Signature(self.fragments_layout(design))),
            "o": Out(stream.Signature(data.StructLayout({
                "slot": range(self.slots), "dead": 1}))),
            "read_enable": In(1),
            "read_slot": In(range(self.slots)),
            "state": Out(data.ArrayLayout(self.state_layout(design), design.lanes)),
        })

    @staticmethod
    def state_layout(design: ArrayDesign) -> data.StructLayout:
        """State of a pixel."""
        return data.StructLayout({
            "color": data.ArrayLayout(shape_of(design.blend.accumulator), 3),
            "transmittance": shape_of(design.blend.transmittance),
        })

    @staticmethod
    def fragments_layout(design: ArrayDesign) -> data.StructLayout:
        """Payload of ``i``."""
        return data.StructLayout({
            "alpha": data.ArrayLayout(shape_of(design.alpha.alpha), design.lanes),
            "color": data.ArrayLayout(shape_of(design.blend.color), 3),
            "slot": range(2 * design.places),
            "first": 1,
            "columns": design.block_width,
            "rows": design.block_height,
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        move = Signal()
        m.d.comb += [move.eq(~self.o.valid | self.o.ready), self.i.ready.eq(move)]

        def line(name, begin, stages):
            return [begin] + [Signal.like(begin, name=f"{name}_{n}") for n in range(1, stages + 1)]

        valid, slot = line("valid", self.i.valid, 7), line("slot", self.i.p.slot, 7)
        first, color = line("first", self.i.p.first, 5), line("color", self.i.p.color, 4)
        # Whether the fragment before, or the one before that, left this slot's state in a register.
        chained, again = (Signal(name=name) for name in ("chained", "again"))
        m.d.comb += [
            chained.eq(valid[1] & (slot[1] == self.i.p.slot) & ~self.i.p.first),
            again.eq(valid[2] & (slot[2] == self.i.p.slot)),
        ]
        chained, again = line("chained", chained, 5), line("again", again, 5)
        with m.If(move):
            for stages in (valid, slot, first, color, chained, again):
                m.d.sync += [after.eq(before) for before, after in pairwise(stages)]

        lanes = []
        for y in range(design.block_height):
            # Each row's own registers, a stage behind those that they are copies of.
            steered = {name: copy_of(m, value, move) for name, value in (
                ("slot", slot[0]), ("chained", chained[0]),
                ("first", first[0]), ("again", again[0]),
                ("slot_product", slot[2]), ("write_product", valid[2]),
                ("slot_transmittance", slot[4]), ("first_transmittance", first[4]),
                ("write_transmittance", valid[4]),
                ("color", copy_of(m, color[4], move)), ("first_color", first[5]),
                ("again_color", again[5]), ("chained_color", chained[5]),
                ("slot_final", slot[7]))}
            for x in range(design.block_width):
                lane = BlendLane(design, self.slots)
                m.submodules[f"lane_{y}_{x}"] = lane
                lanes.append(lane)
                number = y * design.block_width + x
                m.d.comb += [
                    lane.enable.eq(move),
                    lane.alpha.eq(self.i.p.alpha[number]),
                    lane.inside.eq(self.i.p.columns[x] & self.i.p.rows[y]),
                    *(getattr(lane, name).eq(value) for name, value in steered.items()),
                    # Of these a lane has its own: each steers a hundred memories or more.
                    lane.slot_color.eq(copy_of(m, slot[5], move)),
                    lane.write_final.eq(copy_of(m, valid[7], move)),
                    lane.read_slot.eq(copy_of(m, self.read_slot, self.read_enable)),
                    self.state[number].eq(lane.state),
                ]
        with m.If(move):
            m.d.sync += [
                self.o.valid.eq(valid[5]),
                self.o.p.slot.eq(slot[5]),
                self.o.p.dead.eq(Cat(lane.dead for lane in lanes).all()),
            ]
        return m
