"""The databases that are followed, and their changes: which are added, which are removed, and whose settings change.

A database is identified by its name, which is the folder of its replica. A database that keeps its name and path stays,
however its settings change. If it gets another path or another storage, it leaves and joins again. Unchanged databases
are not affected. A configured file that can't be replicated is suspended: it has a row in ``status``, and no other
database is affected.

Only the main thread changes the databases, and any thread may read them.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import structlog

from walsyncd.adapters.files.match_examination import examine_match
from walsyncd.adapters.journal.journal import DatabaseRow, Journal
from walsyncd.adapters.system import clock
from walsyncd.config import DatabaseSpec, Found, Settings, Suspended, find_databases, resolve
from walsyncd.core.follow.database_state import DatabaseState, StateReport
from walsyncd.engine.backpressure.backpressure import Backpressure
from walsyncd.engine.backpressure.mark_hold import HoldTarget
from walsyncd.engine.daemon.destinations import Destinations
from walsyncd.engine.daemon.path_finder import PathFinder
from walsyncd.engine.follow.event_pump import EventPump
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.follow.wal_pairs import WalPairs
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.hang_watch import HangWatch
from walsyncd.engine.threads.mailbox import Mailbox
from walsyncd.engine.upkeep.pruner import policy_of
from walsyncd.errors import STATE_ERRORS, FaultError, RefusedError, UnresponsiveError, UsageError, WalsyncdError
from walsyncd.file_calls import covers

DISMISS_TIMEOUT_S = 60.0  # a round of the follower is bounded work
JOINS_MAX = 50  # databases that join before the main thread does something else: each takes some milliseconds
LINES_MAX = 20  # lines of the log about matches that can't be replicated: a user who may create files may create many

NAMES_SHOWN = 20  # names in one error, of which there may be thousands

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Changes:
    """What a new configuration changes, by name."""

    added: tuple[str, ...]
    removed: tuple[str, ...]
    changed: tuple[str, ...]


class Databases:
    """The followed databases. ``joined`` is called with each new database before the follower looks at it."""

    def __init__(
        self,
        journal: Journal,
        watch: EventPump,
        schedule: Schedule,
        follower: Follower,
        *,
        destinations: Destinations,
        hang_watch: HangWatch,
        joined: Callable[[FollowedDatabase], None],
    ) -> None:
        self._journal = journal
        self._event_pump = watch
        self._schedule = schedule
        self._follower = follower
        self._destinations = destinations
        self._hang_watch = hang_watch
        self._joined = joined
        self.backpressure = Backpressure()
        self._lock = threading.Lock()
        self._by_id: dict[int, FollowedDatabase] = {}
        self._by_name: dict[str, FollowedDatabase] = {}
        # The latest specification of each database. ``FollowedDatabase.spec`` changes when the follower applies it.
        self._specs: dict[str, DatabaseSpec] = {}
        self._reports: dict[int, StateReport] = {}  # used in the follower's thread
        self._paths: dict[str, str] = {}  # the path of each database that the journal knows, by name
        self.suspended: tuple[Suspended, ...] = ()
        """What is configured and can't be replicated."""

    def __len__(self) -> int:
        return len(self._by_id)

    def all(self) -> list[FollowedDatabase]:
        """Return every database that is followed."""
        with self._lock:
            return list(self._by_id.values())

    def journal_problem(self) -> str:
        """Return why nothing can be noted in the journal now, or an empty text if the journal can be written."""
        return self._follower.journal_problem

    def troubled(self) -> int:
        """Return how many databases are not well or can't be followed at all."""
        return len(self.suspended) + sum(not tracked.report.state.is_well for tracked in self.all())

    def get(self, database_id: int) -> FollowedDatabase | None:
        """Return the database of a row id of the journal.

        Returns None if the database is not followed, even if some of its objects are still in the spool.
        """
        return self._by_id.get(database_id)

    def named(self, names: Sequence[str]) -> list[FollowedDatabase]:
        """Return the databases of these names, or all without names. Raises UsageError with the known names."""
        with self._lock:
            if not names:
                return list(self._by_name.values())
            unknown = [name for name in names if name not in self._by_name]
            for each in self.suspended:
                if each.name in unknown:
                    raise RefusedError(f"{each.name} is suspended: {each.cause}", hint=each.remedy)
            if unknown:
                known = ", ".join([*sorted(self._by_name)[:NAMES_SHOWN], "…"][: len(self._by_name)]) or "none"
                raise UsageError(f"the daemon follows no database {unknown[0]!r}", hint=f"it follows: {known}")
            return [self._by_name[name] for name in names]

    def find(self, settings: Settings, is_stopped: Callable[[], bool] = lambda: False) -> Found:
        """Return what these settings select now. A followed database has precedence over other matches of its file."""
        followed = {tracked.name for tracked in self.all()}
        return find_databases(settings, examine=examine_match, followed=followed, is_stopped=is_stopped)

    def tell_copied(self, databases: Iterable[FollowedDatabase]) -> None:
        """Tell backpressure how far the WALs of these databases are copied, after the databases were looked at.

        Backpressure is not told while a restart of the WAL could not be proven. The event that prevents the proof leads
        to another look.
        """
        for tracked in databases:
            if tracked.spec.backpressure and not _is_count_void(tracked):
                cursor = tracked.state.cursor if tracked.state is not None else None
                read = tracked.reading.cursor if tracked.reading is not None else None
                self.backpressure.copied(tracked.row_id, cursor, read)

    def backpressure_words(self, name: str) -> dict[str, Any]:
        """Return the two fields of `DatabaseStatus` about backpressure at one database."""
        tracked = self._by_name.get(name)
        if tracked is None or not tracked.spec.backpressure:
            return {}
        return {"backpressure": "on", "backpressure_hindrance": self.backpressure.hindrance(tracked.row_id)}

    def begin(self, settings: Settings) -> None:
        """Follow what the configuration selects, and note in the journal which databases it no longer selects.

        Raises UsageError if a named path can't be followed. A database that the last run followed has precedence over
        other matches of the same file.
        """
        rows = self._journal.databases()
        self._paths = {row.name: row.path for row in rows}
        known = {row.name for row in rows if row.generation is not None}
        find = partial(find_databases, settings, examine=examine_match, followed=known)
        found = self._hang_watch.search(find)
        self.change(settings, found, found.checked(settings))
        for row in self._journal.databases():
            if row.id not in self._by_id:
                self._note_left(row.id)

    def take(self, finder: PathFinder, settings: Settings) -> None:
        """Apply what the finder has found by the settings in force. If there may be more, the finder looks again."""
        finding = finder.take()
        if finding is None:
            return
        try:
            with suppress(FaultError), boundary("match_patterns"):
                if finding.settings is not settings or self.update(settings, finding.found):
                    finder.wake()
        finally:
            finding.applied()

    def update(self, settings: Settings, found: Found) -> bool:
        """Follow what paths and patterns select now, in addition to what they selected before.

        Settings stay as they are. Returns whether there is more to do: only some databases join at a time, so that
        signals are answered, and newly watched folders must be looked at again.
        """
        is_wider = self._watch_folders(found)
        self._suspend(found.suspended)
        joining = [spec for spec in found.specs if not self._follows(spec)]
        for spec in joining[:JOINS_MAX]:
            tracked = self._by_name.get(spec.name)
            if tracked is not None:
                _log.warning("path_leads_elsewhere", database=spec.name, before=str(tracked.path), now=str(spec.path))
                self._leave([tracked])
        rows = self._rows_of(joining[:JOINS_MAX], settings)
        for spec in joining[:JOINS_MAX]:
            self._join(spec, settings, rows[spec.name])
        return is_wider or len(joining) > JOINS_MAX

    def moved(self, databases: Iterable[FollowedDatabase]) -> list[FollowedDatabase]:
        """Return the databases whose configured path leads elsewhere now. A path that does not answer has not moved."""

        def is_moved(tracked: FollowedDatabase) -> bool:
            try:
                return resolve(tracked.spec.configured_as).path != tracked.path
            except UnresponsiveError:
                return False

        return self._hang_watch.search(lambda: [tracked for tracked in databases if is_moved(tracked)])

    def hold_nothing(self) -> None:
        """Give up every lock: the daemon stops."""
        self.backpressure.stop()
        for tracked in self.all():
            self._absent(tracked)

    def release(self) -> None:
        """Close every descriptor: the daemon stops."""
        for tracked in self.all():
            tracked.drop_bridge()
            self._hang_watch.try_out(tracked.wal_pairs.clear)

    def has_changed(self, databases: Iterable[FollowedDatabase]) -> bool:
        """Whether any of these has another state than at the last call. Only the follower's thread may call."""
        changed = {each.row_id: each.report for each in databases if self._reports.get(each.row_id) != each.report}
        self._reports.update(changed)
        return bool(changed)

    def answer_again(self, paths: Sequence[str], settings: Settings) -> None:
        """Follow the databases of these paths from the beginning: a call that hung may have left a change half done."""
        again = [tracked for tracked in self.all() if any(covers(path, tracked.path) for path in paths)]
        self._leave(again)
        rows = self._rows_of([tracked.spec for tracked in again], settings)
        for tracked in again:
            self._join(tracked.spec, settings, rows[tracked.name])

    def below(self, path: str) -> list[FollowedDatabase]:
        """Return the databases at this path or below it."""
        return [tracked for tracked in self.all() if covers(path, tracked.path)]

    def _absent(self, tracked: FollowedDatabase) -> None:
        """Give up presence at a database."""
        if tracked.presence.standing != "off":
            self._hang_watch.try_out(partial(tracked.presence.want, wanted=False))

    def _watch_folders(self, found: Found) -> bool:
        return self._hang_watch.search(lambda: self._event_pump.watch_folders(found.watched))

    def change(self, settings: Settings, found: Found, specs: Iterable[DatabaseSpec]) -> Changes:
        """Follow exactly the databases of ``specs``, which were ``found`` by these settings."""
        self._watch_folders(found)
        wanted = {spec.name: spec for spec in specs}
        leaving = [tracked for tracked in self.all() if not self._stays(tracked, wanted.get(tracked.name), settings)]
        gone = {tracked.name for tracked in leaving}
        self._leave(leaving)
        added: list[str] = []
        changed: list[str] = []
        rows = self._rows_of([spec for spec in wanted.values() if spec.name not in self._by_name], settings)
        for spec in wanted.values():
            tracked = self._by_name.get(spec.name)
            if tracked is None:
                self._join(spec, settings, rows[spec.name])
                (changed if spec.name in gone else added).append(spec.name)
            elif _is_tuned(self._specs[spec.name], spec):
                self._retune(tracked, spec)
                changed.append(spec.name)
        self._suspend(found.suspended)
        return Changes(tuple(added), tuple(sorted(gone - wanted.keys())), tuple(changed))

    def _follows(self, spec: DatabaseSpec) -> bool:
        tracked = self._by_name.get(spec.name)
        return tracked is not None and tracked.path == spec.path

    def _suspend(self, suspended: Sequence[Suspended]) -> None:
        """Suspend the files that can't be replicated. If one of them was a followed database, it leaves."""
        known = {(each.name, each.cause) for each in self.suspended}
        self.suspended = suspended = tuple(suspended)
        new = [each for each in suspended if (each.name, each.cause) not in known]
        for each in new[:LINES_MAX]:
            _log.warning(
                "database_suspended", database=each.name, state="suspended", cause=each.cause, remedy=each.remedy
            )
        if len(new) > LINES_MAX:
            _log.warning("databases_suspended", count=len(new), remedy="walsyncd status names them")
        for each in suspended:
            tracked = self._by_name.get(each.name)
            if tracked is not None:
                self._leave([tracked])
                now_ms = clock.wall_ms()
                self._journal.note_state(tracked.row_id, DatabaseState.SUSPENDED, each.cause, each.remedy, now_ms)

    def _rows_of(self, specs: Sequence[DatabaseSpec], settings: Settings) -> dict[str, DatabaseRow]:
        """Note all joining databases in the journal in one transaction, and return their rows by name."""
        if not specs:
            return {}
        places = {spec.name: (str(spec.path), settings.storage_of(spec.storage).url) for spec in specs}
        return self._journal.join(places)

    def _join(self, spec: DatabaseSpec, settings: Settings, row: DatabaseRow) -> None:
        path = str(spec.path)
        before, self._paths[spec.name] = self._paths.get(spec.name, path), path
        left = self._destinations.enter(row, settings.storage_of(spec.storage).url)
        tracked = FollowedDatabase(spec, row.id, WalPairs(spec.path), mailbox=Mailbox(held_back=True))
        if left is not None:
            tracked.next_generation = replace(tracked.next_generation, reason=left.reason)
        self._joined(tracked)
        self._specs[spec.name] = spec
        self.backpressure.want(row.id, _hold_target(spec))
        with self._lock:
            self._by_id[row.id] = tracked
            self._by_name[spec.name] = tracked
        try:
            with boundary("watch", database=tracked.name):
                self._hang_watch.carry_out(partial(self._event_pump.add, tracked))
                self._follower.resume(tracked)
                if tracked.state is None:
                    ended = self._journal.generations(row.id)[-1:]
                    reason = "".join(each.reason_ended for each in ended)
                    tracked.next_generation = replace(tracked.next_generation, reason=reason)
                self._destinations.of(row.id).adopt([tracked])
                self._hang_watch.carry_out(tracked.wal_pairs.look_around)
                if before != path:
                    tracked.wal_pairs.check_later()  # so that the first look checks whether it is the same file
        except STATE_ERRORS:
            raise
        except WalsyncdError as error:  # the follower's look reports what is wrong
            tracked.wal_pairs.fail(error)
        self._schedule.admit(tracked)

    def _leave(self, leaving: Sequence[FollowedDatabase]) -> None:
        """Stop following these databases. What they have in the spool is still uploaded."""
        for tracked in leaving:
            self._event_pump.remove(tracked)
            self._absent(tracked)
            self.backpressure.forget(tracked.row_id)
            self._destinations.of(tracked.row_id).forget(tracked)
        for tracked, done in [(each, self._follower.dismiss(each)) for each in leaving]:
            try:
                done.result(DISMISS_TIMEOUT_S)
            except FutureTimeoutError:  # the follower dismisses the database later
                _log.warning("database_not_released", database=tracked.name, waited_s=DISMISS_TIMEOUT_S)
        for tracked in leaving:
            self._schedule.forget(tracked)
            with self._lock:
                del self._by_id[tracked.row_id], self._by_name[tracked.name]
            del self._specs[tracked.name]
            self._note_left(tracked.row_id)

    def _retune(self, tracked: FollowedDatabase, spec: DatabaseSpec) -> None:
        """Pass the new settings to each part that uses them. The follower applies its settings in its own thread."""
        before, self._specs[spec.name] = self._specs[spec.name], spec
        destination = self._destinations.of(tracked.row_id)
        self._hang_watch.try_out(partial(tracked.presence.want, wanted=spec.presence))
        self.backpressure.want(tracked.row_id, _hold_target(spec))
        self._follower.retune(tracked, spec)
        destination.retune(tracked, before, spec)
        if policy_of(before) != policy_of(spec):  # after the follower has applied the settings
            self._follower.interrupt(tracked, destination.keep)

    def _note_left(self, database_id: int) -> None:
        cause = "it is not in the configuration any more"
        self._journal.note_state(database_id, DatabaseState.NOT_CONFIGURED, cause, "", clock.wall_ms())

    def _stays(self, tracked: FollowedDatabase, spec: DatabaseSpec | None, settings: Settings) -> bool:
        """Whether ``spec`` is for the same file and the same storage."""
        if spec is None or spec.path != tracked.path:
            return False
        return self._destinations.place(tracked.row_id) == settings.storage_of(spec.storage).url


def _is_count_void(tracked: FollowedDatabase) -> bool:
    """Whether the commits of the WAL can't be counted across a restart now, because its -shm was changed or has grown.

    A look at the same incarnation after that makes them countable again, unless nothing watches the files.
    """
    mark, wal_pair = tracked.evidence.mark, tracked.wal_pairs.current
    if mark is None or wal_pair is None or not tracked.wal_pairs.watched:
        return False
    return wal_pair.evidence(mark).index_rebuilds


def _hold_target(spec: DatabaseSpec) -> HoldTarget | None:
    return HoldTarget(spec.path, spec.is_match, spec.wal_bytes_max) if spec.backpressure else None


def _is_tuned(before: DatabaseSpec, spec: DatabaseSpec) -> bool:
    """Whether any setting differs, except the entry's name and the path by which it was configured."""
    return replace(spec, entry=before.entry, configured_as=before.configured_as) != before
