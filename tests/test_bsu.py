"""Sorting units: the network against a plain sort, RTL against both models."""

import re

import numpy as np
import pytest

from splatforge.algos.bsu import bsu_fixed, from_words, passes, to_words
from splatforge.designs.bsu import BsuDesign
from splatforge.designs.entry import EntryFormat

DESIGN = BsuDesign()
ENTRY = DESIGN.entry
#: Everything fills up; keys are soon the same.
SMALL = BsuDesign(entry=EntryFormat(feature_bits=5, depth_bits=3), chunk=16, width=4, units=2)
#: Fewer rows than columns.
FLAT = BsuDesign(chunk=32, width=8, units=3)


def entries(rng, count, entry=ENTRY):
    """Entries of any bits."""
    return entry.encode(*(rng.integers(0, 1 << width, count) for _, width in entry.fields()))


@pytest.mark.parametrize("design", [
    DESIGN, SMALL, FLAT, BsuDesign(chunk=2, width=2), BsuDesign(chunk=4, width=2),
    BsuDesign(chunk=1024, width=32), BsuDesign(chunk=16)])
@pytest.mark.parametrize("seed", [1, 2])
def test_network_sorts(design, seed):
    """By key, and where keys are the same by the mask; the last key of all among them."""
    rng = np.random.default_rng(seed)
    entry = design.entry
    full = (1 << entry.width) - 1
    counts = range(1, design.chunk + 1)
    if design.chunk > 32:
        counts = [1, design.chunk - 1, design.chunk, *rng.choice(counts, 40).tolist()]
    for count in counts:
        chunk = entries(rng, count, entry)
        chunk[rng.random(count) < 0.2] = full
        fields = entry.decode(chunk)
        want = chunk[np.lexsort([-fields["subtiles"], entry.key(chunk)])]
        np.testing.assert_array_equal(bsu_fixed(design, chunk), want)


@pytest.mark.parametrize("design", [
    BsuDesign(chunk=8, width=4), BsuDesign(chunk=8, width=8), BsuDesign(chunk=4, width=2)])
def test_every_order_of_zeros_and_ones_is_sorted(design):
    """What sorts these sorts everything (Knuth, The Art of Computer Programming 3, 5.3.4)."""
    for bits in range(1 << design.chunk):
        flags = bits >> np.arange(design.chunk) & 1
        chunk = design.entry.encode(flags, 0 * flags, 1 + 0 * flags)
        assert (np.diff(design.entry.key(bsu_fixed(design, chunk))) >= 0).all()


def test_a_pad_is_behind_every_entry_that_meets_a_subtile():
    chunk = np.array([(1 << ENTRY.width) - 1] * 3, np.uint64)
    np.testing.assert_array_equal(bsu_fixed(DESIGN, chunk), chunk)


def test_words_come_back():
    chunk = entries(np.random.default_rng(3), 500)
    np.testing.assert_array_equal(from_words(ENTRY, to_words(ENTRY, chunk)), chunk)


@pytest.mark.parametrize(("count", "number"), [
    (1, 0), (2, 1), (16, 4), (17, 6), (64, 8), (128, 10), (129, 12), (256, 12)])
def test_passes(count, number):
    """256 entries pass 192 rows and columns of 16."""
    assert len(passes(DESIGN, count)) == number


@pytest.mark.parametrize(("change", "message"), [
    ({"width": 12}, "Width of a sorter must be a power of two from 2 to 64, not 12"),
    ({"width": 128}, "Width of a sorter must be a power of two from 2 to 64, not 128"),
    ({"chunk": 512}, "Chunk must be a power of two from 16 to 256, not 512"),
    ({"chunk": 8}, "Chunk must be a power of two from 16 to 256, not 8"),
    ({"chunk": 96}, "Chunk must be a power of two from 16 to 256, not 96"),
    ({"units": 0}, "Sorters must be 1 to 16, not 0"),
    ({"units": 17}, "Sorters must be 1 to 16, not 17"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        BsuDesign(**change)


@pytest.mark.parametrize("count", [0, 257])
def test_wrong_counts_are_refused(count):
    with pytest.raises(ValueError, match=f"^Entries of a chunk must be 1 to 256, not {count}$"):
        bsu_fixed(DESIGN, np.zeros(count, np.uint64))
