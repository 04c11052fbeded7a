"""When the follower leaves alone for a moment what is read ahead, and what ends that."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.following import Following, insert
from walsyncd.core.follow.decision import ProvisionalProof
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.limits import Limits
from walsyncd.engine.follow import copy_frames
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.follow.step import Step
from walsyncd.engine.read_ahead.reading import Reading
from walsyncd.engine.threads.mailbox import Request

RESTING = Limits(ahead_frames_per_s=1, ahead_window_s=60.0, ahead_rest_s=9000.0, ahead_rest_bytes=1 << 50)
"""By these limits no writer is too slow to be read ahead, and the rest is longer than any test."""


class Busy:
    """A database whose WAL is read ahead, a follower that has looked at it, and the schedule of its looks."""

    def __init__(self, follow: Following) -> None:
        self.follow = follow
        self.schedule = Schedule()
        follow.environment.read_ahead.has_ended = self.schedule.hasten
        self.step = self.look()

    def look(self) -> Step:
        """Look, after which no base is wanted."""
        step = self.follow.look()
        self.follow.tracked.note_base(wanted="")
        return step

    @property
    def reading(self) -> Reading:
        assert self.follow.tracked.reading is not None
        return self.follow.tracked.reading

    def due_in_s(self) -> float:
        """Return after how many seconds the database is due."""
        due_s = self.schedule._due.get(self.follow.row_id)
        assert due_s is not None
        return due_s - time.monotonic()


@pytest.fixture
def busy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Busy]:
    monkeypatch.setattr(copy_frames, "_is_burst", lambda _reader, _count: True)
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f", limits=RESTING).begin() as follow:
        app.execute(insert(1))
        yield Busy(follow)


def test_a_write_does_not_end_the_rest(busy: Busy) -> None:
    """The thread that reads ahead reads the write, and the next look is for all of it.

    A client that asks does not wait for that.
    """
    tracked = busy.follow.tracked
    busy.schedule.look_again(tracked, busy.step, busy.follow.environment)
    busy.schedule.written([tracked])
    assert busy.due_in_s() > 8000
    busy.schedule.request(tracked, Request(lambda _tracked: None))
    assert busy.due_in_s() <= 0


def test_a_proof_that_may_be_revoked_does_not_end_the_rest(busy: Busy) -> None:
    """The next look can revoke such a proof as well as an earlier look can.

    Beside a fast writer, nearly every restart is proven like this.
    """
    tracked = busy.follow.tracked
    evidence = replace(tracked.evidence, provisional=ProvisionalProof(1, 0, 1 << 60))
    tracked.belief = replace(tracked.belief, evidence=evidence)
    busy.schedule.look_again(tracked, busy.step, busy.follow.environment)
    assert busy.due_in_s() > 8000


def test_the_end_of_the_reading_ends_the_rest(busy: Busy) -> None:
    """Nobody reads later writes. If no look is planned, a look is under way and finds the end."""
    tracked = busy.follow.tracked
    busy.schedule.look_again(tracked, busy.step, busy.follow.environment)
    busy.reading.end()
    busy.follow.environment.read_ahead.look()
    assert busy.due_in_s() <= 0
    busy.schedule.forget(tracked)
    busy.schedule.hasten(busy.follow.row_id)
    assert not busy.schedule._due


@pytest.mark.parametrize("why", ["asked", "wanted", "under way", "slowed", "nothing found", "gap", "over"])
def test_what_needs_promptness_does_not_rest(busy: Busy, why: str) -> None:
    """The follower rests only where nobody waits, and only while everything is read."""
    tracked, step = busy.follow.tracked, replace(busy.step, again_s=0)
    match why:
        case "asked":
            tracked.mailbox.ask(Request(lambda _tracked: None))
        case "wanted":
            tracked.note_base(wanted="it is due")
        case "under way":
            tracked.note_base(under_way=True)
        case "slowed":
            tracked.spec = replace(tracked.spec, backpressure=True)
        case "nothing found":
            step = replace(step, objects=())
        case "gap":
            step = replace(step, gap=Gap(GapKind.OTHER, "a gap"))
        case _:
            busy.reading.end()
    busy.schedule.look_again(tracked, step, busy.follow.environment)
    assert busy.due_in_s() <= 0
