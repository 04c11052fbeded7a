"""Tests of what happens when the spool is full."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, wait_for
from tests.fakes import Call, FakeStorage
from tests.shipping import G1, T0, segment
from walsyncd.adapters.journal.journal import Advance, Journal
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.limits import Limits
from walsyncd.engine.daemon.full_spool import FullSpool
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.ship.spool_limit import SpoolLimit
from walsyncd.errors import RefusedError


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


class World:
    """One database with something in the spool, and parts that note what they are asked to do."""

    def __init__(self, journal: Journal, *, followed: bool) -> None:
        self.row = journal.database("app", "/srv/app.db")
        journal.begin_generation(self.row.id, G1, "test", "{}", T0)
        journal.advance([Advance(self.row.id, "{}", (segment(1, 2),))])
        self.is_away = False
        self.given_way: list[str] = []
        self.dropped: list[int] = []
        self.left: list[tuple[str, Gap]] = []
        tracked = SimpleNamespace(name="app") if followed else None
        self.taken_back: list[str] = []
        self.can_bridge = False
        self.bridged_once: list[str] = []
        bridge = SimpleNamespace(wait_for=lambda is_so, what: self.bridged_once.append(f"{what} {is_so()}"))
        if tracked is not None:
            tracked.row_id, tracked.bridge = self.row.id, bridge
        uploader = SimpleNamespace(
            outage=lambda: self.is_away or None, drop_spool=self._drop, abort_leftovers=lambda: None
        )
        here = SimpleNamespace(uploader=uploader, content=SimpleNamespace(take_back=self._take_back))
        away = SimpleNamespace(uploader=SimpleNamespace(outage=lambda: True))
        self.others: list[SimpleNamespace] = []
        self.other_away = away
        destinations = SimpleNamespace(of=lambda _id: here, all=lambda: [here, *self.others])
        databases = SimpleNamespace(get=lambda _id: tracked)
        self.full_spool = FullSpool(
            journal,
            SpoolLimit(journal, 1),
            destinations=lambda: cast("Any", destinations),
            databases=lambda: cast("Any", databases),
        )

    def _drop(self, database_id: int) -> int:
        self.dropped.append(database_id)
        return 100

    def _take_back(self, tracked: Any) -> int | None:
        self.taken_back.append(tracked.name)
        return 100 if self.can_bridge else None

    def must_wait(self) -> bool:
        def give_way(tracked: Any, _gap: object, *, until: Any) -> None:
            self.given_way.append(tracked.name)
            assert until() == (not self.is_away)

        follower = SimpleNamespace(give_way=give_way, leave=lambda tracked, gap: self.left.append((tracked.name, gap)))
        return self.full_spool.must_wait(cast("Follower", follower))


def test_while_the_storage_answers_the_follower_waits(tmp_path: Path) -> None:
    """Nothing is dropped, because what waits is on its way."""
    with Journal.open(tmp_path) as journal:
        world = World(journal, followed=True)
        assert world.must_wait()
        assert (world.given_way, world.dropped) == ([], [])


def test_another_storage_that_is_away_drops_nothing_of_this_one(tmp_path: Path) -> None:
    """What fills the spool is on its way to this storage, and the follower waits until it is stored."""
    with Journal.open(tmp_path) as journal:
        world = World(journal, followed=True)
        world.others.append(world.other_away)
        assert world.must_wait()
        assert world.dropped == []


def test_a_spool_with_room_keeps_nobody_waiting(tmp_path: Path) -> None:
    """Nobody waits, whether the storage answers or not."""
    with Journal.open(tmp_path) as journal:
        world = World(journal, followed=True)
        world.full_spool = FullSpool(
            journal,
            SpoolLimit(journal, 1 << 30),
            destinations=lambda: cast("Any", None),
            databases=lambda: cast("Any", None),
        )
        assert not world.must_wait()


@pytest.mark.parametrize("followed", [True, False])
def test_while_the_storage_is_away_the_largest_spool_gives_way(tmp_path: Path, followed: bool) -> None:
    """The follower ends its generation if it follows the database, and the journal otherwise."""
    with Journal.open(tmp_path) as journal:
        world = World(journal, followed=followed)
        world.is_away = True
        assert not world.must_wait()
        assert world.given_way == (["app"] if followed else [])
        assert world.dropped == [world.row.id]
        assert (journal.database_by_id(world.row.id).generation is None) == (not followed)


def test_what_can_be_bridged_keeps_its_generation(tmp_path: Path) -> None:
    """Begun objects stay, and the bridge waits for storage."""
    with Journal.open(tmp_path) as journal:
        world = World(journal, followed=True)
        world.is_away = world.can_bridge = True
        assert not world.must_wait()
        assert (world.taken_back, world.given_way, world.dropped) == (["app"], [], [])
        assert [(name, gap.kind) for name, gap in world.left] == [("app", GapKind.SPOOL)]
        assert world.bridged_once == ["storage is back False"]


def test_a_database_that_storage_refuses_leaves_room_for_the_others(place: Place) -> None:
    """The refused database's backlog never shrinks.

    It stops at three quarters of the spool, and the other database's commits are stored.
    """
    storage = FakeStorage()

    def refuse(call: Call) -> None:
        if call.name == "put" and call.key.startswith("app/") and "/wal/" in call.key:
            raise RefusedError("put: AccessDenied")

    settings = place.settings("app", "other", spool_bytes_max=400_000)
    with (
        wal_database(place.database()) as app,
        wal_database(place.database("other")) as other,
        running(settings, storage, limits=Limits(spool_check_share=0)),
    ):
        place.sync("app")
        place.sync("other")
        storage.before = refuse
        while (spooled := place.row("app").spooled_bytes) < 300_000:
            app.execute("insert into t values (randomblob(10000))")
            wait_for(lambda: place.row("app").spooled_bytes > spooled)
        for value in range(1, 4):
            app.execute(*["insert into t values (randomblob(10000))"] * 10)
            other.execute(f"insert into t values ({value})")
            place.sync("other")
        assert place.row("app").spooled_bytes == spooled
        storage.before = lambda _call: None
        place.sync("app")
