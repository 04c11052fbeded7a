"""Requests to URLs of a monitoring service: a heartbeat is a GET, a report is a POST of JSON.

The whole URL is a secret, since everybody who knows it can send heartbeats in the daemon's name. So messages name only
the URL's scheme and host. Redirects are not followed, the body of an answer is not read, and a proxy is taken from the
environment.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit, urlunsplit
from urllib.request import getproxies, proxy_bypass

from urllib3 import PoolManager, ProxyManager
from urllib3.exceptions import HTTPError
from urllib3.util import Timeout, make_headers

from walsyncd import __version__
from walsyncd.errors import TransientError

TIMEOUT_S = 10.0  # the limit for connecting, and for each piece of the answer
_OK = range(200, 300)


def get(url: str, *, timeout_s: float = TIMEOUT_S) -> None:
    """Send a GET. Raises TransientError if the answer is not a success."""
    _request("GET", url, None, timeout_s)


def post(url: str, facts: Mapping[str, Any], *, timeout_s: float = TIMEOUT_S) -> None:
    """Send facts as JSON in a POST. Raises TransientError if the answer is not a success."""
    _request("POST", url, json.dumps(facts, ensure_ascii=False).encode(), timeout_s)


def with_suffix(url: str, suffix: str) -> str:
    """Return the URL with ``suffix`` at the end of its path, before its query."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(path=parts.path.rstrip("/") + suffix))


def shown(url: str) -> str:
    """Return what a message may show of the URL."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}/…"


def _request(method: str, url: str, body: bytes | None, timeout_s: float) -> None:
    parts = urlsplit(url)
    headers = {"User-Agent": f"walsyncd/{__version__}"}
    if body is not None:
        headers["Content-Type"] = "application/json; charset=utf-8"
    if parts.username is not None:
        headers |= make_headers(basic_auth=f"{parts.username}:{parts.password or ''}")
    bare = urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment=""))
    try:
        with _pool(parts.scheme, parts.hostname or "", timeout_s) as pool:
            answer = pool.request(method, bare, body=body, headers=headers, preload_content=False)
            answer.close()
    except (HTTPError, ValueError, OSError) as error:
        # The text of these errors contains the URL.
        raise TransientError(f"{method} {shown(url)}: {type(error).__name__}") from None
    if answer.status not in _OK:
        raise TransientError(f"{method} {shown(url)}: the answer is {answer.status}")


def _pool(scheme: str, host: str, timeout_s: float) -> PoolManager:
    """Return connections for one request. The next request comes too late to use the same connections."""
    how: dict[str, Any] = {"retries": False, "timeout": Timeout(connect=timeout_s, read=timeout_s)}
    proxy = None if proxy_bypass(host) else getproxies().get(scheme)
    return ProxyManager(proxy, **how) if proxy else PoolManager(**how)
