"""Tests that a thread that logs never waits."""

from __future__ import annotations

import threading
import time

from walsyncd.log.queue import Queue


def test_a_stalled_reader_costs_lines_and_not_time() -> None:
    """A line that finds no room is dropped and counted. The count is logged in its place when there is room again."""
    gate, written = threading.Event(), list[str]()

    def write(line: str) -> None:
        assert gate.wait(60)
        written.append(line)

    queue = Queue(write, lambda count: f"{count} dropped", lines_max=4)
    queue.put("first")
    while queue._waiting:  # until the writer has taken the line, and stalls
        time.sleep(0.001)
    for number in range(10):
        queue.put(f"line {number}")
    assert queue.dropped == 6
    assert not queue.flush(0.01)
    gate.set()
    assert queue.flush(60)
    queue.put("last")
    assert queue.flush(60)
    assert written == ["first", "line 0", "line 1", "line 2", "line 3", "6 dropped", "last"]
