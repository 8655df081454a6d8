"""Lists of entries in memory: pages that are linked, appended to and read back."""

from dataclasses import dataclass

from splatforge.designs.entry import ENTRY_BITS, EntryFormat

__all__ = ["SLOT_BYTES", "ListsDesign"]

#: One place of a page: a link, or an entry.
SLOT_BYTES = ENTRY_BITS // 8


@dataclass(frozen=True, kw_only=True)
class ListsDesign:
    """Which lists there are, their pages, and the buffers of those that write and read them.

    A page is `page_bytes` of the workspace, numbered from 0 at its beginning. Its slot 0 holds the
    number of the list's next page, the other slots an entry each; two slots are a beat of the bus.
    The next page is allotted with the page before it, so that a reader may follow the link as soon
    as the first beat of a page has arrived; the link of a list's last page leads to one that is
    not in use.

    Parameters
    ----------
    entry : EntryFormat
        What is listed.
    tiles : int
        Lists of tiles, numbered from 0; a power of two from 2 to 65536. 4096 are 1024x1024 pixels.
    slots : int
        Further lists behind them, for what is partitioned; a power of two from 2 to `tiles`. Of
        each of these the least and the greatest key are known, of the tiles' those of all together.
    page_bytes : int
        A power of two from 64 to 4096, so that none crosses 4 KiB. Of a list half a page is unused
        on the average, and one page more is allotted; in return a long page is one burst to read.
    page_bits : int
        Bits of a page's number, 4 to 24. The last number is none.
    waiting_beats : int
        Beats that may wait for the bus or for its response, a power of two from 8 to 256: with 64,
        a beat every two cycles goes out to a memory that answers after 110.
    buffer_beats : int
        Beats that a reader has room for, a power of two from 4 to 4096, at least two pages.
    outstanding_pages : int
        Bursts of a reader whose beats may be asked for and not yet be passed on, a power of two
        from 2 to 256.

    Raises
    ------
    ValueError
        If a parameter is out of its range.
    """

    entry: EntryFormat = EntryFormat()
    tiles: int = 4096
    slots: int = 256
    page_bytes: int = 1024
    page_bits: int = 20
    waiting_beats: int = 64
    buffer_beats: int = 256
    outstanding_pages: int = 16

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("Lists of tiles", self.tiles, 2, 65536),
            ("Further lists", self.slots, 2, self.tiles),
            ("Bytes of a page", self.page_bytes, 64, 4096),
            ("Waiting beats", self.waiting_beats, 8, 256),
            ("Buffered beats", self.buffer_beats, 4, 4096),
            ("Outstanding pages", self.outstanding_pages, 2, 256),
        ):
            if value & (value - 1) or not low <= value <= high:
                raise ValueError(
                    f"{name} must be a power of two from {low} to {high}, not {value!r}")
        if not 4 <= self.page_bits <= 24:
            raise ValueError(f"Page numbers must have 4 to 24 bits, not {self.page_bits!r}")
        if self.buffer_beats < 2 * self.page_beats:
            raise ValueError(
                f"Buffered beats must be at least {2 * self.page_beats}, two pages, "
                f"not {self.buffer_beats!r}")

    @property
    def lists(self) -> int:
        """Lists of tiles and further ones."""
        return self.tiles + self.slots

    @property
    def page_slots(self) -> int:
        """Slots of a page."""
        return self.page_bytes // SLOT_BYTES

    @property
    def page_entries(self) -> int:
        """Entries of a full page."""
        return self.page_slots - 1

    @property
    def page_beats(self) -> int:
        """Beats of a full page."""
        return self.page_slots // 2

    @property
    def pages(self) -> int:
        """Pages that have a number, one less than there are numbers."""
        return (1 << self.page_bits) - 1

    @property
    def count_bits(self) -> int:
        """Bits of the count of a list: every feature is in it at most once.

        They also hold its slots, which are at most 8/7 of that.
        """
        return self.entry.feature_bits + 1
