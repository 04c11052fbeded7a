"""Tests of walsyncd.engine.follow.look: what a look sees, and that nothing false is believed."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import CHECKPOINT, TRUNCATE, Following, insert, rows
from tests.wal_files import with_checksums
from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import OpenFile, Role
from walsyncd.adapters.files.wal_headers import WalHeaders, read_wal_headers
from walsyncd.core.follow.decision import DmsHolder, Observation
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.overwritten import Overwritten
from walsyncd.engine.follow import look, source_reader
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.wal_pairs import REPLACED
from walsyncd.errors import MissingError, RefusedError


def test_kill_in_the_middle_of_a_transaction(app: SqliteProcess, follow: Following) -> None:
    """The writer dies with spilled frames in the WAL. The next opener recovers the same file, and it is followed."""
    follow.look()
    app.execute(insert(1), "PRAGMA cache_size=5", "BEGIN", "INSERT INTO t SELECT hex(randomblob(90000))")
    app.kill()
    assert not follow.look().gap
    with SqliteProcess(follow.path) as other:
        other.execute(insert(2))
        follow.sees_all(other)


def test_a_wal_left_by_a_killed_writer_is_scanned(app: SqliteProcess, follow: Following) -> None:
    """No process uses it, so the commits of its chain are what the next opener will recover."""
    follow.look()
    app.execute(insert(1), insert(2))
    app.kill()
    assert not follow.look().gap
    with SqliteProcess(follow.path) as other:
        follow.proves(other)


def test_phantoms_at_a_last_close_are_not_taken(app: SqliteProcess, follow: Following) -> None:
    """For example, a commit is after mxFrame because its fsync failed, and SQLite reported that to the application."""
    path = follow.path
    follow.look()
    app.execute(insert(1))
    with Path(f"{path}-wal").open("r+b") as file:
        held = file.read()
        phantom = held[-4120:-4] + b"gone"
        file.write(with_checksums(held + phantom, big_endian=False)[len(held) :])
    app.execute("SELECT * FROM t")
    app.close()
    assert not follow.look().gap
    assert any(step.life_ended for step in follow.steps)
    assert follow.restored() == rows(path)


@pytest.mark.parametrize("live", [True, False])
def test_a_wal_that_was_cut_is_a_fork(app: SqliteProcess, follow: Following, *, live: bool) -> None:
    """The WAL was cut to an earlier length, so commits that were shipped are gone."""
    path = follow.path
    app.execute(insert(1), insert(2))
    follow.look()
    app.kill()
    wal = path.with_name("app.db-wal")
    with wal.open("r+b") as file:
        file.truncate(32 + 2 * 4120)
    if live:
        with SqliteProcess(path) as other:
            other.execute("SELECT * FROM t")
            follow.finds_gap("history forked")
    else:
        follow.finds_gap("history forked")


def test_a_wal_that_was_put_back_and_written_on_is_a_fork(app: SqliteProcess, follow: Following) -> None:
    """The WAL is as long as before and has the same salts, but another history."""
    path = follow.path
    app.execute(insert(1))
    wal = path.with_name("app.db-wal")
    earlier = wal.read_bytes()
    app.execute(insert(2))
    follow.look()
    app.kill()
    wal.write_bytes(earlier)
    with SqliteProcess(path) as other:
        other.execute(insert(3))
        follow.finds_gap("history forked")


def test_a_wal_that_was_emptied_is_a_gap(app: SqliteProcess, follow: Following) -> None:
    """No process has it open, and its content can't be seen any more."""
    follow.look()
    app.kill()
    follow.path.with_name("app.db-wal").write_bytes(b"")
    follow.finds_gap("was emptied")


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.usefixtures("app")
def test_a_database_that_was_replaced_is_a_gap(follow: Following, tmp_path: Path, *, seen: bool) -> None:
    """An event shows it or, if events were lost, the look does."""
    path = follow.path
    follow.look()
    shutil.copy(path, tmp_path / "copy")
    (tmp_path / "copy").rename(path)
    if not seen:
        follow.watcher.drain()
        follow.tracked.wal_pairs.note(Event(path, Role.DATABASE, Kind.OVERFLOW))
    assert follow.gap() == "another file was put in the database's place"


def test_lost_events_alone_are_no_gap(app: SqliteProcess, follow: Following) -> None:
    """An overflow costs a look and the iChange count. The chain needs no events."""
    follow.look()
    app.execute(insert(1))
    follow.tracked.wal_pairs.note(Event(follow.path, Role.DATABASE, Kind.OVERFLOW))
    assert not follow.look().gap
    assert not follow.look().gap
    app.execute(CHECKPOINT, insert(2))
    follow.sees_all(app)


def test_a_folder_that_is_gone_ends_in_an_error(tmp_path: Path) -> None:
    """The database is missing, and is suspended."""
    folder = tmp_path / "data"
    folder.mkdir()
    path = folder / "app.db"
    with wal_database(path), Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        folder.rename(tmp_path / "elsewhere")
        with pytest.raises(MissingError):
            follow.look()


def test_events_of_the_step_itself_count(
    app: SqliteProcess, follow: Following, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a database is replaced while a step is taken, that step is void."""
    path = follow.path
    follow.look()
    app.execute(insert(1))
    observe = SourceReader.observe

    def replaced(self: SourceReader) -> Observation:
        shutil.copy(path, tmp_path / "copy")
        (tmp_path / "copy").rename(path)
        return observe(self)

    monkeypatch.setattr(SourceReader, "observe", replaced)
    step = follow.step()
    assert (step.gap, step.objects) == (Gap.of(GapKind.REPLACED, REPLACED), ())


@pytest.mark.usefixtures("app")
def test_a_wal_that_cannot_be_read_is_said(follow: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unreadable WAL is not a gap, because the operator can help, and nothing is lost until then."""
    follow.look()
    follow.die()
    follow.restart()
    follow.tracked.wal_pairs.clear()

    def refuse(_path: Path, **_options: object) -> None:
        raise RefusedError("no permission")

    with monkeypatch.context() as patch:
        patch.setattr("walsyncd.engine.follow.wal_pairs.open_file", refuse)
        for _ in range(2):
            with pytest.raises(RefusedError):
                follow.step()
    assert not follow.look().gap


def freeze_index(follow: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the live wal-index show from now on what it shows now."""
    wal_pair = follow.tracked.wal_pairs.current
    assert wal_pair is not None
    assert wal_pair.shm is not None
    frozen = wal_pair.shm.pread(0, 136)

    class Frozen:
        def __init__(self, shm: object) -> None:
            self._shm = shm

        def __getattr__(self, name: str) -> object:
            return getattr(self._shm, name)

        def pread(self, _offset: int, _length: int) -> bytes:
            return frozen

    wal_pair.shm = Frozen(wal_pair.shm)  # type: ignore[assignment]

    def read_frozen(wal: OpenFile, shm: OpenFile | None) -> WalHeaders:
        return read_wal_headers(wal, shm)._replace(index_header=frozen)

    monkeypatch.setattr(source_reader, "read_wal_headers", read_frozen)


def test_a_wal_index_that_stays_behind_is_not_believed(
    app: SqliteProcess, follow: Following, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The wal-index does not show a valid commit of the WAL at two slow looks: an exclusive writer and a mere
    reader are there.
    """
    follow.look()
    freeze_index(follow, monkeypatch)
    app.execute(insert(1))
    for _ in range(2):
        assert not follow.look().objects
        assert follow.tracked.evidence.believe_index
        follow.ahead_ms += look.LAG_MS
    assert not follow.look().gap
    assert not follow.tracked.evidence.believe_index
    follow.proves(app)
    app.execute(insert(2))
    follow.look()
    follow.proves(app)


def test_a_wal_index_that_caught_up_is_believed_again(app: SqliteProcess, follow: Following) -> None:
    """The wal-index shows all that we have, so it is the writer's own."""
    follow.look()
    follow.tracked.belief = replace(
        follow.tracked.belief, evidence=replace(follow.tracked.evidence, believe_index=False)
    )
    app.execute(insert(1))
    follow.look()
    assert follow.tracked.evidence.believe_index
    follow.proves(app)


def test_frames_of_a_rolled_back_transaction_do_not_make_it_lag(app: SqliteProcess, follow: Following) -> None:
    """Such frames stay in the WAL, but no commit is among them."""
    app.execute("PRAGMA cache_size=5", "BEGIN", "INSERT INTO t SELECT hex(randomblob(90000))", "ROLLBACK")
    for _ in range(4):
        assert follow.look().moving
        follow.ahead_ms += look.LAG_MS
    assert follow.tracked.evidence.believe_index


@pytest.mark.usefixtures("app")
def test_a_wal_index_being_set_up_is_looked_at_again(follow: Following, monkeypatch: pytest.MonkeyPatch) -> None:
    """The look has neither caught up nor found a gap."""
    follow.look()
    monkeypatch.setattr(SourceReader, "_holder", lambda *_: DmsHolder.SETTING_UP)
    assert follow.step().is_shortly


def test_a_caught_up_look_has_no_wal_left(app: SqliteProcess, follow: Following) -> None:
    """The WAL ended and the next one exists, so the commits of the first WAL are not everything yet."""
    app.close()
    follow.watch.drain()
    with SqliteProcess(follow.path) as other:
        other.execute("SELECT * FROM t")
        follow.watch.drain()
        other.execute(insert(1))
        assert len(follow.tracked.wal_pairs.queue) == 2
        step = follow.step()
        assert step.objects
        assert not step.caught_up
        follow.look()
        follow.proves(other)


def test_a_wal_that_a_killed_process_left_empty_has_ended(app: SqliteProcess, follow: Following) -> None:
    """Nothing is missing, but the size of the file, which somebody had written over, counts from now on."""
    app.execute(insert(1), CHECKPOINT)
    assert not follow.settled().gap
    follow.tracked.belief = replace(
        follow.tracked.belief,
        state=replace(follow.state, overwritten=Overwritten(follow.cursor.salts, follow.cursor.frames)),
    )
    app.execute(TRUNCATE)
    app.kill()
    follow.finds_gap(look.ENDED)
