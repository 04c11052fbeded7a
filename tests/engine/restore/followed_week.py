"""A week of a copy that nobody looks after, in fast motion: a source that writes, readers, and all kinds of trouble.

``python -m tests.engine.restore.followed_week FOLDER TRANSACTIONS SEED`` runs a long one and prints what it did. Each
transaction rewrites some hundred pages, and each row of the table then says which transaction it was. So a reader that
sees two numbers has seen half a transaction.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from tests.replicas import ReplicaMaker, make_replica

ROWS = 300  # rows, each of more than half a page
WAIT_S = 300.0
CHECKPOINT_EVERY = 10  # transactions of the source after which its WAL begins again
# A reader as applications are: it opens the copy, reads and closes it, twenty times a second.
READER = """
import sqlite3, sys, time
last = 0
while True:
    connection = sqlite3.connect("file:{path}?mode={mode}", uri=True, isolation_level=None, timeout=30)
    try:
        connection.execute("BEGIN")
        found = connection.execute("SELECT min(v), max(v), count(*) FROM w").fetchone()
        verdict = connection.execute("PRAGMA quick_check").fetchone() if last % 20 == 0 else ("ok",)
        connection.execute("COMMIT")
    except sqlite3.OperationalError as error:
        if "disk" not in str(error):  # SQLite itself needs room for a wal-index
            raise
        time.sleep(0.05)
        continue
    finally:
        connection.close()
    if verdict != ("ok",) or found[0] != found[1] or found[2] != {rows} or found[0] < last:
        print("WRONG", verdict, found, last, flush=True)
        sys.exit(1)
    last = found[0]
    print(last, flush=True)
    time.sleep(0.05)
"""


class Week:
    """The source, the follower and the readers. ``happened`` counts what was done to them."""

    def __init__(self, maker: ReplicaMaker, logs: Path, folder: Path, seed: int) -> None:
        self.maker = maker
        self.out = folder / "copy.db"
        self.happened: Counter[str] = Counter()
        self.refused: list[str] = []
        self.written = 0
        self._random = random.Random(seed)
        self._follower: subprocess.Popen[str] | None = None
        self._readers: list[subprocess.Popen[str]] = []
        self._logs = logs
        self._room = folder / "filler"

    def begin(self, readers: int) -> None:
        """Make the table and the base, and start the follower and the readers."""
        self.maker.connection.execute("CREATE TABLE w (id INTEGER PRIMARY KEY, v, pad)")
        with_rows = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
        self.maker.connection.execute(
            f"{with_rows} INSERT INTO w SELECT i, 0, randomblob(2500) FROM n",
            (ROWS,),
        )
        self.maker.base()
        self.follow()
        wait_until(self.out.exists, "the copy")
        for number in range(readers):
            self.read(number)

    def follow(self) -> None:
        """Start the follower, as a service manager does whenever it has ended."""
        url = f"file://{self.maker.root}/{self.maker.name}"
        command = [sys.executable, "-m", "walsyncd", "restore", url, "-o", str(self.out), "--follow"]
        log = (self._logs / "follower.log").open("a")
        self._follower = subprocess.Popen([*command, "--interval", "0.02"], stdout=log, stderr=log, text=True)
        log.close()

    def tend(self) -> None:
        """Start the follower again if it ended by itself, and note why. Fail if a reader saw something wrong."""
        assert self._follower is not None
        if self._follower.poll() is not None:
            last = (self._logs / "follower.log").read_text().strip().rpartition("\n")[2]
            self.refused.append(f"{self._follower.returncode}: {last}")
            self.follow()
        for number, reader in enumerate(self._readers):
            assert reader.poll() is None, (
                (self._logs / f"reader-{number}.log").read_text()[-300:],
                reader.returncode,
            )

    def read(self, number: int) -> None:
        """Start a reader. Every second one may write, so that it recovers and checkpoints what it finds."""
        program = READER.format(path=self.out, mode="rw" if number % 2 else "ro", rows=ROWS)
        log = (self._logs / f"reader-{number}.log").open("w")
        self._readers[number : number + 1] = [
            subprocess.Popen([sys.executable, "-c", program], stdout=log, stderr=log, text=True)
        ]
        log.close()

    def write(self) -> None:
        """Make one transaction of the source, and store it."""
        self.written += 1
        self.maker.connection.execute("UPDATE w SET v = ?, pad = randomblob(2500)", (self.written,))
        if self.written % CHECKPOINT_EVERY:
            self.maker.ship()
        else:
            self.maker.checkpoint()

    def something_happens(self) -> None:
        """Do one of all that can happen in a week."""
        deeds: list[Callable[[], None]] = [
            self.kill_follower,
            self.kill_follower,
            self.stop_follower,
            self.kill_reader,
            self.take_storage_away,
            self.new_generation,
            self.new_base,
            self.compact,
            self.shrink,
        ]
        deed = self._random.choice(deeds)
        deed()
        self.happened[deed.__name__] += 1

    def kill_follower(self) -> None:
        """Kill the follower at any instruction. Readers may recover the copy before it is started again."""
        assert self._follower is not None
        self._follower.kill()
        self._follower.wait()
        time.sleep(self._random.choice((0, 0, 0.2)))
        self.follow()

    def stop_follower(self) -> None:
        """Stop the follower as a service manager does."""
        assert self._follower is not None
        self._follower.send_signal(signal.SIGTERM)
        self._follower.wait(60)
        self.follow()

    def kill_reader(self) -> None:
        """Kill a reader in the middle of whatever it does."""
        if self._readers:
            number = self._random.randrange(len(self._readers))
            self._readers[number].kill()
            self._readers[number].wait()
            self.read(number)

    def take_storage_away(self) -> None:
        """Make the storage unavailable for a moment."""
        aside = self.maker.root.with_name("away")
        self.maker.root.rename(aside)
        time.sleep(self._random.random() * 0.3)
        aside.rename(self.maker.root)

    def new_generation(self) -> None:
        """Begin a new generation, as after a gap or by another daemon. The copy is compared with a new restore."""
        number = self.happened["new_generation"] + 1
        self.maker.begin_generation(f"20270101T{number // 3600:02}{number // 60 % 60:02}{number % 60:02}Z-00000001")
        self.maker.base()

    def new_base(self) -> None:
        """Take a base: the epoch ends, a later base exists, and everything before it is pruned."""
        self.maker.close_epoch()
        self.write()
        self.maker.base()
        for path in sorted(self.maker.folder.glob("wal/*"))[:-1]:
            shutil.rmtree(path)

    def compact(self) -> None:
        """Make the epoch one object."""
        self.write()
        self.maker.close_epoch()
        self.maker.compact()

    def shrink(self) -> None:
        """Make the database smaller."""
        self.maker.connection.execute("CREATE TABLE extra AS SELECT randomblob(4000) FROM w")
        self.maker.ship()
        self.maker.connection.execute("DROP TABLE extra")
        self.maker.connection.execute("VACUUM")
        self.maker.checkpoint()

    def fill_disk(self) -> None:
        """Fill the disk, so that nothing can be written for a while."""
        with self._room.open("wb", buffering=0) as file:
            try:
                while file.write(bytes(1 << 16)):
                    pass
            except OSError:
                pass
        time.sleep(0.3)
        self._room.unlink()
        self.happened["fill_disk"] += 1

    def catches_up(self) -> bool:
        """Return whether every reader has seen the last transaction."""
        self.tend()
        seen = [(self._logs / f"reader-{number}.log").read_text().split() for number in range(len(self._readers))]
        return all(numbers and numbers[-1] == str(self.written) for numbers in seen)

    def end(self) -> None:
        """Stop all processes."""
        for process in (self._follower, *self._readers):
            if process is not None:
                process.kill()
                process.wait()


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Wait until something is so."""
    deadline_s = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline_s, f"waited in vain for {what}"
        time.sleep(0.02)


def live(folder: Path, copy_folder: Path, *, transactions: int, seed: int, disk_fills: bool = False) -> Week:
    """Live through a week of so many transactions.

    AssertionError if a reader saw something wrong, or the copy does not catch up.
    """
    chance = random.Random(seed)
    with make_replica(folder) as maker:
        week = Week(maker, folder, copy_folder, seed)
        try:
            week.begin(readers=3)
            while week.written < transactions:
                week.write()
                week.tend()
                time.sleep(0.01)
                if chance.random() < 0.05:
                    week.something_happens()
                if disk_fills and chance.random() < 0.01:
                    week.fill_disk()
            wait_until(week.catches_up, "the last transaction in every reader")
        finally:
            week.end()
    return week


if __name__ == "__main__":
    here = Path(sys.argv[1])
    (here / "copy").mkdir(parents=True, exist_ok=True)
    began_s = time.monotonic()
    lived = live(
        here, here / "copy", transactions=int(sys.argv[2]), seed=int(sys.argv[3]), disk_fills="disk" in sys.argv
    )
    print(f"{lived.written} transactions, {time.monotonic() - began_s:.0f} s, pid {os.getpid()}", dict(lived.happened))
    print("the follower ended by itself:", Counter(lived.refused))
