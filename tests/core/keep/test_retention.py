"""Retention keeps its promise at every moment of years of history, wherever a pruning was killed."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.lifetimes import OPERATIONS, POLICY, CopyContext, copied, live
from walsyncd.core.keep.retention import DAY_MS, GRACE_MS, HOUR_MS, Policy, decide
from walsyncd.core.restore.coverage import cover
from walsyncd.core.restore.plan import AtPosition, Head, Plan, Reason, Refusal, make_plan
from walsyncd.core.stored.layout import BaseKey, ManifestKey, PrunedKey, SegmentKey, WholeKey
from walsyncd.core.stored.position import Position

POLICIES = st.builds(Policy, st.sampled_from([DAY_MS, 7 * DAY_MS]), *[st.integers(0, 3)] * 3)


def run(world: CopyContext, policy: Policy = POLICY) -> None:
    """Prune without being killed."""
    for _ in world.prune(world.decide(policy)):
        pass


def days(count: int, *, bases_a_day: int = 1) -> CopyContext:
    """Return a database with so many days of two epochs each. The first base of each day is at its begin."""
    world = CopyContext()
    for _ in range(count):
        for _ in range(bases_a_day):
            world.base()
            world.commit()
        world.close()
        world.now_ms += DAY_MS // 2
        world.commit()
        world.close()
        world.now_ms += DAY_MS // 2
    return world


def manifests(world: CopyContext) -> list[ManifestKey]:
    return [key for key in world.stored if isinstance(key, ManifestKey)]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), POLICIES)
def test_what_is_promised_can_be_restored_at_every_kill_point(data: st.DataObject, policy: Policy) -> None:
    """Commits, bases, generations, compaction, wrong clocks, years: no transaction of the span is ever lost."""
    world = CopyContext()
    for _ in range(data.draw(st.integers(1, 40))):
        world.now_ms += data.draw(st.sampled_from([60_000, HOUR_MS, 5 * HOUR_MS, DAY_MS, 4 * DAY_MS, 90 * DAY_MS]))
        live(world, data.draw(OPERATIONS), data)
        if data.draw(st.booleans()):
            kill_at = data.draw(st.integers(0, 60))
            for point, _ in enumerate(world.prune(world.decide(policy))):
                assert world.broken(policy) == []
                if point == kill_at:
                    break
            assert world.broken(policy) == []


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), POLICIES)
def test_thinning_never_looks_like_loss(data: st.DataObject, policy: Policy) -> None:
    """At every kill point what can't be planned is refused as pruned or unreachable, never as a hole or a fork."""
    world = CopyContext()
    for _ in range(data.draw(st.integers(5, 40))):
        world.now_ms += data.draw(st.sampled_from([HOUR_MS, DAY_MS, 4 * DAY_MS]))
        live(world, data.draw(OPERATIONS), data)
    for _ in world.prune(world.decide(policy)):
        for _, position in world.truth:
            plan = make_plan(world.listing(), AtPosition(position))
            assert isinstance(plan, Plan) or plan.reason not in {Reason.HOLE, Reason.FORK}
        head = make_plan(world.listing(), Head())
        assert isinstance(head, Plan) or head.reason is Reason.EMPTY


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), POLICIES)
def test_a_second_look_finds_nothing(data: st.DataObject, policy: Policy) -> None:
    """After a pruning nothing is deleted at the same moment, nor before the moment that it named."""
    world = CopyContext()
    for _ in range(data.draw(st.integers(1, 40))):
        world.now_ms += data.draw(st.sampled_from([HOUR_MS, DAY_MS, 4 * DAY_MS]))
        live(world, data.draw(OPERATIONS), data)
    told = world.decide(policy)
    for _ in world.prune(told):
        pass
    again = world.decide(policy)
    assert (again.statements, again.going) == ((), ())
    end_ms = world.now_ms + 4000 * DAY_MS if told.next_ms is None else told.next_ms - 1
    assert decide(world.stored.values(), policy, now_ms=end_ms).going == ()


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_usable_base_always_stays(data: st.DataObject) -> None:
    """However old everything is, the newest base that can be used is there with all that follows it."""
    world = CopyContext()
    for _ in range(data.draw(st.integers(5, 30))):
        world.now_ms += data.draw(st.sampled_from([HOUR_MS, 30 * DAY_MS]))
        live(world, data.draw(OPERATIONS), data)
    before = make_plan(world.listing(), Head())
    world.now_ms += 3650 * DAY_MS
    run(world)
    after = make_plan(world.listing(), Head())
    if isinstance(before, Plan):
        assert isinstance(after, Plan)
        assert after.reached.position == before.reached.position


def test_history_ends_at_the_base_before_the_span() -> None:
    """Of thirty days with a base each, those of the span and the last one before it stay, and ``pruned/`` states the
    rest.
    """
    world = days(30)
    told = world.decide()
    for _ in world.prune(told):
        pass
    begin_ms = world.now_ms - POLICY.retention_ms - GRACE_MS
    stored = sorted(world.stored[key].modified_ms for key in manifests(world))
    assert stored[0] <= begin_ms < stored[1]
    assert len(stored) == 8
    (stated,) = [key for key in world.stored if isinstance(key, PrunedKey)]
    assert (stated.first, stated.last) == (1, 44)
    assert min(key.epoch for key in world.stored if isinstance(key, SegmentKey)) == 45


def test_an_hour_of_grace() -> None:
    """Objects that have just left the span stay for an hour, so that a restore that is under way can finish."""
    world = days(9)
    (second,) = manifests(world)[1:2]
    world.now_ms = world.stored[second].modified_ms + POLICY.retention_ms + GRACE_MS - 1
    assert world.decide().going == ()
    assert world.decide().next_ms == world.now_ms + 1
    world.now_ms += 1
    assert {type(each.held.key) for each in world.decide().going} == {ManifestKey, BaseKey, SegmentKey}


def test_keep_rules_count_days_weeks_and_months_that_have_bases() -> None:
    """Of the bases older than the span, the newest of each of the last days, weeks and months that have one stays."""
    world = days(400, bases_a_day=2)
    run(world, Policy(7 * DAY_MS, keep_daily=3, keep_weekly=2, keep_monthly=12))
    moments = {key: datetime.fromtimestamp(key.time_ms / 1000, UTC) for key in manifests(world)}
    older = sorted(moment for key, moment in moments.items() if world.now_ms - key.time_ms > 7 * DAY_MS + GRACE_MS)
    assert [(older[-1] - moment).days for moment in older[-3:]] == [2, 1, 0]
    assert len({(moment.year, moment.month) for moment in older}) == 12
    assert len(older) <= 3 + 2 + 12
    for key in manifests(world):
        (part,) = world.listing().generations
        assert cover(part, key).is_usable


def test_a_kept_base_can_be_restored_and_nothing_behind_it() -> None:
    """A thinned base gives its own position; what lay between it and the next is refused as pruned."""
    world = days(40)
    run(world, Policy(7 * DAY_MS, keep_monthly=2))
    oldest = min(manifests(world))
    at = Position(oldest.generation, oldest.epoch, oldest.frame)
    assert isinstance(make_plan(world.listing(), AtPosition(at)), Plan)
    refusal = make_plan(world.listing(), AtPosition(Position(at.generation, at.epoch + 1, 1)))
    assert isinstance(refusal, Refusal)
    assert refusal.reason is Reason.PRUNED


def test_the_base_that_a_drill_passed_stays() -> None:
    """A base that passed a drill is kept until a base that is kept anyway has passed a drill."""
    world = days(30)
    first, *_, last = manifests(world)
    alone = world.decide(proven=frozenset({first}))
    assert first not in {each.held.key for each in alone.going}
    both = world.decide(proven=frozenset({first, last}))
    assert first in {each.held.key for each in both.going}


def test_old_generations_age_by_the_same_rule() -> None:
    """A generation that ended is deleted as a whole, with its statements, once the span begins within a later one."""
    world = days(3)
    world.begin()
    world.base()
    world.commit()
    world.now_ms += 6 * DAY_MS
    run(world)
    assert len({key.generation for key in world.stored}) == 2
    world.now_ms += 2 * DAY_MS
    run(world)
    run(world)
    assert {key.generation for key in world.stored} == {world.generation}


def test_a_generation_without_a_base_does_not_replace_the_one_before() -> None:
    """While the newest generation has no finished base, the head is in the generation before, however old that is."""
    world = days(3)
    head = make_plan(world.listing(), Head())
    world.begin()
    world.commit()
    world.base(finished=False)
    world.now_ms += 1000 * DAY_MS
    run(world)
    assert isinstance(head, Plan)
    plan = make_plan(world.listing(), Head())
    assert isinstance(plan, Plan)
    assert plan.reached == head.reached


def test_unfinished_bases_are_removed_after_a_day() -> None:
    """A base without manifest is deleted, unless the journal says that it is under way."""
    world = days(1)
    world.base(finished=False)
    (litter,) = {key for key in world.stored if isinstance(key, BaseKey)} - {key.base for key in manifests(world)}
    assert world.decide().going == ()
    world.now_ms += DAY_MS
    assert [each.held.key for each in world.decide().going] == [litter]
    assert decide(world.stored.values(), POLICY, now_ms=world.now_ms, under_way={litter}).going == ()


def test_statements_grow_together() -> None:
    """Pruned daily for a month, the statements are as few as there are runs of removed epochs."""
    world = days(8)
    for _ in range(30):
        world.base()
        world.commit()
        world.close()
        world.now_ms += DAY_MS
        run(world)
    assert len([key for key in world.stored if isinstance(key, PrunedKey)]) == 1


def test_epochs_behind_a_base_go_backwards() -> None:
    """An ended generation is deleted from its end back to the base that a rule keeps, so what is left is always a
    beginning.
    """
    world = days(3)
    for _ in range(5):
        world.commit()
        world.close()
    world.now_ms += 10 * DAY_MS
    world.begin()
    world.base()
    world.commit()
    world.now_ms += 30 * DAY_MS
    world.base()
    world.commit()
    world.now_ms += 30 * DAY_MS
    old = min(key.generation for key in world.stored)
    (kept,) = [key for key in manifests(world) if key.generation == old][-1:]
    policy = Policy(7 * DAY_MS, keep_monthly=3)
    for _ in world.prune(world.decide(policy)):
        behind = {k.epoch for k in world.stored if isinstance(k, SegmentKey | WholeKey) and k.generation == old}
        behind = {epoch for epoch in behind if epoch >= kept.epoch}
        assert behind == set(range(kept.epoch, kept.epoch + len(behind)))
    assert behind == {kept.epoch}


def test_a_wrong_clock_removes_nothing_too_early() -> None:
    """Keys with a time a year too early do not age faster, because the store knows when the objects came."""
    world = CopyContext(skew_ms=-365 * DAY_MS)
    for _ in range(5):
        world.base()
        world.commit()
        world.close()
        world.now_ms += DAY_MS
    assert world.decide().going == ()


def test_a_copied_bucket_begins_to_age_when_it_was_copied() -> None:
    """Where every object is as young as the copy, nothing is deleted before the copy is older than retention."""
    world = days(60)
    copied(world)
    assert world.decide().going == ()
    world.now_ms += 8 * DAY_MS
    run(world, Policy(7 * DAY_MS, keep_monthly=12))
    assert len(manifests(world)) == 3


def test_an_idle_database_needs_no_look() -> None:
    """With a single base, or with nothing that can ever be deleted, there is no next moment."""
    world = CopyContext()
    world.base()
    world.commit()
    assert world.decide().next_ms is None
    world = days(3)
    for _ in range(30):
        world.now_ms = world.decide().next_ms or world.now_ms
        run(world)
    assert world.decide().next_ms is None


def test_nothing_stored_needs_nothing() -> None:
    """For an empty listing nothing is stated or deleted, and no next moment is named."""
    told = CopyContext().decide()
    assert (told.statements, told.steps, told.going, told.next_ms) == ((), (), (), None)


def test_a_name_with_billions_of_epochs_costs_nothing() -> None:
    """A manifest whose name claims that its base is consistent after 4 billion epochs is unusable, and
    causes no work.
    """
    world = days(30)
    (manifest, held), *_ = [(key, each) for key, each in world.stored.items() if isinstance(key, ManifestKey)]
    going, planted = set(world.decide().going), replace(manifest, epoch=0xFFFFFFFF)
    world.stored[planted] = held
    assert set(world.decide().going) - {planted} <= going
