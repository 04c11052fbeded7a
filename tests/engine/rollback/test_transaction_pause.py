"""Tests of the pause of looks during a transaction, with the events of each journal mode."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.engine.following import Following
from walsyncd.adapters.files.inotify import Event, Kind
from walsyncd.adapters.files.source import Role
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.rollback.transaction_pause import TransactionPause

J, D = Role.JOURNAL, Role.DATABASE
CREATE, MODIFY, COUNTED, DELETE = Kind.CREATE, Kind.MODIFY, Kind.COUNTED, Kind.DELETE
UNCOUNTED = Kind.UNCOUNTED
BEGINS = {
    "DELETE": [(J, CREATE), (J, MODIFY), (D, MODIFY), (J, Kind.CLOSE_WRITE)],
    "PERSIST": [(J, MODIFY), (J, MODIFY), (D, MODIFY), (D, MODIFY)],
    "PERSIST, counted": [(J, MODIFY), (J, COUNTED), (J, MODIFY), (J, UNCOUNTED), (D, MODIFY), (D, MODIFY)],
}
ENDS = {"DELETE": (J, DELETE), "PERSIST": (J, MODIFY), "PERSIST, counted": (J, MODIFY)}


class Scene:
    def __init__(self, folder: Path, *, pause_s: float) -> None:
        self.path = folder / "app.db"
        self.path.touch()
        with Following(self.path, folder / "f") as follow:
            self.tracked = follow.tracked
        self.schedule = Schedule()
        self.pause = TransactionPause(self.schedule, self.tracked, pause_s=pause_s)

    def note(self, *events: tuple[Role, Kind]) -> None:
        for role, kind in events:
            self.pause.note(Event(self.path, role, kind))

    @property
    def is_resting(self) -> bool:
        return self.tracked.pace.rest_until_s > 0


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path, pause_s=600.0)


@pytest.mark.parametrize("mode", BEGINS)
def test_events_wake_the_database_at_the_end_of_each_transaction(scene: Scene, mode: str) -> None:
    """Until the end of a transaction there are no looks."""
    for _ in range(3):
        for event in BEGINS[mode]:
            scene.note(event)
            assert scene.is_resting
        scene.note(ENDS[mode])
        assert not scene.is_resting


def test_a_write_without_a_journal_wakes_it_at_once(scene: Scene) -> None:
    """No event would report the end of the transaction."""
    scene.note((D, MODIFY), (D, MODIFY), (Role.WAL, CREATE))
    assert not scene.is_resting


def test_the_pause_ends_by_itself(tmp_path: Path) -> None:
    """A writer may be killed, or its transaction may last long."""
    scene = Scene(tmp_path, pause_s=-1.0)
    scene.note((J, CREATE))
    assert scene.tracked.pace.rest_until_s < time.monotonic()


def test_the_rest_that_a_look_has_set_is_left_alone(scene: Scene) -> None:
    """The pause stays, whether the transaction began before the look or after it."""
    until_s = time.monotonic() + 300
    scene.schedule.rest(scene.tracked, until_s)
    scene.note(*BEGINS["DELETE"], ENDS["DELETE"])
    assert scene.tracked.pace.rest_until_s == until_s
    scene.schedule.rest(scene.tracked, 0.0)
    scene.note(*BEGINS["DELETE"])
    scene.schedule.rest(scene.tracked, until_s)
    scene.note(ENDS["DELETE"])
    assert scene.tracked.pace.rest_until_s == until_s
