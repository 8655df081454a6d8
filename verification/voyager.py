"""Testbench of Voyager's client: that of GSCore, which tells by the top's name which it drives."""

from splatforge.verification.gscore import abort, errors_end_a_frame, frames

__all__ = ["abort", "errors_end_a_frame", "frames"]
