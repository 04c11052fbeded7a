"""Tests of what damage means: which spans are good, which are lost. What retention deleted on purpose is not lost."""

from __future__ import annotations

from pathlib import Path

from tests.replicas import ReplicaMaker, make_replica
from walsyncd.core.restore.coverage import GenerationListing, listing_of
from walsyncd.core.stored.layout import Key, PrunedKey
from walsyncd.engine.restore.damage_report import damage_report
from walsyncd.engine.restore.replica import Replica


def part_of(maker: ReplicaMaker, *more: Key) -> GenerationListing:
    keys = [each.key for each in Replica(maker.storage, maker.name).objects(maker.generation)]
    (part,) = listing_of([*keys, *more]).generations
    return part


def test_nothing_damaged_loses_nothing(tmp_path: Path) -> None:
    """There is one span, from the base to the last commit."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(3)
        maker.ship(every=1)
        left = damage_report(part_of(maker), ())
        assert (left.good[0].last.position, left.lost) == (maker.position, ())
        assert left.lines()[0].startswith("still good: ")


def test_lost_segment_loses_up_to_the_next_base(tmp_path: Path) -> None:
    """The commits after the lost segment are lost, up to a base that does not need it."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        segments = maker.ship(every=1)
        second = maker.base()
        maker.commit(1)
        maker.ship()
        left = damage_report(part_of(maker), {segments[1]})
    (lost,) = left.lost
    assert (lost.first.position, lost.last.position) == (maker.history[0].position, maker.history[3].position)
    assert [span.first.position.frame for span in left.good] == [0, second.frame]
    assert len(left.lines()) == 3


def test_only_base_loses_everything(tmp_path: Path) -> None:
    """If the only base is lost, nothing can be restored."""
    with make_replica(tmp_path) as maker:
        manifest = maker.base()
        maker.commit(2)
        maker.ship()
        left = damage_report(part_of(maker), {manifest})
    assert (left.good, left.lost[0].last.position) == ((), maker.position)


def test_pruned_epochs_are_not_lost(tmp_path: Path) -> None:
    """A kept base is usable alone, and epochs that retention deleted according to ``pruned/`` are not missed."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.close_epoch()
        maker.commit(2)
        gone = maker.ship()
        maker.close_epoch()
        maker.commit(1)
        maker.ship()
        maker.base()
        for key in gone:
            maker.remove(key)
        left = damage_report(part_of(maker, PrunedKey(maker.generation, 2, 2, 0)), ())
    assert (len(left.good), left.lost) == (2, ())
