import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.config import format_duration, format_size, parse_duration, parse_size
from walsyncd.errors import UsageError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("500ms", 0.5),
        ("1s", 1.0),
        ("5m", 300.0),
        ("24h", 86_400.0),
        ("7d", 604_800.0),
        (" 1.5 S ", 1.5),
        ("0s", 0.0),
    ],
)
def test_durations_are_numbers_with_a_unit(text: str, seconds: float) -> None:
    """Every unit counts in seconds; blanks and case do not matter."""
    assert parse_duration(text) == seconds


@pytest.mark.parametrize("text", ["", "5", "s", "-1s", "1e3s", "1w", "1h30m", "1.s", "٣s", "9" * 400 + "d", "1 s s"])
def test_what_is_no_duration_is_refused_with_the_form(text: str) -> None:
    """A duration without a unit is refused too: nobody can know which is meant."""
    with pytest.raises(UsageError, match="is not a duration") as caught:
        parse_duration(text)
    assert '"5m"' in caught.value.hint


@given(st.integers(min_value=0, max_value=10**15))
def test_durations_survive_formatting(total_ms: int) -> None:
    """format_duration and parse_duration are inverse, to the millisecond."""
    assert round(parse_duration(format_duration(total_ms / 1000)) * 1000) == total_ms


@pytest.mark.parametrize(("seconds", "text"), [(0, "0s"), (0.25, "250ms"), (90, "90s"), (3600, "1h"), (604_800, "7d")])
def test_durations_are_formatted_in_the_largest_unit_that_fits(seconds: float, text: str) -> None:
    """What was written by a person comes out as it was written."""
    assert format_duration(seconds) == text


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("64KiB", 65_536),
        ("4GiB", 4 << 30),
        ("10MB", 10_000_000),
        ("4096", 4096),
        ("1.5 mib", 1_572_864),
        ("7B", 7),
        ("1kb", 1000),
    ],
)
def test_sizes_are_numbers_with_or_without_a_unit(text: str, size: int) -> None:
    """Binary and decimal units are distinguished. A bare number counts bytes."""
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["", "GiB", "-1", "1.5", "0.3KiB", "1 GiB 1", "1PB", "1e9"])
def test_what_is_no_size_is_refused_with_the_form(text: str) -> None:
    """A fraction of a byte is no size."""
    with pytest.raises(UsageError, match="is not a size") as caught:
        parse_size(text)
    assert '"4GiB"' in caught.value.hint


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (5 << 20, "5.0 MiB"), (3 << 50, "3072.0 TiB")]
)
def test_sizes_are_told_in_the_largest_unit_that_they_fill(size: int, text: str) -> None:
    """Every other tool of the system does this, too."""
    assert format_size(size) == text


@given(st.integers(min_value=0, max_value=1023), st.integers(min_value=0, max_value=4))
def test_whole_sizes_survive_formatting(number: int, power: int) -> None:
    """A user can copy a size from a message into the configuration."""
    assert parse_size(format_size(number << (10 * power))) == number << (10 * power)
