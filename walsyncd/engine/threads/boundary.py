"""One boundary around each unit of work: the work for one database, match, object or request.

An exception inside ends that unit alone. A WalsyncdError is expected and passes unchanged, because the caller knows
what to do with it. Every other exception is a fault that nobody foresaw. It is logged with its traceback and becomes
a FaultError, so that the caller suspends the unit as it does for any other error, with its back-off. A CancelledError
also passes, since it means that the daemon stops.

Only a fault outside every boundary, in walsyncd's own state, ends the process.
"""

from __future__ import annotations

from concurrent.futures import CancelledError

import structlog

from walsyncd.errors import FaultError, WalsyncdError, forget_locals

REASON_CHARACTERS_MAX = 300  # a fault may quote the data that caused it
REMEDY = "report it with the traceback that the log has; the others go on, and this is tried again"

_log = structlog.get_logger()


class boundary:  # noqa: N801  used as a function
    """A context manager for one unit of work, which the log calls ``work``. ``subject`` names what it is done on.

    Raises FaultError for every exception except WalsyncdError, CancelledError and those in ``passes``.
    """

    __slots__ = ("_passes", "_subject", "_work")

    def __init__(self, work: str, *, passes: tuple[type[Exception], ...] = (), **subject: object) -> None:
        self._work, self._passes, self._subject = work, passes, subject

    def __enter__(self) -> None:
        pass

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, (WalsyncdError, CancelledError, *self._passes)):
            return
        _log.error("work_failed", work=self._work, **self._subject, exc_info=error)
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        forget_locals(error)  # work that failed for lack of memory releases what it holds
        raise FaultError(f"{self._work}: {reason[:REASON_CHARACTERS_MAX]}", hint=REMEDY) from error
