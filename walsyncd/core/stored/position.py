"""Positions: generation / epoch / frame, always at a commit frame.

A position's text is ``20261122T105600Z-3f9c1a2b/00000007/00000200``: the generation's id, then epoch and
frame as 8 lower-case hex digits. Ids and positions sort by time as text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from walsyncd.errors import UsageError

GENERATION_PATTERN = re.compile(r"(\d{8}T\d{6}Z)-([0-9a-f]{8})")
_POSITION_PATTERN = re.compile(rf"({GENERATION_PATTERN.pattern})/([0-9a-f]{{8}})/([0-9a-f]{{8}})")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A commit of a database: every frame up to and including ``frame`` of ``epoch`` is applied.

    ``frame`` 0 is the state before the first frame of the epoch.
    """

    generation: str
    epoch: int
    frame: int

    def __str__(self) -> str:
        return f"{self.generation}/{self.epoch:08x}/{self.frame:08x}"


def parse_position(text: str) -> Position:
    """Inverse of ``str(position)``; UsageError names the text and the form."""
    match = _POSITION_PATTERN.fullmatch(text)
    if match is None:
        raise UsageError(
            f"position {text!r} is not GENERATION/EPOCH/FRAME",
            hint="for example 20261122T105600Z-3f9c1a2b/00000001/0000002a; `walsyncd ls` shows them",
        )
    return Position(match[1], int(match[4], 16), int(match[5], 16))


def is_generation(text: str) -> bool:
    """Whether a name looks like a generation's id."""
    return GENERATION_PATTERN.fullmatch(text) is not None


def new_generation(now: datetime, entropy: int, *, known: str = "") -> str:
    """An id that starts at ``now`` (aware) and is greater than ``known``, whatever the clock says.

    ``entropy`` gives 32 random bits; ``known`` is the greatest id of the database in journal and bucket.
    """
    moment = now.astimezone(UTC).replace(microsecond=0)
    if known and f"{moment:%Y%m%dT%H%M%SZ}" <= known[:16]:
        moment = generation_time(known) + timedelta(seconds=1)
    return f"{moment:%Y%m%dT%H%M%SZ}-{entropy & 0xFFFFFFFF:08x}"


def generation_time(generation: str) -> datetime:
    """When a generation says it began (UTC)."""
    return datetime.strptime(generation[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
