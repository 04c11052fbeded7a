"""The reason why a generation ends: a kind from a bounded set, and the facts that the reason's text is built from.

The kind is stored in the journal and is the label of a metric. Code decides by the kind and the facts, never by the
text, so the text can be reworded.

===============  ==========================================================================
kind             the generation ended because
===============  ==========================================================================
``overwritten``  commits were overwritten, cut off or not seen before they were read
``uncertain``    it could not be proven that nothing was missed
``doubt``        something other than SQLite may have written to the database or its side files
``reverted``     what was shipped is gone: history forked, or a file or the journal was set back
``replaced``     another file was put in the database's place, or the database is gone
``changed``      the database took a form that this history can't hold: page size, journal mode
``spool``        the spool was full while storage could not be reached
``owner``        another daemon writes to this replica, or what was stored is not there any more
``storage``      the configuration names another storage
``refused``      the storage will never take an object
``damaged``      what was spooled or stored is not what it was
``differs``      a scrub found pages that are not what the replica says they are; nothing was missed
``renewed``      objects that its bases need would expire; nothing was missed (``delete = false``)
``other``        none of these
===============  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

from walsyncd.core.sqlite.wal import Salts

OTHER_FILE = "another file was put in the database's place"


class GapKind(StrEnum):
    """Why a generation ended; see the head of this file."""

    OVERWRITTEN = "overwritten"
    UNCERTAIN = "uncertain"
    DOUBT = "doubt"
    REVERTED = "reverted"
    REPLACED = "replaced"
    CHANGED = "changed"
    SPOOL = "spool"
    OWNER = "owner"
    STORAGE = "storage"
    REFUSED = "refused"
    DAMAGED = "damaged"
    RENEWED = "renewed"
    DIFFERS = "differs"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class Gap:
    """Why the history can't continue. ``text`` is a sentence with the names of ``facts`` in braces.

    ``remedy`` is what the operator can do against such gaps. As long as the WAL has the salts ``blocked``, no
    generation gets past the gap.
    """

    kind: GapKind
    text: str
    facts: Mapping[str, int | str] = field(default_factory=dict[str, "int | str"], hash=False)
    remedy: str = ""
    blocked: Salts | None = None

    @classmethod
    def of(cls, kind: GapKind, text: str, **facts: int | str) -> Self:
        """Return a gap without a remedy. ``text`` names each of the facts in braces."""
        return cls(kind, text, facts)

    @property
    def reason(self) -> str:
        """The sentence that log, status and bucket show."""
        return self.text.format_map(self.facts)

    def __str__(self) -> str:
        return self.reason
