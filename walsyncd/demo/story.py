"""The phases of the demo: what happens, and what must be true at the end.

Three moments are marked meanwhile, each in a pause of the application. They are restored at the end:

==================  ==========================  ==================================================================
mark                restored with               why the application pauses
==================  ==========================  ==================================================================
before the kills    ``--position``              its files are copied, to be compared page by page
between             ``--at``                    the same, and walsyncd sees a commit a moment after the commit
the head            no option                   the application has ended
==================  ==========================  ==================================================================
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from walsyncd.core.stored.moment import format_moment
from walsyncd.demo.diary import counter_at
from walsyncd.demo.page_comparison import Comparison, compare, settled_copy
from walsyncd.demo.stage import NAME, Stage

SHORT_S, LONG_S = 1.0, 2.0  # how long the application works between two events
SYNC_TIMEOUT = "4m"  # usually seconds; a new generation waits for its delay and its base
MARGIN_S = 0.05  # the time between a moment to restore and the next commit, since --at is exact to the millisecond


class Display(Protocol):
    """Shows the phases to the user."""

    def begin(self, title: str) -> None:
        """Begin a phase."""

    def end(self, result: str, *, is_good: bool = True) -> None:
        """End the phase."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment to restore, with restore's options for it, a copy of the database at that time, and its last commit."""

    what: str
    question: tuple[str, ...]
    expected: Path
    counter: int


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of the demo in numbers. ``size`` is the size of the bucket in bytes.

    ``generations`` has, for each unbroken history, the reason why it began. There should be only one.
    """

    commits: int
    kills: int
    objects: int
    size: int
    generations: tuple[str, ...]
    comparisons: tuple[Comparison, ...]

    @property
    def is_good(self) -> bool:
        """Whether every comparison found the databases equal."""
        return all(comparison.is_equal for comparison in self.comparisons)


def play(stage: Stage, display: Display) -> Outcome:
    """Play all phases. Raises WalsyncdError if a phase can't continue. Afterwards all processes have ended."""
    with stage:
        _begin(stage, display)
        marks = [_mark_position(stage, display)]
        _kill(stage, display, "writes")
        marks.append(_mark_moment(stage, display))
        _kill(stage, display, "writes again")
        _stir(stage, display)
        marks.append(_mark_head(stage, display))
        comparisons = tuple(_compare(stage, display, mark) for mark in marks)
        generations = _finish(stage, display)
    bucket = stage.contents()
    return Outcome(len(stage.diary()), stage.kills, bucket.objects, bucket.size, generations, comparisons)


def _begin(stage: Stage, display: Display) -> None:
    display.begin("an application begins to write")
    stage.start_application()
    stage.tell("write")
    stage.play(SHORT_S / 2)
    display.end(f"{len(stage.diary())} commits so far, walsyncd does not run yet")
    display.begin("walsyncd run: the first base, while the application writes on")
    stage.start_daemon()
    stage.wait_until(lambda: stage.contents().bases > 0, "a base is stored")
    display.end(f"a base is stored, after {len(stage.diary())} commits")
    display.begin("rollbacks, transactions larger than the cache, all four checkpoints, connections come and go")
    stage.tell("stir")
    stage.play(LONG_S)
    display.end(f"{len(stage.diary())} commits, {stage.contents().objects} objects")


def _mark_position(stage: Stage, display: Display) -> Mark:
    display.begin("walsyncd sync: a position to come back to")
    stage.tell("pause")
    position = _sync(stage)
    expected = settled_copy(stage.database, stage.folder / "restored" / "expected-position.db")
    counter = stage.diary()[-1].counter
    stage.tell("write")
    display.end(f"commit {counter} is {position}")
    return Mark("restored to that position", ("--position", position), expected, counter)


def _mark_moment(stage: Stage, display: Display) -> Mark:
    display.begin("a quiet moment to come back to")
    stage.tell("pause")
    _sync(stage)  # walsyncd dates a commit when it sees the commit; after the sync it has seen all commits
    time_ms = time.time_ns() // 1_000_000
    expected = settled_copy(stage.database, stage.folder / "restored" / "expected-moment.db")
    counter = counter_at(stage.diary(), time_ms)
    time.sleep(MARGIN_S)
    stage.tell("write")
    moment = format_moment(time_ms)
    display.end(f"commit {counter} was the last one at {moment}")
    return Mark("restored to that moment", ("--at", moment), expected, counter)


def _kill(stage: Stage, display: Display, doing: str) -> None:
    display.begin(f"kill -9, while the application {doing}")
    stage.play(SHORT_S)
    stage.kill_daemon()
    before = len(stage.diary())
    stage.play(SHORT_S)
    display.end(f"the daemon is gone, and {len(stage.diary()) - before} commits happened without it")
    display.begin("walsyncd run: it goes on where it was killed")
    stored = stage.contents().stored
    stage.start_daemon()
    stage.wait_until(lambda: stage.contents().stored != stored, "something new is stored")
    display.end(f"stored up to {stage.contents().stored}")


def _stir(stage: Stage, display: Display) -> None:
    display.begin("checkpoints and connections again, and the last connection closes")
    stage.tell("stir")
    stage.play(SHORT_S)
    stage.tell("close")
    stage.play(SHORT_S)
    display.end(f"{len(stage.diary())} commits, {stage.contents().objects} objects")


def _mark_head(stage: Stage, display: Display) -> Mark:
    display.begin("the application ends; walsyncd sync")
    stage.tell("pause")
    stage.end_application()
    position = _sync(stage)
    expected = settled_copy(stage.database, stage.folder / "restored" / "expected-head.db")
    counter = stage.diary()[-1].counter
    display.end(f"all {counter} commits are stored, the last one is {position}")
    return Mark("restored to the head", (), expected, counter)


def _compare(stage: Stage, display: Display, mark: Mark) -> Comparison:
    display.begin(f"walsyncd restore {' '.join(mark.question)}".rstrip())
    restored = mark.expected.with_name(mark.expected.name.replace("expected-", ""))
    stage.run("restore", NAME, "-o", str(restored), *mark.question)
    comparison = compare(mark.what, restored, mark.expected, mark.counter)
    stage.equal += comparison.is_equal
    display.end(str(comparison), is_good=comparison.is_equal)
    return comparison


def _finish(stage: Stage, display: Display) -> tuple[str, ...]:
    """Verify the whole replica, stop the daemon, and return why each generation began."""
    display.begin("walsyncd verify; walsyncd ls; stop the daemon")
    said = stage.run("verify", NAME)
    (database,) = json.loads(stage.run("ls", NAME, "--json"))["databases"]
    stage.stop_daemon()
    display.end(said.strip().rpartition(": ")[2])
    return tuple(str(generation["reason"]) for generation in database["generations"])


def _sync(stage: Stage) -> str:
    """Wait until everything is stored, and return the position of the newest stored commit."""
    return stage.run("sync", NAME, "--timeout", SYNC_TIMEOUT).split()[-1]
