"""Makes the page map of a replica's head from the replica itself, for a daemon that did not write the replica.

The base's ranges come first, then the frames after the base. A range is read from the database file if its bytes there
are those that the manifest describes, and fetched otherwise: most of a file that was just restored need not be fetched
again. So the map describes the replica, whatever the file holds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.page_map_file import PageMapWriter
from walsyncd.core.content.bridge_passes import size_without_frames
from walsyncd.core.content.page_entry import ABSENT, Entries, entries_of_pages, lock_page
from walsyncd.core.content.redo import SIZE_MAX, Redo, RedoBuilder, apply, combined, nothing_to_redo
from walsyncd.core.restore.plan import Plan
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.stored.manifest import Manifest, Range, RangeDigest
from walsyncd.engine.restore.base_fetch import fetch_base
from walsyncd.engine.restore.fork_check import left_out
from walsyncd.engine.restore.replay import ObjectSlice, pieces_of, read_pieces
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import RefusedError

WINDOW_BYTES = 32 << 20  # at most this much of the base is in memory at a time, unless a range is larger
READ_BYTES = 1 << 20
FRAMES_MAX = 1 << 20  # after this many frames, only the last version of each page is kept


@dataclass(frozen=True, slots=True)
class MapMade:
    """The number of pages of the database, and the bytes of its base that had to be fetched."""

    pages: int
    fetched_bytes: int


def make_replica_map(
    replica: Replica,
    plan: Plan,
    manifest: Manifest,
    file: OpenFile,
    writer: PageMapWriter,
    *,
    pages_max: int,
    read: Callable[[int], object] = lambda _size: None,
    window_bytes: int = WINDOW_BYTES,
    frames_max: int = FRAMES_MAX,
) -> MapMade:
    """Write all entries of the head that ``plan`` reaches with ``writer``, and finish the map.

    ``read`` is called with the size of each block read from the ``file``, and may wait or raise. Raises CorruptError
    if the replica can't be restored, and VanishedError if an object is gone meanwhile. Raises RefusedError if a page
    has a number above ``pages_max``: a terabyte of zeros is small in a bucket, but its map is large.
    """
    page_size, count = manifest.page_size, manifest.file_size // manifest.page_size
    _check(count, pages_max)
    redo = _frames_of(replica, plan, page_size, frames_max)
    _check(int(redo.pages[-1]) if len(redo.pages) else 0, pages_max)
    fetched, page_1 = 0, b""
    for ranges in _windows(manifest, window_bytes):
        window = _Window(ranges)
        missing = [each for each in ranges if not window.take_from(file, each, read)]
        if missing:
            fetch_base(replica, plan.base, manifest, window.write, ranges=missing)
            fetched += sum(each.length for each in missing)
        page_1 = page_1 or bytes(window.raw[:page_size])
        whole = len(window.raw) // page_size * page_size
        entries = entries_of_pages(memoryview(window.raw)[:whole], page_size)
        _add(writer, redo, entries, window.first // page_size + 1, page_size)
    end, step = int(redo.pages[-1]) if len(redo.pages) else 0, window_bytes // page_size
    for at in range(count + 1, end + 1, step):
        entries = np.full(min(step, end + 1 - at), ABSENT, np.uint64)
        _add(writer, redo, entries, at, page_size)
    pages = redo.size if redo.size != SIZE_MAX else size_without_frames(page_1, manifest.file_size, page_size)
    writer.finish(pages)
    return MapMade(pages, fetched)


def _check(last: int, pages_max: int) -> None:
    if last > pages_max:
        raise RefusedError(f"the replica has a page {last}, and the database file is far too small for that")


def _frames_of(replica: Replica, plan: Plan, page_size: int, frames_max: int) -> Redo:
    """Return the last version of each page that the frames after the base hold."""
    done, builder, count = nothing_to_redo(), RedoBuilder(page_size), 0
    piece_before: ObjectSlice | None = None
    for piece, frames in read_pieces(replica, pieces_of(plan), page_size, left_out(plan)):
        if piece is not piece_before and count > frames_max:
            done, builder, count = combined([done, builder.finish()]), RedoBuilder(page_size), 0
        builder.add(frames)  # where objects overlap, frames come twice, which changes nothing
        piece_before, count = piece, count + frames.count
    return combined([done, builder.finish()])


class _Window:
    """The unpacked bytes of some ranges of a base that follow one another."""

    def __init__(self, ranges: Sequence[Range]) -> None:
        self.first = ranges[0].offset
        self.raw = bytearray(ranges[-1].offset + ranges[-1].length - self.first)

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Take bytes of the base. Several threads call this, each for other bytes."""
        at = offset - self.first
        self.raw[at : at + len(data)] = data

    def take_from(self, file: OpenFile, part: Range, read: Callable[[int], object]) -> bool:
        """Take a range from the database file. Returns False if its bytes are not those that the manifest describes."""
        digest = RangeDigest(part.checksum)
        for offset in range(part.offset, part.offset + part.length, READ_BYTES):
            wanted = min(READ_BYTES, part.offset + part.length - offset)
            data = file.pread(offset, wanted)
            read(len(data))
            if len(data) < wanted:
                return False
            digest.update(data)
            self.write(data, offset)
        return digest.fits()


def _windows(manifest: Manifest, window_bytes: int) -> Iterator[list[Range]]:
    """Yield the base's ranges in order, in groups that are unpacked together."""
    window: list[Range] = []
    for part in sorted(manifest.ranges, key=lambda part: part.offset):
        if window and part.offset + part.length - window[0].offset > window_bytes:
            yield window
            window = []
        window.append(part)
    if window:
        yield window


def _add(writer: PageMapWriter, redo: Redo, entries: Entries, first: int, page_size: int) -> None:
    changed = apply(redo, entries, first)
    if first <= lock_page(page_size) < first + len(changed):
        changed[lock_page(page_size) - first] = ABSENT
    writer.add(changed)
