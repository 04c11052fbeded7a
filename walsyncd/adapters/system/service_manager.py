"""Reports to the service manager (sd_notify(3)): one datagram of ``NAME=value`` lines to ``$NOTIFY_SOCKET``.

=====================================  ========================================================
line                                   meaning
=====================================  ========================================================
``READY=1``                            the daemon has started, or a reload has ended
``RELOADING=1``, ``MONOTONIC_USEC=n``  a reload begins; both lines are in one datagram
``STOPPING=1``                         a stop began
``STATUS=text``                        the daemon's state, in words
``WATCHDOG=1``                         the daemon is alive; due within ``$WATCHDOG_USEC`` µs
``EXTEND_TIMEOUT_USEC=n``              the current start, reload or stop needs n µs more
=====================================  ========================================================

Without a service manager nothing is sent. If the service manager does not take a message, it is dropped.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Mapping
from contextlib import suppress

from walsyncd.errors import one_line

LINE_CHARACTERS_MAX = 800  # systemd drops a datagram of more than 4 KiB; a character has up to 4 bytes
SEND_TIMEOUT_S = 1.0  # PID 1 reads its socket at once, or is in trouble itself


class ServiceManager:
    """The service manager in ``environment``, if any. It expects WATCHDOG=1 every ``watchdog_s``, or never if None."""

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address
        self.watchdog_s = _watchdog_s(environment)

    def tell(self, *lines: str) -> None:
        """Send these lines in one datagram.

        A status may quote a store's answer. So line feeds in the status do not begin new lines, and a long status is
        cut.
        """
        if not self._address:
            return
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
            sender.settimeout(SEND_TIMEOUT_S)
            sender.sendto("\n".join(one_line(line)[:LINE_CHARACTERS_MAX] for line in lines).encode(), self._address)

    def reloading(self) -> None:
        """Report that a reload begins. ``READY=1`` must follow, however the reload ends."""
        self.tell("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def extend(self, seconds: float) -> None:
        """Report that the current start, reload or stop takes up to ``seconds`` from now."""
        self.tell(f"EXTEND_TIMEOUT_USEC={int(seconds * 1_000_000)}")


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """Return ``$WATCHDOG_USEC`` in seconds. Returns None if ``$WATCHDOG_PID`` is not ours (sd_watchdog_enabled(3))."""
    microseconds = environment.get("WATCHDOG_USEC", "")
    if not microseconds.isdigit() or int(microseconds) == 0:
        return None
    if environment.get("WATCHDOG_PID", "") not in {"", str(os.getpid())}:
        return None
    return int(microseconds) / 1_000_000
