"""Makes the manifest of a stored base. That is the last step of a base, and makes the base valid."""

from __future__ import annotations

from walsyncd.adapters.journal.journal import GenerationRow, NewObject, ObjectKind
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.stored.layout import BaseKey, ManifestKey, format_key, parse_key
from walsyncd.core.stored.manifest import Manifest, format_manifest
from walsyncd.engine.base.base_copy import FinishedBase
from walsyncd.engine.follow.file_facts import page_size_of
from walsyncd.engine.follow.followed_database import FollowedDatabase

DEFAULT_PAGE_SIZE = 4096


def manifest_object(
    tracked: FollowedDatabase, base: FinishedBase, state: FollowState, generation: GenerationRow, *, now_ms: int
) -> NewObject:
    """Return the manifest of ``base``, which is consistent from the position of ``state`` on."""
    plan, stream = base.plan, state.stream
    position = stream.position
    key = parse_key(base.row.key)
    assert isinstance(key, BaseKey), "a base has a base's key"
    # If the generation has no commit yet, or only bases store changes, the base shows the database as it is now.
    has_commits = stream.frame > 0 or (state.mode != "rollback" and stream.epoch > 1)
    time_ms = stream.time_ms if has_commits else max(stream.time_ms, now_ms)
    manifest = Manifest(
        database=tracked.name,
        generation=plan.generation,
        predecessor=generation.predecessor or "",
        predecessor_end=generation.reason_begun if generation.predecessor else "",
        page_size=page_size_of(tracked, state) or DEFAULT_PAGE_SIZE,
        file_size=plan.shape.file_size,
        key=base.row.key,
        size=base.size,
        etag=base.etag,
        start=plan.start,
        consistent_from=position,
        time_ms=time_ms,
        ranges=base.ranges,
    )
    return NewObject(
        kind=ObjectKind.MANIFEST,
        key=format_key(ManifestKey(key, position.epoch, position.frame, time_ms)),
        body=format_manifest(manifest),
        epoch=position.epoch,
        first=position.frame,
        last=position.frame,
        time_ms=time_ms,
        generation=plan.generation,
    )
