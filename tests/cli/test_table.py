"""Tables for people."""

from __future__ import annotations

import pytest

from walsyncd.cli import main
from walsyncd.cli.table import _rich_lines, counted, print_table, say


def test_in_a_pipe_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are as wide as their longest cell, and no line ends in spaces."""
    print_table(("NAME", "STATE"), [("a" * 200, "ok"), ("b", "")])
    assert capsys.readouterr().out.splitlines() == ["NAME" + " " * 198 + "STATE", "a" * 200 + "  ok", "b"]


def test_one_is_not_many() -> None:
    """As people write it."""
    assert [counted(count, "object") for count in (0, 1, 2)] == ["0 objects", "1 object", "2 objects"]


def test_a_name_is_never_markup() -> None:
    """A table on a terminal shows names as they are."""
    assert "[red]" in "".join(_rich_lines(("NAME",), [("[red]a[/]",)]))


def test_what_others_chose_can_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """Neither a cell, whose line feeds would forge rows, nor a line; letters of any language stay."""
    name = "\x1b]0;owned\x07\x9b2J\nüñ\u202e\udcff"
    print_table(("NAME",), [(name,)])
    say(f"{name}: it failed")
    shown = capsys.readouterr().out
    assert shown == (
        "NAME\n\\x1b]0;owned\\x07\\x9b2J\\nüñ\\u202e\\udcff\n\\x1b]0;owned\\x07\\x9b2J\nüñ\\u202e\\udcff: it failed\n"
    )


def test_an_error_can_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """What a command ends with, whatever is quoted in it."""
    assert main(["status", "--config", "/absent/\x1b[31m"]) == 2
    assert "\x1b" not in capsys.readouterr().err
