"""Computes the metrics for Prometheus at each request, from the journal and from counts. Nothing runs in between.

Counters of what was shipped begin at 0 with every run, as Prometheus expects. Gaps and generations come from the
journal and outlive the run. ``adapters.system.exporter`` publishes them.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TypeVar

from walsyncd import __version__
from walsyncd.adapters.journal.journal import Journal, ObjectRow
from walsyncd.adapters.storage.counting_storage import OK, Requests
from walsyncd.adapters.system import clock
from walsyncd.config import Suspended
from walsyncd.core.keep.metric import Metric
from walsyncd.engine.daemon.attention import Waits
from walsyncd.engine.daemon.clock_watch import ClockWatch
from walsyncd.engine.daemon.database_status import statuses
from walsyncd.engine.upkeep.deletion import JOBS, Removals

_L = TypeVar("_L", bound=tuple[str, ...])  # the values of a metric's labels


@dataclass(slots=True)
class Shipped:
    """What this run has stored, by database."""

    transactions: Counter[int] = field(default_factory=Counter)
    size: Counter[int] = field(default_factory=Counter)
    last_ms: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def note(self, row: ObjectRow) -> None:
        """Count an object that was stored just now."""
        with self._lock:
            self.transactions[row.database_id] += row.commits
            self.size[row.database_id] += row.size
            self.last_ms = clock.wall_ms()


class Metrics:
    """Collects the metrics when asked.

    ``trouble`` returns what is wrong with the storage, and ``suspended`` which files can't be replicated. ``waits``
    returns what each followed database waits for, by name.
    """

    def __init__(
        self,
        journal: Journal,
        requests: Requests,
        shipped: Shipped,
        removals: Removals,
        *,
        waits: Callable[[], Mapping[str, Waits]],
        suspended: Callable[[], Sequence[Suspended]],
        trouble: Callable[[], str],
        lines_lost: Callable[[], int],
        clock: ClockWatch,
        proofs: Counter[str],
        whole_scans: Counter[str],
    ) -> None:
        self._journal = journal
        self._requests = requests
        self._shipped = shipped
        self._removals = removals
        self._waits = waits
        self._suspended = suspended
        self._trouble = trouble
        self._lines_lost = lines_lost
        self._clock = clock
        self._proofs = proofs
        self._whole_scans = whole_scans

    def collect(self) -> Iterator[Metric]:
        """Yield every metric."""
        yield from self._of_databases()
        yield from self._of_shipping()
        yield from self._of_storage()
        yield from self._of_keeping()
        yield _gauge("build_info", "The version that runs.", ("version",), {(__version__,): 1.0})
        lost = float(self._lines_lost())
        yield _counter("log_lines_lost", "Lines of the log that could not be written.", (), {(): lost})

    def _of_databases(self) -> Iterator[Metric]:
        now_ms = self._clock.now_ms()
        waits = self._waits()
        rows = statuses(self._journal, now_ms=now_ms, configured=waits, suspended=self._suspended())
        rows = [replace(row, **asdict(waits.get(row.name, Waits()))) for row in rows]
        label = ("database",)
        lag = {(row.name,): row.behind_s(now_ms) for row in rows}
        yield _gauge("lag_seconds", "For how long storage may not have had everything.", label, lag)
        size = {(row.name,): float(row.lag_bytes) for row in rows}
        yield _gauge("lag_bytes", "Size of the WAL frames that are not stored.", label, size)
        spool = {(row.name,): float(row.spool_bytes) for row in rows}
        yield _gauge("spool_bytes", "What waits on disk for storage, compressed.", label, spool)
        states = {(row.name, row.state): 1.0 for row in rows}
        yield _gauge("database_state", "1 for the state that a database is in.", ("database", "state"), states)
        base = {(row.name,): (row.last_base_ms or 0) / 1000 for row in rows}
        yield _gauge("last_base_timestamp_seconds", "When the last base was stored.", label, base)
        sound = {(row.name,): (row.last_verified_ms or 0) / 1000 for row in rows}
        yield _gauge("last_verified_timestamp_seconds", "When the replica was last found sound.", label, sound)
        waiting = {(row.name,): row.base_waits_s for row in rows}
        yield _gauge("base_waiting_seconds", "For how long a due base waits for the WAL to restart.", label, waiting)
        wal = {(row.name,): float(row.wal_bytes) for row in rows}
        yield _gauge("wal_bytes", "Size of the WAL's frames since it last restarted.", label, wal)
        failed = {(row.name,): float(row.drill_failed) for row in rows}
        yield _gauge("drill_failed", "Whether the last rehearsed restore failed.", label, failed)
        scrubbed = {(row.name,): (row.last_scrub_ms or 0) / 1000 for row in rows}
        yield _gauge("last_scrub_timestamp_seconds", "When file and replica were last compared.", label, scrubbed)
        differing = {(row.name,): float(row.scrub_differing_total) for row in rows}
        yield _counter("scrub_differences", "Pages that were not what the replica says.", label, differing)

    def _of_shipping(self) -> Iterator[Metric]:
        names = {row.id: row.name for row in self._journal.databases()}
        label, shipped = ("database",), self._shipped
        last_s = shipped.last_ms / 1000
        transactions = {(names[each],): float(count) for each, count in shipped.transactions.copy().items()}
        yield _counter("shipped_transactions", "Transactions stored by this run.", label, transactions)
        size = {(names[each],): float(count) for each, count in shipped.size.copy().items()}
        yield _counter("shipped_bytes", "Bytes stored by this run, bases apart.", label, size)
        yield _gauge("last_upload_timestamp_seconds", "When something was stored last.", (), {(): last_s})
        began = {(names[each],): float(count) for each, count in self._journal.generation_counts().items()}
        yield _counter("generations", "Generations begun.", label, began)
        ended = {(str(kind),): float(count) for kind, count in self._journal.gaps().items()}
        proofs = {(rule,): float(count) for rule, count in self._proofs.copy().items()}
        yield _counter("wal_restarts", "Ends of a WAL, by the rule that proved them.", ("proven_by",), proofs)
        whole = {(name,): float(count) for name, count in self._whole_scans.copy().items()}
        yield _counter("whole_scans", "Scans that read all pages of a file above 4 MiB without a WAL.", label, whole)
        yield _counter("gaps", "Gaps, bridged or not, and other ends of generations, by kind.", ("reason",), ended)

    def _of_keeping(self) -> Iterator[Metric]:
        names, label, done = {row.id: row.name for row in self._journal.databases()}, ("database",), self._removals
        objects = {(names[each],): float(count) for each, count in done.objects.copy().items()}
        yield _counter("removed_objects", "Objects removed from storage.", label, objects)
        size = {(names[each],): float(count) for each, count in done.size.copy().items()}
        yield _counter("removed_bytes", "Bytes removed from storage.", label, size)
        wholes = {(names[each],): float(count) for each, count in done.wholes.copy().items()}
        yield _counter("compacted_epochs", "Epochs whose segments became one object.", label, wholes)
        failures = {(job,): float(done.failures[job]) for job in JOBS}
        yield _counter("housekeeping_failures", "Compactions and prunings that failed.", ("job",), failures)

    def _of_storage(self) -> Iterator[Metric]:
        counts = self._requests.counts()
        requests = {kind_and_result: float(count) for kind_and_result, count in counts.items()}
        yield _counter("requests", "Requests to storage, by kind and result.", ("kind", "result"), requests)
        again = sum(count for (kind, result), count in counts.items() if kind == "upload_part" and result != OK)
        yield _counter("part_retries", "Parts of bases that have to be sent again.", (), {(): float(again)})
        text = "How far this machine's clock is ahead of the store's."
        yield _gauge("clock_ahead_seconds", text, (), {(): self._clock.ahead_s()})
        yield _gauge("storage_up", "Whether storage answers and accepts us.", (), {(): float(not self._trouble())})


def _gauge(name: str, text: str, labels: tuple[str, ...], values: Mapping[_L, float]) -> Metric:
    return Metric(name, text, labels, dict[tuple[str, ...], float](values.items()))


def _counter(name: str, text: str, labels: tuple[str, ...], values: Mapping[_L, float]) -> Metric:
    return Metric(name, text, labels, dict[tuple[str, ...], float](values.items()), counts=True)
