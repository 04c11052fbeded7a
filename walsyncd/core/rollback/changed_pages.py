"""Finds the pages that may differ between two committed states of a database in rollback mode, from its journals.

A journal holds the old content of each page that its transaction changed, with two exceptions:

- A page past the old size of the database is not journalled. The journalled page 1 states the old size. The journal's
  header states the size of the *file*, which is larger after a savepoint was rolled back.
- A leaf that is taken from the freelist is not journalled. So every page that was on the freelist before one of the
  transactions counts as changed. The list is walked from the journalled page 1: a trunk is taken from the journal, else
  from the journals of later transactions, else from the file. The walk must find as many pages as page 1 states,
  because a transaction that makes the database smaller cuts trunks off without journalling them.

A journal leads from counter c to c + 1 if its page 1 has counter c and the database was written while the journal
existed. The journals are a proof only if there is one for each step, and if every write to the database is accounted
for (``journal_trail``). A file may have been the journal of several transactions, and shows only the last of them:

- SQLite begins a new part of the journal before each run of writes to the database. So if there were more runs than the
  journal has parts, that transaction alone did not make them. (There may also be more runs than parts if the
  transaction is rolled back or never synced.)
- While a kept journal existed there was one run. The journal's transaction made that run only if that transaction is
  the last step.

The result may name more pages than changed, which does no harm. Therefore it includes the pages of all other journals,
whose transactions were rolled back. A leaf that such a transaction took and wrote keeps the written content, so the
pages that were free before the transaction are included, too. SQLite writes such a leaf without syncing the journal
first, because the journal has no record of the leaf. So even a journal of which nothing was synced, or whose synced
parts lack page 1, may belong to a transaction that wrote leaves.

In all other cases the caller must scan the file.
"""

from __future__ import annotations

import struct
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

from walsyncd.core.rollback.journal_trail import Doubt
from walsyncd.core.sqlite.arrays import NDArray, np
from walsyncd.core.sqlite.dbheader import DatabaseHeader, parse_database_header
from walsyncd.core.sqlite.freelist import all_free_pages
from walsyncd.core.sqlite.rollback_journal import JournalFault, RollbackJournal

STEPS_MAX = 4096  # transactions between two states; after more of them, a scan of all pages is as cheap

_FREELIST = struct.Struct(">2I")
_FREELIST_AT = 32
_ROLLBACK_VERSION = 1
_LOCK_BYTE = 0x40000000

PageNumbers: TypeAlias = "NDArray[np.uint32]"


class NoProof(StrEnum):
    """The reason why the journals do not show which pages changed, although they account for every write."""

    NO_HEADER = "page 1 is not a plain database header"
    WAL = "the database is or was in WAL mode"
    STEP_MISSING = "a transaction left no journal"
    OTHER_STATE = "a journal belongs to neither state nor to one in between"
    TOO_MANY_STEPS = "too many transactions"
    OTHER_PAGE_SIZE = "the page size has changed"
    FREELIST = "the freelist before a transaction could not be rebuilt"


ScanReason: TypeAlias = Doubt | JournalFault | NoProof


@dataclass(frozen=True, slots=True, eq=False)
class ChangedPages:
    """The pages that may differ. ``numbers`` has each of them, in ascending order and none past ``page_count``.

    ``page_count`` is the size of the database in the later state, and ``counter`` is the change counter of that state.
    """

    numbers: PageNumbers
    page_count: int
    counter: int
    counter_before: int


@dataclass(frozen=True, slots=True, eq=False)
class SeenJournal:
    """A journal, and the number of runs of writes to the database while the journal existed (``JournalTrail``).

    ``is_whole`` says that nothing was cut off a kept journal.
    """

    content: RollbackJournal | JournalFault
    runs: int
    is_kept: bool = False
    is_whole: bool = False

    def counter(self) -> int | None:
        """Return the change counter before the journal's transaction, or None if the journal does not state it."""
        page_1 = self.content.page_1 if isinstance(self.content, RollbackJournal) else None
        header = None if page_1 is None else parse_database_header(page_1)
        return None if header is None else header.change_counter


@dataclass(frozen=True, slots=True)
class _Step:
    """All journals of the transactions that began at one value of the counter. All but one of these were rolled back.

    The file itself is in the last state, so the last state needs no step.
    """

    header: DatabaseHeader
    page_1: bytes
    journals: tuple[RollbackJournal, ...]


def changed_pages(
    counter_before: int,
    page_1: bytes,
    journals: Sequence[SeenJournal],
    page: Callable[[int], bytes],
    page_size: int,
) -> ChangedPages | ScanReason:
    """Return the pages that may differ between the state with ``counter_before`` and the current file.

    ``page_1`` is the start of the current page 1, and ``page`` reads a page of the file. Both are of one committed
    state. ``journals`` are all journals that existed between the two states, and the caller has found no ``Doubt``.
    """
    now = parse_database_header(page_1)
    if now is None or not _is_plain(now):
        return NoProof.NO_HEADER
    if not _is_rollback(now):
        return NoProof.WAL
    if now.page_size != page_size:
        return NoProof.OTHER_PAGE_SIZE
    for each in journals:
        reason = _fault(each, now)
        if reason is not None:
            return reason
    steps = _steps(counter_before, now, journals)
    if isinstance(steps, NoProof):
        return steps
    if len(journals) > len(steps):  # some transactions were rolled back, perhaps after the last step
        steps.append(_Step(now, page_1, ()))
    free = _free_before(steps, page)
    if free is None:
        return NoProof.FREELIST
    numbers = {1, *free}
    for each in journals:
        if isinstance(each.content, RollbackJournal):
            numbers.update(each.content.records)
    smallest = min((step.header.page_count for step in steps), default=now.page_count)
    numbers.update(range(smallest + 1, now.page_count + 1))
    numbers.discard(_LOCK_BYTE // page_size + 1)
    in_file = np.array(sorted(numbers), np.uint32)
    return ChangedPages(in_file[in_file <= now.page_count], now.page_count, now.change_counter, counter_before)


def free_page_count(page_1: bytes) -> int:
    """Return the number of free pages that page 1 states, or 0 if ``page_1`` is too short to state it."""
    return _FREELIST.unpack_from(page_1, _FREELIST_AT)[1] if len(page_1) >= _FREELIST_AT + _FREELIST.size else 0


def _fault(seen: SeenJournal, now: DatabaseHeader) -> ScanReason | None:
    """Return why a journal does not account for what was written while it existed, or None if it does."""
    if not isinstance(seen.content, RollbackJournal):
        is_harmless = seen.content is JournalFault.NEVER_SYNCED and not seen.runs
        return None if is_harmless else seen.content
    if seen.is_kept:
        if seen.runs and seen.content.may_be_cut and not seen.is_whole:
            return JournalFault.CUT_OFF
        is_last_step = seen.counter() == (now.change_counter - 1) % 2**32
        return Doubt.JOURNAL_REUSED if seen.runs and not is_last_step else None
    return Doubt.JOURNAL_REUSED if seen.runs > seen.content.parts else None


def _is_plain(header: DatabaseHeader) -> bool:
    """Whether the counter and the size in the header can be believed."""
    return header.magic_ok and header.page_count > 0 and header.change_counter == header.version_valid_for


def _is_rollback(header: DatabaseHeader) -> bool:
    return header.write_version == header.read_version == _ROLLBACK_VERSION


def _steps(counter_before: int, now: DatabaseHeader, journals: Sequence[SeenJournal]) -> list[_Step] | NoProof:
    """Return the steps that lead to ``now``, the oldest first."""
    count = (now.change_counter - counter_before) % 2**32
    if count > STEPS_MAX:
        return NoProof.TOO_MANY_STEPS
    by_step: dict[int, list[RollbackJournal]] = defaultdict(list)
    committed: dict[int, tuple[DatabaseHeader, bytes]] = {}
    for each in journals:
        page_1 = each.content.page_1 if isinstance(each.content, RollbackJournal) else None
        header = None if page_1 is None else parse_database_header(page_1)
        if header is None or page_1 is None or not isinstance(each.content, RollbackJournal):
            continue  # the journal has no page 1, so its transaction was rolled back
        if not _is_plain(header):
            return NoProof.NO_HEADER
        if not _is_rollback(header):
            return NoProof.WAL
        if header.page_size != now.page_size:
            return NoProof.OTHER_PAGE_SIZE
        step = (header.change_counter - counter_before) % 2**32
        by_step[step].append(each.content)
        if each.runs:
            committed[step] = header, page_1
    if any(step > count for step in by_step):
        return NoProof.OTHER_STATE
    if any(step not in committed for step in range(count)):
        return NoProof.STEP_MISSING
    return [_Step(*committed[step], tuple(by_step[step])) for step in range(count)]


def _free_before(steps: Sequence[_Step], page: Callable[[int], bytes]) -> frozenset[int] | None:
    """Return the pages that were free before any of the steps, or None if a freelist could not be rebuilt."""
    free: frozenset[int] = frozenset()
    for index in reversed(range(len(steps))):
        step = steps[index]
        first_trunk, count = _FREELIST.unpack_from(step.page_1, _FREELIST_AT)
        pages = all_free_pages(
            _PagesBefore(steps[index:], page).page,
            first_trunk=first_trunk,
            count=count,
            page_count=step.header.page_count,
        )
        if pages is None:
            return None
        free |= pages
    return free


class _PagesBefore:
    """The pages of the database before the first of ``steps``, which lead to the current file."""

    def __init__(self, steps: Sequence[_Step], page: Callable[[int], bytes]) -> None:
        self._steps = steps
        self._page = page

    def page(self, number: int) -> bytes:
        for journal in self._journals():
            content = journal.page(number)
            if content is not None:
                return content
        return self._page(number)

    def _journals(self) -> Iterator[RollbackJournal]:
        for step in self._steps:
            yield from step.journals
