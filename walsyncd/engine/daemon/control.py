"""Answers the requests on the daemon's control socket.

============  ===========================  =================================================================
``op``        takes                        returns
============  ===========================  =================================================================
``ping``                                   ``pid``
``status``                                 ``pid``; ``storage``: what is wrong with storage or journal; ``databases``
``sync``      ``names``, or none for all   ``databases``: by name what has to be stored, after a look; ``suspended``
``stored``    ``databases`` of ``sync``    ``waiting``: by name what is not stored yet; ``again``: names to ask again
``snapshot``  ``name``                     ``base_key``: the newest base so far; a newer one is requested
``base``      ``name``, ``base_key``       ``base_key`` of a newer base or None, and ``why``
``verified``  ``name``                     nothing; the caller reports that the replica is sound
``takeover``  ``names``                    ``taken``: those that had been taken over; each begins a new generation
``scrub``     ``names``, or none for all   ``databases``: by name the ``ticket`` of a comparison that begins now
``scrubbed``  ``databases`` of ``scrub``   ``done``: by name the ``ScrubResult`` of each comparison that has ended
``prune``     ``names``, or none for all   ``names``: databases of which retention soon removes objects
``pruned``    ``name``                     the pruning's ``objects``, ``size``, ``left`` keys, ``error``; or ``waiting``
``forget``    ``name``                     ``known``: whether the journal knew the database; its rows are deleted
``reload``                                 ``added``, ``removed``, ``changed``: names; ``databases``: how many
============  ===========================  =================================================================

``status`` returns ``databases`` as ``DatabaseStatus``. ``suspended`` is how many configured files can't be replicated.
A request with a ``state_dir`` is for the daemon of that directory and no other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, wait
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from walsyncd import __version__
from walsyncd.adapters.journal.journal import DatabaseRow, Journal
from walsyncd.adapters.system.control_socket import NOT_ONE_VERSION, OTHER_DAEMON
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.content.scrubs import Scrubs
from walsyncd.engine.daemon.attention import Waits
from walsyncd.engine.daemon.database_status import RESTART_REMEDY, statuses, waits_for
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.daemon.destinations import Destinations
from walsyncd.engine.daemon.request_fields import (
    fields_of,
    names_field,
    number_field,
    objects_field,
    optional_text,
    text_field,
)
from walsyncd.engine.daemon.sync_progress import SyncPoint, is_outdated, missing, parse_sync_point
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.upkeep.deletion import Pruned
from walsyncd.errors import TransientError, UsageError, WalsyncdError

LOOK_TIMEOUT_S = 30.0
FORGET_POLL_S = 0.05
FORGET_HINT = "remove it from the configuration, or its file where a pattern found it, then `walsyncd reload`"
TAKEOVER = Gap.of(GapKind.OWNER, "taken over on purpose, after another daemon had written")
RELOAD_TIMEOUT_S = 300.0  # requests to an old storage that hangs have to end first

Answer = Mapping[str, Any]


def is_slow(request: object) -> bool:
    """Whether the answer may take long because it waits for the follower or for a storage."""
    return isinstance(request, Mapping) and request.get("op") in ("sync", "reload")


class Control:
    """Answers requests; several threads may ask at once."""

    def __init__(
        self,
        state_dir: Path,
        journal: Journal,
        follower: Follower,
        databases: Databases,
        *,
        destinations: Destinations,
        now_ms: Callable[[], int],
        reload: Callable[[], Future[Answer]],
        find_again: Callable[[], Future[None]],
        trouble: Callable[[], str],
        waits: Callable[[], Mapping[str, Waits]],
    ) -> None:
        self._state_dir = str(state_dir.resolve())
        self._journal = journal
        self._follower = follower
        self._databases = databases
        self._destinations = destinations
        self._now_ms = now_ms
        self._reload = reload
        self._find_again = find_again
        self._trouble = trouble
        self._waits = waits

    def answer(self, request: object) -> Answer:
        """Return the answer to a request. Raises UsageError if the request is not valid."""
        fields = fields_of(request)
        if fields.get("state_dir", self._state_dir) != self._state_dir:
            return OTHER_DAEMON
        with boundary("request"):
            return self._answer(fields)

    def _answer(self, request: Answer) -> Answer:
        match request.get("op"):
            case "ping":
                return {"pid": os.getpid(), "version": __version__}
            case "status":
                return self._status()
            case "sync":
                return self._sync(names_field(request))
            case "stored":
                return self._stored(objects_field(request, "databases"))
            case "snapshot":
                return self._snapshot(text_field(request, "name"))
            case "base":
                return self._base(text_field(request, "name"), optional_text(request, "base_key"))
            case "verified":
                (tracked,) = self._databases.named([text_field(request, "name")])
                self._journal.note_verified(tracked.name, self._now_ms())
                self._journal.note_proven(tracked.row_id)
                return {}
            case "scrub":
                databases = self._databases.named(names_field(request))
                return {"databases": {each.name: {"ticket": self._scrubs_of(each).now(each)} for each in databases}}
            case "scrubbed":
                return {"done": self._scrubbed(objects_field(request, "databases"))}
            case "takeover":
                return self._take_over(self._databases.named(names_field(request) or [""]))
            case "reload":
                return self._reloaded()
            case _:
                return self._answer_of_deletion(request)

    def _answer_of_deletion(self, request: Answer) -> Answer:
        match request.get("op"):
            case "prune":
                return self._prune(self._databases.named(names_field(request)))
            case "pruned":
                return self._pruned(text_field(request, "name"))
            case "forget":
                return self._forget(text_field(request, "name"))
        raise UsageError(
            f"the daemon, version {__version__}, does not know the request {str(request.get('op'))[:40]!r}",
            hint=NOT_ONE_VERSION,
        )

    def look(self, databases: Sequence[FollowedDatabase], timeout_s: float) -> dict[str, WalsyncdError]:
        """Have all of these databases looked at now. Returns those whose look failed, with the error."""
        futures = [(tracked, self._follower.request(tracked, lambda _tracked: None)) for tracked in databases]
        return _failures(futures, timeout_s)

    def _status(self) -> Answer:
        followed = self._databases.all()
        suspended = self._databases.suspended
        presence = {tracked.name: tracked.presence.standing for tracked in followed}
        hindered = {tracked.name: tracked.presence.hindrance for tracked in followed}
        waits, now_ms = self._waits(), self._now_ms()
        rows = statuses(self._journal, now_ms=now_ms, configured=presence, suspended=suspended)
        known = [
            replace(row, presence=presence.get(row.name, "off"), presence_hindrance=hindered.get(row.name, ""))
            for row in rows
        ]
        known = [replace(row, **self._databases.backpressure_words(row.name)) for row in known]
        databases = [asdict(replace(row, **asdict(waits.get(row.name, Waits())))) for row in known]
        about = {"pid": os.getpid(), "version": __version__, "now_ms": now_ms, "storage": self._trouble()}
        return {**about, "databases": databases}

    def _sync(self, names: Sequence[str]) -> Answer:
        """Look at these databases now, and return for each the object after which everything committed now is stored.

        First their paths are resolved again: a link that was switched a moment ago counts.
        """
        if self._databases.moved(self._databases.named(names)):
            wait([self._find_again()], LOOK_TIMEOUT_S)
        databases = self._databases.named(names)
        futures = [(tracked, self._follower.request(tracked, _reached)) for tracked in databases]
        failures = _failures(futures, LOOK_TIMEOUT_S)
        self._destinations.urgent(tracked.row_id for tracked in databases)
        answer: dict[str, Any] = {}
        for tracked, future in futures:
            if tracked.needs_bases():
                self._destinations.of(tracked.row_id).snapshotter.hasten(tracked)
            if tracked.name in failures:
                answer[tracked.name] = {
                    "error": "; ".join(filter(None, (str(failures[tracked.name]), self._trouble())))
                }
                continue
            rewinds, state = future.result()
            if state is None:
                answer[tracked.name] = {"error": str(tracked.report) if tracked.report.cause else "not followed yet"}
            else:
                point = SyncPoint(
                    position=state.stream.position,
                    object_id=self._journal.last_object_id(),
                    rewinds=rewinds,
                    by_base=tracked.needs_bases(),
                )
                answer[tracked.name] = point.fields()
        return {"databases": answer, "suspended": 0 if names else len(self._databases.suspended)}

    def _stored(self, databases: Mapping[str, Mapping[str, Any]]) -> Answer:
        asked = {name: parse_sync_point(fields) for name, fields in databases.items()}
        rows = {name: self._row(name) for name in asked}
        waiting = {name: missing(self._journal, row, asked[name]) for name, row in rows.items()}
        again = [name for name, row in rows.items() if waiting[name] and is_outdated(row, asked[name])]
        return {"waiting": waiting, "again": again}

    def _scrubs_of(self, tracked: FollowedDatabase) -> Scrubs:
        return self._destinations.of(tracked.row_id).content.scrubs

    def _scrubbed(self, asked: Mapping[str, Mapping[str, Any]]) -> Answer:
        tickets = {name: number_field(fields, "ticket") for name, fields in asked.items()}
        found = {
            tracked.name: self._scrubs_of(tracked).result(tracked, tickets[tracked.name])
            for tracked in (self._databases.named(list(tickets)) if tickets else [])
        }
        return {name: asdict(result) for name, result in found.items() if result is not None}

    def _snapshot(self, name: str) -> Answer:
        (tracked,) = self._databases.named([name])
        before = self._row(name).base_key
        self._follower.interrupt(tracked, _want_base)
        self._destinations.of(tracked.row_id).snapshotter.now(tracked)
        return {"base_key": before}

    def _base(self, name: str, before: object) -> Answer:
        row = self._row(name)
        return {
            "base_key": row.base_key if row.base_key != before else None,
            "why": row.error or row.cause or self._why_no_base(name) or row.state,
        }

    def _prune(self, databases: Sequence[FollowedDatabase]) -> Answer:
        """Request prunings.

        With several storages, those that allow deletion are pruned. If none does, the request is refused.
        """
        pruned = [tracked for tracked in databases if self._destinations.of(tracked.row_id).keeping.delete]
        databases = pruned or databases
        for tracked in databases:
            self._destinations.of(tracked.row_id).prune([tracked])
        return {"names": [tracked.name for tracked in databases]}

    def _why_no_base(self, name: str) -> str:
        (tracked,) = self._databases.named([name])
        return f"{waits_for(tracked.base.hindrance)} ({RESTART_REMEDY})" if tracked.base.awaits_restart else ""

    def _pruned(self, name: str) -> Answer:
        (tracked,) = self._databases.named([name])
        match self._destinations.of(tracked.row_id).pruned(tracked):
            case None:
                return {"waiting": True}
            case Pruned() as pruned:
                return asdict(pruned)
            case error:
                raise error

    def _take_over(self, databases: Sequence[FollowedDatabase]) -> Answer:
        uploaders = {tracked.row_id: self._destinations.of(tracked.row_id).uploader for tracked in databases}
        taken = [tracked for tracked in databases if uploaders[tracked.row_id].is_taken(tracked.row_id)]
        for tracked in taken:
            uploaders[tracked.row_id].take_over(tracked.row_id, TAKEOVER)
            self._follower.interrupt(tracked, lambda tracked: self._follower.generation_lost(tracked, TAKEOVER))
        return {"taken": [tracked.name for tracked in taken]}

    def _forget(self, name: str) -> Answer:
        """Drop the spool of a database that is not followed, abort its uploads, and delete its rows of the journal."""
        if any(tracked.name == name for tracked in self._databases.all()):
            raise UsageError(f"forget {name}: the daemon follows it", hint=FORGET_HINT)
        row = next((row for row in self._journal.databases() if row.name == name), None)
        if row is None:
            return {"known": False}
        uploader, deadline = self._destinations.of(row.id).uploader, time.monotonic() + LOOK_TIMEOUT_S
        uploader.drop_spool(row.id)
        for base in self._journal.bases(row.id):
            self._journal.base_dropped(base.row.id)
        while not uploader.leave(row.id, "its replica is deleted"):
            if time.monotonic() > deadline:
                raise TransientError(f"forget {name}: an object of it is still on its way to storage")
            time.sleep(FORGET_POLL_S)
        self._journal.forget_database(row.id)
        return {"known": True}

    def _row(self, name: str) -> DatabaseRow:
        (tracked,) = self._databases.named([name])
        return self._journal.database_by_id(tracked.row_id)

    def _reloaded(self) -> Answer:
        try:
            return self._reload().result(RELOAD_TIMEOUT_S)
        except FutureTimeoutError:
            raise TransientError(f"the reload is not over after {RELOAD_TIMEOUT_S:.0f} s; it goes on") from None


def _failures(futures: Sequence[tuple[FollowedDatabase, Future[Any]]], timeout_s: float) -> dict[str, WalsyncdError]:
    deadline = time.monotonic() + timeout_s
    failures: dict[str, WalsyncdError] = {}
    for tracked, future in futures:
        try:
            future.result(max(0.0, deadline - time.monotonic()))
        except WalsyncdError as error:
            failures[tracked.name] = error
        except FutureTimeoutError:
            failures[tracked.name] = TransientError(f"{tracked.name} was not looked at within {timeout_s:.0f} s")
    return failures


def _reached(tracked: FollowedDatabase) -> tuple[int, FollowState | None]:
    """Return the state that a look has reached. Runs in the follower's thread, before a later gap changes the state."""
    return tracked.rewinds, tracked.state


def _want_base(tracked: FollowedDatabase) -> None:
    """Note the request for a base, in the follower's thread."""
    tracked.base = tracked.base.wanting("asked for")
