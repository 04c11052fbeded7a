"""The plan of a base under way. The journal keeps it, so that a later run can continue the base."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from walsyncd.adapters.files.source import OpenFile
from walsyncd.adapters.journal.journal import ObjectRow, ObjectState
from walsyncd.core.stored.base import Shape
from walsyncd.core.stored.position import Position


@dataclass(frozen=True, slots=True)
class BasePlan:
    """What must not change while a base is under way: the file, the boot, and the first frame to apply (S)."""

    generation: str
    epoch: int
    frame: int
    shape: Shape
    device: int
    inode: int
    birth_ns: int | None
    boot_id: str

    @property
    def start(self) -> Position:
        """The first frame that a restore applies to this base (S)."""
        return Position(self.generation, self.epoch, self.frame)

    def to_json(self) -> str:
        """Return the plan as it is stored in the journal."""
        return json.dumps(asdict(self))


def parse_plan(text: str) -> BasePlan:
    """Inverse of ``BasePlan.to_json``."""
    fields = json.loads(text)
    return BasePlan(**{**fields, "shape": Shape(**fields["shape"])})


def can_resume(plan: BasePlan, row: ObjectRow, file: OpenFile, *, generation: str, boot_id: str) -> bool:
    """Whether a base that an earlier run began can be continued."""
    identity = file.identity()
    same = (plan.device, plan.inode, plan.birth_ns) == (identity.device, identity.inode, identity.birth_ns)
    stored = row.state is ObjectState.STORED
    return same and plan.boot_id == boot_id and plan.generation == generation and (stored or row.upload_id is not None)
