"""Whether the storage still takes us, also with nothing to ship: a key that was revoked shows within a minute.

One small request (GET of an ``owner.json``: the answer to a HEAD could not say why it is no) when the storage has not
answered anything for ``interval_s``, for the daemon as a whole: an idle database makes none, and a busy host neither.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.counting_storage import Requests
from walsyncd.adapters.storage.interface import Storage
from walsyncd.core.stored.layout import OWNER_KEY
from walsyncd.engine.ship.ownership import folder_key
from walsyncd.errors import RefusedError, TransientError, WalsyncdError

_log = structlog.get_logger()


class StorageProbe:
    """``place`` is the URL by which the journal knows the storage. ``interval_s`` None: never probes.

    ``heard`` is told what came of a probe: None, or that it was away.
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
        self._condition = threading.Condition()
        self._stopping = False
        self.interval_s: float | None = None
        self.refusal = ""
        """Why the storage refused the last probe, and what helps; or empty."""

    def run(self) -> None:
        """The thread: until ``stop``."""
        while self._wait():
            if self.interval_s is not None and self._requests.silent_s() >= self.interval_s:
                self.probe()

    def probe_every(self, interval_s: float | None) -> None:
        """Probe at this interval from now on; None: not at all."""
        with self._condition:
            self.interval_s = interval_s
            self._condition.notify()

    def stop(self) -> None:
        """End the thread."""
        with self._condition:
            self._stopping = True
            self._condition.notify()

    def probe(self) -> None:
        """Ask one thing of the storage, and say what came of it if that is news."""
        try:
            self._ask()
        except TransientError as error:
            self._heard(error)
            return
        except RefusedError as error:
            self._note(error)
        except WalsyncdError:  # it answered
            self._note(None)
        else:
            self._note(None)
        self._heard(None)

    def _ask(self) -> None:
        storage, claimed = self._storage, self._journal.any_claimed(self._place)
        if claimed is not None:
            storage.get(folder_key(claimed, OWNER_KEY))
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

    def _wait(self) -> bool:
        """Until the next probe may be due; False: to stop."""
        with self._condition:
            if self.interval_s is None:
                self._condition.wait_for(lambda: self._stopping or self.interval_s is not None)
            elif not self._stopping:
                silent_s = self._requests.silent_s()
                rest_s = self.interval_s - silent_s
                self._condition.wait(rest_s if rest_s > 0 else self.interval_s)
            return not self._stopping
