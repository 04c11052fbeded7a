"""The body of a segment object: whole transactions of one epoch, compressed, with facts that a WAL has no place for.

A body consists of one or more parts, each of them

    zstd frame       level 1, with content checksum: the WAL header (32 bytes) if ``first`` is 1, the frames
    skippable frame  u32 0x184D2A5E, u32 length, then the trailer; every zstd tool skips it

The trailer is little-endian:

    offset  size
       0     4   b"WSG1"
       4     4   epoch
       8     4   first frame
      12     4   last frame
      16     8   chain before the first frame: two u32 (for frame 1 the checksum of the WAL header)
      24     8   chain after the last frame
      32     4   number of commits
      36    12   for each commit: u32 frame, u64 milliseconds since 1970 when it was seen
       …     4   CRC-32 of the trailer up to here

The trailer of a bridge has b"WSG2" instead, and the fields of `walsyncd.core.stored.bridge` between its one commit and
the CRC. A bridge is one transaction from frame 1 on.

The CRC is needed because `--at` relies on the times, which no other checksum covers. Each part begins where the part
before it ended. So the concatenated bodies of adjoining segments are a body again, and `zstd -dc` of all bodies of an
epoch gives the epoch's WAL. Source: RFC 8878, sections 3.1.1 (zstd frames) and 3.1.2 (skippable).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from walsyncd.core.sqlite.checksum import Buffer, Chain
from walsyncd.core.stored.bridge import BridgeSpan, format_bridge, parse_bridge
from walsyncd.core.stored.layout import TIME_MS_MAX
from walsyncd.core.stored.zstd import zstd
from walsyncd.errors import CorruptError

CONTENT_BLOCK_SIZE = 1024 * 1024

_ZSTD_MAGIC = 0xFD2FB528
_TRAILER_MAGIC = 0x184D2A5E
_TRAILER_SIGNATURE = b"WSG1"
_BRIDGE_SIGNATURE = b"WSG2"
_TRAILER_HEAD = struct.Struct("<4s8I")
_COMMIT = struct.Struct("<IQ")
_TRAILER_SIZE_MAX = 8 * 1024 * 1024  # 700,000 commits; the 256 MiB that are read at once hold 500,000 frames at most
# After a frame, zstd copies the rest of the piece, once per part. So the first pieces of a part are small.
_FEED_SIZE, _FEED_SIZE_MAX = 16 * 1024, 512 * 1024
_COMPRESSION: dict[int, int] = {
    zstd.CompressionParameter.compression_level: 1,
    zstd.CompressionParameter.checksum_flag: 1,
}
# This is a window of 8 MiB, which RFC 8878 recommends every decoder to support. Level 1 writes windows of 512 KiB.
_DECOMPRESSION: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}


class Commit(NamedTuple):
    """A frame that commits, and when it was seen (milliseconds since 1970).

    This is a tuple, since a restore creates one Commit per transaction.
    """

    frame: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class Trailer:
    """What a part holds: frames ``first`` to ``last``, the chains at both ends, and the part's commits in order.

    ``bridge`` is set if the part is a bridge.
    """

    epoch: int
    first: int
    last: int
    before: Chain
    after: Chain
    commits: tuple[Commit, ...]
    bridge: BridgeSpan | None = None


def format_trailer(trailer: Trailer) -> bytes:
    """Return the skippable frame that `parse_trailer` reads back."""
    fault = _fault_of(trailer)
    assert not fault, fault
    head = (trailer.epoch, trailer.first, trailer.last, *trailer.before, *trailer.after, len(trailer.commits))
    signature = _TRAILER_SIGNATURE if trailer.bridge is None else _BRIDGE_SIGNATURE
    data = _TRAILER_HEAD.pack(signature, *head) + b"".join(
        _COMMIT.pack(commit.frame, commit.time_ms) for commit in trailer.commits
    )
    if trailer.bridge is not None:
        data += format_bridge(trailer.bridge)
    data += struct.pack("<I", zlib.crc32(data))
    assert len(data) <= _TRAILER_SIZE_MAX, f"trailer of {len(data)} bytes"
    return struct.pack("<2I", _TRAILER_MAGIC, len(data)) + data


def parse_trailer(data: bytes) -> Trailer:
    """Return the trailer of a whole skippable frame. Raises CorruptError if the bytes are not exactly one."""
    if len(data) < 8 + _TRAILER_HEAD.size + 4 or data[:4] != struct.pack("<I", _TRAILER_MAGIC):
        raise CorruptError(f"parse segment trailer: {len(data)} bytes that begin with {data[:4].hex()}")
    (length,) = struct.unpack_from("<I", data, 4)
    signature, epoch, first, last, *chains, count = _TRAILER_HEAD.unpack_from(data, 8)
    if signature not in (_TRAILER_SIGNATURE, _BRIDGE_SIGNATURE):
        raise CorruptError(f"parse segment trailer: unknown form {signature!r}", hint="written by a newer walsyncd?")
    commits_end = 8 + _TRAILER_HEAD.size + count * _COMMIT.size
    rest = len(data) - 4 - commits_end
    if length != len(data) - 8 or rest < 0 or (rest > 0) != (signature == _BRIDGE_SIGNATURE):
        raise CorruptError(f"parse segment trailer: {length} bytes do not hold {count} commits")
    if zlib.crc32(data[8:-4]) != int.from_bytes(data[-4:], "little"):
        raise CorruptError("parse segment trailer: its CRC-32 does not fit")
    commits = tuple(map(Commit._make, _COMMIT.iter_unpack(data[8 + _TRAILER_HEAD.size : commits_end])))
    bridge = parse_bridge(data[commits_end:-4]) if rest else None
    trailer = Trailer(epoch, first, last, (chains[0], chains[1]), (chains[2], chains[3]), commits, bridge)
    if fault := _fault_of(trailer):
        raise CorruptError(f"parse segment trailer: {fault}")
    return trailer


def last_trailer(tail: bytes) -> Trailer | None:
    """Return the last trailer of the body that ends with ``tail``.

    Returns None if the trailer is longer than ``tail``, or damaged.
    """
    magic = struct.pack("<I", _TRAILER_MAGIC)
    at = len(tail)
    while (at := tail.rfind(magic, 0, at)) >= 0:
        try:
            return parse_trailer(tail[at:])
        except CorruptError:  # the magic's bytes also occur within the trailer, or within the frames before it
            continue
    return None


def _fault_of(trailer: Trailer) -> str:
    """Return what is contradictory in a trailer, or an empty text if nothing is."""
    if not 1 <= trailer.first <= trailer.last:
        return f"frames {trailer.first} to {trailer.last}"
    before = Commit(trailer.first - 1, 0)
    for commit in trailer.commits:
        if not before.frame < commit.frame <= trailer.last or commit.time_ms < before.time_ms:
            return f"{commit} follows {before} in frames up to {trailer.last}"
        before = commit
    if before.time_ms > TIME_MS_MAX:
        return f"{before.time_ms} ms is no time"
    return _fault_of_bridge(trailer, trailer.bridge) if trailer.bridge else ""


def _fault_of_bridge(trailer: Trailer, bridge: BridgeSpan) -> str:
    """Return what is contradictory in the trailer of a bridge, or an empty text."""
    if trailer.first != 1 or [commit.frame for commit in trailer.commits] != [trailer.last]:
        return f"a bridge of {len(trailer.commits)} transactions in frames {trailer.first} to {trailer.last}"
    if (bridge.epoch, bridge.frame) > (trailer.epoch, 0):
        return f"a bridge from epoch {bridge.epoch} frame {bridge.frame} to epoch {trailer.epoch}"
    (commit,) = trailer.commits
    if bridge.proven_ms > commit.time_ms:
        return f"what was before the bridge was proven until {bridge.proven_ms} ms, and it ends at {commit.time_ms} ms"
    return ""


def encode_segment(content: Buffer, trailer: Trailer) -> bytes:
    """Return the body of one segment. ``content`` is its frames, after the WAL header if the first is frame 1."""
    return zstd.compress(content, options=_COMPRESSION) + format_trailer(trailer)


class SegmentWriter:
    """Writes a body piece by piece, since a transaction may be too large to be held in memory."""

    def __init__(self) -> None:
        self._compressor = zstd.ZstdCompressor(options=_COMPRESSION)

    def feed(self, content: Buffer) -> bytes:
        """Take the next piece of content. Returns the bytes of the body that are ready. Often there are none."""
        return self._compressor.compress(content)

    def finish(self, trailer: Trailer) -> bytes:
        """Return the rest of the body."""
        return self._compressor.flush(zstd.ZstdCompressor.FLUSH_FRAME) + format_trailer(trailer)


def decode_body(blocks: Iterable[bytes]) -> Iterator[bytes | Trailer]:
    """Yield content and trailers of a body, in the order of the body.

    ``blocks`` are the body in pieces of any size. Content is yielded in pieces of at most `CONTENT_BLOCK_SIZE`, and is
    complete only when its trailer has been yielded. Raises CorruptError, which names the offset in the body.
    """
    source = _Source(blocks)
    before: Trailer | None = None
    while before is None or not source.at_end():
        yield from _decode_content(source)
        trailer = _decode_trailer(source, before)
        yield trailer
        before = trailer


def _decode_content(source: _Source) -> Iterator[bytes]:
    """Yield the content of the zstd frame that begins here."""
    start = source.offset
    magic = source.exactly(4)
    if magic != struct.pack("<I", _ZSTD_MAGIC):
        raise CorruptError(f"decode segment: no zstd frame at byte {start}: found {magic.hex()}")
    frame = zstd.ZstdDecompressor(options=_DECOMPRESSION)
    data, feed = magic, _FEED_SIZE
    while True:
        try:
            content = frame.decompress(data, CONTENT_BLOCK_SIZE)
        except zstd.ZstdError as error:
            raise CorruptError(f"decode segment: zstd frame at byte {start}: {error}") from error
        if content:
            yield content
        if frame.eof:
            break
        data = b""
        if frame.needs_input:
            data, feed = source.some(feed), min(2 * feed, _FEED_SIZE_MAX)
    source.give_back(len(frame.unused_data))


def _decode_trailer(source: _Source, before: Trailer | None) -> Trailer:
    """Return the trailer that begins here and continues ``before``."""
    start = source.offset
    head = source.exactly(8)
    magic, length = struct.unpack("<2I", head)
    if magic != _TRAILER_MAGIC or length > _TRAILER_SIZE_MAX:
        raise CorruptError(f"decode segment: no trailer at byte {start}: found {head.hex()}")
    data = head + source.exactly(length)
    try:
        trailer = parse_trailer(data)
    except CorruptError as error:
        message = f"decode segment: trailer at byte {start}: {error.message}"
        raise CorruptError(message, hint=error.hint) from error
    if before and not _adjoins(before, trailer):
        raise CorruptError(
            f"decode segment: trailer at byte {start}: epoch {trailer.epoch} frame {trailer.first} does not "
            f"continue epoch {before.epoch} frame {before.last}"
        )
    return trailer


def _adjoins(before: Trailer, after: Trailer) -> bool:
    """Whether one part begins where the other ended."""
    ended = (before.epoch, before.last + 1, before.after)
    return (after.epoch, after.first, after.before) == ended


class _Source:
    """The bytes of a body, read in small pieces. ``offset`` is the offset of the next byte."""

    def __init__(self, blocks: Iterable[bytes]) -> None:
        self._blocks = iter(blocks)
        self._block = memoryview(b"")
        self._taken = 0  # the end of the block
        self.offset = 0

    def at_end(self) -> bool:
        while self._taken == len(self._block):
            block = next(self._blocks, None)
            if block is None:
                return True
            self._block, self._taken = memoryview(block), 0
        return False

    def some(self, size_max: int) -> bytes:
        """Read at least one byte and at most ``size_max`` bytes from one block."""
        if self.at_end():
            raise CorruptError(f"decode segment: the body ends at byte {self.offset}, inside a part")
        piece = bytes(self._block[self._taken : self._taken + size_max])
        self._move(len(piece))
        return piece

    def exactly(self, size: int) -> bytes:
        pieces = bytearray()
        while len(pieces) < size:
            pieces += self.some(size - len(pieces))
        return bytes(pieces)

    def give_back(self, size: int) -> None:
        """Put back the last ``size`` bytes of those that `some` returned last."""
        assert size <= self._taken, f"give back {size} bytes of {self._taken}"
        self._move(-size)

    def _move(self, size: int) -> None:
        self._taken += size
        self.offset += size
