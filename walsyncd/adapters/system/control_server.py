"""The daemon's side of the control socket: clients are served side by side, by a fixed number of threads."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path

from walsyncd.adapters.system.connections import ConnectionServer, RejectedError
from walsyncd.adapters.system.control_socket import NOT_ONE_VERSION, Answer, short_address
from walsyncd.adapters.system.frames import NoMessageError, format_message, message_size, parse_message
from walsyncd.errors import TransientError, WalsyncdError

REQUEST_BYTES_MAX = 16 << 20  # `stored` names each database with its position: some 200 bytes for each of 10,000
SLOW_THREADS = 2  # a reload or a sync that takes its time keeps no other request waiting


class ControlServer:
    """Listens at ``path`` and has ``answer`` answer each request, until ``stop``.

    ``is_slow`` says which requests may take their time.
    """

    def __init__(
        self,
        path: Path,
        answer: Callable[[object], Answer],
        *,
        is_slow: Callable[[object], bool] = lambda _request: False,
    ) -> None:
        self._path = path
        self._answer = answer
        self._is_slow = is_slow
        path.unlink(missing_ok=True)  # a socket left by a run that was killed; the state lock keeps others out
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            with short_address(path) as address:
                listener.bind(address)
            path.chmod(0o660)
        except OSError as error:
            listener.close()
            raise TransientError(f"listen on {path}: {error.strerror}", hint="its folder must be writable") from error
        listener.listen(64)
        self._connections = ConnectionServer(listener, receive=_receive, respond=self._respond)

    def threads(self) -> dict[str, Callable[[], None]]:
        """What to run, each in a thread of its own, by the thread's name: until ``stop``."""
        connections = self._connections
        slow = {f"control-slow-{number}": connections.work_slowly for number in range(1, SLOW_THREADS + 1)}
        return {"control": connections.run, "control-answer": connections.work, **slow}

    def stop(self) -> None:
        """End the threads and remove the socket."""
        self._path.unlink(missing_ok=True)
        self._connections.stop()

    def _respond(self, message: bytes) -> bytes | Callable[[], bytes]:
        try:
            request = parse_message(message)
        except NoMessageError as error:
            return _refusal(error)
        if self._is_slow(request):
            return lambda: self._reply(request)
        return self._reply(request)

    def _reply(self, request: object) -> bytes:
        try:
            answer = self._answer(request)
        except WalsyncdError as error:
            answer = {"error": error.message, "hint": error.hint}
        return format_message(answer)


def _receive(held: bytearray) -> bytes | None:
    """A whole request; one in the form of before there were frames is told so in that form."""
    try:
        size = message_size(held, size_max=REQUEST_BYTES_MAX)
    except NoMessageError as error:
        if held[:1] == b"{":
            old: Answer = {"error": "this command is older than the daemon that runs", "hint": NOT_ONE_VERSION}
            raise RejectedError(json.dumps(old).encode("ascii") + b"\n") from error
        raise RejectedError(_refusal(error)) from error
    return bytes(held[:size]) if size is not None and len(held) >= size else None


def _refusal(error: NoMessageError) -> bytes:
    return format_message({"error": f"read a request: {error}", "hint": NOT_ONE_VERSION})
