"""Tests of the progress of a restore: a bar on a terminal, and a line now and then elsewhere."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import pytest
from rich.console import Console
from rich.progress import Progress

from walsyncd.cli.progress import DatabaseLines, Lines, OnTerminal, showing_progress

if TYPE_CHECKING:
    from walsyncd.engine.restore.restorer import BuildPlan


@dataclass
class Work:
    work_bytes: int


def draft(size: int) -> BuildPlan:
    return cast("BuildPlan", Work(size))


def test_what_is_over_at_once_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """No line appears before some seconds have passed."""
    with showing_progress() as progress:
        progress.begin(draft(100))
        progress.advance(100)
    assert capsys.readouterr().err == ""


def test_lines_have_rate_and_time_left(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is a line every few seconds. After a new plan they begin again."""
    now = [1000.0]
    monkeypatch.setattr("walsyncd.cli.progress.time.monotonic", lambda: now[0])
    lines = Lines()
    lines.begin(draft(10 << 20))
    for _ in range(6):
        now[0] += 2.5
        lines.advance(1 << 20)
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert told[0] == "walsyncd: restoring: 2.0 MiB of 10.0 MiB, 409.6 KiB/s, 20 s left"
    lines.begin(draft(4 << 20))
    now[0] += 5
    lines.advance(1 << 20)
    assert "1.0 MiB of 4.0 MiB" in capsys.readouterr().err


def test_databases_are_counted(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With --all the line says how many of how many databases are restored, how many have failed, and the time left."""
    now = [1000.0]
    monkeypatch.setattr("walsyncd.cli.progress.time.monotonic", lambda: now[0])
    lines = DatabaseLines(100)
    lines.advance(failed=False)
    for failed in (False, True, False):
        now[0] += 5
        lines.advance(failed=failed)
    assert capsys.readouterr().err.splitlines() == [
        "walsyncd: restoring: 2 of 100 databases, 4 min 5 s left",
        "walsyncd: restoring: 3 of 100 databases, 1 failed, 5 min 23 s left",
        "walsyncd: restoring: 4 of 100 databases, 1 failed, 6 min left",
    ]


def test_bar_reaches_its_end() -> None:
    """On a terminal the bar shows how much of the total is restored."""
    console = Console(file=io.StringIO(), force_terminal=True, width=80)
    with Progress(console=console) as bar:
        shown = OnTerminal(bar)
        shown.begin(draft(100))
        shown.advance(60)
        shown.begin(draft(200))
        shown.advance(200)
        (task,) = bar.tasks
        assert (task.completed, task.total) == (200, 200)
