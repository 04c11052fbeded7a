"""Tests of objects in the journal: spooled with the follow state, merged, stored, dropped.

Each step is whole or not made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fakes import Killed
from tests.shipping import G1, G2, T0, segment
from walsyncd.adapters.journal.journal import Advance, Journal, NewObject, ObjectKind, ObjectState
from walsyncd.adapters.journal.object_table import BLOB_SIZE_MAX
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.stored.layout import BaseKey, ManifestKey, SegmentKey, format_key
from walsyncd.errors import CorruptError, MissingError, TransientError

LARGE = bytes(range(256)) * 400
BASE = BaseKey(G1, 1, 0, "0000abcd")
WALSYNCD_ID = "0123abcd"
MANIFEST = ManifestKey(BASE, 1, 4, T0)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path) as journal:
        for name in ("app", "other"):
            row = journal.database(name, f"/srv/{name}.db")
            journal.begin_generation(row.id, G1, "first", "{}", 0)
        yield journal


def spool(journal: Journal, *objects: NewObject, database_id: int = 1, begin: bool = False) -> list[int]:
    return [row.id for row in journal.advance([Advance(database_id, "{}", objects, begin)])]


def files(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "spool").iterdir())


def test_objects_and_follow_state_are_one_step(journal: Journal) -> None:
    """One step may have any number of databases. The returned rows are in order, and equal to what is read later."""
    rows = journal.advance([Advance(1, "one", (segment(1, 2), segment(3, 3))), Advance(2, "two", (segment(1, 1),))])
    assert journal.pending() == rows
    assert journal.pending(1) == rows[:2]
    assert journal.pending(1, limit=1) == rows[:1]
    assert [found.follow for found in journal.databases()] == ["one", "two"]
    assert [found.last_time_ms for found in journal.databases()] == [T0 + 3, T0 + 1]
    assert journal.last_object_id() == rows[-1].id


def test_a_row_says_what_its_body_is(journal: Journal) -> None:
    """The row has MD5, SHA-256 and size of a body in the row or in a file."""
    for new in (segment(1, 1, body=b"small"), segment(2, 2, body=LARGE)):
        (row,) = journal.advance([Advance(1, None, (new,))])
        assert isinstance(new.body, bytes)
        assert row.md5 == hashlib.md5(new.body, usedforsecurity=False).hexdigest()
        assert row.token == hashlib.sha256(new.body).hexdigest()
        assert row.size == len(new.body)
        assert row.state is ObjectState.SPOOLED
        assert journal.body(row) == new.body
        assert journal.body_part(row, 1, 3) == new.body[1:4]


def test_small_bodies_make_no_file(journal: Journal, tmp_path: Path) -> None:
    """Bodies of up to 64 KiB are in their row."""
    spool(journal, segment(1, 1, body=b"x" * BLOB_SIZE_MAX))
    assert files(tmp_path) == []
    spool(journal, segment(2, 2, body=b"x" * (BLOB_SIZE_MAX + 1)))
    assert len(files(tmp_path)) == 1


def test_a_streamed_body_is_taken_over(journal: Journal, tmp_path: Path) -> None:
    """The journal takes over the file of a streamed body, so five gigabytes need not fit into memory."""
    with journal.spool_file_writer() as writer:
        writer.write(LARGE)
        writer.write(b"end")
        file = writer.finish()
    (row,) = journal.advance([Advance(1, None, (segment(1, 9, body=file),))])
    assert journal.body(row) == LARGE + b"end"
    assert files(tmp_path) == [row.body_path]


def test_only_the_first_object_leaves_at_once(journal: Journal) -> None:
    """The other objects may still be merged."""
    spool(journal, segment(1, 1), segment(2, 2), begin=True)
    first, second = journal.pending()
    assert (first.state, first.attempted_ms) == (ObjectState.BEGUN, T0 + 1)
    assert (second.state, second.attempted_ms) == (ObjectState.SPOOLED, None)


def test_an_ended_generation_takes_nothing_more(journal: Journal, tmp_path: Path) -> None:
    """An ended generation takes neither objects nor follow state, and no file stays."""
    journal.end_generation(1, Gap.of(GapKind.OTHER, "a gap"), 5)
    assert spool(journal, segment(1, 1, body=LARGE)) == []
    assert journal.advance([Advance(1, "late", ())]) == []
    journal.begin_generation(1, G2, "a gap", "new", 6)
    assert spool(journal, segment(1, 1)) == []
    assert journal.database_by_id(1).follow == "new"
    assert files(tmp_path) == []


def test_a_failed_step_leaves_nothing(journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk there is no row, no follow state and no file. A streamed body still belongs to the caller."""
    with journal.spool_file_writer() as writer:
        writer.write(LARGE)
        file = writer.finish()
    journal._connection.execute("PRAGMA max_page_count = 1")
    objects = (segment(1, 1, body=LARGE), segment(2, 2, body=b"x" * 60_000), segment(3, 3, body=file))
    with pytest.raises(TransientError):
        journal.advance([Advance(1, "new", objects)])
    assert journal.pending() == []
    assert journal.database_by_id(1).follow == "{}"
    assert files(tmp_path) == [file.path.name]


def test_stored_means_noted_and_gone(journal: Journal, tmp_path: Path) -> None:
    """Position, key and tokens are noted with the database, and row and body are removed.

    A second call does nothing.
    """
    (object_id,) = spool(journal, segment(1, 4, body=LARGE))
    assert journal.spool_bytes() == journal.database_by_id(1).spooled_bytes == len(LARGE)
    journal.begun([object_id], 50)
    assert journal.pending()[0].attempted_ms == 50
    assert journal.stored(object_id, now_ms=60, tokens=2.5)
    found = journal.database_by_id(1)
    assert (found.stored_generation, found.stored_epoch, found.stored_frame) == (G1, 1, 4)
    assert (found.stored_key, found.stored_ms) == (segment(1, 4).key, 60)
    assert (found.tokens, found.tokens_ms) == (2.5, 60)
    assert (journal.pending(), journal.spool_bytes(), files(tmp_path)) == ([], 0, [])
    assert not journal.stored(object_id, now_ms=70, tokens=0)
    assert journal.database_by_id(1) == found


def test_a_stored_manifest_finishes_its_base(journal: Journal) -> None:
    """The base's row is deleted with it. A base that another attempt has begun stays."""
    for key in (BASE, BaseKey(G1, 1, 0, "0000ffff")):
        journal.base_begun(
            1, generation=G1, key=format_key(key), token=WALSYNCD_ID, plan="", part_size=8, epoch=1, frame=0, now_ms=1
        )
    new = NewObject(ObjectKind.MANIFEST, format_key(MANIFEST), b"{}", 1, 0, 4, T0, G1)
    (object_id,) = spool(journal, new)
    assert [row.kind for row in journal.pending()] == [ObjectKind.MANIFEST]
    journal.stored(object_id, now_ms=60, tokens=0)
    found = journal.database_by_id(1)
    assert (found.base_key, found.base_ms, found.stored_generation) == (format_key(MANIFEST), 60, None)
    assert [base.row.key for base in journal.bases(1)] == [format_key(BaseKey(G1, 1, 0, "0000ffff"))]


@pytest.mark.parametrize("body", [b"small", LARGE], ids=["blobs", "files"])
def test_merged_objects_are_one_in_the_place_of_the_first(journal: Journal, tmp_path: Path, body: bytes) -> None:
    """The bodies are concatenated, the ends are those of first and last, and later rows stay later."""
    spool(journal, segment(1, 1, body=body), segment(2, 2, body=body), segment(3, 5, body=b"end"))
    rows = journal.pending()
    key = format_key(SegmentKey(G1, 1, 1, 2, T0 + 2, 0))
    merged = journal.merge(rows[:2], key)
    assert journal.pending() == [merged, rows[2]]
    assert (merged.id, merged.key, merged.first, merged.last) == (rows[0].id, key, 1, 2)
    assert merged.time_ms == T0 + 2
    assert journal.body(merged) == body * 2
    assert merged.token == hashlib.sha256(body * 2).hexdigest()
    assert files(tmp_path) == ([merged.body_path] if merged.body_path else [])


def test_a_merge_with_a_dropped_row_changes_nothing(journal: Journal, tmp_path: Path) -> None:
    """The spool was dropped while the bodies were read, so the merge changes nothing."""
    spool(journal, segment(1, 1, body=LARGE), segment(2, 2, body=b"x"))
    rows = journal.pending()
    journal.drop_spool(1)
    with pytest.raises(MissingError):
        journal.merge(rows, "merged")
    assert (journal.pending(), files(tmp_path)) == ([], [])


def test_what_was_begun_is_never_merged(journal: Journal) -> None:
    """The upload of a begun row may have reached the store under its own key."""
    ids = spool(journal, segment(1, 1), segment(2, 2))
    journal.begun(ids[:1], 5)
    with pytest.raises(AssertionError):
        journal.merge(journal.pending(), "merged")
    assert len(journal.pending()) == 2


def test_changed_bytes_are_seen(journal: Journal, tmp_path: Path) -> None:
    """Changed bytes are noticed in a file and before a merge. A missing file is damage, and a dropped row is not."""
    spool(journal, segment(1, 1, body=LARGE), segment(2, 2))
    rows = journal.pending()
    (file,) = (tmp_path / "spool").iterdir()
    file.write_bytes(LARGE[:-1])
    for read in (lambda: journal.body(rows[0]), lambda: journal.merge(rows, "merged")):
        with pytest.raises(CorruptError, match="changed on disk"):
            read()
    file.unlink()
    with pytest.raises(CorruptError):
        journal.body(rows[0])
    journal.drop_spool(1)
    for row in rows:
        with pytest.raises(MissingError):
            journal.body(row)


def test_a_lost_generation_leaves_the_others(journal: Journal, tmp_path: Path) -> None:
    """The rows and bodies of a lost generation are deleted, and it ends with the reason.

    The call returns whether it was the current one.
    """
    spool(journal, segment(1, 1, body=LARGE))
    journal.begin_generation(1, G2, "a gap", "{}", 5)
    spool(journal, segment(1, 1, generation=G2))
    spool(journal, segment(1, 1), database_id=2)
    assert not journal.lose_generation(1, G1, Gap.of(GapKind.REFUSED, "never taken"), 6)
    assert [(row.database_id, row.generation) for row in journal.pending()] == [(1, G2), (2, G1)]
    assert journal.lose_generation(1, G2, Gap.of(GapKind.REFUSED, "never taken"), 7)
    assert journal.database_by_id(1).generation is None
    assert [found.reason_ended for found in journal.generations(1)] == ["a gap", "never taken"]
    assert files(tmp_path) == []


def test_a_dropped_spool_is_counted_and_gone(journal: Journal, tmp_path: Path) -> None:
    """Only that database's rows are dropped, and never its base."""
    journal.base_begun(1, generation=G1, key="b", token=WALSYNCD_ID, plan="", part_size=8, epoch=1, frame=0, now_ms=1)
    spool(journal, segment(1, 1, body=LARGE), segment(2, 2, body=b"12345"))
    spool(journal, segment(1, 1), database_id=2)
    assert journal.drop_spool(1) == len(LARGE) + 5
    assert [row.database_id for row in journal.pending()] == [2]
    assert len(journal.bases(1)) == 1
    assert files(tmp_path) == []


def test_a_kill_between_body_and_row_leaves_a_file_that_is_swept(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next start removes the file, and keeps those that rows name."""
    spool(journal, segment(1, 1, body=LARGE))
    (kept,) = files(tmp_path)

    def die() -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(journal, "_transaction", die)
        with pytest.raises(Killed):
            spool(journal, segment(2, 2, body=LARGE))
    assert len(files(tmp_path)) == 2
    assert journal.sweep() == 1
    assert files(tmp_path) == [kept]


def test_what_is_not_begun_is_taken_back(journal: Journal, tmp_path: Path) -> None:
    """The state is the one before it. A begun row stays, because it may reach storage, and the next row follows it."""
    begun = journal.advance([Advance(1, "one", (segment(1, 2),), begin=True)])
    journal.advance([Advance(1, "two", (segment(3, 3, body=LARGE),))])
    journal.advance([Advance(1, "three", (segment(4, 5),))])
    freed = journal.take_back(1)
    assert freed is not None
    assert freed > len(LARGE)
    assert journal.pending(1) == begun
    row = journal.database_by_id(1)
    assert (row.follow, row.generation, row.rewinds) == ("one", G1, 1)
    assert files(tmp_path) == []


def test_nothing_is_taken_back_where_all_of_it_was_begun(journal: Journal) -> None:
    """If all objects were begun, nothing can be taken back, so the generation must end."""
    rows = journal.advance([Advance(1, "one", (segment(1, 2),), begin=True)])
    assert journal.take_back(1) is None
    assert journal.pending(1) == rows
    assert journal.database_by_id(1).follow == "one"


def test_what_is_left_of_older_generations_is_taken_back_too(journal: Journal) -> None:
    """What is left of older generations needs room, and nothing will follow it."""
    journal.advance([Advance(1, "one", (segment(1, 2),))])
    journal.begin_generation(1, G2, "again", "{}", T0)
    journal.advance([Advance(1, "two", (segment(1, 2, generation=G2),))])
    assert journal.take_back(1) is not None
    assert journal.pending(1) == []
    assert journal.database_by_id(1).follow == "{}"
