"""Tests of walsyncd.engine.follow.presence with real applications in other processes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.applications import BOTH, NOTHING, ROWS, locks_of, run_sql
from tests.engine.following import insert
from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import Role, side_path, take_dms
from walsyncd.core.follow.presence_decision import ALONE_MS
from walsyncd.engine.follow import presence as presence_module
from walsyncd.engine.follow.presence import Presence
from walsyncd.errors import RefusedError


class Clock:
    """A clock in milliseconds that is moved by hand."""

    now_ms = 1_000_000

    def __call__(self) -> int:
        return self.now_ms


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def present(path: Path, clock: Clock) -> Iterator[Presence]:
    """Return a presence at ``path``, which may not exist yet."""
    presence = Presence(path, wanted=True, monotonic_ms=clock)
    yield presence
    presence.want(wanted=False)


# Taking and keeping


def test_the_last_close_is_none(path: Path, present: Presence) -> None:
    """Presence is taken beside an application.

    When the application closes, WAL and wal-index stay, and the next application continues to count.
    """
    with wal_database(path) as app:
        assert present.update() is None
        assert present.held
        assert locks_of(path) == BOTH
        app.close()
    assert side_path(path, Role.WAL).stat().st_size > 0
    counted = ichange(path)
    assert run_sql(path, insert(1), "SELECT count(*) FROM t") == "[2]"
    assert ichange(path) == counted + 1


def ichange(path: Path) -> int:
    return int.from_bytes(side_path(path, Role.SHM).read_bytes()[8:12], sys.byteorder)


def test_nothing_is_held_where_nobody_is(path: Path, present: Presence) -> None:
    """Nothing is held for a missing database, a closed one, or one whose application was killed, as after a start
    of the daemon.
    """
    assert present.update() is None
    app = wal_database(path)
    app.kill()
    assert present.update() is None
    assert not present.held
    assert locks_of(path) == NOTHING


def test_not_wanted(path: Path) -> None:
    """No lock is taken without a wish for presence, and locks that are held are released when the wish ends."""
    presence = Presence(path, wanted=False)
    with wal_database(path):
        presence.update()
        assert locks_of(path) == NOTHING
        presence.want(wanted=True)
        presence.update()
        assert locks_of(path) == BOTH
        presence.want(wanted=False)
        presence.update()
        assert locks_of(path) == NOTHING


def test_no_slot_of_the_wal_index_is_locked(path: Path, present: Presence) -> None:
    """Our locks never block a checkpoint of any mode, nor a restart of the WAL."""
    with wal_database(path) as app:
        present.update()
        for mode in ("PASSIVE", "FULL", "RESTART", "TRUNCATE"):
            assert app.execute(insert(1), f"PRAGMA wal_checkpoint({mode})")[0][0] == 0, mode
        held = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
        inode = side_path(path, Role.SHM).stat().st_ino
        assert [line[6:8] for line in held if line[1] == "OFDLCK" and line[5].endswith(f":{inode}")] == [["128", "128"]]


# Who else is there


def test_the_lock_of_another_daemon_is_nobodys(path: Path, present: Presence, clock: Clock) -> None:
    """Another daemon's lock does not count as a process: two daemons do not keep each other there, and neither
    makes the other come first.
    """
    another = Presence(path, wanted=True, monotonic_ms=clock)
    app = wal_database(path)
    another.update()
    app.close()
    present.update()
    assert (another.held, present.held) == (True, False)
    assert "holds OFD locks" in present.hindrance
    assert another.hindrance == ""
    with SqliteProcess(path) as app:
        app.execute(insert(1))
        another.update()
        app.close()
    clock.now_ms += ALONE_MS
    another.update()
    assert locks_of(path) == NOTHING


def test_a_process_that_was_gone_by_then(path: Path, present: Presence, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process closed the database between the question and the lock. By then the file is another one, or unused."""
    app = wal_database(path)

    def slow(shm: object) -> bool:
        app.kill()
        return take_dms(shm)  # type: ignore[arg-type]

    monkeypatch.setattr(presence_module, "take_dms", slow)
    present.update()
    assert locks_of(path) == NOTHING


def test_a_last_close_under_way_is_not_hindered(path: Path, present: Presence, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last close deletes the wal-index after we locked DMS. The locked file has no name then, and is released."""
    app = wal_database(path)

    def slow(shm: object) -> bool:
        taken = take_dms(shm)  # type: ignore[arg-type]
        app.close()
        return taken

    monkeypatch.setattr(presence_module, "take_dms", slow)
    present.update()
    assert not present.held
    assert not side_path(path, Role.WAL).exists()


# Giving up


@pytest.mark.parametrize(
    ("suffix", "statements"),
    [
        ("", ("PRAGMA locking_mode=EXCLUSIVE", insert(1), ROWS)),
        ("?vfs=unix-excl", (insert(1), ROWS)),
        ("", ("PRAGMA journal_mode=DELETE", insert(1), ROWS)),
    ],
)
def test_who_wants_the_database_for_himself_gets_it_after_ten_seconds(
    path: Path, present: Presence, clock: Clock, suffix: str, statements: tuple[str, ...]
) -> None:
    """The process is refused while presence is held, and not a moment longer than ten seconds."""
    with wal_database(path) as app:
        present.update()
        app.close()
    assert present.update() == ALONE_MS / 1000
    assert run_sql(f"file:{path}{suffix}", *statements) == "database is locked"
    clock.now_ms += ALONE_MS - 1
    assert present.update() == 0.001
    clock.now_ms += 1
    assert present.update() is None
    assert locks_of(path) == NOTHING
    assert run_sql(f"file:{path}{suffix}", *statements) == "[0, 1]"


def test_a_process_that_was_too_fast_to_be_met_counts_as_seen(path: Path, present: Presence, clock: Clock) -> None:
    """The process's close is an event, which begins ten more seconds."""
    with wal_database(path) as app:
        present.update()
        app.close()
    clock.now_ms += ALONE_MS - 1
    present.note(Event(path, Role.SHM, Kind.CLOSE_WRITE))
    clock.now_ms += 1
    assert present.update() == (ALONE_MS - 1) / 1000
    present.note(Event(path, Role.DATABASE, Kind.CLOSE_WRITE))
    clock.now_ms += ALONE_MS - 1
    present.update()
    assert not present.held


def test_a_hot_journal_needs_the_database_for_itself(path: Path, present: Presence) -> None:
    """The process that has to play it back is refused while the database is locked, so we do not lock it."""
    with wal_database(path) as app:
        present.update()
        app.close()
    side_path(path, Role.JOURNAL).write_bytes(b"\x01" * 512)
    assert run_sql(path, ROWS) == "database is locked"
    present.update()
    assert locks_of(path) == NOTHING
    assert run_sql(path, ROWS) == "[0]"
    assert not side_path(path, Role.JOURNAL).exists()


@pytest.mark.parametrize("role", [Role.DATABASE, Role.WAL, Role.SHM])
@pytest.mark.parametrize("replace", [False, True])
def test_another_file_in_the_place_of_one_of_them(path: Path, present: Presence, role: Role, *, replace: bool) -> None:
    """A file is deleted or replaced while nobody has it open. We hold nothing that could block the next opener."""
    with wal_database(path) as app:
        present.update()
        app.close()
    file = side_path(path, role)
    if replace:
        other = path.with_name("other")
        shutil.copyfile(file, other)
        other.rename(file)
    else:
        file.unlink()
    present.update()
    assert not present.held
    assert locks_of(path) == NOTHING


@pytest.mark.parametrize("is_tended", [False, True])
def test_a_backup_copied_over_the_files_in_place(path: Path, present: Presence, *, is_tended: bool) -> None:
    """Names and files are the same, but the wal-index is not that of the WAL.

    Kept in use, it would lose what is there.
    """
    with wal_database(path) as app:
        present.update()
        app.execute(insert(1), insert(2))
        backup = {role: side_path(path, role).read_bytes() for role in (Role.DATABASE, Role.WAL)}
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)", insert(3), insert(4), insert(5))
        app.close()
    assert present.held
    for role, content in backup.items():
        side_path(path, role).write_bytes(content)
    if is_tended:
        present.update()
        assert locks_of(path) == NOTHING
    assert (run_sql(path, ROWS) == "[0, 1, 2]") is is_tended


def test_a_header_that_is_not_whole_is_no_other_wal(path: Path, present: Presence) -> None:
    """A writer that was killed between the two copies leaves such a header, and the next reader repairs it."""
    with wal_database(path) as app:
        present.update()
        app.kill()
    with side_path(path, Role.SHM).open("r+b") as shm:
        shm.seek(8)
        shm.write(b"\xff")
    present.update()
    assert present.held
    assert run_sql(path, insert(1), ROWS) == "[0, 1]"


def test_files_that_cannot_be_read_are_complained_about_once(
    path: Path, present: Presence, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is locked in that case. The reason is logged once, and each later look tries again."""

    def refuse(_path: Path, **_options: object) -> None:
        raise RefusedError("open app.db-shm: permission denied", hint="permit it")

    with wal_database(path):
        with monkeypatch.context() as patch, capture_logs() as logs:
            patch.setattr(presence_module, "open_file", refuse)
            assert present.update() is None
            assert present.update() is None
        assert [(line["event"], line["remedy"]) for line in logs] == [("presence_failed", "permit it")]
        present.update()
        assert present.held


def test_no_descriptor_stays_behind(path: Path, present: Presence) -> None:
    """No descriptor stays open, whether presence is taken and released, or is not wanted."""

    def descriptors() -> int:
        links = Path("/proc/self/fd").iterdir()
        return sum(link.is_symlink() and str(link.readlink()).startswith(str(path)) for link in links)

    with wal_database(path) as app:
        present.update()
        assert descriptors() == 3
        present.want(wanted=False)
        app.kill()
        present.want(wanted=True)
        present.update()
        assert descriptors() == 0
