"""Tests of plans: what can be restored is planned, and what can't is refused with the nearest positions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.listing import BASES, SEGMENTS_AN_EPOCH, names
from tests.histories import G1, G2, History, base, histories, listing, segment, time_of, whole
from walsyncd.core.restore.coverage import FramesKey, Listing, listing_of
from walsyncd.core.restore.plan import AtPosition, AtTime, Head, Plan, Reason, Refusal, Target, make_plan
from walsyncd.core.stored.layout import Key, ManifestKey, PrunedKey, SegmentKey, WholeKey, format_key, parse_key
from walsyncd.core.stored.position import Position

SIMPLE = listing(
    base((1, 0)),
    segment(1, 1, 4),
    segment(1, 5, 9),
    base((1, 7), (1, 9)),
    segment(2, 1, 3, previous=9),
    segment(2, 4, 6),
)


def at(epoch: int, frame: int, g: str = G1) -> AtPosition:
    return AtPosition(Position(g, epoch, frame))


def planned(where: Listing, target: Target, *, allow_partial: bool = False) -> Plan:
    plan = make_plan(where, target, allow_partial=allow_partial)
    assert isinstance(plan, Plan), plan
    return plan


def refused(where: Listing, target: Target, *, generation: str | None = None) -> Refusal:
    refusal = make_plan(where, target, generation=generation)
    assert isinstance(refusal, Refusal), refusal
    return refusal


def test_head_takes_the_newest_base() -> None:
    """The plan has the newest base, the base's epoch from the first frame on, and all that follows."""
    plan = planned(SIMPLE, Head())
    assert (plan.base, plan.reached.position) == (base((1, 7), (1, 9)), Position(G1, 2, 6))
    assert [key.last for key in plan.objects] == [4, 9, 3, 6]


@pytest.mark.parametrize(
    ("target", "start", "last"),
    [
        (at(1, 8), 0, (1, 9)),
        (at(1, 9), 7, (1, 9)),
        (at(2, 2), 7, (2, 3)),
        (at(2, 0), 7, (1, 9)),
        (at(1, 0), 0, None),
    ],
)
def test_position_takes_the_newest_base_not_after_it(
    target: AtPosition, start: int, last: tuple[int, int] | None
) -> None:
    """The base's N is not after the target, and nothing is read after the object that holds it."""
    plan = planned(SIMPLE, target)
    assert plan.base.base.frame == start
    assert plan.reached.position == target.position
    objects = plan.objects
    assert (objects[-1].epoch, objects[-1].last) == last if last else objects == []


def test_moment_reads_up_to_the_object_that_may_hold_it() -> None:
    """The first object with a later commit is read too, since it may begin with earlier ones."""
    plan = planned(SIMPLE, AtTime(time_of((2, 3)) + 1))
    assert (plan.objects[-1].epoch, plan.objects[-1].last) == (2, 6)
    assert plan.reached.position == Position(G1, 2, 3)


@pytest.mark.parametrize(
    ("target", "before", "after"),
    [
        (AtTime(time_of((1, 0)) - 1), None, (1, 0)),
        (AtTime(time_of((2, 6)) + 1), (2, 6), None),
        (at(2, 7), (2, 6), None),
        (at(1, 10), (1, 9), (2, 3)),
        (at(3, 1), (2, 6), None),
        (at(3, 0), (2, 6), None),
    ],
)
def test_target_outside_names_the_nearest(
    target: Target, before: tuple[int, int] | None, after: tuple[int, int] | None
) -> None:
    """What is not covered is refused with the positions before and after it."""
    refusal = refused(SIMPLE, target)
    assert refusal.reason is Reason.UNREACHABLE
    assert (refusal.before.position if refusal.before else None) == (Position(G1, *before) if before else None)
    assert (refusal.after.position if refusal.after else None) == (Position(G1, *after) if after else None)


def test_between_two_generations_nothing_is_known() -> None:
    """A moment after the last commit of one generation and before the next one's base is not covered."""
    both = listing(*(key for part in SIMPLE.generations for key in (*part.frames, *part.manifests)), base((1, 0), g=G2))
    refusal = refused(both, AtTime(time_of((2, 6)) + 1))
    assert refusal.before is not None
    assert refusal.after is not None
    assert (refusal.before.position.generation, refusal.after.position) == (G1, Position(G2, 1, 0))


def test_base_later_than_a_moment_proves_it() -> None:
    """A base at a later moment proves that nothing was committed between the last segment and it."""
    keys: list[FramesKey | ManifestKey] = [base((1, 0)), segment(1, 1, 4)]
    late = base((1, 4))
    late = type(late)(late.base, 1, 4, late.time_ms + 5000)
    assert isinstance(make_plan(listing(*keys), AtTime(late.time_ms)), Refusal)
    assert planned(listing(*keys, late), AtTime(late.time_ms - 1)).reached.position == Position(G1, 1, 4)


def test_base_of_a_later_epoch_proves_nothing_of_the_one_before() -> None:
    """The objects between two bases may be lost without a trace, so a moment between them is not covered."""
    lost = listing(base((1, 0)), base((2, 0)))
    assert refused(lost, AtTime(time_of((1, 1)))).reason is Reason.UNREACHABLE
    kept = listing(segment(1, 1, 1), base((1, 0)), base((2, 0)))
    assert planned(kept, AtTime(time_of((1, 1)))).reached.position == Position(G1, 1, 1)


def test_head_falls_back_and_says_by_how_much() -> None:
    """A generation without a finished base is skipped, with a note."""
    plan = planned(listing(base((1, 0)), segment(1, 1, 4), segment(1, 1, 9, g=G2)), Head())
    assert plan.generation == G1
    assert plan.notes[0].startswith(f"generation {G2} has no finished base yet")
    assert "1 d" in plan.notes[0]


def test_generation_can_be_chosen() -> None:
    """Only the chosen generation is looked at. If it does not exist, the refusal names the existing generations."""
    both = listing(base((1, 0)), segment(1, 1, 4), base((1, 0), g=G2))
    plan = make_plan(both, Head(), generation=G1)
    assert isinstance(plan, Plan)
    assert plan.generation == G1
    assert G2 in refused(both, Head(), generation=G1[:-1] + "c").message


def test_nothing_to_restore() -> None:
    """An empty replica, and one whose only base was never finished, restore nothing."""
    assert refused(listing(), Head()).reason is Reason.EMPTY
    assert refused(listing_of([base((1, 0)).base, segment(1, 1, 3)]), Head()).reason is Reason.EMPTY


def test_only_base_that_lost_its_object_is_named() -> None:
    """A manifest whose base is missing is reported as such, and not as an empty replica."""
    refusal = refused(listing_of([base((1, 0)), segment(1, 1, 3)]), Head())
    assert refusal.reason is Reason.HOLE
    assert format_key(base((1, 0)).base) in refusal.message


def test_base_that_lost_its_object_is_noted() -> None:
    """An older base is used instead, and the operator is told."""
    keys = [*(key for part in SIMPLE.generations for key in (*part.frames, *part.manifests))]
    plan = planned(listing_of([*keys, base((1, 0)).base]), Head())
    assert plan.base == base((1, 0))
    assert plan.notes[0].endswith("which is missing or damaged")


def test_fork_is_refused_as_one() -> None:
    """If two objects contradict each other, neither is chosen, and the error does not call it a hole."""
    where = listing(base((1, 0)), whole(1, 4), segment(2, 1, 2, previous=3))
    assert refused(where, Head()).reason is Reason.FORK
    assert refused(where, at(2, 2)).reason is Reason.FORK


lost_objects = st.sets(st.integers(0, 12), max_size=3)
small = st.integers(1, 3)
any_generation = st.sampled_from([G1, G2])
any_places = st.tuples(small, st.integers(0, 4))
any_manifests = st.builds(lambda a, b, g: base(min(a, b), max(a, b), g=g), any_places, any_places, any_generation)
any_keys: st.SearchStrategy[Key] = st.one_of(
    st.builds(
        lambda e, a, b, p, g: segment(e, min(a, b), max(a, b), previous=p if e > 1 else 0, g=g),
        small,
        small,
        small,
        small,
        any_generation,
    ),
    st.builds(
        lambda e, last, p, g: whole(e, last, previous=p if e > 1 else 0, g=g), small, small, small, any_generation
    ),
    any_manifests,
    any_manifests.map(lambda manifest: manifest.base),
    st.builds(lambda a, b, g: PrunedKey(g, min(a, b), max(a, b), 0), small, small, any_generation),
)
any_targets: st.SearchStrategy[Target] = st.one_of(
    st.just(Head()),
    st.builds(lambda place, g, ms: AtTime(time_of(place, g) + ms), any_places, any_generation, st.integers(-1, 1)),
    st.builds(lambda place, g: AtPosition(Position(g, *place)), any_places, any_generation),
)


@given(histories(), lost_objects)
def test_position_is_planned_if_and_only_if_it_is_restorable(history: History, lost: set[int]) -> None:
    """A commit gets a plan if some base and every frame after the base's start are there. Otherwise it is refused."""
    history = history.lose(lost)
    where = history.listing()
    for place in history.commits:
        plan = make_plan(where, at(*place))
        assert isinstance(plan, Plan) == history.is_restorable(place), plan
        if isinstance(plan, Plan):
            check_plan(history, plan, place)
        else:
            check_refusal(where, plan, Position(G1, *place))


@given(histories(), lost_objects)
def test_head_is_planned_if_and_only_if_all_is_there(history: History, lost: set[int]) -> None:
    """The head is the last frame that any object names. If it can't be restored, it is refused."""
    history = history.lose(lost)
    plan = make_plan(history.listing(), Head())
    assert isinstance(plan, Plan) == history.is_restorable(history.last_known)
    if isinstance(plan, Plan):
        check_plan(history, plan, history.last_known)


@given(histories(), lost_objects)
def test_moment_is_planned_like_its_commit(history: History, lost: set[int]) -> None:
    """For the moment of a commit, the plan includes that commit, and no object after it."""
    history = history.lose(lost)
    for place in history.commits:
        plan = make_plan(history.listing(), AtTime(time_of(place)))
        if not isinstance(plan, Plan):
            continue
        assert history.is_restorable(place)
        assert (plan.reached.position.epoch, plan.reached.position.frame) <= place
        assert all(key.time_ms <= time_of(place) for key in plan.objects[:-1])
        ends = [(key.epoch, key.last) for key in plan.objects] or [(plan.base.epoch, plan.base.frame)]
        assert ends[-1] >= place


@given(histories(), lost_objects, st.booleans())
def test_partial_restores_the_nearest_before(history: History, lost: set[int], head: bool) -> None:
    """Whenever a refusal names a position before, ``allow_partial`` plans exactly that, and says why."""
    history = history.lose(lost)
    where = history.listing()
    targets: list[Target] = [Head()] if head else [at(*place) for place in history.commits]
    for target in targets:
        refusal = make_plan(where, target)
        if isinstance(refusal, Refusal) and refusal.before:
            plan = planned(where, target, allow_partial=True)
            assert plan.reached.position == refusal.before.position
            assert plan.shortfall == refusal.message


@given(histories(), lost_objects, st.lists(any_keys, max_size=4), any_targets)
def test_whatever_is_listed_a_plan_is_contiguous_and_reaches_its_target(
    history: History, lost: set[int], others: list[Key], target: Target
) -> None:
    """The listing has a history with losses and unrelated objects.

    The result is a plan up to its target, or a refusal with its reason.
    """
    history = history.lose(lost)
    keys: list[Key] = [*history.objects, *history.bases, *(each.base for each in history.bases), *others]
    where = listing_of(keys)
    plan = make_plan(where, target)
    if isinstance(plan, Refusal):
        assert plan.message
        for point in (plan.before, plan.after):
            if point:
                assert isinstance(make_plan(where, AtPosition(point.position)), Plan)
        return
    assert {plan.base, plan.base.base, *plan.objects} <= set(keys)
    check_contiguous(plan)
    ends = plan.epochs[-1].epoch, plan.epochs[-1].last
    match target:
        case Head():
            known = [
                key for key in keys if isinstance(key, SegmentKey | WholeKey) and key.generation == plan.generation
            ]
            assert ends >= max([(key.epoch, key.last) for key in known], default=(0, 0))
        case AtPosition(position):
            assert plan.reached.position == position
            assert ends >= (position.epoch, position.frame) or position.frame == 0
        case AtTime(time_ms):
            assert plan.base.time_ms <= time_ms
            assert all(key.time_ms <= time_ms for key in plan.objects[:-1] if key.last >= plan.base.frame)


@given(histories(), histories(G2), lost_objects, lost_objects)
def test_of_two_generations_each_is_planned_by_itself(
    one: History, two: History, lost: set[int], more: set[int]
) -> None:
    """A position is planned from its own generation, whatever the other one lost.

    The head is the newer generation's.
    """
    one, two = one.lose(lost), two.lose(more)
    where = listing(*one.objects, *one.bases, *two.objects, *two.bases)
    for history in (one, two):
        for place in history.commits:
            plan = make_plan(where, AtPosition(Position(history.generation, *place)))
            assert isinstance(plan, Plan) == history.is_restorable(place)
    head = make_plan(where, Head())
    assert isinstance(head, Plan) == two.is_restorable(two.last_known)
    between = AtTime(time_of((999, 0)))
    assert refused(where, between).reason is not Reason.EMPTY


@given(histories(), st.data())
def test_compaction_under_way_changes_no_answer(history: History, data: st.DataObject) -> None:
    """While wholes take the place of segments, a listing may show either or both. The answer is the same."""
    wholes = {key.epoch for key in history.objects if isinstance(key, WholeKey)}
    seen = [
        key
        for key in history.objects
        if key.epoch not in wholes or isinstance(key, WholeKey) or data.draw(st.booleans())
    ]
    for place in history.commits:
        plan = make_plan(listing(*seen, *history.bases), at(*place))
        assert isinstance(plan, Plan) == history.is_restorable(place)


def check_contiguous(plan: Plan) -> None:
    """Check that each object begins at or before the frame after those held, and each epoch follows the last frame of
    the one before.
    """
    held = plan.base.base.frame
    for number, epoch in enumerate(plan.epochs, plan.base.base.epoch):
        assert epoch.epoch == number
        if number > plan.base.base.epoch:
            assert {key.previous for key in epoch.objects if key.first == 1} == {held}
            held = 0
        for key in epoch.objects:
            assert key.first <= held + 1
            held = max(held, key.last)


def check_plan(history: History, plan: Plan, place: tuple[int, int]) -> None:
    """Check that the plan's objects, applied in order, hold every frame from the base's start to the target."""
    held = {(key.epoch, frame) for key in plan.objects for frame in range(key.first, key.last + 1)}
    start = (plan.base.base.epoch, plan.base.base.frame)
    assert history.frames_between(start, place) <= held
    assert (plan.base.epoch, plan.base.frame) <= place
    assert not any(plan.base < other and (other.epoch, other.frame) <= place for other in history.bases)
    assert not [key for key in plan.objects[:-1] if (key.epoch, key.last) >= place]


def check_refusal(where: Listing, refusal: Refusal, wanted: Position) -> None:
    """Check that the positions that a refusal names can be restored, and that the target lies between them."""
    for point in (refusal.before, refusal.after):
        if point:
            assert isinstance(make_plan(where, AtPosition(point.position)), Plan)
    assert refusal.before is None or refusal.before.position < wanted
    assert refusal.after is None or refusal.after.position > wanted


def test_a_hundred_thousand_objects() -> None:
    """A plan for a week of a busy database has the objects that must be read, not all that are stored."""
    keys = [key for key in map(parse_key, names(100_000)) if key is not None]
    middle, last = keys[len(keys) // 2], keys[-1]
    assert isinstance(middle, SegmentKey)
    assert isinstance(last, SegmentKey)
    everything = listing_of(keys)
    head = make_plan(everything, Head())
    assert isinstance(head, Plan)
    assert head.reached.position == Position(last.generation, last.epoch, last.last)
    assert len(head.objects) <= 100_000 // BASES + SEGMENTS_AN_EPOCH
    moment = make_plan(everything, AtTime(middle.time_ms))
    assert isinstance(moment, Plan)
    assert moment.reached.time_ms == middle.time_ms
    assert len(moment.objects) <= SEGMENTS_AN_EPOCH


@pytest.mark.parametrize("is_base_ahead", [False, True])
def test_a_moment_after_a_clock_was_corrected_is_found(*, is_base_ahead: bool) -> None:
    """Such a moment is found after an object, and perhaps a base, with a later time from a clock that was ahead."""
    hour_ms = 3_600_000
    ahead = replace(segment(1, 5, 9), time_ms=time_of((1, 9)) + hour_ms)
    wrong = replace(base((1, 7), (1, 9)), time_ms=ahead.time_ms)
    where = listing(
        *([] if is_base_ahead else [base((1, 0))]),
        segment(1, 1, 4),
        ahead,
        wrong,
        segment(2, 1, 3, previous=9),
        segment(2, 4, 6),
    )
    for moment_ms, frame in ((time_of((2, 3)), 3), (time_of((2, 5)), 3), (time_of((2, 6)), 6)):
        plan = planned(where, AtTime(moment_ms))
        assert plan.reached.position == Position(G1, 2, frame)
        assert plan.objects[-1] == segment(2, 4, 6) or frame == 3
    refusal = refused(where, AtTime(time_of((2, 6)) + 1))
    assert refusal.before is not None
    assert refusal.before.position == Position(G1, 2, 6)
