"""What the daemon answers on its control socket.

============  ===========================  =================================================================
``op``        takes                        gives
============  ===========================  =================================================================
``ping``                                   ``pid``
``status``                                 ``pid``, ``storage``: its trouble; ``databases``, each a ``DatabaseStatus``
``sync``      ``names`` (none: all)        ``databases``: by name what has to be stored, after a look just now
``stored``    ``databases``, as ``sync``   ``waiting``: by name what is still to come; ``again``: ask ``sync``
``snapshot``  ``name``                     ``base_key``: the last base before the one that is wanted
``base``      ``name``, ``base_key``       ``base_key`` of a newer base or None, and ``why``
``verified``  ``name``                     nothing: its replica was found sound by whoever asks
``takeover``  ``names``                    ``taken``: those of them that another daemon had taken, and begin anew
``prune``     ``names`` (none: all)        ``names``: of those what retention does not keep is removed soon
``pruned``    ``name``                     ``objects``, ``size`` and keys ``left`` of that, ``error``; or ``waiting``
``reload``                                 ``added``, ``removed``, ``changed``: names; ``databases``: how many
============  ===========================  =================================================================

A request with a ``state_dir`` is for the daemon of that directory and no other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from walsyncd.adapters.journal.journal import DatabaseRow, Journal
from walsyncd.adapters.system.control_socket import OTHER_DAEMON
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.daemon.database_status import statuses
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.daemon.destination import Destination
from walsyncd.engine.daemon.sync_progress import is_outdated, missing
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.upkeep.deletion import Pruned
from walsyncd.errors import TransientError, UsageError, WalsyncdError

LOOK_TIMEOUT_S = 30.0
TAKEOVER = Gap.of(GapKind.OWNER, "taken over on purpose, after another daemon had written")
RELOAD_TIMEOUT_S = 300.0  # requests to an old storage that hangs have to end first

Answer = Mapping[str, Any]


class Control:
    """Answers requests; several threads may ask at once."""

    def __init__(
        self,
        state_dir: Path,
        journal: Journal,
        follower: Follower,
        roster: Databases,
        *,
        destination: Callable[[], Destination],
        reload: Callable[[], Future[Answer]],
        trouble: Callable[[], str],
    ) -> None:
        self._state_dir = str(state_dir.resolve())
        self._journal = journal
        self._follower = follower
        self._databases = roster
        self._destination = destination
        self._reload = reload
        self._trouble = trouble

    def answer(self, request: Answer) -> Answer:
        """The answer to one request; UsageError if there is none."""
        if request.get("state_dir", self._state_dir) != self._state_dir:
            return OTHER_DAEMON
        match request.get("op"):
            case "ping":
                return {"pid": os.getpid()}
            case "status":
                return self._status()
            case "sync":
                return self._sync(self._databases.named(request.get("names") or []))
            case "stored":
                return self._stored(request.get("databases") or {})
            case "snapshot":
                return self._snapshot(str(request.get("name", "")))
            case "base":
                return self._base(str(request.get("name", "")), request.get("base_key"))
            case "verified":
                (tracked,) = self._databases.named([str(request.get("name", ""))])
                self._journal.note_verified(tracked.name, time.time_ns() // 1_000_000)
                self._journal.note_proven(tracked.row_id)
                return {}
            case "prune":
                databases = self._databases.named(request.get("names") or [])
                self._destination().prune(databases)
                return {"names": [tracked.name for tracked in databases]}
            case "pruned":
                return self._pruned(str(request.get("name", "")))
            case "takeover":
                return self._take_over(self._databases.named([str(name) for name in request.get("names") or [""]]))
            case "reload":
                return self._reloaded()
        raise UsageError(f"the daemon does not know the request {request.get('op')!r}")

    def look(self, databases: Sequence[FollowedDatabase], timeout_s: float) -> dict[str, WalsyncdError]:
        """Have all of these looked at now; those that could not be, and why."""
        futures = [(tracked, self._follower.request(tracked, lambda _tracked: None)) for tracked in databases]
        return _failures(futures, timeout_s)

    def _status(self) -> Answer:
        presence = {tracked.name: tracked.presence.standing for tracked in self._databases.all()}
        rows = statuses(self._journal, now_ms=time.time_ns() // 1_000_000, configured=presence)
        databases = [asdict(replace(row, presence=presence[row.name])) for row in rows]
        return {"pid": os.getpid(), "storage": self._trouble(), "databases": databases}

    def _sync(self, databases: Sequence[FollowedDatabase]) -> Answer:
        """Look at these now; for each, the object after whose upload everything of now is stored."""
        failures = self.look(databases, LOOK_TIMEOUT_S)
        self._destination().uploader.urgent([tracked.row_id for tracked in databases])
        answer: dict[str, Any] = {}
        for tracked in databases:
            rewinds, state = (
                tracked.rewinds,
                tracked.state,
            )  # in this order: what is older than it claims is asked again
            if tracked.name in failures:
                answer[tracked.name] = {"error": str(failures[tracked.name])}
            elif state is None:
                answer[tracked.name] = {"error": str(tracked.report) if tracked.report.cause else "not followed yet"}
            else:
                answer[tracked.name] = {
                    "position": str(state.stream.position),
                    "generation": state.stream.generation,
                    "object_id": self._journal.last_object_id(),
                    "rewinds": rewinds,
                    "by_base": state.mode == "rollback",
                }
        return {"databases": answer}

    def _stored(self, asked: Mapping[str, Mapping[str, Any]]) -> Answer:
        rows = {name: self._row(name) for name in asked}
        waiting = {name: missing(self._journal, row, asked[name]) for name, row in rows.items()}
        again = [name for name, row in rows.items() if waiting[name] and is_outdated(row, asked[name])]
        return {"waiting": waiting, "again": again}

    def _snapshot(self, name: str) -> Answer:
        (tracked,) = self._databases.named([name])
        before = self._row(name).base_key
        tracked.base_wanted = tracked.base_wanted or "asked for"
        self._destination().snapshotter.now(tracked)
        return {"base_key": before}

    def _base(self, name: str, before: object) -> Answer:
        row = self._row(name)
        return {
            "base_key": row.base_key if row.base_key != before else None,
            "why": row.error or row.cause or row.state,
        }

    def _pruned(self, name: str) -> Answer:
        (tracked,) = self._databases.named([name])
        match self._destination().pruned(tracked):
            case None:
                return {"waiting": True}
            case Pruned() as pruned:
                return asdict(pruned)
            case error:
                raise error

    def _take_over(self, databases: Sequence[FollowedDatabase]) -> Answer:
        uploader = self._destination().uploader
        taken = [tracked for tracked in databases if uploader.is_taken(tracked.row_id)]
        for tracked in taken:
            uploader.take_over(tracked.row_id, TAKEOVER)
            self._follower.interrupt(tracked, lambda tracked: self._follower.generation_lost(tracked, TAKEOVER))
        return {"taken": [tracked.name for tracked in taken]}

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
