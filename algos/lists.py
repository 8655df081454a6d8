"""Lists of entries in memory, word for word as the hardware writes them."""

import numba as nb
import numpy as np
import numpy.typing as npt

from splatforge.designs.lists import SLOT_BYTES, ListsDesign

__all__ = ["ListPages"]

Int64Array = npt.NDArray[np.int64]
Uint64Array = npt.NDArray[np.uint64]

# What is known of a list: slots in use, links included; its first page, that of its last slot and
# the one behind; in another array the entry that waits for its beat's second half.
_SLOTS, _HEAD, _PAGE, _NEXT = range(4)
# Of all: the next free page, whether one was wanted where there was none, bytes written.
_FREE, _OVERFLOW, _TILE_BYTES, _SLOT_BYTES = range(4)


@nb.njit(cache=True)
def _append_kernel(lists, entries, keys, tiles, bound, words, known, half, low, high, common):
    for n in range(len(lists)):
        at = lists[n]
        of = known[at]
        slot = of[_SLOTS] % words.shape[1]
        if slot == 0:
            first = of[_SLOTS] == 0
            of[_PAGE] = common[_FREE] if first else of[_NEXT]
            if first:
                of[_HEAD] = of[_PAGE]
                common[_FREE] = min(common[_FREE] + 1, bound)
            of[_NEXT] = common[_FREE]
            common[_FREE] = min(common[_FREE] + 1, bound)
            half[at] = np.uint64(of[_NEXT])
            of[_SLOTS] += 1
            slot = 1
        if slot % 2:
            if of[_PAGE] == bound:
                common[_OVERFLOW] = 1
            else:
                words[of[_PAGE], slot - 1] = half[at]
                words[of[_PAGE], slot] = entries[n]
                common[_TILE_BYTES if at < tiles else _SLOT_BYTES] += 2 * SLOT_BYTES
        else:
            half[at] = entries[n]
        of[_SLOTS] += 1
        # The lists of tiles share the last of the pairs.
        pair = at - tiles if at >= tiles else len(low) - 1
        low[pair] = min(low[pair], keys[n])
        high[pair] = max(high[pair], keys[n])


class ListPages:
    """Workspace with lists in it, bit-true to :class:`splatforge.hw.lists.Lists`.

    Parameters
    ----------
    design : ListsDesign
        Lists and pages.
    first_page : int
        The first that is free.
    limit : int, optional
        Pages of the workspace; as many as have a number by default.

    Attributes
    ----------
    tile_bytes, slot_bytes : int
        Written so far of the tiles' lists and of the further ones, links included.
    overflow : bool
        Whether an entry found no page; it is not written, nor are those behind it in its list.
    """

    def __init__(self, design: ListsDesign, first_page: int = 0, limit: int | None = None) -> None:
        self.design = design
        self._bound = design.pages if limit is None else min(limit, design.pages)
        self._words = np.zeros((0, design.page_slots), np.uint64)
        self._known = np.zeros((design.lists, 4), np.int64)
        self._half = np.zeros(design.lists, np.uint64)
        self._low = np.full(design.slots + 1, (1 << design.entry.key_bits) - 1, np.int64)
        self._high = np.zeros(design.slots + 1, np.int64)
        self._common = np.array([min(first_page, self._bound), 0, 0, 0], np.int64)
        self._mark = 0

    @property
    def words(self) -> Uint64Array:
        """Pages of shape [pages, slots], from page 0 to the last that may have been written."""
        return self._words[:self.free]

    @property
    def free(self) -> int:
        """The next free page."""
        return int(self._common[_FREE])

    @property
    def overflow(self) -> bool:
        return bool(self._common[_OVERFLOW])

    @property
    def tile_bytes(self) -> int:
        return int(self._common[_TILE_BYTES])

    @property
    def slot_bytes(self) -> int:
        return int(self._common[_SLOT_BYTES])

    def append(self, lists: Int64Array, entries: Uint64Array) -> None:
        """Append entries of shape [N] in order, each to the list of its number.

        A page is taken when the first entry of a list or of a page comes; its first beat, link and
        entry, is written at once, every further one when its second entry has come.
        """
        design = self.design
        # Each takes at most a page, and one more when it is the first of its list.
        pages = self.free + len(lists) // design.page_entries + 2 * min(len(lists), design.lists)
        if pages + 1 > len(self._words):
            grown = np.zeros((2 * pages + 2, design.page_slots), np.uint64)
            grown[:len(self._words)] = self._words
            self._words = grown
        _append_kernel(
            np.asarray(lists, np.int64), np.asarray(entries, np.uint64), design.entry.key(entries),
            design.tiles, self._bound, self._words, self._known, self._half, self._low, self._high,
            self._common)

    def clear(self, first: int, count: int) -> None:
        """Empty the lists from `first` on; their pages stay taken."""
        self._known[first:first + count] = 0
        slots = slice(max(first - self.design.tiles, 0), max(first + count - self.design.tiles, 0))
        self._low[slots] = (1 << self.design.entry.key_bits) - 1
        self._high[slots] = 0

    def flush(self, first: int, count: int) -> None:
        """Write the entries that wait for the second half of their beat, and let them wait on."""
        design = self.design
        for at in range(first, first + count):
            slots, _, page, _ = self._known[at].tolist()
            if not slots % 2:
                continue
            if page == self._bound:
                self._common[_OVERFLOW] = 1
                continue
            self._words[page, (slots - 1) % design.page_slots] = self._half[at]
            self._common[_TILE_BYTES if at < design.tiles else _SLOT_BYTES] += SLOT_BYTES

    def query(self, at: int) -> tuple[int, int, int, int]:
        """First page and count of list `at`, and the least and the greatest key.

        The keys are those of the list if it is a further one, and those of all that was ever
        appended to lists of tiles if it is a tile's; of none, all ones and zero. The first page of
        an empty list is 0.
        """
        slots, head, _, _ = self._known[at].tolist()
        pair = at - self.design.tiles if at >= self.design.tiles else -1
        count = slots - -(-slots // self.design.page_slots)
        return head, count, int(self._low[pair]), int(self._high[pair])

    def mark(self) -> None:
        """Remember the next free page."""
        self._mark = self.free

    def release(self) -> None:
        """Free all pages that were taken behind the mark."""
        self._common[_FREE] = self._mark

    def bursts(self, head: int, count: int) -> list[tuple[int, int]]:
        """Bursts that read a list: (page, beats) of each, bit-true to the list reader's.

        Parameters
        ----------
        head, count : int
            First page and entries of the list, at least one.
        """
        design, found, page = self.design, [], head
        while count > 0:
            here = min(count, design.page_entries)
            found.append((page, (here + 2) // 2))
            count -= here
            page = int(self._words[page, 0])
        return found

    def read(self, head: int, count: int) -> Uint64Array:
        """Entries of a list that is flushed, shape [count]."""
        parts = [self._words[page, 1:2 * beats] for page, beats in self.bursts(head, count)]
        return np.concatenate([np.zeros(0, np.uint64), *parts])[:count]
