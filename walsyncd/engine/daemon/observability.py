"""What can be observed of a daemon from outside: the storages' health and the metrics."""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from walsyncd.adapters.files.file_lock import NO_OFD_LOCKS, has_ofd_locks
from walsyncd.adapters.journal.drill_table import DrillOutcome, DrillRow
from walsyncd.adapters.journal.journal import ObjectRow
from walsyncd.adapters.storage.counting_storage import CountingStorage, Requests
from walsyncd.adapters.storage.interface import Storage
from walsyncd.config import DaemonSettings, NotifySettings
from walsyncd.engine.daemon.attention import Waits
from walsyncd.engine.daemon.clock_watch import ClockWatch
from walsyncd.engine.daemon.databases import Databases
from walsyncd.engine.daemon.destinations import Destinations
from walsyncd.engine.daemon.metrics import Metrics, Shipped
from walsyncd.engine.daemon.notifier import Complaint, Notifier, complaints_of
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.threads.stall_detector import StallDetector
from walsyncd.engine.upkeep.deletion import Removals
from walsyncd.errors import UsageError, WalsyncdError
from walsyncd.log import lines_lost

if TYPE_CHECKING:
    from walsyncd.adapters.system.exporter import Exporter

NOBODY = NotifySettings()

UNANSWERED_S = 60.0  # three times as long as a store may be silent; a part on a slow line makes progress meanwhile

_log = structlog.get_logger()


class Observability:
    """Watches what ``destinations`` do.

    ``waits`` returns what each followed database waits for, and for how long. ``databases`` returns the followed
    databases and the suspended files.
    """

    def __init__(
        self,
        environment: Environment,
        clock: ClockWatch,
        destinations: Callable[[], Destinations],
        waits: Callable[[], Mapping[str, Waits]],
        databases: Callable[[], Databases],
        stalls: StallDetector,
    ) -> None:
        self._destinations = destinations
        self._stalls = stalls
        self._requests = Requests(answered=clock.compare)
        self._shipped = Shipped()
        self.removals = Removals()
        self._clock = clock
        clock.storages = lambda: [each.storage for each in destinations().all()]
        self._metrics = Metrics(
            environment.journal,
            self._requests,
            self._shipped,
            self.removals,
            waits=waits,
            suspended=lambda: databases().suspended,
            trouble=self.trouble,
            lines_lost=lines_lost,
            clock=self._clock,
            proofs=environment.proofs,
            whole_scans=environment.whole_scans,
        )
        self._journal = environment.journal
        self._databases = databases
        self.notifier = Notifier(socket.gethostname(), self._complaints, check_s=environment.limits.notify_check_s)
        """The notifier, whose ``run`` is a thread of the daemon."""
        self._exporter: Exporter | None = None
        self._problem = ""

    @property
    def stored_ms(self) -> int:
        """Return when something was stored last (milliseconds since 1970), or 0 for never."""
        return self._shipped.last_ms

    def counted(self, storage: Storage) -> tuple[Storage, Requests]:
        """Return a storage that replaces ``storage`` and counts the requests, and the counts."""
        requests = Requests(self._requests)
        return CountingStorage(storage, requests), requests

    def on_stored(self, row: ObjectRow) -> None:
        """Note that an object was stored."""
        self._shipped.note(row)

    def remarks(self) -> str:
        """Return what is wrong with the storage, the journal, or this machine's clock; empty if nothing is."""
        words = (self.trouble(), self._unanswered(), self._databases().journal_problem(), self._clock.words())
        return "; ".join(filter(None, words))

    def _unanswered(self) -> str:
        """Report a request that does not end, for example in a folder whose file system does not answer.

        Such a request is not an error yet.
        """
        seconds = self._stalls.longest_s("upload")
        return f"an upload has had no answer for {seconds:.0f} s, and no error" if seconds > UNANSWERED_S else ""

    def trouble(self) -> str:
        """Return what is wrong with the storage, or ""."""
        return self._destinations().trouble()

    def start(self, daemon: DaemonSettings, notify: NotifySettings = NOBODY) -> None:
        """Start with these settings.

        If metrics can't be published (a port is taken), replication works without them.
        """
        if not has_ofd_locks():
            _log.warning("ofd_locks_missing", reason=NO_OFD_LOCKS[0], remedy=NO_OFD_LOCKS[1])
        try:
            self.settle(daemon, notify)
        except UsageError as error:
            remedy = f"{error.hint}, or free it and reload: until then no metrics are served"
            _log.error("metrics_not_served", reason=error.message, remedy=remedy)
            self.notifier.settle(notify)

    def settle(self, daemon: DaemonSettings, notify: NotifySettings = NOBODY) -> None:
        """Apply these settings.

        Raises UsageError if metrics can't be published by these settings. The metrics are then published as before.
        """
        listen, textfile = daemon.metrics_listen, daemon.metrics_textfile
        if self._exporter is None and (listen or textfile):
            # This is imported only if configured: it loads an HTTP server and a library that nothing else needs.
            from walsyncd.adapters.system.exporter import Exporter  # noqa: PLC0415

            self._exporter = Exporter(self._metrics.collect)
        if self._exporter is not None:
            self._exporter.settle(listen=listen, textfile=textfile)
        self.notifier.settle(notify)

    def changed(self) -> None:
        """Note that a problem of a database or of the storage may have begun or ended."""
        self.notifier.wake()

    def due_s(self) -> float | None:
        """Return in how many seconds ``beat`` must be called. Returns None if nothing is due."""
        return None if self._exporter is None else self._exporter.due_s()

    def beat(self) -> None:
        """Write the metrics file if it is due. A failure to write it is logged once."""
        if self._exporter is None or self._exporter.due_s() != 0:
            return
        try:
            self._exporter.write()
        except WalsyncdError as error:
            if error.message != self._problem:
                _log.error("metrics_not_written", reason=error.message, remedy=error.hint)
            self._problem = error.message
        else:
            self._problem = ""

    def stop(self) -> None:
        """End publishing and notifying."""
        self.notifier.stop()
        if self._exporter is not None:
            self._exporter.settle(listen=None, textfile=None)

    def _complaints(self) -> list[Complaint] | None:
        rows = {row.id: row for row in self._journal.databases()}
        followed, suspended = self._databases().all(), self._databases().suspended
        failed_drills = {each.row_id for each in followed if _has_failed(self._journal.last_drill(each.row_id))}
        return complaints_of(followed, rows, trouble=self.trouble(), failed_drills=failed_drills, suspended=suspended)


def _has_failed(drill: DrillRow | None) -> bool:
    return drill is not None and drill.outcome is DrillOutcome.FAILED
