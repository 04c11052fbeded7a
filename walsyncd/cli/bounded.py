"""Limits the time that a command waits for files. A file system that does not answer becomes one line of output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from walsyncd.errors import UnresponsiveError

T = TypeVar("T")

READ_STATE = "read the state in"
FOLDER_HINT = "see whether its mount or its disk answers (`stat FOLDER`), and run the command again"


def searched(work: Callable[[], T]) -> T:
    """Return what ``work`` finds. ``work`` is repeated without paths that do not answer, so it must change nothing."""
    from walsyncd.engine.threads.hang_watch import HangWatch  # noqa: PLC0415 - a command is light until it runs

    with HangWatch(logs=False) as hang_watch:
        return hang_watch.search(work)


def looked(work: Callable[[], T]) -> T:
    """Return what ``work`` returns. Raises UnresponsiveError if a file system does not answer."""
    from walsyncd.engine.threads.hang_watch import HangWatch  # noqa: PLC0415

    with HangWatch(logs=False) as hang_watch:
        return hang_watch.carry_out(work)


def in_folder(folder: Path, action: str, work: Callable[[], T]) -> T:
    """Return what ``work`` returns. ``work`` must only use files below ``folder``, for example the state directory.

    Raises UnresponsiveError, whose message begins with ``action``, if the folder's file system does not answer.
    """
    from walsyncd.file_calls import FileCall  # noqa: PLC0415

    def registered() -> T:
        with FileCall(folder, action):
            return work()

    try:
        return looked(registered)
    except UnresponsiveError as error:
        raise UnresponsiveError(f"{action} {folder}: its file system does not answer", hint=FOLDER_HINT) from error


def asked(state_dir: Path, request: Mapping[str, Any], *, timeout_s: float) -> Mapping[str, Any] | None:
    """Ask the daemon as ``ask_daemon`` does, but do not hang if the state directory's file system does not answer."""
    from walsyncd.adapters.system.control_socket import ask_daemon  # noqa: PLC0415

    return searched(lambda: ask_daemon(state_dir, request, timeout_s=timeout_s))


def require_answer(folder: Path) -> None:
    """Raise UnresponsiveError if a folder's file system does not answer. The folder need not exist."""

    def look() -> None:
        with suppress(OSError):
            folder.stat()

    in_folder(folder, "open", look)
