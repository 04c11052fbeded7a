"""How the demo's phases are shown: live on a terminal, otherwise with a line for each phase."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

REFRESHES_PER_S = 8


@dataclass(frozen=True, slots=True)
class Counters:
    """The numbers that change while the demo runs. ``stored`` is the newest position in the bucket."""

    commits: int
    objects: int
    size: int
    kills: int
    stored: str
    equal: int


class PlainDisplay:
    """Prints a line when a phase has ended, with the seconds since the start, the title and the result."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._began = time.monotonic()
        self._title = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        """Do nothing, because every line is written already."""

    def begin(self, title: str) -> None:
        """Begin a phase."""
        self._title = title

    def end(self, result: str, *, is_good: bool = True) -> None:
        """End the phase."""
        verdict = "" if is_good else "DIFFERS  "
        self._out.write(f"{time.monotonic() - self._began:5.1f} s  {self._title}: {verdict}{result}\n")
        self._out.flush()


class LiveDisplay:
    """Shows the phases with their results, the current one with a spinner, and the counters below."""

    def __init__(self, console: Console, counters: Callable[[], Counters]) -> None:
        self._counters = counters
        self._began = time.monotonic()
        self._spinner: Spinner | None = None
        self._title = ""
        self._live = Live(
            console=console, get_renderable=self._render, refresh_per_second=REFRESHES_PER_S, transient=True
        )

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if error is not None and self._title:
            self._live.console.print(self._line("✗", "red", ""))
        self._live.stop()

    def begin(self, title: str) -> None:
        """Begin a phase."""
        self._title = title
        self._spinner = Spinner("dots", Text(title, "bold"), style="cyan")

    def end(self, result: str, *, is_good: bool = True) -> None:
        """End the phase."""
        self._live.console.print(self._line("✓", "green", result) if is_good else self._line("✗", "red", result))
        self._title, self._spinner = "", None

    def _line(self, sign: str, colour: str, result: str) -> Text:
        elapsed = f"{time.monotonic() - self._began:5.1f} s  "
        parts = [(f"{sign} ", colour), (elapsed, "dim"), (self._title, "bold")]
        return Text.assemble(*parts, f"\n           {result}" if result else "")

    def _render(self) -> RenderableType:
        counters = self._counters()
        table = Table.grid(padding=(0, 3))
        table.add_row(
            Text.assemble((f"{counters.commits}", "bold cyan"), " commits written"),
            Text.assemble((f"{counters.objects}", "bold cyan"), f" objects, {counters.size / 2**20:.1f} MiB"),
            Text.assemble((f"{counters.kills}", "bold red"), " kills"),
            Text.assemble((f"{counters.equal}", "bold green"), " comparisons equal"),
        )
        stored = Text.assemble(("stored  ", "dim"), (counters.stored, "cyan"))
        return Group(*([self._spinner] if self._spinner else []), table, stored)
