"""The log: one line for each finished thing, on stderr.

=====================  ==========================================================================
stderr is              a line
=====================  ==========================================================================
a terminal             readable, coloured unless ``NO_COLOR`` is set
a service's journal    an entry with separate fields (``log.journald``), unless ``log_format`` is json
other                  ``<6>{"event": "segment_stored", …}``: the syslog level that journald reads
                       (sd-daemon(3)), then one JSON object
=====================  ==========================================================================

If a line can't be written, its caller does not notice: replication continues, and ``lines_lost`` counts the line. The
daemon's lines go through a queue (``log.queue``), so that a stalled reader never stops a thread. Each database has a
limit of lines (``log.line_limit``). Text that others chose is escaped before it reaches a terminal.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from typing import Any, TextIO, TypeAlias, cast

import structlog
from structlog.typing import EventDict, FilteringBoundLogger, Processor, WrappedLogger

from walsyncd.errors import one_line, printable
from walsyncd.log import journald
from walsyncd.log.line_limit import LineLimit
from walsyncd.log.queue import Queue

_Line: TypeAlias = Any  # a text for stderr, or a datagram for the journal

LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}

# syslog(3): 7 debug, 6 informational, 4 warning, 3 error, 2 critical.
_SYSLOG_LEVELS = {"debug": 7, "info": 6, "warning": 4, "error": 3, "exception": 3, "critical": 2}


class _Lines:
    """Writes lines to a stream, and counts failures instead of raising them. Any thread may write.

    Without a stream, each line is written to the current ``sys.stderr``.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream
        self._lock = threading.Lock()
        self.lost = 0

    def msg(self, line: str) -> None:
        """Write one whole line, or count it as lost."""
        with self._lock:
            try:
                self.write(line)
            except (OSError, ValueError):  # the reader went away, the disk is full, or the stream was closed
                self.lost += 1

    def write(self, line: str) -> None:
        """Write one whole line. Raises OSError or ValueError if that is not possible."""
        stream = self._stream or sys.stderr
        stream.write(line + "\n")
        stream.flush()

    debug = info = warning = error = critical = msg


class _LibraryHandler(logging.Handler):
    """Passes lines that boto3 and urllib3 log through ``logging`` on to our log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Log one record as an event of its own."""
        get_logger(library=record.name).log(
            record.levelno, "library_said", message=record.getMessage(), exc_info=record.exc_info
        )


class _Queued:
    """Lines, or entries of the journal, that a thread of its own writes. ``write`` raises OSError if writing fails."""

    def __init__(self, write: Callable[[_Line], None], say_dropped: Callable[[int], _Line]) -> None:
        self._send = write
        self._failed = 0
        self.queue = Queue[_Line](self._write, say_dropped)

    @property
    def lost(self) -> int:
        """Lines that were dropped or could not be written."""
        return self._failed + self.queue.dropped

    def msg(self, line: _Line) -> None:
        """Queue a line, which the thread then writes."""
        self.queue.put(line)

    debug = info = warning = error = critical = msg

    def _write(self, line: _Line) -> None:
        try:
            self._send(line)
        except (OSError, ValueError):
            self._failed += 1


_lines: _Lines | _Queued = _Lines(None)
_limit = LineLimit()
_FOLDED = "log_lines_folded"


def configure(level: str, stream: TextIO | None = None) -> None:
    """Log from ``level`` on (``debug``, ``info``, ``warning`` or ``error``) to ``stream``, or to stderr without one."""
    global _lines  # noqa: PLW0603  there is one log in a process
    _lines = _Lines(stream)
    _route(level, _form((stream or sys.stderr).isatty()))
    _take_over_libraries()


def configure_daemon(level: str, log_format: str) -> None:
    """Log from ``level`` on through a queue. ``log_format`` is ``auto``, ``json`` or ``journal``.

    A second call sets the level again, and keeps the queue.
    """
    global _lines  # noqa: PLW0603  there is one log in a process
    is_native = log_format == "journal" or (log_format == "auto" and journald.is_stderr())
    render = _render_natively if is_native else _form(sys.stderr.isatty())
    if not isinstance(_lines, _Queued):
        _lines = _Queued(journald.send, _dropped_entry) if is_native else _Queued(_Lines(None).write, _dropped_line)
    _route(level, render)
    _take_over_libraries()


def flush(timeout_s: float) -> None:
    """Wait until every line logged before is written, but at most ``timeout_s``."""
    if isinstance(_lines, _Queued):
        _lines.queue.flush(timeout_s)


def _take_over_libraries() -> None:
    root = logging.getLogger()
    root.handlers[:] = [_LibraryHandler()]
    root.setLevel(logging.WARNING)


def get_logger(**bound: object) -> FilteringBoundLogger:
    """Return a logger that adds ``bound`` to each of its lines."""
    return cast("FilteringBoundLogger", structlog.get_logger(**bound))


def lines_lost() -> int:
    """Return how many lines could not be written since ``configure``."""
    return _lines.lost


def _route(level: str, render: Sequence[Processor]) -> None:
    structlog.configure(
        processors=[structlog.contextvars.merge_contextvars, structlog.processors.add_log_level, _limited, *render],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=lambda *_: _lines,
        cache_logger_on_first_use=False,
    )


def _limited(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Leave a line out if its database has logged too many. Debug lines are not counted, since they were asked for."""
    if event["level"] == "debug" or event["event"] == _FOLDED:
        return event
    for database, count in _limit.folded().items():
        get_logger(database=database).warning(_FOLDED, count=count)
    if "database" in event and not _limit.take(str(event["database"])):
        raise structlog.DropEvent
    return event


def _escaped(_logger: WrappedLogger, _method: str, event: EventDict) -> EventDict:
    """Escape each text for a terminal. Values of other types are rendered by ``repr``, which escapes them."""
    return {key: one_line(value) if isinstance(value, str) else value for key, value in event.items()}


def _escaped_traceback(stream: TextIO, exc_info: Any) -> None:
    """Write a traceback, escaped as well, since it may quote text that others chose."""
    stream.write("\n" + printable("".join(traceback.format_exception(*exc_info))))


def _form(is_terminal: bool) -> Sequence[Processor]:
    if is_terminal:
        moment = structlog.processors.TimeStamper(fmt="%H:%M:%S", utc=False, key="timestamp")
        colors = not os.environ.get("NO_COLOR")
        renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=_escaped_traceback)
        return [moment, _escaped, renderer]
    return [_MOMENT, structlog.processors.format_exc_info, _render_for_journal]


_MOMENT = structlog.processors.TimeStamper(fmt="iso", utc=True, key="time")


def _render_for_journal(_logger: WrappedLogger, _method: str, event: EventDict) -> str:
    """Return ``<N>`` and the event as JSON, ``event`` first. Values that JSON can't express are written as text."""
    return f"<{_SYSLOG_LEVELS[event['level']]}>{_json(event)}"


def _render_entry(_logger: WrappedLogger, _method: str, event: EventDict) -> bytes:
    """Return the datagram for the journal, with the event as JSON for people."""
    return journald.entry(_json(event), _SYSLOG_LEVELS[event["level"]], event)


def _json(event: EventDict) -> str:
    return json.dumps({"event": event["event"], **event}, default=str)


_render_natively: Sequence[Processor] = [_MOMENT, structlog.processors.format_exc_info, _render_entry]


def _dropped_line(count: int) -> str:
    return f'<4>{{"event": "log_lines_dropped", "level": "warning", "count": {count}}}'


def _dropped_entry(count: int) -> bytes:
    facts = {"event": "log_lines_dropped", "level": "warning", "count": count}
    return journald.entry(json.dumps(facts), _SYSLOG_LEVELS["warning"], facts)


# A command that configures no log must not find lines among its results: structlog's own default is stdout.
_route("warning", _form(is_terminal=False))
