"""Mutants that leave out the rules of reading ahead, one by one."""

from __future__ import annotations

from tests.mutation.mutants import COPYING, EYES, Mutant, mutant

READING = "engine/read_ahead/reading.py"
AHEAD = "engine/read_ahead/test_read_ahead.py"
READ = "engine/read_ahead/test_reading.py"
REST = "engine/read_ahead/test_resting.py"
DEFERRED = "engine/read_ahead/deferred_look.py"
PUT_OFF = "engine/read_ahead/test_deferred_look.py"
MERGED = "engine/follow/test_merged_looks.py"

READ_AHEAD_MUTANTS = (
    mutant(
        "a mark of what was read ahead counts from the judgement",
        EYES,
        "look.began_ms, look.shm_serial, look.index_rebuilds, look.closed)",
        "look.began_ms, look.shm_serial, wal_pair.index_rebuilds, wal_pair.closed)",
        f"{AHEAD}::test_events_after_the_reading_void_its_count",
    ),
    mutant(
        "an index read that was read ahead counts from the judgement",
        EYES,
        '"""Do nothing: an index read must be known before the events that follow it are read."""',
        "super().index_read(index)",
        f"{AHEAD}::test_a_look_read_ahead_is_no_evidence_of_its_own_time",
    ),
    mutant(
        "a frame that was read ahead is still there",
        EYES,
        '"""Return False: it would have to be seen after everything else was read."""\n        return False',
        '"""It is."""\n        return True',
        f"{AHEAD}::test_a_look_read_ahead_is_no_evidence_of_its_own_time",
    ),
    mutant(
        "a look that was read ahead has caught up",
        "engine/follow/look.py",
        "so_far = replace(so_far, again_s=0, caught_up=False)",
        "so_far = replace(so_far, again_s=0)",
        f"{AHEAD}::test_a_full_batch_of_looks_read_ahead_has_not_caught_up",
    ),
    mutant(
        "the new incarnation's last header hides the old tail",
        "engine/read_ahead/ahead_look.py",
        "if len(part) > FRAME_HEADER_SIZE:",
        "if part:",
        f"{AHEAD}::test_an_old_tail_is_found_after_new_frames",
    ),
    mutant(
        "what is dropped while it is asked about is stored",
        "engine/daemon/sync_progress.py",
        "if is_outdated(journal.database_by_id(row.id), asked):",
        "if False:",
        "engine/daemon/test_sync_progress.py::test_what_is_dropped_while_it_is_asked_about_is_not_stored",
    ),
    mutant(
        "what was read during a restart is kept",
        READING,
        "if look.after.index is None or look.after.index.salts != index.salts:",
        "if False:",
        f"{READ}::test_a_restart_during_the_reading_voids_it",
    ),
    mutant(
        "the old tail is not read ahead",
        READING,
        "if cursor.header is not None and index.max_frame <= cursor.frames:",
        "if False:",
        f"{READ}::test_the_old_tail_is_read_at_a_restart",
        f"{AHEAD}::test_restarts_while_the_journal_is_busy",
    ),
    mutant(
        "a wal-index that nobody uses is read ahead",
        READING,
        "if before.holder is not DmsHolder.LIVE:",
        "if False:",
        f"{READ}::test_it_ends_when_nobody_uses_the_wal_index",
    ),
    Mutant(
        "another wal-index is read ahead",
        READING,
        (
            ("if wal_pair.serial != self._serial:", "if False:"),
            ("if found.is_named else DmsHolder.LEAVING", "if True else DmsHolder.LEAVING"),
        ),
        (f"{READ}::test_it_ends_when_the_wal_index_is_another_one",),
    ),
    mutant(
        "what was read ahead may begin anywhere",
        "engine/read_ahead/ahead_look.py",
        "return cursor.salts == self.index.salts and first <= cursor.frames < self.index.max_frame",
        "return True",
        "engine/read_ahead/test_ahead_look.py",
    ),
    mutant(
        "a restart is joined with what comes before and after",
        "engine/read_ahead/ahead_look.py",
        "is_same = before.salts == before.index.salts == self.salts == self.index.salts",
        "is_same = True",
        "engine/read_ahead/test_ahead_look.py",
    ),
    mutant(
        "what was not read ahead is the end of the WAL",
        "engine/read_ahead/ahead_look.py",
        'raise NotReadError(f"{length} bytes at {offset} of the WAL were not read ahead")',
        'return b""',
        "engine/read_ahead/test_ahead_look.py",
    ),
    mutant(
        "all looks of a batch were seen at its beginning",
        COPYING,
        "segment.goes_on(reader.seen_ms())",
        "pass",
        f"{AHEAD}::test_each_look_of_a_batch_has_its_own_time",
    ),
    mutant(
        "a segment that was given up is shipped",
        "engine/follow/look.py",
        "            reader.batch.drop()\n        salts",
        "            pass\n        salts",
        f"{AHEAD}::test_a_segment_that_was_given_up_voids_the_batch",
    ),
    mutant(
        "what is only read ahead is believed",
        "engine/follow/look.py",
        "        return batch.finish(so_far)",
        "        tracked.belief = tracked.belief.after(so_far)\n        return Step(again_s=0) if is_ahead else so_far",
        f"{AHEAD}",
    ),
    mutant(
        "commits that were read at once were all seen at the first",
        "engine/follow/segment_builder.py",
        "if place < len(seen):",
        "if False:",
        f"{AHEAD}::test_each_look_of_a_batch_has_its_own_time",
    ),
    mutant(
        "a restart leaves the look put off",
        DEFERRED,
        "or after.salts != before.salts or",
        "or",
        f"{PUT_OFF}::test_a_restart_makes_the_look_due",
    ),
    mutant(
        "what does not fit is waited for",
        DEFERRED,
        "is_full = self.reading.has_no_room or",
        "is_full =",
        f"{PUT_OFF}::test_much_to_hold_makes_it_due",
    ),
    mutant(
        "a look that is put off leaves no read of the wal-index",
        "engine/follow/event_pump.py",
        "            tracked.wal_pairs.end_put_off(begun, deferred.reading.shown)",
        "            pass",
        f"{MERGED}::test_what_is_read_shows_that_nothing_came_after_it",
    ),
    Mutant(
        "what is read of a look that is put off counts from its end",
        "engine/follow/event_pump.py",
        (
            ("            begun = tracked.wal_pairs.begin_put_off()\n", ""),
            (
                "            tracked.wal_pairs.end_put_off(begun,",
                "            tracked.wal_pairs.end_put_off(tracked.wal_pairs.begin_put_off(),",
            ),
        ),
        (f"{MERGED}::test_events_while_it_is_read_count_for_what_it_shows",),
    ),
    mutant(
        "a look and one that is put off have one index read",
        "engine/follow/wal_pair.py",
        "index_read = self._begun[is_put_off] = IndexRead()",
        "index_read = self._begun[False] = IndexRead()",
        "engine/follow/test_wal_pair.py::test_a_look_and_one_that_is_put_off_read_at_the_same_time",
    ),
    mutant(
        "what is put off shows nothing after the last frame",
        READING,
        "may_go_on(index, _following(look, index), look.after.index)",
        "False",
        f"{READ}::test_what_the_wal_index_showed_and_whether_it_goes_on",
    ),
    mutant(
        "a commit that is not published is not waited for",
        DEFERRED,
        "return len(head) == FRAME_HEADER_SIZE and",
        "return False and",
        f"{PUT_OFF}::test_frames_that_are_written_are_seen_before_they_are_published",
    ),
    mutant(
        "the look leaves the reading open that was made for it",
        "engine/follow/look.py",
        "    tracked.end_deferral()\n",
        "",
        f"{PUT_OFF}::test_what_was_read_is_not_missed",
    ),
    mutant(
        "a checkpoint is put off",
        "engine/follow/event_pump.py",
        "if row_id in urgent and not (waits and self._rests(each))]",
        "if False]",
        f"{MERGED}::test_anything_but_a_write_to_the_wal_is_looked_at_at_once",
    ),
    mutant(
        "a thread that does not wait leaves what is not published",
        "engine/follow/event_pump.py",
        "self._is_read(tracked, index_header) and (waits or row_id not in self._unread)",
        "self._is_read(tracked, index_header)",
        f"{MERGED}::test_a_commit_that_is_not_published_is_read_by_the_thread_that_waits",
    ),
    mutant(
        "what else happened during a look is forgotten",
        "engine/follow/schedule.py",
        "if tracked.row_id in self._written and not look.is_due:",
        "if not look.is_due:",
        f"{MERGED}::test_what_else_happened_during_a_look_is_looked_at",
    ),
    mutant(
        "a write hides what happened before it",
        "engine/follow/schedule.py",
        "is_due = tracked.row_id in self._due and tracked.row_id not in self._written",
        "is_due = False",
        f"{MERGED}::test_what_else_happened_during_a_look_is_looked_at",
    ),
    mutant(
        "backpressure waits for a look that is put off",
        "engine/follow/schedule.py",
        " or tracked.spec.backpressure:",
        ":",
        f"{MERGED}::test_what_needs_promptness_is_not_put_off",
    ),
    mutant(
        "a wal-index that nobody uses is looked at again and again",
        "engine/follow/schedule.py",
        " and (look.reading.size or not look.reading.is_over):",
        ":",
        f"{MERGED}::test_a_database_that_nobody_has_open_is_not_looked_at_again_and_again",
    ),
    mutant(
        "what is read ahead rests although an event has voided evidence",
        READING,
        "if self.is_over or now_s - self._stirred_s < CALM_S or",
        "if self.is_over or",
        f"{READ}::test_what_is_read_may_rest_while_nothing_but_writes_happens",
    ),
    mutant(
        "what is read ahead rests although its reading has ended",
        "engine/read_ahead/read_ahead.py",
        "                self.has_ended(row_id)\n",
        "",
        f"{REST}::test_the_end_of_the_reading_ends_the_rest",
    ),
    mutant(
        "a gap that was found rests while the WAL is read ahead",
        "engine/follow/schedule.py",
        "if reading is None or not step.frames or step.gap or",
        "if reading is None or not step.frames or",
        f"{REST}::test_what_needs_promptness_does_not_rest",
    ),
)
