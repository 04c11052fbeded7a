"""Compares the objects that a restore leaves out with those that it applies, where both hold the same frames.

A compacted epoch and its segments hold the same frames, and so do objects that were written twice. A restore applies
only one of these objects, which is right only if they agree. Two daemons that write to one folder leave two histories
in one epoch, and so does a machine that was set back. The two histories may even end at the same frame.

The chain after a frame covers every frame of the epoch up to there, so it is enough to compare one chain. This is the
chain at the end of the object that is left out. If that object continues after the last frame that is restored, the
chain after the last restored frame is compared.

The end of an object has the chain after its last frame, so the rest of the object is not read. Ends are read while the
restore runs, and only if an object is left out. An object that was deleted in the meantime is not compared. A damaged
object is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from walsyncd.core.restore.coverage import FramesKey
from walsyncd.core.restore.plan import Plan
from walsyncd.core.sqlite.checksum import Chain
from walsyncd.core.sqlite.wal import Frames
from walsyncd.core.stored.layout import format_key
from walsyncd.engine.restore.commit_times import end_trailer
from walsyncd.engine.restore.epoch_reader import EpochReader
from walsyncd.engine.restore.replica import Replica
from walsyncd.errors import CorruptError, ForkError, VanishedError

READERS = 3  # objects whose ends are read at the same time

Place = tuple[int, int]  # epoch, frame


@dataclass(frozen=True, slots=True)
class LeftOut:
    """An object that is not applied, and the frame after which its chain is compared."""

    key: FramesKey
    frame: int


def left_out(plan: Plan) -> list[LeftOut]:
    """Return the objects that a resolved plan leaves out although they hold frames that it applies."""
    stop = plan.reached.position
    found = []
    for epoch in plan.epochs:
        if epoch.epoch <= stop.epoch:
            last = min(epoch.last, stop.frame) if epoch.epoch == stop.epoch else epoch.last
            found += [LeftOut(key, min(key.last, last)) for key in epoch.others if key.first <= last]
    return found


class ForkCheck:
    """Compares the objects that are left out. Their ends are read in the background until ``close``."""

    def __init__(self, replica: Replica, others: Sequence[LeftOut], page_size: int) -> None:
        self._replica = replica
        self._page_size = page_size
        self._places: dict[int, set[int]] = {}
        self._applied: dict[Place, tuple[Chain, FramesKey]] = {}
        self._pool: ThreadPoolExecutor | None = None
        for each in others:
            self._places.setdefault(each.key.epoch, set()).add(each.frame)
        self._others = [(each.key, each.frame, self._submit(each.key, each.frame)) for each in others]

    def close(self) -> None:
        """Stop reading."""
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def applied(self, key: FramesKey, frames: Frames, start: Chain, *, after: int) -> None:
        """Note the chains that are to be compared in a batch of an object that is applied. Any thread may call this.

        Only frames after ``after`` count.
        """
        for frame in self._places.get(key.epoch, ()):
            if max(frames.first, after + 1) <= frame <= frames.last:
                self._applied[key.epoch, frame] = frames.chain_after(frame, start), key

    def check(self) -> tuple[FramesKey, ...]:
        """Compare after everything was applied. Returns the objects that are damaged.

        Raises ForkError, which names two objects that disagree.
        """
        damaged = []
        for key, frame, future in self._others:
            found = self._applied.get((key.epoch, frame))
            if found is None:  # the frame is in the epoch of the base, before the first frame that is applied
                continue
            chain, applied = found
            try:
                other = future.result()
            except VanishedError:
                continue
            except CorruptError:
                damaged.append(key)
                continue
            if other != chain:
                raise ForkError(
                    f"{format_key(key)}: up to frame {frame} of epoch {key.epoch} it holds another history than "
                    f"{format_key(applied)}",
                    hint="two daemons wrote here, or a machine was set back; `walsyncd verify` names all that disagree",
                )
        return tuple(damaged)

    def _submit(self, key: FramesKey, frame: int) -> Future[Chain]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(READERS, thread_name_prefix="forks")
        return self._pool.submit(self._chain_of, key, frame)

    def _chain_of(self, key: FramesKey, frame: int) -> Chain:
        if frame == key.last:
            trailer = end_trailer(self._replica, key)
            if trailer is not None and (trailer.epoch, trailer.last) == (key.epoch, frame):
                return trailer.after
        reader = EpochReader(self._replica, key.epoch, self._page_size)
        for _ in reader.read(key, upto=frame):
            pass
        return reader.chain
