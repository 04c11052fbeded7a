"""Tests of owner.json: its form, and who may continue a generation."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from walsyncd.core.stored.owner import Owner, format_owner, is_ours, lost_reason, may_be_continued, parse_owner
from walsyncd.errors import CorruptError

OLD, NOW, NEW = "20261122T105500Z-00000001", "20261122T105600Z-00000002", "20261122T105700Z-00000003"
US = Owner("web-1", "machine-1", "run-1", "2026-11-22T10:56:00+00:00")
CLONE = Owner("web-1", "machine-2", "run-1", US.since)
OTHER_RUN = Owner("web-1", "machine-1", "run-9", US.since)

words = st.text(st.characters(exclude_categories=["C", "Z"]), max_size=20)


@given(st.builds(Owner, words, words, words, words, words))
def test_format_and_parse_are_inverse(owner: Owner) -> None:
    """Format and parse are inverse for all names that can be shown."""
    assert parse_owner(format_owner(owner)) == owner


@pytest.mark.parametrize("length", range(len(format_owner(US)) - 1))
def test_a_cut_owner_is_corrupt(length: int) -> None:
    """No truncated file names an owner."""
    if length < len(format_owner(US).rstrip()):
        with pytest.raises(CorruptError):
            parse_owner(format_owner(US)[:length])


@pytest.mark.parametrize("data", [b"[]", b"1", b'"x"', b"{}", b"\xff", b"[" * 100_000, b'{"host": ' * 9_000])
def test_other_json_is_corrupt(data: bytes) -> None:
    """Other JSON is reported as corrupt, and causes no crash."""
    with pytest.raises(CorruptError):
        parse_owner(data)


def test_who_has_released_nothing_writes_what_older_versions_know() -> None:
    """An owner that has released nothing has only the fields that older versions know."""
    assert set(json.loads(format_owner(US))) == {"host", "machine_id", "run_id", "since"}
    assert set(json.loads(format_owner(replace(US, released=NOW)))) > {"host", "machine_id", "run_id", "since"}


@pytest.mark.parametrize(
    ("released", "runs", "in_bucket", "expected"),
    [
        (NOW, ["run-2"], [OLD, NOW], True),
        (NOW, [], [NOW], True),
        ("", ["run-2"], [OLD, NOW], False),
        (NOW, ["run-2", "run-1"], [OLD, NOW], False),
        (NOW, ["run-2"], [OLD, NOW, NEW], False),
        (NOW, ["run-2"], [OLD], False),
        (NOW, ["run-2"], [], False),
    ],
)
def test_what_another_daemon_left_may_be_continued(
    released: str, runs: list[str], in_bucket: list[str], expected: bool
) -> None:
    """Another daemon's newest generation may be continued.

    A generation of this journal's own runs is in the journal, or has ended for a reason.
    """
    seen = replace(US, released=released)
    for is_known in (False, True):
        found = may_be_continued(seen, machine_ids={"machine-2"}, runs=runs, in_bucket=in_bucket, is_known=is_known)
        assert found is expected


@pytest.mark.parametrize(
    ("machine_id", "is_known", "expected"),
    [
        ("machine-1", False, True),
        ("machine-1", True, False),
        ("machine-2", True, True),
        ("host-web-2", True, False),
        ("host-web-2", False, True),
    ],
)
def test_a_journal_that_knows_the_database_continues_only_what_another_machine_left(
    machine_id: str, is_known: bool, expected: bool
) -> None:
    """Any other generation may mean that the journal is a copy, or an old version of itself."""
    seen, ids = replace(US, released=NOW), {machine_id}
    found = may_be_continued(seen, machine_ids=ids, runs=["run-2"], in_bucket=[NOW], is_known=is_known)
    assert found is expected


def test_keys_of_a_later_version_are_passed_over() -> None:
    """Unknown keys are ignored, so keys can be added without a new format."""
    assert parse_owner(json.dumps({**json.loads(format_owner(US)), "later": 1}).encode()) == US


@pytest.mark.parametrize(
    ("seen", "was_stored", "in_bucket", "expected"),
    [
        (US, True, [NOW], ""),
        (None, False, [], ""),
        (None, False, [OLD], ""),
        (CLONE, False, [OLD], ""),
        (OTHER_RUN, False, [OLD], ""),
        (None, True, [], "owner.json is gone"),
        (None, False, [NOW], "owner.json is gone"),
        (CLONE, True, [NOW], "machine-2"),
        (OTHER_RUN, True, [NOW], "run-9"),
        (CLONE, False, [NEW], NEW),
    ],
)
def test_who_may_continue_a_generation(
    seen: Owner | None, was_stored: bool, in_bucket: list[str], expected: str
) -> None:
    """Our own generation continues.

    A generation that nobody can have written to begins. Every other one is lost, and the error names its owner.
    """
    reason = lost_reason(
        seen, machine_ids={"machine-1"}, runs={"run-1"}, generation=NOW, was_stored=was_stored, in_bucket=in_bucket
    )
    assert bool(reason) == bool(expected)
    assert expected in reason


@pytest.mark.parametrize(
    ("seen", "ours", "is_known"),
    [
        ("machine-1", {"machine-1"}, True),
        ("machine-2", {"machine-1"}, False),
        ("machine-2", {"machine-1", "machine-2"}, True),
        ("host-5f2d", {"host-81aa"}, True),
        ("host-5f2d", {"machine-1"}, True),
        ("machine-1", {"host-81aa"}, True),
    ],
)
def test_a_machine_is_asked_for_only_where_both_have_an_id(seen: str, ours: set[str], *, is_known: bool) -> None:
    """The host name of a container changes each time, so without machine ids the run id alone decides."""
    assert is_ours(Owner("web-1", seen, "run-1", US.since), machine_ids=ours, runs={"run-1"}) == is_known
    assert not is_ours(Owner("web-1", seen, "run-9", US.since), machine_ids=ours, runs={"run-1"})


@pytest.mark.parametrize("host", ["\x1b[2J", "a\nb", "\ud800", 7, ["x"], "x" * 9000])
def test_what_a_terminal_would_obey_names_nobody(host: object) -> None:
    """A name with control characters is refused, so that a writer to the bucket can't control a reader's terminal."""
    fields = {"host": host, "machine_id": "m", "run_id": "r", "since": "s"}
    with pytest.raises(CorruptError):
        parse_owner(json.dumps(fields).encode())
