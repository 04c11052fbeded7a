"""The pulse: who is at work, and for how long."""

from __future__ import annotations

import threading

from walsyncd.engine.threads.stall_detector import Pulse


def test_only_work_counts_and_a_beat_begins_it_anew() -> None:
    """Waiting is well; what is done in steps is not slow as long as a step is not."""
    now = [100.0]
    pulse = Pulse(lambda: now[0])
    assert pulse.longest_s() == 0
    with pulse.work():
        now[0] += 5
        assert pulse.longest_s() == 5
        pulse.beat()
        now[0] += 2
        assert pulse.longest_s() == 2
    assert pulse.longest_s() == 0
    pulse.beat()
    assert pulse.longest_s() == 0


def test_workers_are_told_apart_by_name() -> None:
    """A slow upload is no slow follower."""
    now = [100.0]
    pulse, begun, done = Pulse(lambda: now[0]), threading.Event(), threading.Event()

    def upload() -> None:
        with pulse.work():
            begun.set()
            done.wait()

    thread = threading.Thread(target=upload, name="upload-1")
    thread.start()
    assert begun.wait(60)
    now[0] += 7
    assert (pulse.longest_s("upload"), pulse.longest_s("follower")) == (7, 0)
    done.set()
    thread.join()
    assert pulse.longest_s() == 0
