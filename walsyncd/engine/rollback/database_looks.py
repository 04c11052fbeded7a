"""The looks at a real database that decide whether the pages read from it are a committed state."""

from __future__ import annotations

from walsyncd.adapters.files.rollback_files import JournalSight, WriterLocks, journal_sight, writer_locks
from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.follow.follow_state import FileFacts
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.file_facts import file_facts, is_settled
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.rollback.committed_moment import FileTimes


class DatabaseLooks:
    """Looks at ``file``, which the path of ``tracked`` named when the file was opened.

    Only the thread that reads the file may call this.
    """

    def __init__(self, tracked: FollowedDatabase, environment: Environment, file: OpenFile, page_size: int) -> None:
        self._tracked = tracked
        self._environment = environment
        self._file = file
        self._page_size = page_size
        self.last_facts: FileFacts | None = None
        """The facts about the file that the follow state keeps, from the last call of ``times``."""

    def events(self) -> int:
        """See ``FileLooks``."""
        self._environment.drain()
        return self._tracked.wal_pairs.trail.file_events

    def is_watched(self) -> bool:
        """See ``FileLooks``."""
        return self._tracked.wal_pairs.watched

    def page_1(self) -> bytes:
        """See ``FileLooks``."""
        return self._file.pread(0, self._page_size)

    def locks(self) -> WriterLocks:
        """See ``FileLooks``."""
        return writer_locks(self._file)

    def journal(self) -> JournalSight:
        """See ``FileLooks``."""
        return journal_sight(self._tracked.path, own_only=self._tracked.spec.is_match)

    def times(self) -> FileTimes:
        """See ``FileLooks``."""
        self.last_facts = facts = file_facts(self._file.identity(), self._environment.boot_id, None)
        return FileTimes(facts.size, facts.mtime_ns, facts.ctime_ns, is_settled(facts, self._environment))

    def is_named(self) -> bool:
        """See ``FileLooks``."""
        return self._file.still_named()
