"""Collects the states of databases, so that one transaction of the journal writes all of them."""

from __future__ import annotations

from collections import deque

from walsyncd.adapters.journal.database_table import DatabaseTable
from walsyncd.adapters.journal.rows import StateNote


class StateNotes:
    """States to be written. Any thread may add a state, but only one thread may write them."""

    def __init__(self, journal: DatabaseTable) -> None:
        self._journal = journal
        self._waiting: deque[StateNote] = deque()

    def add(self, note: StateNote) -> None:
        """Add a state, which the next ``write`` writes."""
        self._waiting.append(note)

    def write(self) -> None:
        """Write the added states in one transaction. Raises StateError, and then keeps them for the next call."""
        notes = [self._waiting.popleft() for _ in range(len(self._waiting))]
        if not notes:
            return
        try:
            self._journal.note_states(notes)
        except BaseException:
            self._waiting.extendleft(reversed(notes))
            raise
