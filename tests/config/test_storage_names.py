"""Tests of ``[storage.NAME]``: several storages, and which database is stored where."""

from __future__ import annotations

from pathlib import Path

import pytest

from walsyncd.config import Settings, load, secrets_in, storage_at
from walsyncd.errors import UsageError

DEFAULT = "[storage]\nurl = 'file:///replica'\n"
TENANT = "[storage.tenant_a]\nurl = 's3://tenant/sqlite'\naccess_key_id = 'a'\nsecret_access_key = 'secret'\n"


def _load(folder: Path, text: str) -> Settings:
    file = folder / "config.toml"
    file.write_text(text)
    return load(file)


def _refusal(folder: Path, text: str) -> str:
    with pytest.raises(UsageError) as refused:
        _load(folder, text)
    return str(refused.value)


def test_each_database_selects_its_storage(tmp_path: Path) -> None:
    """Its own key selects it, else that of [defaults].

    "default" is [storage] itself, from which other storages inherit nothing.
    """
    settings = _load(
        tmp_path,
        f"{DEFAULT}region = 'eu-central-1'\n{TENANT}[defaults]\nstorage = 'tenant_a'\n"
        "[[database]]\npath = '/a.db'\n[[database]]\npath = '/b.db'\nstorage = 'default'\n",
    )
    assert [each.storage for each in settings.databases] == ["tenant_a", ""]
    tenant = settings.storage_of("tenant_a")
    assert (tenant.url, tenant.options["access_key_id"], tenant.options["region"]) == ("s3://tenant/sqlite", "a", None)
    assert settings.storage_of("") is settings.storage
    assert [each.section for each in settings.storages] == ["storage", "storage.tenant_a"]


def test_variables_reach_every_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable can set the keys of a storage in the file, and define one that is not there.

    An error names the variable.
    """
    monkeypatch.setenv("WALSYNCD_STORAGE__TENANT_A__REGION", "eu-west-3")
    monkeypatch.setenv("WALSYNCD_STORAGE__OTHER__URL", "s3://other")
    settings = _load(tmp_path, DEFAULT + TENANT)
    assert settings.storage_of("tenant_a").options["region"] == "eu-west-3"
    assert settings.storage_of("tenant_a").url == "s3://tenant/sqlite"
    assert settings.storage_of("other").url == "s3://other"
    monkeypatch.setenv("WALSYNCD_STORAGE__TENANT_A__TIMEOUT", "forever")
    assert "environment WALSYNCD_STORAGE__TENANT_A__TIMEOUT" in _refusal(tmp_path, DEFAULT + TENANT)


def test_credentials_of_systemd_have_the_name_before_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So two storages can have a credential each."""
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    for name, value in (("access_key_id", "d"), ("secret_access_key", "s"), ("eu.access_key_id", "e")):
        (tmp_path / name).write_text(value)
    text = DEFAULT + "[storage.eu]\nurl = 's3://eu'\n"
    assert "eu.secret_access_key: is missing beside access_key_id" in _refusal(tmp_path, text)
    (tmp_path / "eu.secret_access_key").write_text("t")
    settings = _load(tmp_path, text)
    keys = [(each.options["access_key_id"], each.options["secret_access_key"]) for each in settings.storages]
    assert keys == [("d", "s"), ("e", "t")]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[database]]\npath = '/a.db'\nstorage = 'tenant_b'", "database[1].storage = 'tenant_b': there is no such"),
        ("[[database]]\npath = '/a.db'\nstorage = 'tenant_b'", "known are 'default', 'tenant_a'"),
        ("[storage.region]\nurl = 's3://b'", "storage.region: is a key of [storage], so that no storage can have"),
        ("[storage.timeout]\nurl = 's3://b'", "storage.timeout: is a key of [storage]"),
        ("[storage.default]\nurl = 's3://b'", "storage.default: is no name for a storage"),
        ("[storage.Tenant]\nurl = 's3://b'", "storage.Tenant: is no name for a storage (hint: lower-case letters"),
        ("[storage.eu]\nregion = 'x'", "storage.eu.url: is missing"),
        ("[storage.eu]\nregion = 'x'", "to [storage.eu]"),
        (
            "[storage.eu]\nurl = 's3://b'\nregoin = 'x'",
            "storage.eu.regoin: there is no such key (hint: did you mean region?",
        ),
        ("[storage.eu]\nurl = 's3://b'\ntimeout = '1h'", "storage.eu.timeout = '1h': must be from 1s to 25s"),
        ("[storage.eu]\nurl = 'bucket'", "storage.eu.url = 'bucket': is not an s3:// or file:// URL"),
        (
            "[storage.eu]\nurl = 's3://tenant/sqlite/'",
            "storage.eu.url = 's3://tenant/sqlite': is the place of [storage.tenant_a]",
        ),
        ("[storage.eu]\nurl = 's3://b'\ndelete = false", "storage.eu.expire_after: is missing beside delete = false"),
        ("[storage.eu]\nurl = 's3://b'\nkms_key_id = 'k'", "storage.eu.kms_key_id: needs encryption"),
        ("[storage.eu]\nurl = 's3://b'\naccess_key_id = 'k'", "storage.eu.secret_access_key: is missing beside"),
    ],
)
def test_what_is_wrong_is_named_with_its_section(tmp_path: Path, text: str, words: str) -> None:
    """The error has key, value and what to do, as in [storage]."""
    message = _refusal(tmp_path, f"{DEFAULT}{TENANT}{text}\n")
    assert words in message, message


@pytest.mark.parametrize("value", ["'hunter2'", "5", "['hunter2']"])
def test_a_misspelt_key_of_storage_is_no_section_and_keeps_its_value(tmp_path: Path, value: str) -> None:
    """Its value may be a secret, so it is not shown."""
    message = _refusal(tmp_path, f"{DEFAULT}secret_acces_key = {value}\n")
    assert "storage.secret_acces_key: there is no such key" in message
    assert "did you mean secret_access_key?" in message
    assert "hunter2" not in message


def test_a_secret_in_any_section_is_found(tmp_path: Path) -> None:
    """So `check` can report who may read it."""
    file = tmp_path / "config.toml"
    file.write_text(DEFAULT + TENANT)
    assert secrets_in(file) == ["secret_access_key"]


def test_an_address_is_reached_as_the_storage_that_it_is_in(tmp_path: Path) -> None:
    """An address inside a configured storage uses its credentials. Any other uses those of [storage]."""
    file = tmp_path / "config.toml"
    file.write_text(DEFAULT + TENANT)
    assert storage_at("s3://tenant/sqlite/app", file).options["access_key_id"] == "a"
    assert storage_at("s3://tenant/sqlite-old/app", file).options["access_key_id"] is None
