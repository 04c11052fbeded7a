"""Tests of values that a key can't take: the error names the key and the value, and says what is accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from walsyncd.config import load
from walsyncd.config.schema import SECTIONS, DefaultsSection
from walsyncd.errors import UsageError

DURATION = 'a number and a unit: "500ms", "1s", "5m", "24h" or "7d"'
SIZE = 'a number of bytes, or with a unit: "64KiB", "4GiB" or "10MB"'
LENGTH = "longer than 0 and at most a hundred years"
PATH = "write the whole path, from / on"
TEXT = "must be text in quotes"
BOOLEAN = "must be true or false"
NUMBER = "must be a whole number"

# A key, values for it as they are in a file, and the error for each.
BAD: dict[str, list[tuple[str, str]]] = {
    "storage.url": [("1", TEXT), ("''", "must not be empty"), ("'bucket'", "s3://bucket/prefix for object storage")],
    "storage.endpoint_url": [("'s3.example.com'", "http:// or https://"), ("1", TEXT)],
    "storage.ca_file": [("'ca.pem'", PATH), ("1", TEXT)],
    "storage.region": [("''", "must not be empty"), ("1", TEXT)],
    "storage.access_key_id": [("''", "must not be empty")],
    "storage.secret_access_key": [("1", TEXT)],
    "storage.session_token": [("true", TEXT)],
    "storage.profile": [("''", "must not be empty")],
    "storage.role_arn": [("'walsyncd'", '"arn:aws:iam::123456789012:role/walsyncd"')],
    "storage.role_external_id": [("5", TEXT)],
    "storage.addressing_style": [("'host'", "must be 'auto', 'path' or 'virtual'")],
    "storage.storage_class": [("'ia'", '"STANDARD_IA"'), ("'GLACIER'", "is an archive")],
    "storage.encryption": [("'aes'", "must be 'sse-s3', 'sse-kms' or 'sse-c'")],
    "storage.kms_key_id": [("''", "must not be empty")],
    "storage.sse_c_key_file": [("'key'", PATH)],
    "storage.timeout": [("'2m'", "must be from 1s to 25s"), ("20", DURATION)],
    "storage.delete": [("'never'", BOOLEAN)],
    "storage.expire_after": [("'30'", DURATION), ("'0s'", LENGTH)],
    "daemon.state_dir": [("'state'", PATH), ("1", TEXT)],
    "daemon.spool_bytes_max": [("'lots'", SIZE), ("'1KiB'", 'at least "128KiB"')],
    "daemon.uploads_max": [("0", "at least 1"), ("257", "at most 256"), ("'eight'", NUMBER), ("2.5", NUMBER)],
    "daemon.upload_bytes_per_second_max": [("'fast'", SIZE), ("'10B'", 'at least "1KiB"')],
    "daemon.log_level": [("'verbose'", "must be 'debug', 'info', 'warning' or 'error'")],
    "daemon.log_format": [
        ("'text'", "must be 'auto', 'json' or 'journal'"),
        ("1", "must be 'auto', 'json' or 'journal'"),
    ],
    "daemon.probe_interval": [
        ("60", DURATION),
        ("'never'", 'or "off"'),
        ("false", 'or "off"'),
        ("'100ms'", 'at least "1s"; the default is "1m", "off" never asks'),
    ],
    "notify.heartbeat_url": [("'hc-ping.com/x'", "http:// or https://"), ("1", TEXT)],
    "notify.heartbeat_interval": [("60", DURATION), ("'1s'", 'at least "10s"; the default is "1m"')],
    "notify.problem_url": [("'ftp://host/x'", "http:// or https://"), ("'https://host:x/'", "http:// or https://")],
    "daemon.stop_timeout": [("30", DURATION), ("'0s'", LENGTH), ("'-5s'", DURATION), ("['30s']", DURATION)],
    "daemon.metrics_listen": [
        ("9187", 'for example "127.0.0.1:9187"'),
        ("':9187'", 'for example "127.0.0.1:9187"'),
        ("'127.0.0.1:99999'", 'for example "127.0.0.1:9187"'),
    ],
    "daemon.metrics_textfile": [("'walsyncd.prom'", PATH)],
    "defaults.storage": [("1", TEXT), ("''", "must not be empty"), ("'elsewhere'", "[storage.elsewhere]")],
    "defaults.upload_interval": [("'1 hour'", DURATION), ("'36526d'", LENGTH)],
    "defaults.snapshot_interval": [("24", DURATION)],
    "defaults.snapshot_wal_ratio": [("0", "at least 0.1"), ("nan", "at most 1000"), ("'big'", "must be a number")],
    "defaults.retention": [("'forever'", DURATION)],
    "defaults.keep_daily": [("-1", "at least 0")],
    "defaults.keep_weekly": [("'4w'", NUMBER)],
    "defaults.keep_monthly": [("40000", "at most 36525")],
    "defaults.presence": [("'maybe'", BOOLEAN), ("2", BOOLEAN)],
    "defaults.backpressure": [("'maybe'", BOOLEAN), ("2", BOOLEAN)],
    "defaults.wal_bytes_max": [("'big'", '"10MB"'), ("'1MiB'", 'at least "4MiB"')],
    "defaults.verify_interval": [("'sometimes'", 'or "off"'), ("7", DURATION)],
    "defaults.scrub_interval": [("'sometimes'", 'or "off"'), ("24", DURATION)],
    "database.path": [("'app.db'", PATH), ("1", TEXT)],
    "database.storage": [("1", TEXT), ("'elsewhere'", "known are 'default'")],
    "database.exclude": [("'/srv/test/*'", "must be a list")],
    "database.name": [("5", TEXT), ("'../a'", "path segment '..'")],
}
BAD |= {f"database.{key}": BAD[f"defaults.{key}"] for key in DefaultsSection.model_fields}
SECRET = {"access_key_id", "secret_access_key", "session_token", "role_external_id", "heartbeat_url", "problem_url"}


def file_with(folder: Path, key: str, value: str) -> Path:
    """Return a configuration that is right except for this key."""
    section, _, name = key.partition(".")
    sections: dict[str, dict[str, str]] = {each: {} for each in SECTIONS}
    sections["storage"]["url"], sections["database"]["path"] = '"file:///srv/replica"', '"/a.db"'
    sections[section][name] = value.replace("'", '"')
    lines = []
    for title, keys in sections.items():
        lines.append("[[database]]" if title == "database" else f"[{title}]")
        lines += [f"{each} = {given}" for each, given in keys.items()]
    file = folder / "config.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


@pytest.mark.parametrize(("key", "value", "accepted"), [(key, *case) for key, cases in BAD.items() for case in cases])
def test_the_error_names_key_value_and_what_is_accepted(tmp_path: Path, key: str, value: str, accepted: str) -> None:
    """The error is one line and a hint. Only a secret's value is left out."""
    with pytest.raises(UsageError) as refused:
        load(file_with(tmp_path, key, value))
    section, _, name = key.partition(".")
    place = f"database[1].{name}" if section == "database" else key
    shown = place if name in SECRET else f"{place} = {value}"
    assert f"{shown}: " in refused.value.message
    assert accepted in str(refused.value)
    assert "input should" not in refused.value.message, "pydantic's words, not ours"


@pytest.mark.parametrize("key", [f"daemon.{name}" for name in SECTIONS["daemon"].model_fields])
def test_a_variable_is_refused_in_the_same_words(tmp_path: Path, key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The values of variables are all text."""
    value, _ = next(case for case in BAD[key] if case[0].startswith("'"))
    variable = f"WALSYNCD_{key.replace('.', '__').upper()}"
    monkeypatch.setenv(variable, value.strip("'"))
    with pytest.raises(UsageError) as refused:
        load(file_with(tmp_path, "defaults.presence", "false"))
    assert f"environment {variable} = {value}: " in refused.value.message


def test_no_key_is_left_out() -> None:
    """A new key must be added here with a value that it does not accept."""
    keys = {f"{section}.{name}" for section, model in SECTIONS.items() for name in model.model_fields}
    assert keys == BAD.keys()
