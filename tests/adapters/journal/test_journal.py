"""Tests of the journal as a whole: it is opened, locked, and read beside the daemon."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from tests.shipping import G1, segment
from walsyncd.adapters.journal.journal import Advance, Journal, lock_state_dir, reader
from walsyncd.errors import UsageError


def test_a_state_directory_is_made(tmp_path: Path) -> None:
    """The state directory has a spool folder, and only its owner may use it."""
    Journal.open(tmp_path / "a" / "b").close()
    assert (tmp_path / "a" / "b" / "spool").is_dir()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


def test_a_state_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """The message names the file."""
    (tmp_path / "file").touch()
    with pytest.raises(UsageError, match="file"):
        Journal.open(tmp_path / "file")
    with pytest.raises(UsageError, match="file"):
        lock_state_dir(tmp_path / "file")


def test_only_one_daemon_has_a_state_directory(tmp_path: Path) -> None:
    """The second daemon gets an error that names the first. When the first has ended, the second gets the directory."""
    with lock_state_dir(tmp_path), pytest.raises(UsageError, match=f"process {os.getpid()} has it"):
        lock_state_dir(tmp_path)
    lock_state_dir(tmp_path).close()


def test_a_lock_without_a_name_is_respected(tmp_path: Path) -> None:
    """Between taking the lock and writing its pid, a process has the lock anyway."""
    with (tmp_path / "lock").open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="unknown has it"):
            lock_state_dir(tmp_path)


def test_everything_is_still_there_after_a_restart(tmp_path: Path) -> None:
    """The next run, and a reader, find what one run noted."""
    with Journal.open(tmp_path) as journal:
        row = journal.database("app", "/srv/app.db")
        journal.begin_generation(row.id, G1, "first", "{}", 5)
        journal.advance([Advance(row.id, '{"frame": 4}', (segment(1, 4),))])
        before = journal.databases(), journal.pending(), journal.generations(row.id)
        with reader(tmp_path) as beside:
            assert (beside.databases(), beside.pending(), beside.generations(row.id)) == before
            assert beside.bases() == []
            assert beside.leftovers() == []
    with Journal.open(tmp_path) as journal:
        assert (journal.databases(), journal.pending(), journal.generations(row.id)) == before
        assert journal.databases()[0].follow == '{"frame": 4}'
