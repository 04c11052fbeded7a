"""Restores a database: plan, check, build, publish. Nothing appears under the final name that is not whole.

1. *plan*: `walsyncd.engine.restore.planner`.
2. *check*: the target may be replaced, and there is room for it.
3. *build*: base, then frames, verified on the way, into a partial file beside the target. Ranges of the base that
   an interrupted restore has left there are not fetched again.
4. *publish*: fsync, move a stale -wal, -shm and -journal aside, rename.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol

from walsyncd.adapters.files.target import Access
from walsyncd.adapters.files.target import Target as TargetFile
from walsyncd.core.restore.plan import Plan, Point
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE
from walsyncd.core.stored.layout import format_key
from walsyncd.core.stored.manifest import Manifest, Range
from walsyncd.core.stored.moment import format_stamp
from walsyncd.engine.restore.base_fetch import Advance, fetch_base, missing_ranges, write_at
from walsyncd.engine.restore.fork_check import left_out
from walsyncd.engine.restore.planner import ResolvedPlan, RestoreRequest, find_plan, manifest_of, with_plan
from walsyncd.engine.restore.replay import Applied, ObjectSlice, Replay, last_size, pieces_of
from walsyncd.engine.restore.replica import Replica

__all__ = ["Restored", "check_target", "find_plan", "restore", "restore_request"]


@dataclass(frozen=True, slots=True)
class Restored:
    """What a restore made; ``plan.reached`` is the exact position. ``size`` in bytes."""

    path: Path
    plan: Plan
    applied: Applied
    size: int
    moved: tuple[Path, ...]


class Progress(Protocol):
    """Who wants to hear how far a restore is; called from several threads."""

    def begin(self, draft: BuildPlan) -> None:
        """What is going to be done; once more if it has to be planned anew."""

    def advance(self, raw_bytes: int) -> object:
        """So many more of ``draft.work_bytes`` are done."""


class _Silent:
    def begin(self, draft: BuildPlan) -> None:
        """Nobody wants to know."""

    def advance(self, raw_bytes: int) -> None:
        """Nobody wants to know."""


@dataclass(frozen=True, slots=True)
class RestoreOptions:
    """The ways in which a restore can be done.

    ``replace_empty`` takes a file of 0 bytes without a -wal for missing; ``create_folder`` makes the target's folder.
    ``follow_point`` says what a copy that follows has beside it, from where it was restored to and its descriptor.
    """

    force: bool = False
    replace_empty: bool = False
    create_folder: bool = False
    access: Access = field(default_factory=Access)
    progress: Progress = field(default_factory=_Silent)
    follow_point: Callable[[Point, int], bytes] | None = None


def check_target(path: Path, how: RestoreOptions = RestoreOptions()) -> None:
    """Refuse early what `restore` would refuse: UsageError: the file exists; RefusedError: it is a link, or in use."""
    with TargetFile(path, create_folder=how.create_folder) as target:
        target.check(force=how.force, replace_empty=how.replace_empty)


def restore_request(
    replica: Replica, request: RestoreRequest, path: Path, how: RestoreOptions = RestoreOptions()
) -> Restored:
    """Plan and restore, again if objects vanish meanwhile, and without what is damaged.

    Errors as of `planner.find_plan` and `restore`.
    """
    check_target(path, how)
    return with_plan(replica, request, lambda prepared: _restore(replica, prepared, path, how))


def restore(
    replica: Replica, plan: Plan, path: Path, *, force: bool = False, progress: Progress | None = None
) -> Restored:
    """Build the database that a resolved plan describes and put it at ``path``; with that base and no other.

    UsageError: the file exists. RefusedError: it is in use, there is no room, or no permission. CorruptError
    names the object that is damaged or missing.
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
        with target.building(_tag(replica, draft)) as descriptor:
            target.check_space(draft.space_bytes, descriptor=descriptor)
            applied = _build(replica, draft, descriptor, how.progress.advance)
            stamp = format_stamp(time.time_ns() // 1_000_000)
            point = how.follow_point(draft.plan.reached, descriptor) if how.follow_point else None
            moved = target.publish(descriptor, stamp=stamp, access=how.access, follow_point=point)
    return Restored(target.path, _noting(draft.plan, applied), applied, draft.size, tuple(moved))


def _noting(plan: Plan, applied: Applied) -> Plan:
    """The plan with a note for each damaged object that was not needed, unless one names it already."""
    names = [format_key(key) for key in applied.uncompared]
    unknown = [name for name in names if not any(name in note for note in plan.notes)]
    return replace(plan, notes=(*plan.notes, *(f"damaged, and not needed: {name}" for name in unknown)))


def _tag(replica: Replica, draft: BuildPlan) -> str:
    """Names a base of a replica: what a partial file has of it serves any later restore from it."""
    return hashlib.sha256(f"{replica.url} {draft.manifest.key}".encode()).hexdigest()[:8]


@dataclass(frozen=True, slots=True)
class BuildPlan:
    """What is going to be built: the plan's pieces, and the size in pages after the last one (0: the base's)."""

    plan: Plan
    manifest: Manifest
    pieces: tuple[ObjectSlice, ...]
    page_count: int

    @property
    def size(self) -> int:
        """Of the finished file, in bytes."""
        return self.page_count * self.manifest.page_size or self.manifest.file_size

    @property
    def space_bytes(self) -> int:
        """What building it takes: the base is written whole, even if the database shrank later."""
        return max(self.size, self.manifest.file_size)

    @property
    def work_bytes(self) -> int:
        """Raw bytes that are read."""
        frame_size = FRAME_HEADER_SIZE + self.manifest.page_size
        return self.manifest.file_size + sum(piece.frames for piece in self.pieces) * frame_size


def build_plan_of(replica: Replica, prepared: ResolvedPlan) -> BuildPlan:
    """What a plan makes; reads its last object. CorruptError names it."""
    pieces = tuple(pieces_of(prepared.plan))
    page_count = last_size(replica, pieces, prepared.manifest.page_size)
    return BuildPlan(prepared.plan, prepared.manifest, pieces, page_count)


def _build(replica: Replica, draft: BuildPlan, descriptor: int, advance: Advance) -> Applied:
    """The base, while the newest frames are read already; then those, while the base is on its way to the disk."""
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
            flushed.result()  # an error is told once only, to whoever asks first: no partial file may survive it
    os.ftruncate(descriptor, draft.size)
    return applied


def _missing(manifest: Manifest, descriptor: int) -> Sequence[Range]:
    """Without those that an interrupted restore has left."""
    return missing_ranges(manifest, descriptor) if os.fstat(descriptor).st_size else manifest.ranges
