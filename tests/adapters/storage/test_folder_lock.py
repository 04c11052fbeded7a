"""Tests of walsyncd.adapters.storage.folder_lock."""

from __future__ import annotations

import fcntl
import os
import stat
import threading
from pathlib import Path

import pytest

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.folder_lock import FolderLock
from walsyncd.errors import TransientError


def test_a_lock_that_somebody_holds_is_waited_for_with_a_limit(tmp_path: Path) -> None:
    """The error names the lock file and leaves the file as it was. Only the daemon's user may open the file."""
    storage = DirectoryStorage(tmp_path, lock_s_max=0.05)
    assert storage.put_if("app/owner.json", b"1", etag=None)
    lock = tmp_path / ".walsyncd" / "lock"
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600
    lock.chmod(0o644)  # as an older version left it
    with lock.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        with pytest.raises(TransientError, match=rf"^lock {lock}: another process has held it"):
            storage.put_if("app/other.json", b"1", etag=None)
    assert storage.put_if("app/other.json", b"1", etag=None)
    assert stat.S_IMODE(lock.stat().st_mode) == 0o600


def test_threads_of_one_process_wait_for_each_other_without_polling(tmp_path: Path) -> None:
    """The waiting thread continues when the other one is done, although its next poll would be in an hour."""
    lock, order = FolderLock(tmp_path / "lock", poll_s=3600.0), []

    def open_file() -> int:
        return os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)

    def second() -> None:
        with lock.held(open_file):
            order.append("second")

    waiting = threading.Thread(target=second)
    with lock.held(open_file):
        waiting.start()
        waiting.join(0.05)
        order.append("first")
    waiting.join(60)
    assert order == ["first", "second"]


def test_a_thread_waits_with_a_limit_too(tmp_path: Path) -> None:
    """The error is the same as for a process that does not release the lock."""
    lock = FolderLock(tmp_path / "lock", wait_s_max=0.05)

    def open_file() -> int:
        return os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT, 0o600)

    with lock.held(open_file), pytest.raises(TransientError, match="another process has held it"), lock.held(open_file):
        pass
    with lock.held(open_file):
        pass
