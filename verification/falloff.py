"""Testbench of the alpha evaluation by a table: that of alpha, which tells by the top's name."""

from splatforge.verification.alpha import against_model

__all__ = ["against_model"]
