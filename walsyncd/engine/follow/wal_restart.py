"""Crosses a WAL restart: takes what is left of the old incarnation, proves that it is complete, and continues.

1. Read what is left of the old incarnation after the cursor, before anything else, because the new incarnation
   overwrites it. Look at the headers again: they show how far the new incarnation had come by then.
2. Count the commits of the new incarnation, as far as the wal-index had published it at first.
3. Look at the headers again: the incarnation must still be the same.
4. Take what shows whether iChange can be used. It is taken after everything else, because events only make it weaker.
5. Prove the restart by iChange if it can be used, else by what remains. The proof by what remains is possible only in
   the same boot, and only if the database file, which is read now, shows that the whole WAL was copied back before it
   restarted.
6. Ship the rest, and move the cursor before frame 1 of the new incarnation.

Each of these readings becomes one value, and ``core.follow.restart_seen`` decides on these values alone.

A CLOSE_WRITE on the wal-index may come from a writer that was killed between writing the two copies of the header. Then
the counter was rebuilt from 0, and no event shows that. Let C be the count at the mark, T the commits that were made
after the mark in the old incarnation, R those of the T that can be read, and N the commits of the new incarnation. The
count asks for as many commits as it has grown by, less N:

- never rebuilt: it is C + T + N and asks for T;
- rebuilt in the old incarnation, after B of the T: it is T - B + N and asks for T - B - C;
- rebuilt in the new one, after B of the N: it is N - B and asks for -B - C.

A count is believed if it asks for R. So a rebuilt count is believed if C + B = T - R: then exactly C + B commits are
hidden (or if C + B = 0 and R = 0 in the third case). They are hidden if they were overwritten, or if the first commit
after the restart has cut them off, since it cuts the file to the journal_size_limit. So any of these lets a count be
believed (``tail_is_complete``):

- **Nothing is hidden**, so T = R: an index read that shows all that the old incarnation ever held ends where the tail
  ends (``engine.follow.wal_pair``).
- **Nothing is hidden**, because a frame of a third incarnation directly follows the tail. So the file was not cut
  there. Our own frame, which comes before the cut, was not overwritten, so no frame after ours was. A frame with the
  salts of neither incarnation does not belong to the old one; a frame with zero salts could (``broken_chain``). A tail
  that ends with the file shows nothing, because a journal_size_limit of exactly that many frames cuts there.
- **So many can't be hidden**: C commits have at least C frames, all of them after the tail. If the wal-index has no
  room for these, it would have grown, and that is an event (MODIFY) that makes the mark void.

The last two hold only if the new incarnation is the very next one, because the sums above leave out the commits of any
incarnation in between. The first holds in any case, because an incarnation in between that held a commit would also
have been copied back.

A killed process loses its locks before its files are closed, so its CLOSE_WRITE may come after we have looked. If only
the absence of a CLOSE_WRITE supports a count, the proof is therefore provisional: a CLOSE_WRITE that comes soon after
turns the proof into a gap (``look``).
"""

from __future__ import annotations

import hashlib
from dataclasses import replace

from walsyncd.adapters.journal.journal import NewObject
from walsyncd.core.follow.decision import (
    Again,
    CounterMark,
    Cursor,
    Observation,
    Restarted,
    cursor_before,
)
from walsyncd.core.follow.follow_state import FollowState
from walsyncd.core.follow.gap import Gap
from walsyncd.core.follow.restart import EMPTY_TALLY, RestartProof
from walsyncd.core.follow.restart_seen import (
    NewFrames,
    OldTail,
    PagesWanted,
    RestartRead,
    RestartSeen,
    TailEvidence,
    prove_copied_back,
    prove_restart,
    settle_restart,
)
from walsyncd.core.sqlite.wal import Frames, Salts
from walsyncd.engine.follow.copy_frames import (
    close_epoch_if_due,
    finish_or_keep,
    new_collector,
    why_not_appendable,
)
from walsyncd.engine.follow.source_reader import SourceReader
from walsyncd.engine.follow.step import AT_ONCE, Step


def cross_restart(
    reader: SourceReader, state: FollowState, cursor: Cursor, found: Restarted, seen: Observation
) -> Step:
    """Prove the restart between ``cursor``'s incarnation and the one found, and cross it."""
    reader.drop_pending()
    read = _read(reader, cursor, found, seen)
    match settle_restart(read):
        case Again():
            return AT_ONCE
        case Gap() as gap:
            return Step(gap=gap)
    proof = prove_restart(_see(reader, state, read))
    if isinstance(proof, PagesWanted):
        proof = _look_into_database(reader, read, proof)
    if isinstance(proof, Gap):
        return Step(gap=proof)
    if fault := why_not_appendable(state.stream, cursor.header.page_size) if cursor.header is not None else None:
        return Step(gap=fault)
    return _cross(reader, state, read, proof)


def _read(reader: SourceReader, cursor: Cursor, found: Restarted, seen: Observation) -> RestartRead:
    """Read what the WAL holds of both incarnations, the old one first."""
    old = _read_tail(reader, cursor, found)
    if old.is_too_long:
        return RestartRead(cursor, found, seen, old, None, NewFrames(), None, reader.observe())
    after_tail = reader.observe_after_tail()
    new = _read_new(reader, found)
    behind = _salts_behind(reader, cursor, new)
    return RestartRead(cursor, found, seen, old, after_tail, new, behind, reader.observe())


def _read_tail(reader: SourceReader, cursor: Cursor, found: Restarted) -> OldTail:
    bytes_max = reader.environment.limits.tail_bytes_max
    if cursor.header is None or (found.last is not None and found.last > cursor.frames):
        return OldTail((), EMPTY_TALLY, bytes_max)
    counter, kept, size = reader.counter(cursor), list[Frames](), 0
    for frames in reader.run(cursor, None):
        counter.feed(frames)
        kept.append(frames)
        size += len(frames.data)
        if size > bytes_max:
            break
    return OldTail(tuple(kept), counter.tally(), bytes_max)


def _read_new(reader: SourceReader, found: Restarted) -> NewFrames:
    if found.header is None:
        return NewFrames()
    start = cursor_before(found.header)
    last = found.last if found.last is not None else reader.last_commit(start)
    counter, held = reader.counter(start), 0
    for frames in reader.run(start, last):
        counter.feed(frames)
        held = frames.last
    return NewFrames(last, held, counter.tally())


def _salts_behind(reader: SourceReader, cursor: Cursor, new: NewFrames) -> Salts | None:
    if cursor.header is None or new.held != new.last:
        return None
    return reader.salts_at(max(cursor.frames, new.last) + 1, cursor.header)


def _see(reader: SourceReader, state: FollowState, read: RestartRead) -> RestartSeen:
    """Add what shows whether the counter may be used, and how far the new incarnation had come."""
    header, after_tail, searched = read.found.header, read.after_tail, 0
    if header is not None and (after_tail is None or after_tail.index is None):
        searched = reader.last_commit(cursor_before(header))
    tail, wal_pair = None, reader.wal_pair
    if reader.evidence.mark is not None and wal_pair.shm is not None:
        stands = reader.still_holds(read.cursor)
        tail = TailEvidence(stands, wal_pair.shm.size(), wal_pair.index_reads.last(followed=header is not None))
    is_same_boot = state.file.boot_id == reader.environment.boot_id
    return RestartSeen(read, searched, tail, reader.counter_evidence(), is_same_boot)


def _look_into_database(reader: SourceReader, read: RestartRead, wanted: PagesWanted) -> RestartProof | Gap:
    """Read the pages of the tail that the new incarnation does not have."""
    if read.found.header is not None:
        newer = set[int]()
        for frames in reader.run(cursor_before(read.found.header), read.new.last):
            newer.update(frames.page_numbers.tolist())
        wanted = wanted.without(newer)
    database = reader.tracked.open()
    if database is None:
        return prove_copied_back(wanted, None)
    size, held = wanted.page_size, dict[int, bytes]()
    with database:
        for page in wanted.digests:
            held[page] = hashlib.sha256(database.pread((page - 1) * size, size)).digest()
    return prove_copied_back(wanted, held)


def _cross(reader: SourceReader, state: FollowState, read: RestartRead, proof: RestartProof) -> Step:
    """Take the proven tail, and move the cursor before the first frame of the new incarnation."""
    cursor, found, index = read.cursor, read.found, read.before.index
    if proof.is_provisional:
        reader.accept_provisionally()
    entered = cursor_before(found.header) if found.header is not None else Cursor(found.salts, None, 0, (0, 0))
    if proof.by == "count" and not reader.tracked.was_deferred:
        reader.read_ahead(entered)
    objects: tuple[NewObject, ...] = ()
    if proof.last > cursor.frames:
        state = close_epoch_if_due(reader, state, cursor)
        collector = new_collector(reader, state.stream, cursor)
        size = 0
        for frames in read.old.frames:
            if frames.count and frames.first <= proof.last:
                collector.add(frames.upto(min(proof.last, frames.last)))
                size += len(frames.data)
        objects, stream = finish_or_keep(reader, collector, size)
        state = replace(state, stream=stream)
    if index is not None:
        reader.index_read(index)  # an emptied WAL may begin again, with any salts, before the next look
    reader.note(mark=_mark_at_start(reader, read))
    return Step(
        state=replace(state.entered(entered), file=reader.facts()),
        objects=objects,
        again_s=0,
        recovered=proof.last - cursor.frames,
        proven_by=proof.by,
    )


def _mark_at_start(reader: SourceReader, read: RestartRead) -> CounterMark | None:
    """Return the mark before frame 1 of the new incarnation. The old mark is at the old cursor."""
    old, index, new = reader.evidence.mark, read.before.index, read.new.tally
    if index is None or new.doubtful:
        return None
    ichange = (index.ichange - len(new.commits)) % 2**32
    mark = reader.new_mark(ichange)
    return mark if mark is not None or old is None else replace(old, ichange=ichange)
