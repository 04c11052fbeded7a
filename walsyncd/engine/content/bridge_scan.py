"""The scan thread's part of a bridge: it reads the file in passes, and ends the bridge with the WAL's last versions.

Where something only may have been missed, the end can be that nothing was (``core.content.cleared_doubt``). Each
method is a generator whose result is its answer, or None if ``is_void`` said that nobody waits for it any more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from walsyncd.adapters.files.source import OpenFile, open_file
from walsyncd.adapters.journal.journal import NewObject, SpoolFile
from walsyncd.core.content.bridge_passes import LastVersions, PageList, size_without_frames
from walsyncd.core.content.cleared_doubt import ScannedFile, clears_doubt
from walsyncd.core.content.comparison import is_plain
from walsyncd.core.content.page_entry import PageNumbers, entries_of_frames, entries_of_pages
from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.core.stored.bridge import BridgeSpan
from walsyncd.engine.content.bridge_body import BridgeBody, BridgeImpossibleError
from walsyncd.engine.content.bridge_sources import frames_upto, pages_of, runs_of
from walsyncd.engine.content.scan_queue import BLOCK_BYTES, ScanWait
from walsyncd.engine.follow.file_facts import file_facts
from walsyncd.errors import TransientError

# Opens the body of a bridge, given the stream that it begins and the size of the file in bytes. Raises
# BridgeImpossibleError if the map to compare with is gone.
OpenBody: TypeAlias = Callable[[Stream, int], BridgeBody]
IsVoid: TypeAlias = Callable[[], bool]


@dataclass(frozen=True, slots=True)
class PassRead:
    """What a pass read, up to page ``pages`` of a file of ``file_bytes``.

    ``changed``: the file's times or size changed meanwhile.
    """

    pages: int
    page_1: bytes
    file_bytes: int
    changed: bool


@dataclass(frozen=True, slots=True)
class Cleared:
    """Nothing happened: the file's ``pages`` pages are what the replica says."""

    pages: int


@dataclass(frozen=True, slots=True)
class BridgeMade:
    """The finished bridge, the stream after it, and its size in bytes."""

    new: NewObject
    stream: Stream
    size: int


PassSteps: TypeAlias = Generator[ScanWait, None, PassRead | None]
FinishSteps: TypeAlias = Generator[ScanWait, None, BridgeMade | Cleared | None]


class BridgeScan:
    """Reads for one bridge from the position ``old``. All methods are for the scan thread.

    ``is_stable``: a checkpoint is known to copy pages as they are. Where a cipher may encrypt them again, a doubt is
    not cleared but bridged, because the file may have been restored, and drills must know where (``live_comparison``).
    """

    def __init__(
        self, path: Path, open_body: OpenBody, *, boot_id: str, page_size: int, old: FollowState, is_stable: bool
    ) -> None:
        self._path = path
        self._open_body = open_body
        self._boot_id = boot_id
        self._page_size = page_size
        self._old = old
        self._is_stable = is_stable
        self._body: BridgeBody | None = None

    def read(self, pages: PageList, skipped: PageNumbers, state: FollowState, is_void: IsVoid) -> PassSteps:
        """Take the listed pages that differ, except those in ``skipped``. ``state`` is where the pass begins."""
        file = open_file(self._path)
        if file is None:
            raise TransientError(f"{self._path} does not exist")
        with file:
            before, size = file.identity(), self._page_size
            if not file_facts(before, self._boot_id, None).is_file(state.file):
                raise TransientError("another file was put in the database's place")
            page_1 = file.pread(0, size)
            _require_page_size(page_1, size)
            if self._body is None:
                self._body = self._open_body(state.stream, before.size)
            self._body.begin_pass()
            count = before.size // size
            for first, last in runs_of(pages, count, max(1, BLOCK_BYTES // size)):
                if is_void():
                    return None
                block = file.pread((first - 1) * size, (last - first + 1) * size)
                block = block[: len(block) // size * size]
                numbers = np.arange(first, first + len(block) // size, dtype=np.uint32)
                wanted = numbers[~np.isin(numbers, skipped)]
                self._body.take_differing(first, block, entries_of_pages(block, size), wanted)
                yield ScanWait(len(block))
            if not file.still_named():
                raise TransientError("another file was put in the database's place")
            after = file.identity()
        changed = (before.size, before.mtime_ns, before.ctime_ns) != (after.size, after.mtime_ns, after.ctime_ns)
        return PassRead(count, page_1, before.size, changed)

    def finish(
        self,
        found: LastVersions,
        state: FollowState,
        read: PassRead,
        wal: OpenFile | None,
        *,
        span: BridgeSpan,
        seen_ms: int,
        is_doubt: bool,
        is_void: IsVoid,
    ) -> FinishSteps:
        """Take the last versions from ``wal``, and end the bridge at N, which is ``state``.

        ``is_doubt``: if nothing happened, there is no bridge. ``span`` and ``seen_ms`` are what the bridge says.
        """
        if is_void():
            return None
        body, page_1 = self._body, read.page_1
        assert body is not None
        size = found.size or size_without_frames(read.page_1, read.file_bytes, self._page_size)
        file = ScannedFile(self._page_size, read.pages, body.taken, size, body.map_has_more(size))
        is_stable = self._is_stable or is_plain(read.page_1)
        if is_doubt and is_stable and clears_doubt(self._old.cursor, state.cursor, found, file):
            return Cleared(read.pages)
        if wal is not None and state.cursor is not None:
            for frames in frames_upto(wal, state.cursor):
                if is_void():
                    return None
                rows = found.frames[(found.frames >= frames.first) & (found.frames <= frames.last)] - frames.first
                pages = pages_of(frames, rows, self._page_size)
                body.take(pages, entries_of_frames(frames.data, self._page_size, rows))
                page_1 = next((bytes(content) for number, content in pages if number == 1), page_1)
                yield ScanWait()
        new, stream = body.finish(page_1, size, span, seen_ms)
        self._body = None
        return BridgeMade(new, stream, new.body.size if isinstance(new.body, SpoolFile) else len(new.body))

    def drop(self) -> None:
        """Remove what was written of the bridge."""
        body, self._body = self._body, None
        if body is not None:
            body.drop()


def _require_page_size(page_1: bytes, page_size: int) -> None:
    """Raise BridgeImpossibleError if page 1 says that the pages have another size. Without a WAL nothing else does."""
    header = parse_database_header(page_1)
    if header is not None and header.magic_ok and header.page_size not in {None, page_size}:
        raise BridgeImpossibleError(f"its pages have {header.page_size} bytes now, and had {page_size}")
