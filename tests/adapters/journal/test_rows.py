"""Tests of objects as values and as rows."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from walsyncd.adapters.journal.journal_schema import connect
from walsyncd.adapters.journal.rows import UNNUMBERED, ObjectKind, ObjectRow, ObjectState, drop, fetch, insert

i64 = st.integers(0, 2**63 - 1)
words = st.text(max_size=10)
rows = st.builds(
    ObjectRow,
    id=st.just(UNNUMBERED),
    database_id=st.just(1),
    generation=words,
    kind=st.sampled_from(ObjectKind),
    key=words,
    size=i64,
    md5=words,
    token=words,
    epoch=i64,
    first=i64,
    last=i64,
    time_ms=i64,
    state=st.sampled_from(ObjectState),
    upload_id=st.none() | words,
    part_size=st.none() | i64,
    body_path=st.none() | words,
    attempted_ms=st.none() | i64,
)


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[sqlite3.Connection]:
    with closing(connect(tmp_path / "j.db")) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        connection.execute("INSERT INTO database (id, name, path) VALUES (1, 'app', '/srv/app.db')")
        yield connection


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(row=rows, blob=st.none() | st.binary(max_size=20))
def test_a_row_comes_back_as_it_was_entered(connection: sqlite3.Connection, row: ObjectRow, blob: bytes | None) -> None:
    """All values come back, under a new id or under the id that the row had."""
    connection.execute("DELETE FROM object")
    made = insert(connection, row, blob)
    assert fetch(connection, made.id) == made == replace(row, id=made.id)
    connection.execute("DELETE FROM object")
    assert fetch(connection, made.id) is None
    assert insert(connection, made, blob) == made


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
@given(row=rows)
def test_dropping_spares_bases_only(connection: sqlite3.Connection, row: ObjectRow) -> None:
    """Segments and manifests of the generation are deleted. An id is never used twice."""
    connection.execute("DELETE FROM object")
    made = insert(connection, row, None)
    dropped = drop(connection, 1, row.generation)
    assert dropped == ([] if row.kind is ObjectKind.BASE else [made])
    assert drop(connection, 1, row.generation + "x") == []
    connection.execute("DELETE FROM object")
    assert insert(connection, row, None).id > made.id
