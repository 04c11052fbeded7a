"""Maps each database to the storage of its replica: one ``Destination`` for each storage that is in use.

A storage is identified by its url, and so is the place of a database in the journal. A reload compares:

==========================================  ==========================================================================
the configuration has                       and so
==========================================  ==========================================================================
another url for a database                  the database leaves, and joins there with a new generation (``enter``)
other keys for the same url                 the destination is replaced; nothing ends
a url that was not in use                   a destination begins, before a database joins it
no more mention of a url                    its destination ends after the databases have left; what was spooled for it
                                            by databases that are no longer configured is dropped
==========================================  ==========================================================================

Each destination has threads, ownership, outage, refusals and limits of its own, so that none waits for another. Only
the spool is shared. A second copy of a database would need a second place, with a journal row of its own.

Only the main thread changes the destinations, and any thread may read them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeAlias

import structlog

from walsyncd.adapters.journal.journal import DatabaseRow, Journal
from walsyncd.adapters.storage.interface import Storage
from walsyncd.config import Settings, StorageSettings
from walsyncd.core.follow.gap import Gap
from walsyncd.engine.daemon.destination import Destination, leave_place
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.errors import TransientError

OpenStorage: TypeAlias = Callable[[StorageSettings], Storage]
# Makes a destination from a configuration, one of its storages, that storage opened, and a test for its databases.
Make: TypeAlias = Callable[[Settings, StorageSettings, Storage, Callable[[int], bool]], Destination]

RELEASE_S = 3.0  # the part of the margin for closing in which replicas are left to other hosts
WRITERS = frozenset({"snapshotter", "housekeeper"})  # threads that cause writes to storage, besides the upload threads

_log = structlog.get_logger()


class Destinations:
    """All destinations. ``make`` builds one of them. None exists before the first ``settle``."""

    def __init__(self, journal: Journal, make: Make) -> None:
        self._journal = journal
        self._make = make
        self._places = {row.id: row.place for row in journal.databases() if row.place is not None}
        self._by_url: dict[str, Destination] = {}
        self._all: tuple[Destination, ...] = ()  # cached, because the clock asks for it at each commit
        self._ways: dict[str, object] = {}
        self._default = ""
        self._is_started = self._is_quiet = False

    def of(self, database_id: int) -> Destination:
        """Return the destination of a database, or the default one if the database has none any more."""
        return self._by_url.get(self._places.get(database_id, ""), self._by_url[self._default])

    def all(self) -> tuple[Destination, ...]:
        """Return every destination that is in use, that of ``[storage]`` first."""
        return self._all

    def _have_changed(self) -> None:
        others = (each for url, each in self._by_url.items() if url != self._default)
        self._all = (self._by_url[self._default], *others)

    def place(self, database_id: int) -> str | None:
        """Return the url of the storage that a database is in, or None."""
        return self._places.get(database_id)

    def trouble(self) -> str:
        """Return what is wrong with any of the storages, or ""."""
        return "; ".join(filter(None, (each.trouble() for each in self.all())))

    def urgent(self, database_ids: Iterable[int]) -> None:
        """Send what these databases have spooled without waiting for a token."""
        ids = list(database_ids)
        for destination in self.all():
            mine = [each for each in ids if self.of(each) is destination]
            if mine:
                destination.uploader.urgent(mine)

    def start(self) -> None:
        """Start the destinations; what earlier runs left is sent first."""
        self._is_started = True
        for each in self.all():
            each.start()

    def settle(self, settings: Settings, open_storage: OpenStorage, databases: Collection[FollowedDatabase]) -> None:
        """Have a destination for each storage that is in use; ``databases`` are those followed at present.

        If a storage refuses us, its error is raised and nothing is changed. A storage that is away is not an error.
        """
        changed = [each for each in _in_use(settings, self._places) if self._ways.get(each.url) != _way(settings, each)]
        opened = [(each, open_storage(each)) for each in changed]
        if self._is_started:
            for _, storage in opened:
                with suppress(TransientError):
                    next(iter(storage.list("")), None)
        for each, storage in opened:
            self._replace(settings, each, storage, databases)
        self._default = settings.storage.url
        self._have_changed()

    def enter(self, row: DatabaseRow, url: str) -> Gap | None:
        """Move a database to the storage at ``url``. What the database has in another storage is abandoned.

        Returns why its generation ended, or None if it continues.
        """
        gap = None
        if row.place is None:
            self._journal.note_place(row.id, url)
        elif row.place != url:
            gap = leave_place(self._journal, row, url)
            _log.warning("storage_changed", database=row.name, before=row.place, now=url)
        self._places[row.id] = url
        return gap

    def finish(self, settings: Settings) -> None:
        """End the destinations that are no longer configured, after the databases have left them."""
        known = {each.url for each in settings.storages}
        for row in self._journal.databases():
            if row.place is not None and row.place not in known:
                self.enter(row, settings.storage.url)
        for url in [url for url in self._by_url if url not in known]:
            ended = self._by_url.pop(url)
            self._have_changed()
            ended.stop()
            self._ways.pop(url)

    def wind_down(self) -> None:
        """Begin nothing new from now on, except uploads."""
        for each in self.all():
            each.wind_down()

    def stop(self, timeout_s: float, *, linger_s: float) -> bool:
        """Ship what is spooled for at most ``timeout_s``, everywhere at once.

        Returns False if a request is still under way.
        """
        destinations = self.all()

        def stop(destination: Destination) -> bool:
            return destination.uploader.stop(timeout_s, linger_s=linger_s)

        if len(destinations) == 1:
            self._is_quiet = stop(destinations[0])
        else:
            with ThreadPoolExecutor(len(destinations), thread_name_prefix="stop") as pool:
                self._is_quiet = all(list(pool.map(stop, destinations)))
        return self._is_quiet

    def release(
        self, databases: Collection[FollowedDatabase], unseen: Collection[str], *, alive: Collection[str]
    ) -> None:
        """Release these databases' generations to other hosts, after ``stop``, if everything was seen and is stored.

        ``unseen`` has the names of databases that the last look did not reach, and ``alive`` the names of threads that
        still run.
        """
        if not self._is_quiet or WRITERS.intersection(alive):
            return
        until_s = time.monotonic() + RELEASE_S
        seen = [tracked for tracked in databases if tracked.name not in unseen and tracked.bridge is None]
        for each in self.all():
            each.release([one for one in seen if self.of(one.row_id) is each], until_s - time.monotonic())

    def _replace(
        self, settings: Settings, how: StorageSettings, storage: Storage, databases: Collection[FollowedDatabase]
    ) -> None:
        url = how.url
        before = self._by_url.get(url)
        if before is not None:
            before.stop()
        if not how.delete:
            for database_id in [each for each, place in self._places.items() if place == url]:
                self._journal.forget_kept(database_id)

        def owns(database_id: int) -> bool:
            return self._places.get(database_id) == url

        destination = self._make(settings, how, storage, owns)
        self._by_url[url] = destination
        if self._default:
            self._have_changed()
        self._ways[url] = _way(settings, how)
        if self._is_started:
            destination.adopt([tracked for tracked in databases if owns(tracked.row_id)])
            destination.start()


def _in_use(settings: Settings, places: dict[int, str]) -> list[StorageSettings]:
    """Return the storages that have a database, and always ``[storage]``, so that its health is known."""
    selected = {"", *(entry.storage for entry in settings.databases)}
    held = set(places.values())
    return [each for each in settings.storages if each.name in selected or each.url in held]


def _way(settings: Settings, storage: StorageSettings) -> object:
    """Return the settings that require a new destination when they change. The name is used for messages only."""
    daemon = settings.daemon
    return storage, daemon.uploads_max, daemon.upload_bytes_per_second_max
