"""``walsyncd prune``: removes what retention does not keep, or with ``--dry-run`` lists what would go and why.

Only the daemon removes objects, since only the daemon knows that the folder is its own. The daemon prunes once a day,
and also when this command asks for it. The command then waits and prints what was removed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from walsyncd.adapters.system import clock
from walsyncd.cli import settings_from
from walsyncd.cli.bounded import READ_STATE, in_folder, searched
from walsyncd.cli.configured_storage import answering_storage
from walsyncd.cli.daemon_client import Deadline, call
from walsyncd.cli.table import json_text, say
from walsyncd.config.units import format_size
from walsyncd.core.stored.moment import format_moment
from walsyncd.errors import MissingError, UsageError, WalsyncdError

if TYPE_CHECKING:
    from walsyncd.adapters.storage.interface import Storage
    from walsyncd.config import DatabaseSpec, Settings
    from walsyncd.core.keep.retention import Pruning
    from walsyncd.engine.upkeep.pruner import Folder


DEFAULT_TIMEOUT = "1h"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the databases, ``--dry-run``, ``--timeout`` and ``--json``."""
    parser.add_argument("name", nargs="?", metavar="NAME", help="a database (default: all that are configured)")
    parser.add_argument("--dry-run", action="store_true", help="remove nothing, show what would be removed and why")
    parser.add_argument(
        "--timeout", default=DEFAULT_TIMEOUT, metavar="TIME", help=f"wait no longer (default: {DEFAULT_TIMEOUT})"
    )
    parser.add_argument("--json", action="store_true", help="what --dry-run found as JSON")


def run(args: argparse.Namespace) -> int:
    """Have the daemon prune, or with ``--dry-run`` print what would be removed."""
    settings = settings_from(args)
    if not any(each.delete for each in settings.storages):
        raise _never_removed("storage")
    if not args.dry_run:
        return _ask(settings.daemon.state_dir, [args.name] if args.name else [], args.timeout)
    found = _look(settings, _specs(settings, args.name))
    if args.json:
        print(json_text({"databases": [_as_json(*each) for each in found]}))
    else:
        for name, folder, told in found:
            _print(name, folder, told)
    return 0


def _never_removed(section: str) -> UsageError:
    text = f"prune: nothing is removed with delete = false in [{section}]"
    return UsageError(text, hint="the bucket's lifecycle rule does that")


def _ask(state_dir: Path, names: list[str], timeout: str) -> int:
    """Have the daemon prune, and wait. Returns 1 if it failed for a database."""
    from walsyncd.config import parse_duration  # noqa: PLC0415  a command is light until it runs

    deadline = Deadline(parse_duration(timeout))
    answers = [(name, _outcome(state_dir, name, deadline)) for name in _asked(state_dir, names)]
    for name, (done, said) in answers:
        say(f"{name}: {said}" if done else f"walsyncd: prune {name}: {said}", file=sys.stdout if done else sys.stderr)
    return 0 if all(done for _, (done, _) in answers) else 1


def _asked(state_dir: Path, names: list[str]) -> list[str]:
    return list(call(state_dir, {"op": "prune", "names": names})["names"])


def _outcome(state_dir: Path, name: str, deadline: Deadline) -> tuple[bool, str]:
    """Return whether the database was pruned, and what to print."""
    while True:
        try:
            answer = call(state_dir, {"op": "pruned", "name": name})
        except WalsyncdError as error:
            return False, str(error)
        if not answer.get("waiting"):
            break
        if not deadline.pause():
            return False, "it is not done yet and continues; the log says what was removed"
    if answer["left"]:
        from walsyncd.engine.upkeep.deletion import KEPT_HINT  # noqa: PLC0415

        return False, f"{len(answer['left'])} objects are still there, first {answer['left'][0]} (hint: {KEPT_HINT})"
    return True, f"{answer['objects']} objects removed, {format_size(answer['size'])}"


def _specs(settings: Settings, name: str | None) -> list[DatabaseSpec]:
    from walsyncd.config import expand  # noqa: PLC0415  a command is light until it runs

    specs = searched(lambda: expand(settings))
    chosen = [spec for spec in specs if name in (None, spec.name)]
    for spec in chosen:
        if name is not None and not settings.storage_of(spec.storage).delete:
            raise _never_removed(settings.storage_of(spec.storage).section)
    if name is not None and not chosen:
        known = ", ".join(spec.name for spec in specs) or "none"
        raise UsageError(f"no database {name!r} is configured", hint=f"configured: {known}")
    return [spec for spec in chosen if settings.storage_of(spec.storage).delete]


def _look(settings: Settings, specs: Sequence[DatabaseSpec]) -> list[tuple[str, Folder, Pruning]]:
    """Return what each database's folder holds and what may be deleted.

    The journal is opened and listed once for all databases.
    """
    from walsyncd.adapters.journal.journal import reader  # noqa: PLC0415
    from walsyncd.engine.upkeep.base_examination import BaseExamination  # noqa: PLC0415
    from walsyncd.engine.upkeep.pruner import list_folder, policy_of, trustworthy_pruning  # noqa: PLC0415

    found: list[tuple[str, Folder, Pruning]] = []
    with ExitStack() as stack:
        journal = None
        with suppress(MissingError):  # the daemon may run on another machine
            state_dir = settings.daemon.state_dir
            journal = stack.enter_context(in_folder(state_dir, READ_STATE, lambda: reader(state_dir)))
        rows = {} if journal is None else {row.name: row for row in journal.databases()}
        storages: dict[str, Storage] = {}
        for spec in specs:
            how = settings.storage_of(spec.storage)
            if how.name not in storages:
                storages[how.name] = answering_storage(how)
            storage = storages[how.name]
            folder = list_folder(storage, spec.name)
            clock_ms = storage.clock_ms()
            now_ms = clock.wall_ms() if clock_ms is None else clock_ms
            row = rows.get(spec.name)
            decided = trustworthy_pruning(
                storage,
                folder,
                policy_of(spec),
                now_ms=now_ms,
                journal=journal,
                row=row,
                name=spec.name,
                examination=BaseExamination(),
            )
            for fault in decided.doubted.values():
                print(f"walsyncd: note: {spec.name}: a base does not count: {fault}", file=sys.stderr)
            found.append((spec.name, folder, decided.told))
    return found


def _print(name: str, folder: Folder, told: Pruning) -> None:
    from walsyncd.core.stored.layout import format_key  # noqa: PLC0415

    for each in told.going:
        say(f"{name}/{format_key(each.held.key)}  {format_size(each.held.size)}  {each.reason}")
    for key in folder.foreign:
        say(f"{key}  foreign: never touched")
    size = format_size(sum(each.held.size for each in told.going))
    after = f"; more may be removed at {format_moment(told.next_ms)}" if told.next_ms is not None else ""
    say(f"{name}: {len(told.going)} of {len(folder.held)} objects would be removed, {size}{after}")


def _as_json(name: str, folder: Folder, told: Pruning) -> dict[str, object]:
    from walsyncd.core.stored.layout import format_key  # noqa: PLC0415

    going = [{"key": format_key(each.held.key), "size": each.held.size, "reason": each.reason} for each in told.going]
    return {"name": name, "going": going, "foreign": list(folder.foreign), "next_ms": told.next_ms}
