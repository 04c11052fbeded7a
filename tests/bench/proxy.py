"""A proxy on 127.0.0.1 that forwards every byte unchanged and notes when the store acknowledged a PUT.

It stands between the daemon and the store, so what it notes is neither the daemon's word nor a poll. The requests of
one connection come one after another (HTTP/1.1 without pipelining), so a request is what was read from the client
since the last answer, and an answer's first bytes hold its status.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit

LOOPBACK = "127.0.0.1"
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Put:
    """A PUT that the store answered with 200. Times are by the monotonic clock, in seconds."""

    key: str
    body: bytes
    began_s: float
    """When its first byte came."""
    sent_s: float
    """When its last byte was passed on."""
    stored_s: float
    """When the answer's first bytes came."""
    asked_to_continue: bool


@dataclass(slots=True)
class _Exchange:
    """One connection of the client, its counterpart to the store, and the request under way."""

    client: socket.socket
    store: socket.socket
    request: bytearray = field(default_factory=bytearray)
    began_s: float = 0.0
    sent_s: float = 0.0


@dataclass(slots=True)
class Proxy:
    """A running proxy. ``puts`` grows, and ``requests`` counts all by method."""

    endpoint_url: str
    puts: list[Put] = field(default_factory=list)
    requests: dict[str, int] = field(default_factory=dict)

    def note_answer(self, exchange: _Exchange, answer: bytes, now: float) -> None:
        """Take in bytes of the store."""
        if not exchange.request or answer.startswith(b"HTTP/1.1 100"):
            return
        head, _, body = bytes(exchange.request).partition(b"\r\n\r\n")
        exchange.request.clear()
        method, target = head.split(b"\r\n", 1)[0].decode().split()[:2]
        self.requests[method] = self.requests.get(method, 0) + 1
        if method == "PUT" and answer.startswith(b"HTTP/1.1 200"):
            key = unquote(urlsplit(target).path).lstrip("/").partition("/")[2]
            continues = b"100-continue" in head.lower()
            self.puts.append(Put(key, body, exchange.began_s, exchange.sent_s, now, continues))


@contextlib.contextmanager
def proxy(store_url: str) -> Iterator[Proxy]:
    """Run a proxy in front of the store at ``store_url``, in a thread of this process."""
    listener = socket.create_server((LOOPBACK, 0))
    stop = os.eventfd(0)
    running = Proxy(f"http://{LOOPBACK}:{listener.getsockname()[1]}")
    address = urlsplit(store_url)
    assert address.port is not None
    thread = threading.Thread(target=_forward, args=(running, listener, stop, (LOOPBACK, address.port)))
    thread.start()
    try:
        yield running
    finally:
        os.eventfd_write(stop, 1)
        thread.join()
        listener.close()
        os.close(stop)


def _forward(running: Proxy, listener: socket.socket, stop: int, store: tuple[str, int]) -> None:
    with selectors.DefaultSelector() as selector, contextlib.ExitStack() as stack:
        selector.register(listener, selectors.EVENT_READ)
        selector.register(stop, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj == stop:
                    return
                if key.fileobj is listener:
                    exchange = _Exchange(listener.accept()[0], socket.create_connection(store))
                    for end in (exchange.client, exchange.store):
                        end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                        stack.enter_context(end)
                        selector.register(end, selectors.EVENT_READ, exchange)
                elif key.data.client.fileno() >= 0:  # otherwise it was closed in this very round
                    _pass_on(running, selector, key.data, from_client=key.fileobj is key.data.client)


def _pass_on(running: Proxy, selector: selectors.BaseSelector, exchange: _Exchange, *, from_client: bool) -> None:
    source, target = (exchange.client, exchange.store) if from_client else (exchange.store, exchange.client)
    try:
        block = source.recv(_CHUNK)
        now = time.monotonic()
        target.sendall(block)
    except OSError:
        block = b""
    if not block:
        for end in (exchange.client, exchange.store):
            selector.unregister(end)
            end.close()
    elif from_client:
        if not exchange.request:
            exchange.began_s = now
        exchange.request += block
        exchange.sent_s = time.monotonic()
    else:
        running.note_answer(exchange, block, now)
