"""Simulates years of a database: commits, bases, epochs, generations, compaction, pruning, a wrong clock.

``CopyContext`` holds what is stored and also what would be stored if nothing were ever removed. Time passes in the
store's clock. The clock for the times in keys differs from it by ``skew_ms``.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from hypothesis import strategies as st

from walsyncd.core.keep.retention import DAY_MS, HOUR_MS, HeldObject, Policy, Pruning, decide
from walsyncd.core.restore.coverage import Listing, listing_of
from walsyncd.core.restore.plan import AtPosition, Plan, make_plan
from walsyncd.core.stored.layout import BaseKey, Key, ManifestKey, SegmentKey, WholeKey
from walsyncd.core.stored.position import Position

T0 = 1_795_344_960_000
POLICY = Policy(7 * DAY_MS)


@dataclass
class CopyContext:
    """One database. ``truth`` has every state that was stored (by a commit or a base), and when."""

    now_ms: int = T0
    skew_ms: int = 0
    stored: dict[Key, HeldObject] = field(default_factory=dict)
    everything: dict[Key, HeldObject] = field(default_factory=dict)
    truth: list[tuple[int, Position]] = field(default_factory=list)
    number: int = 0
    epoch: int = 1
    frame: int = 0
    previous: int = 0
    seen_ms: int = 0
    whole_ms: dict[tuple[str, int], int] = field(default_factory=dict)
    bases: int = 0

    @property
    def generation(self) -> str:
        return f"20261122T105600Z-{self.number:08x}"

    def store(self, key: Key) -> None:
        self.stored[key] = self.everything[key] = HeldObject(key, self.now_ms, 1)

    def stamp(self) -> int:
        self.seen_ms = max(self.seen_ms, self.now_ms + self.skew_ms)
        return self.seen_ms

    def commit(self, frames: int = 1) -> None:
        first, self.frame = self.frame + 1, self.frame + frames
        previous = self.previous if first == 1 else None
        self.store(SegmentKey(self.generation, self.epoch, first, self.frame, self.stamp(), previous))
        self.truth.append((self.now_ms, Position(self.generation, self.epoch, self.frame)))

    def base(self, *, finished: bool = True, start: int | None = None) -> None:
        if not self.frame and self.epoch > 1:
            self.commit()  # frames with which an epoch begins
        self.bases += 1
        key = BaseKey(self.generation, self.epoch, min(start or 0, self.frame), f"{self.bases:08x}")
        self.store(key)
        if finished:
            self.store(ManifestKey(key, self.epoch, self.frame, self.stamp()))
            self.truth.append((self.now_ms, Position(self.generation, self.epoch, self.frame)))

    def close(self) -> None:
        if self.frame:
            self.epoch, self.previous, self.frame = self.epoch + 1, self.frame, 0

    def begin(self) -> None:
        self.number, self.epoch, self.frame, self.previous = self.number + 1, 1, 0, 0

    def compact(self) -> None:
        """Make every closed epoch one object. Its segments are deleted an hour later, at the next call."""
        by_epoch: dict[tuple[str, int], list[SegmentKey]] = {}
        for key in self.stored:
            if isinstance(key, SegmentKey) and (key.generation, key.epoch) != (self.generation, self.epoch):
                by_epoch.setdefault((key.generation, key.epoch), []).append(key)
        for (generation, epoch), keys in by_epoch.items():
            keys.sort()
            if keys[0].previous is None:
                continue
            if (generation, epoch) not in self.whole_ms:
                last = keys[-1]
                self.store(WholeKey(generation, epoch, last.last, last.time_ms, keys[0].previous))
                self.whole_ms[generation, epoch] = self.now_ms
            elif self.now_ms - self.whole_ms[generation, epoch] > HOUR_MS:
                for key in keys:
                    del self.stored[key]

    def decide(self, policy: Policy = POLICY, *, proven: frozenset[ManifestKey] = frozenset()) -> Pruning:
        return decide(self.stored.values(), policy, now_ms=self.now_ms, proven=proven)

    def prune(self, pruning: Pruning, *, upto: int | None = None) -> Iterator[None]:
        """Prune. Yields at every point where it can be killed, up to point ``upto``."""
        for statement in pruning.statements:
            self.stored[statement] = HeldObject(statement, self.now_ms, 0)
            yield
        for step in pruning.steps:
            for key in step:
                self.stored.pop(key, None)
                yield

    def listing(self, *, whole: bool = False) -> Listing:
        return listing_of(self.everything if whole else self.stored)

    def plan(self, position: Position, *, whole: bool = False) -> Plan | None:
        plan = make_plan(self.listing(whole=whole), AtPosition(position))
        return plan if isinstance(plan, Plan) else None

    def promised(self, policy: Policy = POLICY) -> list[Position]:
        """Return what must be restorable: the transactions of the span, and the one that was newest when it began."""
        begin_ms = self.now_ms - policy.retention_ms
        inside = [position for stored_ms, position in self.truth if stored_ms > begin_ms]
        before = [position for stored_ms, position in self.truth if stored_ms <= begin_ms]
        return [position for position in (*before[-1:], *inside) if self.plan(position, whole=True)]

    def broken(self, policy: Policy = POLICY) -> list[Position]:
        """Return the promises that are not kept."""
        return [position for position in self.promised(policy) if not self.plan(position)]


OPERATIONS = st.sampled_from(
    ["commit", "commit", "commit", "base", "base", "close", "close", "unfinished", "begin", "compact", "clock"]
)


def live(world: CopyContext, operation: str, draw: st.DataObject) -> None:
    """Let one thing happen."""
    match operation:
        case "commit":
            world.commit(draw.draw(st.integers(1, 3)))
        case "base":
            world.base(start=draw.draw(st.integers(0, 3)))
        case "unfinished":
            world.base(finished=False)
        case "close":
            world.close()
        case "begin":
            world.begin()
        case "compact":
            world.compact()
        case "clock":
            world.skew_ms = draw.draw(st.integers(-400, 400)) * DAY_MS


def copied(world: CopyContext) -> None:
    """Copy the bucket to another one, in which every object is as young as the copy."""
    world.stored = {key: replace(held, modified_ms=world.now_ms) for key, held in world.stored.items()}
