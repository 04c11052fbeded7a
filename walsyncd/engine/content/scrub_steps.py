"""One scrub of one database. It compares the database file with the page map, which says what the replica holds.

Let S be the follower's position when the first byte is read. Let N be the position of a look that begins after the last
byte is read. The follower must have followed from S to N without a gap. Two kinds of frames explain the pages that they
hold (``core.content.scrub_pass``): the frames of the WAL's incarnation at S, which are read from the WAL, and the
frames after S up to N, which are known from the redo rows. A frame that had been copied back before S explains nothing,
because its page is in the file. All other pages must have the map's entry. A page that differs is read a second time,
at a later S and N, before the difference is believed.

A database without a map is not compared. ``engine.rollback.file_scrub`` scrubs a database in rollback mode, which has
no frames.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeAlias

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.content.bridge_passes import PageList, all_pages
from walsyncd.core.content.page_entry import PageNumbers, entries_of_pages
from walsyncd.core.content.scrub_pass import ScrubFinding, ScrubPass, believed_size
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.sqlite.arrays import np
from walsyncd.engine.content.bridge_sources import frames_upto, runs_of
from walsyncd.engine.content.map_making import (
    Request,
    ScanOrigin,
    ScanStart,
    answered,
    close_wal,
    follows,
    origin_of,
    start_of,
)
from walsyncd.engine.content.page_maps import PageMap, PageMaps
from walsyncd.engine.content.scan_queue import BLOCK_BYTES, ScanWait
from walsyncd.engine.follow.file_facts import file_facts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.errors import TransientError, WalsyncdError

EVERY_PAGE = 1 << 32


class NotComparedError(WalsyncdError):
    """There is nothing to compare the file with. The next scrub looks again."""


class NoMomentError(TransientError):
    """A file without a WAL was written all the time. The scrub gives up, because other scrubs are due."""


@dataclass(frozen=True, slots=True, eq=False)
class Scrubbed:
    """The findings of a scrub. ``origin`` is the position of the database when the scrub began."""

    origin: ScanOrigin
    finding: ScrubFinding


ScrubSteps: TypeAlias = Generator[ScanWait, None, Scrubbed]
_Frames: TypeAlias = "tuple[PageNumbers, int | None]"  # the pages in frames, and the size at the last commit


class Scrub:
    """Scrubs databases in WAL mode. It runs in the scan thread. ``request`` reaches the follower."""

    def __init__(self, journal: Journal, maps: PageMaps, request: Request, *, boot_id: str) -> None:
        self._journal = journal
        self._maps = maps
        self._request = request
        self._boot_id = boot_id

    def steps(self, tracked: FollowedDatabase) -> ScrubSteps:
        """Compare the database now. Raises TransientError if it can't be compared just now."""
        self._maps.held.add(tracked.row_id)
        try:
            found = yield from self._compare(tracked, all_pages())
            if len(found.finding.pages):
                again = PageList(found.finding.pages, EVERY_PAGE)
                second = yield from self._compare(tracked, again)
                finding = ScrubFinding(second.finding.pages, found.finding.compared, second.finding.cipher)
                found = Scrubbed(found.origin if not len(finding.pages) else second.origin, finding)
        finally:
            self._maps.held.discard(tracked.row_id)
        return found

    def _compare(self, tracked: FollowedDatabase, pages: PageList) -> ScrubSteps:
        self._check(tracked)
        answer = self._request(tracked, start_of)
        try:
            yield from answered(answer)
            start: ScanStart | None = answer.result()
            if start is None:
                raise _not_now(tracked)
            before, size_before = yield from _frames_before(start)
        finally:
            answer.add_done_callback(close_wal)
        with map_to_compare(self._maps, tracked, start.origin) as page_map:
            scrub = ScrubPass(page_map.page_size)
            with file_to_compare(tracked, start.origin, self._boot_id) as file:
                page_1, count = file.pread(0, page_map.page_size), file.size() // page_map.page_size
                yield from take_pages(file, page_map, pages, count, scrub)
            after, size_after = yield from self._frames_after(tracked, start.origin)
            explained = np.union1d(before, after).astype(np.uint32)
            known = size_after if size_after is not None else size_before
            size = known if known is not None else believed_size(page_1)
            if size is not None and size > count:
                beyond = np.arange(count + 1, size + 1, dtype=np.uint32)
                scrub.lacks(beyond if pages.beyond == 0 else beyond[np.isin(beyond, pages.numbers)])
            return Scrubbed(start.origin, scrub.end(explained, size, page_map.row.cipher, page_1))

    def _check(self, tracked: FollowedDatabase) -> None:
        if self._journal.page_map(tracked.row_id) is not None:
            return
        raise NotComparedError("there is no page map yet")

    def _frames_after(self, tracked: FollowedDatabase, origin: ScanOrigin) -> Generator[ScanWait, None, _Frames]:
        """Return the pages in frames after S up to N, where N is the position of a look that begins now."""
        answer = self._request(tracked, origin_of)
        yield from answered(answer)
        end: ScanOrigin | None = answer.result()
        if end is None or end.unbroken != origin.unbroken:
            raise TransientError("something was missed while the file was read")
        start, position = origin.state.stream.position, end.state.stream.position
        rows = [
            row
            for row in self._journal.redo_rows(tracked.row_id)
            if (start.epoch, start.frame) < (row.epoch, row.last) <= (position.epoch, position.frame)
        ]
        if not follows(rows, start, position):
            raise TransientError("what the last frames changed is not known")
        numbers = np.concatenate([np.empty(0, np.uint32), *(row.redo.pages for row in rows)])
        return np.unique(numbers).astype(np.uint32), rows[-1].redo.size if rows else None


def _not_now(tracked: FollowedDatabase) -> WalsyncdError:
    state = tracked.state
    if tracked.bridge is None and state is not None and state.mode != "wal":
        return TransientError("the database left WAL mode just now")
    return TransientError("the database's history was broken off just now")


def _frames_before(start: ScanStart) -> Generator[ScanWait, None, _Frames]:
    """Return the pages in the frames of the WAL's incarnation at S, and the database's size at their last commit.

    Frames that had been copied back before S add no page.
    """
    state: FollowState = start.origin.state
    if start.wal is None or state.cursor is None:
        return np.empty(0, np.uint32), None
    runs: list[PageNumbers] = []
    size, copied_upto = 0, start.copied_upto
    for frames in frames_upto(start.wal, state.cursor):
        rest = max(0, copied_upto + 1 - frames.first)
        runs.append(np.unique(frames.page_numbers[rest:]).astype(np.uint32))
        commits = frames.sizes[frames.sizes != 0]
        size = int(commits[-1]) if len(commits) else size
        yield ScanWait(len(frames.data))
    if state.overwritten is not None:
        size = 0  # the new file in its place may have any size
    return np.unique(np.concatenate(runs)).astype(np.uint32), size or None


@contextmanager
def map_to_compare(maps: PageMaps, tracked: FollowedDatabase, origin: ScanOrigin) -> Iterator[PageMap]:
    """Open the page map of the generation at ``origin``. Raises NotComparedError if there is none."""
    page_map = maps.open(tracked.row_id)
    if page_map is None:
        raise NotComparedError("there is no page map yet")
    with page_map:
        if page_map.row.generation != origin.state.stream.generation:
            raise NotComparedError("there is no page map of its history yet")
        yield page_map


@contextmanager
def file_to_compare(tracked: FollowedDatabase, origin: ScanOrigin, boot_id: str) -> Iterator[OpenFile]:
    """Open the database file. Raises TransientError if it is not the file at ``origin``, or is replaced meanwhile."""
    file = tracked.open()
    if file is None:
        raise TransientError(f"{tracked.path} does not exist")
    with file:
        if not origin.state.file.is_file(file_facts(file.identity(), boot_id, None)):
            raise TransientError("another file was put in the database's place")
        yield file
        if not file.still_named():
            raise TransientError("another file was put in the database's place")


def take_pages(
    file: OpenFile, page_map: PageMap, pages: PageList, count: int, scrub: ScrubPass, *, is_paced: bool = True
) -> Generator[ScanWait, None, None]:
    """Read the listed pages of a file of ``count`` pages, and pass them to ``scrub``, which compares them."""
    size = page_map.page_size
    for first, last in runs_of(pages, count, max(1, BLOCK_BYTES // size)):
        block = file.pread((first - 1) * size, (last - first + 1) * size)
        block = block[: len(block) // size * size]
        if block:
            found = entries_of_pages(block, size)
            numbers = np.arange(first, first + len(found), dtype=np.uint32)
            scrub.take(numbers, page_map.entries(first, len(found)), found)
        yield ScanWait(len(block) if is_paced else 0)
