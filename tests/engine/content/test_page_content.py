"""Tests of walsyncd.engine.content.page_content: maps are made when a base is stored, and their files written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.running import Place, running, wait_for
from walsyncd.engine.content import map_making, page_content, page_maps


def test_a_daemon_keeps_the_map_of_its_database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored reaches its file; a file that is gone is made again, whatever the WAL does."""
    monkeypatch.setattr(page_content, "WRITE_SEGMENTS", 1)
    monkeypatch.setattr(page_maps, "TAKE_OVER_BYTES", 1)
    monkeypatch.setattr(map_making, "RETRY_S", 0.2)
    place = Place(tmp_path)
    with SqliteProcess(place.database()) as app:
        app.execute("PRAGMA journal_mode = WAL", "CREATE TABLE t (x)")
        with running(place.settings("app")):
            place.sync()
            with place.journal() as journal:
                wait_for(lambda: journal.page_map(1) is not None)
                for value in range(5):
                    app.execute(f"INSERT INTO t VALUES ({value})")
                    place.sync()
                wait_for(lambda: journal.redo_rows(1) == [])
                made = journal.page_map(1)
                assert made is not None
                assert made.counter > 0
        (tmp_path / "state" / "maps" / "1.map").unlink()
        with running(place.settings("app")), place.journal() as journal:
            place.sync()
            wait_for(lambda: journal.page_map(1) not in {None, made})
