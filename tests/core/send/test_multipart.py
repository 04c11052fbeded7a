"""Tests of multipart uploads: the next step from what the journal and the store say."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.send.multipart import (
    PART_SIZE_MIN,
    AdoptUpload,
    Answers,
    CheckObject,
    Complete,
    CreateUpload,
    FindUploads,
    Finished,
    ForgetUpload,
    Listed,
    ListParts,
    Part,
    Record,
    SendPart,
    Step,
    adopt,
    bare,
    cut,
    next_step,
    part_size,
)

ONE, TWO = Part(1, 10, "aa"), Part(2, 5, "bb")
SENT_ONE, SENT_TWO = replace(ONE, etag='"aa"'), replace(TWO, etag='"bb"')
FRESH = Record(tried=False, upload_id=None, parts=(ONE, TWO))
OPEN = replace(FRESH, upload_id="u")
TRIED = replace(FRESH, tried=True)
TRIED_OPEN = replace(OPEN, tried=True)
ALL_SENT = replace(OPEN, parts=(SENT_ONE, SENT_TWO))


@pytest.mark.parametrize(
    ("record", "answers", "expected"),
    [
        (FRESH, Answers(), CreateUpload()),
        (OPEN, Answers(), SendPart(ONE)),
        (replace(OPEN, parts=(SENT_ONE, TWO)), Answers(), SendPart(TWO)),
        (ALL_SENT, Answers(), Complete((SENT_ONE, SENT_TWO))),
        (ALL_SENT, Answers(stored=True), Finished()),
        (TRIED, Answers(), FindUploads()),
        (TRIED, Answers(uploads=()), CreateUpload()),
        (TRIED, Answers(uploads=("a", "b")), AdoptUpload("b", ("a",))),
        (TRIED_OPEN, Answers(), ListParts()),
        (TRIED_OPEN, Answers(listed=True), SendPart(ONE)),
        (TRIED_OPEN, Answers(missing=True), CheckObject()),
        (TRIED_OPEN, Answers(missing=True, stored=True), Finished()),
        (TRIED_OPEN, Answers(missing=True, stored=False), ForgetUpload()),
        (ALL_SENT, Answers(refusals=1), ListParts()),
        (ALL_SENT, Answers(refusals=1, listed=True), Complete((SENT_ONE, SENT_TWO))),
        (ALL_SENT, Answers(refusals=3, listed=True), ForgetUpload()),
    ],
)
def test_the_next_step(record: Record, answers: Answers, expected: Step) -> None:
    """Each row of the table, and each exception from it, gives its step."""
    assert next_step(record, answers) == expected


def test_a_part_is_adopted_by_md5_and_size_wherever_it_is_listed() -> None:
    """If a number is listed twice, the entry with our bytes counts. An entry with another size or MD5 is not ours."""
    listed = [Listed(1, 10, '"xx"'), Listed(1, 10, '"AA"'), Listed(2, 6, '"bb"')]
    assert adopt([ONE, TWO], listed) == (replace(ONE, etag='"AA"'), TWO)


def test_an_etag_that_is_no_md5_is_ours_if_it_was_acknowledged() -> None:
    """With KMS encryption ETags are not MD5s, so only an ETag that the store returned to us counts."""
    ours = replace(ONE, etag='"kms-1"')
    assert adopt([ours, TWO], [Listed(1, 10, '"kms-1"'), Listed(2, 5, '"kms-2"')]) == (ours, TWO)


def test_what_the_store_does_not_list_is_sent_again() -> None:
    """An acknowledgement that is older than the listing does not count."""
    assert adopt([SENT_ONE], []) == (ONE,)


@given(st.integers(1, 48 << 40))
def test_parts_of_one_size_within_the_stores_limits(size: int) -> None:
    """There are at most 10,000 parts of 5 MiB to 5 GiB each, even if the object grows by a tenth."""
    length = part_size(size)
    assert PART_SIZE_MIN <= length <= 6 << 30
    assert -(-size * 11 // 10 // length) <= 10_000


@given(st.integers(1, 10_000), st.integers(1, 3_000))
def test_the_parts_are_the_object(size: int, length: int) -> None:
    """The parts adjoin, all but the last have the same size, and together they are the whole."""
    cuts = cut(size, part_size=length)
    assert sum(part for _, part in cuts) == size
    assert [offset for offset, _ in cuts] == [index * length for index in range(len(cuts))]
    assert {part for _, part in cuts[:-1]} <= {length}
    assert 0 < cuts[-1][1] <= length


def test_an_etag_without_its_quotes() -> None:
    """Stores quote the ETag in some answers and not in others."""
    assert bare('"AB-2"') == bare("ab-2") == "ab-2"
