"""Tests of the way to a store: proxies, private authorities, IPv6, endpoints with a path, and priorities."""

from __future__ import annotations

import io
import ssl
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from tests.certificates import make_certificate
from tests.forward_proxy import run_forward_proxy
from tests.scripted_store import Answer, ScriptedStore
from tests.throttle import run_throttle
from walsyncd.adapters.storage.s3.http_transport import BodyLine, parse_target, read_up_to
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.errors import RefusedError, TransientError, UsageError

THERE = Answer(headers={"ETag": '"e"', "Last-Modified": "Sun, 22 Nov 2026 10:00:00 GMT"})


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Remove the proxy and the authority of this machine from the environment."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "AWS_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


def use(script: ScriptedStore, **settings: object) -> None:
    """Make a PUT and a read, which take different ways through the code."""
    with closing(S3Storage(replace(script.settings(), **settings))) as storage:  # type: ignore[arg-type]
        script.will_say(Answer(), THERE)
        storage.put("a", b"x", metadata={})
        storage.head("a")


def test_a_proxy_of_the_environment(script: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every request passes through the proxy, with the proxy's name and password. NO_PROXY excludes the endpoint."""
    with run_forward_proxy() as proxy:
        monkeypatch.setenv("http_proxy", f"http://me:p%40ss@127.0.0.1:{proxy.port}")
        use(script)
        assert proxy.seen == [("PUT", "Basic bWU6cEBzcw=="), ("HEAD", "Basic bWU6cEBzcw==")]
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        use(script)
        assert len(proxy.seen) == 2
    assert len(script.requests) == 4


def test_a_proxy_for_tls_is_a_tunnel(script: ScriptedStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The proxy sees the host that is connected to, and nothing else."""
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with run_forward_proxy() as proxy, run_throttle(script.endpoint_url, tls=context) as line:
        monkeypatch.setenv("https_proxy", f"127.0.0.1:{proxy.port}")
        use(script, endpoint_url=line.endpoint_url, ca_file=str(certificate))
        assert {method for method, _ in proxy.seen} == {"CONNECT"}
    assert len(script.requests) == 2


def test_a_proxy_that_is_not_there(script: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the setting to look at."""
    with run_forward_proxy() as proxy:
        port = proxy.port
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{port}")
    with closing(S3Storage(script.settings())) as storage, pytest.raises(TransientError, match="HTTPS_PROXY"):
        storage.put("a", b"x", metadata={})


def test_another_kind_of_proxy_is_refused(script: ScriptedStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error does not show the proxy's password."""
    monkeypatch.setenv("http_proxy", "socks5://me:secret@127.0.0.1:1")
    with pytest.raises(UsageError, match="socks5://") as caught:
        S3Storage(script.settings())
    assert "secret" not in str(caught.value)


def test_a_private_authority(script: ScriptedStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store with a private authority is refused without ca_file, and accepted with ca_file or AWS_CA_BUNDLE."""
    certificate = make_certificate(tmp_path)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    with run_throttle(script.endpoint_url, tls=context) as line:
        with pytest.raises(RefusedError, match="ca_file"):
            use(script, endpoint_url=line.endpoint_url)
        script.answers.clear()
        use(script, endpoint_url=line.endpoint_url, ca_file=str(certificate))
        monkeypatch.setenv("AWS_CA_BUNDLE", str(certificate))
        use(script, endpoint_url=line.endpoint_url)
    assert len(script.requests) == 4


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none(script: ScriptedStore, tmp_path: Path, content: str | None) -> None:
    """The error names the file when the storage is opened."""
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(UsageError, match=str(file)):
        S3Storage(script.settings(endpoint_url="https://s3.example", ca_file=str(file)))


def test_ipv6(script: ScriptedStore) -> None:
    """An address in brackets works for PUTs and for all other requests."""
    with run_throttle(script.endpoint_url, host="::1") as line:
        use(script, endpoint_url=line.endpoint_url)
        assert line.connections == 1
    assert script.requests[0].headers["host"].startswith("[::1]:")


def test_an_endpoint_with_a_path(script: ScriptedStore) -> None:
    """The bucket is below the path, for PUTs and for all other requests."""
    use(script, endpoint_url=f"{script.endpoint_url}/gateway/s3")
    assert [request.path for request in script.requests] == ["/gateway/s3/b/a"] * 2


def test_what_was_signed_is_what_is_sent() -> None:
    """The dots and percent signs of a key are not normalised."""
    assert parse_target("http://h/b/../x%2fy?partNumber=1&uploadId=u") == "/b/../x%2fy?partNumber=1&uploadId=u"
    assert parse_target("http://h") == "/"


def test_a_part_gives_way_while_something_small_is_sent() -> None:
    """The part continues after the small request, and never waits longer than its own block took."""
    line, went_on = BodyLine(), threading.Event()

    def wait() -> None:
        line.give_way(30.0)
        went_on.set()

    thread = threading.Thread(target=wait)
    with line.goes_first(), line.goes_first():
        line.give_way(0.0)
        thread.start()
        assert not went_on.wait(0.05)
    thread.join(30)
    assert went_on.is_set()
    line.give_way(30.0)


def test_a_body_is_read_to_its_end_or_to_a_limit() -> None:
    """The body may come in pieces of any size, and no more than the limit is read."""

    class Pieces(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            return super().read(min(size or 0, 3))

    assert read_up_to(Pieces(b"0123456789"), 100) == b"0123456789"
    body = Pieces(b"0123456789")
    assert read_up_to(body, 5) == b"01234"
    assert body.tell() == 5
