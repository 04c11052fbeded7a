"""Makes a second history in an epoch: the same frames with other pages, stored beside the first one's objects."""

from __future__ import annotations

import struct
from collections.abc import Sequence

from tests.replicas import STEP_MS, ReplicaMaker
from walsyncd.core.sqlite.checksum import checksum
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE
from walsyncd.core.stored.layout import SegmentKey, WholeKey
from walsyncd.core.stored.segment import Commit, Trailer, decode_body, encode_segment


class OtherHistory:
    """What another daemon would have stored from the first of ``keys`` on. They are adjoining segments of an epoch."""

    def __init__(self, maker: ReplicaMaker, keys: Sequence[SegmentKey]) -> None:
        self._maker = maker
        self._like = keys[0]
        items = [item for key in keys for item in decode_body([maker.object_path(key).read_bytes()])]
        trailers = [item for item in items if isinstance(item, Trailer)]
        content = b"".join(item for item in items if isinstance(item, bytes))
        self._head = content[:WAL_HEADER_SIZE] if self._like.first == 1 else b""
        self._frames = self._changed(content[len(self._head) :], trailers[0].before)
        self._chains = [trailers[0].before, *(struct.unpack_from(">2I", frame, 16) for frame in self._frames)]
        self.commits = [commit for trailer in trailers for commit in trailer.commits]

    def store(self, *ends: int) -> list[SegmentKey]:
        """Store segments that end with these commits, counted from 1, seen half a second after those of the first
        history.
        """
        keys = []
        start = 0
        for end in ends:
            commits = self.commits[start:end]
            first = self.commits[start - 1].frame + 1 if start else self._like.first
            key = SegmentKey(
                self._like.generation,
                self._like.epoch,
                first,
                commits[-1].frame,
                commits[-1].time_ms + STEP_MS // 2,
                self._like.previous if first == 1 else None,
            )
            self._put(key, self.body(first, commits))
            keys.append(key)
            start = end
        return keys

    def store_whole(self, previous: int = 0) -> WholeKey:
        """Store all of it in one object, if it begins with frame 1."""
        last = self.commits[-1]
        key = WholeKey(self._like.generation, self._like.epoch, last.frame, last.time_ms + STEP_MS // 2, previous)
        self._put(key, self.body(1, self.commits))
        return key

    def body(self, first: int, commits: Sequence[Commit]) -> bytes:
        """Return the frames from ``first`` to the last of these commits."""
        begin, end = first - self._like.first, commits[-1].frame - self._like.first + 1
        content = (self._head if first == 1 else b"") + b"".join(self._frames[begin:end])
        chains = self._chains[begin], self._chains[end]
        return encode_segment(content, Trailer(self._like.epoch, first, commits[-1].frame, *chains, tuple(commits)))

    def _changed(self, content: bytes, chain: tuple[int, int]) -> list[bytes]:
        """Return the frames with one bit of the first page changed, and so with other checksums."""
        size = FRAME_HEADER_SIZE + self._maker.page_size
        frames: list[bytes] = []
        for at in range(0, len(content), size):
            frame = bytearray(content[at : at + size])
            if not frames:
                frame[-1] ^= 1
            chain = checksum(bytes(frame[:8] + frame[FRAME_HEADER_SIZE:]), chain, big_endian=False)
            frame[16:24] = struct.pack(">2I", *chain)
            frames.append(bytes(frame))
        return frames

    def _put(self, key: SegmentKey | WholeKey, body: bytes) -> None:
        path = self._maker.object_path(key)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
