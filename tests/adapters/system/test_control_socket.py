"""Tests of the control socket: one question, one answer."""

from __future__ import annotations

import socket
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from walsyncd.adapters.system.control_server import ControlServer
from walsyncd.adapters.system.control_socket import Answer, ask, socket_path
from walsyncd.adapters.system.frames import HEADER, format_message
from walsyncd.errors import NewerFormatError, TransientError, UsageError


def answer_to(request: object) -> Answer:
    if not isinstance(request, dict):
        raise UsageError("no object")
    if request.get("op") == "fail":
        raise UsageError("no such thing", hint="try another")
    return {"echo": request["text"]}


@contextmanager
def serving(path: Path, answer: Callable[[object], Answer] = answer_to) -> Iterator[None]:
    server = ControlServer(path, answer)
    threads = [threading.Thread(target=target) for target in server.threads().values()]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        server.stop()
        for thread in threads:
            thread.join()


@contextmanager
def listening(path: Path, answer: bytes) -> Iterator[None]:
    """Start a server that reads a line and sends the given answer, as daemons did before there were frames."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            client, _ = listener.accept()
            with client, client.makefile("rb") as lines:
                lines.readline()
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join()


def test_an_answer_comes_back_whatever_its_size(tmp_path: Path) -> None:
    """Requests and answers of ten megabytes pass whole, as 10,000 databases make them."""
    path = socket_path(tmp_path)
    with serving(path):
        assert ask(path, {"text": "x" * 10_000_000}, timeout_s=60) == {"echo": "x" * 10_000_000}


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


def test_a_refusal_comes_with_its_way_out(tmp_path: Path) -> None:
    """Errors of the daemon reach the client as data. A client that goes away harms nobody."""
    path = socket_path(tmp_path)
    with serving(path):
        assert ask(path, {"op": "fail"}, timeout_s=10) == {"error": "no such thing", "hint": "try another"}
        with socket.socket(socket.AF_UNIX) as hasty:
            hasty.connect(str(path))
        assert ask(path, {"text": "still here"}, timeout_s=10) == {"echo": "still here"}


@pytest.mark.parametrize(
    "answer",
    [b'{"error": "request is not JSON"}\n', b"WSY9\0\0\0\2{}\n", format_message([]), HEADER.pack(b"WSY1", 2**32 - 1)],
)
def test_a_daemon_of_another_version_is_told_apart_from_none(tmp_path: Path, answer: bytes) -> None:
    """An older daemon answers with a line, and a newer one may answer with anything."""
    path = socket_path(tmp_path)
    with listening(path, answer), pytest.raises(NewerFormatError, match="of one version"):
        ask(path, {"op": "status"}, timeout_s=10)


def test_a_daemon_that_does_not_answer_is_told_apart_from_none(tmp_path: Path) -> None:
    """The command waits up to its limit, and then reports a daemon that does not answer."""
    path = socket_path(tmp_path)
    go_on = threading.Event()

    def answer(_request: object) -> Answer:
        assert go_on.wait(60)
        return {}

    with serving(path, answer):
        with pytest.raises(TransientError, match="did not answer within 0 s"):
            ask(path, {}, timeout_s=0.2)
        go_on.set()


def test_only_the_owner_and_the_group_may_talk(tmp_path: Path) -> None:
    """The socket has mode 0660."""
    path = socket_path(tmp_path)
    with serving(path):
        assert stat.S_IMODE(path.stat().st_mode) == 0o660


def test_a_deep_folder_is_no_obstacle(tmp_path: Path) -> None:
    """A Unix socket's address may have 107 bytes, and a state directory more."""
    folder = tmp_path / ("x" * 120)
    folder.mkdir()
    with serving(socket_path(folder)):
        assert ask(socket_path(folder), {"text": "deep"}, timeout_s=10) == {"echo": "deep"}


def test_a_folder_that_is_not_there_is_refused_with_the_reason(tmp_path: Path) -> None:
    """The daemon reports an error. For a client a missing folder means that no daemon is running."""
    with pytest.raises(TransientError, match=r"listen on .*No such file"):
        ControlServer(tmp_path / "absent" / "control.sock", answer_to)
    assert ask(tmp_path / "absent" / "control.sock", {}, timeout_s=1) is None
