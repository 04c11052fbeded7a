"""The settings for reaching a bucket. This module has values only, so that it can be used without loading boto3.

The keys of ``[storage]`` in ``config.schema`` have the same names. The configuration passes them here as ``options``.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, slots=True)
class ReuseLimits:
    """The limits that decide whether a connection that was used before is used again."""

    idle_s_max: float = 30.0
    """After this many seconds of silence it is not used again."""
    hot_s_max: float = 1.0
    """A connection that was used so recently is assumed to work."""
    patience_s: float = 3.0
    """How long others may take to acknowledge some of a request: more than a slow line with full queues needs."""


@dataclass(frozen=True, slots=True)
class S3Settings:
    """The settings for a store.

    ``bucket`` and ``prefix`` come from the url. boto3 itself looks for values that are None. ``connections_max`` is the
    number of threads that can use the store without waiting for a connection. ``timeout_s`` limits the time without
    progress, in which neither a block of a body nor an answer is transferred. ``ca_file`` has the certificates of the
    only authorities to trust. ``encryption_key`` is the 32 bytes of SSE-C. Users do not set ``reuse``.
    """

    bucket: str = ""
    prefix: str = ""
    endpoint_url: str | None = None
    region: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)
    profile: str | None = None
    role_arn: str | None = None
    role_external_id: str | None = field(default=None, repr=False)
    ca_file: str | None = None
    addressing_style: Literal["auto", "path", "virtual"] = "auto"
    storage_class: str | None = None
    encryption: Literal["sse-s3", "sse-kms", "sse-c"] | None = None
    kms_key_id: str | None = None
    encryption_key: bytes | None = field(default=None, repr=False)
    connections_max: int = 16
    connect_timeout_s: float = 5.0
    timeout_s: float = 20.0
    reuse: ReuseLimits = ReuseLimits()
