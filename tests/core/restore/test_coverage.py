"""Tests of coverage: from a base on, exactly the frames that are held without a hole, and the reason why it ends."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.histories import G1, History, base, histories, listing, segment, whole
from walsyncd.core.restore.coverage import Coverage, End, FramesKey, GenerationListing, cover, cover_epoch, listing_of
from walsyncd.core.stored.layout import ManifestKey, PrunedKey


def covered(*keys: FramesKey | ManifestKey, pruned: tuple[PrunedKey, ...] = ()) -> Coverage:
    """Return what is covered from the first of these bases on."""
    found = listing(*keys).generations[0]
    part = GenerationListing(G1, found.bases, found.manifests, found.frames, pruned)
    return cover(part, part.finished[0])


def test_adjoining_segments_are_taken_in_order() -> None:
    """Segments of two epochs that join are covered to the end."""
    keys = [segment(1, 1, 4), segment(1, 5, 9), segment(2, 1, 3, previous=9)]
    coverage = covered(base((1, 0)), *reversed(keys))
    assert (coverage.objects, coverage.last, coverage.end) == (keys, (2, 3), End.COMPLETE)


def test_whole_is_preferred_to_its_segments() -> None:
    """A closed epoch that is stored as one object is read as one."""
    coverage = covered(base((1, 0)), segment(1, 1, 4), segment(1, 5, 9), whole(1, 9))
    assert coverage.objects == [whole(1, 9)]


def test_overlaps_are_covered_with_few_objects() -> None:
    """Of objects that overlap, those that reach farthest are taken."""
    coverage = covered(base((1, 0)), segment(1, 1, 4), segment(1, 2, 3), segment(1, 3, 8), segment(1, 5, 7))
    assert coverage.objects == [segment(1, 1, 4), segment(1, 3, 8)]


@pytest.mark.parametrize(
    ("keys", "end", "detail"),
    [
        ([segment(1, 1, 4), segment(1, 6, 9)], End.HOLE, "frame 5 is missing in epoch 1"),
        ([segment(1, 3, 4)], End.HOLE, "frames 1 to 2 are missing in epoch 1"),
        ([segment(1, 1, 4), segment(2, 1, 3, previous=6)], End.HOLE, "frames 5 to 6 are missing in epoch 1"),
        ([segment(1, 1, 4), segment(2, 2, 3)], End.HOLE, "frame 1 is missing in epoch 2"),
        ([segment(1, 1, 4), segment(3, 1, 3, previous=2)], End.HOLE, "epoch 2 is missing"),
        ([segment(1, 1, 4), segment(4, 1, 3, previous=2)], End.HOLE, "epochs 2 to 3 are missing"),
        ([segment(1, 1, 4), base((1, 6))], End.HOLE, "frames 5 to 6 are missing in epoch 1"),
        ([segment(1, 1, 4), base((3, 2))], End.HOLE, "epochs 2 to 3 are missing"),
        ([segment(1, 1, 4), base((2, 0))], End.COMPLETE, ""),
        (
            [segment(1, 1, 4), segment(2, 1, 3, previous=3)],
            End.FORK,
            "follows frame 3 of epoch 1, which goes on",
        ),
        (
            [segment(1, 1, 4), segment(2, 1, 3, previous=4), segment(2, 1, 2, previous=3)],
            End.FORK,
            "says that it follows frames 3 and 4",
        ),
        ([], End.COMPLETE, ""),
    ],
)
def test_reasons(keys: list[FramesKey | ManifestKey], end: End, detail: str) -> None:
    """Every way to be incomplete has its reason, with numbers."""
    coverage = covered(base((1, 0)), *keys)
    assert coverage.end is end
    assert detail in coverage.detail


def test_hole_that_retention_stated_is_no_surprise() -> None:
    """What ``pruned/`` states ends the coverage for that reason, but only if it states all of the hole."""
    keys: list[FramesKey | ManifestKey] = [base((1, 0)), segment(1, 1, 4), segment(4, 1, 3, previous=2)]
    stated = PrunedKey(G1, 1, 2, 0), PrunedKey(G1, 3, 3, 0)
    assert covered(*keys, pruned=stated).end is End.PRUNED
    assert covered(*keys, pruned=stated[:1]).end is End.HOLE


def test_start_within_an_epoch_needs_nothing_before_it() -> None:
    """Frames up to S may be missing. An object that holds S and frames after it is taken whole."""
    coverage = covered(base((1, 5), (1, 7)), segment(1, 4, 6), segment(1, 7, 9))
    assert (coverage.objects, coverage.last) == ([segment(1, 4, 6), segment(1, 7, 9)], (1, 9))
    assert coverage.epochs[0].first == 4


def test_base_without_its_object_is_not_finished() -> None:
    """A manifest whose base is missing can't be used."""
    (part,) = listing_of([base((1, 0))]).generations
    assert part.finished == ()


def test_epoch_is_covered_from_its_first_frame_stored() -> None:
    """Without any base, an epoch covers what is stored from its first object on."""
    (part,) = listing(segment(2, 3, 4), segment(2, 5, 6), segment(2, 8, 9)).generations
    epoch = cover_epoch(part, 2)
    assert (epoch.first, epoch.last, len(epoch.objects)) == (3, 6, 2)


@given(histories(), st.sets(st.integers(0, 12), max_size=3))
def test_coverage_is_what_is_held_without_a_hole(history: History, lost: set[int]) -> None:
    """Whatever is lost, all frames up to the end are held, the next frame is not, and each object adds frames."""
    history = history.lose(lost)
    (part,) = history.listing().generations
    for manifest in part.finished:
        coverage = cover(part, manifest)
        start = (manifest.base.epoch, manifest.base.frame)
        assert history.frames_between(start, coverage.last) <= history.frames_held
        after = history.frames_between(coverage.last, history.last_known)
        assert (coverage.end is End.COMPLETE) == (not after)
        assert not after or min(after) not in history.frames_held
        for epoch in coverage.epochs:
            held = epoch.first - 1
            for key in epoch.objects:
                assert key.first <= held + 1 <= key.last
                held = key.last
            assert held == epoch.last
