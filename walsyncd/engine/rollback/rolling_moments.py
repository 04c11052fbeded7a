"""The moments of a rolling scan: a large file is read while it is written, and becomes one committed state.

``core.rollback.rolling_scan`` has the rule. A moment is taken without reading a page of the file: the pages that the
journals name since the previous moment are added to the pages that are left to be read. In journal mode PERSIST a
moment must be taken after each commit, because the next commit overwrites the journal. So moments are also tried
between the blocks of a pass.

If the database is not in a committed state at a moment, the moment is tried again. If the journals leave doubt at a
moment, the scan is over, because the pages that were read may then be of any state. Only a new scan can find a
committed state.
"""

from __future__ import annotations

from typing import Protocol

from walsyncd.core.content.bridge_passes import PageList
from walsyncd.core.rollback.changed_pages import ChangedPages, ScanReason
from walsyncd.core.rollback.rolling_scan import RollingScan
from walsyncd.core.sqlite.dbheader import parse_database_header
from walsyncd.engine.rollback.committed_moment import FileLooks, Hindrance, MomentStart, begin_moment, end_moment

# The hindrances that end with a transaction, or with the next process that opens the database.
_PASSING = {Hindrance.WRITER, Hindrance.WRITTEN, Hindrance.HOT, Hindrance.SUPER_JOURNAL}
_NOTHING_BEYOND = 2**32


class MomentProofs(Protocol):
    """The proofs that journals give from one moment to the next."""

    @property
    def is_passing(self) -> bool:
        """Whether the last ``prove`` failed only because the journal was in use, or came and went too fast."""

    def prove(self, page_1: bytes) -> ChangedPages | ScanReason:
        """Return what changed up to a moment whose page 1 is ``page_1``, or why that is not known."""

    def is_lost(self) -> bool:
        """Whether no later moment can be proven, whatever happens."""

    def are_complete(self) -> bool:
        """Whether the journals that ``prove`` has read were not used meanwhile."""

    def take(self) -> object:
        """Let later proofs begin at the moment of the last ``prove``.

        Returns None if that moment has no place in the order of events.
        """


class RollingMoments:
    """The moments of a rolling scan since ``start``. Only the thread that scans may use this.

    ``proofs`` has already taken the place of ``start`` in the order of events.
    """

    def __init__(self, proofs: MomentProofs, looks: FileLooks, start: MomentStart, scan: RollingScan) -> None:
        self._proofs = proofs
        self._looks = looks
        self._scan = scan
        self.events = start.events
        """The number of the file's events up to the last moment."""
        self.hindrance: Hindrance | None = None
        """Why there was no moment at the last try, or why the scan is over."""
        self.is_over = False
        self._scan.begin_pass()

    def take(self) -> MomentStart | None:
        """Take the current moment. Returns None if the database is in no committed state now, or if the scan is over.

        A scan stays over, even if a later moment leaves no doubt, because its pass has ended too early.
        """
        if self.is_over:
            return None
        if self._proofs.is_lost():  # asked first, because a writer at full speed may leave no moment to prove
            self.hindrance, self.is_over = Hindrance.UNPROVEN, True
            return None
        start = begin_moment(self._looks)
        if isinstance(start, Hindrance):
            self.hindrance, self.is_over = start, start not in _PASSING
            return None
        found = self._proofs.prove(start.page_1)
        self.hindrance = end_moment(self._looks, start, start.page_1)
        if self.hindrance is Hindrance.REPLACED:
            self.is_over = True
        if self.hindrance is None and (self._proofs.is_passing or not self._proofs.are_complete()):
            self.hindrance = Hindrance.WRITER
        if self.hindrance is not None:
            return None
        if not isinstance(found, ChangedPages) or not self._scan.add(found):
            self.hindrance, self.is_over = Hindrance.UNPROVEN, True
            return None
        self._proofs.take()
        self.events = start.events
        return start

    def left(self) -> PageList:
        """Return the pages whose last reading may be older than the last moment."""
        return PageList(self._scan.left(), _NOTHING_BEYOND)

    def begin_pass(self) -> PageList:
        """Begin a pass over the pages that are left. The caller reads all of them before the next pass or the end."""
        return PageList(self._scan.begin_pass(), _NOTHING_BEYOND)


def begin_rolling(proofs: MomentProofs, looks: FileLooks, start: MomentStart) -> RollingMoments | None:
    """Begin a rolling scan at ``start`` if that is still a quiet moment after ``proofs`` has read the journals.

    Returns None otherwise.
    """
    header = parse_database_header(start.page_1)
    if header is None or not header.magic_ok or header.change_counter != header.version_valid_for:
        return None
    if not header.page_count or end_moment(looks, start, start.page_1) is not None or proofs.take() is None:
        return None
    return RollingMoments(proofs, looks, start, RollingScan(header.change_counter, header.page_count))
