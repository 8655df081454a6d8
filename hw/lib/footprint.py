"""Behind the arithmetic of projecting units, in integers; see :mod:`splatforge.algos.footprint`."""

from math import log2

from amaranth.hdl import *
from amaranth.lib import data

from splatforge.algos.footprint import COMPENSATION_FLOOR
from splatforge.designs.fixed import Fixed

__all__ = ["compensation", "is_out_of_range", "square_side"]


def compensation(given: data.View, logarithm: Fixed, antialiased: Value) -> Value:
    """Twice what is added to the opacity's logarithm, from the determinants' logarithms."""
    most = round(-log2(COMPENSATION_FLOOR) * 2**logarithm.frac_bits)
    sharper = given.log_det - given.log_det_sharp
    return Mux((sharper < 0) | ~antialiased, 0, Mux(sharper > most, most, sharper))


def square_side(long: Value, extent: Fixed) -> Value:
    """`long` rounded up to whole pixels, saturating."""
    pixel = (1 << extent.frac_bits) - 1
    largest = extent.raw_max & ~pixel
    grown = long + pixel
    return Mux(grown > largest, largest, Cat(C(0, extent.frac_bits), grown[extent.frac_bits:]))


def is_out_of_range(given: data.View, mean: Fixed) -> Value:
    """Whether the mean is at the ends of its format."""
    return Cat(given[f"mean_{axis}"] == end for axis in "xy"
               for end in (mean.raw_max, -mean.raw_max)).any()
