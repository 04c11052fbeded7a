"""Tests of walsyncd.engine.follow.followed_database."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.following import TRUNCATE, Following, insert, spec_of
from tests.engine.running import Place, running
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.limits import Limits
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.look import take_step
from walsyncd.engine.follow.step import Step
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.threads.mailbox import Request
from walsyncd.errors import TransientError


def test_forgetting_leaves_nothing_of_the_generation(tmp_path: Path) -> None:
    """Not even half of a transaction is left. A new generation need not verify what was shipped."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f", limits=Limits(batch_bytes=4120)).begin() as follow:
        follow.look()
        app.execute("INSERT INTO t SELECT hex(randomblob(90000))")
        follow.step()
        tracked = follow.tracked
        assert tracked.pending is not None
        tracked.note_base(wanted="asked for")
        tracked.forget()
        fresh = FollowedDatabase(tracked.spec, tracked.row_id, tracked.wal_pairs)
        fresh.next_generation, fresh.mailbox = tracked.next_generation, tracked.mailbox
        # These signs belong to the file's folder, not to a generation.
        fresh.belief = replace(fresh.belief, other_path=tracked.other_path)
        assert tracked == fresh


def test_a_step_is_believed_when_it_is_applied(tmp_path: Path) -> None:
    """A look changes nothing of the database. All that it found is in its step, and can be lost with it."""
    path = tmp_path / "app.db"
    with wal_database(path) as app, Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        app.execute("INSERT INTO t VALUES (1)")
        tracked = follow.tracked
        believed = tracked.state, tracked.evidence, tracked.pending, tracked.base
        lost = take_step(tracked, follow.environment)
        assert lost.objects
        assert (tracked.state, tracked.evidence, tracked.pending, tracked.base) == believed
        follow.look()
        assert tracked.state is not None
        assert lost.state is not None
        assert tracked.state.stream.position == lost.state.stream.position
        follow.proves(app)


def test_a_gap_leaves_what_was_believed(tmp_path: Path) -> None:
    """The code that handles the gap ends the generation, and still knows the generation's position."""
    path = tmp_path / "app.db"
    with wal_database(path), Following(path, tmp_path / "f").begin() as follow:
        follow.look()
        state, evidence = follow.tracked.state, follow.tracked.evidence
        follow.tracked.apply(Step(gap=Gap.of(GapKind.OTHER, "a test"), state=None, base_wanted="never"))
        assert (follow.tracked.state, follow.tracked.evidence) == (state, evidence)
        assert not follow.tracked.base.wanted


def test_requests_are_taken_in_order_and_none_is_lost() -> None:
    """A look answers the requests that were there when it began. A later request waits for the next look."""
    path = Path("/nowhere/app.db")
    tracked = FollowedDatabase(spec_of(path), 1, WalPairs(path))
    first, second = Request(lambda _tracked: 1), Request(lambda _tracked: 2)
    tracked.mailbox.ask(first)
    asked = tracked.mailbox.asked()
    tracked.mailbox.ask(second)
    tracked.answer(asked)
    assert (first.done.result(), second.done.done(), tracked.mailbox.asked()) == (1, False, 1)
    tracked.fail_requests(TransientError("it ended"))
    with pytest.raises(TransientError, match="it ended"):
        second.done.result()


def test_a_database_is_called_by_its_configuration() -> None:
    """Path and name are those of its entry in the configuration."""
    path = Path("/nowhere/app.db")
    tracked = FollowedDatabase(spec_of(path), 1, WalPairs(path))
    assert (tracked.path, tracked.name) == (path, "app")


def test_only_the_follower_writes_what_is_believed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once a database is admitted, other threads write no field but its pace, for which the schedule has a lock."""
    writes: list[tuple[str, str]] = []

    def write(self: FollowedDatabase, name: str, value: Any) -> None:
        if name != "mailbox" and hasattr(self, "mailbox") and not self.mailbox.held_back:
            writes.append((name, threading.current_thread().name))
        object.__setattr__(self, name, value)

    monkeypatch.setattr(FollowedDatabase, "__setattr__", write, raising=False)
    place = Place(tmp_path)
    with wal_database(place.database()) as app, running(place.settings("app")):
        place.sync()
        app.execute(insert(1))
        place.ask(op="snapshot", names=["app"])
        place.sync()
        app.execute(TRUNCATE, insert(2))
        place.sync()
        written = list(writes)
    assert {name for name, thread in written if thread != "follower"} <= {"pace"}
    assert {"belief", "base", "report"} <= {name for name, thread in written if thread == "follower"}
