"""Tests that the kernel's queue is read in bulk, and that nothing of it is lost."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from inotify_simple import flags

from walsyncd.adapters.files import inotify_queue
from walsyncd.adapters.files.inotify_queue import InotifyQueue, parse_record

LONG_S = 60.0


@pytest.fixture
def queue() -> Iterator[InotifyQueue]:
    made = InotifyQueue()
    yield made
    made.close()


def parsed(queue: InotifyQueue) -> list[tuple[int, str]]:
    """Return mask and name of each event."""
    return [(mask, name) for _, mask, name in map(parse_record, queue.records())]


def test_events_come_in_order_with_their_names(queue: InotifyQueue, tmp_path: Path) -> None:
    """Names may have any length and bytes. The folder's own events have none."""
    watch = queue.inotify.add_watch(tmp_path, flags.CREATE | flags.DELETE_SELF)
    names = ["a", "b" * 15, "c" * 16, "d" * 255, os.fsdecode(b"\xff\xfe"), "é"]
    for name in names:
        (tmp_path / name).touch()
        (tmp_path / name).unlink()
    tmp_path.rmdir()
    found = [parse_record(record) for record in queue.records()]
    assert [event for event in found if event[1] == flags.CREATE] == [
        (watch, int(flags.CREATE), each) for each in names
    ]
    assert (watch, int(flags.DELETE_SELF), "") in found
    assert list(queue.records()) == []


def test_writes_that_repeat_the_one_before_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Any event between two writes keeps both, also across reads. No event of another kind is dropped."""
    write, close = int(flags.MODIFY), int(flags.CLOSE_WRITE)
    told = [(write, "a"), (write, "a"), (write, "b"), (write, "a"), (close, "a"), (close, "a"), (write, "a")]
    records = [inotify_queue.HEAD.pack(1, mask, 16) + name.encode().ljust(16, b"\0") for mask, name in told]
    blocks = [b"".join(records[:1]), b"".join(records[1:]), b""]
    with closing(InotifyQueue(read_bytes=300, event_bytes_max=300)) as queue:
        monkeypatch.setattr(queue, "_read", lambda: blocks.pop(0))
        assert parsed(queue) == [told[0], *told[2:]]


def test_all_that_was_queued_is_read(queue: InotifyQueue, tmp_path: Path) -> None:
    """Events that do not fit into one read are read, too."""
    queue.inotify.add_watch(tmp_path, flags.CREATE)
    names = [f"{number:0200}" for number in range(2 * inotify_queue.READ_BYTES // 200)]
    for name in names:
        (tmp_path / name).touch()
    assert [name for _, name in parsed(queue)] == names


def test_a_pause_ends_when_woken(queue: InotifyQueue, tmp_path: Path) -> None:
    """An event does not end the pause. A wake ends it, and the wait after it."""
    queue.inotify.add_watch(tmp_path, flags.CREATE)
    (tmp_path / "a").touch()
    began = time.monotonic()
    queue.pause(0.05)
    assert time.monotonic() - began >= 0.05
    thread = threading.Thread(target=queue.pause, args=(LONG_S,))
    thread.start()
    queue.wake()
    thread.join(LONG_S / 2)
    assert not thread.is_alive()
    list(queue.records())
    assert queue.wait(LONG_S) == (False, False)
