"""The rules of presence, left out one by one; and the count that is believed in spite of all its closes."""

from __future__ import annotations

from tests.mutation.mutants import EYES, SEAM, mutant

PRESENCE = "core/presence.py"

PRESENCE_MUTANTS = (
    mutant(
        "DMS is taken first",
        PRESENCE,
        "return TakeDms() if seen.others is Others.PROCESS else",
        "return TakeDms() if seen.others in {Others.PROCESS, Others.NOBODY} else",
        "core/test_presence.py",
    ),
    mutant(
        "another walsyncd is a process",
        "adapters/source.py",
        "return self.liveness is not Liveness.NONE and self.pid != _OFD_PID",
        "return self.liveness is not Liveness.NONE",
        "engine/test_presence.py::test_the_lock_of_another_daemon_is_nobodys",
    ),
    mutant(
        "what is held need not have its name any more",
        PRESENCE,
        "if not seen.named:",
        "if False:",
        "engine/test_presence.py::test_another_file_in_the_place_of_one_of_them",
    ),
    mutant(
        "presence is kept over another WAL",
        PRESENCE,
        "if not seen.fits:",
        "if False:",
        "engine/test_presence.py::test_a_backup_copied_over_the_files_in_place",
    ),
    mutant(
        "presence is kept for ever",
        PRESENCE,
        "if seen.alone_ms >= ALONE_MS:",
        "if False:",
        "engine/test_presence.py::test_who_wants_the_database_for_himself_gets_it_after_ten_seconds",
    ),
    mutant(
        "a count is believed in spite of a close though the old end is out of sight",
        EYES,
        "if header is None or not cursor.frames or not self.still_holds(cursor):",
        "if header is None or not cursor.frames:",
        "engine/test_seam.py::test_a_counter_rebuilt_in_place_whose_commits_were_overwritten_is_a_gap",
    ),
    mutant(
        "a count is believed in spite of a close though another incarnation may lie between",
        SEAM,
        "in_sight = succeeds(cursor.salts, found.salts) and eyes.end_in_sight(cursor)",
        "in_sight = eyes.end_in_sight(cursor)",
        "engine/test_seam.py::test_a_counter_rebuilt_in_place_in_an_incarnation_between_is_a_gap",
    ),
)
