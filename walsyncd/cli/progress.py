"""Shows a restore's progress on stderr: a bar with rate and time left on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from walsyncd.config.units import format_size
from walsyncd.core.stored.moment import format_span

if TYPE_CHECKING:
    from rich.progress import Progress as Bar

    from walsyncd.engine.restore.restorer import BuildPlan, Progress

LINE_EVERY_S = 5.0  # often enough to see in a log that the restore works, without too many lines


@contextmanager
def showing_progress() -> Iterator[Progress]:
    """Yield the object that a restore reports its progress to."""
    if not sys.stderr.isatty():
        yield Lines()
        return
    from rich.console import Console  # noqa: PLC0415 - a command is light until it runs
    from rich.progress import BarColumn, DownloadColumn, Progress, TimeRemainingColumn, TransferSpeedColumn  # noqa: PLC0415

    columns = BarColumn(), DownloadColumn(binary_units=True), TransferSpeedColumn(), TimeRemainingColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield OnTerminal(bar)


class OnTerminal:
    """A bar, which disappears when the restore is complete."""

    def __init__(self, bar: Bar) -> None:
        self._bar = bar
        self._task = bar.add_task("restore", total=None)

    def begin(self, draft: BuildPlan) -> None:
        """Begin at 0."""
        self._bar.reset(self._task, total=draft.work_bytes)

    def advance(self, raw_bytes: int) -> None:
        """Move the bar."""
        self._bar.advance(self._task, raw_bytes)


class Lines:
    """Lines of text. A restore that takes only seconds prints none."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._total = self._done = 0
        self._began_s = self._said_s = time.monotonic()

    def begin(self, draft: BuildPlan) -> None:
        """Begin at 0."""
        with self._lock:
            self._total, self._done = draft.work_bytes, 0
            self._began_s = self._said_s = time.monotonic()

    def advance(self, raw_bytes: int) -> None:
        """Count the bytes, and print a line every few seconds."""
        now_s = time.monotonic()
        with self._lock:
            self._done += raw_bytes
            if now_s - self._said_s < LINE_EVERY_S:
                return
            self._said_s = now_s
            line = self._line(now_s - self._began_s)
        print(line, file=sys.stderr, flush=True)

    def _line(self, elapsed_s: float) -> str:
        rate = self._done / elapsed_s
        left = format_span(int((self._total - self._done) / rate * 1000)) if rate else "?"
        done = f"{format_size(self._done)} of {format_size(self._total)}"
        return f"walsyncd: restoring: {done}, {format_size(int(rate))}/s, {left} left"


class DatabaseLines:
    """Lines that count the databases of ``restore --all``. A command that takes only seconds prints no line."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._lock = threading.Lock()
        self._done = self._failed = 0
        self._began_s = self._said_s = time.monotonic()

    def advance(self, *, failed: bool) -> None:
        """Count one more database, and print a line every few seconds."""
        now_s = time.monotonic()
        with self._lock:
            self._done += 1
            self._failed += failed
            if now_s - self._said_s < LINE_EVERY_S:
                return
            self._said_s = now_s
            left_s = (now_s - self._began_s) / self._done * (self._total - self._done)
            failures = f", {self._failed} failed" if self._failed else ""
            line = f"{self._done} of {self._total} databases{failures}, {format_span(int(left_s * 1000))} left"
        print(f"walsyncd: restoring: {line}", file=sys.stderr, flush=True)
