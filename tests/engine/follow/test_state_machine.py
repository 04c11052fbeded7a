"""Random tests that nothing is missed: applications do anything, and the daemon is started, killed, and looks at any
time.

There are two machines with real SQLite in other processes, in several versions. The gentle one looks after every step
of applications that never end: there must never be a gap. The rough one looks at any time, while applications are
killed, machines lose power, files are swapped and journals restored: there gaps are right, and nothing false may ever
be stored. After each step every stored position is compared with the oracle.

    MACHINE_EXAMPLES=500 MACHINE_STEPS=100 pytest -s tests/engine/follow/test_state_machine.py  # hours, new each time
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from tests.adapters.files.sqlite_process import SqliteProcess
from tests.engine.gentle import TOTALS, Application, Gentle, choices, sizes
from tests.engine.oracle import committed
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, parse_wal_header
from walsyncd.core.sqlite.walindex import parse_index_header

LONG = "MACHINE_EXAMPLES" in os.environ


class Rough(Gentle):
    """All that is not gentle, with a look only now and then."""

    def after(self) -> None:
        self.note()
        if self.keeping.alive and self.values % 3:
            self.keeping.keep_up()

    @rule()
    def look(self) -> None:
        if not self.keeping.alive:
            self.keeping.start()
        if self.keeping.keep_up():
            event("gap")

    @rule()
    def drain(self) -> None:
        if self.keeping.alive:
            self.keeping.watch.drain()

    @precondition(lambda self: self.applications)
    @rule(choice=choices, count=st.integers(2, 20))
    def commit_often(self, choice: int, count: int) -> None:
        self.commit(choice, 10, 1, count)

    @precondition(lambda self: self.applications)
    @rule(choice=choices)
    def kill(self, choice: int) -> None:
        self.applications.pop(choice % len(self.applications)).process.kill()
        self.note()

    @precondition(lambda self: len(self.applications) == 1)
    @rule(size=sizes, pause_ms=st.sampled_from([0, 0, 1, 3, 10]))
    def kill_in_a_commit(self, size: int, pause_ms: int) -> None:
        """What was committed is what the next process that opens it finds."""
        application = self.applications.pop()
        opening = [] if application.writes or application.reads else ["BEGIN"]
        application.process.begin(*opening, *self._changes(size, 4), "COMMIT")
        time.sleep(pause_ms / 1000)
        application.process.kill()
        self.note()

    @rule()
    def restart_daemon(self) -> None:
        if self.keeping.alive:
            self.keeping.stop()
        else:
            self.keeping.start()

    @precondition(lambda self: self.keeping.alive)
    @rule()
    def lose_a_step(self) -> None:
        self.keeping.lose_a_step()

    @precondition(lambda self: self.keeping.alive)
    @rule()
    def lose_events(self) -> None:
        self.keeping.lose_events()

    @precondition(lambda self: not self.keeping.alive)
    @rule(back=st.booleans())
    def journal(self, back: bool) -> None:
        """Save the state directory, or restore it from what was saved."""
        if back:
            self.keeping.put_journal_back()
        else:
            self.keeping.save_journal()

    @precondition(lambda self: self.applications)
    @rule(choice=choices, mode=st.sampled_from(["DELETE", "TRUNCATE", "PERSIST", "WAL", "WAL"]))
    def convert(self, choice: int, mode: str) -> None:
        self.free(choice).tries(f"PRAGMA journal_mode={mode}")
        self.note()

    @rule(commits=st.integers(0, 2), module=st.sampled_from(["sqlite3", "apsw"]), stale=st.booleans())
    def open_exclusively(self, commits: int, module: str, stale: bool) -> None:
        """Open with a wal-index of its own, invisible to all others. An old -shm may still exist."""
        if stale:
            self._kill_all()
        else:
            while self.applications:
                self.applications.pop().process.close()
        self.note()
        self.applications.append(Application(self.path, module, "PRAGMA locking_mode=EXCLUSIVE"))
        self.commit(0, 10, 1, commits)

    def _kill_all(self) -> None:
        while self.applications:
            self.applications.pop().process.kill()

    @rule(
        lost=st.floats(0, 1),
        damage=st.sampled_from(["cut", "hole", "torn", "zeroed"]),
        shm=st.booleans(),
        up=st.booleans(),
    )
    def lose_power(self, lost: float, damage: str, shm: bool, up: bool) -> None:
        """Everything ends at once, and of what was not synced a part is lost. The daemon is back first, or later."""
        if self.keeping.alive:
            self.keeping.stop()
        self._kill_all()
        self.note()
        self._damage_wal(lost, damage)
        if not shm:
            Path(f"{self.path}-shm").unlink(missing_ok=True)
        self.note()
        self.keeping.boot_id += "+"
        if up:
            self.keeping.start()

    def _damage_wal(self, lost: float, damage: str) -> None:
        """Damage only frames that no checkpoint copied, because SQLite syncs the WAL before it copies them."""
        wal, shm = Path(f"{self.path}-wal"), Path(f"{self.path}-shm")
        if not (wal.exists() and shm.exists()):
            return
        content = bytearray(wal.read_bytes())
        header, index = parse_wal_header(content), parse_index_header(shm.read_bytes())
        if header is None or index is None or index.salts != header.salts or index.max_frame <= index.backfilled:
            return
        frame = index.backfilled + 1 + int(lost * (index.max_frame - index.backfilled - 1))
        at, size = header.offset_of(frame), header.frame_size
        if len(content) < at + size:
            return
        match damage:
            case "cut":
                del content[at:]
            case "hole":
                content[at : at + size] = bytes(size)
            case "torn":
                del content[at + size // 2 :]
            case "zeroed":
                content[at:] = bytes(len(content) - at)
        assert at >= WAL_HEADER_SIZE
        wal.write_bytes(content)

    @rule(
        how=st.sampled_from(["renamed over", "copied over", "created anew", "away and back"]),
        drained=st.booleans(),
        wal=st.booleans(),
    )
    def swap_the_file(self, how: str, drained: bool, wal: bool) -> None:
        """While nobody has the file open, replace it by another one, or remove it for a moment."""
        self._kill_all()
        away = self.path.with_name("away")
        other = self.path.with_name("other")
        other.write_bytes(committed(self.path))
        with SqliteProcess(other) as process:
            self.values += 1
            process.execute("PRAGMA journal_mode=DELETE", f"INSERT INTO t VALUES (-{self.values}, randomblob(9))")
            process.execute(f"PRAGMA journal_mode={'WAL' if wal else 'DELETE'}")
            process.close()
        if how != "away and back":
            for suffix in ("-wal", "-shm", "-journal"):
                Path(f"{self.path}{suffix}").unlink(missing_ok=True)
        match how:
            case "renamed over":
                other.rename(self.path)
            case "copied over":
                shutil.copyfile(other, self.path)
            case "created anew":
                self.path.unlink()
                if drained:
                    self.drain()
                shutil.copyfile(other, self.path)
            case "away and back":
                self.path.rename(away)
                if drained:
                    self.look()
                away.rename(self.path)
        self.history.note(committed(self.path), foreign=True)


def _profile(steps: int, examples: int) -> settings:
    """Return the default profile, which is short and the same each time, or one of any length that differs
    each time.
    """
    return settings(
        max_examples=int(os.environ.get("MACHINE_EXAMPLES", examples)),
        stateful_step_count=int(os.environ.get("MACHINE_STEPS", steps)),
        derandomize=not LONG,
        deadline=None,
        database=None,
        phases=[Phase.generate, *([Phase.shrink] if LONG else [])],
        suppress_health_check=list(HealthCheck),
        print_blob=False,
    )


TestGentle = Gentle.TestCase
TestGentle.settings = _profile(30, 12)
TestRough = Rough.TestCase
TestRough.settings = _profile(40, 16)
pytestmark = [pytest.mark.slow, *([pytest.mark.timeout(0)] if LONG else [])]


@pytest.fixture(autouse=True, scope="module")
def totals() -> Iterator[None]:
    """Print what both machines saw, for long runs."""
    yield
    for what, count in sorted(TOTALS.items()):
        print(f"{count:8} {what}")
