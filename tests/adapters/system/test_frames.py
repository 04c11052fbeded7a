"""Tests of the messages of the control socket."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.adapters.system.frames import HEADER, NoMessageError, format_message, message_size, parse_message

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(JSON)
def test_parsing_is_the_inverse_of_formatting(document: object) -> None:
    """Every document that JSON can express is parsed back."""
    assert parse_message(format_message(document)) == document


def test_the_length_is_known_from_the_header_on() -> None:
    """The number of bytes that have arrived makes no difference."""
    message = format_message({"op": "status"})
    for end in range(len(message) + 1):
        assert message_size(message[:end], size_max=100) == (len(message) if end >= HEADER.size else None)


@pytest.mark.parametrize("held", [b"{", b"WSY2", b"GET / HTTP/1.1", b"\0", b"WSX1\0\0\0\1"])
def test_other_bytes_are_no_message(held: bytes) -> None:
    """The first wrong byte is enough to refuse the bytes."""
    with pytest.raises(NoMessageError, match="does not begin"):
        message_size(held, size_max=100)


def test_a_message_has_a_greatest_length() -> None:
    """A message that is too long is refused before a byte of the document is read."""
    with pytest.raises(NoMessageError, match="has 4294967295 bytes, 100 are allowed"):
        message_size(HEADER.pack(b"WSY1", 2**32 - 1), size_max=100)


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b"[" * 100_000, b"1" * 10_000])
def test_a_document_that_is_not_json_is_no_message(body: bytes) -> None:
    """Deep nesting and numbers of ten thousand digits are refused, too."""
    with pytest.raises(NoMessageError, match="is not JSON"):
        parse_message(HEADER.pack(b"WSY1", len(body)) + body + b"\n")
