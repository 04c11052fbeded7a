"""An application inside a box that commits all the time, whatever is done to the daemon."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from tests.systemd_box import Box

# This commits 0, 1, 2 … ``pause_s`` apart until its input ends, then prints how many there are.
WRITER = """
import select, sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("pragma journal_mode=wal")
connection.execute("pragma synchronous=normal")
pause_s = float(sys.argv[2])
connection.execute("create table if not exists t (x)")
print("writes", flush=True)
x = 0
while not select.select([sys.stdin], [], [], pause_s)[0]:
    connection.execute("insert into t values (?)", (x,))
    x += 1
print(x)
"""


class Writer:
    """A running writer, which ``stop`` ends."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def stop(self) -> int:
        """End the writer. Return how many numbers it committed, from 0 on."""
        told, _ = self._process.communicate()
        return int(told)


@contextmanager
def writing(box: Box, path: str, pause_s: float = 0.003) -> Iterator[Writer]:
    """Run a writer of the database at this path in the box. It has committed something when this returns."""
    command = box.command("python3", "-c", WRITER, path, str(pause_s))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "writes\n"
        try:
            yield Writer(process)
        finally:
            if process.poll() is None:
                process.kill()
