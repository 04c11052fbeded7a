"""Mutants that leave out rules of rollback mode: when a file is in a committed state, and how a base is closed."""

from __future__ import annotations

from tests.mutation.mutants import Mutant, mutant

MOMENT = "engine/rollback/committed_moment.py"
SHIPPED = "engine/rollback/shipped_moment.py"
SCRUB = "engine/rollback/file_scrub.py"
MODEL = "engine/rollback/test_committed_moment.py"

ROLLBACK_MUTANTS: tuple[Mutant, ...] = (
    mutant("a writer's lock is no hindrance", MOMENT, "    if locks.writing:", "    if False:", MODEL),
    mutant(
        "a hot journal is no hindrance",
        MOMENT,
        "            return Hindrance.HOT\n",
        "            return None\n",
        MODEL,
    ),
    mutant(
        "a journal whose super-journal is gone is no hindrance",
        MOMENT,
        "            return Hindrance.SUPER_JOURNAL\n",
        "            return None\n",
        MODEL,
    ),
    mutant(
        "counter, size and locks suffice",
        MOMENT,
        "return None if looks.events() == start.events else Hindrance.WRITTEN",
        "return None",
        MODEL,
    ),
    mutant(
        "the events are counted before the locks are asked",
        MOMENT,
        "    if (hindrance := _in_the_way(looks)) is not None:\n        return hindrance\n    if not looks.is_named():",
        (
            "    late = looks.events() != start.events\n"
            "    if (hindrance := _in_the_way(looks)) is not None:\n        return hindrance\n"
            "    start = MomentStart(start.page_1, start.times, looks.taken if not late else -1)  # type: ignore\n"
            "    looks.events = lambda: looks.taken  # type: ignore\n"
            "    if not looks.is_named():"
        ),
        MODEL,
    ),
    mutant(
        "the locks are asked at the start alone",
        MOMENT,
        "    if (hindrance := _in_the_way(looks)) is not None:\n        return hindrance\n    if not looks.is_named():",
        "    if not looks.is_named():",
        MODEL,
    ),
    mutant(
        "the times do not matter",
        MOMENT,
        "if not looks.times().is_same(start.times):",
        "if False:",
        MODEL,
    ),
    mutant(
        "without events a file need not have been quiet",
        MOMENT,
        "if not looks.is_watched() and not times.settled:",
        "if False:",
        MODEL,
    ),
    mutant("page 1 is not read again", MOMENT, "page_1 != start.page_1 or looks", "looks", MODEL),
    mutant("another file is as good", MOMENT, "if not looks.is_named():", "if False:", MODEL),
    mutant("WAL mode is read on", MOMENT, "if header is not None and header.wal_mode:", "if False:", MODEL),
    mutant(
        "a base is compared with nothing that it took",
        "engine/rollback/scanning.py",
        "(page_map, other) if page_map is not None",
        "(page_map, None) if page_map is not None",
        "engine/base/test_snapshotter.py::test_a_rollback_database_that_is_written_while_it_is_copied",
    ),
    mutant(
        "a base may read a range again",
        "engine/content/base_entries.py",
        "if offset != self.reached:",
        "if False:",
        "engine/content/test_base_entries.py",
    ),
    mutant(
        "a base without a WAL is resumed as one with a WAL is",
        "engine/base/snapshotter.py",
        "took_all=origin.reading is not None",
        "took_all=False",
        "engine/base/test_snapshotter.py::test_a_base_without_a_wal_is_resumed_by_reading_it_again",
    ),
    mutant(
        "a part from before a restart is kept unread",
        "engine/base/base_copy.py",
        "if held.etag is not None and not self._is_unread:",
        "if held.etag is not None:",
        "engine/base/test_base_copy.py::test_a_base_of_which_all_must_be_taken_is_read_again_after_a_kill",
    ),
    mutant(
        "a part that has changed since is kept",
        "engine/base/base_copy.py",
        "if held.etag is not None and _md5(again.body) == part.md5:",
        "if held.etag is not None:",
        "engine/base/test_base_copy.py::test_a_base_of_which_all_must_be_taken_is_read_again_after_a_kill",
    ),
    mutant(
        "an object that an earlier run completed is taken unread",
        "engine/base/base_copy.py",
        "self._replaced or self._is_unread:",
        "self._replaced:",
        "engine/base/test_base_copy.py::test_a_base_of_which_all_must_be_taken_is_read_again_after_a_kill",
    ),
    mutant(
        "a set that is not proven is believed",
        "engine/rollback/page_scan.py",
        "if hindrance is None and not order.pages.are_complete():",
        "if False:",
        "engine/rollback/test_page_scan.py",
    ),
    mutant(
        "pages past the end are waited for by nobody",
        "engine/rollback/page_scan.py",
        "if not pages or pages * order.page_size > size:",
        "if False:",
        "engine/rollback/test_page_scan.py",
    ),
    mutant(
        "the file's times are asked after the last looks",
        "engine/rollback/page_scan.py",
        "looks.last_facts  #",
        "(looks.times(), looks.last_facts)[1]  #",
        "engine/rollback/test_page_scan.py",
    ),
    mutant(
        "frames without a map are built upon",
        "engine/rollback/rollback_look.py",
        "if not has_map and state.stream.frame:",
        "if False:",
        "engine/rollback/test_rollback_look.py",
    ),
    mutant(
        "a difference that is read once is believed",
        SCRUB,
        "            if len(pages):\n",
        "            if False:\n",
        "engine/rollback/test_file_scrub.py::test_a_writer_that_never_pauses_postpones_it",
    ),
    mutant(
        "what only the next base will hold is shipped",
        SHIPPED,
        "if scans is not None and not scans.has_map():",
        "if False:",
        "engine/rollback/test_shipped_moment.py",
    ),
    mutant(
        "what is committed and not shipped yet is a difference",
        SHIPPED,
        "if scans is None or not scans.is_shipped(start.events, facts):",
        "if False:",
        "engine/rollback/test_file_scrub.py::test_a_difference_counts_only_at_a_moment_whose_content_is_shipped",
    ),
    mutant(
        "a difference in what a writer writes is believed",
        SHIPPED,
        "ShippedState(state, found) if hindrance is None else hindrance.value",
        "ShippedState(state, found)",
        "engine/rollback/test_file_scrub.py::test_a_difference_counts_only_at_a_moment_whose_content_is_shipped",
    ),
    mutant(
        "free leaves are differences",
        SCRUB,
        "pages[~np.isin(pages, list(unused))]",
        "pages[:]",
        "engine/rollback/test_file_scrub.py::test_free_leaves_are_no_difference",
    ),
    mutant(
        "a hot journal's mixture is compared",
        SCRUB,
        "if isinstance(start, Hindrance) and start in UNFIT:",
        "if False:",
        "engine/rollback/test_file_scrub.py::test_a_hot_journal_is_no_difference_and_ends",
    ),
    mutant(
        "a file that looks as before a restart is not known",
        "engine/rollback/rollback_look.py",
        "        scans.note_known(events_before)",
        "        pass",
        "engine/rollback/test_file_scrub.py::test_a_page_that_went_back_is_found_after_a_restart",
    ),
    mutant(
        "a file that looks as before is known up to events that came later",
        "engine/rollback/rollback_look.py",
        "        scans.note_known(events_before)",
        "        scans.note_known(events)",
        "engine/rollback/test_rollback_look.py",
    ),
    mutant(
        "a base is closed by what it took alone although a scan finds the map lost",
        "engine/rollback/scanning.py",
        "known is None or (page_map is None and has_map)",
        "known is None",
        "engine/rollback/test_scanning.py::test_what_a_base_took_is_no_map_where_one_was_lost",
    ),
    mutant(
        "a lost map is no gap",
        "engine/rollback/rollback_look.py",
        "if not has_map and state.stream.frame:",
        "if False:",
        "engine/rollback/test_rollback_look.py::test_a_lost_map_is_a_gap",
    ),
    mutant(
        "what a scan read of another file is taken",
        "engine/rollback/database_scans.py",
        "if not found.committed.facts.is_file(state.file):",
        "if False:",
        "engine/rollback/test_database_scans.py::test_a_scan_of_another_file_is_not_taken",
    ),
    mutant(
        "a write by another name of the file is known",
        "engine/rollback/database_scans.py",
        "then = self._facts or state.file",
        "then = state.file",
        "engine/rollback/test_journal_use.py",
    ),
)
