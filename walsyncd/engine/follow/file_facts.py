"""Which file a database is, with its size and times, and whether the file has been quiet for long enough.

Long enough is longer than the granularity of the times.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

from walsyncd.adapters.files.source import FileIdentity, OpenFile, read_header
from walsyncd.core.follow.follow_state import FileFacts, FollowState, SeenBesideWal
from walsyncd.core.sqlite.wal import Salts
from walsyncd.core.stored.moment import CLOCK_OFF_MS
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.wal_pair import WalPair
from walsyncd.errors import MissingError

SETTLED_MS = 2_000  # the coarsest file times that Linux keeps, those of FAT
SETTLED_FINE_MS = 100  # even times in nanoseconds only change with the kernel's clock tick, which is at most 10 ms
_NS = 1_000_000


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


@dataclass(frozen=True, slots=True)
class DatabaseLook:
    """One look at the database file beside a WAL. ``told`` was taken before the look (``WriteTrail.told``)."""

    seen: SeenBesideWal
    told: tuple[int, int]


def look_at_database(tracked: FollowedDatabase, wal_pair: WalPair) -> DatabaseLook:
    """Look at the file that the database's path names. Raises MissingError if there is none.

    The wal-index is read before the file, because a checkpoint writes the file before it stores nBackfill.
    """
    told, index = tracked.wal_pairs.trail.told, wal_pair.left_index()
    salts, backfilled = (index.salts, index.backfilled) if index is not None else (None, None)
    with _opened(tracked) as file:
        return DatabaseLook(SeenBesideWal(salts, backfilled, *file.size_and_mtime()), told)


class FileBesideWal:
    """The database file during one step beside a WAL. It is opened again only if it may have changed."""

    def __init__(self, tracked: FollowedDatabase, wal_pair: WalPair) -> None:
        self._tracked, self._wal_pair = tracked, wal_pair
        self._look: DatabaseLook | None = None

    def seen(self, salts: Salts) -> SeenBesideWal:
        """Return what a look beside the incarnation ``salts`` saw. No event has reported a write to the file since.

        What was seen beside an earlier incarnation, or before a checkpoint, would explain what somebody else writes
        later (``SeenBesideWal.explains``). Raises MissingError if there is no file.
        """
        look, told = self._look, self._tracked.wal_pairs.trail.told
        if look is not None and look.seen.salts == salts and look.told == told:
            return look.seen
        self._look = look_at_database(self._tracked, self._wal_pair)
        return self._look.seen

    def last_look(self) -> DatabaseLook | None:
        """Return the last look. If there was none, look now. Returns None if there is no file."""
        if self._look is None:
            with suppress(MissingError):
                self._look = look_at_database(self._tracked, self._wal_pair)
        return self._look


def database_identity(tracked: FollowedDatabase) -> FileIdentity:
    """Return the identity of the file that the database's path names now. Raises MissingError if there is none."""
    with _opened(tracked) as file:
        return file.identity()


def _opened(tracked: FollowedDatabase) -> OpenFile:
    file = tracked.open()
    if file is None:
        raise MissingError(f"{tracked.path} does not exist", hint="it is picked up when it appears")
    return file


def page_size_of(tracked: FollowedDatabase, state: FollowState) -> int | None:
    """Return the page size of the stored frames, or the page size in the file's header if no frame is stored yet.

    Returns None if the file has no readable page size, because the file is encrypted, has no page or is gone.
    """
    if state.stream.stamp is not None:
        return state.stream.stamp.page_size
    file = tracked.open()
    if file is None:
        return None
    with file:
        header = read_header(file)
    return header.page_size if header is not None else None


def changed_ns(now: FileIdentity, then: FileFacts) -> int:
    """Return when the file was last changed (ns since 1970). It has been changed since ``then``.

    An mtime from before ``then`` was set by a program, as ``cp -p`` does. No program can set the ctime.
    """
    return now.mtime_ns if now.mtime_ns > then.ctime_ns else now.ctime_ns


def is_settled(facts: FileFacts, environment: Environment) -> bool:
    """Whether a change of the file from now on would change the file's times.

    This is also true if the times lie far ahead, because the clock was ahead when the file was last changed.
    """
    age_ms = environment.machine_ms() - facts.ctime_ns // _NS
    return age_ms > settling_ms(facts) or age_ms < -CLOCK_OFF_MS


def settling_ms(facts: FileFacts) -> int:
    """Return how long a file must have been quiet. That depends on the granularity of its file system's times.

    A time that is not a whole number of milliseconds shows that the file system does not round to milliseconds or more
    (FAT rounds to 2 s, exFAT to 10 ms).
    """
    is_fine = facts.ctime_ns % _NS and facts.mtime_ns % _NS
    return SETTLED_FINE_MS if is_fine else SETTLED_MS
