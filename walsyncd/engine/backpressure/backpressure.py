"""Backpressure as the daemon sees it: which databases want it, how far each is copied, and the child that locks.

One child process (``mark_process``) serves all databases. It is started when the first database wants backpressure, and
ended when none does. If the child ends by itself, another is started after a delay, which grows while this repeats.

A child that hangs keeps its locks, and the WALs grow without end. So the daemon ends a child that is silent for
``SILENCE_S`` after it said that it holds a lock, and the child ends itself when a call on a file hangs. The database of
that file is left out for ``HUNG_S``. A process whose call even SIGKILL does not end (state D) is left behind, with its
locks, until the file system answers. At most ``LEFT_MAX`` such processes are left behind.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from walsyncd.core.follow.decision import Cursor
from walsyncd.core.send.backoff import delay_s
from walsyncd.core.sqlite.walindex_hash import blocks_for
from walsyncd.engine.backpressure.mark_hold import HoldTarget
from walsyncd.engine.backpressure.mark_process import MESSAGE_BYTES_MAX
from walsyncd.engine.threads.alarm import Alarm
from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import FaultError
from walsyncd.file_calls import FILE_CALLS, HINT, covers, database_of

MODULE = "walsyncd.engine.backpressure.mark_process"
START_AGAIN_S = 1.0
START_AGAIN_S_MAX = 60.0
LASTED_S = 60.0  # a child that lasted so long had no fault from the start on
SILENCE_S = 5.0  # the child reports every 0.1 s while it holds a lock
HUNG_S = 60.0
KILLED_S_MAX = 5.0
LEFT_MAX = 4
HUNG = "its file system does not answer"
SEND_S_MAX = 5  # a child that accepts no message for so long is ended
WATCHING_S_MAX = 10.0  # a child takes a fraction of a second to start
LATE = "where all processors are busy it may lock too late, and a fast writer leaves a gap"
REAL_TIME_REMEDY = "permit a real-time priority of 1 (LimitRTPRIO, RLIMIT_RTPRIO): walsyncd-operating(7), Backpressure"
LIMIT_LOG_S = 60.0  # a follower that is far too slow meets a limit after each restart of the WAL

_log = structlog.get_logger()


class Backpressure:
    """All methods but ``run`` may be called by any thread. Databases are named by their row id of the journal."""

    def __init__(
        self, *, hung_s: float = HUNG_S, killed_s_max: float = KILLED_S_MAX, watching_s_max: float = WATCHING_S_MAX
    ) -> None:
        self._hung_after_s, self._killed_s_max, self._watching_s_max = hung_s, killed_s_max, watching_s_max
        self._alarm = Alarm()
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._has_answered = threading.Event()
        """Set when the child watches, or has ended before that."""
        self._targets: dict[int, HoldTarget] = {}
        self._copied: dict[int, Cursor | None] = {}
        self._hindrances: dict[int, str] = {}
        self._logged_s: dict[int, float] = {}
        self._channel: socket.socket | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._hung_s: dict[int, float] = {}
        self._is_ordinary = False
        self._left: list[subprocess.Popen[bytes]] = []

    @property
    def child_pid(self) -> int | None:
        """The process that holds the locks, or None if there is none."""
        child = self._child
        return None if child is None else child.pid

    def hindrance(self, database_id: int) -> str:
        """Return why a wanted lock has no effect. The text is empty if nothing is known to be in the way."""
        return self._hindrances.get(database_id, "")

    def want(self, database_id: int, target: HoldTarget | None) -> None:
        """Slow the writers of this database from now on. If ``target`` is None, stop that."""
        with self._lock:
            if self._targets.get(database_id) == target:
                return
            self._hindrances.pop(database_id, None)
            self._hung_s.pop(database_id, None)
            if target is None:
                del self._targets[database_id]
                self._command({"remove": database_id})
            else:
                self._targets[database_id] = target
                self._add(database_id, target)
            if not self._targets:
                self._hang_up()
        self._alarm.wake()

    def copied(self, database_id: int, cursor: Cursor | None, read: Cursor | None = None) -> None:
        """Tell the child how far a database is copied. This never waits.

        If ``cursor`` is None, nobody follows the WAL. ``read`` is how far the WAL is read ahead, if it is.
        """
        self._copied[database_id] = cursor
        self._tell(database_id, read if read is not None and self._counts(database_id, read) else cursor)

    def read(self, database_id: int, cursor: Cursor) -> None:
        """Tell the child how far a WAL is read ahead, if that counts as copied. This never waits."""
        if self._counts(database_id, cursor):
            self._tell(database_id, cursor)

    def _counts(self, database_id: int, read: Cursor) -> bool:
        """Whether what is read, and not durable yet, counts as copied.

        A part of the incarnation must be durable, so that at most one restart of the WAL is not proven yet. Besides,
        the frames must fit into the first block of the wal-index, because no restart can be proven while the wal-index
        grows. If more is durable than was read ahead, what was read ahead does not count.
        """
        durable = self._copied.get(database_id)
        if durable is None or durable.salts != read.salts:
            return False
        return durable.frames <= read.frames and blocks_for(read.frames) == 1

    def _tell(self, database_id: int, cursor: Cursor | None) -> None:
        if database_id in self._targets:
            with self._sending, suppress(OSError):  # full, or gone: the next message says more
                if self._channel is not None:
                    self._channel.send(_copied(database_id, cursor), socket.MSG_DONTWAIT)

    def forget(self, database_id: int) -> None:
        """Forget a database that is no longer followed."""
        self.want(database_id, None)
        self._copied.pop(database_id, None)

    def begin(self, start_thread: Callable[[str, Callable[[], None]], object]) -> None:
        """Start the thread. Returns when the child watches every database that wants it so far.

        What is committed after that is slowed. Returns also when the child has ended, and after ``WATCHING_S_MAX`` at
        the latest: without its child walsyncd follows all the same.
        """
        start_thread("backpressure", self.run)
        if self._targets and not self._has_answered.wait(self._watching_s_max):
            remedy = "until it has started nothing slows the writers, and what is overwritten meanwhile is a gap"
            _log.warning("backpressure_process_late", seconds=self._watching_s_max, remedy=remedy)

    def run(self) -> None:
        """Run the thread until ``stop``."""
        wait_s: float | None = None
        failures = 0
        while self._alarm.wait(wait_s):
            began_s = time.monotonic()
            self._left = [child for child in self._left if child.poll() is None]
            if self._targets and len(self._left) < LEFT_MAX:
                with suppress(FaultError), boundary("backpressure"):
                    self._serve()
                self._has_answered.set()
            has_lasted = time.monotonic() - began_s > LASTED_S
            failures = 0 if has_lasted or not self._targets else failures + 1
            wait_s = start_again_s(failures) if self._targets else None

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
                        if database_id not in self._hung_s:
                            self._add(database_id, target)
                    self._command({"watching": True})
                    if not self._targets:
                        self._hang_up()
                self._answer(ours)
            finally:
                code = self._end(child)
                with self._lock, self._sending:
                    self._channel = self._child = None
                    is_wanted = bool(self._targets)
        if is_wanted:
            remedy = "it is started again; until then nothing slows the writers"
            _log.warning("backpressure_process_ended", exit_code=code, remedy=remedy)

    def _end(self, child: subprocess.Popen[bytes]) -> int | None:
        """End a child, whose locks the kernel then gives up. Returns None if it can't be ended."""
        child.kill()
        try:
            return child.wait(self._killed_s_max)
        except subprocess.TimeoutExpired:
            self._left.append(child)
            remedy = "it holds its locks, and WALs may grow, until its file system answers: see that it does"
            _log.error("backpressure_process_not_ended", pid=child.pid, remedy=remedy)
            return None

    def _answer(self, channel: socket.socket) -> None:
        poll = select.poll()
        poll.register(channel, select.POLLIN)
        is_holding = False
        while True:
            waits_s = [SILENCE_S] * is_holding + [self._hung_after_s] * bool(self._hung_s)
            if not poll.poll(1000 * min(waits_s) if waits_s else None):
                if is_holding:
                    remedy = "it was ended, and is started again; until then nothing slows the writers"
                    _log.error("backpressure_process_silent", seconds=SILENCE_S, remedy=remedy)
                    return
                self._try_hung_again()
                continue
            try:
                message = channel.recv(MESSAGE_BYTES_MAX)
            except OSError:
                return
            if not message:
                return
            match json.loads(message):
                case {"alive": True}:
                    is_holding = True
                    with suppress(OSError):
                        channel.send(b'{"alive": true}', socket.MSG_DONTWAIT)
                case {"free": True}:
                    is_holding = False
                    self._try_hung_again()
                case {"watching": True, "real_time": bool(is_real_time)}:
                    self._has_answered.set()
                    self._note_scheduling(is_real_time=is_real_time)
                case {"hung": True, "path": str(path)}:
                    self._note_hung(path)
                    return
                case {"hindrance": int(database_id), "reason": str(reason)}:
                    self._note_hindrance(database_id, reason)
                case {"limit": int(database_id), "reason": str(reason)}:
                    self._note_limit(database_id, reason)

    def _note_scheduling(self, *, is_real_time: bool) -> None:
        """Report that real-time scheduling is refused, but not again for each child."""
        if not (is_real_time or self._is_ordinary):
            _log.warning("backpressure_process_not_real_time", consequence=LATE, remedy=REAL_TIME_REMEDY)
        self._is_ordinary = not is_real_time

    def _note_hindrance(self, database_id: int, reason: str) -> None:
        with self._lock:
            target = self._targets.get(database_id)
            if target is not None:
                self._hindrances[database_id] = reason
        if target is not None and reason:
            _log.warning("backpressure_failed", path=str(target.path), reason=reason)

    def _note_hung(self, path: str) -> None:
        """Leave out the databases of ``path``, because a call on this file hung."""
        with self._lock:
            hung = [each for each, target in self._targets.items() if covers(database_of(path), target.path)]
            self._hung_s.update(dict.fromkeys(hung, time.monotonic()))
            self._hindrances.update(dict.fromkeys(hung, HUNG))
        _log.error("backpressure_process_hung", path=path, remedy=HINT)

    def _try_hung_again(self) -> None:
        with self._lock:
            now_s = time.monotonic()
            for database_id in [
                each for each, since_s in self._hung_s.items() if now_s - since_s >= self._hung_after_s
            ]:
                target = self._targets[database_id]
                if not _is_silent(target.path):
                    del self._hung_s[database_id]
                    self._hindrances.pop(database_id, None)
                    self._add(database_id, target)

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
        """Send a message that must not be lost. A child that does not accept it is ended, and the next is told all."""
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


def start_again_s(failures: int) -> float:
    """Return the seconds until another child is started, after ``failures`` children in a row have ended soon."""
    return delay_s(max(1, failures), fraction=1.0, base_s=START_AGAIN_S, cap_s=START_AGAIN_S_MAX)


def _is_silent(path: Path) -> bool:
    """Whether this process knows, too, that the file system does not answer."""
    return any(covers(silent, path) for silent in FILE_CALLS.silent)


def _copied(database_id: int, cursor: Cursor | None) -> bytes:
    salts, frames = (None, 0) if cursor is None else (cursor.salts, cursor.frames)
    return json.dumps({"copied": database_id, "salts": salts, "frames": frames}).encode("ascii")
