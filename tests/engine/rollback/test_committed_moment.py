"""Tests of committed moments: a writer's and a reader's steps in many orders, on a model of a database of three pages.

The model has what a reader can see: pages, locks, the journal, times, and events. A write changes the page first and
queues its event after that, as write() does. File times come from a coarse clock that never ticks, or from a fine one,
in which case no events come.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence

import pytest

from walsyncd.adapters.files.rollback_files import JournalSight, WriterLocks
from walsyncd.engine.rollback.committed_moment import FileTimes, Hindrance, MomentStart, begin_moment, end_moment

PAGES = 3


class Model:
    """A database, and the writers' script that changes it step by step."""

    def __init__(self, *, watched: bool = True, settled: bool = True) -> None:
        self.pages = ["old"] * PAGES
        self.reserved = self.writing = False
        self.sight = JournalSight.COLD
        self.queued = self.taken = 0
        self.mtime_ns = 1
        self.watched = watched
        self.settled = settled
        self.named = True

    # -- what a writer does

    def reserve(self) -> None:
        self.reserved, self.sight = True, JournalSight.HOT

    def lock(self) -> None:
        self.writing = True

    def put(self, number: int, content: str) -> Iterator[Callable[[], None]]:
        yield lambda: self.pages.__setitem__(number, content)
        yield self._written

    def _written(self) -> None:
        if self.watched:
            self.queued += 1
        else:
            self.mtime_ns += 1

    def end_journal(self) -> None:
        self.sight = JournalSight.COLD

    def unlock(self) -> None:
        self.reserved = self.writing = False

    def die(self) -> None:
        self.unlock()

    def replace(self) -> None:
        self.named = False

    # -- what a reader sees (``FileLooks``)

    def events(self) -> int:
        self.taken = self.queued
        return self.taken

    def is_watched(self) -> bool:
        return self.watched

    def page_1(self) -> bytes:
        return self.pages[0].encode()

    def locks(self) -> WriterLocks:
        return WriterLocks(reserved=self.reserved, writing=self.writing)

    def journal(self) -> JournalSight:
        return self.sight

    def times(self) -> FileTimes:
        return FileTimes(PAGES, self.mtime_ns, self.mtime_ns, self.settled)

    def is_named(self) -> bool:
        return self.named


class Interleaved:
    """The reader's looks at a model. Before each of them the writer may continue."""

    def __init__(self, model: Model, script: Sequence[Callable[[], None]], stops: Sequence[int]) -> None:
        self.model = model
        self.script = iter(script)
        self.stops = iter(stops)

    def __getattr__(self, look: str) -> Callable[[], object]:
        def then() -> object:
            for _ in range(next(self.stops, 0)):
                next(self.script)()
            return getattr(self.model, look)()

        return then

    def page(self, number: int) -> str:
        for _ in range(next(self.stops, 0)):
            next(self.script)()
        return self.model.pages[number]


def a_commit(model: Model, content: str = "new") -> list[Callable[[], None]]:
    writes = [step for number in range(PAGES) for step in model.put(number, content)]
    return [model.reserve, model.lock, *writes, model.end_journal, model.unlock]


def a_spill_and_rollback(model: Model) -> list[Callable[[], None]]:
    spilled = [step for number in (1, 2) for step in model.put(number, "torn")]
    restored = [step for number in (1, 2) for step in model.put(number, "old")]
    return [model.reserve, model.lock, *spilled, *restored, model.end_journal, model.unlock]


def a_kill_and_recovery(model: Model) -> list[Callable[[], None]]:
    written = [step for number in (0, 1) for step in model.put(number, "torn")]
    restored = [step for number in (0, 1) for step in model.put(number, "old")]
    return [model.reserve, model.lock, *written, model.die, model.lock, *restored, model.end_journal, model.unlock]


LOOKS_MAX = 6 + PAGES + 7
ORDERS = 6000  # of some hundred thousand orders; each step of the writer meets each look many times


def orders(length: int) -> Iterator[list[int]]:
    """Yield how many steps of the writer come before each look.

    The orders are drawn, with a pause of the writer at up to four looks.
    """
    draw = random.Random(length)
    for _ in range(ORDERS):
        cuts = sorted(draw.choices(range(length + 1), k=3))
        stops = [0] * LOOKS_MAX
        for look, first, last in zip(
            sorted(draw.sample(range(LOOKS_MAX), 4)), (0, *cuts), (*cuts, length), strict=True
        ):
            stops[look] = last - first
        yield stops


def read(looks: Interleaved) -> list[str] | None:
    """Return what the reader believes, or None if it believes nothing."""
    start = begin_moment(looks)  # type: ignore[arg-type]
    if isinstance(start, Hindrance):
        return None
    pages = [looks.page(number) for number in range(PAGES)]
    return pages if end_moment(looks, start, pages[0].encode()) is None else None  # type: ignore[arg-type]


@pytest.mark.parametrize("watched", [True, False], ids=["by events", "by times"])
@pytest.mark.parametrize("script_of", [a_commit, a_spill_and_rollback, a_kill_and_recovery])
def test_no_order_of_steps_lets_a_mixture_pass(
    script_of: Callable[[Model], list[Callable[[], None]]], *, watched: bool
) -> None:
    """What is believed is the database before the writer or after it.

    Without a writer the reading is always believed.
    """
    believed = 0
    length = len(script_of(Model()))
    for stops in orders(length):
        model = Model(watched=watched)
        pages = read(Interleaved(model, script_of(model), stops))
        if pages is not None:
            believed += 1
            assert len(set(pages)) == 1, stops
            assert pages[0] in {"old", "new"}, stops
    assert believed


def test_a_quiet_database_is_believed_and_read_once() -> None:
    """Nobody writes, so the pages are a committed state."""
    model = Model()
    assert read(Interleaved(model, [], [])) == ["old"] * PAGES


def test_a_hot_journal_is_never_read_past() -> None:
    """The journal's writer is gone. A writer that holds RESERVED has only written its journal."""
    model = Model()
    model.sight = JournalSight.HOT
    assert begin_moment(model) is Hindrance.HOT
    model.reserved = True
    assert isinstance(begin_moment(model), MomentStart)
    model.writing = True
    assert begin_moment(model) is Hindrance.WRITER


def test_a_journal_whose_super_journal_is_gone_waits_for_an_opener() -> None:
    """The transaction is committed, but the next process that opens the database decides that, not the reader."""
    model = Model()
    model.sight = JournalSight.SUPER_JOURNAL_GONE
    assert begin_moment(model) is Hindrance.SUPER_JOURNAL


def test_another_file_in_its_place_voids_what_was_read() -> None:
    """The pages that were read are those of a file that the path no longer names."""
    model = Model()
    start = begin_moment(model)
    assert isinstance(start, MomentStart)
    model.replace()
    assert end_moment(model, start, b"old") is Hindrance.REPLACED


def test_page_1_must_be_the_one_of_the_start() -> None:
    """Page 1 is read three times: before, among the pages, and after."""
    model = Model()
    start = begin_moment(model)
    assert isinstance(start, MomentStart)
    assert end_moment(model, start, b"other") is Hindrance.WRITTEN
    model.pages[0] = "other"
    assert end_moment(model, start, b"old") is Hindrance.WRITTEN


def test_without_events_a_file_must_have_been_quiet() -> None:
    """A write within the grain of the file's times would not change them."""
    assert begin_moment(Model(watched=False, settled=False)) is Hindrance.UNSETTLED
    assert isinstance(begin_moment(Model(watched=True, settled=False)), MomentStart)


def test_page_1_that_says_wal_hands_over() -> None:
    """Checkpoints put parts of states into the file."""
    model = Model()
    header = bytearray(b"SQLite format 3\0" + bytes(84))
    header[18:20] = b"\2\2"
    model.page_1 = lambda: bytes(header)  # type: ignore[method-assign]
    assert begin_moment(model) is Hindrance.WAL
