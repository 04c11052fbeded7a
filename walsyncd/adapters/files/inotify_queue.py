"""The kernel's queue of inotify events. It is read in bulk, since a busy folder has thousands of events a second.

If a MODIFY equals the record before it, it is dropped. The kernel does the same while nobody reads. Two equal records
mean the same as long as no watch changes, so the caller can remember by a record's bytes what it means (inotify(7)).
"""

from __future__ import annotations

import math
import os
import select
import struct
from collections.abc import Iterator

from inotify_simple import INotify, flags

from walsyncd.errors import RefusedError

MOUNTS_FILE = "/proc/self/mountinfo"
MODIFY = int(flags.MODIFY)

HEAD = struct.Struct("@iI4xI")  # struct inotify_event: watch, mask, and the length of the name, padded with zeros
READ_BYTES = 64 << 10
_EVENT_BYTES_MAX = HEAD.size + 256  # a name has at most 255 bytes and a zero; if a read left less room, more may wait


class InotifyQueue:
    """An inotify instance, and the other things that its thread waits for.

    Only one thread may be in ``wait`` or ``pause``.
    """

    def __init__(self, *, read_bytes: int = READ_BYTES, event_bytes_max: int = _EVENT_BYTES_MAX) -> None:
        self._read_bytes, self._event_bytes_max = read_bytes, event_bytes_max
        try:
            self.inotify = INotify(nonblocking=True)
        except OSError as error:
            raise RefusedError(
                f"start inotify: {error.strerror}", hint="raise fs.inotify.max_user_instances or LimitNOFILE"
            ) from error
        self._alarm = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._pause = select.poll()
        self._pause.register(self._alarm, select.POLLIN)
        self._poll = select.poll()
        self._poll.register(self.fileno(), select.POLLIN)
        self._poll.register(self._alarm, select.POLLIN)
        self._mounts = os.open(MOUNTS_FILE, os.O_RDONLY | os.O_CLOEXEC)
        self._poll.register(self._mounts, select.POLLPRI)

    def close(self) -> None:
        """Remove every watch."""
        self.inotify.close()
        os.close(self._alarm)
        os.close(self._mounts)

    def fileno(self) -> int:
        """The descriptor that is readable while events wait."""
        return int(self.inotify.fileno())

    def wait(self, timeout: float | None) -> tuple[bool, bool]:
        """Block for ``timeout`` seconds, until something happens, or until ``wake`` is called.

        Returns whether there are events, and whether the mounts have changed.
        """
        ready = {fd for fd, _ in self._poll.poll(None if timeout is None else math.ceil(timeout * 1000))}
        if self._alarm in ready:
            os.eventfd_read(self._alarm)
        return self.fileno() in ready, self._mounts in ready

    def pause(self, timeout: float) -> None:
        """Block for ``timeout`` seconds, whatever events come, or until ``wake`` is called. ``wait`` returns then."""
        self._pause.poll(math.ceil(timeout * 1000))

    def wake(self) -> None:
        """Make ``wait`` return, now or at its next call."""
        os.eventfd_write(self._alarm, 1)

    def records(self) -> Iterator[bytes]:
        """Yield the record of each event that was queued before this call, and perhaps of later events.

        It never blocks.
        """
        before = b""
        while data := self._read():
            start = 0
            while start < len(data):
                _, mask, length = HEAD.unpack_from(data, start)
                record = data[start : start + HEAD.size + length]
                start += len(record)
                if mask != MODIFY or record != before:
                    yield record
                before = record
            if len(data) < self._read_bytes - self._event_bytes_max:
                return

    def _read(self) -> bytes:
        try:
            return os.read(self.fileno(), self._read_bytes)
        except BlockingIOError:
            return b""


def parse_record(record: bytes) -> tuple[int, int, str]:
    """Return an event's watch, mask and name."""
    watch, mask, _ = HEAD.unpack_from(record)
    return watch, mask, os.fsdecode(record[HEAD.size :].rstrip(b"\0"))
