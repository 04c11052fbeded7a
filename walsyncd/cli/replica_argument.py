"""Resolves ``NAME|URL``: the replica that a command is about.

A URL is the folder of a database and needs no configuration. A name is a folder below the storage that its entry in the
configuration selects. A name without an entry is searched for in every storage.
"""

from __future__ import annotations

import argparse
import fnmatch
from collections.abc import Sequence
from typing import TYPE_CHECKING

from walsyncd.cli import settings_from
from walsyncd.cli.configured_storage import answering_storage
from walsyncd.errors import UsageError

if TYPE_CHECKING:
    from walsyncd.adapters.storage.interface import Storage
    from walsyncd.config import DatabaseEntry, Settings
    from walsyncd.engine.restore.replica import Replica

NAMES_SHOWN_MAX = 20  # an error shows no more names; `walsyncd ls` shows all


def is_url(text: str) -> bool:
    """Whether an argument is a URL and not a name."""
    return "://" in text


def replica_from(args: argparse.Namespace) -> Replica:
    """Return the replica that ``args.replica`` names. If there is none, raises UsageError with the known names."""
    from walsyncd.engine.restore.replica import Replica  # noqa: PLC0415  a command is light until it runs

    if is_url(args.replica):
        return Replica(storage_from_url(args))
    settings, name = settings_from(args), args.replica.strip("/")
    entry = configured_entry(settings, name)
    if entry is not None:
        return Replica(answering_storage(settings.storage_of(entry.storage)), name)
    storages = storages_from(settings)
    replicas = (Replica(storage, name) for storage in storages)
    found = next((replica for replica in replicas if replica.generations()), None)
    if found is None:
        raise _unknown(name, storages, settings)
    return found


def storages_from(settings: Settings) -> list[Storage]:
    """Return every storage of the configuration, ``[storage]`` first."""
    return [answering_storage(each) for each in settings.storages]


def storage_from_url(args: argparse.Namespace) -> Storage:
    """Return the storage whose root is the folder that ``args.replica`` names."""
    from walsyncd.config import storage_at  # noqa: PLC0415

    return answering_storage(storage_at(args.replica, args.config))


def configured_entry(settings: Settings, name: str) -> DatabaseEntry | None:
    """Return the entry with that name, or the entry of a pattern that could match a file with that name.

    The file need not exist on this machine.
    """
    from walsyncd.core.stored.layout import default_name  # noqa: PLC0415

    for entry in settings.databases:
        if entry.is_pattern and fnmatch.fnmatchcase(name, default_name(entry.path)):
            return entry
        if not entry.is_pattern and name == (entry.name or default_name(entry.path)):
            return entry
    return None


def _unknown(name: str, storages: Sequence[Storage], settings: Settings) -> UsageError:
    from walsyncd.core.stored.layout import default_name  # noqa: PLC0415
    from walsyncd.engine.restore.replica import find_replicas  # noqa: PLC0415

    entries = [entry for entry in settings.databases if not entry.is_pattern]
    stored = [found for storage in storages for found in find_replicas(storage)]
    known = {*stored, *(entry.name or default_name(entry.path) for entry in entries)}
    shown = sorted(known - {""})[:NAMES_SHOWN_MAX]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    listed = (
        f"known: {', '.join(shown)}{more}"
        if shown
        else f"there is no database in {' or '.join(each.url for each in storages)}"
    )
    return UsageError(f"no database {name!r}; {listed}", hint="`walsyncd ls` shows all of them")
