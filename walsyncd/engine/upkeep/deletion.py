"""Deletes objects for housekeeping, and counts them. A refused deletion is distinguished from one that fails."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from walsyncd.adapters.storage.interface import Storage
from walsyncd.errors import RefusedError

KEPT_HINT = "the store said yes and lists them all the same; if no lock holds them, ask who runs it"
JOBS = ("compaction", "pruning")
_WAY_OUT = "or write delete = false, and let a lifecycle rule remove what is old (walsyncd-costs(7))"


class DeletionRefusedError(RefusedError):
    """The store refuses a deletion. It would refuse every other deletion as well."""


@dataclass(frozen=True, slots=True)
class Pruned:
    """The result of a pruning: how many objects it removed, and their ``size`` in bytes.

    ``left`` are keys of objects that the store reported as deleted, and kept.
    """

    objects: int
    size: int
    left: tuple[str, ...] = ()


@dataclass(slots=True)
class Removals:
    """Counts what this run has removed and compacted, by the database's row id, and failed jobs by kind."""

    objects: Counter[int] = field(default_factory=Counter)
    size: Counter[int] = field(default_factory=Counter)
    wholes: Counter[int] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def removed(self, database_id: int, objects: int, size: int) -> None:
        """Count this many removed objects, of this many bytes in all."""
        with self._lock:
            self.objects[database_id] += objects
            self.size[database_id] += size

    def put_together(self, database_id: int) -> None:
        """Count an epoch whose segments were compacted into one object."""
        with self._lock:
            self.wholes[database_id] += 1

    def failed(self, job: str) -> None:
        """Count a failed job, one of ``JOBS``."""
        with self._lock:
            self.failures[job] += 1


def remove(storage: Storage, names: Sequence[str]) -> None:
    """Delete objects. Raises DeletionRefusedError, whose hint says what to do if the store refuses."""
    try:
        storage.delete(names)
    except RefusedError as error:
        hint = f"{error.hint}; {_WAY_OUT}" if error.hint else f"allow it, {_WAY_OUT}"
        raise DeletionRefusedError(error.message, hint=hint) from error
