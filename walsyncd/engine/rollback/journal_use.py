"""Decides whether the changes that scans found were written with a rollback journal, and who wrote them if not.

Each commit of SQLite increments the change counter in page 1. So a change that increments the counter without an event
of the journal is a commit in journal_mode MEMORY or OFF. The next such commit may be killed in the middle, which
damages the file. Any other change without a journal was made by a program that is not SQLite, which copied over the
file, or by a write through another name of the file. Once the change is shipped, nothing shows it any more.
"""

from __future__ import annotations

import structlog

from walsyncd.engine.follow.step import CommittedScan

UNJOURNALLED = (
    "the database is written without a rollback journal (journal_mode MEMORY or OFF): "
    "if a writer is killed the file is damaged, and the replica holds it as it is"
)
JOURNAL = "PRAGMA journal_mode=DELETE or WAL; after a crash `PRAGMA integrity_check`, and a restore to before it"
OVERWRITTEN = "the file was changed by something else than SQLite: a copy over it, or a write by another of its names"
CHECK = (
    "what it held then is shipped; `sqlite3 FILE 'PRAGMA integrity_check'` says whether it is sound, and "
    "`walsyncd restore NAME -o FILE --position POSITION` gives what was before it"
)

_log = structlog.get_logger()


class JournalUse:
    """The known facts about one database's writers. Only the follower's thread may use this."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._journal_events = 0
        self._counter: int | None = None
        """The change counter at the last moment, or None if it was not read."""
        self.is_unjournalled = False
        """Whether SQLite wrote the last change without a rollback journal."""

    def accepted(self, scanned: CommittedScan, *, is_changed: bool, before: str) -> None:
        """Take in a scan whose result counts.

        ``is_changed`` says that the scan shipped pages, and that all events since the previous scan's moment are known.
        ``before`` is the position of that previous moment.
        """
        is_journalled = scanned.journal_events != self._journal_events
        is_counted = scanned.counter is None or self._counter is None or scanned.counter > self._counter
        self._journal_events, self._counter = scanned.journal_events, scanned.counter
        if not is_changed:
            return
        if is_journalled:
            self.is_unjournalled = False
        elif not is_counted:
            _log.warning("file_overwritten", database=self._name, reason=OVERWRITTEN, remedy=CHECK, position=before)
        elif not self.is_unjournalled:
            self.is_unjournalled = True
            _log.warning("written_without_journal", database=self._name, reason=UNJOURNALLED, remedy=JOURNAL)
