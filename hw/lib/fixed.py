"""Amaranth shapes and rounding of fixed-point formats; twin of :mod:`splatforge.algos.fixed`."""

from amaranth.hdl import Mux, Shape, Value

from splatforge.designs.fixed import Fixed

__all__ = ["round_shift", "saturate", "shape_of"]


def shape_of(fmt: Fixed) -> Shape:
    """Shape that holds the raw integers of ``fmt``."""
    return Shape(fmt.width, signed=fmt.signed)


def round_shift(value: Value, bits: int) -> Value:
    """Drop ``bits`` fraction bits, rounding half up."""
    # The bits below the half never carry: they are dropped before the addition.
    return value if bits == 0 else ((value >> (bits - 1)) + 1) >> 1


def saturate(value: Value, fmt: Fixed) -> Value:
    """Clip ``value`` to the range of ``fmt``."""
    clipped = Mux(value > fmt.raw_max, fmt.raw_max, value)
    return Mux(value < fmt.raw_min, fmt.raw_min, clipped) if value.shape().signed else clipped
