"""Mutants that leave out the rules of backpressure, one by one."""

from __future__ import annotations

from tests.mutation.mutants import mutant

BACKPRESSURE = "core/follow/backpressure_decision.py"
ITS_TEST = "core/follow/test_backpressure_decision.py"
HOLD = "engine/backpressure/mark_hold.py"
HOLD_TEST = "engine/backpressure/test_mark_hold.py"

BACKPRESSURE_MUTANTS = (
    mutant("mark 1 is locked", BACKPRESSURE, "MARKS = (4, 3, 2)", "MARKS = (4, 3, 2, 1)", ITS_TEST),
    mutant(
        "a used mark is locked",
        BACKPRESSURE,
        "for mark in MARKS if seen.marks[mark] == MARK_UNUSED)",
        "for mark in MARKS)",
        ITS_TEST,
    ),
    mutant("a read mark is locked where nobody is", BACKPRESSURE, "if not seen.is_used:", "if False:", HOLD_TEST),
    mutant(
        "a read mark stays locked though the wal-index was written",
        BACKPRESSURE,
        "or (seen.is_modified and not _has_grown(state, seen)):",
        "or False:",
        HOLD_TEST,
    ),
    mutant(
        "a read mark is given up when the wal-index grows",
        BACKPRESSURE,
        "return state.held is not None and seen.index_bytes > state.held.index_bytes",
        "return False",
        HOLD_TEST,
    ),
    mutant(
        "a read mark stays locked though the wal-index is another file",
        BACKPRESSURE,
        "if seen.is_touched or not seen.is_named or",
        "if not seen.is_named or",
        ITS_TEST,
    ),
    mutant(
        "a read mark is held though no look could make a restart provable",
        "engine/daemon/databases.py",
        "if mark is None or wal_pair is None or not tracked.wal_pairs.watched:",
        "if mark is None or wal_pair is None:",
        "engine/backpressure/test_copied.py",
    ),
    mutant(
        "what is read counts as copied before the restart before it is proven",
        "engine/backpressure/backpressure.py",
        "if durable is None or durable.salts != read.salts:",
        "if durable is None:",
        "engine/backpressure/test_copied.py",
    ),
    mutant(
        "what is read counts as copied while the wal-index grows",
        "engine/backpressure/backpressure.py",
        "and blocks_for(read.frames) == 1",
        "",
        "engine/backpressure/test_copied.py",
    ),
    mutant(
        "a new WAL whose first frame changes the salts has restarted",
        BACKPRESSURE,
        "if held is not None and not self.frames:",
        "if False:",
        ITS_TEST,
    ),
    mutant(
        "a restart although a mark is locked is taken for a new WAL",
        BACKPRESSURE,
        "if held is not None and not self.frames:",
        "if held is not None:",
        ITS_TEST,
    ),
    mutant(
        "what is read counts as copied though more is durable",
        "engine/backpressure/backpressure.py",
        "durable.frames <= read.frames and ",
        "",
        "engine/backpressure/test_copied.py",
    ),
    mutant(
        "a read mark is given up before a restart could be proven",
        "engine/daemon/databases.py",
        "if tracked.spec.backpressure and not _is_count_void(tracked):",
        "if tracked.spec.backpressure:",
        "engine/backpressure/test_copied.py",
    ),
    mutant(
        "an idle WAL stays locked", BACKPRESSURE, 'return ReleaseMark("the WAL is idle")', "return KeepMark()", ITS_TEST
    ),
    mutant(
        "a read mark is locked for ever",
        BACKPRESSURE,
        "if held is not None and seen.now_ms - held.since_ms >= HOLD_MS_MAX:",
        "if False:",
        ITS_TEST,
    ),
    mutant(
        "a restart while a mark is locked goes unnoticed",
        BACKPRESSURE,
        "if held is not None and index is not None and index.salts != held.salts:",
        "if False:",
        HOLD_TEST,
    ),
    mutant(
        "a read mark is given up as soon as all is copied",
        BACKPRESSURE,
        "if _nears_restart(state, seen, index):",
        "if True:",
        ITS_TEST,
    ),
    mutant(
        "a read mark is given up before all is copied",
        BACKPRESSURE,
        "copied.salts == index.salts and copied.frames >= index.max_frame",
        "copied.frames >= index.max_frame",
        ITS_TEST,
    ),
    mutant(
        "databases are followed before backpressure watches them",
        "engine/backpressure/backpressure.py",
        "if self._targets and not self._has_answered.wait(self._watching_s_max):",
        "if False:",
        "engine/backpressure/test_backpressure.py",
    ),
    mutant(
        "the process that locks waits for its turn as all others do",
        "engine/backpressure/mark_process.py",
        "os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))",
        "os.sched_getscheduler(0)",
        "engine/backpressure/test_mark_process.py",
    ),
)
