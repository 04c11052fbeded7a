"""The journal's objects: segments and manifests to be uploaded, in the order in which they must become visible.

spooled ──(begun)──> begun ──(stored)──> row removed, body removed
   └──(merge)──> one spooled row in the place of several
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from walsyncd.adapters.journal.database_table import begin_history
from walsyncd.adapters.journal.journal_schema import Connection
from walsyncd.adapters.journal.page_map_table import forget_map, insert_redo
from walsyncd.adapters.journal.rows import (
    COLUMNS,
    UNNUMBERED,
    Advance,
    NewObject,
    ObjectKind,
    ObjectRow,
    ObjectState,
    drop,
    drop_one,
    fetch,
    insert,
    note_base_stored,
    object_row,
)
from walsyncd.adapters.journal.spool import Spool, SpoolFile, SpoolWriter
from walsyncd.core.follow.gap import Gap
from walsyncd.errors import CorruptError, MissingError, WalsyncdError

BLOCK_BYTES = 1 << 20  # a body that is sent in blocks is read in blocks of this size
BEGUN_BODIES_MAX = 64  # the bodies, of up to 64 KiB each, that are held in memory until they are sent
BLOB_SIZE_MAX = 64 << 10  # bytes; measured: up to this size one fsync of the journal is faster than the three of a file

_SPOOL_BYTES = "SELECT coalesce(sum(size), 0) FROM object WHERE kind != 'base'"


class ObjectReads(Connection):
    """Queries for the daemon and for the command line."""

    def pending(self, database_id: int | None = None, *, limit: int = -1) -> list[ObjectRow]:
        """Return at most ``limit`` segments and manifests not stored yet, of one database or all, in order."""
        whose = "" if database_id is None else "AND database_id = ?"
        sql = f"SELECT {COLUMNS} FROM object WHERE kind != 'base' {whose} ORDER BY id LIMIT ?"  # noqa: S608  constants
        values = (limit,) if database_id is None else (database_id, limit)
        return [object_row(record) for record in self._rows(sql, values)]

    def spool_bytes(self) -> int:
        """Return the bytes that all databases have spooled."""
        return int(self._rows(_SPOOL_BYTES)[0][0])

    def spool_bytes_at_most(self) -> int:
        """Return ``spool_bytes`` plus objects stored a moment ago. This method is cheaper, because it never writes."""
        return int(self._durable_rows(_SPOOL_BYTES)[0][0])

    def behind(self) -> int:
        """Return how many databases have something spooled."""
        return int(self._rows("SELECT count(DISTINCT database_id) FROM object WHERE kind != 'base'")[0][0])

    def last_object_id(self) -> int:
        """Return the greatest id ever given to an object; 0 before the first."""
        records = self._rows("SELECT seq FROM sqlite_sequence WHERE name = 'object'")
        return int(records[0][0]) if records else 0


@dataclass(frozen=True, slots=True)
class _Body:
    """A durable body: ``blob`` if it is in its row, or else ``path``, the bare name of a spool file."""

    blob: bytes | None
    path: str | None
    size: int
    md5: str
    token: str


class ObjectTable(ObjectReads):
    """Changes to objects. Every method is one durable step."""

    def __init__(self, connection: sqlite3.Connection, path: Path, spool: Spool) -> None:
        super().__init__(connection, path)
        self._spool = spool
        self.bytes_spooled = 0
        """How many bytes were ever spooled by this process."""
        self._kept_bytes = 0
        self._kept_bytes_max: int | None = None
        self._is_kept: Callable[[int], bool] = lambda _database_id: True
        # By id and token, since the id of a row whose transaction failed is used again. Dropped rows have no entry.
        self._begun_bodies: dict[tuple[int, str], bytes] = {}

    def spool_file_writer(self) -> SpoolWriter:
        """Return a context that writes a body in blocks. The result of its ``finish()`` is for a NewObject."""
        return self._spool.writer()

    def advance(self, advances: Sequence[Advance]) -> list[ObjectRow]:
        """Store objects and follow states of any number of databases in one transaction. Returns the new rows.

        An advance is rejected whole if its objects belong to a generation that has ended meanwhile, or follow on from
        dropped objects.
        """
        objects = [new for advance in advances for new in advance.objects]
        bodies: list[_Body] = []
        try:
            for new in objects:
                bodies.append(self._keep(new.body))  # noqa: PERF401  after a failure, those before are removed
            left = iter(bodies)
            rows: list[ObjectRow] = []
            with self._transaction() as connection:
                for advance in advances:
                    rows += _advance(connection, advance, [(new, next(left)) for new in advance.objects])
                self._hold_begun(rows, bodies)
                self.bytes_spooled += sum([row.size for row in rows])
        except WalsyncdError:
            made = zip(objects, bodies, strict=False)
            self._remove_files(body.path for new, body in made if not isinstance(new.body, SpoolFile))
            self._begun_bodies.clear()
            raise
        self._remove_files({body.path for body in bodies} - {row.body_path for row in rows})
        return rows

    def begun(self, ids: Sequence[int], now_ms: int) -> None:
        """Note that these objects are about to be sent."""
        with self._transaction() as connection:
            sql = "UPDATE object SET state = 'begun', attempted_ms = ? WHERE id = ?"
            connection.executemany(sql, [(now_ms, object_id) for object_id in ids])

    def _hold_begun(self, rows: Sequence[ObjectRow], bodies: Sequence[_Body]) -> None:
        """Hold the bodies of rows that are sent at once, so that the bodies need not be read from the disk."""
        blobs = {body.token: body.blob for body in bodies if body.blob is not None}
        for row in rows:
            if row.state is ObjectState.BEGUN and row.token in blobs and len(self._begun_bodies) < BEGUN_BODIES_MAX:
                self._begun_bodies[row.id, row.token] = blobs[row.token]

    def is_held(self, row: ObjectRow) -> bool:
        """Whether the row was written as begun and not dropped since, and its body is still held in memory."""
        return (row.id, row.token) in self._begun_bodies

    def merge(self, rows: Sequence[ObjectRow], key: str) -> ObjectRow:
        """Make one spooled object of several adjoining ones, none of which was ever begun.

        The new object takes the place of the first one. Raises MissingError if a row was dropped meanwhile, and
        CorruptError if a body has changed.
        """
        body = self._concatenated(rows)
        try:
            with self._transaction() as connection:
                sql = "SELECT follow_before FROM object WHERE id = ?"
                before = connection.execute(sql, (rows[0].id,)).fetchone() or (None,)
                for row in rows:
                    _require_spooled(row, fetch(connection, row.id))
                    connection.execute("DELETE FROM object WHERE id = ?", (row.id,))
                merged = insert(connection, _merged(rows, key, body), body.blob, *before)
        except WalsyncdError:
            self._remove_files([body.path])
            raise
        self._remove_files(row.body_path for row in rows)
        return merged

    def body(self, row: ObjectRow) -> bytes:
        """Return the whole body.

        Raises MissingError if the row was dropped meanwhile, CorruptError if the body has changed.
        """
        held = self._begun_bodies.pop((row.id, row.token), None)
        if held is not None:
            return held
        body = self.body_part(row, 0, row.size + 1)
        if hashlib.md5(body, usedforsecurity=False).hexdigest() != row.md5:
            raise CorruptError(f"read spooled object {row.key}: its {len(body)} bytes have changed on disk")
        return body

    def body_part(self, row: ObjectRow, offset: int, length: int) -> bytes:
        """Return ``length`` bytes of the body from ``offset`` on, without verifying them.

        Raises the same errors as ``body`` does.
        """
        if row.body_path is None:
            blob: bytes = self._blob(row) or b""
            return blob[offset : offset + length]
        try:
            return self._spool.read(row.body_path, offset=offset, length=length)
        except CorruptError:
            self._blob(row)  # if the row is gone too, the file is not damaged, and this raises MissingError
            raise

    def body_blocks(self, row: ObjectRow) -> Iterator[bytes]:
        """Yield the body in blocks, without verifying them. Raises the same errors as ``body_part`` does."""
        for offset in range(0, row.size + 1, BLOCK_BYTES):  # one byte more than the size, to notice a longer file
            yield self.body_part(row, offset, min(BLOCK_BYTES, row.size + 1 - offset))

    def lose_generation(self, database_id: int, generation: str, gap: Gap, now_ms: int) -> bool:
        """Drop the spooled objects of a generation that can't continue.

        Returns True if the generation was the current one. The generation ends in the same transaction, so nothing is
        ever added after the hole.
        """
        with self._transaction() as connection:
            rows = self._drop(connection, database_id, generation)
            connection.execute(
                "UPDATE generation SET ended_ms = ?, reason_ended = ?, kind_ended = ?"
                " WHERE database_id = ? AND generation = ? AND ended_ms IS NULL",
                (now_ms, gap.reason, gap.kind, database_id, generation),
            )
            sql = "UPDATE database SET generation = NULL, follow = NULL WHERE id = ? AND generation = ?"
            was_current = connection.execute(sql, (database_id, generation)).rowcount == 1
            forget_map(connection, database_id, generation)
        self._remove_files(row.body_path for row in rows)
        return was_current

    def rewind(self, row: ObjectRow) -> bool:
        """Drop an object that nobody has begun to store, and all objects after it, so that their frames are read again.

        The database gets back the follow state from before the object. If that state is unknown or the generation is
        not the current one, the method drops nothing and returns False.
        """
        with self._transaction() as connection:
            sql = (
                "SELECT follow_before FROM object JOIN database ON database.id = object.database_id"
                " WHERE object.id = ? AND database.generation = object.generation"
            )
            before = connection.execute(sql, (row.id,)).fetchone()
            if before is None or before[0] is None:
                return False
            rows = self._drop(connection, row.database_id, row.generation, with_bases=True)
            sql = "UPDATE database SET follow = ?, rewinds = rewinds + 1 WHERE id = ?"
            connection.execute(sql, (before[0], row.database_id))
        self._remove_files(dropped.body_path for dropped in rows)
        return True

    def take_back(self, database_id: int) -> int | None:
        """Drop the spooled objects that a database has not begun to store, and its bases under way.

        The database gets back the follow state from before the dropped objects. Objects that were begun stay, because
        they may still reach storage, and the next object must follow them. Returns the number of bytes freed, or None
        if nothing can be dropped in this way.
        """
        with self._transaction() as connection:
            sql = f"SELECT {COLUMNS}, follow_before FROM object WHERE database_id = ? ORDER BY id"  # noqa: S608  constants
            records = connection.execute(sql, (database_id,)).fetchall()
            current = connection.execute("SELECT generation FROM database WHERE id = ?", (database_id,)).fetchone()[0]
            rows = [(object_row(record[:-1]), record[-1]) for record in records]
            going_on = [(row, before) for row, before in rows if row.generation == current]
            kept_upto = max((row.id for row, _ in going_on if _has_begun(row)), default=0)
            first = next(((row.id, before) for row, before in going_on if before and row.id > kept_upto), None)
            if first is None:
                return None
            dropped = [
                row for row, _ in rows if row.id >= first[0] or row.generation != current or row.kind is ObjectKind.BASE
            ]
            self._begun_bodies.clear()
            for row in dropped:
                drop_one(connection, row)
            sql = "UPDATE database SET follow = ?, rewinds = rewinds + 1 WHERE id = ?"
            connection.execute(sql, (first[1], database_id))
        self._remove_files(row.body_path for row in dropped)
        return sum(row.size for row in dropped if row.kind is not ObjectKind.BASE)

    def drop_spool(self, database_id: int) -> int:
        """Drop all segments and manifests that a database has spooled. Returns the number of bytes freed."""
        with self._transaction() as connection:
            rows = self._drop(connection, database_id)
        self._remove_files(row.body_path for row in rows)
        return sum(row.size for row in rows)

    def _drop(
        self,
        connection: sqlite3.Connection,
        database_id: int,
        generation: str | None = None,
        *,
        with_bases: bool = False,
    ) -> list[ObjectRow]:
        self._begun_bodies.clear()
        return drop(connection, database_id, generation, with_bases=with_bases)

    def sweep(self) -> int:
        """Remove spool files that no row names, which a crash has left. Call it only before anything is spooled."""
        named = self._rows(
            "SELECT body_path FROM object WHERE body_path IS NOT NULL"
            " UNION ALL SELECT body_path FROM kept WHERE body_path IS NOT NULL"
        )
        return self._spool.sweep({record[0] for record in named})

    def _keep(self, body: bytes | SpoolFile) -> _Body:
        if isinstance(body, SpoolFile):
            return _Body(None, body.path.name, body.size, body.md5, body.token)
        if len(body) > BLOB_SIZE_MAX:
            return self._keep(self._spool.write(body))
        md5, token = hashlib.md5(body, usedforsecurity=False).hexdigest(), hashlib.sha256(body).hexdigest()
        return _Body(body, None, len(body), md5, token)

    def _concatenated(self, rows: Sequence[ObjectRow]) -> _Body:
        if sum(row.size for row in rows) <= BLOB_SIZE_MAX:
            return self._keep(b"".join(self.body(row) for row in rows))
        with self._spool.writer() as writer:
            for row in rows:
                writer.write(self.body(row))
            return self._keep(writer.finish())

    def _blob(self, row: ObjectRow) -> bytes | None:
        records = self._rows("SELECT body FROM object WHERE id = ?", (row.id,))
        if not records:
            raise MissingError(f"object {row.key} was dropped from the journal")
        blob: bytes | None = records[0][0]
        return blob

    def _remove_files(self, names: Iterable[str | None]) -> None:
        self._spool.remove([name for name in names if name is not None])


def _advance(
    connection: sqlite3.Connection, advance: Advance, objects: Sequence[tuple[NewObject, _Body]]
) -> list[ObjectRow]:
    if advance.begins is not None:
        begin_history(connection, advance.begins)
        return []
    sql = "SELECT generation, follow, rewinds FROM database WHERE id = ?"
    current, before, rewinds = connection.execute(sql, (advance.database_id,)).fetchone()
    if current is None or any(new.generation != current for new, _ in objects):
        return []
    if advance.rewinds not in (None, rewinds):
        return []
    if advance.base is not None:
        note_base_stored(connection, advance.base)
    rows = []
    for index, (new, body) in enumerate(objects):
        row = _unnumbered(advance.database_id, new, body, is_begun=advance.begin and index == 0)
        rows.append(insert(connection, row, body.blob, before if index == 0 else None))
        if new.redo is not None:
            place = (new.epoch, new.first, new.last)
            insert_redo(connection, advance.database_id, new.generation, place, new.redo)
        if new.bridged:
            sql = "INSERT INTO bridged (database_id, generation, epoch, kind, at_ms) VALUES (?, ?, ?, ?, ?)"
            connection.execute(sql, (advance.database_id, new.generation, new.epoch, new.bridged, new.time_ms))
    connection.execute(
        "UPDATE database SET follow = coalesce(?, follow), last_time_ms = coalesce(?, last_time_ms) WHERE id = ?",
        (advance.follow, max((row.time_ms for row in rows), default=None), advance.database_id),
    )
    return rows


def _has_begun(row: ObjectRow) -> bool:
    return row.kind is not ObjectKind.BASE and row.state is not ObjectState.SPOOLED


def _unnumbered(database_id: int, new: NewObject, body: _Body, *, is_begun: bool) -> ObjectRow:
    return ObjectRow(
        id=UNNUMBERED,
        database_id=database_id,
        generation=new.generation,
        kind=new.kind,
        key=new.key,
        size=body.size,
        md5=body.md5,
        token=body.token,
        epoch=new.epoch,
        first=new.first,
        last=new.last,
        time_ms=new.time_ms,
        state=ObjectState.BEGUN if is_begun else ObjectState.SPOOLED,
        upload_id=None,
        part_size=None,
        body_path=body.path,
        # The attempt follows a moment after the last commit, which is exact enough for rules about an hour.
        attempted_ms=new.time_ms if is_begun else None,
        commits=new.commits,
    )


def _require_spooled(row: ObjectRow, present: ObjectRow | None) -> None:
    if present is None:
        raise MissingError(f"object {row.key} was dropped from the journal")
    assert present.state is ObjectState.SPOOLED, f"object {row.key} has a begun upload, so it can't be merged"


def _merged(rows: Sequence[ObjectRow], key: str, body: _Body) -> ObjectRow:
    return replace(
        rows[0],
        key=key,
        size=body.size,
        md5=body.md5,
        token=body.token,
        commits=sum(row.commits for row in rows),
        last=rows[-1].last,
        time_ms=rows[-1].time_ms,
        body_path=body.path,
    )
