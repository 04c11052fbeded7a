"""Tests of who may write: claims are compared with the bucket, and checked again during a run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Call, Deaths, FakeStorage, Killed
from tests.shipping import G1, G2, NAME, T0, begun_journal, mortal, segment
from walsyncd.adapters.journal.deferred_changes import DeferredChanges
from walsyncd.adapters.journal.journal import Advance, Journal
from walsyncd.core.stored.owner import Owner, format_owner, parse_owner
from walsyncd.engine.ship.ownership import Identity, Ownership, Standing, Verdict
from walsyncd.errors import TransientError

OWNER = f"{NAME}/owner.json"
STRANGER = format_owner(Owner("web-9", "machine-9", "run-9", "2026-11-22T00:00:00+00:00"))


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with begun_journal(tmp_path) as journal:
        yield journal


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


def ownership(journal: Journal, storage: FakeStorage, run: str, machine: str = "machine-1") -> Ownership:
    return Ownership(journal, storage, Identity("web-1", machine, run), lambda: T0)


def claim(journal: Journal, storage: FakeStorage, run: str, *, machine: str = "machine-1", of: str = G1) -> Verdict:
    return ownership(journal, storage, run, machine).claim(journal.database_by_id(1), of)


def store_segment(journal: Journal, storage: FakeStorage, frame: int) -> None:
    """Store a segment as an uploader would."""
    (row,) = journal.advance([Advance(1, "{}", (segment(frame, frame),))])
    storage.put(f"{NAME}/{row.key}", journal.body(row), metadata={})
    journal.stored(row.id, now_ms=T0, tokens=1.0)


def test_a_first_claim_writes_who_we_are(journal: Journal, storage: FakeStorage) -> None:
    """The claim is durable in the journal before ``owner.json`` is written."""
    seen: list[str | None] = []

    def note(call: Call) -> None:
        if call.name == "put_if":
            seen.append(journal.database_by_id(1).owner_next)

    storage.before = note
    assert claim(journal, storage, "run-1").standing is Standing.OURS
    assert seen == ["run-1"]
    assert parse_owner(storage.objects[OWNER].body) == Owner("web-1", "machine-1", "run-1", "2023-11-14T22:13:20+00:00")
    journal.commit_deferred()
    assert journal.database_by_id(1).owner_run == "run-1"


def test_a_new_database_is_claimed_by_the_fewest_requests(tmp_path: Path, storage: FakeStorage) -> None:
    """A claim takes one request if the storage was empty when the run began to write, and otherwise one more for
    each database.
    """
    with Journal.open(tmp_path / "other") as journal:
        for run, asks in (("run-1", []), ("run-2", ["folders"])):
            owner = ownership(journal, storage, run)
            for number, first in enumerate((["list"], [])):
                name = f"{run}-{number}"
                row = journal.database(name, f"/srv/{name}.db")
                journal.begin_generation(row.id, G1, "first", "{}", 0)
                storage.calls.clear()
                verdict = owner.claim(journal.database_by_id(row.id), G1)
                assert (verdict.standing, verdict.is_new) == (Standing.OURS, True)
                assert storage.names() == [*first, *asks, "put_if"]


def begin_base(journal: Journal, run: str) -> None:
    """Begin a base before the claim, as the first base of a database does."""
    fields: dict[str, Any] = {"token": "0123abcd", "part_size": 8, "epoch": 1, "frame": 0, "now_ms": T0}
    journal.base_begun(1, generation=G1, key=f"base-{run}", plan="{}", run_id=run, **fields)


@pytest.mark.parametrize("has_written", [False, True], ids=["before it wrote", "after it wrote"])
def test_a_first_base_whose_run_was_killed_costs_no_generation(
    journal: Journal, storage: FakeStorage, *, has_written: bool
) -> None:
    """The journal had noted the run with the base, whether it came to write ``owner.json`` or not."""
    begin_base(journal, "run-1")
    if has_written:
        storage.put(OWNER, format_owner(Owner("web-1", "machine-1", "run-1", "now")), metadata={})
    begin_base(journal, "run-2")
    assert claim(journal, storage, "run-2").standing is Standing.OURS
    assert parse_owner(storage.objects[OWNER].body).run_id == "run-2"


def test_a_first_base_saves_the_claim_a_transaction(
    journal: Journal, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The requests are those of any new database. So is the result if the answer to the first request is lost."""
    owner = ownership(journal, storage, "run-1")
    begin_base(journal, "run-1")
    monkeypatch.setattr(journal, "claim_begun", lambda *_: pytest.fail("it was noted with the base"))

    def lost(call: Call) -> None:
        if call.name == "put_if":
            storage.after = lambda _call: None
            raise TransientError("the answer was lost")

    storage.after = lost
    with pytest.raises(TransientError):
        owner.claim(journal.database_by_id(1), G1)
    assert storage.names() == ["list", "put_if"]
    assert owner.claim(journal.database_by_id(1), G1).standing is Standing.OURS
    assert parse_owner(storage.objects[OWNER].body).run_id == "run-1"


def test_who_claims_first_in_an_empty_storage_has_it(journal: Journal, storage: FakeStorage) -> None:
    """Another daemon's new ``owner.json`` is noticed, and so are the generations that came with it."""
    owner = ownership(journal, storage, "run-1")
    other = journal.database("other", "/srv/other.db")
    journal.begin_generation(other.id, G1, "first", "{}", 0)
    assert owner.claim(journal.database_by_id(other.id), G1).is_new
    storage.put(OWNER, STRANGER, metadata={})
    storage.put(f"{NAME}/{G2}/wal/x", b"", metadata={})
    lost = owner.claim(journal.database_by_id(1), G1)
    assert (lost.standing, lost.is_new) == (Standing.LOST, False)
    assert G2 in lost.reason


def test_the_next_run_continues(journal: Journal, storage: FakeStorage) -> None:
    """The next run has the same journal, on the same machine."""
    claim(journal, storage, "run-1")
    store_segment(journal, storage, 1)
    assert claim(journal, storage, "run-2").standing is Standing.OURS
    assert json.loads(storage.objects[OWNER].body)["run_id"] == "run-2"


def test_a_kill_at_any_call_of_a_claim_costs_no_generation(
    tmp_path: Path, journal: Journal, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever had been written, the next run recognises it as its own."""
    claim(journal, storage, "run-0")
    store_segment(journal, storage, 1)
    for at in range(1, 100):
        deaths = Deaths(at)
        with mortal(monkeypatch, storage, deaths):
            try:
                claim(journal, storage, f"run-{at}")
            except Killed:
                journal._deferred = DeferredChanges()
            else:
                break
        assert claim(journal, storage, f"again-{at}").standing is Standing.OURS
    assert deaths.passed > 8


def test_two_kills_in_a_row_cost_no_generation(
    journal: Journal, storage: FakeStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first kill comes after ``owner.json`` was written, the second before the next run has written it."""
    claim(journal, storage, "run-0")
    store_segment(journal, storage, 1)
    for first in range(1, 13):
        for second in range(1, 13):
            for at, run in ((first, "killed"), (second, "killed too")):
                with mortal(monkeypatch, storage, Deaths(at)), suppress(Killed):
                    claim(journal, storage, f"{run} {first} {second}")
                journal._deferred = DeferredChanges()
            assert claim(journal, storage, f"next {first} {second}").standing is Standing.OURS


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda objects: objects.pop(OWNER), "owner.json is gone"),
        (lambda objects: setattr(objects[OWNER], "body", STRANGER), "web-9"),
        (lambda objects: setattr(objects[OWNER], "body", b"{"), "unreadable"),
    ],
    ids=["wiped", "another daemon", "unreadable"],
)
def test_a_foreign_owner_ends_the_generation_and_the_next_claims(
    journal: Journal, storage: FakeStorage, change: Callable[[object], object], reason: str
) -> None:
    """The reason names the owner. Then a generation is begun that nobody can have written to."""
    claim(journal, storage, "run-1")
    store_segment(journal, storage, 1)
    change(storage.objects)
    lost = claim(journal, storage, "run-2")
    assert lost.standing is Standing.LOST
    assert reason in lost.reason
    journal.begin_generation(1, G2, lost.reason, "{}", 0)
    assert claim(journal, storage, "run-2", of=G2).standing is Standing.OURS


def test_a_clone_loses_the_generation(journal: Journal, storage: FakeStorage) -> None:
    """The clone has the same journal on another machine."""
    claim(journal, storage, "run-1")
    store_segment(journal, storage, 1)
    assert claim(journal, storage, "run-2", machine="machine-2").standing is Standing.LOST


def test_a_fresh_journal_does_not_continue_what_it_finds(journal: Journal, storage: FakeStorage) -> None:
    """The journal's next id is greater than all ids in the bucket."""
    storage.put(f"{NAME}/{G2}/wal/x", b"", metadata={})
    storage.put(OWNER, STRANGER, metadata={})
    lost = claim(journal, storage, "run-1")
    assert G2 in lost.reason
    assert journal.database_by_id(1).last_generation == G2


def test_an_older_generation_of_somebody_else_is_no_obstacle(journal: Journal, storage: FakeStorage) -> None:
    """Our own generation is new and has nothing in the bucket."""
    storage.put(f"{NAME}/20200101T000000Z-00000001/wal/x", b"", metadata={})
    storage.put(OWNER, STRANGER, metadata={})
    assert claim(journal, storage, "run-1").standing is Standing.OURS


def test_an_object_that_the_journal_does_not_know_ends_the_generation(journal: Journal, storage: FakeStorage) -> None:
    """The journal is an older copy. Objects that it has begun itself are known."""
    claim(journal, storage, "run-1")
    store_segment(journal, storage, 1)
    (begun,) = journal.advance([Advance(1, "{}", (segment(2, 2),), begin=True)])
    storage.put(f"{NAME}/{begun.key}", b"", metadata={})
    assert claim(journal, storage, "run-2").standing is Standing.OURS
    unknown = f"{NAME}/{segment(1, 1, epoch=9).key}"
    storage.put(unknown, b"", metadata={})
    lost = claim(journal, storage, "run-3")
    assert lost.standing is Standing.LOST
    assert unknown in lost.reason


def test_a_look_tells_ours_wiped_and_taken(journal: Journal, storage: FakeStorage) -> None:
    """Each case takes one request."""
    owner = ownership(journal, storage, "run-1")
    database = journal.database_by_id(1)
    owner.claim(database, G1)
    storage.calls.clear()
    assert owner.look(database).standing is Standing.OURS
    storage.objects[OWNER].body = STRANGER
    taken = owner.look(database)
    assert taken.standing is Standing.TAKEN
    assert "web-9" in taken.reason
    del storage.objects[OWNER]
    assert owner.look(database).standing is Standing.LOST
    assert storage.names() == ["get"] * 3


def test_a_race_is_settled_by_reading_again(journal: Journal, storage: FakeStorage) -> None:
    """If somebody writes between our read and our write, we read again, and give up if that never ends."""
    races = [2]

    def race(call: Call) -> None:
        if call.name == "put_if" and races[0]:
            races[0] -= 1
            storage.put(OWNER, STRANGER + b" " * races[0], metadata={})

    storage.before = race
    assert claim(journal, storage, "run-1").standing is Standing.OURS
    races[0] = 99
    with pytest.raises(TransientError, match=r"owner\.json"):
        claim(journal, storage, "run-2")


def test_where_objects_go_by_age_the_owner_is_written_again(journal: Journal, storage: FakeStorage) -> None:
    """The owner is written at half the age, by the next check. The next run finds what the claim said."""
    now_ms = T0
    identity = Identity("web-1", "machine-1", "run-1")
    owner = Ownership(journal, storage, identity, lambda: now_ms, expire_s=86_400.0)
    assert owner.claim(journal.database_by_id(1), G1).standing is Standing.OURS
    storage.calls.clear()
    now_ms += 43_199_000
    assert owner.look(journal.database_by_id(1)).standing is Standing.OURS
    assert storage.names() == ["get"]
    now_ms += 1000
    assert owner.look(journal.database_by_id(1)).standing is Standing.OURS
    assert parse_owner(storage.objects[OWNER].body).since == "2023-11-15T10:13:20+00:00"
    assert claim(journal, storage, "run-2").standing is Standing.OURS
