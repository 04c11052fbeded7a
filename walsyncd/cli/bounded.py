"""What a command does with the users' files, within a time: a file system that does not answer costs one line."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def searched(work: Callable[[], T]) -> T:
    """Return what ``work`` finds. It is repeated without each path that does not answer, so it must change nothing."""
    from walsyncd.engine.threads.hang_watch import HangWatch  # noqa: PLC0415 - a command is light until it runs

    with HangWatch(logs=False) as hang_watch:
        return hang_watch.search(work)


def looked(work: Callable[[], T]) -> T:
    """Return what ``work`` returns. Raises UnresponsiveError if a file system does not answer."""
    from walsyncd.engine.threads.hang_watch import HangWatch  # noqa: PLC0415

    with HangWatch(logs=False) as hang_watch:
        return hang_watch.carry_out(work)
