"""Collects the states of databases, which one transaction of the journal writes for all of them."""

from __future__ import annotations

from collections import deque

from walsyncd.adapters.journal.database_table import DatabaseTable
from walsyncd.adapters.journal.rows import StateNote


class StateNotes:
    """States that are to be written. Any thread may add one; one thread writes."""

    def __init__(self, journal: DatabaseTable) -> None:
        self._journal = journal
        self._waiting: deque[StateNote] = deque()

    def add(self, note: StateNote) -> None:
        """Have a state written by the next ``write``."""
        self._waiting.append(note)

    def write(self) -> None:
        """Write what was added, in one transaction. Raises StateError, and keeps all of it then."""
        notes = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not notes:
            return
        try:
            self._journal.note_states(notes)
        except BaseException:
            self._waiting.extendleft(reversed(notes))
            raise
