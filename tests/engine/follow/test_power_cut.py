"""Tests of power cuts and failed writes: what was not synced may be lost, in part and in any order.

Every position that was stored before is still what was committed then, and later ones are another history. `Keeping`
compares each with the oracle.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteError, SqliteProcess, wal_database
from tests.engine.following import insert
from tests.engine.keeping import Keeping

FRAME = 24 + 4096


def cut(wal: bytes, frame: int) -> bytes:
    return wal[: 32 + (frame - 1) * FRAME]


def torn(wal: bytes, frame: int) -> bytes:
    return cut(wal, frame) + wal[32 + (frame - 1) * FRAME :][: FRAME // 2]


def zeroed(wal: bytes, frame: int) -> bytes:
    return cut(wal, frame).ljust(len(wal), b"\0")


def hole(wal: bytes, frame: int) -> bytes:
    at = 32 + (frame - 1) * FRAME
    return wal[:at] + bytes(FRAME) + wal[at + FRAME :]


DAMAGES = [cut, torn, zeroed, hole]


def lose_power(keeping: Keeping, application: SqliteProcess, damage: Callable[[bytes, int], bytes], frame: int) -> None:
    """Cut the power. When it is back, the WAL is damaged at ``frame``, and the wal-index is as it was."""
    keeping.stop()
    application.kill()
    wal = Path(f"{keeping.path}-wal")
    wal.write_bytes(damage(wal.read_bytes(), frame))
    keeping.note()
    keeping.reboot()


@pytest.mark.parametrize("application_first", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_shipped_commits_are_lost(
    tmp_path: Path, damage: Callable[[bytes, int], bytes], *, application_first: bool
) -> None:
    """History forks, whichever process starts first. The frame at our position may have survived."""
    path = tmp_path / "app.db"
    with wal_database(path) as application, Keeping(path, tmp_path / "f") as keeping:
        assert not keeping.watch_over(application, "SELECT 1", *(insert(value) for value in range(5)))
        frames, positions = keeping.cursor.frames, keeping.stored and keeping.stored.positions
        lose_power(keeping, application, damage, frames - 2)
        if not application_first:
            keeping.start()
            assert "history forked" in keeping.keep_up()
        with SqliteProcess(path) as other:
            for value in (100, 101, 102):
                other.execute(insert(value))
                keeping.note()
            if application_first:
                keeping.start()
                assert "history forked" in keeping.keep_up()
            assert keeping.positions == positions
            assert not keeping.watch_over(other, insert(103))
            assert keeping.stored is not None
            assert keeping.stored.positions


@pytest.mark.parametrize("application_first", [True, False])
@pytest.mark.parametrize("damage", DAMAGES)
def test_commits_that_were_not_shipped_are_lost(
    tmp_path: Path, damage: Callable[[bytes, int], bytes], *, application_first: bool
) -> None:
    """What was shipped is there. Following continues from the last commit that the next opener finds, without a gap."""
    path = tmp_path / "app.db"
    with wal_database(path) as application, Keeping(path, tmp_path / "f") as keeping:
        assert not keeping.watch_over(application, "SELECT 1", insert(1), insert(2))
        shipped = keeping.cursor.frames
        for value in range(3, 8):
            application.execute(insert(value))
            keeping.note()
        lose_power(keeping, application, damage, shipped + 3)
        if not application_first:
            keeping.start()
            assert not keeping.keep_up()
        with SqliteProcess(path) as other:
            if application_first:
                keeping.start()
            assert not keeping.watch_over(other, "SELECT * FROM t", insert(100), "PRAGMA wal_checkpoint", insert(101))


@pytest.fixture(scope="module")
def failing_sync(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return a library that makes every sync of a file named ``…-wal`` fail while the file ``$FAIL`` exists."""
    folder = tmp_path_factory.mktemp("preload")
    source, library = folder / "failing.c", folder / "failing.so"
    source.write_text(
        """
        #include <errno.h>
        #include <stdio.h>
        #include <stdlib.h>
        #include <string.h>
        #include <unistd.h>
        #include <sys/syscall.h>
        static int fails(int fd) {
            char link[64], name[4096];
            const char *flag = getenv("FAIL");
            snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
            ssize_t length = readlink(link, name, sizeof name);
            return flag && !access(flag, F_OK) && length > 4 && !memcmp(name + length - 4, "-wal", 4);
        }
        int fsync(int fd) { if (fails(fd)) { errno = EIO; return -1; } return syscall(SYS_fsync, fd); }
        int fdatasync(int fd) { if (fails(fd)) { errno = EIO; return -1; } return syscall(SYS_fdatasync, fd); }
        """
    )
    try:
        compiled = subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no C compiler")
    assert compiled.returncode == 0, compiled.stderr
    return str(library)


@pytest.mark.parametrize("end", ["goes on", "closes", "is killed"])
def test_a_commit_whose_sync_failed(tmp_path: Path, failing_sync: str, end: str) -> None:
    """The application got an error, but the commit's frame is in the WAL.

    The commit counts only if the next opener recovers it.
    """
    path, fail = tmp_path / "app.db", tmp_path / "fail"
    environment = {"LD_PRELOAD": failing_sync, "FAIL": str(fail)}
    wal_database(path).close()
    with (
        SqliteProcess(path, environment=environment) as application,
        Keeping(path, tmp_path / "f") as keeping,
    ):
        application.execute("PRAGMA synchronous=FULL")
        assert not keeping.watch_over(application, "SELECT * FROM t", insert(1), insert(2))
        assert keeping.stored is not None
        size, positions = Path(f"{path}-wal").stat().st_size, keeping.stored.positions
        fail.touch()
        with pytest.raises(SqliteError, match="disk I/O error"):
            application.execute(insert(666))
        assert Path(f"{path}-wal").stat().st_size > size
        assert not keeping.keep_up()
        assert keeping.stored.positions == positions
        fail.unlink()
        match end:
            case "goes on":
                assert not keeping.watch_over(application, insert(3), "PRAGMA wal_checkpoint", insert(4))
                assert application.execute("SELECT count(*) FROM t WHERE x = 666") == [[0]]
            case "closes":
                application.close()
                keeping.note()
                assert not keeping.keep_up()
                with SqliteProcess(path) as other:
                    assert not keeping.watch_over(other, "SELECT * FROM t", insert(3))
                    assert other.execute("SELECT count(*) FROM t WHERE x = 666") == [[0]]
            case "is killed":
                application.kill()
                keeping.note()
                assert not keeping.keep_up()
                with SqliteProcess(path) as other:
                    assert not keeping.watch_over(other, "SELECT * FROM t", insert(3))
                    assert other.execute("SELECT count(*) FROM t WHERE x = 666") == [[1]]
