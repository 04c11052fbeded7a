"""Tests of the limits that the parts of a daemon share."""

from __future__ import annotations

from dataclasses import fields

import pytest

from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.send.multipart import PUT_SIZE_MAX


def test_each_limit_is_something() -> None:
    """No limit is zero by default. A wait of zero seconds is a busy loop, and zero bytes leave no room."""
    assert [each.name for each in fields(Limits) if getattr(DEFAULT_LIMITS, each.name) <= 0] == []


def test_larger_limits_hold_what_smaller_ones_let_in() -> None:
    """Larger limits are consistent with smaller ones: one step fits into memory, an epoch has several steps, and one
    base needs one request.
    """
    limits = DEFAULT_LIMITS
    assert limits.batch_bytes <= limits.memory_bytes_max <= limits.epoch_bytes <= limits.tail_bytes_max
    assert limits.bridge_retry_s < limits.bridge_retry_s_max
    assert limits.small_base_bytes <= PUT_SIZE_MAX


def test_nothing_changes_them() -> None:
    """Threads share the limits without a lock, so nothing may change them."""
    with pytest.raises(AttributeError):
        DEFAULT_LIMITS.epoch_bytes = 1  # type: ignore[misc]
