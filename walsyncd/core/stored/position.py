"""Positions: generation / epoch / frame, always at a commit frame.

The text of a position is ``20261122T105600Z-3f9c1a2b/00000007/00000200``: the generation's id, then epoch and frame as
8 lower-case hex digits. As text, ids and positions sort by time.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from walsyncd.errors import RefusedError, UsageError

GENERATION_PATTERN = re.compile(r"([0-9]{8}T[0-9]{6}Z)-([0-9a-f]{8})")
_FIRST, _LAST = datetime(1970, 1, 1, tzinfo=UTC), datetime(2285, 12, 31, tzinfo=UTC)  # 13 digits of ms until 2286
_POSITION_PATTERN = re.compile(rf"({GENERATION_PATTERN.pattern})/([0-9a-f]{{8}})/([0-9a-f]{{8}})")


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A commit of a database, at which every frame up to and including ``frame`` of ``epoch`` is applied.

    ``frame`` 0 is the state before the first frame of the epoch.
    """

    generation: str
    epoch: int
    frame: int

    def __str__(self) -> str:
        return f"{self.generation}/{self.epoch:08x}/{self.frame:08x}"


def parse_position(text: str) -> Position:
    """Inverse of ``str(position)``. Raises UsageError, which names the text and the form."""
    match = _POSITION_PATTERN.fullmatch(text)
    if match is None or not is_generation(match[1]):
        raise UsageError(
            f"position {text!r} is not GENERATION/EPOCH/FRAME",
            hint="for example 20261122T105600Z-3f9c1a2b/00000001/0000002a, as `walsyncd sync` and `ls --json` print it",
        )
    return Position(match[1], int(match[4], 16), int(match[5], 16))


def is_generation(text: str) -> bool:
    """Whether a name is a generation's id: it has the form of an id, and its date exists and is in an id's range."""
    return GENERATION_PATTERN.fullmatch(text) is not None and _moment_of(text) is not None


def new_generation(now: datetime, entropy: int, *, known: str = "") -> str:
    """Return an id that starts at ``now`` (aware) and is greater than ``known``, whatever the clock says.

    ``entropy`` gives 32 random bits. ``known`` is the greatest id of the database in journal and bucket. Raises
    RefusedError if no id can follow it.
    """
    moment = min(max(now.astimezone(UTC).replace(microsecond=0), _FIRST), _LAST)
    if known and f"{moment:%Y%m%dT%H%M%SZ}" <= known[:16]:
        moment = generation_time(known) + timedelta(seconds=1)
        if moment > _LAST:
            raise RefusedError(
                f"begin a generation: the replica has {known}, and no later id can be made",
                hint="no clock made that id: look into the bucket, and remove that folder",
            )
    return f"{moment:%Y%m%dT%H%M%SZ}-{entropy & 0xFFFFFFFF:08x}"


def generation_time(generation: str) -> datetime:
    """Return when a generation began (UTC) by its id, or 1970 if the text is not an id (``is_generation``)."""
    return _moment_of(generation) or _FIRST


@functools.lru_cache(maxsize=4096)  # a generation is in the key of each of its objects
def _moment_of(generation: str) -> datetime | None:
    try:
        moment = datetime.strptime(generation[:16], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return moment if _FIRST <= moment <= _LAST else None
