"""``owner.json``: who writes to a database's folder, and whether a generation may be continued there.

| owner.json names                 | the generation          | so                                            |
|----------------------------------|-------------------------|-----------------------------------------------|
| a run this journal wrote, ours   | any                     | continue it                                   |
| nobody, or somebody else         | nothing of it in bucket | begin it: nobody else can have written it     |
| nobody, or somebody else         | was written to          | lost: a clone, another daemon, an old journal |

The run id decides. The machine's id is compared too, since a clone of a disk has the same journal and often another
machine id. It proves nothing if one of the two machines has none (in a container, ``machine_id`` is ``host-`` and a
host name that is new each time). Nor does it if this journal has run under both ids since the machine was booted (a
container that was created again with the same state directory).

The file is a JSON object with ``host``, ``machine_id``, ``run_id`` and ``since`` (RFC 3339, UTC), all text.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

from walsyncd.errors import CorruptError

OWNER_BYTES_MAX = 8192  # walsyncd writes some 200

UNNAMED = "host-"  # prefix of the host name if a machine has no id


@dataclass(frozen=True, slots=True)
class Owner:
    """One run of one daemon. ``since`` is when it wrote ``owner.json``."""

    host: str
    machine_id: str
    run_id: str
    since: str

    def __str__(self) -> str:
        return f"run {self.run_id} on {self.host} (machine {self.machine_id}) since {self.since}"


def format_owner(owner: Owner) -> bytes:
    """Return the bytes of ``owner.json``."""
    return json.dumps(asdict(owner), indent=1).encode() + b"\n"


def parse_owner(data: bytes) -> Owner:
    """Inverse of ``format_owner``. Ignores unknown keys, and raises CorruptError if a key is missing."""
    try:
        if len(data) > OWNER_BYTES_MAX:
            raise ValueError
        fields = json.loads(data)
        return Owner(*(_text(fields[name]) for name in ("host", "machine_id", "run_id", "since")))
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CorruptError(f"read owner.json: {data[:100]!r} does not name an owner") from error


def _text(value: object) -> str:
    """Return a text of one line that can be printed."""
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
    """Return why ``generation`` can't be continued, or an empty text if it can.

    ``runs`` are the runs that this journal wrote into owner.json last, or may have written. ``was_stored`` says that
    the journal knows of a stored object of the generation. ``in_bucket`` are the ids of the generations in the folder.
    They matter only if the owner is not this journal.
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
    """Whether this journal wrote ``owner.json`` on this machine.

    ``machine_ids`` are this machine's id and those that it had earlier since it was booted.
    """
    if seen is None or seen.run_id not in runs:
        return False
    has_ids = has_machine_id(seen.machine_id) and all(map(has_machine_id, machine_ids))
    return not has_ids or seen.machine_id in machine_ids


def has_machine_id(machine_id: str) -> bool:
    """Whether this is the id of a machine, and not the host name of a machine that has none."""
    return not machine_id.startswith(UNNAMED)
