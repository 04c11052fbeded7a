"""Tests of deletions: an error says what to do, and what was deleted is counted and reported."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from tests.compaction import make_history, ship
from tests.engine.upkeep.test_housekeeper import ClockedStorage, make, segments_left
from walsyncd.adapters.journal.journal import Journal
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.keep.retention import HOUR_MS
from walsyncd.core.send.refused_request import DELETION_S
from walsyncd.engine.upkeep.deletion import DeletionRefusedError, Removals, remove
from walsyncd.errors import RefusedError, TransientError


class Unwilling(ClockedStorage):
    """A storage that refuses to delete, for one reason or another."""

    error: Exception | None = None

    def delete(self, keys: Sequence[str]) -> None:
        if self.error is not None:
            raise self.error
        super().delete(keys)


def test_only_a_refusal_is_told_apart() -> None:
    """The error has both remedies. For a store that is away there is only the error."""
    storage = Unwilling()
    storage.error = RefusedError("delete object b: AccessDenied", hint="allow s3:DeleteObject")
    with pytest.raises(DeletionRefusedError, match="hint: allow s3:DeleteObject; or write delete = false"):
        remove(storage, ["b"])
    storage.error = TransientError("away")
    with pytest.raises(TransientError):
        remove(storage, ["b"])


def test_while_deletion_is_refused_nothing_is_compacted(tmp_path: Path) -> None:
    """The refusal is reported once. Compaction is tried again in an hour, and continues when deletion is permitted.

    Everything is counted.
    """
    storage, counts = Unwilling(), Removals()
    with Journal.open(tmp_path / "state") as journal, capture_logs() as logs:
        journal.keep_bodies(1 << 30)
        keeper = make(journal, storage, removals=counts)
        row_id = ship(journal, storage, make_history(tmp_path))
        keeper.round()
        storage.error = RefusedError("delete objects: AccessDenied")
        storage.now_ms += HOUR_MS
        journal.end_generation(row_id, Gap.of(GapKind.OTHER, "test"), 0)  # this closes its second epoch
        assert keeper.round() == keeper.round() == DELETION_S
        assert (segments_left(storage), counts.wholes[row_id], counts.failures["compaction"]) == (3, 1, 2)
        storage.error = None
        keeper.round()
    assert [log["event"] for log in logs if log["log_level"] == "warning"] == ["housekeeping_postponed"]
    assert (segments_left(storage), counts.wholes[row_id]) == (0, 2)
    assert (counts.objects[row_id], counts.size[row_id] > 0) == (3, True)
