"""Tests of the texts for what prevents uploads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.shipping import T0
from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.send.pacing import Bucket
from walsyncd.engine.ship.database_queue import DatabaseQueue
from walsyncd.engine.ship.upload_errors import UploadErrors
from walsyncd.errors import RefusedError, StateError, TransientError


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with Journal.open(tmp_path) as journal:
        yield journal


def lane_of(journal: Journal, name: str) -> DatabaseQueue:
    return DatabaseQueue(journal.database(name, f"/srv/{name}.db").id, name, Bucket(1.0, 0.0), 1000.0)


def words(journal: Journal, queue: DatabaseQueue) -> str:
    return journal.database_by_id(queue.database_id).error


def test_each_trouble_says_what_and_what_to_do(journal: Journal) -> None:
    """The text has the store's words if there are any, and stays until the trouble is over."""
    queue, troubles = lane_of(journal, "app"), UploadErrors(journal, "s3://b", lambda: T0)
    troubles.away(queue, TransientError("write object: timeout"), is_away=False)
    assert words(journal, queue).startswith("not stored yet: write object: timeout (hint: nothing is lost")
    troubles.away(queue, TransientError("write object: connection refused"), is_away=True)
    assert words(journal, queue).startswith("storage is away: write object: connection refused (hint: nothing is lost")
    troubles.refused(queue, RefusedError("write object: AccessDenied", hint="allow s3:PutObject"))
    assert words(journal, queue) == "storage refuses: write object: AccessDenied (hint: allow s3:PutObject)"
    assert journal.database_by_id(queue.database_id).error_ms == T0
    troubles.over(queue)
    assert words(journal, queue) == ""


def test_a_refusal_is_logged_for_all_at_once(journal: Journal) -> None:
    """There is one line when the first database is refused, and another only after all were accepted again."""
    queues = [lane_of(journal, name) for name in ("one", "two")]
    troubles = UploadErrors(journal, "s3://b", lambda: T0)
    with capture_logs() as said:
        for _ in range(2):
            for queue in (*queues, *queues):
                troubles.refused(queue, RefusedError("AccessDenied"))
            for queue in queues:
                troubles.over(queue)
    assert [line["event"] for line in said].count("storage_refused") == 2


def test_what_can_not_be_noted_now_is_noted_with_the_next_attempt(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk is full and the storage refuses, nothing crashes, and the reserve's disk space is freed."""
    queue, troubles = lane_of(journal, "app"), UploadErrors(journal, "s3://b", lambda: T0)

    def full(_database_id: int, _text: str, _now_ms: int) -> None:
        raise StateError("write journal: database or disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(journal, "note_error", full)
        troubles.refused(queue, RefusedError("AccessDenied"))
    assert not (tmp_path / "reserve").exists()
    troubles.refused(queue, RefusedError("AccessDenied"))
    assert "AccessDenied" in words(journal, queue)
    troubles.over(queue)
    assert (tmp_path / "reserve").exists()
