"""Serves the clients of a listening socket side by side, with a fixed number of threads.

One thread, in ``run``, accepts clients, reads their requests and sends the answers. It waits for all clients at once,
so a slow or silent client delays nobody. Other threads, in ``work``, compute the answers.

========================================  ===========================================================================
limit                                     what happens beyond it
========================================  ===========================================================================
``clients_max`` connections               the oldest one that is not waiting for an answer is closed
``request_s_max`` until a request is      the connection is closed
whole
``answer_s_max`` without a byte taken     the connection is closed
the length of one request                 ``receive`` raises RejectedError with the answer
``held_bytes_max`` in requests            the connection whose bytes exceed it is closed
========================================  ===========================================================================

If ``respond`` returns a function instead of bytes, a thread in ``work_slowly`` calls it to compute the slow answer. So
quick answers never wait for slow ones.
"""

from __future__ import annotations

import queue
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeAlias

import structlog

RECEIVE_BYTES = 65536
SEND_BYTES = 1 << 20
REJECTED_BYTES_MAX = 1 << 20  # read after a refused request, since a client that still sends would miss the answer

# Returns the bytes held so far if they are a whole request, or None if more bytes are needed.
Receive: TypeAlias = Callable[[bytearray], bytes | None]
# Returns the answer to a request, or a function that computes it slowly.
Respond: TypeAlias = Callable[[bytes], bytes | Callable[[], bytes]]

_log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """The limits of clients. The table above says what happens beyond each limit."""

    clients_max: int = 64
    """More clients than people and monitors on one host usually ask at once."""
    request_s_max: float = 5.0
    answer_s_max: float = 30.0
    held_bytes_max: int = 64 << 20


class RejectedError(Exception):
    """The client sent bytes that are not a request. ``answer`` is sent to the client."""

    def __init__(self, answer: bytes) -> None:
        super().__init__(answer)
        self.answer = answer


@dataclass(slots=True, eq=False)
class _Client:
    """One connection. Its request is read until it is whole. Then the answer is computed and sent."""

    connection: socket.socket
    deadline_s: float
    held: bytearray = field(default_factory=bytearray)
    unsent: memoryview | None = None
    is_waiting: bool = False
    """Whether its request is whole and its answer is being computed."""


class ConnectionServer:
    """Serves the clients of ``listener`` until ``stop``: ``run`` in one thread, ``work`` and ``work_slowly`` in others.

    ``receive`` raises RejectedError for bytes that will never be a request.
    """

    def __init__(
        self,
        listener: socket.socket,
        *,
        receive: Receive,
        respond: Respond,
        monotonic_s: Callable[[], float] = time.monotonic,
        limits: ConnectionLimits = ConnectionLimits(),
    ) -> None:
        self._limits = limits
        self._listener = listener
        self._receive = receive
        self._respond = respond
        self._monotonic_s = monotonic_s
        self._clients: dict[socket.socket, _Client] = {}
        self._requests: queue.SimpleQueue[tuple[_Client, bytes] | None] = queue.SimpleQueue()
        self._slow: queue.SimpleQueue[tuple[_Client, Callable[[], bytes]] | None] = queue.SimpleQueue()
        self._answers: queue.SimpleQueue[tuple[_Client, bytes]] = queue.SimpleQueue()
        self._selector = selectors.DefaultSelector()
        self._woken, self._wake = socket.socketpair()
        for each in (listener, self._woken, self._wake):
            each.setblocking(False)
        self._selector.register(listener, selectors.EVENT_READ)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._is_stopping = False

    def run(self) -> None:
        """Read requests and send answers until ``stop``."""
        try:
            while not self._is_stopping:
                for key, _ in self._selector.select(self._wait_s()):
                    self._tend(key.fileobj)
                self._take_answers()
                self._close_late()
        finally:
            self._close_all()

    def work(self) -> None:
        """Compute quick answers until ``stop``."""
        while (taken := self._requests.get()) is not None:
            client, request = taken
            try:
                answer = self._respond(request)
            except Exception as error:  # noqa: BLE001 - it costs this one connection
                self._failed(client, error)
                continue
            if callable(answer):
                self._slow.put((client, answer))
            else:
                self._answered(client, answer)
        self._requests.put(None)  # for the next thread of this kind

    def work_slowly(self) -> None:
        """Compute slow answers until ``stop``."""
        while (taken := self._slow.get()) is not None:
            client, compute = taken
            try:
                self._answered(client, compute())
            except Exception as error:  # noqa: BLE001 - it costs this one connection
                self._failed(client, error)
        self._slow.put(None)

    def stop(self) -> None:
        """End all threads, without waiting for answers under way."""
        self._is_stopping = True
        self._requests.put(None)
        self._slow.put(None)
        self._wake_up()

    # -- answers, in any thread ---------------------------------------------------------------------------------------

    def _answered(self, client: _Client, answer: bytes) -> None:
        self._answers.put((client, answer))
        self._wake_up()

    def _failed(self, client: _Client, error: Exception) -> None:
        _log.error("request_failed", exc_info=error)
        self._answered(client, b"")

    def _wake_up(self) -> None:
        with suppress(OSError):  # if the socket is full, the thread is awake; if it is closed, the thread has ended
            self._wake.send(b"\0")

    # -- connections, in the thread of ``run`` alone ------------------------------------------------------------------

    def _tend(self, source: object) -> None:
        if source is self._listener:
            self._accept()
        elif source is self._woken:
            with suppress(BlockingIOError):
                while self._woken.recv(RECEIVE_BYTES):
                    pass
        elif (client := self._clients.get(source)) is not None:  # type: ignore[call-overload]
            try:
                if client.unsent is not None:
                    self._send(client)
                else:
                    self._read(client)
            except BlockingIOError:
                pass
            except OSError:
                self._close(client)  # the client went away, and its command reports that
            except Exception as error:  # noqa: BLE001 - it costs this one connection
                _log.error("request_failed", exc_info=error)
                self._close(client)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:  # the client went away again, or there are no descriptors; connected clients are still served
            time.sleep(0.01)
            return
        if len(self._clients) >= self._limits.clients_max:
            idle = next((each for each in self._clients.values() if not each.is_waiting), None)
            if idle is None:
                connection.close()
                return
            self._close(idle)
        connection.setblocking(False)
        self._clients[connection] = _Client(connection, self._monotonic_s() + self._limits.request_s_max)
        self._selector.register(connection, selectors.EVENT_READ)

    def _read(self, client: _Client) -> None:
        block = client.connection.recv(RECEIVE_BYTES)
        if not block:
            self._close(client)
            return
        client.held += block
        try:
            request = self._receive(client.held)
        except RejectedError as rejected:
            self._discard(client)
            self._begin_answer(client, rejected.answer)
            return
        if request is not None:
            client.held = bytearray()
            client.is_waiting = True
            self._selector.unregister(client.connection)
            self._requests.put((client, request))
        elif sum(len(each.held) for each in self._clients.values()) > self._limits.held_bytes_max:
            self._close(client)

    def _discard(self, client: _Client) -> None:
        """Read what the client has sent by now, since closing a socket with unread bytes would lose the answer."""
        client.held, left = bytearray(), REJECTED_BYTES_MAX
        with suppress(OSError):
            while left > 0 and (block := client.connection.recv(RECEIVE_BYTES)):
                left -= len(block)

    def _take_answers(self) -> None:
        while not self._answers.empty():
            client, answer = self._answers.get()
            client.is_waiting = False
            if not answer or self._is_stopping:
                self._close(client)
            else:
                self._selector.register(client.connection, selectors.EVENT_READ)
                self._begin_answer(client, answer)

    def _begin_answer(self, client: _Client, answer: bytes) -> None:
        client.unsent = memoryview(answer)
        client.deadline_s = self._monotonic_s() + self._limits.answer_s_max
        self._selector.modify(client.connection, selectors.EVENT_WRITE)

    def _send(self, client: _Client) -> None:
        assert client.unsent is not None
        sent = client.connection.send(client.unsent[:SEND_BYTES])
        client.unsent = client.unsent[sent:]
        client.deadline_s = self._monotonic_s() + self._limits.answer_s_max
        if not client.unsent:
            self._discard(client)
            self._close(client)

    def _wait_s(self) -> float | None:
        late = [each.deadline_s for each in self._clients.values() if not each.is_waiting]
        return max(0.0, min(late) - self._monotonic_s()) if late else None

    def _close_late(self) -> None:
        now_s = self._monotonic_s()
        for client in list(self._clients.values()):
            if not client.is_waiting and now_s >= client.deadline_s:
                self._close(client)

    def _close(self, client: _Client) -> None:
        if self._clients.pop(client.connection, None) is None:
            return
        with suppress(KeyError, ValueError):  # a client that waits for its answer is not registered
            self._selector.unregister(client.connection)
        client.connection.close()

    def _close_all(self) -> None:
        for client in list(self._clients.values()):
            self._close(client)
        self._selector.close()
        for each in (self._listener, self._woken, self._wake):
            each.close()
