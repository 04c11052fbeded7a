"""Finds open multipart uploads that nobody will finish, by listing a database's folder, and aborts them.

| the upload's key is                    | and                             | so                                  |
|----------------------------------------|---------------------------------|-------------------------------------|
| not of the form of our keys            |                                 | leave it: another database's folder |
| of an object in a generation that this | the journal has an object of it | leave it: under way, or a leftover  |
| journal began                          | the journal knows nothing of it | abort: a request that landed late   |
| any other                              | the upload is older than 7 days | abort: we are the owner             |
|                                        | it is younger                   | leave it: another writer may use it |

Only a database's owner looks for such uploads: when it has claimed the database, and once a day while it writes.
"""

from __future__ import annotations

from collections.abc import Collection

from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.interface import OpenUpload, Storage
from walsyncd.core.stored.layout import BaseKey, SegmentKey, WholeKey, folder_key, parse_key
from walsyncd.errors import ImpossibleError, RefusedError
from walsyncd.log import get_logger

FOREIGN_AGE_MS = 7 * 86_400_000  # no store is known to keep an open upload for longer
SWEEP_MS = 86_400_000.0


def abort_orphans(journal: Journal, storage: Storage, *, database_id: int, name: str, wall_ms: int) -> int:
    """Abort the orphaned uploads in a database's folder and return their number. Raises TransientError of the storage.

    A store that does not list uploads, or refuses to list them, keeps them until its own rules remove them.
    """
    folder = folder_key(name, "")
    try:
        open_now = storage.list_uploads(folder)
    except (RefusedError, ImpossibleError) as error:
        get_logger(database=name).debug("uploads_not_listed", reason=str(error))
        return 0
    began = {row.generation for row in journal.generations(database_id)}
    known = {row.key for row in journal.pending(database_id)}
    known |= {base.row.key for base in journal.bases(database_id)}
    known |= {leftover.key for leftover in journal.leftovers() if leftover.database_id == database_id}
    known |= {whole.key for whole in journal.wholes(database_id) if whole.state == "begun"}
    now_ms = storage.clock_ms() or wall_ms
    orphans = [
        upload
        for upload in open_now
        if is_orphan(upload, key=upload.key.removeprefix(folder), began=began, known=known, now_ms=now_ms)
    ]
    for upload in orphans:
        storage.abort_upload(upload.key, upload.upload_id)
        get_logger(database=name).info("orphan_aborted", key=upload.key, initiated_ms=upload.initiated_ms)
    return len(orphans)


def is_orphan(upload: OpenUpload, *, key: str, began: Collection[str], known: Collection[str], now_ms: int) -> bool:
    """Whether nobody will finish ``upload``; ``key`` is relative to the database's folder."""
    parsed = parse_key(key)
    if parsed is None or key in known:
        return False
    if isinstance(parsed, BaseKey | SegmentKey | WholeKey) and parsed.generation in began:
        return True
    return now_ms - upload.initiated_ms > FOREIGN_AGE_MS
