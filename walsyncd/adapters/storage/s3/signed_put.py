"""A fast PUT: requests are signed by ``request_signature`` and sent by our own transport.

walsyncd mostly sends small objects. A boto3 client spends milliseconds of CPU on each and first waits for permission
(``Expect: 100-continue``, one more round trip). Here boto3 computes the expensive things only once: the bucket's URL
and how requests are signed. After that a PUT is a signature and a request. Credentials come from boto3's session, which
renews them.

Every body has its Content-MD5, and its SHA-256 is signed. Source: Amazon S3 API Reference, "PutObject", "UploadPart"
and "Error responses".
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from botocore.awsrequest import AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, NoCredentialsError

from walsyncd.adapters.storage.s3.http_transport import HttpTransport
from walsyncd.adapters.storage.s3.request_signature import (
    SigningKeys,
    Unsigned,
    canonical_query,
    host_of,
    signed_headers,
)

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client

ANSWER_BYTES_MAX = 256 << 10  # an error's XML has a kilobyte
_ANY_KEY = "k"


class SignedPut:
    """Sends PUT requests to one bucket. Any thread may call. ``note_headers`` gets the headers of every answer."""

    def __init__(
        self,
        *,
        session: Session,
        client: S3Client,
        bucket: str,
        transport: HttpTransport,
        note_headers: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._session = session
        self._client = client
        self._transport = transport
        self._note_headers = note_headers
        self._root = bucket_url(client, bucket)
        parts = urlsplit(self._root)
        self._origin, self._path, self._host = f"{parts.scheme}://{parts.netloc}", parts.path, host_of(self._root)

    def __call__(
        self, key: str, body: bytes, *, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Mapping[str, str]:
        """PUT ``key`` and return the headers of the answer. Only a part of an upload has a ``query``.

        Raises ClientError if the PUT is refused.
        """
        path = self._path + quote(key, safe="/~")
        own = {**headers, "Content-MD5": content_md5(body), "User-Agent": "walsyncd"}
        signed = signed_headers(Unsigned("PUT", self._host, path, query, own, body), self._keys(), now_s=time.time())
        url = f"{self._origin}{path}?{canonical_query(query)}" if query else self._origin + path
        answer = self._transport.send("PUT", url, signed, body, gives_way=bool(query))
        said = answer.read(ANSWER_BYTES_MAX)
        if len(said) < ANSWER_BYTES_MAX:
            answer.release_conn()
        else:
            answer.close()
        self._note_headers(answer.headers)
        if not 200 <= answer.status < 300:
            raise ClientError(refusal(answer.status, answer.headers, said), "PutObject")
        return answer.headers

    def _keys(self) -> SigningKeys:
        credentials = self._session.get_credentials()
        frozen = None if credentials is None else credentials.get_frozen_credentials()
        if frozen is None or frozen.access_key is None or frozen.secret_key is None:
            raise NoCredentialsError
        region = self._client.meta.region_name
        if region == "aws-global":  # botocore's name for "no region given", for which it signs with the first region
            region = "us-east-1"
        return SigningKeys(frozen.access_key, frozen.secret_key, frozen.token, region)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Any:
    """Return an error's answer in the form that boto3 uses: code, message and other fields, status and headers.

    An answer that is not S3's XML has the status as its code.
    """
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - bounded in size, and expat limits the expansion of entities
    except ElementTree.ParseError:
        named = {}
    else:
        error = root if _local_name(root) == "Error" else next(iter(root), root)
        named = {_local_name(each): (each.text or "").strip() for each in error}
    if "Code" not in named:
        named = {"Code": str(status), "Message": ""}
    return {
        "Error": named,
        "ResponseMetadata": {
            "HTTPStatusCode": status,
            "HTTPHeaders": {name.lower(): value for name, value in headers.items()},
        },
    }


def _local_name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def bucket_url(client: S3Client, bucket: str) -> str:
    """Return the URL to which the client sends a bucket's requests, with a trailing slash. Nothing is sent.

    The URL is taken from a GetObjectAcl, which a handler answers in place of the network. walsyncd makes no such
    request otherwise. A presigned URL would not do, since it would have AWS's global endpoint.
    """
    asked: list[str] = []

    def answer(params: Mapping[str, Any], **_: object) -> Any:
        asked.append(params["url"])
        return AWSResponse(params["url"], 200, HTTPHeaders(), None), {}

    client.meta.events.register("before-call.s3.GetObjectAcl", answer)
    client.get_object_acl(Bucket=bucket, Key=_ANY_KEY)
    client.meta.events.unregister("before-call.s3.GetObjectAcl", answer)
    parts = urlsplit(asked[0])
    return f"{parts.scheme}://{parts.netloc}{parts.path.removesuffix(_ANY_KEY)}"


def content_md5(body: bytes) -> str:
    """Return the value of the Content-MD5 header."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")
