"""Makes several page maps durable together: their files, then their names, then one transaction of the journal.

At a first start each of many databases gets a base, and each base makes a map. A single map is made durable at once. A
map that comes soon after another map waits for a moment, so that the maps after it are made durable with it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from dataclasses import dataclass

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.journal.page_map_file import PageMapWriter, make_names_durable
from walsyncd.adapters.journal.page_map_table import NewPageMap
from walsyncd.engine.content.scan_queue import ScanSteps, ScanWait
from walsyncd.errors import TransientError

SEAL_S = 0.1  # about thirty first bases end in this time, and nothing waits for a map


@dataclass(slots=True, eq=False)
class UnsealedMap:
    """A map whose file has all entries. ``size`` is its number of pages.

    ``is_map`` says that the journal names the file as the database's map.
    """

    new: NewPageMap
    writer: PageMapWriter
    size: int
    is_over: bool = False
    is_map: bool = False


class MapSealing:
    """The maps that wait to be made durable. Only the scan thread may use this."""

    def __init__(self, journal: Journal, monotonic_s: Callable[[], float] = time.monotonic) -> None:
        self._journal = journal
        self._monotonic_s = monotonic_s
        self._waiting: list[UnsealedMap] = []
        self._last_s = -SEAL_S

    def seal(self, made: UnsealedMap) -> ScanSteps:
        """Make the file the map of its database, alone or with others. Raises TransientError if the generation ended.

        The position of the map must be stored, and the map's redo rows must be complete. Both stay true while it waits.
        """
        now_s = self._monotonic_s()
        is_alone, self._last_s = now_s - self._last_s >= SEAL_S, now_s
        self._waiting.append(made)
        try:
            if not is_alone:
                yield ScanWait(until_s=now_s + SEAL_S)
            if not made.is_over:
                self._seal(self._waiting.copy())
        finally:
            self._waiting = [each for each in self._waiting if each is not made and not each.is_over]
        if not made.is_map:
            raise TransientError("the generation ended")

    def _seal(self, maps: Collection[UnsealedMap]) -> None:
        """Make all of these maps durable, or none of them. After an error each other map tries again by itself."""
        for each in maps:
            each.writer.put_in_place(each.size)
        make_names_durable({each.writer.folder for each in maps})
        made = self._journal.page_maps_made([each.new for each in maps])
        for each in maps:
            each.is_over, each.is_map = True, each.new.database_id in made
