"""The passes of a bridge: which pages to read from the file, and when the pages read are a state of the database.

A bridge is one transaction that leads from the position before a gap to a commit N after the gap. Its pages are
collected while writers write:

1. Let S be the point before frame 1 of the WAL's current incarnation. Read the listed pages from the file (the first
   pass lists all pages). Take the pages that differ from the map and from the versions taken before. Let F be the pages
   in frames since S.
2. If the WAL was restarted, deleted or created over frames meanwhile, a checkpoint may have copied frames into pages
   that had been read already. The next pass reads F and all pages past the last page that was read.
3. If there was a gap meanwhile, F is not known. The next pass reads all pages. Pages that were taken stay taken.
4. Otherwise every page of the database at N is either in the file, as it was read, or in a frame of the current
   incarnation. Take the last version of every page in these frames, whether it differs or not: a base that is begun in
   the same incarnation starts before the bridge and needs these versions.

If the transaction holds several versions of a page, the last one wins, because SQLite applies a WAL that way. So it
does no harm to have taken a version that is no longer current.

A page that is in F when a pass begins need not be read in that pass. If the pass is the last one, the page's last
version comes from the frames. Otherwise the next pass reads the page.

Memory holds four bytes for each frame since S.
"""

from __future__ import annotations

from dataclasses import dataclass

from walsyncd.core.content.page_entry import PageNumbers, lock_page
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.dbheader import parse_database_header

VOIDED_MAX = 3  # a bridge waits for a calmer time after this many passes that new gaps made worthless


@dataclass(frozen=True, slots=True, eq=False)
class PageList:
    """The pages to be read: every page in ``numbers``, in ascending order, and every page past number ``beyond``."""

    numbers: PageNumbers
    beyond: int

    @property
    def is_all(self) -> bool:
        """Whether the list has every page of the file."""
        return self.beyond == 0


@dataclass(frozen=True, slots=True, eq=False)
class PassPages:
    """The pages that a pass reads: those in ``listed`` and those in ``copied``. The pass takes no page of ``skipped``.

    ``copied`` are the pages in the current incarnation's frames up to ``copied_upto``, which were copied back before
    the pass. The pass does not take these pages, but notes their entries in the file (``core.follow.overwritten``).
    """

    listed: PageList
    skipped: PageNumbers
    copied_upto: int
    copied: PageNumbers

    def to_read(self) -> PageList:
        """Return the list of the pages that the pass reads."""
        numbers = np.union1d(self.listed.numbers, self.copied).astype(np.uint32)
        return PageList(numbers[numbers <= self.listed.beyond], self.listed.beyond)


@dataclass(frozen=True, slots=True, eq=False)
class LastVersions:
    """The result of the last pass. ``frames`` are the frames of the incarnation that hold their page's last version.

    Frames are numbered from 1. ``pages`` are the numbers of these pages, ascending. ``size`` is the size of the
    database at N in pages, or None if the incarnation has no commit. ``is_whole`` says that this pass alone has read
    all pages that no such frame holds, and that no frame of another incarnation came in between.
    """

    frames: NDArray[np.intp]
    pages: PageNumbers
    size: int | None
    is_whole: bool


def all_pages() -> PageList:
    """Return the list of every page of the file."""
    return PageList(np.empty(0, np.uint32), 0)


class BridgePasses:
    """The state of one bridge's passes.

    The caller reports what it saw in the WAL. After the file was read for a pass, it calls ``end_pass``.
    """

    def __init__(self, page_size: int) -> None:
        self._page_size = page_size
        self.pages = all_pages()
        """The pages that the current pass reads, or that the next pass will read if none is under way."""
        self.voided = 0
        """The number of passes in a row that a gap made worthless."""
        self._incarnation = no_pages()
        self._runs: list[PageNumbers] = []
        self._before = no_pages()  # F of the current pass, from incarnations that have ended
        self._skipped = no_pages()  # pages in F when the current pass began
        self._size: int | None = None
        self._restarted = False

    def begin_pass(self, copied_upto: int = 0) -> PassPages:
        """Begin a pass, and return what it reads. Pages that are in F already are skipped.

        The current incarnation's frames up to ``copied_upto`` have been copied back.
        """
        self._before, self._restarted = no_pages(), False
        held = self._joined()
        self._skipped = np.unique(held).astype(np.uint32)
        copied = np.unique(held[:copied_upto]).astype(np.uint32)
        copied = copied[copied != lock_page(self._page_size)]
        return PassPages(self.pages, self._skipped, min(copied_upto, len(held)), copied)

    def saw_frames(self, first: int, page_numbers: PageNumbers) -> None:
        """Take in followed frames of the current incarnation, from ``first`` on. They may be reported twice."""
        held = self._joined()
        assert first <= len(held) + 1, f"frames from {first} after {len(held)}"
        if first <= len(held):
            # Frames that were read but not yet believed are read again. F keeps their pages, which does no harm.
            self._before = np.union1d(self._before, held[first - 1 :]).astype(np.uint32)
            self._incarnation = held[: first - 1]
        self._runs.append(page_numbers.astype(np.uint32))

    def saw_commit(self, size: int) -> None:
        """Take in that the last reported frame commits, with a database of ``size`` pages."""
        self._size = size

    def saw_restart(self) -> None:
        """Take in that the WAL's incarnation ended, and that none of its frames was missed."""
        held = self._joined()
        self._before = np.union1d(self._before, held).astype(np.uint32)
        self._restarted = self._restarted or len(self._before) > 0
        self._incarnation, self._size = no_pages(), None

    def saw_gap(self) -> None:
        """Take in that frames may have been missed, so that all pages are read again."""
        self.voided += 1
        self.pages = all_pages()
        self._runs.clear()
        self._incarnation = self._before = no_pages()
        self._size, self._restarted = None, False

    def saw_no_frames(self) -> bool:
        """Whether nothing since the pass began can explain a change of the file."""
        return len(self._before) == 0 and len(self._joined()) == 0

    def end_pass(self, pages_read: int, last: int) -> LastVersions | None:
        """End a pass that has read up to page ``pages_read``. A look that began later has caught up to frame ``last``.

        Returns None if another pass is needed, which reads ``self.pages``. Frames after ``last`` may have been
        reported, but they did not commit.
        """
        held = self._joined()
        if self._restarted:
            self.pages = PageList(np.union1d(self._before, held).astype(np.uint32), pages_read)
            return None
        held = held[:last]
        numbers, from_end = np.unique(held[::-1], return_index=True)
        kept = (numbers != lock_page(self._page_size)) & (numbers <= (self._size or 0))
        pages = numbers[kept].astype(np.uint32)
        is_whole = self.pages.is_all and len(self._before) == 0 and bool(np.isin(self._skipped, held).all())
        return LastVersions(np.sort(len(held) - from_end[kept]), pages, self._size, is_whole)

    def _joined(self) -> PageNumbers:
        if self._runs:
            self._incarnation = np.concatenate([self._incarnation, *self._runs])
            self._runs.clear()
        return self._incarnation


def last_versions(pages: PageNumbers) -> NDArray[np.intp]:
    """Return the numbers (from 1, ascending) of the frames that have the last version of their page.

    ``pages`` are the page numbers of consecutive frames.
    """
    _, from_end = np.unique(pages[::-1], return_index=True)
    return np.sort(len(pages) - from_end)


def size_without_frames(page_1: bytes, file_size: int, page_size: int) -> int:
    """Return the size in pages of a database without a WAL.

    Page 1 states the size. If page 1 can't be believed, the size of the file counts. A file may be longer than its
    database (SQLITE_FCNTL_CHUNK_SIZE), or encrypted.
    """
    header = parse_database_header(page_1)
    if (
        header is not None
        and header.magic_ok
        and header.page_count
        and header.version_valid_for == header.change_counter
    ):
        return header.page_count
    return file_size // page_size


def no_pages() -> PageNumbers:
    """Return an empty array of page numbers."""
    return np.empty(0, np.uint32)
