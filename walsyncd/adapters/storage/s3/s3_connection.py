"""The connection to a bucket: a boto3 session and client that all threads share, and request headers.

boto3's own retries are off: the engine decides about retries. Every body has Content-MD5, which all stores verify;
``x-amz-checksum-*`` is only sent where the store is known to verify it (``checked_put``).

=========================  ================================================  ===================================
requests                   additional headers                                for
=========================  ================================================  ===================================
PutObject, Create…Upload   x-amz-storage-class                               ``storage_class``
PutObject, Create…Upload   x-amz-server-side-encryption, -aws-kms-key-id     ``encryption`` sse-s3 and sse-kms
both, and UploadPart,      x-amz-server-side-encryption-customer-algorithm,  ``encryption`` sse-c: the store
GetObject, HeadObject      -key, -key-MD5                                    forgets the key after each request
=========================  ================================================  ===================================

Sources: Amazon S3 API Reference, "PutObject", "CreateMultipartUpload", "UploadPart", "GetObject"; Amazon S3 User Guide,
"Using server-side encryption with customer-provided keys". Classes below "Standard" bill at least 128 KiB for an object
("Using Amazon S3 storage classes"), so a smaller object stays in the bucket's own class.
"""

from __future__ import annotations

import base64
import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3.session
import botocore.session
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError

from walsyncd.adapters.storage.s3.http_transport import HttpTransport, read_up_to
from walsyncd.adapters.storage.s3.s3_settings import S3Settings
from walsyncd.adapters.storage.s3.signed_put import SignedPut, content_md5

STORAGE_CLASS_SIZE_MIN = 128 << 10
ANSWER_BYTES_MAX = 16 << 20  # as XML, a page of 1,000 keys of 1,024 bytes has two or three MiB
_ROLE_SESSION_NAME = "walsyncd"  # the name that CloudTrail shows


class S3Connection:
    """A session, its client, and a fast way to send PUTs.

    ``note_headers`` gets the headers of every answer. ``beat`` is called whenever a part of a body was transferred.
    Raises ValueError, OSError or BotoCoreError if ``settings`` are invalid.
    """

    def __init__(
        self,
        settings: S3Settings,
        note_headers: Callable[[Mapping[str, str]], None],
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        session = _open_session(settings)
        ca_file = _ca_file(settings)
        self.client = session.client("s3", endpoint_url=settings.endpoint_url, config=_config(settings), verify=ca_file)
        self._transport = HttpTransport(
            self.client.meta.endpoint_url,
            ca_file=ca_file,
            connect_timeout_s=settings.connect_timeout_s,
            timeout_s=settings.timeout_s,
            connections_max=settings.connections_max,
            beat=beat,
            reuse=settings.reuse,
        )
        self.put = SignedPut(
            session=session,
            client=self.client,
            bucket=settings.bucket,
            transport=self._transport,
            note_headers=note_headers,
        )
        customer, new = customer_headers(settings), object_headers(settings, size=None)
        events = self.client.meta.events
        events.register("before-call.s3", _protect_body)
        events.register("before-send.s3", self._send)  # type: ignore[arg-type] # here the return value is used
        events.register("before-call.s3.CreateMultipartUpload", functools.partial(_add_headers, new))
        for operation in ("GetObject", "HeadObject"):
            events.register(f"before-call.s3.{operation}", functools.partial(_add_headers, customer))
        events.register("after-call.s3", lambda http_response, **_: note_headers(http_response.headers))

    def close(self) -> None:
        """Close all connections."""
        self._transport.close()
        self.client.close()

    def _send(self, request: AWSPreparedRequest, **_: object) -> AWSResponse:
        """Send a request of boto3's by our transport instead of by boto3's own session."""
        body = request.body
        assert body is None or isinstance(body, str | bytes | bytearray), "a body that is read while it is sent"
        data = body.encode() if isinstance(body, str) else bytes(body or b"")
        answer = self._transport.send(request.method, request.url, dict(request.headers.items()), data)
        if not request.stream_output or answer.status >= 300:  # botocore reads such an answer whole
            return AWSResponse(request.url, answer.status, answer.headers, _WholeAnswer(answer))  # type: ignore[arg-type]
        return AWSResponse(request.url, answer.status, answer.headers, answer)  # type: ignore[arg-type]  # any mapping


class _WholeAnswer:
    """The body of an answer, kept in memory. It is read at once, so that the connection can be used again.

    Raises HTTPError if the body is longer than any answer of S3.
    """

    def __init__(self, answer: BaseHTTPResponse) -> None:
        self._body = read_up_to(answer, ANSWER_BYTES_MAX + 1)
        if len(self._body) > ANSWER_BYTES_MAX:
            self._body = b""  # a reference to the error also keeps this object
            answer.close()
            raise HTTPError(f"the answer is longer than {ANSWER_BYTES_MAX >> 20} MiB, as no answer of S3 is")
        answer.release_conn()

    def stream(self, *_: object) -> Iterator[bytes]:
        """Yield the body, as botocore reads it."""
        yield self._body


def object_headers(settings: S3Settings, *, size: int | None) -> dict[str, str]:
    """Return the headers for a new object of ``size`` bytes. ``size`` is None for a large object, made of parts."""
    headers = customer_headers(settings)
    if settings.storage_class and (size is None or size >= STORAGE_CLASS_SIZE_MIN):
        headers["x-amz-storage-class"] = settings.storage_class
    if settings.encryption == "sse-s3":
        headers["x-amz-server-side-encryption"] = "AES256"
    if settings.encryption == "sse-kms":
        headers["x-amz-server-side-encryption"] = "aws:kms"
        # This lets many objects share a data key. Otherwise each object causes a request to KMS, which is billed.
        headers["x-amz-server-side-encryption-bucket-key-enabled"] = "true"
        if settings.kms_key_id:
            headers["x-amz-server-side-encryption-aws-kms-key-id"] = settings.kms_key_id
    return headers


def customer_headers(settings: S3Settings) -> dict[str, str]:
    """Return the SSE-C headers of every request that writes or reads an object's bytes."""
    if settings.encryption != "sse-c" or settings.encryption_key is None:
        return {}
    key = settings.encryption_key
    return {
        "x-amz-server-side-encryption-customer-algorithm": "AES256",
        "x-amz-server-side-encryption-customer-key": base64.b64encode(key).decode("ascii"),
        "x-amz-server-side-encryption-customer-key-MD5": base64.b64encode(
            hashlib.md5(key, usedforsecurity=False).digest()
        ).decode("ascii"),
    }


def _open_session(settings: S3Settings) -> boto3.session.Session:
    if (settings.access_key_id is None) != (settings.secret_access_key is None):
        raise ValueError("access_key_id and secret_access_key go together")  # boto3 would use neither
    core = botocore.session.Session(profile=settings.profile)
    # boto3 guesses each date's format, which takes three quarters of the time of a LIST.
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_moment)
    session = boto3.session.Session(
        botocore_session=core,
        region_name=settings.region,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        aws_session_token=settings.session_token,
    )
    return session if settings.role_arn is None else _session_of_role(session, settings)


def _session_of_role(source: boto3.session.Session, settings: S3Settings) -> boto3.session.Session:
    """Return a session that assumes the role with the credentials of ``source``, and again before that expires."""
    core = botocore.session.Session(profile=settings.profile)
    core.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=_parse_moment)
    core.register_component("credential_provider", CredentialResolver([_RoleProvider(source, settings)]))
    return boto3.session.Session(botocore_session=core, region_name=settings.region)


class _RoleProvider(CredentialProvider):
    """Provides credentials of ``role_arn`` by STS. Nothing is requested before the first use."""

    METHOD = "assume-role"

    def __init__(self, source: boto3.session.Session, settings: S3Settings) -> None:
        super().__init__()
        self._source = source
        self._settings = settings

    def load(self) -> DeferredRefreshableCredentials | None:
        settings, credentials = self._settings, self._source.get_credentials()
        if credentials is None or settings.role_arn is None:
            return None
        extra = {"RoleSessionName": _ROLE_SESSION_NAME}
        if settings.role_external_id:
            extra["ExternalId"] = settings.role_external_id
        fetcher = AssumeRoleCredentialFetcher(
            functools.partial(self._source.client, config=_config(settings), verify=_ca_file(settings)),
            credentials,
            settings.role_arn,
            extra_args=extra,
        )
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, self.METHOD)


def _config(settings: S3Settings) -> Config:
    return Config(
        signature_version="s3v4",
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.timeout_s,
        max_pool_connections=settings.connections_max,
        retries={"total_max_attempts": 1, "mode": "standard"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": settings.addressing_style},
    )


def _ca_file(settings: S3Settings) -> str | None:
    """Return the only certificates to trust: ``ca_file``, else ``AWS_CA_BUNDLE`` or the profile's, else None.

    None means that the system's certificates are trusted.
    """
    if settings.ca_file is not None:
        return settings.ca_file
    bundle: str | None = botocore.session.Session(profile=settings.profile).get_config_variable("ca_bundle")
    return bundle


def _add_headers(headers: Mapping[str, str], *, params: dict[str, Any], **_: object) -> None:
    params["headers"].update(headers)


def _protect_body(params: dict[str, Any], **_: object) -> None:
    """Send Content-MD5 instead of the CRC32 that botocore adds where a checksum is required (DeleteObjects)."""
    if params["body"]:
        params["context"].pop("checksum", None)
        params["headers"]["Content-MD5"] = content_md5(params["body"])


def _parse_moment(value: str | float) -> datetime:
    """Parse a time as S3 writes it: ISO 8601 in bodies, RFC 9110 in headers."""
    if not isinstance(value, str):
        return datetime.fromtimestamp(value, UTC)
    moment = datetime.fromisoformat(value) if value[:1].isdigit() else parsedate_to_datetime(value)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
