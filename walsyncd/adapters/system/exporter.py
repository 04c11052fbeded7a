"""Exports metrics to Prometheus: by HTTP, in a file for node_exporter's textfile collector, or both.

All names begin with ``walsyncd_``. Metrics are only computed when they are requested or written. A daemon without
metrics needs neither this module nor the modules that it imports.
"""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from walsyncd.adapters.system.connections import ConnectionServer, RejectedError
from walsyncd.core.keep.metric import Metric
from walsyncd.errors import UsageError

HEAD_BYTES_MAX = 16384  # bytes of a request: Prometheus sends some 300
HEAD_END = b"\r\n\r\n"
JOIN_S = 5.0
TEXTFILE_MODE = 0o644  # node_exporter is another user
TEXTFILE_S = 15.0  # seconds; Prometheus usually reads the file about as often


class Exporter:
    """Exports the result of ``metrics``, which is called each time. Nothing is exported before ``settle``."""

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(metrics))
        self._listen: str | None = None
        self._textfile: Path | None = None
        self._written_s = -TEXTFILE_S
        self._close: Callable[[], None] = _nothing

    def settle(self, *, listen: str | None, textfile: Path | None) -> None:
        """Export to this address and this file from now on, and nowhere else. None means not to export there.

        Raises UsageError, and changes nothing, if it is not possible to listen at the address.
        """
        if listen != self._listen:
            close = self._serve(listen) if listen is not None else _nothing
            self._close()
            self._close, self._listen = close, listen
        if textfile != self._textfile:
            self._textfile, self._written_s = textfile, -TEXTFILE_S

    def due_s(self) -> float | None:
        """Return after how many seconds the file is due to be written again, or None if there is no file."""
        return None if self._textfile is None else max(0.0, self._written_s + TEXTFILE_S - time.monotonic())

    def write(self) -> None:
        """Write the whole file, if there is one.

        Raises UsageError if the file can't be written. A TransientError of the journal is not caught.
        """
        if self._textfile is None:
            return
        self._written_s = time.monotonic()
        try:
            write_to_textfile(str(self._textfile), self._registry)
            self._textfile.chmod(TEXTFILE_MODE)
        except OSError as error:
            raise UsageError(
                f"write metrics to {self._textfile}: {error.strerror}", hint="the unit needs ReadWritePaths= for it"
            ) from error

    def _serve(self, listen: str) -> Callable[[], None]:
        try:
            listener = _listener(listen)
        except OSError as error:
            raise UsageError(
                f"listen for metrics on {listen}: {error.strerror}", hint="choose another metrics_listen"
            ) from error
        server = ConnectionServer(listener, receive=_receive, respond=self._respond)
        targets = {"metrics": server.run, "metrics-answer": server.work}
        threads = [threading.Thread(target=target, name=name, daemon=True) for name, target in targets.items()]
        for thread in threads:
            thread.start()

        def close() -> None:
            server.stop()
            for thread in threads:
                thread.join(JOIN_S)

        return close

    def _respond(self, head: bytes) -> bytes:
        lines = head.decode("latin-1").split("\r\n")
        method = lines[0].partition(" ")[0]
        if method not in {"GET", "HEAD"}:
            return _response("405 Method Not Allowed", "text/plain", b"metrics are read with GET\n")
        fields = (line.partition(":") for line in lines[1:])
        headers = {name.strip().lower(): value.strip() for name, _, value in fields}
        encode, content_type = choose_encoder(headers.get("accept", ""))
        body: bytes = encode(self._registry)
        return _response("200 OK", content_type, body, is_head=method == "HEAD")


def _listener(listen: str) -> socket.socket:
    host, _, port = listen.rpartition(":")
    family, kind, _, _, address = socket.getaddrinfo(
        host.strip("[]") or None, int(port), type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(64)
    except OSError:
        listener.close()
        raise
    return listener


def _receive(held: bytearray) -> bytes | None:
    """Return the head of an HTTP request, or None if it is not whole yet. A GET has nothing after its head."""
    end = held.find(HEAD_END)
    if end >= 0:
        return bytes(held[:end])
    if len(held) > HEAD_BYTES_MAX:
        raise RejectedError(_response("431 Request Header Fields Too Large", "text/plain", b"too long\n"))
    return None


def _response(status: str, content_type: str, body: bytes, *, is_head: bool = False) -> bytes:
    """Return an HTTP/1.1 response, after which the connection is closed."""
    fields = [f"Content-Type: {content_type}", f"Content-Length: {len(body)}", "Connection: close"]
    head = "\r\n".join([f"HTTP/1.1 {status}", *fields]).encode("latin-1") + HEAD_END
    return head if is_head else head + body


class _Families(Collector):
    """The metrics in the form of prometheus_client."""

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterator[Family]:
        for metric in self._metrics():
            family = (CounterMetricFamily if metric.counts else GaugeMetricFamily)(
                f"walsyncd_{metric.name}", metric.text, labels=metric.labels
            )
            for labels, value in metric.values.items():
                family.add_metric(labels, value)
            yield family


def _nothing() -> None:
    pass
