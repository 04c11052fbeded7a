"""Tests of the queue of what is due, compared with a plain dictionary."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from walsyncd.engine.threads import due_queue
from walsyncd.engine.threads.due_queue import DueQueue

keys = st.integers(0, 5)
moments = st.integers(0, 20).map(float)


class Queues(RuleBasedStateMachine):
    """Does the same to the queue and to a dictionary, whose answers are obvious."""

    def __init__(self) -> None:
        super().__init__()
        self.queue: DueQueue[int] = DueQueue()
        self.plain: dict[int, float] = {}

    @rule(key=keys, when=moments)
    def put(self, key: int, when: float) -> None:
        is_first = self.queue.put(key, when)
        self.plain[key] = when
        assert not is_first or when == min(self.plain.values())

    @rule(key=keys, when=moments)
    def hasten(self, key: int, when: float) -> None:
        self.queue.hasten(key, when)
        self.plain[key] = min(when, self.plain.get(key, when))

    @rule(key=keys)
    def discard(self, key: int) -> None:
        self.queue.discard(key)
        self.plain.pop(key, None)

    @rule(now=moments)
    def pop(self, now: float) -> None:
        key = self.queue.pop(now)
        if key is None:
            assert all(when > now for when in self.plain.values())
        else:
            assert self.plain.pop(key) <= min([now, *self.plain.values()])

    @invariant()
    def they_agree(self) -> None:
        assert dict(self.queue.items()) == self.plain
        assert self.queue.first() == min(self.plain.values(), default=None)
        assert bool(self.queue) == bool(self.plain)


TestQueues = Queues.TestCase


@given(st.lists(keys, min_size=1, max_size=20, unique=True))
def test_what_is_due_together_comes_in_order(order: list[int]) -> None:
    """Entries of one moment come in the order in which they were put."""
    queue: DueQueue[int] = DueQueue()
    for key in order:
        queue.put(key, 1.0)
    assert [queue.pop(1.0) for _ in order] == order


def test_one_key_put_again_and_again_takes_no_room() -> None:
    """A busy database puts an entry at every look."""
    queue: DueQueue[str] = DueQueue()
    for number in range(10_000):
        queue.put("app", -float(number))
    assert len(queue._heap) <= due_queue.STALE_FACTOR + due_queue.STALE_MIN + 1
