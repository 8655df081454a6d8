"""Blending of one block of fragments a cycle into the pixel state of a tile, two tiles deep."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.designs.array import ArrayDesign
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift, shape_of

__all__ = ["Blend", "BlendLane"]


class BlendLane(Component):
    """State of one lane's pixels. No handshake: every register moves when ``enable`` is high.

    Parameters
    ----------
    design : ArrayDesign
        Formats.
    slots : int
        Pixels whose state the lane holds.

    Members
    -------
    enable : ``In(1)``
        Moves all stages.
    alpha, inside, slot, first, write : ``In``
        Stage 1: the fragment, whether its pixel lies in the frame, where its state lies, whether
        the state is still that of another tile, and whether there is a fragment at all.
    dead : ``Out(1)``
        Stage 2: the pixel has ended.
    color : ``In``
        Stage 3: the splat's colour.
    slot_final, first_final, write_final : ``In``
        Stage 4: ``slot``, ``first`` and ``write``, three cycles later.
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
            "write": In(1),
            "dead": Out(1),
            "color": In(data.ArrayLayout(shape_of(blend.color), 3)),
            "slot_final": In(range(slots)),
            "first_final": In(1),
            "write_final": In(1),
            "read_slot": In(range(slots)),
            "state": Out(Blend.state_layout(design)),
        })

    def elaborate(self, platform):
        m = Module()
        design, blend = self.design, self.design.blend
        frac = design.alpha.alpha.frac_bits

        def bank(name, shape):
            m.submodules[name] = memory = Memory(shape=shape, depth=self.slots, init=[])
            return memory, memory.read_port(domain="comb"), memory.write_port()

        # Stage 1: the product of 1 - alpha, read, multiplied, rounded and written in one cycle, so
        # that the next cycle may bring the next splat of the same block.
        _, read, write = bank("product", shape_of(blend.transmittance))
        # Data registers need no reset: what is in them matters only when `write` says so.
        def register(name, shape):
            return Signal(shape, name=name, reset_less=True)

        before, after = (register(name, shape_of(blend.transmittance))
                         for name in ("before", "after"))
        current, product = (Signal(shape_of(blend.transmittance), name=name)
                            for name in ("current", "product_next"))
        m.d.comb += [
            read.addr.eq(self.slot),
            current.eq(Mux(self.first, Mux(self.inside, blend.one, 0), read.data)),
            product.eq(round_shift(current * ((1 << frac) - self.alpha), frac)),
            write.addr.eq(self.slot),
            write.data.eq(product),
            write.en.eq(self.write & self.enable),
        ]
        # Stage 2: what the fragment weighs.
        weight = register("weight", shape_of(blend.transmittance))
        final_2, final_3 = (register(f"final_{n}", shape_of(blend.transmittance))
                            for n in (2, 3))
        blended_2, blended_3 = register("blended_2", 1), register("blended_3", 1)
        m.d.comb += self.dead.eq(after < blend.stop)
        # Stage 3: weight times colour.
        shift = (blend.transmittance.frac_bits + blend.color.frac_bits
                 - blend.accumulator.frac_bits)
        products = [register(f"product_{c}",
                             blend.transmittance.width + blend.color.width - shift + 1)
                    for c in range(3)]
        with m.If(self.enable):
            m.d.sync += [
                before.eq(current), after.eq(product),
                weight.eq(Mux(self.dead, 0, before - after)), final_2.eq(after),
                blended_2.eq(~self.dead),
                final_3.eq(final_2), blended_3.eq(blended_2),
            ]
            m.d.sync += [products[c].eq(round_shift(weight * self.color[c], shift))
                         for c in range(3)]
        # Stage 4: the accumulators, and T of what has been blended.
        for c in range(3):
            memory, read, write = bank(f"color_{c}", shape_of(blend.accumulator))
            look = memory.read_port(domain="comb")
            m.d.comb += [
                read.addr.eq(self.slot_final),
                write.addr.eq(self.slot_final),
                write.data.eq(Mux(self.first_final, 0, read.data) + products[c]),
                write.en.eq(self.write_final & self.enable),
                look.addr.eq(self.read_slot),
                self.state.color[c].eq(look.data),
            ]
        memory, read, write = bank("transmittance", shape_of(blend.transmittance))
        look = memory.read_port(domain="comb")
        m.d.comb += [
            read.addr.eq(self.slot_final),
            write.addr.eq(self.slot_final),
            write.data.eq(Mux(blended_3, final_3, Mux(self.first_final, blend.one, read.data))),
            write.en.eq(self.write_final & self.enable),
            look.addr.eq(self.read_slot),
            self.state.transmittance.eq(look.data),
        ]
        return m


class Blend(Component):
    """Blend one block of fragments a cycle into the state of its pixels.

    Bit-true model: :func:`splatforge.algos.blend.blend_fixed`. Cycle model:
    :mod:`splatforge.sim.blend`.

    Latency is :attr:`latency` cycles from a transfer on ``i`` to the state that ``read_slot``
    shows, and :attr:`dead_latency` to ``o``; throughput is one block per cycle, the same block in
    consecutive cycles included. A stall of ``o`` stalls ``i`` in the same cycle (``i.ready``
    depends on ``o.ready`` combinationally); no payload is lost or reordered.

    Per lane one multiplier 18x15 in a loop of one cycle, three 18x10 behind it, and five memories
    of ``2 * blocks`` words.

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
        frame, one bit each.
    o : ``Out(stream.Signature(Ended))``
        For every block: its ``slot``, and whether all its pixels have ended (``dead``).
    read_slot : ``In(range(slots))``
        Slot to look at.
    state : ``Out(ArrayLayout(State, lanes))``
        Colour 3 x UQ(3,18) and T UQ(1,17) of every lane at ``read_slot``, combinationally.
    """

    i: stream.Interface
    o: stream.Interface

    #: Cycles from a transfer on ``i`` until its effect is visible in ``state``.
    latency = 4
    #: Cycles from a transfer on ``i`` to the first cycle in which ``o`` can transfer it.
    dead_latency = 2

    def __init__(self, design: ArrayDesign = ArrayDesign()) -> None:  # noqa: B008
        self.design = design
        self.slots = 2 * design.blocks
        super().__init__({
            "i": In(stream.Signature(self.fragments_layout(design))),
            "o": Out(stream.Signature(data.StructLayout({
                "slot": range(self.slots), "dead": 1}))),
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
            "slot": range(2 * design.blocks),
            "first": 1,
            "columns": design.block_width,
            "rows": design.block_height,
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        move = Signal()
        m.d.comb += [move.eq(~self.o.valid | self.o.ready), self.i.ready.eq(move)]

        valid = [self.i.valid] + [Signal(name=f"valid_{n}") for n in range(1, 4)]
        slot = [self.i.p.slot] + [Signal.like(self.i.p.slot, name=f"slot_{n}")
                                  for n in range(1, 4)]
        first = [self.i.p.first] + [Signal(name=f"first_{n}") for n in range(1, 4)]
        color = [self.i.p.color] + [Signal.like(self.i.p.color, name=f"color_{n}")
                                    for n in range(1, 3)]
        with m.If(move):
            for line in (valid, slot, first, color):
                m.d.sync += [line[n + 1].eq(line[n]) for n in range(len(line) - 1)]

        lanes = []
        for y in range(design.block_height):
            for x in range(design.block_width):
                lane = BlendLane(design, self.slots)
                m.submodules[f"lane_{y}_{x}"] = lane
                lanes.append(lane)
                number = y * design.block_width + x
                m.d.comb += [
                    lane.enable.eq(move),
                    lane.alpha.eq(self.i.p.alpha[number]),
                    lane.inside.eq(self.i.p.columns[x] & self.i.p.rows[y]),
                    lane.slot.eq(self.i.p.slot),
                    lane.first.eq(self.i.p.first),
                    lane.write.eq(self.i.valid),
                    lane.color.eq(color[2]),
                    lane.slot_final.eq(slot[3]),
                    lane.first_final.eq(first[3]),
                    lane.write_final.eq(valid[3]),
                    lane.read_slot.eq(self.read_slot),
                    self.state[number].eq(lane.state),
                ]
        with m.If(move):
            m.d.sync += [
                self.o.valid.eq(valid[1]),
                self.o.p.slot.eq(slot[1]),
                self.o.p.dead.eq(Cat(lane.dead for lane in lanes).all()),
            ]
        return m
