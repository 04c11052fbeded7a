"""Tests of the housekeeper: its work is done when it is due, and never with a wrong clock or in another daemon's
folder.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.compaction import at_once, make_history, ship
from tests.engine.following import spec_of
from tests.engine.running import Place, running, wait_for
from tests.fakes import FakeStorage
from tests.shipping import NAME
from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.keep.retention import HOUR_MS
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import Head
from walsyncd.core.stored.layout import OWNER_KEY
from walsyncd.core.stored.moment import CLOCK_OFF_MS
from walsyncd.core.stored.owner import Owner, format_owner
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.restore.planner import find_plan
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import restore
from walsyncd.engine.ship.ownership import Identity, Ownership
from walsyncd.engine.upkeep.deletion import Removals
from walsyncd.engine.upkeep.housekeeper import RETRY_S, Housekeeper

ME = Identity("host", "machine", "run-1")


class ClockedStorage(FakeStorage):
    """A storage with a clock of its own."""

    now_ms = 1_000_000_000

    def clock_ms(self) -> int:
        return self.now_ms


def make(
    journal: Journal, storage: ClockedStorage, *, wall_off_ms: int = 0, removals: Removals | None = None
) -> Housekeeper:
    def wall_ms() -> int:
        return storage.now_ms + wall_off_ms

    storage.put(f"{NAME}/{OWNER_KEY}", format_owner(Owner("host", "machine", "run-1", "now")), metadata={})
    owner = Ownership(journal, storage, ME, wall_ms)
    return Housekeeper(journal, storage, owner, submit=at_once, wall_ms=wall_ms, removals=removals)


def segments_left(storage: FakeStorage) -> int:
    return len([name for name in storage.objects if "/wal/00000001/" in name])


def test_it_sleeps_until_something_is_due(tmp_path: Path) -> None:
    """The housekeeper compacts now, deletes in an hour, and then has no next time."""
    storage = ClockedStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(1 << 30)
        keeper = make(journal, storage)
        assert keeper.round() is None
        ship(journal, storage, make_history(tmp_path), stored=keeper.stored)
        assert keeper.round() == HOUR_MS / 1000
        storage.now_ms += HOUR_MS
        keeper.round()
        assert segments_left(storage) == 0
        storage.calls.clear()
        assert (keeper.round(), storage.calls) == (None, [])


def test_a_round_asks_the_journal_no_more_for_many_databases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each base and each epoch, of thousands of databases, is followed by a round.

    A round must not ask about all the other databases.
    """
    storage = ClockedStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(1 << 30)
        keeper = make(journal, storage)
        keeper.round()
        asked: list[str] = []
        ask = journal._rows

        def count(sql: str, values: Sequence[object] = ()) -> list[Any]:
            asked.append(sql)
            return ask(sql, values)

        monkeypatch.setattr(journal, "_rows", count)
        counts = []
        for number in range(1, 30):
            path = tmp_path / f"{number}.db"
            keeper.adopt(FollowedDatabase(spec_of(path), journal.database(path.name, str(path)).id, WalPairs(path)))
            asked.clear()
            keeper.round()
            counts.append(len(asked))
        assert max(counts) == min(counts)


@pytest.mark.parametrize("off_ms", [CLOCK_OFF_MS + 1, -CLOCK_OFF_MS - 1])
def test_a_clock_that_is_off_deletes_nothing(tmp_path: Path, off_ms: int) -> None:
    """The clock may be ahead or behind. Deletion is tried again later."""
    storage = ClockedStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(1 << 30)
        keeper = make(journal, storage, wall_off_ms=off_ms)
        ship(journal, storage, make_history(tmp_path))
        keeper.round()
        storage.now_ms += HOUR_MS
        assert keeper.round() == RETRY_S
        assert segments_left(storage) == 3


def test_in_the_folder_of_another_run_nothing_is_deleted(tmp_path: Path) -> None:
    """Only the run in owner.json prunes."""
    storage = ClockedStorage()
    with Journal.open(tmp_path / "state") as journal:
        journal.keep_bodies(1 << 30)
        keeper = make(journal, storage)
        ship(journal, storage, make_history(tmp_path))
        keeper.round()
        storage.put(f"{NAME}/{OWNER_KEY}", format_owner(Owner("other", "other", "run-2", "now")), metadata={})
        storage.now_ms += HOUR_MS
        assert keeper.round() == RETRY_S
        assert segments_left(storage) == 3


def test_a_daemon_compacts_what_it_closes(tmp_path: Path) -> None:
    """Commits continue meanwhile. The restored database has all of them, from whole epochs and from segments."""
    place = Place(tmp_path)
    with (
        wal_database(place.database()) as writer,
        running(place.settings("app"), limits=Limits(epoch_bytes=40_000, epoch_patience=1, replaced_after_ms=0)),
    ):
        place.sync()
        for value in range(1, 60):
            writer.execute(f"insert into t values ({value})")
            if value % 3 == 0:
                place.sync()
        replica = place.replica / "app"
        wait_for(lambda: list(replica.glob("*/whole/*")) and not list(replica.glob("*/wal/00000001/*")))
        place.sync()
    stored = Replica(DirectoryStorage(place.replica), "app")
    restore(stored, find_plan(stored, Head()), tmp_path / "out.db")
    connection = sqlite3.connect(tmp_path / "out.db")
    assert connection.execute("select count(*), sum(x) from t").fetchone() == (60, 59 * 30)
    connection.close()
