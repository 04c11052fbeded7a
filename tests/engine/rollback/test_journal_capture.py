"""Tests of how journals are held by their own descriptors, and of the order of events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.following import open_files
from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import OpenFile, Role
from walsyncd.core.rollback.journal_trail import Doubt, JournalNow
from walsyncd.engine.rollback.journal_capture import Captured, CaptureMark, JournalCapture


class Scene:
    """A database whose files are made and deleted by hand, and whose events are handed over when the test says so."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.db"
        self.path.write_bytes(b"")
        self.journal = folder / "app.db-journal"
        self.capture = JournalCapture(self.path)
        self.reserved = False
        self.origin = 0
        self._late: list[Event] = []
        self._results: list[Captured] = []

    def event(self, role: Role, kind: Kind) -> None:
        self.capture.note(Event(self.path, role, kind))

    def later(self, role: Role, kind: Kind) -> None:
        """The event is in the queue, and is read at the next drain."""
        self._late.append(Event(self.path, role, kind))

    def drain(self) -> None:
        late, self._late = self._late, []
        for event in late:
            self.capture.note(event)

    def begins(self, content: str, *, tell: bool = True) -> None:
        self.journal.write_text(content)
        if tell:
            self.event(Role.JOURNAL, Kind.CREATE)
            self.event(Role.JOURNAL, Kind.MODIFY)

    def writes(self) -> None:
        self.event(Role.DATABASE, Kind.MODIFY)

    def ends(self, *, tell: bool = True) -> None:
        self.journal.unlink()
        if tell:
            self.event(Role.JOURNAL, Kind.DELETE)

    def commits(self, content: str) -> None:
        self.begins(content)
        self.writes()
        self.ends()

    def mark(self) -> CaptureMark:
        mark = self.capture.mark(self.drain, lambda: self.reserved)
        assert mark is not None
        return mark

    def known(self) -> None:
        self.origin = self.capture.begin(self.mark())

    def now(self) -> Captured:
        captured = self.capture.until(self.mark(), self.origin)
        self._results.append(captured)
        return captured

    def close(self) -> None:
        self.capture.clear()
        for captured in self._results:
            for each in captured.journals:
                each.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    made = Scene(tmp_path)
    yield made
    made.close()


def contents(captured: Captured) -> list[str]:
    return [each.pread(0, 99).decode() for each in captured.journals]


def test_deleted_journals_are_readable_in_their_order(scene: Scene) -> None:
    """The journals are readable from the known state on."""
    scene.commits("before")
    scene.known()
    scene.commits("first")
    scene.commits("second")
    now = scene.now()
    assert now.doubt is None
    assert contents(now) == ["first", "second"]


def test_counted_writes_of_a_long_transaction_are_few(scene: Scene) -> None:
    """Events may be taken in between any two of its writes. It only matters whether there was more than one."""
    scene.journal.write_text("kept")
    scene.capture.entries_max = 8
    scene.known()
    for _ in range(2):
        for _ in range(9):
            scene.event(Role.JOURNAL, Kind.MODIFY)
            scene.event(Role.JOURNAL, Kind.COUNTED)
        scene.writes()
        scene.event(Role.JOURNAL, Kind.MODIFY)
        scene.event(Role.JOURNAL, Kind.COUNTED)
        now = scene.now()
        assert (now.doubt, now.kept_runs, now.is_kept_whole) == (None, 1, True)
        scene.known()
    scene.event(Role.JOURNAL, Kind.MODIFY)
    scene.event(Role.JOURNAL, Kind.COUNTED)
    assert not scene.now().is_kept_whole


def test_a_journal_whose_writes_are_not_counted_to_the_end_is_not_whole(scene: Scene) -> None:
    """The journal's other events stay as they were."""
    scene.journal.write_text("kept")
    scene.known()
    for kind in (Kind.MODIFY, Kind.COUNTED, Kind.MODIFY, Kind.UNCOUNTED, Kind.COUNTED):
        scene.event(Role.JOURNAL, kind)
    scene.writes()
    scene.event(Role.JOURNAL, Kind.MODIFY)
    scene.event(Role.JOURNAL, Kind.COUNTED)
    now = scene.now()
    assert (now.doubt, now.kept_runs, now.is_kept_whole) == (None, 1, False)


def test_a_counted_write_before_a_mark_stays_there(scene: Scene) -> None:
    """Events after the mark are not moved before it."""
    scene.journal.write_text("kept")
    scene.known()
    for kind in (Kind.MODIFY, Kind.COUNTED, Kind.MODIFY, Kind.COUNTED, Kind.MODIFY):
        scene.event(Role.JOURNAL, kind)
    mark = scene.mark()
    scene.event(Role.JOURNAL, Kind.COUNTED)
    scene.writes()
    captured = scene.capture.until(mark, scene.origin)
    assert (captured.doubt, captured.kept_runs) == (None, 0)


def test_nothing_is_known_before_the_first_scan(scene: Scene) -> None:
    """Journals may have come and gone before the first scan."""
    scene.commits("first")
    assert scene.now().doubt is Doubt.JOURNAL_UNKNOWN


def test_journals_of_a_failed_scan_stay(scene: Scene) -> None:
    """Only a scan that was accepted makes a state known."""
    scene.known()
    scene.commits("first")
    assert contents(scene.now()) == ["first"]
    scene.commits("second")
    assert contents(scene.now()) == ["first", "second"]


def test_what_follows_a_mark_stays_when_the_state_at_the_mark_becomes_known(scene: Scene) -> None:
    """Events come between the end of a scan and the moment when its result is believed."""
    scene.known()
    scene.commits("first")
    mark = scene.mark()
    scene.commits("second")
    scene.origin = scene.capture.begin(mark)
    now = scene.now()
    assert now.doubt is None
    assert contents(now) == ["second"]


def test_a_write_after_a_mark_is_not_merged_with_one_before(scene: Scene) -> None:
    """There were two commits in mode MEMORY, and the second one came after the scan."""
    scene.known()
    scene.writes()
    mark = scene.mark()
    scene.writes()
    scene.origin = scene.capture.begin(mark)
    assert scene.now().doubt is Doubt.STRAY_WRITE


def test_a_journal_that_was_gone_before_it_was_opened(scene: Scene) -> None:
    """Such a journal's transaction can't be accounted for."""
    scene.known()
    scene.begins("first", tell=False)
    scene.ends(tell=False)
    for role, kind in ((Role.JOURNAL, Kind.CREATE), (Role.DATABASE, Kind.MODIFY), (Role.JOURNAL, Kind.DELETE)):
        scene.later(role, kind)
    assert scene.now().doubt is Doubt.JOURNAL_MISSED


@pytest.mark.parametrize("is_second_deleted", [True, False])
def test_a_descriptor_of_the_next_journal_is_not_taken_for_the_first(scene: Scene, is_second_deleted: bool) -> None:
    """The first CREATE is read when the second journal exists already."""
    scene.known()
    scene.begins("first", tell=False)
    scene.ends(tell=False)
    scene.begins("second", tell=False)
    scene.event(Role.JOURNAL, Kind.CREATE)
    if is_second_deleted:
        scene.ends(tell=False)
    for kind in (Kind.DELETE, Kind.CREATE):
        scene.later(Role.JOURNAL, kind)
    if is_second_deleted:
        scene.later(Role.JOURNAL, Kind.DELETE)
    scene.reserved = not is_second_deleted
    assert scene.now().doubt is Doubt.JOURNAL_MISSED


def test_a_transaction_that_is_open_at_the_known_state_is_seen_to_its_end(scene: Scene) -> None:
    """A writer held RESERVED while the file was read. Its journal is that of the next commit."""
    scene.begins("first")
    scene.reserved = True
    scene.known()
    assert scene.now().doubt is None
    scene.writes()
    scene.ends()
    now = scene.now()
    assert now.doubt is None
    assert contents(now) == ["first"]


def test_a_transaction_that_was_open_before_anything_was_watched(scene: Scene) -> None:
    """The transaction's journal was created without an event, so the next scan reads all pages."""
    scene.begins("first", tell=False)
    scene.reserved = True
    scene.known()
    assert scene.now().doubt is Doubt.JOURNAL_UNKNOWN


def test_a_kept_journal(scene: Scene) -> None:
    """A kept journal is not held open, because it is read in its place."""
    scene.begins("kept", tell=False)
    scene.known()
    assert not scene.now().is_kept_written
    for role in (Role.JOURNAL, Role.DATABASE, Role.JOURNAL):
        scene.event(role, Kind.MODIFY)
    now = scene.now()
    assert (now.doubt, now.journals, now.is_kept_written) == (None, (), True)
    assert scene.mark().journal is JournalNow.IDLE


def test_a_kept_journal_is_touched_by_any_event_after_the_mark(scene: Scene) -> None:
    """An event that equals the last one before the mark counts, too."""
    scene.begins("kept")
    mark = scene.mark()
    assert scene.capture.is_untouched(mark)
    scene.event(Role.JOURNAL, Kind.MODIFY)
    assert not scene.capture.is_untouched(mark)


def test_no_mark_while_the_journal_comes_and_goes(scene: Scene) -> None:
    """The existing journal never agrees with the events."""

    def drain() -> None:
        scene.event(Role.JOURNAL, Kind.MODIFY)

    assert scene.capture.mark(drain, lambda: False) is None


@pytest.mark.parametrize(
    ("role", "kind", "doubt"),
    [
        (Role.JOURNAL, Kind.MOVED_TO, Doubt.JOURNAL_MOVED),
        (Role.JOURNAL, Kind.MOVED_FROM, Doubt.JOURNAL_MOVED),
        (Role.DATABASE, Kind.CREATE, Doubt.REPLACED),
        (Role.DATABASE, Kind.MOVED_TO, Doubt.REPLACED),
        (Role.DATABASE, Kind.OVERFLOW, Doubt.EVENTS_LOST),
        (Role.DATABASE, Kind.REAPPEARED, Doubt.EVENTS_LOST),
        (Role.WAL, Kind.CREATE, Doubt.WAL),
        (Role.SHM, Kind.MODIFY, Doubt.WAL),
    ],
)
def test_events_that_leave_doubt(scene: Scene, role: Role, kind: Kind, doubt: Doubt) -> None:
    """The doubt lasts until the next scan of all pages."""
    scene.known()
    scene.event(role, kind)
    scene.commits("first")
    assert scene.now().doubt is doubt
    scene.known()
    assert scene.now().doubt is None


def test_an_event_that_could_not_be_taken_in_is_lost(scene: Scene) -> None:
    """The lost event may have been any event."""
    scene.known()
    scene.capture.lose()
    assert scene.now().doubt is Doubt.EVENTS_LOST


def test_a_close_changes_nothing(scene: Scene) -> None:
    """Every connection that ends closes the file."""
    scene.known()
    scene.event(Role.DATABASE, Kind.CLOSE_WRITE)
    assert scene.now().doubt is None


@pytest.mark.parametrize(("limit", "value"), [("journals_max", 4), ("entries_max", 12), ("held_bytes_max", 20)])
def test_limits(scene: Scene, tmp_path: Path, limit: str, value: int) -> None:
    """Beyond the limits all journals are dropped, no descriptor is left, and the next scan reads all pages."""
    setattr(scene.capture, limit, value)
    scene.known()
    before = open_files(tmp_path)
    for _ in range(4):
        scene.commits("five5")
    if limit == "journals_max":
        assert scene.now().doubt is None
    scene.commits("five5")
    assert scene.now().doubt is Doubt.TOO_MANY
    scene.capture.clear()
    scene.close()
    assert open_files(tmp_path) <= before
    scene.known()
    scene.commits("first")
    assert contents(scene.now()) == ["first"]


def test_a_moment_whose_following_events_were_dropped_makes_nothing_known(scene: Scene) -> None:
    """The scan is accepted late. Too many transactions ended since its moment, and it is unknown what they did."""
    scene.capture.journals_max = 4
    scene.known()
    mark = scene.mark()
    for _ in range(6):
        scene.commits("five5")
    scene.origin = scene.capture.begin(mark)
    scene.commits("later")
    assert scene.now().doubt is Doubt.TOO_MANY
    scene.known()
    scene.commits("later")
    assert contents(scene.now()) == ["later"]


def test_a_later_known_state_ends_the_one_before(scene: Scene) -> None:
    """A rolling scan without a result has moved the state, and the map is older."""
    scene.known()
    map_is_of = scene.origin
    scene.commits("in between")
    scene.known()
    scene.commits("later")
    assert contents(scene.now()) == ["later"]
    assert not scene.capture.is_lost(scene.origin)
    scene.origin = map_is_of
    assert scene.now().doubt is Doubt.JOURNAL_UNKNOWN
    assert scene.capture.is_lost(scene.origin)


def test_what_is_lost_is_seen_without_a_quiet_moment(scene: Scene) -> None:
    """A transaction under way leaves doubt only while it lasts."""
    scene.known()
    scene.begins("first")
    scene.writes()
    assert not scene.capture.is_lost(scene.origin)
    scene.ends()
    assert not scene.capture.is_lost(scene.origin)
    scene.writes()
    assert scene.capture.is_lost(scene.origin)


def test_journals_can_be_read_while_all_is_dropped(scene: Scene) -> None:
    """The scan thread has descriptors of its own."""
    scene.known()
    scene.commits("first")
    now = scene.now()
    scene.capture.clear()
    assert contents(now) == ["first"]
    assert isinstance(now.journals[0], OpenFile)
