"""A store for tests that answers what the script says, once per request, and keeps the requests."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from walsyncd.adapters.storage.s3.s3_settings import S3Settings

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. ``cut`` closes the connection after so many bytes of the body, and None sends all."""

    status: int = 200
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)
    cut: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A request. ``headers`` have lower-case names."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes


@dataclass(slots=True)
class ScriptedStore:
    """Answers in order. ``HANG`` keeps the client waiting, and ``HANG_UP`` closes the connection without an answer."""

    endpoint_url: str
    answers: list[Answer] = field(default_factory=list)
    requests: list[Request] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    def settings(self, **changes: object) -> S3Settings:
        """Return the settings by which walsyncd reaches bucket ``b`` of this store."""
        given: dict[str, object] = {
            "bucket": "b",
            "endpoint_url": self.endpoint_url,
            "region": "eu-central-1",
            "access_key_id": "key",
            "secret_access_key": "secret",
            "addressing_style": "path",
        }
        return S3Settings(**{**given, **changes})  # type: ignore[arg-type]  # a test knows what it gives

    def will_say(self, *answers: Answer) -> None:
        """Add to the script."""
        self.answers.extend(answers)


HANG = Answer(status=-1)
HANG_UP = Answer(status=-2)


def refusal(status: int, code: str, message: str = "because") -> Answer:
    """Return an error as S3 words it."""
    body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{message}</Message></Error>"
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


@contextmanager
def run_scripted_store() -> Iterator[ScriptedStore]:
    """Run the store in a thread of this process."""
    store = ScriptedStore("")

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            headers = {name.lower(): value for name, value in self.headers.items()}
            store.requests.append(Request(self.command, self.path, headers, body))
            answer = store.answers.pop(0)
            if answer.status < 0:
                if answer is HANG:
                    store.released.wait(30)
                self.close_connection = True
                return
            self._say(answer)

        do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _serve  # noqa: N815 - the server's own names

        def _say(self, answer: Answer) -> None:
            self.send_response_only(answer.status)
            for name, value in {"Content-Length": str(len(answer.body)), **answer.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body[: answer.cut])
            self.close_connection = answer.cut is not None

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
            pass

    server = ThreadingHTTPServer((LOOPBACK, 0), Handler)
    store.endpoint_url = f"http://{LOOPBACK}:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield store
    finally:
        store.released.set()
        server.shutdown()
        thread.join()
        server.server_close()
