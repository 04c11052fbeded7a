"""Mutants that leave out rules of rollback journals: what a journal names, which journals count, and in which order of
events.
"""

from __future__ import annotations

from tests.mutation.mutants import Mutant, mutant

FORMAT = "core/sqlite/rollback_journal.py"
FORMAT_TEST = "core/sqlite/test_rollback_journal.py"
CHANGED = "core/rollback/changed_pages.py"
CHANGED_TEST = "core/rollback/test_changed_pages.py"
TRAIL = "core/rollback/journal_trail.py"
TRAIL_TEST = "core/rollback/test_journal_trail.py"
ROLLING = "core/rollback/rolling_scan.py"
ROLLING_TEST = "core/rollback/test_rolling_scan.py"

JOURNAL_MUTANTS: tuple[Mutant, ...] = (
    # -- the journal
    mutant(
        "a transaction has one part",
        FORMAT,
        "        if records.count - before < stated:\n            return JournalFault.DAMAGED\n",
        "        if records.count - before < stated:\n            return JournalFault.DAMAGED\n        return None\n",
        FORMAT_TEST,
    ),
    mutant(
        "the count in the header ends a part",
        FORMAT,
        "return JournalFault.DAMAGED\n        at = ",
        "pass\n        at = ",
        FORMAT_TEST,
    ),
    mutant(
        "a part that is never synced is followed by others", FORMAT, "if stated == _NO_SYNC:", "if False:", FORMAT_TEST
    ),
    mutant(
        "checksums of records do not matter",
        FORMAT,
        "if (nonce + page_sum(record[4:-4])) % 2**32 !=",
        "if False and 0 !=",
        FORMAT_TEST,
    ),
    mutant(
        "the last record of a page counts",
        FORMAT,
        "self.by_page.setdefault(number, at + 4)",
        "self.by_page[number] = at + 4",
        FORMAT_TEST,
    ),
    mutant("what was never synced counts", FORMAT, "if head.startswith(_NEVER_SYNCED):", "if False:", FORMAT_TEST),
    mutant(
        "a zeroed header is one that was never synced",
        FORMAT,
        "    if head == _ZEROED:\n        return JournalFault.ZEROED\n",
        "",
        FORMAT_TEST,
    ),
    mutant("a kept journal is never cut", FORMAT, "return size - end < page_size + 8", "return False", FORMAT_TEST),
    mutant(
        "page 1 of a kept journal counts from any part",
        FORMAT,
        "journal = _journal(records, read, page_size, first_part)",
        "journal = _journal(records, read, page_size, records.by_page)",
        FORMAT_TEST,
        CHANGED_TEST,
    ),
    # -- what changed
    mutant("page 1 is as it was", CHANGED, "numbers = {1, *free}", "numbers = {*free}", CHANGED_TEST),
    mutant(
        "new pages are journalled",
        CHANGED,
        "numbers.update(range(smallest + 1, now.page_count + 1))",
        "pass",
        CHANGED_TEST,
    ),
    mutant(
        "the database never became smaller in between",
        CHANGED,
        "smallest = min((step",
        "smallest = max((step",
        CHANGED_TEST,
    ),
    mutant("free pages are as they were", CHANGED, "numbers = {1, *free}", "numbers = {1}", CHANGED_TEST),
    mutant(
        "trunks are as they are in the file",
        CHANGED,
        "            if content is not None:\n                return content\n",
        "",
        CHANGED_TEST,
    ),
    mutant(
        "trunks are those of the newest transaction",
        CHANGED,
        "_PagesBefore(steps[index:], page).page",
        "_PagesBefore(steps[-1:], page).page",
        CHANGED_TEST,
    ),
    mutant(
        "a freelist that cannot be rebuilt is passed over",
        CHANGED,
        "            return None\n        free |= pages",
        "            continue\n        free |= pages",
        CHANGED_TEST,
    ),
    mutant(
        "the freelist need not have as many pages as page 1 states",
        "core/sqlite/freelist.py",
        "is_whole = found == len(free) == count",
        "is_whole = True",
        "core/sqlite/test_freelist.py",
        CHANGED_TEST,
    ),
    mutant(
        "one transaction may lack its journal",
        CHANGED,
        "if any(step not in committed for step in range(count)):",
        "count = sum(step in committed for step in range(count))\n    if False:",
        CHANGED_TEST,
    ),
    mutant(
        "transactions that were rolled back wrote nothing",
        CHANGED,
        "        if isinstance(each.content, RollbackJournal):\n            numbers.update(each.content.records)\n",
        "        if isinstance(each.content, RollbackJournal) and each.content.page_1:\n"
        "            numbers.update(each.content.records)\n",
        CHANGED_TEST,
    ),
    mutant(
        "a transaction that was rolled back takes no free pages",
        CHANGED,
        "    if len(journals) > len(steps):",
        "    if False:",
        CHANGED_TEST,
    ),
    mutant(
        "a journal of another state does not matter",
        CHANGED,
        "if any(step > count for step in by_step):",
        "if False:",
        CHANGED_TEST,
    ),
    mutant(
        "a journal that says nothing does not matter",
        CHANGED,
        "        return None if is_harmless else seen.content\n",
        "        return None\n",
        CHANGED_TEST,
    ),
    mutant(
        "a journal of WAL mode counts",
        CHANGED,
        "        if not _is_rollback(header):\n            return NoProof.WAL\n        if header.page_size",
        "        if header.page_size",
        CHANGED_TEST,
    ),
    mutant(
        "the size in page 1 is believed whatever its version says",
        CHANGED,
        "header.page_count > 0 and header.change_counter == header.version_valid_for",
        "header.page_count > 0",
        CHANGED_TEST,
    ),
    mutant(
        "a deleted journal explains any number of runs",
        CHANGED,
        "return Doubt.JOURNAL_REUSED if seen.runs > seen.content.parts else None",
        "return None",
        CHANGED_TEST,
    ),
    mutant(
        "a kept journal need not be that of the last step",
        CHANGED,
        "return Doubt.JOURNAL_REUSED if seen.runs and not is_last_step else None",
        "return None",
        CHANGED_TEST,
    ),
    mutant(
        "a kept journal that fills its file was not cut",
        CHANGED,
        "if seen.runs and seen.content.may_be_cut and not seen.is_whole:",
        "if False:",
        CHANGED_TEST,
    ),
    mutant("a commit need not write", CHANGED, "        if each.runs:\n", "        if True:\n", CHANGED_TEST),
    mutant(
        "a run beside a journal that was never synced does not matter",
        CHANGED,
        "seen.content is JournalFault.NEVER_SYNCED and not seen.runs",
        "seen.content is JournalFault.NEVER_SYNCED",
        CHANGED_TEST,
    ),
    # -- the order of events
    mutant(
        "a write without a journal does not matter",
        TRAIL,
        "        if not is_in_window:\n",
        "        if False:\n",
        TRAIL_TEST,
    ),
    mutant(
        "a kept journal explains a write before it was used",
        TRAIL,
        "(self.is_kept and self.is_journal_written)",
        "self.is_kept",
        TRAIL_TEST,
    ),
    mutant(
        "a kept journal may serve two transactions",
        TRAIL,
        "return Doubt.JOURNAL_REUSED if self.database_runs > 1 else None",
        "return None",
        TRAIL_TEST,
    ),
    mutant(
        "a write after the end of a kept journal does not matter",
        TRAIL,
        "if self.database_runs and not self._last_was_journal:",
        "if False:",
        TRAIL_TEST,
    ),
    mutant(
        "a journal that was missed does not matter",
        TRAIL,
        "        if not is_held:\n            self.raise_doubt(Doubt.JOURNAL_MISSED)\n        if self.is_open",
        "        if self.is_open",
        TRAIL_TEST,
    ),
    mutant(
        "a kept journal is whole however often it was written after the database",
        TRAIL,
        "self._is_last_counted and self.last_writes == 1",
        "self._is_last_counted",
        TRAIL_TEST,
    ),
    mutant(
        "a journal may be whole if somebody stopped counting",
        TRAIL,
        "                self._is_counted = False",
        "                pass",
        TRAIL_TEST,
    ),
    mutant(
        "the write that ends a transaction need not be counted",
        TRAIL,
        "self._is_counted and self._is_last_counted and self.last_writes",
        "self._is_counted and self.last_writes",
        TRAIL_TEST,
    ),
    mutant(
        "writes may be counted from any time on",
        TRAIL,
        "self._is_counted = self._is_counted and self._is_last_counted and self.is_journal_written",
        "self._is_counted = self._is_counted and self.is_journal_written",
        TRAIL_TEST,
    ),
    mutant(
        "a write that is not counted does not matter if another follows",
        TRAIL,
        "self._is_counted, self._is_last_counted = self._is_counted and self._is_last_counted, False",
        "self._is_last_counted = False",
        TRAIL_TEST,
    ),
    mutant(
        "the writes before the database was written need not be counted",
        TRAIL,
        "self._is_last_counted and self.is_journal_written",
        "self._is_last_counted",
        TRAIL_TEST,
    ),
    # -- the rolling scan
    mutant(
        "a pass takes what changed while the one before it read",
        ROLLING,
        "joined: PageNumbers = np.union1d(self._changed, changed.numbers)",
        "joined: PageNumbers = np.unique(changed.numbers)",
        ROLLING_TEST,
    ),
    mutant(
        "moments need not follow one another",
        ROLLING,
        "if changed.counter_before != self.counter:",
        "if False:",
        ROLLING_TEST,
    ),
)
