"""A store for tests that answers as the test wants."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scripted_store import ScriptedStore, run_scripted_store


@pytest.fixture
def script() -> Iterator[ScriptedStore]:
    """Return a store that answers as the test wants."""
    with run_scripted_store() as store:
        yield store
