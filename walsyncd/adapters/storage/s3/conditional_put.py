"""Writes an object on the condition that it is absent, or that it still has the ETag that was read.

Not every store honours conditions: some write anyway, some answer 501. So a trial comes first. It writes an existing
object again, once on the condition that it is absent, and once on the condition that it has another ETag. Source:
Amazon S3 User Guide, "Conditional writes".

===================  ============================================
both writes are      conclusion
===================  ============================================
refused (412)        one request decides
written, or 501      the caller compares before, reads back after
===================  ============================================
"""

from __future__ import annotations

from botocore.exceptions import ClientError

from walsyncd.adapters.storage.s3.checked_put import CheckedPut
from walsyncd.adapters.storage.s3.s3_connection import object_headers
from walsyncd.adapters.storage.s3.s3_errors import error_code, error_status
from walsyncd.adapters.storage.s3.s3_settings import S3Settings

_OTHER_ETAG = "0" * 32  # no object has this ETag


class ConditionalPut:
    """Writes objects on a condition. Any thread may call. ``put`` sends the requests."""

    def __init__(self, put: CheckedPut, settings: S3Settings) -> None:
        self._put = put
        self._settings = settings
        self.is_honoured: bool | None = None
        """The result of the trial, or None before it."""

    def __call__(self, key: str, body: bytes, *, etag: str | None) -> bool:
        """Write ``key`` if its ETag is ``etag``, or, for None, if it is absent. Returns False if the store refused.

        Raises ClientError. A store that does not know conditions writes in any case.
        """
        condition = {"If-None-Match": "*"} if etag is None else {"If-Match": f'"{etag}"'}
        headers = object_headers(self._settings, size=len(body))
        try:
            if self._put.verified is None:
                found = self._put.probe(key, body, headers=headers | condition)
                if found is not None:
                    return not found or self(key, body, etag=found)
            self._put(key, body, headers=headers | condition)
        except ClientError as error:
            if error_status(error) == 412 or error_code(error) == "NoSuchKey":
                return False
            if error_status(error) != 501:
                raise
            self.is_honoured = False
            self._put(key, body, headers=headers)
        return True

    def try_out(self, key: str, body: bytes) -> None:
        """Find out once whether conditions are honoured. ``key`` must just have been written with this ``body``."""
        if self.is_honoured is None:
            self.is_honoured = not self(key, body, etag=None) and not self(key, body, etag=_OTHER_ETAG)
