"""A remark about a storage."""

from __future__ import annotations

from walsyncd.adapters.storage.remark import Remark


def test_what_is_said_without_more_is_a_problem() -> None:
    """A step that did not work, and nothing that helps: the storage can't be used like this."""
    assert Remark("write", "it was refused").is_problem
    assert Remark("write", "it was refused").hint == ""
