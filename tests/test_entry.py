import re

import numpy as np
import pytest

from splatforge.designs.entry import EntryFormat

ENTRY = EntryFormat()


@pytest.mark.parametrize(("values", "message"), [
    ({"feature_bits": 0}, "Feature, depth and subtiles must have 1 bit or more, not 0, 25 and 4"),
    ({"depth_bits": 0}, "Feature, depth and subtiles must have 1 bit or more, not 24, 0 and 4"),
    ({"subtile_bits": 0}, "Feature, depth and subtiles must have 1 bit or more, not 24, 25 and 0"),
    ({"depth_bits": 39, "subtile_bits": 1}, "Sort key must have at most 62 bits, not 63"),
    ({"depth_bits": 37}, "Entry must fit 64 bits, not 65"),
])
def test_wrong_parameters_are_named(values, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        EntryFormat(**values)


@pytest.mark.parametrize("entry", [ENTRY, EntryFormat(feature_bits=7, depth_bits=9,
                                                      subtile_bits=16)])
def test_fields_come_back(entry):
    rng = np.random.default_rng(1)
    want = {name: np.concatenate([[0, (1 << width) - 1], rng.integers(0, 1 << width, 200)])
            for name, width in entry.fields()}
    words = entry.encode(**want)
    assert words.dtype == np.uint64
    got = entry.decode(words)
    assert list(got) == list(want)
    for name in want:
        assert np.array_equal(got[name], want[name])
    assert not (words >> np.uint64(entry.width)).any()


def test_order_is_by_depth_then_feature():
    rng = np.random.default_rng(2)
    feature, depth = rng.permutation(500), rng.integers(0, 40, 500)
    words = ENTRY.encode(feature, depth, rng.integers(0, 16, 500))
    assert np.array_equal(np.argsort(ENTRY.key(words)), np.lexsort([feature, depth]))


@pytest.mark.parametrize(("name", "value"), [
    ("feature", 1 << 24), ("depth", -1), ("subtiles", 16)])
def test_fields_that_do_not_fit_are_named(name, value):
    fields = {"feature": [0, 1], "depth": [0, 1], "subtiles": [0, 1]} | {name: [0, value]}
    top = dict(ENTRY.fields())[name]
    message = f"Entry {name} must be 0 to {(1 << top) - 1}, not {min(0, value)} to {max(0, value)}"
    with pytest.raises(ValueError, match=f"^{message}$"):
        ENTRY.encode(**fields)
