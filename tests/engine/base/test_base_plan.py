"""Tests of walsyncd.engine.base.base_plan."""

from __future__ import annotations

from pathlib import Path

from tests.engine.base.test_base_copy import BOOT, PART, START, opened, world_of
from tests.fakes import FakeStorage
from tests.shipping import G1, NAME, T0
from walsyncd.adapters.journal.journal import Journal
from walsyncd.engine.base.base_copy import begin_base
from walsyncd.engine.base.base_plan import can_resume, parse_plan


def test_another_file_another_boot_or_another_generation_is_not_resumed(tmp_path: Path) -> None:
    """Everything on which a base under way relies has to be unchanged."""
    database = tmp_path / "app.db"
    database.write_bytes(b"x" * 1000)
    with Journal.open(tmp_path / "state") as journal, opened(database) as file:
        row = journal.database(NAME, str(database))
        journal.begin_generation(row.id, G1, "test", "{}", T0)
        world = world_of(journal, FakeStorage())
        plan, new = begin_base(world, database_id=row.id, start=START, file=file, boot_id=BOOT)
        journal.upload_opened(new.id, "upload-1", PART)
        (base,) = journal.bases(row.id)
        assert parse_plan(base.plan) == plan
        assert can_resume(plan, base.row, file, generation=G1, boot_id=BOOT)
        assert not can_resume(plan, base.row, file, generation=G1, boot_id="boot-2")
        assert not can_resume(plan, base.row, file, generation="another", boot_id=BOOT)
        other = tmp_path / "other.db"
        other.write_bytes(b"x")
        with opened(other) as replaced:
            assert not can_resume(plan, base.row, replaced, generation=G1, boot_id=BOOT)
        assert not can_resume(plan, new, file, generation=G1, boot_id=BOOT)
