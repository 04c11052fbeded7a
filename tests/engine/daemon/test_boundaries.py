"""Tests that a fault in the work for one database suspends that one, and ends neither the daemon nor the others."""

from __future__ import annotations

import errno
import itertools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, serving, wait_for
from walsyncd.core.limits import Limits
from walsyncd.engine.base.snapshotter import Snapshotter
from walsyncd.engine.daemon.control import Control
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.follow import follower
from walsyncd.engine.follow.event_pump import EventPump
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.follow.presence import Presence
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.ship.shipper import Shipper
from walsyncd.engine.upkeep.compactor import Compactor
from walsyncd.engine.upkeep.housekeeper import Housekeeper

FAULTS = [OSError(errno.ELOOP, os.strerror(errno.ELOOP)), MemoryError(), RecursionError("too deep"), ValueError("odd")]

# The functions that begin work for one database, and the argument by which the call names it.
PLACES: dict[str, tuple[object, str, Callable[..., bool]]] = {
    "look": (follower, "take_step", lambda tracked, *_: tracked.name == "app"),
    "first look": (Follower, "_begin", lambda _, tracked: tracked.name == "app"),
    "carry over": (Follower, "_carry_over", lambda _, tracked, *__: tracked.name == "app"),
    "make durable": (Follower, "_advance", lambda _, steps: any(tracked.name == "app" for tracked, *__ in steps)),
    "event": (WalPairs, "note", lambda pairs, *_: "/app/" in str(pairs.path)),
    "wal-index": (WalPairs, "index_read", lambda pairs, *_: "/app/" in str(pairs.path)),
    "watch": (EventPump, "add", lambda _, tracked: tracked.name == "app"),
    "presence": (Presence, "update", lambda presence: "/app/" in str(presence.path)),
    "base": (Snapshotter, "_origin", lambda _, tracked: tracked.name == "app"),
    "manifest": (Snapshotter, "_spool_manifest", lambda _, tracked, *__: tracked.name == "app"),
    "upload": (Shipper, "drain", lambda _, queue, **__: queue.name == "app"),
    "patterns": (Databases, "update", lambda *_: True),
    "compaction": (Compactor, "compact", lambda *_: True),
    "pruning": (Housekeeper, "_prune", lambda _, tracked: tracked.name == "app"),
    "search": (Databases, "find", lambda *_: True),
    "request": (Control, "_sync", lambda _, names: "app" in names),
}


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class Injection:
    """Raises ``fault`` in a function while it is ``on``, and counts how often."""

    def __init__(self, patch: pytest.MonkeyPatch, place: str, fault: Exception) -> None:
        self.on, self.met = True, 0
        owner, name, is_meant = PLACES[place]
        original = getattr(owner, name)

        def wrapped(*args: Any, **kwargs: Any) -> Any:
            if self.on and is_meant(*args, **kwargs):
                self.met += 1
                raise type(fault)(*fault.args)
            return original(*args, **kwargs)

        patch.setattr(owner, name, wrapped)


@pytest.mark.parametrize(("where", "fault"), [*zip(PLACES, itertools.cycle(FAULTS), strict=False)])
def test_a_fault_costs_one_database_for_as_long_as_it_lasts(
    place: Place, monkeypatch: pytest.MonkeyPatch, where: str, fault: Exception
) -> None:
    """The other database is stored meanwhile, and afterwards this one is too."""
    injection = Injection(monkeypatch, where, fault)
    with (
        wal_database(place.database()) as app,
        wal_database(place.database("other")) as other,
        capture_logs() as lines,
        serving(place.settings("app", "other"), limits=Limits(base_stalled_s=1.0)) as daemon,
    ):
        place.sync("other")
        other.execute("insert into t values (1)")
        app.execute("insert into t values (1)")
        place.sync("other")
        daemon._finder.wake()
        place.ask(op="prune", names=["app"])
        place.ask(op="sync", names=["app"])
        if where != "compaction":  # no epoch is closed yet
            wait_for(lambda: injection.met)
            wait_for(lambda: any(line["event"] == "work_failed" for line in lines))
        injection.on = False
        wait_for(lambda: place.row().state in {"following", "copying base"})
        app.execute("insert into t values (2)")
        place.sync("app")
        assert daemon.crash is None
        assert place.ask(op="ping")["pid"] > 0


def test_a_side_file_that_is_a_link_to_itself_suspends_its_database(place: Place) -> None:
    """The database's -shm can't be looked at. The link is created under an application that is running."""
    with (
        wal_database(place.database()),
        wal_database(place.database("other")) as other,
        running(place.settings("app", "other")) as daemon,
    ):
        place.sync("app")
        shm = place.database().with_name("app.db-shm")
        shm.unlink()
        shm.symlink_to(shm.name)
        other.execute("insert into t values (1)")
        place.sync("other")
        wait_for(lambda: place.row().state in {"refused", "failing", "degraded"})
        assert daemon.crash is None


def test_a_side_file_that_is_replaced_for_ever_takes_a_bounded_number_of_descriptors(place: Place) -> None:
    """A -shm is renamed 8,000 times, while the follower is kept from looking at it and while it looks."""
    with (
        wal_database(place.database()),
        wal_database(place.database("other")) as other,
        running(place.settings("app", "other")) as daemon,
    ):
        place.sync("app")
        place.sync("other")
        shm = place.database().with_name("app.db-shm")
        spare = shm.with_name("spare")
        most = before = len(list(Path("/proc/self/fd").iterdir()))
        for number in range(8000):
            spare.write_bytes(bytes(32768))
            spare.rename(shm)
            if number % 100 == 0:
                most = max(most, len(list(Path("/proc/self/fd").iterdir())))
        other.execute("insert into t values (1)")
        place.sync("other")
        assert most - before < 200
        assert daemon.crash is None


@pytest.mark.parametrize("is_mapped", [False, True])
def test_a_sparse_database_of_exabytes_is_refused_and_costs_nothing(place: Place, *, is_mapped: bool) -> None:
    """No store could hold its base as an object. Nothing of it is read for a bridge either."""
    with (
        wal_database(place.database()) as app,
        wal_database(place.database("other")),
        capture_logs() as lines,
        running(place.settings("app", "other")) as daemon,
    ):
        place.sync("app")
        place.sync("other")
        wait_for(lambda: not is_mapped or has_map(place))
        app.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        os.truncate(place.database(), 8 << 40)
        place.ask(op="snapshot", name="app")
        wait_for(lambda: any(line["event"] == "base_abandoned" and "S3" in line["reason"] for line in lines))
        place.sync("other")
        assert daemon.crash is None


def has_map(place: Place) -> bool:
    with place.journal() as journal:
        row = place.row()
        return journal.page_map(row.id) is not None and row.has_base
