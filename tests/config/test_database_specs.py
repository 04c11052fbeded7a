"""Tests of walsyncd.config.database_specs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.config.test_database_search import settings_with
from walsyncd.config.database_specs import Found
from walsyncd.config.problem import Problem
from walsyncd.errors import UsageError


def test_what_was_found_is_given_only_if_every_named_path_can_be_followed() -> None:
    """The error names what is wrong, and what to do."""
    settings = settings_with("/a.db")
    assert Found([], [], [], {}).checked(settings) == []
    with pytest.raises(UsageError, match=r"database\[1\].path = '/a.db': is wrong") as caught:
        Found([], [], [Problem("database[1].path", "'/a.db'", "is wrong", "mend it")], {}).checked(settings)
    assert caught.value.hint == "mend it"
    assert Path("config.toml") == settings.file
