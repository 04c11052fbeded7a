"""``NAME|URL``: which replica a command is about.

A URL is the folder of a database and needs no configuration. A name is a folder below the configured storage.
"""

from __future__ import annotations

import argparse
import fnmatch
from typing import TYPE_CHECKING

from walsyncd.cli import settings_from
from walsyncd.cli.configured_storage import storage_from
from walsyncd.errors import UsageError

if TYPE_CHECKING:
    from walsyncd.adapters.storage.interface import Storage
    from walsyncd.config import Settings
    from walsyncd.engine.restore.replica import Replica

NAMES_SHOWN_MAX = 20  # in an error; `walsyncd ls` shows all


def is_url(text: str) -> bool:
    """Whether an argument is a URL and not a name."""
    return "://" in text


def replica_from(args: argparse.Namespace) -> Replica:
    """Return the replica that ``args.replica`` names. Raises UsageError with the known names if it is none of them."""
    from walsyncd.engine.restore.replica import Replica  # noqa: PLC0415  a command is light until it runs

    if is_url(args.replica):
        return Replica(storage_from_url(args))
    settings = settings_from(args)
    storage = storage_from(settings.storage)
    replica = Replica(storage, args.replica.strip("/"))
    if not is_configured(settings, replica.name) and not replica.generations():
        raise _unknown(replica.name, storage, settings)
    return replica


def storage_from_url(args: argparse.Namespace) -> Storage:
    """Return the storage whose root is the folder that ``args.replica`` names."""
    from walsyncd.config import storage_at  # noqa: PLC0415

    return storage_from(storage_at(args.replica, args.config))


def is_configured(settings: Settings, name: str) -> bool:
    """Whether an entry has that name, or a pattern could match it. The file need not exist on this machine."""
    from walsyncd.core.stored.layout import default_name  # noqa: PLC0415

    for entry in settings.databases:
        if entry.is_pattern and fnmatch.fnmatchcase(name, default_name(entry.path)):
            return True
        if not entry.is_pattern and name == (entry.name or default_name(entry.path)):
            return True
    return False


def _unknown(name: str, storage: Storage, settings: Settings) -> UsageError:
    from walsyncd.core.stored.layout import default_name  # noqa: PLC0415
    from walsyncd.engine.restore.replica import find_replicas  # noqa: PLC0415

    entries = [entry for entry in settings.databases if not entry.is_pattern]
    known = {*find_replicas(storage), *(entry.name or default_name(entry.path) for entry in entries)}
    shown = sorted(known - {""})[:NAMES_SHOWN_MAX]
    more = f" and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    listed = f"known: {', '.join(shown)}{more}" if shown else f"there is no database in {storage.url}"
    return UsageError(f"no database {name!r}; {listed}", hint="`walsyncd ls` shows all of them")
