"""Tests of the arguments of ``walsyncd exec``. What it does is tested in tests/cli/test_supervised_command.py."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.engine.running import Place
from walsyncd.cli import main
from walsyncd.cli.supervised_command import SupervisedCommand


@pytest.mark.parametrize("words", [[], ["--"]])
def test_without_a_command_it_says_how(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    """This is a usage error."""
    assert main(["exec", *Place(tmp_path).config(), *words]) == 2
    assert "walsyncd exec -- COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize("between", [["--"], []])
def test_the_commands_options_are_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, between: list[str]) -> None:
    """Options that walsyncd has too, and another ``--``, are passed to the command."""
    seen: list[Sequence[str]] = []

    def run(self: SupervisedCommand) -> int:
        seen.extend([self._command, self._options])
        return 9

    monkeypatch.setattr(SupervisedCommand, "run", run)
    config = Place(tmp_path).config()
    assert main(["exec", *config, *between, "app", "--config", "its.toml", "--", "x"]) == 9
    assert seen == [["app", "--config", "its.toml", "--", "x"], config]
