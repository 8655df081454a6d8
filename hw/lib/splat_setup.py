"""From a feature to a splat in coordinates of one tile: eight stages that move together."""

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
    latency = 8

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
        dx, dy = ([Signal(distance, name=f"d{axis}_{n}") for n in range(3)] for axis in "xy")
        half = 1 << (mean.frac_bits - 1)
        move = self.enable
        with m.If(move):
            m.d.sync += [after.eq(before) for line in (pass_on, dx, dy)
                         for before, after in pairwise(line)]
            # 1: the record, and where its tile lies.
            m.d.sync += [held.eq(self.feature), x.eq(self.x), y.eq(self.y),
                         *(pass_on[0][name].eq(self.feature[name]) for name in names)]
            # 2: the distance from the mean; it waits for the slopes.
            shift = mean.frac_bits + (TILE_PX - 1).bit_length()
            m.d.sync += [dx[0].eq((x << shift) + half - held.mean_x),
                         dy[0].eq((y << shift) + half - held.mean_y)]
        # 2 to 4: slopes in fixed point.
        slopes = [self._slope(m, move, held[name], name) for name in "abc"]

        # 5 and 6: products, from partial ones that are each a multiplier of an FPGA's.
        products = [self._product(m, move, factor, fixed, name) for name, factor, fixed in (
            ("a", dx[-1], slopes[0]), ("b", dy[-1], slopes[1]), ("c", dy[-1], slopes[2]))]
        late = [[Signal.like(fixed, name=f"{fixed.name}_{n}") for n in range(3)]
                for fixed in slopes]
        u, v = Signal(signed(len(products[0]) + 1)), Signal.like(products[2])
        fine = mean.frac_bits + slope.frac_bits
        with m.If(move):
            for fixed, delayed in zip(slopes, late, strict=True):
                m.d.sync += [after.eq(before) for before, after in
                             zip([fixed, *delayed], delayed, strict=False)]
            # 7: the sum.
            m.d.sync += [u.eq(products[0] + products[1]), v.eq(products[2])]
            # 8: to the splat's formats.
            for target, value, bits, fmt in (
                (self.u0, u, fine, splat.u0), (self.v0, v, fine, splat.v0),
                (self.a, late[0][2], slope.frac_bits, splat.a),
                (self.b, late[1][2], slope.frac_bits, splat.b),
                (self.c, late[2][2], slope.frac_bits, splat.c),
            ):
                m.d.sync += target.eq(saturate(round_shift(value, bits - fmt.frac_bits), fmt))
        m.d.comb += [getattr(self, name).eq(pass_on[-1][name]) for name in names]
        return m

    def _slope(self, m, move, word, name):
        """A floating slope in fixed point after three registers."""
        feature, slope = self.design.feature.slope, self.design.slope
        fraction = feature.fraction_bits
        exponent = word[fraction:-1]
        # With this exponent the last bit of the fraction is the last of the slope; from the other
        # on a slope is two or more and saturates, whatever the fraction.
        level, top = feature.bias + fraction - slope.frac_bits, feature.bias + 1
        # 1: how far up or down; what is shifted out altogether is nothing.
        significand = Signal(fraction + 1, name=f"significand_{name}")
        up = Signal(range(max(1, top - level)), name=f"up_{name}")
        down = Signal(range(fraction + 3), name=f"down_{name}")
        full, is_up = Signal(name=f"full_{name}"), Signal(name=f"is_up_{name}")
        negatives = Signal(2, name=f"negatives_{name}")
        # 2: in its place, half a unit below it. 3: rounded, with its sign: of a negative one all
        # bits are turned, and one is added where it is not rounded up.
        shifted = Signal(slope.width - 1, name=f"shifted_{name}")
        rest = Signal(name=f"rest_{name}")
        fixed = Signal(shape_of(slope), name=f"slope_{name}")
        lowered = Signal(fraction + 2, name=f"lowered_{name}")
        negative = negatives[1]
        m.d.comb += lowered.eq((significand << 1) >> down)
        with m.If(move):
            m.d.sync += [
                significand.eq(Mux(exponent.any(), Cat(word[:fraction], C(1, 1)), 0)),
                is_up.eq(exponent >= level), full.eq(exponent >= top),
                up.eq(exponent - level),
                down.eq(Mux(exponent < level - fraction - 2, fraction + 2, level - exponent)),
                negatives.eq(Cat(word[-1], negatives)),
                shifted.eq(Mux(full, slope.raw_max, Mux(
                    is_up, significand << up, lowered[1:]))),
                rest.eq(~full & ~is_up & lowered[0]),
                fixed.eq((Cat(shifted, C(0, 1)) ^ negative.replicate(slope.width)).as_signed()
                         + Cat(rest ^ negative, C(0, 1)).as_signed()),
            ]
        return fixed

    @staticmethod
    def _product(m, move, left, right, name):
        """Exact product of two signed factors after two registers."""
        half = max(len(left), len(right)) // 2
        parts = {}
        for a, at_a in ((left[:half], 0), (left[half:].as_signed(), half)):
            for b, at_b in ((right[:half], 0), (right[half:].as_signed(), half)):
                part = Signal.like(a * b, name=f"part_{name}_{at_a}_{at_b}")
                with m.If(move):
                    m.d.sync += part.eq(a * b)
                parts[at_a, at_b] = part
        product = Signal(signed(len(left) + len(right)), name=f"product_{name}")
        # The least and the greatest part stand one behind the other.
        outer = Cat(parts[0, 0], parts[half, half]).as_signed()
        with m.If(move):
            m.d.sync += product.eq(outer + ((parts[0, half] + parts[half, 0]) << half))
        return product
