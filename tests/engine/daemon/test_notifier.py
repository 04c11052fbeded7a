"""Tests of heartbeats, and of a single report for each problem."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, wait_for
from tests.fakes import Call, FakeStorage
from tests.receivers import Receiver, run_receiver
from tests.stores import free_ports
from walsyncd.config import NotifySettings, Suspended
from walsyncd.core.limits import Limits
from walsyncd.engine.daemon.notifier import Complaint, Notifier, complaints_of
from walsyncd.errors import TransientError

MISSING = Complaint("app", "missing", "/srv/app.db does not exist", "it is picked up when it appears")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as receiver:
        yield receiver


def settings_of(receiver: Receiver) -> NotifySettings:
    return NotifySettings(f"{receiver.url}/beat", 60.0, f"{receiver.url}/report")


class Scene:
    """A notifier by hand. ``wrong`` is what is wrong, and ``at`` does a round at a moment."""

    def __init__(self, settings: NotifySettings, *, waiting_max: int = 1000) -> None:
        self.wrong: list[Complaint] | None = []
        self.notifier = Notifier(
            "web-1", lambda: self.wrong, wall_ms=lambda: 1_763_807_760_000, waiting_max=waiting_max
        )
        self.notifier.settle(settings)

    def at(self, now_s: float) -> float | None:
        return self.notifier.round(now_s)


def test_a_heartbeat_comes_while_nothing_is_wrong(receiver: Receiver) -> None:
    """A heartbeat is sent once in the interval.

    When something is wrong, /fail is requested at once, and the plain URL when all is well again.
    """
    scene = Scene(settings_of(receiver))
    for now_s in (100.0, 130.0, 159.0, 160.0):
        scene.at(now_s)
    assert receiver.paths() == ["/beat"] * 2
    scene.wrong = [MISSING]
    scene.at(161.0)
    scene.at(162.0)
    assert receiver.paths()[2:] == ["/beat/fail"]
    scene.at(221.0)
    scene.wrong = []
    scene.at(222.0)
    assert receiver.paths()[3:] == ["/beat/fail", "/beat"]


def test_each_problem_is_reported_once_and_its_end_once(receiver: Receiver) -> None:
    """The report has the subject. A problem whose text changes is the same problem."""
    scene = Scene(settings_of(receiver))
    scene.wrong = [MISSING, Complaint(None, "storage", "storage is away: timed out")]
    scene.at(100.0)
    scene.wrong = [replace(MISSING, text="it is gone")]
    scene.at(101.0)
    scene.at(102.0)
    scene.wrong = []
    scene.at(103.0)
    told = receiver.reports()
    assert [(each["event"], each["database"], each["problem"]) for each in told] == [
        ("began", "app", "missing"),
        ("began", None, "storage"),
        ("ended", None, "storage"),
        ("ended", "app", "missing"),
    ]
    assert told[0]["text"] == "/srv/app.db does not exist"
    assert told[0]["remedy"] == "it is picked up when it appears"
    assert (told[0]["host"], told[0]["since"]) == ("web-1", "2025-11-22T10:36:00.000Z")


def test_until_it_is_known_nothing_is_said(receiver: Receiver) -> None:
    """A daemon that has not looked at its databases sends no heartbeat."""
    scene = Scene(settings_of(receiver))
    scene.wrong = None
    assert scene.at(100.0) is not None
    assert receiver.requests == []


def test_nobody_to_tell_wakes_nobody(receiver: Receiver) -> None:
    """Without URLs nothing is ever due."""
    assert Scene(NotifySettings()).at(100.0) is None


def test_reports_wait_for_a_dead_receiver_in_order(receiver: Receiver) -> None:
    """No report is lost or sent twice. The log mentions the dead receiver once, without the secret."""
    dead = free_ports(1)[0]
    with capture_logs() as said:
        scene = Scene(NotifySettings(None, 60.0, f"http://127.0.0.1:{dead}/geheim"))
        scene.wrong = [MISSING]
        for now_s in (100.0, 103.0, 110.0, 130.0):
            scene.at(now_s)
        scene.wrong = []
        scene.at(131.0)
        scene.notifier.settle(settings_of(receiver))
        scene.at(1000.0)
    assert [each["event"] for each in receiver.reports()] == ["began", "ended"]
    assert [each["event"] for each in said if each["log_level"] == "warning"] == ["notification_failed"]
    assert "geheim" not in str(said)


def test_reports_that_wait_are_bounded(receiver: Receiver) -> None:
    """The oldest are dropped first, and the log reports that."""
    receiver.status = 500
    scene = Scene(settings_of(receiver), waiting_max=5)
    scene.wrong = [replace(MISSING, database=f"app-{number}") for number in range(20)]
    with capture_logs() as said:
        scene.at(100.0)
    assert any("the oldest are dropped" in str(each) for each in said)
    receiver.status = 200
    receiver.requests.clear()
    scene.at(200.0)
    assert [each["database"] for each in receiver.reports()] == [f"app-{number}" for number in range(15, 20)]


def test_a_daemon_reports_what_is_wrong_and_what_is_well_again(tmp_path: Path, receiver: Receiver) -> None:
    """A database is missing, and a storage goes away. A receiver that hangs delays nothing."""
    place, storage = Place(tmp_path), FakeStorage()
    settings = replace(place.settings("app", "late"), notify=settings_of(receiver))

    def away(_call: Call) -> None:
        raise TransientError("storage is away")

    limits = Limits(notify_check_s=0.5)
    with wal_database(place.database()) as writer, running(settings, storage, limits=limits):
        wait_for(lambda: [each["database"] for each in receiver.reports()] == ["late"])
        wait_for(lambda: "/beat/fail" in receiver.paths())
        with wal_database(place.database("late")):
            wait_for(lambda: receiver.reports()[-1]["event"] == "ended")
            wait_for(lambda: receiver.paths()[-1] == "/beat")
            place.sync()
            storage.before = away
            writer.execute("insert into t values (1)")
            wait_for(lambda: receiver.reports()[-1]["problem"] == "storage")
            storage.before = lambda _call: None
            wait_for(lambda: receiver.reports()[-1]["event"] == "ended")
            release = threading.Event()
            receiver.before = lambda: release.wait(60)
            place.database("late").rename(tmp_path / "moved")
            writer.execute("insert into t values (2)")
            place.sync()
            release.set()
    assert json.dumps(receiver.reports())


def test_what_is_suspended_is_a_problem() -> None:
    """A match that can't be replicated is in no replica, so it is reported although nothing of it is followed."""
    odd = Suspended("srv/odd.db", "/srv/odd.db", "database[1]", "is a FIFO, no file", "remove it, or exclude it")
    found = complaints_of((), {}, trouble="", failed_drills=(), suspended=(odd,))
    assert found == [Complaint("srv/odd.db", "suspended", "is a FIFO, no file", "remove it, or exclude it")]
