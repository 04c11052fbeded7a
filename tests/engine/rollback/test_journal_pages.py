"""Tests of which pages a scan reads, with real SQLite, real events and every trap that was found."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, Self

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import open_files
from tests.engine.rollback import soak
from tests.engine.rollback.rollback_replicas import Locks, filled, objects, restored
from tests.engine.running import Place, running
from walsyncd.adapters.files.inotify import InotifyReader
from walsyncd.adapters.files.source import open_file
from walsyncd.core.restore.plan import AtPosition
from walsyncd.core.rollback.changed_pages import ChangedPages, NoProof, ScanReason, changed_pages
from walsyncd.core.rollback.journal_trail import Doubt
from walsyncd.core.send.scan_pace import SMALL_BYTES
from walsyncd.core.sqlite.rollback_journal import JournalFault
from walsyncd.core.stored.position import parse_position
from walsyncd.engine.rollback.committed_moment import FileTimes, MomentStart
from walsyncd.engine.rollback.journal_capture import JournalCapture
from walsyncd.engine.rollback.journal_pages import JournalProofs, JournalSource

PAGE = 1024


class Followed:
    """A copy of the database's pages, which is updated with what the journals name, like the page map."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.watcher = InotifyReader()
        self.watcher.add(path)
        self.capture = JournalCapture(path)
        count_writes = partial(self.watcher.count_journal_writes, path)
        self.source = JournalSource(self.capture, lambda: open_file(path), self.drain, count_writes)
        self.proofs = JournalProofs(self.source, file_bytes_min=0)
        self.looks: Any = Locks(path)
        self.pages: dict[int, bytes] = {}

    def drain(self) -> None:
        for event in self.watcher.drain():
            self.proofs.note(event)

    def scan(self, *, is_accepted: bool = True, is_early: bool = False) -> ScanReason | list[int]:
        """Scan at a moment. Return why all pages were read, or which ones were named. No page may be missing."""
        self.drain()
        raw = self.path.read_bytes()
        pages = self.proofs.pages(len(raw), PAGE, is_all=False, is_early=is_early)
        assert pages is not None
        listed = pages.at_moment(self.looks, MomentStart(raw[:PAGE], FileTimes(len(raw), 0, 0, settled=True), 0))
        assert pages.are_complete()
        count = int.from_bytes(raw[28:32])
        named = {1, *(int(n) for n in listed.numbers), *range(listed.beyond + 1, count + 1)}
        if is_accepted:
            for number in sorted(each for each in named if each <= count):
                self.pages[number] = raw[(number - 1) * PAGE : number * PAGE]
            self.pages = {number: page for number, page in self.pages.items() if number <= count}
            assert b"".join(self.pages[n] for n in sorted(self.pages)) == raw[: count * PAGE], pages.reason
            self.proofs.accepted()
        return sorted(named) if pages.reason is None else pages.reason

    def close(self) -> None:
        self.proofs.forget()
        self.watcher.close()


class Scene:
    def __init__(self, folder: Path) -> None:
        self.path = folder / "app.db"
        self.first = self.connect()
        self.first.execute(f"PRAGMA page_size = {PAGE}")
        self.first.execute("CREATE TABLE t (k INTEGER PRIMARY KEY, v BLOB)")
        fill = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n WHERE x < 300) SELECT x FROM n"
        self.first.execute(f"INSERT INTO t (v) SELECT randomblob(200) FROM ({fill})")
        self.followed = Followed(self.path)
        self.scan = self.followed.scan
        self.scan()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.first.close()
        self.followed.close()

    def connect(self, *settings: str) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, isolation_level=None)
        for each in settings:
            connection.execute(each).fetchall()
        return connection

    def transaction(self, *sql: str, end: str = "COMMIT") -> None:
        """Run a transaction. Events are taken in before its end, as another thread would do it."""
        self.first.execute("BEGIN")
        for each in sql:
            self.first.execute(each)
        self.followed.drain()
        self.first.execute(end)

    def change(self, key: int) -> None:
        self.transaction(f"UPDATE t SET v = randomblob(200) WHERE k = {key}")


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as made:
        yield made


def test_the_first_scan_reads_all_and_the_next_ones_what_changed(scene: Scene, tmp_path: Path) -> None:
    """Each journal has one descriptor, until the scan is accepted."""
    before = open_files(tmp_path)
    for key in (3, 150):
        scene.change(key)
    named = scene.scan()
    assert isinstance(named, list)
    assert 3 <= len(named) <= 5
    assert open_files(tmp_path) == before
    assert scene.scan() == [1]


def test_a_scan_that_was_not_accepted_is_asked_again_from_the_same_state(scene: Scene) -> None:
    """Journals that were read once are read again."""
    scene.change(3)
    first = scene.scan(is_accepted=False)
    scene.change(150)
    both = scene.scan()
    assert isinstance(first, list)
    assert isinstance(both, list)
    assert set(first) < set(both)


def test_kept_journals(scene: Scene) -> None:
    """Each commit is read from its own journal. Two commits between two scans are a reason to read all pages."""
    scene.first.execute("PRAGMA journal_mode = PERSIST")
    scene.change(3)
    assert scene.scan() is JournalFault.CUT_OFF, "nobody has counted the writes to it yet"
    scene.change(150)
    assert isinstance(scene.scan(), list)
    scene.transaction("UPDATE t SET v = randomblob(200)", end="ROLLBACK")
    assert isinstance(scene.scan(), list)
    scene.change(3)
    scene.change(150)
    assert scene.scan() is Doubt.JOURNAL_REUSED
    scene.change(3)
    assert isinstance(scene.scan(), list)


@pytest.mark.parametrize("synchronous", ["OFF", "FULL"])
@pytest.mark.parametrize("is_seen_often", [True, False])
def test_a_kept_journal_that_is_cut_between_two_records(scene: Scene, synchronous: str, is_seen_often: bool) -> None:
    """The journal looks like that of the commit before, which filled it exactly. Only that commit is read by it."""
    scene.first.execute("PRAGMA journal_mode = PERSIST")
    scene.first.execute(f"PRAGMA synchronous = {synchronous}")

    def change(key: int) -> None:
        statement = f"UPDATE t SET v = 1 - v WHERE k = {key}"
        if is_seen_often:
            scene.transaction(statement)
        else:
            scene.first.execute(statement)

    change(3)
    scene.scan()
    size = Path(f"{scene.path}-journal").stat().st_size
    scene.first.execute(f"PRAGMA journal_size_limit = {size}")
    for key in (150, 3):
        change(key)
        assert isinstance(scene.scan(), list)
        scene.first.execute("UPDATE t SET v = 2 - v WHERE k IN (20, 90, 120, 200)")
        assert Path(f"{scene.path}-journal").stat().st_size == size
        assert scene.scan() is JournalFault.CUT_OFF


def test_a_kept_journal_that_is_used_while_it_is_read(scene: Scene) -> None:
    """A writer may hold RESERVED and overwrite the records, which causes no event of the database."""
    scene.first.execute("PRAGMA journal_mode = PERSIST")
    scene.change(3)
    scene.scan()
    scene.change(5)
    scene.followed.drain()
    raw = scene.path.read_bytes()
    pages = scene.followed.proofs.pages(len(raw), PAGE, is_all=False)
    assert pages is not None
    pages.at_moment(scene.followed.looks, MomentStart(raw[:PAGE], FileTimes(len(raw), 0, 0, settled=True), 0))
    assert pages.reason is None
    assert pages.are_complete()
    scene.transaction("UPDATE t SET v = randomblob(200) WHERE k < 100", end="ROLLBACK")
    scene.followed.drain()
    assert not pages.are_complete()


@pytest.mark.parametrize("mode", ["TRUNCATE", "MEMORY", "OFF"])
def test_modes_that_leave_no_journal(scene: Scene, mode: str) -> None:
    """All pages are read at each change."""
    scene.first.execute(f"PRAGMA journal_mode = {mode}")
    scene.change(3)
    assert not isinstance(scene.scan(), list)
    scene.change(150)
    assert not isinstance(scene.scan(), list)


@pytest.mark.parametrize("mode", ["DELETE", "PERSIST"])
def test_a_rolled_back_journal_and_a_commit_without_one(scene: Scene, mode: str) -> None:
    """The journal has the commit's counter. The order of events shows that it is not the commit's journal."""
    scene.first.execute(f"PRAGMA journal_mode = {mode}")
    scene.change(3)
    scene.scan()
    scene.transaction("PRAGMA user_version = 7", end="ROLLBACK")
    other = scene.connect("PRAGMA journal_mode = MEMORY")
    other.execute("UPDATE t SET v = randomblob(200) WHERE k > 100")
    other.close()
    assert scene.scan() is Doubt.STRAY_WRITE


def test_wal_mode_and_back(scene: Scene) -> None:
    """The counter moves by 2, with two good journals. Commits in between are in neither."""
    for mode in ("WAL", "DELETE"):
        scene.followed.drain()
        scene.first.execute(f"PRAGMA journal_mode = {mode}").fetchall()
        scene.first.execute("UPDATE t SET v = randomblob(200)")
    assert not isinstance(scene.scan(), list)


def test_exclusive_mode(scene: Scene) -> None:
    """Commits leave the counter as it is, and all use one journal."""
    scene.change(3)
    scene.scan()
    scene.first.execute("PRAGMA locking_mode = EXCLUSIVE")
    for key in (3, 100, 200):
        scene.change(key)
    scene.first.execute("PRAGMA locking_mode = NORMAL")
    scene.first.execute("SELECT count(*) FROM t").fetchall()
    assert scene.scan() in {JournalFault.ZEROED, Doubt.JOURNAL_REUSED, NoProof.STEP_MISSING}


def test_kept_journals_in_exclusive_mode(scene: Scene) -> None:
    """The last journal alone would be a perfect proof."""
    scene.first.execute("PRAGMA journal_mode = PERSIST")
    scene.first.execute("PRAGMA locking_mode = EXCLUSIVE")
    for sql in ("v = randomblob(200) WHERE k = 3", "v = randomblob(200) WHERE k = 100"):
        scene.transaction(f"UPDATE t SET {sql}")
    scene.transaction("PRAGMA user_version = 7")
    scene.first.execute("PRAGMA locking_mode = NORMAL")
    scene.first.execute("SELECT count(*) FROM t").fetchall()
    assert not isinstance(scene.scan(), list)


def test_another_file_in_its_place(scene: Scene, tmp_path: Path) -> None:
    """The journals say nothing about another file."""
    copy = tmp_path / "copy"
    copy.write_bytes(scene.path.read_bytes())
    copy.rename(scene.path)
    assert scene.scan() is Doubt.REPLACED


def test_a_write_by_another_program(scene: Scene) -> None:
    """Such a write is noticed even between two transactions that have journals."""
    scene.change(3)
    raw = bytearray(scene.path.read_bytes())
    raw[-1] ^= 1
    scene.path.write_bytes(raw)
    scene.change(5)
    assert scene.scan() is Doubt.STRAY_WRITE


def test_a_small_file_needs_no_journals(scene: Scene) -> None:
    """A small file is read as a whole, and no journal is held."""
    proofs = JournalProofs(scene.followed.source, file_bytes_min=1 << 20)
    assert proofs.pages(1 << 20, PAGE, is_all=False) is None
    assert proofs.pages((1 << 20) + 1, PAGE, is_all=False) is not None


def test_an_early_scan_reads_what_the_journals_name_and_nothing_if_they_leave_doubt(scene: Scene) -> None:
    """In doubt the scan has no result, and what was known before it is still known."""
    proofs = scene.followed.proofs
    assert proofs.is_early
    scene.change(3)
    assert isinstance(scene.scan(is_early=True), list)
    scene.first.execute("PRAGMA journal_mode = TRUNCATE")
    scene.change(150)
    raw = scene.path.read_bytes()
    scene.followed.drain()
    pages = proofs.pages(len(raw), PAGE, is_all=False, is_early=True)
    assert pages is not None
    listed = pages.at_moment(scene.followed.looks, MomentStart(raw[:PAGE], FileTimes(len(raw), 0, 0, settled=True), 0))
    assert not len(listed.numbers)
    assert listed.beyond * PAGE > len(raw)
    assert not pages.are_complete()
    assert not isinstance(scene.scan(), list)
    proofs.forget()
    assert not proofs.is_early


def test_a_scan_that_must_read_all_makes_the_state_known(scene: Scene) -> None:
    """The journals before the scan are of no use, and the journals after it are."""
    scene.followed.proofs.forget()
    assert scene.scan() is Doubt.JOURNAL_UNKNOWN
    scene.change(3)
    assert isinstance(scene.scan(), list)


def test_a_commit_that_is_hidden_in_a_deleted_journal(scene: Scene) -> None:
    """After a rollback, a commit in mode TRUNCATE leaves an empty file, and the next transaction deletes that."""
    scene.transaction("PRAGMA user_version = 7", "UPDATE t SET v = 1 WHERE k = 3", end="ROLLBACK")
    scene.first.execute("PRAGMA journal_mode = TRUNCATE")
    scene.transaction("UPDATE t SET v = randomblob(200) WHERE k > 100")
    scene.first.execute("PRAGMA journal_mode = DELETE")
    scene.first.execute("SELECT count(*) FROM t").fetchall()
    scene.change(3)
    assert not isinstance(scene.scan(), list)


def test_a_commit_that_is_hidden_in_a_kept_journal(scene: Scene) -> None:
    """This is like the test above, but the last transaction keeps the file and is rolled back."""
    scene.transaction("PRAGMA user_version = 7", "UPDATE t SET v = 1 WHERE k = 3", end="ROLLBACK")
    scene.first.execute("PRAGMA journal_mode = TRUNCATE")
    scene.transaction("UPDATE t SET v = randomblob(200) WHERE k > 100")
    scene.first.execute("PRAGMA journal_mode = PERSIST")
    scene.transaction("UPDATE t SET v = 1 WHERE k = 3", end="ROLLBACK")
    assert not isinstance(scene.scan(), list)


@pytest.mark.parametrize("modes", ["delete,persist,truncate", "delete,truncate,persist,wal"])
def test_two_writers_that_are_killed_at_times(modes: str) -> None:
    """Each accepted moment is a committed state, and the copy equals the file."""
    verdict = soak.run(1, 1.5, pause_s=0.02, modes=modes, accepted_min=5)
    assert verdict.wrong == []
    assert verdict.by_journal


def test_a_large_file_in_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit is shipped by what its journal names, in both modes, and each state is restored exactly."""
    proofs: list[object] = []

    def spy(*arguments: Any) -> object:
        proofs.append(changed_pages(*arguments))
        return proofs[-1]

    def named() -> int:
        return sum(isinstance(each, ChangedPages) for each in proofs)

    monkeypatch.setattr("walsyncd.engine.rollback.journal_pages.changed_pages", spy)
    place = Place(tmp_path)
    path = place.database()
    states: dict[str, bytes] = {}
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute("CREATE TABLE t (x INTEGER PRIMARY KEY, y)", filled(1700))
        place.sync()
        assert path.stat().st_size > SMALL_BYTES
        for mode in ("DELETE", "PERSIST"):
            app.execute(f"PRAGMA journal_mode = {mode}", "UPDATE t SET y = 1 WHERE x = 1")
            place.sync()
            proofs.clear()
            for key in range(5, 1700, 55):  # on a busy machine a look may come within a commit, and the file is scanned
                app.execute(f"UPDATE t SET y = randomblob(3000) WHERE x = {key}")
                states[place.sync()] = path.read_bytes()
                if named() >= 3:
                    break
            assert named() >= 3
        for position, content in states.items():
            assert restored(place, target=AtPosition(parse_position(position))) == content
        assert len(objects(place, "*.db.zst")) == 1


@pytest.mark.parametrize("seed", range(6))
def test_random_transactions(scene: Scene, seed: int) -> None:
    """With a small cache, savepoints and rollbacks, in both modes, the named pages are enough each time."""
    rng = random.Random(seed)
    changes = [
        "UPDATE t SET v = randomblob(200) WHERE k % 7 = 3",
        "DELETE FROM t WHERE k % 11 = 5",
        "INSERT INTO t (v) SELECT v FROM t LIMIT 40",
        "INSERT INTO t (v) VALUES (zeroblob(30000))",
        "DELETE FROM t WHERE length(v) > 1000",
        "PRAGMA user_version = 3",
        "SAVEPOINT s",
    ]
    proven = 0
    for _ in range(40):
        scene.first.execute(f"PRAGMA cache_size = {rng.choice([3, 2000])}")
        if rng.random() < 0.1:
            scene.first.execute(f"PRAGMA journal_mode = {rng.choice(['DELETE', 'PERSIST', 'MEMORY'])}").fetchall()
        sql = [rng.choice(changes) for _ in range(rng.randint(1, 4))]
        if "SAVEPOINT s" in sql and rng.random() < 0.5:
            sql.append("ROLLBACK TO s")
        scene.transaction(*sql, end=rng.choice(["COMMIT", "COMMIT", "ROLLBACK"]))
        if rng.random() < 0.7:
            proven += isinstance(scene.scan(is_accepted=rng.random() < 0.9), list)
    assert proven
