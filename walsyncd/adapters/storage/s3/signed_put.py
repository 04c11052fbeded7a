"""PUT without the overhead: requests signed by botocore, sent by our own transport.

Small objects are what walsyncd sends all day. A boto3 client spends milliseconds of CPU on each and asks for
leave first (``Expect: 100-continue``, one more round trip). Here the expensive answers, which URL the bucket
has and how requests are signed, are asked of the client once; then a PUT is a signature and a request.

Every body goes with its Content-MD5. Over TLS the payload is not hashed a second time for the signature, as
botocore does by default (``UNSIGNED-PAYLOAD``). Source: Amazon S3 API Reference, "PutObject", "UploadPart", "Error
responses" and "Authenticating Requests (AWS Signature Version 4)". Of botocore only what signing needs is used,
``botocore.auth`` and ``AWSRequest``, as in AWS's own examples.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit
from xml.etree import ElementTree

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, NoCredentialsError

from walsyncd.adapters.storage.s3.http_transport import HttpTransport

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client

ANSWER_SIZE_MAX = 256 << 10  # an error's XML has a kilobyte
_ANY_KEY = "k"


class SignedPut:
    """Sends PUT requests to one bucket; any thread may call it. ``note_headers`` gets the headers of every answer."""

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

    def __call__(
        self, key: str, body: bytes, *, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Headers of the answer to a PUT of ``key``; a part has a ``query``. A refusal is a ClientError."""
        request = AWSRequest(
            method="PUT",
            url=self._root + quote(key, safe="/~"),
            headers={**headers, "Content-MD5": content_md5(body), "User-Agent": "walsyncd"},
            params=dict(query),
            data=body,
        )
        self._sign(request)
        prepared = request.prepare()
        answer = self._transport.send("PUT", prepared.url, dict(prepared.headers.items()), body, gives_way=bool(query))
        said = answer.read(ANSWER_SIZE_MAX)
        if len(said) < ANSWER_SIZE_MAX:
            answer.release_conn()
        else:
            answer.close()
        self._note_headers(answer.headers)
        if not 200 <= answer.status < 300:
            raise ClientError(refusal(answer.status, answer.headers, said), "PutObject")
        return answer.headers

    def _sign(self, request: AWSRequest) -> None:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        region = self._client.meta.region_name
        if region == "aws-global":  # botocore's name for "no region given": it signs for the first one
            region = "us-east-1"
        S3SigV4Auth(credentials.get_frozen_credentials(), "s3", region).add_auth(request)


def refusal(status: int, headers: Mapping[str, str], body: bytes) -> Any:
    """What boto3 makes of an error's answer: its code, message and whatever else is named, status and headers.

    An answer that is not S3's XML has the status for its code.
    """
    try:
        root = ElementTree.fromstring(body)  # noqa: S314 - bounded in size, and expat bounds what entities become
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
    """Where the client sends the requests for a bucket, with a trailing slash; nothing is sent.

    Not by a presigned URL: those go to AWS's global endpoint. GetObjectAcl stands for any request, since
    nobody else makes one; the handler takes the place of the network.
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
    """The value of the Content-MD5 header."""
    return base64.b64encode(hashlib.md5(body, usedforsecurity=False).digest()).decode("ascii")
