"""Tests of rollback journals: those that SQLite writes, made ones, and hostile bytes."""

from __future__ import annotations

import random
import sqlite3
import struct
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.rollback.journals import PAGE, header, journal_of, make_database, page_1, part, reader, record
from walsyncd.core.sqlite.rollback_journal import (
    JOURNAL_MAGIC,
    RECORDS_MAX,
    JournalFault,
    RollbackJournal,
    parse_kept_journal,
    parse_rollback_journal,
    super_journal_name,
)

SOME = bytes(range(256)) * 2
OTHER = SOME[::-1]


def parsed(raw: bytes, page_size: int = PAGE, *, records_max: int = RECORDS_MAX) -> RollbackJournal | JournalFault:
    return parse_rollback_journal(reader(raw), page_size, records_max=records_max)


def kept(raw: bytes, page_size: int = PAGE, *, records_max: int = RECORDS_MAX) -> RollbackJournal | JournalFault:
    return parse_kept_journal(reader(raw), len(raw), page_size, records_max=records_max)


def numbers(found: RollbackJournal | JournalFault) -> list[int]:
    assert isinstance(found, RollbackJournal), found
    return list(found.records)


def zeroed(raw: bytes) -> bytes:
    return bytes(28) + raw[28:]


# -- what SQLite writes


def test_a_small_transaction(tmp_path: Path) -> None:
    """The journal has each page as it was before the transaction."""
    path = tmp_path / "app.db"
    with closing(make_database(path)) as connection:
        before = path.read_bytes()
        found = parsed(journal_of(connection, path, "UPDATE t SET v = randomblob(100) WHERE k IN (3, 150)"))
    assert isinstance(found, RollbackJournal)
    assert len(found.records) == 3
    for number in found.records:
        assert found.page(number) == before[(number - 1) * PAGE : number * PAGE]
    assert found.page_1 == before[:100]
    assert found.page(2) is None or 2 in found.records


@pytest.mark.parametrize("synchronous", ["off", "normal", "full", "extra"])
def test_a_transaction_that_spills(tmp_path: Path, synchronous: str) -> None:
    """The parts after the first hold pages, too. Page 1 is in the last one."""
    path = tmp_path / "app.db"
    with closing(make_database(path, "PRAGMA cache_size = 3", f"PRAGMA synchronous = {synchronous}")) as connection:
        before = path.read_bytes()
        raw = journal_of(connection, path, "UPDATE t SET v = randomblob(100)")
        after = path.read_bytes()
    found = numbers(parsed(raw))
    changed = [n + 1 for n in range(len(before) // PAGE) if before[n * PAGE :][:PAGE] != after[n * PAGE :][:PAGE]]
    assert len(changed) > 30
    assert set(changed) <= set(found)
    assert (raw.count(JOURNAL_MAGIC) > 3) == (synchronous != "off")


def test_a_transaction_that_is_rolled_back_before_it_is_synced(tmp_path: Path) -> None:
    """The journal's header has no magic, so nothing was written to the database."""
    path = tmp_path / "app.db"
    with closing(make_database(path)) as connection:
        assert parsed(journal_of(connection, path, "DELETE FROM t", end="ROLLBACK")) is JournalFault.NEVER_SYNCED


@pytest.mark.parametrize("synchronous", ["off", "full"])
def test_a_kept_journal(tmp_path: Path, synchronous: str) -> None:
    """The journal is read although its header is zeroed, and what is left of a larger transaction is not taken."""
    path = tmp_path / "app.db"
    settings = ("PRAGMA journal_mode = PERSIST", f"PRAGMA synchronous = {synchronous}")
    with closing(make_database(path, *settings)) as connection:
        large = kept(journal_of(connection, path, "UPDATE t SET v = randomblob(100)"))
        before = path.read_bytes()
        small = kept(journal_of(connection, path, "UPDATE t SET v = randomblob(100) WHERE k IN (3, 150)"))
    assert len(numbers(large)) > 30
    assert isinstance(small, RollbackJournal)
    assert not small.may_be_cut, "more than it is left"
    assert len(numbers(small)) == 3
    assert small.page_1 == before[:100]


@pytest.mark.parametrize("limit", [2000, 4096, 10000, 512 + 3 * (PAGE + 8), 512 + 9 * (PAGE + 8)])
def test_a_kept_journal_that_was_cut_to_its_limit(tmp_path: Path, limit: int) -> None:
    """Records are missing, and nothing in the journal says so."""
    path = tmp_path / "app.db"
    with closing(make_database(path, "PRAGMA journal_mode = PERSIST")) as connection:
        connection.execute(f"PRAGMA journal_size_limit = {limit}")
        raw = journal_of(connection, path, "UPDATE t SET v = randomblob(100)")
    assert len(raw) == limit
    found = kept(raw)
    assert isinstance(found, RollbackJournal)
    assert found.may_be_cut


def test_a_super_journal(tmp_path: Path) -> None:
    """Each journal of a transaction on two databases names the super-journal at its end."""
    path = tmp_path / "app.db"
    with closing(make_database(path)) as connection:
        connection.execute("ATTACH ? AS other", (str(tmp_path / "other.db"),))
        connection.execute("CREATE TABLE other.o (v)")
        change = ("UPDATE t SET v = 1 WHERE k = 3", "INSERT INTO other.o VALUES (1)")
        raw = journal_of(connection, path, *change)
    name = super_journal_name(reader(raw), len(raw))
    assert name is not None
    assert name.startswith(f"{path}-mj".encode())
    assert 1 in numbers(parsed(raw))


# -- made journals


def test_records_count_while_their_checksum_fits_and_not_as_many_as_the_header_says() -> None:
    """The header of a part may be older than its last records."""
    raw = part(7, [(2, SOME), (3, OTHER)], count=1)
    assert numbers(parsed(raw)) == [2, 3]
    assert numbers(parsed(part(7, [(2, SOME)], count=0))) == [2]
    assert parsed(part(7, [(2, SOME)], count=2)) is JournalFault.DAMAGED


def test_the_first_record_of_a_page_is_the_one_that_counts() -> None:
    """A later record of the page may have been written by the transaction itself."""
    found = parsed(part(7, [(2, SOME), (2, OTHER)]))
    assert isinstance(found, RollbackJournal)
    assert found.page(2) == SOME


def test_a_part_that_is_never_synced_is_the_last() -> None:
    """What follows such a part is left from an older transaction, with an older page 1."""
    old = part(9, [(1, page_1(5))])
    assert numbers(parsed(part(7, [(2, SOME)]) + old)) == [2, 1]
    assert numbers(parsed(part(7, [(2, SOME)], count=0xFFFFFFFF) + old)) == [2]
    assert numbers(parsed(part(7, [(2, SOME)]) + zeroed(part(8, [(4, SOME)])) + old)) == [2]


def test_the_lock_page_and_page_0_end_a_part() -> None:
    """SQLite ends a part at these pages as well."""
    lock = 0x40000000 // PAGE + 1
    for number in (0, lock):
        assert numbers(parsed(part(7, [(2, SOME), (number, SOME), (3, SOME)], count=1))) == [2]


def test_sectors_of_other_sizes() -> None:
    """Headers fill a sector, whatever its size is."""
    for sector in (32, 512, 4096, 65536):
        raw = part(7, [(2, SOME)], sector=sector) + part(8, [(3, SOME)], sector=sector)
        assert numbers(parsed(raw)) == [2, 3]


@pytest.mark.parametrize("sector", [512, 4096])
def test_a_kept_journal_is_read_from_the_sector_where_its_records_begin(sector: int) -> None:
    """A device may need sectors of 4096 bytes. A header is repeated within such a sector."""
    raw = part(7, [(2, SOME), (1, page_1(5))], sector=sector)
    if sector > PAGE:
        raw = raw[:PAGE] + raw[:PAGE] + raw[2 * PAGE :]
    assert numbers(kept(zeroed(raw) + bytes(PAGE * 2))) == [2, 1]


def test_page_1_of_a_kept_journal_is_believed_only_in_the_first_part() -> None:
    """A part after that may be of an older transaction that this one did not overwrite."""
    raw = zeroed(part(7, [(2, SOME)])) + part(9, [(1, page_1(5)), (3, SOME)])
    found = kept(raw + bytes(PAGE * 2))
    assert numbers(found) == [2, 1, 3]
    assert isinstance(found, RollbackJournal)
    assert found.page_1 is None


def test_a_kept_journal_without_a_transaction() -> None:
    """An empty journal, one with only a header, and one in use hold no transaction."""
    assert kept(b"") is JournalFault.EMPTY
    assert kept(bytes(512)) is JournalFault.EMPTY
    assert kept(part(7, [(2, SOME)])) is JournalFault.DAMAGED


@pytest.mark.parametrize(
    ("raw", "fault"),
    [
        (b"", JournalFault.EMPTY),
        (b"\xd9", JournalFault.DAMAGED),
        (bytes(600), JournalFault.ZEROED),
        (bytes(12) + b"x" * 600, JournalFault.NEVER_SYNCED),
        (b"x" * 600, JournalFault.DAMAGED),
        (header(0, 7, sector=512, page_size=1024), JournalFault.OTHER_PAGE_SIZE),
        (header(0, 7)[:20] + struct.pack(">2I", 500, 512), JournalFault.DAMAGED),
        (header(0, 7)[:20] + struct.pack(">2I", 0, 512), JournalFault.DAMAGED),
    ],
)
def test_headers_that_say_nothing(raw: bytes, fault: JournalFault) -> None:
    """Each such header is refused with its reason."""
    assert parsed(raw) is fault


def test_too_many_records() -> None:
    """A proof from a journal that large is not worth its cost."""
    raw = part(7, [(2 + n, SOME) for n in range(6)])
    assert parsed(raw, records_max=5) is JournalFault.TOO_LARGE
    assert kept(zeroed(raw) + b"x" * 600, records_max=5) is JournalFault.TOO_LARGE
    assert len(numbers(parsed(part(7, [(2 + n, SOME) for n in range(5)]), records_max=5))) == 5


@pytest.mark.parametrize("page_size", [512, 1024, 4096, 65536])
def test_many_records_of_each_page_size(page_size: int) -> None:
    """The records of each page size fill more than one block that is read at once."""
    rng = random.Random(page_size)
    pages = [(n, rng.randbytes(page_size)) for n in range(2, 3 + 3 * (1 << 18) // page_size)]
    raw = header(0, 99, page_size=page_size) + b"".join(record(n, page, 99) for n, page in pages)
    found = parsed(raw, page_size)
    assert numbers(found) == [n for n, _ in pages]
    assert isinstance(found, RollbackJournal)
    assert found.page(pages[-1][0]) == pages[-1][1]


# -- hostile bytes


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2**32 - 1),
            st.lists(st.tuples(st.integers(1, 90), st.binary(min_size=PAGE, max_size=PAGE)), max_size=4),
        ),
        min_size=1,
        max_size=3,
    )
)
def test_what_was_put_in_comes_out(parts: list[tuple[int, list[tuple[int, bytes]]]]) -> None:
    """Parts of any nonce, with any pages, are read as they were written."""
    found = parsed(b"".join(part(nonce, pages) for nonce, pages in parts))
    expected: dict[int, bytes] = {}
    for _, pages in parts:
        for number, page in pages:
            expected.setdefault(number, page)
    assert isinstance(found, RollbackJournal)
    assert {number: found.page(number) for number in found.records} == expected


@given(st.binary(max_size=3000), st.booleans(), st.sampled_from([0, 12, 28, 512]))
def test_any_bytes_have_an_answer(raw: bytes, with_magic: bool, zeros: int) -> None:
    """No bytes cause an exception, or a record past the end."""
    raw = (JOURNAL_MAGIC if with_magic else b"") + bytes(zeros) + raw
    for found in (parsed(raw), kept(raw)):
        if isinstance(found, RollbackJournal):
            assert all(len(found.page(number) or b"") == PAGE for number in found.records)
    super_journal_name(reader(raw), len(raw))


def test_each_cut_and_each_flipped_bit_has_an_answer() -> None:
    """A record that is not whole, or whose sum is wrong, is not taken."""
    raw = part(7, [(2, SOME), (1, page_1(5))], count=0xFFFFFFFF)
    for end in range(0, len(raw), 7):
        found = parsed(raw[:end])
        if isinstance(found, RollbackJournal):
            assert len(found.records) == max(0, (end - 512) // (PAGE + 8))
    for bit in range(8 * 512, 8 * (512 + PAGE + 8), 61):
        broken = bytearray(raw)
        broken[bit // 8] ^= 1 << bit % 8
        parsed(bytes(broken))
        kept(zeroed(bytes(broken)))


@pytest.mark.parametrize("length", [0, 1, 4096, 5000, 2**32 - 1])
def test_super_journal_names_of_any_length(length: int) -> None:
    """A length that exceeds the file gives no name."""
    name = b"/n" * (min(length, 5000) // 2)
    tail = struct.pack(">2I", length, sum(name) % 2**32) + JOURNAL_MAGIC
    raw = bytes(600) + name + tail
    assert super_journal_name(reader(raw), len(raw)) == (name if length == 4096 else None)
    assert super_journal_name(reader(raw[:-1]), len(raw) - 1) is None


def test_super_journal_name_is_checked_by_its_sum_of_signed_bytes() -> None:
    """SQLite adds the bytes as char, which is signed."""
    name = "/ü".encode()
    raw = bytes(600) + name + struct.pack(">2I", len(name), (ord("/") - 61 - 68) % 2**32) + JOURNAL_MAGIC
    assert super_journal_name(reader(raw), len(raw)) == name
    raw = raw.replace(name, b"/o\x00")
    assert super_journal_name(reader(raw), len(raw)) is None


def test_sqlite_takes_a_made_journal_for_hot(tmp_path: Path) -> None:
    """The bytes that these tests make are a journal: SQLite plays it back."""
    path = tmp_path / "app.db"
    make_database(path).close()
    before = path.read_bytes()
    last = len(before) // PAGE
    raw = part(7, [(last, before[-PAGE:])]).replace(struct.pack(">I", 9), struct.pack(">I", last), 1)
    Path(f"{path}-journal").write_bytes(raw)
    path.write_bytes(before[:-PAGE] + bytes(PAGE))
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("SELECT count(*) FROM t")
    assert path.read_bytes() == before
