"""Tests of how long the writes to a kept journal are counted, with real SQLite and real events."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partialmethod
from pathlib import Path

import pytest

from tests.engine.rollback.test_journal_pages import Scene
from walsyncd.adapters.files.file_event import CountedFile
from walsyncd.adapters.files.inotify import Kind
from walsyncd.core.sqlite.rollback_journal import JournalFault


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with Scene(tmp_path) as made:
        yield made


def test_a_steady_writer_is_counted_for_ever_and_a_long_transaction_is_not(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the number of counted writes in one transaction is limited."""
    monkeypatch.setattr(CountedFile, "__init__", partialmethod(CountedFile.__init__, left=200))
    scene.first.execute("PRAGMA journal_mode = PERSIST")
    scene.change(3)
    assert scene.scan() is JournalFault.CUT_OFF
    for key in range(30):
        scene.change(3 + 100 * (key % 2))
        assert isinstance(scene.scan(), list)
    for _ in range(2):
        scene.transaction("UPDATE t SET v = randomblob(200)")
        assert scene.scan() is JournalFault.CUT_OFF
    scene.change(3)
    assert isinstance(scene.scan(), list)


def test_the_writes_to_a_journal_that_is_emptied_are_not_counted(scene: Scene) -> None:
    """Such a journal never names a page, so counting would be useless."""
    scene.first.execute("PRAGMA journal_mode = TRUNCATE")
    for _ in range(2):
        scene.change(3)
        assert not isinstance(scene.scan(), list)
    scene.change(3)
    assert Kind.COUNTED not in {event.kind for event in scene.followed.watcher.drain()}
