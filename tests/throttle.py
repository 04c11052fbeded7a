"""A proxy on 127.0.0.1 that forwards bytes to a store at a limited rate, as a slow uplink does.

All connections share the line, in turn by small pieces. The kernel buffers little for it, so that a sender sees how
slow the line is. With ``tls`` the proxy ends TLS, and its connection to the store is plain. ``forget`` silently drops
every packet of the existing connections, as a NAT does that has forgotten them.
"""

from __future__ import annotations

import ctypes
import select
import socket
import ssl
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

LOOPBACK = "127.0.0.1"
PIECE = 2048
BUFFER = 16 << 10
_SO_ATTACH_FILTER = 26
_BPF_RET = 6


@dataclass(slots=True)
class Throttle:
    """A running proxy. ``requests`` counts by method, and ``connections`` all that were ever made."""

    endpoint_url: str
    bytes_per_s: float
    requests: dict[str, int] = field(default_factory=dict)
    clients: list[socket.socket] = field(default_factory=list)
    _free_s: float = 0.0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def forget(self) -> None:
        """From now on drop what comes over the existing connections, and acknowledge none of it."""
        for client in self.clients:
            with suppress(OSError):  # the connection has ended
                _drop_packets(client)

    @property
    def connections(self) -> int:
        """Return how many connections there ever were."""
        return len(self.clients)

    def pass_by(self, size: int) -> None:
        """Wait until the line has taken ``size`` bytes."""
        with self._lock:
            self._free_s = max(self._free_s, time.monotonic()) + size / self.bytes_per_s
            until_s = self._free_s
        time.sleep(max(0.0, until_s - time.monotonic()))

    def note(self, piece: bytes) -> None:
        """Count a request by the first bytes of its head."""
        method = piece.split(b" ", 1)[0].decode("ascii", "replace")
        if method in {"PUT", "GET", "HEAD", "POST", "DELETE"} and b" HTTP/1.1\r\n" in piece:
            with self._lock:
                self.requests[method] = self.requests.get(method, 0) + 1


@contextmanager
def run_throttle(
    store_url: str, *, bytes_per_s: float = 1e9, tls: ssl.SSLContext | None = None, host: str = LOOPBACK
) -> Iterator[Throttle]:
    """Run the proxy before a store, in threads of this process."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)  # new connections inherit it from here
    listener.bind((host, 0))
    listener.listen(64)
    shown = f"[{host}]" if ":" in host else host
    line = Throttle(f"{'https' if tls else 'http'}://{shown}:{listener.getsockname()[1]}", bytes_per_s)
    address = urlsplit(store_url)
    open_ends: list[socket.socket] = []

    def accept() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            line.clients.append(client)
            threading.Thread(target=serve, args=(client.dup(),), daemon=True).start()

    def serve(client: socket.socket) -> None:
        with suppress(
            OSError, ValueError
        ):  # a ValueError comes from select, after another thread closed the connection
            if tls is not None:
                client = tls.wrap_socket(client, server_side=True)
            open_ends.append(client)
            store = socket.create_connection((address.hostname, address.port))
            open_ends.append(store)
            store.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            end = client if tls is None else _SharedTls(client)
            threading.Thread(target=answer, args=(store, end), daemon=True).start()
            while True:
                piece = end.recv(PIECE)
                if not piece:
                    store.shutdown(socket.SHUT_WR)
                    return
                line.note(piece)
                line.pass_by(len(piece))
                store.sendall(piece)

    def answer(store: socket.socket, client: socket.socket | _SharedTls) -> None:
        with suppress(OSError, ValueError):
            while piece := store.recv(1 << 16):
                client.sendall(piece)
        for end in (store, client):
            with suppress(OSError):
                end.close()

    threading.Thread(target=accept, daemon=True).start()
    try:
        yield line
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for end in (*open_ends, *line.clients):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


class _SharedTls:
    """A TLS connection that one thread reads while another one writes. OpenSSL allows one call at a time."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()
        connection.setblocking(False)

    def recv(self, size: int) -> bytes:
        """Return bytes like a socket that blocks."""
        while True:
            with suppress(ssl.SSLWantReadError), self._lock:
                return self._connection.recv(size)
            select.select([self._connection], [], [])

    def sendall(self, piece: bytes) -> None:
        """Send like a socket that blocks."""
        left = memoryview(piece)
        while left:
            with suppress(ssl.SSLWantWriteError), self._lock:
                left = left[self._connection.send(left) :]
                continue
            select.select([], [self._connection], [])

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def _drop_packets(sock: socket.socket) -> None:
    """Make the kernel drop what comes in before TCP sees it, by a filter that returns 0 (man 7 socket)."""
    instructions = ctypes.create_string_buffer(struct.pack("HBBI", _BPF_RET, 0, 0, 0))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(instructions)))
