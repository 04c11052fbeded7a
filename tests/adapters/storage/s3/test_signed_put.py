"""Tests of the short way of a PUT: its URL, its signature, its connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.scripted_store import Answer, ScriptedStore, run_scripted_store
from walsyncd.adapters.storage.s3.s3_settings import S3Settings
from walsyncd.adapters.storage.s3.s3_storage import S3Storage


@pytest.mark.parametrize(
    ("settings", "url"),
    [
        (S3Settings(region="eu-central-1"), "https://my-b.s3.eu-central-1.amazonaws.com/"),
        (S3Settings(region="eu-central-1", bucket="my.b"), "https://s3.eu-central-1.amazonaws.com/my.b/"),
        (S3Settings(region="us-east-1"), "https://my-b.s3.amazonaws.com/"),
        (S3Settings(), "https://my-b.s3.amazonaws.com/"),
        (S3Settings(endpoint_url="https://s3.example"), "https://s3.example/my-b/"),
        (S3Settings(endpoint_url="https://s3.example:9000/sub"), "https://s3.example:9000/sub/my-b/"),
        (
            S3Settings(endpoint_url="https://s3.example", addressing_style="virtual"),
            "https://my-b.s3.example/",
        ),
    ],
)
def test_url_of_the_bucket(settings: S3Settings, url: str) -> None:
    """Objects go to where boto3 would send them, in its addressing style."""
    keys = replace(settings, bucket=settings.bucket or "my-b", access_key_id="k", secret_access_key="s")  # noqa: S106
    with closing(S3Storage(keys)) as storage:
        assert storage._connection.put._root == url


def test_temporary_credentials(script: ScriptedStore) -> None:
    """A session token is sent and signed."""
    with closing(S3Storage(script.settings(session_token="token"))) as storage:  # noqa: S106
        script.will_say(Answer())
        storage.put("a", b"", metadata={})
    headers = script.requests[0].headers
    assert headers["x-amz-security-token"] == "token"
    assert "x-amz-security-token" in headers["authorization"]


def test_region_is_optional(script: ScriptedStore) -> None:
    """Without a region requests are signed for the first one, as boto3 does."""
    with closing(S3Storage(script.settings(region=None))) as storage:
        script.will_say(Answer())
        storage.put("a", b"", metadata={})
    assert "/us-east-1/s3/aws4_request" in script.requests[0].headers["authorization"]


@given(key=st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_any_key_arrives(shared: tuple[ScriptedStore, S3Storage], key: str) -> None:
    """Whatever letters a key has, the path decodes to it."""
    script, storage = shared
    script.requests.clear()
    script.will_say(Answer())
    storage.put(key, b"", metadata={})
    assert unquote(script.requests[0].path) == f"/b/{key}"


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[ScriptedStore, S3Storage]]:
    """Return one store and client for many examples."""
    with run_scripted_store() as script, closing(S3Storage(script.settings())) as storage:
        yield script, storage
