"""Mutants that leave out, or misplace, what the journal writes later than it happens."""

from __future__ import annotations

from tests.mutation.mutants import mutant

SCHEMA = "adapters/journal/journal_schema.py"
OBJECTS = "adapters/journal/object_table.py"
ITS_TEST = "adapters/journal/test_stored_table.py"

DEFERRAL_MUTANTS = (
    mutant(
        "what is deferred does not come with the next row that is begun",
        SCHEMA,
        "committed = self._deferred.apply(self._connection)",
        "committed = list",
        ITS_TEST,
    ),
    mutant(
        "who reads does not find what is deferred",
        SCHEMA,
        "            self.commit_deferred()\n",
        "            pass\n",
        ITS_TEST,
    ),
    mutant(
        "a dropped object is noted as stored",
        "adapters/journal/stored_table.py",
        'if not connection.execute("DELETE FROM object WHERE id = ?", (row.id,)).rowcount:',
        'if connection.execute("DELETE FROM object WHERE id = ?", (row.id,)).rowcount < 0:',
        ITS_TEST,
    ),
    mutant(
        "the body of a dropped object can still be had",
        OBJECTS,
        "        self._begun_bodies.clear()\n        return",
        "        return",
        ITS_TEST,
    ),
    mutant(
        "a row may get the body of another",
        OBJECTS,
        "held = self._begun_bodies.pop((row.id, row.token), None)",
        "held = next((self._begun_bodies.pop(key) for key in list(self._begun_bodies) if key[0] == row.id), None)",
        ITS_TEST,
    ),
    mutant(
        "an object is taken for the only one though others wait",
        "engine/ship/scheduler.py",
        "and not (queue.has_work or queue.is_busy)",
        "",
        "engine/ship/test_waking.py",
    ),
)
