"""One scrub of a database without a WAL. It compares the file with the page map, which says what the replica holds.

1. All pages are read at the pace of scans, while writers may write. A page that has the map's entry at any time since
   the scrub began equals the replica's page.
2. The other pages are read again at a committed moment whose content is shipped (``shipped_moment``). If a page still
   differs then, it was not a commit that changed it.

The bytes of free leaves are not part of the database. A transaction that was rolled back may leave other bytes there
without any commit, so other bytes in a free leaf do not count as a difference.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

from walsyncd.adapters.files.source import OpenFile
from walsyncd.core.content.bridge_passes import PageList, all_pages, size_without_frames
from walsyncd.core.content.comparison import Cipher
from walsyncd.core.content.page_entry import PageNumbers
from walsyncd.core.content.scrub_pass import ScrubFinding, ScrubPass
from walsyncd.core.sqlite.arrays import np
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.core.sqlite.freelist import free_leaves
from walsyncd.engine.content.map_making import ScanOrigin
from walsyncd.engine.content.page_maps import PageMap, PageMaps
from walsyncd.engine.content.scan_queue import ScanWait
from walsyncd.engine.content.scrub_steps import (
    EVERY_PAGE,
    Scrubbed,
    ScrubSteps,
    file_to_compare,
    map_to_compare,
    take_pages,
)
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.rollback.committed_moment import Hindrance, begin_moment
from walsyncd.engine.rollback.database_looks import DatabaseLooks
from walsyncd.engine.rollback.shipped_moment import ShippedMoments
from walsyncd.errors import TransientError

# With these hindrances the file can't be compared with anything until somebody writes to it.
UNFIT = {
    Hindrance.HOT,
    Hindrance.SUPER_JOURNAL,
    Hindrance.WAL,
    Hindrance.UNREADABLE,
    Hindrance.EMPTY,
    Hindrance.SHORT,
}

# The result is the differing pages and the number of pages that were compared.
_Differing: TypeAlias = "Generator[ScanWait, None, tuple[PageNumbers, int]]"


@dataclass(frozen=True, slots=True, eq=False)
class _FirstReading:
    """The result of the first reading: of ``compared`` pages, ``pages`` contradicted the map when they were read."""

    pages: PageNumbers
    compared: int
    page_size: int
    cipher: Cipher


class FileScrub:
    """Scrubs databases without a WAL. It runs in the scan thread."""

    def __init__(self, environment: Environment, maps: PageMaps, moments: ShippedMoments) -> None:
        self._environment = environment
        self._maps = maps
        self._moments = moments

    def steps(self, tracked: FollowedDatabase) -> ScrubSteps:
        """Compare the database now. Raises TransientError if it can't be compared just now."""
        self._maps.held.add(tracked.row_id)
        try:
            origin = _origin(tracked)
            first = yield from self._read_all(tracked, origin)
            pages = first.pages
            if len(pages):
                pages = yield from self._confirmed(tracked, origin, first)
            if _origin(tracked).unbroken != origin.unbroken:
                raise _broken()
            return Scrubbed(origin, ScrubFinding(pages, first.compared, first.cipher))
        finally:
            self._maps.held.discard(tracked.row_id)

    def _read_all(self, tracked: FollowedDatabase, origin: ScanOrigin) -> Generator[ScanWait, None, _FirstReading]:
        boot_id = self._environment.boot_id
        with (
            map_to_compare(self._maps, tracked, origin) as page_map,
            file_to_compare(tracked, origin, boot_id) as file,
        ):
            start = begin_moment(DatabaseLooks(tracked, self._environment, file, page_map.page_size))
            if isinstance(start, Hindrance) and start in UNFIT:
                raise TransientError(start.value)
            page_1 = file.pread(0, page_map.page_size)
            pages, compared = yield from _differing(file, page_map, all_pages(), page_1, is_paced=True)
            return _FirstReading(pages, compared, page_map.page_size, page_map.row.cipher)

    def _confirmed(
        self, tracked: FollowedDatabase, origin: ScanOrigin, first: _FirstReading
    ) -> Generator[ScanWait, None, PageNumbers]:
        """Return which pages of ``first`` still differ at a moment whose content is shipped."""

        def read(file: OpenFile, page_1: bytes) -> Generator[ScanWait, None, PageNumbers]:
            # This is the map of that moment, because only a later write changes the map.
            with map_to_compare(self._maps, tracked, origin) as page_map:
                again = PageList(first.pages, EVERY_PAGE)
                pages, _ = yield from _differing(file, page_map, again, page_1, is_paced=False)
            unused = _unused(file, first.page_size, page_1) if len(pages) else frozenset[int]()
            used: PageNumbers = pages[~np.isin(pages, list(unused))].astype(np.uint32)
            return used

        found = yield from self._moments.read(tracked, first.page_size, read)
        pages: PageNumbers = found.read
        return pages


def _origin(tracked: FollowedDatabase) -> ScanOrigin:
    state, bridge = tracked.state, tracked.bridge
    if state is None or bridge is not None:
        raise TransientError("the database's history was broken off just now")
    if state.mode == "wal":
        raise TransientError("the database changed to WAL mode")
    return ScanOrigin(state, tracked.unbroken(state.stream.generation))


def _differing(file: OpenFile, page_map: PageMap, pages: PageList, page_1: bytes, *, is_paced: bool) -> _Differing:
    """Read the listed pages of a database whose first page is ``page_1``. Returns those that contradict the map."""
    page_size = page_map.page_size
    scrub, file_bytes = ScrubPass(page_size), file.size()
    count = file_bytes // page_size
    yield from take_pages(file, page_map, pages, count, scrub, is_paced=is_paced)
    size = size_without_frames(page_1, file_bytes, page_size)
    missing = np.arange(count + 1, size + 1, dtype=np.uint32)
    scrub.lacks(missing if pages.is_all else missing[np.isin(missing, pages.numbers)])
    # A cipher's file has the bytes that were shipped, because what was shipped came from the file.
    finding = scrub.end(np.empty(0, np.uint32), size, Cipher.STABLE, page_1)
    return finding.pages, finding.compared


def _unused(file: OpenFile, page_size: int, page_1: bytes) -> frozenset[int]:
    """Return the leaves that are free at this moment, or no leaves if the first page can't be read."""
    header = parse_database_header(page_1)
    if header is None or not header.magic_ok:
        return frozenset()

    def page(number: int) -> bytes:
        return file.pread((number - 1) * page_size, page_size).ljust(page_size, b"\0")

    return free_leaves(page, size_without_frames(page_1, file.size(), page_size))


def _broken() -> TransientError:
    return TransientError("something was missed while the file was read")
