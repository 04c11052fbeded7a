"""Which commits an object holds, and when each was seen, without its frames where that can be had.

A segment ends with its trailer, so its last 64 KiB tell five thousand commits. An object of several parts (a whole, or
segments that were merged while storage was away) has a trailer at the end of each, and nothing says where: it is read.
"""

from __future__ import annotations

from collections.abc import Iterator

from walsyncd.core.restore.coverage import FramesKey
from walsyncd.core.stored.layout import format_key
from walsyncd.core.stored.segment import Commit, Trailer, decode_body, last_trailer
from walsyncd.engine.restore.replica import Replica, naming_object, with_retries

TAIL_BYTES = 64 << 10


def commits_of(replica: Replica, key: FramesKey) -> list[Commit]:
    """All of an object, ascending. CorruptError names it."""
    trailer = _only_trailer(replica, key)
    if trailer is not None:
        return list(trailer.commits)
    with naming_object(key):
        parts = with_retries(lambda: list(trailers(replica, key)))
    return [commit for part in parts for commit in part.commits]


def _only_trailer(replica: Replica, key: FramesKey) -> Trailer | None:
    """That of an object of one part, if the end of it tells; None: it has to be read."""
    size = replica.size_of(key)
    first = max(0, size - TAIL_BYTES)
    with naming_object(key):
        trailer = last_trailer(replica.get(format_key(key), first=first, length=size - first)) if size else None
    whole = key.epoch, key.first, key.last
    return trailer if trailer and (trailer.epoch, trailer.first, trailer.last) == whole else None


def trailers(replica: Replica, key: FramesKey) -> Iterator[Trailer]:
    """The trailers of an object, all of which is read. CorruptError; TransientError if it breaks off."""
    for item in decode_body(replica.stream(format_key(key))):
        if isinstance(item, Trailer):
            yield item
