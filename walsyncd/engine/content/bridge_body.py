"""Builds one transaction of pages: the body of a bridge, or of a segment of a database without a WAL.

A small body is in memory, and a larger one is in a temporary file of the spool. Until the body's row is in the journal,
a restart of the daemon drops the body, and it is built again. All methods run in the scan thread.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from walsyncd.adapters.journal.journal import Journal, NewObject, ObjectKind
from walsyncd.adapters.journal.spool import SpoolWriter
from walsyncd.core.content.page_entry import Entries, PageNumbers, differs, lock_page
from walsyncd.core.content.page_frames import frames_of_pages
from walsyncd.core.content.redo import Redo, apply, combined, nothing_to_redo
from walsyncd.core.follow.follow_state import Stream
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.checksum import Buffer
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, WAL_HEADER_SIZE, Salts
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.core.stored.epoch import begin_stamp
from walsyncd.core.stored.layout import SegmentKey, format_key
from walsyncd.core.stored.segment import Commit, SegmentWriter, Trailer
from walsyncd.errors import TransientError, WalsyncdError


class BridgeImpossibleError(WalsyncdError):
    """A base is needed instead of a bridge.

    The reason is that the base costs less, that the spool has no room for the bridge, or that there is no page map.
    """


class KnownPages(Protocol):
    """The entries with which pages are compared: those of a page map, or those of the pages that a base copied."""

    @property
    def page_size(self) -> int:
        """The page size in bytes."""

    def entries(self, first: int, count: int) -> Entries:
        """Return the entries of ``count`` pages from number ``first`` on."""

    def has_more(self, size: int) -> bool:
        """Whether there are entries of pages past number ``size``."""

    def close(self) -> None:
        """Close the file from which the entries are read."""


class BridgeBody:
    """One transaction of the pages that differ from ``page_map``, or from ``other``, after the end of ``stream``.

    A bridge is the first transaction of its epoch. ``pages_bytes_max`` limits the pages, and ``body_bytes_max`` the
    compressed body.
    """

    def __init__(
        self,
        journal: Journal,
        page_map: KnownPages,
        stream: Stream,
        salts: Salts,
        *,
        other: KnownPages | None = None,
        pages_bytes_max: int = sys.maxsize,
        body_bytes_max: int,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._journal = journal
        self._page_map = page_map
        self._other = other
        self._stream = stream
        self._pages_bytes_max = max(pages_bytes_max, limits.bridge_bytes_min)
        self._body_bytes_max, self._memory_bytes_max = body_bytes_max, limits.memory_bytes_max
        self._taken = nothing_to_redo()
        self._parts: list[Redo] = []
        self._writer = SegmentWriter()
        self._size = 0
        self._frames = 0
        self._memory: list[bytes] = []
        self._file: SpoolWriter | None = None
        header = b""
        if stream.stamp is None:
            header, self._stamp = begin_stamp(page_map.page_size, stream.epoch, salts)
        else:
            self._stamp = stream.stamp
        self._before = self._stamp.chain
        if header:
            self._put(self._writer.feed(header))

    @property
    def page_size(self) -> int:
        """The page size in bytes."""
        return self._page_map.page_size

    @property
    def taken(self) -> PageNumbers:
        """The numbers of the pages that were taken so far, ascending."""
        return combined([self._taken, *self._parts]).pages

    def map_has_more(self, size: int) -> bool:
        """Whether the map has pages past number ``size``."""
        return self._page_map.has_more(size)

    def begin_pass(self) -> None:
        """Begin a pass, which also compares the file with the pages that earlier passes took."""
        self._taken = combined([self._taken, *self._parts])
        self._parts.clear()

    def take_differing(self, first: int, block: Buffer, entries: Entries, wanted: PageNumbers | None) -> None:
        """Take those pages of a block of the file that differ from the map and from the versions of earlier passes.

        The block begins with page ``first``. Only pages in ``wanted`` are taken, or any page if it is None.
        """
        expected = self._page_map.entries(first, len(entries))
        if len(self._taken.pages):
            expected = apply(self._taken, expected, first)
        different = differs(expected, entries)
        if self._other is not None:
            different |= differs(apply(self._taken, self._other.entries(first, len(entries)), first), entries)
        if not different.any():  # nearly all blocks are like this
            return
        numbers = (np.flatnonzero(different) + first).astype(np.uint32)
        numbers = numbers[numbers != lock_page(self.page_size)]
        if wanted is not None:
            numbers = numbers[np.isin(numbers, wanted)]
        view, size = memoryview(block), self.page_size
        pages = [(number, view[(number - first) * size : (number - first + 1) * size]) for number in numbers.tolist()]
        self.take(pages, entries[numbers.astype(np.intp) - first])

    def take(self, pages: Sequence[tuple[int, Buffer]], entries: Entries) -> None:
        """Take these pages. Raises BridgeImpossibleError if there are too many pages."""
        self._write(pages, 0)
        if pages:
            ascending = np.argsort([number for number, _ in pages], kind="stable")
            numbers = np.array([number for number, _ in pages], np.uint32)[ascending]
            nothing = nothing_to_redo()
            self._parts.append(Redo(numbers, entries[ascending], nothing.size_min, nothing.size))

    def is_needed(self, size: int) -> bool:
        """Whether any page was taken, or the map has pages past number ``size``."""
        return bool(self._frames) or self.map_has_more(size)

    def begin_after(self, stream: Stream) -> None:
        """Make ``stream`` the position at which the transaction's epoch begins, because the previous epoch has grown.

        Raises TransientError if ``stream`` is in another epoch than the transaction.
        """
        if (stream.generation, stream.epoch) != (self._stream.generation, self._stream.epoch):
            raise TransientError(f"epoch {self._stream.epoch} began without it")
        assert stream.frame == self._stream.frame == 0, "it is the first transaction of its epoch"
        self._stream = stream

    def finish(
        self, content: bytes, size: int, span: BridgeSpan | None, seen_ms: int, *, number: int = 1
    ) -> tuple[NewObject, Stream]:
        """Commit with a last frame that holds ``content`` as page ``number``, and a database of ``size`` pages.

        Returns the object and the stream after it. ``span`` is the span of the gap that this transaction bridges, or
        None if nothing was missed.
        """
        self._write([(number, content)], size)
        stream = self._stream
        assert span is None or stream.frame == 0, "a bridge is the first transaction of an epoch"
        first, last = stream.frame + 1, stream.frame + self._frames
        commits = (Commit(last, seen_ms),)
        trailer = Trailer(stream.epoch, first, last, self._before, self._stamp.chain, commits, span)
        self._put(self._writer.finish(trailer))
        key = SegmentKey(
            stream.generation,
            stream.epoch,
            first,
            last,
            seen_ms,
            stream.previous if first == 1 else None,
            bridge=span is not None,
        )
        taken = combined([self._taken, *self._parts])
        kept = taken.pages <= size
        new = NewObject(
            kind=ObjectKind.SEGMENT,
            key=format_key(key),
            body=self._file.finish() if self._file is not None else b"".join(self._memory),
            epoch=stream.epoch,
            first=first,
            last=last,
            time_ms=seen_ms,
            generation=stream.generation,
            commits=1,
            redo=Redo(taken.pages[kept], taken.entries[kept], size, size),
            bridged=span.kind if span is not None else "",
        )
        self._page_map.close()
        wal_bytes = (stream.bytes if stream.frame else WAL_HEADER_SIZE) + self._frames * (
            FRAME_HEADER_SIZE + self.page_size
        )
        began_ms = stream.began_ms if stream.frame else seen_ms
        after = replace(stream, frame=last, stamp=self._stamp, bytes=wal_bytes, began_ms=began_ms, time_ms=seen_ms)
        return new, after

    def drop(self) -> None:
        """Give the transaction up."""
        if self._file is not None:
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
            raise BridgeImpossibleError(f"what changed takes more than {self._body_bytes_max >> 20} MiB of the spool")
        self._memory.append(block)
        if self._file is None and self._size <= self._memory_bytes_max:
            return
        if self._file is None:
            self._file = self._journal.spool_file_writer()
        for held in self._memory:
            self._file.write(held)
        self._memory.clear()
