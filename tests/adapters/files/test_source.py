"""Tests of walsyncd.adapters.files.source. SQLite works in other processes, as it does for the daemon."""

from __future__ import annotations

import errno
import os
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from walsyncd.adapters.files import source
from walsyncd.adapters.files.source import (
    OpenFile,
    Role,
    hot_journal,
    open_file,
    side_path,
)
from walsyncd.errors import RefusedError, TransientError, UsageError

NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def opened(path: Path) -> OpenFile:
    file = open_file(path)
    assert file is not None
    return file


def open_flags(file: OpenFile) -> int:
    lines = Path(f"/proc/self/fdinfo/{file.fileno()}").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("flags:")).split()[1], base=8)


@contextmanager
def unprivileged_folder() -> Iterator[Path]:
    """Return a folder that everybody can enter, and act as nobody, because root may read everything."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name)
        path.chmod(0o755)
        yield path


@contextmanager
def as_nobody() -> Iterator[None]:
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def refuse(code: int) -> OSError:
    return OSError(code, os.strerror(code))


# Opening


def test_descriptors_are_read_only(tmp_path: Path) -> None:
    """A file is opened O_RDONLY and O_CLOEXEC, and writing to it fails."""
    (tmp_path / "a").write_bytes(b"x")
    with opened(tmp_path / "a") as file:
        assert open_flags(file) & os.O_ACCMODE == os.O_RDONLY
        assert not os.get_inheritable(file.fileno())
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.write(file.fileno(), b"y")


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    """Without the file or its folder, or with a file in the folder's place, there is nothing to open, and no error."""
    (tmp_path / "file").touch()
    assert open_file(tmp_path / "a") is None
    assert open_file(tmp_path / "b" / "a") is None
    assert open_file(tmp_path / "file" / "a") is None


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    """A folder, a FIFO (without blocking on it) and a socket are no databases."""
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        for name in ("folder", "fifo", "socket"):
            with pytest.raises(UsageError, match=rf"open .*/{name}: not a regular file"):
                open_file(tmp_path / name)


@pytest.mark.parametrize("target", ["file", "nothing", "link", "folder"])
def test_a_link_is_refused_whatever_it_leads_to(tmp_path: Path, target: str) -> None:
    """A path is resolved before. A link in the place of the file or of a folder is newer, and is not followed."""
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").touch()
    (tmp_path / "link").symlink_to(target)
    for path in (tmp_path / "link", tmp_path / "link" / "file"):
        if path.parent != tmp_path and target != "folder":
            continue
        with pytest.raises(UsageError, match=f"open {path}: there is a symbolic link in its place"):
            open_file(path)


@needs_root
@pytest.mark.root
def test_somebody_elses_file_under_another_name_is_refused(tmp_path: Path) -> None:
    """A tenant's hard link to another user's file is refused.

    A second name for his own, as `cp -al` makes it, is not.
    """
    his, theirs = tmp_path / "his", tmp_path / "theirs"
    for number, folder in enumerate((his, theirs), 5001):
        folder.mkdir()
        (folder / "app.db").touch()
        for path in (folder, folder / "app.db"):
            os.chown(path, number, number)
    (his / "stolen.db").hardlink_to(theirs / "app.db")
    (tmp_path / "copy.db").hardlink_to(his / "app.db")
    opened(his / "stolen.db").close()  # somebody gave it another name
    with pytest.raises(UsageError, match=r"open .*/stolen.db: it has several names"):
        open_file(his / "stolen.db", own_only=True)
    for path in (his / "app.db", theirs / "app.db"):
        file = open_file(path, own_only=True)
        assert file is not None
        file.close()


def test_a_link_to_an_open_file_does_not_name_it(tmp_path: Path) -> None:
    """The file was moved away and a link to it left, so SQLite's side files are elsewhere now."""
    path, moved = tmp_path / "a", tmp_path / "b"
    path.touch()
    with opened(path) as file:
        path.rename(moved)
        path.symlink_to(moved)
        assert not file.still_named()


@needs_root
@pytest.mark.root
def test_no_permission_names_path_and_remedy() -> None:
    """A file that may not be read is refused with its path and the ways to permit it."""
    with unprivileged_folder() as folder:
        (folder / "app.db").touch(mode=0o600)
        with as_nobody(), pytest.raises(RefusedError) as refused:
            open_file(folder / "app.db")
    assert str(folder / "app.db") in refused.value.message
    assert "setfacl" in refused.value.hint
    assert "CAP_DAC_READ_SEARCH" in refused.value.hint


@needs_root
@pytest.mark.root
def test_access_time_is_spared_where_that_is_permitted() -> None:
    """O_NOATIME needs ownership, so another user's file is opened without it."""
    with unprivileged_folder() as folder:
        (folder / "app.db").touch(mode=0o644)
        with opened(folder / "app.db") as file:
            assert open_flags(file) & os.O_NOATIME
        with as_nobody(), opened(folder / "app.db") as file:
            assert not open_flags(file) & os.O_NOATIME


@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE, errno.ESTALE])
def test_a_failing_device_is_transient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """An error of opening or reading, except for permission, may pass. It names path and reason."""
    path = tmp_path / "app.db"
    path.write_bytes(b"x")

    def fail(*_arguments: object, **_options: object) -> bytes:
        raise refuse(code)

    with opened(path) as file:
        monkeypatch.setattr(os, "pread", fail)
        with pytest.raises(TransientError, match=rf"read 10 bytes at 5 of .*{path}: {os.strerror(code)}"):
            file.pread(5, 10)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(TransientError, match=f"open {path}: {os.strerror(code)}"):
        open_file(path)


# Reading


def test_pread_is_short_only_at_the_end(tmp_path: Path) -> None:
    """Bytes come in full up to the end of the file."""
    (tmp_path / "a").write_bytes(b"0123456789")
    with opened(tmp_path / "a") as file:
        assert file.pread(2, 3) == b"234"
        assert file.pread(8, 5) == b"89"
        assert file.pread(20, 5) == b""
        assert file.size() == 10


def test_pread_goes_on_after_a_short_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A read that the kernel cut short is continued where it ended."""
    (tmp_path / "a").write_bytes(b"0123456789")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, length, offset: pread(fd, min(length, 3), offset))
    with opened(tmp_path / "a") as file:
        assert file.pread(0, 10) == b"0123456789"
        assert file.pread(1, 4) == b"1234"
        assert file.pread(4, 20) == b"456789"


def test_identity(tmp_path: Path) -> None:
    """An identity is device, inode and birth time. It changes with the file, not with the name."""
    path = tmp_path / "a"
    path.write_bytes(b"x")
    with opened(path) as file:
        before = file.identity()
        status = path.stat()
        assert (before.device, before.inode, before.size) == (status.st_dev, status.st_ino, 1)
        assert (before.mtime_ns, before.ctime_ns) == (status.st_mtime_ns, status.st_ctime_ns)
        assert before.birth_ns is None or before.birth_ns <= before.ctime_ns
        path.write_bytes(b"xy")
        assert file.identity().size == 2
        assert file.identity().birth_ns == before.birth_ns


def test_an_unlinked_file_is_whole_and_no_longer_named(tmp_path: Path) -> None:
    """A file outlives its name while its descriptor is open. A new file of that name is another file."""
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with opened(path) as file:
        assert file.still_named()
        assert not file.unlinked()
        path.unlink()
        assert file.unlinked()
        assert not file.still_named()
        path.write_bytes(b"new")
        assert not file.still_named()
        assert file.pread(0, 3) == b"old"


def test_a_renamed_file_is_no_longer_named(tmp_path: Path) -> None:
    """A file is no longer the named one if another was renamed over it. Renamed back, it is again."""
    path, other = tmp_path / "a", tmp_path / "b"
    path.touch()
    with opened(path) as file:
        path.rename(other)
        assert not file.still_named()
        other.rename(path)
        assert file.still_named()


def test_read_header(tmp_path: Path) -> None:
    """The header of a database in WAL mode says so; an empty file has none."""
    path = tmp_path / "app.db"
    wal_database(path).close()
    with opened(path) as file:
        header = source.read_header(file)
        assert header is not None
        assert header.wal_mode
    (tmp_path / "empty.db").touch()
    with opened(tmp_path / "empty.db") as file:
        assert source.read_header(file) is None


# Names


def test_hot_journals(tmp_path: Path) -> None:
    """The journal of a transaction that is under way or was killed is hot. A missing, empty or zeroed one is not."""
    path = tmp_path / "app.db"
    journal = side_path(path, Role.JOURNAL)
    with SqliteProcess(path) as app:
        app.execute("CREATE TABLE t (x)")
        assert not hot_journal(path)
        # SQLite spills its cache to the database before the commit, so the journal must be valid by then.
        app.execute(
            "PRAGMA cache_size=1",
            "BEGIN",
            "INSERT INTO t SELECT randomblob(5000) FROM json_each(json_array(1,2,3,4,5,6,7,8))",
        )
        app.kill()
    assert hot_journal(path)
    journal.write_bytes(bytes(28))
    assert not hot_journal(path)
    journal.write_bytes(b"")
    assert not hot_journal(path)


def test_side_names() -> None:
    """SQLite appends to the whole name, whatever its suffix."""
    path = Path("/srv/app.db")
    assert side_path(path, Role.DATABASE) == path
    assert side_path(path, Role.WAL) == Path("/srv/app.db-wal")
    assert side_path(Path("/srv/app"), Role.SHM) == Path("/srv/app-shm")
    assert source.is_side_name("app.db-journal")
    assert not source.is_side_name("app.db")


def test_machine_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The boot's id does not change. A machine without an id is identified by its host name."""
    assert len(source.boot_id()) == 36
    assert source.boot_id() == source.boot_id()
    assert source.machine_id()

    def absent(_path: Path, **_options: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", absent)
    assert source.machine_id() == f"host-{os.uname().nodename}"


def test_a_descriptor_that_is_held_is_closed_after_its_release(tmp_path: Path) -> None:
    """Closing the descriptor meanwhile does not fail, and does not free its number."""
    path = tmp_path / "file"
    path.write_bytes(b"content")
    file = open_file(path)
    assert file is not None
    descriptor = file.fileno()
    assert file.hold()
    file.close()
    assert file.pread(0, 7) == b"content"
    assert not file.hold()
    file.release()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
