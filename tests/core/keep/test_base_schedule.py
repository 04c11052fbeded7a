"""Tests of when bases are due."""

from __future__ import annotations

import math
from itertools import pairwise
from random import Random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lifetimes import T0, CopyContext
from walsyncd.core.keep.base_schedule import (
    age_s,
    is_due_by_work,
    must_begin_anew,
    size_class,
    spread_s,
    whole_copy_rest_s,
)
from walsyncd.core.keep.retention import DAY_MS, HOUR_MS, Policy
from walsyncd.core.limits import DEFAULT_LIMITS
from walsyncd.core.restore.plan import Head, Plan, make_plan
from walsyncd.core.stored.moment import CLOCK_OFF_MS


def test_work_is_measured_by_the_base() -> None:
    """The larger the base, the more WAL is written before the next one, by a fixed ratio."""
    base = 100 * DEFAULT_LIMITS.base_work_bytes
    assert not is_due_by_work(wal_bytes=base, base_bytes=base, ratio=1.0)
    assert is_due_by_work(wal_bytes=base + 1, base_bytes=base, ratio=1.0)
    assert is_due_by_work(wal_bytes=base, base_bytes=base, ratio=0.5)
    assert not is_due_by_work(wal_bytes=2 * base, base_bytes=base, ratio=2.0)


def test_a_tiny_database_needs_no_base_for_every_commit() -> None:
    """Below a few MiB of WAL no base is due, however small the last one is."""
    assert not is_due_by_work(wal_bytes=DEFAULT_LIMITS.base_work_bytes, base_bytes=500, ratio=1.0)


def test_a_file_that_is_copied_whole_rests_in_proportion() -> None:
    """The pause is in proportion to how long the copy took, and to its size. The interval causes a base in any case."""
    assert whole_copy_rest_s(2.0, 0, 86_400.0) == 20
    assert whole_copy_rest_s(2.0, 47 << 20, 86_400.0) == 47
    assert whole_copy_rest_s(2.0, 1 << 40, 86_400.0) == 86_400


def test_databases_that_are_due_together_drift_apart() -> None:
    """A hundred intervals of a day fall into two hours and more, none ten minutes from the next."""
    moments = sorted(spread_s(86_400.0, number) for number in range(100))
    assert moments[-1] == 86_400.0
    assert moments[-1] - moments[0] > 7_200
    assert max(later - sooner for sooner, later in pairwise(moments)) < 600


def anew(now_ms: int, **changes: object) -> bool:
    """Ask whether a generation must begin.

    Its epoch is of day 0, the last base a day before ``now_ms``, expiry 20 days.
    """
    given: dict[str, object] = {
        "now_ms": now_ms,
        "epoch_began_ms": T0,
        "generation_began_ms": T0,
        "base_ms": now_ms - DAY_MS,
        "can_begin": True,
        "interval_ms": DAY_MS,
        "expire_ms": 20 * DAY_MS,
    }
    return must_begin_anew(**{**given, **changes})  # type: ignore[arg-type]  # a test knows what it gives


def test_a_base_that_needs_old_segments_is_not_taken() -> None:
    """A day before half of the age the base is refused, because the next could come too late.

    An empty epoch has no age.
    """
    assert not anew(T0 + 9 * DAY_MS - 1)
    assert anew(T0 + 9 * DAY_MS)
    assert not anew(T0 + 9 * DAY_MS, epoch_began_ms=0)


def test_a_base_that_can_not_begin_is_given_up_when_it_is_an_interval_late() -> None:
    """The base can begin when the WAL restarts. Without any base the generation's begin counts."""
    now_ms = T0 + 5 * DAY_MS
    assert not anew(now_ms, can_begin=False, base_ms=now_ms - 2 * DAY_MS + 1)
    assert anew(now_ms, can_begin=False, base_ms=now_ms - 2 * DAY_MS)
    assert anew(now_ms, can_begin=False, base_ms=None)


def test_a_clock_that_was_ahead_tells_no_age() -> None:
    """The generation's begin counts instead of the commit.

    A generation that itself began in the future is begun again, once.
    """
    assert not anew(T0 + DAY_MS, epoch_began_ms=T0 + 400 * DAY_MS)
    assert anew(T0 + 9 * DAY_MS, epoch_began_ms=T0 + 400 * DAY_MS)
    assert anew(T0 + DAY_MS, generation_began_ms=T0 + 400 * DAY_MS, epoch_began_ms=T0 + 400 * DAY_MS)
    assert not anew(T0 + DAY_MS, generation_began_ms=T0 + DAY_MS + CLOCK_OFF_MS, epoch_began_ms=T0 + 400 * DAY_MS)


class Expiring:
    """A database without deletion: epochs as the follower closes them, bases as they are due, a rule that goes by age.

    Bases come late by up to ``late_ms``. What is older than ``expire_ms`` is deleted when ``random`` says so.
    """

    def __init__(self, interval_ms: int, retention_ms: int, slack_ms: int, random: Random) -> None:
        self.world = CopyContext()
        self.policy = Policy(retention_ms)
        self.interval_ms = interval_ms
        self.expire_ms = 2 * (retention_ms + interval_ms) + 2 * slack_ms + 2 * HOUR_MS
        self.late_ms = slack_ms
        self.random = random
        self.frames = 0  # of the WAL's incarnation
        self.start = (1, 0)  # the S of that base
        self.epoch_began_ms = 0
        self.generation_began_ms = self.world.now_ms
        self.base_ms: int | None = None
        self.due_ms = self.world.now_ms
        self.generations = 1

    def pass_time(self, by_ms: int) -> None:
        self.world.now_ms += by_ms
        self.tick()
        for key, held in list(self.world.stored.items()):
            if held.modified_ms <= self.world.now_ms - self.expire_ms and self.random.random() < 0.7:
                del self.world.stored[key]

    def commit(self) -> None:
        world = self.world
        age_ms = world.now_ms - self.epoch_began_ms
        if world.frame and age_ms >= HOUR_MS * (1 if self.frames == 0 else 4):
            world.close()
            self.epoch_began_ms = 0
            if self.frames == 0:
                self.start = (world.epoch, 0)
        world.commit()
        self.frames += 1
        self.epoch_began_ms = self.epoch_began_ms or world.now_ms

    def restart(self) -> None:
        self.frames, self.start = 0, (self.world.epoch, self.world.frame)

    def tick(self) -> None:
        world = self.world
        if world.now_ms < self.due_ms:
            return
        can_begin = self.start[0] == world.epoch
        if must_begin_anew(
            now_ms=world.now_ms,
            epoch_began_ms=self.epoch_began_ms,
            generation_began_ms=self.generation_began_ms,
            base_ms=self.base_ms,
            can_begin=can_begin,
            interval_ms=self.interval_ms,
            expire_ms=self.expire_ms,
        ):
            world.begin()
            self.generations += 1
            self.start, self.base_ms = (1, 0), None
            self.generation_began_ms, self.epoch_began_ms = world.now_ms, 0
            if self.frames:
                world.commit(self.frames)
                self.epoch_began_ms = world.now_ms
            can_begin = True
        if can_begin:
            world.base(start=self.start[1])
            self.base_ms = world.now_ms
            self.due_ms = world.now_ms + self.interval_ms + self.random.randint(0, self.late_ms)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from([6 * HOUR_MS, DAY_MS]),
    st.sampled_from([1, 3]),
    st.sampled_from([0, 6 * HOUR_MS, 2 * DAY_MS]),
    st.randoms(use_true_random=False),
    st.lists(st.tuples(st.sampled_from(["commit", "restart", "rest"]), st.integers(1, 40)), min_size=1, max_size=12),
)
def test_what_is_promised_outlives_any_rule_by_age(
    interval_ms: int, intervals: int, slack_ms: int, random: Random, story: list[tuple[str, int]]
) -> None:
    """Idle for long, writing for long, with and without restarts: the head and the span can always be restored."""
    each = Expiring(interval_ms, intervals * interval_ms, slack_ms, random)
    each.tick()
    for what, steps in story:
        if what == "restart":
            each.restart()
        for _ in range(steps):
            each.pass_time(interval_ms // 2)
            if what == "commit":
                each.commit()
            assert each.world.broken(each.policy) == []
            head = make_plan(each.world.listing(), Head())
            assert isinstance(head, Plan)
            assert head.reached.position in {position for _, position in each.world.truth}
            assert each.world.plan(each.world.truth[-1][1]) is not None


def test_an_idle_database_begins_anew_about_twice_in_an_age() -> None:
    """The WAL of an idle database is stored again only if necessary. A database without a WAL is never stored again."""
    for commits, generations in ((1, 9), (0, 1)):
        each = Expiring(DAY_MS, 7 * DAY_MS, 0, Random(1))
        each.tick()
        for _ in range(commits):
            each.commit()
        for _ in range(4 * each.expire_ms // DAY_MS):
            each.pass_time(DAY_MS)
        assert each.generations == generations
        assert each.world.broken(each.policy) == []


def test_a_size_class_reaches_to_sixteen_times_its_least() -> None:
    """The classes are below 8 MiB, 128 MiB, 2 GiB …, so no base waits for one of more than sixteen times its size."""
    bounds = [8 << 20 << 4 * number for number in range(6)]
    assert [size_class(bound - 1) for bound in bounds] == [0, 1, 2, 3, 4, 5]
    assert [size_class(bound) for bound in bounds] == [1, 2, 3, 4, 5, 6]
    assert size_class(0) == 0


def test_a_base_of_a_clock_that_was_ahead_has_any_age() -> None:
    """A base with a time in the future counts as due. Otherwise no base would follow until that date."""
    assert age_s(T0, T0 + 1500) == 1.5
    assert age_s(T0 + CLOCK_OFF_MS, T0) == -CLOCK_OFF_MS / 1000
    assert age_s(T0 + CLOCK_OFF_MS + 1, T0) == math.inf
