"""The daemon's side of the control socket. A fixed number of threads serves the clients side by side."""

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
SLOW_THREADS = 2  # so that a slow reload or sync delays no other request


class ControlServer:
    """Listens at ``path`` and answers each request with ``answer``, until ``stop``.

    ``is_slow`` says which requests may take long.
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
        path.unlink(missing_ok=True)  # the socket of a killed run; the state lock keeps other daemons out
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
        """Return functions by the name of their thread. Each runs until ``stop`` and needs a thread of its own."""
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
    """Return a whole request. A request in the old form, which had no frames, is refused in the old form."""
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
