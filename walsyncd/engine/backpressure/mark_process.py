"""The child process that holds the locks of backpressure, for all databases that ask for it.

It does nothing else, because a lock is useless in a process that stalls while it waits for the reader's work. It sleeps
until an event of a WAL or a message comes. While it holds a lock, it looks every ``LOOK_MS``.

It talks with the daemon over standard input, a socket that keeps messages apart. Each message is a JSON object.

=============  =======================  ======================================================
from           key with database's id   others
=============  =======================  ======================================================
the daemon     ``add``                  ``path``, ``own_only``, ``wal_bytes_max``
the daemon     ``remove``
the daemon     ``copied``               ``salts`` (null: nobody follows it), ``frames``
the daemon     ``alive`` (true)         the answer to ``alive``
the daemon     ``watching`` (true)      asks for an answer when everything before is done
the child      ``watching`` (true)      the answer; ``real_time``: whether it is scheduled so
the child      ``alive`` (true)         asks whether the daemon is not stopped
the child      ``hindrance``            ``reason``; empty if a lock was taken again
the child      ``limit``                ``reason``: given up before everything was copied
the child      ``free`` (true)          no lock is held any more
the child      ``hung`` (true)          ``path``: a call on this file hangs, and the child ends
=============  =======================  ======================================================

It ends when the daemon closes the socket, and when the daemon has not answered for ``SILENCE_MS`` while a lock is held.
The daemon may be stopped by a signal then, and the lock would let the WAL grow without end. For the same reason the
child ends when a call on a file hangs: all its locks would stay. The daemon ends a child that is silent while it holds
a lock. The child's last ``alive`` or ``free`` tells the daemon whether it holds one.

Nothing is held between the lock's end and the next one, which is taken after the WAL has restarted. On a machine whose
cores are all busy an ordinary process that wakes may wait for tens of milliseconds until it runs, and a fast writer
restarts the WAL twice in that time. So the child asks for real-time scheduling.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from walsyncd.adapters.files.inotify import InotifyReader
from walsyncd.adapters.system import clock
from walsyncd.core.follow.backpressure_decision import Copied
from walsyncd.engine.backpressure.mark_hold import HoldTarget, MarkHold
from walsyncd.file_calls import FILE_CALLS

LOOK_MS = 1
ASK_MS = 100
SILENCE_MS = 500
MESSAGE_BYTES_MAX = 1 << 16
EXIT_CLOSED, EXIT_SILENT, EXIT_HUNG = 0, 3, 4
HANG_LOOK_S = 0.5
PRIORITY = 1  # the lowest of real time
HANG_LOOKS = 5  # the watch counts its looks, so a machine that slept makes no call seem to hang


class MarkProcess:
    """The loop of the child process. ``channel`` is the socket to the daemon."""

    def __init__(self, channel: socket.socket, watcher: InotifyReader, *, is_real_time: bool = False) -> None:
        self._channel = channel
        self._is_real_time = is_real_time
        self._channel.setblocking(False)
        self._watcher = watcher
        self._holds: dict[int, MarkHold] = {}
        self._by_path: dict[Path, MarkHold] = {}
        self._asked_ms = 0
        self._is_known_to_hold = False
        self._unanswered_since_ms: int | None = None

    def run(self) -> int:
        """Run until the daemon is gone or silent. Returns the exit code."""
        poll = select.poll()
        poll.register(self._channel, select.POLLIN)
        poll.register(self._watcher.fileno(), select.POLLIN)
        while True:
            is_active = any(hold.is_due(clock.monotonic_ms()) for hold in self._holds.values())
            poll.poll(LOOK_MS if is_active else None)
            if not self._take_messages():
                return EXIT_CLOSED
            for event in self._watcher.drain():
                if event.path in self._by_path:
                    self._by_path[event.path].note(event)
            now_ms = clock.monotonic_ms()
            for hold in self._holds.values():
                if hold.is_due(now_ms) and (hold.is_held or not self._is_silent(now_ms)):
                    hold.look(now_ms)
            if any(hold.is_held for hold in self._holds.values()):
                if self._is_silent(now_ms):
                    return EXIT_SILENT
                self._ask(now_ms)
            elif self._is_known_to_hold:
                self._is_known_to_hold = not self._say({"free": True})
            time.sleep(LOOK_MS / 1000)  # a busy writer makes thousands of events a second: one look serves them

    def _is_silent(self, now_ms: int) -> bool:
        since_ms = self._unanswered_since_ms
        return since_ms is not None and now_ms - since_ms >= SILENCE_MS

    def _ask(self, now_ms: int) -> None:
        # A lock of which the daemon does not know would outlive a child that is stopped.
        is_due = not self._is_known_to_hold or now_ms - self._asked_ms >= ASK_MS
        if self._unanswered_since_ms is None and is_due:
            self._asked_ms = self._unanswered_since_ms = now_ms
            self._is_known_to_hold |= self._say({"alive": True})

    def _take_messages(self) -> bool:
        """Take what the daemon has sent. Returns False if it has closed the socket."""
        while True:
            try:
                message = self._channel.recv(MESSAGE_BYTES_MAX)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not message:
                return False
            self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        match message:
            case {"add": int(number), "path": str(path), "own_only": bool(own_only), "wal_bytes_max": int(size)}:
                self._remove(number)
                hold = MarkHold(HoldTarget(Path(path), own_only, size), partial(self._report, number))
                self._holds[number] = self._by_path[Path(path)] = hold
                self._watcher.add(Path(path))
            case {"remove": int(number)}:
                self._remove(number)
            case {"copied": int(number), "salts": salts, "frames": int(frames)}:
                if number in self._holds:
                    self._holds[number].copied = Copied((salts[0], salts[1]), frames) if salts else None
            case {"alive": True}:
                self._unanswered_since_ms = None
            case {"watching": True}:
                self._say({"watching": True, "real_time": self._is_real_time})

    def _remove(self, number: int) -> None:
        hold = self._holds.pop(number, None)
        if hold is not None:
            hold.close()
            path = next(path for path, each in self._by_path.items() if each is hold)
            del self._by_path[path]
            self._watcher.remove(path)

    def _report(self, number: int, kind: str, reason: str) -> None:
        self._say({kind: number, "reason": reason})

    def _say(self, message: dict[str, Any]) -> bool:
        """Send a message. Returns False if the daemon does not take it. A later look finds whether it is stopped."""
        try:
            self._channel.send(json.dumps(message).encode("ascii"))
        except OSError:
            return False
        return True


def watch_calls(channel: socket.socket) -> None:
    """Report a call on a file that hangs, and end the process. This is a thread, which sleeps while no call lasts."""
    while True:
        FILE_CALLS.woken.clear()
        FILE_CALLS.is_unwatched = True
        if not FILE_CALLS.lasting:
            FILE_CALLS.woken.wait()
        FILE_CALLS.is_unwatched = False
        call = next(iter(FILE_CALLS.lasting.copy()), None)
        time.sleep(HANG_LOOK_S)
        for _ in range(HANG_LOOKS):
            if call not in FILE_CALLS.lasting:
                break
            time.sleep(HANG_LOOK_S)
        else:
            with suppress(OSError):
                channel.send(json.dumps({"hung": True, "path": str(call and call.path)}).encode("ascii"))
            os._exit(EXIT_HUNG)


def ask_for_real_time() -> bool:
    """Ask the kernel to run this process before ordinary ones whenever it wakes. Returns False if that is refused.

    It needs CAP_SYS_NICE or a limit of real-time priorities (RLIMIT_RTPRIO). Threads that are begun later inherit it,
    so that none of them is stopped while it holds the interpreter's lock.
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(PRIORITY))
    except OSError:
        return False
    return True


def main() -> int:
    """Run the child process until the daemon closes the socket."""
    is_real_time = ask_for_real_time()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    with socket.socket(fileno=os.dup(sys.stdin.fileno())) as channel, InotifyReader() as watcher:
        threading.Thread(target=watch_calls, args=(channel,), name="hang watch", daemon=True).start()
        return MarkProcess(channel, watcher, is_real_time=is_real_time).run()


if __name__ == "__main__":
    sys.exit(main())
