"""What a database costs: python -m tests.bench.cost [--hours 24]

The uploader's own decisions (``engine.dispatch``, ``engine.shipment``, a real journal) run against a clock that is a
number, before a store that counts; a day takes a minute or two. What comes once in a while is added by count: a base
a day, and for each closed epoch its one object, that read back, and two looks before its segments go (deletions
are free). Prices: aws.amazon.com/s3/pricing, us-east-1, S3 Standard.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.fakes import FakeStorage
from walsyncd.adapters.journal import Advance, Journal, NewObject, ObjectKind, ObjectRow
from walsyncd.core.layout import SegmentKey, format_key
from walsyncd.core.pacing import BURST, Bucket
from walsyncd.engine.dispatch import Dispatch, TakeTurn, Wait
from walsyncd.engine.lane import Lane
from walsyncd.engine.ownership import Identity, Ownership
from walsyncd.engine.shipment import Shipper

GENERATION = "20261122T105600Z-3f9c1a2b"
HOUR_MS, DAY_S, DAYS_A_MONTH = 3_600_000, 86_400, 30
BODY = bytes(430)  # measured: what is left of a row of 1 kB

WRITE_PRICE, READ_PRICE = 0.005 / 1000, 0.0004 / 1000  # PUT, POST, LIST; GET, HEAD: dollars a request
STORED_PRICE = 0.023  # dollars a GB and month
READS = {"get", "head"}
RETENTION_DAYS = 7
BASE_REQUESTS = Counter(put=2)
EPOCH_REQUESTS = Counter(put=1, get=2, head=1)


@dataclass(frozen=True, slots=True)
class Profile:
    """How often each of ``databases`` commits, in which ``hours`` of the day."""

    name: str
    commits_an_hour: int
    hours: range = range(24)
    databases: int = 1
    upload_interval_s: float = 1.0

    def moments_ms(self, hours: int) -> Iterator[int]:
        """When each database commits, within the first ``hours`` of the day."""
        for hour in (hour for hour in self.hours if hour < hours):
            for number in range(self.commits_an_hour):
                yield hour * HOUR_MS + number * HOUR_MS // self.commits_an_hour


PROFILES = (
    Profile("idle", 0),
    Profile("one commit a second", 3600),
    Profile("one commit a second, upload_interval 10s", 3600, upload_interval_s=10.0),
    Profile("office hours, a commit a minute", 60, hours=range(8, 18)),
    Profile("100 databases, 6 commits an hour each", 6, databases=100),
    Profile("one busy writer, 20 commits a second", 72_000),
)


@dataclass(frozen=True, slots=True)
class Bill:
    """``requests`` and ``stored_bytes`` of the hours that were played; prices are for a month of them."""

    requests: Counter[str]
    stored_bytes: int
    commits: int
    hours: int

    @property
    def month(self) -> float:
        """How many times the hours played fit into a month."""
        return DAYS_A_MONTH * 24 / self.hours

    @property
    def requests_price(self) -> float:
        """Dollars a month."""
        reads = sum(count for name, count in self.requests.items() if name in READS)
        return self.month * (reads * READ_PRICE + (self.requests.total() - reads) * WRITE_PRICE)

    @property
    def storage_price(self) -> float:
        """Dollars a month for what a week leaves."""
        return self.stored_bytes * 24 / self.hours * RETENTION_DAYS / 1e9 * STORED_PRICE


class _Events:
    def on_stored(self, row: ObjectRow) -> None:
        """Nothing waits for it."""

    def on_generation_lost(self, _database_id: int, reason: str) -> None:
        raise AssertionError(reason)

    def on_rewound(self, database_id: int, reason: str) -> None:
        """Nothing follows here."""


class Play:
    """One profile on a clock of its own."""

    def __init__(self, profile: Profile, journal: Journal) -> None:
        self.now_ms = 0
        self._profile = profile
        self._journal = journal
        self.storage = FakeStorage()
        self._dispatch = Dispatch(tasks_running_max=1)
        identity = Identity("host", "machine", "run")
        self._shipper = Shipper(
            journal,
            self.storage,
            Ownership(journal, self.storage, identity, lambda: self.now_ms),
            _Events(),
            resumed_upto=0,
            wall_ms=lambda: self.now_ms,
            monotonic_ms=lambda: float(self.now_ms),
        )

    def run(self, hours: int) -> Bill:
        """All databases, moment after moment."""
        profile = self._profile
        rows = [self._join(number) for number in range(profile.databases)]
        count = 0
        for moment_ms in profile.moments_ms(hours):
            self._ship(moment_ms)
            self.now_ms, count = moment_ms, count + 1
            for lane in rows:
                self._commit(lane, count)
        self._ship(hours * HOUR_MS)
        requests = Counter(call.name for call in self.storage.calls)
        stored_bytes = sum(len(stored.body) for stored in self.storage.objects.values())
        if count:
            busy_hours = len([hour for hour in profile.hours if hour < hours])
            for counts, times in ((BASE_REQUESTS, max(1, hours // 24)), (EPOCH_REQUESTS, busy_hours)):
                for name, number in counts.items():
                    requests[name] += number * times * profile.databases
        return Bill(requests, stored_bytes, count * profile.databases, hours)

    def _join(self, number: int) -> Lane:
        row = self._journal.database(f"db-{number}", f"/srv/{number}.db")
        self._journal.begin_generation(row.id, GENERATION, "test", "{}", 0)
        lane = Lane(row.id, row.name, Bucket(BURST, 0.0), 1000 * self._profile.upload_interval_s)
        self._dispatch.lanes[row.id] = lane
        return lane

    def _commit(self, lane: Lane, frame: int) -> None:
        key = format_key(SegmentKey(GENERATION, 1, frame, frame, self.now_ms, 0 if frame == 1 else None))
        new = NewObject(ObjectKind.SEGMENT, key, BODY, 1, frame, frame, self.now_ms, GENERATION)
        (row,) = self._journal.advance([Advance(lane.database_id, None, (new,))])
        self._dispatch.mark(lane, row.size)

    def _ship(self, until_ms: int) -> None:
        """Everything that the uploader would do before ``until_ms``."""
        while True:
            match self._dispatch.next(self.now_ms):
                case TakeTurn(lane=lane, is_urgent=is_urgent, standing_wanted=wanted):
                    turn = self._shipper.turn(lane, is_urgent=is_urgent, standing_wanted=wanted)
                    self._dispatch.settle(lane, turn)
                case Wait(timeout_s) if timeout_s is not None and self.now_ms + 1000 * timeout_s < until_ms:
                    self.now_ms += max(1, round(1000 * timeout_s))
                case _:
                    self.now_ms = until_ms
                    return


_folders = itertools.count(1)


def play(profile: Profile, folder: Path, *, hours: int) -> Bill:
    """The bill of the first ``hours`` of a day."""
    with Journal.open(folder / f"state-{next(_folders)}") as journal:
        return Play(profile, journal).run(hours)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="What databases cost at AWS list prices.")
    parser.add_argument("--hours", type=int, default=24, help="of the day to play (default: 24)")
    hours = parser.parse_args().hours
    print(f"{'profile':44} {'requests/month':>28} {'requests':>9} {'stored':>8} {'an object a second':>19}")
    with tempfile.TemporaryDirectory() as folder:
        for profile in PROFILES:
            bill = play(profile, Path(folder), hours=hours)
            kinds = ", ".join(f"{round(bill.month * n)} {name}" for name, n in bill.requests.most_common(2)) or "none"
            naive = profile.databases * DAYS_A_MONTH * DAY_S * WRITE_PRICE
            prices = f"{bill.requests_price:8.2f}$ {bill.storage_price:7.2f}$ {naive:18.2f}$"
            print(f"{profile.name:44} {kinds:>28} {prices}")


if __name__ == "__main__":
    main()
