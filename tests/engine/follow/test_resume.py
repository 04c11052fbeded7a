"""Tests of walsyncd.engine.follow.resume: a new daemon has only the journal, and the WAL as it is now."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.following import Following, insert
from walsyncd.core.follow.resumption import QUIET_AFTER_REBOOT_MS


def damage(path: Path, frame: int) -> None:
    """Change a frame of the WAL, as if its block had been lost."""
    with path.with_name("app.db-wal").open("r+b") as file:
        file.seek(32 + (frame - 1) * 4120 + 100)
        file.write(b"lost")


def test_nothing_happened(app: SqliteProcess, follow: Following) -> None:
    """With the same WAL in the same boot the daemon continues where it stopped, and writes nothing."""
    follow.look()
    before = follow.state
    follow.die()
    assert not follow.restart().look().gap
    assert follow.state == before
    follow.proves(app)


def test_commits_while_it_was_away(app: SqliteProcess, follow: Following) -> None:
    """In the same incarnation the chain alone is the proof."""
    follow.look()
    for value in range(3):
        follow.die()
        app.execute(insert(value))
        assert not follow.restart().look().gap
    follow.proves(app)


def test_the_writer_was_killed_while_it_was_away(app: SqliteProcess, follow: Following) -> None:
    """The WAL was recovered in place and written on, so the chain continues."""
    follow.look()
    follow.die()
    app.execute(insert(1))
    app.kill()
    with SqliteProcess(follow.path) as other:
        other.execute(insert(2))
        assert not follow.restart().look().gap
        follow.proves(other)


def test_the_wal_was_deleted_while_it_was_away(app: SqliteProcess, follow: Following) -> None:
    """The database was closed, or closed and opened again, so there is a gap."""
    follow.look()
    follow.die()
    app.close()
    assert follow.restart().gap() == "the WAL was deleted while it was not watched"
    follow.die()
    with SqliteProcess(follow.path) as other:
        other.execute(insert(1))
        assert follow.restart().gap()


@pytest.mark.usefixtures("app")
def test_the_database_was_replaced_while_it_was_away(follow: Following, tmp_path: Path) -> None:
    """Another inode is a gap, whatever the WAL says."""
    path = follow.path
    follow.look()
    follow.die()
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    copy.rename(path)
    assert follow.restart().gap() == "another file was put in the database's place"


def test_a_reboot_with_everything_there(app: SqliteProcess, follow: Following) -> None:
    """The chain is verified from frame 1, and the state is noted as one of this boot."""
    follow.look()
    follow.die()
    follow.reboot()
    app.execute(insert(1))
    assert not follow.restart().look().gap
    assert follow.state.file.boot_id == follow.boot_id
    follow.proves(app)


@pytest.mark.parametrize("frame", [1, 3])
def test_a_block_that_was_lost_in_a_reboot_is_a_fork(app: SqliteProcess, follow: Following, frame: int) -> None:
    """A lost block before our last frame is a fork, too, even if that frame survived."""
    follow.look()
    app.kill()
    follow.die()
    follow.reboot()
    damage(follow.path, frame)
    follow.restart()
    follow.look(until=lambda step: step.again_s == 1.0)
    follow.ahead_ms += QUIET_AFTER_REBOOT_MS
    follow.finds_gap(f"the WAL holds {frame - 1} of {follow.cursor.frames} frames")


def test_frames_after_a_reboot_wait_for_somebody_or_for_quiet(app: SqliteProcess, follow: Following) -> None:
    """If nobody has the database open, they are shipped after a while, even if the daemon restarts within it."""
    follow.look()
    follow.die()
    app.execute(insert(1))
    app.kill()
    follow.reboot()
    for _ in range(2):
        follow.restart()
        step = follow.step()
        assert (step.again_s, step.caught_up, step.objects) == (1.0, False, ())
        follow.die()
    follow.restart().step()
    follow.ahead_ms += QUIET_AFTER_REBOOT_MS
    assert not follow.look().gap
    with SqliteProcess(follow.path) as other:
        follow.proves(other)


def test_frames_after_a_reboot_that_somebody_published(app: SqliteProcess, follow: Following) -> None:
    """The first opener recovered the frames, so they are shipped at once."""
    follow.look()
    follow.die()
    app.execute(insert(1))
    app.kill()
    follow.reboot()
    with SqliteProcess(follow.path) as other:
        other.execute("SELECT * FROM t")
        assert not follow.restart().look().gap
        follow.proves(other)


def test_another_wal_file_with_the_same_frames(app: SqliteProcess, follow: Following, tmp_path: Path) -> None:
    """A copy in the WAL's place is verified from frame 1, then followed."""
    follow.look()
    app.kill()
    follow.die()
    wal = follow.path.with_name("app.db-wal")
    copy = tmp_path / "copy"
    copy.write_bytes(wal.read_bytes())
    copy.rename(wal)
    assert not follow.restart().look().gap
    assert follow.state.file.wal_inode == wal.stat().st_ino
