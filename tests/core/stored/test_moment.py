"""Tests of moments: RFC 3339 out and in, and local times without an offset."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.stored.moment import format_moment, format_span, format_stamp, moment_ms, parse_moment
from walsyncd.errors import UsageError


@given(st.integers(0, 253_402_300_799_999))
def test_parse_is_the_inverse_of_format(time_ms: int) -> None:
    """Every millisecond of the years 1970 to 9999 comes back."""
    assert moment_ms(parse_moment(format_moment(time_ms))) == time_ms


def test_texts() -> None:
    """A moment is UTC with milliseconds for people, and without punctuation in file names."""
    assert format_moment(1_795_344_960_007) == "2026-11-22T10:56:00.007Z"
    assert format_stamp(1_795_344_960_007) == "20261122T105600Z"


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T10:56:00Z",
        "2026-11-22 10:56:00z",
        "2026-11-22T11:56:00+01:00",
        "2026-11-22t10:56:00.0009999999z",
    ],
)
def test_all_forms_of_rfc_3339(text: str) -> None:
    """Any offset, either separator and any number of digits are read. Digits below a millisecond are cut off."""
    assert moment_ms(parse_moment(text)) == 1_795_344_960_000


def test_time_without_offset_is_the_callers() -> None:
    """A local time comes back naive."""
    assert parse_moment("2026-11-22 10:56:00") == datetime(2026, 11, 22, 10, 56)  # noqa: DTZ001
    assert parse_moment("2026-11-22T10:56:00Z").tzinfo is UTC


@pytest.mark.parametrize(
    "text", ["", "yesterday", "2026-11-22", "2026-13-22T10:56:00Z", "20261122T105600Z", "10:56:00"]
)
def test_other_texts_are_refused_with_an_example(text: str) -> None:
    """A text that is no moment is a usage error that shows the forms."""
    with pytest.raises(UsageError, match="for example"):
        parse_moment(text)


@pytest.mark.parametrize(
    ("span_ms", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1000, "1 s"),
        (200_000, "3 min 20 s"),
        (86_400_000, "1 d"),
        (90_061_000, "1 d 1 h"),
    ],
)
def test_spans_in_two_units(span_ms: int, text: str) -> None:
    """A span of time is printed in its two greatest units."""
    assert format_span(span_ms) == text
