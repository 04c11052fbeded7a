"""Signs requests with AWS Signature Version 4, in the form that S3 requires.

========================  ==========================================================================================
canonical request         method, path, query, headers, signed names and the payload's SHA-256, one a line
string to sign            ``AWS4-HMAC-SHA256``, the time, the scope, and the SHA-256 of the canonical request
scope                     ``<day>/<region>/s3/aws4_request``
signing key               HMAC of the secret key with each field of the scope in turn; the same for a whole day
========================  ==========================================================================================

boto3 signs its own requests. It spends more time on a signature than on sending a small object, because each step goes
through the request's headers again. So PUTs are signed here. A test compares this signature with boto3's. Sources:
Amazon S3 API Reference, "Authenticating Requests: Using the Authorization Header (AWS Signature Version 4)"; IAM User
Guide, "Create a signed AWS API request".
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

_ALGORITHM = "AWS4-HMAC-SHA256"
_UNSIGNED = frozenset({"user-agent"})  # proxies on the way may change it
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class SigningKeys:
    """The credentials that sign: the access key, its secret, a token if they are temporary, and the region."""

    access_key: str
    secret_key: str = field(repr=False)
    token: str | None = field(repr=False)
    region: str


@dataclass(frozen=True, slots=True)
class Unsigned:
    """A request to sign. ``path`` is percent-encoded already, while the names and values of ``query`` are not."""

    method: str
    host: str
    path: str
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes


def signed_headers(request: Unsigned, keys: SigningKeys, *, now_s: float) -> dict[str, str]:
    """Return the request's headers together with headers that sign it at ``now_s`` (seconds since 1970)."""
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now_s))
    payload = hashlib.sha256(request.body).hexdigest()
    headers = {**request.headers, "Host": request.host, "X-Amz-Date": moment, "X-Amz-Content-SHA256": payload}
    if keys.token:
        headers["X-Amz-Security-Token"] = keys.token
    signed = sorted((lower, value) for name, value in headers.items() if (lower := name.lower()) not in _UNSIGNED)
    names = ";".join([name for name, _ in signed])
    lines = [f"{name}:{' '.join(value.split())}" for name, value in signed]
    canonical = "\n".join([request.method, request.path, canonical_query(request.query), *lines, "", names, payload])
    scope = f"{moment[:8]}/{keys.region}/s3/aws4_request"
    text = "\n".join([_ALGORITHM, moment, scope, hashlib.sha256(canonical.encode()).hexdigest()])
    signature = hmac.digest(_signing_key(keys.secret_key, moment[:8], keys.region), text.encode(), "sha256").hex()
    headers["Authorization"] = (
        f"{_ALGORITHM} Credential={keys.access_key}/{scope}, SignedHeaders={names}, Signature={signature}"
    )
    return headers


def canonical_query(query: Mapping[str, str]) -> str:
    """Return the query of a URL in the form that is signed: names in order, all but unreserved characters encoded."""
    encoded = sorted((quote(name, safe="-_.~"), quote(value, safe="-_.~")) for name, value in query.items())
    return "&".join([f"{name}={value}" for name, value in encoded])


def host_of(url: str) -> str:
    """Return the value of the Host header for a URL: without a user name, and without the scheme's usual port."""
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    host = f"[{host}]" if ":" in host else host
    return host if parts.port in {None, _DEFAULT_PORTS.get(parts.scheme)} else f"{host}:{parts.port}"


@functools.lru_cache(maxsize=8)
def _signing_key(secret_key: str, day: str, region: str) -> bytes:
    key = f"AWS4{secret_key}".encode()
    for part in (day, region, "s3", "aws4_request"):
        key = hmac.digest(key, part.encode(), "sha256")
    return key
