"""A real systemd as PID 1 of a private namespace over a throw-away overlay of a machine (``systemd_box.sh``).

Root, util-linux and systemd are needed. What is done in the box stays in it. The network is shared, so a server on
127.0.0.1 outside is reached from inside. Folders of ``binds`` are mounted inside.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Self

import pytest

SCRIPT = Path(__file__).with_name("systemd_box.sh")
# The machine from which the boxes are made: this one, or the root folder of another release (``.ci/run`` makes one).
LOWER = os.environ.get("BOX_ROOT", "/")
PROGRAMS = ("unshare", "nsenter", "setpriv", "findmnt", "/lib/systemd/systemd")
START_SECONDS_MAX = 60
COMMAND_SECONDS_MAX = 100


def skip_unless_possible() -> None:
    """Skip the test where no box can be booted, and say why."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing:
        pytest.skip(f"needs {missing[0]}")
    namespaces = ["unshare", "--mount", "--pid", "--cgroup", "--fork", "true"]
    allowed = subprocess.run(namespaces, capture_output=True, check=False)
    if allowed.returncode != 0:
        pytest.skip("needs the right to make namespaces")


class Box:
    """One booted machine. ``folder`` is where its files are, and ``binds`` maps folders here to folders there."""

    def __init__(self, folder: Path, binds: Mapping[Path, str] | None = None) -> None:
        self.name = f"{folder.name}-{os.getpid()}"
        self._environment = {**os.environ, "SDBOOT_DIR": str(folder)}
        self._binds = [f"{here}:{there}" for here, there in (binds or {}).items()]

    def __enter__(self) -> Self:
        booted = self._script("start", self.name, LOWER, *self._binds, seconds_max=START_SECONDS_MAX)
        if booted.returncode != 0:
            self._script("stop", self.name, seconds_max=START_SECONDS_MAX)
            pytest.fail(f"the box does not boot: {booted.stdout}{booted.stderr}")
        # An image made for containers forbids packages to start services, and a machine does not.
        self.do("rm", "-f", "/usr/sbin/policy-rc.d")
        return self

    def __exit__(self, *_exception: object) -> None:
        self._script("stop", self.name, seconds_max=START_SECONDS_MAX)

    def run(self, *command: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """Run a command inside and return how it ended."""
        return self._script("exec", self.name, *command, seconds_max=COMMAND_SECONDS_MAX, stdin=stdin)

    def command(self, *command: str) -> list[str]:
        """Return a command that runs inside, for a caller that starts it himself."""
        folder = self._environment["SDBOOT_DIR"]
        return ["env", f"SDBOOT_DIR={folder}", "bash", str(SCRIPT), "exec", self.name, *command]

    def do(self, *command: str, stdin: str = "") -> str:
        """Run a command inside that has to succeed. Return what it printed."""
        done = self.run(*command, stdin=stdin)
        assert done.returncode == 0, f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def wait_for(self, *command: str) -> str:
        """Run a command inside until it succeeds. Return what it printed then."""
        deadline = time.monotonic() + COMMAND_SECONDS_MAX
        while (done := self.run(*command)).returncode != 0:
            assert time.monotonic() < deadline, f"{' '.join(command)}: {done.stdout}{done.stderr}"
            time.sleep(0.1)
        return done.stdout

    def write(self, path: str, text: str) -> None:
        """Write a file inside."""
        self.do("sh", "-c", 'cat > "$0"', path, stdin=text)

    def _script(self, *words: str, seconds_max: float, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(SCRIPT), *words],
            input=stdin,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=seconds_max,
            check=False,
        )
