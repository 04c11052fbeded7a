"""Tests of the supervisor: threads, calls, crashes."""

from __future__ import annotations

import threading

from structlog.testing import capture_logs

from walsyncd.engine.threads.supervisor import Supervisor


def test_a_crash_in_any_thread_ends_the_waiting() -> None:
    """A bug is not swallowed, and becomes the reason to end the process."""
    supervisor = Supervisor()

    def broken() -> None:
        raise RuntimeError("bug")

    supervisor.start("broken", broken)
    assert supervisor.wait(10) == "crash"
    assert isinstance(supervisor.crash, RuntimeError)
    assert supervisor.join(10) == []


def test_a_crash_is_told_with_its_trace() -> None:
    """The trace is reported by any thread, because the process must not end without one."""
    bug = RuntimeError("bug")
    with capture_logs() as lines:
        Supervisor().crashed(bug)
    assert [(line["event"], line["log_level"], line["exc_info"]) for line in lines] == [
        ("thread_crashed", "critical", bug)
    ]


def test_calls_come_in_order_and_none_is_lost() -> None:
    """Calls made before the wait come one by one. After the last one there is none."""
    supervisor = Supervisor()
    supervisor.call("appeared")
    supervisor.call("SIGTERM")
    assert [supervisor.wait(0), supervisor.wait(0), supervisor.wait(0)] == ["appeared", "SIGTERM", None]


def test_threads_that_do_not_end_are_named() -> None:
    """The stop reports which threads hang."""
    supervisor, gate = Supervisor(), threading.Event()
    supervisor.start("slow", gate.wait)  # type: ignore[arg-type]
    assert supervisor.join(0.01) == ["slow"]
    gate.set()
    assert supervisor.join(10) == []
