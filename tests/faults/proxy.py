"""An HTTP proxy before a store that causes the faults of networks and stores: by seed, and for a while.

Every request may meet one fault of ``tests.faults.faults``. After the requested number of faults all goes well, so that
a run ends. Requests that were held back land when their client has given up, at the latest with ``settle``. Two
properties of stores hold for a whole run: ETags that are no MD5 (``opaque_etags``, as of encrypted objects), and pages
of ListParts with few parts each. ``region`` is where the bucket is, whatever clients think.
"""

from __future__ import annotations

import hashlib
import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

from botocore.auth import S3SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from tests.faults.faults import CHANCE, FAULTS, Fault, Kind, Said
from tests.stores import ACCESS_KEY_ID, LOOPBACK, SECRET_ACCESS_KEY, Store

PARTS_PER_PAGE = 2
GIVE_UP_SECONDS_MAX = 60.0
_ETAG = re.compile(rb'(?<=")[0-9a-f]{32}(?=(-[0-9]+)?")|(?<=&quot;)[0-9a-f]{32}(?=(-[0-9]+)?&quot;)')
_OF_THE_SIGNATURE = frozenset(
    {"authorization", "x-amz-date", "x-amz-content-sha256", "content-md5", "content-length", "host"}
)
_PART = re.compile(rb"<Part>.*?</Part>", re.DOTALL)
_PART_NUMBER = re.compile(rb"<PartNumber>(\d+)</PartNumber>")


_BY_NAME = {fault.name: fault for fault in FAULTS}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Ignore the error: clients that have gone are the purpose of these tests."""


class FaultProxy:
    """Forwards to ``store``, with ``faults_max`` random faults of those named in ``only`` (all of them if empty).

    ``certain`` has further faults by name. The first fitting request whose target has the given word meets each.
    """

    def __init__(
        self,
        store: Store,
        *,
        seed: int,
        faults_max: int,
        only: frozenset[str] = frozenset(),
        certain: Sequence[tuple[str, str]] = (),
        opaque_etags: bool = False,
        region: str = "",
    ) -> None:
        self.certain = list(certain)
        """Those that nobody has met yet."""
        self.opaque_etags = opaque_etags
        self.region = region
        self.met: Counter[str] = Counter()
        self.asked: list[tuple[Kind, str]] = []
        self.chance = random.Random(seed)
        self._port = urlsplit(store.endpoint_url).port or 0
        self._faults = [fault for fault in FAULTS if not only or fault.name in only]
        self._left = faults_max
        self._lock = threading.Lock()
        self._settling = threading.Event()
        self._late: list[threading.Thread] = []
        proxy = self

        class Handler(Exchange):
            pass

        Handler.proxy = proxy
        self._server = _Server((LOOPBACK, 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05})
        self._thread.start()

    @property
    def endpoint_url(self) -> str:
        """The URL of the proxy."""
        return f"http://{LOOPBACK}:{self._server.server_port}"

    @property
    def is_quiet(self) -> bool:
        """Return whether all faults were met."""
        return self._left == 0

    def quieten(self) -> None:
        """Cause no more faults."""
        with self._lock:
            self._left = 0

    def close(self) -> None:
        """Stop the proxy."""
        self.settle()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def settle(self) -> None:
        """Forward all requests that were held back."""
        self.quieten()
        self._settling.set()
        while True:
            with self._lock:
                late = list(self._late)
                self._late.clear()
            if not late:
                return
            for thread in late:
                thread.join()

    def choose(self, kind: Kind, target: str) -> Fault | None:
        """Return the fault that a request meets, if any, and note the request in ``asked``."""
        with self._lock:
            self.asked.append((kind, target))
            certain = self._certain_for(kind, target)
            if certain is not None:
                self.met[certain.name] += 1
                return certain
            fitting = [fault for fault in self._faults if kind in fault.kinds]
            if not fitting or not self._left or self.chance.random() > CHANCE:
                return None
            self._left -= 1
            fault = self.chance.choices(fitting, [fault.weight for fault in fitting])[0]
            self.met[fault.name] += 1
            return fault

    def _certain_for(self, kind: Kind, target: str) -> Fault | None:
        for index, (name, word) in enumerate(self.certain):
            fault = _BY_NAME[name]
            if kind in fault.kinds and word in target and not self._settling.is_set():
                del self.certain[index]
                return fault
        return None

    def land_later(self, exchange: Exchange) -> None:
        """Forward a request a moment after the client has gone. Nobody gets the answer."""
        wait_s = self.chance.uniform(0.0, 4.0)

        def land() -> None:
            self._settling.wait(wait_s)
            with suppress(OSError, http.client.HTTPException):
                exchange.ask_store()

        thread = threading.Thread(target=land)
        with self._lock:
            self._late.append(thread)
        thread.start()

    def open_connection(self) -> http.client.HTTPConnection:
        """Open a connection to the store."""
        return http.client.HTTPConnection(LOOPBACK, self._port, timeout=GIVE_UP_SECONDS_MAX)


class Exchange(BaseHTTPRequestHandler):
    """One request and its answer. The faults use its methods."""

    proxy: FaultProxy
    protocol_version = "HTTP/1.1"
    timeout = GIVE_UP_SECONDS_MAX
    wbufsize = 1 << 16
    body = b""

    def _serve(self) -> None:
        self.body_size = int(self.headers.get("Content-Length") or 0)
        fault = self.proxy.choose(self.kind, self.path)
        if fault is not None and fault.before_body:
            fault.act(self)
            return
        self.body = self.rfile.read(self.body_size)
        if len(self.body) < self.body_size:
            self.reset()
        elif self.proxy.region and f"/{self.proxy.region}/s3/" not in self.headers.get("Authorization", ""):
            self.refuse(301, "PermanentRedirect", {"x-amz-bucket-region": self.proxy.region})
        elif fault is not None:
            fault.act(self)
        else:
            self.say(self.ask_store())

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the server's own names

    @property
    def kind(self) -> Kind:
        """The operation of S3 that this is."""
        url = urlsplit(self.path)
        query = parse_qs(url.query, keep_blank_values=True)
        has_key = url.path.count("/") > 1 and not url.path.endswith("/")
        match self.command:
            case "PUT":
                return Kind.PART if "partNumber" in query else Kind.PUT
            case "POST":
                return Kind.CREATE if "uploads" in query else Kind.COMPLETE if "uploadId" in query else Kind.DELETE
            case "DELETE":
                return Kind.ABORT if "uploadId" in query else Kind.DELETE
            case "HEAD":
                return Kind.HEAD
            case _ if "uploadId" in query:
                return Kind.LIST_PARTS
            case _ if "uploads" in query:
                return Kind.LIST_UPLOADS
        return Kind.GET if has_key else Kind.LIST

    # -- what can be done -------------------------------------------------------------------------------------------

    def ask_store(self, method: str = "") -> Said:
        """Forward the request as it came and return the answer."""
        connection = self.proxy.open_connection()
        try:
            connection.putrequest(method or self.command, self.path, skip_host=True, skip_accept_encoding=True)
            headers, body = self._as_the_store_knows_it()
            for name, value in headers.items():
                if name.lower() not in {"connection", "expect"}:
                    connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return self._translated(Said(answer.status, answer.getheaders(), answer.read()))
        finally:
            connection.close()

    def say(self, said: Said, *, cut: int | None = None) -> None:
        """Send an answer, of whose body only the first ``cut`` bytes are sent before the connection ends."""
        self.send_response_only(said.status)
        for name, value in said.headers:
            if name.lower() not in {"connection", "transfer-encoding", "content-length"}:
                self.send_header(name, value)
        known = next((value for name, value in said.headers if name.lower() == "content-length"), "0")
        length = known if self.command == "HEAD" else str(len(said.body))
        self.send_header("Content-Length", length)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(said.body[:cut])
        self.close_connection = cut is not None
        self.wfile.flush()

    def refuse(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        """Refuse the request, in S3's words."""
        body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>by a fault</Message></Error>"
        self.say(Said(status, [("Content-Type", "application/xml"), *(headers or {}).items()], body.encode()))

    def reset(self) -> None:
        """Reset the connection."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def say_ok(self, code: str) -> None:
        """Send a status of 200 and an error in the body, as Complete does when it takes long."""
        self.say(Said(200, [("Content-Type", "application/xml")], f"<Error><Code>{code}</Code></Error>".encode()))

    def land_later(self) -> None:
        """Have the request forwarded when nobody waits for it any more."""
        self.proxy.land_later(self)

    def acknowledge(self) -> None:
        """Answer that a body was stored, which was not."""
        etag = hashlib.md5(self.body, usedforsecurity=False).hexdigest()
        self.say(self._translated(Said(200, [("ETag", f'"{etag}"')], b"")))

    def read_half(self) -> None:
        """Read half of the body."""
        self.rfile.read(self.body_size // 2)

    def wait_for_the_end(self) -> None:
        """Send nothing until the client gives up."""
        self.close_connection = True
        with suppress(OSError):
            while self.connection.recv(1 << 16):
                continue

    def wait(self, seconds: float) -> None:
        """Wait before the next step."""
        time.sleep(seconds)

    # -- the properties of this store -------------------------------------------------------------------------------

    def _as_the_store_knows_it(self) -> tuple[dict[str, str], bytes]:
        """Return headers and body with the store's own ETags, signed again if that has changed anything."""
        headers, condition = dict(self.headers.items()), self.headers.get("If-Match", "").encode()
        body = _turned(self.body) if self.kind is Kind.COMPLETE else self.body
        if not self.proxy.opaque_etags or (body == self.body and not condition):
            return headers, self.body
        kept = {name: value for name, value in headers.items() if name.lower() not in _OF_THE_SIGNATURE}
        if condition:
            kept["If-Match"] = _turned(condition).decode()
        request = AWSRequest(self.command, f"http://{headers['Host']}{self.path}", headers=kept, data=body)
        S3SigV4Auth(Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY), "s3", "us-east-1").add_auth(request)
        return {**dict(request.headers.items()), "Host": headers["Host"], "Content-Length": str(len(body))}, body

    def _translated(self, said: Said) -> Said:
        body, headers = said.body, said.headers
        if self.kind is Kind.LIST_PARTS and said.status == 200:
            body = _first_page(body)
        if self.proxy.opaque_etags:
            body = body if self.kind is Kind.GET else _turned(body)
            headers = [(name, _turned(value.encode()).decode()) for name, value in headers]
        return Said(said.status, headers, body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        pass


def _turned(text: bytes) -> bytes:
    """Return ETags in reverse. They are no MD5 of anything any more, and are easily reversed again."""
    return _ETAG.sub(lambda match: match[0][::-1], text)


def _first_page(body: bytes) -> bytes:
    """Return a ListParts answer that is cut after a few part numbers, as stores do after 1,000."""
    numbers = sorted({int(number) for number in _PART_NUMBER.findall(body)})
    if len(numbers) <= PARTS_PER_PAGE:
        return body
    last = numbers[PARTS_PER_PAGE - 1]

    def kept(match: re.Match[bytes]) -> bytes:
        number = _PART_NUMBER.search(match[0])
        return match[0] if number and int(number[1]) <= last else b""

    body = _PART.sub(kept, body)
    body = re.sub(rb"<IsTruncated>\w*</IsTruncated>|<NextPartNumberMarker>\d*</NextPartNumberMarker>", b"", body)
    marks = b"<IsTruncated>true</IsTruncated><NextPartNumberMarker>%d</NextPartNumberMarker></ListPartsResult>" % last
    return body.replace(b"</ListPartsResult>", marks)


@contextmanager
def run_fault_proxy(
    store: Store,
    *,
    seed: int,
    faults_max: int,
    only: frozenset[str] = frozenset(),
    certain: Sequence[tuple[str, str]] = (),
    opaque_etags: bool = False,
    region: str = "",
) -> Iterator[FaultProxy]:
    """Run a proxy before a store. At the end everything has landed."""
    proxy = FaultProxy(
        store,
        seed=seed,
        faults_max=faults_max,
        only=only,
        certain=certain,
        opaque_etags=opaque_etags,
        region=region,
    )
    try:
        yield proxy
    finally:
        proxy.close()
