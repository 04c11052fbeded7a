"""Tests of walsyncd.core.follow.backpressure_decision."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from walsyncd.core.follow.backpressure_decision import (
    HOLD_MS_MAX,
    IDLE_MS,
    VOID,
    Copied,
    Decision,
    Held,
    HoldState,
    KeepMark,
    ReleaseMark,
    SeenIndex,
    TakeMark,
    decide_hold,
)
from walsyncd.core.sqlite.walindex import MARK_UNUSED, IndexHeader

OLD, NEW = (1, 2), (3, 4)
LIMIT = 256 << 20
NOW = 10_000
FREE = (0, 0, MARK_UNUSED, MARK_UNUSED, MARK_UNUSED)
INDEX = IndexHeader(9, False, 4096, 10, 5, (0, 0), NEW, 0, (0, 0, MARK_UNUSED, MARK_UNUSED, MARK_UNUSED))
NEXT = replace(INDEX, salts=(5, 6), max_frame=1)
SEEN = SeenIndex(
    index=INDEX,
    marks=FREE,
    is_used=True,
    is_named=True,
    is_touched=False,
    is_modified=False,
    index_bytes=32768,
    is_written=True,
    is_checkpointing=False,
    copied=Copied(OLD, 1000),
    now_ms=NOW,
)
HOLDING = HoldState(NEW, 5, 1000, moved_ms=NOW - 1, held=Held(4, NEW, NOW - 10, 32768))
FREED = HoldState(OLD, 1000)


def looked(state: HoldState, seen: SeenIndex, limit: int = LIMIT) -> Decision:
    return decide_hold(state.after(seen), seen, limit)


def test_it_is_taken_right_after_a_restart() -> None:
    """The lock is taken before anything can be lost: the salts are new, and the follower is still in the old
    incarnation.
    """
    assert looked(FREED, SEEN) == TakeMark((4, 3, 2))
    assert looked(replace(FREED, is_over=True), SEEN) == TakeMark((4, 3, 2))


def test_only_unused_marks_and_never_0_or_1() -> None:
    """A checkpoint stops at a read mark that is in use, and SQLite needs marks 0 and 1 itself."""
    used = replace(SEEN, marks=(MARK_UNUSED, MARK_UNUSED, MARK_UNUSED, 7, 0))
    assert looked(FREED, used) == TakeMark((2,))
    assert looked(FREED, replace(SEEN, marks=(MARK_UNUSED, MARK_UNUSED, 1, 7, 0))) == KeepMark()


@pytest.mark.parametrize(
    "change",
    [
        {"is_used": False},
        {"is_named": False},
        {"is_touched": True},
        {"is_modified": True},
        {"is_modified": True, "index_bytes": 65536},
        {"index": None},
        {"marks": ()},
        {"copied": None},
    ],
)
def test_nothing_is_taken_where_it_may_do_harm(change: dict[str, Any]) -> None:
    """Nothing is locked without POSIX locks, for another file, for a header that is not whole, or if nobody follows."""
    assert isinstance(looked(FREED, replace(SEEN, **change)), ReleaseMark)


def test_nothing_is_taken_on_an_idle_wal() -> None:
    """A WAL that did not move within the last milliseconds does not restart."""
    state = HoldState(NEW, 10, moved_ms=NOW - IDLE_MS)
    assert looked(state, replace(SEEN, is_written=False)) == KeepMark()
    assert looked(replace(state, moved_ms=NOW - IDLE_MS + 1), replace(SEEN, is_written=False)) == TakeMark((4, 3, 2))


def test_it_is_kept_until_everything_is_copied_and_the_wal_may_restart() -> None:
    """The lock stays even if all is copied, because the next commits would be lost.

    The WAL must be able to restart, too.
    """
    copied = replace(SEEN, copied=Copied(NEW, 10))
    assert looked(HOLDING, SEEN) == KeepMark()
    assert looked(HOLDING, copied) == KeepMark()
    backfilled = replace(copied, index=replace(INDEX, backfilled=10))
    release = looked(HOLDING, backfilled)
    assert isinstance(release, ReleaseMark)
    assert release.is_over
    assert not release.is_limit
    assert looked(HOLDING, replace(backfilled, copied=Copied(NEW, 9))) == KeepMark()
    assert looked(HOLDING, replace(backfilled, copied=Copied(OLD, 10))) == KeepMark(), "copied of another incarnation"


def test_a_checkpoint_past_half_of_the_last_size_ends_it() -> None:
    """The size at which the WAL last restarted counts.

    Below half of it the application may checkpoint for another reason.
    """
    checkpoint = replace(SEEN, copied=Copied(NEW, 10), is_checkpointing=True)
    assert looked(replace(HOLDING, restart_frames=20), checkpoint) == KeepMark()
    ended = looked(replace(HOLDING, restart_frames=19), checkpoint)
    assert isinstance(ended, ReleaseMark)
    assert ended.is_over
    assert looked(replace(HOLDING, restart_frames=0), checkpoint) == KeepMark(), "no restart was seen"


def test_the_first_frame_may_change_the_salts() -> None:
    """If the first frame of a WAL changes the salts, the WAL has not restarted.

    The lock that was taken before stays, and the next restart counts.
    """
    assert looked(replace(HOLDING, frames=1), replace(SEEN, index=NEXT)) == ReleaseMark(VOID, is_void=True)
    begun = replace(HOLDING, frames=0)
    assert looked(begun, replace(SEEN, index=NEXT)) == KeepMark()
    again = replace(SEEN, index=replace(NEXT, salts=(7, 8)))
    assert looked(begun.after(replace(SEEN, index=NEXT)), again) == ReleaseMark(VOID, is_void=True)


def test_not_again_before_the_salts_change() -> None:
    """Once the WAL may restart, a new lock would only be in the way."""
    over = HoldState(NEW, 10, 1000, moved_ms=NOW, is_over=True)
    assert looked(over, SEEN) == KeepMark()
    newer = replace(SEEN, index=replace(INDEX, salts=(5, 6), max_frame=0))
    assert looked(over, newer) == TakeMark((4, 3, 2))
    assert over.after(newer).restart_frames == 10


def test_an_idle_wal_is_released_and_taken_again_when_it_moves() -> None:
    """An idle WAL is released, so that the application's own RESTART checkpoint finds nothing in its way."""
    idle = replace(HOLDING, frames=10, moved_ms=NOW - IDLE_MS)
    quiet = replace(SEEN, is_written=False, copied=Copied(NEW, 10))
    release = looked(idle, quiet)
    assert isinstance(release, ReleaseMark)
    assert not release.is_over
    assert looked(idle, replace(quiet, copied=Copied(NEW, 9))) == KeepMark(), "it is not copied yet"
    again = replace(idle, held=None)
    assert looked(again, replace(SEEN, copied=Copied(NEW, 9))) == TakeMark((4, 3, 2))


def test_time_and_size_end_it() -> None:
    """After too much time or too many bytes the lock ends. The gap that follows is bridged."""
    late = replace(SEEN, now_ms=HOLDING.held.since_ms + HOLD_MS_MAX if HOLDING.held else 0)
    large = replace(SEEN, index=replace(INDEX, max_frame=100))
    for decision in (looked(HOLDING, late), looked(HOLDING, large, 100 * 4120 - 1)):
        assert isinstance(decision, ReleaseMark)
        assert decision.is_over
        assert decision.is_limit
    assert looked(HOLDING, large, 100 * 4120) == KeepMark()
    assert looked(HOLDING, replace(late, now_ms=late.now_ms - 1)) == KeepMark()
    torn = replace(late, index=None)
    assert isinstance(looked(HOLDING, torn), ReleaseMark), "a torn header stops no clock"


@pytest.mark.parametrize(
    "change",
    [
        {"marks": (0, 0, MARK_UNUSED, MARK_UNUSED, 0)},
        {"marks": ()},
        {"is_used": False},
        {"is_named": False},
        {"is_touched": True},
        {"is_modified": True},
        {"is_modified": True, "index_bytes": 3},
        {"is_modified": True, "index_bytes": 65536, "is_touched": True},
        {"is_modified": True, "index_bytes": 65536, "marks": (0, 0, 0, 0, 0)},
        {"copied": None},
    ],
)
def test_it_is_given_up_at_once(change: dict[str, Any]) -> None:
    """The lock is released at once, and taken again at a later look if all is well again."""
    decision = looked(HOLDING, replace(SEEN, **change))
    assert isinstance(decision, ReleaseMark)
    assert not decision.is_over
    assert not decision.is_void


def test_a_growth_of_the_wal_index_is_no_reason_to_give_it_up() -> None:
    """SQLite grows the wal-index while the follower is furthest behind. Its write arrives as several events."""
    assert looked(HOLDING, replace(SEEN, is_modified=True, index_bytes=65536)) == KeepMark()
    assert looked(HOLDING, replace(SEEN, is_modified=True, index_bytes=32768 + 4096)) == KeepMark()


def test_a_torn_header_is_forgiven_once() -> None:
    """A commit may be writing the header while we read it.

    A header that is torn twice was left by a process that died.
    """
    torn = replace(SEEN, index=None)
    assert looked(HOLDING, torn) == KeepMark()
    assert isinstance(looked(replace(HOLDING, was_torn=True), torn), ReleaseMark)


def test_a_restart_while_it_is_held_makes_it_void() -> None:
    """A restart while the lock is held shows that some process uses no locks, so the lock is void."""
    newer = replace(SEEN, index=replace(INDEX, salts=(5, 6)))
    assert looked(HOLDING, newer) == ReleaseMark(VOID, is_void=True)
    assert looked(HoldState(NEW, 10, is_void=True), newer) == KeepMark()


def test_it_sleeps_where_nothing_can_happen() -> None:
    """No look is planned without an event once the incarnation is over or the WAL is idle."""
    assert HOLDING.is_active(NOW + 10_000)
    assert HoldState(NEW, 1, moved_ms=NOW).is_active(NOW + IDLE_MS - 1)
    assert not HoldState(NEW, 1, moved_ms=NOW).is_active(NOW + IDLE_MS)
    assert not HoldState(NEW, 1, moved_ms=NOW, is_over=True).is_active(NOW)
    assert not HoldState(NEW, 1, moved_ms=NOW, is_void=True).is_active(NOW)
