"""From a TOML file, the environment and systemd's credentials to ``Settings``; all problems at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from walsyncd.config.keeping import keeping_problems
from walsyncd.config.problem import Problem, error_of, problem_of, unknown_variables
from walsyncd.config.schema import ConfigFile, DatabaseSection, DefaultsSection
from walsyncd.config.settings import DaemonSettings, DatabaseEntry, Keep, Settings, StorageSettings
from walsyncd.config.storage_section import URL_HINT, storage_settings, url_problem
from walsyncd.core.stored.layout import check_name, default_name
from walsyncd.errors import UsageError

DEFAULT_FILE = Path("/etc/walsyncd/config.toml")
FILE_VARIABLE = "WALSYNCD_CONFIG"


def load(path: Path | None) -> Settings:
    """The configuration in ``path``, else in ``$WALSYNCD_CONFIG``, else in ``/etc/walsyncd/config.toml``.

    UsageError names the file and every key that is wrong, with its value and the way out.
    """
    file = find_file(path)
    return _settings(file, _read(file))


def storage_at(url: str, path: Path | None) -> StorageSettings:
    """How to reach ``url``: the ``[storage]`` of the configuration, if there is one, with another address.

    For commands that are told a replica's URL, which work on a machine without any configuration.
    """
    file = find_file(path)
    content = _read(file, missing_ok=file == DEFAULT_FILE)
    storage = content.get("storage", {})
    content["storage"] = storage | {"url": url} if isinstance(storage, dict) else storage
    settings = _settings(file, content)
    problem = url_problem(url)
    if problem:
        raise UsageError(f"address {url!r}: {problem}", hint=URL_HINT)
    return replace(settings.storage, url=url.rstrip("/"))


def secrets_in(file: Path) -> list[str]:
    """The keys of ``[storage]`` in this file, the environment apart, that nobody else may know."""
    storage = _read(file).get("storage", {})
    return [name for name in ("secret_access_key", "session_token") if isinstance(storage, dict) and name in storage]


def find_file(path: Path | None) -> Path:
    """Where the configuration is, whether or not it exists."""
    return path or Path(os.environ.get(FILE_VARIABLE) or DEFAULT_FILE)


def _read(file: Path, *, missing_ok: bool = False) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if missing_ok:
            return {}
        hint = f"copy config.example.toml there, or name another file with --config or ${FILE_VARIABLE}"
        raise UsageError(f"configuration {file} does not exist", hint=hint) from None
    except OSError as error:
        raise UsageError(
            f"read configuration {file}: {error.strerror}", hint="it must be a file that this user may read"
        ) from error
    except UnicodeDecodeError as error:
        raise UsageError(f"configuration {file} is not UTF-8 at byte {error.start}", hint="save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        raise UsageError(
            f"configuration {file} is not TOML: {error}", hint="text stands in quotes, sections in brackets"
        ) from None


def _settings(file: Path, content: Mapping[str, Any]) -> Settings:
    problems = list(unknown_variables())
    try:
        parsed = ConfigFile(**content)
    except ValidationError as error:
        problems += [problem_of(details) for details in error.errors(include_url=False)]
        raise error_of(file, problems) from None
    except SettingsError as error:
        raise UsageError(
            f"configuration from the environment: {error}", hint="a variable for a whole section must be JSON"
        ) from None
    storage, storage_problems = storage_settings(parsed.storage)
    databases = tuple(_entry(number, section, parsed.defaults) for number, section in enumerate(parsed.database, 1))
    problems += storage_problems
    problems += [problem for entry in databases for problem in _entry_problems(entry, storage.prefix)]
    problems += keeping_problems(storage, databases)
    if problems:
        raise error_of(file, problems)
    return Settings(file=file, storage=storage, daemon=_daemon(parsed), databases=databases)


def _daemon(parsed: ConfigFile) -> DaemonSettings:
    section = parsed.daemon
    return DaemonSettings(
        state_dir=Path(section.state_dir),
        spool_bytes_max=section.spool_bytes_max,
        uploads_max=section.uploads_max,
        upload_bytes_per_second_max=section.upload_bytes_per_second_max,
        log_level=section.log_level,
        log_format=section.log_format,
        probe_interval_s=section.probe_interval,
        stop_timeout_s=section.stop_timeout,
        metrics_listen=section.metrics_listen,
        metrics_textfile=Path(section.metrics_textfile) if section.metrics_textfile else None,
    )


def _entry(number: int, section: DatabaseSection, defaults: DefaultsSection) -> DatabaseEntry:
    presence = section.presence if section.presence is not None else defaults.presence
    verify_s = section.verify_interval if section.verify_interval is not None else defaults.verify_interval
    return DatabaseEntry(
        key=f"database[{number}]",
        path=str(PurePosixPath(section.path)),
        name=section.name,
        upload_interval_s=section.upload_interval or defaults.upload_interval,
        snapshot_interval_s=section.snapshot_interval or defaults.snapshot_interval,
        retention_s=section.retention or defaults.retention,
        presence=presence,
        snapshot_wal_ratio=section.snapshot_wal_ratio or defaults.snapshot_wal_ratio,
        verify_interval_s=verify_s or None,
        keep=Keep(
            daily=defaults.keep_daily if section.keep_daily is None else section.keep_daily,
            weekly=defaults.keep_weekly if section.keep_weekly is None else section.keep_weekly,
            monthly=defaults.keep_monthly if section.keep_monthly is None else section.keep_monthly,
        ),
    )


def _entry_problems(entry: DatabaseEntry, prefix: str) -> Iterator[Problem]:
    if entry.name is not None and entry.is_pattern:
        hint = "remove it: each match is named after its path; or write one [[database]] for each"
        yield Problem(f"{entry.key}.name", repr(entry.name), "a pattern has no single name", hint)
    elif not entry.is_pattern:
        key, value = ("name", entry.name) if entry.name is not None else ("path", entry.path)
        try:
            check_name(entry.name if entry.name is not None else default_name(entry.path), prefix)
        except UsageError as error:
            yield Problem(f"{entry.key}.{key}", repr(value), error.message, error.hint)
