"""The journal's tables, and the connection to them.

=============  ====================================================================================
table          a row is
=============  ====================================================================================
fact           a fact of this machine and run (``run_id``, boot id …), by name
database       a database that is or once was configured, and its state
generation     a generation that this journal began, and why it began and ended
object         an object to be uploaded, until it is stored, or, for a base, until its manifest is stored
part           a part of an object's multipart upload
leftover       an abandoned upload that has to be aborted
kept           a stored segment whose epoch is not one object yet, with its body if there was room
drill          the result of the last restore drill of a database
whole          an epoch that is becoming one object, until a listing shows that its segments are gone
page_map       which file is the page map of a database (``page_map_file``)
bridged        a gap that was bridged: its kind, and the epoch that begins with the bridge
redo           what the frames of a segment change in the page map, until the file holds it
=============  ====================================================================================

``PRAGMA user_version`` counts the migrations applied. In WAL mode with ``synchronous=FULL`` a transaction is on disk
when COMMIT returns (sqlite.org/pragma.html#pragma_synchronous).
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self, TypeAlias

from walsyncd.adapters.journal.deferred_changes import DeferredChanges
from walsyncd.adapters.journal.journal_errors import translated
from walsyncd.core.send.pacing import BURST
from walsyncd.errors import CorruptStateError, StateError, UsageError

JOURNAL_NAME = "journal.db"
BUSY_MS = 10_000  # in WAL mode a reader never blocks a writer, but a checkpoint by a user's shell can

Record: TypeAlias = tuple[Any, ...]  # a row as sqlite3 returns it, with the types of the schema

# The blob comes last, since SQLite reads a row's columns in order, and a large column spills into a chain of pages.
_FIRST = f"""
CREATE TABLE fact (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE database (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    path TEXT NOT NULL,
    generation TEXT,
    follow TEXT,
    state TEXT NOT NULL DEFAULT 'new',
    cause TEXT NOT NULL DEFAULT '',
    remedy TEXT NOT NULL DEFAULT '',
    state_since_ms INTEGER NOT NULL DEFAULT 0,
    last_generation TEXT NOT NULL DEFAULT '',
    last_time_ms INTEGER NOT NULL DEFAULT 0,
    owner_run TEXT,
    owner_next TEXT,
    tokens REAL NOT NULL DEFAULT {BURST},
    tokens_ms INTEGER NOT NULL DEFAULT 0,
    stored_generation TEXT,
    stored_epoch INTEGER NOT NULL DEFAULT 0,
    stored_frame INTEGER NOT NULL DEFAULT 0,
    stored_key TEXT,
    stored_ms INTEGER NOT NULL DEFAULT 0,
    base_key TEXT,
    base_ms INTEGER,
    error TEXT NOT NULL DEFAULT '',
    error_ms INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE generation (
    database_id INTEGER NOT NULL REFERENCES database,
    generation TEXT NOT NULL,
    predecessor TEXT,
    reason_begun TEXT NOT NULL,
    began_ms INTEGER NOT NULL,
    ended_ms INTEGER,
    reason_ended TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (database_id, generation)
) WITHOUT ROWID;
CREATE TABLE object (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    database_id INTEGER NOT NULL REFERENCES database,
    generation TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('segment', 'base', 'manifest')),
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    md5 TEXT NOT NULL,
    token TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    time_ms INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('spooled', 'begun', 'stored')),
    upload_id TEXT,
    part_size INTEGER,
    body_path TEXT,
    attempted_ms INTEGER,
    etag TEXT,
    plan TEXT NOT NULL DEFAULT '',
    body BLOB,
    UNIQUE (database_id, key)
);
CREATE INDEX object_lane ON object (database_id, kind, id, size);
CREATE TABLE part (
    object_id INTEGER NOT NULL REFERENCES object ON DELETE CASCADE,
    number INTEGER NOT NULL,
    size INTEGER NOT NULL,
    md5 TEXT NOT NULL,
    etag TEXT,
    detail TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (object_id, number)
) WITHOUT ROWID;
CREATE TABLE leftover (
    id INTEGER PRIMARY KEY,
    database_id INTEGER NOT NULL REFERENCES database,
    key TEXT NOT NULL,
    upload_id TEXT
);
"""

_COMMITS = "ALTER TABLE object ADD COLUMN commits INTEGER NOT NULL DEFAULT 0;"

_KEEPING = """
ALTER TABLE database ADD COLUMN base_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE database ADD COLUMN wal_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE database ADD COLUMN bucket_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE database ADD COLUMN bucket_objects INTEGER NOT NULL DEFAULT 0;
ALTER TABLE database ADD COLUMN proven_key TEXT;
ALTER TABLE database ADD COLUMN pruned_ms INTEGER NOT NULL DEFAULT 0;
ALTER TABLE database ADD COLUMN prune_due_ms INTEGER;
CREATE TABLE kept (
    database_id INTEGER NOT NULL REFERENCES database,
    generation TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    body_path TEXT,
    body BLOB,
    PRIMARY KEY (database_id, generation, epoch, first)
);
CREATE TABLE whole (
    database_id INTEGER NOT NULL REFERENCES database,
    generation TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    key TEXT NOT NULL,
    size INTEGER NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('begun', 'stored', 'replaced')),
    at_ms INTEGER NOT NULL,
    PRIMARY KEY (database_id, generation, epoch)
) WITHOUT ROWID;
"""

# The follow state before an object, so that the object's frames can be read again, and how often they were.
_REWINDS = """
ALTER TABLE object ADD COLUMN follow_before TEXT;
ALTER TABLE database ADD COLUMN rewinds INTEGER NOT NULL DEFAULT 0;
"""

_DRILLS = """
CREATE TABLE drill (
    database_id INTEGER PRIMARY KEY REFERENCES database,
    at_ms INTEGER NOT NULL,
    outcome TEXT NOT NULL CHECK (outcome IN ('passed', 'failed', 'skipped')),
    position TEXT NOT NULL,
    detail TEXT NOT NULL
);
"""

# The kind of the reason, as a bounded label. Reasons noted before get a kind by a word that occurs in them.
_GAP_KINDS = """
ALTER TABLE generation ADD COLUMN kind_ended TEXT NOT NULL DEFAULT '';
UPDATE generation SET kind_ended = CASE
    WHEN reason_ended LIKE '%the storage changed%' THEN 'storage'
    WHEN reason_ended LIKE '%would expire%' THEN 'renewed'
    WHEN reason_ended LIKE '%the spool reached%' OR reason_ended LIKE '%disk under the state directory%'
        OR reason_ended LIKE '%more of the spool than%' THEN 'spool'
    WHEN reason_ended LIKE '%owner.json%' OR reason_ended LIKE '%another daemon%'
        OR reason_ended LIKE '%the bucket has%' THEN 'owner'
    WHEN reason_ended LIKE '%another file%' OR reason_ended LIKE '%does not exist%'
        OR reason_ended LIKE '%deleted or moved%' OR reason_ended LIKE '%database file is gone%' THEN 'replaced'
    WHEN reason_ended LIKE '%forked%' OR reason_ended LIKE '%rewritten%' THEN 'reverted'
    WHEN reason_ended LIKE '%page size changed%' OR reason_ended LIKE '%went into WAL mode%' THEN 'changed'
    WHEN reason_ended LIKE '%rehearsed restore%' THEN 'damaged'
    WHEN reason_ended LIKE '%overwritten%' OR reason_ended LIKE '%could be opened%'
        OR reason_ended LIKE '%could not be opened%' OR reason_ended LIKE '%could be read%'
        OR reason_ended LIKE '%reached frame%' OR reason_ended LIKE '%restarted already%'
        OR reason_ended LIKE '%were left when%' THEN 'overwritten'
    WHEN reason_ended LIKE '%count%' OR reason_ended LIKE '%may have been changed%'
        OR reason_ended LIKE '%was changed%' OR reason_ended LIKE '%wal-index%'
        OR reason_ended LIKE '%not watched%' OR reason_ended LIKE '%can''t be seen%'
        OR reason_ended LIKE '%reboot%' OR reason_ended LIKE '%not the next one%'
        OR reason_ended LIKE '%no commit is missing%' OR reason_ended LIKE '%nobody was seen%'
        OR reason_ended LIKE '%commit failed%' THEN 'uncertain'
    ELSE 'other' END
WHERE ended_ms IS NOT NULL;
"""

# ``entries`` comes last, as the blobs above do. ``id`` only grows, so the rows of a database ascend like positions.
_PAGE_MAPS = """
CREATE TABLE page_map (
    database_id INTEGER PRIMARY KEY REFERENCES database ON DELETE CASCADE,
    generation TEXT NOT NULL,
    map_id TEXT NOT NULL,
    counter INTEGER NOT NULL,
    page_size INTEGER NOT NULL,
    cipher TEXT NOT NULL,
    scanned_ms INTEGER NOT NULL DEFAULT 0,
    scanned_epoch INTEGER NOT NULL DEFAULT 0,
    scanned_frame INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE redo (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    database_id INTEGER NOT NULL REFERENCES database ON DELETE CASCADE,
    generation TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    first INTEGER NOT NULL,
    last INTEGER NOT NULL,
    size_min INTEGER NOT NULL,
    size INTEGER NOT NULL,
    entries BLOB NOT NULL
);
CREATE INDEX redo_of_database ON redo (database_id, id);
"""

# The URL of the storage that a database's replica is in. Before, all replicas were in the same storage.
_PLACES = """
ALTER TABLE database ADD COLUMN place TEXT;
UPDATE database SET place = (SELECT value FROM fact WHERE name = 'storage_url');
DELETE FROM fact WHERE name = 'storage_url';
"""

# Gaps that were bridged, so that the generation continued. They are counted like gaps that ended a generation.
_BRIDGED = """
CREATE TABLE bridged (
    id INTEGER PRIMARY KEY,
    database_id INTEGER NOT NULL REFERENCES database ON DELETE CASCADE,
    generation TEXT NOT NULL,
    epoch INTEGER NOT NULL,
    kind TEXT NOT NULL,
    at_ms INTEGER NOT NULL
);
"""

_SCRUBS = """
CREATE TABLE scrub (
    database_id INTEGER PRIMARY KEY REFERENCES database ON DELETE CASCADE,
    at_ms INTEGER NOT NULL,
    pages INTEGER NOT NULL,
    differing INTEGER NOT NULL,
    differing_total INTEGER NOT NULL,
    skipped TEXT NOT NULL
);
"""

MIGRATIONS = (_FIRST, _COMMITS, _KEEPING, _REWINDS, _DRILLS, _GAP_KINDS, _PAGE_MAPS, _PLACES, _BRIDGED, _SCRUBS)


class Connection:
    """A connection to the journal, and its lock. Any thread may call its methods. Transactions are serialized."""

    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        self._connection = self._reading = connection
        self._path = path
        self._lock = self._read_lock = threading.Lock()
        self._deferred = DeferredChanges()
        self.on_corrupt: Callable[[CorruptStateError], None] = lambda _error: None
        """A thread that finds the journal damaged calls this function before it raises the error."""

    def read_separately(self) -> None:
        """Use a second connection for queries from now on, so that no query waits for the fsync of a transaction."""
        self._reading, self._read_lock = connect_reader(self._path), threading.Lock()

    def close(self) -> None:
        """Close the connections. SQLite then copies its WAL into the file."""
        with self._read_lock:
            if self._reading is not self._connection:
                self._reading.close()
        with self._lock:
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Make all statements within the context durable together, or none of them."""
        with self._lock, self._translated("write"):
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                committed = self._deferred.apply(self._connection)
                yield self._connection
                self._connection.execute("COMMIT")
                committed()
            finally:
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")

    def commit_deferred(self) -> None:
        """Make the deferred changes durable, if there are any."""
        if self._deferred:
            self._deferred.postpone()
            with self._transaction():
                pass

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[Record]:
        if self._deferred.is_awaited():
            # If the disk is full, the changes stay deferred, and the query returns what is durable, as after a kill.
            with suppress(StateError):
                self.commit_deferred()
        return self._durable_rows(sql, values)

    def _durable_rows(self, sql: str, values: Sequence[object] = ()) -> list[Record]:
        """Return what is durable, without the deferred changes. So this method never writes."""
        with self._read_lock, self._translated("read"):
            return self._reading.execute(sql, values).fetchall()

    @contextmanager
    def _translated(self, doing: str) -> Iterator[None]:
        try:
            with translated(doing, self._path):
                yield
        except CorruptStateError as error:
            self.on_corrupt(error)
            raise


def connect(path: Path) -> sqlite3.Connection:
    """Open the journal for writing; create or migrate it. Raises CorruptStateError, StateError or UsageError."""
    with translated("open", path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        try:
            _prepare(connection, path)
        except BaseException:
            connection.close()
            raise
        return connection


def connect_reader(path: Path) -> sqlite3.Connection:
    """Open a second connection for the queries of a process that has the journal open for writing."""
    with translated("open", path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
        connection.execute("PRAGMA query_only = ON")
        return connection


def _prepare(connection: sqlite3.Connection, path: Path) -> None:
    connection.execute(f"PRAGMA busy_timeout = {BUSY_MS}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA foreign_keys = ON")
    applied = check_version(connection, path)
    for version, script in enumerate(MIGRATIONS[applied:], start=applied + 1):
        connection.executescript(f"BEGIN IMMEDIATE; {script} PRAGMA user_version = {version}; COMMIT;")


def check_version(connection: sqlite3.Connection, path: Path) -> int:
    """Return how many migrations were applied. Raises UsageError if a newer walsyncd applied more."""
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > len(MIGRATIONS):
        raise UsageError(
            f"open journal {path}: its schema version is {version}, this walsyncd knows {len(MIGRATIONS)}",
            hint="run the walsyncd that wrote it, or a newer one",
        )
    return version
