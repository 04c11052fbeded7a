"""Fetches the ranges of a base in parallel, verifies each range, and writes it where it belongs.

A range is a zstd frame of its own. The manifest says where the range lies in the object, and has the checksum of its
raw bytes. Neighbouring ranges are fetched by one request, since a request costs as much as a megabyte. A range that is
larger than a block is unpacked while it arrives. So the number of threads, the size of a block and zstd's window limit
the memory, whatever the size of the database.

Ranges that are in the file already are not fetched again. Their checksum proves what they hold, whoever wrote them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from walsyncd.core.stored.layout import ManifestKey
from walsyncd.core.stored.manifest import Manifest, Range, RangeDigest
from walsyncd.core.stored.zstd import zstd
from walsyncd.engine.restore.replica import Replica, naming_object
from walsyncd.errors import CorruptError

THREADS = 4
BLOCK_BYTES = 4 << 20  # packed bytes of one request; a thread holds one block, or two copies while receiving it
PIECE_BYTES = 1 << 20  # unpacked bytes written at once
# Bases are written with this window of 8 MiB.
_DECOMPRESSION: dict[int, int] = {zstd.DecompressionParameter.window_log_max: 23}
Write = Callable[[bytes | memoryview, int], object]
Advance = Callable[[int], object]


def fetch_base(
    replica: Replica,
    key: ManifestKey,
    manifest: Manifest,
    write: Write,
    *,
    ranges: Sequence[Range] | None = None,
    advance: Advance = lambda _raw_bytes: None,
    block_bytes: int = BLOCK_BYTES,
    piece_bytes: int = PIECE_BYTES,
) -> None:
    """Call ``write(raw, offset)`` for the whole file, or for ``ranges``, in any order and from several threads.

    The written bytes are verified only when this returns. Raises CorruptError, which names the base's object and range.
    """
    wanted = manifest.ranges if ranges is None else ranges
    requests = _Requests(replica, manifest.key, write, advance, block_bytes, piece_bytes)
    with naming_object(key.base), ThreadPoolExecutor(THREADS, thread_name_prefix="fetch") as pool:
        running: set[Future[None]] = set()
        try:
            for group in _groups(wanted, block_bytes):
                if len(running) >= 2 * THREADS:  # few groups wait, so that an error ends the fetch soon
                    done, running = wait(running, return_when=FIRST_COMPLETED)
                    _raise_first(done)
                running.add(pool.submit(requests.fetch, group))
            _raise_first(wait(running).done)
        finally:
            for future in running:
                future.cancel()


def _raise_first(done: set[Future[None]]) -> None:
    for future in done:
        future.result()


def _groups(ranges: Sequence[Range], block_bytes: int) -> Iterator[list[Range]]:
    """Yield the ranges that one request fetches. They follow one another in the object."""
    group: list[Range] = []
    for part in ranges:
        if group and part.object_offset + part.object_length - group[0].object_offset > block_bytes:
            yield group
            group = []
        group.append(part)
    if group:
        yield group


@dataclass(frozen=True, slots=True)
class _Requests:
    """What all requests for the object ``name`` share. ``block_bytes`` are packed bytes, ``piece_bytes`` unpacked."""

    replica: Replica
    name: str
    write: Write
    advance: Advance
    block_bytes: int
    piece_bytes: int

    def fetch(self, group: Sequence[Range]) -> None:
        """Fetch neighbouring ranges, and write them. A range that is larger than a block is alone in its group."""
        first = group[0].object_offset
        end = group[-1].object_offset + group[-1].object_length
        if end - first <= self.block_bytes:
            block = memoryview(self.replica.get(self.name, first=first, length=end - first))
            for part in group:
                start = part.object_offset - first
                packed = bytes(block[start : start + part.object_length])
                _unpack(iter([packed]), part, self.write, self.piece_bytes)
                self.advance(part.length)
            return
        (part,) = group
        _unpack(self._blocks(first, end), part, self.write, self.piece_bytes)
        self.advance(part.length)

    def _blocks(self, first: int, end: int) -> Iterator[bytes]:
        while first < end:
            block = self.replica.get(self.name, first=first, length=min(self.block_bytes, end - first))
            if not block:
                return
            yield block
            first += len(block)


def _unpack(blocks: Iterator[bytes], part: Range, write: Write, piece_bytes: int) -> None:
    """Write a range while it is unpacked. Raises CorruptError if it is not what the manifest says."""
    # The output is limited, since a few bytes can claim gigabytes. The limit is one byte more than the range has, so
    # that the decompressor gets to the end of the frame and checks zstd's own checksum.
    decompressor = zstd.ZstdDecompressor(options=_DECOMPRESSION)
    digest = RangeDigest(part.checksum)
    size = 0
    while not decompressor.eof and size <= part.length:
        data = next(blocks, b"") if decompressor.needs_input else b""
        if decompressor.needs_input and not data:
            break
        try:
            raw = decompressor.decompress(data, min(piece_bytes, part.length + 1 - size))
        except zstd.ZstdError as error:
            raise CorruptError(f"the range of {part.length} bytes at {part.offset}: {error}") from error
        if size + len(raw) <= part.length:
            digest.update(raw)
            write(raw, part.offset + size)
        size += len(raw)
    if not decompressor.eof or size != part.length or not digest.fits():
        raise CorruptError(f"the range of {part.length} bytes at {part.offset} is not what the manifest says")


def missing_ranges(manifest: Manifest, descriptor: int) -> list[Range]:
    """Return the ranges whose bytes in the file are not those that the manifest describes."""
    size = os.fstat(descriptor).st_size
    return [part for part in manifest.ranges if part.offset + part.length > size or not _is_there(part, descriptor)]


def _is_there(part: Range, descriptor: int) -> bool:
    digest = RangeDigest(part.checksum)
    for offset in range(part.offset, part.offset + part.length, PIECE_BYTES):
        digest.update(os.pread(descriptor, min(PIECE_BYTES, part.offset + part.length - offset), offset))
    return digest.fits()


def write_at(descriptor: int) -> Write:
    """Return a ``write`` for an open file. It makes one call at a time: parallel calls would spin in the kernel."""
    drain = threading.Lock()

    def write(raw: bytes | memoryview, offset: int) -> None:
        view = memoryview(raw)
        with drain:
            while view:
                written = os.pwrite(descriptor, view, offset)
                view, offset = view[written:], offset + written

    return write
