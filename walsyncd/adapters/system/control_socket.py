"""The control socket: one request and one answer a connection, each a JSON object on a line.

========================================  ==================================================================
a daemon that was started                 listens, mode 0660, at
========================================  ==================================================================
as a service (``$RUNTIME_DIRECTORY``)     ``/run/walsyncd/control.sock``: the group may enter that folder
by hand                                   ``control.sock`` in its state directory
========================================  ==================================================================

A command looks in both, its own ``$RUNTIME_DIRECTORY`` included, and says which state directory it means; a daemon of
another one answers ``OTHER_DAEMON``.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from walsyncd.errors import TransientError, WalsyncdError

NAME = "control.sock"
SERVICE_FOLDER = Path("/run/walsyncd")  # what RuntimeDirectory=walsyncd makes
LINE_BYTES_MAX = 1 << 20
CLIENT_TIMEOUT_S = 5.0  # a client that stalls may keep the others waiting for so long

Answer = Mapping[str, Any]

OTHER_DAEMON: Answer = {"error": "this is the daemon of another state directory", "is_other": True}


def socket_path(state_dir: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Where a daemon of this state directory listens, in this environment."""
    runtime = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(runtime or state_dir) / NAME


class ControlServer:
    """Listens; ``run`` answers one client after the other until ``stop``."""

    def __init__(self, path: Path, answer: Callable[[Answer], Answer]) -> None:
        self._path = path
        self._answer = answer
        self._stopping = False
        path.unlink(missing_ok=True)  # a socket left by a run that was killed; the state lock keeps others out
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with _short(path) as address:
                self._socket.bind(address)
            path.chmod(0o660)
        except OSError as error:
            self._socket.close()
            raise TransientError(f"listen on {path}: {error.strerror}", hint="its folder must be writable") from error
        self._socket.listen(16)

    def run(self) -> None:
        """The thread: until ``stop``."""
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                if self._stopping:
                    return
                raise
            with client:
                client.settimeout(CLIENT_TIMEOUT_S)
                try:
                    self._serve(client)
                except OSError:
                    continue  # the client went away or stalled; its command says so

    def stop(self) -> None:
        """End the thread and remove the socket."""
        self._stopping = True
        self._path.unlink(missing_ok=True)
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        finally:
            self._socket.close()

    def _serve(self, client: socket.socket) -> None:
        line = _read_line(client)
        try:
            request = json.loads(line)
            answer = self._answer(request)
        except WalsyncdError as error:
            answer = {"error": error.message, "hint": error.hint}
        except ValueError as error:
            answer = {"error": f"request is not JSON: {error}"}
        client.sendall(json.dumps(answer).encode() + b"\n")


def ask_daemon(state_dir: Path, request: Answer, *, timeout_s: float) -> Answer | None:
    """Ask the daemon of a state directory, wherever it listens; None if none does.

    TransientError if it does not answer in time, or may not be asked.
    """
    refusal: TransientError | None = None
    question = {**request, "state_dir": str(state_dir.resolve())}
    for path in dict.fromkeys([state_dir / NAME, socket_path(state_dir), SERVICE_FOLDER / NAME]):
        try:
            answer = ask(path, question, timeout_s=timeout_s)
        except TransientError as error:
            refusal = refusal or error
            continue
        if answer is not None and not answer.get("is_other"):
            return answer
    if refusal is not None:
        raise refusal
    return None


def ask(path: Path, request: Answer, *, timeout_s: float) -> Answer | None:
    """Ask the daemon; None if none listens. TransientError if it does not answer in time."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            with _short(path) as address:
                client.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise TransientError(
                f"connect to the daemon at {path}: {error.strerror}", hint="run as root or as the daemon's user"
            ) from error
        try:
            client.sendall(json.dumps(request).encode() + b"\n")
            answer: Answer = json.loads(_read_line(client))
        except (OSError, ValueError) as error:
            raise TransientError(f"the daemon at {path} did not answer: {error}") from error
        return answer


@contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name of the socket that fits the 107 bytes an address has, however deep its folder lies."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _read_line(connection: socket.socket) -> bytes:
    held = bytearray()
    while not held.endswith(b"\n") and len(held) < LINE_BYTES_MAX:
        block = connection.recv(65536)
        if not block:
            break
        held += block
    return bytes(held)
