"""The requests of other threads to the follower, for one database."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Request:
    """A request for a look that begins now. ``then`` runs in the follower's thread when that look has caught up."""

    then: Callable[[Any], object]
    done: Future[object] = field(default_factory=Future)


@dataclass(slots=True)
class Mailbox:
    """The requests of other threads to the follower, for one database. Any thread may use it."""

    held_back: bool = False
    """The database is being added. The follower does not look at it before ``Schedule.admit``."""
    dismissed: bool = False
    """The database is not followed any more, and each request fails."""
    _requests: list[Request] = field(default_factory=list)
    _interrupts: deque[Callable[[Any], object]] = field(default_factory=deque)
    _taken: int = 0  # how many requests were ever taken out
    _lock: threading.Lock = field(default_factory=threading.Lock, compare=False)

    def ask(self, request: Request) -> None:
        """Add a request."""
        with self._lock:
            self._requests.append(request)

    def interrupt(self, then: Callable[[Any], object]) -> None:
        """Add something to be done before the database is looked at again."""
        with self._lock:
            self._interrupts.append(then)

    def asked(self) -> int:
        """Return how many requests wait."""
        with self._lock:
            return len(self._requests)

    def take(self, count: int | None = None) -> list[Request]:
        """Take the first ``count`` requests out, or all of them."""
        with self._lock:
            taken = self._requests[:count]
            del self._requests[: len(taken)]
            self._taken += len(taken)
            return taken

    def ticket(self) -> int:
        """Return the ticket for a later call of ``asked_upto``."""
        with self._lock:
            return self._taken + len(self._requests)

    def asked_upto(self, ticket: int) -> int:
        """Return how many requests from before ``ticket`` was given still wait."""
        with self._lock:
            return max(0, ticket - self._taken)

    def next_interrupt(self) -> Callable[[Any], object] | None:
        """Return the first interrupt, or None if there is none. It stays until ``interrupt_done``."""
        with self._lock:
            return self._interrupts[0] if self._interrupts else None

    def interrupt_done(self) -> None:
        """Remove the first interrupt, which was done."""
        with self._lock:
            self._interrupts.popleft()
