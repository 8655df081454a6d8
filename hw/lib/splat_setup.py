"""From a feature to a splat in coordinates of one tile: six stages that move together."""

from itertools import pairwise

from amaranth.hdl import *
from amaranth.lib import data
from amaranth.lib.wiring import In, Out

from splatforge.designs.feature import FeatureFormat
from splatforge.designs.fetch import TILE_PX
from splatforge.designs.setup import SetupDesign
from splatforge.hw.lib.component import Component
from splatforge.hw.lib.fixed import round_shift, saturate, shape_of

__all__ = ["SplatSetup", "feature_layout"]


def feature_layout(feature: FeatureFormat) -> data.StructLayout:
    """A feature record, fields from bit 0 upward."""
    return data.StructLayout({
        name: Shape(width, signed=signed) for name, width, signed in feature.fields()})


class SplatSetup(Component):
    """Work out the linear forms of a feature's splat, in coordinates of a tile.

    Bit-true model: :func:`splatforge.algos.splat_setup.splat_fields`.

    Latency: :attr:`latency` cycles in which ``enable`` is high, from ``feature`` and ``x``, ``y``
    to the members of the splat. Throughput: one a cycle. Stall: ``enable``.

    Parameters
    ----------
    design : SetupDesign
        Formats.

    Members
    -------
    enable : ``In(1)``
        All stages move.
    feature : ``In(Feature)``
        See :func:`feature_layout`.
    x, y : ``In(12)``
        Column and row of the tile in the frame.
    u0, v0, a, b, c, log_opacity, red, green, blue : ``Out``
        As in a splat record, see :class:`splatforge.designs.fetch.SplatFormat`.
    """

    #: Stages.
    latency = 6

    def __init__(self, design: SetupDesign = SetupDesign()) -> None:  # noqa: B008
        self.design = design
        splat = design.splat
        super().__init__({
            "enable": In(1), "feature": In(feature_layout(design.feature)),
            "x": In(12), "y": In(12),
            **{name: Out(Shape(width, signed=signed)) for name, width, signed in splat.fields()
               if name != "subtiles"},
        })

    def elaborate(self, platform):
        m = Module()
        design = self.design
        splat, slope, mean = design.splat, design.slope, design.feature.mean
        #: What only passes through: opacity, colour.
        names = ("log_opacity", "red", "green", "blue")
        pass_on = [Signal(data.StructLayout({name: self.feature[name].shape() for name in names}),
                          name=f"passing_{n}") for n in range(self.latency)]
        held = Signal.like(self.feature)
        x, y = Signal(12), Signal(12)
        distance = shape_of(design.distance)
        dx, dy = Signal(distance), Signal(distance)
        slopes = [Signal(shape_of(slope), name=f"slope_{n}") for n in "abc"]
        half = 1 << (mean.frac_bits - 1)
        move = self.enable
        with m.If(move):
            m.d.sync += [after.eq(before) for before, after in pairwise(pass_on)]
            # 1: the record, and where its tile lies.
            m.d.sync += [held.eq(self.feature), x.eq(self.x), y.eq(self.y),
                         *(pass_on[0][name].eq(self.feature[name]) for name in names)]
            # 2: the distance from the mean, and slopes in fixed point.
            shift = mean.frac_bits + (TILE_PX - 1).bit_length()
            m.d.sync += [dx.eq((x << shift) + half - held.mean_x),
                         dy.eq((y << shift) + half - held.mean_y)]
        for name, fixed in zip("abc", slopes, strict=True):
            down, magnitude, value = self._slope(held[name])
            m.d.comb += [down, magnitude]
            with m.If(move):
                m.d.sync += fixed.eq(value)

        # 3 and 4: products, from partial ones that are each a multiplier of an FPGA's.
        products = [self._product(m, move, factor, fixed, name) for name, factor, fixed in (
            ("a", dx, slopes[0]), ("b", dy, slopes[1]), ("c", dy, slopes[2]))]
        late = [[Signal.like(fixed, name=f"{fixed.name}_{n}") for n in range(3)]
                for fixed in slopes]
        u, v = Signal(signed(len(products[0]) + 1)), Signal.like(products[2])
        fine = mean.frac_bits + slope.frac_bits
        with m.If(move):
            for fixed, delayed in zip(slopes, late, strict=True):
                m.d.sync += [after.eq(before) for before, after in
                             zip([fixed, *delayed], delayed, strict=False)]
            # 5: the sum.
            m.d.sync += [u.eq(products[0] + products[1]), v.eq(products[2])]
            # 6: to the splat's formats.
            for target, value, bits, fmt in (
                (self.u0, u, fine, splat.u0), (self.v0, v, fine, splat.v0),
                (self.a, late[0][2], slope.frac_bits, splat.a),
                (self.b, late[1][2], slope.frac_bits, splat.b),
                (self.c, late[2][2], slope.frac_bits, splat.c),
            ):
                m.d.sync += target.eq(saturate(round_shift(value, bits - fmt.frac_bits), fmt))
        m.d.comb += [getattr(self, name).eq(pass_on[-1][name]) for name in names]
        return m

    def _slope(self, word):
        """A floating slope in fixed point."""
        feature, slope = self.design.feature.slope, self.design.slope
        fraction = feature.fraction_bits
        exponent = word[fraction:-1]
        significand = Cat(word[:fraction], C(1, 1))
        # With this exponent the last bit of the fraction is the last of the slope.
        level = feature.bias + fraction - slope.frac_bits
        down = Signal(range(fraction + 3))
        magnitude = Signal(slope.width - 1)
        m_down = (((significand << 1) >> down) + 1) >> 1
        # Above two in magnitude it saturates, whatever the fraction.
        top = feature.bias + 1
        shifted = significand << Mux(exponent > level, (exponent - level)[:5], 0)
        small = Mux(level - exponent > fraction + 2, fraction + 2, (level - exponent)[:len(down)])
        return (
            down.eq(Mux(exponent >= level, 0, small)),
            magnitude.eq(Mux(
                exponent == 0, 0, Mux(
                    exponent >= top, slope.raw_max, Mux(
                        exponent >= level, shifted, m_down)))),
            Mux(word[-1], -magnitude, magnitude),
        )

    @staticmethod
    def _product(m, move, left, right, name):
        """Exact product of two signed factors after two registers."""
        low_left, low_right = len(left) // 2, len(right) // 2
        parts = []
        for a, at_a in ((left[:low_left], 0), (left[low_left:].as_signed(), low_left)):
            for b, at_b in ((right[:low_right], 0), (right[low_right:].as_signed(), low_right)):
                part = Signal.like(a * b, name=f"part_{name}_{at_a}_{at_b}")
                with m.If(move):
                    m.d.sync += part.eq(a * b)
                parts.append(part << (at_a + at_b))
        product = Signal(signed(len(left) + len(right)), name=f"product_{name}")
        with m.If(move):
            m.d.sync += product.eq(sum(parts))
        return product
