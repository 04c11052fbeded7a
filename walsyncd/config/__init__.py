"""The configuration: a leaf that turns TOML, environment and disk into frozen values.

``load`` returns ``Settings``. ``expand`` returns the databases that its entries mean on this disk, at this moment.
"""

from walsyncd.config.database_specs import DatabaseSpec, expand
from walsyncd.config.loading import load, secrets_in, storage_at
from walsyncd.config.patterns import glob_folders
from walsyncd.config.settings import DaemonSettings, DatabaseEntry, NotifySettings, Settings, StorageSettings
from walsyncd.config.units import format_duration, format_size, parse_duration, parse_size

__all__ = [
    "DaemonSettings",
    "DatabaseEntry",
    "DatabaseSpec",
    "NotifySettings",
    "Settings",
    "StorageSettings",
    "expand",
    "format_duration",
    "format_size",
    "glob_folders",
    "load",
    "parse_duration",
    "parse_size",
    "secrets_in",
    "storage_at",
]
