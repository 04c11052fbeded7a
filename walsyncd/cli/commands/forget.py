"""``walsyncd forget``: deletes the whole replica of a database that is no longer followed.

The command shows what exists, and asks. It refuses while the configuration has the database, or while a daemon follows
the database. The journal's rows are deleted first, so that the daemon uploads nothing more. Then the objects are
deleted, with all their versions.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from walsyncd.cli import settings_from
from walsyncd.cli.bounded import READ_STATE, asked, in_folder, searched
from walsyncd.cli.configured_storage import answering_storage
from walsyncd.cli.daemon_client import call
from walsyncd.cli.replica_argument import is_url, storage_from_url, storages_from
from walsyncd.cli.table import counted
from walsyncd.config.units import format_size
from walsyncd.core.stored.moment import format_moment
from walsyncd.errors import NothingToRestoreError, UsageError, WalsyncdError

if TYPE_CHECKING:
    from walsyncd.adapters.storage.interface import Storage, Versions
    from walsyncd.config import Settings
    from walsyncd.engine.upkeep.erasure import Eraser, Remains

CALM_S = 2.0  # an upload that was under way when the daemon was notified may still arrive


@dataclass(frozen=True, slots=True)
class Subject:
    """The replica, and its name in this machine's configuration (None if the replica is not configured)."""

    storage: Storage
    folder: str
    name: str | None
    settings: Settings | None

    @property
    def title(self) -> str:
        """The name to show to the user."""
        return self.folder or self.storage.url


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add NAME|URL and --yes."""
    parser.description = (
        f"{parser.description}\n\n"
        "Nothing can be restored afterwards. Remove the database from the configuration\n"
        "first, or its file where a pattern found it, and run `walsyncd reload`.\n"
        "Versions that the store keeps are deleted too, which takes\n"
        "s3:ListBucketVersions and s3:DeleteObjectVersion."
    )
    parser.add_argument("replica", metavar="NAME|URL", help="a database's name, or the URL of its folder")
    parser.add_argument("--yes", action="store_true", help="do not ask")


def run(args: argparse.Namespace) -> int:
    """Delete the replica, and print what was deleted. Returns 1 if something is left, or if the user said no."""
    from walsyncd.engine.upkeep.erasure import Eraser  # noqa: PLC0415 - a command is light until it runs

    subject = _subject(args)
    if subject.settings is not None and subject.name is not None:
        _refuse_if_followed(subject.settings, subject.name)
    eraser = Eraser(subject.storage, subject.folder, _versions_of(subject.storage))
    remains = eraser.look()
    known = _is_in_journal(subject)
    if remains.is_empty and not known:
        _say_nothing_there(subject)
    _show(subject, remains, eraser.versions_refused)
    if not args.yes and not _is_confirmed(subject):
        print("walsyncd: nothing was deleted", file=sys.stderr)
        return 1
    has_daemon = _forget_in_journal(subject)
    return _erase(subject, eraser, remains, has_daemon=has_daemon)


def _subject(args: argparse.Namespace) -> Subject:
    settings = _settings(args, is_needed=not is_url(args.replica))
    if is_url(args.replica):
        storage = storage_from_url(args)
        around = [each for each in (settings.storages if settings else ()) if storage.url.startswith(f"{each.url}/")]
        if around:
            nearest = max(around, key=lambda each: len(each.url))
            name = storage.url.removeprefix(f"{nearest.url}/")
            return Subject(answering_storage(nearest), name, name, settings)
        return Subject(storage, "", None, settings)
    assert settings is not None
    name = args.replica.strip("/")
    if not name:
        raise UsageError("forget: no database given", hint="`walsyncd ls` shows them")
    return Subject(_storage_with(settings, name), name, name, settings)


def _storage_with(settings: Settings, name: str) -> Storage:
    """Return the first storage that has objects of the database. Another storage may have an older part of them."""
    storages = storages_from(settings)
    holding = (storage for storage in storages if next(iter(storage.list(f"{name}/")), None) is not None)
    return storages[0] if len(storages) == 1 else next(holding, storages[0])


def _settings(args: argparse.Namespace, *, is_needed: bool) -> Settings | None:
    """Return the configuration. With a URL the configuration may be missing (None), but an existing one is used."""
    from walsyncd.config.loading import find_file  # noqa: PLC0415

    if not is_needed and args.config is None and not find_file(None).exists():
        return None
    return settings_from(args)


def _refuse_if_followed(settings: Settings, name: str) -> None:
    from walsyncd.config import expand  # noqa: PLC0415
    from walsyncd.engine.daemon.control import FORGET_HINT  # noqa: PLC0415

    spec = next((spec for spec in searched(lambda: expand(settings)) if spec.name == name), None)
    if spec is not None:
        raise UsageError(f"forget {name}: {settings.file} has it, as {spec.path}", hint=FORGET_HINT)
    answer = asked(settings.daemon.state_dir, {"op": "status"}, timeout_s=60.0)
    if answer is not None and any(row["name"] == name for row in answer.get("databases", ())):
        raise UsageError(f"forget {name}: the daemon follows it", hint=FORGET_HINT)


def _versions_of(storage: Storage) -> Versions | None:
    """Return the versions that the storage keeps, or None for a folder."""
    versions: Callable[[], Versions] | None = getattr(storage, "versions", None)
    return versions() if versions is not None else None


def _is_in_journal(subject: Subject) -> bool:
    from walsyncd.errors import MissingError  # noqa: PLC0415

    if subject.settings is None:
        return False
    state_dir = subject.settings.daemon.state_dir
    try:
        return in_folder(state_dir, READ_STATE, lambda: subject.name in _names_in(state_dir))
    except MissingError:
        return False


def _names_in(state_dir: Path) -> set[str]:
    from walsyncd.adapters.journal.journal import reader  # noqa: PLC0415

    with reader(state_dir) as journal:
        return {row.name for row in journal.databases()}


def _say_nothing_there(subject: Subject) -> None:
    from walsyncd.engine.restore.replica import find_replicas  # noqa: PLC0415

    below = find_replicas(subject.storage, subject.folder)
    hint = f"below it are {counted(len(below), 'database')}, first {below[0]}" if below else "`walsyncd ls` shows them"
    raise NothingToRestoreError(f"forget {subject.title}: there is no replica", hint=hint)


def _show(subject: Subject, remains: Remains, versions_refused: str) -> None:
    counts = counted(remains.generations, "generation"), counted(len(remains.objects), "object")
    place = f", in {subject.storage.url}" if subject.folder else ""
    lines = [f"{subject.title}{place}:", f"  {', '.join(counts)}, {format_size(remains.size)}"]
    if len(remains.versions) > len(remains.objects):
        lines.append(f"  {counted(len(remains.versions), 'version')} and delete markers in all: the store keeps them")
    if remains.uploads:
        lines.append(f"  {counted(remains.uploads, 'open upload')}")
    if remains.last_ms is not None:
        lines.append(f"  stored last at {format_moment(remains.last_ms)}")
    if remains.owner is not None:
        lines.append(f"  written by {remains.owner}: no daemon may follow it any more")
    if remains.foreign:
        lines.append(f"  {counted(remains.foreign, 'object')} that are not walsyncd's stay")
    if versions_refused:
        lines.append(f"  versions can't be seen: {versions_refused}")
    print("\n".join(lines), file=sys.stderr)


def _is_confirmed(subject: Subject) -> bool:
    """Whether the user answered with yes or with the name. A missing answer counts as no."""
    question = f"Delete all of it? Nothing of {subject.title} can be restored then. [y/N] "
    print(question, end="", file=sys.stderr, flush=True)
    answer = sys.stdin.readline().strip()
    return answer.lower() in {"y", "yes"} or answer == subject.title


def _forget_in_journal(subject: Subject) -> bool:
    """Remove the database from the journal. Returns whether a daemon is running."""
    from walsyncd.adapters.journal.journal import Journal, lock_state_dir  # noqa: PLC0415

    if subject.settings is None or subject.name is None:
        return False
    state_dir: Path = subject.settings.daemon.state_dir
    if asked(state_dir, {"op": "ping"}, timeout_s=60.0) is not None:
        call(state_dir, {"op": "forget", "name": subject.name})
        return True
    if not _is_in_journal(subject):
        return False
    with lock_state_dir(state_dir), Journal.open(state_dir) as journal:
        for row in journal.databases():
            if row.name == subject.name:
                journal.drop_spool(row.id)
                journal.forget_database(row.id)
        journal.sweep_forgotten()
        journal.sweep()
    return False


def _erase(subject: Subject, eraser: Eraser, remains: Remains, *, has_daemon: bool) -> int:
    began_s = time.monotonic()
    removed = eraser.erase(lambda count: _tell(count, began_s))
    if has_daemon:
        time.sleep(CALM_S)
        removed += eraser.erase()
    print(f"{subject.title}: {counted(removed, 'object')} deleted, {format_size(remains.size)}; nothing is left")
    if eraser.versions_refused:
        raise WalsyncdError(
            f"forget {subject.title}: versions could not be seen: {eraser.versions_refused}",
            hint="if the bucket keeps versions they are still there: allow s3:ListBucketVersions and"
            " s3:DeleteObjectVersion, and run this again",
        )
    return 0


def _tell(count: int, began_s: float) -> None:
    """Print on a terminal how many objects a long deletion has removed so far."""
    if sys.stderr.isatty() and time.monotonic() - began_s > CALM_S:
        print(f"\r{count} deleted", end="", file=sys.stderr, flush=True)
