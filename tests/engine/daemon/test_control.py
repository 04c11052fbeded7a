"""Tests of what the daemon answers."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import WAIT_S_MAX, Place, running, wait_for
from tests.fakes import Call, FakeStorage
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectRow
from walsyncd.adapters.system.control_socket import ask, ask_daemon, socket_path
from walsyncd.cli import main
from walsyncd.engine.daemon import control
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.follow import follower, look
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.step import Step
from walsyncd.errors import TransientError, WalsyncdError

Futures: TypeAlias = Sequence[tuple[FollowedDatabase, Future[Any]]]


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_status_has_the_databases_that_are_followed(place: Place) -> None:
    """The answer has them as the journal does, and the daemon's pid."""
    with wal_database(place.database()), running(place.settings("app")):
        position = place.sync()
        answer = place.ask(op="status")
    (database,) = answer["databases"]
    assert (database["name"], database["stored_position"]) == ("app", position)
    assert answer["pid"] > 0


def test_status_tells_of_presence(place: Place) -> None:
    """Presence is off, asked for, or held at this moment."""
    settings = place.settings("app", "other", "idle")
    entries = [replace(entry, presence=entry.name != "idle") for entry in settings.databases]
    with (
        wal_database(place.database()),
        wal_database(place.database("idle")),
        running(replace(settings, databases=tuple(entries))),
    ):
        place.sync("app")
        told = {database["name"]: database["presence"] for database in place.ask(op="status")["databases"]}
    assert told == {"app": "held", "other": "on", "idle": "off"}


def test_what_is_still_to_come_is_told_until_it_is_stored(place: Place) -> None:
    """``stored`` answers whether what ``sync`` promised is stored, and says when that promise is void."""
    storage = FakeStorage()

    def away(_call: Call) -> None:
        raise TransientError("storage is away")

    with wal_database(place.database()) as writer, running(place.settings("app"), storage):
        place.sync()
        storage.before = away
        writer.execute("insert into t values (1)")
        asked = place.ask(op="sync", names=["app"])["databases"]
        answer = place.ask(op="stored", databases=asked)
        assert "wait" in answer["waiting"]["app"]
        assert answer["again"] == []
        storage.before = lambda _call: None
        wait_for(lambda: place.ask(op="stored", databases=asked)["waiting"] == {"app": ""})
        void = {"app": asked["app"] | {"position": "20200101T000000Z-00000000/00000001/00000001"}}
        assert place.ask(op="stored", databases=void)["again"] == ["app"]


def test_what_a_sync_reached_is_said_though_a_gap_is_bridged_now(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The position can be restored, unlike the one from which the bridge follows the WAL."""
    failures = control._failures

    def found_a_gap(futures: Futures, timeout_s: float) -> dict[str, WalsyncdError]:
        found = failures(futures, timeout_s)
        for tracked, _ in futures:
            assert tracked.state is not None
            tracked.belief = replace(
                tracked.belief, state=replace(tracked.state, stream=tracked.state.stream.next_epoch())
            )
        return found

    with wal_database(place.database()), running(place.settings("app")):
        position = place.sync()
        monkeypatch.setattr(control, "_failures", found_a_gap)
        assert place.ask(op="sync", names=["app"])["databases"]["app"]["position"] == position
        monkeypatch.undo()


def test_a_journal_that_cant_be_written_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is noted while the disk of the state directory is full, so status and sync report this."""
    advance, is_full = Journal.advance, threading.Event()

    def written(self: Journal, advances: Sequence[Advance]) -> Sequence[ObjectRow]:
        if is_full.is_set():
            raise TransientError("write journal: disk is full")
        return advance(self, advances)

    monkeypatch.setattr(Journal, "advance", written)

    def unseen(futures: Futures, _timeout_s: float) -> dict[str, TransientError]:
        return {tracked.name: TransientError("it was not looked at") for tracked, _ in futures}

    with wal_database(place.database()) as writer, running(place.settings("app")):
        place.sync()
        is_full.set()
        writer.execute("insert into t values (1)")
        wait_for(lambda: place.ask(op="status")["storage"] == "write journal: disk is full")
        with monkeypatch.context() as patched:
            patched.setattr(control, "_failures", unseen)
            answer = place.ask(op="sync", names=["app"])
        assert answer["databases"]["app"]["error"] == "it was not looked at; write journal: disk is full"
        is_full.clear()
        place.sync()
        assert place.ask(op="status")["storage"] == ""


def test_a_base_is_asked_for_and_awaited(place: Place) -> None:
    """``base`` has the key of a base that is newer than that of ``snapshot``."""
    with wal_database(place.database()), running(place.settings("app")):
        place.sync()
        before = place.ask(op="snapshot", name="app")["base_key"]
        assert before == place.row().base_key
        wait_for(lambda: place.ask(op="base", name="app", base_key=before)["base_key"])


def test_a_daemon_answers_for_its_own_state_directory_only(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A command with another configuration that finds this socket is told that this is another daemon."""
    with running(place.settings()):
        assert place.ask(op="ping", state_dir=str(place.state))["pid"] > 0
        assert place.ask(op="ping", state_dir="/elsewhere")["is_other"]
        monkeypatch.setattr("walsyncd.adapters.system.control_socket.SERVICE_FOLDER", place.state)
        assert ask_daemon(place.folder / "elsewhere", {"op": "ping"}, timeout_s=10) is None


@pytest.mark.parametrize(
    "request_",
    [
        [],
        None,
        "status",
        {},
        {"op": 5},
        {"op": ["status"]},
        {"op": "x" * 10_000},
        {"op": "sync", "names": 5},
        {"op": "sync", "names": ["app", 5]},
        {"op": "sync", "names": ["\udcff"]},
        {"op": "stored", "databases": [1]},
        {"op": "stored", "databases": {"app": 1}},
        {"op": "stored", "databases": {"app": {"position": 1}}},
        {"op": "snapshot"},
        {"op": "snapshot", "name": {}},
        {"op": "base", "name": "app", "base_key": 5},
        {"op": "takeover", "names": {"app": 1}},
        {"op": "prune", "names": "app"},
        {"op": "pruned", "name": None},
        {"op": "verified", "name": "absent"},
    ],
)
def test_every_request_has_an_answer(place: Place, request_: object) -> None:
    """The answer says what is wrong with the request, and the daemon continues."""
    with running(place.settings("app")):
        answer = ask(socket_path(place.state), request_, timeout_s=WAIT_S_MAX)  # type: ignore[arg-type]
        assert answer is not None
        assert answer["error"]
        assert "Traceback" not in str(answer)
        assert place.ask(op="ping")["pid"] > 0


def test_a_request_that_meets_a_fault_is_an_error_and_the_daemon_goes_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any exception while an answer is made becomes an error in the answer."""

    def fail(*_args: object) -> None:
        raise MemoryError

    with running(place.settings("app")):
        with monkeypatch.context() as patch:
            patch.setattr(Databases, "all", fail)
            assert "MemoryError" in place.ask(op="status")["error"]
        assert place.ask(op="status")["databases"]


def test_status_counts_what_nobody_has_looked_at(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A follower that hangs in one database's look leaves the others unseen, and status says for how long."""
    hangs, go_on = threading.Event(), threading.Event()
    take_step = look.take_step

    def hang(tracked: FollowedDatabase, environment: Environment) -> Step:
        if tracked.name == "app" and hangs.is_set():
            assert go_on.wait(WAIT_S_MAX)
        return take_step(tracked, environment)

    monkeypatch.setattr(follower, "take_step", hang)

    def unseen_s() -> dict[str, float]:
        return {row["name"]: row["unseen_s"] for row in place.ask(op="status")["databases"]}

    with (
        wal_database(place.database()) as writer,
        wal_database(place.database("other")) as other,
        running(place.settings("app", "other")),
    ):
        place.sync("app")
        place.sync("other")
        wait_for(lambda: max(unseen_s().values()) == 0)
        hangs.set()
        writer.execute("insert into t values (1)")
        wait_for(lambda: unseen_s()["app"] > 0.2)
        other.execute("insert into t values (1)")
        wait_for(lambda: unseen_s()["other"] > 0.2)
        assert main(["status", *place.config(), "--max-lag", "200ms"]) == 1
        hangs.clear()
        go_on.set()
        wait_for(lambda: max(unseen_s().values()) == 0)
