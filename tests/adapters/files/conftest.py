"""A fixture that reads the kernel's events and is closed at the end of the test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from walsyncd.adapters.files.inotify import InotifyReader


@pytest.fixture
def watcher() -> Iterator[InotifyReader]:
    """Return an InotifyReader that watches nothing yet."""
    with InotifyReader() as reader:
        yield reader
