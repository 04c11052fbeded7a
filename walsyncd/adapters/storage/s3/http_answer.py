"""Reads the answer to a small request, whole.

The standard library parses the headers of an answer as those of an e-mail, which takes longer than all other work for
the PUT of a small object. What streams or may be long is left to it.

==============================  ====================================================================
the answer                      its body
==============================  ====================================================================
1xx (but 101)                   is not the answer yet: another one follows
204, 304                        empty
``Transfer-Encoding: chunked``  chunks of a hexadecimal size, the last one empty, then trailer fields
``Content-Length``              so many bytes
neither                         everything until the connection is closed
==============================  ====================================================================

The connection can be used again unless it ended the body, or ``Connection: close`` or HTTP/1.0 says otherwise. It is
not used again either if more has come than the answer, or if the answer has both a length and chunks: what comes next
would perhaps be taken for another answer. Lines may end without a carriage return. Source: RFC 9112, sections 2.2 and 4
to 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected

HEAD_BYTES_MAX = 64 << 10  # as the standard library's limit for one line
_RECEIVED = 64 << 10
_HEADS_MAX = 100  # of which all but the last are 1xx
_PROTOCOL = b"HTTP/"
_STATUS = re.compile(rb"HTTP/1\.(\d) +([1-9]\d\d)(?: +(.*))?")
_HEAD_END = re.compile(rb"\n\r?\n")
_LINE_END = re.compile(rb"\r?\n")
_END_BYTES_MAX = 3  # of both
_SIZE = re.compile(rb"[0-9a-fA-F]{1,15}")
_LENGTH = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """An answer. ``is_last`` means that its connection can't be used again."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes
    is_last: bool


def read_answer(receive: Callable[[int], bytes], *, size_max: int) -> HttpAnswer:
    """Read an answer by ``receive``, which returns at most so many bytes, and none at the end of the connection.

    A body that is longer than ``size_max`` is cut there. Raises RemoteDisconnected if the connection ends before the
    first byte, BadStatusLine if the answer is not HTTP, and another HTTPException if it ends too early or can't be
    read. After the first byte an OSError of ``receive`` becomes an IncompleteRead, because the request has arrived.
    A TimeoutError stays one.
    """
    incoming = _Incoming(receive)
    for _ in range(_HEADS_MAX):
        found, headers = _head(incoming)
        status = int(found[2])
        if status >= 200 or status == 101:
            break
    else:
        raise HTTPException(f"{_HEADS_MAX} answers of status 1xx have come, and no other")
    said = _values(headers)
    is_last = found[1] == b"0" or "close" in said.get("connection", "")
    is_doubtful = "transfer-encoding" in said and "content-length" in said
    body, is_whole = _body(incoming, status, said, size_max)
    is_last = is_last or is_doubtful or not is_whole or bool(incoming.held)
    return HttpAnswer(status, (found[3] or b"").decode("latin-1"), headers, body, is_last)


def _head(incoming: _Incoming) -> tuple[re.Match[bytes], list[tuple[str, str]]]:
    """Return what the status line says, and the headers. What is not HTTP is noticed by its first bytes."""
    if not incoming.begins_with(_PROTOCOL):
        raise BadStatusLine(incoming.held[:100].decode("latin-1"))
    lines = [line.removesuffix(b"\r") for line in incoming.until(_HEAD_END, HEAD_BYTES_MAX).split(b"\n")]
    found = _STATUS.fullmatch(lines[0])
    if found is None:
        raise BadStatusLine(lines[0][:100].decode("latin-1"))
    return found, _fields(lines[1:])


def _values(headers: list[tuple[str, str]]) -> dict[str, str]:
    """Return the values in lower case. Those of headers of the same name are separated by commas."""
    said: dict[str, str] = {}
    for name, value in headers:
        lower = name.lower()
        said[lower] = f"{said[lower]},{value.lower()}" if lower in said else value.lower()
    return said


def _fields(lines: list[bytes]) -> list[tuple[str, str]]:
    fields: list[tuple[str, str]] = []
    for line in lines:
        text = line.decode("latin-1")
        if text[:1] in {" ", "\t"} and fields:  # continues the line before; obsolete
            fields[-1] = (fields[-1][0], f"{fields[-1][1]} {text.strip()}")
            continue
        name, colon, value = text.partition(":")
        if colon:
            fields.append((name.strip(), value.strip()))
    return fields


def _body(incoming: _Incoming, status: int, said: dict[str, str], size_max: int) -> tuple[bytes, bool]:
    """Return the body, and whether its end was found without the end of the connection."""
    if status in {204, 304}:
        return b"", True
    if "chunked" in said.get("transfer-encoding", ""):
        return _chunks(incoming, size_max)
    if "content-length" not in said:
        return incoming.rest(size_max), False
    lengths = {length.strip() for length in said["content-length"].split(",")}
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise HTTPException(f"the answer's Content-Length is {length[:100]!r}")
    return incoming.exactly(min(int(length), size_max)), int(length) <= size_max


def _chunks(incoming: _Incoming, size_max: int) -> tuple[bytes, bool]:
    body = b""
    while True:
        found = _SIZE.match(incoming.until(_LINE_END, HEAD_BYTES_MAX))
        if found is None:
            raise HTTPException("a chunk of the answer has no size")
        size = int(found[0], 16)
        if not size:
            left = HEAD_BYTES_MAX
            while line := incoming.until(_LINE_END, left):
                left -= len(line)
            return body, True
        body += incoming.exactly(min(size, size_max - len(body)))
        if len(body) == size_max:
            return body, False
        incoming.until(_LINE_END, 0)


class _Incoming:
    """What has come of an answer and was not used yet."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._held = b""
        self._has_begun = False

    @property
    def held(self) -> bytes:
        """What has come and was not used yet."""
        return self._held

    def begins_with(self, expected: bytes) -> bool:
        """Return whether the next bytes are these. They are not used yet."""
        while len(self._held) < len(expected):
            self._more()
        return self._held.startswith(expected)

    def until(self, end: re.Pattern[bytes], size_max: int) -> bytes:
        """Return everything before ``end``, and skip that. There may be ``size_max`` bytes."""
        while (found := end.search(self._held)) is None:
            if len(self._held) >= size_max + _END_BYTES_MAX:
                raise HTTPException("the answer's head can't be read")
            self._more()
        if found.start() > size_max:
            raise HTTPException("the answer's head can't be read")
        taken, self._held = self._held[: found.start()], self._held[found.end() :]
        return taken

    def exactly(self, size: int) -> bytes:
        """Return ``size`` bytes."""
        while len(self._held) < size:
            self._more()
        taken, self._held = self._held[:size], self._held[size:]
        return taken

    def rest(self, size_max: int) -> bytes:
        """Return what comes before the connection ends, or the first ``size_max`` bytes of it."""
        while len(self._held) < size_max and self._received():
            pass
        return self._held[:size_max]

    def _more(self) -> None:
        if self._received():
            return
        if not self._has_begun:
            raise RemoteDisconnected("the connection was closed without an answer")
        raise IncompleteRead(self._held)

    def _received(self) -> bool:
        try:
            came = self._receive(_RECEIVED)
        except OSError as error:
            if not self._has_begun or isinstance(error, TimeoutError):
                raise
            raise IncompleteRead(self._held) from error
        self._has_begun = self._has_begun or bool(came)
        self._held += came
        return bool(came)
