"""The daemon: connects its parts, reloads the configuration, and stops in order."""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeAlias

import numpy  # noqa: F401 - imported now, not with the first frame: an upgrade may have replaced it by then
import structlog

from walsyncd.adapters.files.inotify import InotifyReader
from walsyncd.adapters.files.private_modes import keep_private
from walsyncd.adapters.journal.journal import Journal, ObjectRow, lock_state_dir
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.system.control_server import ControlServer
from walsyncd.adapters.system.control_socket import socket_path
from walsyncd.adapters.system.service_manager import ServiceManager
from walsyncd.config import Settings, StorageSettings, check_named
from walsyncd.core.follow.gap import Gap
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.engine.content.page_content import PageContent
from walsyncd.engine.daemon.attention import Attention
from walsyncd.engine.daemon.clock_watch import environment_by, remembering_clock
from walsyncd.engine.daemon.control import Control, is_slow
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.daemon.destination import Destination
from walsyncd.engine.daemon.destinations import Destinations, OpenStorage
from walsyncd.engine.daemon.full_spool import FullSpool
from walsyncd.engine.daemon.heartbeat import Heartbeat, status_words
from walsyncd.engine.daemon.observability import Observability
from walsyncd.engine.daemon.path_finder import PathFinder
from walsyncd.engine.daemon.silent_files import ANSWERED, SilentFiles
from walsyncd.engine.daemon.single_round import SingleRound
from walsyncd.engine.daemon.stop_report import report_unshipped
from walsyncd.engine.follow.event_pump import EventPump
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.follow.schedule import Schedule
from walsyncd.engine.rollback.rollback_mode import RollbackMode
from walsyncd.engine.ship.ownership import new_run
from walsyncd.engine.ship.spool_limit import SpoolLimit
from walsyncd.engine.threads.boundary import boundary
from walsyncd.engine.threads.hang_watch import HangWatch
from walsyncd.engine.threads.stall_detector import StallDetector
from walsyncd.engine.threads.supervisor import Supervisor
from walsyncd.errors import UsageError, WalsyncdError

STOP_MARGIN_S = 15.0  # for requests in flight and for closing, after the time for shipping
KEPT_SHARE = 4  # adds a quarter of the spool's limit, for bodies that are stored and will be compacted
SWITCH_INTERVAL_S = 0.0005  # a commit passes through three threads; by default Python switches between them every 5 ms

STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)
SIGNALS = (*STOP_SIGNALS, signal.SIGHUP)
EXIT_OK, EXIT_CRASH, EXIT_SPOOLED = 0, 1, 75
ONCE = "once"  # the main thread receives this when the round of `run --once` is over

# Returns the current configuration, and a function that opens its storages. Raises UsageError.
Source: TypeAlias = Callable[[], tuple[Settings, OpenStorage]]

_log = structlog.get_logger()


class Daemon:
    """One run over all databases of ``settings``; ``run`` returns the exit code. A reload calls ``source``."""

    def __init__(
        self,
        settings: Settings,
        opener: OpenStorage,
        source: Source | None = None,
        stalls: StallDetector | None = None,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._settings, self._source = settings, source or (lambda: (settings, opener))
        self._supervisor, self._manager = Supervisor(), ServiceManager()
        self._stalls, self._unlooked = stalls or StallDetector(), set[int]()
        self._reloads: deque[Future[Mapping[str, Any]]] = deque()
        self._journal = Journal.open(settings.daemon.state_dir, on_corrupt=self._supervisor.crashed)
        self._journal.sweep()
        self._identity = new_run(self._journal)
        self._limit = SpoolLimit(self._journal, settings.daemon.spool_bytes_max, check_share=limits.spool_check_share)
        self._schedule, self._watcher = Schedule(limits), InotifyReader()
        self._attention = Attention(self._schedule, self._stalls, databases=lambda: self.databases)
        self._finder = PathFinder(lambda: self._settings, lambda *a: self._databases.find(*a), self._found)  # noqa: PLW0108
        self._events = EventPump(self._watcher, self._schedule.wake, self._finder.wake, self._stalls, self._schedule)
        clock, maximum = remembering_clock(self._journal), lambda: self._limit.bytes_max
        self._environment = environment_by(
            clock, self._journal, self._events, maximum, limits, lambda i: self._destinations.of(i).leaves_in_s(i)
        )
        self._content = PageContent(self._journal, self._environment, self._schedule, lambda: self.follower)
        full_spool = FullSpool(
            self._journal, self._limit, destinations=lambda: self._destinations, databases=lambda: self._databases
        )
        self.follower = Follower(
            self._journal,
            self._environment,
            self._schedule,
            offer=self._offer,
            leaves_at_once=lambda row_id: self._destinations.of(row_id).uploader.may_leave_at_once(row_id),
            base_due=lambda tracked: self._destinations.of(tracked.row_id).snapshotter.due(tracked),
            is_spool_full=lambda: full_spool.must_wait(self.follower),
            has_too_much=full_spool.has_too_much,
            looked=self._looked,
            stall_detector=self._stalls,
            begin_bridge=RollbackMode(self._journal, self._environment, self._schedule, self._content).begin_bridge,
        )
        waits = self._attention.waits
        self._observability = Observability(
            self._environment, clock, lambda: self._destinations, waits, lambda: self._databases, self._stalls
        )
        self._destinations = Destinations(self._journal, self._shipping_to)
        self._destinations.settle(settings, opener, ())
        self._files = SilentFiles(self._supervisor, self._stalls, self._schedule, self._finder, lambda: self._databases)
        self._databases = Databases(
            self._journal,
            self._events,
            self._schedule,
            self.follower,
            destinations=self._destinations,
            hang_watch=self._files.watch,
            joined=lambda tracked: self._unlooked.add(tracked.row_id),
        )
        self._control, self._server = self._answering(settings.daemon.state_dir)
        self._heart = Heartbeat(self._manager, words=self._words, hung=self._hung, wake=lambda: self.call("beat"))

    @property
    def crash(self) -> BaseException | None:
        """The error that ended one of the threads, or None."""
        return self._supervisor.crash

    @property
    def databases(self) -> list[FollowedDatabase]:
        """All databases that are followed."""
        return self._databases.all()

    def _shipping_to(
        self, settings: Settings, how: StorageSettings, storage: Storage, owns: Callable[[int], bool]
    ) -> Destination:
        def is_kept(database_id: int) -> bool:
            return self._destinations.of(database_id).keeping.delete

        self._journal.keep_bodies(settings.daemon.spool_bytes_max // KEPT_SHARE, is_kept)
        counted, requests = self._observability.counted(storage)
        destination = Destination(
            self._journal,
            counted,
            self._environment,
            self,
            self._supervisor,
            identity=self._identity,
            uploads_max=settings.daemon.uploads_max,
            bytes_per_s_max=settings.daemon.upload_bytes_per_second_max,
            stall_detector=self._stalls,
            follower=self.follower,
            keeping=how,
            removals=self._observability.removals,
            requests=requests,
            changed=self._changed,
            owns=owns,
            content=self._content,
        )
        destination.probe.probe_every(settings.daemon.probe_interval_s)
        return destination

    def _answering(self, state_dir: Path) -> tuple[Control, ControlServer]:
        control = Control(
            state_dir,
            self._journal,
            self.follower,
            self._databases,
            destinations=self._destinations,
            now_ms=self._environment.wall_ms,
            reload=self._reload_soon,
            find_again=self._finder.look_now,
            trouble=self._observability.remarks,
            waits=self._attention.waits,
        )
        return control, ControlServer(socket_path(state_dir), control.answer, is_slow=is_slow)

    # -- the run ----------------------------------------------------------------------------------------------------

    def run(self, *, once: bool = False) -> int:
        """Run until a signal or a crash; with ``once``, until every database was processed once."""
        sys.setswitchinterval(SWITCH_INTERVAL_S)
        for number in SIGNALS:
            signal.signal(number, lambda number, _frame: self._supervisor.call(signal.Signals(number).name))
        # Threads inherit the mask: a signal must wake this thread, which alone runs handlers.
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        self.start()
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        single = self._single_round() if once else None
        call = self.serve()
        if call == "crash":
            return EXIT_CRASH
        if single is not None:
            single.stop()
        _log.info("daemon_stopping", signal=call)
        for number in STOP_SIGNALS:
            signal.signal(number, lambda _number, _frame: os._exit(EXIT_SPOOLED))  # a second signal ends at once
        code = self.stop()
        return EXIT_SPOOLED if single is not None and (single.left or call != ONCE) else code

    def _single_round(self) -> SingleRound:
        look, trouble, call = self._control.look, self._observability.trouble, self._supervisor.call
        databases, limits = self._databases.all, self._environment.limits
        single = SingleRound(self._journal, databases, self._destinations, look, trouble, lambda: call(ONCE), limits)
        self._supervisor.start("once", single.run)
        return single

    def call(self, what: str) -> None:
        """Have ``serve`` carry out ``what``, or return it if ``what`` ends the run."""
        self._supervisor.call(what)

    def start(self) -> None:
        """Start all threads and follow every database."""
        self._files.watch.start()
        self._destinations.start()
        self._databases.begin(self._settings)
        self._destinations.finish(self._settings)
        self._finder.wake()  # changes between the look and the start of watching
        self._observability.start(self._settings.daemon, self._settings.notify)
        threads = {"watcher": self._events.run, "follower": self.follower.run, "scanner": self._content.queue.run}
        threads |= {"reader": self._environment.read_ahead.run, "path finder": self._finder.run}
        self._environment.read_ahead.has_read = self._databases.backpressure.read
        self._databases.backpressure.begin(self._supervisor.start)
        for name, target in {**threads, "notifier": self._observability.notifier.run, **self._server.threads()}.items():
            self._supervisor.start(name, target)
        _log.info("daemon_started", databases=len(self._databases), storage=self._settings.storage.url)
        if not self._unlooked:
            self._supervisor.call("looked")

    def serve(self) -> str:
        """Serve requests until the daemon must stop. Returns the name of the signal, or "crash"."""
        while True:
            due_s = [each for each in (self._heart.due_s(), self._observability.due_s()) if each is not None]
            match self._supervisor.wait(min(due_s, default=None)):
                case None | "beat":
                    pass
                case "looked":
                    self._heart.ready()
                case "found":
                    self._databases.take(self._finder, self._settings)
                    self._heart.changed()
                case str(call) if call == ANSWERED:
                    self._files.take(self._settings)
                case "reload" | "SIGHUP":
                    self._reload()
                case str(call):
                    return call
            self._heart.beat()
            self._observability.beat()

    def stop(self, timeout_s: float | None = None) -> int:
        """Look once more, ship as much as time permits, report what is not stored. Returns the exit code."""
        timeout_s = self._settings.daemon.stop_timeout_s if timeout_s is None else timeout_s
        deadline = time.monotonic() + timeout_s
        self._manager.tell("STOPPING=1", "STATUS=stopping: shipping what is committed")
        self._manager.extend(timeout_s + STOP_MARGIN_S)
        databases = self._databases.all()
        self._destinations.wind_down()
        self._finder.stop()
        unseen = self._control.look(databases, timeout_s / 2)
        self._databases.hold_nothing()
        for stop in (self._schedule.stop, self._environment.read_ahead.stop, self._events.stop):
            stop()
        self._content.queue.stop()
        self._observability.stop()
        self._server.stop()
        self._supervisor.join(1.0, only="follower")  # objects that the follower is spooling are shipped, too
        self._destinations.urgent(tracked.row_id for tracked in databases)
        ship_s, linger_s = max(0.0, deadline - time.monotonic()), self._environment.limits.stop_linger_s
        if not self._destinations.stop(ship_s, linger_s=linger_s):
            _log.warning("uploads_left_in_flight", remedy="the next start finds out what became of them")
        self._destinations.release(databases, unseen, alive=self._supervisor.join(1.0))
        is_clean = report_unshipped(self._journal, databases, unseen)
        self._databases.release()
        self._watcher.close()
        self._files.watch.stop()
        _log.info("daemon_stopped", left_in_spool=len(self._journal.pending()))
        self._journal.close()
        return EXIT_OK if is_clean else EXIT_SPOOLED

    # -- a reload ---------------------------------------------------------------------------------------------------

    def _reload_soon(self) -> Future[Mapping[str, Any]]:
        future: Future[Mapping[str, Any]] = Future()
        self._reloads.append(future)
        self._supervisor.call("reload")
        return future

    def _reload(self) -> None:
        """Read the configuration again and apply it. A refused configuration changes nothing."""
        waiting = [self._reloads.popleft() for _ in range(len(self._reloads))]
        self._manager.reloading()
        try:
            with boundary("reload"):
                answer = self._turn_over(*self._source())
        except WalsyncdError as error:
            _log.error("reload_refused", reason=error.message, remedy=error.hint)
            for future in waiting:
                future.set_exception(error)
        else:
            _log.info("reloaded", **answer)
            for future in waiting:
                future.set_result(answer)
        self._heart.ready()

    def _turn_over(self, settings: Settings, open_storage: OpenStorage) -> Mapping[str, Any]:
        found = self._files.watch.search(lambda: self._databases.find(settings))
        specs = found.checked(settings)
        before = self._settings
        if settings.daemon.state_dir != before.daemon.state_dir:
            raise UsageError("reload: state_dir can't change while the daemon runs", hint="systemctl restart walsyncd")
        self._destinations.settle(settings, open_storage, self._databases.all())
        self._observability.settle(settings.daemon, settings.notify)
        for destination in self._destinations.all():
            destination.probe.probe_every(settings.daemon.probe_interval_s)
        self._limit.bytes_max = settings.daemon.spool_bytes_max
        self._settings = settings
        changes = self._databases.change(settings, found, specs)
        self._destinations.finish(settings)
        self._finder.wake()  # changes between the look and the start of watching
        return {"databases": len(self._databases), **asdict(changes)}

    # -- notices from other threads -----------------------------------------------------------------------------------

    def _found(self) -> None:
        self.call("found")

    def _changed(self) -> None:
        self._heart.changed()
        self._observability.changed()

    def _offer(self, rows: list[ObjectRow]) -> None:
        for database_id in dict.fromkeys(row.database_id for row in rows):
            mine = [row for row in rows if row.database_id == database_id]
            self._destinations.of(database_id).uploader.offer(mine)

    def on_stored(self, row: ObjectRow) -> None:
        """Note that an object became visible. A caller that waits for it sees it in the journal."""
        self._observability.on_stored(row)
        self._destinations.of(row.database_id).stored(row)
        self._heart.changed()

    def on_generation_lost(self, database_id: int, gap: Gap) -> None:
        """Have the follower end the current generation, which the storage can't continue."""
        tracked = self._databases.get(database_id)
        if tracked is not None:  # otherwise it is no longer configured, and only its remaining objects are uploaded
            self._destinations.of(database_id).generation_lost(tracked, gap)

    def on_rewound(self, database_id: int, reason: str) -> None:
        """Have the follower read again what was spooled last, which was dropped because it had changed on disk."""
        if (tracked := self._databases.get(database_id)) is not None:
            self.follower.interrupt(tracked, lambda tracked: self.follower.rewound(tracked, reason))

    def _looked(self, databases: list[FollowedDatabase]) -> None:
        """Note that the follower has looked at these databases. The start is complete when it has looked at all."""
        if self._unlooked:
            self._unlooked.difference_update(tracked.row_id for tracked in databases)
            if not self._unlooked:
                self._supervisor.call("looked")
        self._databases.tell_copied(databases)
        if self._databases.has_changed(databases):
            self._changed()

    def _words(self) -> str:
        return status_words(
            databases=len(self._databases),
            behind=self._journal.behind(),
            troubled=self._databases.troubled(),
            stored_ms=self._observability.stored_ms,
            storage=self._observability.remarks(),
        )

    def _hung(self) -> str:
        """Return the worker that made no progress for the watchdog's interval, or an empty text."""
        return self._stalls.hung(self._manager.watchdog_s or math.inf, overdue_s=self._schedule.overdue_s())


def run_daemon(source: Source, stall_detector: StallDetector, *, once: bool = False) -> int:
    """Run a daemon, or one round of it, and return the exit code. The state directory is locked meanwhile.

    A configuration that is refused creates nothing. Storages report the progress of requests to ``stall_detector``.
    """
    keep_private()
    settings, opener = source()
    with HangWatch() as hang_watch:
        hang_watch.search(lambda: check_named(settings))
    with lock_state_dir(settings.daemon.state_dir):
        return Daemon(settings, opener, source, stall_detector).run(once=once)
