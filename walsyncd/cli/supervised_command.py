"""``walsyncd exec``: runs a command and a daemon, for containers that hold one application.

1. Missing databases are restored. If a restore fails, the command is not started, since it would create an empty
   database.
2. The daemon starts. The command starts when the daemon follows its databases, or after ``READY_S_MAX`` at the latest.
3. Signals go to the command. If the daemon ends, the command continues, and the daemon is started again.
4. When the command has ended the daemon ships what is left, for ``stop_timeout`` and a margin at most.
"""

from __future__ import annotations

import os
import secrets
import signal
import socket
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path

from walsyncd.adapters.system.child_processes import ChildProcesses, Exited, Signalled
from walsyncd.config import Settings

READY_S_MAX = 10.0
READY_POLL_S = 0.02
STOP_MARGIN_S = 30.0  # the daemon itself adds this to stop_timeout for requests in flight, and for closing
RESTART_S, RESTART_S_MAX = 1.0, 60.0
CALM_S = 60.0  # a daemon that ran for this long is restarted after a second
NOT_FOUND, NOT_EXECUTABLE = 127, 126  # as in shells
KILL_S = 5.0  # the wait after the last SIGTERM
_OF_THE_COMMAND = {"NOTIFY_SOCKET", "WATCHDOG_USEC"}  # the service manager supervises the command
_STOPS = {signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP}


class SupervisedCommand:
    """The command and the daemon. ``options`` go to every walsyncd command, and are ``--config FILE`` or nothing."""

    def __init__(self, settings: Settings, command: Sequence[str], options: Sequence[str]) -> None:
        self._settings = settings
        self._command = command
        self._program = [sys.executable, "-m", "walsyncd"]
        self._options = options
        self._children: ChildProcesses
        self._daemon: int | None = None
        self._started_s = 0.0
        self._restart_s = RESTART_S
        self._restart_at_s: float | None = None
        self._is_hurried = False

    def run(self) -> int:
        """Run the command to its end and return its exit code."""
        with ChildProcesses() as self._children:
            code = self._restore()
            if code is not None:
                return code
            self._start_daemon_and_wait()
            try:
                pid = self._children.start(self._command)
            except OSError as error:
                _say(f"start {self._command[0]}: {error.strerror}")
                code = NOT_FOUND if isinstance(error, FileNotFoundError) else NOT_EXECUTABLE
            else:
                code = self._watch(pid)
            self._ship_and_stop()
            return code

    # -- before ---------------------------------------------------------------------------------------------------

    def _restore(self) -> int | None:
        """Restore each configured file that is missing. Returns an exit code if the command can't start, else None."""
        from walsyncd.core.stored.layout import default_name  # noqa: PLC0415

        for entry in self._settings.databases:
            if entry.is_pattern or _has_content(Path(entry.path)):
                continue
            name = entry.name or default_name(entry.path)
            command = ["restore", *self._options, "--if-missing", "--if-replica", "-o", entry.path, name]
            pid = self._children.start([*self._program, *command], in_background=True)
            code = self._await_restore(pid)
            if code != 0:
                _say(f"{entry.path} could not be restored, so {self._command[0]} was not started")
                return code
        return None

    def _await_restore(self, pid: int) -> int:
        stopped = 0
        while True:
            match self._children.wait():
                case Exited(ended, code) if ended == pid:
                    return 128 + stopped if stopped else code
                case Signalled(number) if number in _STOPS:
                    stopped = number
                    self._children.send(pid, signal.SIGTERM)
                case _:
                    pass

    def _start_daemon_and_wait(self) -> None:
        """Start the daemon and wait until it follows every database, has ended, or ``READY_S_MAX`` is over."""
        address = f"walsyncd-{os.getpid()}-{secrets.token_hex(8)}"
        with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)) as listener:
            listener.bind(f"\0{address}")
            listener.setblocking(False)
            self._start_daemon({"NOTIFY_SOCKET": f"@{address}"})
            deadline = time.monotonic() + READY_S_MAX
            while self._daemon is not None and time.monotonic() < deadline and not _is_ready(listener):
                event = self._children.wait(READY_POLL_S)
                if isinstance(event, Exited):
                    self._note_exit(event)

    # -- the daemon -----------------------------------------------------------------------------------------------

    def _start_daemon(self, environment: Mapping[str, str]) -> None:
        inherited = {name: value for name, value in os.environ.items() if name not in _OF_THE_COMMAND}
        command = [*self._program, "run", *self._options]
        self._daemon = self._children.start(command, environment={**inherited, **environment}, in_background=True)
        self._started_s, self._restart_at_s = time.monotonic(), None

    def _note_exit(self, event: Exited) -> None:
        """Note the end of a child. If the daemon ended, the command continues, and the daemon will be restarted."""
        if event.pid != self._daemon:
            return
        now_s = time.monotonic()
        self._daemon = None
        if now_s - self._started_s > CALM_S:
            self._restart_s = RESTART_S
        self._restart_at_s = now_s + self._restart_s
        _say(
            f"the daemon ended with exit code {event.code}: {self._command[0]} goes on, and nothing is replicated until"
            f" the daemon starts again in {self._restart_s:.0f} s"
        )
        self._restart_s = min(RESTART_S_MAX, self._restart_s * 2)

    # -- the command ----------------------------------------------------------------------------------------------

    def _watch(self, pid: int) -> int:
        """Wait until the command has ended, and return its exit code."""
        while True:
            wait_s = None if self._restart_at_s is None else max(0.0, self._restart_at_s - time.monotonic())
            match self._children.wait(wait_s):
                case Exited(ended, code) if ended == pid:
                    return code
                case Exited() as event:
                    self._note_exit(event)
                case Signalled(number, from_terminal) if not from_terminal:
                    self._children.send(pid, number)
                case None if self._restart_at_s is not None:
                    self._start_daemon({})
                case _:
                    pass

    # -- after ----------------------------------------------------------------------------------------------------

    def _ship_and_stop(self) -> None:
        """Have the daemon ship what the command committed last.

        If the daemon leaves something, for example a base that is under way, one more run of the daemon ships it in the
        remaining time.
        """
        deadline_s = time.monotonic() + self._settings.daemon.stop_timeout_s + STOP_MARGIN_S
        code: int | None = None
        if self._daemon is not None:
            self._children.send(self._daemon, signal.SIGTERM)
            code = self._await_stop(self._daemon, deadline_s)
        if code != 0 and not self._is_hurried and time.monotonic() < deadline_s:
            command = [*self._program, "run", "--once", *self._options]
            code = self._await_stop(self._children.start(command, in_background=True), deadline_s)
        if code != 0:
            _say(f"not everything was shipped (exit code {code}): the next start with the same state directory does it")

    def _await_stop(self, pid: int, deadline_s: float) -> int:
        """Return the daemon's exit code. The daemon is killed when its time is over, or by another stop signal."""
        steps = [(deadline_s, signal.SIGTERM), (deadline_s + KILL_S, signal.SIGKILL)]
        while True:
            wait_s = max(0.0, steps[0][0] - time.monotonic()) if steps else None
            match self._children.wait(wait_s):
                case Exited(ended, code) if ended == pid:
                    return code
                case Signalled(number) if number in _STOPS:
                    self._is_hurried = True
                    self._children.send(pid, signal.SIGTERM)
                case None if steps:
                    self._children.send(pid, steps.pop(0)[1])
                case _:
                    pass


def _has_content(path: Path) -> bool:
    """Whether there is a file that a restore would keep. A file of 0 bytes may count as missing."""
    try:
        return path.stat().st_size > 0
    except OSError:
        return False


def _is_ready(listener: socket.socket) -> bool:
    """Whether the daemon has reported that it follows its databases."""
    try:
        return b"READY=1" in listener.recv(1 << 16).splitlines()
    except BlockingIOError:
        return False


def _say(text: str) -> None:
    print(f"walsyncd: {text}", file=sys.stderr, flush=True)
