"""Alpha of one splat at every pixel of one block: linear forms, squares, power of two."""

from itertools import pairwise
from typing import Any

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.algos.alpha import exp2_table
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.fetch import SUBTILE_PX, TILE_PX, SplatFormat
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift, saturate, shape_of

__all__ = ["Alpha", "AlphaLane", "exponent_stages", "multiple", "power_stages",
           "square_stages"]


def multiple(value: Value, n: int) -> Value:
    """`value` times the constant `n` below 16, as sums of shifts: an FPGA would multiply."""
    if n & (n - 1) == 0:
        return value * n
    if n in (7, 14, 15):
        return (value << n.bit_length()) - value * ((1 << n.bit_length()) - n)
    top = 1 << (n.bit_length() - 1)
    return value * top + multiple(value, n - top)


def _times(value: Value, number: Value, count: int) -> Value:
    """`value` times `number` below `count`, a power of two up to 4."""
    one, two = number[0], number[1] if count > 2 else C(0, 1)
    return Mux(one, value, 0) + (Mux(two, value, 0) << 1) if count > 1 else C(0, 1)


def _sum_of_bits(value: Value, number: Value) -> Value:
    """`value` times `number` of few bits, without a multiplier."""
    return sum((Mux(number[bit], value, 0) << bit for bit in range(len(number))), C(0, 1))


class AlphaLane(Component):
    """Alpha of one pixel. No handshake: every register moves when ``enable`` is high.

    The inputs belong to the stages of :class:`Alpha`: ``column`` and ``row`` to stage 5, ``rest``
    to stage 9, ``reach`` to stage 10; ``alpha`` leaves stage 14.

    Parameters
    ----------
    design : AlphaDesign
        Formats.

    Members
    -------
    enable : ``In(1)``
        Moves all stages.
    column, row : ``In``
        The two parts of the form u, in ``form_sum`` and one bit more, half a unit of ``form`` in
        their sum.
    rest : ``In``
        What the square of u lacks of the exponent: the square of v, ``-log2(opacity)`` and half a
        unit of the exponent, with twice the fraction bits of ``form``.
    reach : ``In(1)``
        Whether the splat may change the pixel.
    alpha : ``Out``
        Raw opacity, zero where not significant.
    """

    def __init__(self, design: AlphaDesign) -> None:
        self.design = design
        super().__init__({
            "enable": In(1),
            "column": In(signed(design.form_sum.width + 1)),
            "row": In(signed(design.form_sum.width + 1)),
            "rest": In(self.rest_width(design)),
            "reach": In(1),
            "alpha": Out(shape_of(design.alpha)),
        })

    @staticmethod
    def rest_width(design: AlphaDesign) -> int:
        """Bits of ``rest``."""
        return design.exponent.width + 2 * design.form.frac_bits - design.exponent.frac_bits

    def elaborate(self, platform):
        m = Module()
        design = self.design
        p = Signal(design.exponent.width, reset_less=True)
        power = power_stages(m, design, self.enable, p, self.reach, self.alpha)
        with m.If(self.enable):
            m.d.sync += [
                *exponent_stages(design, self.column, self.row, self.rest, p), *power]
        return m


def square_stages(
    design: AlphaDesign, column: Value, row: Value
) -> tuple[Signal, list[Any]]:
    """From the form's two parts to its square: four stages, 5 to 8, see :class:`AlphaLane`.

    Parameters
    ----------
    design : AlphaDesign
        Formats.
    column, row : Value
        As of a lane.

    Returns
    -------
    Signal
        ``u^2``, the register of stage 8.
    list of statements
        What their registers take where they move.
    """
    form = design.form

    # Data registers need no reset: what is in them matters only when `valid` says so.
    def register(name: str, shape: Shape | int = 1) -> Signal:
        return Signal(shape, name=name, reset_less=True)

    total = register("total", signed(design.form_sum.width + 1))
    u = register("u", shape_of(form))
    u_factor = register("u_factor", shape_of(form))
    u_square = register("u_square", 2 * form.width - 1)
    return u_square, [
        # Stage 5: the form.
        total.eq(column + row),
        # Stage 6: rounded and saturated.
        u.eq(saturate(total >> (design.form_sum.frac_bits - form.frac_bits), form)),
        # Stages 7 and 8: the way to a multiplier, and the square.
        u_factor.eq(u),
        u_square.eq(u_factor * u_factor),
    ]


def exponent_stages(
    design: AlphaDesign, column: Value, row: Value, rest: Value, p: Signal
) -> list[Any]:
    """From the form's two parts to the exponent: five stages, 5 to 9, see :class:`AlphaLane`.

    Parameters
    ----------
    design : AlphaDesign
        Formats.
    column, row, rest : Value
        As of a lane.
    p : Signal
        Is driven: ``u^2 + v^2 + lo``.

    Returns
    -------
    list of statements
        What their registers take where they move.
    """
    u_square, stages = square_stages(design, column, row)
    # Stage 9: the exponent.
    return [*stages,
            p.eq((u_square + rest) >> (2 * design.form.frac_bits - design.exponent.frac_bits))]


def power_stages(
    m: Module, design: AlphaDesign, enable: Value, p: Signal, reach: Value, alpha: Signal
) -> list[Any]:
    """From the exponent to alpha: five stages, 10 to 14, that move with `enable`.

    Parameters
    ----------
    m : Module
        Where they go.
    design : AlphaDesign
        Formats.
    enable : Value
        Moves all stages.
    p : Signal
        ``u^2 + v^2 + lo``, the register of stage 9.
    reach : Value
        Whether the splat may change the pixel; with stage 10.
    alpha : Signal
        Is driven: raw opacity, zero where not significant; five cycles behind `p`.

    Returns
    -------
    list of statements
        What their registers take where `enable` is high.
    """
    exponent = design.exponent
    table = exp2_table(design)
    entry = data.StructLayout({"value": shape_of(design.table), "delta": design.delta_width})
    m.submodules.table = rom = Memory(
        shape=entry, depth=design.table_entries,
        init=[entry.const({"value": int(table[k]), "delta": int(table[k] - table[k + 1])})
              for k in range(design.table_entries)],
    )
    read = rom.read_port()

    def register(name: str, shape: Shape | int = 1) -> Signal:
        return Signal(shape, name=name, reset_less=True)

    octave_bits = (design.octaves - 1).bit_length()
    octaves = [register(f"octave_{n}", octave_bits) for n in range(3)]
    part = register("part", design.slope_bits)
    significant = [register(f"significant_{n}") for n in range(4)]
    start = register("start", shape_of(design.table))
    middle = design.slope_bits // 2
    low = register("slope_low", design.delta_width + middle)
    high = register("slope_high", design.delta_width + design.slope_bits - middle)
    value = register("value", design.table.width + design.slope_bits)
    drop = design.table.frac_bits + design.slope_bits + design.octaves - 1
    shifted = Signal(len(value) + design.octaves - 1)
    rounded = register("rounded", len(shifted) + 1 - (drop - design.alpha.frac_bits))
    capped = register("capped", shape_of(design.alpha))
    m.d.comb += [
        read.en.eq(enable),
        read.addr.eq(p[design.slope_bits:exponent.frac_bits]),
        shifted.eq((value << (design.octaves - 1)) >> octaves[2]),
        alpha.eq(capped),
    ]
    return [
        # Stage 10: the test of significance; the table (its read port is the register).
        significant[0].eq(reach & (p <= design.cutoff)),
        octaves[0].eq(p[exponent.frac_bits:]),
        part.eq(p[:design.slope_bits]),
        # Stages 11 and 12: interpolation.
        start.eq(read.data.value),
        low.eq(_sum_of_bits(read.data.delta, part[:middle])),
        high.eq(_sum_of_bits(read.data.delta, part[middle:])),
        value.eq((start << design.slope_bits) - low - (high << middle)),
        *(after.eq(before) for line in (octaves, significant)
          for before, after in pairwise(line)),
        # Stage 13: shift by whole octaves, round once.
        rounded.eq(round_shift(shifted, drop - design.alpha.frac_bits)),
        # Stage 14: cap.
        capped.eq(Mux(
            significant[3],
            Mux(rounded > design.alpha_cap, design.alpha_cap, rounded), 0)),
    ]


class Alpha(Component):
    """Alpha of one splat at every pixel of one block of a tile.

    Bit-true model: :func:`splatforge.algos.alpha.alpha_fixed` of the forms of
    :func:`splatforge.algos.alpha.forms_fixed`. Cycle model: :mod:`splatforge.sim.alpha`.

    Latency is :attr:`latency` cycles when the consumer never stalls; throughput is one block per
    cycle. A stall of ``o`` stalls ``i`` in the same cycle (``i.ready`` depends on ``o.ready``
    combinationally); no payload is lost or reordered.

    Per lane and per row of a block one squarer (13x13 by default), a register in front of it. The
    slopes are multiplied by constants below 16 and the table's by 4 bits, which are adders. No
    stage holds more than one multiplication, or two additions, or an addition behind a shift.

    Parameters
    ----------
    design : ArrayDesign
        Lanes and formats.
    splat : SplatFormat
        Formats of the record.
    carry_width : int
        Bits that travel with the block unchanged.

    Members
    -------
    i : ``In(stream.Signature(Splat))``
        The record's forms (``u0`` SQ(7,11), ``v0`` SQ(6,11), ``a`` UQ(1,11), ``b`` SQ(2,11), ``c``
        UQ(1,11), ``log_opacity`` UQ(3,7) by default), ``block`` (row-major in the tile),
        ``reach`` (one bit for each 4x4 subtile of the block, row-major) and ``carry``.
    o : ``Out(stream.Signature(Block))``
        ``alpha`` of every lane, row-major, UQ(0,14) by default, zero below 1/255 or out of
        ``reach``; and ``carry``.
    """

    i: stream.Interface
    o: stream.Interface

    #: Cycles from a transfer on ``i`` to the first cycle in which ``o`` can transfer it.
    latency = 14

    def __init__(
        self,
        design: ArrayDesign = ArrayDesign(),  # noqa: B008
        splat: SplatFormat = SplatFormat(),  # noqa: B008
        carry_width: int = 1,
    ) -> None:
        if carry_width < 1:
            raise ValueError(f"Carry width must be positive, not {carry_width!r}")
        self.design, self.splat, self.carry_width = design, splat, carry_width
        super().__init__({
            "i": In(stream.Signature(self.splat_layout(design, splat, carry_width))),
            "o": Out(stream.Signature(self.block_layout(design, carry_width))),
        })

    @staticmethod
    def splat_layout(design: ArrayDesign, splat: SplatFormat, carry: int) -> data.StructLayout:
        """Payload of ``i``."""
        return data.StructLayout({
            "u0": shape_of(splat.u0), "v0": shape_of(splat.v0), "a": shape_of(splat.a),
            "b": shape_of(splat.b), "c": shape_of(splat.c),
            "log_opacity": shape_of(splat.log_opacity),
            "block": max(1, (design.blocks - 1).bit_length()),
            "reach": design.lanes // SUBTILE_PX**2,
            "carry": carry,
        })

    @staticmethod
    def block_layout(design: ArrayDesign, carry: int) -> data.StructLayout:
        """Payload of ``o``."""
        return data.StructLayout({
            "alpha": data.ArrayLayout(shape_of(design.alpha.alpha), design.lanes),
            "carry": carry,
        })

    def elaborate(self, platform):
        m = Module()
        array, splat = self.design, self.splat
        design = array.alpha
        wide = design.form_sum.width
        width, height = array.block_width, array.block_height

        move = Signal()
        m.d.comb += [move.eq(~self.o.valid | self.o.ready), self.i.ready.eq(move)]
        valid = [self.i.valid] + [Signal(name=f"valid_{n}") for n in range(1, self.latency + 1)]
        carry = [self.i.p.carry] + [
            Signal(self.carry_width, name=f"carry_{n}", reset_less=True)
            for n in range(1, self.latency + 1)]
        reach = [self.i.p.reach] + [
            Signal.like(self.i.p.reach, name=f"reach_{n}", reset_less=True) for n in range(1, 10)]
        opacity = [self.i.p.log_opacity] + [
            Signal.like(self.i.p.log_opacity, name=f"log_opacity_{n}", reset_less=True)
            for n in range(1, 8)]
        with m.If(move):
            for line in (valid, carry, reach, opacity):
                m.d.sync += [line[n + 1].eq(line[n]) for n in range(len(line) - 1)]
        m.d.comb += [self.o.valid.eq(valid[-1]), self.o.p.carry.eq(carry[-1])]

        def register(name: str, shape: Shape | int) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        def up(name, value):
            return value << (design.form_sum.frac_bits - getattr(splat, name).frac_bits)

        # Stage 1: what the forms gain from the tile's first pixel to the block's.
        column_0 = self.i.p.block % array.blocks_x
        row_0 = self.i.p.block // array.blocks_x
        u0, v0 = (register(name, shape_of(getattr(splat, name))) for name in ("u0", "v0"))
        slopes = [[register(f"slope_{name}_{n}", shape_of(getattr(splat, name)))
                   for name in "abc"] for n in range(2)]
        gain = {name: register(f"gain_{name}", signed(wide)) for name in "abc"}
        # Stage 2: half of the gain; rounding's half a unit of the form comes in here.
        half = 1 << (design.form_sum.frac_bits - design.form.frac_bits) >> 1
        u_first, v_first = (register(name, signed(wide + 1)) for name in ("u_first", "v_first"))
        gain_b = register("gain_b_1", signed(wide))
        # Stage 3: the forms at the block's first pixel, and the slopes' multiples.
        u_block, v_block = (register(name, signed(wide + 1)) for name in ("u_block", "v_block"))
        times = {(name, n): register(f"{name}_times_{n}", signed(wide))
                 for name, count in (("a", width), ("b", height), ("c", height))
                 for n in range(1, count)}
        # Stage 4: one sum per column, one per row; v is the same along a row.
        columns = [register(f"column_{x}", signed(wide + 1)) for x in range(width)]
        rows = [register(f"row_{y}", signed(wide + 1)) for y in range(height)]
        sums = [register(f"v_sum_{y}", signed(wide + 1)) for y in range(height)]
        # Stages 5 to 8: v rounded and saturated, its square, all but the square of u.
        forms, factors = ([register(f"{name}_{y}", shape_of(design.form)) for y in range(height)]
                          for name in ("v", "v_factor"))
        squares = [register(f"v_square_{y}", 2 * design.form.width - 1) for y in range(height)]
        rests = [register(f"rest_{y}", AlphaLane.rest_width(design)) for y in range(height)]
        unit = 1 << (2 * design.form.frac_bits - design.exponent.frac_bits) >> 1
        with m.If(move):
            m.d.sync += [
                u0.eq(self.i.p.u0), v0.eq(self.i.p.v0),
                *(after.eq(self.i.p[name]) for name, after in zip("abc", slopes[0], strict=True)),
                gain["a"].eq(up("a", _times(self.i.p.a, column_0, array.blocks_x) * width)),
                *(gain[name].eq(up(name, _times(
                    self.i.p[name], row_0, TILE_PX // height) * height)) for name in "bc"),
                u_first.eq(up("u0", u0) + gain["a"] + half),
                v_first.eq(up("v0", v0) + gain["c"] + half),
                gain_b.eq(gain["b"]),
                *(after.eq(before) for before, after in zip(*slopes, strict=True)),
                u_block.eq(u_first + gain_b), v_block.eq(v_first),
                *(register_.eq(up(name, multiple(slopes[1]["abc".index(name)], n)))
                  for (name, n), register_ in times.items()),
                *(columns[x].eq(u_block + (times["a", x] if x else 0)) for x in range(width)),
            ]
            for y in range(height):
                drop = design.form_sum.frac_bits - design.form.frac_bits
                m.d.sync += [
                    rows[y].eq(times["b", y] if y else 0),
                    sums[y].eq(v_block + (times["c", y] if y else 0)),
                    forms[y].eq(saturate(sums[y] >> drop, design.form)),
                    factors[y].eq(forms[y]),
                    squares[y].eq(factors[y] * factors[y]),
                    rests[y].eq(squares[y] + self.beside_squares(opacity[7], unit)),
                ]
        of_lane = self.lane_inputs(m, move, squares, opacity, unit)
        # Stages 5 to 14 of every lane.
        for y in range(height):
            for x in range(width):
                lane = self.lane(design)
                m.submodules[f"lane_{y}_{x}"] = lane
                subtile = y // SUBTILE_PX * (width // SUBTILE_PX) + x // SUBTILE_PX
                m.d.comb += [
                    lane.enable.eq(move), lane.column.eq(columns[x]), lane.row.eq(rows[y]),
                    lane.rest.eq(rests[y]), lane.reach.eq(reach[self.reach_stage][subtile]),
                    *(getattr(lane, name).eq(value) for name, value in of_lane[y].items()),
                    self.o.p.alpha[y * width + x].eq(lane.alpha),
                ]
        return m

    #: What a lane is.
    lane: type[Any] = AlphaLane
    #: Stage whose reach a lane takes.
    reach_stage = 9

    def beside_squares(self, opacity: Value, unit: int) -> Value:
        """What is added to the squares, which have twice the fraction bits of the form.

        Parameters
        ----------
        opacity : Value
            ``-log2(opacity)``.
        unit : int
            Half a unit of the exponent.
        """
        design = self.design.alpha
        return (opacity << (2 * design.form.frac_bits - design.log_opacity.frac_bits)) | unit

    def lane_inputs(
        self, m: Module, move: Value, squares: list[Signal], opacity: list[Value], unit: int
    ) -> list[dict[str, Value]]:
        """For the lanes of every row what they take beyond an :class:`AlphaLane`.

        Parameters
        ----------
        m : Module
            Where it is made.
        move : Value
            Moves all stages.
        squares : list of Signal
            Of every row the square of v, stage 7.
        opacity : list of Value
            ``-log2(opacity)`` in stages 0 to 7.
        unit : int
            Half a unit of the exponent.
        """
        return [{} for _ in squares]
