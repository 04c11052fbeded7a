"""A proxy to a store that counts requests, can be cut, and can hold a request back or refuse it.

It forwards TCP and reads only the first line of each request. A client sends the next one only after the answer, so a
request's first line is the beginning of what one ``recv`` returns.
"""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

from tests.scripted_store import Answer
from tests.stores import LOOPBACK, Store, free_ports

_REQUEST = re.compile(rb"(GET|PUT|POST|HEAD|DELETE) (\S+) HTTP/1\.1\r\n")
_BLOCK = 1 << 16


class Proxy:
    """Forwards to ``store``. ``requests`` has the method and target of each request, in order."""

    def __init__(self, store: Store) -> None:
        self._store = (LOOPBACK, urlsplit(store.endpoint_url).port or 0)
        self.requests: list[str] = []
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._held: Callable[[str], bool] = lambda _request: False
        self._refusal: Answer | None = None
        (self._port,) = free_ports(1)  # a port that no other program gets while the proxy is cut
        self._listener = self._listen(self._port)

    @property
    def endpoint_url(self) -> str:
        """The URL of the proxy."""
        return f"http://{LOOPBACK}:{self._port}"

    def cut(self) -> None:
        """Break every connection and refuse new ones."""
        _end(self._listener)
        with self._lock:
            for connection in self._open:
                _end(connection)

    def mend(self) -> None:
        """Forward again, and hold nothing back."""
        self._held = lambda _request: False
        self._listener = self._listen(self._port)

    def hold(self, held: Callable[[str], bool]) -> None:
        """From now on swallow requests for which ``held`` is true, and all that comes after them on their
        connection.
        """
        self._held = held

    def refuse(self, answer: Answer | None) -> None:
        """From now on answer every request by this. None means to forward them again."""
        self._refusal = answer

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server((LOOPBACK, port))
        threading.Thread(target=self._accept, args=[listener], daemon=True).start()
        return listener

    def _accept(self, listener: socket.socket) -> None:
        with listener, suppress(OSError):
            while True:
                client, _ = listener.accept()
                threading.Thread(target=self._serve, args=[client], daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with client, socket.socket() as server, suppress(OSError), self._noted(client, server):
            server.connect(self._store)
            back = threading.Thread(target=_forward, args=[server, client], daemon=True)
            back.start()
            self._forward_requests(client, server)
            _end(server)
            back.join()

    def _forward_requests(self, client: socket.socket, server: socket.socket) -> None:
        swallowed = False
        while block := client.recv(_BLOCK):
            found = _REQUEST.match(block)
            if found is not None:
                request = f"{found[1].decode()} {found[2].decode()}"
                self.requests.append(request)
                swallowed = swallowed or self._held(request)
                if self._refusal is not None:
                    client.sendall(_message(self._refusal, has_body=found[1] != b"HEAD"))
            if not swallowed and self._refusal is None:
                server.sendall(block)

    @contextmanager
    def _noted(self, *connections: socket.socket) -> Iterator[None]:
        with self._lock:
            self._open.update(connections)
        try:
            yield
        finally:
            with self._lock:
                self._open.difference_update(connections)


@contextmanager
def run_proxy(store: Store) -> Iterator[Proxy]:
    """Run a proxy before a store, and cut it at the end."""
    proxy = Proxy(store)
    try:
        yield proxy
    finally:
        proxy.cut()


def _message(answer: Answer, *, has_body: bool) -> bytes:
    head = f"HTTP/1.1 {answer.status} so\r\nContent-Length: {len(answer.body)}\r\n\r\n"
    return head.encode() + (answer.body if has_body else b"")


def _forward(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(_BLOCK):
            target.sendall(block)
    _end(target)


def _end(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
