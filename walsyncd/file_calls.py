"""System calls on the users' files. A dead file system may never answer one.

A call on a mount whose server is gone (NFS, FUSE), or on a disk that does not answer, may last for ever. Nothing in
this process can end such a call. So each call on a user's file is registered while it lasts::

    with FileCall(path, "open"):
        descriptor = os.open(path, os.O_RDONLY)

``engine.threads.hang_watch`` watches the table. When a call hangs, ``FileCalls.abandon`` gives its thread up:

- The path becomes silent. Every further call on it raises UnresponsiveError at once, so that no other thread hangs.
- Every ``RevocableLock`` that the thread holds is taken from it.
- If the call returns after all, the path answers again, and the thread raises ThreadAbandonedError. Another thread
  does the work by then, so the abandoned thread must change nothing any more.

If a path is silent, everything below the path is silent too. If a database is silent, its -wal, -shm and -journal are
silent too. A mount may be silent as a whole (``FileCalls.silence``). Descriptors of a silent path are closed only when
the path answers again, because closing may hang, too.

This module is a leaf like ``errors``, because both the configuration and the adapters make such calls.
"""

from __future__ import annotations

import os
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

from walsyncd.errors import UnresponsiveError

_SIDE_SUFFIXES = ("-wal", "-shm", "-journal")
HINT = "see whether its mount or its disk answers (`stat FILE`); the others go on, and it is followed again by itself"


class ThreadAbandonedError(BaseException):
    """The thread's call has hung.

    Another thread does the work now, so the abandoned thread has to end. No handler of errors catches this exception.
    """


class FileCall:
    """One system call on ``path``, while it lasts. Raises UnresponsiveError if the path is silent."""

    __slots__ = ("action", "path", "thread")

    def __init__(self, path: str | Path, action: str) -> None:
        self.path = path
        self.action = action
        self.thread = 0

    def __enter__(self) -> Self:
        if FILE_CALLS.silent:
            FILE_CALLS.check(self.path, self.action)
        me = threading.get_ident()
        if me not in FILE_CALLS.abandoned:  # an abandoned thread that returned closes what it has open
            self.thread = me
            FILE_CALLS.lasting[self] = me
            if FILE_CALLS.is_unwatched:
                FILE_CALLS.wake()
        return self

    def __exit__(self, *_exception: object) -> None:
        if self.thread and FILE_CALLS.lasting.pop(self, None) is None:
            FILE_CALLS.returned(self)


class FileCalls:
    """All calls of this process, and which paths are silent. Any thread may use it.

    ``lasting`` has the calls that have not returned, with their threads. A call leaves ``lasting`` either because it
    returned or because it was abandoned. The thread that removes the call decides which, because removing an entry of
    a dictionary is atomic.
    """

    def __init__(self) -> None:
        self.lasting: dict[FileCall, int] = {}
        self.silent: dict[str, str] = {}
        """The silent paths, each with the call that does not return there."""
        self.abandoned: set[int] = set()
        """The threads that were given up and have not ended."""
        self.is_unwatched = False
        """Whether the watch sleeps, so that the next call has to wake the watch."""
        self.woken = threading.Event()
        self._hanging: Counter[str] = Counter()
        self._held: dict[int, list[RevocableLock]] = {}
        self._unclosed: list[tuple[str | Path, int]] = []
        self._answered: list[str] = []
        self._lock = threading.Lock()

    def wake(self) -> None:
        """Wake the watch."""
        self.is_unwatched = False
        self.woken.set()

    def check(self, path: str | Path, action: str) -> None:
        """Raise UnresponsiveError if the path is silent."""
        for silent, reason in self.silent.copy().items():
            if covers(silent, path):
                raise UnresponsiveError(f"{action} {path}: its file system does not answer: {reason}", hint=HINT)

    def abandon(self, call: FileCall) -> bool:
        """Give up the thread of a call that hangs. Returns False if the call has returned meanwhile."""
        with self._lock:
            if self.lasting.pop(call, None) is None:
                return False
            self.abandoned.add(call.thread)
            self._silence(database_of(call.path), f"{call.action} {call.path}")
        for lock in list(self._held.pop(call.thread, ())):
            lock.revoke(call.thread)
        return True

    def silence(self, path: str | Path, reason: str) -> None:
        """Make every call below ``path`` fail until ``answers`` is called for ``path``."""
        with self._lock:
            self._silence(str(path), reason)

    def answers(self, path: str | Path) -> None:
        """Note that one call that made ``path`` silent has returned."""
        with self._lock:
            silent = str(path)
            self._hanging[silent] -= 1
            if self._hanging[silent] <= 0:
                del self._hanging[silent]
                self.silent.pop(silent, None)
                self._answered.append(silent)
            closing = [each for each in self._unclosed if not any(covers(key, each[0]) for key in self.silent)]
            self._unclosed = [each for each in self._unclosed if each not in closing]
        for _, descriptor in closing:
            with suppress(OSError):
                os.close(descriptor)
        self.wake()

    def returned(self, call: FileCall) -> None:
        """Note that an abandoned call has returned after all, and raise the exception that ends its thread."""
        self.answers(database_of(call.path))
        raise ThreadAbandonedError(f"{call.action} {call.path}")

    def ended(self, thread: int) -> None:
        """Note that an abandoned thread has ended. From now on another thread may get the same thread number."""
        self.abandoned.discard(thread)
        self._held.pop(thread, None)

    def close(self, path: str | Path, descriptor: int) -> None:
        """Close a descriptor of ``path`` now, or when the path answers again."""
        try:
            with FileCall(path, "close"):
                os.close(descriptor)
        except UnresponsiveError:
            with self._lock:
                self._unclosed.append((path, descriptor))

    def is_abandoned(self) -> bool:
        """Whether the calling thread was given up. Another thread does its work, so the caller must change nothing."""
        return threading.get_ident() in self.abandoned

    def take_answered(self) -> list[str]:
        """Return the paths that began to answer again since the last call of this method."""
        with self._lock:
            answered, self._answered = self._answered, []
            return answered

    def hold(self, lock: RevocableLock, thread: int) -> None:
        """Note that a thread holds a lock."""
        self._held.setdefault(thread, []).append(lock)

    def let_go(self, lock: RevocableLock, thread: int) -> None:
        """Note that a thread does not hold a lock any more."""
        held = self._held.get(thread)
        if held and lock in held:
            held.remove(lock)

    def _silence(self, path: str, reason: str) -> None:
        self._hanging[path] += 1
        self.silent = {path: reason, **self.silent}


class RevocableLock:
    """A lock that a thread loses when the thread is abandoned. The lock is reentrant."""

    __slots__ = ("_depth", "_lock", "_owner")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._depth = 0

    def __enter__(self) -> Self:
        me = threading.get_ident()
        if self._owner != me:
            self._lock.acquire()
            self._owner = me
            FILE_CALLS.hold(self, me)
        self._depth += 1
        return self

    def __exit__(self, *_exception: object) -> None:
        me = threading.get_ident()
        if self._owner != me:
            return  # the lock was taken from this thread
        self._depth -= 1
        if not self._depth:
            self._owner = 0
            FILE_CALLS.let_go(self, me)
            self._lock.release()

    def revoke(self, thread: int) -> None:
        """Release the lock for an abandoned thread, which can't release the lock itself."""
        if self._owner == thread:
            self._owner = self._depth = 0
            self._lock.release()


def database_of(path: str | Path) -> str:
    """Return the database that a path belongs to: the path without the ending of a side file."""
    text = str(path)
    return next((text.removesuffix(suffix) for suffix in _SIDE_SUFFIXES if text.endswith(suffix)), text)


def covers(silent: str, path: str | Path) -> bool:
    """Whether ``path`` is silent because ``silent`` is: ``path`` is of the same database, or is below ``silent``."""
    database = database_of(path)
    return database == silent or database.startswith(silent.rstrip("/") + "/")


FILE_CALLS: Final = FileCalls()
