"""Tests of walsyncd.engine.backpressure.mark_hold: how real applications in other processes behave beside the lock."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.applications import run_sql
from tests.engine.following import insert
from walsyncd.adapters.files.inotify import Event, InotifyReader, Kind
from walsyncd.adapters.files.source import Role, side_path
from walsyncd.core.follow.backpressure_decision import HOLD_MS_MAX, IDLE_MS, MARKS, VOID, Copied
from walsyncd.core.sqlite.walindex import MARK_UNUSED, IndexHeader, parse_index_header
from walsyncd.engine.backpressure import mark_hold
from walsyncd.engine.backpressure.mark_hold import HoldTarget, MarkHold


def locked_bytes(path: Path) -> list[int]:
    """Return which bytes of the -shm are locked by an open file description, as the kernel says."""
    shm = side_path(path, Role.SHM)
    inode = shm.stat().st_ino if shm.exists() else 0
    lines = [line.split() for line in Path("/proc/locks").read_text(encoding="ascii").splitlines()]
    return [int(line[6]) for line in lines if line[1] == "OFDLCK" and line[5].endswith(f":{inode}")]


@dataclass
class Holding:
    """A hold whose clock and follower a test moves."""

    path: Path
    reports: list[tuple[str, str]] = field(default_factory=list)
    now_ms: int = 1_000_000
    wal_bytes_max: int = 256 << 20

    def __post_init__(self) -> None:
        target = HoldTarget(self.path, own_only=False, wal_bytes_max=self.wal_bytes_max)
        self.hold = MarkHold(target, lambda kind, reason: self.reports.append((kind, reason)))
        self.hold.copied = Copied((0, 0), 0)

    def written(self) -> None:
        """Look after the WAL was written."""
        self.hold.note(Event(self.path, Role.WAL, Kind.MODIFY))
        self.look()

    def look(self, later_ms: int = 1) -> None:
        self.now_ms += later_ms
        self.hold.look(self.now_ms)

    def index(self) -> IndexHeader:
        index = parse_index_header(side_path(self.path, Role.SHM).read_bytes())
        assert index is not None
        return index

    def copy_all(self) -> None:
        """Let the follower have copied everything."""
        index = self.index()
        self.hold.copied = Copied(index.salts, index.max_frame)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "app.db"


@pytest.fixture
def app(path: Path) -> Iterator[SqliteProcess]:
    with wal_database(path) as process:
        yield process


@pytest.fixture
def holding(path: Path) -> Iterator[Holding]:
    holding = Holding(path)
    yield holding
    holding.hold.close()


def test_who_else_checkpoints_is_not_stopped(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """PASSIVE and FULL copy everything back. RESTART and TRUNCATE are busy until the lock is released."""
    holding.written()
    assert locked_bytes(path) == [127]
    for mode in ("PASSIVE", "FULL"):
        busy, frames, copied = app.execute(insert(1), f"PRAGMA wal_checkpoint({mode})")[0]
        assert busy == 0
        assert frames == copied > 0
    app.execute("PRAGMA busy_timeout=0")
    for mode in ("RESTART", "TRUNCATE"):
        assert app.execute(f"PRAGMA wal_checkpoint({mode})")[0][0] == 1, mode
    salts = holding.index().salts
    app.execute(insert(2))
    assert holding.index().salts == salts, "the WAL did not restart, although all of it is copied back"
    holding.copy_all()
    app.execute("PRAGMA wal_checkpoint(PASSIVE)")
    holding.written()
    assert locked_bytes(path) == []
    assert app.execute("PRAGMA wal_checkpoint(TRUNCATE)")[0][0] == 0


def test_readers_and_writers_notice_nothing(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """Applications use other marks, and get no error."""
    holding.written()
    with SqliteProcess(path) as reader:
        reader.execute("BEGIN", "SELECT * FROM t")
        app.execute(insert(1))
        assert run_sql(path, insert(2), "SELECT count(*) FROM t") == "[3]"
        assert reader.execute("SELECT count(*) FROM t") == [[1]]
    assert app.execute("BEGIN IMMEDIATE", insert(3), "COMMIT", "VACUUM", "SELECT count(*) FROM t") == [[4]]
    assert holding.index().read_marks[4] == MARK_UNUSED
    assert locked_bytes(path) == [127]


def test_the_last_close_deletes_both(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """The lock does not prevent the last close from deleting -wal and -shm, and is not held afterwards."""
    holding.written()
    app.close()
    assert not side_path(path, Role.WAL).exists()
    assert not side_path(path, Role.SHM).exists()
    holding.look()
    assert not holding.hold.is_held


def test_a_used_mark_is_never_locked(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """Readers at several snapshots use all marks, so none is locked. Marks 0 and 1 are never locked."""
    readers: list[SqliteProcess] = []
    seen: set[int] = set()
    try:
        for number in range(6):
            holding.written()
            held = locked_bytes(path)
            seen.update(held)
            marks = holding.index().read_marks
            assert all(marks[byte - 123] == MARK_UNUSED for byte in held)
            holding.hold.close()
            readers.append(SqliteProcess(path))
            readers[-1].execute("BEGIN", "SELECT * FROM t")
            app.execute(insert(number))
    finally:
        for reader in readers:
            reader.kill()
    assert {127} <= seen <= {123 + mark for mark in MARKS}


def test_nothing_is_held_where_nobody_is(path: Path, holding: Holding) -> None:
    """A wal-index that a killed application left is not in use."""
    app = wal_database(path)
    holding.written()
    assert locked_bytes(path) == [127]
    app.kill()
    holding.written()
    assert not holding.hold.is_held
    holding.written()
    assert not holding.hold.is_held


def test_a_write_to_the_wal_index_gives_it_up(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """Such a write may truncate the wal-index, so that our mark is used.

    The next look locks it again if all is well.
    """
    app.execute(insert(1))
    holding.written()
    holding.hold.note(Event(path, Role.SHM, Kind.MODIFY))
    holding.look()
    assert locked_bytes(path) == []
    holding.written()
    assert locked_bytes(path) == [127]
    holding.hold.note(Event(path, Role.SHM, Kind.CLOSE_WRITE))
    holding.look()
    assert locked_bytes(path) == [127], "that somebody has closed it says nothing"


def grow_wal_index(path: Path, app: SqliteProcess) -> list[Event]:
    """Let the WAL pass the frames of the first block of its wal-index. Return the events of the wal-index."""
    size = side_path(path, Role.SHM).stat().st_size
    with InotifyReader() as watcher:
        watcher.add(path)
        app.execute("PRAGMA wal_autocheckpoint=0", "INSERT INTO t VALUES (zeroblob(17000000))")
        assert side_path(path, Role.SHM).stat().st_size > size
        return [event for event in watcher.drain() if event.role is Role.SHM]


def test_a_wal_index_that_grows_keeps_it(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """The lock stays. Otherwise the WAL would restart just when it is longest."""
    holding.written()
    events = grow_wal_index(path, app)
    assert {event.kind for event in events} == {Kind.MODIFY}
    for _ in range(2):  # the events of one growth may come before two looks
        for event in events:
            holding.hold.note(event)
        holding.look()
        assert locked_bytes(path) == [127]
    app.execute("PRAGMA busy_timeout=0")
    assert app.execute("PRAGMA wal_checkpoint(RESTART)")[0][0] == 1


def test_a_wal_index_that_is_set_up_again_gives_it_up(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """However large the new wal-index is, the mark that was locked is in use there."""
    holding.written()
    assert locked_bytes(path) == [127]
    grow_wal_index(path, app)
    app.kill()
    with SqliteProcess(path) as other:
        other.execute("SELECT count(*) FROM t")
        assert side_path(path, Role.SHM).stat().st_size == 65536
        holding.hold.note(Event(path, Role.SHM, Kind.MODIFY))
        holding.look()
        assert locked_bytes(path) == []


def test_an_idle_wal_is_released(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """The lock on an idle WAL is released once the WAL is copied, and then no further look is due."""
    app.execute(insert(1))
    holding.written()
    holding.look(IDLE_MS)
    assert locked_bytes(path) == [127]
    holding.copy_all()
    holding.look()
    assert locked_bytes(path) == []
    assert not holding.hold.is_due(holding.now_ms + IDLE_MS)
    assert holding.reports == []


def test_half_a_second_is_the_longest(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """After half a second the release is reported, and nothing is locked before the WAL has restarted."""
    app.execute(insert(1))
    holding.written()
    holding.look(HOLD_MS_MAX)
    assert locked_bytes(path) == []
    assert [kind for kind, _ in holding.reports] == ["limit"]
    holding.written()
    assert locked_bytes(path) == []
    app.execute("PRAGMA wal_checkpoint(RESTART)", insert(2))
    holding.written()
    assert locked_bytes(path) == [127]


def test_a_wal_past_its_limit_is_let_go(path: Path, app: SqliteProcess) -> None:
    """A WAL may not grow for ever."""
    holding = Holding(path, wal_bytes_max=300_000)
    holding.written()
    assert locked_bytes(path) == [127]
    app.execute("PRAGMA wal_autocheckpoint=0", *["INSERT INTO t VALUES (zeroblob(40000))"] * 8)
    holding.written()
    assert locked_bytes(path) == []
    assert holding.reports == [("limit", "the WAL is larger than wal_bytes_max")]
    holding.hold.close()


def test_it_stays_locked_when_a_new_wal_gets_its_first_frame(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """The application starts, and writes a moment later. SQLite draws the salts with the first frame."""
    app.close()
    with SqliteProcess(path) as started:
        started.execute("SELECT * FROM t")
        holding.written()
        assert (holding.index().max_frame, locked_bytes(path)) == (0, [127])
        started.execute(insert(1))
        holding.written()
        assert (holding.index().max_frame, locked_bytes(path)) == (1, [127])
    assert holding.reports == []


def test_an_application_without_locks_makes_it_void(path: Path, app: SqliteProcess, holding: Holding) -> None:
    """The application enters locking_mode=EXCLUSIVE late, so the WAL restarts in spite of our lock.

    The restart is reported once, and nothing is locked after that.
    """
    holding.written()
    app.execute("PRAGMA locking_mode=EXCLUSIVE", insert(1), "PRAGMA wal_checkpoint(RESTART)", insert(2))
    holding.written()
    assert locked_bytes(path) == []
    assert holding.reports == [("hindrance", VOID)]
    app.execute("PRAGMA wal_checkpoint(RESTART)", insert(3))
    holding.written()
    assert locked_bytes(path) == []
    assert holding.reports == [("hindrance", VOID)]


def test_a_link_in_the_place_of_the_wal_index(path: Path, app: SqliteProcess, tmp_path: Path) -> None:
    """The link is not followed, and is reported once."""
    shm = side_path(path, Role.SHM)
    shm.rename(tmp_path / "elsewhere")
    shm.symlink_to(tmp_path / "elsewhere")
    holding = Holding(path)
    holding.written()
    holding.written()
    assert not holding.hold.is_held
    ((kind, reason),) = holding.reports
    assert kind == "hindrance"
    assert "there is a symbolic link in its place" in reason


def test_what_fails_is_tried_again_with_the_next_event(path: Path, app: SqliteProcess) -> None:
    """A -shm that is a link is not opened. The attempt is not repeated a thousand times a second."""
    shm = side_path(path, Role.SHM)
    shm.rename(moved := shm.with_name("moved"))
    shm.symlink_to(moved)
    holding = Holding(path)
    holding.written()
    assert [kind for kind, _ in holding.reports] == ["hindrance"]
    assert not holding.hold.is_due(holding.now_ms)
    shm.unlink()
    moved.rename(shm)
    app.execute("PRAGMA wal_checkpoint(RESTART)", insert(1))
    holding.written()
    assert holding.hold.is_held


def test_a_fault_costs_one_database(path: Path, app: SqliteProcess, monkeypatch: pytest.MonkeyPatch) -> None:
    """After any unexpected error in its files the process continues, and reports why nothing is locked there."""

    def broken(_head: bytes) -> IndexHeader | None:
        raise RuntimeError("odd bytes")

    app.execute(insert(1))
    holding = Holding(path)
    with monkeypatch.context() as patched, capture_logs() as log:
        patched.setattr(mark_hold, "parse_index_header", broken)
        holding.written()
    assert holding.reports == [("hindrance", "backpressure: RuntimeError: odd bytes")]
    assert not holding.hold.is_held
    assert not holding.hold.is_due(holding.now_ms)
    assert [line["event"] for line in log] == ["work_failed"]
    app.execute("PRAGMA wal_checkpoint(RESTART)", insert(1))
    holding.written()
    assert holding.hold.is_held
