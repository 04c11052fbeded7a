"""Tests of how botocore's exceptions are translated, for answers that no server at hand gives."""

from __future__ import annotations

import ssl

import pytest
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    EndpointConnectionError,
    PaginationError,
    ProxyConnectionError,
    ReadTimeoutError,
    SSLError,
)
from urllib3.connection import HTTPConnection
from urllib3.exceptions import NewConnectionError, ProtocolError, ProxyError
from urllib3.exceptions import SSLError as TlsError

from walsyncd.adapters.storage.s3.s3_errors import RequestTarget, translate, translated, understood
from walsyncd.errors import RefusedError, TransientError, WalsyncdError

NO_ONE = HTTPConnection("s3.example")
TARGET = RequestTarget("b", "https://s3.example", "root/key")
UNTRUSTED = SSLError(endpoint_url="https://s3.example", error=ssl.SSLCertVerificationError(1, "self-signed"))
BROKEN_OFF = SSLError(endpoint_url="https://s3.example", error=ssl.SSLEOFError(8, "EOF occurred"))
REFUSED = EndpointConnectionError(
    endpoint_url="https://s3.example", error=ConnectionRefusedError(111, "Connection refused")
)


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (UNTRUSTED, RefusedError, "ca_file"),
        (TlsError(ssl.SSLCertVerificationError(1, "self-signed")), RefusedError, "ca_file"),
        (TlsError(ssl.SSLEOFError(8, "EOF occurred")), TransientError, "EOF occurred"),
        (NewConnectionError(NO_ONE, "no route"), TransientError, "endpoint_url"),
        (ProxyError("unreachable", OSError(111, "Connection refused")), TransientError, "NO_PROXY"),
        (BROKEN_OFF, TransientError, "EOF occurred"),
        (REFUSED, TransientError, "connection refused"),
        (ReadTimeoutError(endpoint_url="https://s3.example"), TransientError, "Read timeout"),
        (ProxyConnectionError(proxy_url="http://proxy"), TransientError, "NO_PROXY"),
        (CredentialRetrievalError(provider="sso", error_msg="no"), RefusedError, "mend the source"),
        (ProtocolError("Connection broken"), TransientError, "Connection broken"),
        (PaginationError(message="same token twice"), RefusedError, "same token twice"),
    ],
)
def test_translation(error: Exception, kind: type[WalsyncdError], words: str) -> None:
    """Each way to fail has its class, and the message says where it happened."""
    translation = translate("read object", TARGET, error)
    assert type(translation) is kind
    assert words in str(translation)
    assert str(translation).startswith("read object s3://b/root/key at https://s3.example: ")


def test_an_answer_without_a_body_is_called_by_its_status() -> None:
    """For example, HEAD has no body, and botocore makes code and message from the status line."""
    said = {"Error": {"Code": "403", "Message": "Forbidden"}, "ResponseMetadata": {"HTTPStatusCode": 403}}
    error = ClientError(said, "HeadObject")  # type: ignore[arg-type]  # the rest of what botocore adds is not looked at
    assert "the store answered 403 Forbidden (hint:" in str(translate("look at object", TARGET, error))


def test_a_connection_is_not_called_by_its_class() -> None:
    """The message already names the endpoint."""
    said = str(translate("list", TARGET, NewConnectionError(NO_ONE, "no route")))
    assert said.startswith("list s3://b/root/key at https://s3.example: no route")


def test_message_is_one_short_line() -> None:
    """However long a library's message is, ours is one readable line."""
    error = BotoCoreError()
    error.args = ("line\n" * 1000,)
    assert len(str(translate("list", TARGET, error)).splitlines()) == 1
    assert len(str(translate("list", TARGET, error))) < 500


def test_nothing_else_is_caught() -> None:
    """An exception from a fault in our own code is not translated."""
    with pytest.raises(KeyError), translated("list", TARGET):
        raise KeyError("bug")


@pytest.mark.parametrize("user", ["", "u:SECRET@", "SECRET@", "u:SEC/RET@", "u:SEC@RET@"])
def test_no_message_has_the_user_of_the_endpoint(user: str) -> None:
    """A password in endpoint_url is sent to the store, and never logged."""
    assert str(RequestTarget("b", f"http://{user}127.0.0.1:9000", "app/x")) == "s3://b/app/x at http://127.0.0.1:9000"


@pytest.mark.parametrize(
    "error", [KeyError("Size"), ValueError("no number"), TypeError("no text"), OverflowError("large")]
)
def test_an_answer_that_is_not_understood(error: Exception) -> None:
    """An exception that would be our fault elsewhere is the fault of the store's answer here."""
    words = r"^list s3://b/root/key at https://s3\.example: the answer is not S3's"
    with pytest.raises(TransientError, match=words), understood("list", TARGET):
        raise error
