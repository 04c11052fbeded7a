"""Sends x-amz-checksum-crc32 in addition to Content-MD5, where a probe has shown that the store verifies it.

Some stores refuse the header, others ignore it. So the first ``owner.json`` that a run writes is used as a probe: the
right bytes are sent with a wrong checksum. The header is not used before.

=============================  ===============================  ==========================================
the wrong checksum is          and then the right one           conclusion
=============================  ===============================  ==========================================
refused                        accepted                         verified: every body gets a checksum
refused                        refused                          unknown there: checksums are never sent
accepted                       not tried                        ignored there: checksums are never sent
=============================  ===============================  ==========================================

In the last two cases the object is written again without a checksum. Parts of an upload are treated separately, since
AWS wants to know the algorithm when an upload begins, and all checksums when it is completed. If the checksum of a part
is refused, all parts are sent without one from then on. Content-MD5 protects them. Sources: Amazon S3 API Reference,
"PutObject", "UploadPart"; Amazon S3 User Guide, "Checking object integrity".
"""

from __future__ import annotations

import base64
import threading
import zlib
from collections.abc import Mapping
from types import MappingProxyType
from typing import Protocol

from botocore.exceptions import ClientError

from walsyncd.adapters.storage.s3.s3_errors import error_code, error_status

CHECKSUM_HEADER = "x-amz-checksum-crc32"
NO_QUERY: Mapping[str, str] = MappingProxyType({})
_UNKNOWN_CODES = frozenset({"InvalidRequest", "InvalidArgument", "NotImplemented"})
_REFUSED_STATUSES = frozenset({400, 501})


class Send(Protocol):
    """Sends one PUT."""

    def __call__(
        self, key: str, body: bytes, *, headers: Mapping[str, str], query: Mapping[str, str] = NO_QUERY
    ) -> Mapping[str, str]:
        """Return the headers of the answer. Raises ClientError if the PUT is refused."""


class CheckedPut:
    """Sends PUTs, with a checksum if the store verifies it. Any thread may call."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._verified: bool | None = None
        self._of_parts = True

    @property
    def verified(self) -> bool | None:
        """The result of the probe, or None before it."""
        return self._verified

    def __call__(
        self, key: str, body: bytes, *, headers: Mapping[str, str], query: Mapping[str, str] = NO_QUERY
    ) -> Mapping[str, str]:
        """Send a body. If the store does not accept checksums after all, send it again without one.

        Only parts of an upload have a ``query``.
        """
        with self._lock:
            wanted = self._verified and (self._of_parts or not query)
        if wanted:
            try:
                return self._send(key, body, headers={**headers, CHECKSUM_HEADER: checksum(body)}, query=query)
            except ClientError as error:
                if not _is_unknown(error):
                    raise
            if query:
                self.parts_refused()
            else:
                self._found(verified=False)
        return self._send(key, body, headers=headers, query=query)

    def probe(self, key: str, body: bytes, *, headers: Mapping[str, str]) -> str | None:
        """Find out whether checksums are verified, by writing an object.

        Returns the ETag of the object if it was written in spite of a wrong checksum. Returns an empty text if it was
        written with the right checksum, and None if it was not written.
        """
        try:
            answer = self._send(key, body, headers={**headers, CHECKSUM_HEADER: wrong_checksum(body)})
        except ClientError as error:
            if not _is_refusal(error):
                raise
        else:
            self._found(verified=False)
            return answer.get("ETag", "").strip('"') or None
        try:
            self._send(key, body, headers={**headers, CHECKSUM_HEADER: checksum(body)})
        except ClientError as error:
            if not _is_refusal(error):
                raise
            self._found(verified=False)
            return None
        self._found(verified=True)
        return ""

    def parts_refused(self, error: ClientError | None = None) -> None:
        """Send parts without checksums from now on. ``error`` is the store's refusal of an upload, if there is one."""
        if error is None or _is_refusal(error):
            with self._lock:
                self._of_parts = False

    def _found(self, *, verified: bool) -> None:
        with self._lock:
            self._verified = verified


def checksum(body: bytes) -> str:
    """Return the value of the header: CRC-32, big-endian, in base64."""
    return base64.b64encode(zlib.crc32(body).to_bytes(4, "big")).decode("ascii")


def wrong_checksum(body: bytes) -> str:
    """Return a checksum that is not the one of ``body``."""
    return base64.b64encode((zlib.crc32(body) ^ 1).to_bytes(4, "big")).decode("ascii")


def _is_refusal(error: ClientError) -> bool:
    """Whether the store may be refusing the checksum, as wrong or unknown."""
    return error_status(error) in _REFUSED_STATUSES


def _is_unknown(error: ClientError) -> bool:
    """Whether the store does not support checksums. A body that was damaged in transfer has another error."""
    return _is_refusal(error) and error_code(error) in _UNKNOWN_CODES
