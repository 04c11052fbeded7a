"""Restores what a replica holds, at its head and at random positions, and judges each copy."""

from __future__ import annotations

import hashlib
import random
import sqlite3
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.e2e.comparison import differing_pages, file_of
from tests.torture.ledger import Standing, UnsoundError, standing_of
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.restore.plan import AtPosition, Head
from walsyncd.core.stored.layout import SegmentKey, WholeKey, format_key
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.segment import Trailer, decode_body
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import find_plan, restore
from walsyncd.errors import TargetError, WalsyncdError

EXACT_SAMPLES = 4  # positions that were restored before, which are restored again in each pause
BRIDGE_SAMPLES = 6  # positions inside bridges that are requested in each pause


@dataclass(slots=True)
class Verdicts:
    """The comparisons so far. ``wrong`` has a sentence for each restore that is wrong."""

    heads: int = 0
    positions: int = 0
    exact: int = 0
    """Positions that were restored again, byte for byte as the database was."""
    refused: int = 0
    """Positions inside bridges, which can't be restored."""
    wrong: list[str] = field(default_factory=list)
    unsound_sources: list[str] = field(default_factory=list)


class Judge:
    """Judges the replica of one database. The applications must be still, and everything must be stored."""

    def __init__(self, database: Path, oracle: Path, replica: Path, scratch: Path, chance: random.Random) -> None:
        self._database = database
        self._oracle = oracle
        self._replica = Replica(DirectoryStorage(replica), database.stem)
        self._scratch = scratch / f"{database.stem}-restored.db"
        self._chance = chance
        self._before = b""
        self._known: set[bytes] = {b""}  # the chain of each state that the database had
        self._files: set[bytes] = set()  # the digests of files that an administrator made, sound or not
        self._exact: dict[Position, bytes] = {}
        self._promised_from: int | None = None  # an administrator's act took back the promises before this
        self.verdicts = Verdicts()

    def look(self) -> None:
        """Note what is committed before all of it is stored.

        A transaction whose writer was killed before publishing it does not count while the wal-index is in use, and
        counts once nobody uses that any more. Presence decides this, so the head may be the earlier state or the
        present one.
        """
        self._before = file_of(self._database)

    def judge(self, samples: int) -> None:
        """Judge the head, then ``samples`` positions of all generations."""
        live = self._live()
        if live is None:
            return
        self._judge_head(live)
        self._judge_exact()
        self._judge_bridges()
        before: tuple[Position, int] | None = None
        for position in sorted(self._sampled(samples)):
            standing = self._restored(position)
            if standing is None:
                continue
            if self._promised_from is not None:  # there are several histories
                if standing.chains[-1] not in self._known:
                    self._wrong(position, f"its transaction {standing.n} was never committed")
                continue
            if standing.n > live.n or standing.chains != live.chains[: standing.n + 1]:
                self._wrong(position, f"its transaction {standing.n} is not the one that was committed")
            if before is not None and standing.n < before[1]:
                self._wrong(position, f"it has {standing.n} transactions, {before[0]} has {before[1]}")
            before = position, standing.n

    def administered(self) -> bytes | None:
        """Note what the database is while somebody changes its files. Return its content, or None if it is not sound.

        From now on it must have only what the applications are told from here on.
        """
        self._promised_from = self._oracle.stat().st_size if self._oracle.exists() else 0
        try:
            content = file_of(self._database)
        except (sqlite3.DatabaseError, OSError):
            return None
        self._files.add(hashlib.sha256(content).digest())
        copy = self._scratch.with_name(f"{self._database.stem}-administered.db")
        copy.write_bytes(content)
        try:
            self._known.update(standing_of(copy).chains)
        except UnsoundError:
            return None
        return content

    def _live(self) -> Standing | None:
        """Return the live database with its WAL, or None if SQLite itself damaged it, so that nothing can be judged."""
        copy = self._scratch.with_name(f"{self._database.stem}-live.db")
        copy.write_bytes(file_of(self._database))
        try:
            live = standing_of(copy)
        except UnsoundError as error:
            self.verdicts.unsound_sources.append(f"{self._database.name}: {error}")
            return None
        self._known.update(live.chains)
        self._known.update(chain for _, chain in self._promised(0))
        for number, chain in self._promised(self._promised_from or 0):
            if number > live.n or live.chains[number] != chain:
                self.verdicts.unsound_sources.append(f"{self._database.name}: transaction {number} is lost")
                return None
        return live

    def _promised(self, offset: int) -> Iterator[tuple[int, bytes]]:
        """Return what the applications were told is committed, from there on. A kill may have cut the last line."""
        text = self._oracle.read_text()[offset:] if self._oracle.exists() else ""
        for line in text.rpartition("\n")[0].splitlines():
            number, _, chain = line.partition(" ")
            yield int(number), bytes.fromhex(chain)

    def _judge_head(self, live: Standing) -> None:
        standing = self._restored(None)
        if standing is None:
            return
        if self._scratch.read_bytes() == self._before:
            return
        if standing != live:
            promised = max((number for number, _ in self._promised(self._promised_from or 0)), default=0)
            told = f"the applications were told of {promised}"
            self._wrong(None, f"the head has {standing.n} transactions, the database {live.n}, {told}")
        pages = differing_pages(self._scratch, self._database)
        if pages:
            self._wrong(None, f"{len(pages)} pages of the head are not the database's: {pages[:10]} …")

    def _restored(self, position: Position | None) -> Standing | None:
        try:
            plan = find_plan(self._replica, Head() if position is None else AtPosition(position))
            restore(self._replica, plan, self._scratch, force=True)
            standing = standing_of(self._scratch)
        except UnsoundError as error:
            if position is None or self._digest() not in self._files:  # otherwise an administrator made it like this
                self._wrong(position, str(error))
            return None
        except WalsyncdError as error:
            self._wrong(position, str(error))
            return None
        if position is None:
            self.verdicts.heads += 1
            self._exact[plan.reached.position] = self._digest()
        else:
            self.verdicts.positions += 1
        return standing

    def _judge_exact(self) -> None:
        """A position that was the head in an earlier pause is still the same to the byte, whatever was
        bridged since.
        """
        for position in self._chance.sample(sorted(self._exact), min(EXACT_SAMPLES, len(self._exact))):
            if self._restored(position) is None:
                continue
            self.verdicts.exact += 1
            if self._digest() != self._exact[position]:
                self._wrong(position, "it is not the file that was restored when it was the head")

    def _judge_bridges(self) -> None:
        """Assert that a position inside a bridge is refused."""
        inside = sorted(
            {position for generation in self._replica.generations() for position in self._inside(generation)}
        )
        for position in self._chance.sample(inside, min(BRIDGE_SAMPLES, len(inside))):
            try:
                find_plan(self._replica, AtPosition(position))
            except TargetError:
                self.verdicts.refused += 1
            else:
                self._wrong(position, "it is inside a bridge, and is offered")

    def _digest(self) -> bytes:
        return hashlib.sha256(self._scratch.read_bytes()).digest()

    def _wrong(self, position: Position | None, what: str) -> None:
        self.verdicts.wrong.append(f"{self._database.name} at {position or 'the head'}: {what}")

    # -- positions --------------------------------------------------------------------------------------------------

    def _sampled(self, samples: int) -> set[Position]:
        """Return the first and the last restorable position of each generation, and some between."""
        commits = {generation: self._restorable(generation) for generation in self._replica.generations()}
        ends = {position for each in commits.values() for position in (each[:1] + each[-1:])}
        between = [position for each in commits.values() for position in each]
        return ends | set(self._chance.sample(between, min(samples, len(between))))

    def _restorable(self, generation: str) -> list[Position]:
        """Return the first consistent position of a generation and all commits after it, in order."""
        keys = [stored.key for stored in self._replica.objects(generation)]
        listed = self._replica.bases()
        (part,) = (part for part in listed.generations if part.generation == generation)
        if not part.finished:
            return []
        first = Position(generation, *min((base.epoch, base.frame) for base in part.finished))
        frames = [key for key in keys if isinstance(key, SegmentKey | WholeKey)]
        commits = {position for key in frames for position in self._commits(key)} | {first}
        ordered = sorted(commits)
        return ordered[bisect_left(ordered, first) :]

    def _inside(self, generation: str) -> Iterator[Position]:
        """Return a random position of each bridge that is not its end."""
        for stored in self._replica.objects(generation):
            key = stored.key
            if isinstance(key, SegmentKey | WholeKey) and key.bridge:
                first = next(self._commits(key)).frame
                if first > 1:
                    yield Position(generation, key.epoch, self._chance.randrange(1, first))

    def _commits(self, key: SegmentKey | WholeKey) -> Iterator[Position]:
        for piece in decode_body([self._replica.get(format_key(key))]):
            if isinstance(piece, Trailer):
                yield from (Position(key.generation, key.epoch, commit.frame) for commit in piece.commits)
