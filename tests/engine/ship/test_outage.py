"""Tests of outages, which get worse with each failed probe, and only with those."""

from __future__ import annotations

from walsyncd.engine.ship.outage import begin, probe, unprobe, worsen


def test_probes_become_rarer() -> None:
    """The span doubles with each probe that fails. The reason is that of the last failed probe."""
    outage = begin("refused", now_ms=1000.0, fraction=1.0)
    assert (outage.since_ms, outage.probe_ms, outage.failures) == (1000.0, 1500.0, 1)
    outage = worsen(probe(outage), "timeout", now_ms=1500.0, fraction=1.0)
    assert (outage.since_ms, outage.probe_ms, outage.failures) == (1000.0, 2500.0, 2)
    assert (outage.reason, outage.is_probed) == ("timeout", False)


def test_what_was_under_way_before_is_no_news() -> None:
    """Four requests that fail together count as one failure."""
    outage = begin("refused", now_ms=0.0, fraction=1.0)
    assert worsen(outage, "refused too", now_ms=10.0, fraction=1.0) == outage


def test_a_probe_that_did_not_ask_says_nothing() -> None:
    """After such a probe the next one may be made at once."""
    outage = begin("refused", now_ms=0.0, fraction=1.0)
    assert unprobe(probe(outage)) == outage
