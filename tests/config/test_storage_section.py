"""Tests of how the keys of [storage] depend on each other, and of the secrets beside them."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from walsyncd.adapters.storage.s3.s3_settings import S3Settings
from walsyncd.config import load
from walsyncd.config.settings import StorageSettings
from walsyncd.errors import UsageError

KEY = bytes(range(32))


def _load(folder: Path, text: str) -> StorageSettings:
    file = folder / "config.toml"
    file.write_text(f'[storage]\nurl = "s3://bucket/prefix"\n{text}\n')
    return load(file).storage


def _key_file(folder: Path, content: bytes, mode: int = 0o600) -> Path:
    file = folder / "sse_c_key"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def test_everything_arrives(tmp_path: Path) -> None:
    """Each key becomes the setting of its name. Durations become seconds."""
    settings = _load(
        tmp_path,
        """
        role_arn = "arn:aws:iam::123456789012:role/backup/walsyncd"
        role_external_id = "external"
        storage_class = "GLACIER_IR"
        encryption = "sse-kms"
        kms_key_id = "alias/backup"
        timeout = "1500ms"
        """,
    )
    s3 = S3Settings(**settings.options)
    assert s3.role_arn == "arn:aws:iam::123456789012:role/backup/walsyncd"
    assert (s3.role_external_id, s3.storage_class) == ("external", "GLACIER_IR")
    assert (s3.encryption, s3.kms_key_id, s3.timeout_s) == ("sse-kms", "alias/backup", 1.5)
    assert "external" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('storage_class = "GLACIER"', "storage.storage_class = 'GLACIER': is an archive.*GLACIER_IR"),
        ('storage_class = "DEEP_ARCHIVE"', "is an archive"),
        ('storage_class = "Standard-IA"', "is not the name of a storage class.*STANDARD_IA"),
        ('encryption = "aws:kms"', "must be 'sse-s3', 'sse-kms' or 'sse-c'"),
        ('encryption = "sse-s3"\nkms_key_id = "k"', 'storage.kms_key_id: needs encryption = "sse-kms"'),
        ('kms_key_id = "k"', 'needs encryption = "sse-kms" beside it'),
        ('sse_c_key_file = "/k"', 'needs encryption = "sse-c" beside it'),
        ('sse_c_key_file = "k"\nencryption = "sse-c"', "is a relative path"),
        ('encryption = "sse-c"', "there is no key for it.*sse_c_key_file"),
        ('role_arn = "walsyncd"', "is not the ARN of a role.*arn:aws:iam"),
        ('role_external_id = "x"', "needs role_arn beside it"),
        ('timeout = "30s"', "must be from 1s to 25s"),
        ('timeout = "500ms"', "must be from 1s to 25s"),
    ],
)
def test_what_cannot_be_right(tmp_path: Path, text: str, words: str) -> None:
    """The message names the key and the value, and the hint says what to do."""
    with pytest.raises(UsageError, match=words):
        _load(tmp_path, text)


@pytest.mark.parametrize("content", [KEY, base64.b64encode(KEY), base64.b64encode(KEY) + b"\n"])
def test_the_key_of_sse_c_is_in_a_file(tmp_path: Path, content: bytes) -> None:
    """The file has the key as it is or in base64. The key is not shown."""
    settings = _load(tmp_path, f'encryption = "sse-c"\nsse_c_key_file = "{_key_file(tmp_path, content)}"')
    assert settings.options["encryption_key"] == KEY
    assert repr(KEY) not in repr(settings)


def test_the_key_of_sse_c_is_a_credential(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Systemd's credential is used if no file is named."""
    _key_file(tmp_path, KEY, 0o400)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert _load(tmp_path, 'encryption = "sse-c"').options["encryption_key"] == KEY


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    """A key that others can read is no secret."""
    file = _key_file(tmp_path, KEY, 0o644)
    with pytest.raises(UsageError, match=f"can be read by everybody.*chmod o= {file}"):
        _load(tmp_path, f'encryption = "sse-c"\nsse_c_key_file = "{file}"')


def test_a_key_that_is_none_is_refused(tmp_path: Path) -> None:
    """It is too short, not base64, or missing. The message does not show the key's bytes."""
    file = _key_file(tmp_path, b"secret")
    with pytest.raises(UsageError, match="is not 32 bytes") as caught:
        _load(tmp_path, f'encryption = "sse-c"\nsse_c_key_file = "{file}"')
    assert "secret" not in str(caught.value)
    file.unlink()
    with pytest.raises(UsageError, match="can't be read: No such file"):
        _load(tmp_path, f'encryption = "sse-c"\nsse_c_key_file = "{file}"')


def test_the_key_of_sse_c_does_not_go_over_the_network_in_the_clear(tmp_path: Path) -> None:
    """Http is accepted for this machine only."""
    key = f'encryption = "sse-c"\nsse_c_key_file = "{_key_file(tmp_path, KEY)}"\n'
    with pytest.raises(UsageError, match=r"in the clear.*https://"):
        _load(tmp_path, f'{key}endpoint_url = "http://s3.example.com"')
    with pytest.raises(UsageError, match=r"http://…@s3\.example\.com"):
        _load(tmp_path, f'{key}endpoint_url = "http://u:SECRET@s3.example.com"')
    assert _load(tmp_path, f'{key}endpoint_url = "http://127.0.0.1:9000"').options["encryption_key"] == KEY
