"""Sends all HTTP requests to a store: botocore signs them, urllib3 sends them over kept-alive connections.

All requests use this transport, so that the limits of ``progress_connection`` apply to each. boto3's requests use it
through the event ``before-send``, whose handler may answer in place of boto3's own session. Bodies are sent in blocks.
Between two blocks of a part, small objects go first (``BodyLine``).

The environment's proxies are used (``HTTPS_PROXY``, ``HTTP_PROXY``, ``NO_PROXY``). The URL of a proxy may contain a
user name and a password. Certificates are checked against ``ca_file``, else ``AWS_CA_BUNDLE``, else the system's
authorities and those that come with botocore.
"""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit
from urllib.request import getproxies, proxy_bypass

import botocore
from urllib3 import BaseHTTPResponse, HTTPConnectionPool, PoolManager, ProxyManager
from urllib3.exceptions import ProtocolError
from urllib3.util import Timeout, make_headers, parse_url

from walsyncd.adapters.storage.s3.progress_connection import SMALL_BYTES_MAX, StaleConnectionError, pool_classes
from walsyncd.adapters.storage.s3.s3_settings import ReuseLimits

READ_SIZE = 1 << 20
BLOCK_SIZE = 64 << 10  # a second at 0.5 Mbit/s
GIVE_WAY_S_MAX = 2.0  # stores end a request whose body is silent for about 20 s


class BodyLine:
    """Shares the bandwidth among bodies. After each block, a part waits while a small object is sent.

    The part waits at most as long as sending its last block took. So on a slow line a commit gets nearly all of the
    bandwidth, and on a fast and busy line a base keeps half of its speed.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._first = 0

    @contextmanager
    def goes_first(self) -> Iterator[None]:
        """Make parts wait while a small object is sent and answered."""
        with self._changed:
            self._first += 1
        try:
            yield
        finally:
            with self._changed:
                self._first -= 1
                if not self._first:
                    self._changed.notify_all()

    def give_way(self, block_s: float) -> None:
        """Wait while a small object is sent, but at most ``block_s``, the time that the part's last block took."""
        with self._changed:
            self._changed.wait_for(lambda: not self._first, min(block_s, GIVE_WAY_S_MAX))


class HttpTransport:
    """Sends requests.

    Any thread may call. ``beat`` is called whenever a part of a body or an answer was transferred.
    """

    def __init__(
        self,
        endpoint_url: str,
        *,
        ca_file: str | None,
        connect_timeout_s: float,
        timeout_s: float,
        connections_max: int,
        beat: Callable[[], None] = lambda: None,
        reuse: ReuseLimits,
    ) -> None:
        self._line = BodyLine()
        self._timeout = Timeout(connect=connect_timeout_s, read=timeout_s)
        # Without TLS no certificates are needed, and loading a hundred authorities takes some 20 ms.
        context = ssl_context(ca_file) if endpoint_url.startswith("https") else None
        self._pools = _pool_manager(_proxy_for(endpoint_url), context, connections_max)
        self._pools.pool_classes_by_scheme = pool_classes(timeout_s, beat, reuse)
        self._pool_of: dict[tuple[str, str], HTTPConnectionPool] = {}  # by scheme and authority; there are only a few

    def send(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, gives_way: bool = False
    ) -> BaseHTTPResponse:
        """Send a request and return the answer, whose body is still to be read. Raises urllib3's HTTPError.

        With ``gives_way`` other bodies go first. If a connection turns out to be dead, that is no error: the request is
        sent again on a new connection.
        """
        if gives_way or not body:
            return self._try_twice(method, url, headers, body, gives_way=gives_way)
        with self._line.goes_first():
            return self._try_twice(method, url, headers, body, gives_way=False)

    def close(self) -> None:
        """Close the connections that are not in use."""
        self._pools.clear()
        self._pool_of = {}  # replaced last: a thread that looked up a pool before notes it in the old dictionary

    def _try_twice(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, gives_way: bool
    ) -> BaseHTTPResponse:
        try:
            return self._try(method, url, headers, body, gives_way=gives_way)
        except ProtocolError as error:
            if not any(isinstance(cause, StaleConnectionError) for cause in error.args):
                raise
        self.close()  # the device that forgot this connection has probably forgotten the others
        return self._try(method, url, headers, body, gives_way=gives_way)

    def _try(
        self, method: str, url: str, headers: Mapping[str, str], body: bytes, *, gives_way: bool
    ) -> BaseHTTPResponse:
        scheme, _, authority = url.split("/", 3)[:3]
        pool = self._pool(scheme, authority)
        is_absolute = self._pools.proxy is not None and url.startswith("http:")
        is_small = method == "PUT" and not gives_way and len(body) <= SMALL_BYTES_MAX
        # Blocks of an iterator are sent one by one, each with its own time-out. The length is known all the same.
        blocks = body if is_small else self._blocks(body, gives_way=gives_way)
        return pool.urlopen(
            method,
            url if is_absolute else parse_target(url),
            body=blocks if body else None,  # type: ignore[arg-type]  # blocks are bytes
            headers={**headers, "Content-Length": str(len(body))} if body or method in {"PUT", "POST"} else headers,
            retries=False,
            redirect=False,
            assert_same_host=False,
            preload_content=False,
            decode_content=False,
            timeout=self._timeout,
        )

    def _pool(self, scheme: str, authority: str) -> HTTPConnectionPool:
        """Return the pool of a host.

        It is remembered, since urllib3's search takes a tenth of a small request's time (measured).
        """
        known = self._pool_of
        pool = known.get((scheme, authority))
        if pool is None:
            pool = known[scheme, authority] = self._pools.connection_from_host(**_place(scheme, authority))
        return pool

    def _blocks(self, body: bytes, *, gives_way: bool) -> Iterator[memoryview]:
        view = memoryview(body)
        for start in range(0, len(body), BLOCK_SIZE):
            began_s = time.monotonic()
            yield view[start : start + BLOCK_SIZE]
            if gives_way:
                self._line.give_way(time.monotonic() - began_s)


class Answered(Protocol):
    """The body of an answer, read in pieces. An empty piece is the end. Reading raises if the end comes too early."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes."""


def read_up_to(body: Answered, size: int) -> bytes:
    """Return a body, or the first ``size`` bytes of it.

    One call of ``read`` is not enough: it does not notice that a connection was closed before the end.
    """
    pieces = []
    while size and (piece := body.read(min(size, READ_SIZE))):
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def _place(scheme: str, authority: str) -> Mapping[str, Any]:
    """Return the values by which urllib3 finds a pool. ``scheme`` has its colon; ``authority`` is that of a URL."""
    parts = parse_url(f"{scheme}//{authority}")
    return {"host": parts.host, "port": parts.port, "scheme": parts.scheme}


def parse_target(url: str) -> str:
    """Return path and query exactly as they are in the URL, since signed text must not be normalized."""
    parts = urlsplit(url)
    return f"{parts.path or '/'}?{parts.query}" if parts.query else parts.path or "/"


def ssl_context(ca_file: str | None) -> ssl.SSLContext:
    """Return a context that trusts only the authorities in ``ca_file``, or else the system's and botocore's.

    Raises OSError or SSLError.
    """
    context = ssl.create_default_context(cafile=ca_file)
    bundle = Path(botocore.__file__).with_name("cacert.pem")  # distributions may omit it
    if ca_file is None and bundle.exists():
        context.load_verify_locations(cafile=bundle)
    return context


def _proxy_for(endpoint_url: str) -> str | None:
    """Return the environment's proxy for this endpoint, or None."""
    parts = urlsplit(endpoint_url)
    host = parts.netloc.rpartition("@")[2]
    proxy = getproxies().get(parts.scheme) or getproxies().get("all")
    if not proxy or proxy_bypass(host):
        return None
    return proxy if "://" in proxy else f"http://{proxy}"


def _pool_manager(proxy: str | None, context: ssl.SSLContext | None, connections_max: int) -> PoolManager:
    """Return a pool of direct connections, or of those through ``proxy``.

    Raises ValueError if ``proxy`` is not an HTTP proxy.
    """
    if proxy is None:
        return PoolManager(maxsize=connections_max, ssl_context=context)
    if not proxy.startswith(("http://", "https://")):
        raise ValueError(f"the environment's proxy is no http:// or https:// URL but {proxy.partition('://')[0]}://")
    parsed = parse_url(proxy)
    auth = make_headers(proxy_basic_auth=unquote(parsed.auth)) if parsed.auth else None
    return ProxyManager(proxy, proxy_headers=auth, maxsize=connections_max, ssl_context=context)
