"""Tests of databases and generations in the journal."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.shipping import G1, G2, segment
from walsyncd.adapters.journal.journal import Advance, Journal
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.follow.gap import Gap, GapKind


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path) as journal:
        yield journal


def test_a_database_keeps_its_row_when_it_moves(journal: Journal) -> None:
    """The name identifies a database, and its path may change."""
    row = journal.database("app", "/srv/app.db")
    moved = journal.database("app", "/mnt/app.db")
    assert (moved.id, moved.path) == (row.id, "/mnt/app.db")
    assert journal.database_by_id(row.id) == moved
    assert [found.name for found in journal.databases()] == ["app"]


def test_databases_join_together(journal: Journal) -> None:
    """Known databases keep their row and their storage. All that join are returned by name."""
    old = journal.database("old", "/srv/old.db")
    journal.note_place(old.id, "s3://first")
    rows = journal.join({"old": ("/mnt/old.db", "s3://second"), "new": ("/srv/new.db", "s3://second")})
    assert rows["old"].id == old.id
    assert [(row.name, row.path, row.place) for row in journal.databases()] == [
        ("old", "/mnt/old.db", "s3://first"),
        ("new", "/srv/new.db", "s3://second"),
    ]
    assert list(rows.values()) == journal.databases()


def test_a_pruning_is_due_at_its_earliest_moment(journal: Journal) -> None:
    """Several databases are noted in one transaction. A later moment does not postpone a pruning."""
    ids = [journal.database(name, f"/srv/{name}.db").id for name in ("a", "b")]
    for moment in (20, 10, 30):
        journal.prunes_become_due(dict.fromkeys(ids, moment))
    assert [row.prune_due_ms for row in journal.databases()] == [10, 10]


def test_a_state_keeps_its_beginning(journal: Journal) -> None:
    """The same state with another cause keeps its beginning. Another state has a new one."""
    row = journal.database("app", "/srv/app.db")
    degraded, following = DatabaseState.DEGRADED, DatabaseState.FOLLOWING
    for now_ms, state, cause in [(10, degraded, "gap"), (20, degraded, "gap again"), (30, following, "")]:
        journal.note_state(row.id, state, cause, "wait", now_ms)
        found = journal.database_by_id(row.id)
        assert (found.state, found.cause) == (state, cause)
        assert found.state_since_ms == (30 if state is following else 10)


def test_notes_are_kept(journal: Journal) -> None:
    """Errors, owners and facts are kept, each in its place."""
    row = journal.database("app", "/srv/app.db")
    journal.note_error(row.id, "AccessDenied", 7)
    journal.claim_begun(row.id, "run-1")
    begun = journal.database_by_id(row.id)
    journal.claimed(row.id, "run-1")
    done = journal.database_by_id(row.id)
    assert (begun.error, begun.error_ms, begun.owner_run, begun.owner_next) == ("AccessDenied", 7, None, "run-1")
    assert (done.owner_run, done.owner_next) == ("run-1", None)
    assert journal.fact("run_id") is None
    journal.begin_run("run-1")
    journal.begin_run("run-2")
    assert journal.fact("run_id") == "run-2"


def test_a_generation_names_its_predecessor_and_why(journal: Journal) -> None:
    """A new generation ends the one that continued."""
    row = journal.database("app", "/srv/app.db")
    journal.begin_generation(row.id, G1, "first", "{}", 10)
    journal.begin_generation(row.id, G2, "a gap", "[]", 20)
    first, second = journal.generations(row.id)
    assert (first.predecessor, first.ended_ms, first.reason_ended) == (None, 20, "a gap")
    assert (second.predecessor, second.ended_ms, second.reason_begun) == (G1, None, "a gap")
    found = journal.database_by_id(row.id)
    assert (found.generation, found.follow, found.last_generation) == (G2, "[]", G2)


def test_a_generation_has_a_base_once_a_manifest_of_it_is_stored(journal: Journal) -> None:
    """The base of the generation before does not count, and without a generation there is none."""
    row = journal.database("app", "/srv/app.db")
    key = f"{G1}/base/manifest"
    rows = [replace(row, generation=each, base_key=key) for each in (G1, G2, None)]
    assert [each.has_base for each in rows] == [True, False, False]
    assert not replace(row, generation=G1).has_base


def test_an_ended_generation_is_followed_by_nothing_until_the_next(journal: Journal) -> None:
    """The rows of an ended generation stay, its follow state is removed, and its reason is not overwritten."""
    row = journal.database("app", "/srv/app.db")
    journal.begin_generation(row.id, G1, "first", "{}", 10)
    journal.advance([Advance(row.id, "{}", (segment(1, 1),))])
    journal.end_generation(row.id, Gap.of(GapKind.OTHER, "a gap"), 20)
    journal.end_generation(row.id, Gap.of(GapKind.OTHER, "another reason"), 30)
    found = journal.database_by_id(row.id)
    assert (found.generation, found.follow, found.last_generation) == (None, None, G1)
    assert found.spooled_bytes == len(b"<1:1>")
    assert journal.generations(row.id)[0].reason_ended == "a gap"


def test_a_generation_seen_in_the_bucket_raises_the_bar(journal: Journal) -> None:
    """The next generation id is greater than the one in the bucket, but never smaller than it would have been without
    it.
    """
    row = journal.database("app", "/srv/app.db")
    journal.note_last_generation(row.id, G2)
    journal.note_last_generation(row.id, G1)
    assert journal.database_by_id(row.id).last_generation == G2


def test_machine_ids_are_known_until_the_machine_is_booted(journal: Journal) -> None:
    """A container that is made again has another id. A clone of the disk runs after another boot."""
    assert journal.note_machine("boot-1", "machine-1") == {"machine-1"}
    assert journal.note_machine("boot-1", "machine-2") == {"machine-1", "machine-2"}
    assert journal.note_machine("boot-1", "machine-1") == {"machine-1", "machine-2"}
    assert journal.note_machine("boot-2", "machine-3") == {"machine-3"}


def test_nothing_is_left_of_a_database_that_is_forgotten(tmp_path: Path) -> None:
    """No row of any table, and no text of the file, has its name or path. Another database keeps everything."""
    with Journal.open(tmp_path) as journal:
        for name in ("gone", "kept"):
            row = journal.database(name, f"/srv/{name}.db")
            journal.begin_generation(row.id, G1, "first", "{}", 10)
            journal.advance([Advance(row.id, None, (segment(1, 1),))])
            journal.note_verified(name, 7)
            journal.note_error(row.id, f"{name} has an error", 8)
        gone, kept = journal.databases()
        before = journal.database_by_id(kept.id)
        journal.drop_spool(gone.id)
        journal.forget_database(gone.id)
        assert journal.database_by_id(gone.id).name == f"/forgotten/{gone.id}"
        assert journal.pending(gone.id) == []
        assert journal.generations(gone.id) == []
        assert journal.verified_ms("gone") is None
        assert journal.database_by_id(kept.id) == before
        assert len(journal.pending(kept.id)) == len(journal.generations(kept.id)) == 1
        journal.sweep_forgotten()
        assert [row.name for row in journal.databases()] == ["kept"]
        again = journal.database("gone", "/srv/gone.db")
        assert (again.generation, again.error, again.last_generation) == (None, "", "")
