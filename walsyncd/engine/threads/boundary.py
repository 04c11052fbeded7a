"""One boundary around each unit of work: the work for one database, match, object or request.

Whatever is raised inside ends that one thing. An error that the code expects, a WalsyncdError, passes as it is: the
caller knows what to do with it. Everything else is a fault that nobody foresaw. It is logged with its traceback and
becomes a FaultError, so that the caller suspends the one thing as it does for any other error, with its back-off. A
CancelledError passes too: the daemon stops.

Only what has no boundary around it ends the process: a fault of walsyncd's own state.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager

import structlog

from walsyncd.errors import FaultError, WalsyncdError, forget_locals

REASON_CHARACTERS_MAX = 300  # a fault may quote what it choked on
REMEDY = "report it with the traceback that the log has; the others go on, and this is tried again"

_log = structlog.get_logger()


@contextmanager
def boundary(work: str, *, passes: tuple[type[Exception], ...] = (), **subject: object) -> Iterator[None]:
    """Do ``work``, named for the log, on ``subject``.

    FaultError for whatever it raises, unless that is a WalsyncdError or one of ``passes``.
    """
    expected: tuple[type[Exception], ...] = (WalsyncdError, CancelledError, *passes)
    try:
        yield
    except expected:
        raise
    except Exception as error:
        _log.error("work_failed", work=work, **subject, exc_info=error)
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        forget_locals(error)  # what failed for want of memory gives back what it holds
        raise FaultError(f"{work}: {reason[:REASON_CHARACTERS_MAX]}", hint=REMEDY) from error
