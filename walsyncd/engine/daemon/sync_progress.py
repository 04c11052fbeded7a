"""What is still to come until a database is stored as somebody asked for it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from walsyncd.adapters.journal.journal import DatabaseRow, Journal, JournalReader
from walsyncd.core.stored.layout import ManifestKey, parse_key
from walsyncd.core.stored.position import Position, parse_position


def missing(journal: Journal | JournalReader, row: DatabaseRow, asked: Mapping[str, Any]) -> str:
    """What is still to come until the database is stored as ``asked`` (an answer of ``sync``); empty: nothing."""
    if "error" in asked:
        return str(asked["error"])
    if row.generation is None or row.generation != asked["generation"]:
        return row.cause or "a new generation begins"
    if _was_rewound(row, asked):
        return "what was spooled is read again"
    pending = [waiting for waiting in journal.pending(row.id) if waiting.id <= asked["object_id"]]
    if pending:
        return row.error or f"{len(pending)} objects wait to be uploaded"
    if not _has_base(row, asked):
        return row.error or "the base is not stored yet"
    return ""


def is_outdated(row: DatabaseRow, asked: Mapping[str, Any]) -> bool:
    """Whether the daemon has to look anew: it could not, the generation has ended, or its spool is read again."""
    return "error" in asked or row.generation != asked["generation"] or _was_rewound(row, asked)


def _was_rewound(row: DatabaseRow, asked: Mapping[str, Any]) -> bool:
    """Whether what was promised was dropped since, to be read again under other ids."""
    return bool(row.rewinds != asked.get("rewinds", 0))


def _has_base(row: DatabaseRow, asked: Mapping[str, Any]) -> bool:
    """Whether the generation can be restored; without a WAL (``by_base``) only a base at the position will do."""
    key = parse_key(row.base_key or "")
    if not isinstance(key, ManifestKey) or key.generation != row.generation:
        return False
    return not asked["by_base"] or Position(key.generation, key.epoch, key.frame) >= parse_position(asked["position"])
