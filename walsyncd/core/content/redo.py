"""Redo rows: the changes that a run of frames makes to a page map.

The map file is written rarely. Changes by frames since the last write wait in the journal, in one row for each segment.
A row holds the last entry of each page that its frames wrote, the smallest size that one of its commits stated, and the
size that its last commit stated. Sizes are in pages.

**A commit drops every page past the size that it states.** The database may become larger again in the same row or in a
later row. A page that comes back then is a new page. So

- a page counts only if neither its frame nor a later one commits with a size smaller than the page's number;
- to apply a row, first drop every map entry past the row's smallest size, then set the entries that the row holds.

Consecutive rows can be combined into one row (``combined``) by the same rule that applies a row to a map.

The stored form of a row's entries is ``count`` page numbers (u32), then as many entries (u64), little-endian.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from walsyncd.core.content.page_entry import ABSENT, Entries, PageNumbers, entries_of_frames, lock_page
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.wal import Frames

SIZE_MAX = 0xFFFF_FFFF  # larger than any size that a commit states: nothing is forgotten
_PAIR_BYTES = 12
_LOOP_PAGES_MAX = 64  # below this a dictionary is faster than numpy's sort (measured)


@dataclass(frozen=True, slots=True, eq=False)
class Redo:
    """Changes to a map, as the head of this file describes. ``pages`` ascend, and each has its entry in ``entries``."""

    pages: PageNumbers
    entries: Entries
    size_min: int
    size: int

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Redo)
            and (self.size_min, self.size) == (other.size_min, other.size)
            and np.array_equal(self.pages, other.pages)
            and np.array_equal(self.entries, other.entries)
        )

    def __hash__(self) -> int:
        return hash((self.size_min, self.size, self.pages.tobytes(), self.entries.tobytes()))


def nothing_to_redo() -> Redo:
    """Return the row that changes nothing. Its size is ``SIZE_MAX``, which means that no commit stated one."""
    return Redo(np.empty(0, np.uint32), np.empty(0, np.uint64), SIZE_MAX, SIZE_MAX)


class RedoBuilder:
    """Builds a row from frames that come in runs. The frames of one transaction may come in several runs."""

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self._parts: list[tuple[PageNumbers, Entries]] = []
        self._size_min = SIZE_MAX
        self._size = SIZE_MAX
        self._greatest = 0  # no page in ``_parts`` has a greater number

    def add(self, frames: Frames) -> None:
        """Add verified frames, which directly follow those added before."""
        if not frames.count:
            return
        stated = np.where(frames.sizes == 0, np.uint32(SIZE_MAX), frames.sizes)
        # For each frame: the smallest size that a commit from this frame on states.
        smallest = np.minimum.accumulate(stated[::-1])[::-1]
        self._forget_past(int(smallest[0]))
        counts = (frames.page_numbers <= smallest) & (frames.page_numbers != lock_page(self._page_size))
        rows = np.flatnonzero(counts)
        pages, last = _last_of_each(frames.page_numbers[rows])
        self._parts.append((pages, entries_of_frames(frames.data, self._page_size, rows[last])))
        self._greatest = max(self._greatest, int(pages[-1]) if len(pages) else 0)
        commits = frames.sizes[frames.sizes != 0]
        if len(commits):
            self._size = int(commits[-1])

    def finish(self) -> Redo:
        """Return the row. The last frame added must have been a commit."""
        pages, entries = _last_wins(self._parts)
        return Redo(pages, entries, self._size_min, self._size)

    def _forget_past(self, size: int) -> None:
        self._size_min = min(self._size_min, size)
        if size < self._greatest:
            self._parts = [(pages[pages <= size], entries[pages <= size]) for pages, entries in self._parts]
            self._greatest = size


def combined(rows: Iterable[Redo]) -> Redo:
    """Return one row that changes a map as these rows do when they are applied one after the other."""
    parts: list[tuple[PageNumbers, Entries]] = []
    smallest, size = SIZE_MAX, SIZE_MAX
    for row in reversed(list(rows)):
        kept = row.pages <= smallest
        parts.append((row.pages[kept], row.entries[kept]))
        smallest = min(smallest, row.size_min)
        size = row.size if size == SIZE_MAX else size
    return Redo(*_last_wins(parts[::-1]), smallest, size)


def apply(redo: Redo, entries: Entries, first: int) -> Entries:
    """Return a new array with the entries after ``redo`` of the pages from number ``first`` on.

    ``entries`` are the entries of these pages before ``redo``.
    """
    changed = entries.copy()
    if redo.size_min < first + len(changed) - 1:
        changed[max(0, redo.size_min + 1 - first) :] = ABSENT
    low, high = np.searchsorted(redo.pages, (first, first + len(changed)))
    changed[redo.pages[low:high].astype(np.intp) - first] = redo.entries[low:high]
    return changed


def format_entries(redo: Redo) -> bytes:
    """Return the page numbers and entries of a row, as the journal stores them."""
    return redo.pages.astype("<u4").tobytes() + redo.entries.astype("<u8").tobytes()


def parse_entries(text: bytes, *, size_min: int, size: int) -> Redo:
    """Parse what ``format_entries`` returns. Raises ValueError if the text is not valid."""
    count, rest = divmod(len(text), _PAIR_BYTES)
    if rest:
        raise ValueError(f"{len(text)} bytes are no pages and entries")
    pages = np.frombuffer(text, "<u4", count).astype(np.uint32)
    entries = np.frombuffer(text, "<u8", count, offset=4 * count).astype(np.uint64)
    if count and (pages[0] == 0 or (pages[1:] <= pages[:-1]).any()):
        raise ValueError("page numbers do not ascend")
    return Redo(pages, entries, size_min, size)


def _last_wins(parts: list[tuple[PageNumbers, Entries]]) -> tuple[PageNumbers, Entries]:
    if not parts:
        return np.empty(0, np.uint32), np.empty(0, np.uint64)
    if len(parts) == 1:  # the pages of one part are distinct and ascend
        return parts[0]
    pages, last = _last_of_each(np.concatenate([pages for pages, _ in parts]))
    return pages, np.concatenate([entries for _, entries in parts])[last]


def _last_of_each(pages: PageNumbers) -> tuple[PageNumbers, NDArray[np.intp]]:
    """Return the distinct page numbers, ascending, and the last index of each."""
    if len(pages) <= _LOOP_PAGES_MAX:
        last = {page: index for index, page in enumerate(pages.tolist())}
        ascending = sorted(last)
        return np.array(ascending, np.uint32), np.array([last[page] for page in ascending], np.intp)
    different, from_end = np.unique(pages[::-1], return_index=True)
    return different, len(pages) - 1 - from_end
