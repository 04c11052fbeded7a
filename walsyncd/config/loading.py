"""Makes ``Settings`` from a TOML file, the environment and systemd's credentials. Reports all problems at once."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError
from pydantic_settings import SettingsError

from walsyncd.config.keeping import keeping_problems
from walsyncd.config.patterns import fixed_part
from walsyncd.config.problem import Problem, error_of, problem_of, unknown_variables
from walsyncd.config.schema import ConfigFile, DatabaseSection, DefaultsSection
from walsyncd.config.settings import DaemonSettings, DatabaseEntry, Keep, NotifySettings, Settings, StorageSettings
from walsyncd.config.storage_section import DEFAULT_NAME, URL_HINT, all_storages, url_problem
from walsyncd.core.stored.layout import check_name, default_name
from walsyncd.errors import UsageError

DEFAULT_FILE = Path("/etc/walsyncd/config.toml")
FILE_VARIABLE = "WALSYNCD_CONFIG"


def load(path: Path | None) -> Settings:
    """Return the configuration in ``path``, else in ``$WALSYNCD_CONFIG``, else in ``/etc/walsyncd/config.toml``.

    Raises UsageError, which names the file and, for each wrong key, the value and what to do.
    """
    file = find_file(path)
    return _settings(file, _read(file))


def storage_at(url: str, path: Path | None) -> StorageSettings:
    """Return how to reach ``url``: by the settings of the storage that contains it, else by those of ``[storage]``.

    Commands that are given a replica's URL use this. Such commands work on a machine without any configuration.
    """
    file = find_file(path)
    content = _read(file, missing_ok=file == DEFAULT_FILE)
    storage = content.get("storage", {})
    content["storage"] = {"url": url} | storage if isinstance(storage, dict) else storage
    settings = _settings(file, content)
    problem = url_problem(url)
    if problem:
        raise UsageError(f"address {url!r}: {problem}", hint=URL_HINT)
    around = [each for each in settings.storages if f"{url}/".startswith(f"{each.url}/")]
    nearest = max(around, key=lambda each: len(each.url), default=settings.storage)
    return replace(nearest, url=url.rstrip("/"))


def secrets_in(file: Path) -> list[str]:
    """Return the names of the secret keys that this file sets. Secrets in the environment do not count."""
    content = _read(file)
    storage, notify = content.get("storage", {}), content.get("notify", {})
    of_storage = ("secret_access_key", "session_token")
    sections = [(each, of_storage) for each in ([storage, *storage.values()] if isinstance(storage, dict) else [])]
    sections.append((notify, ("heartbeat_url", "problem_url")))
    return [name for section, names in sections if isinstance(section, dict) for name in names if name in section]


def find_file(path: Path | None) -> Path:
    """Return the path of the configuration, whether or not it exists."""
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
            f"configuration {file} is not TOML: {error}", hint="text needs quotes, and sections need brackets"
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
    storages, storage_problems = all_storages(parsed.storage)
    databases = tuple(_entry(number, section, parsed.defaults) for number, section in enumerate(parsed.database, 1))
    problems += storage_problems
    names = {each.name: each for each in storages}
    problems += _selection_problems(parsed, sorted(names))
    for entry in databases:
        problems += _entry_problems(entry, names[entry.storage].prefix if entry.storage in names else "")
    for name, storage in names.items():
        problems += keeping_problems(storage, [entry for entry in databases if entry.storage == name])
    if problems:
        raise error_of(file, problems)
    return Settings(
        file=file,
        storage=storages[0],
        daemon=_daemon(parsed),
        databases=databases,
        others=tuple(storages[1:]),
        notify=_notify(parsed),
    )


def _selection_problems(parsed: ConfigFile, names: Sequence[str]) -> Iterator[Problem]:
    """Yield a problem for each database that selects a storage that does not exist."""
    chosen = [(f"database[{number}]", each.storage) for number, each in enumerate(parsed.database, 1)]
    for key, name in [("defaults", parsed.defaults.storage), *chosen]:
        if name is not None and name != DEFAULT_NAME and name not in names:
            known = ", ".join(map(repr, [DEFAULT_NAME, *filter(None, names)]))
            hint = f"known are {known}; or add [storage.{name}] with its url"
            yield Problem(f"{key}.storage", repr(name), "there is no such storage", hint)


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


def _notify(parsed: ConfigFile) -> NotifySettings:
    section = parsed.notify
    return NotifySettings(section.heartbeat_url, section.heartbeat_interval, section.problem_url)


def _entry(number: int, section: DatabaseSection, defaults: DefaultsSection) -> DatabaseEntry:
    presence = section.presence if section.presence is not None else defaults.presence
    backpressure = section.backpressure if section.backpressure is not None else defaults.backpressure
    verify_s = section.verify_interval if section.verify_interval is not None else defaults.verify_interval
    scrub_s = section.scrub_interval if section.scrub_interval is not None else defaults.scrub_interval
    return DatabaseEntry(
        key=f"database[{number}]",
        path=str(PurePosixPath(section.path)),
        name=section.name,
        exclude=tuple(str(PurePosixPath(pattern)) for pattern in section.exclude),
        upload_interval_s=section.upload_interval or defaults.upload_interval,
        snapshot_interval_s=section.snapshot_interval or defaults.snapshot_interval,
        retention_s=section.retention or defaults.retention,
        presence=presence,
        snapshot_wal_ratio=section.snapshot_wal_ratio or defaults.snapshot_wal_ratio,
        verify_interval_s=verify_s or None,
        scrub_interval_s=scrub_s or None,
        storage=_storage_name(section.storage or defaults.storage),
        backpressure=backpressure,
        wal_bytes_max=section.wal_bytes_max or defaults.wal_bytes_max,
        keep=Keep(
            daily=defaults.keep_daily if section.keep_daily is None else section.keep_daily,
            weekly=defaults.keep_weekly if section.keep_weekly is None else section.keep_weekly,
            monthly=defaults.keep_monthly if section.keep_monthly is None else section.keep_monthly,
        ),
    )


def _storage_name(selected: str | None) -> str:
    return "" if selected in {None, DEFAULT_NAME} else str(selected)


def _entry_problems(entry: DatabaseEntry, prefix: str) -> Iterator[Problem]:
    if entry.exclude and not entry.is_pattern:
        hint = "only a pattern in path matches anything that could be excluded"
        yield Problem(f"{entry.key}.exclude", repr(list(entry.exclude)), "path is no pattern", hint)
    if entry.is_pattern and ".." in entry.path.removeprefix(fixed_part(entry.path)).split("/"):
        hint = "write the pattern without it"
        yield Problem(f"{entry.key}.path", repr(entry.path), "goes through .. after a wildcard", hint)
    if entry.name is not None and entry.is_pattern:
        hint = "remove it: each match is named after its path; or write one [[database]] for each"
        yield Problem(f"{entry.key}.name", repr(entry.name), "a pattern has no single name", hint)
    elif not entry.is_pattern:
        key, value = ("name", entry.name) if entry.name is not None else ("path", entry.path)
        try:
            check_name(entry.name if entry.name is not None else default_name(entry.path), prefix)
        except UsageError as error:
            yield Problem(f"{entry.key}.{key}", repr(value), error.message, error.hint)
