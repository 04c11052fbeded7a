"""Notifies the service manager that the daemon is ready, what its status is, and that it is alive.

The heartbeat has no thread of its own. The main thread asks ``due_s`` how long it may sleep and calls ``beat`` when it
wakes up:

- ``changed`` (any thread) notes that the status text may have changed; it is sent at most every ``REFRESH_S``.
- The watchdog is due at half its interval. It is fed only while ``hung`` names no worker.
- Until ``ready`` the time for the start is extended, as long as no worker hangs.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import structlog

from walsyncd.adapters.system.service_manager import ServiceManager

REFRESH_S = 2.0
START_BEAT_S = 20.0  # systemd gives a start 90 s by default; the first look at thousands of databases may take longer
START_EXTENSION_S = 60.0

_log = structlog.get_logger()


class Heartbeat:
    """``words`` returns the text of ``systemctl status``, ``hung`` the worker that hangs; ``wake`` causes a beat."""

    def __init__(
        self,
        manager: ServiceManager,
        *,
        words: Callable[[], str],
        hung: Callable[[], str],
        wake: Callable[[], None],
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._manager = manager
        self._words = words
        self._hung = hung
        self._wake = wake
        self._monotonic_s = monotonic_s
        self._lock = threading.Lock()
        self._is_changed = True
        self._is_ready = False
        self._told = ""
        self._refreshed_s = -REFRESH_S
        self._alive_s = monotonic_s()
        self._hangs = ""

    def changed(self) -> None:
        """Note that the status text may have changed."""
        with self._lock:
            was_changed, self._is_changed = self._is_changed, True
        if not was_changed:
            self._wake()

    def ready(self) -> None:
        """Note that the start, or a reload, is complete."""
        self._is_ready = True
        self._told = self._words()
        self._manager.tell("READY=1", f"STATUS={self._told}")

    def due_s(self) -> float | None:
        """Return in how many seconds ``beat`` must be called. Returns None if nothing is due."""
        now_s = self._monotonic_s()
        moments = [self._alive_s + every_s] if (every_s := self._every_s()) is not None else []
        if self._is_changed:
            moments.append(self._refreshed_s + REFRESH_S)
        return max(0.0, min(moments) - now_s) if moments else None

    def beat(self) -> None:
        """Send what is due. Called by the main thread alone."""
        now_s = self._monotonic_s()
        if self._is_changed and now_s >= self._refreshed_s + REFRESH_S:
            self._refresh(now_s)
        every_s = self._every_s()
        if every_s is not None and now_s >= self._alive_s + every_s:
            self._alive_s = now_s
            self._live()

    def _every_s(self) -> float | None:
        if not self._is_ready:
            return START_BEAT_S
        watchdog_s = self._manager.watchdog_s
        return None if watchdog_s is None else watchdog_s / 2

    def _refresh(self, now_s: float) -> None:
        with self._lock:
            self._is_changed = False  # cleared before looking: a change meanwhile is sent next time
        self._refreshed_s = now_s
        words = self._words()
        if words != self._told:
            self._told = words
            self._manager.tell(f"STATUS={words}")

    def _live(self) -> None:
        hangs = self._hung()
        if hangs and not self._hangs:
            _log.critical("worker_hung", worker=hangs, remedy="the service manager's watchdog restarts the process")
        self._hangs = hangs
        if hangs:
            return
        if self._is_ready:
            self._manager.tell("WATCHDOG=1")
        else:
            self._manager.extend(START_EXTENSION_S)


def status_words(*, databases: int, behind: int, troubled: int, stored_ms: int, storage: str) -> str:
    """Return a status text for people.

    ``stored_ms`` is when something was stored last (0 for never), ``storage`` is what is wrong with it. The time is
    absolute, since "3 s ago" would be wrong soon after.
    """
    if databases:
        words = [f"{databases} database{'s' * (databases != 1)}", f"{behind} behind"]
    else:
        words = ["no databases to replicate"]  # no database is configured, or no file matches a pattern yet
    if troubled:
        words.append(f"{troubled} in trouble")
    last = time.strftime("last upload %Y-%m-%d %H:%M:%S UTC", time.gmtime(stored_ms / 1000))
    words.append(last if stored_ms else "nothing uploaded yet")
    return ", ".join([*words, storage] if storage else words)
