"""Tests of the stall detector, which knows who is at work, and for how long."""

from __future__ import annotations

import threading

from walsyncd.engine.threads.stall_detector import StallDetector


def test_only_work_counts_and_a_beat_begins_it_anew() -> None:
    """A waiting thread is fine. Work in steps is not slow as long as no step is."""
    now = [100.0]
    stall_detector = StallDetector(lambda: now[0])
    assert stall_detector.longest_s() == 0
    with stall_detector.work():
        now[0] += 5
        assert stall_detector.longest_s() == 5
        stall_detector.beat()
        now[0] += 2
        assert stall_detector.longest_s() == 2
    assert stall_detector.longest_s() == 0
    stall_detector.beat()
    assert stall_detector.longest_s() == 0


def test_workers_are_told_apart_by_name() -> None:
    """A slow upload does not count as a slow follower."""
    now = [100.0]
    stall_detector, begun, done = StallDetector(lambda: now[0]), threading.Event(), threading.Event()

    def upload() -> None:
        with stall_detector.work():
            begun.set()
            done.wait()

    thread = threading.Thread(target=upload, name="upload-1")
    thread.start()
    assert begun.wait(60)
    now[0] += 7
    assert (stall_detector.longest_s("upload"), stall_detector.longest_s("follower")) == (7, 0)
    assert stall_detector.hung(2.0, overdue_s=0) == "upload"
    assert stall_detector.hung(2.0, overdue_s=3.0) == "follower"
    assert stall_detector.hung(6.0, overdue_s=3.0) == ""
    done.set()
    thread.join()
    assert stall_detector.longest_s() == 0
