"""The pages that the captured journals name, so that a scan of a large file need not read all of it.

A scan asks for these pages at its moment. If the journals do not account for every change since the last accepted scan,
the scan reads every page. When a scan is accepted, the state at its moment becomes the known state, and the journals
are evaluated from that state on. A scan that is not accepted changes nothing: the next scan asks again from the same
known state.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

from walsyncd.adapters.files.inotify import Event
from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.content.bridge_passes import PageList, all_pages
from walsyncd.core.rollback.changed_pages import (
    ChangedPages,
    ScanReason,
    SeenJournal,
    changed_pages,
    free_page_count,
)
from walsyncd.core.rollback.journal_trail import Doubt, JournalNow
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.core.sqlite.rollback_journal import (
    JournalFault,
    RollbackJournal,
    parse_kept_journal,
    parse_rollback_journal,
)
from walsyncd.engine.rollback.committed_moment import FileLooks, MomentStart
from walsyncd.engine.rollback.journal_capture import CaptureMark, JournalCapture
from walsyncd.engine.rollback.rolling_moments import RollingMoments, begin_rolling
from walsyncd.errors import WalsyncdError

_NO_PAGES = PageList(np.empty(0, np.uint32), 2**32)
SOON_BYTES = 1 << 20  # journals of so many bytes are read in about 3 ms (measured: 344 us for 101 pages)
SOON_FREE_PAGES = 1000


@dataclass(frozen=True, slots=True)
class KnownState:
    """The state of the database at a moment. ``counter`` is its change counter, or None if page 1 is no plain header.

    ``origin`` is the number of the state in the order of events (``JournalCapture.begin``).
    """

    counter: int | None
    origin: int


@dataclass(frozen=True, slots=True)
class JournalSource:
    """Access to the files of one database: ``open`` opens the database, and ``drain`` takes in queued events.

    ``count_writes`` starts counting each write to the -journal that exists now (``Kind.COUNTED``).
    """

    capture: JournalCapture
    open: Callable[[], OpenFile | None]
    drain: Callable[[], None]
    count_writes: Callable[[], None] = lambda: None


class JournalPages:
    """The pages that one scan reads (``PagesToRead``).

    ``known`` is the state that the page map describes, or None if that state is not known.

    ``is_early`` says that the scan must not read all pages. If the journals leave doubt then, the scan has no result.
    """

    def __init__(
        self, source: JournalSource, known: KnownState | None, page_size: int, *, is_early: bool = False
    ) -> None:
        self.is_early = is_early
        self._source = source
        self._known = known
        self._page_size = page_size
        self._looks: FileLooks | None = None
        self._mark: CaptureMark | None = None
        self._is_kept_read = self._is_kept_whole = False
        self._counter: int | None = None
        self.is_passing = False
        """See ``MomentProofs``."""
        self.reason: ScanReason | None = None
        """Why the scan reads all pages, or None if it reads what the journals name."""

    @property
    def is_likely(self) -> bool:
        """Whether the journals probably name the pages."""
        return self._known is not None and not self.is_lost()

    def is_found_soon(self, start: MomentStart) -> bool:
        """See ``PagesToRead``."""
        is_little_free = free_page_count(start.page_1) <= SOON_FREE_PAGES
        return is_little_free and self._source.capture.bytes_to_read() <= SOON_BYTES

    def at_moment(self, looks: FileLooks, start: MomentStart) -> PageList:
        """See ``PagesToRead``."""
        self._looks = looks
        found = self.prove(start.page_1)
        if isinstance(found, ChangedPages):
            self.reason = None
            if self._is_kept_whole:
                self._source.count_writes()  # so that as many further writes are counted as before
            return PageList(found.numbers, found.page_count)
        self.reason = found
        if self._mark is not None and self._mark.journal is JournalNow.IDLE and self._source.capture.has_records():
            self._source.count_writes()  # counts the writes of later transactions, since this one is over
        return _NO_PAGES if self.is_early else all_pages()

    def prove(self, page_1: bytes) -> ChangedPages | ScanReason:
        """Return what changed up to a moment whose page 1 is ``page_1``, or why that is not known."""
        header = parse_database_header(page_1)
        self._counter = None if header is None else header.change_counter
        self._is_kept_read = self._is_kept_whole = self.is_passing = False
        self._mark = mark = self._source.capture.mark(self._source.drain, self._is_reserved)
        if mark is None:
            self.is_passing = True
            return Doubt.JOURNAL_MISSED
        if self._known is None or self._known.counter is None:
            return Doubt.JOURNAL_UNKNOWN
        captured = self._source.capture.until(mark, self._known.origin)
        with ExitStack() as files:
            for each in captured.journals:
                files.enter_context(each)
            if captured.doubt is not None:
                self.is_passing = captured.is_passing
                return captured.doubt
            read = zip(captured.journals, captured.runs, strict=True)  # without doubt, every deleted journal is held
            journals = [SeenJournal(_parsed(each, self._page_size), runs) for each, runs in read]
            if captured.is_kept_written and (kept := self._source.capture.open()) is not None:
                files.enter_context(kept)
                self._is_kept_read, self._is_kept_whole = True, captured.is_kept_whole
                content = parse_kept_journal(kept.pread, kept.size(), self._page_size)
                kept_journal = SeenJournal(content, captured.kept_runs, is_kept=True, is_whole=captured.is_kept_whole)
                journals.append(kept_journal)
            return self._changed(self._known.counter, page_1, journals)

    def _changed(self, counter: int, page_1: bytes, journals: Sequence[SeenJournal]) -> ChangedPages | ScanReason:
        with _LazyPages(self._source.open, self._page_size) as pages:
            found = changed_pages(counter, page_1, journals, pages.page, self._page_size)
            return Doubt.REPLACED if pages.is_gone else found

    def are_complete(self) -> bool:
        """See ``PagesToRead``. A kept journal must not have been used since it was read."""
        if self.reason is not None and self.is_early:
            return False
        if self._mark is None or not self._is_kept_read:
            return True
        return not self._is_reserved() and self._source.capture.is_untouched(self._mark)

    def _is_reserved(self) -> bool:
        """Whether a writer holds RESERVED or a stronger lock on the file that is scanned."""
        assert self._looks is not None, "there is no moment yet"
        locks = self._looks.locks()
        return locks.reserved or locks.writing

    def rolling(self, looks: FileLooks, start: MomentStart) -> RollingMoments | None:
        """See ``PagesToRead``."""
        return None if self.reason is None or self.is_early else begin_rolling(self, looks, start)

    def is_lost(self) -> bool:
        """See ``MomentProofs``."""
        return self._known is None or self._source.capture.is_lost(self._known.origin)

    def take(self) -> KnownState | None:
        """Treat the state at the moment as known, so that later proofs begin there. Returns that state.

        The pages that were read up to the moment are in the map, or will be if the rolling scan has a result.
        """
        if self._mark is None:
            self._source.capture.clear()
            self._known = None
        else:
            self._known = KnownState(self._counter, self._source.capture.begin(self._mark))
        return self._known


class _LazyPages:
    """The pages of the database. The file is opened when the first page is read, because most proofs need none."""

    def __init__(self, open_database: Callable[[], OpenFile | None], page_size: int) -> None:
        self._open = open_database
        self._page_size = page_size
        self._file: OpenFile | None = None
        self.is_gone = False
        """Whether there was no database when a page was asked for."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        if self._file is not None:
            self._file.close()

    def page(self, number: int) -> bytes:
        """Return a page, or no bytes if the page is past the end of the file or the file does not exist."""
        if self._file is None:
            self._file = self._open()
        if self._file is None:
            self.is_gone = True
            return b""
        return self._file.pread((number - 1) * self._page_size, self._page_size)


def _parsed(journal: OpenFile, page_size: int) -> RollbackJournal | JournalFault:
    try:
        return parse_rollback_journal(journal.pread, page_size)
    except WalsyncdError:
        return JournalFault.DAMAGED


class JournalProofs:
    """The journals of one database, while its file is large enough that they save reading.

    This is as thread-safe as ``JournalCapture`` is.
    """

    def __init__(self, source: JournalSource, *, file_bytes_min: int) -> None:
        self._source = source
        self._file_bytes_min = file_bytes_min
        self._is_active = False
        self._known: KnownState | None = None
        self._pages: JournalPages | None = None
        self.is_early = False
        """Whether the next scan need not wait for the rest that follows a scan of all pages.

        Such an early scan reads the pages that the journals name, or no page if the journals leave doubt.
        """

    @property
    def reason(self) -> ScanReason | None:
        """Why the last scan read all pages of a large file, or None if it did not."""
        return None if self._pages is None else self._pages.reason

    def note(self, event: Event) -> None:
        """Take in one event, in queue order. Only the thread that drains the queue may call this."""
        if self._is_active:
            self._source.capture.note(event)

    def lose(self) -> None:
        """Note that an event could not be taken in."""
        if self._is_active:
            self._source.capture.lose()

    def pages(self, file_bytes: int, page_size: int, *, is_all: bool, is_early: bool = False) -> JournalPages | None:
        """Return what the next scan reads, or None if it reads all of a small file.

        ``is_all`` says that the scan must read all pages, because it compares them with more than the map.
        ``JournalPages`` explains ``is_early``. Only the follower's thread may call this.
        """
        if file_bytes <= self._file_bytes_min:
            self.forget()
            return None
        self._is_active = True
        known = None if is_all else self._known
        self._pages = JournalPages(self._source, known, page_size, is_early=is_early and not is_all)
        return self._pages

    def accepted(self) -> None:
        """Take in that the result of the last scan is in the map. Only the follower's thread may call this."""
        if self._pages is not None:
            self._known = self._pages.take()
            self.is_early = self._known is not None

    def forget(self) -> None:
        """Close all journals. The next scan reads all pages."""
        self._is_active = self.is_early = False
        self._known = self._pages = None
        self._source.capture.clear()
