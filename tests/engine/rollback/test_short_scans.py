"""Tests of scans that the follower does itself, because they read little: a few pages that journals name."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import TABLE, filled, objects, restored
from tests.engine.running import Place, running
from walsyncd.core.restore.plan import AtPosition
from walsyncd.core.send.scan_pace import SMALL_BYTES
from walsyncd.core.stored.position import parse_position
from walsyncd.engine.content.scan_queue import ScanQueue
from walsyncd.engine.rollback.committed_moment import FileTimes, MomentStart
from walsyncd.engine.rollback.journal_pages import SOON_BYTES, SOON_FREE_PAGES, JournalPages, JournalSource, KnownState


@pytest.mark.parametrize(
    ("journal_bytes", "free", "is_soon"),
    [(SOON_BYTES, SOON_FREE_PAGES, True), (SOON_BYTES + 1, 0, False), (0, SOON_FREE_PAGES + 1, False)],
)
def test_large_journals_and_long_freelists_are_for_the_scan_thread(
    journal_bytes: int, free: int, *, is_soon: bool
) -> None:
    """Each page in them takes time, and meanwhile other databases would wait for the follower."""
    capture: Any = SimpleNamespace(bytes_to_read=lambda: journal_bytes)
    pages = JournalPages(JournalSource(capture, lambda: None, lambda: None), None, 4096)
    page_1 = bytes(36) + free.to_bytes(4, "big") + bytes(60)
    assert pages.is_found_soon(MomentStart(page_1, FileTimes(0, 0, 0, settled=True), 0)) is is_soon


@pytest.mark.parametrize("is_lost", [False, True])
def test_a_scan_is_likely_to_be_short_if_the_journals_leave_no_doubt_so_far(*, is_lost: bool) -> None:
    """If no state was known before, all pages are read as well."""
    capture: Any = SimpleNamespace(is_lost=lambda _origin: is_lost)
    source = JournalSource(capture, lambda: None, lambda: None)
    assert JournalPages(source, KnownState(7, 1), 4096).is_likely is not is_lost
    assert not JournalPages(source, None, 4096).is_likely


def test_the_commits_of_a_large_database_do_not_wake_the_scan_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each state of the database is restored."""
    added: list[int] = []
    add = ScanQueue.add

    def count(self: ScanQueue, steps: Any, *, urgent: bool = False, delay_s: float = 0.0) -> None:
        added.append(1)
        add(self, steps, urgent=urgent, delay_s=delay_s)

    monkeypatch.setattr(ScanQueue, "add", count)
    place = Place(tmp_path)
    path = place.database()
    states: dict[str, bytes] = {}
    short = 0
    with SqliteProcess(path) as app, running(place.settings("app")):
        app.execute("PRAGMA journal_mode = PERSIST", *TABLE, filled(1700))
        place.sync()
        assert path.stat().st_size > SMALL_BYTES
        for key in range(5, 1700, 25):  # on a busy machine a look may come within a commit, and the file is scanned
            added.clear()
            app.execute(f"UPDATE t SET y = randomblob(3000) WHERE x = {key}")
            states[place.sync()] = path.read_bytes()
            short += not added
            if short == 3:
                break
        assert short == 3
    for position, content in states.items():
        assert restored(place, target=AtPosition(parse_position(position))) == content
    assert len(objects(place, "*.db.zst")) == 1
