"""Tests of clients that are served side by side, whatever any of them does."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from tests.stores import LOOPBACK
from walsyncd.adapters.system import connections
from walsyncd.adapters.system.connections import ConnectionLimits, ConnectionServer, RejectedError

WAIT_S_MAX = 60.0


def receive(held: bytearray) -> bytes | None:
    """Read a request, which is a line. One that begins with ``!`` is refused."""
    if held[:1] == b"!":
        raise RejectedError(b"refused\n")
    return bytes(held) if held.endswith(b"\n") else None


def echo(request: bytes) -> bytes | Callable[[], bytes]:
    if request == b"fail\n":
        raise ValueError("no answer for that")
    return request


DEFAULTS = ConnectionLimits()


@contextmanager
def serving(respond: connections.Respond = echo, limits: ConnectionLimits = DEFAULTS) -> Iterator[tuple[str, int]]:
    listener = socket.create_server((LOOPBACK, 0))
    address = listener.getsockname()
    server = ConnectionServer(listener, receive=receive, respond=respond, limits=limits)
    threads = [threading.Thread(target=target) for target in (server.run, server.work, server.work_slowly)]
    for thread in threads:
        thread.start()
    try:
        yield address
    finally:
        server.stop()
        for thread in threads:
            thread.join(WAIT_S_MAX)
        assert not any(thread.is_alive() for thread in threads)


def connect(address: tuple[str, int]) -> closing[socket.socket]:
    return closing(socket.create_connection(address, timeout=WAIT_S_MAX))


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def ask(address: tuple[str, int], request: bytes) -> bytes:
    with connect(address) as client:
        client.sendall(request)
        return read_all(client)


def test_an_answer_comes_whole_whatever_its_size() -> None:
    """The answer has 32 MiB, which no socket takes at once."""
    answer = bytes(32 << 20)
    with serving(lambda _request: answer) as address:
        assert ask(address, b"all\n") == answer


def test_silent_and_slow_clients_hold_up_nobody() -> None:
    """One client sends nothing, one sends a byte, and one never reads its answer. The next client is answered."""
    with (
        serving(lambda request: request * 10_000_000 if request == b"much\n" else request) as address,
        connect(address),
        connect(address) as slow,
        connect(address) as greedy,
    ):
        slow.sendall(b"h")
        greedy.sendall(b"much\n")
        assert greedy.recv(1) == b"m"
        assert ask(address, b"hello\n") == b"hello\n"
        slow.sendall(b"i\n")
        assert read_all(slow) == b"hi\n"


def test_quick_answers_do_not_wait_for_slow_ones() -> None:
    """All threads for slow answers are busy, and one more such request waits."""
    go_on = threading.Event()

    def compute() -> bytes:
        assert go_on.wait(WAIT_S_MAX)
        return b"slow\n"

    with (
        serving(lambda request: compute if request == b"slow\n" else request) as address,
        connect(address) as first,
        connect(address) as second,
    ):
        first.sendall(b"slow\n")
        second.sendall(b"slow\n")
        assert ask(address, b"quick\n") == b"quick\n"
        go_on.set()
        assert read_all(first) == read_all(second) == b"slow\n"


def test_a_request_has_a_deadline_and_so_has_the_taking_of_an_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the deadline the connection is closed. A byte now and then does not extend the request's deadline."""
    closed, close = threading.Semaphore(0), ConnectionServer._close

    def noted(server: ConnectionServer, client: connections._Client) -> None:
        close(server, client)
        closed.release()

    monkeypatch.setattr(ConnectionServer, "_close", noted)
    limits = ConnectionLimits(request_s_max=1.0, answer_s_max=0.3)
    with serving(lambda request: request * 10_000_000, limits) as address, connect(address) as silent:
        assert silent.recv(1) == b""
        assert closed.acquire(timeout=WAIT_S_MAX)
        with connect(address) as greedy:
            greedy.sendall(b"much\n")
            assert closed.acquire(timeout=WAIT_S_MAX)  # the deadline passes while nothing is read
            assert len(read_all(greedy)) < 50_000_000


def test_more_clients_than_are_served_cost_the_oldest_silent_one() -> None:
    """A client that sends its request at once is answered, however many connections are open."""
    served = serving(limits=ConnectionLimits(clients_max=3))
    with served as address, connect(address) as oldest, connect(address) as second, connect(address) as third:
        assert ask(address, b"hello\n") == b"hello\n"
        assert oldest.recv(1) == b""
        second.sendall(b"second\n")
        third.sendall(b"third\n")
        assert (read_all(second), read_all(third)) == (b"second\n", b"third\n")


def test_what_clients_send_together_has_a_limit() -> None:
    """An endless request is closed, and the others continue."""
    served = serving(limits=ConnectionLimits(held_bytes_max=1 << 20))
    with served as address, connect(address) as patient, connect(address) as endless:
        patient.sendall(b"hel")
        with pytest.raises(OSError, match=r"reset|Broken pipe"):
            endless.sendall(bytes(1 << 30))
        patient.sendall(b"lo\n")
        assert read_all(patient) == b"hello\n"


def test_what_is_no_request_is_told_so() -> None:
    """The answer is what ``receive`` says, although more was sent."""
    with serving() as address:
        assert ask(address, b"!" + bytes(10_000)) == b"refused\n"


def test_a_fault_costs_the_connection_and_no_thread() -> None:
    """A fault while a request is answered closes only its connection, in the quick thread and in a slow one."""

    def fail() -> bytes:
        raise ValueError("too late")

    with serving(lambda request: fail if request == b"slow\n" else echo(request)) as address:
        assert ask(address, b"fail\n") == b""
        assert ask(address, b"slow\n") == b""
        assert ask(address, b"hello\n") == b"hello\n"


def test_a_client_that_goes_away_before_its_answer_harms_nobody() -> None:
    """The answer to such a client is dropped."""
    asked, go_on = threading.Event(), threading.Event()

    def compute() -> bytes:
        asked.set()
        assert go_on.wait(WAIT_S_MAX)
        return bytes(1 << 20)

    with serving(lambda request: compute if request == b"slow\n" else request) as address:
        with connect(address) as hasty:
            hasty.sendall(b"slow\n")
            assert asked.wait(WAIT_S_MAX)
        go_on.set()
        assert ask(address, b"hello\n") == b"hello\n"
