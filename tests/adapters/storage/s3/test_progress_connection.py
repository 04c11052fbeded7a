"""Tests of connections whose time-out counts silence, not the whole: a slow line, a silent store, and a NAT."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest

from tests.engine.running import wait_for
from tests.scripted_store import HANG, HANG_UP, Answer, ScriptedStore
from tests.throttle import Throttle, run_throttle
from walsyncd.adapters.storage.s3.progress_connection import SMALL_BYTES_MAX
from walsyncd.adapters.storage.s3.s3_settings import ReuseLimits, S3Settings
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.errors import TransientError

BODY = bytes(range(256)) * 4096  # 1 MiB


@pytest.fixture
def line(script: ScriptedStore) -> Iterator[Throttle]:
    """Return a fast line to the store, whose connections can be dropped."""
    with run_throttle(script.endpoint_url) as running:
        yield running


def through(line: Throttle, script: ScriptedStore, **settings: object) -> S3Settings:
    """Return the store behind the line. Nothing may be silent for long."""
    return replace(script.settings(**settings), endpoint_url=line.endpoint_url)


def test_a_body_may_take_longer_than_every_time_out(script: ScriptedStore) -> None:
    """At this rate the body needs four seconds, twice the time-out of a connection or an answer.

    One request stores it.
    """
    with run_throttle(script.endpoint_url, bytes_per_s=len(BODY) / 4) as line:
        beats: list[None] = []
        settings = through(line, script, connect_timeout_s=2.0, timeout_s=2.0)
        with closing(S3Storage(settings, lambda: beats.append(None))) as storage:
            script.will_say(Answer(headers={"ETag": '"e"'}))
            assert storage.upload_part("base", "u", 1, BODY) == "e"
        assert [request.body for request in script.requests] == [BODY]
        assert line.connections == 1
        assert len(beats) > len(BODY) >> 16, "who waits must see that it moves"


def test_a_store_that_takes_nothing_is_given_up(script: ScriptedStore) -> None:
    """A line that has stopped is different from a slow one."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        mute.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        settings = script.settings(endpoint_url=f"http://127.0.0.1:{mute.getsockname()[1]}", timeout_s=0.3)
        with closing(S3Storage(settings)) as storage, pytest.raises(TransientError, match=r"[Tt]imed? ?out"):
            storage.put("a", BODY * 8, metadata={})


def test_an_answer_that_does_not_come_is_given_up(script: ScriptedStore) -> None:
    """The whole request was sent, and no answer comes."""
    with closing(S3Storage(script.settings(timeout_s=0.2))) as storage:
        script.will_say(HANG)
        with pytest.raises(TransientError, match=r"[Tt]imed out"):
            storage.put("a", b"x", metadata={})
        wait_for(lambda: script.requests)  # a busy store may read the request late
        script.released.set()
    assert len(script.requests) == 1


@pytest.mark.parametrize("kind", ["put", "read"])
def test_a_connection_that_a_nat_forgot_costs_no_error(script: ScriptedStore, line: Throttle, kind: str) -> None:
    """Nothing of the request is acknowledged, so it is sent again on a new connection, and arrives once."""
    reuse = ReuseLimits(hot_s_max=0.0, patience_s=0.2)
    with closing(S3Storage(through(line, script, reuse=reuse))) as storage:
        script.will_say(Answer(), Answer(body=b"there"))
        storage.put("a", b"x", metadata={})
        line.forget()
        if kind == "put":
            storage.put("b", BODY, metadata={})
        else:
            assert storage.get("b") == b"there"
    assert [request.path for request in script.requests] == ["/b/a", "/b/b"]
    assert line.connections == 2


def test_a_connection_that_the_store_closed_costs_no_error(script: ScriptedStore) -> None:
    """The connection ends as the next request arrives, which is neither an answer nor an outage."""
    with closing(S3Storage(script.settings())) as storage:
        script.will_say(Answer(), HANG_UP, Answer())
        storage.put("a", b"x", metadata={})
        storage.put("b", b"x", metadata={})
    assert [request.path for request in script.requests] == ["/b/a", "/b/b", "/b/b"]


def test_a_new_connection_that_is_closed_is_an_error(script: ScriptedStore) -> None:
    """A new connection is tried once, because a store that closes it does so on purpose."""
    with closing(S3Storage(script.settings())) as storage:
        script.will_say(HANG_UP)
        with pytest.raises(TransientError):
            storage.put("a", b"x", metadata={})


def test_a_silent_connection_is_not_used_again(script: ScriptedStore, line: Throttle) -> None:
    """A connection that was used recently is used again."""
    with closing(S3Storage(through(line, script))) as storage:
        script.will_say(*[Answer()] * 4)
        storage.put("a", b"x", metadata={})
        storage.put("b", b"x", metadata={})
        assert line.connections == 1
    reuse = ReuseLimits(idle_s_max=0.0)
    with closing(S3Storage(through(line, script, reuse=reuse))) as storage:
        storage.put("c", b"x", metadata={})
        storage.put("d", b"x", metadata={})
        assert line.connections == 3


def test_many_threads_share_the_connections(script: ScriptedStore, line: Throttle) -> None:
    """A dead connection among them does not disturb the others."""
    with closing(S3Storage(through(line, script, connections_max=4))) as storage:
        script.will_say(*[Answer()] * 16)
        threads = [
            threading.Thread(target=storage.put, args=(f"{n}", b"x"), kwargs={"metadata": {}}) for n in range(16)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert sorted(request.path for request in script.requests) == sorted(f"/b/{n}" for n in range(16))


def test_a_small_request_is_one_write(script: ScriptedStore) -> None:
    """Head and body are sent together. A larger body is sent block by block."""
    beats: list[None] = []
    with closing(S3Storage(script.settings(), lambda: beats.append(None))) as storage:
        script.will_say(Answer(), Answer(headers={"ETag": '"e"'}), Answer())
        storage.put("a", b"x" * 1000, metadata={"walsyncd-id": "t"})
        assert len(beats) == 1
        assert storage.put("b", b"y" * 9000, metadata={}) == "e"
        storage.put("c", b"z" * (SMALL_BYTES_MAX + 1), metadata={})
    assert len(beats) > 3
    assert [len(request.body) for request in script.requests] == [1000, 9000, SMALL_BYTES_MAX + 1]
    assert script.requests[0].headers["x-amz-meta-walsyncd-id"] == "t"
    assert len({request.headers["host"] for request in script.requests}) == 1


def test_no_value_adds_a_header(script: ScriptedStore) -> None:
    """A line break in a value is an error, and nothing is sent."""
    with closing(S3Storage(script.settings())) as storage, pytest.raises(ValueError, match="Invalid header value"):
        storage.put("a", b"x", metadata={"walsyncd-id": "t\r\nX-Other: y"})
    assert not script.requests


def test_an_answer_may_end_its_connection(script: ScriptedStore, line: Throttle) -> None:
    """The next request has a connection of its own."""
    with closing(S3Storage(through(line, script))) as storage:
        script.will_say(Answer(headers={"Connection": "close"}), Answer())
        storage.put("a", b"x", metadata={})
        storage.put("b", b"x", metadata={})
    assert len(script.requests) == 2
    assert line.connections == 2


def test_an_answer_that_is_cut_is_no_dead_connection(script: ScriptedStore) -> None:
    """The store received the request, so it is not sent again here."""
    with closing(S3Storage(script.settings())) as storage:
        script.will_say(Answer(), Answer(body=b"<Error>", headers={"Content-Length": "100"}, cut=7))
        storage.put("a", b"x", metadata={})
        storage.put("b", b"x", metadata={})
    assert [request.path for request in script.requests] == ["/b/a", "/b/b"]


def test_what_comes_after_an_answer_is_no_answer(script: ScriptedStore) -> None:
    """A body that is longer than its Content-Length is cut there."""
    with closing(S3Storage(script.settings())) as storage:
        script.will_say(Answer(body=b"abcd", headers={"Content-Length": "2"}), Answer(headers={"ETag": '"e"'}))
        storage.put("a", b"x", metadata={})
        assert storage.put("b", b"x", metadata={}) == "e"
