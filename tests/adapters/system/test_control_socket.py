"""The control socket: one question, one answer."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from walsyncd.adapters.system.control_socket import Answer, ControlServer, ask, socket_path
from walsyncd.errors import TransientError, UsageError


@contextmanager
def serving(path: Path) -> Iterator[None]:
    def answer(request: Answer) -> Answer:
        if request.get("op") == "fail":
            raise UsageError("no such thing", hint="try another")
        return {"echo": request["text"]}

    server = ControlServer(path, answer)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        yield
    finally:
        server.stop()
        thread.join()


def test_an_answer_comes_back_whatever_its_size(tmp_path: Path) -> None:
    """Requests and answers of half a megabyte pass whole."""
    path = socket_path(tmp_path)
    with serving(path):
        assert ask(path, {"text": "x" * 500_000}, timeout_s=10) == {"echo": "x" * 500_000}


def test_nobody_listening_is_an_answer_of_its_own(tmp_path: Path) -> None:
    """No socket, and a socket left by a daemon that was killed, both mean that none runs."""
    path = socket_path(tmp_path)
    assert ask(path, {"text": ""}, timeout_s=1) is None
    left = socket.socket(socket.AF_UNIX)
    left.bind(str(path))
    left.close()
    assert ask(path, {"text": ""}, timeout_s=1) is None
    with serving(path):
        assert ask(path, {"text": "new"}, timeout_s=10) == {"echo": "new"}
    assert not path.exists()


def test_a_refusal_comes_with_its_way_out_and_nonsense_stops_nothing(tmp_path: Path) -> None:
    """Errors of the daemon reach the client as data; a client that sends rubbish or goes away harms nobody."""
    path = socket_path(tmp_path)
    with serving(path):
        assert ask(path, {"op": "fail"}, timeout_s=10) == {"error": "no such thing", "hint": "try another"}
        with socket.socket(socket.AF_UNIX) as rude:
            rude.connect(str(path))
            rude.sendall(b"not json\n")
            assert b"request is not JSON" in rude.recv(1000)
        with socket.socket(socket.AF_UNIX) as hasty:
            hasty.connect(str(path))
        assert ask(path, {"text": "still here"}, timeout_s=10) == {"echo": "still here"}


def test_only_the_owner_and_the_group_may_talk(tmp_path: Path) -> None:
    """Mode 0660."""
    path = socket_path(tmp_path)
    with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_deep_folder_is_no_obstacle(tmp_path: Path) -> None:
    """A Unix socket's address has 107 bytes; a state directory may have more."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with serving(socket_path(folder)):
        assert ask(socket_path(folder), {"text": "deep"}, timeout_s=10) == {"echo": "deep"}


def test_a_folder_that_is_not_there_is_refused_with_the_reason(tmp_path: Path) -> None:
    """For the daemon an error, for a client nobody listening."""
    with pytest.raises(TransientError, match=r"listen on .*No such file"):
        ControlServer(tmp_path / "absent" / "control.sock", lambda request: request)
    assert ask(tmp_path / "absent" / "control.sock", {}, timeout_s=1) is None
