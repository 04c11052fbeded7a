import io
import json
import logging
import re
from collections.abc import Iterator

import pytest

from walsyncd import log


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class _Broken(io.StringIO):
    """A stream whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError


@pytest.fixture(autouse=True)
def _log_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    log.configure("warning")
    root.handlers[:] = handlers
    root.setLevel(level)


def _lines(stream: io.StringIO) -> list[tuple[int, dict[str, object]]]:
    """Return syslog level and object of each line."""
    parsed = []
    for line in stream.getvalue().splitlines():
        match = re.fullmatch(r"<(\d)>(\{.*\})", line)
        assert match, line
        parsed.append((int(match[1]), json.loads(match[2])))
    return parsed


def test_lines_are_json_with_a_syslog_level() -> None:
    """journald takes the level from <N>, and a program reads the JSON."""
    stream = io.StringIO()
    log.configure("debug", stream)
    logger = log.get_logger(database="app")
    for name in ("debug", "info", "warning", "error", "critical"):
        getattr(logger, name)("segment_stored", frame=7)
    assert [level for level, _ in _lines(stream)] == [7, 6, 4, 3, 2]
    _, first = _lines(stream)[0]
    assert {key: first[key] for key in ("event", "database", "frame", "level")} == {
        "event": "segment_stored",
        "database": "app",
        "frame": 7,
        "level": "debug",
    }
    assert str(first["time"]).endswith("Z")
    assert next(iter(first)) == "event"


def test_what_is_below_the_level_is_not_written() -> None:
    """The level comes from the configuration."""
    stream = io.StringIO()
    log.configure("warning", stream)
    log.get_logger().info("quiet")
    log.get_logger().warning("loud")
    assert [event["event"] for _, event in _lines(stream)] == ["loud"]


def test_an_event_is_one_line_whatever_is_in_it() -> None:
    """Line feeds, bytes and tracebacks stay within the object."""
    stream = io.StringIO()
    log.configure("info", stream)
    try:
        raise RuntimeError("first\nsecond")
    except RuntimeError:
        log.get_logger().exception("thread_failed", body=b"\0", path="a\nb\udcff")
    ((level, event),) = _lines(stream)
    assert level == 3
    assert "RuntimeError" in str(event["exception"])
    assert event["path"] == "a\nb\udcff"


def test_a_terminal_gets_readable_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal there are escape sequences, and no JSON."""
    monkeypatch.delenv("NO_COLOR", raising=False)
    stream = _Terminal()
    log.configure("info", stream)
    log.get_logger().info("segment_stored", frame=7)
    assert "segment_stored" in stream.getvalue()
    assert "\x1b[" in stream.getvalue()
    assert "{" not in stream.getvalue()


def test_no_color_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    """By no-color.org any value counts but the empty one."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream = _Terminal()
    log.configure("info", stream)
    log.get_logger().info("segment_stored", frame=7)
    assert "\x1b" not in stream.getvalue()
    assert "frame=7" in stream.getvalue()


def test_text_that_others_chose_does_not_steer_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value, a list and the traceback of a fault are made safe. Only our own line feeds are left."""
    monkeypatch.setenv("NO_COLOR", "1")
    stream, name = _Terminal(), "\x1b]0;x\x07\x9b2J\u202e\ud800\r"
    log.configure("info", stream)
    try:
        raise ValueError(name)
    except ValueError as error:
        log.get_logger(database=name).error("work_failed", reason=f"open\n{name}", names=[name], exc_info=error)
    text = stream.getvalue()
    assert [each for each in text if each != "\n" and not each.isprintable()] == []
    assert text.splitlines()[0].count("\\x1b]0;x") == 3
    assert "ValueError: \\x1b]0;x" in text


def test_a_log_that_cant_be_written_is_counted_not_raised() -> None:
    """Replication does not end because a terminal was closed."""
    log.configure("info", _Broken())
    log.get_logger().info("first")
    closed = io.StringIO()
    assert log.lines_lost() == 1
    log.configure("info", closed)
    closed.close()
    log.get_logger().info("second")
    log.get_logger().info("third")
    assert log.lines_lost() == 2


def test_what_libraries_say_comes_through_from_warning_on() -> None:
    """boto3 and urllib3 use logging. Their messages below a warning are dropped."""
    stream = io.StringIO()
    log.configure("debug", stream)
    library = logging.getLogger("urllib3.connectionpool")
    library.info("Starting new connection")
    library.warning("Retrying %s", "now")
    ((level, event),) = _lines(stream)
    assert (level, event["event"], event["message"]) == (4, "library_said", "Retrying now")
    assert event["library"] == "urllib3.connectionpool"


def test_without_configure_lines_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """The standard output of a command has only its results."""
    log._lines = log._Lines(None)
    log.get_logger().warning("spoken")
    captured = capsys.readouterr()
    assert captured.out == ""
    assert '"event": "spoken"' in captured.err
