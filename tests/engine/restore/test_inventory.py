"""Tests of what ``ls`` says of a replica."""

from __future__ import annotations

from pathlib import Path

from tests.replicas import BEGAN_MS, GENERATION, NEXT_GENERATION, make_replica
from walsyncd.core.restore.plan import Point
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.inventory import inventory
from walsyncd.engine.restore.replica import Replica


def test_generations_with_what_they_cover(tmp_path: Path) -> None:
    """The list has bases, first and last point, objects and size, and what can't be restored, with the reason."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(4)
        keys = maker.ship(every=2)
        maker.begin_generation(NEXT_GENERATION)
        maker.commit()
        maker.ship()
        old, new = inventory(Replica(maker.storage, maker.name))
        stored = [path for path in maker.root.rglob("*.zst") if GENERATION in str(path)]
        assert (old.objects, old.size) == (len(stored), sum(path.stat().st_size for path in stored))
        assert old.first == Point(Position(GENERATION, 1, 0), BEGAN_MS)
        assert old.last == Point(maker.history[3].position, maker.history[3].time_ms)
        assert [(span.first, span.last) for span in old.spans] == [(old.first, old.last)]
        assert old.commits is None
        assert [each.commits for each in inventory(Replica(maker.storage, maker.name), count_commits=True)] == [4, 0]
        assert (old.reason, old.fault, len(old.bases)) == ("the first one", "", 1)
        assert (new.first, new.last, new.fault) == (None, None, "no finished base")
        maker.remove(keys[0])
        (broken, _) = inventory(Replica(maker.storage, maker.name))
    assert "missing in epoch 1" in broken.fault
    assert broken.last == broken.first


def test_empty_replica_has_no_generations(tmp_path: Path) -> None:
    """If nothing is stored, the list is empty."""
    with make_replica(tmp_path) as maker:
        assert inventory(Replica(maker.storage, maker.name)) == []


def test_bridges_cut_what_is_covered(tmp_path: Path) -> None:
    """A bridge is listed with its reason.

    A span ends where the old position was last proven. A bridge that heals cuts none.
    """
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        bridge = maker.bridge(lost=2)
        maker.heal(since=maker.history[-1])
        (survey,) = inventory(Replica(maker.storage, maker.name), count_commits=True)
        (gap, healed) = survey.bridges
        assert [(span.first.position, span.last.position) for span in survey.spans] == [
            (Position(GENERATION, 1, 0), maker.history[1].position),
            (maker.history[2].position, maker.position),
        ]
        assert [span.end_ms for span in survey.spans] == [gap.span.proven_ms, maker.history[-1].time_ms]
        assert (gap.before, gap.after.position) == (maker.history[1].position, Position(GENERATION, 2, bridge.last))
        assert (gap.span.reason, gap.span.suspect) == ("the daemon was stopped", None)
        assert healed.suspect_from == gap.after
        assert (survey.commits, survey.holes, survey.fault) == (5, 0, "")


def test_a_bridge_that_cannot_be_read_is_a_fault(tmp_path: Path) -> None:
    """The other bridges are listed anyway."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(1)
        maker.ship()
        path = maker.object_path(maker.bridge())
        maker.bridge()
        path.write_bytes(path.read_bytes()[:-1])
        (survey,) = inventory(Replica(maker.storage, maker.name))
    assert len(survey.bridges) == 1
    assert path.name in survey.fault
