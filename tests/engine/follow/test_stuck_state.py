"""Tests of stuck_state: a temporary state that does not pass is reported, or the WAL itself is read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.engine.following import Following, insert
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.sqlite.wal import format_wal_header
from walsyncd.engine.follow.begin_generation import begin_step
from walsyncd.engine.follow.stuck_state import PATIENCE_MS
from walsyncd.engine.follow.wal_pair import NEW_INDEX
from walsyncd.errors import TransientError

_LOCKER = (
    "import fcntl, sys; f = open(sys.argv[1], 'r+b'); fcntl.lockf(f, fcntl.LOCK_EX, 1, 128); print(flush=True); input()"
)


def tear(path: Path) -> None:
    """Leave the wal-index as a writer does that dies between the two copies of its header."""
    with path.with_name("app.db-shm").open("r+b") as file:
        file.seek(48 + 8)
        file.write(b"torn")


def name_another(path: Path) -> None:
    """Write a WAL header that is valid, but not the one of the wal-index."""
    with path.with_name("app.db-wal").open("r+b") as file:
        file.write(format_wal_header(page_size=4096, big_endian=False, sequence=9, salt1=8, salt2=7))


@contextmanager
def setting_up(path: Path) -> Iterator[None]:
    """Run a process that holds the lock under which a wal-index is set up."""
    arguments = [sys.executable, "-c", _LOCKER, str(path.with_name("app.db-shm"))]
    with subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        yield
        process.communicate(b"\n")


def test_a_header_that_stays_torn(app: SqliteProcess, follow: Following) -> None:
    """The WAL is scanned, and this is reported. Once a reader has repaired the wal-index, it is believed again."""
    follow.look()
    app.execute(insert(1))
    tear(follow.path)
    for _ in range(3):
        assert follow.step().is_shortly
    follow.ahead_ms += PATIENCE_MS
    assert "header is being written" in follow.step().doubt
    follow.sees_all(app)
    app.execute(insert(2))
    assert not follow.look().gap
    assert follow.tracked.evidence.believe_index
    follow.proves(app)


def test_a_new_wal_whose_header_stays_torn(follow: Following) -> None:
    """The first WAL after a time without one is scanned in the same way."""
    with SqliteProcess(follow.path) as app:
        app.execute("SELECT * FROM t")
        follow.look()
        app.execute(insert(1))
        tear(follow.path)
        assert follow.step().is_shortly
        follow.ahead_ms += PATIENCE_MS
        assert follow.step().doubt
        follow.sees_all(app)


def test_a_wal_that_is_never_the_one_of_the_wal_index(app: SqliteProcess, follow: Following) -> None:
    """Whatever that WAL is, it does not continue from our position, so there is a gap."""
    follow.look()
    app.execute(insert(1))
    name_another(follow.path)
    assert follow.step().is_shortly
    follow.ahead_ms += PATIENCE_MS
    assert "is not the one" in follow.step().doubt
    assert follow.gap()


def test_a_wal_whose_header_is_never_written(app: SqliteProcess, follow: Following) -> None:
    """Nobody uses the WAL any more, and its content can't be read."""
    follow.look()
    app.kill()
    with follow.path.with_name("app.db-wal").open("r+b") as file:
        file.write(bytes(32))
    assert follow.step().is_shortly
    follow.ahead_ms += PATIENCE_MS
    assert follow.gap() == "for 5 s the WAL's header is being written"


def test_a_wal_index_that_is_set_up_for_ever(app: SqliteProcess, follow: Following) -> None:
    """The process that sets up is stopped. Only its user can help, so this is reported. Nothing is lost meanwhile."""
    path = follow.path
    follow.look()
    app.kill()
    with setting_up(path):
        assert follow.step().is_shortly
        follow.ahead_ms += PATIENCE_MS
        for _ in range(2):
            with pytest.raises(TransientError, match="setting up"):
                follow.step()
    assert not follow.look().gap
    with SqliteProcess(path) as other:
        other.execute(insert(1))
        follow.sees_all(other)


@pytest.mark.parametrize("is_killed", [True, False])
def test_a_wal_index_that_somebody_deleted(app: SqliteProcess, follow: Following, *, is_killed: bool) -> None:
    """A last close deletes the WAL right after the wal-index.

    If the WAL is not deleted, there was no last close, even if somebody still uses the WAL.
    """
    follow.look()
    if is_killed:
        app.kill()
    follow.path.with_name("app.db-shm").unlink()
    assert follow.step().is_shortly
    follow.ahead_ms += PATIENCE_MS
    gap = follow.step().gap
    assert gap is not None
    assert (gap.kind, "removed the -shm" in gap.reason) == (GapKind.DOUBT, True)


@pytest.mark.parametrize("looked", [True, False])
@pytest.mark.usefixtures("app")
def test_a_new_wal_index_beside_the_old_wal(follow: Following, *, looked: bool) -> None:
    """Two processes that do not know of each other write to one WAL, which is reported at once."""
    path = follow.path
    if looked:
        follow.look()
    path.with_name("app.db-shm").unlink()
    with SqliteProcess(path) as other:
        other.execute("SELECT * FROM t")
        gap = follow.look().gap
        assert gap is not None
        assert (gap.kind, gap.reason) == (GapKind.DOUBT, NEW_INDEX)


@pytest.mark.usefixtures("app")
def test_a_change_begins_the_patience_anew(follow: Following) -> None:
    """As long as something changes, the state may pass."""
    path = follow.path
    follow.look()
    tear(path)
    for more in range(3):
        assert follow.step().is_shortly
        follow.ahead_ms += PATIENCE_MS
        with path.with_name("app.db-wal").open("ab") as file:
            file.write(bytes(more + 1))


def test_a_generation_begins_behind_a_torn_header(tmp_path: Path) -> None:
    """The generation begins before the first frame of the present WAL.

    A wal-index being set up is waited for and reported.
    """
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f") as follow:
        tear(path)
        step = begin_step(follow.tracked, follow.environment, "g")
        assert step.state is None
        follow.tracked.apply(step)
        follow.ahead_ms += PATIENCE_MS
        state = begin_step(follow.tracked, follow.environment, "g").state
        assert state is not None
        assert state.cursor is not None
        app.kill()
        with setting_up(path):
            step = begin_step(follow.tracked, follow.environment, "g")
            assert step.state is None
            follow.tracked.apply(step)
            follow.ahead_ms += PATIENCE_MS
            with pytest.raises(TransientError, match="setting up"):
                begin_step(follow.tracked, follow.environment, "g")
