"""Rounding of raw integers; the numpy twin of :mod:`splatforge.hw.lib.fixed`."""

import numpy as np
import numpy.typing as npt

__all__ = ["round_shift"]


def round_shift(raw: npt.ArrayLike, bits: int) -> npt.NDArray[np.int64]:
    """Drop ``bits`` fraction bits, rounding half up: ``(raw + 2**(bits-1)) >> bits``."""
    raw = np.asarray(raw, np.int64)
    return raw if bits == 0 else (raw + (1 << (bits - 1))) >> bits
