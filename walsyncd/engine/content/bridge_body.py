"""Builds the body of a bridge: one transaction of pages, in a temporary file of the spool.

Until its row is in the journal, a restart of the daemon drops the file and begins again. All methods run in the scan
thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from walsyncd.adapters.journal.journal import Journal, NewObject, ObjectKind
from walsyncd.core.content.page_entry import Entries, PageNumbers, differs, lock_page
from walsyncd.core.content.page_frames import frames_of_pages
from walsyncd.core.content.redo import Redo, apply, combined, nothing_to_redo
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.checksum import Buffer
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, Salts
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.core.stored.epoch import begin_stamp
from walsyncd.core.stored.layout import SegmentKey, format_key
from walsyncd.core.stored.segment import Commit, SegmentWriter, Trailer
from walsyncd.engine.content.page_maps import PageMap
from walsyncd.errors import WalsyncdError

SMALL_BYTES = 1 << 20  # so small a bridge is never worse than a base, which takes two objects and ends the generation


class BridgeImpossibleError(WalsyncdError):
    """A base is needed, because it costs less, the spool has no room for the bridge, or there is no page map."""


class BridgeBody:
    """A bridge from the position of ``page_map``, as the first transaction of ``stream``'s epoch.

    ``pages_bytes_max`` limits the pages, and ``body_bytes_max`` the compressed body.
    """

    def __init__(
        self,
        journal: Journal,
        page_map: PageMap,
        stream: Stream,
        salts: Salts,
        *,
        pages_bytes_max: int,
        body_bytes_max: int,
    ) -> None:
        assert stream.frame == 0, "a bridge is the first transaction of an epoch"
        self._page_map = page_map
        self._stream = stream
        self._pages_bytes_max = max(pages_bytes_max, SMALL_BYTES)
        self._body_bytes_max = body_bytes_max
        self._taken = nothing_to_redo()
        self._parts: list[Redo] = []
        self._writer = SegmentWriter()
        self._size = 0
        self._frames = 0
        header, self._stamp = begin_stamp(page_map.page_size, stream.epoch, salts)
        self._before = self._stamp.chain
        self._file = journal.spool_file_writer()
        self._put(self._writer.feed(header))

    @property
    def page_size(self) -> int:
        """The page size in bytes."""
        return self._page_map.page_size

    @property
    def taken(self) -> PageNumbers:
        """The pages that were taken so far, ascending."""
        return combined([self._taken, *self._parts]).pages

    def map_has_more(self, size: int) -> bool:
        """Whether the map has pages past number ``size``."""
        return self._page_map.has_more(size)

    def begin_pass(self) -> None:
        """From now on, compare the file also with what was taken so far."""
        self._taken = combined([self._taken, *self._parts])
        self._parts.clear()

    def take_differing(self, first: int, block: Buffer, entries: Entries, wanted: PageNumbers | None) -> None:
        """Take the pages of a block of the file that differ from the map and from what was taken before this pass.

        The block begins with page ``first``. Only the pages in ``wanted`` are taken, or any of the block if it is None.
        """
        expected = apply(self._taken, self._page_map.entries(first, len(entries)), first)
        numbers = (np.flatnonzero(differs(expected, entries)) + first).astype(np.uint32)
        numbers = numbers[numbers != lock_page(self.page_size)]
        if wanted is not None:
            numbers = numbers[np.isin(numbers, wanted)]
        view, size = memoryview(block), self.page_size
        pages = [(number, view[(number - first) * size : (number - first + 1) * size]) for number in numbers.tolist()]
        self.take(pages, entries[numbers.astype(np.intp) - first])

    def take(self, pages: Sequence[tuple[int, Buffer]], entries: Entries) -> None:
        """Take these pages. Raises BridgeImpossibleError if there are too many."""
        self._write(pages, 0)
        if pages:
            ascending = np.argsort([number for number, _ in pages], kind="stable")
            numbers = np.array([number for number, _ in pages], np.uint32)[ascending]
            nothing = nothing_to_redo()
            self._parts.append(Redo(numbers, entries[ascending], nothing.size_min, nothing.size))

    def finish(self, page_1: bytes, size: int, span: BridgeSpan, seen_ms: int) -> tuple[NewObject, Stream]:
        """Commit with page 1 of N and a database of ``size`` pages. Returns the object and the stream after it."""
        self._write([(1, page_1)], size)
        stream = self._stream
        trailer = Trailer(
            stream.epoch, 1, self._frames, self._before, self._stamp.chain, (Commit(self._frames, seen_ms),), span
        )
        self._put(self._writer.finish(trailer))
        key = SegmentKey(stream.generation, stream.epoch, 1, self._frames, seen_ms, stream.previous, bridge=True)
        taken = combined([self._taken, *self._parts])
        kept = taken.pages <= size
        new = NewObject(
            kind=ObjectKind.SEGMENT,
            key=format_key(key),
            body=self._file.finish(),
            epoch=stream.epoch,
            first=1,
            last=self._frames,
            time_ms=seen_ms,
            generation=stream.generation,
            commits=1,
            redo=Redo(taken.pages[kept], taken.entries[kept], size, size),
            bridged=span.kind,
        )
        self._page_map.close()
        wal_bytes = WAL_HEADER_SIZE + self._frames * (FRAME_HEADER_SIZE + self.page_size)
        after = replace(
            stream, frame=self._frames, stamp=self._stamp, bytes=wal_bytes, began_ms=seen_ms, time_ms=seen_ms
        )
        return new, after

    def drop(self) -> None:
        """Give the bridge up."""
        self._file.__exit__(None, None, None)
        self._page_map.close()

    def _write(self, pages: Sequence[tuple[int, Buffer]], size: int) -> None:
        self._frames += len(pages)
        if self._frames * self.page_size > self._pages_bytes_max:
            raise BridgeImpossibleError(f"more than {self._pages_bytes_max >> 20} MiB of the database are different")
        content, self._stamp = frames_of_pages(pages, self._stamp, size=size)
        self._put(self._writer.feed(content))

    def _put(self, block: bytes) -> None:
        self._size += len(block)
        if self._size > self._body_bytes_max:
            raise BridgeImpossibleError(f"a bridge takes more than {self._body_bytes_max >> 20} MiB of the spool")
        self._file.write(block)
