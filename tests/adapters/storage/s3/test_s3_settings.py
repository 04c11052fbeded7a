"""Tests of the settings of S3."""

from __future__ import annotations

from walsyncd.adapters.storage.s3.s3_settings import S3Settings


def test_secrets_are_not_shown() -> None:
    """Settings can be printed, for example in a traceback."""
    secrets = {"secret_access_key": "hush1", "session_token": "hush2", "role_external_id": "hush3"}
    shown = repr(S3Settings(access_key_id="me", **secrets, encryption_key=b"hush4"))  # type: ignore[arg-type]
    assert "me" in shown
    assert "hush" not in shown
