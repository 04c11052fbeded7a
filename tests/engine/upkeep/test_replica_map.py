"""Tests of the page map that is made from a replica.

The map must equal that of the file which a restore of the head gives.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.replicas import GENERATION, ReplicaMaker, make_replica
from walsyncd.adapters.files.source import open_file
from walsyncd.adapters.journal.page_map_file import PageMapWriter, open_page_map
from walsyncd.core.content.page_entry import ABSENT, Entries, differs, entries_of_pages
from walsyncd.core.restore.plan import Head
from walsyncd.engine.restore.planner import find_plan, manifest_of
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import restore
from walsyncd.engine.upkeep import replica_map
from walsyncd.engine.upkeep.replica_map import MapMade, make_replica_map
from walsyncd.errors import CorruptError, RefusedError


def only_a_base(maker: ReplicaMaker) -> None:
    maker.base()


def frames_after_a_base(maker: ReplicaMaker) -> None:
    maker.commit(5, rows=9)
    maker.ship(every=2)
    maker.base()
    maker.commit(30, rows=3)
    maker.ship(every=7)


def epochs_and_a_whole(maker: ReplicaMaker) -> None:
    maker.base()
    for _ in range(3):
        maker.commit(9, rows=5)
        maker.ship(every=4)
        maker.close_epoch()
        maker.compact()
    maker.commit(2)
    maker.ship()


def smaller_and_larger(maker: ReplicaMaker) -> None:
    maker.commit(30, rows=20)
    maker.base()
    maker.connection.execute("DELETE FROM t")
    maker.connection.execute("VACUUM")
    maker.commit(3)
    maker.ship()
    maker.commit(20, rows=30)
    maker.ship(every=5)


def smaller(maker: ReplicaMaker) -> None:
    maker.commit(30, rows=20)
    maker.base()
    maker.connection.execute("DELETE FROM t")
    maker.connection.execute("VACUUM")
    maker.commit(1)
    maker.ship()


def bridged(maker: ReplicaMaker) -> None:
    maker.commit(9, rows=9)
    maker.base()
    maker.bridge(lost=3)
    maker.commit(3)
    maker.ship()


HISTORIES = [only_a_base, frames_after_a_base, epochs_and_a_whole, smaller_and_larger, smaller, bridged]
History = Callable[[ReplicaMaker], None]


def made(maker: ReplicaMaker, folder: Path, file: Path, *, pages_max: int = 1 << 17) -> tuple[MapMade, Entries, int]:
    """Make the map beside a database ``file``. Return what was read, its entries, and what comes after them."""
    replica = Replica(maker.storage, maker.name)
    plan = find_plan(replica, Head(), generation=GENERATION)
    manifest, path = manifest_of(replica, plan), folder / "app.map"
    opened = open_file(file)
    assert opened is not None
    with opened, PageMapWriter(path, manifest.page_size) as writer:
        done = make_replica_map(
            replica, plan, manifest, opened, writer, pages_max=pages_max, window_bytes=1 << 17, frames_max=8
        )
    found = open_page_map(path)
    assert found is not None
    with found:
        return done, found.read(1, done.pages), int((found.read(done.pages + 1, 100) != ABSENT).sum())


@pytest.mark.parametrize("page_size", [512, 4096, 65536])
@pytest.mark.parametrize("history", HISTORIES)
@pytest.mark.parametrize("what", ["the head", "nothing", "another database"])
def test_it_is_the_map_of_the_head(tmp_path: Path, history: History, what: str, page_size: int) -> None:
    """The entries are right for every page, whatever the database file is.

    If the file is the head, most of it need not be fetched.
    """
    with make_replica(tmp_path, page_size=page_size) as maker:
        history(maker)
        replica = Replica(maker.storage, maker.name)
        plan = find_plan(replica, Head(), generation=GENERATION)
        head = tmp_path / "head.db"
        restore(replica, plan, head)
        file = tmp_path / "file.db"
        raw = head.read_bytes()
        file.write_bytes({"the head": raw, "nothing": b""}.get(what, bytes(len(raw))))
        done, entries, more = made(maker, tmp_path, file)
        fetched_all = manifest_of(replica, plan).file_size
    wanted = entries_of_pages(raw, page_size)
    assert (done.pages, more) == (len(wanted), 0)
    assert not differs(wanted, entries).any()
    assert done.fetched_bytes <= fetched_all
    if what == "the head" and history is only_a_base:
        assert done.fetched_bytes == 0
    if what == "nothing":
        assert done.fetched_bytes == fetched_all


def test_the_page_of_the_lock_bytes_has_no_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page has no entry, whatever the file has there."""
    monkeypatch.setattr(replica_map, "lock_page", lambda _page_size: 3)
    with make_replica(tmp_path) as maker:
        frames_after_a_base(maker)
        _, entries, _ = made(maker, tmp_path, maker.path)
    assert [number for number, entry in enumerate(entries, 1) if entry == ABSENT] == [3]


@pytest.mark.parametrize("history", [only_a_base, frames_after_a_base])
def test_no_map_is_larger_than_the_file_is_worth(tmp_path: Path, history: History) -> None:
    """Pages of the base and of frames are counted before anything is written."""
    with make_replica(tmp_path) as maker:
        history(maker)
        done, *_ = made(maker, tmp_path, maker.path)
        with pytest.raises(RefusedError, match=f"has a page {done.pages}"):
            made(maker, tmp_path, maker.path, pages_max=done.pages - 1)
        made(maker, tmp_path, maker.path, pages_max=done.pages)


def test_a_damaged_segment_makes_no_map(tmp_path: Path) -> None:
    """No map is made of frames that differ from what was stored."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(9)
        key = maker.ship()[0]
        path = maker.object_path(key)
        raw = bytearray(path.read_bytes())
        raw[len(raw) // 2] ^= 1
        path.write_bytes(raw)
        with pytest.raises(CorruptError):
            made(maker, tmp_path, maker.path)
    assert not (tmp_path / "app.map").exists()
