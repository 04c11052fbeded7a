"""Tests of ``walsyncd status``, with a daemon and without one."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, wait_for
from tests.fakes import Call, FakeStorage
from walsyncd.cli import main
from walsyncd.cli.commands import status
from walsyncd.config import Suspended
from walsyncd.engine.daemon.database_status import suspended_status
from walsyncd.errors import TransientError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_status_as_json_has_every_fact(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """It has state, both positions, lag, spool, last base, and the daemon's pid."""
    with wal_database(place.database()), running(place.settings("app")):
        position = place.sync()
        assert main(["status", *place.config(), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    (database,) = told["databases"]
    assert told["daemon_pid"] > 0
    assert database["position"] == database["stored_position"] == position
    assert (database["state"], database["lag_s"], database["spool_objects"]) == ("following", 0, 0)
    assert database["last_base_ms"] > 0


def test_status_tells_cause_and_remedy(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """For a missing database the output says what is wrong and what to do."""
    with running(place.settings("app")):
        place.ask(op="sync", names=[])
        assert main(["status", *place.config()]) == 0
    out = capsys.readouterr().out
    assert "missing" in out
    assert "does not exist" in out
    assert "picked up when it appears" in out


def test_status_before_the_first_run_shows_what_is_configured(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """There is no journal yet, so nothing was replicated, and a monitoring check reports that no daemon runs."""
    assert main(["status", *place.config()]) == 0
    assert capsys.readouterr().out.splitlines()[2].split()[:3] == ["app", "new", "none"]
    assert main(["status", *place.config(), "--max-lag", "1h"]) == 1
    assert "no daemon runs" in capsys.readouterr().err


def test_a_narrow_terminal_has_a_line_for_each_database(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 80 columns, sizes have no counts, and a moment of today is shown as time, any other as day."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
        capsys.readouterr()
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "80")
        assert main(["status", *place.config()]) == 0
    _, headings, row, summary = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).splitlines()
    assert len(headings) <= 80
    assert row.split()[:4] == ["app", "following", "none", "empty"]
    assert "objects" not in row
    assert summary == "1 database: 1 following; nothing is behind"


def test_status_says_why_there_is_nothing_to_show(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """None is configured, or nothing matches, and the output is no table without rows."""
    file = Path(place.config()[1])
    storage = file.read_text().partition("[[database]]")[0]
    for databases, why in (
        ("", "has no [[database]]"),
        (f'[[database]]\npath = "{place.folder}/*.none"\n', "has patterns, which nothing matches at present"),
    ):
        file.write_text(storage + databases)
        assert main(["status", "--config", str(file)]) == 0
        assert capsys.readouterr().out.splitlines()[1] == f"no databases to replicate: {file} {why}"


def test_a_monitoring_check_is_told_who_is_behind(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 1 beyond ``--max-lag``, for commits that wait and for a database that can't be followed."""
    storage = FakeStorage()

    def away(_call: Call) -> None:
        raise TransientError("storage is away")

    with wal_database(place.database()) as writer, running(place.settings("app", "absent"), storage):
        place.sync()
        wait_for(lambda: place.row("absent").state == "missing")
        storage.before = away
        writer.execute("insert into t values (1)")
        wait_for(lambda: place.row().spooled_bytes)
        assert main(["status", *place.config(), "--max-lag", "1h"]) == 0
        wait_for(lambda: main(["status", *place.config(), "--max-lag", "1ms"]) == 1)
        err = capsys.readouterr().err
        assert "app is behind by" in err
        assert "absent is behind by" in err
        assert main(["status", *place.config(), "--json"]) == 0
        told = {row["name"]: row for row in json.loads(capsys.readouterr().out)["databases"]}
        assert told["app"]["lag_bytes"] % (4096 + 24) == 0
        assert told["app"]["lag_bytes"] > 0
        storage.before = lambda _call: None


def _sleep_by(monkeypatch: pytest.MonkeyPatch, sleep: Callable[[float], None]) -> None:
    """Make ``--watch`` wait by this function.

    The daemon's threads are in the same process, and continue with the real one.
    """
    replaced = SimpleNamespace(**{**vars(time), "sleep": sleep})
    monkeypatch.setattr("walsyncd.cli.commands.status.time", replaced)


def test_watch_keeps_the_table_until_ctrl_c(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints the table, waits, and prints it again."""
    waits = [None, KeyboardInterrupt]

    def sleep(_seconds: float) -> None:
        wait = waits.pop(0)
        if wait is not None:
            raise wait

    _sleep_by(monkeypatch, sleep)
    assert main(["status", *place.config(), "--watch"]) == 0
    assert capsys.readouterr().out.count("daemon: not running") == 2


def test_a_verified_replica_is_shown(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """``verify`` reports to the daemon, which remembers it."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
        assert main(["verify", *place.config(), "app"]) == 0
        capsys.readouterr()
        assert main(["status", *place.config(), "--json"]) == 0
    (database,) = json.loads(capsys.readouterr().out)["databases"]
    assert database["last_verified_ms"] > 0


def test_status_says_the_price_of_presence(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where presence is configured, whether it is held, and what that means for a copy of the file."""
    settings = place.settings("app")
    present = replace(settings, databases=tuple(replace(entry, presence=True) for entry in settings.databases))
    with wal_database(place.database()), running(present):
        place.sync()
        assert main(["status", *place.config()]) == 0
    assert "app: presence is held: after a clean stop of the application its last" in capsys.readouterr().out


def test_status_says_the_price_of_backpressure(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """It says where backpressure is configured, and what prevents it."""
    settings = place.settings("app")
    held = replace(settings, databases=tuple(replace(entry, backpressure=True) for entry in settings.databases))
    with wal_database(place.database()), running(held) as daemon:
        place.sync()
        assert main(["status", *place.config()]) == 0
        assert "app: backpressure is on: RESTART and TRUNCATE checkpoints" in capsys.readouterr().out
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(daemon._databases.backpressure, "hindrance", lambda _id: "somebody uses no locks")
            assert main(["status", *place.config()]) == 0
        assert "app: backpressure has no effect: somebody uses no locks" in capsys.readouterr().out


def test_without_a_daemon_no_database_reads_following(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """What the last daemon noted may be outdated. A daemon that gives no answer is reported differently from none."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
    assert main(["status", *place.config()]) == 0
    head, _, row, _ = capsys.readouterr().out.splitlines()
    assert head == "daemon: not running"
    assert row.split()[:2] == ["app", "stopped"]
    with socket.socket(socket.AF_UNIX) as silent, pytest.MonkeyPatch.context() as patch:
        silent.bind(str(place.state / "control.sock"))
        silent.listen()
        patch.setattr(status, "ANSWER_TIMEOUT_S", 0.1)
        assert main(["status", *place.config()]) == 0
        out = capsys.readouterr().out
        assert "not running" not in out
        assert "daemon: unknown: the daemon at" in out
        assert "stopped" in out
        assert main(["status", *place.config(), "--max-lag", "1h"]) == 1
        assert "the daemon gave no answer" in capsys.readouterr().err


def test_names_patterns_and_states_choose(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """This holds in the table, in JSON and for a monitoring check. A word that matches nothing is a usage error."""

    def shown(*words: str) -> list[str]:
        assert main(["status", *place.config(), "--json", *words]) == 0
        return [row["name"] for row in json.loads(capsys.readouterr().out)["databases"]]

    with wal_database(place.database()), running(place.settings("app", "absent", "else")):
        place.sync()
        wait_for(lambda: place.row("else").state == place.row("absent").state == "missing")
        assert shown() == ["absent", "else", "app"]
        assert shown("a*") == ["absent", "app"]
        assert shown("app") == ["app"]
        assert shown("--state", "missing") == ["absent", "else"]
        assert shown("--state", "missing", "--state", "following", "a*") == ["absent", "app"]
        assert main(["status", *place.config(), "--json"]) == 0
        summary = json.loads(capsys.readouterr().out)["summary"]
        assert (summary["databases"], summary["states"]) == (3, {"missing": 2, "following": 1})
        assert main(["status", *place.config(), "nothing"]) == 2
        assert "there is no database 'nothing'" in capsys.readouterr().err
        assert main(["status", *place.config(), "--state", "refused"]) == 0
        assert "no database is refused" in capsys.readouterr().out
        assert main(["status", *place.config(), "--state", "ill"]) == 2
        assert main(["status", *place.config(), "app", "--max-lag", "1h"]) == 0
        wait_for(lambda: main(["status", *place.config(), "absent", "--max-lag", "1ms"]) == 1)


def test_watch_shows_what_fits_worst_first(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a terminal of 24 lines, 40 databases take no more than that."""
    names = [f"absent-{number:02d}" for number in range(40)]

    def leave(_seconds: float) -> None:
        raise KeyboardInterrupt

    with wal_database(place.database()), running(place.settings("app", *names)):
        place.sync()
        wait_for(lambda: all(place.row(name).state == "missing" for name in names))
        capsys.readouterr()
        _sleep_by(monkeypatch, leave)
        monkeypatch.setattr("sys.stdout.isatty", lambda: True)
        monkeypatch.setenv("COLUMNS", "100")
        monkeypatch.setenv("LINES", "24")
        assert main(["status", *place.config(), "--watch"]) == 0
    out = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", capsys.readouterr().out)
    lines = sum(max(1, -(-len(line) // 100)) for line in out.splitlines())
    assert 10 < lines < 24
    assert "absent-00" in out
    assert "databases that need less attention" in out
    assert out.splitlines()[-1].startswith("41 databases: 40 missing, 1 following; worst lag")


def test_the_lag_of_what_is_not_followed() -> None:
    """The column LAG shows what ``--max-lag`` counts."""
    why = Suspended("odd", "/srv/odd.db", "database[1]", "is a FIFO, no file", "remove it", since_ms=1_000_000)
    assert status._lag(suspended_status(why), 1_095_000) == "up to 95.0 s"
    assert status._lag(suspended_status(replace(why, since_ms=0)), 1_095_000) == "none"
