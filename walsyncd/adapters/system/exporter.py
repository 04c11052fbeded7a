"""Metrics as Prometheus takes them: by HTTP, in a file for node_exporter's textfile collector, or both.

All names begin with ``walsyncd_``; nothing is computed before somebody asks. Whoever shows no metrics needs neither
this module nor what it imports.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from prometheus_client import CollectorRegistry, start_http_server, write_to_textfile
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector

from walsyncd.core.keep.metric import Metric
from walsyncd.errors import UsageError

TEXTFILE_S = 15.0  # as often as Prometheus usually reads it


class Exporter:
    """Shows ``metrics``, which is called each time; nothing before ``settle``."""

    def __init__(self, metrics: Callable[[], Iterable[Metric]]) -> None:
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Families(metrics))
        self._listen: str | None = None
        self._textfile: Path | None = None
        self._written_s = -TEXTFILE_S
        self._close: Callable[[], None] = _nothing

    def settle(self, *, listen: str | None, textfile: Path | None) -> None:
        """Show them there from now on, and nowhere else; UsageError if the address can't be had: all is as before."""
        if listen != self._listen:
            close = self._serve(listen) if listen is not None else _nothing
            self._close()
            self._close, self._listen = close, listen
        if textfile != self._textfile:
            self._textfile, self._written_s = textfile, -TEXTFILE_S

    def due_s(self) -> float | None:
        """In how many seconds the file wants to be written again; None: there is none."""
        return None if self._textfile is None else max(0.0, self._written_s + TEXTFILE_S - time.monotonic())

    def write(self) -> None:
        """Write the file, whole; TransientError of the journal and UsageError if the file can't be written."""
        if self._textfile is None:
            return
        self._written_s = time.monotonic()
        try:
            write_to_textfile(str(self._textfile), self._registry)
        except OSError as error:
            raise UsageError(
                f"write metrics to {self._textfile}: {error.strerror}", hint="the unit needs ReadWritePaths= for it"
            ) from error

    def _serve(self, listen: str) -> Callable[[], None]:
        host, _, port = listen.rpartition(":")
        try:
            server, thread = start_http_server(int(port), host.strip("[]"), self._registry)
        except OSError as error:
            raise UsageError(
                f"listen for metrics on {listen}: {error.strerror}", hint="choose another metrics_listen"
            ) from error

        def close() -> None:
            server.shutdown()
            server.server_close()
            thread.join()

        return close


class _Families(Collector):
    """prometheus_client's form of the same numbers."""

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
