"""Opens the journal for the command line, which only reads it, whether or not a daemon is running."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from walsyncd.adapters.journal.journal_errors import translated
from walsyncd.adapters.journal.journal_schema import BUSY_MS, MIGRATIONS, check_version
from walsyncd.errors import MissingError, TransientError


def connect_read_only(path: Path) -> sqlite3.Connection:
    """Open the journal for reading, with or without a running daemon. Raises MissingError if there is none."""
    if not path.exists():
        raise MissingError(f"read journal {path}: it does not exist", hint="has `walsyncd run` been started?")
    with translated("read", path):
        # A cleanly closed journal has no -wal. SQLite would have to create the file, which a reader must not do.
        closed = not path.with_name(path.name + "-wal").exists()
        mode = "mode=ro&immutable=1" if closed else "mode=ro"
        uri = f"file:{quote(str(path.absolute()))}?{mode}"
        connection = sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)
        try:
            connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
            version = check_version(connection, path)
            if version == 0:
                raise TransientError(f"read journal {path}: it is being created", hint="ask again in a moment")
            if version < len(MIGRATIONS):
                raise TransientError(
                    f"read journal {path}: an older walsyncd wrote it", hint="restart the daemon, which brings it up"
                )
        except BaseException:
            connection.close()
            raise
        return connection
