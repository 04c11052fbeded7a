"""Tests of the follower: what it does with the results of looks, in a whole daemon."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import WAIT_S_MAX, Place, running, wait_for
from walsyncd.adapters.journal.journal import Advance, Journal, StateNote
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.decision import ProvisionalProof
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.limits import Limits
from walsyncd.core.send.pacing import Bucket
from walsyncd.engine.base.base_copy import AbandonedError
from walsyncd.engine.content.map_making import MapMaker
from walsyncd.engine.follow import follower
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.follow.look import take_step
from walsyncd.engine.follow.schedule import ROUND_MAX, Taken
from walsyncd.errors import RefusedError, TransientError

AGAIN = Gap.of(GapKind.OTHER, "again")


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def ended_reasons(place: Place, name: str = "app") -> list[str]:
    with place.journal() as journal:
        return [generation.reason_ended for generation in journal.generations(place.row(name).id)]


def test_what_the_journal_did_not_take_is_found_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk under the state directory loses nothing and ends nothing, because the look is repeated."""
    advance, failures = Journal.advance, iter(range(5))

    def full(self: Journal, *args: Any) -> Any:
        if next(failures, None) is not None:
            raise TransientError("write journal: disk is full")
        return advance(self, *args)

    with wal_database(place.database()) as writer, running(place.settings("app"), limits=Limits(journal_retry_s=0.01)):
        generation = place.sync().partition("/")[0]
        monkeypatch.setattr(Journal, "advance", full)
        for value in range(1, 10):
            writer.execute(f"insert into t values ({value})")
        assert place.sync().startswith(generation)
    assert next(failures, None) is None, "it did fail"
    row = place.row()
    assert (row.stored_epoch, row.stored_frame) == (1, 12)


def test_a_gap_ends_the_generation_and_the_reason_is_kept(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal, the state and the next generation's manifest have the reason.

    The next begins by itself. There is no map.
    """
    monkeypatch.setattr(MapMaker, "due", lambda *_: None)
    with (
        wal_database(place.database()) as writer,
        running(place.settings("app"), limits=Limits(generation_delay_s=0.01)),
    ):
        first = place.sync().partition("/")[0]
        wal = place.database().with_name("app.db-wal")
        with wal.open("r+b") as file:  # a block of the WAL that was shipped is lost, as in a power cut
            os.ftruncate(file.fileno(), 32)
        writer.kill()
        with wal_database(place.folder / "scratch.db"):
            pass
        wait_for(lambda: place.ask(op="sync", names=["app"]) and place.row().generation != first)
        assert [reason for reason in ended_reasons(place) if reason]


def test_new_generations_come_ever_more_slowly(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The delay doubles each time. ``status`` says degraded, why, and until when. There is no map."""
    monkeypatch.setattr(MapMaker, "due", lambda *_: None)
    with (
        wal_database(place.database()),
        running(place.settings("app"), limits=Limits(generation_delay_s=60.0)) as daemon,
    ):
        place.sync()
        place.database().rename(place.folder / "moved.db")
        (place.folder / "moved.db").rename(place.database())
        wait_for(lambda: place.row().state == "degraded")
        row = place.row()
        assert "another file" in row.cause or "moved away" in row.cause
        assert "new base is taken in" in row.remedy
        (tracked,) = daemon.databases
        assert tracked.next_generation.delay_s == 60.0
        assert "waits" in place.ask(op="sync", names=["app"])["databases"]["app"]["error"]
        daemon.follower.interrupt(tracked, lambda tracked: daemon.follower.give_way(tracked, AGAIN, until=bool))
        wait_for(lambda: tracked.next_generation.delay_s == 120.0)


def test_one_unreadable_database_does_not_disturb_the_others(place: Place) -> None:
    """The unreadable database is suspended with its reason, and followed again when it can be read."""
    bad = place.database("bad")
    bad.mkdir()
    with wal_database(place.database("good")) as writer, running(place.settings("good", "bad")):
        wait_for(lambda: place.row("bad").state == "failing")
        assert "not a regular file" in place.row("bad").cause
        writer.execute("insert into t values (1)")
        place.sync("good")
        bad.rmdir()
        with wal_database(bad):
            place.sync("bad")
        assert place.row("bad").state == "following"


@pytest.mark.parametrize("tokens", [10.0, 9.0])  # the last state that is written at once may be good or bad
def test_a_state_that_flaps_is_written_a_few_times_and_is_right_in_the_end(
    place: Place, monkeypatch: pytest.MonkeyPatch, tokens: float
) -> None:
    """Each look finds another state than the one before.

    The journal takes ten of the states, and then one per interval.
    """
    interval_s = 0.5
    note_states = Journal.note_states
    looks: list[int] = []
    notes: list[DatabaseState] = []

    def flapping(*args: Any) -> Any:
        looks.append(1)
        if len(looks) % 2 and len(looks) < 100:
            raise RefusedError("read it: permission denied")
        return take_step(*args)

    def counted(self: Journal, written: Sequence[StateNote]) -> None:
        notes.extend(note.state for note in written)
        note_states(self, written)

    with (
        wal_database(place.database()) as writer,
        running(place.settings("app"), limits=Limits(note_interval_ms=interval_s * 1000)) as daemon,
    ):
        place.sync()
        daemon.databases[0].notes = Bucket(tokens, time.monotonic() * 1000)
        monkeypatch.setattr(Journal, "note_states", counted)
        monkeypatch.setattr(follower, "take_step", flapping)
        began_s = time.monotonic()
        while len(looks) < 100:
            writer.execute("insert into t values (1)")
        assert len(notes) <= 10 + (time.monotonic() - began_s) / interval_s + 1
        wait_for(lambda: place.row().state != "refused")  # no application writes any more
        place.sync()


def test_a_follow_state_that_cannot_be_read_begins_a_new_generation(place: Place) -> None:
    """A journal of another version is not guessed at."""
    with wal_database(place.database()):
        with running(place.settings("app")):
            old = place.sync().partition("/")[0]
        with Journal.open(place.state) as journal:
            row = journal.databases()[0]
            journal.advance([Advance(row.id, '{"format": 99}', ())])
        with running(place.settings("app")):
            assert not place.sync().startswith(old)
    assert "follow state" in ended_reasons(place)[0]


def test_who_asked_is_told_of_the_failure(place: Place) -> None:
    """If the generation of a base ended meanwhile, the snapshotter gets the error, and following continues."""

    def abandon(_tracked: FollowedDatabase) -> None:
        raise AbandonedError("the generation ended")

    with wal_database(place.database()) as writer, running(place.settings("app")) as daemon:
        place.sync()
        (tracked,) = daemon.databases
        asked = daemon.follower.request(tracked, abandon)
        assert isinstance(asked.exception(WAIT_S_MAX), AbandonedError)
        writer.execute("insert into t values (1)")
        place.sync()


def test_a_provisional_proof_is_over_in_time_though_nothing_happens(place: Place) -> None:
    """Otherwise an ordinary close minutes later would still revoke the proof."""

    lent: list[ProvisionalProof] = []

    def accept_provisionally(tracked: FollowedDatabase) -> None:
        assert tracked.wal_pairs.current is not None
        until_ms = time.monotonic_ns() // 1_000_000 + 200
        wal_pair = tracked.wal_pairs.current
        proof = ProvisionalProof(wal_pair.serial, wal_pair.closed, until_ms)
        tracked.belief = replace(tracked.belief, evidence=replace(tracked.evidence, provisional=proof))
        lent.append(proof)

    with wal_database(place.database()), running(place.settings("app")) as daemon:
        place.sync()
        (tracked,) = daemon.databases
        daemon.follower.interrupt(tracked, accept_provisionally)
        wait_for(lambda: lent and tracked.evidence.provisional is None)
    assert not any(ended_reasons(place))


def test_busy_databases_share_the_journals_transactions(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A round takes each database once, and writes what was found of all databases in one transaction.

    So databases that are always busy share transactions, and each waits for one look at another database at a time.
    """
    rounds: list[tuple[list[int], int]] = []
    round_of, advance_of = Follower.round, Follower._advance
    written = 0

    def counted_round(self: Follower, taken: list[FollowedDatabase]) -> None:
        before = written
        round_of(self, taken)
        rounds.append(([tracked.row_id for tracked in taken], written - before))

    def counted_advance(self: Follower, steps: list[Taken]) -> None:
        nonlocal written
        written += 1
        advance_of(self, steps)

    monkeypatch.setattr(Follower, "round", counted_round)
    monkeypatch.setattr(Follower, "_advance", counted_advance)
    names = [f"busy{number}" for number in range(4)]
    with ExitStack() as stack:
        apps = [stack.enter_context(wal_database(place.database(name))) for name in names]
        stack.enter_context(running(place.settings(*names)))
        for value in range(25):
            for app in apps:
                app.execute(f"INSERT INTO t VALUES ({value})")
        for name in names:
            place.sync(name)
    assert any(count for _, count in rounds)
    for taken, count in rounds:
        assert len(taken) == len(set(taken)) <= ROUND_MAX
        assert count <= 1
