"""What a look needs besides the database's own files."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from dataclasses import dataclass

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.system import clock


@dataclass(frozen=True, slots=True)
class Environment:
    """The journal, the clocks, random bits, and ``drain``, which hands every queued event to its database."""

    journal: Journal
    drain: Callable[[], None]
    boot_id: str
    wall_ms: Callable[[], int] = clock.wall_ms
    monotonic_ms: Callable[[], int] = clock.monotonic_ms
    spool_bytes_max: Callable[[], int] = lambda: sys.maxsize
    entropy: Callable[[], int] = lambda: secrets.randbits(32)

    def salts(self) -> tuple[int, int]:
        """Return random salts for an epoch."""
        return self.entropy(), self.entropy()
