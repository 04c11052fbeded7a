"""Tests of walsyncd.cli.bounded."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from walsyncd.cli.bounded import asked, in_folder, looked, require_answer, searched
from walsyncd.engine.threads import hang_watch
from walsyncd.errors import UnresponsiveError
from walsyncd.file_calls import FILE_CALLS, FileCall


def test_a_file_that_hangs_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is printed, because the caller uses the result."""
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


def test_what_is_in_a_folder_that_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error says what was to be done there, and that nothing more is tried there.

    No daemon in that folder can be asked.
    """
    monkeypatch.setattr(hang_watch, "LOOK_S", 0.02)
    answers = threading.Event()
    try:
        with pytest.raises(UnresponsiveError, match=f"^read the state in {tmp_path}: its file system does not answer"):
            in_folder(tmp_path, "read the state in", lambda: answers.wait(60))
        with pytest.raises(UnresponsiveError, match=f"^open {tmp_path}: its file system does not answer"):
            require_answer(tmp_path)
        with pytest.raises(UnresponsiveError):
            asked(tmp_path, {"op": "ping"}, timeout_s=1)
    finally:
        answers.set()
        while FILE_CALLS.silent or FILE_CALLS.abandoned:
            threading.Event().wait(0.001)
        FILE_CALLS.take_answered()
    assert in_folder(tmp_path, "read the state in", lambda: 5) == 5
    require_answer(tmp_path / "missing")
    assert asked(tmp_path, {"op": "ping"}, timeout_s=1) is None
