"""Float32 vectors inside numba kernels: arithmetic on several pixels by one instruction.

numba leaves vectorizing to LLVM's loop passes, which give up on a body as long as a blend and
change their mind between releases. Here an intrinsic builds the vector instructions itself;
:class:`Lanes` gives LLVM values the operators that make such a builder read like the formula.
"""

from typing import Any, Self

import llvmlite.ir as ll

__all__ = ["Lanes"]

_F32 = ll.FloatType()
_I32 = ll.IntType(32)


class Lanes:
    """A vector of float32 in a function under construction.

    Operators round once each and are never contracted or reassociated; :meth:`fma` is the only
    place where the machine may skip a rounding. Comparisons give vectors of bits for
    :meth:`select` and ``&``; they are false for NaN.

    Parameters
    ----------
    builder : llvmlite.ir.IRBuilder
        Where instructions go.
    value : llvmlite.ir.Value
        An LLVM vector of float32.
    """

    def __init__(self, builder: Any, value: Any) -> None:
        self.builder, self.value = builder, value

    @classmethod
    def load(cls, builder: Any, pointer: Any, count: int) -> Self:
        """``count`` neighbours from memory, aligned to a float only."""
        vector = ll.VectorType(_F32, count)
        return cls(builder, builder.load(builder.bitcast(pointer, vector.as_pointer()), align=4))

    @classmethod
    def splat(cls, builder: Any, scalar: Any, count: int) -> Self:
        """The same scalar in ``count`` lanes."""
        vector = ll.VectorType(_F32, count)
        single = builder.insert_element(ll.Constant(vector, ll.Undefined), scalar, _I32(0))
        mask = ll.Constant(ll.VectorType(_I32, count), [0] * count)
        return cls(
            builder, builder.shuffle_vector(single, ll.Constant(vector, ll.Undefined), mask)
        )

    @classmethod
    def iota(cls, builder: Any, count: int, start: float = 0.0) -> Self:
        """``start``, ``start + 1``, ..."""
        vector = ll.VectorType(_F32, count)
        return cls(builder, ll.Constant(vector, [float(start + i) for i in range(count)]))

    @property
    def count(self) -> int:
        """Number of lanes."""
        return self.value.type.count

    def store(self, pointer: Any) -> None:
        """Write the lanes to neighbouring floats."""
        self.builder.store(
            self.value, self.builder.bitcast(pointer, self.value.type.as_pointer()), align=4
        )

    def _like(self, other: "Lanes | float") -> Any:
        if isinstance(other, Lanes):
            return other.value
        return ll.Constant(self.value.type, [float(other)] * self.count)

    def _new(self, value: Any) -> "Lanes":
        return Lanes(self.builder, value)

    def __add__(self, other: "Lanes | float") -> "Lanes":
        return self._new(self.builder.fadd(self.value, self._like(other)))

    def __sub__(self, other: "Lanes | float") -> "Lanes":
        return self._new(self.builder.fsub(self.value, self._like(other)))

    def __rsub__(self, other: float) -> "Lanes":
        return self._new(self.builder.fsub(self._like(other), self.value))

    def __mul__(self, other: "Lanes | float") -> "Lanes":
        return self._new(self.builder.fmul(self.value, self._like(other)))

    def __le__(self, other: "Lanes | float") -> Any:
        return self.builder.fcmp_ordered("<=", self.value, self._like(other))

    def __ge__(self, other: "Lanes | float") -> Any:
        return self.builder.fcmp_ordered(">=", self.value, self._like(other))

    def __gt__(self, other: "Lanes | float") -> Any:
        return self.builder.fcmp_ordered(">", self.value, self._like(other))

    def _call(self, name: str, *others: "Lanes | float") -> "Lanes":
        kind = self.value.type
        suffix = f"v{self.count}f32"
        function_type = ll.FunctionType(kind, [kind] * (1 + len(others)))
        module = self.builder.module
        full = f"llvm.{name}.{suffix}"
        function = module.globals.get(full) or ll.Function(module, function_type, full)
        return self._new(
            self.builder.call(function, [self.value, *(self._like(other) for other in others)])
        )

    def fma(self, factor: "Lanes | float", summand: "Lanes | float") -> "Lanes":
        """``self * factor + summand``, rounded once on machines that can."""
        return self._call("fmuladd", factor, summand)

    def sqrt(self) -> "Lanes":
        """Square root, correctly rounded."""
        return self._call("sqrt")

    def floor(self) -> "Lanes":
        """Largest whole number not above."""
        return self._call("floor")

    def ceil(self) -> "Lanes":
        """Smallest whole number not below."""
        return self._call("ceil")

    def minimum(self, other: "Lanes | float") -> "Lanes":
        """The smaller; ``other`` where a lane is NaN."""
        value = self._like(other)
        keep = self.builder.fcmp_ordered("<", self.value, value)
        return self._new(self.builder.select(keep, self.value, value))

    def maximum(self, other: "Lanes | float") -> "Lanes":
        """The larger; ``other`` where a lane is NaN."""
        value = self._like(other)
        keep = self.builder.fcmp_ordered(">", self.value, value)
        return self._new(self.builder.select(keep, self.value, value))

    def select(self, mask: Any, other: "Lanes | float") -> "Lanes":
        """These lanes where ``mask`` is set, ``other`` elsewhere."""
        return self._new(self.builder.select(mask, self.value, self._like(other)))

    def bits(self) -> Any:
        """The lanes as int32, bit by bit."""
        return self.builder.bitcast(self.value, ll.VectorType(_I32, self.count))

    def from_bits(self, value: Any) -> "Lanes":
        """Int32 lanes as float32, bit by bit."""
        return self._new(self.builder.bitcast(value, self.value.type))

    def negative_magnitude(self) -> "Lanes":
        """``-abs(self)``."""
        sign = ll.Constant(ll.VectorType(_I32, self.count), [-(1 << 31)] * self.count)
        return self.from_bits(self.builder.or_(self.bits(), sign))

    def exp(self) -> "Lanes":
        """Exponential of lanes in [-87, 0], relative error below 1.5e-7 (1e-9 before rounding).

        ``exp(x) = 2^n exp(r)`` with ``|r| <= ln(2) / 2``, ln(2) split in two, and a polynomial
        whose coefficients minimize the largest relative error. Below -87 it stays at exp(-87).
        """
        x = self.maximum(-87.0)
        # Adding 1.5 * 2^23 leaves the nearest whole number in the low bits; 127 biases it so
        # that a shift makes it the exponent of a float.
        shifted = x.fma(1.4426950408889634, _EXP_SHIFT)
        n = shifted - _EXP_SHIFT
        r = n.fma(-_LN2_LOW, n.fma(-_LN2_HIGH, x))
        p = self._new(self._like(_EXP_COEFFICIENTS[-1]))
        for coefficient in reversed(_EXP_COEFFICIENTS[:-1]):
            p = p.fma(r, coefficient)
        p = p.fma(r * r, r) + 1.0
        shift = ll.Constant(ll.VectorType(_I32, self.count), [23] * self.count)
        return p * self.from_bits(self.builder.shl(shifted.bits(), shift))


_EXP_SHIFT = 12582912.0 + 127.0
# The first part has 12 zero bits at its end, so that its product with n is exact.
_LN2_HIGH, _LN2_LOW = 0.693359375, -2.12194440e-4
# Of (exp(r) - 1 - r) / r^2.
_EXP_COEFFICIENTS = (
    4.9999993432e-01, 1.6666520399e-01, 4.1668390786e-02, 8.3687451078e-03, 1.3814540074e-03,
)  # fmt: skip
