"""Tests of ``walsyncd scrub``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.test_scrubs import application, fill, has_map
from tests.engine.running import Place, running, wait_for
from tests.engine.scrubbing import change_behind_its_back
from walsyncd.cli import main


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_scrub_says_what_differed(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Its exit code says so, too. An unknown name is refused, and the error lists the known ones."""
    with application(place.database()) as app, running(place.settings("app")):
        fill(app)
        place.sync()
        wait_for(lambda: has_map(place))
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        place.sync()
        assert main(["scrub", *place.config()]) == 0
        assert capsys.readouterr().out.endswith(" pages compared, none differs\n")
        change_behind_its_back(place, 40)
        assert main(["scrub", *place.config(), "app", "--json"]) == 1
        (found,) = json.loads(capsys.readouterr().out)["databases"]
        assert (found["name"], found["differing"], found["skipped"]) == ("app", 1, "")
        assert main(["status", *place.config()]) == 0
        assert "1 differed" in capsys.readouterr().out
        assert main(["scrub", *place.config(), "other"]) == 1
        assert "it follows: app" in capsys.readouterr().err


def test_what_is_not_compared_is_said(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a page map nothing is compared.

    A database without a WAL is compared, and a scrub may end after the time-out.
    """
    with SqliteProcess(place.database()) as app:
        app.execute("CREATE TABLE t (x)")
        with running(place.settings("app")) as daemon:
            place.sync()
            assert main(["scrub", *place.config(), "app"]) == 0
            assert "2 pages compared, none differs" in capsys.readouterr().out
            with monkeypatch.context() as without_map:
                without_map.setattr(daemon._content.maps, "open", lambda _row_id: None)
                assert main(["scrub", *place.config(), "app"]) == 0
            assert "skipped: there is no page map yet" in capsys.readouterr().out
            daemon._content.scrubs._under_way.add(1)
            assert main(["scrub", *place.config(), "app", "--timeout", "10ms"]) == 1
            assert "is not compared after 10ms" in capsys.readouterr().err
            daemon._content.scrubs._under_way.clear()


def test_without_a_daemon(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The error says that none is running, and how to start one."""
    assert main(["scrub", *place.config()]) == 1
    assert "no daemon runs" in capsys.readouterr().err
