"""Mutants that leave out rules of the page map and of bridges: sizes, last versions, passes, durability."""

from __future__ import annotations

from tests.mutation.mutants import Mutant, mutant

BASE_MAPS = "engine/content/base_maps.py"
PASSES = "core/content/bridge_passes.py"
REDO = "core/content/redo.py"
EPOCH_START = "engine/content/epoch_start.py"

CONTENT_MUTANTS: tuple[Mutant, ...] = (
    # -- the map
    mutant(
        "a smaller size forgets nothing in the frames before it",
        REDO,
        "if size < self._greatest:",
        "if False:",
        "core/content/test_redo.py",
    ),
    mutant(
        "a smaller size forgets nothing in the map",
        REDO,
        "if redo.size_min < first + len(changed) - 1:",
        "if False:",
        "core/content/test_redo.py",
    ),
    mutant(
        "the file takes over what is only spooled",
        "engine/content/page_maps.py",
        "stored_only=True",
        "stored_only=False",
        "engine/content/test_page_maps.py::test_only_what_is_stored_reaches_the_file",
    ),
    mutant(
        "redo rows stay when their segments are dropped",
        "adapters/journal/rows.py",
        "if row.kind is ObjectKind.SEGMENT:",
        "if False:",
        "adapters/journal/test_page_map_table.py",
    ),
    mutant(
        "a map counts before what it holds is stored",
        "engine/content/map_making.py",
        "yield from self._stored(tracked, position, end.unbroken)",
        "pass",
        "engine/content/test_map_making.py::test_a_map_counts_only_once_what_it_holds_is_stored",
    ),
    mutant(
        "a new map gets its name before it is safe",
        "adapters/journal/page_map_file.py",
        "            os.fsync(self._descriptor)\n            self._unfinished.rename(self._path)",
        "            self._unfinished.rename(self._path)",
        "adapters/journal/test_page_map_file.py::test_a_new_map_is_safe_before_it_has_its_name",
    ),
    mutant(
        "the map of a base counts before N is stored",
        "engine/content/map_making.py",
        "yield from self._stored(tracked, end, taken.unbroken)",
        "pass",
        "engine/content/test_base_maps.py::test_it_counts_only_once_n_is_stored",
    ),
    mutant(
        "the map of a base is without the frames between its start and its first byte",
        BASE_MAPS,
        "BaseEntries(writer, page_size), state.start, unbroken",
        "BaseEntries(writer, page_size), state.stream.position, unbroken",
        "engine/content/test_base_maps.py::test_what_only_the_wal_has_comes_from_its_frames",
    ),
    mutant(
        "a base that read a range again makes a map of what it read first",
        BASE_MAPS,
        "            self._is_whole = False\n            return",
        "            return",
        "engine/content/test_base_maps.py::test_a_base_that_read_a_range_again_makes_none",
    ),
    mutant(
        "a base makes a map of the part that it copied in this run",
        BASE_MAPS,
        "self._is_whole and self.entries.reached == file_bytes",
        "self._is_whole",
        "engine/content/test_base_maps.py::test_a_base_that_read_a_range_again_makes_none",
    ),
    mutant(
        "the map of a base whose thread has ended is kept",
        BASE_MAPS,
        "if self._is_dropped or not is_all:",
        "if not is_all:",
        "engine/content/test_base_maps.py::test_a_base_whose_thread_ended_before_n_was_found_makes_none",
    ),
    mutant(
        "two bases write one file of a map",
        BASE_MAPS,
        'suffix=f".base-{next(self._numbers)}"',
        'suffix=".base"',
        "engine/content/test_base_maps.py::test_a_base_that_begins_while_another_s_map_is_made",
    ),
    # -- the bridge
    mutant(
        "pages of another size are bridged",
        "engine/content/bridge_scan.py",
        "if header is not None and header.magic_ok and header.page_size not in {None, page_size}:",
        "if False:",
        "engine/content/test_gap_bridge.py::test_another_page_size_is_not_bridged",
    ),
    mutant(
        "pages that a restore wrote show that a cipher is stable",
        "core/content/comparison.py",
        "(tally.frame_same and known is Cipher.UNKNOWN)",
        "tally.frame_same",
        "core/content/test_comparison.py",
    ),
    mutant(
        "what a bridge took from the file must differ from it",
        "engine/upkeep/live_comparison.py",
        "np.isin(copied[copied <= found.pages], left)",
        "np.isin(applied, left)",
        "engine/upkeep/test_live_comparison.py",
    ),
    mutant(
        "a restart over frames needs no other pass",
        PASSES,
        "self._restarted = self._restarted or len(self._before) > 0",
        "pass",
        "core/content/test_bridge_passes.py",
    ),
    mutant(
        "the next pass leaves out what lies past the pages that were read",
        PASSES,
        "astype(np.uint32), pages_read)",
        "astype(np.uint32), 1 << 30)",
        "core/content/test_bridge_passes.py",
    ),
    mutant(
        "after a gap only some pages are read again",
        PASSES,
        "self.voided += 1\n        self.pages = all_pages()",
        "self.voided += 1",
        "core/content/test_bridge_passes.py",
    ),
    mutant(
        "a base under way lives through a gap",
        "adapters/journal/base_table.py",
        "drop_one(connection, row)\n\n    def base_dropped",
        "pass\n\n    def base_dropped",
        "engine/content/test_bridges.py::test_a_base_under_way_is_worthless",
    ),
    mutant(
        "a gap is forgotten by a daemon that dies before it is bridged",
        "engine/content/bridges.py",
        "old = replace(state, gap=gap)",
        "old = state",
        "engine/content/test_bridges.py::test_the_gap_is_in_the_journal_until_it_is_bridged",
    ),
    mutant(
        "a map that is made again leaves out the frames that its rows no longer hold",
        "engine/content/map_making.py",
        "entries = apply(frames, entries, at)",
        "pass",
        "engine/content/test_map_making.py::test_a_map_that_is_lost_is_made_again_at_once",
    ),
    mutant(
        "an empty WAL says that nothing happened before it",
        "engine/follow/new_wal.py",
        "if matters and not _is_untouched(reader, state):",
        "if False:",
        "engine/content/test_bridge_scan.py::test_commits_before_a_wal_that_is_still_empty_are_missed",
    ),
    # -- a full spool
    mutant(
        "what was begun is taken back",
        "adapters/journal/object_table.py",
        "if _has_begun(row)), default=0)",
        "if False), default=0)",
        "adapters/journal/test_object_table.py",
    ),
    mutant(
        "the follow state stays when its objects are taken back",
        "adapters/journal/object_table.py",
        "connection.execute(sql, (first[1], database_id))",
        "pass",
        "adapters/journal/test_object_table.py",
    ),
    # -- a doubt that the content clears
    mutant(
        "frames that were not compared are no reason for a bridge",
        "core/content/cleared_doubt.py",
        "if not found.is_whole or not _same_frames(old, now):",
        "if not found.is_whole:",
        "core/content/test_cleared_doubt.py",
    ),
    mutant(
        "pages that are not there are no difference",
        "core/content/cleared_doubt.py",
        "return bool(np.isin(beyond, found.pages).all())",
        "return True",
        "core/content/test_cleared_doubt.py",
    ),
    mutant(
        "a map of a larger database is one of this",
        "core/content/cleared_doubt.py",
        "if file.map_has_more or (",
        "if (",
        "core/content/test_cleared_doubt.py",
    ),
    mutant(
        "what was missed for certain is taken for a doubt",
        "engine/content/gap_bridge.py",
        "is_doubt=self._is_doubt,",
        "is_doubt=True,",
        "engine/content/test_bridge_scan.py",
    ),
    mutant(
        "a pass over some pages clears a doubt",
        "core/content/bridge_passes.py",
        "is_whole = self.pages.is_all and",
        "is_whole = True and",
        "core/content/test_cleared_doubt.py",
    ),
    # -- the scrub
    mutant(
        "a scrub takes what frames explain for a difference",
        "core/content/scrub_pass.py",
        "kept = ~np.isin(numbers, explained) &",
        "kept = np.ones(len(numbers), np.bool_) &",
        "core/content/test_scrub_pass.py",
    ),
    mutant(
        "a scrub takes what lies past the size for a difference",
        "core/content/scrub_pass.py",
        "kept &= numbers <= size",
        "pass",
        "core/content/test_scrub_pass.py",
    ),
    mutant(
        "a scrub believes what it read across a gap",
        "engine/content/scrub_steps.py",
        "if end is None or end.unbroken != origin.unbroken:",
        "if end is None:",
        "engine/content/test_scrub_steps.py",
    ),
    # -- an epoch for a base where the WAL does not restart
    mutant(
        "the epoch begins with the last frame of the WAL alone",
        EPOCH_START,
        "last = last_versions(np.concatenate(numbers)) + self.reached.frames",
        "last = np.array([upto.frames])",
        "engine/content/test_epoch_start.py::test_a_base_begins_although_the_wal_never_restarts",
    ),
    mutant(
        "what was committed while the WAL was read again is left out",
        EPOCH_START,
        "for _ in transaction.read(cursor):",
        "for _ in ():",
        "engine/content/test_epoch_start.py::test_what_is_committed_while_the_wal_is_read_again_is_in_it",
    ),
    mutant(
        "the first versions are taken",
        PASSES,
        "_, from_end = np.unique(pages[::-1], return_index=True)\n    return np.sort(len(pages) - from_end)",
        "_, from_end = np.unique(pages, return_index=True)\n    return np.sort(from_end + 1)",
        "core/content/test_bridge_passes.py::test_the_frames_with_the_last_versions",
    ),
    mutant(
        "the epoch is closed before the base has begun",
        "engine/follow/copy_frames.py",
        " or base.can_begin(state):",
        ":",
        "engine/content/test_epoch_start.py::test_the_epoch_stays_open_until_the_base_has_begun",
    ),
    mutant(
        "an epoch is begun in the place of one that began meanwhile",
        "engine/content/bridge_body.py",
        "if (stream.generation, stream.epoch) != (self._stream.generation, self._stream.epoch):",
        "if False:",
        "engine/content/test_bridge_body.py::test_the_epoch_before_may_grow_while_it_is_built",
    ),
    mutant(
        "a single round does not wait for the epoch of a base",
        "engine/daemon/single_round.py",
        "if tracked.base.awaits_restart and not tracked.base.hindrance:",
        "if False:",
        "engine/daemon/test_single_round.py::test_a_base_of_a_wal_that_does_not_restart",
    ),
    mutant(
        "what was stored again for a base is forgotten at a restart",
        "engine/follow/followed_database.py",
        "if begun is not None:",
        "if False:",
        "engine/base/test_lasting_states.py::test_what_was_stored_again_counts_as_the_bases_after_a_restart",
    ),
    mutant(
        "what was stored again for a base is not written down",
        "engine/content/epoch_start.py",
        "start_frame=0, begun=begun)",
        "start_frame=0)",
        "engine/base/test_lasting_states.py::test_what_was_stored_again_counts_as_the_bases_after_a_restart",
    ),
)
