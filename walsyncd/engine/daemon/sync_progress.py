"""Computes what is still missing until a database is stored as a ``sync`` requires."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from walsyncd.adapters.journal.journal import DatabaseRow, Journal, JournalReader
from walsyncd.core.stored.layout import ManifestKey, parse_key
from walsyncd.core.stored.position import Position, parse_position
from walsyncd.errors import CorruptError, UsageError


@dataclass(frozen=True, slots=True, kw_only=True)
class SyncPoint:
    """How much of a database has to be stored: up to ``position``, and every object up to ``object_id``.

    ``rewinds`` is how often the spool had been read again when this point was promised. ``by_base`` means that only a
    base at the position is enough, since the database has no WAL.
    """

    position: Position
    object_id: int
    rewinds: int
    by_base: bool

    def fields(self) -> dict[str, Any]:
        """Return the point as fields for the control socket."""
        return {
            "position": str(self.position),
            "generation": self.position.generation,
            "object_id": self.object_id,
            "rewinds": self.rewinds,
            "by_base": self.by_base,
        }


def parse_sync_point(fields: Mapping[str, Any]) -> SyncPoint | str:
    """Inverse of ``SyncPoint.fields``.

    Returns a text if the fields say why there was no point. Raises UsageError for other fields.
    """
    if "error" in fields:
        return str(fields["error"])
    position, object_id, rewinds = (fields.get(field) for field in ("position", "object_id", "rewinds"))
    try:
        if isinstance(position, str) and _is_count(object_id) and _is_count(rewinds):
            return SyncPoint(
                position=parse_position(position),
                object_id=object_id,
                rewinds=rewinds,
                by_base=fields.get("by_base") is True,
            )
    except (ValueError, CorruptError) as error:
        raise UsageError(f"`databases` of a request: {error}") from error
    raise UsageError("`databases` of a request holds, by name, what `sync` answered")


def _is_count(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63


def missing(journal: Journal | JournalReader, row: DatabaseRow, asked: SyncPoint | str) -> str:
    """Return what is still missing until the database is stored as ``asked``; empty if nothing is."""
    if isinstance(asked, str):
        return asked
    if row.generation is None or row.generation != asked.position.generation:
        return row.cause or "a new generation begins"
    if row.rewinds != asked.rewinds:
        return "what was spooled is read again"
    pending = [waiting for waiting in journal.pending(row.id) if waiting.id <= asked.object_id]
    if pending:
        return row.error or f"{len(pending)} objects wait to be uploaded"
    if is_outdated(journal.database_by_id(row.id), asked):  # since ``row`` was read
        return "what was spooled was dropped"
    if not _has_base(row, asked):
        return row.error or "the base is not stored yet"
    return ""


def is_outdated(row: DatabaseRow, asked: SyncPoint | str) -> bool:
    """Whether the daemon has to look again: the look failed, the generation has ended, or its spool is read again."""
    if isinstance(asked, str):
        return True
    return row.generation != asked.position.generation or row.rewinds != asked.rewinds


def _has_base(row: DatabaseRow, asked: SyncPoint) -> bool:
    """Whether the generation can be restored. Without a WAL (``by_base``) this needs a base at the position."""
    key = parse_key(row.base_key or "")
    if not isinstance(key, ManifestKey) or key.generation != row.generation:
        return False
    return not asked.by_base or Position(key.generation, key.epoch, key.frame) >= asked.position
