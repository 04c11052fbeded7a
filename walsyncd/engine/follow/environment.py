"""What a look needs besides the database's own files."""

from __future__ import annotations

import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.system import clock
from walsyncd.engine.read_ahead.read_ahead import ReadAhead

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Environment:
    """The journal, the clocks, random bits, and ``drain``, which hands every queued event to its database.

    ``read_ahead`` reads nothing until a thread runs it.
    """

    journal: Journal
    drain: Callable[[], None]
    boot_id: str
    wall_ms: Callable[[], int] = clock.wall_ms
    monotonic_ms: Callable[[], int] = clock.monotonic_ms
    spool_bytes_max: Callable[[], int] = lambda: sys.maxsize
    entropy: Callable[[], int] = lambda: secrets.randbits(32)
    read_ahead: ReadAhead = field(default_factory=ReadAhead)
    proofs: Counter[str] = field(default_factory=Counter[str])
    """How often each rule decided at the end of a WAL's incarnation (``Step.decided_by``). The follower counts."""
    whole_scans: Counter[str] = field(default_factory=Counter[str])
    """How often all pages of a large file in rollback mode were read, by database. The follower counts."""

    def read_whole(self, database: str, reason: str) -> None:
        """Count and log that a scan has read all pages of a large file. For the follower's thread."""
        self.whole_scans[database] += 1
        _log.debug("file_read_whole", database=database, reason=reason)

    def proven(self, database: str, rule: str) -> None:
        """Count and log which rule decided. For the follower's thread."""
        self.proofs[rule] += 1
        _log.debug("wal_restart_proven", database=database, by=rule)

    def salts(self) -> tuple[int, int]:
        """Return random salts for an epoch."""
        return self.entropy(), self.entropy()
