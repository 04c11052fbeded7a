"""Tests of walsyncd.engine.follow.wal_pairs: which files are held, and what the events between them mean."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import Role
from walsyncd.core.follow.decision import CounterMark, ShmEvidence
from walsyncd.engine.follow.wal_pair import WalPair
from walsyncd.engine.follow.wal_pairs import WAL_PAIRS_MAX, WalPairs
from walsyncd.errors import RefusedError


class Folder:
    """A database's files, changed by hand, with the events that belong to the changes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wal_pairs = WalPairs(path)

    def file(self, role: Role) -> Path:
        return self.path.with_name(self.path.name + role.value)

    def create(self, role: Role, *, told: bool = True) -> None:
        self.file(role).write_bytes(b"")
        if told:
            self.note(role, Kind.CREATE)

    def delete(self, role: Role, *, told: bool = True) -> None:
        self.file(role).unlink()
        if told:
            self.note(role, Kind.DELETE)

    def note(self, role: Role, kind: Kind) -> None:
        self.wal_pairs.note(Event(self.path, role, kind))

    def open(self) -> WalPair:
        """Open the database as the first connection does."""
        self.create(Role.WAL)
        self.create(Role.SHM)
        return self.wal_pairs.queue[-1]

    def close(self) -> None:
        """Close the database as the last connection does."""
        self.delete(Role.SHM)
        self.note(Role.SHM, Kind.CLOSE_WRITE)
        self.delete(Role.WAL)
        self.note(Role.DATABASE, Kind.CLOSE_WRITE)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Folder]:
    folder = Folder(tmp_path / "app.db")
    folder.create(Role.DATABASE, told=False)
    yield folder
    folder.wal_pairs.clear()


def test_a_wal_from_open_to_close(folder: Folder) -> None:
    """The WAL is held open throughout, and ends in order. Its content is known if the database was known before."""
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    wal_pair = folder.open()
    assert wal_pair.known_since
    assert wal_pair.shm is not None
    folder.close()
    assert (wal_pair.ended, wal_pair.orderly) == (True, True)
    assert not folder.wal_pairs.lost


def test_wals_follow_each_other(folder: Folder) -> None:
    """The deletion of a -wal makes the database known, so each next WAL is known from its start."""
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    wal_pairs = []
    for _ in range(3):
        wal_pairs.append(folder.open())
        folder.close()
    assert [wal_pair.known_since for wal_pair in wal_pairs] == [True] * 3
    assert list(folder.wal_pairs.queue) == wal_pairs
    folder.wal_pairs.pop_finished()
    assert folder.wal_pairs.current is wal_pairs[1]


def test_nothing_is_known_at_the_start(folder: Folder) -> None:
    """What came before the first event is unknown before the first look."""
    assert not folder.open().known_since


@pytest.mark.parametrize(
    ("role", "kind"),
    [
        (Role.DATABASE, Kind.MODIFY),
        (Role.JOURNAL, Kind.CREATE),
        (Role.JOURNAL, Kind.DELETE),
        (Role.WAL, Kind.MOVED_TO),
        (Role.WAL, Kind.MOVED_FROM),
        (Role.DATABASE, Kind.OVERFLOW),
        (Role.DATABASE, Kind.WATCH_LOST),
        (Role.DATABASE, Kind.REAPPEARED),
    ],
)
def test_what_takes_the_witness_away(folder: Folder, role: Role, kind: Kind) -> None:
    """Something other than a WAL may have changed the database between two WALs."""
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    folder.note(role, kind)
    assert not folder.open().known_since


@pytest.mark.parametrize("kind", [Kind.CREATE, Kind.MOVED_TO, Kind.DELETE, Kind.MOVED_FROM])
def test_another_file_in_its_place(folder: Folder, kind: Kind) -> None:
    """A new file of the database's name is not the one that we followed."""
    folder.note(Role.DATABASE, kind)
    assert folder.wal_pairs.replaced


def test_the_checkpoint_of_the_last_close_is_no_touch(folder: Folder) -> None:
    """The checkpoint writes to the database before the -wal is deleted."""
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    folder.open()
    folder.note(Role.DATABASE, Kind.MODIFY)
    folder.close()
    assert folder.wal_pairs.is_unwritten


def test_a_writer_without_a_wal_index(folder: Folder) -> None:
    """Only the -wal is deleted, which is not in order."""
    folder.create(Role.WAL)
    folder.delete(Role.WAL)
    wal_pair = folder.wal_pairs.current
    assert wal_pair is not None
    assert (wal_pair.ended, wal_pair.orderly) == (True, False)


@pytest.mark.parametrize("event", [(Role.WAL, Kind.MODIFY), (Role.DATABASE, Kind.OVERFLOW), (Role.WAL, Kind.CREATE)])
def test_a_wal_that_was_gone_before_it_could_be_opened(folder: Folder, event: tuple[Role, Kind]) -> None:
    """Such a WAL is lost if it was written, or if that is unknown."""
    folder.note(Role.WAL, Kind.CREATE)
    assert not folder.wal_pairs.lost
    folder.note(*event)
    assert "deleted again at once" in str(folder.wal_pairs.lost)


def test_a_wal_that_nobody_saw_and_nobody_wrote(folder: Folder) -> None:
    """The WAL was opened, read and closed, so it was empty, and the next one is known from its start."""
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    folder.note(Role.WAL, Kind.CREATE)
    folder.note(Role.WAL, Kind.DELETE)
    assert folder.open().known_since
    folder.note(Role.WAL, Kind.MODIFY)
    assert not folder.wal_pairs.lost


def test_a_wal_that_cannot_be_opened_is_lost(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file exists, so it may be written unseen."""

    def refuse(_path: Path, **_options: object) -> None:
        raise RefusedError("no permission")

    monkeypatch.setattr("walsyncd.engine.follow.wal_pairs.open_file", refuse)
    folder.note(Role.WAL, Kind.CREATE)
    assert "no permission" in str(folder.wal_pairs.lost)


@pytest.mark.parametrize("role", [Role.WAL, Role.DATABASE])
def test_the_next_wal_was_opened_in_place_of_the_first(folder: Folder, role: Role) -> None:
    """At the DELETE of the first WAL, which was written, the held file still has its name."""
    folder.create(Role.WAL, told=False)
    folder.delete(Role.WAL, told=False)
    folder.create(Role.WAL)
    folder.note(role, Kind.MODIFY)
    folder.note(Role.WAL, Kind.DELETE)
    assert "before it could be opened" in str(folder.wal_pairs.lost)


def test_the_next_wal_was_opened_in_place_of_one_that_was_never_written(folder: Folder) -> None:
    """Nothing is missing. The file belongs to the next WAL, whose own CREATE is still to come."""
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    folder.create(Role.WAL, told=False)
    folder.delete(Role.WAL, told=False)
    folder.create(Role.WAL)
    folder.note(Role.SHM, Kind.DELETE)
    folder.note(Role.WAL, Kind.DELETE)
    (wal_pair,) = folder.wal_pairs.queue
    assert (wal_pair.ended, wal_pair.announced, wal_pair.shm_gone) == (False, False, False)
    folder.note(Role.WAL, Kind.CREATE)
    assert (wal_pair.announced, wal_pair.known_since) == (True, True)
    assert list(folder.wal_pairs.queue) == [wal_pair]
    assert not folder.wal_pairs.lost


def test_the_next_wal_was_opened_and_deleted_as_well(folder: Folder) -> None:
    """The CREATE of the second finds no file. Its frames, or those of the first, were not seen."""
    folder.create(Role.WAL)
    folder.delete(Role.WAL, told=False)
    folder.note(Role.WAL, Kind.DELETE)
    folder.note(Role.WAL, Kind.CREATE)
    folder.note(Role.WAL, Kind.MODIFY)
    assert folder.wal_pairs.lost


@pytest.mark.parametrize("third", [True, False])
def test_an_empty_wal_in_place_of_one_that_was_written(folder: Folder, *, third: bool) -> None:
    """The first WAL was written, the file opened in its place was not. The next CREATE shows another WAL."""
    folder.create(Role.WAL)
    folder.note(Role.WAL, Kind.MODIFY)
    folder.delete(Role.WAL)
    if third:
        folder.create(Role.WAL)
        folder.note(Role.WAL, Kind.DELETE)
    else:
        folder.note(Role.WAL, Kind.CREATE)
    assert folder.wal_pairs.lost


def test_what_was_written_after_a_checkpoint(folder: Folder) -> None:
    """Only such a write can have overwritten a frame. The order of the events shows it."""
    wal_pair = folder.open()
    folder.note(Role.WAL, Kind.MODIFY)
    assert (wal_pair.written, wal_pair.checkpointed, wal_pair.overwritten) == (True, False, False)
    folder.note(Role.DATABASE, Kind.MODIFY)
    assert (wal_pair.checkpointed, wal_pair.overwritten) == (True, False)
    folder.note(Role.WAL, Kind.MODIFY)
    assert wal_pair.overwritten


@pytest.mark.parametrize("kind", [Kind.CLOSE_WRITE, Kind.MODIFY])
def test_a_count_that_may_have_begun_anew(folder: Folder, kind: Kind) -> None:
    """A survivor of a killed writer rebuilds the count in place, before or after a checkpoint."""
    wal_pair = folder.open()
    folder.note(Role.SHM, kind)
    assert not wal_pair.uncounted
    folder.note(Role.WAL, Kind.MODIFY)
    folder.note(Role.SHM, kind)
    assert wal_pair.uncounted


def test_a_wal_that_those_who_died_left_empty(folder: Folder) -> None:
    """The WAL is new if nobody wrote after the first of them died, as the order of the events shows."""
    wal_pair = folder.open()
    folder.note(Role.WAL, Kind.MODIFY)
    mark = CounterMark(1, 0, wal_pair.serial, wal_pair.index_rebuilds, wal_pair.closed)
    folder.note(Role.WAL, Kind.MODIFY)
    assert not folder.wal_pairs.begin_anew(wal_pair, mark), "somebody still uses it"
    folder.note(Role.SHM, Kind.CLOSE_WRITE)
    folder.note(Role.SHM, Kind.CLOSE_WRITE)
    assert folder.wal_pairs.begin_anew(wal_pair, mark)
    assert (wal_pair.known_since, wal_pair.written) == (True, False)
    folder.note(Role.WAL, Kind.MODIFY)
    assert not folder.wal_pairs.begin_anew(wal_pair, mark)


def test_a_wal_opened_before_its_event_was_read(folder: Folder) -> None:
    """The file is one WAL, whose CREATE comes later, also if the WAL is deleted by then."""
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    folder.create(Role.WAL, told=False)
    folder.create(Role.SHM, told=False)
    folder.wal_pairs.look_around()
    folder.delete(Role.SHM, told=False)
    folder.delete(Role.WAL, told=False)
    for role in (Role.WAL, Role.SHM):
        folder.note(role, Kind.CREATE)
    for role, kind in ((Role.SHM, Kind.DELETE), (Role.SHM, Kind.CLOSE_WRITE), (Role.WAL, Kind.DELETE)):
        folder.note(role, kind)
    (wal_pair,) = folder.wal_pairs.queue
    assert (wal_pair.known_since, wal_pair.ended, wal_pair.orderly) == (True, True, True)
    assert not folder.wal_pairs.lost


def test_the_wal_index_of_the_next_wal_is_not_taken_for_this_ones(folder: Folder) -> None:
    """A -shm counts only if the pair's -wal still has its name."""
    folder.create(Role.WAL)
    (wal_pair,) = folder.wal_pairs.queue
    folder.delete(Role.WAL, told=False)
    folder.create(Role.WAL, told=False)
    folder.create(Role.SHM, told=False)
    folder.note(Role.SHM, Kind.CREATE)
    assert wal_pair.shm is None


@pytest.mark.parametrize("kind", [Kind.MODIFY, Kind.CREATE, Kind.MOVED_FROM, Kind.MOVED_TO])
def test_what_may_begin_a_counter_anew(folder: Folder, kind: Kind) -> None:
    """After these events iChange may be that of a rebuilt wal-index."""
    wal_pair = folder.open()
    mark = CounterMark(1, 0, wal_pair.serial, wal_pair.index_rebuilds, wal_pair.closed)
    assert wal_pair.evidence(mark) == ShmEvidence()
    folder.note(Role.SHM, kind)
    assert wal_pair.evidence(mark).index_rebuilds


def test_lost_events_may_hide_a_rebuild(folder: Folder) -> None:
    """For every pair an overflow counts as a rebuild."""
    wal_pair = folder.open()
    mark = CounterMark(1, 0, wal_pair.serial, wal_pair.index_rebuilds, wal_pair.closed)
    folder.note(Role.DATABASE, Kind.OVERFLOW)
    assert wal_pair.evidence(mark).index_rebuilds
    assert folder.wal_pairs.blind
    assert folder.wal_pairs.watched


def test_a_close_is_evidence_unless_it_is_the_last(folder: Folder) -> None:
    """A writer may have been killed. After the -shm's own deletion, the process that deleted it closed it."""
    wal_pair = folder.open()
    mark = CounterMark(1, 0, wal_pair.serial, wal_pair.index_rebuilds, wal_pair.closed)
    folder.close()
    assert wal_pair.evidence(mark) == ShmEvidence()
    folder.wal_pairs.pop_finished()
    wal_pair = folder.open()
    mark = CounterMark(1, 0, wal_pair.serial, wal_pair.index_rebuilds, wal_pair.closed)
    folder.note(Role.SHM, Kind.CLOSE_WRITE)
    assert wal_pair.evidence(mark) == ShmEvidence(closed=True)


def test_a_new_wal_index_beside_the_same_wal(folder: Folder) -> None:
    """The new wal-index has another descriptor and another serial. The old one stays open for its readers."""
    wal_pair = folder.open()
    before, serial = wal_pair.shm, wal_pair.serial
    assert before is not None
    folder.delete(Role.SHM)
    folder.create(Role.SHM)
    assert wal_pair.serial == serial + 1
    assert before.pread(0, 1) == b""
    assert not wal_pair.shm_gone


def test_nothing_watches(folder: Folder) -> None:
    """Between WATCH_LOST and REAPPEARED the absence of events says nothing."""
    folder.note(Role.DATABASE, Kind.WATCH_LOST)
    assert not folder.wal_pairs.watched
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    assert not folder.wal_pairs.is_unwritten
    folder.note(Role.DATABASE, Kind.REAPPEARED)
    assert folder.wal_pairs.watched


def test_after_lost_events_what_exists_is_opened(folder: Folder) -> None:
    """The pair that was held has ended, in an unknown order. The content of the present one is not known."""
    wal_pair = folder.open()
    folder.delete(Role.SHM, told=False)
    folder.delete(Role.WAL, told=False)
    folder.create(Role.WAL, told=False)
    folder.note(Role.DATABASE, Kind.OVERFLOW)
    assert (wal_pair.ended, wal_pair.orderly) == (True, False)
    assert len(folder.wal_pairs.queue) == 2
    assert not folder.wal_pairs.queue[-1].known_since


def test_too_many_wals(folder: Folder) -> None:
    """The number of descriptors is limited."""
    for _ in range(WAL_PAIRS_MAX + 1):
        folder.open()
        folder.close()
    assert "64 times" in str(folder.wal_pairs.lost)
    assert len(folder.wal_pairs.queue) == WAL_PAIRS_MAX


def test_a_file_that_cannot_be_opened(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cause is kept until the file can be opened."""

    def refuse(_path: Path, **_options: object) -> None:
        raise RefusedError("no permission")

    folder.create(Role.WAL)
    with monkeypatch.context() as patch:
        patch.setattr("walsyncd.engine.follow.wal_pairs.open_file", refuse)
        with pytest.raises(RefusedError):
            folder.wal_pairs.find_shm()
    folder.create(Role.SHM, told=False)
    folder.wal_pairs.find_shm()
    (wal_pair,) = folder.wal_pairs.queue
    assert wal_pair.shm is not None
    assert folder.wal_pairs.error is None


def test_asleep(folder: Folder) -> None:
    """Between two generations no descriptor is held, and nothing is known of what happens."""
    folder.open()
    folder.wal_pairs.rest()
    folder.wal_pairs.confirm_known(folder.wal_pairs.database_writes)
    folder.close()
    folder.create(Role.WAL)
    folder.note(Role.DATABASE, Kind.OVERFLOW)
    assert not folder.wal_pairs.queue
    assert not folder.wal_pairs.is_unwritten
    folder.wal_pairs.clear()
    folder.wal_pairs.look_around()
    assert folder.wal_pairs.current is not None


def test_forgotten(folder: Folder) -> None:
    """A new generation needs nothing of the old one, but the event numbers continue."""
    folder.open()
    folder.note(Role.DATABASE, Kind.MOVED_TO)
    folder.wal_pairs.clear()
    assert folder.wal_pairs.current is None
    assert not folder.wal_pairs.replaced
    assert not folder.wal_pairs.is_unwritten
