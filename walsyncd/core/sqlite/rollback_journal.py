"""The rollback journal of a SQLite database (sqlite.org/fileformat2.html, section 3, and SQLite's pager.c), big-endian.

A journal is a row of parts. Each part begins at a multiple of the sector size with a header that fills one sector:

| offset | bytes | what |
|---|---|---|
| 0 | 8 | magic ``d9 d5 05 f9 20 a1 63 d7``; zeros until the part is synced |
| 8 | 4 | how many records follow; 0xffffffff if nothing is ever synced |
| 12 | 4 | nonce, random for each part |
| 16 | 4 | size of the file in pages before the transaction; the database's own size may differ |
| 20 | 4 | sector size, 512 almost always |
| 24 | 4 | page size |

and has any number of records:

| offset | bytes | what |
|---|---|---|
| 0 | 4 | page number |
| 4 | page size | the page before the transaction |
| page size + 4 | 4 | the nonce + the page's bytes at page size - 200, - 400 … (not at 0), modulo 2^32 |

A transaction on several databases appends a super-journal's name: the lock page's number, the name, its length, the sum
of its bytes (signed), the magic. If the journal is synced, these fields begin at a sector.

What is read here is more than SQLite would play back. A transaction that changed more pages than fit into the cache
begins a new part each time it writes pages back, so every part counts. Records are taken while their checksum fits, not
as many as the header says, because the header of a part may be older than its records. The reading stops before a part
without magic: of the pages in that part, only free leaves reached the database. It also stops after a part that is
never synced, which is always the last part.

``PERSIST`` keeps the file. It zeroes the first header's 28 bytes and nothing else. The last transaction wrote the first
record, so that transaction's nonce follows from this record. Records of older transactions have another nonce.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import TypeAlias

from walsyncd.core.sqlite.dbheader import HEADER_SIZE

JOURNAL_HEADER_SIZE = 28
JOURNAL_MAGIC = bytes.fromhex("d9d505f920a163d7")

RECORDS_MAX = 1_000_000  # with pages of 4 KiB these records hold 4 GiB; for more pages a scan is faster
SUPER_NAME_MAX = 4096  # PATH_MAX

_HEADER = struct.Struct(">8s5I")
_NEVER_SYNCED = bytes(12)
_ZEROED = bytes(JOURNAL_HEADER_SIZE)
_NO_SYNC = 0xFFFFFFFF
_SECTOR_SIZES = frozenset(1 << shift for shift in range(5, 17))
_KEPT_SECTOR_SIZES = (512, 4096)  # SQLite uses 512 with the flag "powersafe overwrite", and 4096 without it
_FIRST_WORD_OF_MAGIC = int.from_bytes(JOURNAL_MAGIC[:4], "big")
_BLOCK_BYTES = 1 << 18
_SUPER_TAIL = struct.Struct(">2I8s")
_LOCK_BYTE = 0x40000000

Read: TypeAlias = Callable[[int, int], bytes]
"""Returns bytes at an offset, and fewer than requested only at the end of the file."""


class JournalFault(StrEnum):
    """Why a journal does not say which pages changed."""

    EMPTY = "the journal is empty"
    NEVER_SYNCED = "nothing of the transaction reached the database but free leaves"
    ZEROED = "the journal's header was zeroed"
    DAMAGED = "the journal is damaged"
    CUT_OFF = "the journal may have been cut to a limit"
    TOO_LARGE = "the journal has too many records"
    OTHER_PAGE_SIZE = "the journal has another page size"


@dataclass(frozen=True, slots=True, eq=False)
class RollbackJournal:
    """The records of a journal. ``records`` maps a page number to the offset of the page in its first record.

    ``parts`` is how many parts were read.
    ``page_1`` is the first 100 bytes of the page-1 record. It is None if no such record surely belongs to the
    transaction that wrote the first record.
    ``may_be_cut`` says that this is a kept journal whose end may have been cut off.
    """

    page_size: int
    records: dict[int, int]
    parts: int
    page_1: bytes | None
    read: Read = field(repr=False)
    may_be_cut: bool = False

    def page(self, number: int) -> bytes | None:
        """Return the page's content before the transaction, or None if the journal does not have the page."""
        at = self.records.get(number)
        return None if at is None else self.read(at, self.page_size)


class _Records:
    """The records of all parts that were read so far."""

    def __init__(self, read: Read, page_size: int, count_max: int) -> None:
        self._read = read
        self._count_max = count_max
        self._page_size = page_size
        self._record_size = page_size + 8
        self._lock_page = _LOCK_BYTE // page_size + 1
        self.by_page: dict[int, int] = {}
        self.count = 0
        self.parts = 0

    @property
    def are_too_many(self) -> bool:
        """Whether there are more records than a proof is worth."""
        return self.count > self._count_max

    def take_part(self, at: int, nonce: int) -> int:
        """Take the records from offset ``at`` on. Returns the offset after the last record."""
        self.parts += 1
        size = self._record_size
        most = max(1, _BLOCK_BYTES // size)
        while not self.are_too_many:
            block = memoryview(self._read(at, most * size))
            whole = len(block) // size
            for index in range(whole):
                if not self._take(block[index * size : (index + 1) * size], at, nonce):
                    return at
                at += size
            if whole < most:
                break
        return at

    def _take(self, record: memoryview, at: int, nonce: int) -> bool:
        number = int.from_bytes(record[:4], "big")
        if number in {0, self._lock_page}:
            return False
        if (nonce + page_sum(record[4:-4])) % 2**32 != int.from_bytes(record[-4:], "big"):
            return False
        self.by_page.setdefault(number, at + 4)
        self.count += 1
        return True


def page_sum(page: bytes | memoryview) -> int:
    """Return what a page adds to the nonce."""
    return sum(page[len(page) - 200 : 0 : -200])


def parse_rollback_journal(
    read: Read, page_size: int, *, records_max: int = RECORDS_MAX
) -> RollbackJournal | JournalFault:
    """Return the records of a journal that was deleted at the end of its transaction."""
    head = read(0, JOURNAL_HEADER_SIZE)
    if not head:
        return JournalFault.EMPTY
    if len(head) < JOURNAL_HEADER_SIZE:
        return JournalFault.DAMAGED
    if head == _ZEROED:
        return JournalFault.ZEROED
    if head.startswith(_NEVER_SYNCED):
        return JournalFault.NEVER_SYNCED
    magic, _, _, _, sector, stated = _HEADER.unpack(head)
    if magic != JOURNAL_MAGIC or sector not in _SECTOR_SIZES:
        return JournalFault.DAMAGED
    if stated not in {page_size, 0}:
        return JournalFault.OTHER_PAGE_SIZE
    records = _Records(read, page_size, records_max)
    fault = _take_parts(records, read, 0, sector)
    return fault or _journal(records, read, page_size, records.by_page)


def parse_kept_journal(
    read: Read, size: int, page_size: int, *, records_max: int = RECORDS_MAX
) -> RollbackJournal | JournalFault:
    """Return the records of a journal of ``size`` bytes that still exists, with its header zeroed (``PERSIST``).

    The records belong to the last transaction that wrote one. Page 1 is taken only from the first part, because a later
    part may be left over from an older transaction.
    """
    head = read(0, JOURNAL_HEADER_SIZE)
    if not head:
        return JournalFault.EMPTY
    if head != _ZEROED:
        return JournalFault.DAMAGED
    sector, nonce = _first_kept_record(read, page_size)
    if not sector:
        return JournalFault.EMPTY
    records = _Records(read, page_size, records_max)
    end = records.take_part(sector, nonce)
    if records.are_too_many:
        return JournalFault.TOO_LARGE
    if not records.count:
        return JournalFault.DAMAGED
    first_part = dict(records.by_page)
    _take_parts(records, read, _next_sector(end, sector), sector)  # a part that is left over may lack records
    journal = _journal(records, read, page_size, first_part)
    return replace(journal, may_be_cut=_may_be_cut(end, size, page_size))


def _first_kept_record(read: Read, page_size: int) -> tuple[int, int]:
    """Return the sector size and the nonce that follow from the first record. Both are 0 if there is no record."""
    for sector in _KEPT_SECTOR_SIZES:
        record = read(sector, page_size + 8)
        number = int.from_bytes(record[:4], "big")
        # The header is written once for each page size that fits into the sector.
        if len(record) == page_size + 8 and number not in {0, _FIRST_WORD_OF_MAGIC}:
            return sector, (int.from_bytes(record[-4:], "big") - page_sum(record[4:-4])) % 2**32
    return 0, 0


def _may_be_cut(end: int, size: int, page_size: int) -> bool:
    """Whether PRAGMA journal_size_limit may have cut off records after offset ``end``, where the last record ends.

    After SQLite has zeroed the header, it cuts the file to exactly the limit (pager.c, zeroJournalHdr; tried with
    limits of 0 to 1 MiB). If a record ends at the limit, the file looks as it does after a transaction with just these
    records. Only the order of events distinguishes the two (``core.rollback.journal_trail``).
    """
    return size - end < page_size + 8


def _take_parts(records: _Records, read: Read, at: int, sector: int) -> JournalFault | None:
    """Take all parts from the header at offset ``at`` on."""
    while True:
        head = read(at, JOURNAL_HEADER_SIZE)
        if len(head) < JOURNAL_HEADER_SIZE:
            return None
        magic, stated, nonce, _, _, _ = _HEADER.unpack(head)
        if magic != JOURNAL_MAGIC:
            return None
        before = records.count
        end = records.take_part(at + sector, nonce)
        if records.are_too_many:
            return JournalFault.TOO_LARGE
        if stated == _NO_SYNC:
            return None
        if records.count - before < stated:
            return JournalFault.DAMAGED
        at = _next_sector(end, sector)


def _next_sector(at: int, sector: int) -> int:
    return -(-at // sector) * sector


def _journal(records: _Records, read: Read, page_size: int, believed: dict[int, int]) -> RollbackJournal:
    at = believed.get(1)
    page_1 = None if at is None else read(at, HEADER_SIZE)
    return RollbackJournal(page_size, records.by_page, records.parts, page_1, read)


def super_journal_name(read: Read, size: int) -> bytes | None:
    """Return the name of the super-journal that a journal of ``size`` bytes names at its end, or None."""
    if size < JOURNAL_HEADER_SIZE + _SUPER_TAIL.size:
        return None
    tail = read(size - _SUPER_TAIL.size, _SUPER_TAIL.size)
    if len(tail) < _SUPER_TAIL.size:
        return None
    length, checksum, magic = _SUPER_TAIL.unpack(tail)
    if magic != JOURNAL_MAGIC or not 0 < length <= min(SUPER_NAME_MAX, size - _SUPER_TAIL.size - 4):
        return None
    name = read(size - _SUPER_TAIL.size - length, length)
    total = sum(each - 256 if each > 127 else each for each in name)
    return name if len(name) == length and total % 2**32 == checksum and b"\x00" not in name else None
