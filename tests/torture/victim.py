"""The process of one application of a storm."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Self

from tests.e2e.daemon import ROOT, base_environment
from tests.torture.application import UNSOUND

STOP_S_MAX = 60.0


class Victim:
    """The process of one application. After a kill it can be started again."""

    def __init__(self, *arguments: str, file: Path, seed: str, log: Path) -> None:
        self.file = file
        self._arguments = arguments
        self._seed = seed
        self._log = log
        self._starts = 0
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> Self:
        """Start another process of the same kind."""
        assert self._process is None
        self._starts += 1
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
            assert process.returncode in {0, UNSOUND}, f"an application failed: {said}{self._log.read_text()[-3000:]}"

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
            code = process.wait(STOP_S_MAX)
            assert code == UNSOUND, f"an application ended with {code}: {said}{self._log.read_text()[-3000:]}"
            self.kill()
