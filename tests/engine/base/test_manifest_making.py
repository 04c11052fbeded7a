"""Tests of what a manifest says of a base."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.engine.following import spec_of
from walsyncd.adapters.journal.journal import GenerationRow, ObjectKind, ObjectRow, ObjectState
from walsyncd.core.follow.follow_state import FileFacts, FollowState, Stream
from walsyncd.core.stored.base import shape_of
from walsyncd.core.stored.layout import BaseKey, format_key
from walsyncd.core.stored.manifest import Range, parse_manifest, range_checksum
from walsyncd.engine.base.base_copy import FinishedBase
from walsyncd.engine.base.base_plan import BasePlan
from walsyncd.engine.base.manifest_making import manifest_object
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs

GENERATION = "20261122T105600Z-3f9c1a2b"


def finished(size: int) -> FinishedBase:
    """Return a base of so many bytes, as the store has it."""
    plan = BasePlan(GENERATION, 1, 0, shape_of(size), 1, 2, 3, "boot")
    row = ObjectRow(
        id=7,
        database_id=1,
        generation=GENERATION,
        kind=ObjectKind.BASE,
        key=format_key(BaseKey(GENERATION, 1, 0, "0badcafe")),
        size=0,
        md5="",
        token="",
        epoch=1,
        first=0,
        last=0,
        time_ms=0,
        state=ObjectState.BEGUN,
        upload_id=None,
        part_size=None,
        body_path=None,
        attempted_ms=0,
    )
    return FinishedBase(row, plan, 99, "etag", (Range(0, size, 0, 99, range_checksum(bytes(size))),))


@pytest.mark.parametrize(
    ("frame", "mode", "time_ms"),
    [(5, "wal", 1000), (0, "wal", 2000), (5, "rollback", 1000), (0, "rollback", 2000)],
    ids=["commits", "no commit", "scans without a WAL", "no scan without a WAL"],
)
def test_a_base_has_the_time_of_what_it_shows(tmp_path: Path, frame: int, mode: str, time_ms: int) -> None:
    """A base has the time of the last commit in it, or the present time if it has no commit of the generation.

    The manifest's size and ETag are those of the store.
    """
    path = tmp_path / "app.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA page_size = 8192")
        connection.execute("CREATE TABLE t (x)")
    size = path.stat().st_size
    tracked = FollowedDatabase(spec_of(path), 1, WalPairs(path))
    stream = replace(Stream(GENERATION), frame=frame, time_ms=1000)
    state = FollowState(stream, None, 1, 0, FileFacts(1, 2, 3, "boot"), mode)
    generation = GenerationRow(1, GENERATION, None, "first generation", 0, None, "", None)
    new = manifest_object(tracked, finished(size), state, generation, now_ms=2000)
    assert isinstance(new.body, bytes)
    manifest = parse_manifest(new.body)
    assert (new.kind, new.time_ms, manifest.time_ms) == (ObjectKind.MANIFEST, time_ms, time_ms)
    assert (manifest.page_size, manifest.file_size, manifest.size, manifest.etag) == (8192, size, 99, "etag")
    assert (manifest.start.frame, manifest.consistent_from.frame) == (0, frame)
