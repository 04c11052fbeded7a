"""What a stop leaves behind: everything that is not in storage is said, and makes the exit code another.

A host that is being retired must not look clean. What is left is safe on disk, and the next start ships it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.errors import MissingError, WalsyncdError

_log = structlog.get_logger()


def report_unshipped(
    journal: Journal, databases: Sequence[FollowedDatabase], unseen: Mapping[str, WalsyncdError]
) -> bool:
    """Log what is not in storage; whether that is nothing. ``unseen``: whom the last look failed for, and why."""
    return not (_say_spool(journal) + _say_bases(journal, databases) + _say_unseen(unseen))


def _say_spool(journal: Journal) -> int:
    names = {row.id: row.name for row in journal.databases()}
    left = journal.pending()
    for database_id in dict.fromkeys(row.database_id for row in left):
        rows = [row for row in left if row.database_id == database_id]
        size = sum(row.size for row in rows)
        first, last = rows[0].key, rows[-1].key
        _log.warning(
            "left_in_spool", database=names[database_id], objects=len(rows), bytes=size, first=first, last=last
        )
    return len(left)


def _say_bases(journal: Journal, databases: Sequence[FollowedDatabase]) -> int:
    """Without a base the newest generation restores nothing."""
    bare = []
    for tracked in databases:
        row = journal.database_by_id(tracked.row_id)
        if row.generation is not None and not (row.base_key or "").startswith(row.generation):
            bare.append(tracked)
            _log.warning("base_unfinished", database=row.name, generation=row.generation)
    return len(bare)


def _say_unseen(unseen: Mapping[str, WalsyncdError]) -> int:
    """What was committed last may not have been read; of a database that is missing there is nothing to read."""
    failed = {name: error for name, error in unseen.items() if not isinstance(error, MissingError)}
    for name, error in failed.items():
        _log.warning("last_look_failed", database=name, reason=error.message, remedy=error.hint)
    return len(failed)
