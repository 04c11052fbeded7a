"""Tests of walsyncd.adapters.storage.folder_lock."""

from __future__ import annotations

import fcntl
import stat
from pathlib import Path

import pytest

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.errors import TransientError


def test_a_lock_that_somebody_holds_is_waited_for_with_a_limit(tmp_path: Path) -> None:
    """The error names the file; afterwards it is as before. Nobody but the daemon's user may open the file."""
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
