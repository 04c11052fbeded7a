"""Checks that the storage still accepts us even when nothing is shipped, so that a revoked key shows within a minute.

The probe makes one small request when the storage has not answered anything for ``interval_s``: GET of an
``owner.json``, because a refused HEAD does not say why it was refused. That is one request for the whole daemon, not
one for each idle database, and a busy host makes none.
"""

from __future__ import annotations

from collections.abc import Callable

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.counting_storage import Requests
from walsyncd.adapters.storage.interface import Storage
from walsyncd.core.stored.layout import OWNER_KEY, folder_key
from walsyncd.core.stored.owner import OWNER_BYTES_MAX
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.errors import RefusedError, TransientError, WalsyncdError

_log = structlog.get_logger()


class StorageProbe:
    """Probes the storage that the journal knows by the URL ``place``, unless ``interval_s`` is None.

    ``heard`` gets None if the storage answered a probe, else the error that shows the storage away.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        requests: Requests,
        *,
        place: str,
        heard: Callable[[TransientError | None], None],
        changed: Callable[[], None],
    ) -> None:
        self._journal = journal
        self._storage = storage
        self._place = place
        self._requests = requests
        self._heard = heard
        self._changed = changed
        self._alarm = Alarm()
        self.interval_s: float | None = None
        self.refusal = ""
        """Why the storage refused the last probe, and the remedy; empty if the probe was not refused."""

    def run(self) -> None:
        """Run the thread until ``stop``."""
        while self._alarm.wait(self._rest_s()):
            if self.interval_s is not None and self._requests.silent_s() >= self.interval_s:
                self.probe()

    def probe_every(self, interval_s: float | None) -> None:
        """Probe at this interval from now on; None ends the probes."""
        self.interval_s = interval_s
        self._alarm.wake()

    def stop(self) -> None:
        """End the thread."""
        self._alarm.stop()

    def probe(self) -> None:
        """Make one request to the storage, and log a result that is new."""
        try:
            self._ask()
        except TransientError as error:
            self._heard(error)
            return
        except RefusedError as error:
            self._note(error)
        except WalsyncdError:  # the storage answered
            self._note(None)
        else:
            self._note(None)
        self._heard(None)

    def _ask(self) -> None:
        storage, claimed = self._storage, self._journal.any_claimed(self._place)
        if claimed is not None:
            storage.get(folder_key(claimed, OWNER_KEY), length=OWNER_BYTES_MAX + 1)
        else:
            next(iter(storage.list("")), None)

    def _note(self, refusal: RefusedError | None) -> None:
        before, self.refusal = self.refusal, str(refusal or "")
        if refusal and not before:
            _log.error("storage_refused", url=self._storage.url, reason=refusal.message, remedy=refusal.hint)
        elif before and not refusal:
            _log.info("storage_accepted", url=self._storage.url)
        if self.refusal != before:
            self._changed()

    def _rest_s(self) -> float | None:
        """Return the seconds until the next probe may be due, or None while there are no probes."""
        if self.interval_s is None:
            return None
        rest_s = self.interval_s - self._requests.silent_s()
        return rest_s if rest_s > 0 else self.interval_s
