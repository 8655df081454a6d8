"""Bit fields of records: what encodes decodes, over words' borders, and what does not fit."""

import re

import numpy as np
import pytest

from splatforge.algos.records import decode_record, encode_record

FIELDS = (("low", 40, False), ("across", 30, True), ("high", 60, True), ("flag", 1, False))


def test_fields_come_back_over_the_borders_of_words():
    rng = np.random.default_rng(1)
    raw = {name: rng.integers(-(1 << width - 1) if signed else 0, 1 << width - signed, 100)
           for name, width, signed in FIELDS}
    records = encode_record("Thing", FIELDS, 3, raw)
    assert records.shape == (100, 3)
    whole = [sum(int(word) << 64 * n for n, word in enumerate(row)) for row in records]
    offset = 0
    for name, width, _ in FIELDS:
        mask = (1 << width) - 1
        assert [word >> offset & mask for word in whole] == [int(v) & mask for v in raw[name]]
        offset += width
    assert not any(word >> offset for word in whole)
    decoded = decode_record(FIELDS, records)
    for name, _, _ in FIELDS:
        np.testing.assert_array_equal(decoded[name], raw[name])


def test_a_field_that_does_not_fit_is_named():
    raw = {name: np.zeros(2, np.int64) for name, _, _ in FIELDS}
    raw["across"][1] = 1 << 29
    message = "Thing across must be -536870912 to 536870911, not 0 to 536870912"
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        encode_record("Thing", FIELDS, 3, raw)
