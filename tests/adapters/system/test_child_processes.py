"""Tests of children and signals as one stream of events."""

from __future__ import annotations

import signal
import sys

import pytest

from walsyncd.adapters.system.child_processes import ChildProcesses, Exited, Signalled

WAIT_S_MAX = 60.0


def script(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_child_that_ends_is_told_with_its_code() -> None:
    """A child's end is reported with its exit code.

    After a signal the code is 128 plus the signal's number, as in shells.
    """
    with ChildProcesses() as children:
        pid = children.start(script("raise SystemExit(7)"))
        assert children.wait(WAIT_S_MAX) == Exited(pid, 7)
        pid = children.start(script("import os; os.kill(os.getpid(), 9)"))
        assert children.wait(WAIT_S_MAX) == Exited(pid, 137)
        assert children.wait(0.0) is None


def test_a_signal_is_an_event_and_interrupts_nothing() -> None:
    """The sender is reported, because the terminal's signals reach the children too."""
    with ChildProcesses() as children:
        signal.raise_signal(signal.SIGTERM)
        assert children.wait(WAIT_S_MAX) == Signalled(signal.SIGTERM, from_terminal=False)
        signal.raise_signal(signal.SIGRTMIN)
        assert children.wait(WAIT_S_MAX) == Signalled(signal.SIGRTMIN, from_terminal=False)


def test_children_have_the_signals_that_we_had() -> None:
    """A signal that is blocked here would stay blocked in the child, and Python ignores SIGPIPE."""
    told = "import signal, sys; sys.exit(bool(signal.pthread_sigmask(signal.SIG_BLOCK, [])))"
    with ChildProcesses() as children:
        pid = children.start(script(told))
        assert children.wait(WAIT_S_MAX) == Exited(pid, 0)
        pid = children.start(["sh", "-c", "kill -PIPE $$"])
        assert children.wait(WAIT_S_MAX) == Exited(pid, 128 + signal.SIGPIPE)


def test_one_in_the_background_reads_nothing_and_has_a_group_of_its_own() -> None:
    """The terminal's Ctrl-C does not reach such a child."""
    told = "import os, sys; sys.exit(0 if os.getpgid(0) == os.getpid() and not sys.stdin.read() else 1)"
    with ChildProcesses() as children:
        pid = children.start(script(told), in_background=True)
        assert children.wait(WAIT_S_MAX) == Exited(pid, 0)


def test_the_signals_are_given_back() -> None:
    """The signal mask is what it was before."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [])
    with ChildProcesses():
        assert signal.SIGTERM in signal.pthread_sigmask(signal.SIG_BLOCK, [])
    assert signal.pthread_sigmask(signal.SIG_BLOCK, []) == before


def test_a_program_that_is_not_there_is_an_error() -> None:
    """The start itself raises the error."""
    with ChildProcesses() as children, pytest.raises(FileNotFoundError):
        children.start(["/no/such/program"])
