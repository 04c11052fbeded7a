"""The journal's rows as values, and the functions that read, add and drop the rows of objects."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, fields, replace
from enum import StrEnum
from operator import attrgetter

from walsyncd.adapters.journal.journal_schema import Record
from walsyncd.adapters.journal.spool import SpoolFile
from walsyncd.core.content.redo import Redo
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.gap import GapKind
from walsyncd.core.send.multipart import PUT_SIZE_MAX
from walsyncd.core.stored.layout import ManifestKey, format_key, parse_key


class ObjectKind(StrEnum):
    """The role of an object in a restore."""

    SEGMENT = "segment"
    BASE = "base"
    MANIFEST = "manifest"


class ObjectState(StrEnum):
    """The progress of an object. The row of a segment or a manifest is removed as soon as the object is stored."""

    SPOOLED = "spooled"
    BEGUN = "begun"
    STORED = "stored"


@dataclass(frozen=True, slots=True)
class ObjectRow:
    """An object to be uploaded. A database's objects become visible in the order of their ids.

    ``key`` is relative to the database's folder, ``size`` in bytes, ``md5`` in hex. ``token`` is the ``walsyncd-id`` of
    the object's metadata: the SHA-256 of the body, or a random text for a base. ``epoch``, ``first``, ``last`` and
    ``time_ms`` are those of the key. For a base, ``epoch`` and ``last`` are the position where it starts. ``body_path``
    is the bare name of a spool file, or None if the body is in the row. ``attempted_ms`` is the time of the last
    attempt to write the object, ``commits`` the number of transactions in a segment.
    """

    id: int
    database_id: int
    generation: str
    kind: ObjectKind
    key: str
    size: int
    md5: str
    token: str
    epoch: int
    first: int
    last: int
    time_ms: int
    state: ObjectState
    upload_id: str | None
    part_size: int | None
    body_path: str | None
    attempted_ms: int | None
    commits: int = 0

    @property
    def is_multipart(self) -> bool:
        """Whether the object is uploaded in parts, so that an upload may be left open."""
        return self.kind is ObjectKind.BASE or self.size > PUT_SIZE_MAX


@dataclass(frozen=True, slots=True)
class NewObject:
    """An object to be spooled. ``body`` is the whole body, or a durable file that the journal takes over.

    ``redo`` are a segment's changes in the page map. ``bridged`` is the kind of the gap that the segment bridges, or
    empty.
    """

    kind: ObjectKind
    key: str
    body: bytes | SpoolFile
    epoch: int
    first: int
    last: int
    time_ms: int
    generation: str
    commits: int = 0
    redo: Redo | None = None
    bridged: str = ""

    @property
    def size(self) -> int:
        """The stored size in bytes."""
        return self.body.size if isinstance(self.body, SpoolFile) else len(self.body)


@dataclass(frozen=True, slots=True)
class GenerationBegun:
    """A generation that begins at ``now_ms``. ``follow`` is its follow state as JSON, or None."""

    database_id: int
    generation: str
    reason: str
    follow: str | None
    now_ms: int


@dataclass(frozen=True, slots=True)
class GenerationContinued:
    """A generation that another journal began: the last segment (or whole) and the newest base that storage has of it.

    ``began`` is the beginning that this journal notes. It has the follow state after the last segment. ``map_id`` names
    the file of the page map. ``base_bytes`` is the stored size of the base.
    """

    began: GenerationBegun
    epoch: int
    frame: int
    time_ms: int
    stored_key: str | None
    base_key: str
    base_ms: int
    base_bytes: int
    map_id: str
    page_size: int


@dataclass(frozen=True, slots=True)
class StoredBase:
    """A base that the store has: the id of its row, and the ETag and the size in bytes that the store reported."""

    object_id: int
    etag: str
    size: int


@dataclass(frozen=True, slots=True)
class Advance:
    """One step of a database: new objects, the follow state (JSON) after them, or both.

    Without ``follow`` the follow state stays as it is. With ``begin`` the first object is sent at once, so its row is
    written as begun already, which saves one fsync for a single commit. ``rewinds`` is the database's count when the
    step was taken. If the count has changed since, the step follows on from dropped objects and is rejected. None
    allows any count. A step in which a generation ``begins`` has nothing else. A manifest's step has its ``base``.
    """

    database_id: int
    follow: str | None
    objects: tuple[NewObject, ...]
    begin: bool = False
    rewinds: int | None = None
    begins: GenerationBegun | None = None
    base: StoredBase | None = None


@dataclass(frozen=True, slots=True)
class StateNote:
    """The state of a database since ``now_ms``, for ``status``."""

    database_id: int
    state: DatabaseState
    cause: str
    remedy: str
    now_ms: int


@dataclass(frozen=True, slots=True)
class PartRow:
    """A part of a multipart upload, noted durably before it is sent. ``detail`` is the sender's own JSON."""

    number: int
    size: int
    md5: str
    etag: str | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Base:
    """A base under way. ``plan`` is the snapshotter's JSON. ``etag`` is set once the base is stored."""

    row: ObjectRow
    plan: str
    etag: str | None


@dataclass(frozen=True, slots=True)
class Leftover:
    """An abandoned upload. Without ``upload_id`` it stands for every upload that is open under exactly this key."""

    id: int
    database_id: int
    key: str
    upload_id: str | None


@dataclass(frozen=True, slots=True)
class DatabaseRow:
    """The state of a database.

    ``generation`` is None between two generations; ``last_generation`` is the greatest id ever seen. ``owner_run`` is
    the run id that is known to be in the database's ``owner.json``, ``owner_next`` a run id that we may have written
    there since. ``tokens`` is how many tokens its token bucket (``core.send.pacing``) had at ``tokens_ms``.
    ``stored_…`` describe the segment stored last, ``base_…`` the manifest stored last. ``…_ms`` are milliseconds since
    1970, or 0 for never.

    ``base_bytes`` is the stored size of the newest base, ``wal_bytes`` the total size of the segments stored since. As
    far as the journal knows, storage has ``bucket_objects`` objects of ``bucket_bytes`` bytes in all. ``proven_key`` is
    the manifest of the base that passed a verification last. ``pruned_ms`` and ``prune_due_ms`` are times of the
    store's clock. ``prune_due_ms`` is None if nothing can be deleted. ``place`` is the URL of the storage that the
    replica is in, or None if it is in none yet.
    """

    id: int
    name: str
    path: str
    generation: str | None
    follow: str | None
    state: DatabaseState
    cause: str
    remedy: str
    state_since_ms: int
    last_generation: str
    last_time_ms: int
    owner_run: str | None
    owner_next: str | None
    tokens: float
    tokens_ms: int
    stored_generation: str | None
    stored_epoch: int
    stored_frame: int
    stored_key: str | None
    stored_ms: int
    base_key: str | None
    base_ms: int | None
    error: str
    error_ms: int
    rewinds: int
    spooled_bytes: int
    base_bytes: int
    wal_bytes: int
    bucket_bytes: int
    bucket_objects: int
    proven_key: str | None
    pruned_ms: int
    prune_due_ms: int | None
    place: str | None = None

    @property
    def has_base(self) -> bool:
        """Whether there is a generation that has a base in storage, so that the database can be restored."""
        return self.generation is not None and (self.base_key or "").startswith(self.generation)


@dataclass(frozen=True, slots=True)
class GenerationRow:
    """One unbroken history; ``ended_ms`` is None until it ends."""

    database_id: int
    generation: str
    predecessor: str | None
    reason_begun: str
    began_ms: int
    ended_ms: int | None
    reason_ended: str
    kind_ended: GapKind | None


COLUMNS = ", ".join(field.name for field in fields(ObjectRow))
_PLACES = ", ".join("?" for _ in fields(ObjectRow))
_VALUES = attrgetter(*(field.name for field in fields(ObjectRow)))
_INSERT = f"INSERT INTO object ({COLUMNS}, body, follow_before) VALUES ({_PLACES}, ?, ?)"  # noqa: S608  constants
_FETCH = f"SELECT {COLUMNS} FROM object WHERE id = ?"  # noqa: S608  constants

# This is true for a database to whose folder no run can have written.
UNWRITTEN = "owner_run IS NULL AND owner_next IS NULL AND stored_generation IS NULL"

UNNUMBERED = 0  # the id of a row before the journal gives it one


def object_row(record: Record) -> ObjectRow:
    """Return the object of a record that was selected by ``COLUMNS``."""
    row = ObjectRow(*record)
    return replace(row, kind=ObjectKind(row.kind), state=ObjectState(row.state))


def fetch(connection: sqlite3.Connection, object_id: int) -> ObjectRow | None:
    """Return one object, or None if it was dropped or is stored."""
    record = connection.execute(_FETCH, (object_id,)).fetchone()
    return None if record is None else object_row(record)


def insert(
    connection: sqlite3.Connection, row: ObjectRow, blob: bytes | None, follow_before: str | None = None
) -> ObjectRow:
    """Add ``row`` under its id, or under the next free id if it is unnumbered.

    ``follow_before`` is the follow state to return to if the row is dropped. Only the first row of a step has one.
    """
    _, *values = _VALUES(row)
    made = connection.execute(_INSERT, (row.id or None, *values, blob, follow_before)).lastrowid
    assert made is not None, "an inserted row has an id"
    return ObjectRow(made, *values)


def note_base_stored(connection: sqlite3.Connection, base: StoredBase) -> None:
    """Note that a base is in the store. The base's row stays until its manifest is stored."""
    sql = "UPDATE object SET state = 'stored', etag = ?, size = ? WHERE id = ?"
    connection.execute(sql, (base.etag, base.size, base.object_id))


def keep(connection: sqlite3.Connection, object_id: int, *, with_body: bool) -> None:
    """Copy a stored segment's row to ``kept``, for the time when the segment's epoch becomes one object."""
    connection.execute(
        "INSERT OR REPLACE INTO kept (database_id, generation, epoch, first, last, key, size, body_path, body)"
        " SELECT database_id, generation, epoch, first, last, key, size, iif(?2, body_path, NULL), iif(?2, body, NULL)"
        " FROM object WHERE id = ?1",
        (object_id, with_body),
    )


def note_segment_stored(connection: sqlite3.Connection, row: ObjectRow, now_ms: int, tokens: float) -> None:
    """Note in the database's row that a segment is stored, and that ``tokens`` are left in its token bucket."""
    connection.execute(
        "UPDATE database SET stored_generation = ?1, stored_epoch = ?2, stored_frame = ?3, stored_key = ?4,"
        " stored_ms = ?5, wal_bytes = wal_bytes + ?6, bucket_bytes = bucket_bytes + ?6,"
        " bucket_objects = bucket_objects + 1, tokens = ?8, tokens_ms = ?5 WHERE id = ?7",
        (row.generation, row.epoch, row.last, row.key, now_ms, row.size, row.database_id, tokens),
    )


def note_manifest_stored(connection: sqlite3.Connection, row: ObjectRow, now_ms: int, tokens: float) -> None:
    """Note in the database's row that a manifest and so its base are stored. Delete the base's row."""
    key = parse_key(row.key)
    base = (row.database_id, format_key(key.base) if isinstance(key, ManifestKey) else "")
    one = "database_id = ? AND kind = 'base' AND key = ?"
    sizes = connection.execute(f"SELECT size FROM object WHERE {one}", base).fetchone() or (0,)  # noqa: S608  constants
    connection.execute(f"DELETE FROM object WHERE {one}", base)  # noqa: S608  constants
    connection.execute(
        "UPDATE database SET base_key = ?1, base_ms = ?2, base_bytes = ?3, wal_bytes = 0,"
        " bucket_bytes = bucket_bytes + ?3 + ?4, bucket_objects = bucket_objects + 2, tokens = ?6, tokens_ms = ?2"
        " WHERE id = ?5",
        (row.key, now_ms, sizes[0], row.size, row.database_id, tokens),
    )


def drop(
    connection: sqlite3.Connection, database_id: int, generation: str | None = None, *, with_bases: bool = False
) -> list[ObjectRow]:
    """Drop the segments and manifests of a database, or of one of its generations. The caller removes their bodies.

    Uploads that may be open in the store are kept as leftovers.
    """
    sql = (
        f"SELECT {COLUMNS} FROM object WHERE database_id = ?1 AND (kind != 'base' OR ?3)"  # noqa: S608  constants
        " AND (?2 IS NULL OR generation = ?2)"
    )
    rows = [object_row(record) for record in connection.execute(sql, (database_id, generation, with_bases))]
    for row in rows:
        drop_one(connection, row)
    return rows


def drop_one(connection: sqlite3.Connection, row: ObjectRow) -> None:
    """Drop one object of any kind, and the page map changes of a segment."""
    if row.is_multipart and row.state is ObjectState.BEGUN:
        connection.execute(
            "INSERT INTO leftover (database_id, key, upload_id) VALUES (?, ?, ?)",
            (row.database_id, row.key, row.upload_id),
        )
    if row.kind is ObjectKind.SEGMENT:
        connection.execute(
            "DELETE FROM redo WHERE database_id = ? AND generation = ? AND epoch = ? AND first >= ? AND last <= ?",
            (row.database_id, row.generation, row.epoch, row.first, row.last),
        )
    connection.execute("DELETE FROM object WHERE id = ?", (row.id,))
