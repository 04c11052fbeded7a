"""Tests of whether this machine's clock agrees with the store's."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from structlog.testing import capture_logs

from walsyncd.adapters.files.inotify import InotifyReader
from walsyncd.adapters.journal.journal import Journal
from walsyncd.engine.daemon.clock_watch import LEAP_KEPT_MS, ClockWatch, Noted, environment_by, remembering_clock
from walsyncd.engine.follow.event_pump import EventPump
from walsyncd.errors import StateError

NOW_MS = 1_800_000_000_000


def watch(store_ms: list[int | None]) -> ClockWatch:
    """Return a clock beside a store whose last answer had this time."""
    storage = SimpleNamespace(clock_ms=lambda: store_ms[0])
    return ClockWatch(lambda: cast("Any", [storage]), lambda: NOW_MS)


@pytest.mark.parametrize("off_ms", [-300_000, 0, 1_000, 300_000])
def test_clocks_that_differ_by_minutes_agree(off_ms: int) -> None:
    """Minutes do not matter for deletions."""
    clock = watch([NOW_MS + off_ms])
    assert clock.words() == ""
    assert clock.ahead_s() == -off_ms / 1000


def test_a_store_without_a_clock_agrees_with_every_clock() -> None:
    """A folder has only our own clock."""
    clock = watch([None])
    assert (clock.ahead_s(), clock.words()) == (0.0, "")


def test_of_several_stores_the_one_that_differs_most_counts() -> None:
    """The difference may be in either direction."""
    stores = [SimpleNamespace(clock_ms=lambda off=off: NOW_MS + off) for off in (1_000, 500_000, -400_000)]
    assert ClockWatch(lambda: cast("Any", stores), lambda: NOW_MS).ahead_s() == -500


def test_a_clock_that_is_off_is_said_once_with_its_direction() -> None:
    """A wrong clock is reported once until it is right. When it is wrong again, it is reported again."""
    store_ms: list[int | None] = [NOW_MS - 86_400_000]
    clock = watch(store_ms)
    with capture_logs() as lines:
        clock.compare()
        clock.compare()
        assert "86400 s ahead of the store's" in clock.words()
        store_ms[0] = NOW_MS + 86_400_000
        assert "86400 s behind the store's" in clock.words()
        store_ms[0] = NOW_MS
        clock.compare()
        assert clock.words() == ""
        store_ms[0] = NOW_MS + 86_400_000
        clock.compare()
    said = [line["ahead_s"] for line in lines if line["event"] == "clock_differed"]
    assert said == [86_400, -86_400]


@pytest.mark.parametrize(
    ("off_ms", "true_ms"),
    [
        ([None], 0),
        ([-300_000], 0),
        ([-300_001], -300_001),
        ([86_400_000], 86_400_000),
        ([86_400_000, None, 5_000], 0),
        ([86_400_000, -400_000], -400_000),
    ],
)
def test_the_true_time_is_a_stores_if_all_differ(off_ms: list[int | None], true_ms: int) -> None:
    """Of several stores the nearest one counts."""
    stores = [SimpleNamespace(clock_ms=lambda off=off: off if off is None else NOW_MS + off) for off in off_ms]
    clock = ClockWatch(lambda: cast("Any", stores), lambda: NOW_MS)
    assert clock.now_ms() == NOW_MS + true_ms
    assert clock.is_known() is any(off is not None for off in off_ms)


def test_a_clock_that_was_set_back_is_known_to_be_right() -> None:
    """Without a store's clock, the clock that counts from the boot shows that the machine's clock is right.

    The next run of the same boot knows this too.
    """
    ahead_ms, noted = [0], list[Noted]()
    clock = ClockWatch(wall_ms=lambda: NOW_MS + ahead_ms[0], boot_ms=lambda: 5_000, note=noted.append)
    assert not clock.is_known()
    ahead_ms[0] = 7_200_000
    clock.compare()
    clock.compare()
    assert (clock.is_known(), clock.now_ms(), noted) == (
        False,
        NOW_MS + 7_200_000,
        [Noted(NOW_MS + 7_200_000 - 5_000, 5_000, NOW_MS + 7_200_000 - 5_000, 0)],
    )
    ahead_ms[0] = 6_900_000
    assert not clock.is_known()
    ahead_ms[0] = 6_899_999
    assert clock.is_known()
    ahead_ms[0] = 0
    assert ClockWatch(wall_ms=lambda: NOW_MS, boot_ms=lambda: 5_000, noted=noted[-1]).is_known()
    assert not ClockWatch(wall_ms=lambda: NOW_MS, boot_ms=lambda: 5_000).is_known()


def test_what_the_next_run_must_know_is_in_the_journal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The note is valid for this boot. After a reboot it is unknown whether the clock was ahead or is behind."""
    with Journal.open(tmp_path) as journal:
        remembering_clock(journal).compare()
        noted = (journal.fact("clock") or "").split(" ")
        journal.note_fact("clock", " ".join([noted[0], str(int(noted[1]) + 7_200_000), *noted[2:]]))
        assert remembering_clock(journal).is_known()
        journal.note_fact("clock", f"{noted[0]} {int(noted[1]) + 7_200_000} {noted[2]}")
        assert not remembering_clock(journal).is_known(), "of a version that noted less"
        journal.note_fact("clock", " ".join([noted[0], str(int(noted[1]) + 7_200_000), *noted[2:]]))
        monkeypatch.setattr("walsyncd.engine.daemon.clock_watch.boot_id", lambda: "another")
        assert not remembering_clock(journal).is_known()
        with InotifyReader() as watcher:
            events = EventPump(watcher, lambda _woken: None, lambda: None)
            environment = environment_by(remembering_clock(journal), journal, events, lambda: 7)
        assert (environment.boot_id, environment.spool_bytes_max()) == ("another", 7)


def test_a_clock_that_was_set_forward_has_leapt_for_a_day() -> None:
    """A clock has leapt if it was set by more than clocks usually differ. Setting the clock back ends this."""
    ahead_ms, boot_ms = [0], [5_000]
    clock = ClockWatch(wall_ms=lambda: NOW_MS + boot_ms[0] + ahead_ms[0], boot_ms=lambda: boot_ms[0])
    assert not clock.has_leapt()
    ahead_ms[0] = 300_000
    assert not clock.has_leapt()
    ahead_ms[0] = 300_001
    assert clock.has_leapt()
    boot_ms[0] += LEAP_KEPT_MS - 1
    assert clock.has_leapt()
    boot_ms[0] += 1
    assert not clock.has_leapt()
    ahead_ms[0] = 30 * LEAP_KEPT_MS
    assert clock.has_leapt()
    ahead_ms[0] = 0
    assert not clock.has_leapt()
    next_run = ClockWatch(
        wall_ms=lambda: NOW_MS + 7_200_000 + boot_ms[0],
        boot_ms=lambda: boot_ms[0],
        noted=Noted(NOW_MS, -LEAP_KEPT_MS, NOW_MS, 0),
    )
    assert next_run.has_leapt()
    noted = Noted(NOW_MS, boot_ms[0] - 5, NOW_MS, 0)
    assert ClockWatch(wall_ms=lambda: NOW_MS + boot_ms[0], boot_ms=lambda: boot_ms[0], noted=noted).has_leapt()


def test_a_second_leap_is_a_leap_for_the_next_run_too() -> None:
    """The second leap is smaller than the first, which was corrected. Nothing in a folder is deleted because of it."""
    ahead_ms, noted = [0], list[Noted]()

    def run() -> ClockWatch:
        return ClockWatch(
            wall_ms=lambda: NOW_MS + ahead_ms[0],
            boot_ms=lambda: 5_000,
            noted=noted[-1] if noted else None,
            note=noted.append,
        )

    clock = run()
    for ahead_ms[0] in (0, 30 * LEAP_KEPT_MS, 0):
        clock.compare()
    assert not clock.has_leapt()
    ahead_ms[0] = 20 * LEAP_KEPT_MS
    assert run().has_leapt()


def test_a_clock_that_was_set_back_proves_nothing_where_a_store_told_its_time() -> None:
    """The clock may have been right before.

    The next run of the boot does not trust it before an answer of the store.
    """
    ahead_ms, store_ms, noted = [0], list[int | None]([NOW_MS]), list[Noted]()
    stores = [SimpleNamespace(clock_ms=lambda: store_ms[0])]

    def run() -> ClockWatch:
        return ClockWatch(
            lambda: cast("Any", stores),
            lambda: NOW_MS + ahead_ms[0],
            boot_ms=lambda: 5_000,
            noted=noted[-1] if noted else None,
            note=noted.append,
        )

    clock = run()
    clock.compare()
    ahead_ms[0] = -3_600_000
    clock.compare()
    assert (clock.is_known(), clock.now_ms()) == (True, NOW_MS)
    store_ms[0] = None
    assert not run().is_known()
    store_ms[0] = NOW_MS
    assert run().is_known()


@pytest.mark.parametrize("store_ms", [-1, 0, 946_684_800_000, 7_258_118_400_001, 253_370_764_800_000])
def test_a_date_that_cannot_be_true_is_not_taken_for_the_time(store_ms: int) -> None:
    """Such a date does not fit a key, or would make all stored times doubtful. Nothing is deleted meanwhile."""
    clock = watch([store_ms])
    assert (clock.now_ms(), clock.is_known()) == (NOW_MS, False)
    assert "the store's" in clock.words()


def test_an_answer_is_no_failure_because_the_clock_cannot_be_noted() -> None:
    """The journal's disk is full, so the store's time is noted with a later answer."""
    noted, is_full = list[Noted](), [True]

    def note(new: Noted) -> None:
        if is_full[0]:
            raise StateError("write journal: disk full")
        noted.append(new)

    clock = ClockWatch(wall_ms=lambda: NOW_MS, boot_ms=lambda: 5_000, note=note)
    clock.compare()
    assert not noted
    is_full[0] = False
    clock.compare()
    clock.compare()
    assert noted == [Noted(NOW_MS - 5_000, -LEAP_KEPT_MS, NOW_MS - 5_000, 0)]
