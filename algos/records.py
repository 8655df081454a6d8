"""Records of bit fields, as they stand in memory: fields from bit 0 upward, little-endian."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

__all__ = ["decode_record", "encode_record"]

#: (name, width in bits, signed) of every field from bit 0 upward.
Fields = Sequence[tuple[str, int, bool]]


def encode_record(
    kind: str, fields: Fields, words: int, raw: Mapping[str, npt.NDArray[np.int64]]
) -> npt.NDArray[np.uint64]:
    """Records of shape [N, words], of 64-bit words, low word first; the rest is zero.

    Parameters
    ----------
    kind : str
        What a record is called in an error.
    fields : sequence of tuple
        Its fields.
    words : int
        Words of a record.
    raw : Mapping
        Raw integers of shape [N] for every field.

    Raises
    ------
    ValueError
        If a raw field does not fit its bits.
    """
    records = np.zeros((len(raw[fields[0][0]]), words), np.uint64)
    offset = 0
    for name, width, signed in fields:
        values = np.asarray(raw[name], np.int64)
        low = -(1 << (width - 1)) if signed else 0
        high = low + (1 << width) - 1
        if values.size and (values.min() < low or values.max() > high):
            raise ValueError(
                f"{kind} {name} must be {low} to {high}, not {values.min()} to {values.max()}")
        bits = values.astype(np.uint64) & np.uint64((1 << width) - 1)
        word, shift = divmod(offset, 64)
        records[:, word] |= bits << np.uint64(shift)
        if shift + width > 64:
            records[:, word + 1] |= bits >> np.uint64(64 - shift)
        offset += width
    return records


def decode_record(
    fields: Fields, records: npt.NDArray[np.uint64]
) -> dict[str, npt.NDArray[np.int64]]:
    """Raw fields of shape [N] each from records of shape [N, words]."""
    raw = {}
    offset = 0
    for name, width, signed in fields:
        word, shift = divmod(offset, 64)
        bits = records[:, word] >> np.uint64(shift)
        if shift + width > 64:
            bits = bits | records[:, word + 1] << np.uint64(64 - shift)
        value = (bits & np.uint64((1 << width) - 1)).astype(np.int64)
        raw[name] = value - ((value >> (width - 1)) << width) if signed else value
        offset += width
    return raw
