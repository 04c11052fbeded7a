"""A replica that another host has left: in which order the database goes on."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from tests.engine.content.test_restored_files import restore
from tests.engine.running import WAIT_S_MAX, wait_for
from tests.engine.upkeep.test_continuation import Host, commit, left, working
from walsyncd.engine.threads.examination import Examination


def test_the_generation_is_known_before_the_database_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Otherwise the follower might begin another one first."""
    old, new = Host(tmp_path / "a"), Host(tmp_path / "b")
    for host in (old, new):
        host.folder.mkdir()
    generation, _ = left(old)
    restore(new)
    end, ended, goes = Examination.end, threading.Event(), threading.Event()

    def ends(self: Examination) -> None:
        end(self)
        ended.set()
        goes.wait(WAIT_S_MAX)

    monkeypatch.setattr(Examination, "end", ends)
    with working(new):
        try:
            wait_for(ended.is_set)
            commit(new, 7)
        finally:
            goes.set()
        new.sync()
        assert new.row().generation == generation
