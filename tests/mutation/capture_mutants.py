"""Mutants that leave out rules of the journals that are held: whose they are, and from which state on they count."""

from __future__ import annotations

from tests.mutation.mutants import Mutant, mutant

CAPTURE = "engine/rollback/journal_capture.py"
CAPTURE_TEST = "engine/rollback/test_journal_capture.py"
INOTIFY = "adapters/files/inotify.py"
INOTIFY_TEST = "adapters/files/test_inotify.py"
EVENTS = "adapters/files/file_event.py"
EVENTS_TEST = "adapters/files/test_file_event.py"
PAGES = "engine/rollback/journal_pages.py"
COUNTED_TEST = "engine/rollback/test_counted_writes.py"
PAGES_TEST = "engine/rollback/test_journal_pages.py"
MOMENTS = "engine/rollback/rolling_moments.py"
MOMENTS_TEST = "engine/rollback/test_rolling_moments.py"

CAPTURE_MUTANTS: tuple[Mutant, ...] = (
    mutant(
        "a held journal need not be the deleted one",
        CAPTURE,
        "if journal is None or not journal.unlinked():",
        "if journal is None:",
        CAPTURE_TEST,
    ),
    mutant(
        "events on both sides of a mark are one",
        CAPTURE,
        "is_after_mark = self._dropped + len(self._entries) > self._marked",
        "is_after_mark = True",
        CAPTURE_TEST,
    ),
    mutant(
        "counted writes on both sides of a mark are few",
        CAPTURE,
        "is_after_mark = self._dropped + len(self._entries) >= self._marked + len(_WRITES)",
        "is_after_mark = True",
        CAPTURE_TEST,
    ),
    mutant(
        "any counted write is one too many",
        EVENTS,
        "    if len(run) == 5 and run[0] == run[2] == run[4] and run[1] == run[3] == counted:",
        "    if run[-1:]:",
        EVENTS_TEST,
    ),
    mutant(
        "the writes of a long transaction are counted to its end",
        INOTIFY,
        "if counted.take(self._found):",
        "if counted.take(self._found) and False:",
        INOTIFY_TEST,
    ),
    mutant(
        "nobody is told that writes are not counted any more",
        EVENTS,
        "kind=Kind.UNCOUNTED",
        "kind=Kind.COUNTED",
        EVENTS_TEST,
    ),
    mutant(
        "the writes of all transactions together are limited",
        PAGES,
        "            if self._is_kept_whole:",
        "            if False:",
        COUNTED_TEST,
    ),
    mutant(
        "the writes to an empty journal are counted",
        PAGES,
        " is JournalNow.IDLE and self._source.capture.has_records():",
        " is JournalNow.IDLE:",
        COUNTED_TEST,
    ),
    mutant(
        "what a write to a watched file means is remembered as that of a name",
        INOTIFY,
        "if mask == MODIFY and name:",
        "if mask == MODIFY:",
        INOTIFY_TEST,
    ),
    mutant(
        "whoever owns the folder chooses which file's writes are counted",
        INOTIFY,
        "int(flags.DONT_FOLLOW | flags.MODIFY",
        "int(flags.MODIFY",
        INOTIFY_TEST,
    ),
    mutant(
        "what follows a mark is dropped with what came before",
        CAPTURE,
        "self._entries[:split], self._entries[split:]",
        "self._entries, []",
        CAPTURE_TEST,
    ),
    mutant(
        "events that were lost showed nothing",
        CAPTURE,
        "self._append(Doubt.EVENTS_LOST)\n            elif",
        "pass\n            elif",
        CAPTURE_TEST,
    ),
    mutant(
        "a kept journal may be used while it is read",
        PAGES,
        "return not self._is_reserved() and self._source.capture.is_untouched(self._mark)",
        "return True",
        PAGES_TEST,
    ),
    mutant(
        "a scan need not be accepted",
        PAGES,
        "            self.reason = None\n",
        "            self.reason = self.take() and None\n",
        PAGES_TEST,
    ),
    mutant(
        "an early scan reads all pages in doubt",
        PAGES,
        "return _NO_PAGES if self.is_early else all_pages()",
        "return all_pages()",
        PAGES_TEST,
    ),
    mutant(
        "an early scan is believed in doubt",
        PAGES,
        "if self.reason is not None and self.is_early:",
        "if self.reason is None and self.is_early:",
        PAGES_TEST,
    ),
    mutant(
        "the map holds what a rolling scan has read, though it had no result",
        CAPTURE,
        "mark.count < self._dropped or origin != self._origin:",
        "mark.count < self._dropped:",
        CAPTURE_TEST,
    ),
    mutant(
        "a missed journal is seen at a quiet moment only",
        CAPTURE,
        "return trail.doubt is not None",
        "return False",
        CAPTURE_TEST,
    ),
    mutant(
        "a moment of a rolling scan may end while the journals are read",
        MOMENTS,
        "self.hindrance = end_moment(self._looks, start, start.page_1)",
        "self.hindrance = None",
        MOMENTS_TEST,
    ),
    mutant(
        "a rolling scan believes a kept journal that was used meanwhile",
        MOMENTS,
        "(self._proofs.is_passing or not self._proofs.are_complete())",
        "self._proofs.is_passing",
        MOMENTS_TEST,
    ),
    mutant(
        "a rolling scan begins where a commit may have come in between",
        MOMENTS,
        "end_moment(looks, start, start.page_1) is not None or proofs.take() is None",
        "proofs.take() is None",
        MOMENTS_TEST,
    ),
    mutant(
        "a rolling scan goes on in doubt",
        MOMENTS,
        "if not isinstance(found, ChangedPages) or not self._scan.add(found):",
        "if isinstance(found, ChangedPages) and not self._scan.add(found):",
        MOMENTS_TEST,
    ),
    mutant(
        "a rolling scan that is over takes a later moment",
        MOMENTS,
        "        if self.is_over:\n            return None\n        if",
        "        if",
        MOMENTS_TEST,
    ),
    mutant(
        "a state is known though what followed was dropped",
        CAPTURE,
        "if mark.count < self._dropped:\n                self._clear",
        "if mark.count < 0:\n                self._clear",
        CAPTURE_TEST,
    ),
)
