"""Tests of the pace of scans: soon after a change, merged when they come fast, and rare where they fail."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.send.pacing import BURST
from walsyncd.core.send.scan_pace import HINDERED_MAX_MS, REST_MAX_MS, REST_SHARE, SMALL_BYTES, ScanPace

SECOND = 1000.0
LARGE = SMALL_BYTES + 1


def accepted(pace: ScanPace, now_ms: float, *, took_ms: float = 1.0, file_bytes: int = SMALL_BYTES) -> ScanPace:
    return pace.accepted(now_ms, SECOND, took_ms=took_ms, file_bytes=file_bytes)


def test_a_change_is_scanned_at_once_and_a_burst_is_merged() -> None:
    """Ten changes are scanned without a wait. After that there is one scan for each upload_interval."""
    pace = ScanPace()
    for _ in range(int(BURST)):
        assert not pace.wait_ms(0.0, SECOND, is_asked=False)
        pace = accepted(pace, 0.0)
    assert 0 < pace.wait_ms(0.0, SECOND, is_asked=False) <= SECOND + 1
    assert not pace.wait_ms(SECOND + 1, SECOND, is_asked=False)


def test_whoever_asks_does_not_wait_for_the_interval() -> None:
    """A scan that begins now answers a `sync`, however many scans there were."""
    pace = ScanPace()
    for _ in range(20):
        pace = accepted(pace, 0.0)
    assert pace.wait_ms(0.0, SECOND, is_asked=False)
    assert not pace.wait_ms(0.0, SECOND, is_asked=True)


def test_a_large_file_rests_in_proportion_to_its_scan() -> None:
    """Nothing shortens the pause after the scan of a large file. A small file needs none."""
    assert accepted(ScanPace(), 0.0, took_ms=50.0, file_bytes=LARGE).wait_ms(0.0, SECOND, is_asked=True) == 500.0
    assert not accepted(ScanPace(), 0.0, took_ms=50.0).wait_ms(0.0, SECOND, is_asked=True)


def test_an_early_scan_need_not_wait_for_the_rest_after_a_scan_of_all_pages() -> None:
    """An early scan does not end the pause after a scan of all pages either."""
    pace = accepted(ScanPace(), 0.0, took_ms=500.0, file_bytes=LARGE)
    assert not pace.wait_ms(0.0, SECOND, is_asked=False, is_early=True)
    pace = pace.accepted(1000.0, SECOND, took_ms=3.0, file_bytes=LARGE, is_early=True)
    assert pace.wait_ms(1000.0, SECOND, is_asked=False, is_early=True) == 30.0
    assert pace.wait_ms(1000.0, SECOND, is_asked=False) == 4000.0
    pace = pace.hindered(1000.0, took_ms=0.0, file_bytes=LARGE, has_read=False)
    assert pace.wait_ms(1000.0, SECOND, is_asked=False) == 4000.0


@given(st.lists(st.tuples(st.floats(0, 10_000), st.booleans()), min_size=1, max_size=40), st.booleans())
def test_failures_make_scans_rare(attempts: list[tuple[float, bool]], is_large: bool) -> None:
    """Each pause is at least as long as the rule says, and none is longer than a minute."""
    pace, now_ms, file_bytes = ScanPace(), 0.0, LARGE if is_large else SMALL_BYTES
    for number, (took_ms, has_read) in enumerate(attempts):
        pace = pace.hindered(now_ms, took_ms=took_ms, file_bytes=file_bytes, has_read=has_read)
        pause_ms = pace.wait_ms(now_ms, SECOND, is_asked=True)
        assert pause_ms <= max(REST_MAX_MS, HINDERED_MAX_MS) + 0.001
        if has_read and is_large:
            assert pause_ms >= min(REST_SHARE * took_ms, REST_MAX_MS) - 0.001
        assert pace.voided == number + 1
        assert pace.since_ms == 0.0
        now_ms += pause_ms
    assert accepted(pace, now_ms).since_ms is None


def test_an_event_ends_a_long_pause() -> None:
    """The writer that blocked the scan may have ended."""
    pace = ScanPace()
    for _ in range(20):
        pace = pace.hindered(0.0, took_ms=0.0, file_bytes=LARGE, has_read=False)
    assert pace.wait_ms(0.0, SECOND, is_asked=False) == HINDERED_MAX_MS
    pace = pace.woken(0.0)
    assert pace.wait_ms(0.0, SECOND, is_asked=False) < 10.0
    pace = pace.hindered(10.0, took_ms=0.0, file_bytes=LARGE, has_read=False)
    assert pace.wait_ms(10.0, SECOND, is_asked=False) < 10.0
    assert pace.since_ms == 0.0
