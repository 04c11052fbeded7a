"""Tests of large files: a transaction that does not fit into memory, and a database with the page at 1 GiB that SQLite
never uses.

LARGE_MEBIBYTES=1024 pytest tests/e2e/test_large.py    # the transaction
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.e2e.comparison import ask
from tests.e2e.daemon import Daemon

MEBIBYTES = int(os.environ.get("LARGE_MEBIBYTES", "160"))
GROWTH_BYTES_MAX = 100 << 20
LOCK_PAGE = 262_145  # at 1 GiB, with pages of 4096 bytes

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process has had."""
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
    assert found is not None
    return int(found[1]) << 10


def digest(file: Path) -> str:
    """Return the digest of a file of any size."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "blake2b").hexdigest()


def test_a_transaction_larger_than_memory_should_be(tmp_path: Path) -> None:
    """It is read, compressed and shipped in bounded memory, and restored to the byte."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        path = daemon.data / "app.db"
        with SqliteProcess(path) as app:
            app.execute("PRAGMA journal_mode=WAL", "PRAGMA synchronous=OFF", "CREATE TABLE t (x)")
            daemon.start().sync()
            before = peak_bytes(daemon.pid)
            mebibyte = "INSERT INTO t VALUES (randomblob(1048576))"
            app.execute("BEGIN", *([mebibyte] * MEBIBYTES), "COMMIT")
            daemon.sync()
            assert peak_bytes(daemon.pid) - before < GROWTH_BYTES_MAX
            assert daemon.lines("generation_ended") == []
            restored = daemon.restore("app")
            app.close()
        assert digest(restored) == digest(path)


def test_across_the_lock_page(tmp_path: Path) -> None:
    """The file is sparse up to just before 1 GiB. Then it grows over the page that is never used."""
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        path = daemon.data / "app.db"
        with SqliteProcess(path) as app:
            app.execute("CREATE TABLE t (x)", "INSERT INTO t VALUES (1)")
            app.close()
        pages = LOCK_PAGE - 5
        with path.open("r+b") as file:
            file.truncate(pages * 4096)
            file.seek(28)
            file.write(pages.to_bytes(4, "big"))
        with SqliteProcess(path) as app:
            app.execute("PRAGMA journal_mode=WAL", "PRAGMA synchronous=OFF", "INSERT INTO t VALUES (2)")
            daemon.start().sync()
            app.execute("INSERT INTO t VALUES (randomblob(100000))", "INSERT INTO t VALUES (3)")
            daemon.sync()
            assert app.execute("PRAGMA page_count")[0][0] > LOCK_PAGE
            restored = daemon.restore("app")
            app.close()
        assert digest(restored) == digest(path)
        assert ask(restored, "SELECT sum(length(x)) FROM t") == 100_003
