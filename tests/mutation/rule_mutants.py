"""Mutants that leave out more rules of the proof: forks, the second proof, changes beside the WAL, the base, reverted
history.
"""

from __future__ import annotations

from tests.mutation.mutants import (
    EYES,
    FIRST_WAL,
    FOLLOW,
    LIVES,
    RESTART,
    RESTART_SEEN,
    RESUMPTION,
    SNAPSHOTTER,
    Mutant,
    mutant,
)

ABSENCE = "engine/follow/no_wal.py"
LOOK = "engine/follow/look.py"

RULE_MUTANTS = (
    mutant(
        "a daemon continues what its own journal left",
        "core/stored/owner.py",
        "if not seen.released or seen.run_id in runs or",
        "if not seen.released or",
        "core/stored/test_owner.py",
    ),
    mutant(
        "a copy of a journal continues what the original left",
        "core/stored/owner.py",
        "(is_known and not _is_elsewhere(seen, machine_ids))",
        "False",
        "core/stored/test_owner.py",
    ),
    mutant(
        "a generation is continued although there is a newer one",
        "core/stored/owner.py",
        'seen.released == max(in_bucket, default="")',
        "seen.released in in_bucket",
        "core/stored/test_owner.py",
    ),
    mutant(
        "a replica is released while objects wait to be stored",
        "engine/ship/release.py",
        "row.has_base and not journal.pending(row.id)]",
        "row.has_base]",
        "engine/ship/test_release.py",
    ),
    mutant(
        "a replica is taken from a store that does not honour conditions",
        "engine/ship/ownership.py",
        "return self._write(database, release.etag) and self.is_exclusive()",
        "return self._write(database, release.etag)",
        "engine/upkeep/test_continuation.py::test_a_store_without_conditional_writes",
    ),
    mutant(
        "a replica is taken from a folder that another machine may write to",
        "engine/ship/ownership.py",
        'return scheme != "file" or not network_mount',
        "return True or not network_mount",
        "engine/upkeep/test_continuation.py::test_a_folder_that_other_machines_may_write_to",
    ),
    mutant(
        "a generation is continued before its last object",
        "engine/upkeep/continuation.py",
        "if (reached.epoch, reached.frame) not in ends:",
        "if False:",
        "engine/upkeep/test_continuation.py::test_something_newer_than_the_head_ends_it",
    ),
    mutant(
        "a range of the file is taken whatever the manifest says",
        "engine/upkeep/replica_map.py",
        "return digest.fits()",
        "return True",
        "engine/upkeep/test_replica_map.py",
    ),
    mutant(
        "what was stored before a new database's first claim does not matter",
        "engine/ship/ownership.py",
        '                self._began_empty = next(iter(self._storage.list("")), None) is None\n',
        "                self._began_empty = True\n",
        "engine/ship/test_ownership.py",
    ),
    mutant(
        "a base's run takes the place of one that may have written",
        "adapters/journal/rows.py",
        'UNWRITTEN = "owner_run IS NULL AND owner_next IS NULL AND stored_generation IS NULL"',
        'UNWRITTEN = "TRUE"',
        "adapters/journal/test_base_table.py",
    ),
    mutant(
        "a claim is written before the journal has it",
        "engine/ship/ownership.py",
        "if database.owner_next != run_id:",
        "if False:",
        "engine/ship/test_ownership.py::test_a_first_claim_writes_who_we_are",
    ),
    mutant(
        "a store that ignores If-Match honours conditions",
        "adapters/storage/s3/conditional_put.py",
        "not self(key, body, etag=None) and not self(key, body, etag=_OTHER_ETAG)",
        "not self(key, body, etag=None)",
        "adapters/storage/s3/test_conditional_put.py",
    ),
    mutant(
        "a base counts without the frames that make it consistent",
        "engine/upkeep/base_examination.py",
        "                _read_frames(replica, needed, base, manifest)\n",
        "",
        "engine/upkeep/test_base_examination.py::test_a_base_without_its_frames_lets_nothing_go",
    ),
    # -- the same incarnation
    mutant(
        "the last published frame need not commit",
        FOLLOW,
        "if held == copy.last and not read.sizes[-1]:",
        "if False:",
        "core/follow/test_decision.py",
    ),
    mutant(
        "a WAL that is shorter than what was shipped is no fork",
        FOLLOW,
        "if wal_bytes < wal.offset_of(cursor.frames + 1):",
        "if False:",
        "core/follow/test_decision.py",
    ),
    mutant(
        "frames count at once after a reboot",
        RESUMPTION,
        "if resume.file_now.boot_id == resume.file.boot_id or resume.seen.holder is DmsHolder.LIVE:",
        "if True:",
        "engine/follow/test_resume.py::test_frames_after_a_reboot_wait_for_somebody_or_for_quiet",
    ),
    # -- what is believed
    mutant(
        "a wal-index that stays behind is believed for ever",
        LOOK,
        "if seen.index is not None and _lags(reader, cursor, moving=moving):",
        "if False:",
        "engine/follow/test_look.py::test_a_wal_index_that_stays_behind_is_not_believed",
    ),
    mutant(
        "a header that stays torn is waited for, for ever",
        "engine/follow/stuck_state.py",
        "if now_ms - before.since_ms < PATIENCE_MS:",
        "if True:",
        "engine/follow/test_stuck_state.py::test_a_header_that_stays_torn",
    ),
    mutant(
        "a wal-index that somebody deleted is that of a last close",
        EYES,
        "return DmsHolder.LEAVING if shm.unlinked() else DmsHolder.NONE",
        "return DmsHolder.LIVE",
        "engine/follow/test_stuck_state.py::test_a_wal_index_that_somebody_deleted",
    ),
    mutant(
        "a counter goes on in another file",
        FOLLOW,
        "if mark is None or evidence.index_rebuilds or mark.shm_serial != shm_serial:",
        "if mark is None or evidence.index_rebuilds:",
        "core/follow/test_decision.py",
    ),
    # -- across a restart of the WAL
    mutant(
        "fewer commits may be counted than stand in the WAL",
        RESTART,
        "if need >= _MODULUS // 2:",
        "if False:",
        "core/follow/test_restart.py",
    ),
    mutant(
        "what remains is believed though new frames reached it",
        RESTART,
        'if new_last > cursor.frames:\n        text = "the WAL restarted, its',
        'if False:\n        text = "the WAL restarted, its',
        "core/follow/test_restart.py",
    ),
    mutant(
        "a hole is the end of the old incarnation",
        RESTART,
        "tail.next_salts in (cursor.salts, new_salts, (0, 0)):",
        "tail.next_salts in (cursor.salts, new_salts):",
        "core/follow/test_restart.py",
    ),
    mutant(
        "a WAL that restarts once more while its restart is looked at is the same",
        RESTART_SEEN,
        "if salts_now(read.after) != salts:",
        "if False:",
        "core/follow/test_restart_seen.py",
    ),
    mutant(
        "the old tail may have been read in another incarnation",
        RESTART_SEEN,
        "return RESTARTED_AGAIN if salts_now(read.after_tail) != salts else None",
        "return None",
        "core/follow/test_restart_seen.py",
    ),
    mutant(
        "what was read of the old tail counts though new frames passed it",
        RESTART_SEEN,
        "return EMPTY_TALLY if self.new.last > self.cursor.frames else self.old.tally",
        "return self.old.tally",
        "core/follow/test_restart_seen.py",
    ),
    # -- a WAL where there was none
    mutant(
        "a first WAL may restart while it is read",
        FIRST_WAL,
        "if salts_now(after) != read.cursor.salts or (after",
        "if (after",
        "core/follow/test_first_wal.py",
    ),
    mutant(
        "a first WAL may be taken into use while its chain is read",
        FIRST_WAL,
        " or (after.index is None) != (index is None):",
        ":",
        "core/follow/test_first_wal.py",
    ),
    mutant(
        "commits of a first WAL may have been overwritten without a wal-index that counts them",
        FIRST_WAL,
        "if first.pair.overwritten:",
        "if False:",
        "core/follow/test_first_wal.py",
    ),
    # -- beside the WAL
    mutant(
        "phantoms at a last close are commits",
        EYES,
        "return DmsHolder.LIVE if shm.unlinked() else DmsHolder.NONE",
        "return DmsHolder.NONE",
        "engine/follow/test_look.py::test_phantoms_at_a_last_close_are_not_taken",
    ),
    mutant(
        "a rollback journal between two lives changes nothing",
        LIVES,
        "case Role.JOURNAL:\n                    self.database_writes += 1",
        "case Role.JOURNAL:\n                    pass",
        "engine/follow/test_wal_pairs.py::test_what_takes_the_witness_away",
    ),
    mutant(
        "a WAL that was moved changes nothing",
        LIVES,
        "elif kind in {Kind.MOVED_FROM, Kind.MOVED_TO}:\n            self.database_writes += 1",
        "elif kind in {Kind.MOVED_FROM, Kind.MOVED_TO}:\n            pass",
        "engine/follow/test_wal_pairs.py::test_what_takes_the_witness_away",
    ),
    mutant(
        "a database that was replaced while we were away is followed",
        RESUMPTION,
        "if not resume.file_now.is_file(resume.file):",
        "if False:",
        "engine/follow/test_resume.py::test_the_database_was_replaced_while_it_was_away",
    ),
    mutant(
        "a database in WAL mode may change without a WAL",
        ABSENCE,
        'if changed and state.mode == "wal":',
        "if False:",
        "engine/follow/test_no_wal.py::test_a_write_past_sqlite_is_a_gap",
    ),
    mutant(
        "what is written without an event before the first look at a WAL was there before",
        ABSENCE,
        "untold = wal_pairs.is_written_untold((facts.size, facts.mtime_ns), told, environment.monotonic_ms())",
        "untold = False",
        "engine/follow/test_no_wal.py::test_a_write_through_another_name_before_the_next_wal_is_looked_at",
    ),
    mutant(
        "a look is taken down while file times are too coarse for it",
        ABSENCE,
        "settled = is_settled(facts, environment)",
        "settled = True",
        "engine/follow/test_no_wal.py::test_a_look_too_young_is_not_taken_down",
    ),
    # -- history that was reverted
    mutant(
        "storage may hold what the journal does not know",
        "engine/ship/ownership.py",
        "if info.key[cut:] not in known:",
        "if False:",
        "engine/ship/test_ownership.py",
    ),
    mutant(
        "clocks that drift apart mean nothing",
        "engine/ship/database_queue.py",
        "if self.is_claimed and abs(wall_ms - now_ms - self.wall_ahead_ms) > DRIFT_MS_MAX:",
        "if False:",
        "engine/ship/test_shipper.py::test_a_machine_that_was_set_back_ends_the_generation",
    ),
    mutant(
        "a turn is not awaited though those before it move",
        "engine/threads/examination.py",
        "now_s - max(self._asked_s, self._moved_s()) > self._limits.answer_s_max",
        "now_s - self._asked_s > self._limits.answer_s_max",
        "engine/threads/test_examination.py::test_a_turn_is_awaited_while_those_before_it_move",
    ),
    mutant(
        "a turn is awaited for ever",
        "engine/threads/examination.py",
        "or now_s - self._asked_s > self._limits.turn_s_max",
        "or False",
        "engine/threads/test_examination.py::test_a_turn_is_awaited_while_those_before_it_move",
    ),
    mutant(
        "who was asked for first has the first turn, however large",
        "engine/upkeep/continuation.py",
        "heapq.heappush(self._asked, (size, ",
        "heapq.heappush(self._asked, (0, ",
        "engine/upkeep/test_continuation_order.py::test_small_databases_have_their_turn_first",
    ),
    # -- the base
    Mutant(
        "a base that was interrupted keeps the N that was found before",
        SNAPSHOTTER,
        (
            (
                "_log = structlog.get_logger()\n",
                "_log = structlog.get_logger()\n_EARLY: dict[Position, FollowState] = {}\n",
            ),
            (
                "        return origin_of(tracked, state)\n",
                "        _EARLY.setdefault(state.start, state)\n        return origin_of(tracked, state)\n",
            ),
            (
                "self._spool_manifest(tracked, base, state)\n",
                "self._spool_manifest(tracked, base, _EARLY[base.plan.start])\n",
            ),
        ),
        ("engine/base/test_snapshotter.py::test_a_base_that_is_resumed_is_consistent_from_after_its_end",),
    ),
    mutant(
        "a base goes on with another file, in another boot",
        "engine/base/base_plan.py",
        "def can_resume(",
        "def can_resume(*_: object, **__: object) -> bool:\n    return True\n\n\ndef could_resume(",
        "engine/base/test_base_plan.py::test_another_file_another_boot_or_another_generation_is_not_resumed",
    ),
    mutant(
        "what a checkpoint cuts off makes the base shorter",
        "engine/base/base_copy.py",
        '.ljust(length, b"\\0")',
        "",
        "engine/base/test_base_copy.py",
    ),
    # -- a folder as storage
)
