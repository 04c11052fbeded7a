"""``owner.json``: who writes to a database's folder, and whether a generation may be continued there.

| owner.json names                 | the generation          | what follows                                  |
|----------------------------------|-------------------------|-----------------------------------------------|
| a run this journal wrote, ours   | any                     | continue it                                   |
| nobody, or somebody else         | nothing of it in bucket | begin it: nobody else can have written it     |
| nobody, or somebody else         | was written to          | lost: a clone, another daemon, an old journal |

The run id decides. The machine's id is compared too, since a clone of a disk has the same journal and often another
machine id. The machine's id proves nothing if one of the two machines has none: in a container, ``machine_id`` is
``host-`` and a host name that is new each time. Nor does it prove anything if this journal has run under both ids since
the machine was booted, as in a container that was created again with the same state directory.

The file is a JSON object with ``host``, ``machine_id``, ``run_id`` and ``since`` (RFC 3339, UTC), all text.

A run that stops in order, with everything stored, adds ``released``: the generation that another daemon may continue.
The run writes nothing after that. So a run that goes on, or that was killed, has never released anything. Versions that
do not know ``released`` begin a new generation, as they do for every owner that is not theirs.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict, dataclass

from walsyncd.errors import CorruptError

OWNER_BYTES_MAX = 8192  # walsyncd writes about 200 bytes

UNNAMED = "host-"  # prefix of the host name if a machine has no id


@dataclass(frozen=True, slots=True)
class Owner:
    """One run of one daemon. ``since`` is when the run wrote ``owner.json``.

    ``released`` is the generation that the run leaves to another daemon, or an empty text.
    """

    host: str
    machine_id: str
    run_id: str
    since: str
    released: str = ""

    def __str__(self) -> str:
        return f"run {self.run_id} on {self.host} (machine {self.machine_id}) since {self.since}"


def format_owner(owner: Owner) -> bytes:
    """Return the bytes of ``owner.json``."""
    fields = {name: value for name, value in asdict(owner).items() if value or name != "released"}
    return json.dumps(fields, indent=1).encode() + b"\n"


def parse_owner(data: bytes) -> Owner:
    """Inverse of ``format_owner``. Ignores unknown keys, and raises CorruptError if a key is missing."""
    try:
        if len(data) > OWNER_BYTES_MAX:
            raise ValueError
        fields = json.loads(data)
        host, machine_id, run_id, since = (_text(fields[name]) for name in ("host", "machine_id", "run_id", "since"))
        return Owner(host, machine_id, run_id, since, _text(fields.get("released", "")))
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
    These ids matter only if this journal did not write owner.json.
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

    ``machine_ids`` are this machine's id and the ids that it had earlier since it was booted.
    """
    if seen is None or seen.run_id not in runs:
        return False
    return not _is_elsewhere(seen, machine_ids)


def may_be_continued(
    seen: Owner, *, machine_ids: Collection[str], runs: Collection[str], in_bucket: Collection[str], is_known: bool
) -> bool:
    """Whether a daemon that did not write the generation ``seen.released`` may continue it.

    ``runs`` are the runs that the daemon's journal wrote, or may have written. A generation that one of them left is
    not continued here: the journal itself continues it, or has ended it for a reason. ``is_known`` says that the
    journal has had a generation of the database. Then another machine must have left ``seen.released``, or else the
    journal is a copy, or was restored from a backup. No newer generation may be in the folder, whose generations are
    ``in_bucket``.
    """
    if not seen.released or seen.run_id in runs or (is_known and not _is_elsewhere(seen, machine_ids)):
        return False
    return seen.released == max(in_bucket, default="")


def _is_elsewhere(seen: Owner, machine_ids: Collection[str]) -> bool:
    """Whether the owner is certainly another machine."""
    has_ids = has_machine_id(seen.machine_id) and all(map(has_machine_id, machine_ids))
    return has_ids and seen.machine_id not in machine_ids


def has_machine_id(machine_id: str) -> bool:
    """Whether this is the id of a machine, and not the host name of a machine that has none."""
    return not machine_id.startswith(UNNAMED)
