"""Which commits an object holds, and when each was seen. Where possible, the object's frames are not read.

A segment ends with its trailer, so its last 64 KiB give five thousand commits. An object of several parts (a whole, or
segments that were merged while storage was away) has a trailer at the end of each part. Nothing says where these parts
end, so the whole object is read. A bridge is the first part of its object, so the bridge's trailer is read without the
rest of the object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from walsyncd.core.restore.coverage import FramesKey
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.core.stored.layout import format_key
from walsyncd.core.stored.segment import Commit, Trailer, decode_body, last_trailer
from walsyncd.engine.restore.replica import Replica, naming_object, with_retries
from walsyncd.errors import CorruptError

TAIL_BYTES = 64 << 10
PAGE_SIZE_MAX = 65536


@dataclass(frozen=True, slots=True)
class ObjectCommits:
    """The commits of an object, ascending. If the first commit is a bridge, ``bridge`` is what its trailer says."""

    commits: tuple[Commit, ...]
    bridge: BridgeSpan | None


def commits_of(replica: Replica, key: FramesKey, *, tail_bytes: int = TAIL_BYTES) -> ObjectCommits:
    """Return all commits of an object. Raises CorruptError, which names the object."""
    trailer = _only_trailer(replica, key, tail_bytes)
    with naming_object(key):
        parts = [trailer] if trailer is not None else with_retries(lambda: list(trailers(replica, key)))
        if key.bridge != (parts[0].bridge is not None):
            raise CorruptError("its name and its first trailer disagree on whether it begins with a bridge")
    return ObjectCommits(tuple(commit for part in parts for commit in part.commits), parts[0].bridge)


def bridge_of(replica: Replica, key: FramesKey) -> tuple[Commit, BridgeSpan]:
    """Return the commit of the bridge with which an object begins, and what the bridge's trailer says.

    Raises CorruptError, which names the object.
    """
    trailer = _only_trailer(replica, key)
    with naming_object(key):
        first = trailer if trailer is not None else with_retries(lambda: next(trailers(replica, key)))
        if first.bridge is None:
            raise CorruptError("its name says that it begins with a bridge, and its first trailer that it does not")
    return first.commits[0], first.bridge


def end_trailer(replica: Replica, key: FramesKey, *, tail_bytes: int = TAIL_BYTES) -> Trailer | None:
    """Return the trailer of an object's last part, or None if the trailer is longer than ``tail_bytes``."""
    size = replica.size_of(key)
    first = max(0, size - tail_bytes)
    with naming_object(key):
        return last_trailer(replica.get(format_key(key), first=first, length=size - first)) if size else None


def _only_trailer(replica: Replica, key: FramesKey, tail_bytes: int = TAIL_BYTES) -> Trailer | None:
    """Return the trailer of an object of one part, or None if the whole object must be read to find its trailers."""
    trailer = end_trailer(replica, key, tail_bytes=tail_bytes)
    whole = key.epoch, key.first, key.last
    return trailer if trailer and (trailer.epoch, trailer.first, trailer.last) == whole else None


def trailers(replica: Replica, key: FramesKey) -> Iterator[Trailer]:
    """Yield the trailers of an object, which is read whole.

    Raises CorruptError, or TransientError if the reading breaks off. A few bytes can claim terabytes of content. So no
    more is unpacked than the frames in the object's name can take.
    """
    left = WAL_HEADER_SIZE + (key.last - key.first + 1) * (FRAME_HEADER_SIZE + PAGE_SIZE_MAX)
    for item in decode_body(replica.stream(format_key(key))):
        if isinstance(item, Trailer):
            yield item
            continue
        left -= len(item)
        if left < 0:
            raise CorruptError("it holds more than the frames that its name says")
