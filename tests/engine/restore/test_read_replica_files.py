"""Tests of the files of a copy that follows: it is replaced, killed at the worst moment, or written to by others, and
links.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.restore.test_read_replica import content, following
from tests.replicas import NEXT_GENERATION, ReplicaMaker, make_replica
from walsyncd.adapters.files.open_folder import OpenFolder
from walsyncd.adapters.files.target import follow_path
from walsyncd.engine.restore.read_replica import FollowLimits
from walsyncd.errors import RefusedError, StateError, WalsyncdError


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[ReplicaMaker]:
    with make_replica(tmp_path) as made:
        made.base()
        made.commit(2)
        made.ship()
        yield made


def test_copy_that_others_wrote_to_stays_stopped(maker: ReplicaMaker, tmp_path: Path) -> None:
    """When a service manager starts the follower again, it does not continue as if nothing had happened.

    Force restores the copy.
    """
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica:
        with SqliteProcess(out) as other:
            other.execute("UPDATE counter SET value = 99")
            other.close()
        maker.commit()
        maker.ship()
        with pytest.raises(RefusedError, match="another process has written"):
            read_replica.look()
    with pytest.raises(RefusedError, match="another process has written"), following(maker, out):
        pass
    with following(maker, out, force=True):
        assert content(out) == content(maker.path)


def test_file_that_was_replaced_meanwhile_is_compared(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The content of a backup that was copied back, or of a file from another machine, is unknown."""
    out = tmp_path / "copy.db"
    with following(maker, out):
        pass
    old = out.read_bytes()
    maker.commit(3)
    maker.ship()
    with following(maker, out) as read_replica:
        assert read_replica.look()
    out.unlink()
    out.with_name("filler").touch()
    out.write_bytes(old)
    with following(maker, out) as read_replica:
        moved = read_replica.look()
        assert moved is not None
        assert "not the file that was followed" in moved.rebuilt
        assert content(out) == content(maker.path)
    with following(maker, out) as read_replica:
        moved = read_replica.look()
        assert moved is None or not moved.rebuilt


def test_first_restore_that_is_killed_is_gone_on_with(
    maker: ReplicaMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever the restore was killed, either there is no file yet, or the file has its note beside it."""
    out = tmp_path / "copy.db"
    rename = OpenFolder.rename

    def killed_before(folder: OpenFolder, name: str, new_name: str) -> None:
        if new_name == out.name:
            raise SystemExit(9)
        rename(folder, name, new_name)

    def killed_after(folder: OpenFolder, name: str, new_name: str) -> None:
        rename(folder, name, new_name)
        if new_name == out.name:
            raise SystemExit(9)

    for killed in (killed_before, killed_after):
        monkeypatch.setattr(OpenFolder, "rename", killed)
        with pytest.raises(SystemExit), following(maker, out):
            pass
    monkeypatch.undo()
    with following(maker, out) as read_replica:
        read_replica.look()
        assert content(out) == content(maker.path)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be deceived")
def test_links_in_the_place_of_its_files_are_not_followed(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The folder's owner could put links in the place of the note, of the new restore beside the copy, and of what
    is left of it.
    """
    folder, victim = tmp_path / "tenant", tmp_path / "victim"
    folder.mkdir()
    os.chown(folder, 12345, 12345)
    victim.write_bytes(b"root's")
    out = folder / "copy.db"
    with following(maker, out):
        pass
    assert {path.stat().st_uid for path in folder.iterdir()} == {12345}
    point = follow_path(out)
    kept = point.read_bytes()
    point.unlink()
    point.symlink_to(victim)
    with pytest.raises(WalsyncdError), following(maker, out):
        pass
    point.unlink()
    point.write_bytes(kept)
    with following(maker, out) as read_replica:
        (folder / ".copy.db.next").symlink_to(victim)
        (folder / ".copy.db.next-wal").symlink_to(victim)
        maker.begin_generation(NEXT_GENERATION)
        maker.base()
        with pytest.raises(RefusedError, match="symbolic link"):
            read_replica.look()
    assert (victim.read_bytes(), victim.stat().st_uid) == (b"root's", 0)


def test_wal_that_fills_the_disk_is_copied_back(
    maker: ReplicaMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a kill with a long WAL, the copy must not wait for room that its own WAL takes."""
    out = tmp_path / "copy.db"
    with following(maker, out) as read_replica:
        maker.commit(3, rows=100)
        maker.ship()
        assert read_replica.look()
        assert Path(f"{out}-wal").stat().st_size > 0
        maker.commit(1)
        maker.ship()

        def full(_descriptor: int, _data: memoryview, _offset: int) -> None:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr("walsyncd.adapters.files.replica_file.write_whole", full)
            with pytest.raises(StateError, match="no space left"):
                read_replica.look()
        assert Path(f"{out}-wal").stat().st_size == 0
        assert read_replica.look()
        assert content(out) == content(maker.path)


def test_long_wal_is_emptied_once_its_reader_is_gone(maker: ReplicaMaker, tmp_path: Path) -> None:
    """The WAL is emptied even if no further transaction comes."""
    out = tmp_path / "copy.db"
    with (
        following(maker, out, limits=FollowLimits(wal_bytes_max=1000, checkpoint_wait_s=0)) as read_replica,
        SqliteProcess(f"file:{out}?mode=ro") as reader,
    ):
        maker.commit(3, rows=10)
        maker.ship()
        reader.execute("BEGIN", "SELECT count(*) FROM t")
        assert read_replica.look()
        assert Path(f"{out}-wal").stat().st_size > 0
        reader.execute("COMMIT")
        assert read_replica.look() is None
        assert Path(f"{out}-wal").stat().st_size == 0


def test_long_backlog_is_applied_in_several_transactions(maker: ReplicaMaker, tmp_path: Path) -> None:
    """Each transaction ends with an object, so the copy's own WAL stays short."""
    out = tmp_path / "copy.db"
    with following(maker, out, limits=FollowLimits(wal_bytes_max=1000)) as read_replica:
        maker.commit(3, rows=20)
        keys = maker.ship(every=1)
        reached = [read_replica.look() for _ in keys]
        assert [moved and moved.point.position.frame for moved in reached] == [key.last for key in keys]
        assert read_replica.look() is None
        assert content(out) == content(maker.path)
