"""Tests that states are written together, and that none is lost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from walsyncd.adapters.journal.journal import Journal, StateNote
from walsyncd.adapters.journal.state_notes import StateNotes
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.errors import StateError

FOLLOWING, MISSING = DatabaseState.FOLLOWING, DatabaseState.MISSING


def test_states_are_written_in_one_transaction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last state of a database is the one that stays. If the journal is full, the states are written later."""
    written: list[Sequence[StateNote]] = []
    note_states = Journal.note_states

    def refuse(_journal: Journal, _notes: Sequence[StateNote]) -> None:
        raise StateError("write journal: database or disk is full")

    def count(journal: Journal, notes: Sequence[StateNote]) -> None:
        written.append(notes)
        note_states(journal, notes)

    with Journal.open(tmp_path) as journal:
        ids = [journal.database(name, f"/srv/{name}.db").id for name in ("a", "b")]
        notes = StateNotes(journal)
        monkeypatch.setattr(Journal, "note_states", refuse)
        for database_id in ids:
            notes.add(StateNote(database_id, FOLLOWING, "", "", 10))
        with pytest.raises(StateError):
            notes.write()
        notes.add(StateNote(ids[1], MISSING, "it is gone", "look for it", 20))
        monkeypatch.setattr(Journal, "note_states", count)
        notes.write()
        notes.write()
        assert [(row.state, row.cause, row.state_since_ms) for row in journal.databases()] == [
            (FOLLOWING, "", 10),
            (MISSING, "it is gone", 20),
        ]
    assert [len(each) for each in written] == [3]
