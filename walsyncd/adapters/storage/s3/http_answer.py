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

The connection can be used again unless it ended the body, or ``Connection: close`` or HTTP/1.0 says otherwise. Source:
RFC 9112, sections 4 to 9.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from http.client import BadStatusLine, HTTPException, IncompleteRead, RemoteDisconnected

HEAD_BYTES_MAX = 64 << 10  # as the standard library's limit for one line
_RECEIVED = 64 << 10
_STATUS = re.compile(rb"HTTP/1\.([01]) (\d\d\d)(?: (.*))?")
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
    while True:
        head = incoming.until(b"\r\n\r\n", HEAD_BYTES_MAX).split(b"\r\n")
        found = _STATUS.fullmatch(head[0])
        if found is None:
            raise BadStatusLine(repr(head[0][:100]))
        status, headers = int(found[2]), _fields(head[1:])
        if status >= 200 or status == 101:
            break
    said = {name.lower(): value.lower() for name, value in headers}
    is_last = found[1] == b"0" or "close" in said.get("connection", "")
    body, is_whole = _body(incoming, status, said, headers, size_max)
    return HttpAnswer(status, (found[3] or b"").decode("latin-1"), headers, body, is_last or not is_whole)


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


def _body(
    incoming: _Incoming, status: int, said: dict[str, str], headers: list[tuple[str, str]], size_max: int
) -> tuple[bytes, bool]:
    """Return the body, and whether its end was found without the end of the connection."""
    if status in {204, 304}:
        return b"", True
    if "chunked" in said.get("transfer-encoding", ""):
        return _chunks(incoming, size_max)
    lengths = {value for name, value in headers if name.lower() == "content-length"}
    if not lengths:
        return incoming.rest(size_max), False
    length = lengths.pop()
    if lengths or not _LENGTH.fullmatch(length):
        raise HTTPException(f"the answer's Content-Length is {length[:100]!r}")
    return incoming.exactly(min(int(length), size_max)), int(length) <= size_max


def _chunks(incoming: _Incoming, size_max: int) -> tuple[bytes, bool]:
    body = b""
    while True:
        found = _SIZE.match(incoming.until(b"\r\n", HEAD_BYTES_MAX))
        if found is None:
            raise HTTPException("a chunk of the answer has no size")
        size = int(found[0], 16)
        if not size:
            while incoming.until(b"\r\n", HEAD_BYTES_MAX):
                pass
            return body, True
        body += incoming.exactly(min(size, size_max - len(body)))
        if len(body) == size_max:
            return body, False
        incoming.until(b"\r\n", 0)


class _Incoming:
    """What has come of an answer and was not used yet."""

    def __init__(self, receive: Callable[[int], bytes]) -> None:
        self._receive = receive
        self._held = b""
        self._has_begun = False

    def until(self, end: bytes, size_max: int) -> bytes:
        """Return everything before ``end``, and skip that. There may be ``size_max`` bytes."""
        while (at := self._held.find(end)) < 0:
            if len(self._held) >= size_max + len(end):
                raise HTTPException("the answer's head can't be read")
            self._more()
        if at > size_max:
            raise HTTPException("the answer's head can't be read")
        taken, self._held = self._held[:at], self._held[at + len(end) :]
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
