"""Alpha of one splat at every pixel of one block, the exponential out of a table: Voyager's."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.algos.falloff import falloff_table, opacity_table
from splatforge.designs.array import ArrayDesign
from splatforge.designs.falloff import FalloffDesign
from splatforge.designs.fetch import SplatFormat
from splatforge.hw.alpha import Alpha, AlphaLane, square_stages
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import shape_of

__all__ = ["Falloff", "FalloffLane"]


def _sum_of_bits(value: Value, number: Value) -> Value:
    """`value` times `number` of few bits, without a multiplier, as a tree of additions."""
    terms: list[Value] = [Mux(number[bit], value, 0) << bit for bit in range(len(number))]
    while len(terms) > 1:
        terms = [sum(terms[at:at + 2], C(0, 1)) for at in range(0, len(terms), 2)]
    return terms[0] if terms else C(0, 1)


class FalloffLane(Component):
    """Alpha of one pixel. No handshake: every register moves when ``enable`` is high.

    The inputs belong to the stages of :class:`Falloff`: ``column`` and ``row`` to stage 5, ``rest``
    ``test`` and ``reach`` to stage 9, ``opacity`` to stage 13; ``alpha`` leaves stage 14. Behind
    stage 9 a register moves, and the table is read, only for what is significant.

    Parameters
    ----------
    design : FalloffDesign
        Formats.

    Members
    -------
    enable : ``In(1)``
        Moves all stages.
    column, row : ``In``
        The two parts of the form u, see :class:`splatforge.hw.alpha.AlphaLane`.
    rest : ``In``
        The square of v and half a unit of the exponent, with twice the fraction bits of ``form``.
    test : ``In``
        The same, less the first exponent that is not significant: with the square of u it is
        negative where the pixel is.
    reach : ``In(1)``
        Whether the splat may change the pixel.
    opacity : ``In``
        Of the splat.
    alpha : ``Out``
        Raw opacity, zero where not significant.
    looks : ``Out(1)``
        The table is read in this cycle.
    """

    def __init__(self, design: FalloffDesign) -> None:
        self.design = design
        rest = AlphaLane.rest_width(design)
        super().__init__({
            "enable": In(1),
            "column": In(signed(design.form_sum.width + 1)),
            "row": In(signed(design.form_sum.width + 1)),
            "rest": In(rest), "test": In(signed(rest + 1)), "reach": In(1),
            "opacity": In(shape_of(design.opacity)),
            "alpha": Out(shape_of(design.alpha)), "looks": Out(1),
        })

    def elaborate(self, platform):
        m = Module()
        design, slope = self.design, self.design.slope_bits
        values, deltas = falloff_table(design)
        entry = data.StructLayout({
            "value": shape_of(design.table),
            **({"delta": design.delta_width} if design.interpolated else {})})
        m.submodules.table = rom = Memory(
            shape=entry, depth=design.table_entries,
            init=[entry.const({"value": int(value), "delta": int(delta)}
                              if design.interpolated else {"value": int(value)})
                  for value, delta in zip(values, deltas, strict=True)])
        read = rom.read_port()

        def register(name: str, shape: Shape | int = 1) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        u_square, stages = square_stages(design, self.column, self.row)
        # What is significant lies in the table's octaves; what is not is not looked at.
        exponent = register("exponent", design.index_bits + slope)
        significant = [register(f"significant_{n}") for n in range(9, 14)]
        weight = register("weight", shape_of(design.table))
        product = register("product", design.table.width + design.opacity.width)
        capped = register("capped", shape_of(design.alpha))
        drop = design.table.frac_bits + design.opacity.frac_bits - design.alpha.frac_bits
        rounded = Signal(len(product) + 1 - drop)
        # What rounds to more than the cap, told from the product beside its rounding, not behind.
        # The least that does has no bit below the one that rounding looks at.
        half, below = 1 << drop >> 1, max(drop - 1, 0)
        is_above = product >> below >= (((design.alpha_cap + 1) << drop) - half) >> below
        m.d.comb += [
            self.looks.eq(self.enable & significant[0]),
            read.en.eq(self.looks), read.addr.eq(exponent[slope:]),
            rounded.eq((product + half) >> drop),
            self.alpha.eq(capped),
        ]
        with m.If(self.enable):
            m.d.sync += [
                *stages,
                # Stage 9: the exponent, and whether it is at most ln(255 opacity).
                exponent.eq((u_square + self.rest)
                            >> (2 * design.form.frac_bits - design.exponent.frac_bits)),
                significant[0].eq(self.reach & (u_square + self.test)[-1]),
                *(after.eq(before) for before, after in pairwise(significant)),
                # Stage 14: rounded and capped.
                capped.eq(Mux(significant[4], Mux(is_above, design.alpha_cap, rounded), 0)),
            ]
        # Stage 10: the table (its read port is the register). Stages 11 and 12: interpolation, or
        # the way to a multiplier.
        if design.interpolated:
            part, start = register("part", slope), register("start", shape_of(design.table))
            middle = slope // 2
            low = register("slope_low", design.delta_width + middle)
            high = register("slope_high", design.delta_width + slope - middle)
            with m.If(self.looks):
                m.d.sync += part.eq(exponent[:slope])
            with m.If(self.enable & significant[1]):
                m.d.sync += [
                    start.eq(read.data.value),
                    low.eq(_sum_of_bits(read.data.delta, part[:middle])),
                    high.eq(_sum_of_bits(read.data.delta, part[middle:])),
                ]
            with m.If(self.enable & significant[2]):
                m.d.sync += weight.eq(
                    (((start << slope) | (1 << slope >> 1)) - low - (high << middle)) >> slope)
        else:
            value = register("value", shape_of(design.table))
            with m.If(self.enable & significant[1]):
                m.d.sync += value.eq(read.data.value)
            with m.If(self.enable & significant[2]):
                m.d.sync += weight.eq(value)
        # Stage 13: times the opacity.
        with m.If(self.enable & significant[3]):
            m.d.sync += product.eq(weight * self.opacity)
        return m


class Falloff(Alpha):
    """Alpha of one splat at every pixel of one block of a tile: opacity times a table's entry.

    Bit-true model: :func:`splatforge.algos.falloff.falloff_fixed` of the forms of
    :func:`splatforge.algos.alpha.forms_fixed`. Cycle model: :mod:`splatforge.sim.falloff`.

    In place of :class:`splatforge.hw.alpha.Alpha`, with its handshake and its stages up to the
    square of the forms. A fragment is tested against ``log2(255 o)`` of its splat, one subtraction
    for the whole block; only for what passes the lane's table is read, and only then do the
    registers of its arithmetic move. The opacity comes out of a table of its own, once for the
    block.

    Latency is :attr:`latency` cycles when the consumer never stalls; throughput is one block per
    cycle. A stall of ``o`` stalls ``i`` in the same cycle (``i.ready`` depends on ``o.ready``
    combinationally); no payload is lost or reordered.

    Per lane one squarer (13x13 by default) and one product (15x15), per row one squarer. No stage
    holds more than one multiplication, or two additions, or an addition behind a shift.

    Parameters
    ----------
    design : ArrayDesign
        Lanes and formats; its alpha is a :class:`splatforge.designs.falloff.FalloffDesign`.
    splat : SplatFormat
        Formats of the record.
    carry_width : int
        Bits that travel with the block unchanged.

    Members
    -------
    i : ``In(stream.Signature(Splat))``
        As of :class:`splatforge.hw.alpha.Alpha`.
    o : ``Out(stream.Signature(Block))``
        As of :class:`splatforge.hw.alpha.Alpha`.
    """

    lane = FalloffLane
    reach_stage = 8

    def __init__(
        self,
        design: ArrayDesign = ArrayDesign(alpha=FalloffDesign()),  # noqa: B008
        splat: SplatFormat = SplatFormat(),  # noqa: B008
        carry_width: int = 1,
    ) -> None:
        super().__init__(design, splat, carry_width)

    def beside_squares(self, opacity: Value, unit: int) -> Value:
        """Half a unit: the exponent is without the opacity."""
        return C(unit)

    def lane_inputs(
        self, m: Module, move: Value, squares: list[Signal], opacity: list[Value], unit: int
    ) -> list[dict[str, Value]]:
        """The test of every row, and the opacity of the splat."""
        design = self.design.alpha
        assert isinstance(design, FalloffDesign)
        fraction = design.log_opacity.frac_bits
        drop = 2 * design.form.frac_bits - design.exponent.frac_bits
        powers = opacity_table(design)
        m.submodules.opacities = rom = Memory(
            shape=shape_of(design.opacity), depth=len(powers), init=powers.tolist())
        read = rom.read_port()
        m.d.comb += [read.en.eq(move), read.addr.eq(opacity[7][:fraction])]

        def register(name: str, shape: Shape | int) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        # Stage 7: the first exponent that is not significant, below zero where the opacity is less
        # than one of 255. Stage 8: its test in every row.
        bound = register("bound", signed((design.cutoff + 1).bit_length() + 1))
        tests = [register(f"test_{y}", signed(AlphaLane.rest_width(design) + 1))
                 for y in range(len(squares))]
        # Stage 8: the power of two of the opacity's fraction; 9: its octave; to stage 12.
        octave = register("octave", max(1, design.log_opacity.int_bits))
        shifted = [register(f"opacity_{n}", shape_of(design.opacity)) for n in range(9, 13)]
        with m.If(move):
            m.d.sync += [
                bound.eq(design.cutoff + 1
                         - (opacity[6] << (design.exponent.frac_bits - fraction))),
                *(test.eq(square + unit - (bound << drop))
                  for test, square in zip(tests, squares, strict=True)),
                octave.eq(opacity[7][fraction:]),
                shifted[0].eq((((read.data << 1) >> octave) + 1) >> 1),
                *(after.eq(before) for before, after in pairwise(shifted)),
            ]
        return [{"test": test, "opacity": shifted[-1]} for test in tests]
