"""Whether a write to the database was a checkpoint."""

from __future__ import annotations

from walsyncd.core.follow.checkpoint_evidence import LOOKS_MAX, CheckpointEvidence

NONE, SOME, ALL = b"salts000", b"salts004", b"salts009"


def looked(evidence: CheckpointEvidence, reading: bytes | None, *, is_busy: bool = False) -> bool:
    """Do as many looks as a doubt takes. Return whether the write is not doubted."""
    looks = [evidence.explain(reading, is_busy=is_busy, now_ms=10 * number) for number in range(1, LOOKS_MAX + 2)]
    return all(looks)


def test_a_checkpoint_moves_what_the_index_showed_before() -> None:
    """A checkpoint that moved what the wal-index showed before explains the write, and nothing waits any longer."""
    evidence = CheckpointEvidence()
    evidence.read(1, NONE)
    evidence.written(3, has_index=True)
    assert evidence.waits
    assert evidence.explain(ALL, is_busy=False, now_ms=1)
    assert not evidence.waits


def test_a_write_that_moves_nothing_is_doubted() -> None:
    """The doubt comes only after some looks, because a checkpoint stores its end after its writes."""
    evidence = CheckpointEvidence()
    evidence.read(1, NONE)
    evidence.written(3, has_index=True)
    for number in range(1, LOOKS_MAX + 1):
        assert evidence.explain(NONE, is_busy=False, now_ms=10 * number)
    assert not evidence.explain(NONE, is_busy=False, now_ms=100)


def test_looks_at_one_moment_are_one() -> None:
    """A process may just be waiting for a processor, so looks at one moment count once."""
    evidence = CheckpointEvidence()
    evidence.read(1, NONE)
    evidence.written(3, has_index=True)
    assert all(evidence.explain(NONE, is_busy=False, now_ms=1) for _ in range(10))


def test_the_header_after_the_last_drain_is_no_comparison() -> None:
    """The header that was read after the last drain may already hold the end of the checkpoint whose last write is
    reported only now.
    """
    evidence = CheckpointEvidence()
    evidence.read(1, NONE)
    evidence.written(2, has_index=True)  # page 1 of the checkpoint; the header was read after its end
    evidence.read(2, ALL)
    evidence.written(3, has_index=True)  # page 2
    assert looked(evidence, ALL)


def test_the_header_before_the_last_drain_is() -> None:
    """The header from before the last drain is the one to compare: what happened since then was written later."""
    evidence = CheckpointEvidence()
    evidence.read(1, NONE)
    evidence.read(4, ALL)
    evidence.written(6, has_index=True)
    assert not looked(evidence, ALL)


def test_a_long_checkpoint_is_waited_for() -> None:
    """A checkpoint is waited for while it holds its lock, or the database exclusively.

    It is doubted if it ends without a trace.
    """
    evidence = CheckpointEvidence()
    evidence.read(1, NONE)
    evidence.written(3, has_index=True)
    assert looked(evidence, NONE, is_busy=True)
    assert evidence.waits
    assert not looked(evidence, NONE)


def test_without_an_index_a_lock_is_the_evidence() -> None:
    """Without a wal-index only a lock can be evidence. If no lock was seen, the write is doubted."""
    locked, free = CheckpointEvidence(), CheckpointEvidence()
    for evidence in (locked, free):
        evidence.written(3, has_index=False)
    assert looked(locked, None, is_busy=True)
    assert not locked.waits
    assert not looked(free, None)


def test_an_index_that_is_gone_explains_nothing() -> None:
    """A wal-index that was there when the write came, and is gone now, explains nothing."""
    evidence = CheckpointEvidence()
    evidence.read(1, NONE)
    evidence.written(3, has_index=True)
    assert not looked(evidence, None)


def test_nothing_is_compared_before_there_is_anything() -> None:
    """Nothing is compared at the beginning, or after events were lost."""
    evidence = CheckpointEvidence()
    evidence.written(1, has_index=True)
    assert not evidence.waits
    evidence.read(1, NONE)
    evidence.written(5, has_index=True)
    evidence.forget()
    evidence.written(6, has_index=True)
    assert not evidence.waits


def test_a_later_write_is_compared_with_what_explained_the_earlier() -> None:
    """The first write was a checkpoint. The second is compared with that state, and nothing explains it."""
    evidence = CheckpointEvidence()
    evidence.read(1, NONE)
    evidence.written(3, has_index=True)
    evidence.read(4, SOME)
    evidence.written(7, has_index=True)
    assert not looked(evidence, SOME)
