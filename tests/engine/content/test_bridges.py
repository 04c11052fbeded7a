"""Tests of walsyncd.engine.content.bridges: which gaps are bridged, and what the journal says meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.engine.content.gaps import Gaps
from walsyncd.core.follow.follow_state import parse_follow_state
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.content.bridges import Bridges

GAP = Gap.of(GapKind.OVERWRITTEN, "commits {count} are missing", count=3)


@pytest.fixture
def gaps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gaps]:
    with closing(Gaps(tmp_path, page_size=4096, auto_vacuum=0)) as gaps:
        gaps.sql("INSERT INTO t (y) VALUES (1)")
        gaps.settle()
        yield gaps


def bridges(gaps: Gaps) -> Bridges:
    return Bridges(gaps.journal, gaps.environment, gaps.schedule, gaps.queue, gaps.maps)


def begun(gaps: Gaps) -> bool:
    assert gaps.tracked.state is not None
    return bridges(gaps).begin(gaps.tracked, GAP, gaps.tracked.state)


def test_the_gap_is_in_the_journal_until_it_is_bridged(gaps: Gaps) -> None:
    """If the daemon dies meanwhile, the next one begins again, even if nothing else shows the gap any more."""
    assert begun(gaps)
    follow = gaps.journal.database_by_id(gaps.row_id).follow
    assert follow is not None
    assert parse_follow_state(follow).gap == Gap.of(GapKind.OVERWRITTEN, "{reason}", reason="commits 3 are missing")
    gaps.die()
    gaps.open()
    assert gaps.tracked.bridge is not None
    gaps.settle()
    assert gaps.bridges == 1
    assert gaps.journal.gaps() == {GapKind.OVERWRITTEN: 1}
    assert gaps.tracked.state is not None
    assert gaps.tracked.state.gap is None
    gaps.check()


@pytest.mark.parametrize("missing", ["map", "base"])
def test_without_a_map_or_a_base_there_is_nothing_to_bridge_from(gaps: Gaps, missing: str) -> None:
    """A new generation begins."""
    if missing == "map":
        gaps.journal.page_map_lost(gaps.row_id)
    else:
        with gaps.journal._transaction() as connection:
            connection.execute("UPDATE database SET base_key = NULL")
    assert not begun(gaps)
    assert gaps.tracked.bridge is None


def test_a_base_under_way_is_worthless(gaps: Gaps) -> None:
    """The base was read before the gap, so its pages would not fit together with the bridge's."""
    generation = gaps.tracked.generation
    assert generation is not None
    gaps.journal.base_begun(
        gaps.row_id, generation=generation, key="b", token="", plan="{}", part_size=1, epoch=1, frame=0, now_ms=1
    )
    gaps.tracked.note_base(under_way=True)
    before = gaps.tracked.gaps
    assert begun(gaps)
    assert gaps.journal.bases(gaps.row_id) == []
    assert not gaps.tracked.base.under_way
    assert gaps.tracked.gaps == before + 1


def test_another_page_size_needs_a_base(gaps: Gaps) -> None:
    """No frame of the old epoch fits the new pages."""
    gaps.die()
    gaps.app.close()
    for side in ("", "-wal", "-shm"):
        Path(f"{gaps.path}{side}").unlink(missing_ok=True)
    gaps.make(page_size=1024, auto_vacuum=0)
    gaps.open()
    gaps.settle()
    gaps.check()
    assert (gaps.generations, gaps.bridges) == (2, 0)
