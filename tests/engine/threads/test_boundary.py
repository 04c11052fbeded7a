"""Tests of the boundary around a unit of work."""

from __future__ import annotations

from concurrent.futures import CancelledError

import pytest
from structlog.testing import capture_logs

from walsyncd.engine.threads.boundary import boundary
from walsyncd.errors import FaultError, MissingError


@pytest.mark.parametrize("error", [MissingError("gone"), CancelledError()])
def test_what_is_expected_passes(error: Exception) -> None:
    """The caller handles an expected error itself."""
    with pytest.raises(type(error)) as caught, boundary("look", database="app"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [ValueError("x" * 1000), OSError(40, "loop"), MemoryError(), RecursionError("deep")])
def test_what_nobody_foresaw_becomes_an_error_of_this_one_thing(error: Exception) -> None:
    """The log has the traceback, the subject and the work."""
    with (
        capture_logs() as lines,
        pytest.raises(FaultError, match=rf"look: {type(error).__name__}") as caught,
        boundary("look", database="app"),
    ):
        raise error
    assert len(caught.value.message) < 350
    (line,) = lines
    assert (line["event"], line["work"], line["database"]) == ("work_failed", "look", "app")
    assert line["exc_info"] is error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(1)])
def test_what_ends_the_process_passes(error: BaseException) -> None:
    """A boundary is only for faults of the work."""
    with pytest.raises(type(error)), boundary("look"):
        raise error
