"""The rules about who wrote to a database and who ended its WAL, left out one by one."""

from __future__ import annotations

from tests.mutation.mutants import EYES, LIVES, mutant

TRAIL = "core/follow/write_trail.py"
CHECKPOINTS = "core/follow/checkpoint_evidence.py"
PAIR = "engine/follow/wal_pair.py"
DOUBTS = "engine/follow/test_doubts.py"
OVERWRITTEN = "engine/content/test_overwritten_pages.py"
WRITTEN_WAL = "engine/follow/test_written_wal.py"

DOUBT_MUTANTS = (
    mutant(
        "whoever removes -shm and -wal is a last connection",
        PAIR,
        "self.orderly = trail.ends_with_index() and is_copied_back",
        "self.orderly = is_copied_back",
        "core/follow/test_write_trail.py",
        f"{DOUBTS}::test_side_files_that_are_removed_before_a_commit",
    ),
    mutant(
        "a last close need not have copied everything back",
        PAIR,
        "index is None or index.backfilled == index.max_frame",
        "True",
        f"{DOUBTS}::test_side_files_that_are_removed_after_a_close_of_the_index",
    ),
    mutant(
        "the database may be written between the two DELETEs",
        TRAIL,
        "return self.shm_deleted_at < self.shm_closed_at and self.shm_deleted_at > max(",
        "return self.shm_deleted_at < self.shm_closed_at or self.shm_deleted_at > max(",
        "core/follow/test_write_trail.py",
    ),
    mutant(
        "a new wal-index may come to an old WAL",
        TRAIL,
        "return not self.shm_deleted_at",
        "return True",
        "engine/follow/test_stuck_state.py::test_a_new_wal_index_beside_the_old_wal",
    ),
    mutant(
        "a wal-index that was deleted beside its WAL is waited for, for ever",
        "engine/follow/stuck_state.py",
        "if seen.holder is DmsHolder.LEAVING:",
        "if False:",
        "engine/follow/test_stuck_state.py::test_a_wal_index_that_somebody_deleted",
    ),
    mutant(
        "a wal-index that was deleted goes on if somebody uses it",
        EYES,
        "return DmsHolder.LEAVING if wal_pair.shm.unlinked() else DmsHolder.NONE",
        "return holder if wal_pair.shm.unlinked() else DmsHolder.NONE",
        "engine/follow/test_stuck_state.py::test_a_wal_index_that_somebody_deleted",
    ),
    mutant(
        "every write to the database is a checkpoint",
        CHECKPOINTS,
        "return write.looks < LOOKS_MAX",
        "return True",
        "core/follow/test_checkpoint_evidence.py",
        f"{DOUBTS}::test_a_page_that_is_written_by_a_process_that_keeps_the_file_open",
    ),
    mutant(
        "a write is compared with the header after the last drain",
        CHECKPOINTS,
        "if number <= drain - 2",
        "if number <= drain - 1",
        "core/follow/test_checkpoint_evidence.py",
    ),
    mutant(
        "a checkpoint that is under way is doubted",
        CHECKPOINTS,
        "if is_busy or now_ms - write.looked_ms < LOOK_MS:",
        "if now_ms - write.looked_ms < LOOK_MS:",
        "core/follow/test_checkpoint_evidence.py",
    ),
    mutant(
        "a write that no event tells of did not happen",
        PAIR,
        "if untold_ms >= LATE_EVENT_MS:",
        "if False:",
        f"{DOUBTS}::test_a_page_that_is_written_through_a_hard_link",
    ),
    mutant(
        "whoever closes the database is SQLite",
        PAIR,
        "case Role.DATABASE, Kind.CLOSE_WRITE if not trail.database_closed() and trail.is_just_written(drain):",
        "case Role.DATABASE, Kind.CLOSE_WRITE if not (trail.database_closed() or True):",
        f"{DOUBTS}::test_a_copy_while_a_checkpoint_runs",
    ),
    mutant(
        "doubts are not looked at",
        "engine/follow/look.py",
        "if wal_pair.doubt is not None:",
        "if False:",
        f"{DOUBTS}::test_a_copy_while_a_checkpoint_runs",
    ),
    mutant(
        "a wal-index that was removed while nobody watched explains a write",
        "core/follow/follow_state.py",
        "if self.backfilled is None or now.backfilled is None:",
        "if now.backfilled is None and self.backfilled is None:",
        "core/follow/test_follow_state.py",
    ),
    mutant(
        "a wal-index that was rebuilt while nobody watched explains a write",
        "core/follow/follow_state.py",
        "self.backfilled < now.backfilled",
        "self.backfilled != now.backfilled",
        "core/follow/test_follow_state.py",
    ),
    mutant(
        "what was written while the daemon was away does not matter",
        "engine/follow/resume.py",
        "if state.seen is not None and not state.seen.explains(reader.database_seen()):",
        "if False:",
        f"{DOUBTS}::test_a_database_that_is_written_while_the_daemon_is_away",
    ),
    mutant(
        "a wal-index that nobody seems to use is stale, even if it counts on",
        "engine/follow/copy_frames.py",
        "return counted is not None and counted != index.ichange",
        "return False",
        f"{DOUBTS}::test_an_application_that_drops_its_locks",
    ),
    mutant(
        "a WAL of another format is an empty one",
        EYES,
        "if wal is None and is_unknown_wal(head):",
        "if False:",
        f"{DOUBTS}::test_a_wal_of_another_format_is_refused",
    ),
    mutant(
        "nothing is compared with before the first event",
        LIVES,
        "or (write is None and last.checkpoints.has_reading)",
        "or write is None",
        f"{DOUBTS}::test_the_first_thing_that_happens_is_written_past_sqlite",
    ),
    mutant(
        "a file that was doubted is compared no more",
        "engine/content/page_content.py",
        "state.cursor.salts != doubted:",
        "False:",
        "engine/content/test_page_content.py::test_what_was_written_over_a_page_that_was_copied_back",
    ),
    # -- pages that were written over after they had been copied back
    mutant(
        "a page that was copied back is taken from the WAL",
        "engine/content/gap_bridge.py",
        "begin_pass(copied_back(index, state.cursor))",
        "begin_pass(0)",
        f"{OVERWRITTEN}::test_readers_read_the_file",
    ),
    mutant(
        "a page that was written over clears a doubt",
        "engine/content/bridge_scan.py",
        "self._old.overwritten is None and not len(overwritten)",
        "True",
        f"{OVERWRITTEN}::test_readers_read_the_file",
    ),
    mutant(
        "nobody notices that the WAL is recovered",
        "engine/follow/look.py",
        "step.caught_up and _frames_count_again(",
        "False and _frames_count_again(",
        f"{OVERWRITTEN}::test_the_wal_is_recovered",
    ),
    mutant(
        "nobody recovers the WAL while the daemon is away",
        PAIR,
        "self.taken_from_file != self.index_rebuilds",
        "self.taken_from_file is not None and self.taken_from_file != self.index_rebuilds",
        f"{OVERWRITTEN}::test_the_wal_is_recovered_while_the_daemon_is_away",
    ),
    mutant(
        "nobody recovers the WAL between two looks",
        PAIR,
        "self.taken_from_file != self.index_rebuilds",
        "self.taken_from_file is None",
        f"{OVERWRITTEN}::test_the_wal_is_recovered_between_two_looks",
    ),
    mutant(
        "it is forgotten which version the replica has",
        "core/follow/follow_state.py",
        "if state.overwritten is None else",
        "if True else",
        "core/follow/test_follow_state.py",
    ),
    mutant(
        "the frames of a new generation hide what was written over",
        "engine/follow/begin_generation.py",
        "next_generation.is_doubtful and",
        "next_generation.is_doubtful and False and",
        f"{OVERWRITTEN}::test_a_backup_is_copied_over[False]",
    ),
    mutant(
        "a scrub does not compare pages that were copied back",
        "engine/content/scrub_steps.py",
        "rest = max(0, copied_upto + 1 - frames.first)",
        "rest = 0",
        f"{OVERWRITTEN}::test_a_scrub_compares_pages_that_were_copied_back",
    ),
    mutant(
        "an epoch begins with pages that were written over",
        "engine/content/epoch_start.py",
        "if start.origin.state.overwritten is not None:",
        "if False:",
        "engine/content/test_epoch_start.py::test_pages_that_somebody_wrote_over_are_not_taken_from_the_wal",
    ),
    mutant(
        "a look that finds nothing new does not ask whether the last frame is there",
        "engine/follow/look.py",
        "if not reader.holds(cursor):",
        "if False:",
        f"{WRITTEN_WAL}::test_an_older_copy_of_the_same_incarnation",
    ),
    mutant(
        "commits after a hole are taken",
        "engine/follow/copy_frames.py",
        "case _ if not holds:",
        "case _ if False:",
        f"{WRITTEN_WAL}::test_an_older_copy_of_the_same_incarnation",
    ),
    mutant(
        "a hole is what older SQLite publishes, so that nothing begins before the WAL has restarted",
        "core/follow/decision.py",
        "read.end is FrameEnd.HOLE or (read.end is FrameEnd.DATA and read.next_salts is None)",
        "read.end is FrameEnd.DATA and read.next_salts is None",
        "core/follow/test_decision.py::test_a_published_frame_that_is_not_there",
        f"{WRITTEN_WAL}::test_a_copy_that_has_all_that_was_shipped",
    ),
    mutant(
        "what was read ahead is joined over a hole",
        "engine/read_ahead/ahead_look.py",
        "return before.pread(start, FRAME_HEADER_SIZE) == data[:FRAME_HEADER_SIZE]",
        "return True",
        "engine/read_ahead/test_ahead_look.py::test_frames_that_were_written_over_are_joined_with_nothing",
    ),
)
