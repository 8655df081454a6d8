"""Lists in pages: what is appended is read back; RTL against both models."""

import re

import numpy as np
import pytest

from splatforge.algos.lists import ListPages
from splatforge.designs.entry import EntryFormat
from splatforge.designs.gscore import GscoreDesign
from splatforge.designs.lists import ListsDesign

#: Few lists of short pages.
SMALL = ListsDesign(
    entry=EntryFormat(feature_bits=9, depth_bits=7, subtile_bits=4), tiles=8, slots=4,
    page_bytes=64, page_bits=8, waiting_beats=8, buffer_beats=8, outstanding_pages=2)


def entries_of(design, count, rng):
    """Entries of any bits."""
    return rng.integers(0, 1 << design.entry.width, count, np.uint64)


@pytest.mark.parametrize("design", [ListsDesign(), SMALL], ids=["default", "small"])
def test_lists_are_read_back(design):
    """Many entries to few lists, few to many; each list keeps the order in which its came."""
    rng = np.random.default_rng(3)
    pages = ListPages(design, first_page=5)
    appended = [[] for _ in range(design.lists)]
    for size in (1, 2, 3, 40, 300):
        lists = rng.integers(0, design.lists, size)
        lists[rng.random(size) < 0.5] = design.lists - 2
        entries = entries_of(design, size, rng)
        pages.append(lists, entries)
        for at, entry in zip(lists.tolist(), entries.tolist(), strict=True):
            appended[at].append(entry)
    pages.flush(0, design.lists)
    assert not pages.overflow
    keys = design.entry.key(np.concatenate(
        [np.array(each, np.uint64) for each in appended[:design.tiles]]))
    seen = []
    for at, expected in enumerate(appended):
        head, count, low, high = pages.query(at)
        assert count == len(expected)
        assert pages.read(head, count).tolist() == expected
        if at >= design.tiles:
            own = design.entry.key(np.array(expected, np.uint64))
            assert (low, high) == ((own.min(), own.max()) if count else (
                (1 << design.entry.key_bits) - 1, 0))
        else:
            assert (low, high) == (keys.min(), keys.max())
        bursts = pages.bursts(head, count)
        assert sum(beats for _, beats in bursts) == (count + len(bursts) + 1) // 2
        seen += [page for page, _ in bursts]
    # No page is in two lists, all lie between the first and the next free one.
    assert len(set(seen)) == len(seen)
    assert 5 <= min(seen)
    assert max(seen) < pages.free
    assert len(pages.words) == pages.free
    assert not pages.words[:5].any()


def test_a_page_word_for_word():
    """Slot 0 links to the page that was allotted with it; the rest are entries in order."""
    pages = ListPages(SMALL)
    entries = np.arange(100, 120, dtype=np.uint64)
    pages.append(np.full(9, 3), entries[:9])
    pages.append(np.full(2, 9), entries[9:11])
    assert pages.words.tolist() == [
        [1, *range(100, 107)], [2, 107, 0, 0, 0, 0, 0, 0], [0] * 8,
        [4, 109, 0, 0, 0, 0, 0, 0], [0] * 8]
    # Six beats of list 3, one of list 9, and what waits of each.
    assert (pages.tile_bytes, pages.slot_bytes) == (16 * 5, 16)
    pages.flush(0, 12)
    assert pages.words[1].tolist() == [2, 107, 108, 0, 0, 0, 0, 0]
    assert pages.words[3].tolist() == [4, 109, 110, 0, 0, 0, 0, 0]
    assert (pages.tile_bytes, pages.slot_bytes) == (16 * 5 + 8, 16 + 8)
    # What was flushed is written again with its other half.
    pages.append(np.array([3]), entries[11:12])
    assert pages.words[1].tolist() == [2, 107, 108, 111, 0, 0, 0, 0]
    assert pages.query(3)[:2] == (0, 10)


def test_cleared_lists_begin_anew_on_pages_released():
    pages = ListPages(SMALL)
    rng = np.random.default_rng(1)
    pages.append(np.zeros(20, np.int64), entries_of(SMALL, 20, rng))
    pages.mark()
    for _ in range(3):
        pages.clear(8, 4)
        assert pages.query(9) == (0, 0, (1 << 16) - 1, 0)
        entries = entries_of(SMALL, 30, rng)
        pages.append(np.full(30, 9), entries)
        pages.flush(8, 4)
        head, count, low, high = pages.query(9)
        assert (head, count) == (4, 30)
        assert (low, high) == (SMALL.entry.key(entries).min(), SMALL.entry.key(entries).max())
        assert pages.read(head, count).tolist() == entries.tolist()
        pages.release()
        assert pages.free == 4
    assert pages.query(0)[:2] == (0, 20)


def test_the_workspace_ends():
    """A list may fill the last page; the link behind it leads nowhere, and nothing follows it."""
    entries = np.arange(1, 30, dtype=np.uint64)
    pages = ListPages(SMALL, limit=3)
    pages.append(np.full(21, 2), entries[:21])
    assert not pages.overflow
    assert pages.words[2, 0] == 3
    before = pages.words.copy()
    pages.append(np.full(3, 2), entries[21:24])
    assert pages.overflow
    np.testing.assert_array_equal(pages.words, before)
    # Without a limit all numbers but the last are pages.
    pages = ListPages(SMALL, first_page=253)
    pages.append(np.full(14, 2), entries[:14])
    assert not pages.overflow
    pages.append(np.full(1, 2), entries[:1])
    assert pages.overflow


@pytest.mark.parametrize(("change", "message"), [
    ({"tiles": 100}, "Lists of tiles must be a power of two from 2 to 65536, not 100"),
    ({"tiles": 1}, "Lists of tiles must be a power of two from 2 to 65536, not 1"),
    ({"tiles": 4}, "Further lists must be a power of two from 2 to 4, not 256"),
    ({"slots": 3}, "Further lists must be a power of two from 2 to 4096, not 3"),
    ({"page_bytes": 32}, "Bytes of a page must be a power of two from 64 to 4096, not 32"),
    ({"page_bytes": 8192}, "Bytes of a page must be a power of two from 64 to 4096, not 8192"),
    ({"page_bits": 25}, "Page numbers must have 4 to 24 bits, not 25"),
    ({"waiting_beats": 4}, "Waiting beats must be a power of two from 8 to 256, not 4"),
    ({"buffer_beats": 64}, "Buffered beats must be at least 128, two pages, not 64"),
    ({"outstanding_pages": 1}, "Outstanding pages must be a power of two from 2 to 256, not 1"),
])
def test_wrong_designs_are_refused(change, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        ListsDesign(**change)


def test_entries_must_be_those_of_the_other_units():
    with pytest.raises(ValueError, match=r"^Lists must hold the entries of the other units$"):
        GscoreDesign(lists=SMALL)
