from pathlib import Path

import pytest

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.cli.configured_storage import storage_from
from walsyncd.config import StorageSettings


def test_a_folder_is_opened(tmp_path: Path) -> None:
    """A file:

    URL opens a folder.
    """
    storage = storage_from(StorageSettings(url=f"file://{tmp_path}"))
    assert isinstance(storage, DirectoryStorage)


def test_a_bucket_gets_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    """All settings reach the storage, and no request is made."""
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    storage = storage_from(
        StorageSettings(
            url="s3://bucket/prefix",
            options={
                "endpoint_url": "http://127.0.0.1:9",
                "region": "eu-central-1",
                "access_key_id": "id",
                "secret_access_key": "secret",
                "addressing_style": "path",
            },
        ),
        connections_max=3,
    )
    assert isinstance(storage, S3Storage)
    settings = storage._settings
    assert (settings.bucket, settings.prefix, settings.endpoint_url) == (
        "bucket",
        "prefix",
        "http://127.0.0.1:9",
    )
    assert (settings.region, settings.access_key_id, settings.secret_access_key) == (
        "eu-central-1",
        "id",
        "secret",
    )
    assert (settings.addressing_style, settings.connections_max) == ("path", 3)
