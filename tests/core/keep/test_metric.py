"""Tests of core/keep/metric.py."""

from __future__ import annotations

from walsyncd.core.keep.metric import Metric


def test_a_metric_goes_up_and_down_unless_it_is_said_to_count() -> None:
    """A metric is a gauge unless it is declared a counter."""
    assert not Metric("lag_seconds", "Lag.", ("database",), {("app",): 1.5}).counts
