"""What ``ls`` says of a replica."""

from __future__ import annotations

from pathlib import Path

from tests.replicas import BEGAN_MS, GENERATION, NEXT_GENERATION, make_replica
from walsyncd.core.restore.plan import Point
from walsyncd.core.stored.position import Position
from walsyncd.engine.restore.inventory import inventory
from walsyncd.engine.restore.replica import Replica


def test_generations_with_what_they_cover(tmp_path: Path) -> None:
    """Bases, first and last point, objects and size; and what can't be restored, with the reason."""
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
    """Nothing stored is nothing to say."""
    with make_replica(tmp_path) as maker:
        assert inventory(Replica(maker.storage, maker.name)) == []
