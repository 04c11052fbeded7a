"""Tests of walsyncd.cli.bounded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from walsyncd.cli.bounded import looked, searched
from walsyncd.engine.threads import hang_watch
from walsyncd.errors import UnresponsiveError
from walsyncd.file_calls import FILE_CALLS, FileCall


def test_a_file_that_hangs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed: the result of a command is its own."""
    monkeypatch.setattr(hang_watch, "LOOK_S", 0.02)
    answers = threading.Event()

    def read() -> str:
        with FileCall(tmp_path / "app.db", "read"):
            answers.wait(60)
        return "content"

    def search() -> list[str]:
        try:
            return [read()]
        except UnresponsiveError:
            return []

    try:
        with pytest.raises(UnresponsiveError, match="does not answer"):
            looked(read)
        assert searched(search) == []
    finally:
        answers.set()
        while FILE_CALLS.silent or FILE_CALLS.abandoned:
            threading.Event().wait(0.001)
        FILE_CALLS.take_answered()
    assert looked(read) == "content"
    assert searched(search) == ["content"]
    assert capfd.readouterr() == ("", "")
