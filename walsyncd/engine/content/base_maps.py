"""Makes a page map from the bytes that a base copies, for a database in WAL mode that has no map.

Let S be the stored position where the base starts, and N the base's ``consistent_from``. Applying the frames from S
through N to the base's object gives the database at N (``engine.base``). If one of these frames holds a page, the
page's entry is in the redo rows after S, which are kept for that purpose. A restore takes every other page from the
object. So the entries of the uploaded bytes, together with the rows after S, are the map at N and at every later
position.

Unlike a scan (``map_making``), this does not read the file a second time. The hashes are those of the uploaded bytes,
even if somebody changes the file meanwhile. Both a base and a scan assume that the file has the last version of each
page whose frames are before S. If somebody else wrote over such pages, a restore may undo that, because it may apply
frames of the base's epoch that are before S.

In each of these cases a scan makes the map instead: a range was read again, an earlier run of the daemon copied a part,
there was a gap or the spool was read again before N was stored, or rows are missing.
"""

from __future__ import annotations

import itertools
import threading

from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.sqlite.checksum import Buffer
from walsyncd.core.stored.position import Position
from walsyncd.engine.content.base_entries import BaseEntries
from walsyncd.engine.content.page_maps import PageMaps
from walsyncd.engine.follow.file_facts import page_size_of
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.errors import StateError, TransientError

BASE_MAPS_MAX = 64  # each map keeps a file open until its base's manifest is stored; scans make the maps of more bases


class BaseMap:
    """The entries of one base. The base's thread writes them until ``copied``. Then they belong to the scan thread.

    ``unbroken`` has the same meaning as ``ScanOrigin.unbroken``, and ``before`` is S. The base's thread may end before
    the follower has found N. So ``copied`` and ``drop`` exclude each other: the first call decides.
    """

    def __init__(
        self, maps: BaseMaps, row_id: int, entries: BaseEntries, before: Position, unbroken: tuple[str, int, int]
    ) -> None:
        self.entries, self.before, self.unbroken = entries, before, unbroken
        self.page_1 = b""
        self.end: Position | None = None
        """The position N, or None as long as N is not known."""
        self._maps, self._row_id = maps, row_id
        self._is_whole = True
        self._is_dropped = False
        self._lock = threading.Lock()

    def took(self, offset: int, content: Buffer) -> None:
        """Take in uploaded bytes. If they do not directly follow the bytes taken in before, the map is given up."""
        if not self._is_whole:
            return
        try:
            self.entries.took(offset, content)
        except (TransientError, StateError):  # a range is read again, or our own disk failed
            self._is_whole = False
            return
        if (missing := self.entries.page_size - len(self.page_1)) > 0:
            self.page_1 += bytes(content[:missing])

    def copied(self, file_bytes: int, end: Position) -> None:
        """Keep the entries for the scan thread if they cover the file. ``end`` is N.

        Only the follower's thread may call this.
        """
        with self._lock:
            is_all = self._is_whole and self.entries.reached == file_bytes
            if self._is_dropped or not is_all:
                return
            self.end = end
        self._maps.keep(self._row_id, self)

    def drop(self) -> None:
        """Remove the map if it was not kept. This may be called twice."""
        with self._lock:
            if self._is_dropped or self.end is not None:
                return
            self._is_dropped = True
        self._maps.dropped(self)


class BaseMaps:
    """The maps that bases are making. Any thread may call the methods."""

    def __init__(self, journal: Journal, maps: PageMaps) -> None:
        self._journal = journal
        self._maps = maps
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._open = 0
        self._kept: dict[int, BaseMap] = {}

    def begin(self, tracked: FollowedDatabase, state: FollowState, unbroken: tuple[str, int, int]) -> BaseMap | None:
        """Return the map for a base that is to be copied from ``state`` on, or None if the base makes no map.

        ``state`` must have been read before the first byte of the file is read.
        """
        self.forget(tracked)
        if state.mode != "wal" or self._journal.page_map(tracked.row_id) is not None:
            return None
        page_size = page_size_of(tracked, state)
        if page_size is None:
            return None
        with self._lock:
            if self._open >= BASE_MAPS_MAX:
                return None
            self._open += 1
        try:
            writer = self._maps.writer(tracked.row_id, page_size, suffix=f".base-{next(self._numbers)}")
        except StateError:
            with self._lock:
                self._open -= 1
            return None
        return BaseMap(self, tracked.row_id, BaseEntries(writer, page_size), state.start, unbroken)

    def keep(self, row_id: int, made: BaseMap) -> None:
        """Keep a map until the scan thread takes it."""
        with self._lock:
            before, self._kept[row_id] = self._kept.get(row_id), made
        if before is not None:
            self.dropped(before)

    def take(self, row_id: int) -> BaseMap | None:
        """Return the map that is kept for a database.

        The caller must call ``dropped`` when it no longer needs the map.
        """
        with self._lock:
            return self._kept.pop(row_id, None)

    def forget(self, tracked: FollowedDatabase) -> None:
        """Drop the map that is kept for a database."""
        kept = self.take(tracked.row_id)
        if kept is not None:
            self.dropped(kept)

    def dropped(self, made: BaseMap) -> None:
        """Close the file of ``made``, and remove the file if it is not a finished map."""
        made.entries.drop()
        with self._lock:
            self._open -= 1
