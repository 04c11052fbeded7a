"""Tests of walsyncd.engine.content.scrub_steps: what ends a comparison without a finding."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.test_scrubs import application, fill, has_map
from tests.engine.running import Place, running, wait_for
from tests.engine.scrubbing import scrub
from walsyncd.core.limits import Limits
from walsyncd.engine.content.page_maps import PageMap
from walsyncd.engine.content.scrub_steps import Scrub


def prepared(place: Place, app: SqliteProcess) -> None:
    fill(app)
    place.sync()
    wait_for(lambda: has_map(place))


def test_a_gap_meanwhile_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read across the gap proves nothing, so the difference that it made is no alarm."""
    place = Place(tmp_path)
    with (
        application(place.database()) as app,
        running(place.settings("app"), limits=Limits(scrub_attempt_s=0.0)) as daemon,
    ):
        prepared(place, app)
        (tracked,) = daemon.databases
        entries, gaps = PageMap.entries, iter([1, 1])

        def misses(page_map: PageMap, first: int, count: int) -> object:
            for _ in gaps:
                tracked.gaps += 1
                return entries(page_map, first, count) + 2
            return entries(page_map, first, count)

        monkeypatch.setattr(PageMap, "entries", misses)
        found = scrub(place)
        assert (found["differing"], found["skipped"]) == (0, "")
        assert next(gaps, None) is None


def test_a_fault_is_the_scrubs_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The result says why nothing was compared, and the daemon continues."""
    place = Place(tmp_path)
    with application(place.database()) as app, running(place.settings("app"), limits=Limits(scrub_attempt_s=0.0)):
        prepared(place, app)

        def fails(*_: object) -> object:
            raise ZeroDivisionError("once")

        with monkeypatch.context() as broken:
            broken.setattr(Scrub, "_check", fails)
            assert "ZeroDivisionError" in scrub(place)["skipped"]
        assert scrub(place)["skipped"] == ""
