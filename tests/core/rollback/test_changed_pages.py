"""Tests of which pages the journals name, and of each reason to scan. Real SQLite is checked step by step."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from contextlib import closing
from ctypes.util import find_library
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.rollback import lockstep
from tests.core.rollback.journals import PAGE, journal_of, make_database, page_1, part, reader
from walsyncd.core.rollback.changed_pages import (
    STEPS_MAX,
    ChangedPages,
    NoProof,
    ScanReason,
    SeenJournal,
    changed_pages,
)
from walsyncd.core.rollback.journal_trail import Doubt
from walsyncd.core.sqlite.rollback_journal import JournalFault, RollbackJournal, parse_kept_journal
from walsyncd.core.sqlite.rollback_journal import parse_rollback_journal as parse

ANY = bytes(range(256)) * 2


def journal(*pages: tuple[int, bytes]) -> RollbackJournal | JournalFault:
    return parse(reader(part(7, pages)), PAGE)


def trunk(following: int, *leaves: int) -> bytes:
    return struct.pack(f">{2 + len(leaves)}I", following, len(leaves), *leaves).ljust(PAGE, b"\x00")


def proof(
    before: int,
    now: bytes,
    journals: Sequence[RollbackJournal | JournalFault],
    pages: dict[int, bytes] | None = None,
    page_size: int = PAGE,
) -> ChangedPages | ScanReason:
    seen = [SeenJournal(each, int(isinstance(each, RollbackJournal))) for each in journals]
    return changed_pages(before, now, seen, lambda number: (pages or {}).get(number, b""), page_size)


def named(found: ChangedPages | ScanReason) -> list[int]:
    assert isinstance(found, ChangedPages), found
    return [int(number) for number in found.numbers]


# -- what is named


def test_pages_of_the_journal_and_page_1() -> None:
    """Page 1 is named even if the journal does not have it in its first part."""
    found = proof(5, page_1(6), [journal((3, ANY), (1, page_1(5)))])
    assert named(found) == [1, 3]
    assert isinstance(found, ChangedPages)
    assert (found.page_count, found.counter, found.counter_before) == (9, 6, 5)


def test_pages_past_the_old_size_of_the_database() -> None:
    """The journalled page 1 states the old size. The journal's header has the file's size, which is larger here (9)."""
    assert named(proof(5, page_1(6, 8), [journal((1, page_1(5, 6)))])) == [1, 7, 8]


def test_pages_past_the_smallest_size_in_between() -> None:
    """The database became smaller, and then larger again. The pages past its smallest size are named."""
    journals = [journal((1, page_1(5, 9))), journal((1, page_1(6, 4))), journal((1, page_1(7, 5)))]
    assert named(proof(5, page_1(8, 7), journals)) == [1, 5, 6, 7]


def test_pages_past_the_new_size_are_not_named() -> None:
    """Pages past the new size can't be read."""
    assert named(proof(5, page_1(6, 4), [journal((3, ANY), (6, ANY), (1, page_1(5, 9)))])) == [1, 3]


def test_free_pages_before_the_transaction() -> None:
    """SQLite does not journal a free leaf page that it takes."""
    first = page_1(5, trunk=4, free=3)
    assert named(proof(5, page_1(6), [journal((1, first), (4, trunk(0, 7, 8)))])) == [1, 4, 7, 8]
    assert named(proof(5, page_1(6), [journal((1, first))], {4: trunk(0, 7, 8)})) == [1, 4, 7, 8]


def test_trunks_are_those_before_each_transaction() -> None:
    """The trunks come from the transaction's own journal, else from that of a later one, else from the file."""
    journals = [
        journal((1, page_1(5, trunk=4, free=2))),
        journal((1, page_1(6, trunk=5, free=2)), (4, trunk(0, 7)), (5, trunk(0, 6))),
    ]
    assert named(proof(5, page_1(7), journals, {4: trunk(0, 9), 5: ANY})) == [1, 4, 5, 6, 7]
    journals[0] = journal((1, page_1(5, trunk=4, free=2)), (4, trunk(0, 8)))
    assert named(proof(5, page_1(7), journals, {4: trunk(0, 9), 5: ANY})) == [1, 4, 5, 6, 8]


def test_pages_of_transactions_that_were_rolled_back() -> None:
    """The transactions' pages have been written and written back.

    The free pages that were taken keep what was written.
    """
    journals = [journal((1, page_1(5))), journal((8, ANY)), journal((1, page_1(6, trunk=4, free=2)), (3, ANY))]
    now = page_1(6, trunk=4, free=2)
    assert named(proof(5, now, journals, {4: trunk(0, 7)})) == [1, 3, 4, 7, 8]
    assert named(proof(6, now, [journal((8, ANY))], {4: trunk(0, 7)})) == [1, 4, 7, 8]
    assert named(proof(6, now, [JournalFault.NEVER_SYNCED], {4: trunk(0, 7)})) == [1, 4, 7]
    assert named(proof(6, now, [])) == [1]


def test_a_transaction_of_which_nothing_reached_the_database() -> None:
    """If nothing of a transaction reached the database, its journal proves nothing, and need not."""
    assert named(proof(5, page_1(6), [journal((1, page_1(5))), JournalFault.NEVER_SYNCED])) == [1]


def test_the_page_of_the_lock_bytes_is_not_named() -> None:
    """The page of the lock bytes holds nothing."""
    lock = 0x40000000 // PAGE + 1
    found = named(proof(5, page_1(6, lock + 1), [journal((1, page_1(5, lock - 2)))]))
    assert found == [1, lock - 1, lock + 1]


def test_the_counter_may_wrap() -> None:
    """The counter wraps after 2^32 transactions."""
    assert named(proof(2**32 - 1, page_1(0), [journal((1, page_1(2**32 - 1)))])) == [1]


# -- reasons to scan


def stepping(count: int) -> list[RollbackJournal | JournalFault]:
    return [journal((1, page_1(5 + step))) for step in range(count)]


@pytest.mark.parametrize(
    ("now", "journals", "reason"),
    [
        (page_1(7), [journal((1, page_1(6)))], NoProof.STEP_MISSING),
        (page_1(7), [journal((1, page_1(5)))], NoProof.STEP_MISSING),
        (page_1(6), [journal((2, ANY))], NoProof.STEP_MISSING),
        (page_1(6), [], NoProof.STEP_MISSING),
        (page_1(6), [*stepping(1), journal((1, page_1(4)))], NoProof.OTHER_STATE),
        (page_1(6), [*stepping(1), journal((1, page_1(7)))], NoProof.OTHER_STATE),
        (page_1(4), [], NoProof.TOO_MANY_STEPS),
        (page_1(6 + STEPS_MAX), [], NoProof.TOO_MANY_STEPS),
        (page_1(6, version=2), stepping(1), NoProof.WAL),
        (page_1(6), [journal((1, page_1(5, version=2)))], NoProof.WAL),
        (page_1(6)[:92] + bytes(4), stepping(1), NoProof.NO_HEADER),
        (bytes(100), stepping(1), NoProof.NO_HEADER),
        (b"", stepping(1), NoProof.NO_HEADER),
        (page_1(6), [journal((1, bytes(PAGE)))], NoProof.NO_HEADER),
        (page_1(6), [journal((1, page_1(5)[:92] + bytes(PAGE - 92)))], NoProof.NO_HEADER),
        (page_1(6), [journal((1, page_1(5, 0)))], NoProof.NO_HEADER),
        (page_1(6), [*stepping(1), JournalFault.ZEROED], JournalFault.ZEROED),
        (page_1(6), [*stepping(1), JournalFault.EMPTY], JournalFault.EMPTY),
        (page_1(6), [*stepping(1), JournalFault.CUT_OFF], JournalFault.CUT_OFF),
    ],
)
def test_reasons(now: bytes, journals: list[RollbackJournal | JournalFault], reason: ScanReason) -> None:
    """If one fact does not fit, no page is named."""
    assert proof(5, now, journals) is reason


def test_another_page_size() -> None:
    """VACUUM changed the page size."""
    assert proof(5, page_1(6), stepping(1), page_size=1024) is NoProof.OTHER_PAGE_SIZE


@pytest.mark.parametrize(
    ("free", "pages"),
    [
        (3, {4: trunk(0, 7)}),  # one page too few
        (2, {4: trunk(0, 7, 8)}),  # one page too many
        (2, {}),  # the trunk was cut off
        (3, {4: trunk(4, 7)}),  # the trunk follows itself
        (3, {4: trunk(0, 7, 7)}),
        (2, {4: trunk(0, 1)}),
        (2, {4: trunk(0, 10)}),  # the page is past the end
        (0, {4: trunk(0)}),
        (900, {4: struct.pack(">2I", 0, 899).ljust(PAGE)}),
    ],
)
def test_a_freelist_that_cannot_be_rebuilt(free: int, pages: dict[int, bytes]) -> None:
    """The number of pages that page 1 states reveals each damage."""
    assert proof(5, page_1(6), [journal((1, page_1(5, trunk=4, free=free)))], pages) is NoProof.FREELIST


@given(
    st.lists(
        st.one_of(
            st.sampled_from(list(JournalFault)),
            st.lists(st.tuples(st.integers(1, 9), st.binary(min_size=PAGE, max_size=PAGE)), max_size=3),
            st.lists(st.tuples(st.just(1), st.builds(page_1, st.integers(0, 9), st.integers(0, 20))), max_size=2),
        ),
        max_size=4,
    ),
    st.integers(0, 9),
    st.one_of(st.binary(max_size=PAGE), st.builds(page_1, st.integers(0, 9), trunk=st.integers(0, 9))),
    st.binary(max_size=PAGE),
)
def test_any_journals_have_an_answer(
    made: list[JournalFault | list[tuple[int, bytes]]], before: int, now: bytes, page: bytes
) -> None:
    """A proof never names a page past the end, and never accepts fewer journals than there were transactions."""
    journals = [each if isinstance(each, JournalFault) else journal(*each) for each in made]
    seen = [SeenJournal(each, int(isinstance(each, RollbackJournal))) for each in journals]
    found = changed_pages(before, now[:100], seen, lambda _number: page, PAGE)
    if isinstance(found, ChangedPages):
        assert min(found.numbers) >= 1
        assert max(found.numbers) <= found.page_count
        counters = {each.page_1[24:28] for each in journals if isinstance(each, RollbackJournal) and each.page_1}
        assert len(counters) >= found.counter - before


# -- traps, with real SQLite


def test_a_journal_that_was_rolled_back_does_not_stand_for_a_commit_of_the_same_counter(tmp_path: Path) -> None:
    """Here both transactions have journals, and the pages of both are named."""
    path = tmp_path / "app.db"
    with closing(make_database(path, "PRAGMA cache_size = 3")) as connection:
        before = path.read_bytes()
        undone = journal_of(connection, path, "INSERT INTO t (v) VALUES (zeroblob(9000))", end="ROLLBACK")
        done = journal_of(connection, path, "UPDATE t SET v = zeroblob(100) WHERE k > 150")
    after = path.read_bytes()
    journals = [SeenJournal(parse(reader(raw), PAGE), runs) for raw, runs in ((undone, 0), (done, 1))]
    counter = int.from_bytes(before[24:28])
    found = changed_pages(counter, after[:100], journals, lambda n: after[(n - 1) * PAGE :][:PAGE], PAGE)
    pages = range(len(after) // PAGE)
    assert {n + 1 for n in pages if before[n * PAGE :][:PAGE] != after[n * PAGE :][:PAGE]} <= set(named(found))
    alone = changed_pages(counter, after[:100], journals[:1], lambda n: after[(n - 1) * PAGE :][:PAGE], PAGE)
    assert alone is NoProof.STEP_MISSING, "a commit writes page 1"


def test_more_runs_of_writes_than_parts() -> None:
    """Before that, another transaction used the same file in mode TRUNCATE.

    The transaction that the file shows is a good step.
    """
    content = journal((1, page_1(5)))
    assert isinstance(content, RollbackJournal)
    for runs, reason in ((1, None), (2, Doubt.JOURNAL_REUSED)):
        found = changed_pages(5, page_1(6), [SeenJournal(content, runs)], lambda _number: b"", PAGE)
        assert (found if reason else None) is reason
    assert content.parts == 1


def test_a_run_of_writes_beside_a_transaction_of_which_nothing_was_synced() -> None:
    """The run of writes may have been a commit that used the same file before."""
    seen = [SeenJournal(JournalFault.NEVER_SYNCED, 1)]
    assert changed_pages(5, page_1(5), seen, lambda _number: b"", PAGE) is JournalFault.NEVER_SYNCED


@pytest.mark.parametrize(("counter", "reason"), [(5, None), (6, Doubt.JOURNAL_REUSED), (4, Doubt.JOURNAL_REUSED)])
def test_the_run_of_writes_beside_a_kept_journal_is_that_of_the_last_step(counter: int, reason: Doubt | None) -> None:
    """A commit in mode TRUNCATE may have used the file before a transaction that was rolled back."""
    undone = SeenJournal(journal((1, page_1(5))), 1)
    kept = SeenJournal(journal((1, page_1(counter))), 1, is_kept=True)
    found = changed_pages(5, page_1(6), [undone, kept], lambda _number: b"", PAGE)
    assert (found if reason else None) is reason
    without_page_1 = SeenJournal(journal((3, ANY)), 1, is_kept=True)
    assert changed_pages(5, page_1(6), [undone, without_page_1], lambda _n: b"", PAGE) is Doubt.JOURNAL_REUSED


@pytest.mark.parametrize(("runs", "is_whole", "is_proof"), [(1, True, True), (1, False, False), (0, False, True)])
def test_a_kept_journal_that_may_have_been_cut(runs: int, is_whole: bool, is_proof: bool) -> None:
    """The pages of such a journal are named if it was not cut, or if nothing was written to the database."""
    content = journal((1, page_1(5)), (3, ANY))
    assert isinstance(content, RollbackJournal)
    seen = SeenJournal(replace(content, may_be_cut=True), runs, is_kept=True, is_whole=is_whole)
    found = changed_pages(5, page_1(5 + runs), [seen], lambda _number: b"", PAGE)
    assert isinstance(found, ChangedPages) if is_proof else found is JournalFault.CUT_OFF


def test_a_kept_journal_of_a_transaction_that_was_rolled_back_over_that_of_a_commit(tmp_path: Path) -> None:
    """The commit's last part is still there, with page 1, exactly where the other's records end."""
    path = tmp_path / "app.db"
    settings = ("PRAGMA journal_mode = PERSIST", "PRAGMA cache_size = 10")
    with closing(make_database(path, *settings)) as connection:
        before = path.read_bytes()
        connection.execute("UPDATE t SET v = zeroblob(100)")
        committed = Path(f"{path}-journal").read_bytes()
        connection.execute("PRAGMA cache_size = 2000")
        traps = 0
        for last in range(1, 200):
            journal_of(connection, path, f"UPDATE t SET v = zeroblob(99) WHERE k <= {last}", end="ROLLBACK")
            kept = Path(f"{path}-journal").read_bytes()
            found = parse_kept_journal(reader(kept), len(kept), PAGE)
            if not isinstance(found, RollbackJournal):
                continue
            traps += 1 in found.records
            assert found.page_1 is None, "a page 1 of another transaction"
            Path(f"{path}-journal").write_bytes(committed)
    assert path.read_bytes()[:100] != before[:100]
    assert traps, "no journal was the trap"


def test_lockstep() -> None:
    """Two processes use all journal modes. In each mode that can be followed, every page that changes is named."""
    total = lockstep.Findings()
    for seed in range(3):
        total.add(lockstep.run(seed, 40))
    assert total.unexplained == []
    assert total.proven_changes > 5
    assert total.pages_not_journalled > 5


@pytest.mark.skipif(find_library("sqlite3") is None, reason="this Python has SQLite built in")
def test_lockstep_with_the_sqlite_of_the_system() -> None:
    """The same holds with another version of SQLite."""
    total = lockstep.Findings()
    for seed in (3, 5):
        total.add(lockstep.run(seed, 40, "sqlite3"))
    assert total.unexplained == []
    assert total.proven_changes > 5
