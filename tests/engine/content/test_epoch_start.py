"""Tests of walsyncd.engine.content.epoch_start: a base where the WAL never restarts."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.content.gaps import LIMITS, Gaps, happens
from walsyncd.adapters.journal.journal import ObjectRow
from walsyncd.core.follow.overwritten import Overwritten
from walsyncd.core.stored.position import Position
from walsyncd.engine.content.epoch_start import EpochStarts
from walsyncd.engine.follow.followed_database import FollowedDatabase


class Bases(Gaps):
    """The same database with a reader that keeps its WAL from restarting, and bases that are copied piece by piece."""

    def __init__(self, folder: Path, *, page_size: int, auto_vacuum: int) -> None:
        limits = replace(LIMITS, epoch_bytes=4 * page_size, epoch_start_retry_s=0.0)
        self.copied = 0
        self.start: Position | None = None
        super().__init__(folder, page_size=page_size, auto_vacuum=auto_vacuum, limits=limits)
        self.hold()

    def open(self) -> None:
        super().open()
        self.epoch_starts = EpochStarts(self.journal, self.environment, self.queue, self.follower.request)
        self.start = None

    def _begin(self, generation: str) -> None:
        super()._begin(generation)
        self.start = None
        self.tracked.note_base(wanted="")  # the database has its first base

    def hold(self) -> None:
        """Let a reader open the database and stay in its transaction."""
        self.reader = SqliteProcess(self.path)
        self.reader.execute("BEGIN", "SELECT count(*) FROM t")

    def begin_base(self) -> None:
        """Do what the snapshotter does when a base is due, or its wait is over."""
        state = self.tracked.state
        if state is None or self.tracked.bridge is not None or self.start is not None:
            return
        self.tracked.note_base(awaits_restart=False)
        if state.start_epoch != state.stream.epoch:
            self.tracked.base_waits()
            self.epoch_starts.begin(self.tracked, lambda _tracked: None, self.offer)
            return
        self.tracked.note_base(under_way=True, waits_since_s=None)
        self.start, self.unbroken = state.start, (self.tracked.gaps, self.tracked.rewinds, self.tracked.generation)
        self.piece, self.whole = b"", self.path.stat().st_size

    def offer(self, rows: list[ObjectRow]) -> None:
        assert len(rows) == 1

    def copy_piece(self, size: int) -> None:
        """Copy a piece of the file, with what checkpoints did to it meanwhile."""
        if self.start is None:
            return
        with self.path.open("rb") as file:
            file.seek(len(self.piece))
            length = min(size, self.whole - len(self.piece))
            self.piece += file.read(length).ljust(length, b"\0")

    def end_base(self) -> None:
        """Copy the rest, and find N. From now on restores begin with this base, and need no earlier epoch."""
        if self.start is None:
            return
        self.copy_piece(self.whole)
        self.settle(mapped=False)
        start, self.start = self.start, None
        self.tracked.note_base(under_way=False)
        if self.unbroken == (self.tracked.gaps, self.tracked.rewinds, self.tracked.generation):
            self.copied += 1
            self.base = self.piece
            self.wals = {epoch: wal for epoch, wal in self.wals.items() if epoch >= start.epoch}
            assert all(epoch in self.wals for epoch in range(start.epoch, max(self.wals) + 1))

    def close(self) -> None:
        self.reader.kill()
        super().close()


@pytest.fixture
def bases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bases]:
    with closing(Bases(tmp_path, page_size=1024, auto_vacuum=0)) as bases:
        bases.sql("INSERT INTO t (y) VALUES " + ", ".join("(randomblob(900))" for _ in range(60)))
        bases.settle()
        for x in range(20):
            bases.sql(f"UPDATE t SET y = randomblob(900) WHERE x = {x}")
            bases.look()
        bases.settle()
        yield bases


def waits(tracked: FollowedDatabase) -> bool:
    state = tracked.state
    return state is not None and state.start_epoch != state.stream.epoch


def test_a_base_begins_although_the_wal_never_restarts(bases: Bases) -> None:
    """The new epoch begins with one transaction of the WAL's pages, which alone makes the new base whole."""
    assert waits(bases.tracked)
    before = bases.tracked.state
    assert before is not None
    bases.begin_base()
    bases.settle()
    after = bases.tracked.state
    assert after is not None
    assert (after.start_epoch, after.start_frame) == (before.stream.epoch + 1, 0)
    assert after.cursor == before.cursor
    bases.check()  # with the old base it changes nothing
    bases.sql("PRAGMA wal_checkpoint(PASSIVE)")
    bases.begin_base()
    bases.copy_piece(5000)
    bases.sql("UPDATE t SET y = randomblob(900) WHERE x < 30", "PRAGMA wal_checkpoint(PASSIVE)")
    bases.end_base()
    assert bases.copied == 1
    assert min(bases.wals) == after.start_epoch
    bases.check()
    bases.sql("VACUUM")
    bases.settle()
    bases.check()
    assert bases.generations == 1


def test_what_is_committed_while_the_wal_is_read_again_is_in_it(bases: Bases) -> None:
    """Commits during the reading are followed and stored as usual, and added to the first transaction at the end."""
    full_bytes = bases.limits.epoch_bytes
    for rest in (bases.limits.epoch_start_bytes, 2000):
        bases.limit(epoch_start_bytes=rest, epoch_bytes=full_bytes)
        while not waits(bases.tracked):
            bases.sql("UPDATE t SET y = randomblob(900) WHERE x = 1")
            bases.settle()
        bases.limit(epoch_bytes=1 << 30)  # otherwise it would begin again
        bases.begin_base()
        for x in range(30, 36):
            bases.sql(f"UPDATE t SET y = randomblob(900) WHERE x = {x}")
            bases.look()
            bases.scan()
            bases.store()
        bases.settle()
        bases.limit(epoch_bytes=full_bytes)
        assert not waits(bases.tracked)
        bases.begin_base()
        bases.end_base()
        bases.check()
    assert bases.copied == 2


def test_the_epoch_stays_open_until_the_base_has_begun(bases: Bases) -> None:
    """However large its first transaction is, the next commit must not close it."""
    bases.begin_base()
    bases.settle()
    bases.sql("UPDATE t SET y = randomblob(900)")
    bases.settle()
    assert bases.tracked.base.can_begin(bases.tracked.state)


def test_a_wal_that_restarts_needs_nothing_of_it(bases: Bases) -> None:
    """If the WAL restarts while it is read again, the reading ends and leaves nothing."""
    bases.begin_base()
    bases.look()
    bases.scan()
    bases.reader.kill()
    bases.sql("PRAGMA wal_checkpoint(TRUNCATE)", "UPDATE t SET y = 1 WHERE x = 1")
    bases.settle()
    bases.hold()
    assert not waits(bases.tracked)
    assert not list((bases.folder / "state" / "spool").glob("*.part"))
    bases.begin_base()
    bases.end_base()
    bases.check()
    assert bases.copied == 1


def test_a_transaction_that_is_too_large_is_said_and_tried_later(bases: Bases) -> None:
    """The transaction would displace what other databases have in the spool. Following is not affected."""
    share = bases.limits.spool_share
    bases.limit(spool_share=1 << 80)
    bases.begin_base()
    while not bases.tracked.base.hindrance:
        bases.scan()
        bases.look()
    bases.limit(spool_share=share)
    assert bases.tracked.base.hindrance == "the pages of the WAL take more than 0 MiB of the spool"
    assert waits(bases.tracked)
    assert not list((bases.folder / "state" / "spool").glob("*.part"))
    bases.sql("UPDATE t SET y = 2 WHERE x = 2")
    bases.settle()
    assert not waits(bases.tracked)
    assert not bases.tracked.base.hindrance
    bases.check()


def test_pages_that_somebody_wrote_over_are_not_taken_from_the_wal(bases: Bases) -> None:
    """The replica has the version of the file, so the base waits for the WAL to restart."""
    bases.sql("PRAGMA wal_checkpoint")
    bases.settle()
    state = bases.tracked.state
    assert state is not None
    assert state.cursor is not None
    wal_pair = bases.tracked.wal_pairs.current
    assert wal_pair is not None
    wal_pair.taken_from_file = wal_pair.index_rebuilds
    bases.tracked.belief = replace(
        bases.tracked.belief, state=replace(state, overwritten=Overwritten(state.cursor.salts, 1))
    )
    bases.begin_base()
    for _ in range(200):
        if bases.tracked.base.hindrance:
            break
        bases.scan()
        bases.follower.request(bases.tracked, lambda _tracked: None)
        bases.follower.round([bases.tracked])
    assert "somebody wrote over pages that the WAL has" in bases.tracked.base.hindrance
    assert waits(bases.tracked)


@pytest.mark.parametrize("seed", range(2))
def test_whatever_happens_the_restored_file_is_the_live_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """There are writers, checkpoints, deaths and dropped spools at any moment.

    Each base and each epoch after it is compared.
    """
    chance = random.Random(seed)
    page_size = chance.choice([512, 1024, 4096])
    with closing(Bases(tmp_path, page_size=page_size, auto_vacuum=chance.choice([0, 1, 2]))) as bases:
        bases.sql("INSERT INTO t (y) VALUES " + ", ".join("(randomblob(900))" for _ in range(120)))
        bases.settle()
        for _ in range(70):
            adversary(bases, chance)
        bases.end_base()
        bases.settle()
        bases.check()
        assert bases.generations == 1 or bases.copied


def adversary(bases: Bases, chance: random.Random) -> None:
    """Do one thing that an application, the follower, the scans, storage or the daemon's death does."""
    match chance.choice(
        ["app", "app", "look", "look", "scan", "scan", "scan", "store", "base", "base", "piece", "rare"]
    ):
        case "app":
            happens(bases, chance)
        case "look":
            bases.look()
        case "scan":
            bases.scan()
        case "store":
            bases.store(chance.randint(1, 3))
        case "base":
            bases.begin_base()
        case "piece":
            bases.copy_piece(chance.randint(1, 20_000))
        case _:
            rarely(bases, chance)


def rarely(bases: Bases, chance: random.Random) -> None:
    match chance.choice(["end", "end", "end", "die", "reader", "check"]):
        case "end":
            bases.end_base()
            bases.settle(mapped=False)
            bases.check()
        case "die":
            bases.die()
            bases.open()
        case "reader":
            bases.reader.kill()
            bases.hold()
        case _:
            bases.settle(mapped=False)
            bases.check()
