"""``walsyncd restore --all``: restores every database of a storage, when a host was lost.

The output folder gets one file for each database, at the database's name. Many small databases and one large one are
restored at a time. They share a fixed amount of memory. A large database takes most of the memory, and keeps a disk
busy by itself. A database that fails does not stop the others.
"""

from __future__ import annotations

import argparse
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from walsyncd.cli.commands.ls import replicas_from
from walsyncd.cli.progress import DatabaseLines
from walsyncd.cli.table import json_text, print_table, say
from walsyncd.config.units import format_size
from walsyncd.core.stored.moment import format_moment
from walsyncd.errors import CorruptError, NothingToRestoreError, WalsyncdError, forget_locals

if TYPE_CHECKING:
    from walsyncd.adapters.files.target import Access
    from walsyncd.engine.restore.planner import RestoreRequest
    from walsyncd.engine.restore.replica import Replica
    from walsyncd.engine.restore.restorer import BuildPlan, Restored

AT_ONCE = 8
ROOM_BYTES = 96 << 20  # bytes of all buffers; the whole process then stays below 256 MiB (measured: 249)
LARGE_BYTES = 72 << 20  # the maximum of one restore's buffers; a small restore's buffers only hold what it reads
HEADINGS = ("DATABASE", "RESULT", "TIME", "SIZE", "POSITION OR REASON")


@dataclass(frozen=True, slots=True)
class DatabaseOutcome:
    """The result for one database."""

    name: str
    path: Path
    restored: Restored | None = None
    kept: bool = False
    error: WalsyncdError | None = None


def restore_all(args: argparse.Namespace, request: RestoreRequest, access: Access) -> int:
    """Restore all databases, print a table, and return the exit code, which is 1 if any failed."""
    replicas = replicas_from(args)
    if not replicas:
        raise NothingToRestoreError("restore --all: there is no database in the storage")
    stopped = threading.Event()
    room, lines = _SharedMemory(ROOM_BYTES), DatabaseLines(len(replicas))

    def restore_one(replica: Replica) -> DatabaseOutcome:
        drain = _MemoryTurn(room, stopped)
        try:
            outcome = _restore_one(args, replica, request, access, drain)
        finally:
            drain.end()
        lines.advance(failed=outcome.error is not None)
        return outcome

    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="restore") as pool:
        try:
            outcomes = list(pool.map(restore_one, replicas))
        except BaseException:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    _print(args, outcomes)
    return 1 if any(outcome.error for outcome in outcomes) else 0


class _SharedMemory:
    """An amount of memory that restores share."""

    def __init__(self, size: int) -> None:
        self._free = self._size = size
        self._condition = threading.Condition()

    def take(self, wanted: int) -> int:
        """Wait until ``wanted`` bytes are free, or all bytes if ``wanted`` is more. Returns how many were taken."""
        taken = min(wanted, self._size)
        with self._condition:
            self._condition.wait_for(lambda: self._free >= taken)
            self._free -= taken
        return taken

    def give_back(self, taken: int) -> None:
        """Free what `take` returned."""
        with self._condition:
            self._free += taken
            self._condition.notify_all()


class _MemoryTurn:
    """One restore's share of the memory.

    The object is passed as the restore's progress. So it can make the restore wait for memory, and end the restore
    when the command ends.
    """

    def __init__(self, room: _SharedMemory, stopped: threading.Event) -> None:
        self._room = room
        self._stopped = stopped
        self._taken = 0

    def begin(self, draft: BuildPlan) -> None:
        """Wait for memory. A restore that is planned again keeps its share."""
        if not self._taken:
            self._taken = self._room.take(min(draft.work_bytes, LARGE_BYTES))
        self.advance(0)

    def advance(self, raw_bytes: int) -> None:
        """Raise KeyboardInterrupt if the command has been interrupted, so that this restore ends too."""
        if self._stopped.is_set():
            raise KeyboardInterrupt

    def end(self) -> None:
        """Free the memory."""
        self._room.give_back(self._taken)


def _restore_one(
    args: argparse.Namespace, replica: Replica, request: RestoreRequest, access: Access, drain: _MemoryTurn
) -> DatabaseOutcome:
    from walsyncd.adapters.files.target import is_missing  # noqa: PLC0415
    from walsyncd.core.stored.layout import check_name  # noqa: PLC0415  a command is light until it runs
    from walsyncd.engine.restore.planner import with_plan  # noqa: PLC0415
    from walsyncd.engine.restore.restorer import RestoreOptions, build_plan_of, restore_request  # noqa: PLC0415

    name = replica.name or replica.url.rpartition("/")[2]
    path = args.output / name
    try:
        check_name(name, "")
        if args.if_missing and not is_missing(path):
            return DatabaseOutcome(name, path, kept=True)
        if args.dry_run:
            with_plan(replica, request, lambda prepared: build_plan_of(replica, prepared))
            return DatabaseOutcome(name, path)
        how = RestoreOptions(args.force, args.if_missing, create_folder=True, access=access, progress=drain)
        return DatabaseOutcome(name, path, restore_request(replica, request, path, how))
    except WalsyncdError as error:
        forget_locals(error)  # errors are kept until the command ends
        return DatabaseOutcome(name, path, error=error)
    except Exception as error:  # noqa: BLE001  a fault in one database must not stop the others
        forget_locals(error)
        odd = CorruptError(f"restore {replica.url}: {type(error).__name__}: {error}", hint="please report this")
        return DatabaseOutcome(name, path, error=odd)


def _print(args: argparse.Namespace, outcomes: list[DatabaseOutcome]) -> None:
    if args.json:
        print(json_text({"databases": [_facts(each) for each in outcomes]}))
        return
    print_table(HEADINGS, [_row(each) for each in outcomes])
    failed = sum(each.error is not None for each in outcomes)
    sizes = sum(each.restored.size for each in outcomes if each.restored)
    done = sum(each.restored is not None for each in outcomes)
    say(f"\n{done} of {len(outcomes)} restored to {args.output}, {format_size(sizes)}; {failed} failed")


def _row(outcome: DatabaseOutcome) -> tuple[str, ...]:
    if outcome.error:
        return outcome.name, "FAILED", "-", "-", str(outcome.error)
    if outcome.restored is None:
        return outcome.name, "kept" if outcome.kept else "can be restored", "-", "-", ""
    reached = outcome.restored.plan.reached
    size = format_size(outcome.restored.size)
    notes = "".join(f" ({note})" for note in outcome.restored.plan.notes)
    return outcome.name, "restored", format_moment(reached.time_ms), size, f"{reached.position}{notes}"


def _facts(outcome: DatabaseOutcome) -> dict[str, object]:
    facts: dict[str, object] = {
        "name": outcome.name,
        "path": str(outcome.path),
        "restored": outcome.restored is not None,
    }
    if outcome.restored:
        plan = outcome.restored.plan
        facts |= {
            "position": str(plan.reached.position),
            "time": format_moment(plan.reached.time_ms),
            "time_ms": plan.reached.time_ms,
            "size": outcome.restored.size,
            "transactions": outcome.restored.applied.transactions,
            "partial": plan.shortfall,
            "notes": list(plan.notes),
        }
    return facts | {"error": str(outcome.error) if outcome.error else ""}
