"""The demo's folder and its processes. Each process is stopped by its own id, whatever happens.

::

    <folder>/data/app.db       the application's database
    <folder>/diary.txt         the application's record of its commits
    <folder>/config.toml       the daemon's configuration
    <folder>/state/            the daemon's journal and spool
    <folder>/replica/app.db/   the bucket: one folder for one database
    <folder>/daemon.log        the daemon's log
    <folder>/restored/         restored databases, and copies that they must equal
"""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Self

import walsyncd
from walsyncd.demo.bucket import Contents, contents
from walsyncd.demo.diary import Entry, read_diary
from walsyncd.errors import WalsyncdError

NAME = "app.db"
COMMAND_TIMEOUT_S = 60.0  # enough for a slow machine
WAIT_TIMEOUT_S = 240.0  # the same as SYNC_TIMEOUT
STOP_TIMEOUT_S = 40.0  # the daemon takes up to 30 s to upload the rest
POLL_S = 0.05
LOG_LINES_SHOWN = 5

_CONFIG = """\
[storage]
url = "{url}"

[daemon]
state_dir = "{folder}/state"

[defaults]
upload_interval = "200ms"

[[database]]
path = "{folder}/data/{name}"
name = "{name}"
"""


class Stage:
    """The folder and the processes of the demo. Leaving the context ends the processes, but keeps the folder.

    ``kills`` counts the kills of the daemon so far, and ``equal`` the comparisons that found no difference.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.database = folder / "data" / NAME
        self.config = folder / "config.toml"
        self.kills = self.equal = 0
        self._diary = folder / "diary.txt"
        self._log = folder / "daemon.log"
        self._bucket = folder / "replica" / NAME
        self._application: subprocess.Popen[str] | None = None
        self._daemon: subprocess.Popen[bytes] | None = None
        for name in ("data", "state", "replica", "restored"):
            (folder / name).mkdir()
        url = (folder / "replica").as_uri()
        self.config.write_text(_CONFIG.format(url=url, folder=folder, name=NAME), encoding="utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        for process in (self._application, self._daemon):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        _close_pipes(self._application)

    # The application

    def start_application(self) -> None:
        """Start the application, which waits for a command."""
        with self._log.open("ab") as log:
            self._application = subprocess.Popen(
                [*_python("walsyncd.demo.writer"), str(self.database), str(self._diary)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C reaches only this process, which ends the others
            )

    def tell(self, command: str) -> None:
        """Send the application a command (see ``writer``). Returns when the application obeys it."""
        application = self._application
        assert application is not None
        assert application.stdin is not None
        assert application.stdout is not None
        try:
            application.stdin.write(f"{command}\n")
            application.stdin.flush()
        except BrokenPipeError:
            raise self._failure("the application ended") from None
        readable, _, _ = select.select([application.stdout], [], [], COMMAND_TIMEOUT_S)
        if not readable or application.stdout.readline() != f"{command}\n":
            raise self._failure(f"the application did not {command}")

    def end_application(self) -> None:
        """Make the application close its connection and end."""
        application = self._application
        assert application is not None
        _close_pipes(application)
        if application.wait(COMMAND_TIMEOUT_S):
            raise self._failure(f"the application ended with {application.returncode}")

    def diary(self) -> list[Entry]:
        """Return what the application committed so far."""
        return read_diary(self._diary)

    # The daemon

    def start_daemon(self) -> None:
        """Start ``walsyncd run``, with its log in a file."""
        with self._log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [*_python("walsyncd"), "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=_environment(),
                start_new_session=True,
            )

    def kill_daemon(self) -> None:
        """Send SIGKILL to the daemon, which runs no instruction after that."""
        assert self._daemon is not None
        self._check_daemon()
        self._daemon.kill()
        self._daemon.wait()
        self.kills += 1

    def stop_daemon(self) -> None:
        """Send SIGTERM to the daemon, which uploads the rest and ends with 0."""
        assert self._daemon is not None
        self._check_daemon()
        self._daemon.terminate()
        if self._daemon.wait(STOP_TIMEOUT_S):
            raise self._failure(f"walsyncd run ended with {self._daemon.returncode}")

    def play(self, seconds: float) -> None:
        """Let all processes run for a while."""
        end = time.monotonic() + seconds
        self.wait_until(lambda: time.monotonic() >= end, "the time is up")

    def wait_until(self, is_so: Callable[[], bool], what: str) -> None:
        """Wait for a condition. Raises WalsyncdError after too long, or if the daemon ended without being killed."""
        deadline = time.monotonic() + WAIT_TIMEOUT_S
        while not is_so():
            if self._daemon is not None and self._daemon.returncode is None:
                self._check_daemon()
            if time.monotonic() > deadline:
                raise self._failure(f"after {WAIT_TIMEOUT_S:.0f} s still not: {what}")
            time.sleep(POLL_S)

    def contents(self) -> Contents:
        """Return what the bucket contains."""
        return contents(self._bucket)

    # The commands

    def run(self, *arguments: str) -> str:
        """Run ``walsyncd`` with these arguments and the demo's configuration, and return what it printed.

        Raises WalsyncdError if the command fails.
        """
        command, *rest = arguments
        try:
            result = subprocess.run(
                [*_python("walsyncd"), command, "--config", str(self.config), *rest],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env=_environment(),
                timeout=WAIT_TIMEOUT_S + COMMAND_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise self._failure(f"`walsyncd {' '.join(arguments)}` took more than {error.timeout:.0f} s") from error
        if result.returncode:
            said = " ".join(f"{result.stdout} {result.stderr}".split())
            raise self._failure(f"`walsyncd {' '.join(arguments)}` ended with {result.returncode}: {said}")
        return result.stdout

    def _check_daemon(self) -> None:
        if self._daemon is not None and self._daemon.poll() is not None:
            raise self._failure(f"walsyncd run ended with {self._daemon.returncode}")

    def _failure(self, message: str) -> WalsyncdError:
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        said = "".join(f"\n    {line}" for line in lines[-LOG_LINES_SHOWN:])
        return WalsyncdError(f"demo: {message}", hint=f"the last lines of daemon.log:{said}" if said else "")


def _close_pipes(process: subprocess.Popen[str] | None) -> None:
    for pipe in (process.stdin, process.stdout) if process is not None else ():
        if pipe is not None:
            with suppress(BrokenPipeError):  # the application may have ended without reading its last command
                pipe.close()


def _python(module: str) -> list[str]:
    """Return a command that runs a module in this Python. ``-P`` keeps the working directory out of the import path."""
    return [sys.executable, "-P", "-m", module]


def _environment() -> dict[str, str]:
    """Return this process's environment without settings that would lead the demo to somebody's bucket.

    The environment also makes the demo's processes import this same walsyncd.
    """
    inherited = {name: value for name, value in os.environ.items() if not name.upper().startswith("WALSYNCD_")}
    inherited.pop("RUNTIME_DIRECTORY", None)
    here = Path(walsyncd.__file__).parents[1]
    if here.name in {"site-packages", "dist-packages"}:
        return inherited
    return inherited | {"PYTHONPATH": os.pathsep.join(filter(None, [str(here), inherited.get("PYTHONPATH", "")]))}
