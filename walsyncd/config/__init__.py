"""The configuration: a leaf that turns TOML, environment and disk into frozen values.

``load`` returns ``Settings``. ``expand`` returns the databases that its entries select on this disk, at this moment.
"""

from walsyncd.config.database_search import check_named, expand, find_databases
from walsyncd.config.database_specs import DatabaseSpec, Found, Suspended
from walsyncd.config.links import resolve
from walsyncd.config.loading import load, secrets_in, storage_at
from walsyncd.config.mounts import mount_of
from walsyncd.config.patterns import NewNames, SearchStoppedError
from walsyncd.config.settings import DaemonSettings, DatabaseEntry, NotifySettings, Settings, StorageSettings
from walsyncd.config.units import format_duration, format_size, parse_duration, parse_size

__all__ = [
    "DaemonSettings",
    "DatabaseEntry",
    "DatabaseSpec",
    "Found",
    "NewNames",
    "NotifySettings",
    "SearchStoppedError",
    "Settings",
    "StorageSettings",
    "Suspended",
    "check_named",
    "expand",
    "find_databases",
    "format_duration",
    "format_size",
    "load",
    "mount_of",
    "parse_duration",
    "parse_size",
    "resolve",
    "secrets_in",
    "storage_at",
]
