"""``owner.json``: who writes to a database's folder, and whether a generation may be continued there.

| owner.json names                 | the generation          | so                                            |
|----------------------------------|-------------------------|-----------------------------------------------|
| a run this journal wrote, ours   | any                     | continue it                                   |
| nobody, or somebody else         | nothing of it in bucket | begin it: nobody else can have written there  |
| nobody, or somebody else         | was written to          | lost: a clone, another daemon, an old journal |

The run id decides. The machine's id is asked besides, since a clone of a disk has the same journal and often another
machine id. It says nothing where one of the two machines has none (a container: its ``machine_id`` is ``host-`` and a
host name that is new each time), or where this journal has run under both ids since the machine was booted (a container
that was made again with the same state directory).

JSON object: ``host``, ``machine_id``, ``run_id`` and ``since`` (RFC 3339, UTC), all text.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

from walsyncd.errors import CorruptError

OWNER_BYTES_MAX = 8192  # what is written takes some 200

UNNAMED = "host-"  # stands before the host name where a machine has no id


@dataclass(frozen=True, slots=True)
class Owner:
    """One run of one daemon; ``since`` is when it wrote that."""

    host: str
    machine_id: str
    run_id: str
    since: str

    def __str__(self) -> str:
        return f"run {self.run_id} on {self.host} (machine {self.machine_id}) since {self.since}"


def format_owner(owner: Owner) -> bytes:
    """The bytes of ``owner.json``."""
    return json.dumps(asdict(owner), indent=1).encode() + b"\n"


def parse_owner(data: bytes) -> Owner:
    """Inverse of ``format_owner``; keys it does not know are passed over, CorruptError if one is missing."""
    try:
        if len(data) > OWNER_BYTES_MAX:
            raise ValueError
        fields = json.loads(data)
        return Owner(*(_text(fields[name]) for name in ("host", "machine_id", "run_id", "since")))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptError(f"read owner.json: {data[:100]!r} does not name an owner") from error


def _text(value: object) -> str:
    """A text of a line, which can be shown."""
    if not isinstance(value, str) or not value.isprintable():
        raise TypeError
    return value


def lost_reason(
    seen: Owner | None,
    *,
    machine_ids: Collection[str],
    runs: Collection[str],
    generation: str,
    was_stored: bool,
    in_bucket: Collection[str],
) -> str:
    """Why ``generation`` can't be continued; empty if it can.

    ``runs``: what this journal wrote into owner.json last, or may have. ``was_stored``: the journal knows of
    a stored object of the generation. ``in_bucket``: ids of the generations that the folder has; they matter
    only if the owner is not this journal.
    """
    if is_ours(seen, machine_ids=machine_ids, runs=runs):
        return ""
    newest = max(in_bucket, default="")
    if not was_stored and newest < generation:
        return ""
    who = f"owner.json names {seen}" if seen else "owner.json is gone"
    if newest > generation:
        return f"{who}, and the bucket has the newer generation {newest}"
    return f"{who}, not the run that this journal wrote last"


def is_ours(seen: Owner | None, *, machine_ids: Collection[str], runs: Collection[str]) -> bool:
    """Whether what stands in ``owner.json`` was written by this journal on this machine.

    ``machine_ids``: this machine's id, and those that it had earlier since it was booted.
    """
    if seen is None or seen.run_id not in runs:
        return False
    has_ids = has_machine_id(seen.machine_id) and all(map(has_machine_id, machine_ids))
    return not has_ids or seen.machine_id in machine_ids


def has_machine_id(machine_id: str) -> bool:
    """Whether that is the id of a machine, and not the host name of one that has none."""
    return not machine_id.startswith(UNNAMED)
