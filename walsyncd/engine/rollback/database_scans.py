"""The scans of a followed database without a WAL. They ship what changed, and close the database's bases.

1. A base copies the file while writers may write, and the entry of each copied page is kept (``base_entries``).
2. A scan at a committed moment ships the pages that differ from these entries, as one transaction. Applying the
   transaction to the base gives the database at that moment. The entries become the page map if there was none.
3. Each change of the file is followed by a scan, which ships the pages that differ from the map.

The positions of a database in rollback mode are the moments that scans found. A base begins at the position that the
last scan reached.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

from walsyncd.adapters.files.inotify import Event
from walsyncd.adapters.journal.page_map_table import PageMapRow
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.send.scan_pace import SMALL_BYTES
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.core.stored.position import Position
from walsyncd.engine.content.base_entries import BaseEntries
from walsyncd.engine.content.bridge_body import BridgeImpossibleError
from walsyncd.engine.follow.copy_frames import is_epoch_over
from walsyncd.engine.follow.file_facts import changed_ns, database_identity
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import BaseReading, CommittedScan, Step
from walsyncd.engine.follow.wal_pairs import REPLACED
from walsyncd.engine.rollback.committed_moment import Hindrance
from walsyncd.engine.rollback.journal_capture import JournalCapture
from walsyncd.engine.rollback.journal_pages import JournalPages, JournalProofs, JournalSource
from walsyncd.engine.rollback.journal_use import JOURNAL, UNJOURNALLED, JournalUse
from walsyncd.engine.rollback.pages_to_read import AllPages, PagesToRead
from walsyncd.engine.rollback.rollback_look import look_in_rollback_mode, not_by_pages
from walsyncd.engine.rollback.scanning import Scanning, ScanTools, after_scan, gap_of
from walsyncd.engine.rollback.transaction_pause import TransactionPause
from walsyncd.engine.rollback.whole_scans import WholeScans
from walsyncd.errors import WalsyncdError

RECHECK_S = 1.0  # pause between looks while the scan thread works; that thread wakes the follower when it is done
EVENTS_S = 0.005  # one commit causes up to thirty events

_OPEN = "any process that opens the database ends it: `sqlite3 FILE 'SELECT 1 FROM sqlite_master'`"
_WAL_MODE = "a pause in the writing; or PRAGMA journal_mode=WAL, which needs none (`walsyncd check` says more)"
COPIED_WHOLE = (
    "all of the file is copied when it has changed, and rests after that, in proportion to its size, because it is "
    "encrypted and does not say how large its pages are "
    "(PRAGMA journal_mode=WAL ships what changed, in an encrypted database too)"
)
# For each hindrance: the remedy, and whether the trouble is reported at once (True) or only after a while (False).
TROUBLES = {
    Hindrance.HOT: (f"a process was killed while it wrote; {_OPEN}", True),
    Hindrance.SUPER_JOURNAL: (f"a process was killed just after its commit; {_OPEN}", True),
    Hindrance.WRITER: (
        "a process holds its lock: a long transaction, or PRAGMA locking_mode=EXCLUSIVE; NORMAL lets it go",
        False,
    ),
    Hindrance.WRITTEN: (_WAL_MODE, False),
    Hindrance.UNSETTLED: (_WAL_MODE, False),
    Hindrance.UNPROVEN: (_WAL_MODE, False),
    Hindrance.EMPTY: ("it is followed again when it is filled; `walsyncd restore` gives what it was", True),
    Hindrance.SHORT: ("the file is damaged: `sqlite3 FILE 'PRAGMA integrity_check'` says more", True),
}

# These hindrances end with an event of the file or its journal. After such an event a scan is tried, however long the
# next scan was to wait.
UNREAD = {Hindrance.HOT, Hindrance.SUPER_JOURNAL, Hindrance.WRITER, Hindrance.EMPTY, Hindrance.SHORT}


@dataclass(frozen=True, slots=True)
class _Closing:
    """A stored base, which begins at ``start``. ``then`` is called once a scan has shipped what the base lacks."""

    reading: BaseEntries
    start: Position
    then: Callable[[FollowedDatabase], object]
    done: Future[None]


class DatabaseScans:
    """The scans of ``tracked`` while it is followed in rollback mode (``PageScans``)."""

    def __init__(self, tools: ScanTools, tracked: FollowedDatabase) -> None:
        self._tools = tools
        self._tracked = tracked
        self._limits = tools.environment.limits
        self._scanning = Scanning(tools, tracked)
        self._closing: _Closing | None = None
        self._compared: int | None = None
        """The number of the file's events up to the moment whose content is shipped, or None if it is not known."""
        self._facts: FileFacts | None = None
        """The file's size and times at that moment, or None if they are in the follow state."""
        self._journal_use = JournalUse(tracked.name)
        self._whole_scans = WholeScans(tools.environment, tracked.name)
        self._is_dated = False
        self._has_pages = True
        """Whether the file says how large its pages are, which encryption hides."""
        self._before = ""
        """The position before the scan whose result was taken last."""
        self._hindered_at = 0
        capture = JournalCapture(tracked.path, tracked.spec.is_match)
        environment = tools.environment
        count_writes = partial(environment.count_journal_writes, tracked.path)
        source = JournalSource(capture, tracked.open, environment.drain, count_writes)
        self._proofs = JournalProofs(source, file_bytes_min=SMALL_BYTES)
        self._pause = TransactionPause(tools.schedule, tracked)

    # -- what the follower asks -------------------------------------------------------------------------------------

    def has_map(self) -> bool:
        """See ``PageScans``."""
        return self._map() is not None

    def is_closing(self) -> bool:
        """See ``FileScans``."""
        return self._closing is not None

    def is_known(self, now: FileFacts, then: FileFacts) -> bool:
        """See ``FileScans``."""
        if self._closing is not None or self._scanning.is_under_way:
            return False
        events = self._tracked.wal_pairs.trail.file_events
        return self.is_shipped(events, now) or now.looks_like(then)

    def is_shipped(self, events: int, facts: FileFacts) -> bool:
        """See ``PageScans``."""
        state = self._tracked.state
        if state is None or not self._tracked.wal_pairs.watched:
            return state is not None and facts.looks_like(state.file)
        then = self._facts or state.file  # a write by another name of the file causes no event
        return events == self._compared and (not then.known or facts.has_content_of(then))

    def note_known(self, events: int) -> None:
        """See ``FileScans``."""
        self._compared = events

    def look(self, state: FollowState) -> Step | None:
        """See ``PageScans``."""
        step = look_in_rollback_mode(self._tracked, self._tools.environment, state, self)
        self._has_pages = step is not None
        return step

    def taken(self, state: FollowState) -> Step | None:
        """See ``FileScans``."""
        return self._taken(state) if self._scanning.has_result else None

    def step(self, state: FollowState, file_bytes: int) -> Step:
        """See ``FileScans``."""
        scanning = self._scanning
        self._date_change(state)
        if scanning.is_under_way and not scanning.is_done:
            return _once_done()
        if scanning.is_under_way:
            return self._taken(state)
        trail, is_hindered = self._tracked.wal_pairs.trail, scanning.hindrance in UNREAD
        events = trail.file_events + trail.journal_events
        if is_hindered and events != self._hindered_at:
            scanning.event_came()
        self._hindered_at = events
        wait_s, rest_s = scanning.wait_s(is_early=self._proofs.is_early), scanning.wait_s()
        if wait_s > 0:  # the next event shows that a writer which was in the way has ended
            quiet_s = min(wait_s, EVENTS_S if is_hindered else RECHECK_S)
            again_s = again_in_s(wait_s, scanning.hindrance, self._limits.busy_file_s - scanning.hindered_s())
            return Step(again_s=again_s, rest_until_s=time.monotonic() + quiet_s)
        page_map, closing = self._map(), self._closing
        if page_map is None and (closing is None or state.stream.frame):
            return Step(again_s=0)  # the page map was lost just now, and the next look reports it
        other = None if closing is None else closing.reading
        known = page_map if page_map is not None else other
        assert known is not None, "there is nothing to compare with"
        pages = self._pages_to_read(file_bytes, known.page_size, is_all=closing is not None, is_early=rest_s > 0)
        is_early = isinstance(pages, JournalPages) and pages.is_early
        scanning.begin(
            self._with_room(state.stream),
            known.page_size,
            pages,
            other=other,
            has_map=page_map is not None,
            is_early=is_early,
            is_short=isinstance(pages, JournalPages) and pages.is_likely,
        )
        return self._taken(state) if scanning.is_done else _once_done()

    def note(self, event: Event) -> None:
        """See ``PageScans``."""
        self._proofs.note(event)
        self._pause.note(event)

    def lose_events(self) -> None:
        """See ``PageScans``."""
        self._proofs.lose()

    def in_transaction_until_s(self) -> float:
        """See ``PageScans``."""
        return self._pause.until_s

    def applied(self, step: Step) -> None:
        """See ``PageScans``."""
        if step.bridged:
            self._proofs.forget()
        if step.scanned is None:
            return
        is_since_known = self._compared is not None or self._closing is not None
        is_seen = is_since_known and self._tracked.wal_pairs.watched and not step.bridged
        is_changed = is_seen and len(step.objects) > 0
        self._journal_use.accepted(step.scanned, is_changed=is_changed, before=self._before)
        self._compared, self._facts = step.scanned.events, step.scanned.facts
        if step.bridged:
            return
        self._proofs.accepted()
        file_bytes = 0 if step.scanned.facts is None else step.scanned.facts.size
        is_watched = self._tracked.wal_pairs.watched
        self._whole_scans.accepted(self._proofs.reason, file_bytes=file_bytes, is_watched=is_watched)
        self._tracked.proven_ms = step.scanned.moment_ms
        self._tools.schedule.seen(self._tracked, step.scanned.moment_s)
        closing, self._closing = self._closing, None
        if closing is not None:
            self._close(closing)
        self._scanning.answer_requests()

    def reads_whole(self) -> str:
        """See ``PageScans``."""
        return self._whole_scans.words if self._has_pages else COPIED_WHOLE

    def trouble(self) -> tuple[str, str] | None:
        """See ``PageScans``."""
        hindrance = self._scanning.hindrance
        if hindrance is None and self._journal_use.is_unjournalled:
            return UNJOURNALLED, JOURNAL
        if hindrance is None or hindrance not in TROUBLES:
            return None
        remedy, at_once = TROUBLES[hindrance]
        if not at_once and self._scanning.hindered_s() < self._limits.busy_file_s:
            return None
        return f"what changed can't be copied: {hindrance.value}", remedy

    def drop(self) -> None:
        """See ``PageScans``."""
        self._scanning.drop()
        self._proofs.forget()
        self._drop_closing()
        self._compared = self._facts = None

    def _drop_closing(self) -> None:
        closing, self._closing = self._closing, None
        if closing is not None:
            closing.reading.release()
            closing.done.cancel()

    def _date_change(self, state: FollowState) -> None:
        """Make LAG count from the time when the file was changed, if that was before the daemon's first look."""
        if self._is_dated:
            return
        self._is_dated = True
        if self._compared is None and state.file.known:
            now = database_identity(self._tracked)
            # This clock is read first, so that a delay between the two makes the change seem older, not younger.
            now_s = time.monotonic()
            age_s = self._tools.environment.machine_ms() / 1000 - changed_ns(now, state.file) / 1e9
            self._tools.schedule.unseen_since(self._tracked, now_s - max(0.0, age_s))

    # -- bases ------------------------------------------------------------------------------------------------------

    def begin_base(self, page_1: bytes) -> BaseReading | None:
        """See ``PageScans``. The thread that copies bases calls this."""
        header = parse_database_header(page_1)
        if header is None or not header.magic_ok or header.page_size is None:
            return None
        writer = self._tools.maps.writer(self._tracked.row_id, header.page_size, suffix=".base")
        return BaseEntries(writer, header.page_size)

    def close_base(
        self, reading: BaseReading, start: Position, then: Callable[[FollowedDatabase], object]
    ) -> Future[None]:
        """See ``PageScans``."""
        assert isinstance(reading, BaseEntries)
        closing = _Closing(reading, start, then, Future())
        if not reading.take_over():
            closing.done.cancel()
            return closing.done
        self._scanning.drop()
        self._drop_closing()
        self._closing = closing
        self._tools.schedule.at(self._tracked, 0)
        return closing.done

    def _close(self, closing: _Closing) -> None:
        """Close a base after a scan has shipped what it lacks. The base's entries become the map if there is none."""
        tracked, reading, journal = self._tracked, closing.reading, self._tools.journal
        start = closing.start
        try:
            if self._map() is None:
                reading.writer.finish(None)
                journal.page_map_made(tracked.row_id, start.generation, reading.writer.map_id, reading.page_size, start)
            closing.then(tracked)
        except WalsyncdError as error:
            closing.done.set_exception(error)
        else:
            closing.done.set_result(None)
        finally:
            reading.release()

    # -- one scan ---------------------------------------------------------------------------------------------------

    def _map(self) -> PageMapRow | None:
        state = self._tracked.state
        row = self._tools.journal.page_map(self._tracked.row_id)
        return row if row is not None and state is not None and row.generation == state.stream.generation else None

    def _pages_to_read(self, file_bytes: int, page_size: int, *, is_all: bool, is_early: bool) -> PagesToRead:
        """Return which pages the next scan reads.

        ``is_all`` says that the scan compares the pages with more than the map, so that it has to read all of them.
        ``is_early`` says that the scan must not read all pages of a large file.
        """
        if not self._tracked.wal_pairs.watched:
            self._proofs.forget()
            return AllPages()
        return self._proofs.pages(file_bytes, page_size, is_all=is_all, is_early=is_early) or AllPages()

    def _with_room(self, stream: Stream) -> Stream:
        """Return the stream, in its next epoch if the current epoch is full, old or ahead and no base needs it."""
        base = self._tracked.base
        environment = self._tools.environment
        if stream.frame == 0:
            return environment.empty_epoch(stream)
        if base.under_way or base.wanted:
            return stream
        return environment.next_epoch(stream) if is_epoch_over(environment, stream) else stream

    def _taken(self, state: FollowState) -> Step:
        self._before = str(state.stream.position)
        try:
            found = self._scanning.take()
        except BridgeImpossibleError as error:
            return not_by_pages(error.message)
        if (gap := gap_of(found.hindrance)) is not None:
            return Step(gap=gap)
        if found.hindrance is not None:
            if found.hindrance is Hindrance.UNPROVEN:
                self._proofs.is_early = False
            return Step(again_s=self._scanning.wait_s(is_early=self._proofs.is_early), rest_until_s=0.0)
        assert found.committed is not None
        assert found.committed.facts is not None
        if not found.committed.facts.is_file(state.file):
            return Step(gap=Gap.of(GapKind.REPLACED, REPLACED))
        writes = self._tracked.wal_pairs.database_writes
        is_last = self._is_last(found.committed)
        return Step(
            state=after_scan(state, found),
            objects=() if found.new is None else (found.new,),
            scanned=found.committed,
            caught_up=is_last,
            known_upto=writes if is_last else None,
            again_s=self._limits.quiet_file_ms / 1000 if is_last else 0,
            rest_until_s=0.0,
        )

    def _is_last(self, moment: CommittedScan) -> bool:
        """Whether events show that the file has not been written since the moment."""
        self._tools.environment.drain()
        pairs = self._tracked.wal_pairs
        return pairs.watched and pairs.trail.file_events == moment.events


def _once_done() -> Step:
    """Return the step while the scan thread is at work. Events wake nobody meanwhile."""
    return Step(again_s=RECHECK_S, rest_until_s=time.monotonic() + RECHECK_S)


def again_in_s(wait_s: float, hindrance: Hindrance | None, untold_s: float) -> float:
    """Return after how many seconds to look again if the next scan is due in ``wait_s`` seconds.

    The look comes earlier, in ``untold_s`` seconds, if a hindrance has to be reported before the next scan.
    """
    return min(wait_s, untold_s) if hindrance in TROUBLES and untold_s > 0 else wait_s
