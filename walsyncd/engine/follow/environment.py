"""What a look needs besides the database's own files."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass, field

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.system import clock
from walsyncd.engine.read_ahead.read_ahead import ReadAhead


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

    def salts(self) -> tuple[int, int]:
        """Return random salts for an epoch."""
        return self.entropy(), self.entropy()
