"""``walsyncd restore --follow``: keeps a restored copy current, which others may read, until the command is stopped.

The command prints one line each time that the copy advances. The line has the copy's lag, which is the age of the
newest commit in the copy. The age counts from when the commit was observed at the application's database. SIGINT and
SIGTERM end the command between two transactions. The next run continues after the last transaction.
"""

from __future__ import annotations

import argparse
import signal
import sys
import threading
from typing import TYPE_CHECKING

from walsyncd.adapters.system import clock
from walsyncd.cli.progress import showing_progress
from walsyncd.cli.table import json_text, say
from walsyncd.core.stored.moment import format_moment, format_span
from walsyncd.errors import StateError, TransientError, printable

if TYPE_CHECKING:
    from walsyncd.adapters.files.target import Access
    from walsyncd.engine.restore.read_replica import Moved, ReadReplica
    from walsyncd.engine.restore.replica import Replica


def follow(args: argparse.Namespace, replica: Replica, access: Access) -> int:
    """Follow the replica until a signal arrives, and return 0."""
    from walsyncd.engine.restore.read_replica import ReadReplica  # noqa: PLC0415
    from walsyncd.engine.restore.restorer import RestoreOptions  # noqa: PLC0415  a command is light until it runs

    with showing_progress() as progress:
        copy = ReadReplica(replica, args.output, RestoreOptions(args.force, access=access, progress=progress))
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda _number, _frame: stopped.set())
    try:
        say(f"walsyncd: {args.output} follows {replica.url} from {copy.point}", file=sys.stderr, flush=True)
        waiting = ""
        while not stopped.is_set():
            moved, reason = _look(copy)
            if reason != waiting:
                say(f"walsyncd: {reason or 'goes on'}", file=sys.stderr, flush=True)
                waiting = reason
            if moved:
                _say(args, moved)
            stopped.wait(args.interval)
    finally:
        copy.close()
    return 0


def _look(copy: ReadReplica) -> tuple[Moved | None, str]:
    """Return how the copy advanced, or why the copy can't advance now (the storage is away, or the disk is full).

    The caller tries again until the reason is gone.
    """
    try:
        return copy.look(), ""
    except StateError as error:
        return None, f"waits: {error}"
    except TransientError as error:
        return None, f"waits: storage is away: {error.message}"


def _say(args: argparse.Namespace, moved: Moved) -> None:
    lag_ms = max(0, clock.wall_ms() - moved.point.time_ms)
    if moved.rebuilt:
        say(f"walsyncd: note: compared with a new restore: {moved.rebuilt}", file=sys.stderr)
    facts: dict[str, object] = {
        "position": str(moved.point.position),
        "time": format_moment(moved.point.time_ms),
        "transactions": moved.transactions,
        "lag_ms": lag_ms,
        "rebuilt": moved.rebuilt,
    }
    line = f"{facts['position']}  {facts['time']}  {moved.transactions} transactions  lag {format_span(lag_ms)}"
    print(json_text(facts, indent=None) if args.json else printable(line), flush=True)
