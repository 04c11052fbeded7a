"""The surroundings of a look: everything that it needs besides the database's own files."""

from __future__ import annotations

import secrets
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.system import clock
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.stored.moment import CLOCK_OFF_MS
from walsyncd.engine.read_ahead.read_ahead import ReadAhead

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Environment:
    """The journal, the clocks, random bits, the limits, and ``drain``, which hands every queued event to its database.

    ``read_ahead`` reads nothing until a thread runs it. ``wall_ms`` returns the time that is stored; it is corrected by
    the store's clock. ``machine_ms`` returns this machine's time, by which files are dated. ``is_clock_known`` returns
    whether an earlier time that is after ``wall_ms`` must have been wrong. ``has_clock_leapt`` returns whether this
    machine's clock was set forward a short while ago. ``leaves_in_s`` returns for how many seconds the next object of a
    database need not be spooled. After ``count_journal_writes``, each write to a database's -journal causes an event of
    its own, as long as that file exists and has had few writes since.
    """

    journal: Journal
    drain: Callable[[], None]
    boot_id: str
    wall_ms: Callable[[], int] = clock.wall_ms
    machine_ms: Callable[[], int] = clock.wall_ms
    is_clock_known: Callable[[], bool] = lambda: False
    has_clock_leapt: Callable[[], bool] = lambda: False
    monotonic_ms: Callable[[], int] = clock.monotonic_ms
    spool_bytes_max: Callable[[], int] = lambda: sys.maxsize
    entropy: Callable[[], int] = lambda: secrets.randbits(32)
    limits: Limits = DEFAULT_LIMITS
    leaves_in_s: Callable[[int], float] = lambda _database_id: 0.0
    count_journal_writes: Callable[[Path], None] = lambda _path: None
    read_ahead: ReadAhead = field(default_factory=ReadAhead)
    proofs: Counter[str] = field(default_factory=Counter[str])
    """The number of times that each rule decided at the end of a WAL's incarnation (``Step.decided_by``). Only the
    follower counts."""
    whole_scans: Counter[str] = field(default_factory=Counter[str])
    """How often all pages of a large file in rollback mode were read, by database. Only the follower counts."""

    def read_whole(self, database: str, reason: str) -> None:
        """Count and log that a scan has read all pages of a large file. Only the follower's thread may call this."""
        self.whole_scans[database] += 1
        _log.debug("file_read_whole", database=database, reason=reason)

    def proven(self, database: str, rule: str) -> None:
        """Count and log which rule decided. Only the follower's thread may call this."""
        self.proofs[rule] += 1
        _log.debug("wal_restart_proven", database=database, by=rule)

    def is_ahead(self, time_ms: int) -> bool:
        """Whether ``time_ms`` was taken while the clock was ahead, so that later commits must not continue from it."""
        return time_ms > self.wall_ms() + CLOCK_OFF_MS and self.is_clock_known()

    def not_ahead(self, time_ms: int) -> int:
        """Return ``time_ms``, which was taken earlier, or the current time if the clock was ahead then."""
        return self.wall_ms() if self.is_ahead(time_ms) else time_ms

    def next_epoch(self, stream: Stream) -> Stream:
        """Return the stream at the start of the next epoch. Only there may the stored time go back."""
        begun = stream.next_epoch()
        return replace(begun, time_ms=self.not_ahead(begun.time_ms))

    def empty_epoch(self, stream: Stream) -> Stream:
        """Return the stream at the start of its own epoch if that has no frame yet, else at the start of the next."""
        if stream.frame:
            return self.next_epoch(stream)
        return replace(stream, time_ms=self.not_ahead(stream.time_ms))

    def body_bytes_max(self) -> int:
        """Return how many bytes of the spool a bridge may take, or the first transaction of an epoch."""
        return self.spool_bytes_max() // self.limits.spool_share

    def salts(self) -> tuple[int, int]:
        """Return random salts for an epoch."""
        return self.entropy(), self.entropy()
