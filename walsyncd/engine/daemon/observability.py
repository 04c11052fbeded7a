"""What can be seen of a daemon from outside: the storage's health and the metrics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

import structlog

from walsyncd.adapters.journal.journal import Journal, ObjectRow
from walsyncd.adapters.storage.counting_storage import CountingStorage, Requests
from walsyncd.adapters.storage.interface import Storage
from walsyncd.config import DaemonSettings
from walsyncd.engine.daemon.destination import Destination
from walsyncd.engine.daemon.metrics import Metrics, Shipped
from walsyncd.engine.daemon.storage_probe import StorageProbe
from walsyncd.engine.threads.supervisor import Supervisor
from walsyncd.engine.upkeep.deletion import Removals
from walsyncd.errors import TransientError, UsageError, WalsyncdError
from walsyncd.log import lines_lost

if TYPE_CHECKING:
    from walsyncd.adapters.system.exporter import Exporter

_log = structlog.get_logger()


class Observability:
    """Watches what ``destination`` does; ``changed`` is called when the storage's health becomes another.

    ``unseen_s`` says, for each database that is followed, for how long nobody has looked at it although a look was due.
    """

    def __init__(
        self,
        journal: Journal,
        destination: Callable[[], Destination],
        changed: Callable[[], None],
        unseen_s: Callable[[], Mapping[str, float]],
    ) -> None:
        self._destination = destination
        self._requests = Requests()
        self._shipped = Shipped()
        self.removals = Removals()
        self._health = StorageProbe(
            journal,
            lambda: destination().storage,
            self._requests,
            heard=self._heard,
            changed=changed,
        )
        self._metrics = Metrics(
            journal,
            self._requests,
            self._shipped,
            self.removals,
            unseen_s=unseen_s,
            trouble=self.trouble,
            lines_lost=lines_lost,
        )
        self._exporter: Exporter | None = None
        self._problem = ""

    @property
    def stored_ms(self) -> int:
        """When something was stored last (milliseconds since 1970), 0 for never."""
        return self._shipped.last_ms

    def counted(self, storage: Storage) -> Storage:
        """The storage to be used in its place, which counts."""
        return CountingStorage(storage, self._requests)

    def on_stored(self, row: ObjectRow) -> None:
        """An object was stored."""
        self._shipped.note(row)

    def trouble(self) -> str:
        """What is wrong with the storage, in words, or empty."""
        uploader = self._destination().uploader
        outage = uploader.outage()
        if outage is not None:
            return f"storage is away: {outage.reason}"
        refusal = self._health.refusal or uploader.refusal()
        return f"storage refuses: {refusal}" if refusal else ""

    def start(self, supervisor: Supervisor, daemon: DaemonSettings) -> None:
        """Begin, by these settings. Where metrics can't be shown (a port is taken), replication does without them."""
        try:
            self.settle(daemon)
        except UsageError as error:
            remedy = f"{error.hint}, or free it and reload: until then there are none"
            _log.error("metrics_not_shown", reason=error.message, remedy=remedy)
            self._health.probe_every(daemon.probe_interval_s)
        supervisor.start("health", self._health.run)

    def settle(self, daemon: DaemonSettings) -> None:
        """Go by these settings; UsageError if metrics can't be shown there, and what was shown before stays."""
        listen, textfile = daemon.metrics_listen, daemon.metrics_textfile
        if self._exporter is None and (listen or textfile):
            # Only for those who want it: an HTTP server and a library that nothing else here needs.
            from walsyncd.adapters.system.exporter import Exporter  # noqa: PLC0415

            self._exporter = Exporter(self._metrics.collect)
        if self._exporter is not None:
            self._exporter.settle(listen=listen, textfile=textfile)
        self._health.probe_every(daemon.probe_interval_s)

    def due_s(self) -> float | None:
        """In how many seconds ``beat`` wants to be called; None: not by itself."""
        return None if self._exporter is None else self._exporter.due_s()

    def beat(self) -> None:
        """Write the metrics' file if it is time; a file that can't be written is said once."""
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

    def _heard(self, error: TransientError | None) -> None:
        self._destination().uploader.heard(error)

    def stop(self) -> None:
        """Probe and show nothing any more."""
        self._health.stop()
        if self._exporter is not None:
            self._exporter.settle(listen=None, textfile=None)
