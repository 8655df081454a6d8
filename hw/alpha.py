"""Alpha of one splat at every pixel of one block: linear forms, squares, power of two."""

from amaranth.hdl import *
from amaranth.lib import data, stream
from amaranth.lib.memory import Memory
from amaranth.lib.wiring import In, Out

from splatforge.algos.alpha import exp2_table
from splatforge.designs.alpha import AlphaDesign
from splatforge.designs.array import ArrayDesign
from splatforge.designs.fetch import SUBTILE_PX, SplatFormat
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift, saturate, shape_of

__all__ = ["Alpha", "AlphaLane"]


class AlphaLane(Component):
    """Alpha of one pixel. No handshake: every register moves when ``enable`` is high.

    The inputs belong to the stages of :class:`Alpha`: ``column`` and ``row`` to stage 3,
    ``v_square`` and ``log_opacity`` to stage 5, ``reach`` to stage 5; ``alpha`` leaves stage 8.

    Parameters
    ----------
    design : AlphaDesign
        Formats.

    Members
    -------
    enable : ``In(1)``
        Moves all stages.
    column, row : ``In``
        The two parts of the form u, in ``form_sum``.
    v_square : ``In``
        Square of the form v, UQ with twice the fraction bits of ``form``.
    log_opacity : ``In``
        ``-log2(opacity)``.
    reach : ``In(1)``
        Whether the splat may change the pixel.
    alpha : ``Out``
        Raw opacity, zero where not significant.
    """

    def __init__(self, design: AlphaDesign) -> None:
        self.design = design
        super().__init__({
            "enable": In(1),
            "column": In(shape_of(design.form_sum)),
            "row": In(shape_of(design.form_sum)),
            "v_square": In(2 * design.form.width - 1),
            "log_opacity": In(shape_of(design.log_opacity)),
            "reach": In(1),
            "alpha": Out(shape_of(design.alpha)),
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        exponent, form = design.exponent, design.form
        table = exp2_table(design)
        entry = data.StructLayout({"value": shape_of(design.table), "delta": design.delta_width})
        m.submodules.table = rom = Memory(
            shape=entry, depth=design.table_entries,
            init=[entry.const({"value": int(table[k]), "delta": int(table[k] - table[k + 1])})
                  for k in range(design.table_entries)],
        )
        read = rom.read_port()

        # Data registers need no reset: what is in them matters only when `valid` says so.
        def register(name: str, shape: Shape | int = 1) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        octave_bits = (design.octaves - 1).bit_length()
        u = register("u", shape_of(form))
        u_square = register("u_square", 2 * form.width - 1)
        p = register("p", exponent.width)
        significant = register("significant")
        octave_1, octave_2 = register("octave_1", octave_bits), register("octave_2", octave_bits)
        rest_1 = register("rest_1", design.slope_bits)
        significant_1, significant_2 = register("significant_1"), register("significant_2")
        value = register("value", design.table.width + design.slope_bits)
        alpha = register("alpha", shape_of(design.alpha))
        m.d.comb += [
            read.en.eq(self.enable),
            read.addr.eq(p[design.slope_bits:exponent.frac_bits]),
            self.alpha.eq(alpha),
        ]
        shifted = Signal(len(value) + design.octaves - 1)
        drop = design.table.frac_bits + design.slope_bits + design.octaves - 1
        m.d.comb += shifted.eq((value << (design.octaves - 1)) >> octave_2)
        rounded = round_shift(shifted, drop - design.alpha.frac_bits)
        with m.If(self.enable):
            m.d.sync += [
                # Stage 3: the form, rounded and saturated.
                u.eq(saturate(round_shift(
                    self.column + self.row, design.form_sum.frac_bits - form.frac_bits), form)),
                # Stage 4: its square.
                u_square.eq(u * u),
                # Stage 5: the exponent and the test of significance.
                p.eq(round_shift(u_square + self.v_square, 2 * form.frac_bits - exponent.frac_bits)
                     + (self.log_opacity << (exponent.frac_bits - design.log_opacity.frac_bits))),
                significant.eq(self.reach),
                # Stage 6: the table (its read port is the register).
                octave_1.eq(p[exponent.frac_bits:]),
                rest_1.eq(p[:design.slope_bits]),
                significant_1.eq(significant & (p <= design.cutoff)),
                # Stage 7: interpolation.
                value.eq((read.data.value << design.slope_bits) - read.data.delta * rest_1),
                octave_2.eq(octave_1),
                significant_2.eq(significant_1),
                # Stage 8: shift by whole octaves, round once, cap.
                alpha.eq(Mux(
                    significant_2,
                    Mux(rounded > design.alpha_cap, design.alpha_cap, rounded), 0)),
            ]
        return m


class Alpha(Component):
    """Alpha of one splat at every pixel of one block of a tile.

    Bit-true model: :func:`splatforge.algos.alpha.alpha_fixed` of the forms of
    :func:`splatforge.algos.alpha.forms_fixed`. Cycle model: :mod:`splatforge.sim.alpha`.

    Latency is :attr:`latency` cycles when the consumer never stalls; throughput is one block per
    cycle. A stall of ``o`` stalls ``i`` in the same cycle (``i.ready`` depends on ``o.ready``
    combinationally); no payload is lost or reordered.

    Per lane one squarer (13x13 by default) and one 10x4 multiplier; per row of a block one
    squarer. The slopes are multiplied by constants below 16, which are adders.

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
    latency = 8

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
            Signal.like(self.i.p.reach, name=f"reach_{n}", reset_less=True) for n in range(1, 5)]
        opacity = [self.i.p.log_opacity] + [
            Signal.like(self.i.p.log_opacity, name=f"log_opacity_{n}", reset_less=True)
            for n in range(1, 5)]
        with m.If(move):
            for line in (valid, carry, reach, opacity):
                m.d.sync += [line[n + 1].eq(line[n]) for n in range(len(line) - 1)]
        m.d.comb += [self.o.valid.eq(valid[-1]), self.o.p.carry.eq(carry[-1])]

        def up(name, value):
            return value << (design.form_sum.frac_bits - getattr(splat, name).frac_bits)

        # Stage 1: the forms at the block's first pixel.
        column_0 = self.i.p.block % array.blocks_x
        row_0 = self.i.p.block // array.blocks_x
        def register(name: str, shape: Shape | int) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        u_block, v_block = register("u_block", signed(wide)), register("v_block", signed(wide))
        a, b, c = (register(f"slope_{name}", shape_of(getattr(splat, name))) for name in "abc")
        with m.If(move):
            m.d.sync += [
                u_block.eq(up("u0", self.i.p.u0) + up("a", self.i.p.a * column_0 * width)
                           + up("b", self.i.p.b * row_0 * height)),
                v_block.eq(up("v0", self.i.p.v0) + up("c", self.i.p.c * row_0 * height)),
                a.eq(self.i.p.a), b.eq(self.i.p.b), c.eq(self.i.p.c),
            ]
        # Stage 2: one sum per column, one per row; v is the same along a row.
        square = 2 * design.form.width - 1
        columns = [register(f"column_{x}", signed(wide)) for x in range(width)]
        rows = [register(f"row_{y}", signed(wide)) for y in range(height)]
        forms = [register(f"v_{y}", shape_of(design.form)) for y in range(height)]
        squares = [register(f"v_square_{y}", square) for y in range(height)]
        squares_1 = [register(f"v_square_{y}_1", square) for y in range(height)]
        with m.If(move):
            m.d.sync += [columns[x].eq(u_block + up("a", a * x)) for x in range(width)]
            for y in range(height):
                v = v_block + up("c", c * y)
                drop = design.form_sum.frac_bits - design.form.frac_bits
                m.d.sync += [
                    rows[y].eq(up("b", b * y)),
                    forms[y].eq(saturate(round_shift(v, drop), design.form)),
                    # Stages 3 and 4: the square of v, shared by a row.
                    squares[y].eq(forms[y] * forms[y]),
                    squares_1[y].eq(squares[y]),
                ]
        # Stages 3 to 8 of every lane.
        for y in range(height):
            for x in range(width):
                lane = AlphaLane(design)
                m.submodules[f"lane_{y}_{x}"] = lane
                subtile = y // SUBTILE_PX * (width // SUBTILE_PX) + x // SUBTILE_PX
                m.d.comb += [
                    lane.enable.eq(move), lane.column.eq(columns[x]), lane.row.eq(rows[y]),
                    lane.v_square.eq(squares_1[y]), lane.log_opacity.eq(opacity[4]),
                    lane.reach.eq(reach[4][subtile]),
                    self.o.p.alpha[y * width + x].eq(lane.alpha),
                ]
        return m
