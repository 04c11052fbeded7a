"""One boundary around each unit of work: the work for one database, match, object or request.

An exception inside ends that unit alone. A WalsyncdError is expected and passes unchanged, because the caller knows
what to do with it. Every other exception is a fault that nobody foresaw. It is logged with its traceback and becomes
a FaultError, so that the caller suspends the unit as it does for any other error, with its back-off. A CancelledError
also passes, since it means that the daemon stops.

Only a fault outside every boundary, in walsyncd's own state, ends the process.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

import structlog

from walsyncd.errors import FaultError, WalsyncdError, forget_locals

REASON_CHARACTERS_MAX = 300  # a fault may quote the data that caused it
REMEDY = "report it with the traceback that the log has; the others go on, and this is tried again"

_log = structlog.get_logger()


@contextmanager
def boundary(work: str, *, passes: tuple[type[Exception], ...] = (), **subject: object) -> Iterator[None]:
    """Do ``work``, which the log calls by that name, on ``subject``.

    Raises FaultError for every exception except WalsyncdError, CancelledError and those in ``passes``.
    """
    expected: tuple[type[Exception], ...] = (WalsyncdError, CancelledError, *passes)
    try:
        yield
    except expected:
        raise
    except Exception as error:
        _log.error("work_failed", work=work, **subject, exc_info=error)
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        forget_locals(error)  # work that failed for lack of memory releases what it holds
        raise FaultError(f"{work}: {reason[:REASON_CHARACTERS_MAX]}", hint=REMEDY) from error
