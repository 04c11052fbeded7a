"""Tests of databases for which we have no key. They are followed, shipped and restored anyway, page by page."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.e2e.daemon import Daemon

KEY = "PRAGMA key = 'correct horse battery staple'"
CIPHERS = {
    "SQLCipher": ("sqlcipher3", [KEY]),
    **{
        f"SQLite3 Multiple Ciphers, {cipher}": ("apsw", [f"PRAGMA cipher = '{cipher}'", KEY])
        for cipher in ("chacha20", "aes256cbc")
    },
}
INSERT = "INSERT INTO t SELECT randomblob(3000) FROM (VALUES (1), (2), (3), (4), (5))"
CONTENT = "SELECT rowid, hex(x) FROM t ORDER BY rowid"


@pytest.mark.parametrize("cipher", CIPHERS)
def test_an_encrypted_database(tmp_path: Path, cipher: str) -> None:
    """After commits, a restart of the WAL, a kill and a close, the restored file opens with the key, and holds the
    same.

    It is the same file, except with ciphers that encrypt a page again when it is copied from the WAL to the database.
    """
    module, unlock = CIPHERS[cipher]
    if module == "apsw" and not hasattr(apsw, "mc_version"):
        pytest.skip("another apsw than that of apsw-sqlite3mc is installed")
    with Daemon(tmp_path, [tmp_path / "data/app.db"]) as daemon:
        path = daemon.data / "app.db"
        with SqliteProcess(path, module=module) as app:
            app.execute(*unlock, "PRAGMA journal_mode=WAL", "CREATE TABLE t (x)", INSERT)
            daemon.start().sync()
            app.execute(INSERT)
            daemon.sync()
            app.execute("PRAGMA wal_checkpoint", INSERT)
            daemon.sync()
            app.kill()
        with SqliteProcess(path, module=module) as app:
            app.execute(*unlock, "SELECT count(*) FROM t", INSERT, "DELETE FROM t WHERE rowid < 9", "VACUUM")
            expected = app.execute(CONTENT)
            # the follower reads from the file what is only there when it looks, and a page may be encrypted again there
            daemon.sync()
            app.close()
        daemon.sync()
        assert path.read_bytes()[:6] != b"SQLite"
        restored = daemon.restore("app")
        assert (restored.read_bytes() == path.read_bytes()) == ("chacha20" not in cipher)
        with SqliteProcess(restored, module=module) as reader:
            assert reader.execute(*unlock, "PRAGMA integrity_check") == [["ok"]]
            assert reader.execute(CONTENT) == expected
        assert daemon.walsyncd("verify", "app").code == 0
