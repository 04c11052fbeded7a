"""Reports everything that is not in storage when the daemon stops, which also changes the exit code.

A host must not be retired while something is left. What is left is safe on disk, and the next start ships it.
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
    """Log what is not in storage.

    Returns whether everything is in storage. ``unseen`` has the errors of the last look, by name.
    """
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
    """Report missing bases.

    The newest generation can't be restored without a base. Where only bases store changes, the generation lacks the
    changes since its last base.
    """
    bare = []
    for tracked in databases:
        row = journal.database_by_id(tracked.row_id)
        if row.generation is not None and not row.has_base:
            bare.append(tracked)
            _log.warning("base_left_unfinished", database=row.name, generation=row.generation)
        elif row.generation is not None and tracked.base.unbased_since_s is not None:
            bare.append(tracked)
            _log.warning(
                "changes_left_uncopied", database=row.name, remedy="walsyncd sync, before the daemon is stopped"
            )
    return len(bare)


def _say_unseen(unseen: Mapping[str, WalsyncdError]) -> int:
    """Report failed looks, after which the last commits may not have been read.

    A missing database has nothing to read.
    """
    failed = {name: error for name, error in unseen.items() if not isinstance(error, MissingError)}
    for name, error in failed.items():
        _log.warning("last_look_failed", database=name, reason=error.message, remedy=error.hint)
    return len(failed)
