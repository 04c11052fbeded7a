"""Tests of walsyncd.adapters.journal.page_map_table: which rows a map needs, and for how long."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.shipping import G1, G2, segment
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectRow
from walsyncd.core.content.comparison import Cipher
from walsyncd.core.content.redo import Redo
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.stored.position import Position

MAP_ID = "ab" * 16


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path) as journal:
        row = journal.database("app", "/srv/app.db")
        journal.begin_generation(row.id, G1, "first", "start", 0)
        yield journal


def redo(entry: int) -> Redo:
    return Redo(np.array([1, entry], np.uint32), np.array([entry, entry], np.uint64), entry, entry + 1)


def spool(journal: Journal, *frames: int) -> list[ObjectRow]:
    """Spool segments of one frame each, with a redo row."""
    new = tuple(replace(segment(frame, frame), redo=redo(frame + 1)) for frame in frames)
    return [row for one in new for row in journal.advance([Advance(1, f"at {one.last}", (one,))])]


def held(journal: Journal, *, stored_only: bool = False) -> list[int]:
    return [row.last for row in journal.redo_rows(1, stored_only=stored_only)]


def test_a_row_comes_with_its_segment_and_outlives_it(journal: Journal) -> None:
    """The file may take the row over once the segment is stored."""
    rows = spool(journal, 1, 2, 3)
    assert held(journal) == [1, 2, 3]
    assert held(journal, stored_only=True) == []
    for row in rows[:2]:
        journal.stored(row.id, now_ms=1, tokens=1.0)
    assert held(journal, stored_only=True) == [1, 2]
    assert held(journal) == [1, 2, 3]
    assert [row.redo for row in journal.redo_rows(1)] == [redo(2), redo(3), redo(4)]


def test_what_is_dropped_from_the_spool_was_never_in_the_map(journal: Journal) -> None:
    """The rows are deleted with their segments in one transaction. Those of stored segments stay."""
    rows = spool(journal, 1, 2, 3)
    journal.stored(rows[0].id, now_ms=1, tokens=1.0)
    assert journal.rewind(rows[1])
    assert held(journal) == [1]
    assert journal.database_by_id(1).follow == "at 1"
    spool(journal, 2)
    assert held(journal) == [1, 2]
    journal.drop_spool(1)
    assert held(journal) == [1]


def test_merged_segments_leave_their_rows(journal: Journal) -> None:
    """A merge makes one object of several segments and changes nothing in the map. Dropping it drops all their rows."""
    rows = spool(journal, 1, 2, 3)
    merged = journal.merge(rows[1:], segment(2, 3).key)
    assert held(journal) == [1, 2, 3]
    assert journal.rewind(merged)
    assert held(journal) == []


@pytest.mark.parametrize("how", ["ends", "begins", "lost"])
def test_a_generation_takes_its_map_along(journal: Journal, how: str) -> None:
    """However the generation ends, its map is deleted, because the next one has another base."""
    rows = spool(journal, 1)
    journal.stored(rows[0].id, now_ms=1, tokens=1.0)
    assert journal.page_map_made(1, G1, MAP_ID, 4096, Position(G1, 1, 0))
    match how:
        case "ends":
            journal.end_generation(1, Gap.of(GapKind.OTHER, "a reason"), 1)
        case "begins":
            journal.begin_generation(1, G2, "a reason", "start", 1)
        case _:
            journal.lose_generation(1, G1, Gap.of(GapKind.OTHER, "a reason"), 1)
    assert journal.page_map(1) is None
    assert held(journal) == []


def test_a_map_that_is_made_needs_what_came_after_its_start(journal: Journal) -> None:
    """Rows up to the map's start are deleted. A map of a generation that has ended is refused."""
    spool(journal, 1, 2, 3)
    assert not journal.page_map_made(1, G2, MAP_ID, 4096, Position(G2, 1, 1))
    assert journal.page_map_made(1, G1, MAP_ID, 4096, Position(G1, 1, 1))
    assert held(journal) == [2, 3]
    row = journal.page_map(1)
    assert row is not None
    assert (row.map_id, row.counter, row.page_size, row.cipher) == (MAP_ID, 0, 4096, Cipher.UNKNOWN)
    assert journal.page_maps() == [row]


def test_rows_that_no_map_will_need(journal: Journal) -> None:
    """Rows are deleted only if there is no map, because a map needs them all."""
    spool(journal, 1, 2, 3)
    journal.redo_forgotten(1, Position(G1, 1, 2))
    assert held(journal) == [3]
    journal.page_map_made(1, G1, MAP_ID, 4096, Position(G1, 1, 2))
    journal.redo_forgotten(1, Position(G1, 1, 3))
    assert held(journal) == [3]


def test_what_a_file_took_over_is_deleted(journal: Journal) -> None:
    """The counter is noted in the same transaction. Nothing is deleted if the map is another one by now."""
    rows = spool(journal, 1, 2)
    journal.page_map_made(1, G1, MAP_ID, 4096, Position(G1, 1, 0))
    assert journal.redo_waiting() == []
    journal.stored(rows[0].id, now_ms=1, tokens=1.0)
    assert journal.redo_waiting() == [(1, 24)]
    (waiting,) = journal.redo_rows(1, stored_only=True)
    journal.page_map_written(1, "cd" * 16, 1, waiting.id)
    assert held(journal) == [1, 2]
    journal.page_map_written(1, MAP_ID, 1, waiting.id)
    assert held(journal) == [2]
    row = journal.page_map(1)
    assert row is not None
    assert row.counter == 1
    journal.page_map_lost(1)
    assert journal.page_map(1) is None
    assert held(journal) == [2]


def test_what_scans_find(journal: Journal) -> None:
    """A scan's findings are kept: the cipher, and when the file was what the map says."""
    journal.page_map_made(1, G1, MAP_ID, 4096, Position(G1, 1, 0))
    journal.note_cipher(1, Cipher.ANEW)
    journal.note_scanned(1, Position(G1, 3, 4), 77)
    journal.note_scanned(1, Position(G2, 9, 9), 99)
    row = journal.page_map(1)
    assert row is not None
    assert (row.cipher, row.scanned_ms, row.scanned_epoch, row.scanned_frame) == (Cipher.ANEW, 77, 3, 4)
