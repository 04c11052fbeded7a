"""Tests of the span of a bridge: it comes back from its bytes, and damage to them is found."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.stored.bridge import (
    KIND_BYTES_MAX,
    REASON_BYTES_MAX,
    BridgeSpan,
    SuspectSpan,
    format_bridge,
    parse_bridge,
)
from walsyncd.core.stored.layout import TIME_MS_MAX
from walsyncd.errors import CorruptError

NOON_MS = 1_795_953_600_000

epochs = st.integers(1, 2**32 - 1)
u32 = st.integers(0, 2**32 - 1)
times = st.integers(0, TIME_MS_MAX)


@st.composite
def bridge_spans(draw: st.DrawFn) -> BridgeSpan:
    """Return any span that does not contradict itself."""
    pairs = sorted([(draw(epochs), draw(u32)), (draw(epochs), draw(u32))])
    suspect = SuspectSpan(*pairs[0], draw(times), draw(st.integers(1, 2**32 - 1))) if draw(st.booleans()) else None
    texts = st.characters(exclude_categories=["C", "Z"]) | st.just(" ")
    kind, reason = (
        draw(st.text(texts, max_size=KIND_BYTES_MAX // 4)),
        draw(st.text(texts, max_size=REASON_BYTES_MAX // 4)),
    )
    return BridgeSpan(*pairs[1], draw(times), kind, reason, suspect)


@given(bridge_spans())
def test_format_and_parse_are_inverse(span: BridgeSpan) -> None:
    """Every span comes back from its bytes."""
    assert parse_bridge(format_bridge(span)) == span


@given(bridge_spans(), st.data())
def test_every_cut_is_found(span: BridgeSpan, data: st.DataObject) -> None:
    """Bytes that end too early or too late are not parsed as a span."""
    whole = format_bridge(span)
    cut = data.draw(st.integers(0, len(whole) - 1))
    for body in (whole[:cut], whole + b"\0"):
        with pytest.raises(CorruptError, match="parse bridge"):
            parse_bridge(body)


def test_every_flipped_bit_is_another_span_or_an_error() -> None:
    """No two texts mean the same span. The CRC of the trailer around it finds the flips that give another span."""
    span = BridgeSpan(7, 512, NOON_MS, "gap", "3 transactions were überschrieben", SuspectSpan(6, 1, NOON_MS - 1, 4))
    whole = format_bridge(span)
    for bit in range(len(whole) * 8):
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            parsed = parse_bridge(bytes(flipped))
        except CorruptError:
            continue
        assert parsed != span
        assert format_bridge(parsed) == flipped


@given(st.binary(max_size=200))
def test_random_bytes_have_an_answer(data: bytes) -> None:
    """Random bytes are parsed as a span or refused with an error of our own."""
    try:
        span = parse_bridge(data)
    except CorruptError:
        return
    assert format_bridge(span) == data


def test_texts_that_are_too_long_are_cut_between_letters() -> None:
    """A reason of any length can be stored, and what remains of it is valid text."""
    span = parse_bridge(format_bridge(BridgeSpan(1, 0, 0, "k" * 999, "x" + "ü" * 999 + "\udcff")))
    assert (span.kind, span.reason) == ("k" * KIND_BYTES_MAX, "x" + "ü" * ((REASON_BYTES_MAX - 1) // 2))
    assert parse_bridge(format_bridge(BridgeSpan(1, 0, 0, "", "a\udcffb"))).reason == "a?b"


@pytest.mark.parametrize(
    "span",
    [
        BridgeSpan(0, 1, NOON_MS, "gap", ""),
        BridgeSpan(1, 1, TIME_MS_MAX + 1, "gap", ""),
        BridgeSpan(2, 3, NOON_MS, "scrub", "", SuspectSpan(2, 4, NOON_MS, 1)),
        BridgeSpan(2, 3, NOON_MS, "scrub", "", SuspectSpan(0, 3, NOON_MS, 1)),
        BridgeSpan(2, 3, NOON_MS, "scrub", "", SuspectSpan(2, 3, NOON_MS, 0)),
        BridgeSpan(2, 3, NOON_MS, "scrub", "", SuspectSpan(2, 3, TIME_MS_MAX + 1, 1)),
    ],
)
def test_what_contradicts_itself_is_never_written(span: BridgeSpan) -> None:
    """Positions without an epoch, impossible times, and a suspect span that begins late or holds no page are never
    written.
    """
    with pytest.raises(AssertionError):
        format_bridge(span)
