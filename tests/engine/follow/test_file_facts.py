"""Tests of walsyncd.engine.follow.file_facts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import CHECKPOINT, Following, insert
from walsyncd.adapters.files.source import FileIdentity
from walsyncd.core.follow.follow_state import FileFacts
from walsyncd.engine.follow.file_facts import (
    SETTLED_FINE_MS,
    SETTLED_MS,
    FileBesideWal,
    changed_ns,
    database_identity,
    file_facts,
    is_settled,
    page_size_of,
    settling_ms,
)
from walsyncd.errors import MissingError

LOOK = FileFacts(1, 2, 3, "boot", 0, 4096, 1, 1)


def test_a_database_that_is_not_there(tmp_path: Path) -> None:
    """A missing database raises MissingError, which says how following continues."""
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app, Following(path, tmp_path / "f") as follow:
        app.execute("CREATE TABLE t (x)")
        assert database_identity(follow.tracked).size > 0
        path.unlink()
        with pytest.raises(MissingError, match="picked up"):
            database_identity(follow.tracked)


def test_a_file_is_what_it_is_and_what_it_looks_like(tmp_path: Path) -> None:
    """A file that is written to stays the same file, with other facts.

    Another file of the same name is not the same file.
    """
    path = tmp_path / "app.db"
    path.write_bytes(b"one")
    with Following(path, tmp_path / "f") as follow:
        before = file_facts(database_identity(follow.tracked), "boot", None)
        path.write_bytes(b"three")
        after = file_facts(database_identity(follow.tracked), "boot", None)
        assert after.is_file(before)
        assert not after.has_content_of(before)
        (tmp_path / "new").write_bytes(b"three")
        (tmp_path / "new").rename(path)
        assert not file_facts(database_identity(follow.tracked), "boot", None).is_file(after)


def test_how_long_a_file_settles() -> None:
    """A file settles in a moment if file times are fine, and in two seconds if one of its times may be rounded."""
    fine, coarse = 1_795_372_922_352_197_993, 1_795_372_922_350_000_000
    for mtime, ctime, expected in (
        (fine, fine, SETTLED_FINE_MS),
        (coarse, fine, SETTLED_MS),
        (fine, coarse, SETTLED_MS),
        (fine // 10**9 * 10**9, fine // 10**9 * 10**9, SETTLED_MS),
    ):
        assert settling_ms(replace(LOOK, mtime_ns=mtime, ctime_ns=ctime)) == expected


def test_when_a_file_was_changed() -> None:
    """The mtime counts, unless a program has set it to a time before the file was last seen."""
    then = replace(LOOK, mtime_ns=50, ctime_ns=60)
    now = FileIdentity(1, 2, 3, 4096, mtime_ns=70, ctime_ns=90)
    assert changed_ns(now, then) == 70
    assert changed_ns(replace(now, mtime_ns=55), then) == 90


@pytest.mark.parametrize(("age_ms", "expected"), [(50, False), (150, True), (-50, False), (-9_000_000, True)])
def test_a_file_of_a_clock_that_was_ahead_is_settled(tmp_path: Path, age_ms: int, *, expected: bool) -> None:
    """A change from now on would give the file another time.

    Otherwise the file would count as changing until that date.
    """
    written_ns = 1_795_372_922_352_197_993
    path = tmp_path / "app.db"
    path.write_bytes(b"one")
    with Following(path, tmp_path / "f") as follow:
        environment = replace(follow.environment, machine_ms=lambda: written_ns // 1_000_000 + age_ms)
        assert is_settled(replace(LOOK, ctime_ns=written_ns, mtime_ns=written_ns), environment) is expected


def test_the_page_size_is_that_of_the_frames_or_of_the_file(tmp_path: Path) -> None:
    """The frames that are stored count first.

    A file that is encrypted, empty or missing does not show its page size.
    """
    path = tmp_path / "app.db"
    with SqliteProcess(path) as app:
        app.execute("PRAGMA page_size=8192", "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", "PRAGMA wal_checkpoint")
        with Following(path, tmp_path / "f").begin() as follow:
            state = follow.state
            fresh = replace(state, stream=replace(state.stream, stamp=None))
            assert page_size_of(follow.tracked, fresh) == 8192
            follow.look()
            assert follow.state.stream.stamp is not None
            app.close()
            path.write_bytes(bytes(8192))
            assert page_size_of(follow.tracked, follow.state) == 8192
            assert page_size_of(follow.tracked, fresh) is None
            path.unlink()
            assert page_size_of(follow.tracked, fresh) is None


def beside_wal(follow: Following) -> FileBesideWal:
    """Begin a step."""
    wal_pair = follow.tracked.wal_pairs.current
    assert wal_pair is not None
    return FileBesideWal(follow.tracked, wal_pair)


def test_the_file_is_not_that_of_an_earlier_incarnation(app: SqliteProcess, follow: Following) -> None:
    """A look at the file before the WAL restarted would explain any later write. Otherwise one look is enough."""
    app.execute(CHECKPOINT)
    follow.look()
    file = beside_wal(follow)
    before = file.seen(follow.cursor.salts)
    assert file.seen(follow.cursor.salts) is before
    app.execute(insert(1))
    follow.look()
    assert file.seen(follow.cursor.salts).salts == follow.cursor.salts != before.salts


def test_the_file_is_not_that_before_a_checkpoint(app: SqliteProcess, follow: Following) -> None:
    """Facts from before a checkpoint would let it explain what somebody writes to the file while the daemon is away."""
    file = beside_wal(follow)
    app.execute(insert(1))
    follow.look()
    before = file.seen(follow.cursor.salts)
    app.execute(CHECKPOINT)
    follow.watch.drain()
    after = file.seen(follow.cursor.salts)
    assert before.explains(after)
    assert after.backfilled != before.backfilled
    assert after == beside_wal(follow).seen(follow.cursor.salts)


@pytest.mark.usefixtures("app")
def test_a_step_beside_a_file_that_is_gone(follow: Following) -> None:
    """There is nothing to compare, and commits have no place."""
    follow.look()
    salts, file = follow.cursor.salts, beside_wal(follow)
    follow.path.unlink()
    assert file.last_look() is None
    with pytest.raises(MissingError):
        file.seen(salts)
