"""Tests of merging: what is put together, under which key, and that nothing is lost, doubled or moved."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.send.merge import (
    MERGED_SIZE_MAX,
    MERGED_SIZE_MIN,
    Run,
    Waiting,
    adjoins,
    crowded_runs,
    head_run,
    merged_key,
    size_max_after,
)
from walsyncd.core.stored.layout import SegmentKey, parse_key
from walsyncd.core.stored.layout import format_key as text

G = "20261122T105600Z-3f9c1a2b"


def key(first: int, last: int, *, epoch: int = 2, time_ms: int = 0) -> SegmentKey:
    return SegmentKey(G, epoch, first, last, time_ms or last, 9 if first == 1 else None)


def wait(first: int, last: int, size: int = 10, *, begun: bool = False, epoch: int = 2) -> Waiting:
    return Waiting(key(first, last, epoch=epoch), size, begun)


def bridge(first: int, last: int) -> Waiting:
    return Waiting(replace(key(first, last), bridge=True), 10, begun=False)


@st.composite
def queues(draw: st.DrawFn) -> list[Waiting]:
    """Return a queue: segments of growing epochs, sometimes a manifest, and any of them may be begun."""
    queue: list[Waiting] = []
    epoch, frame = 1, 0
    for _ in range(draw(st.integers(1, 30))):
        what = draw(st.sampled_from(["segment"] * 8 + ["epoch", "manifest"]))
        if what == "epoch":
            epoch, frame = epoch + 1, 0
        size, begun = draw(st.integers(1, 40)), draw(st.integers(0, 9)) == 0
        if what == "manifest":
            queue.append(Waiting(None, size, begun))
            continue
        last = frame + draw(st.integers(1, 5))
        previous = (0 if epoch == 1 else 5) if frame == 0 else None
        bridge = frame == 0 and draw(st.booleans())
        segment = SegmentKey(G, epoch, frame + 1, last, 1000 * epoch + last, previous, bridge)
        queue.append(Waiting(segment, size, begun))
        frame = last
    return queue


@given(queues())
def test_a_queue_sent_run_by_run_is_the_queue(queue: list[Waiting]) -> None:
    """Each frame is sent once and in order, nothing begun is merged, no merged object exceeds the limit, and keys are
    legal.
    """
    left = list(queue)
    while left:
        run = head_run(left, size_max=100)
        taken, left = left[: run.count], left[run.count :]
        assert run.count >= 1
        if run.count == 1:
            continue
        assert not any(one.begun for one in taken)
        assert sum(one.size for one in taken) <= 100
        keys = [one.key for one in taken if one.key is not None]
        assert len(keys) == run.count
        assert not any(key.bridge for key in keys)
        merged = merged_key(keys)
        assert parse_key(text(merged)) == merged
        assert (merged.generation, merged.epoch, merged.first, merged.previous) == (
            keys[0].generation,
            keys[0].epoch,
            keys[0].first,
            keys[0].previous,
        )
        assert (merged.last, merged.time_ms) == (keys[-1].last, keys[-1].time_ms)


@given(queues())
def test_a_run_is_full_unless_the_next_segment_could_join(queue: list[Waiting]) -> None:
    """Waiting only helps a run that takes in the whole queue and has room."""
    run = head_run(queue, size_max=100)
    if not run.full:
        assert run.count == len(queue)
        assert sum(one.size for one in queue) < 100


@pytest.mark.parametrize(
    ("queue", "expected"),
    [
        ([wait(1, 4)], Run(1, full=False)),
        ([wait(1, 4), wait(5, 5), wait(6, 9)], Run(3, full=False)),
        ([wait(1, 4), wait(6, 9)], Run(1, full=True)),
        ([wait(1, 4), wait(5, 9, epoch=3)], Run(1, full=True)),
        ([wait(1, 4, begun=True), wait(5, 9)], Run(1, full=True)),
        ([wait(1, 4), wait(5, 9, begun=True)], Run(1, full=True)),
        ([bridge(1, 4)], Run(1, full=True)),
        ([bridge(1, 4), wait(5, 9)], Run(1, full=True)),
        ([wait(1, 4, MERGED_SIZE_MAX)], Run(1, full=True)),
        ([wait(1, 4, MERGED_SIZE_MAX - 1), wait(5, 9, 2)], Run(1, full=True)),
        ([wait(1, 4, MERGED_SIZE_MAX - 1), wait(5, 9, 1)], Run(2, full=True)),
        ([Waiting(None, 5, begun=False), wait(1, 4)], Run(1, full=True)),
    ],
)
def test_what_goes_up_next(queue: list[Waiting], expected: Run) -> None:
    """A hole, another epoch, a begun segment, the limit and a manifest each end a run of segments that are merged."""
    assert head_run(queue) == expected


def test_other_generations_do_not_adjoin() -> None:
    """Frames of two histories are never in one object."""
    assert adjoins(key(1, 4), key(5, 6))
    assert not adjoins(key(1, 4), replace(key(5, 6), generation=G[:-1] + "c"))
    assert not adjoins(None, key(5, 6))


def test_the_next_merged_object_is_smaller_than_one_that_failed() -> None:
    """The next object is half as large, down to a limit.

    Once one of that size is stored, the next may be twice as large.
    """
    failed = size_max_after(MERGED_SIZE_MAX, size_max=MERGED_SIZE_MAX, is_stored=False)
    assert failed == MERGED_SIZE_MAX // 2
    assert size_max_after(failed, size_max=failed, is_stored=False) == failed // 2
    assert size_max_after(MERGED_SIZE_MAX, size_max=failed, is_stored=False) == failed, "the same one, tried again"
    assert size_max_after(MERGED_SIZE_MIN + 1, size_max=MERGED_SIZE_MIN, is_stored=False) == MERGED_SIZE_MIN
    assert size_max_after(MERGED_SIZE_MAX, size_max=failed, is_stored=True) == failed, "it was merged before"
    assert size_max_after(100, size_max=failed, is_stored=True) == failed, "it says nothing of the line"
    assert size_max_after(failed, size_max=failed, is_stored=True) == MERGED_SIZE_MAX


def test_a_small_object_that_failed_says_nothing_of_the_line() -> None:
    """If a small object failed, the storage is away. What gathers meanwhile is merged as usual."""
    assert size_max_after(MERGED_SIZE_MIN, size_max=MERGED_SIZE_MAX, is_stored=False) == MERGED_SIZE_MAX


def test_crowds_are_merged_up_to_the_same_size() -> None:
    """The lowered limit holds for many small segments, too."""
    crowd = [wait(n, n) for n in range(1, 11)]
    assert crowded_runs(crowd, count_min=2, size_max=50) == [(0, 5), (5, 10)]
