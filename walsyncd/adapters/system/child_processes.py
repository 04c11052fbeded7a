"""Starts child processes, and returns exits of children and signals to this process, one at a time.

All signals except those that report a fault are blocked and taken by ``wait``, so they interrupt nothing. The process
also works as PID 1 of a container. There, the kernel ignores signals that PID 1 does not take, and orphans of other
processes become children that PID 1 has to reap. Children start with the signal mask that this process had before.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self

_FAULTS = {
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
}
_NEVER_BLOCKED = {signal.SIGKILL, signal.SIGSTOP}
_TERMINAL = {signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU}  # these signals stop the processes of a terminal as usual
_FROM_KERNEL = 128  # si_code SI_KERNEL: the terminal sent the signal, to every process in the foreground


@dataclass(frozen=True, slots=True)
class Exited:
    """A child ended. ``code`` is its exit code, or 128 plus the number of the signal that ended it."""

    pid: int
    code: int


@dataclass(frozen=True, slots=True)
class Signalled:
    """This process received a signal. If it is ``from_terminal``, the children in the process's group got it too."""

    number: int
    from_terminal: bool


class ChildProcesses:
    """Starts children and waits for events. It is a context manager, which restores the signal mask at its end."""

    def __init__(self) -> None:
        known = signal.valid_signals() - _FAULTS - _NEVER_BLOCKED - _TERMINAL
        self._signals = {signal.SIGCHLD, *known}
        self._mask_before = signal.pthread_sigmask(signal.SIG_BLOCK, self._signals)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask_before)

    def start(
        self, command: Sequence[str], *, environment: Mapping[str, str] | None = None, in_background: bool = False
    ) -> int:
        """Start a child and return its pid. Raises OSError if there is no such program.

        A child ``in_background`` is in a process group of its own, which the terminal's signals do not reach. Its
        standard input is empty, and its standard output goes to standard error.
        """
        own = dict(os.environ if environment is None else environment)
        mask, defaults = self._mask_before, {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores these two signals
        if not in_background:
            return os.posix_spawnp(command[0], list(command), own, setsigmask=mask, setsigdef=defaults)
        apart = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_DUP2, 2, 1)]
        return os.posix_spawnp(
            command[0], list(command), own, file_actions=apart, setpgroup=0, setsigmask=mask, setsigdef=defaults
        )

    def wait(self, timeout_s: float | None = None) -> Exited | Signalled | None:
        """Return the next event, or None if there was none within ``timeout_s``."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            ended = _reaped()
            if ended is not None:
                return ended
            if deadline is None:
                info: signal.struct_siginfo | None = signal.sigwaitinfo(self._signals)
            else:
                info = signal.sigtimedwait(self._signals, max(0.0, deadline - time.monotonic()))
            if info is None:
                return _reaped()
            if info.si_signo != signal.SIGCHLD:
                return Signalled(info.si_signo, from_terminal=info.si_code == _FROM_KERNEL)

    def send(self, pid: int, number: int) -> None:
        """Send a signal to a child that is not reaped yet."""
        os.kill(pid, number)


def _reaped() -> Exited | None:
    """Reap and return a child that has ended, or return None. The child may be an orphan of another process."""
    try:
        pid, status = os.waitpid(-1, os.WNOHANG)
    except ChildProcessError:
        return None
    if pid == 0:
        return None
    code = os.waitstatus_to_exitcode(status)
    return Exited(pid, 128 - code if code < 0 else code)
