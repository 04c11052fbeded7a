"""Answers as servers and proxies give them, in pieces of any size, cut at every byte."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected

import pytest

from walsyncd.adapters.storage.s3.http_answer import HEAD_BYTES_MAX, HttpAnswer, read_answer

MAX = 64


def come(text: bytes, piece: int = 1, end: Exception | None = None) -> Callable[[int], bytes]:
    """A connection that brings ``text`` in pieces, and then is closed or fails."""
    left = [text[at : at + piece] for at in range(0, len(text), piece)]

    def receive(_size: int) -> bytes:
        if not left and end is not None:
            raise end
        return left.pop(0) if left else b""

    return receive


HINTS = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nLink: x\r\n\r\n"
CHUNKS = b"3;x=y\r\n<Er\r\nA\r\nror/>67890\r\n0\r\nTrailer: t\r\n\r\n"


@pytest.mark.parametrize("piece", [1, 7, 1000])
@pytest.mark.parametrize(
    ("text", "answer"),
    [
        (
            b'HTTP/1.1 200 OK\r\nETag: "e"\r\nContent-Length: 0\r\n\r\n',
            HttpAnswer(200, "OK", [("ETag", '"e"'), ("Content-Length", "0")], b"", is_last=False),
        ),
        (
            HINTS + b"HTTP/1.1 503\r\ncontent-length:4\r\n\r\nslow",
            HttpAnswer(503, "", [("content-length", "4")], b"slow", is_last=False),
        ),
        (
            b"HTTP/1.1 403 No\r\nTransfer-Encoding: Chunked\r\n\r\n" + CHUNKS,
            HttpAnswer(403, "No", [("Transfer-Encoding", "Chunked")], b"<Error/>67890", is_last=False),
        ),
        (
            b"HTTP/1.1 500 Gone wrong\r\nX: a\r\n  b\r\n\r\nuntil the end",
            HttpAnswer(500, "Gone wrong", [("X", "a b")], b"until the end", is_last=True),
        ),
        (
            b"HTTP/1.1 200 OK\r\nConnection: Close\r\nContent-Length: 2\r\n\r\nok",
            HttpAnswer(200, "OK", [("Connection", "Close"), ("Content-Length", "2")], b"ok", is_last=True),
        ),
        (
            b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\nno colon\r\n\r\n",
            HttpAnswer(200, "OK", [("Content-Length", "0")], b"", is_last=True),
        ),
        (b"HTTP/1.1 204 \r\n\r\n", HttpAnswer(204, "", [], b"", is_last=False)),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\ncontent-length: 0\r\n\r\n",
            HttpAnswer(200, "OK", [("Content-Length", "0"), ("content-length", "0")], b"", is_last=False),
        ),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 2, 2\r\n\r\nok",
            HttpAnswer(200, "OK", [("Content-Length", "2, 2")], b"ok", is_last=False),
        ),
        (
            b"HTTP/1.1 100 Continue\n\nHTTP/1.1 200 OK\nX: y\r\nContent-Length: 2\n\r\nok",
            HttpAnswer(200, "OK", [("X", "y"), ("Content-Length", "2")], b"ok", is_last=False),
        ),
        (
            b"HTTP/1.1  503  Slow down\nTransfer-Encoding: chunked\n\n" + CHUNKS.replace(b"\r\n", b"\n"),
            HttpAnswer(503, "Slow down", [("Transfer-Encoding", "chunked")], b"<Error/>67890", is_last=False),
        ),
        (
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n2\r\nok\r\n0\r\n\r\n",
            HttpAnswer(
                200, "OK", [("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "identity")], b"ok", is_last=False
            ),
        ),
    ],
)
def test_an_answer(text: bytes, answer: HttpAnswer, piece: int) -> None:
    """Status, headers and body are the same however the answer comes."""
    assert read_answer(come(text, piece), size_max=MAX) == answer


@pytest.mark.parametrize(
    "text",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
    ],
)
@pytest.mark.parametrize("end", [None, ConnectionResetError()])
def test_an_answer_that_is_cut(text: bytes, end: Exception | None) -> None:
    """Before the first byte nothing is known of the request, after it the request has arrived."""
    for size in range(1, len(text)):
        with pytest.raises(IncompleteRead):
            read_answer(come(text[:size], 1, end), size_max=MAX)
    with pytest.raises(RemoteDisconnected if end is None else ConnectionResetError):
        read_answer(come(b"", 1, end), size_max=MAX)


@pytest.mark.parametrize(
    ("text", "body"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n", b"ok"),
        (b"HTTP/1.1 204 No\r\nContent-Length: 2\r\n\r\nok", b""),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n\r\n", b"ok"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", b"ok"),
    ],
)
def test_an_answer_whose_end_is_in_doubt(text: bytes, body: bytes) -> None:
    """What came after it must not be taken for the answer to the next request."""
    answer = read_answer(come(text, len(text)), size_max=MAX)
    assert (answer.body, answer.is_last) == (body, True)


@pytest.mark.parametrize("text", [b"SSH-2.0-x\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b"HTTP/1.1 099 x\r\n\r\n"])
def test_nobody_waits_for_the_end_of_what_is_no_answer(text: bytes) -> None:
    """A server of another kind says something and waits too."""
    for piece in (1, len(text)):
        with pytest.raises(BadStatusLine):
            read_answer(come(text, piece, TimeoutError()), size_max=MAX)


@pytest.mark.parametrize(
    ("begin", "again"),
    [
        (b"", b"HTTP/1.1 100 Continue\r\n\r\n"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n", b"Trailer: %b\r\n" % (b"t" * 1000)),
    ],
)
def test_an_answer_that_never_ends(begin: bytes, again: bytes) -> None:
    """It is given up, however busy its connection is."""
    pieces = itertools.chain([begin] if begin else [], itertools.repeat(again, 10_000))
    with pytest.raises(HTTPException):
        read_answer(lambda _size: next(pieces), size_max=MAX)


def test_an_answer_that_comes_too_late() -> None:
    """It is the silence that is reported."""
    for text in (b"", b"HTTP/1.1 2"):
        with pytest.raises(TimeoutError):
            read_answer(come(text, 1, TimeoutError()), size_max=MAX)


@pytest.mark.parametrize("body", [b"x" * (MAX + 1), b"x" * 10_000])
def test_a_body_that_is_too_long(body: bytes) -> None:
    """Its beginning is returned, and the connection is not used again."""
    heads = {
        b"Content-Length: %d\r\n\r\n" % len(body): body,
        b"Transfer-Encoding: chunked\r\n\r\n": b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
        b"\r\n": body,
    }
    for head, sent in heads.items():
        answer = read_answer(come(b"HTTP/1.1 200 OK\r\n" + head + sent, 50), size_max=MAX)
        assert (answer.body, answer.is_last) == (body[:MAX], True)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (b"<html>\r\n\r\n", BadStatusLine),
        (b"HTTP/2 200 OK\r\n\r\n", BadStatusLine),
        (b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", HTTPException),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n12", HTTPException),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", HTTPException),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n", HTTPException),
        (b"HTTP/1.1 200 OK\r\nX: " + b"x" * HEAD_BYTES_MAX + b"\r\n\r\n", HTTPException),
        (b"x" * (HEAD_BYTES_MAX + 10), HTTPException),
    ],
)
def test_what_is_no_answer(text: bytes, error: type[Exception]) -> None:
    """It is refused, whatever it is, and read no further than a head may be long."""
    for piece in (1000, len(text)):
        with pytest.raises(error):
            read_answer(come(text, piece), size_max=MAX)
