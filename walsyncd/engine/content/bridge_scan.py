"""The scan thread's part of a bridge: it reads the file in passes, and ends the bridge with the WAL's last versions.

If it is only possible that something was missed, the scan may find that nothing was (``core.content.cleared_doubt``).
``read`` and ``finish`` are generators whose result is their answer, or None if ``is_void`` returned that nobody waits
for the answer any more.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from walsyncd.adapters.files.source import OpenFile, open_file
from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.content.bridge_passes import LastVersions, PassPages, no_pages, size_without_frames
from walsyncd.core.content.cleared_doubt import ScannedFile, clears_doubt
from walsyncd.core.content.comparison import is_plain
from walsyncd.core.content.page_entry import ABSENT, Entries, PageNumbers, differs, entries_of_frames, entries_of_pages
from walsyncd.core.follow.decision import Cursor
from walsyncd.core.follow.follow_state import FollowState, Stream
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.core.sqlite.wal import Frames
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
    """The result of a pass that read up to page ``pages`` of a file of ``file_bytes``.

    ``changed`` says that the file's times or size changed meanwhile. ``copied`` are the pages in frames up to
    ``copied_upto``, which had been copied back before the pass. ``entries`` are the entries of these pages in the file.
    """

    pages: int
    page_1: bytes
    file_bytes: int
    changed: bool
    copied_upto: int
    copied: PageNumbers
    entries: Entries


@dataclass(frozen=True, slots=True)
class Cleared:
    """The result that nothing was missed: the file's ``pages`` pages equal those of the replica."""

    pages: int


@dataclass(frozen=True, slots=True, eq=False)
class BridgeMade:
    """The finished bridge, and the stream after it.

    ``overwritten`` are the pages that were taken from the file because they differ there from the frame that was copied
    back. ``is_longer`` says that the database would have more pages without the WAL (``core.follow.overwritten``).
    """

    new: NewObject
    stream: Stream
    overwritten: PageNumbers
    is_longer: bool


PassSteps: TypeAlias = Generator[ScanWait, None, PassRead | None]
_PageSteps: TypeAlias = "Generator[ScanWait, None, PageNumbers]"
FinishSteps: TypeAlias = Generator[ScanWait, None, BridgeMade | Cleared | None]


class BridgeScan:
    """Reads the file for one bridge from the position ``old``. Only the scan thread may call the methods.

    ``is_stable`` says that a checkpoint is known to copy pages unchanged. If a cipher may encrypt copied pages again, a
    doubt is not cleared but bridged. The reason is that the file may have been restored, and drills must know at which
    position (``live_comparison``).
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

    def read(self, listed: PassPages, state: FollowState, is_void: IsVoid) -> PassSteps:
        """Take the listed pages that differ. ``state`` is the follow state when the pass begins."""
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
            count, copied = before.size // size, np.zeros(len(listed.copied), np.uint64)
            for first, last in runs_of(listed.to_read(), count, max(1, BLOCK_BYTES // size)):
                if is_void():
                    return None
                block = file.pread((first - 1) * size, (last - first + 1) * size)
                block = block[: len(block) // size * size]
                numbers = np.arange(first, first + len(block) // size, dtype=np.uint32)
                entries = entries_of_pages(block, size)
                among = np.isin(numbers, listed.copied)
                copied[np.searchsorted(listed.copied, numbers[among])] = entries[among]
                wanted = numbers[~np.isin(numbers, listed.skipped)]
                self._body.take_differing(first, block, entries, wanted)
                yield ScanWait(len(block))
            if not file.still_named():
                raise TransientError("another file was put in the database's place")
            after = file.identity()
        changed = (before.size, before.mtime_ns, before.ctime_ns) != (after.size, after.mtime_ns, after.ctime_ns)
        return PassRead(count, page_1, before.size, changed, listed.copied_upto, listed.copied, copied)

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
        """Take the last versions from ``wal``, and end the bridge at N, the position of ``state``.

        If ``is_doubt`` and nothing was missed, no bridge is made. The bridge states ``span`` and ``seen_ms``.
        """
        if is_void():
            return None
        body = self._body
        assert body is not None
        is_stable = self._is_stable or is_plain(read.page_1)
        overwritten, cursor = no_pages(), state.cursor
        if is_stable and len(read.copied) and wal is not None and cursor is not None:
            overwritten = yield from self._overwritten(found, cursor, read, wal)
            if is_void():
                return None
        size_alone = size_without_frames(read.page_1, read.file_bytes, self._page_size)
        size = found.size or size_alone
        file = ScannedFile(self._page_size, read.pages, body.taken, size, body.map_has_more(size))
        is_doubt = is_doubt and self._old.overwritten is None and not len(overwritten)
        if is_doubt and is_stable and clears_doubt(self._old.cursor, cursor, found, file):
            return Cleared(read.pages)
        page_1 = read.page_1
        if wal is not None and cursor is not None:
            for frames in frames_upto(wal, cursor):
                if is_void():
                    return None
                rows = _last_versions(found, frames, frames.last)
                rows = rows[~np.isin(frames.page_numbers[rows], overwritten)]
                pages = pages_of(frames, rows, self._page_size)
                body.take(pages, entries_of_frames(frames.data, self._page_size, rows))
                page_1 = next((bytes(content) for number, content in pages if number == 1), page_1)
                yield ScanWait()
        for number, content in self._in_file(overwritten, read) if len(overwritten) else ():
            body.take([(number, content)], entries_of_pages(content, self._page_size))
            page_1 = content if number == 1 else page_1
        new, stream = body.finish(page_1, size, span, seen_ms)
        self._body = None
        return BridgeMade(new, stream, overwritten, is_longer=size_alone > size)

    def _overwritten(self, found: LastVersions, cursor: Cursor, read: PassRead, wal: OpenFile) -> _PageSteps:
        """Return the pages whose content in the file differs from the frames that were copied back."""
        parts = [no_pages()]
        for frames in frames_upto(wal, cursor):
            rows = _last_versions(found, frames, read.copied_upto)
            numbers = frames.page_numbers[rows].astype(np.uint32)
            in_file = read.entries[np.searchsorted(read.copied, numbers)]
            parts.append(numbers[differs(entries_of_frames(frames.data, self._page_size, rows), in_file)])
            yield ScanWait()
        return np.unique(np.concatenate(parts)).astype(np.uint32)

    def _in_file(self, numbers: PageNumbers, read: PassRead) -> Iterator[tuple[int, bytes]]:
        """Read these pages of the file again. Raises TransientError if a page has changed since the pass read it."""
        file, size = open_file(self._path), self._page_size
        if file is None:
            raise TransientError(f"{self._path} does not exist")
        with file:
            for number in numbers.tolist():
                content = file.pread((number - 1) * size, size)
                found = int(entries_of_pages(content, size)[0]) if len(content) == size else ABSENT
                if found != read.entries[np.searchsorted(read.copied, number)]:
                    raise TransientError(f"page {number} was written while a bridge was made")
                yield number, content.ljust(size, b"\0")

    def drop(self) -> None:
        """Remove the part of the bridge that was written."""
        body, self._body = self._body, None
        if body is not None:
            body.drop()


def _last_versions(found: LastVersions, frames: Frames, last: int) -> NDArray[np.intp]:
    """Return the rows of ``frames`` that hold the last version of their page, up to frame ``last``."""
    kept = (found.frames >= frames.first) & (found.frames <= min(last, frames.last))
    rows: NDArray[np.intp] = found.frames[kept] - frames.first
    return rows


def _require_page_size(page_1: bytes, page_size: int) -> None:
    """Raise BridgeImpossibleError if page 1 states another page size. Without a WAL only page 1 shows such a change."""
    header = parse_database_header(page_1)
    if header is not None and header.magic_ok and header.page_size not in {None, page_size}:
        raise BridgeImpossibleError(f"its pages have {header.page_size} bytes now, and had {page_size}")
