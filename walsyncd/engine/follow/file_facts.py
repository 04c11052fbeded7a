"""Which file a database is, with its size and times."""

from __future__ import annotations

from walsyncd.adapters.files.source import FileIdentity, OpenFile
from walsyncd.core.follow.follow_state import FileFacts
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.errors import MissingError


def file_facts(identity: FileIdentity, boot_id: str, wal: OpenFile | None) -> FileFacts:
    """Return what the follow state keeps of a database file."""
    return FileFacts(
        device=identity.device,
        inode=identity.inode,
        birth_ns=identity.birth_ns,
        boot_id=boot_id,
        wal_inode=wal.identity().inode if wal is not None else 0,
        size=identity.size,
        mtime_ns=identity.mtime_ns,
        ctime_ns=identity.ctime_ns,
    )


def database_identity(tracked: FollowedDatabase) -> FileIdentity:
    """Return the identity of the file that the database's path names now. Raises MissingError if there is none."""
    file = tracked.open()
    if file is None:
        raise MissingError(f"{tracked.path} does not exist", hint="it is picked up when it appears")
    with file:
        return file.identity()
