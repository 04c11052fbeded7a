"""Crosses a WAL restart: takes what is left of the old incarnation, proves that it is complete, and continues.

1. Read what is left of the old incarnation after the cursor, before anything else: the new one grows over it. Look at
   the headers again: they show how far the new one had come by then.
2. Count the commits of the new incarnation, as far as the wal-index had published it at first.
3. Look at the headers again: the incarnation must still be the same.
4. Prove the restart by iChange if it can be used, else by what remains. The latter is possible only in the same boot,
   and only if the database file shows that the WAL was copied back whole before it restarted.
5. Ship the rest, and move the cursor before frame 1 of the new incarnation.

A CLOSE_WRITE on the wal-index may be that of a writer that was killed between the two copies of its header. Then the
counter was rebuilt from 0, and no event shows it. Let C be the count at the mark, T the commits that were made after it
in the old incarnation, R those of them that can be read, and N the commits of the new incarnation. The count asks for
as many commits as it has grown by, less N:

- never rebuilt: it is C + T + N and asks for T;
- rebuilt in the old incarnation, after B of the T: it is T - B + N and asks for T - B - C;
- rebuilt in the new one, after B of the N: it is N - B and asks for -B - C.

It is believed if it asks for R. So a rebuilt count is believed if C + B = T - R, that is, if exactly C + B commits are
hidden (or if C + B = 0 and R = 0 in the third case). They are hidden if they were overwritten, or if the first commit
after the restart has cut them off, since it cuts the file to the journal_size_limit. So any of these lets a count be
believed (``tail_is_complete``):

- **Nothing is hidden**, so T = R: an index read that shows all that the old incarnation ever held ends where the tail
  ends (``engine.follow.wal_pair``).
- **Nothing is hidden**, because a frame of a third incarnation directly follows the tail. So the file was not cut
  there, and our own frame, which comes before it, was not overwritten, hence none after ours was. A frame with the
  salts of neither incarnation is none of the old one's; one with zero salts could be (``broken_chain``). A tail that
  ends with the file shows nothing, because a journal_size_limit of exactly that many frames cuts there.
- **So many can't be hidden**: C commits have at least C frames, all of them after the tail. If the wal-index has no
  room for these, it would have grown, and that is an event (MODIFY) that makes the mark void.

The last two hold only if the new incarnation is the very next one, because the sums above leave out any in between. The
first holds in any case, because an incarnation in between that held a commit would also have been copied back.

A killed process loses its locks before its files are closed, so its CLOSE_WRITE may come after we have looked. If only
the absence of a CLOSE_WRITE supports a count, the proof is therefore provisional: one that comes soon after turns it
into a gap (``look``).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace

from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.decision import (
    CounterMark,
    Cursor,
    Observation,
    Restarted,
    broken_chain,
    cursor_before,
    salts_now,
)
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.core.follow.restart import (
    EMPTY_TALLY,
    CommitTally,
    RestartProof,
    prove_by_count,
    prove_by_remains,
    tail_is_complete,
)
from walsyncd.core.sqlite.wal import FRAME_HEADER_SIZE, Frames
from walsyncd.engine.follow.copy_frames import (
    close_epoch_if_due,
    finish_or_keep,
    new_collector,
    why_not_appendable,
)
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.step import AT_ONCE, Step


@dataclass(frozen=True, slots=True)
class _Remains:
    """What the WAL held of both incarnations: of the new one up to ``new_last``, of the old one after the cursor."""

    new: CommitTally
    new_last: int
    tail: CommitTally
    frames: list[Frames]
    behind: tuple[int, int] | None
    after_tail: Observation
    """What was seen after the rest of the old one was read."""


def cross_restart(
    reader: SourceReader, state: FollowState, cursor: Cursor, found: Restarted, seen: Observation
) -> Step:
    """Prove the restart between ``cursor``'s incarnation and the one found, and cross it."""
    reader.drop_pending()
    remains = _read_remains(reader, cursor, found)
    if salts_now(reader.observe()) != found.salts:
        return AT_ONCE
    if isinstance(remains, Gap):
        return Step(gap=remains)
    if salts_now(remains.after_tail) != found.salts:
        return AT_ONCE
    proof = _prove(reader, state, cursor, found, remains, seen=seen)
    if isinstance(proof, Gap):
        return Step(gap=proof)
    if fault := why_not_appendable(state.stream, cursor.header.page_size) if cursor.header is not None else None:
        return Step(gap=fault)
    return _cross(reader, state, cursor, found, proof, remains, seen)


def _read_remains(reader: SourceReader, cursor: Cursor, found: Restarted) -> _Remains | Gap:
    tail, kept = EMPTY_TALLY, list[Frames]()
    if cursor.header is not None and (found.last is None or found.last <= cursor.frames):
        bytes_max = reader.environment.limits.tail_bytes_max
        counter, size = reader.counter(cursor), 0
        for frames in reader.run(cursor, None):
            counter.feed(frames)
            kept.append(frames)
            size += len(frames.data)
            if size > bytes_max:
                text = "more than {mib} MiB of an old WAL were left when it restarted"
                return Gap.of(GapKind.OVERWRITTEN, text, mib=bytes_max >> 20)
        tail = counter.tally()
    after_tail = reader.observe_after_tail()
    new, new_last = EMPTY_TALLY, 0
    if found.header is not None:
        start = cursor_before(found.header)
        new_last = found.last if found.last is not None else reader.last_commit(start)
        counter, held = reader.counter(start), 0
        for frames in reader.run(start, new_last):
            counter.feed(frames)
            held = frames.last
        new = counter.tally()
        if held != new_last:
            return broken_chain(held + 1, new_last, new.next_salts, start.salts)
    if new_last > cursor.frames:
        tail, kept = EMPTY_TALLY, []
    behind = None
    if cursor.header is not None:
        behind = reader.salts_at(max(cursor.frames, new_last) + 1, cursor.header)
    return _Remains(new, new_last, tail, kept, behind, after_tail)


def _prove(
    reader: SourceReader,
    state: FollowState,
    cursor: Cursor,
    found: Restarted,
    remains: _Remains,
    *,
    seen: Observation,
) -> RestartProof | Gap:
    reached = _reached_by(reader, found, remains)
    index, mark = seen.index, reader.evidence.mark
    whole = mark is not None and _is_whole(reader, cursor, found, remains, mark)
    if index is not None and mark is not None and reader.ichange_holds(index, whole=whole):
        if not whole:
            reader.accept_provisionally()
        proof = prove_by_count(
            cursor,
            ichange_delta=(index.ichange - mark.ichange) % 2**32,
            new_salts=found.salts,
            new=remains.new,
            new_last=reached,
            tail=remains.tail,
            behind=remains.behind,
        )
        if isinstance(proof, RestartProof) and whole and reader.wal_pair.evidence(mark).closed:
            return replace(proof, by="count_tail")
        return proof
    if state.file.boot_id != reader.environment.boot_id:
        return Gap.of(GapKind.UNCERTAIN, "the WAL restarted across a reboot")
    proof = prove_by_remains(cursor, new_salts=found.salts, new_last=reached, tail=remains.tail)
    if isinstance(proof, RestartProof):
        return _not_written_back(reader, proof, found, remains) or proof
    return proof


def _is_whole(reader: SourceReader, cursor: Cursor, found: Restarted, remains: _Remains, mark: CounterMark) -> bool:
    wal_pair = reader.wal_pair
    return wal_pair.shm is not None and tail_is_complete(
        cursor,
        new_salts=found.salts,
        tail=remains.tail,
        stands=reader.still_holds(cursor),
        mark=mark,
        index_bytes=wal_pair.shm.size(),
        last_glances=wal_pair.index_reads.last(followed=found.header is not None),
    )


def _reached_by(reader: SourceReader, found: Restarted, remains: _Remains) -> int:
    """Return how far the new incarnation had come when the rest of the old one was read, or further."""
    new_last, index = remains.new_last, remains.after_tail.index
    if index is not None:
        return max(new_last, index.max_frame)
    return max(new_last, reader.last_commit(cursor_before(found.header))) if found.header is not None else new_last


def _not_written_back(reader: SourceReader, proof: RestartProof, found: Restarted, remains: _Remains) -> Gap | None:
    """Return a gap for the first page of the tail that was not copied back, or None if all of them were.

    A WAL is copied back whole before it restarts, so such a page belongs to a commit that failed.
    """
    wanted, page_size = _last_versions(remains.frames, proof.last)
    if found.header is not None:
        for frames in reader.run(cursor_before(found.header), remains.new_last):
            for page in frames.page_numbers.tolist():
                wanted.pop(page, None)
    database = reader.tracked.open()
    if database is None:
        return Gap.of(GapKind.REPLACED, "the database file is gone")
    with database:
        for page, digest in wanted.items():
            if hashlib.sha256(database.pread((page - 1) * page_size, page_size)).digest() != digest:
                text = "page {page} of the old WAL's last transactions is not in the database: a commit failed"
                return Gap.of(GapKind.UNCERTAIN, text, page=page)
    return None


def _last_versions(tail: list[Frames], last: int) -> tuple[dict[int, bytes], int]:
    """Return the page size, and the digest of each page's last version up to frame ``last``.

    Only pages that the last commit keeps are in it.
    """
    versions: dict[int, bytes] = {}
    page_size, page_count = 0, 0
    for frames in tail:
        size = len(frames.data) // frames.count if frames.count else 0
        for row in range(min(frames.count, last - frames.first + 1)):
            page_size = size - FRAME_HEADER_SIZE
            content = frames.data[row * size + FRAME_HEADER_SIZE : (row + 1) * size]
            versions[int(frames.page_numbers[row])] = hashlib.sha256(content).digest()
            page_count = int(frames.sizes[row]) or page_count
    return {page: digest for page, digest in versions.items() if page <= page_count}, page_size


def _cross(
    reader: SourceReader,
    state: FollowState,
    cursor: Cursor,
    found: Restarted,
    proof: RestartProof,
    remains: _Remains,
    seen: Observation,
) -> Step:
    """Take the proven tail, and move the cursor before the first frame of the new incarnation."""
    entered = cursor_before(found.header) if found.header is not None else Cursor(found.salts, None, 0, (0, 0))
    if proof.by == "count" and not reader.tracked.was_deferred:
        reader.read_ahead(entered)
    objects: tuple[NewObject, ...] = ()
    if proof.last > cursor.frames:
        state = close_epoch_if_due(reader, state, cursor)
        collector = new_collector(reader, state.stream, cursor)
        size = 0
        for frames in remains.frames:
            if frames.count and frames.first <= proof.last:
                collector.add(frames.upto(min(proof.last, frames.last)))
                size += len(frames.data)
        objects, stream = finish_or_keep(reader, collector, size)
        state = replace(state, stream=stream)
    if seen.index is not None:
        reader.index_read(seen.index)  # an emptied WAL may begin again, with any salts, before the next look
    reader.note(mark=_mark_at_start(reader, remains.new, seen))
    return Step(
        state=replace(state.entered(entered), file=reader.facts()),
        objects=objects,
        again_s=0,
        recovered=proof.last - cursor.frames,
        proven_by=proof.by,
    )


def _mark_at_start(reader: SourceReader, new: CommitTally, seen: Observation) -> CounterMark | None:
    """Return the mark before frame 1 of the new incarnation. The old mark is at the old cursor."""
    old = reader.evidence.mark
    if seen.index is None or new.doubtful:
        return None
    ichange = (seen.index.ichange - len(new.commits)) % 2**32
    mark = reader.new_mark(ichange)
    return mark if mark is not None or old is None else replace(old, ichange=ichange)
