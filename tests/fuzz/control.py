"""Sends odd requests to the control socket. Every client gets an answer or an end, and the daemon continues."""

from __future__ import annotations

import json
import random
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running
from walsyncd.adapters.system.control_socket import socket_path
from walsyncd.adapters.system.frames import HEADER, MAGIC, NoMessageError, format_message, parse_message

CASES = 50  # the number of cases for one start of a daemon
OPS = ("ping", "status", "stored", "snapshot", "base", "verified", "pruned", "takeover", "", "sync\0")
FIELDS = ("name", "names", "databases", "base_key", "state_dir", "op")
WORDS = ("app", "", "absent", "../app", "a" * 5000, "\ud800", "\x1b[2J", "20200101T000000Z-00000000/00000001/00000001")


def value(rng: random.Random, depth: int = 3) -> Any:
    """Return a value that JSON can express."""
    choices: list[Callable[[], Any]] = [
        lambda: rng.choice(WORDS),
        lambda: rng.choice((None, True, False)),
        lambda: rng.choice((0, -1, 2**31, 2**63, 10**400, 1e308)),
    ]
    if depth:
        choices += [
            lambda: [value(rng, depth - 1) for _ in range(rng.randrange(4))],
            lambda: {rng.choice(WORDS + FIELDS): value(rng, depth - 1) for _ in range(rng.randrange(4))},
        ]
    return rng.choice(choices)()


def request(rng: random.Random) -> bytes:
    """Return a request that is almost valid, or not valid at all."""
    fields = {rng.choice(FIELDS): value(rng) for _ in range(rng.randrange(4))}
    message = bytearray(format_message({**fields, "op": rng.choice(OPS)} if rng.random() < 0.8 else value(rng)))
    kind = rng.randrange(8)
    if kind == 0:  # some bytes are changed
        for _ in range(rng.randrange(1, 10)):
            message[rng.randrange(len(message))] = rng.randrange(256)
    elif kind == 1:  # the request ends too soon
        del message[rng.randrange(len(message)) :]
    elif kind == 2:  # the length is wrong
        message[: HEADER.size] = HEADER.pack(MAGIC, rng.choice((0, 1, len(message) // 2, len(message) * 2, 2**32 - 1)))
    elif kind == 3:  # no message at all
        message = bytearray(rng.randbytes(rng.randrange(200)))
    elif kind == 4:  # more than one request
        message += rng.randbytes(rng.randrange(100_000))
    elif kind == 5:  # deep nesting
        body = rng.choice((b"[", b'{"op":')) * rng.randrange(1, 50_000)
        message = bytearray(HEADER.pack(MAGIC, len(body)) + body + b"\n")
    return bytes(message)


def send(path: Path, sent: bytes, rng: random.Random) -> bytes:
    """Return the answer to a request that is sent in pieces by a client that then sends nothing more."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        try:
            cut = rng.randrange(len(sent) + 1)
            client.sendall(sent[:cut])
            client.sendall(sent[cut:])
            client.shutdown(socket.SHUT_WR)
            return b"".join(iter(lambda: client.recv(65536), b""))
        except ConnectionError:  # the daemon refused it before all of it was sent
            return b""


def fuzz(seed: int, folder: Path) -> None:
    """Send ``CASES`` requests to a daemon, and parse as many messages.

    An answer is an object, and the daemon answers an honest request afterwards.
    """
    rng = random.Random(seed)
    place = Place(folder)
    with wal_database(place.database()), running(place.settings("app")) as daemon:
        for _ in range(CASES):
            answer = send(socket_path(place.state), request(rng), rng)
            if answer.startswith(MAGIC):
                assert isinstance(parse_message(answer), dict)
            elif answer:
                assert "error" in json.loads(answer)
        assert place.ask(op="ping")["pid"] > 0
        assert place.ask(op="status")["databases"]
        assert daemon.crash is None
    for _ in range(CASES):
        with suppress(NoMessageError):
            parse_message(request(rng))
