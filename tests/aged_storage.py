"""A storage for tests of retention.

It has the objects of a made-up database, each with the age and content that its name says.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Sequence

from tests.fakes import FakeStorage
from tests.lifetimes import CopyContext
from tests.replicas import frames_of
from tests.shipping import NAME
from walsyncd.adapters.storage.interface import ObjectInfo
from walsyncd.core.stored.epoch import begin_stamp, restamp
from walsyncd.core.stored.layout import Key, ManifestKey, SegmentKey, WholeKey, format_key, parse_key
from walsyncd.core.stored.manifest import Manifest, format_manifest
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.segment import Commit, Trailer, encode_segment

PAGE_SIZE = 512


def frames_body(key: SegmentKey | WholeKey, *, commits: bool = True) -> bytes:
    """Return the frames that the name says, of an epoch with one page in each frame.

    Either each of them commits, or none does.
    """
    header, stamp = begin_stamp(PAGE_SIZE, key.epoch, (zlib.crc32(key.generation.encode()), 1))
    content, before = b"", stamp.chain
    for number in range(1, key.last + 1):
        before = stamp.chain if number == key.first else before
        page = bytes([number % 256]) * PAGE_SIZE
        frame, stamp = restamp(frames_of([(1, page)], int(commits or number < key.first)), stamp)
        content += frame if number >= key.first else b""
    told = tuple(Commit(number, key.time_ms) for number in range(key.first, key.last + 1)) if commits else ()
    trailer = Trailer(key.epoch, key.first, key.last, before, stamp.chain, told)
    return encode_segment(header * (key.first == 1) + content, trailer)


def body_of(key: Key, *, commits: bool = True) -> bytes:
    """Return a manifest that fits its name, frames of an epoch that is always the same, and for all else one byte."""
    if isinstance(key, SegmentKey | WholeKey):
        return frames_body(key, commits=commits)
    if not isinstance(key, ManifestKey):
        return b"x"
    start = Position(key.generation, key.base.epoch, key.base.frame)
    return format_manifest(
        Manifest(
            database=NAME,
            generation=key.generation,
            predecessor="",
            predecessor_end="",
            page_size=PAGE_SIZE,
            file_size=0,
            key=format_key(key.base),
            size=1,
            etag="",
            start=start,
            consistent_from=Position(key.generation, key.epoch, key.frame),
            time_ms=key.time_ms,
            ranges=(),
        )
    )


class AgedStorage(FakeStorage):
    """Objects have the ages of a world.

    ``stubborn`` ones are never deleted, and ``unbatched`` ones only if deleted alone.
    """

    def __init__(self, world: CopyContext) -> None:
        super().__init__()
        self.world = world
        self.stubborn: set[str] = set()
        self.unbatched: set[str] = set()
        for key in world.stored:
            self.put(f"{NAME}/{format_key(key)}", body_of(key), metadata={})
        self.calls.clear()

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        for info in super().list(prefix, start_after=start_after):
            key = parse_key(info.key.removeprefix(f"{NAME}/"))
            held = self.world.everything.get(key) if key else None
            modified_ms = held.modified_ms if held else self.world.now_ms
            yield ObjectInfo(info.key, info.size, info.etag, modified_ms, {})

    def delete(self, keys: Sequence[str]) -> None:
        kept = self.stubborn | (self.unbatched if len(keys) > 1 else set())
        super().delete([key for key in keys if key not in kept])
