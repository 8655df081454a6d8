"""The front end of neural rendering units: linear forms of a splat on a tile, and their test."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from splatforge.designs.fetch import SplatFormat
from splatforge.designs.nru import NruDesign
from splatforge.hw.alpha import AlphaLane, exponent_stages, multiple
from splatforge.hw.array import one_of
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import saturate, shape_of

__all__ = ["Forms", "UnitFront", "form_layout"]


def form_layout(splat: SplatFormat) -> data.StructLayout:
    """What of a splat says where it is significant."""
    return data.StructLayout({
        name: shape_of(getattr(splat, name))
        for name in ("u0", "v0", "a", "b", "c", "log_opacity")})


class Forms(Component):
    """What the exponent of a splat is made of, for every column and every row of a tile.

    The stages are those of :class:`splatforge.hw.alpha.Alpha`, of a block that is the whole tile.

    Latency: two cycles in which ``enable`` is high from ``splat`` to ``columns`` and ``rows``, six
    to ``rests``. Throughput: a splat a cycle. Stall: ``enable``.

    Parameters
    ----------
    design : NruDesign
        Formats, and the tile.
    splat : SplatFormat
        Formats of the splats.

    Members
    -------
    enable : ``In(1)``
        Moves all stages.
    splat : ``In(Forms)``
        See :func:`form_layout`.
    columns, rows, rests : ``Out``
        Of every column and row, see :class:`splatforge.hw.alpha.AlphaLane`.
    """

    def __init__(self, design: NruDesign, splat: SplatFormat) -> None:
        self.design, self.formats = design, splat
        pixels = design.tile_px
        wide = signed(design.alpha.form_sum.width + 1)
        super().__init__({
            "enable": In(1), "splat": In(form_layout(splat)),
            "columns": Out(data.ArrayLayout(wide, pixels)),
            "rows": Out(data.ArrayLayout(wide, pixels)),
            "rests": Out(data.ArrayLayout(AlphaLane.rest_width(design.alpha), pixels)),
        })

    def elaborate(self, platform):
        m = Module()
        design, pixels = self.design.alpha, self.design.tile_px
        wide = design.form_sum.width

        def register(name: str, shape: Shape | int) -> Signal:
            return Signal(shape, name=name, reset_less=True)

        def up(name, value):
            return value << (design.form_sum.frac_bits - getattr(self.formats, name).frac_bits)

        drop = design.form_sum.frac_bits - design.form.frac_bits
        half = 1 << drop >> 1
        fine = 2 * design.form.frac_bits
        unit = 1 << (fine - design.exponent.frac_bits) >> 1
        u_first, v_first = (register(name, signed(wide + 1)) for name in ("u_first", "v_first"))
        times = {(name, n): register(f"{name}_times_{n}", signed(wide))
                 for name in "abc" for n in range(1, pixels)}
        opacity = [self.splat.log_opacity] + [
            Signal.like(self.splat.log_opacity, name=f"log_opacity_{n}", reset_less=True)
            for n in range(3, 8)]
        with m.If(self.enable):
            m.d.sync += [
                *(after.eq(before) for before, after in pairwise(opacity)),
                # Stage 3: the forms at the first pixel, rounding's half in them; the slopes'
                # multiples.
                u_first.eq(up("u0", self.splat.u0) + half),
                v_first.eq(up("v0", self.splat.v0) + half),
                *(after.eq(up(name, multiple(self.splat[name], n)))
                  for (name, n), after in times.items()),
            ]
        for n in range(pixels):
            sums = register(f"v_sum_{n}", signed(wide + 1))
            form, factor = (register(f"{name}_{n}", shape_of(design.form))
                            for name in ("v", "v_factor"))
            square = register(f"v_square_{n}", 2 * design.form.width - 1)
            with m.If(self.enable):
                m.d.sync += [
                    # Stage 4: a sum for every column, one for every row; v is the same along a row.
                    self.columns[n].eq(u_first + (times["a", n] if n else 0)),
                    self.rows[n].eq(times["b", n] if n else 0),
                    sums.eq(v_first + (times["c", n] if n else 0)),
                    # Stages 5 to 8: v rounded and saturated, its square, all but the square of u.
                    form.eq(saturate(sums >> drop, design.form)),
                    factor.eq(form),
                    square.eq(factor * factor),
                    self.rests[n].eq(
                        square + ((opacity[5] << (fine - design.log_opacity.frac_bits)) | unit)),
                ]
        return m


class UnitFront(Component):
    """The processing elements of a unit: exponents, and whether they are significant.

    Each element takes what a splat's forms are made of at one of the unit's pixels. Those have
    ``pixels_x`` columns of the tile, and two rows, half a tile apart.

    Latency: five cycles in which ``enable`` is high from ``columns`` and ``rows`` to ``p``, one
    from ``rests`` to it; ``significant`` follows ``p`` combinationally. Throughput: as many
    fragments a cycle as there are pixels. Stall: ``enable``.

    Parameters
    ----------
    design : NruDesign
        Formats, and pixels.

    Members
    -------
    enable : ``In(1)``
        Moves all stages.
    remapped : ``In(1)``, pixel : ``In(range(unit_pixels))``
        Whether all elements are at one pixel, and which: the highest bit the row's half, those
        below it the column. Otherwise element q is at pixel q. They must hold while splats are in
        the stages.
    columns, rows, rests : ``In``
        For every element, of the unit's columns, and of its upper and lower row.
    p : ``Out(ArrayLayout)``
        Exponents of the elements.
    significant : ``Out(unit_pixels)``
        Which are at most the cut-off.
    """

    def __init__(self, design: NruDesign) -> None:
        self.design = design
        pixels, alpha = design.unit_pixels, design.alpha
        wide, rest = signed(alpha.form_sum.width + 1), AlphaLane.rest_width(alpha)

        def of_elements(shape: Shape | int, count: int) -> data.ArrayLayout:
            return data.ArrayLayout(data.ArrayLayout(shape, count), pixels)

        super().__init__({
            "enable": In(1), "remapped": In(1), "pixel": In(range(pixels)),
            "columns": In(of_elements(wide, design.pixels_x)), "rows": In(of_elements(wide, 2)),
            "rests": In(of_elements(rest, 2)),
            "p": Out(data.ArrayLayout(design.exponent_bits, pixels)),
            "significant": Out(pixels),
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design.alpha
        for q in range(self.design.unit_pixels):
            *column, row = (Mux(self.remapped, bit, q >> n & 1)
                            for n, bit in enumerate(self.pixel))
            p = Signal(design.exponent.width, name=f"p_{q}", reset_less=True)
            with m.If(self.enable):
                m.d.sync += exponent_stages(
                    design, one_of(list(self.columns[q]), column),
                    one_of(list(self.rows[q]), [row]), one_of(list(self.rests[q]), [row]), p)
            m.d.comb += [self.p[q].eq(p), self.significant[q].eq(p <= design.cutoff)]
        return m
