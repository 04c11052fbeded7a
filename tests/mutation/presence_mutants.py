"""Mutants that leave out the rules of presence, one by one, and the count that is believed in spite of all
its closes.
"""

from __future__ import annotations

from tests.mutation.mutants import RESTART, SEAM, mutant

PRESENCE = "core/follow/presence_decision.py"

PRESENCE_MUTANTS = (
    mutant(
        "DMS is taken first",
        PRESENCE,
        "return TakeDms() if seen.others is Others.PROCESS else",
        "return TakeDms() if seen.others in {Others.PROCESS, Others.NOBODY} else",
        "core/follow/test_presence_decision.py",
    ),
    mutant(
        "another walsyncd is a process",
        "adapters/files/source.py",
        "return self.liveness is not Liveness.NONE and self.pid != OFD_PID",
        "return self.liveness is not Liveness.NONE",
        "engine/follow/test_presence.py::test_the_lock_of_another_daemon_is_nobodys",
    ),
    mutant(
        "what is held need not have its name any more",
        PRESENCE,
        "if not seen.named:",
        "if False:",
        "engine/follow/test_presence.py::test_another_file_in_the_place_of_one_of_them",
    ),
    mutant(
        "presence is kept over another WAL",
        PRESENCE,
        "if not seen.fits:",
        "if False:",
        "engine/follow/test_presence.py::test_a_backup_copied_over_the_files_in_place",
    ),
    mutant(
        "presence is kept for ever",
        PRESENCE,
        "if seen.alone_ms >= ALONE_MS:",
        "if False:",
        "engine/follow/test_presence.py::test_who_wants_the_database_for_himself_gets_it_after_ten_seconds",
    ),
    mutant(
        "a count is believed in spite of a close, with the end of the file behind our frame",
        RESTART,
        "if stands and tail.next_salts not in (None, cursor.salts, new_salts, (0, 0)):",
        "if stands and tail.next_salts not in (cursor.salts, new_salts, (0, 0)):",
        "engine/follow/test_closed_index.py::test_a_counter_rebuilt_in_place_whose_commits_were_cut_off_is_a_gap",
    ),
    mutant(
        "a count is believed in spite of a close though our frame was overwritten",
        RESTART,
        "if stands and tail.next_salts not in (None, cursor.salts, new_salts, (0, 0)):",
        "if tail.next_salts not in (None, cursor.salts, new_salts, (0, 0)):",
        "core/follow/test_restart.py",
    ),
    mutant(
        "a count is believed in spite of a close though another incarnation may lie between",
        RESTART,
        "    if not succeeds(cursor.salts, new_salts):\n        return False\n    if stands",
        "    if stands",
        "core/follow/test_restart.py",
    ),
    mutant(
        "a count is believed in spite of a close whatever was hidden",
        RESTART,
        "return blocks_for(last + mark.ichange) * BLOCK_BYTES > index_bytes",
        "return blocks_for(last + mark.ichange) * BLOCK_BYTES >= index_bytes",
        "engine/follow/test_closed_index.py::test_a_counter_rebuilt_in_place_whose_commits_were_overwritten_is_a_gap",
    ),
    mutant(
        "a count is believed in spite of a close by what the wal-index showed before the last checkpoint",
        "engine/follow/wal_pair.py",
        "return self._followed_by < (3 if followed else 2)",
        "return True",
        "engine/follow/test_closed_index.py::test_a_counter_rebuilt_in_place_whose_commits_were_cut_off_is_a_gap",
    ),
    mutant(
        "a glance need not begin before the wal-index is read",
        "engine/follow/wal_pair.py",
        "return [*self._taken, *self._begun.values()]",
        "return [*self._taken]",
        "engine/follow/test_wal_pair.py::test_events_while_the_index_is_read_count",
    ),
    mutant(
        "frames that were there before an index read are not copied back while it lasts",
        "engine/follow/wal_pair.py",
        "self._followed_by = self._moving_followed_by",
        "self.wal_written()",
        "engine/follow/test_wal_pair.py::test_frames_that_were_there_and_are_copied_back_while_the_index_is_read",
    ),
    mutant(
        "frames that are not published yet are none",
        "engine/follow/wal_pair.py",
        "if may_go_on(index, found.salts if found is not None else None, now):",
        "if now is None or now.salts != index.salts:",
        "engine/follow/test_wal_pair.py::test_frames_behind_the_last_one",
    ),
    mutant(
        "an emptied WAL is begun with the salts that the wal-index tells of",
        "engine/follow/wal_pair.py",
        "return not index.max_frame and is_begun(wal, index.salts)",
        "return False",
        "engine/follow/test_closed_index.py::test_a_commit_that_an_emptied_wal_was_begun_with_is_not_missed",
    ),
    mutant(
        "a close that comes late means nothing",
        "engine/follow/look.py",
        "if wal_pair.closed != provisional.closed:",
        "if False:",
        "engine/follow/test_closed_index.py::test_a_killed_writer_whose_close_comes_late_is_a_gap",
    ),
    mutant(
        "a count is believed for good because no close has come so far",
        SEAM,
        "if proof.is_provisional:",
        "if False:",
        "engine/follow/test_closed_index.py::test_a_killed_writer_whose_close_comes_late_is_a_gap",
    ),
    mutant(
        "the count of a new WAL is believed for good because no close has come so far",
        "engine/follow/new_wal.py",
        "if accepted.is_provisional:",
        "if False:",
        "engine/follow/test_closed_index.py::test_a_killed_writer_whose_close_comes_late_in_a_new_wal_is_a_gap",
    ),
    mutant(
        "a count is believed in spite of a close though the wal-index had come further at the last checkpoint",
        RESTART,
        "if any((index.salts, index.max_frame) == (cursor.salts, last) for index in last_index_reads):",
        "if any(index.salts == cursor.salts for index in last_index_reads):",
        "core/follow/test_restart.py",
    ),
)
