"""Tests of signatures: AWS's own example, and the same as boto3's for whatever is sent."""

from __future__ import annotations

import calendar
import time
from urllib.parse import quote

import pytest
from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.adapters.storage.s3.request_signature import (
    SigningKeys,
    Unsigned,
    canonical_query,
    host_of,
    signed_headers,
)

_FORMAT = "%Y%m%dT%H%M%SZ"
_EXAMPLE = SigningKeys("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", None, "us-east-1")
_TEXTS = st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S", "Zs"]), min_size=1, max_size=20)
_KEYS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20)


def test_the_example_of_aws() -> None:
    """The example is the PUT in the S3 API Reference, under "Authenticating Requests"."""
    request = Unsigned(
        "PUT",
        "examplebucket.s3.amazonaws.com",
        "/test%24file.text",
        {},
        {"Date": "Fri, 24 May 2013 00:00:00 GMT", "x-amz-storage-class": "REDUCED_REDUNDANCY"},
        b"Welcome to Amazon S3.",
    )
    headers = signed_headers(request, _EXAMPLE, now_s=calendar.timegm((2013, 5, 24, 0, 0, 0)))
    assert headers["X-Amz-Date"] == "20130524T000000Z"
    assert headers["Authorization"].endswith(
        "SignedHeaders=date;host;x-amz-content-sha256;x-amz-date;x-amz-storage-class, "
        "Signature=98ad721746da40c64f1a55b78f14c238d841ea1380cd77a1b5971af0ece108bd"
    )


@given(
    key=_KEYS,
    body=st.binary(max_size=64),
    query=st.dictionaries(st.sampled_from(["partNumber", "uploadId", "uploadId-2", "versions"]), _TEXTS),
    meta=st.dictionaries(st.sampled_from(["x-amz-meta-walsyncd-id", "If-Match", "Content-MD5", "x-amz-acl"]), _TEXTS),
    token=st.sampled_from([None, "token", "a/b+c=="]),
    region=st.sampled_from(["us-east-1", "eu-central-1", "auto"]),
    origin=st.sampled_from(["http://h:9000", "https://h.example", "https://H.example:443", "http://[::1]:80"]),
)
def test_boto3_signs_the_same(
    key: str, body: bytes, query: dict[str, str], meta: dict[str, str], token: str | None, region: str, origin: str
) -> None:
    """boto3 makes the same signature for any key, query, headers, body, credentials and endpoint."""
    path = "/b/" + quote(key, safe="/~")
    theirs = AWSRequest(method="PUT", url=origin + path, headers=dict(meta), params=dict(query), data=body)
    S3SigV4Auth(Credentials("access", "secret", token), "s3", region).add_auth(theirs)
    now_s = calendar.timegm(time.strptime(theirs.headers["X-Amz-Date"], _FORMAT))
    request = Unsigned("PUT", host_of(origin), path, query, {**meta, "User-Agent": "walsyncd"}, body)
    ours = signed_headers(request, SigningKeys("access", "secret", token, region), now_s=now_s)
    for name in ("Authorization", "X-Amz-Date", "X-Amz-Content-SHA256", "X-Amz-Security-Token"):
        assert ours.get(name) == theirs.headers.get(name)


def test_a_new_day_has_a_new_key() -> None:
    """The key of a day is remembered, for each region and secret."""
    request = Unsigned("PUT", "h", "/b/k", {}, {}, b"")

    def signature(now_s: float, secret: str = "s", region: str = "r") -> str:  # noqa: S107  no secret
        keys = SigningKeys("a", secret, None, region)
        return signed_headers(request, keys, now_s=now_s)["Authorization"].rpartition("=")[2]

    first = signature(1_000_000.0)
    others = {signature(1_000_000.0 + 86_400), signature(1_000_000.0, "other"), signature(1_000_000.0, region="q")}
    assert len({first, *others}) == 4
    assert signature(1_000_000.0) == first


def test_names_are_in_the_order_of_their_bytes() -> None:
    """A name comes before any longer name that begins with it."""
    assert canonical_query({"a-b": "1", "a": "x y/+", "": ""}) == "=&a=x%20y%2F%2B&a-b=1"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://me:secret@S3.example/b", "s3.example"),
        ("https://s3.example:443/", "s3.example"),
        ("http://s3.example:443/", "s3.example:443"),
        ("http://[::1]:9000/", "[::1]:9000"),
    ],
)
def test_the_host_that_is_signed(url: str, host: str) -> None:
    """The signed host is the one that is sent: lower case, without user and without the default port."""
    assert host_of(url) == host


def test_a_secret_is_not_shown() -> None:
    """Even the value that holds the keys does not print the secret."""
    assert "secret" not in repr(SigningKeys("a", "secret", "secret", "r"))
