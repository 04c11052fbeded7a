"""The proof, broken on purpose. Each mutant leaves out one of its rules and names the tests that must notice.

An edit is a piece of source that occurs exactly once in its file, and its replacement.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mutant:
    """A mutant: what is broken (the test's name), where, how, and the test files that must notice."""

    name: str
    file: str
    edits: tuple[tuple[str, str], ...]
    asked: tuple[str, ...]


def mutant(name: str, file: str, old: str, new: str, *asked: str) -> Mutant:
    return Mutant(name, file, ((old, new),), asked)


COPYING = "engine/follow/copy_frames.py"
EYES = "engine/follow/source_reader.py"
FIRST_WAL = "core/follow/first_wal.py"
FOLLOW = "core/follow/decision.py"
LIVES = "engine/follow/wal_pairs.py"
RESTART = "core/follow/restart.py"
RESTART_SEEN = "core/follow/restart_seen.py"
RESUMPTION = "core/follow/resumption.py"
SEAM = "engine/follow/wal_restart.py"
SNAPSHOTTER = "engine/base/snapshotter.py"

MUTANTS = (
    # -- the same incarnation: copy, verify, look again
    mutant(
        "the headers are not read again after a copy",
        COPYING,
        "settle(copy, frames, after, asked",
        "settle(copy, frames, seen, asked",
        "engine/follow/test_interleavings.py::test_a_restart_under_a_copy_is_no_rewritten_history",
    ),
    mutant(
        "nothing comes after the last frame that a wal-index shows",
        FOLLOW,
        "return after.max_frame > index.max_frame or following in {index.salts, (0, 0)}",
        "return False",
        "core/follow/test_decision.py",
    ),
    mutant(
        "the database as it was beside an earlier incarnation is kept for a later one",
        "engine/follow/file_facts.py",
        "look.seen.salts == salts and look.told == told:",
        "look.told == told:",
        "engine/follow/test_file_facts.py",
    ),
    mutant(
        "the database as it was before a checkpoint is kept after it",
        "engine/follow/file_facts.py",
        "salts == salts and look.told == told:",
        "salts == salts:",
        "engine/follow/test_file_facts.py::test_the_file_is_not_that_before_a_checkpoint",
    ),
    mutant(
        "a WAL that is deleted during an idle look was read to its end",
        COPYING,
        "state) if reader.ended else AT_ONCE",
        "state)",
        "engine/follow/test_interleavings.py::test_a_commit_and_a_last_close_during_an_idle_look",
    ),
    mutant(
        "a new WAL that is deleted during a look never held anything",
        FIRST_WAL,
        "return NeverUsed() if first.was_ended else Repeat()",
        "return NeverUsed()",
        "engine/follow/test_interleavings.py::test_a_first_commit_and_a_last_close_during_a_look",
    ),
    mutant(
        "other salts after the reading do not matter",
        FOLLOW,
        "if salts != copy.cursor.salts:",
        "if False:",
        "core/follow/test_decision.py",
    ),
    mutant(
        "the chain is not checked",
        "core/sqlite/wal.py",
        "valid = (fields[:ours, 4:6] == chains).all(axis=1) & (fields[:ours, 0] != 0)",
        "chains = fields[:ours, 4:6]; valid = fields[:ours, 0] != 0",
        "core/sqlite/test_wal.py",
    ),
    mutant(
        "a published frame that breaks the chain is passed over",
        FOLLOW,
        "if held < asked:",
        "if False:",
        "core/follow/test_decision.py",
    ),
    mutant(
        "fewer frames than were shipped are no fork",
        FOLLOW,
        "if index.max_frame < cursor.frames:",
        "if False:",
        "core/follow/test_decision.py",
    ),
    mutant(
        "another last frame is no fork",
        FOLLOW,
        "if cursor.frames and index.frame_chain != cursor.chain:",
        "if False:",
        "core/follow/test_decision.py",
    ),
    # -- what is believed
    mutant(
        "a wal-index is believed without a live holder",
        EYES,
        "return DmsHolder(found.liveness.value)",
        "return DmsHolder.LIVE",
        "engine/follow/test_source_reader.py::test_a_killed_writer_leaves_a_stale_index",
    ),
    Mutant(
        "the queue is drained before the headers are read",
        EYES,
        (
            ("        self.environment.drain()\n        return Observation", "        return Observation"),
            (
                "        shm, found = self._headers()\n",
                "        self.environment.drain()\n        shm, found = self._headers()\n",
            ),
        ),
        ("engine/follow/test_interleavings.py::test_an_event_while_the_headers_are_read_is_noted",),
    ),
    mutant(
        "a rebuilt wal-index goes on counting",
        FOLLOW,
        "if mark is None or evidence.index_rebuilds or mark.shm_serial != shm_serial:",
        "if mark is None or mark.shm_serial != shm_serial:",
        "core/follow/test_decision.py",
    ),
    mutant(
        "a close of the wal-index means nothing",
        FOLLOW,
        "return whole or not evidence.closed",
        "return True",
        "core/follow/test_decision.py",
    ),
    mutant(
        "a counter may go down",
        FOLLOW,
        "if (index.ichange - mark.ichange) % 2**32 >= 2**31:",
        "if False:",
        "core/follow/test_decision.py",
    ),
    mutant(
        "a WAL without a wal-index ends like any other",
        "engine/follow/look.py",
        "if ended and not wal_pair.orderly:",
        "if False:",
        "engine/follow/test_interleavings.py::test_a_wal_that_was_removed_beside_an_exclusive_writer",
    ),
    # -- across a restart of the WAL
    mutant(
        "one commit may be missing from the count",
        RESTART,
        "if len(tail.commits) < need:",
        "if len(tail.commits) < need - 1:",
        "core/follow/test_restart.py",
    ),
    mutant(
        "one commit too many may stand there",
        RESTART,
        "if len(tail.commits) > need:",
        "if len(tail.commits) > need + 1:",
        "core/follow/test_restart.py",
    ),
    mutant(
        "the tail is used whatever salt-1 is",
        RESTART,
        "return new[0] == (old[0] + 1) % _MODULUS",
        "return True",
        "core/follow/test_restart.py",
    ),
    mutant(
        "the tail is used though new frames reached it",
        RESTART,
        "if new_last > cursor.frames:\n        text = \"the WAL's new frames",
        "if False:\n        text = \"the WAL's new frames",
        "core/follow/test_restart.py",
    ),
    mutant(
        "old frames behind a count of nothing are passed over",
        RESTART,
        "if tail.commits or (behind == cursor.salts and new_last > cursor.frames):",
        "if tail.commits:",
        "core/follow/test_restart.py",
    ),
    mutant(
        "pad frames count as commits",
        RESTART,
        "self._doubtful = True",
        "self._doubtful = False",
        "core/follow/test_restart.py",
    ),
    mutant(
        "the end of the old incarnation need not be in sight",
        RESTART,
        "if tail.next_salts is None or tail.next_salts in (cursor.salts, new_salts, (0, 0)):",
        "if False:",
        "core/follow/test_restart.py",
    ),
    mutant(
        "how far the new frames came is not looked at again",
        RESTART_SEEN,
        "return max(new_last, after_tail.index.max_frame)",
        "return new_last",
        "engine/follow/test_interleavings.py::test_new_frames_that_pass_ours_while_the_tail_is_read",
    ),
    Mutant(
        "the old tail is read last",
        SEAM,
        (
            ("    after_tail = reader.observe_after_tail()\n    new = ", "    new = "),
            ("    behind = _salts", "    after_tail = reader.observe_after_tail()\n    behind = _salts"),
        ),
        ("engine/follow/test_interleavings.py::test_the_old_tail_is_read_before_anything_else",),
    ),
    mutant(
        "the tail need not be in the database",
        RESTART_SEEN,
        "if held.get(page) != digest:",
        "if False:",
        "engine/follow/test_wal_restart.py::test_a_tail_that_is_not_in_the_database_is_a_gap",
    ),
    mutant(
        "what remains is believed after a reboot",
        RESTART_SEEN,
        "if not seen.is_same_boot:",
        "if False:",
        "engine/follow/test_wal_restart.py::test_one_restart_across_a_reboot",
    ),
    # -- from one WAL to the next
    mutant(
        "the first WAL need not be the first",
        FIRST_WAL,
        "if pair.overwritten and (header.sequence != 0 or pair.uncounted):",
        "if pair.overwritten and pair.uncounted:",
        "engine/follow/test_new_wal.py::test_an_incarnation_that_is_not_the_first_is_a_gap",
    ),
    mutant(
        "the first WAL may lack a commit",
        FIRST_WAL,
        "(commits < index.ichange or (pair.overwritten and commits != index.ichange))",
        "(abs(commits - index.ichange) > 1)",
        "engine/follow/test_new_wal.py::test_another_process_restarts_with_sequence_zero",
    ),
    mutant(
        "a database touched between two lives is ignored",
        LIVES,
        "last.known_since = self.is_unwritten",
        "last.known_since = True",
        "engine/follow/test_wal_pairs.py",
    ),
    mutant(
        "a restart before the first look overwrites nothing",
        LIVES,
        "last.overwritten = last.overwritten or last.checkpointed",
        "last.overwritten = False",
        "engine/follow/test_new_wal.py::test_an_incarnation_that_is_not_the_first_is_a_gap",
    ),
    mutant(
        "a count that began anew before the checkpoint is believed",
        LIVES,
        "                last.closed += 1\n                last.uncounted = last.uncounted or last.written",
        "                last.closed += 1\n                last.uncounted = last.uncounted or last.checkpointed",
        "engine/follow/test_wal_pairs.py",
    ),
    mutant(
        "a WAL that nobody saw held nothing, though it was written",
        LIVES,
        '        """The -wal was written."""\n        if self._unseen:',
        '        """The -wal was written."""\n        if False:',
        "engine/follow/test_cycles.py::test_a_wal_that_nobody_saw_is_a_gap",
    ),
    mutant(
        "a written WAL may have been another",
        LIVES,
        "untold = not (wal_pair.written or wal_pair.checkpointed or self._mistakable)",
        "untold = True",
        "engine/follow/test_cycles.py::test_a_wal_that_was_taken_for_the_one_before_is_a_gap",
    ),
    mutant(
        "an empty WAL may have been another",
        LIVES,
        "self._mistakable = wal_pair.written and not wal_pair.wal.size()",
        "self._mistakable = False",
        "engine/follow/test_wal_pairs.py::test_an_empty_wal_in_place_of_one_that_was_written",
    ),
    mutant(
        "an empty WAL says nothing before frame 1",
        FOLLOW,
        'return Again("the WAL\'s header is being written") if wal_bytes else Emptied()',
        'return Again("the WAL\'s header is being written") if wal_bytes else Emptied() if cursor.frames else Idle()',
        "engine/follow/test_killed_writers.py::test_commits_between_two_truncations_are_a_gap",
    ),
    mutant(
        "an emptied WAL need not be of the next restart",
        RESTART,
        "return index.ichange == mark.ichange and (is_this or succeeds(cursor.salts, index.salts))",
        "return index.ichange == mark.ichange",
        "core/follow/test_restart.py",
    ),
    mutant(
        "an emptied WAL may lack a commit",
        RESTART,
        "return index.ichange == mark.ichange and (is_this or succeeds(cursor.salts, index.salts))",
        "return is_this or succeeds(cursor.salts, index.salts)",
        "engine/follow/test_killed_writers.py::test_a_commit_before_such_a_truncation_is_a_gap",
    ),
    mutant(
        "whoever came after a killed writer wrote nothing",
        "engine/follow/wal_pair.py",
        "if self.closed == mark.closed or self.closed_at_write != mark.closed:",
        "if self.closed == mark.closed:",
        "engine/follow/test_killed_writers.py::test_a_commit_after_such_a_truncation_that_left_no_trace_is_a_gap",
    ),
    mutant(
        "a WAL that was missed is ignored",
        LIVES,
        "if not wal_pair.wal.unlinked():",
        "if False:",
        "engine/follow/test_wal_pairs.py",
    ),
    mutant(
        "the wal-index of the next life is taken for this one's",
        LIVES,
        "if not wal_pair.wal.still_named():",
        "if False:",
        "engine/follow/test_wal_pairs.py",
    ),
    mutant(
        "a database in another's place is followed",
        "engine/follow/look.py",
        "if fault := wal_pairs.replaced or wal_pairs.lost:",
        "if fault := wal_pairs.lost:",
        "engine/follow/test_look.py::test_events_of_the_step_itself_count",
    ),
    # -- after our own absence
    mutant(
        "our last frame need not be where it was",
        EYES,
        "return found is not None and (found.salts, found.chain) == (cursor.salts, cursor.chain)",
        "return True",
        "engine/follow/test_source_reader.py::test_our_last_frame_is_still_there",
    ),
    mutant(
        "an inode number that was used again is the same file",
        "core/follow/follow_state.py",
        "return (self.device, self.inode, self.birth_ns) == (other.device, other.inode, other.birth_ns)",
        "return (self.device, self.inode) == (other.device, other.inode)",
        "core/follow/test_follow_state.py",
    ),
    mutant(
        "a reboot loses nothing",
        RESUMPTION,
        "return (now.boot_id, now.wal_inode) == (then.boot_id, then.wal_inode)",
        "return now.wal_inode == then.wal_inode",
        "engine/follow/test_resume.py::test_a_block_that_was_lost_in_a_reboot_is_a_fork",
    ),
    # -- the base
    mutant(
        "a base begins where the copy began, not its incarnation",
        "engine/base/base_origin.py",
        "return self.state.start",
        "return self.state.stream.position",
        "engine/base/test_snapshotter.py::test_the_first_base_counts_from_the_first_frame_of_the_wal",
        "engine/base/test_snapshotter.py::test_a_later_base_counts_from_the_incarnation_it_was_copied_in",
    ),
    Mutant(
        "a base is consistent from before its last byte",
        SNAPSHOTTER,
        (
            (
                "        return origin_of(tracked, state)\n",
                "        self._early = state\n        return origin_of(tracked, state)\n",
            ),
            ("self._spool_manifest(tracked, base, state)\n", "self._spool_manifest(tracked, base, self._early)\n"),
        ),
        ("engine/follow/test_interleavings.py::test_a_commit_after_the_last_byte_of_a_base",),
    ),
    mutant(
        "an epoch is closed while a base is under way",
        COPYING,
        "if base.under_way or base.wanted or base.can_begin(state):",
        "if False:",
        "engine/follow/test_copy_frames.py::test_no_epoch_is_closed_while_a_base_is_under_way",
    ),
)
