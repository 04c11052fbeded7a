"""Tests that the restored file appears in one step, beside nothing stale, or not at all."""

from __future__ import annotations

import os
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from walsyncd.adapters.files.target import Access, Target
from walsyncd.errors import RefusedError, TransientError, UsageError, WalsyncdError

TAG = "0123abcd"


def build(path: Path, content: bytes, stamp: str = "20261122T105600Z", access: Access | None = None) -> list[Path]:
    target = Target(path)
    with target.building(TAG) as descriptor:
        os.write(descriptor, content)
        return target.publish(descriptor, stamp=stamp, access=access or Access())


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_published_file_is_the_only_one(tmp_path: Path) -> None:
    """The temporary file has been renamed to the target."""
    assert build(tmp_path / "app.db", b"new") == []
    assert names(tmp_path) == ["app.db"]
    assert (tmp_path / "app.db").read_bytes() == b"new"


def test_error_leaves_nothing(tmp_path: Path) -> None:
    """Whatever ends the building, no file stays."""

    def fail() -> None:
        with Target(tmp_path / "app.db").building(TAG):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert names(tmp_path) == []


def test_stale_files_are_moved_aside_and_never_replaced(tmp_path: Path) -> None:
    """-wal, -shm and -journal get new names, even if that second's names exist already."""
    for content in (b"1", b"2"):
        for suffix in ("-wal", "-shm", "-journal"):
            (tmp_path / f"app.db{suffix}").write_bytes(content)
        moved = build(tmp_path / "app.db", b"new")
        assert [path.read_bytes() for path in moved] == [content] * 3
    assert len([name for name in names(tmp_path) if "before-restore-20261122T105600Z" in name]) == 6


def test_failed_rename_puts_back_what_was_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The old database keeps its WAL if the new one can't take its place."""
    (tmp_path / "app.db").mkdir()
    (tmp_path / "app.db-wal").write_bytes(b"old")
    target = Target(tmp_path / "app.db")
    monkeypatch.setattr(target, "_check_unused", lambda: None)
    with pytest.raises(WalsyncdError, match="write"), target.building(TAG) as descriptor:
        target.publish(descriptor, stamp="x")
    assert names(tmp_path) == ["app.db", "app.db-wal"]


def test_what_may_not_be_replaced_is_refused(tmp_path: Path) -> None:
    """A file is refused without force, a folder even with it, and so is a missing parent folder."""
    (tmp_path / "app.db").touch()
    with pytest.raises(UsageError, match="exists"):
        Target(tmp_path / "app.db").check(force=False)
    Target(tmp_path / "app.db").check(force=True)
    with pytest.raises(UsageError, match="not a regular file"):
        Target(tmp_path).check(force=True)
    with pytest.raises(UsageError, match="there is no folder"):
        Target(tmp_path / "nowhere" / "app.db").check(force=False)


def test_open_database_is_refused_until_it_is_closed(tmp_path: Path) -> None:
    """An idle connection in WAL mode is seen by its locks, also one that was opened while the file was built."""
    path = tmp_path / "app.db"
    target = Target(path)
    with target.building(TAG) as descriptor, wal_database(path) as process:
        with pytest.raises(RefusedError, match="has this database open"):
            target.check(force=True)
        with pytest.raises(RefusedError, match="has this database open"):
            target.publish(descriptor, stamp="x")
        process.close()
    assert path.exists()
    Target(path).check(force=True)


def test_mode_and_owner(tmp_path: Path) -> None:
    """A new file is private and gets the owner of its folder. A replaced one keeps its mode and owner."""
    path = tmp_path / "app.db"
    is_root = os.geteuid() == 0
    if is_root:
        os.chown(tmp_path, 1234, 1234)
    build(path, b"new")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    if is_root:
        assert (path.stat().st_uid, path.stat().st_gid) == (1234, 1234)
        os.chown(path, 1, 2)
    build(path, b"newer")
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    if is_root:
        assert (path.stat().st_uid, path.stat().st_gid) == (1, 2)


def test_folder_that_lets_its_group_in_says_so_for_the_file(tmp_path: Path) -> None:
    """A new file may be read by those whom its folder lets in, and by nobody else."""
    for folder_mode, mode in ((0o700, 0o600), (0o750, 0o640), (0o755, 0o640)):
        folder = tmp_path / f"{folder_mode:o}"
        folder.mkdir()
        folder.chmod(folder_mode)
        build(folder / "app.db", b"new")
        assert stat.S_IMODE((folder / "app.db").stat().st_mode) == mode


def test_owner_and_mode_that_were_asked_for(tmp_path: Path) -> None:
    """Requested owner and mode take precedence over those of the replaced file.

    A user who may not change owners is refused.
    """
    path = tmp_path / "app.db"
    path.touch(0o644)
    build(path, b"new", access=Access(mode=0o400))
    assert stat.S_IMODE(path.stat().st_mode) == 0o400
    if os.geteuid() == 0:
        build(path, b"new", access=Access(7, 8))
        assert (path.stat().st_uid, path.stat().st_gid) == (7, 8)
    else:
        with pytest.raises(RefusedError, match="not permitted"):
            build(path, b"new", access=Access(uid=0))


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TransientError])
def test_large_file_is_kept_when_interrupted_and_gone_on_with(tmp_path: Path, error: type[BaseException]) -> None:
    """The next restore of the same content continues with the partial file. For another content the file is removed."""

    def interrupted(tag: str) -> None:
        with Target(tmp_path / "app.db").building(tag, kept_bytes_min=4096) as descriptor:
            os.write(descriptor, b"x" * 5000)
            raise error("stop")

    for _ in range(2):
        with pytest.raises(error):
            interrupted(TAG)
    assert names(tmp_path) == [f".app.db.{TAG}.partial"]
    with Target(tmp_path / "app.db").building(TAG) as descriptor:
        assert os.fstat(descriptor).st_size == 5000
    assert names(tmp_path) == []
    with pytest.raises(error):
        interrupted("other")
    build(tmp_path / "app.db", b"new")
    assert names(tmp_path) == ["app.db"]


def test_error_of_another_kind_keeps_nothing(tmp_path: Path) -> None:
    """After a damaged replica or a full disk another attempt would fail at the same place."""
    target = Target(tmp_path / "app.db")
    with pytest.raises(RefusedError, match="No space"), target.building(TAG, kept_bytes_min=0):
        raise OSError(28, "No space left on device")
    assert names(tmp_path) == []


def test_two_restores_to_one_file_do_not_meet(tmp_path: Path) -> None:
    """The second restore is refused, and the first continues."""
    with Target(tmp_path / "app.db").building(TAG):
        with pytest.raises(RefusedError, match="another restore"), Target(tmp_path / "app.db").building(TAG):
            pass
        assert names(tmp_path) == [f".app.db.{TAG}.partial"]


def test_partial_file_of_somebody_else_is_not_written(tmp_path: Path) -> None:
    """In a folder that everybody may write to, the name may be taken by a link, or by a file with another name."""
    partial = tmp_path / f".app.db.{TAG}.partial"
    (tmp_path / "victim").write_bytes(b"mine")
    partial.symlink_to(tmp_path / "victim")
    with pytest.raises(RefusedError), Target(tmp_path / "app.db").building(TAG):
        pass
    partial.unlink()
    partial.hardlink_to(tmp_path / "victim")
    with pytest.raises(RefusedError, match="not ours"), Target(tmp_path / "app.db").building(TAG):
        pass
    assert (tmp_path / "victim").read_bytes() == b"mine"


def test_nobody_can_open_the_database_while_it_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SQLite's locks are held from the last check to the rename, so a new connection finds the database busy."""
    path = tmp_path / "app.db"
    with wal_database(path) as process:
        process.close()
    stale = Target._stale
    told: list[str] = []

    def meanwhile(target: Target, stamp: str) -> object:
        with closing(sqlite3.connect(path, timeout=0)) as connection, pytest.raises(sqlite3.OperationalError) as busy:
            connection.execute("SELECT * FROM t")
        told.append(str(busy.value))
        return stale(target, stamp)

    monkeypatch.setattr(Target, "_stale", meanwhile)
    build(path, b"")
    assert told == ["database is locked"]
    assert path.read_bytes() == b""


def test_lack_of_room_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    """A file larger than the file system is refused with the numbers."""
    with pytest.raises(RefusedError, match="are free"):
        Target(tmp_path / "app.db").check_space(1 << 62)
    Target(tmp_path / "app.db").check_space(0)


def test_long_name_has_room_for_the_temporary_file(tmp_path: Path) -> None:
    """A name of 255 bytes can be restored."""
    name = "ä" * 120 + ".db"
    build(tmp_path / name, b"new")
    assert names(tmp_path) == [name]
