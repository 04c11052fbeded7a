"""Tests of requests to URLs that are secret."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.receivers import Receiver, run_receiver
from tests.stores import free_ports
from walsyncd.adapters.system.web_hook import get, post, shown, with_suffix
from walsyncd.errors import TransientError


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with run_receiver() as receiver:
        yield receiver


def test_what_is_sent(receiver: Receiver) -> None:
    """A request is a plain GET, or a POST of JSON in UTF-8, with a User-Agent.

    The URL's password is sent in a header.
    """
    get(f"{receiver.url}/ping/token?run=1")
    post(f"http://user:pass@127.0.0.1:{receiver.port}/report", {"text": "naïve"})
    (method, path, headers, body), second = receiver.requests
    assert (method, path, body) == ("GET", "/ping/token?run=1", None)
    assert headers["user-agent"].startswith("walsyncd/")
    assert (second[0], second[1], second[3]) == ("POST", "/report", {"text": "naïve"})
    assert second[2]["content-type"] == "application/json; charset=utf-8"
    assert second[2]["authorization"].startswith("Basic ")


@pytest.mark.parametrize("status", [301, 404, 500])
def test_every_other_answer_is_an_error_without_the_secret(receiver: Receiver, status: int) -> None:
    """The error names the receiver's host, but neither the path nor the password."""
    receiver.status = status
    with pytest.raises(TransientError) as error:
        get(f"http://user:geheim@127.0.0.1:{receiver.port}/token?key=geheim")
    assert str(status) in error.value.message
    assert f"http://127.0.0.1:{receiver.port}/…" in error.value.message
    assert "geheim" not in str(error.value)
    assert "token" not in str(error.value)


def test_a_dead_and_a_silent_receiver_are_errors_in_time(receiver: Receiver) -> None:
    """The receiver refuses connections, or does not answer. The error's cause does not have the secret either."""
    release = threading.Event()
    receiver.before = lambda: release.wait(60)
    for port in (free_ports(1)[0], receiver.port):
        with pytest.raises(TransientError) as error:
            post(f"http://127.0.0.1:{port}/token", {}, timeout_s=0.2)
        assert "token" not in str(error.value)
        assert error.value.__cause__ is None
    release.set()


@pytest.mark.parametrize(
    ("url", "failed"),
    [
        ("https://hc-ping.com/abc", "https://hc-ping.com/abc/fail"),
        ("https://hc-ping.com/abc/", "https://hc-ping.com/abc/fail"),
        ("https://a.example/ping?token=1", "https://a.example/ping/fail?token=1"),
    ],
)
def test_the_suffix_comes_before_the_query(url: str, failed: str) -> None:
    """The suffix is added to the URL's path, because receivers of heartbeats expect this."""
    assert with_suffix(url, "/fail") == failed


def test_what_may_be_shown() -> None:
    """Scheme, host and port may be shown."""
    assert shown("https://user:pass@host.example:8443/token?x=1#y") == "https://host.example:8443/…"
