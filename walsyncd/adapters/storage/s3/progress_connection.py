"""HTTP connections whose time-outs limit silence, not duration: a body may take any time while it makes progress.

========================  ===========================================================================================
what can hang             the limit
========================  ===========================================================================================
the connection begins     the connect time-out
a block of the body       ``silence_s`` for each block, not for the whole body
the rest of the body in   ``silence_s`` without a byte acknowledged: the kernel buffers megabytes, which take minutes
the kernel's buffer       at 0.5 Mbit/s (``SIOCOUTQ`` reports how many are left; man 7 tcp)
the answer                ``silence_s``, or as long as the body took, since a proxy may have buffered the body
a connection used before  after ``idle_s_max`` of silence it is not used again; StaleConnectionError if nothing of a
                          request is acknowledged within ``patience_s``, or if the connection is closed
========================  ===========================================================================================

The head and the body of a small request are sent in one write. NATs and load balancers drop a silent connection without
notice, some of them after about a minute.
"""

from __future__ import annotations

import fcntl
import select
import socket
import ssl
import struct
import termios
import time
from collections.abc import Callable, Mapping
from http.client import BadStatusLine
from typing import Any, ClassVar

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool
from urllib3.response import HTTPResponse

from walsyncd.adapters.storage.s3.s3_settings import ReuseLimits

BUFFERED_BYTES_MAX = 256 << 10  # how much of a body the kernel may hold unsent; a commit's few bytes compete with it
SMALL_BYTES_MAX = 64 << 10  # the largest body that is sent with its head; it takes a second at 0.5 Mbit/s
_ON_ITS_WAY_MAX = 8 << 10  # less than any connection sends before the first acknowledgement (RFC 6928: 14,600 bytes)
_POLL_MS = 50
_GONE = select.POLLERR | select.POLLHUP | select.POLLRDHUP
_BROKEN = (ConnectionError, BadStatusLine, ssl.SSLEOFError, ssl.SSLZeroReturnError)
_SOCKET_OPTIONS = [
    # Head and body can be two writes. Without this option the second write waits 40 ms for the first one's ACK.
    (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
    (socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, BUFFERED_BYTES_MAX),
]


class StaleConnectionError(ConnectionError):
    """A connection that was used before no longer works. The request must be sent on a new connection."""


class ProgressConnection(HTTPConnection):
    """A connection with the limits above. The callback in ``notify`` is called whenever bytes were transferred."""

    default_socket_options = _SOCKET_OPTIONS
    silence_s: ClassVar[float]
    notify: ClassVar[tuple[Callable[[], None]]]
    reuse: ClassVar[ReuseLimits]

    _answers = 0
    _used_s = 0.0
    _began_s = 0.0
    _writes = 0
    _is_doubted = _is_reused = False
    _held: bytearray | None = None
    """The bytes of a small request, which are collected until the request is complete."""
    _is_on_its_way = False
    """Whether the request was so short that the kernel sends all of it at once."""

    @property
    def is_connected(self) -> bool:
        """Whether the connection may be used for another request."""
        return super().is_connected and (not self._answers or self._silent_s() < self.reuse.idle_s_max)

    def connect(self) -> None:
        """Connect. From then on sending a block may take ``silence_s``."""
        super().connect()
        self._answers = 0
        self.sock.settimeout(self.silence_s)

    def request(  # type: ignore[override]  # urllib3 passes these as keywords
        self, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None, **options: Any
    ) -> None:
        """Send a request. If the body is ``bytes``, it is small, and it is sent together with the head."""
        if not isinstance(body, bytes):
            super().request(method, url, body, headers, **options)
            return
        self._held = bytearray()
        try:
            super().request(method, url, body, headers, **options)
            whole = bytes(self._held)
        finally:
            self._held = None
        self.send(whole)
        self._is_on_its_way = len(whole) <= _ON_ITS_WAY_MAX

    def putrequest(self, method: str, url: str, skip_host: bool = False, skip_accept_encoding: bool = False) -> None:
        """Begin a request."""
        self._began_s, self._writes, self._is_on_its_way = time.monotonic(), 0, False
        self._is_reused = self.sock is not None and self._answers > 0
        self._is_doubted = self._is_reused and self._silent_s() > self.reuse.hot_s_max
        if self.sock is not None:
            self.sock.settimeout(self.silence_s)
        super().putrequest(method, url, skip_host, skip_accept_encoding)

    def send(self, data: Any) -> None:
        """Send the head, or a block.

        If the connection was silent for a while, the first write must be acknowledged before the next block follows.
        """
        if self._held is not None:
            self._held += data
            return
        try:
            super().send(data)
        except _BROKEN as error:
            if self._is_reused and not self._writes:
                raise StaleConnectionError(str(error)) from error
            raise
        self._writes += 1
        self.notify[0]()
        if self._writes == 2:
            self._await_acknowledgement()

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]  # as in urllib3's own
        """Wait for the answer to what was sent."""
        self._await_acknowledgement()
        if not self._is_on_its_way:  # otherwise the limit for the answer is enough
            self._await_sent()
        self.timeout = max(self.silence_s, time.monotonic() - self._began_s)
        try:
            answer = super().getresponse()
        except _BROKEN as error:
            if self._is_reused:
                raise StaleConnectionError(str(error)) from error
            raise
        self._answers += 1
        self._used_s = _boottime_s()
        return answer

    def _silent_s(self) -> float:
        """Return the seconds since the last answer, including the time that the machine was suspended."""
        return _boottime_s() - self._used_s

    def _await_acknowledgement(self) -> None:
        """If the connection was silent, check that the other side still knows it. Raises StaleConnectionError."""
        if not self._is_doubted:
            return
        self._is_doubted = False
        sent, deadline_s = _unacknowledged(self.sock), time.monotonic() + self.reuse.patience_s
        left = sent
        while left and left >= sent:
            if _events(self.sock):
                return  # an answer, or the end of the connection; reading shows which
            if time.monotonic() > deadline_s:
                raise StaleConnectionError("nothing that was sent has been acknowledged")
            left = _unacknowledged(self.sock)

    def _await_sent(self) -> None:
        """Wait while the kernel still sends the body. Raises TimeoutError if the kernel makes no progress."""
        left, moved_s = _unacknowledged(self.sock), time.monotonic()
        while left:
            events = _events(self.sock)
            if events & _GONE or (events and not isinstance(self.sock, ssl.SSLSocket)):
                return  # the answer comes before the end of the body
            if events:  # it may be a message of TLS itself
                time.sleep(_POLL_MS / 1000)
            now_left, now_s = _unacknowledged(self.sock), time.monotonic()
            if now_left < left:
                left, moved_s = now_left, now_s
                self.notify[0]()
            elif now_s - moved_s > self.silence_s:
                raise TimeoutError(f"the store took nothing of the body for {self.silence_s:.0f} s")


def pool_classes(silence_s: float, beat: Callable[[], None], reuse: ReuseLimits) -> dict[str, type[HTTPConnectionPool]]:
    """Return the pool class of each scheme for a urllib3 PoolManager. Their connections have these limits."""
    limits = {"silence_s": silence_s, "notify": (beat,), "reuse": reuse}
    plain = type("PlainConnection", (ProgressConnection,), limits)
    secure = type("SecureConnection", (ProgressConnection, HTTPSConnection), limits)
    return {
        "http": type("PlainPool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
        "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
    }


def _boottime_s() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _unacknowledged(sock: socket.socket) -> int:
    """Return how many of the bytes in the kernel the other side has not acknowledged."""
    return int(struct.unpack("i", fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, b"\0" * 4))[0])


def _events(sock: socket.socket) -> int:
    """Return the events that poll(2) reports within ``_POLL_MS``, or 0 if there are none."""
    poller = select.poll()
    poller.register(sock.fileno(), select.POLLIN | select.POLLRDHUP)
    return sum(event for _, event in poller.poll(_POLL_MS))
