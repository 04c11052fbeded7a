"""The process of one application of a storm."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.e2e.daemon import ROOT, base_environment
from tests.torture.application import UNREADABLE, UNSOUND

STOP_S_MAX = 60.0


class Victim:
    """The process of one application. After a kill it can be started again.

    Until ``excused_until`` (monotonic, seconds) an error of its files does not count against walsyncd.
    """

    def __init__(self, *arguments: str, file: Path, seed: str, log: Path) -> None:
        self.file = file
        self._arguments = arguments
        self._seed = seed
        self._log = log
        self._starts = 0
        self._process: subprocess.Popen[str] | None = None
        self.excused_until = -math.inf
        self.excused = 0
        """How often such an error was excused."""

    def start(self) -> Self:
        """Start another process of the same kind."""
        assert self._process is None
        self._starts += 1
        self.excused_until = -math.inf
        program = [sys.executable, "-m", "tests.torture.application", *self._arguments]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*program, "--seed", f"{self._seed}/{self._starts}"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=base_environment(),
                cwd=ROOT,
            )
        return self

    @property
    def runs(self) -> bool:
        """Return whether it was started and we did not end it."""
        return self._process is not None

    def kill(self) -> None:
        """End it at once."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def end(self) -> None:
        """Let it close its database and end."""
        process, self._process = self._process, None
        if process is not None:
            said, _ = process.communicate("end\n", timeout=STOP_S_MAX)
            self._check(process.returncode, said, {0, UNSOUND})

    def tell(self, order: str) -> None:
        """Give an order."""
        process = self._process
        if process is not None and process.stdin is not None and process.poll() is None:
            process.stdin.write(f"{order}\n")
            process.stdin.flush()

    def await_pause(self) -> None:
        """Wait until it does nothing any more. If it ended by itself, it must have had a reason."""
        process = self._process
        if process is None or process.stdout is None:
            return
        said = process.stdout.readline().strip()
        if said != "paused":
            self._check(process.wait(STOP_S_MAX), said, {UNSOUND})
            self.kill()

    def _check(self, code: int, said: str, expected: set[int]) -> None:
        """Fail unless the process ended as expected, or with an error that is excused."""
        if code == UNREADABLE and float(said.rsplit(maxsplit=1)[-1]) <= self.excused_until:
            self.excused += 1
            return
        assert code in expected, f"an application ended with {code}: {said}{self._log.read_text()[-3000:]}"
