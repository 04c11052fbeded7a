"""Tests of tables for people."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import walsyncd.cli
from walsyncd.cli import main
from walsyncd.cli.table import _rich_lines, counted, json_text, print_table, say


def test_in_a_pipe_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """Columns are as wide as their longest cell, and no line ends in spaces."""
    print_table(("NAME", "STATE"), [("a" * 200, "ok"), ("b", "")])
    assert capsys.readouterr().out.splitlines() == ["NAME" + " " * 198 + "STATE", "a" * 200 + "  ok", "b"]


def test_one_is_not_many() -> None:
    """One item is written in the singular."""
    assert [counted(count, "object") for count in (0, 1, 2)] == ["0 objects", "1 object", "2 objects"]


def test_a_name_is_never_markup() -> None:
    """A table on a terminal shows names as they are."""
    assert "[red]" in "".join(_rich_lines(("NAME",), [("[red]a[/]",)]))


def test_what_others_chose_can_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """A line feed in a cell can't forge a row, and a line has no control characters. Letters of any language stay."""
    name = "\x1b]0;owned\x07\x9b2J\nüñ\u202e\udcff"
    print_table(("NAME",), [(name,)])
    say(f"{name}: it failed")
    shown = capsys.readouterr().out
    assert shown == (
        "NAME\n\\x1b]0;owned\\x07\\x9b2J\\nüñ\\u202e\\udcff\n\\x1b]0;owned\\x07\\x9b2J\nüñ\\u202e\\udcff: it failed\n"
    )


def test_an_error_can_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    """The last line of a command may quote any text."""
    assert main(["status", "--config", "/absent/\x1b[31m"]) == 2
    assert "\x1b" not in capsys.readouterr().err


@pytest.mark.parametrize("indent", [None, 2])
def test_json_can_not_steer_the_terminal_either(indent: int | None) -> None:
    """The text is read back the same, letters of any language stay, and all other characters are escaped."""
    facts = {"name": '\x1b[2J\x9b31m\nüñ中\u202e\u2028\udcff\U000e0041"\\', "list": [1, None, "\ufeff"]}
    text = json_text(facts, indent=indent)
    assert json.loads(text) == facts
    assert "üñ中" in text
    assert all(line.isprintable() for line in text.split("\n"))


def test_every_command_prints_json_in_that_way() -> None:
    """No other module of the command line makes JSON."""
    folder = Path(walsyncd.cli.__file__).parent
    makers = [path.name for path in folder.rglob("*.py") if "json.dump" in path.read_text()]
    assert makers == ["table.py"]
