"""What a database costs: python -m tests.bench.cost [--hours 24]

The parts that run in the daemon (``tests.bench.simulated``) play a day. Their clock is a number, and their store
counts. Every request is one that they made, and a month is thirty such days. The databases are ten days old, so a day
has its base, its compactions and its pruning. Deletions are free. Prices: aws.amazon.com/s3/pricing, us-east-1, S3
Standard.
"""

from __future__ import annotations

import argparse
import os
import tempfile
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench.simulated import BEGAN_MS, Play
from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.keep.retention import HOUR_MS

DAY_S, DAYS_A_MONTH = 86_400, 30
AGE_DAYS = 10  # days: retention and some more
WRITE_PRICE, READ_PRICE = 0.005 / 1000, 0.0004 / 1000  # dollars a request: PUT, POST, LIST; GET, HEAD
STORED_PRICE = 0.023  # dollars a GB and month
PRICES = {"put": WRITE_PRICE, "multipart": WRITE_PRICE, "list": WRITE_PRICE, "get": READ_PRICE, "head": READ_PRICE}
RETENTION_DAYS = 7
IN_MEMORY = "/dev/shm"  # noqa: S108  the journal's fsyncs are measured elsewhere


@dataclass(frozen=True, slots=True)
class Profile:
    """How often each of ``databases`` commits, and in which ``hours`` of the day, with so many ``transactions`` at
    once.
    """

    name: str
    commits_an_hour: int
    hours: range = range(24)
    databases: int = 1
    upload_interval_s: float = 1.0
    transactions: int = 1
    file_bytes: int = 10 << 20

    def moments_ms(self, hours: int) -> Iterator[int]:
        """Return when each database commits within the first ``hours`` of the day."""
        for hour in (hour for hour in self.hours if hour < hours):
            for number in range(self.commits_an_hour):
                yield hour * HOUR_MS + number * HOUR_MS // self.commits_an_hour


PROFILES = (
    Profile("idle", 0),
    Profile("one commit a second", 3600),
    Profile("one commit a second, upload_interval 10s", 3600, upload_interval_s=10.0),
    Profile("office hours, a commit a minute", 60, hours=range(8, 18)),
    Profile("100 databases, 6 commits an hour each", 6, databases=100, file_bytes=1 << 20),
    Profile("one busy writer, 20 commits a second", 3600, transactions=20, file_bytes=64 << 20),
)


@dataclass(frozen=True, slots=True)
class Bill:
    """``requests`` of the hours that were played, and the bytes that they left. Prices are for a month of them.

    ``objects`` is how many objects these hours had left at their end, ``objects_later`` after the last epoch was
    closed, too.
    """

    requests: Counter[str]
    stored_bytes: int
    objects: int
    objects_later: int
    commits: int
    hours: int

    @property
    def month(self) -> float:
        """How many times the hours played fit into a month."""
        return DAYS_A_MONTH * 24 / self.hours

    @property
    def requests_price(self) -> float:
        """Return dollars a month for requests."""
        return self.month * sum(count * PRICES.get(kind, 0.0) for kind, count in self.requests.items())

    @property
    def storage_price(self) -> float:
        """Return dollars a month for the storage that a week fills."""
        return self.stored_bytes * 24 / self.hours * RETENTION_DAYS / 1e9 * STORED_PRICE


def play(profile: Profile, folder: Path, *, hours: int) -> Bill:
    """Return the bill of the first ``hours`` of a day."""
    with Journal.open(folder / "state") as journal:
        played = Play(folder, journal, file_bytes=profile.file_bytes, upload_interval_s=profile.upload_interval_s)
        for number in range(profile.databases):
            played.join(number)
        played.age(AGE_DAYS if profile.commits_an_hour else 1)
        played.run_until(BEGAN_MS)
        store = played.storage
        store.requests.clear()
        count = _commit(profile, played, hours)
        requests, end_ms = store.requests.copy(), played.now_ms
        sizes = [len(each.body) for key, each in store.objects.items() if store.stored_ms[key] >= BEGAN_MS]
        _close(profile, played, end_ms)
        later = [key for key in store.objects if store.stored_ms[key] >= BEGAN_MS]
        commits = count * profile.transactions * profile.databases
        return Bill(requests, sum(sizes), len(sizes), len(later) if count else 0, commits, hours)


def _commit(profile: Profile, played: Play, hours: int) -> int:
    count = 0
    for moment_ms in profile.moments_ms(hours):
        played.run_until(BEGAN_MS + moment_ms)
        for tracked in played.databases:
            played.commit(tracked, profile.transactions)
        count += 1
    played.run_until(BEGAN_MS + hours * HOUR_MS)
    return count


def _close(profile: Profile, played: Play, end_ms: int) -> None:
    """Close the last epoch by the first commit after a while. Its segments are deleted an hour later."""
    if profile.commits_an_hour:
        played.run_until(end_ms + 5 * HOUR_MS)
        for tracked in played.databases:
            played.commit(tracked, profile.transactions)
        played.run_until(end_ms + 8 * HOUR_MS)


def play_apart(profile: Profile, *, hours: int) -> Bill:
    """Play in a folder of its own."""
    with tempfile.TemporaryDirectory(dir=IN_MEMORY if os.path.isdir(IN_MEMORY) else None) as folder:  # noqa: PTH112
        return play(profile, Path(folder), hours=hours)


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description="What databases cost at AWS list prices.")
    parser.add_argument("--hours", type=int, default=24, help="of the day to play (default: 24)")
    hours = parser.parse_args().hours
    kinds = ("put", "multipart", "list", "get", "head", "delete")
    print(f"{'':44}{'requests a day':^50}|{'dollars a month':^30}|{'left of a day':^26}")
    print(f"{'profile':44}" + "".join(f"{kind:>{8 if kind != 'multipart' else 10}}" for kind in kinds), end="|")
    print(f"{'requests':>10}{'stored':>8}{'one a s':>11} |{'MB':>8}{'objects':>9}{'later':>8}")
    with ProcessPoolExecutor(2) as pool:
        for profile, bill in zip(PROFILES, pool.map(partial(play_apart, hours=hours), PROFILES), strict=True):
            a_day = 24 / hours
            naive = profile.databases * DAYS_A_MONTH * DAY_S * WRITE_PRICE
            counts = [f"{a_day * bill.requests[kind]:>{8 if kind != 'multipart' else 10}.0f}" for kind in kinds]
            print(f"{profile.name:44}{''.join(counts)}|{bill.requests_price:10.2f}{bill.storage_price:8.2f}", end="")
            print(f"{naive:11.2f} |{a_day * bill.stored_bytes / 1e6:8.1f}{bill.objects:9}{bill.objects_later:8}")


if __name__ == "__main__":
    main()
