"""Tests of a machine's clock that is wrong for a while: times are right again as soon as this is known, and no wrong
one is used.

The daemon is real and runs in the test's process. The machine's clock and the store's are the test's. What `--at`
answers is compared with what was committed by then.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess, wal_database
from tests.aging import AgingStorage, Calendar
from tests.engine.rollback.rollback_replicas import restored
from tests.engine.running import Place, running, wait_for
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.keep.retention import DAY_MS, HOUR_MS
from walsyncd.core.limits import Limits
from walsyncd.core.restore.plan import AtPosition, AtTime
from walsyncd.core.stored.layout import SegmentKey, WholeKey, parse_key
from walsyncd.core.stored.position import parse_position
from walsyncd.engine.restore.inventory import inventory
from walsyncd.engine.restore.planner import find_plan
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import TargetError


class DatedStorage(AgingStorage):
    """A store whose answers have the time ``true``, or a folder with the machine's clock."""

    def __init__(self, folder: Path, true: Calendar, machine: Calendar, *, has_date: bool) -> None:
        super().__init__(DirectoryStorage(folder), true if has_date else machine)
        self.has_date = has_date
        self.has_answered = False
        self.changed = self._answer

    def clock_ms(self) -> int | None:  # type: ignore[override]  # a folder has none
        return super().clock_ms() if self.has_date and self.has_answered else None

    def _answer(self) -> None:
        self.has_answered = True


@dataclass
class Clocks:
    """One database, its daemon's storage, and the two clocks.

    ``moments`` has each true time with the last commit by then.
    """

    place: Place
    storage: DatedStorage
    machine: Calendar
    true: Calendar
    writer: SqliteProcess
    moments: list[tuple[int, str]] = field(default_factory=list)

    def commit(self) -> int:
        """Make one transaction that is stored. Return a moment (ms) at which it was the last one."""
        self.writer.execute("insert into t values (1)")
        position = self.place.sync()
        self.moments.append((self.true.now_ms, position))
        time.sleep(0.005)  # so that the next commit has another millisecond
        return self.moments[-1][0]

    def at(self, moment_ms: int) -> str | None:
        """Return the position that ``--at`` gives, or None if ``--at`` refuses."""
        try:
            return str(find_plan(Replica(self.storage, "app"), AtTime(moment_ms)).reached.position)
        except TargetError:
            return None

    def check(self) -> list[int]:
        """Assert that every moment gives what was committed by then. Return those that are refused.

        Only a later commit proves that one was the last at its moment, so the last moment is never given.
        """
        refused = []
        for moment_ms, position in self.moments[:-1]:
            found = self.at(moment_ms)
            if found not in (None, position):  # an epoch that is begun for a base repeats what is there
                contents = [restored(self.place, AtPosition(parse_position(each))) for each in (found, position)]
                assert contents[0] == contents[1], (moment_ms, found, position)
            if found is None:
                refused.append(moment_ms)
            plan = find_plan(Replica(self.storage, "app"), AtPosition(parse_position(position)))
            assert str(plan.reached.position) == position
        return refused

    def doubtful(self) -> list[object]:
        """Return what ``ls`` says of times that can't be trusted."""
        return [span for each in inventory(Replica(self.storage, "app")) for span in each.doubtful]

    def objects(self) -> list[SegmentKey | WholeKey]:
        names = (info.key.removeprefix("app/") for info in self.storage.list("app/"))
        return [key for name in names if isinstance(key := parse_key(name), SegmentKey | WholeKey)]


@contextmanager
def clocked(place: Place, monkeypatch: pytest.MonkeyPatch, *, has_date: bool) -> Iterator[Clocks]:
    """Return two clocks that agree, and a daemon that does not run yet."""
    machine, true = Calendar(), Calendar()
    machine.rule(monkeypatch)
    storage = DatedStorage(place.replica, true, machine, has_date=has_date)
    with wal_database(place.database()) as writer:
        yield Clocks(place, storage, machine, true, writer)


@contextmanager
def daemon(clocks: Clocks) -> Iterator[None]:
    """Run the daemon. A new connection to the store has not had an answer yet."""
    clocks.storage.has_answered = False
    with running(clocks.place.settings("app"), clocks.storage, limits=Limits(upkeep_calm_s=0.0)):
        clocks.place.sync()
        yield


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


@pytest.mark.parametrize("has_date", [True, False])
@pytest.mark.parametrize("restarts", [False, True])
def test_times_are_true_again_once_the_clock_was_set_right(
    place: Place, monkeypatch: pytest.MonkeyPatch, *, has_date: bool, restarts: bool
) -> None:
    """The daemon runs on, or starts again. The store has a clock of its own, or is a folder."""
    with clocked(place, monkeypatch, has_date=has_date) as clocks:
        with daemon(clocks):
            right = [clocks.commit(), clocks.commit()]
            clocks.machine.ahead_ms = 2 * HOUR_MS
            wrong = [clocks.commit(), clocks.commit()]
            if not restarts:
                clocks.machine.ahead_ms = 0
                clocks.commit()
                clocks.commit()
                clocks.commit()
        if restarts:
            clocks.machine.ahead_ms = 0
            with daemon(clocks):
                clocks.commit()
                clocks.commit()
                clocks.commit()
        refused = clocks.check()
        # Until the next time that can be trusted, it is unknown what was the last commit.
        assert refused == ([] if has_date else [right[-1], *wrong]), "the store's clock corrects a wrong one"
        assert bool(clocks.doubtful()) is not has_date


def test_a_clock_that_is_ahead_at_the_start_is_corrected_by_the_first_answer(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was committed before the answer can't be requested by time. Nothing else waits for that date."""
    with clocked(place, monkeypatch, has_date=True) as clocks:
        with daemon(clocks):
            right = clocks.commit()
        clocks.machine.ahead_ms = 30 * DAY_MS
        with daemon(clocks):
            first = clocks.commit()
            later = [clocks.commit(), clocks.commit()]
        clocks.machine.ahead_ms = 0
        with daemon(clocks):
            last = clocks.commit()
            clocks.commit()
        refused = clocks.check()
        assert not {*later, last} & {*refused}
        assert set(refused) <= {right, first}


def test_a_clock_that_is_behind_is_corrected_by_the_store(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock is wrong by hours, in either direction, while the daemon runs."""
    with clocked(place, monkeypatch, has_date=True) as clocks, daemon(clocks):
        for ahead_ms in (0, -3 * HOUR_MS, 5 * HOUR_MS, -400 * DAY_MS, 0):
            clocks.machine.ahead_ms = ahead_ms
            clocks.commit()
            clocks.commit()
        assert clocks.check() == []
        assert clocks.doubtful() == []


def test_a_clock_that_was_set_back_by_mistake_dates_nothing_after_a_restart(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commits made meanwhile are read before the store's first answer, and get the time from before."""
    with clocked(place, monkeypatch, has_date=True) as clocks:
        with daemon(clocks):
            clocks.commit()
            clocks.machine.ahead_ms = -HOUR_MS
            clocks.commit()
            clocks.commit()
        clocks.writer.execute("insert into t values (1)")
        with daemon(clocks):
            clocks.commit()
            clocks.commit()
        assert clocks.doubtful() == []
        times = [key.time_ms for key in sorted(clocks.objects(), key=lambda key: (key.epoch, key.last))]
        assert times == sorted(times)


def test_a_folder_never_gives_a_wrong_commit_silently_after_a_clock_was_ahead(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is ahead twice, with restarts before and after.

    Then an hour passes, and the closed epochs are compacted.
    """
    with clocked(place, monkeypatch, has_date=False) as clocks:
        for ahead_ms in (0, 2 * HOUR_MS, 0, 26 * HOUR_MS, 0):
            clocks.machine.ahead_ms = ahead_ms
            with daemon(clocks):
                clocks.commit()
                clocks.commit()
        before = clocks.check()
        for calendar in (clocks.machine, clocks.true):
            calendar.ahead_ms += 3 * HOUR_MS
        with daemon(clocks):
            clocks.commit()
            wait_for(lambda: any(isinstance(key, WholeKey) for key in clocks.objects()))
            clocks.commit()
        assert set(clocks.check()) >= set(before)
        assert clocks.moments[-2][0] not in clocks.check()


def test_nothing_in_a_folder_is_old_because_the_clock_was_set_forward(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock is set forward by a month, so that all but the last base would be older than their retention, also
    after a restart.
    """
    with clocked(place, monkeypatch, has_date=False) as clocks:
        with daemon(clocks):
            for _ in range(2):
                clocks.writer.execute("pragma wal_checkpoint(restart)")
                clocks.commit()
                take_base(place)
            clocks.machine.ahead_ms = 30 * DAY_MS
            assert "set forward" in str(pruned(place))
        with daemon(clocks):
            assert "set forward" in str(pruned(place))
            clocks.machine.ahead_ms = 0
            assert "set forward" not in str(pruned(place))


def take_base(place: Place) -> None:
    """Take another base, by command."""
    before = place.row().base_key
    place.ask(op="snapshot", name="app")
    wait_for(lambda: place.row().base_key != before)


def pruned(place: Place) -> object:
    """Prune by command, and return the result."""
    place.ask(op="prune", names=["app"])
    wait_for(lambda: "waiting" not in place.ask(op="pruned", name="app"))
    return place.ask(op="pruned", name="app")
