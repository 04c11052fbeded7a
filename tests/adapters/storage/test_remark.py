"""Tests of remarks about a storage."""

from __future__ import annotations

from walsyncd.adapters.storage.remark import Remark


def test_what_is_said_without_more_is_a_problem() -> None:
    """A step failed and no remedy is known, so the storage can't be used like this."""
    assert Remark("write", "it was refused").is_problem
    assert Remark("write", "it was refused").hint == ""
