"""Mutants that leave out rules about a clock that was ahead: what its times must not delay or delete."""

from __future__ import annotations

from tests.mutation.mutants import mutant

DOUBT = "core/restore/clock_doubt.py"
WATCH = "engine/daemon/clock_watch.py"

CLOCK_MUTANTS = (
    mutant(
        "times that fall tell nothing of those before them",
        DOUBT,
        "has_fallen = each.time_ms > later_ms + (0 if has_fallen else CLOCK_OFF_MS)",
        "has_fallen = False",
        "core/restore/test_clock_doubt.py",
    ),
    mutant(
        "what a wrong clock stamped before the time to which times fall is trusted",
        DOUBT,
        "(0 if has_fallen else CLOCK_OFF_MS)",
        "CLOCK_OFF_MS",
        "core/restore/test_clock_doubt.py",
    ),
    mutant(
        "a commit that carries a doubtful time on can be asked for",
        DOUBT,
        "place > self.end.place and time_ms != self.end.time_ms",
        "place > self.end.place",
        "core/restore/test_clock_doubt.py",
    ),
    mutant(
        "a time goes back although nobody knows the true one",
        "engine/follow/environment.py",
        "time_ms > self.wall_ms() + CLOCK_OFF_MS and self.is_clock_known()",
        "time_ms > self.wall_ms() + CLOCK_OFF_MS",
        "engine/follow/test_environment.py",
    ),
    mutant(
        "segments of a clock that was ahead become one object",
        "engine/upkeep/compactor.py",
        "if ahead_ms > CLOCK_OFF_MS:",
        "if False:",
        "engine/upkeep/test_compactor.py",
    ),
    mutant(
        "a drill that was noted ahead delays the next until that date",
        "core/keep/drill_schedule.py",
        "is_ahead = last_ms > now_ms + CLOCK_OFF_MS",
        "is_ahead = False",
        "core/keep/test_drill_schedule.py",
    ),
    mutant(
        "a clock that was set forward makes a folder's replicas old",
        WATCH,
        "return now_ms - self._leapt_ms < LEAP_KEPT_MS",
        "return False",
        "engine/daemon/test_clock_watch.py",
    ),
    mutant(
        "a clock that was set back is right although a store told its time",
        WATCH,
        "return not self._is_dated and self._most_ms - apart_ms > CLOCK_OFF_MS",
        "return self._most_ms - apart_ms > CLOCK_OFF_MS",
        "engine/daemon/test_clock_watch.py",
    ),
    mutant(
        "a store's date is taken whatever it is",
        WATCH,
        "if STORE_MS_MIN <= at_ms <= STORE_MS_MAX",
        "if True",
        "engine/daemon/test_clock_watch.py",
    ),
)
