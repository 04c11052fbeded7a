"""Tests that nothing of the user's is opened for writing, seen from the kernel's side and with a user that
could not.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.comparison import assert_same
from tests.e2e.daemon import NOBODY, Daemon
from tests.e2e.workload import Writer, create

# System calls that open, change, name or lock a file. The question mark is for calls that not every machine has.
CALLS = (
    "?open,openat,?openat2,?creat,?rename,?renameat,renameat2,?unlink,unlinkat,?link,linkat,?symlink,symlinkat,"
    "?mkdir,mkdirat,?rmdir,truncate,ftruncate,fallocate,write,writev,pwrite64,pwritev,pwritev2,fcntl,flock,mmap,"
    "?chmod,fchmod,fchmodat,?chown,fchown,fchownat,?lchown,utimensat,setxattr,fsetxattr"
)
LOCKLESS = {"F_GETFD", "F_SETFD", "F_GETFL", "F_DUPFD_CLOEXEC", "F_OFD_GETLK"}

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="only root can start a daemon as another user"),
]


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """Make a folder that every user can reach, unlike pytest's, and in which nobody owns what the daemon writes."""
    with tempfile.TemporaryDirectory(prefix="walsyncd-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        for own in ("state", "replica", "trace"):
            (folder / own).mkdir()
            os.chown(folder / own, NOBODY, NOBODY)
        yield folder


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
@pytest.mark.slow
def test_every_call_on_the_users_files_reads(open_folder: Path) -> None:
    """While it follows, copies a base, and sees a WAL made and deleted, there is only O_RDONLY, and questions about
    locks.
    """
    trace = open_folder / "trace"
    strace = ["strace", "-ff", "-y", "-qq", "-s", "0", "-e", "signal=none", "-e", f"trace={CALLS}", "-o", f"{trace}/of"]
    with Daemon(open_folder, [open_folder / "data/app.db"], prefix=strace, user=NOBODY) as daemon:
        file = create(daemon.data / "app.db", rows=100)
        before = _owners(daemon.data)
        daemon.start().sync()
        with Writer("module", file, seed=11, count=40, pause_s=0.05, calm=daemon.control) as writer:
            writer.finish()
            beside = _owners(daemon.data)
            writer.close()
        daemon.sync()
        daemon.done("snapshot", "app")
        assert_same(daemon.restore("app"), file)
        assert _owners(daemon.data) == before
        assert set(beside) == {"app.db", "app.db-wal", "app.db-shm"}
        assert set(beside.values()) == {(0, 0, 0o100644)}
        assert daemon.stop() == 0
    lines = [line for thread in trace.iterdir() for line in thread.read_text().splitlines()]
    calls = [line for line in lines if str(daemon.data) in line]
    opened = {name for name in ("app.db", "app.db-wal", "app.db-shm") if any(_opens(call, name) for call in calls)}
    assert opened == {"app.db", "app.db-wal", "app.db-shm"}, "the trace shows what the daemon reads"
    assert [call for call in calls if not _only_reads(call)] == []


def _owners(folder: Path) -> dict[str, tuple[int, int, int]]:
    """Return user, group and mode of everything in a folder."""
    found = ((path.name, path.stat()) for path in folder.iterdir())
    return {name: (status.st_uid, status.st_gid, status.st_mode) for name, status in found}


def _opens(call: str, name: str) -> bool:
    return re.search(rf"\bopenat2?\(.*{re.escape(name)}[\">]", call) is not None


def _only_reads(call: str) -> bool:
    """Return whether a line of the trace, ``name(arguments) = result``, changes nothing."""
    name = call.partition("(")[0]
    if name in {"open", "openat", "openat2"}:
        return "O_RDONLY" in call and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND|TMPFILE)", call)
    if name == "fcntl":
        return call.split(", ")[1].rstrip(")").split(")")[0] in LOCKLESS
    if name == "mmap":
        return "PROT_WRITE" not in call
    return False


def test_an_unreadable_database_is_refused_and_the_others_go_on(open_folder: Path) -> None:
    """Check and status name the file and what to do. Once it may be read, it is followed."""
    names = ("closed", "open")
    with Daemon(open_folder, [open_folder / f"data/{name}.db" for name in names], user=NOBODY) as daemon:
        closed, readable = (create(daemon.data / f"{name}.db") for name in names)
        closed.chmod(0o600)
        result = daemon.walsyncd("check")
        assert result.code == 1
        assert f"problem database {closed}: " in result.stdout
        assert f"open {closed}: permission denied (hint: let the daemon read it" in result.stdout
        daemon.start()
        line = daemon.wait_for("database_suspended", database="closed")
        assert line["state"] == "refused"
        assert str(closed) in line["cause"]
        assert line["remedy"]
        daemon.sync("open")
        assert_same(daemon.restore("open"), readable)
        closed.chmod(0o644)
        daemon.sync("closed")
        assert_same(daemon.restore("closed"), closed)
