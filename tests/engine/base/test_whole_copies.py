"""Tests of walsyncd.engine.base.whole_copies: a file that is copied whole at each change pauses in between."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import apsw
import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.rollback.rollback_replicas import restored
from tests.engine.running import Place, running, wait_for
from walsyncd.core.follow.database_state import DatabaseState
from walsyncd.core.limits import Limits
from walsyncd.engine.base import snapshotter
from walsyncd.engine.base.base_copy import BaseCopy
from walsyncd.engine.base.whole_copies import WholeCopies

TABLE = (
    "CREATE TABLE t (x INTEGER PRIMARY KEY, y)",
    "INSERT INTO t (y) SELECT randomblob(900) FROM json_each('[1,2,3,4]')",
)


@dataclass
class Scene:
    now_s: float = 100.0
    tracked: Any = field(
        default_factory=lambda: SimpleNamespace(
            row_id=1, generation="g", spec=SimpleNamespace(snapshot_interval_s=3600.0)
        )
    )

    def __post_init__(self) -> None:
        self.copies = WholeCopies(lambda: self.now_s)

    def copies_once(self, took_s: float, size: int) -> None:
        begun = self.copies.begin(self.tracked)
        self.now_s += took_s
        self.copies.end(self.tracked, begun, size)

    @property
    def rest_s(self) -> float:
        return self.copies.rest_s(self.tracked)


def test_a_rest_is_in_proportion_to_what_the_copy_cost() -> None:
    """The copy's time counts, so that a slow store has pauses.

    The copy's size counts, since a fast store costs as well.
    """
    scene = Scene()
    assert scene.rest_s == 0
    scene.copies_once(1.0, 400 << 10)
    assert scene.rest_s == 10
    scene.now_s += 4
    assert scene.rest_s == 6
    scene.now_s += 60
    assert scene.rest_s == 0
    scene.copies_once(1.0, 1 << 30)
    assert scene.rest_s == 1024
    scene.copies_once(1.0, 1 << 40)
    assert scene.rest_s == 3600, "a base comes at each interval"


def test_an_attempt_that_is_given_up_rests_by_its_time() -> None:
    """The attempt has read and uploaded something in vain.

    The first attempt is begun again at once, because a commit has just come.
    """
    scene = Scene()
    for _ in range(2):
        scene.copies_once(7.0, 0)
        assert scene.rest_s == 0
        assert scene.copies.begins_again(scene.tracked)
        for _ in range(2):
            scene.copies_once(7.0, 0)
            assert scene.rest_s == 70
            assert not scene.copies.begins_again(scene.tracked)
        scene.copies_once(7.0, 1 << 20)
        assert not scene.copies.begins_again(scene.tracked)


def test_who_waits_for_what_is_committed_ends_the_rest_until_a_copy_is_complete() -> None:
    """An attempt that is given up is no complete copy."""
    scene = Scene()
    scene.copies_once(1.0, 1 << 30)
    scene.copies.hasten(scene.tracked)
    assert scene.rest_s == 0
    scene.copies_once(1.0, 0)
    assert scene.rest_s == 0
    scene.copies_once(1.0, 1 << 30)
    assert scene.rest_s == 1024


def test_who_asks_while_a_copy_is_under_way_may_wait_for_the_next_one() -> None:
    """The commit that is waited for may have come after that copy had read its page."""
    scene = Scene()
    begun = scene.copies.begin(scene.tracked)
    scene.copies.hasten(scene.tracked)
    scene.copies.end(scene.tracked, begun, 1 << 30)
    assert scene.rest_s == 0


def test_another_generation_does_not_rest() -> None:
    """A new generation has no base, so nothing could be restored.

    A database that is followed again does not pause either.
    """
    scene = Scene()
    scene.copies_once(1.0, 1 << 30)
    scene.tracked.generation = "another"
    assert scene.rest_s == 0
    scene.tracked.generation = "g"
    assert scene.rest_s > 0
    scene.copies.forget(scene.tracked)
    assert scene.rest_s == 0


@contextmanager
def encrypted(place: Place) -> Iterator[SqliteProcess]:
    if not hasattr(apsw, "mc_version"):
        pytest.skip("another apsw than that of apsw-sqlite3mc is installed")
    with SqliteProcess(place.database(), module="apsw") as app:
        app.execute("PRAGMA cipher = 'aes256cbc'", "PRAGMA key = 'a key'", *TABLE)
        yield app


@pytest.mark.parametrize("request_of", [{"op": "sync", "names": ["app"]}, {"op": "snapshot", "name": "app"}])
def test_changes_of_an_encrypted_file_wait_for_the_end_of_the_rest(tmp_path: Path, request_of: dict[str, Any]) -> None:
    """LAG says how old the changes are. ``sync`` and ``snapshot`` have them copied at once."""
    limits = Limits(whole_copy_bytes_per_s=0.001)
    place = Place(tmp_path)
    with encrypted(place) as app, running(place.settings("app"), limits=limits):
        wait_for(lambda: place.row().has_base)
        first = place.row().base_key
        app.execute("UPDATE t SET y = 1 WHERE x = 1")
        wait_for(lambda: place.ask(op="status")["databases"][0]["unbased_s"] > 1.0)
        assert place.row().base_key == first
        place.ask(**request_of)
        wait_for(lambda: place.row().base_key != first)
        assert restored(place) == place.database().read_bytes()


def test_a_change_that_was_not_copied_when_the_daemon_stops_is_reported(tmp_path: Path) -> None:
    """A host that is being retired must not look clean."""
    limits = Limits(whole_copy_bytes_per_s=0.001)
    place = Place(tmp_path)
    with encrypted(place) as app, capture_logs() as logs:
        for expected in (0, 1):
            with running(place.settings("app"), limits=limits):
                wait_for(lambda: place.row().has_base)
                if expected:
                    app.execute("UPDATE t SET y = 1 WHERE x = 1")
                    wait_for(lambda: place.ask(op="status")["databases"][0]["unbased_s"] > 0)
            assert [line["event"] for line in logs].count("changes_left_uncopied") == expected


def test_after_the_rest_the_file_is_copied(tmp_path: Path) -> None:
    """The copy needs no request."""
    limits = Limits(whole_copy_bytes_per_s=16 << 10)  # the pause is a second or less
    place = Place(tmp_path)
    with encrypted(place) as app, running(place.settings("app"), limits=limits):
        wait_for(lambda: place.row().has_base)
        for number in range(2):
            before = place.row().base_key
            app.execute(f"UPDATE t SET y = {number} WHERE x = 1")
            wait_for(lambda: place.row().base_key != before)  # noqa: B023  it is called before the next round
        assert restored(place) == place.database().read_bytes()


def test_a_file_that_is_written_while_it_is_copied_is_not_copied_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the upload would be useless."""
    place, reads, read = Place(tmp_path), list[int](), BaseCopy._read
    with encrypted(place) as app:
        app.execute("INSERT INTO t (y) SELECT randomblob(4000000) FROM json_each('[1,2,3]')")

        def noted(self: BaseCopy, offset: int, length: int, *, counts: bool = True) -> bytes:
            content = read(self, offset, length, counts=counts)
            reads.append(offset)
            if len(reads) == 2:
                app.execute("UPDATE t SET y = 1 WHERE x = 1")
            return content

        monkeypatch.setattr(BaseCopy, "_read", noted)
        with running(place.settings("app")):
            wait_for(lambda: place.row().has_base)
        again = reads.index(0, 1)
        assert again == 2
        assert len(reads) > 2 * again
        assert restored(place) == place.database().read_bytes()


def test_a_file_that_is_written_during_each_copy_is_degraded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is degraded after several attempts, with the cause.

    It is well again once no commit came during a copy.
    """
    place, read, is_busy = Place(tmp_path), BaseCopy._read, threading.Event()
    monkeypatch.setattr(snapshotter, "delay_s", lambda *_count, **_limits: 0.01)
    is_busy.set()
    with encrypted(place) as app:

        def disturbed(self: BaseCopy, offset: int, length: int, *, counts: bool = True) -> bytes:
            if is_busy.is_set():
                app.execute("UPDATE t SET y = randomblob(900) WHERE x = 1")
            return read(self, offset, length, counts=counts)

        monkeypatch.setattr(BaseCopy, "_read", disturbed)
        with running(place.settings("app")):
            wait_for(lambda: place.row().state is DatabaseState.DEGRADED)
            assert re.match(r"no base could be taken \d+ times: .*written", place.row().cause)
            assert not place.row().has_base
            is_busy.clear()
            wait_for(lambda: place.row().state is DatabaseState.FOLLOWING)
        assert restored(place) == place.database().read_bytes()
