"""Tests of the daemon's side of the control socket: every request has an answer."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from tests.adapters.system.test_control_socket import serving
from walsyncd.adapters.system.control_socket import NOT_ONE_VERSION, ask, socket_path
from walsyncd.adapters.system.frames import HEADER, parse_message


def say(path: Path, request: bytes) -> bytes:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(60)
        client.connect(str(path))
        client.sendall(request)
        return b"".join(iter(lambda: client.recv(65536), b""))


@pytest.mark.parametrize("document", [b"[]", b"5", b"{", b"[" * 200_000, b"\xff", b"1" * 100_000])
def test_every_document_has_an_answer(tmp_path: Path, document: bytes) -> None:
    """A request that is not JSON, and JSON that is not an object, get an error in words."""
    path = socket_path(tmp_path)
    with serving(path):
        answer = parse_message(say(path, HEADER.pack(b"WSY1", len(document)) + document + b"\n"))
        assert isinstance(answer, dict)
        assert answer["error"]


def test_a_request_has_a_greatest_length(tmp_path: Path) -> None:
    """The header of a longer request is enough to refuse the request before the rest has arrived."""
    path = socket_path(tmp_path)
    with serving(path):
        assert b"are allowed" in say(path, HEADER.pack(b"WSY1", 2**32 - 1))


def test_what_is_no_message_is_told_so(tmp_path: Path) -> None:
    """The first answer reports that the bytes are not a message, and the server continues."""
    path = socket_path(tmp_path)
    with serving(path):
        assert b"does not begin like a message" in say(path, b"not a message\n")
        assert ask(path, {"text": "still here"}, timeout_s=10) == {"echo": "still here"}


def test_an_older_command_is_told_in_its_own_form(tmp_path: Path) -> None:
    """The answer is one JSON object on a line, and says what to do."""
    path = socket_path(tmp_path)
    with serving(path):
        answer = json.loads(say(path, b'{"op": "status"}\n'))
    assert answer == {"error": "this command is older than the daemon that runs", "hint": NOT_ONE_VERSION}
