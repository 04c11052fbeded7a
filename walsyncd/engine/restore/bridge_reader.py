"""Reads bridges, to learn which moments and positions can't be restored, and what `ls` reports of the bridges."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from walsyncd.core.restore.bridge_points import StoredBridge, bridges_after, suspecting
from walsyncd.core.restore.coverage import FramesKey, GenerationListing
from walsyncd.core.restore.plan import Point
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.segment import Commit
from walsyncd.engine.restore.commit_times import bridge_of
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import CorruptError

READERS = 3  # bridges read at once


def stored_bridge(key: FramesKey, commit: Commit, span: BridgeSpan) -> StoredBridge:
    """Return the bridge with which an object begins, from its commit and its span."""
    return StoredBridge(Point(Position(key.generation, key.epoch, commit.frame), commit.time_ms), span)


def read_bridge(replica: Replica, key: FramesKey) -> StoredBridge:
    """Return the bridge with which an object begins. Raises CorruptError with the object's name."""
    return stored_bridge(key, *bridge_of(replica, key))


def read_bridges(replica: Replica, keys: Iterable[FramesKey]) -> tuple[list[StoredBridge], list[str]]:
    """Return the readable bridges of these objects, in order, and what is wrong with the other bridges."""

    def read(key: FramesKey) -> StoredBridge | str:
        try:
            return read_bridge(replica, key)
        except CorruptError as error:
            return error.message

    with ThreadPoolExecutor(READERS, thread_name_prefix="bridges") as pool:
        found = list(pool.map(read, keys))
    bridges = [each for each in found if isinstance(each, StoredBridge)]
    return bridges, [each for each in found if isinstance(each, str)]


def suspecting_bridge(
    replica: Replica, part: GenerationListing, position: Position
) -> tuple[StoredBridge | None, list[str]]:
    """Return the bridge that makes a position suspect, if any, and what is wrong with bridges that can't be read."""
    problems: list[str] = []

    def readable() -> Iterator[StoredBridge]:
        for key in bridges_after(part, position):
            try:
                yield read_bridge(replica, key)
            except CorruptError as error:
                problems.append(error.message)

    return suspecting(readable(), position), problems
