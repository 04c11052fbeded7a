"""The control socket: each connection has one request and one answer, each a message of ``frames``.

========================================  ==================================================================
a daemon that was started                 listens with mode 0660 at
========================================  ==================================================================
as a service (``$RUNTIME_DIRECTORY``)     ``/run/walsyncd/control.sock``: the group may enter that folder
by hand                                   ``control.sock`` in its state directory
========================================  ==================================================================

A command looks in both places, and in its own ``$RUNTIME_DIRECTORY``. It sends its state directory, and the daemon of
another directory answers ``OTHER_DAEMON``.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from walsyncd.adapters.system.frames import NoMessageError, format_message, message_size, parse_message
from walsyncd.errors import NewerFormatError, TransientError, UnresponsiveError
from walsyncd.file_calls import FileCall

NAME = "control.sock"
SERVICE_FOLDER = Path("/run/walsyncd")  # RuntimeDirectory=walsyncd creates it
ANSWER_BYTES_MAX = 256 << 20  # `status` has some 900 bytes for each database
RECEIVE_BYTES = 1 << 20

Answer = Mapping[str, Any]

NOT_ONE_VERSION = "command and daemon must be of one version; after an upgrade: systemctl restart walsyncd"
OTHER_DAEMON: Answer = {"error": "this is the daemon of another state directory", "is_other": True}


def socket_path(state_dir: Path, environment: Mapping[str, str] = os.environ) -> Path:
    """Return where a daemon of this state directory listens, in this environment."""
    runtime = environment.get("RUNTIME_DIRECTORY", "").partition(":")[0]
    return Path(runtime or state_dir) / NAME


def ask_daemon(state_dir: Path, request: Answer, *, timeout_s: float) -> Answer | None:
    """Ask the daemon of a state directory, wherever it listens. Returns its answer, or None if no daemon listens.

    Raises TransientError if the daemon does not answer in time, or may not be asked.
    """
    refusal: TransientError | None = None
    try:
        with FileCall(state_dir, "resolve"):
            resolved = state_dir.resolve()
    except UnresponsiveError:  # a daemon that listens in its runtime directory can be asked all the same
        resolved = state_dir
    question = {**request, "state_dir": str(resolved)}
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
    """Ask the daemon that listens at ``path``. Returns its answer, or None if no daemon listens.

    Raises TransientError if the daemon does not answer in time or may not be asked, and NewerFormatError if it has
    another version.
    """
    deadline_s = time.monotonic() + timeout_s
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(timeout_s)
        try:
            with FileCall(path, "connect to"), short_address(path) as address:
                client.connect(address)
        except (FileNotFoundError, ConnectionRefusedError):
            return None
        except OSError as error:
            raise TransientError(
                f"connect to the daemon at {path}: {error.strerror}", hint="run as root or as the daemon's user"
            ) from error
        try:
            client.sendall(format_message(request))
            answer = parse_message(_read_message(client, deadline_s))
        except NoMessageError as error:
            raise NewerFormatError(
                f"the daemon at {path} does not answer as this command expects: {error}", hint=NOT_ONE_VERSION
            ) from error
        except OSError as error:
            raise TransientError(
                f"the daemon at {path} did not answer within {timeout_s:.0f} s: {error}",
                hint="it runs, but is busy or hangs; its log says more",
            ) from error
    if not isinstance(answer, dict):
        raise NewerFormatError(f"the daemon at {path} answers with no JSON object", hint=NOT_ONE_VERSION)
    return answer


@contextmanager
def short_address(path: Path) -> Iterator[str]:
    """Yield an address of the socket that fits into 107 bytes, however long the path of the socket's folder is."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _read_message(connection: socket.socket, deadline_s: float) -> bytearray:
    """Return a whole message. All its pieces must arrive by ``deadline_s`` of the monotonic clock."""
    held, size = bytearray(), None
    while size is None or len(held) < size:
        left_s = deadline_s - time.monotonic()
        if left_s <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left_s)
        block = connection.recv(RECEIVE_BYTES)
        if not block:
            raise ConnectionResetError("it closed the connection")
        held += block
        size = size or message_size(held, size_max=ANSWER_BYTES_MAX)
    return held
