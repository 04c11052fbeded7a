"""Tests of walsyncd.adapters.files.inotify with the kernel's own events. SQLite works in other processes.

inotify queues an event before the system call that causes it returns, so that nothing here needs to wait.
"""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.adapters.files.events import kinds, seen
from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from walsyncd.adapters.files.file_event import COUNTED_MAX
from walsyncd.adapters.files.inotify import Event, InotifyReader, Kind, Role
from walsyncd.errors import UsageError


def test_a_commit_modifies_the_wal(watcher: InotifyReader, tmp_path: Path) -> None:
    """A commit to a settled WAL is one MODIFY of -wal, and nothing else."""
    path = tmp_path / "app.db"
    with wal_database(path) as app:
        watcher.add(path)
        app.execute("INSERT INTO t VALUES (1)")
        assert watcher.wait(timeout=10)
        assert set(watcher.drain()) == {Event(path, Role.WAL, Kind.MODIFY)}
        assert not watcher.wait(timeout=0)
        assert watcher.drain() == []


def test_reading_costs_nothing(watcher: InotifyReader, tmp_path: Path) -> None:
    """A query of an open connection, and our own reading, cause no event."""
    path = tmp_path / "app.db"
    with wal_database(path) as app:
        watcher.add(path)
        app.execute("SELECT * FROM t")
        path.read_bytes()
        assert watcher.drain() == []


def test_first_opening_creates_wal_and_shm(watcher: InotifyReader, tmp_path: Path) -> None:
    """The first connection creates -wal and -shm, and each causes an event."""
    path = tmp_path / "app.db"
    wal_database(path).close()
    watcher.add(path)
    with SqliteProcess(path) as app:
        app.execute("SELECT * FROM t")
        events = seen(watcher)
    assert (Role.WAL, Kind.CREATE) in events
    assert (Role.SHM, Kind.CREATE) in events


def test_last_close_deletes_the_shm_before_the_wal(watcher: InotifyReader, tmp_path: Path) -> None:
    """The last close checkpoints (MODIFY of the database), then unlinks -shm, then -wal."""
    path = tmp_path / "app.db"
    app = wal_database(path)
    watcher.add(path)
    app.close()
    events = seen(watcher)
    order = [(Role.DATABASE, Kind.MODIFY), (Role.SHM, Kind.DELETE), (Role.WAL, Kind.DELETE)]
    assert [event for event in events if event in order] == order


def test_recovery_after_a_kill_modifies_the_shm(watcher: InotifyReader, tmp_path: Path) -> None:
    """The first opener after a SIGKILL rebuilds the -shm in place: MODIFY of -shm, no CREATE."""
    path = tmp_path / "app.db"
    wal_database(path).kill()
    watcher.add(path)
    with SqliteProcess(path) as app:
        assert app.execute("SELECT count(*) FROM t") == [[1]]
        events = seen(watcher)
    assert (Role.SHM, Kind.MODIFY) in events
    assert (Role.SHM, Kind.CREATE) not in events


def test_the_end_of_a_connection_closes_the_shm(watcher: InotifyReader, tmp_path: Path) -> None:
    """The end of any connection, clean or killed, is a CLOSE_WRITE of -shm."""
    path = tmp_path / "app.db"
    with wal_database(path):
        other = SqliteProcess(path)
        other.execute("SELECT * FROM t")
        watcher.add(path)
        other.kill()
        assert (Role.SHM, Kind.CLOSE_WRITE) in seen(watcher)


def test_checkpoints(watcher: InotifyReader, tmp_path: Path) -> None:
    """A passive checkpoint modifies the database only; a truncating one modifies the -wal too."""
    path = tmp_path / "app.db"
    with wal_database(path) as app:
        watcher.add(path)
        app.execute("PRAGMA wal_checkpoint(PASSIVE)")
        assert set(seen(watcher)) == {(Role.DATABASE, Kind.MODIFY)}
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        assert (Role.WAL, Kind.MODIFY) in seen(watcher)
        assert path.with_name("app.db-wal").stat().st_size == 0


def test_counted_writes_to_a_journal_are_not_merged(watcher: InotifyReader, tmp_path: Path) -> None:
    """Counted writes are merged neither with each other nor with a cut, as long as it is the same file."""
    path, journal = tmp_path / "app.db", tmp_path / "app.db-journal"
    once, twice = {(Role.JOURNAL, Kind.MODIFY)}, [(Role.JOURNAL, Kind.MODIFY), (Role.JOURNAL, Kind.COUNTED)] * 2
    watcher.add(path)
    watcher.count_journal_writes(path)  # there is no journal
    journal.write_bytes(b"1" * 1000)
    watcher.drain()
    for is_counted, is_cut in [(False, False), (False, True), (True, False), (True, True)]:
        if is_counted:
            watcher.count_journal_writes(path)
        with journal.open("rb+", buffering=0) as file:
            file.write(b"0" * 28)
            file.truncate(100) if is_cut else file.write(b"1")
        writes = [each for each in seen(watcher) if each[1] is not Kind.CLOSE_WRITE]
        assert writes == twice if is_counted else set(writes) == once
    with journal.open("rb+", buffering=0) as file:
        for _ in range(9):
            file.write(b"0")
    assert seen(watcher)[:-1] == twice, "more than two are two"
    journal.unlink()
    journal.write_bytes(b"1")
    assert Kind.COUNTED not in kinds(watcher, path), "another file"
    watcher.count_journal_writes(path)
    watcher.remove(path)
    watcher.add(path)
    journal.write_bytes(b"1")
    assert Kind.COUNTED not in kinds(watcher, path)


def test_a_long_transaction_does_not_fill_the_queue(watcher: InotifyReader, tmp_path: Path) -> None:
    """After a while the writes of a long transaction are no longer counted.

    After another request they are counted again.
    """
    path, journal = tmp_path / "app.db", tmp_path / "app.db-journal"
    watcher.add(path)
    with journal.open("wb", buffering=0) as file:
        watcher.count_journal_writes(path)
        for _ in range(COUNTED_MAX):
            file.write(b"1")
        assert seen(watcher)[-1] == (Role.JOURNAL, Kind.UNCOUNTED)
        for _ in range(20_000):
            file.write(b"1")
        assert set(seen(watcher)) == {(Role.JOURNAL, Kind.MODIFY)}, "others' events in /tmp part them"
        watcher.count_journal_writes(path)
        file.write(b"1")
        assert seen(watcher) == [(Role.JOURNAL, Kind.MODIFY), (Role.JOURNAL, Kind.COUNTED)]


def test_a_link_is_not_counted(watcher: InotifyReader, tmp_path: Path) -> None:
    """The owner of the folder chooses what a link leads to."""
    path, other = tmp_path / "app.db", tmp_path / "other"
    other.write_bytes(b"1")
    (tmp_path / "app.db-journal").symlink_to(other)
    watcher.add(path)
    watcher.count_journal_writes(path)
    other.write_bytes(b"2")
    assert seen(watcher) == []


def test_a_rename_over_the_database(watcher: InotifyReader, tmp_path: Path) -> None:
    """A database replaced by rename is MOVED_TO; events of its folder continue."""
    path, other = tmp_path / "app.db", tmp_path / "new.db"
    path.write_bytes(b"old")
    other.write_bytes(b"new")
    watcher.add(path)
    other.rename(path)
    assert seen(watcher) == [(Role.DATABASE, Kind.MOVED_TO)]
    path.rename(other)
    assert seen(watcher) == [(Role.DATABASE, Kind.MOVED_FROM)]


def test_a_rollback_journal(watcher: InotifyReader, tmp_path: Path) -> None:
    """In rollback mode a transaction creates and deletes -journal."""
    path = tmp_path / "app.db"
    watcher.add(path)
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
    events = seen(watcher)
    assert (Role.JOURNAL, Kind.CREATE) in events
    assert (Role.JOURNAL, Kind.DELETE) in events


def test_an_unlinked_wal_still_tells(watcher: InotifyReader, tmp_path: Path) -> None:
    """A write to a -wal that was unlinked under its writer causes an event, because unlinked files are watched, too."""
    path, wal = tmp_path / "app.db", tmp_path / "app.db-wal"
    watcher.add(path)
    with wal.open("wb") as file:
        wal.unlink()
        watcher.drain()
        file.write(b"x")
        file.flush()
        assert seen(watcher) == [(Role.WAL, Kind.MODIFY)]


def test_files_of_others_are_dropped(watcher: InotifyReader, tmp_path: Path) -> None:
    """Changes of other files in the folder are nobody's events."""
    watcher.add(tmp_path / "app.db")
    for name in ("other.db", "app.db-walrus", "app.db.bak"):
        (tmp_path / name).write_bytes(b"x")
    assert watcher.drain() == []


def test_what_a_write_means_is_forgotten_when_the_watches_change(watcher: InotifyReader, tmp_path: Path) -> None:
    """A file that was nobody's becomes a database and then is nobody's again.

    The folder may also become another one.
    """
    folder, path = tmp_path / "apps", tmp_path / "apps" / "app.db"
    folder.mkdir()
    watcher.add(folder / "other.db")
    for is_watched in (False, True, False, True):
        for _ in range(2):
            path.write_bytes(b"x")
            assert (Kind.MODIFY in kinds(watcher, path)) == is_watched
        (watcher.remove if is_watched else watcher.add)(path)
    watcher.add(path)
    folder.rename(tmp_path / "old")
    folder.mkdir()
    kinds(watcher, path)
    path.write_bytes(b"x")
    assert Kind.MODIFY in kinds(watcher, path)
    (tmp_path / "old" / "app.db").write_bytes(b"x")
    assert kinds(watcher, path) == []


def test_databases_share_the_watch_of_their_folder(watcher: InotifyReader, tmp_path: Path) -> None:
    """Two databases of a folder have one watch, which outlives the removal of one of them."""
    first, second = tmp_path / "1.db", tmp_path / "2.db"
    watcher.add(first)
    watcher.add(second)
    watcher.add(second)
    first.touch()
    second.touch()
    assert {event.path for event in watcher.drain()} == {first, second}
    watcher.remove(first)
    first.write_bytes(b"x")
    second.write_bytes(b"x")
    assert {event.path for event in watcher.drain()} == {second}
    watcher.remove(second)
    watcher.remove(tmp_path / "never" / "added.db")
    second.write_bytes(b"y")
    assert watcher.drain() == []
    assert list(watcher._by_watch.values()) == [[watcher._root]]


def test_overflow(watcher: InotifyReader, tmp_path: Path) -> None:
    """When the kernel's queue is full, every database and listed folder gets an event.

    Later events are read as usual.
    """
    first, second = tmp_path / "1.db", tmp_path / "2.db"
    listed = tmp_path / "listed"
    listed.mkdir()
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text(encoding="ascii"))
    watcher.add(first)
    watcher.add(second)
    watcher.add_directory(listed)
    with first.open("wb", buffering=0) as one, second.open("wb", buffering=0) as two:
        for _ in range(limit // 2 + 1):  # alternate, so that the kernel can't merge them
            one.write(b"x")
            two.write(b"x")
    overflowed = [event for event in watcher.drain() if event.kind is Kind.OVERFLOW]
    assert set(overflowed) == {
        Event(first, Role.DATABASE, Kind.OVERFLOW),
        Event(second, Role.DATABASE, Kind.OVERFLOW),
        Event(listed, Role.DIRECTORY, Kind.OVERFLOW),
    }
    assert len(overflowed) == 3
    first.touch()
    first.unlink()
    assert kinds(watcher, first)[-1] is Kind.DELETE


def test_several_bits_in_one_event(watcher: InotifyReader, tmp_path: Path) -> None:
    """The kernel may add bits not asked for, such as ATTRIB to the MODIFY of a truncated setuid file."""
    path = tmp_path / "app.db"
    watcher.add(path)
    watch = watcher._folders[tmp_path].watch
    assert watch is not None
    watcher._take(watch, 0x2 | 0x4, "app.db-shm")
    assert seen(watcher) == [(Role.SHM, Kind.MODIFY)]


def test_wake_ends_a_wait(watcher: InotifyReader) -> None:
    """A wake from another thread ends a wait without an event. A wake that comes before a wait ends that wait."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(watcher.wait()))
    thread.start()
    watcher.wake()
    thread.join(timeout=30)
    watcher.wake()
    answers.append(watcher.wait())
    assert answers == [False, False]


def test_a_wait_for_nothing_ends(watcher: InotifyReader) -> None:
    """A wait ends after its timeout without events."""
    assert not watcher.wait(timeout=0.001)


def test_two_threads_drain(watcher: InotifyReader, tmp_path: Path) -> None:
    """If two threads drain the queue at once, no event is lost or doubled."""
    listed = tmp_path
    watcher.add_directory(listed)
    drained: list[Event] = []
    done = threading.Event()

    def drain() -> None:
        while not done.is_set():
            drained.extend(watcher.drain())

    threads = [threading.Thread(target=drain) for _ in range(2)]
    for thread in threads:
        thread.start()
    paths = [listed / str(number) for number in range(500)]
    for path in paths:
        path.touch()
    done.set()
    for thread in threads:
        thread.join(timeout=30)
    drained.extend(watcher.drain())
    assert sorted(event.path for event in drained) == sorted(paths)


def test_a_relative_path_is_refused(watcher: InotifyReader) -> None:
    """Paths are absolute: a relative one would be awaited for ever."""
    with pytest.raises(UsageError, match="not an absolute path"):
        watcher.add(Path("app.db"))
