"""A store that lies: it forwards to a real one, and changes the answers to the requests that a test chooses.

::

    with run_lying_store(moto) as store:
        store.lie(ENDLESS, about=lambda request: "app/" in request)

A request is its method and target, as in ``GET /bucket/app/owner.json``. ``sent`` counts the bytes of bodies that a
client took. Each lie ends by itself after ``LIE_BYTES_MAX``, so that a test of a client that believes it ends, too.
"""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from tests.stores import LOOPBACK, Store

LIE_BYTES_MAX = 256 << 20
PAGES_MAX = 3000  # of a list that does not end
BLOCK = b"x" * (1 << 20)


@dataclass(frozen=True, slots=True)
class Told:
    """The answer of the store.

    ``length`` is Content-Length (None: chunked), and ``more`` are endless blocks after the body.
    """

    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None
    more: bool = False


Lie = Callable[[str, Told], Told]


def _body(told: Told, body: bytes, **headers: str) -> Told:
    return Told(told.status, {**told.headers, **headers}, body, len(body))


def _header(told: Told, name: str, value: str | None) -> Told:
    headers = {key: each for key, each in told.headers.items() if key.lower() != name}
    return Told(told.status, headers | ({name: value} if value is not None else {}), told.body, told.length)


def endless(_request: str, told: Told) -> Told:
    """The body never ends."""
    return Told(told.status, told.headers, told.body, None, more=True)


def huge(_request: str, told: Told) -> Told:
    """Content-Length is right, and enormous."""
    return Told(told.status, told.headers, told.body, 1 << 40, more=True)


def short(_request: str, told: Told) -> Told:
    """The body has fewer bytes than Content-Length says, then the connection is closed."""
    return Told(told.status, told.headers, told.body[: len(told.body) // 2], len(told.body))


def cut_short(_request: str, told: Told) -> Told:
    """The body has fewer bytes than the object, and a Content-Length that fits."""
    return _body(told, told.body[: len(told.body) // 2])


def empty(_request: str, told: Told) -> Told:
    """The body is empty, and the status is 200."""
    return _body(Told(200, told.headers, b"", 0), b"")


def error_in_200(_request: str, told: Told) -> Told:
    """The body is an error, and the status is 200."""
    return _body(Told(200, told.headers, b"", 0), b"<Error><Code>InternalError</Code><Message>no</Message></Error>")


def no_xml(_request: str, told: Told) -> Told:
    """The body is a web page, and the status is 200."""
    return _body(Told(200, told.headers, b"", 0), b"<html><body>Welcome</body></html>")


def deep(_request: str, told: Told) -> Told:
    """The body is XML that is nested a hundred thousand times."""
    return _body(told, b"<a>" * 100_000 + b"</a>" * 100_000)


def entities(_request: str, told: Told) -> Told:
    """The body is XML whose entities would become gigabytes."""
    lines = [f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 12)]
    document = f'<!DOCTYPE r [<!ENTITY e0 "xxxxxxxxxx">{"".join(lines)}]><ListBucketResult><Name>&e11;</Name>'
    return _body(told, f"{document}</ListBucketResult>".encode())


def no_times(_request: str, told: Told) -> Told:
    """No object has a time."""
    body = re.sub(rb"<LastModified>[^<]*</LastModified>", b"", told.body)
    return _header(_body(told, body), "last-modified", None)


def odd_times(_request: str, told: Told) -> Told:
    """Every object has an impossible time."""
    body = re.sub(rb"<LastModified>[^<]*<", b"<LastModified>99999-99-99<", told.body)
    return _header(_body(told, body), "last-modified", "yesterday")


def odd_sizes(_request: str, told: Told) -> Told:
    """Every object has a size that is no number."""
    return _body(told, re.sub(rb"<Size>[^<]*<", b"<Size>many<", told.body))


def negative_sizes(_request: str, told: Told) -> Told:
    """Every object has a negative size."""
    return _body(told, re.sub(rb"<Size>[^<]*<", b"<Size>-9223372036854775809<", told.body))


def wrong_etags(_request: str, told: Told) -> Told:
    """Every ETag differs from that of the answer before."""
    body = re.sub(rb"<ETag>[^<]*<", b"<ETag>0<", told.body)
    return _header(_body(told, body), "etag", '"0"')


def no_etags(_request: str, told: Told) -> Told:
    """No object has an ETag."""
    return _header(_body(told, re.sub(rb"<ETag>[^<]*</ETag>", b"", told.body)), "etag", None)


def reversed_list(_request: str, told: Told) -> Told:
    """The list is in reverse order, and has every entry twice."""
    entries = re.findall(rb"<Contents>.*?</Contents>", told.body, re.DOTALL)
    rest = re.sub(rb"<Contents>.*?</Contents>", b"", told.body, flags=re.DOTALL)
    return _body(told, rest.replace(b"</ListBucketResult>", b"".join(entries[::-1] * 2) + b"</ListBucketResult>"))


def huge_keys(_request: str, told: Told) -> Told:
    """Keys have a megabyte."""
    return _body(told, told.body.replace(b"</Key>", b"x" * (1 << 20) + b"</Key>"))


def same_token(_request: str, told: Told) -> Told:
    """Every page says that there is another one, by the same token."""
    return _more_pages(told, b"again")


def endless_pages(request: str, told: Told) -> Told:
    """Every page says that there is another one, by a token of its own."""
    number = int((re.search(r"continuation-token=(\d+)", request) or [0, 0])[1]) + 1
    return _more_pages(told, b"%d" % number) if number < PAGES_MAX else told


def endless_empty_pages(request: str, told: Told) -> Told:
    """Every page says that there is another one, and is empty."""
    return endless_pages(request, _body(told, re.sub(rb"<Contents>.*</Contents>", b"", told.body, flags=re.DOTALL)))


def _more_pages(told: Told, token: bytes) -> Told:
    body = re.sub(rb"<IsTruncated>[^<]*<", b"<IsTruncated>true<", told.body)
    more = b"<NextContinuationToken>" + token + b"</NextContinuationToken></ListBucketResult>"
    return _body(told, body.replace(b"</ListBucketResult>", more))


def whole_object(_request: str, told: Told) -> Told:
    """The answer to a request for a range is another part, and the status is 200."""
    return _body(Told(200, told.headers, b"", 0), b"y" * (1 << 20))


LIES: tuple[Lie, ...] = (
    *(endless, huge, short, cut_short, empty, error_in_200, no_xml, deep, entities, no_times, odd_times, odd_sizes),
    *(negative_sizes, wrong_etags, no_etags, reversed_list, huge_keys, same_token, endless_pages, endless_empty_pages),
    whole_object,
)


class LyingStore:
    """A running store and what it lies about. ``requests`` counts the requests, and ``lies`` those that got a lie."""

    def __init__(self, store: Store) -> None:
        self.real = store
        self.endpoint_url = ""
        self.requests: list[str] = []
        self.lies = 0
        self.sent = 0
        self._lie: Lie | None = None
        self._is_about: Callable[[str], bool] = lambda _request: True

    def lie(self, lie: Lie | None, about: Callable[[str], bool] = lambda _request: True) -> None:
        """Give this lie from now on. None means to tell the truth."""
        self._lie, self._is_about = lie, about

    def told(self, request: str, told: Told) -> Told:
        """Return the answer for a true one."""
        if self._lie is None or told.status >= 300 or not self._is_about(request):
            return told
        self.lies += 1
        return self._lie(request, told)


@contextmanager
def run_lying_store(store: Store) -> Iterator[LyingStore]:
    """Run the store in threads of this process."""
    lying = LyingStore(store)
    host = urlsplit(store.endpoint_url).netloc

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            request = f"{self.command} {self.path}"
            lying.requests.append(request)
            upstream = http.client.HTTPConnection(host, timeout=60)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            upstream.request(self.command, self.path, body, headers)
            answer = upstream.getresponse()
            said = answer.read()
            kept = {n: v for n, v in answer.getheaders() if n.lower() not in {"content-length", "transfer-encoding"}}
            length = int(answer.headers.get("Content-Length") or 0) if self.command == "HEAD" else len(said)
            upstream.close()
            with suppress(OSError):
                self._say(lying.told(request, Told(answer.status, kept, said, length)))

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the server's own names

        def _say(self, told: Told) -> None:
            self.send_response_only(told.status)
            for name, value in told.headers.items():
                self.send_header(name, value)
            if told.length is None:
                self.send_header("Transfer-Encoding", "chunked")
            else:
                self.send_header("Content-Length", str(told.length))
            self.end_headers()
            if self.command == "HEAD":
                return
            sent = len(told.body)
            self._write(told.body, is_chunk=told.length is None)
            while told.more and sent < LIE_BYTES_MAX:
                self._write(BLOCK, is_chunk=told.length is None)
                sent += len(BLOCK)
            if told.length is None:
                self.wfile.write(b"0\r\n\r\n")
            self.close_connection = told.length is not None and sent != told.length

        def _write(self, block: bytes, *, is_chunk: bool) -> None:
            if is_chunk and block:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(block), block))
            elif block:
                self.wfile.write(block)
            lying.sent += len(block)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    server.daemon_threads = True
    lying.endpoint_url = f"http://{LOOPBACK}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield lying
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
