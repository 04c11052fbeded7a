"""Backpressure as the daemon sees it: which databases want it, how far each is copied, and the child that locks.

One child process (``mark_process``) serves all databases. It is started when the first database wants it, and ended
when none does. One that ended by itself is started again.
"""

from __future__ import annotations

import json
import socket
import struct
import subprocess
import sys
import threading
import time
from contextlib import suppress
from typing import Any

import structlog

from walsyncd.core.follow.decision import Cursor
from walsyncd.engine.backpressure.mark_hold import HoldTarget
from walsyncd.engine.backpressure.mark_process import MESSAGE_BYTES_MAX
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import FaultError

MODULE = "walsyncd.engine.backpressure.mark_process"
START_AGAIN_S = 1.0
SEND_S_MAX = 5  # a child that takes no message for so long is ended
LIMIT_LOG_S = 60.0  # a follower that is far too slow meets a limit after each restart of the WAL

_log = structlog.get_logger()


class Backpressure:
    """All methods but ``run`` may be called by any thread. Databases are named by their row id of the journal."""

    def __init__(self) -> None:
        self._alarm = Alarm()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._targets: dict[int, HoldTarget] = {}
        self._copied: dict[int, Cursor | None] = {}
        self._hindrances: dict[int, str] = {}
        self._logged_s: dict[int, float] = {}
        self._channel: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def child_pid(self) -> int | None:
        """The process that holds the locks, or None if there is none."""
        child = self._child
        return None if child is None else child.pid

    def hindrance(self, database_id: int) -> str:
        """Why no lock has an effect although it is wanted; empty if nothing is known to be in the way."""
        return self._hindrances.get(database_id, "")

    def want(self, database_id: int, target: HoldTarget | None) -> None:
        """Slow the writers of this database from now on, or (None) no longer."""
        with self._lock:
            if self._targets.get(database_id) == target:
                return
            self._hindrances.pop(database_id, None)
            if target is None:
                del self._targets[database_id]
                self._command({"remove": database_id})
            else:
                self._targets[database_id] = target
                self._add(database_id, target)
            if not self._targets:
                self._hang_up()
        self._alarm.wake()

    def copied(self, database_id: int, cursor: Cursor | None) -> None:
        """Tell how far a database is copied, or (None) that nobody follows its WAL; this never waits."""
        self._copied[database_id] = cursor
        if database_id in self._targets:
            with self._sending, suppress(OSError):  # full, or gone: the next message says more
                if self._channel is not None:
                    self._channel.send(_copied(database_id, cursor), socket.MSG_DONTWAIT)

    def forget(self, database_id: int) -> None:
        """It is not followed any more."""
        self.want(database_id, None)
        self._copied.pop(database_id, None)

    def run(self) -> None:
        """The thread: until ``stop``."""
        wait_s: float | None = None
        while self._alarm.wait(wait_s):
            if self._targets:
                with suppress(FaultError), boundary("backpressure"):
                    self._serve()
            wait_s = START_AGAIN_S if self._targets else None

    def stop(self) -> None:
        """Give up all locks and end the thread."""
        with self._lock:
            self._targets.clear()
            self._hang_up()
        self._alarm.stop()

    def _serve(self) -> None:
        """Start a child and answer it until it ends."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("@ll", SEND_S_MAX, 0))
        with ours:
            with theirs:
                command = [sys.executable, "-P", "-m", MODULE]
                child = subprocess.Popen(command, stdin=theirs.fileno(), stdout=subprocess.DEVNULL, process_group=0)
            try:
                with self._lock:
                    self._channel, self._child = ours, child
                    for database_id, target in self._targets.items():
                        self._add(database_id, target)
                    if not self._targets:
                        self._hang_up()
                self._answer(ours)
            finally:
                child.kill()  # the kernel gives its locks up
                code = child.wait()
                with self._lock, self._sending:
                    self._channel = self._child = None
                    is_wanted = bool(self._targets)
        if is_wanted:
            remedy = "it is started again; until then nothing slows the writers"
            _log.warning("backpressure_process_ended", exit_code=code, remedy=remedy)

    def _answer(self, channel: socket.socket) -> None:
        while True:
            try:
                message = channel.recv(MESSAGE_BYTES_MAX)
            except OSError:
                return
            if not message:
                return
            match json.loads(message):
                case {"alive": True}:
                    with suppress(OSError):
                        channel.send(b'{"alive": true}', socket.MSG_DONTWAIT)
                case {"hindrance": int(database_id), "reason": str(reason)}:
                    self._note_hindrance(database_id, reason)
                case {"limit": int(database_id), "reason": str(reason)}:
                    self._note_limit(database_id, reason)

    def _note_hindrance(self, database_id: int, reason: str) -> None:
        with self._lock:
            target = self._targets.get(database_id)
            if target is not None:
                self._hindrances[database_id] = reason
        if target is not None and reason:
            _log.warning("backpressure_failed", path=str(target.path), reason=reason)

    def _note_limit(self, database_id: int, reason: str) -> None:
        target, now_s = self._targets.get(database_id), time.monotonic()
        if target is None or now_s - self._logged_s.get(database_id, -LIMIT_LOG_S) < LIMIT_LOG_S:
            return
        self._logged_s[database_id] = now_s
        _log.warning("backpressure_limit_reached", path=str(target.path), reason=reason)

    def _add(self, database_id: int, target: HoldTarget) -> None:
        fields = {"path": str(target.path), "own_only": target.own_only, "wal_bytes_max": target.wal_bytes_max}
        self._command({"add": database_id, **fields})
        self._send(_copied(database_id, self._copied.get(database_id)))

    def _command(self, message: dict[str, Any]) -> None:
        self._send(json.dumps(message).encode("ascii"))

    def _send(self, message: bytes) -> None:
        """Send something that must not be lost. A child that does not take it is ended, and the next hears all."""
        if self._channel is None:
            return
        try:
            self._channel.send(message)
        except OSError:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._channel is not None:
            with suppress(OSError):
                self._channel.shutdown(socket.SHUT_RDWR)


def _copied(database_id: int, cursor: Cursor | None) -> bytes:
    salts, frames = (None, 0) if cursor is None else (cursor.salts, cursor.frames)
    return json.dumps({"copied": database_id, "salts": salts, "frames": frames}).encode("ascii")
