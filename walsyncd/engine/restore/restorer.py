"""Restores a database: plan, check, build, publish. Only a whole database ever appears under the final name.

1. *plan*: `walsyncd.engine.restore.planner`.
2. *check*: the target may be replaced, and there is room for it.
3. *build*: the base, and then the frames, are verified and written into a partial file beside the target. Ranges of the
   base that an interrupted restore has left in that file are not fetched again.
4. *publish*: the file is synced, a stale -wal, -shm and -journal are moved aside, and the file is renamed.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from walsyncd.adapters.files.target import KEPT_BYTES_MIN, Access
from walsyncd.adapters.files.target import Target as TargetFile
from walsyncd.adapters.system import clock
from walsyncd.core.restore.plan import Plan, Point
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE
from walsyncd.core.stored.layout import SEGMENT_BYTES_MAX, format_key
from walsyncd.core.stored.manifest import Manifest, Range
from walsyncd.core.stored.moment import format_stamp
from walsyncd.engine.restore.base_fetch import Advance, fetch_base, missing_ranges, write_at
from walsyncd.engine.restore.fork_check import left_out
from walsyncd.engine.restore.planner import ResolvedPlan, RestoreRequest, find_plan, manifest_of, with_plan
from walsyncd.engine.restore.replay import Applied, ObjectSlice, Replay, last_size, pieces_of
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import UsageError

__all__ = ["Restored", "check_target", "find_plan", "restore", "restore_request"]


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore.

    ``plan.reached`` is the exact position, ``size`` is in bytes, and ``moved`` are stale files that were moved aside.
    """

    path: Path
    plan: Plan
    applied: Applied
    size: int
    moved: tuple[Path, ...]


class Progress(Protocol):
    """Gets the progress of a restore. Its methods are called from several threads."""

    def begin(self, draft: BuildPlan) -> None:
        """Take the draft of a restore that begins. It is called again if the restore is planned again."""

    def advance(self, raw_bytes: int) -> object:
        """Count ``raw_bytes`` more of ``draft.work_bytes`` as done."""


class _Silent:
    def begin(self, draft: BuildPlan) -> None:
        """Do nothing."""

    def advance(self, raw_bytes: int) -> None:
        """Do nothing."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """The options of a restore.

    ``force`` replaces a file that exists. ``replace_empty`` replaces a file of 0 bytes that has no -wal.
    ``create_folder`` makes the target's folder. ``follow_point`` returns the content of ``NAME-follow`` for a copy that
    is kept up to date; it is called with the point that was reached and with the descriptor of the new file. If the
    restore is interrupted, a partial file of at least ``kept_bytes_min`` is kept for the next restore.
    """

    force: bool = False
    replace_empty: bool = False
    create_folder: bool = False
    access: Access = field(default_factory=Access)
    progress: Progress = field(default_factory=_Silent)
    follow_point: Callable[[Point, int], bytes] | None = None
    kept_bytes_min: int = KEPT_BYTES_MIN


def check_target(path: Path, how: RestoreOptions = RestoreOptions()) -> None:
    """Raise early what `restore` would raise: UsageError if the file exists, RefusedError if it is a link or in use.

    UsageError is also raised for a name that is so long that its -wal can't have a name.
    """
    if len(os.fsencode(f"{path.name}-wal")) > SEGMENT_BYTES_MAX:
        raise UsageError(f"restore to {path}: the name is too long for a -wal beside it", hint="choose a shorter one")
    with TargetFile(path, create_folder=how.create_folder) as target:
        target.check(force=how.force, replace_empty=how.replace_empty)


def restore_request(
    replica: Replica, request: RestoreRequest, path: Path, how: RestoreOptions = RestoreOptions()
) -> Restored:
    """Plan a restore and do it. Plan again if objects vanish meanwhile, and do without damaged objects.

    Raises what `planner.find_plan` and `restore` raise.
    """
    check_target(path, how)
    return with_plan(replica, request, lambda prepared: _restore(replica, prepared, path, how))


def restore(
    replica: Replica, plan: Plan, path: Path, *, force: bool = False, progress: Progress | None = None
) -> Restored:
    """Build the database that a resolved plan describes and put it at ``path``. No other base is tried.

    Raises UsageError if the file exists, RefusedError if it is in use or if room or permission is lacking, and
    CorruptError, which names the object that is damaged or missing.
    """
    return _restore(
        replica,
        ResolvedPlan(plan, manifest_of(replica, plan)),
        path,
        RestoreOptions(force=force, progress=progress or _Silent()),
    )


def _restore(replica: Replica, prepared: ResolvedPlan, path: Path, how: RestoreOptions) -> Restored:
    with TargetFile(path, create_folder=how.create_folder) as target:
        target.check(force=how.force, replace_empty=how.replace_empty)
        draft = build_plan_of(replica, prepared)
        how.progress.begin(draft)
        with target.building(_tag(replica, draft), kept_bytes_min=how.kept_bytes_min) as descriptor:
            target.check_space(draft.space_bytes, descriptor=descriptor)
            applied = _build(replica, draft, descriptor, how.progress.advance)
            stamp = format_stamp(clock.wall_ms())
            point = how.follow_point(draft.plan.reached, descriptor) if how.follow_point else None
            moved = target.publish(descriptor, stamp=stamp, access=how.access, follow_point=point)
    return Restored(target.path, _noting(draft.plan, applied), applied, draft.size, tuple(moved))


def _noting(plan: Plan, applied: Applied) -> Plan:
    """Return the plan with a note for each damaged object that was not needed. An object gets at most one note."""
    names = [format_key(key) for key in applied.uncompared]
    unknown = [name for name in names if not any(name in note for note in plan.notes)]
    return replace(plan, notes=(*plan.notes, *(f"damaged, and not needed: {name}" for name in unknown)))


def _tag(replica: Replica, draft: BuildPlan) -> str:
    """Return a tag for the base of a replica. A partial file with this tag serves any later restore from that base."""
    return hashlib.sha256(f"{replica.url} {draft.manifest.key}".encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What a restore builds: the plan's pieces, and the size in pages after them (0 if the base's size remains)."""

    plan: Plan
    manifest: Manifest
    pieces: tuple[ObjectSlice, ...]
    page_count: int

    @property
    def size(self) -> int:
        """The size of the finished file in bytes."""
        return self.page_count * self.manifest.page_size or self.manifest.file_size

    @property
    def space_bytes(self) -> int:
        """The bytes of disk that building takes. The base is written whole, even if the database shrank later."""
        return max(self.size, self.manifest.file_size)

    @property
    def work_bytes(self) -> int:
        """The number of raw bytes that are read."""
        frame_size = FRAME_HEADER_SIZE + self.manifest.page_size
        return self.manifest.file_size + sum(piece.frames for piece in self.pieces) * frame_size


def build_plan_of(replica: Replica, prepared: ResolvedPlan) -> BuildPlan:
    """Return what a plan builds. Reads the plan's last object. Raises CorruptError with its name if it is damaged."""
    pieces = tuple(pieces_of(prepared.plan))
    page_count = last_size(replica, pieces, prepared.manifest.page_size)
    return BuildPlan(prepared.plan, prepared.manifest, pieces, page_count)


def _build(replica: Replica, draft: BuildPlan, descriptor: int, advance: Advance) -> Applied:
    """Write the base while the newest frames are read ahead, then the frames while the base is flushed to the disk."""
    manifest = draft.manifest
    with (
        Replay(replica, draft.pieces, manifest.page_size, draft.page_count, left_out(draft.plan)) as replay,
        ThreadPoolExecutor(1, thread_name_prefix="flush") as flusher,
    ):
        missing = _missing(manifest, descriptor)
        os.ftruncate(descriptor, manifest.file_size)
        advance(manifest.file_size - sum(part.length for part in missing))
        fetch_base(replica, draft.plan.base, manifest, write_at(descriptor), ranges=missing, advance=advance)
        flushed = flusher.submit(os.fdatasync, descriptor)
        try:
            applied = replay.onto(descriptor, advance=advance)
        finally:
            flushed.result()  # the kernel reports a write error only once, so no partial file may survive the error
    os.ftruncate(descriptor, draft.size)
    return applied


def _missing(manifest: Manifest, descriptor: int) -> Sequence[Range]:
    """Return the base's ranges without those that an interrupted restore has left in the file."""
    return missing_ranges(manifest, descriptor) if os.fstat(descriptor).st_size else manifest.ranges
