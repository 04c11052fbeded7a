"""Why generations end, by class: the reasons are sentences with numbers, a metric needs a bounded set of labels.

===============  ==========================================================================
class            the generation ended because
===============  ==========================================================================
``overwritten``  commits were overwritten, cut off or not seen before they were read
``uncertain``    it could not be proven that nothing was missed
``reverted``     what was shipped is gone: a fork, a file or journal that was set back
``replaced``     another file was put in the database's place, or it is gone
``spool``        the spool was full, and storage away
``owner``        another daemon writes there, or what was stored is not there any more
``storage``      the configuration names another storage
``renewed``      what its bases need would expire; nothing was missed (``delete = false``)
``other``        none of these
===============  ==========================================================================
"""

from __future__ import annotations

# The first class of which a word stands in the reason.
_WORDS = {
    "storage": ("the storage changed",),
    "renewed": ("would expire",),
    "spool": ("the spool reached",),
    "owner": ("owner.json", "another daemon", "the bucket has"),
    "replaced": ("another file", "does not exist", "deleted or moved", "database file is gone"),
    "reverted": ("forked", "rewritten"),
    "overwritten": (
        "overwritten",
        "could be opened",
        "could not be opened",
        "could be read",
        "reached frame",
        "restarted already",
        "were left when",
    ),
    "uncertain": (
        "count",
        "may have been changed",
        "was changed",
        "wal-index",
        "not watched",
        "can't be seen",
        "reboot",
        "not the next one",
        "no commit is missing",
        "nobody was seen",
        "commit failed",
    ),
}
CLASSES = (*_WORDS, "other")


def gap_class(reason: str) -> str:
    """The class of a reason as the journal has it."""
    for name, words in _WORDS.items():
        if any(word in reason for word in words):
            return name
    return "other"
