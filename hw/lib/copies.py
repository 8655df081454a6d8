"""Registers that are the same on purpose: one beside each of many that read it."""

from amaranth.hdl import Module, Signal, Value

__all__ = ["copy_of"]


def copy_of(m: Module, value: Value, enable: Value) -> Signal:
    """A register of `value` for this reader alone, moved by `enable`.

    A control bit that steers hundreds of multiplexers takes half a cycle to get to the farthest.
    Where each group of them has a register of its own, the way is a cycle of its own; ``keep`` says
    that synthesis must not make one of them again.
    """
    copy = Signal.like(value, name="copy", reset_less=True, attrs={"keep": "true"})
    with m.If(enable):
        m.d.sync += copy.eq(value)
    return copy
