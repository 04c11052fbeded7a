"""PUT without the overhead: requests signed by botocore, sent over kept-alive connections.

Small objects are what walsyncd sends all day. A boto3 client spends milliseconds of CPU on each and asks for
leave first (``Expect: 100-continue``, one more round trip). Here the expensive answers, which URL the bucket
has and how requests are signed, are asked of the client once; then a PUT is a signature and a request.

Every body goes with its Content-MD5. Over TLS the payload is not hashed a second time for the signature, as
botocore does by default (``UNSIGNED-PAYLOAD``). Source: Amazon S3 API Reference, "PutObject", "UploadPart"
and "Authenticating Requests (AWS Signature Version 4)".
"""

from __future__ import annotations

import base64
import hashlib
import socket
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.exceptions import ClientError, NoCredentialsError
from botocore.httpsession import URLLib3Session
from botocore.parsers import create_parser
from botocore.utils import get_environ_proxies

if TYPE_CHECKING:
    from boto3.session import Session
    from mypy_boto3_s3 import S3Client

_ANY_KEY = "k"


class SignedPut:
    """Sends PUT requests to one bucket; any thread may call it.

    ``verify`` is a CA bundle or whether to verify at all; ``timeouts`` are connect and read in seconds;
    ``note_headers`` is told the headers of every answer.
    """

    def __init__(
        self,
        *,
        session: Session,
        client: S3Client,
        bucket: str,
        verify: str | bool,
        timeouts: tuple[float, float],
        connections_max: int,
        note_headers: Callable[[Mapping[str, str]], None],
    ) -> None:
        self._session = session
        self._client = client
        self._note_headers = note_headers
        self._parser = create_parser("rest-xml")
        self._http = URLLib3Session(
            verify=verify,  # type: ignore[arg-type]  # the stubs know no bundle
            proxies=get_environ_proxies(client.meta.endpoint_url),
            timeout=timeouts,  # type: ignore[arg-type]  # nor two times
            max_pool_connections=connections_max,
            # head and body are two writes: without this the second waits 40 ms for the first one's ACK
            socket_options=[(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],  # type: ignore[list-item]
        )
        self._root = bucket_url(client, bucket)

    def __call__(
        self, key: str, body: bytes, *, headers: Mapping[str, str], query: Mapping[str, str]
    ) -> Mapping[str, str]:
        """Headers of the answer to a PUT of ``key``; what the store refuses is a ClientError."""
        request = AWSRequest(
            method="PUT",
            url=self._root + quote(key, safe="/~"),
            headers={**headers, "Content-MD5": content_md5(body), "User-Agent": "walsyncd"},
            params=dict(query),
            data=body,
        )
        self._sign(request)
        answer = self._http.send(request.prepare())
        self._note_headers(answer.headers)
        if not 200 <= answer.status_code < 300:
            raise self._refusal(answer.status_code, answer.headers, answer.content)
        return answer.headers

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def _sign(self, request: AWSRequest) -> None:
        credentials = self._session.get_credentials()
        if credentials is None:
            raise NoCredentialsError
        region = self._client.meta.region_name
        if region == "aws-global":  # botocore's name for "no region given": it signs for the first one
            region = "us-east-1"
        S3SigV4Auth(credentials.get_frozen_credentials(), "s3", region).add_auth(request)

    def _refusal(self, status: int, headers: Mapping[str, str], body: bytes) -> ClientError:
        answer = {"status_code": status, "headers": headers, "body": body}
        parsed: Any = self._parser.parse(answer, None)  # type: ignore[arg-type]  # errors have no shape
        return ClientError(parsed, "PutObject")


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
