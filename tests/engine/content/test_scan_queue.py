"""Tests of walsyncd.engine.content.scan_queue: one scan at a time, at a bounded pace, urgent ones first."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from walsyncd.engine.content.scan_queue import ScanQueue, ScanSteps, ScanWait

LONG_S = 60.0


@contextmanager
def running(queue: ScanQueue) -> Iterator[None]:
    thread = threading.Thread(target=queue.run)
    thread.start()
    try:
        yield
    finally:
        queue.stop()
        thread.join(LONG_S)
    assert not thread.is_alive()


def test_an_urgent_scan_interrupts_another() -> None:
    """The urgent scan begins after the block that is being read. Then the other scan continues."""
    queue, seen, ended = ScanQueue(bytes_per_s_max=1e12), list[str](), threading.Event()

    def urgent() -> ScanSteps:
        for block in range(2):
            seen.append(f"urgent {block}")
            yield ScanWait(1)

    def slow() -> ScanSteps:
        for block in range(3):
            seen.append(f"slow {block}")
            if block == 0:
                queue.add(urgent(), urgent=True)
            yield ScanWait(1)
        ended.set()

    with running(queue):
        queue.add(slow())
        assert ended.wait(LONG_S)
    assert seen == ["slow 0", "urgent 0", "urgent 1", "slow 1", "slow 2"]


def test_all_scans_share_one_pace() -> None:
    """Two scans of 1,000 bytes each take as long as one of 2,000, by the queue's clock."""
    now, read_at, ended = [0.0], list[float](), threading.Event()
    queue = ScanQueue(bytes_per_s_max=1000, monotonic_s=lambda: now[0])
    wait = queue._alarm.wait

    def time_passes(timeout_s: float | None = None) -> bool:
        now[0] += timeout_s or 0.0
        return wait(0.001)

    queue._alarm.wait = time_passes  # type: ignore[method-assign, assignment]

    def scan() -> ScanSteps:
        for _ in range(4):
            read_at.append(now[0])
            yield ScanWait(250)

    def last() -> ScanSteps:
        yield ScanWait()
        ended.set()

    queue.add(scan())
    queue.add(scan())
    queue.add(last())
    with running(queue):
        assert ended.wait(LONG_S)
    assert [round(each, 6) for each in read_at] == [0, 0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75]


def test_a_scan_that_waits_lets_others_go_on() -> None:
    """A scan that is to begin later lets others continue, too."""
    queue, seen, ended = ScanQueue(), list[str](), threading.Event()

    def waiting() -> ScanSteps:
        seen.append("begins")
        yield ScanWait(until_s=1e6)
        seen.append("never")

    def other() -> ScanSteps:
        seen.append("other")
        yield ScanWait()
        ended.set()

    with running(queue):
        queue.add(waiting(), urgent=True)
        queue.add(other(), delay_s=0.01)
        assert ended.wait(LONG_S)
    assert seen == ["begins", "other"]


def test_a_stop_closes_what_is_under_way() -> None:
    """A scan closes its files in its ``finally``."""
    queue, begun, closed = ScanQueue(), threading.Event(), list[bool]()

    def scan() -> ScanSteps:
        try:
            while True:
                begun.set()
                yield ScanWait(1 << 20)
        finally:
            closed.append(queue.is_stopping)

    with running(queue):
        queue.add(scan())
        assert begun.wait(LONG_S)
    assert closed == [True]


def test_what_is_called_runs_in_the_thread() -> None:
    """``between`` is called after each scan."""
    ran: list[str] = []
    done = threading.Event()

    def between() -> None:
        ran.append("between")
        done.set()

    queue = ScanQueue(between=between)
    with running(queue):
        queue.call(lambda: ran.append(threading.current_thread().name))
        assert done.wait(LONG_S)
    assert ran[0] != threading.current_thread().name
    assert ran[1:] == ["between"]
