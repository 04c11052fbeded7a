"""The meaning of an S3 store's errors. This module translates botocore's exceptions to walsyncd's.

========================================  ================  ==========================================
the store, or the way to it, reports      class             because
========================================  ================  ==========================================
timeouts, broken connections, 5xx, 429    TransientError    the same request may succeed later
BadDigest, IncompleteBody                 TransientError    the body was damaged on the way
credentials, permission, bucket, region   RefusedError      a person must change something
EntityTooLarge, KeyTooLongError …         ImpossibleError   this object will never be accepted
NoSuchKey, NoSuchUpload                   MissingError      it does not exist
InvalidPart, InvalidPartOrder             CorruptError      the parts are not what we believe
any other 4xx                             RefusedError      unknown: retried slowly and reported
========================================  ================  ==========================================

If a Complete fails after its ``200 OK``, its body has one of the same codes, and botocore raises the same exception.
Sources: Amazon S3 API Reference, "Error responses" and "CompleteMultipartUpload"; other stores' codes were observed
with SeaweedFS, rclone and moto.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,  # noqa: A004 - botocore's own
    CredentialRetrievalError,
    EndpointConnectionError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ProxyConnectionError,
    SSLError,
)
from botocore.parsers import ResponseParserError
from urllib3.exceptions import HTTPError, NewConnectionError, ProxyError
from urllib3.exceptions import SSLError as TlsError

from walsyncd.errors import (
    CorruptError,
    ImpossibleError,
    MissingError,
    RefusedError,
    TransientError,
    WalsyncdError,
)


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """The parts of a message: the bucket, its location, and for most operations the full key in the bucket."""

    bucket: str
    endpoint: str
    key: str = ""

    def __str__(self) -> str:
        scheme, separator, place = self.endpoint.partition("://")  # it may contain a user and a password
        return f"s3://{self.bucket}/{self.key} at {scheme}{separator}{place.rpartition('@')[2]}"


CREDENTIALS_HINT = "correct access_key_id and secret_access_key in [storage] or the environment"
_PERMISSION_HINT = "allow these credentials to list, read, write and delete there"
_ACTIONS: Mapping[str, str] = {  # the names in AWS's policies; those of other stores are similar
    "PutObject": "s3:PutObject",
    "CreateMultipartUpload": "s3:PutObject",
    "CompleteMultipartUpload": "s3:PutObject",
    "GetObject": "s3:GetObject",
    "HeadObject": "s3:GetObject and s3:ListBucket",
    "ListObjectsV2": "s3:ListBucket",
    "DeleteObject": "s3:DeleteObject",
    "DeleteObjects": "s3:DeleteObject",
    "ListParts": "s3:ListMultipartUploadParts",
    "AbortMultipartUpload": "s3:AbortMultipartUpload",
    "ListMultipartUploads": "s3:ListBucketMultipartUploads",
}
_REGION_HINT = "set [storage] region to the bucket's region"
ADDRESS_HINT = "check that an S3 store runs there, or correct [storage] endpoint_url"
_CERTIFICATE_HINT = "set ca_file in [storage], or AWS_CA_BUNDLE, to a file with the certificate of its authority"

_EXPIRED_HINT = "the credentials have expired: renew them at their source; they are read again at every attempt"
_ROLE_HINT = "correct [storage] role_arn, and let these credentials assume it"

EXPIRED_CODES = frozenset({"ExpiredToken", "ExpiredTokenException", "TokenRefreshRequired"})
_REDIRECT_CODES = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_REDIRECT_STATUSES = frozenset({301, 302, 307, 308})
_REGION_PATTERN = re.compile("[a-z0-9-]{1,63}")  # these characters can't change the host of a URL

_Meaning = tuple[type[WalsyncdError], str]

_MEANINGS: Mapping[str, _Meaning] = {
    "NoSuchBucket": (RefusedError, "create the bucket or correct [storage] url"),
    "InvalidBucketName": (RefusedError, "correct [storage] url"),
    "AccessDenied": (RefusedError, _PERMISSION_HINT),
    "AllAccessDisabled": (RefusedError, _PERMISSION_HINT),
    "Forbidden": (RefusedError, _PERMISSION_HINT),
    "403": (RefusedError, f"{CREDENTIALS_HINT}, and {_PERMISSION_HINT}"),
    "401": (RefusedError, CREDENTIALS_HINT),
    "SignatureDoesNotMatch": (RefusedError, f"the secret key is wrong; {CREDENTIALS_HINT}"),
    "InvalidAccessKeyId": (RefusedError, f"the store does not know this access key; {CREDENTIALS_HINT}"),
    "InvalidToken": (RefusedError, CREDENTIALS_HINT),
    "ExpiredToken": (RefusedError, _EXPIRED_HINT),
    "ExpiredTokenException": (RefusedError, _EXPIRED_HINT),
    "TokenRefreshRequired": (RefusedError, _EXPIRED_HINT),
    "RequestTimeTooSkewed": (RefusedError, "set this machine's clock: it is too far off the store's"),
    "PermanentRedirect": (RefusedError, _REGION_HINT),
    "AuthorizationHeaderMalformed": (RefusedError, _REGION_HINT),
    "IllegalLocationConstraintException": (RefusedError, _REGION_HINT),
    "InvalidObjectState": (RefusedError, "the object is archived: restore it from its storage class first"),
    "QuotaExceeded": (RefusedError, "raise the quota or make room in the bucket"),
    "NotImplemented": (RefusedError, "the store does not offer this: check storage_class and encryption"),
    "InvalidStorageClass": (RefusedError, "correct [storage] storage_class"),
    "KMS.NotFoundException": (RefusedError, "correct [storage] kms_key_id"),
    "KMS.DisabledException": (RefusedError, "enable the key of [storage] kms_key_id"),
    "KMS.KMSInvalidStateException": (RefusedError, "enable the key of [storage] kms_key_id"),
    "InvalidEncryptionAlgorithmError": (RefusedError, "correct [storage] encryption"),
    "MethodNotAllowed": (RefusedError, "the store does not offer this operation"),
    "EntityTooLarge": (ImpossibleError, "the store accepts no object or part of this size"),
    "EntityTooSmall": (ImpossibleError, "the store accepts no part of this size"),
    "KeyTooLongError": (ImpossibleError, "choose a shorter name or prefix"),
    "KeyTooLong": (ImpossibleError, "choose a shorter name or prefix"),
    "MetadataTooLarge": (ImpossibleError, "the store accepts no metadata of this size"),
    "413": (ImpossibleError, "a server or proxy on the way accepts no body of this size"),
    "NoSuchKey": (MissingError, ""),
    "NoSuchUpload": (MissingError, ""),
    "404": (MissingError, ""),
    "InvalidPart": (CorruptError, "list the parts again and send again what differs"),
    "InvalidPartOrder": (CorruptError, "list the parts again and send again what differs"),
    "BadDigest": (TransientError, "the body was damaged on the way"),
    "InvalidDigest": (TransientError, "the body was damaged on the way"),
    "XAmzContentSHA256Mismatch": (TransientError, "the body was damaged on the way"),
    "IncompleteBody": (TransientError, "the body was cut off on the way"),
    "RequestTimeout": (TransientError, ""),
    "OperationAborted": (TransientError, "another operation on the same key was under way"),
    "ConditionalRequestConflict": (TransientError, "another operation on the same key was under way"),
}
# The first row that fits applies.
_UNANSWERED: tuple[tuple[tuple[type[Exception], ...], type[WalsyncdError], str], ...] = (
    ((NoCredentialsError, PartialCredentialsError), RefusedError, CREDENTIALS_HINT),
    ((CredentialRetrievalError,), RefusedError, "mend the source of the credentials"),
    ((EndpointConnectionError, NewConnectionError), TransientError, ADDRESS_HINT),
    ((ProxyConnectionError, ProxyError), TransientError, "correct HTTPS_PROXY or NO_PROXY in the environment"),
    ((ResponseParserError,), TransientError, ADDRESS_HINT),
    ((ConnectionError, HTTPClientError, IncompleteReadError, HTTPError), TransientError, ""),
)
_CONNECTION = re.compile(r"^\w+\(host='[^']*', port=\w+\): ")
_CAUSES_MAX = 8  # a chain has three or four
_TRANSIENT_STATUSES = frozenset({408, 409, 425, 429})


@contextmanager
def translated(operation: str, target: RequestTarget) -> Iterator[None]:
    """Translate all errors of botocore and urllib3; ``operation`` begins the message (``write object``)."""
    try:
        yield
    except (BotoCoreError, ClientError, HTTPError) as error:
        raise translate(operation, target, error) from error


@contextmanager
def understood(operation: str, target: RequestTarget) -> Iterator[None]:
    """Translate the errors that we and botocore raise if an answer lacks a field, or has no valid number or time."""
    try:
        yield
    except UnicodeEncodeError:  # an error of the request, not of the answer
        raise
    except (KeyError, ValueError, TypeError, AttributeError, OverflowError) as error:
        about = f"{operation} {target}: the answer is not S3's ({type(error).__name__}: {_text(error)})"
        raise TransientError(about, hint=ADDRESS_HINT) from error


def translate(operation: str, target: RequestTarget, error: Exception) -> WalsyncdError:
    """Return the error to raise for ``error``, which occurred during ``operation`` on ``target``."""
    about = f"{operation} {target}"
    if isinstance(error, ClientError):
        return _answered(about, target, error)
    if _is_certificate_error(error):
        return RefusedError(f"{about}: {_text(error)}", hint=_CERTIFICATE_HINT)
    for kinds, meaning, hint in _UNANSWERED:
        if isinstance(error, kinds):
            return meaning(f"{about}: {_text(error)}{_reason(error)}", hint=hint)
    return RefusedError(f"{about}: {_text(error)}", hint="correct [storage] in the configuration")


def error_code(error: ClientError) -> str:
    """Return the store's own name for its refusal, or the HTTP status if it gave none."""
    return str(error.response.get("Error", {}).get("Code") or error_status(error))


def error_status(error: ClientError) -> int:
    """Return the HTTP status of the refusal, or 0 if it is unknown."""
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)


def redirect_region(error: ClientError) -> str:
    """Return the bucket's region if the store reports it instead of answering, and else an empty text."""
    if error_code(error) not in _REDIRECT_CODES and error_status(error) not in _REDIRECT_STATUSES:
        return ""
    headers = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {})
    said: Any = error.response.get("Error", {})
    region = str(headers.get("x-amz-bucket-region") or said.get("Region") or "")
    return region if _REGION_PATTERN.fullmatch(region) else ""


def _answered(about: str, target: RequestTarget, error: ClientError) -> WalsyncdError:
    code, status = error_code(error), error_status(error)
    if error.operation_name == "AssumeRole":
        about = f"assume the role of [storage] role_arn, to {about}"
    kind, hint = _MEANINGS.get(code) or _meaning_of_status(status)
    if code == "NoSuchBucket":
        return kind(f"{about}: bucket {target.bucket} does not exist", hint=hint)
    if error.operation_name == "AssumeRole" and kind is RefusedError:
        hint = _ROLE_HINT
    elif hint == _PERMISSION_HINT and error.operation_name in _ACTIONS:
        hint = f"allow these credentials {_ACTIONS[error.operation_name]} there (walsyncd-bucket(7): the least rights)"
    said = str(error.response.get("Error", {}).get("Message") or "").strip()
    named = [] if code == str(status) else [code]  # the answer to a HEAD has no code
    answer = ": ".join([*named, said] if said and said != code else named)
    return kind(f"{about}: the store answered {status} {answer}".rstrip(), hint=hint)


def _meaning_of_status(status: int) -> _Meaning:
    if status in _TRANSIENT_STATUSES or status >= 500:
        return TransientError, ""
    if status in _REDIRECT_STATUSES:
        return RefusedError, _REGION_HINT
    return RefusedError, ""


def _is_certificate_error(error: Exception) -> bool:
    """Whether a certificate is not trusted. A handshake that broke off is a fault of the network instead."""
    return isinstance(error, SSLError | TlsError | ProxyError) and any(
        isinstance(cause, ssl.SSLCertVerificationError) for cause in _causes(error)
    )


def _reason(error: Exception) -> str:
    """Return the operating system's reason, which botocore's message omits."""
    said = [cause.strerror for cause in _causes(error) if isinstance(cause, OSError) and cause.strerror]
    return f" ({said[-1].lower()})" if said else ""


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and the errors that it wraps, in the way of botocore, urllib3 or Python."""
    cause: object = error
    for _ in range(_CAUSES_MAX):
        if not isinstance(cause, BaseException):
            return
        yield cause
        wrapped = getattr(cause, "kwargs", {}).get("error") or getattr(cause, "reason", None)
        held = (each for each in (wrapped, *cause.args) if isinstance(each, BaseException))
        cause = next(held, None) or cause.__cause__ or cause.__context__


def _text(error: object) -> str:
    """Return one line of bounded length from a library's message, without urllib3's name for a connection."""
    return _CONNECTION.sub("", " ".join(str(error).split()))[:300]
