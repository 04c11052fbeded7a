"""Tests of walsyncd.adapters.storage.s3.list_limits."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count, repeat
from typing import Any

import pytest

from walsyncd.adapters.storage.s3.list_limits import EMPTY_PAGES_MAX, KEY_LENGTH_MAX, checked_key, limited
from walsyncd.errors import RefusedError


def full() -> Iterator[dict[str, Any]]:
    return ({"IsTruncated": True, "Contents": [{"Key": str(number)}]} for number in count())


def test_a_list_that_ends_is_as_it_was() -> None:
    """A page may be empty, because a store passes over what was deleted."""
    pages: list[dict[str, Any]] = [{"Contents": [1]}, *repeat({"CommonPrefixes": []}, EMPTY_PAGES_MAX), {"Parts": [2]}]
    assert list(limited(pages * 2, "list b")) == pages * 2


def test_a_list_without_an_end_is_refused() -> None:
    """An endless list is refused whether its pages hold something or not."""
    for pages in (full(), repeat({"IsTruncated": True})):
        with pytest.raises(RefusedError, match=r"^list b: the store's list does not end$"):
            for _ in limited(pages, "list b", entries_max=5000):
                pass


def test_no_store_has_a_key_of_a_megabyte() -> None:
    """A key of some hundred characters is returned."""
    assert checked_key("a" * KEY_LENGTH_MAX) == "a" * KEY_LENGTH_MAX
    with pytest.raises(ValueError, match="a key of 4097 characters"):
        checked_key("a" * (KEY_LENGTH_MAX + 1))
