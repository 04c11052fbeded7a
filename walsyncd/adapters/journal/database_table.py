"""The journal's databases and generations: their states, their owners, and why a history ended."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path

from walsyncd.adapters.files.statx import birth_ns
from walsyncd.adapters.journal.journal_schema import Connection, Record
from walsyncd.adapters.journal.page_map_table import forget_map
from walsyncd.adapters.journal.rows import (
    DatabaseRow,
    GenerationBegun,
    GenerationContinued,
    GenerationRow,
    StateNote,
)
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.keep.retention import DAY_MS

_SPOOLED = "(SELECT total(size) FROM object WHERE database_id = database.id AND kind != 'base')"
_DATABASE = ", ".join(
    f"CAST({_SPOOLED} AS INTEGER)" if field.name == "spooled_bytes" else field.name for field in fields(DatabaseRow)
)
_GENERATION = ", ".join(field.name for field in fields(GenerationRow))

_PRUNE_MS = f"max(prune_due_ms, pruned_ms + {DAY_MS})"  # NULL if nothing may be deleted

MACHINE = "machine"  # the boot and the file system of the last run, then the machine ids since that boot, one per line
MACHINE_IDS_MAX = 100  # if a container is created again more often than this between two commits, a generation is lost
FORGOTTEN = "/forgotten/"  # no configured database has such a name, since names do not begin with a slash
VERIFIED = "verified_ms "  # the fact's name is this prefix and the database's name


class DatabaseReads(Connection):
    """Queries for the daemon and for the command line."""

    def databases(self) -> list[DatabaseRow]:
        """Return all databases that the journal knows, by id, including those that are no longer configured."""
        return [_database(row) for row in self._rows(f"SELECT {_DATABASE} FROM database ORDER BY id")]  # noqa: S608  constants

    def database_by_id(self, database_id: int) -> DatabaseRow:
        """Return one database. ``database_id`` must be an id that the journal has given out."""
        sql = f"SELECT {_DATABASE} FROM database WHERE id = ?"  # noqa: S608  constants
        rows = self._rows(sql, (database_id,))
        assert rows, f"no database {database_id} in the journal"
        return _database(rows[0])

    def any_claimed(self, place: str) -> str | None:
        """Return the name of any database that this journal has claimed in the storage at ``place``, or None."""
        sql = "SELECT name FROM database WHERE owner_run IS NOT NULL AND place = ? ORDER BY id LIMIT 1"
        rows = self._rows(sql, (place,))
        return str(rows[0][0]) if rows else None

    def generations(self, database_id: int) -> list[GenerationRow]:
        """Return the generations that this journal began, oldest first."""
        sql = f"SELECT {_GENERATION} FROM generation WHERE database_id = ? ORDER BY generation"  # noqa: S608  constants
        rows = [GenerationRow(*row) for row in self._rows(sql, (database_id,))]
        return [replace(row, kind_ended=GapKind(row.kind_ended) if row.kind_ended else None) for row in rows]

    def gaps(self) -> dict[GapKind, int]:
        """Return the number of gaps by kind. Bridged gaps and gaps that ended a generation are added up."""
        sql = (
            "SELECT kind, count(*) FROM (SELECT kind_ended AS kind FROM generation WHERE ended_ms IS NOT NULL"
            " UNION ALL SELECT kind FROM bridged) GROUP BY kind"
        )
        return {GapKind(kind): int(count) for kind, count in self._rows(sql)}

    def generation_counts(self) -> dict[int, int]:
        """Return how many generations this journal began, by database."""
        return dict(self._rows("SELECT database_id, count(*) FROM generation GROUP BY database_id"))

    def prunes_due(self, now_ms: int) -> list[int]:
        """Return the databases whose folders to list now.

        A deletion is due in each, and the last listing of the folder is at least a day old.
        """
        sql = f"SELECT id FROM database WHERE {_PRUNE_MS} <= ? ORDER BY id"  # noqa: S608  constants
        return [row_id for (row_id,) in self._rows(sql, (now_ms,))]

    def next_prune_ms(self, now_ms: int) -> int | None:
        """Return when the next database after ``now_ms`` becomes one of ``prunes_due``, or None if none will."""
        sql = f"SELECT min({_PRUNE_MS}) FROM database WHERE {_PRUNE_MS} > ?"  # noqa: S608  constants
        ((moment,),) = self._rows(sql, (now_ms,))
        return None if moment is None else int(moment)

    def fact(self, name: str) -> str | None:
        """Return the value of a fact, or None if it was not noted."""
        rows = self._rows("SELECT value FROM fact WHERE name = ?", (name,))
        return str(rows[0][0]) if rows else None

    def verified_ms(self, name: str) -> int | None:
        """Return when a database's replica was last read whole and found sound, or None if it never was."""
        value = self.fact(VERIFIED + name)
        return None if value is None else int(value)


class DatabaseTable(DatabaseReads):
    """Changes by the daemon."""

    def note_fact(self, name: str, value: str) -> None:
        """Store a fact of this machine or run."""
        with self._transaction() as connection:
            connection.execute("INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)", (name, value))

    def note_verified(self, name: str, now_ms: int) -> None:
        """Note that the database's replica was read whole and found sound."""
        self.note_fact(VERIFIED + name, str(now_ms))

    def note_proven(self, database_id: int) -> None:
        """Note that the newest base was read or used for a restore, and was found sound."""
        self._update(database_id, "proven_key = coalesce(base_key, proven_key)")

    def prune_due(self, database_id: int, at_ms: int) -> None:
        """Note that something in storage may be deleted at ``at_ms`` by the store's clock."""
        self.prunes_become_due({database_id: at_ms})

    def prunes_become_due(self, moments: Mapping[int, int]) -> None:
        """Note for each database when something in storage may be deleted (ms, by the store's clock)."""
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE database SET prune_due_ms = min(coalesce(prune_due_ms, ?2), ?2) WHERE id = ?1", moments.items()
            )

    def prune_asked(self, database_id: int) -> None:
        """Note a user's request to prune, however recent the last pruning was."""
        self._update(database_id, "prune_due_ms = 0, pruned_ms = 0")

    def note_pruned(self, database_id: int, now_ms: int, due_ms: int | None, *, objects: int, size: int) -> None:
        """Note a listing of the folder at ``now_ms``, what is left there, and when more may be deleted (``due_ms``)."""
        change = "pruned_ms = ?, prune_due_ms = ?, bucket_objects = ?, bucket_bytes = ?"
        self._update(database_id, change, now_ms, due_ms, objects, size)

    def begin_run(self, run_id: str) -> bool:
        """Note the run that begins. Returns False if this journal is a copy of the journal that earlier runs used.

        The original may still be in use. So the copy gives up the ownership of all databases.
        """
        identity = _identity(self._path)
        with self._transaction() as connection:
            known = connection.execute("SELECT value FROM fact WHERE name = 'journal_file'").fetchone()
            is_copy = known is not None and known[0] != identity
            if is_copy:
                connection.execute("UPDATE database SET owner_run = NULL, owner_next = NULL")
            sql = "INSERT OR REPLACE INTO fact (name, value) VALUES (?, ?)"
            connection.executemany(sql, [("run_id", run_id), ("journal_file", identity)])
        return not is_copy

    def note_machine(self, boot_id: str, machine_id: str) -> frozenset[str]:
        """Note the machine's id.

        Returns the ids under which this journal was used since this boot, ``machine_id`` included. A container that is
        created again has another id, but the same boot and file system. A clone of the machine has another boot or file
        system.
        """
        boot = f"{boot_id} {self._path.stat().st_dev}"
        before, _, ids = (self.fact(MACHINE) or "").partition("\n")
        known = ids.split() if before == boot else []
        known = [*(each for each in known if each != machine_id), machine_id][-MACHINE_IDS_MAX:]
        self.note_fact(MACHINE, "\n".join([boot, *known]))
        return frozenset(known)

    def forget_database(self, database_id: int) -> None:
        """Remove all that is known of a database that is not followed.

        The database's row stays, without its name, until ``sweep_forgotten``, since a running daemon relies on the id.
        """
        with self._transaction() as connection:
            (name,) = connection.execute("SELECT name FROM database WHERE id = ?", (database_id,)).fetchone()
            tables = connection.execute(
                "SELECT t.name FROM sqlite_master AS t, pragma_table_info(t.name) AS c"
                " WHERE t.type = 'table' AND c.name = 'database_id'"
            ).fetchall()
            for (table,) in tables:
                connection.execute(f"DELETE FROM {table} WHERE database_id = ?", (database_id,))  # noqa: S608  our names
            connection.execute("DELETE FROM fact WHERE name = ?", (VERIFIED + name,))
            columns = connection.execute("SELECT name, dflt_value FROM pragma_table_info('database')").fetchall()
            emptied = ", ".join(
                f"{column} = {'NULL' if default is None else default}"
                for column, default in columns
                if column not in {"id", "name", "path", "state"}
            )
            connection.execute(
                f"UPDATE database SET {emptied}, name = ?, state = ?, path = '' WHERE id = ?",  # noqa: S608  our names
                (f"{FORGOTTEN}{database_id}", DatabaseState.NOT_CONFIGURED, database_id),
            )

    def sweep_forgotten(self) -> None:
        """Remove the rows of forgotten databases. Call this method only before any id is in use."""
        with self._transaction() as connection:
            connection.execute("DELETE FROM database WHERE name LIKE ? || '%'", (FORGOTTEN,))

    def database(self, name: str, path: str) -> DatabaseRow:
        """Return the database called ``name``, after noting ``path`` as its path. A new database is added."""
        return self.join({name: (path, None)})[name]

    def join(self, databases: Mapping[str, tuple[str, str | None]]) -> dict[str, DatabaseRow]:
        """Return the databases of these names, after noting their paths. New databases are added.

        The second value is the URL of a storage. It is noted as the replica's if the replica is in no storage yet.
        """
        with self._transaction() as connection:
            connection.executemany(
                "INSERT INTO database (name, path, place) VALUES (?, ?, ?)"
                " ON CONFLICT (name) DO UPDATE SET path = excluded.path, place = coalesce(place, excluded.place)"
                " WHERE path != excluded.path OR place IS NULL",
                [(name, path, place) for name, (path, place) in databases.items()],
            )
        sql = f"SELECT {_DATABASE} FROM database WHERE name IN (SELECT value FROM json_each(?)) ORDER BY id"  # noqa: S608
        rows = [_database(row) for row in self._rows(sql, (json.dumps([*databases]),))]
        return {row.name: row for row in rows}

    def note_place(self, database_id: int, url: str) -> None:
        """Note that the database's replica is in the storage at ``url`` from now on."""
        self._update(database_id, "place = ?", url)

    def note_state(self, database_id: int, state: DatabaseState, cause: str, remedy: str, now_ms: int) -> None:
        """Note a database's state; ``state_since_ms`` changes only with the state."""
        self.note_states([StateNote(database_id, state, cause, remedy, now_ms)])

    def note_states(self, notes: Sequence[StateNote]) -> None:
        """Note the states of any number of databases in one transaction.

        If a database occurs twice, the later note counts.
        """
        with self._transaction() as connection:
            connection.executemany(
                "UPDATE database SET state_since_ms = iif(state = ?1, state_since_ms, ?4),"
                " state = ?1, cause = ?2, remedy = ?3 WHERE id = ?5",
                [(note.state, note.cause, note.remedy, note.now_ms, note.database_id) for note in notes],
            )

    def note_error(self, database_id: int, text: str, now_ms: int) -> None:
        """Note the last error. An empty text means that the error is over."""
        self._update(database_id, "error = ?, error_ms = ?", text, now_ms)

    def note_last_generation(self, database_id: int, generation: str) -> None:
        """Note a generation that was seen in the bucket: later ids must be greater."""
        self._update(database_id, "last_generation = max(last_generation, ?)", generation)

    def claim_begun(self, database_id: int, run_id: str) -> None:
        """Note that ``run_id`` is about to be written to the database's ``owner.json``."""
        self._update(database_id, "owner_next = ?", run_id)

    def claimed(self, database_id: int, run_id: str) -> None:
        """Note that ``run_id`` is in the database's ``owner.json``."""
        with self._transaction() as connection:
            _claimed(connection, database_id, run_id)

    def claimed_deferred(self, database_id: int, run_id: str) -> None:
        """Do what ``claimed`` does, but in the next transaction if another one is likely to come soon.

        ``claim_begun`` must have noted ``run_id``. Until that transaction the journal says, as after a kill, that
        ``run_id`` may be in ``owner.json``.
        """
        if not self._deferred.is_worthwhile():
            self.claimed(database_id, run_id)
            return

        def note(connection: sqlite3.Connection) -> Callable[[], None]:
            _claimed(connection, database_id, run_id)
            return lambda: None

        self._deferred.add(note, is_awaited=False)

    def begin_generation(self, database_id: int, generation: str, reason: str, follow: str | None, now_ms: int) -> None:
        """Begin a history. If the previous history has not ended, it ends for the same reason."""
        with self._transaction() as connection:
            begin_history(connection, GenerationBegun(database_id, generation, reason, follow, now_ms))

    def continue_generation(self, continued: GenerationContinued) -> bool:
        """Continue a generation of which this journal holds nothing.

        Returns False if the journal has begun another one.
        """
        began = continued.began
        with self._transaction() as connection:
            sql = "SELECT generation FROM database WHERE id = ?"
            if connection.execute(sql, (began.database_id,)).fetchone()[0] is not None:
                return False
            _continue_history(connection, continued)
        return True

    def end_generation(self, database_id: int, gap: Gap, now_ms: int) -> None:
        """End the current history. Its spooled objects are still uploaded, and it stays restorable."""
        with self._transaction() as connection:
            _end(connection, database_id, gap, now_ms)

    def _update(self, database_id: int, change: str, *values: object) -> None:
        with self._transaction() as connection:
            connection.execute(f"UPDATE database SET {change} WHERE id = ?", (*values, database_id))  # noqa: S608  constants


def _claimed(connection: sqlite3.Connection, database_id: int, run_id: str) -> None:
    sql = "UPDATE database SET owner_run = ?, owner_next = NULL WHERE id = ?"
    connection.execute(sql, (run_id, database_id))


def _identity(path: Path) -> str:
    """Return a text that stays the same for a file as long as it exists, and that differs for a copy of the file.

    O_PATH is used because closing any other descriptor would drop the locks that SQLite holds on the journal
    (fcntl(2)).
    """
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        return f"{os.fstat(descriptor).st_ino} {birth_ns(descriptor)}"
    finally:
        os.close(descriptor)


def _database(record: Record) -> DatabaseRow:
    row = DatabaseRow(*record)
    return replace(row, state=DatabaseState(row.state))


def begin_history(connection: sqlite3.Connection, begun: GenerationBegun) -> None:
    """Begin a history. If the previous history has not ended, it ends for the same reason."""
    _end(connection, begun.database_id, Gap.of(GapKind.OTHER, "{reason}", reason=begun.reason), begun.now_ms)
    connection.execute(
        "INSERT INTO generation (database_id, generation, predecessor, reason_begun, began_ms)"
        " SELECT ?1, ?2, max(generation), ?3, ?4 FROM generation WHERE database_id = ?1",
        (begun.database_id, begun.generation, begun.reason, begun.now_ms),
    )
    connection.execute(
        "UPDATE database SET generation = ?2, follow = ?3, last_generation = max(last_generation, ?2) WHERE id = ?1",
        (begun.database_id, begun.generation, begun.follow),
    )


def _continue_history(connection: sqlite3.Connection, continued: GenerationContinued) -> None:
    began = continued.began
    forget_map(connection, began.database_id)  # the map of an earlier history
    connection.execute(
        "INSERT INTO generation (database_id, generation, reason_begun, began_ms) VALUES (?, ?, ?, ?)"
        " ON CONFLICT DO UPDATE SET ended_ms = NULL, reason_ended = '', kind_ended = ''",
        (began.database_id, began.generation, began.reason, began.now_ms),
    )
    connection.execute(
        "UPDATE database SET generation = ?2, follow = ?3, last_generation = max(last_generation, ?2),"
        " last_time_ms = max(last_time_ms, ?4), stored_generation = ?2, stored_epoch = ?5, stored_frame = ?6,"
        " stored_key = ?7, stored_ms = ?4, base_key = ?8, base_ms = ?9, base_bytes = ?10, wal_bytes = 0 WHERE id = ?1",
        (
            *(began.database_id, began.generation, began.follow),
            *(continued.time_ms, continued.epoch, continued.frame, continued.stored_key),
            *(continued.base_key, continued.base_ms, continued.base_bytes),
        ),
    )
    connection.execute(
        "INSERT INTO page_map (database_id, generation, map_id, counter, page_size, cipher)"
        " VALUES (?, ?, ?, 0, ?, 'unknown')",
        (began.database_id, began.generation, continued.map_id, continued.page_size),
    )


def _end(connection: sqlite3.Connection, database_id: int, gap: Gap, now_ms: int) -> None:
    connection.execute(
        "UPDATE generation SET ended_ms = ?, reason_ended = ?, kind_ended = ?"
        " WHERE database_id = ? AND ended_ms IS NULL",
        (now_ms, gap.reason, gap.kind, database_id),
    )
    for (generation,) in connection.execute("SELECT generation FROM database WHERE id = ?", (database_id,)).fetchall():
        if generation is not None:
            forget_map(connection, database_id, generation)
    connection.execute("UPDATE database SET generation = NULL, follow = NULL WHERE id = ?", (database_id,))
