"""Rules of the journals that are held left out: whose they are, and from which state on they count."""

from __future__ import annotations

from tests.mutation.mutants import Mutant, mutant

CAPTURE = "engine/rollback/journal_capture.py"
CAPTURE_TEST = "engine/rollback/test_journal_capture.py"
PAGES = "engine/rollback/journal_pages.py"
PAGES_TEST = "engine/rollback/test_journal_pages.py"

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
        "return not self._source.is_reserved() and self._source.capture.is_untouched(self._mark)",
        "return True",
        PAGES_TEST,
    ),
    mutant(
        "a scan need not be accepted",
        PAGES,
        "            self.reason = None\n",
        "            self.reason = self.accepted() and None\n",
        PAGES_TEST,
    ),
    mutant(
        "a scan of all pages never rests",
        PAGES,
        "self.is_early = self._pages.reason is None or not self.is_early",
        "self.is_early = True",
        PAGES_TEST,
    ),
)
