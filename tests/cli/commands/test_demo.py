"""Tests of ``walsyncd demo`` as a user runs it: in a pipe, on a terminal, interrupted."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.readme import script_by_hand
from walsyncd.cli import main
from walsyncd.cli.commands import demo
from walsyncd.demo import story
from walsyncd.demo.page_comparison import Comparison
from walsyncd.demo.stage import NAME, Stage
from walsyncd.demo.story import Display, Outcome
from walsyncd.errors import WalsyncdError

EQUAL = Comparison("restored to the head", 10, (), 7, 7, "ok")
DIFFERENT = Comparison("restored to that moment", 10, (3,), 7, 7, "ok")
GOOD = Outcome(7, 2, 30, 4000, ("first generation",), (EQUAL, EQUAL))
BAD = Outcome(7, 2, 30, 4000, ("first generation", "the boot id changed"), (EQUAL, DIFFERENT))
DEMO = [sys.executable, "-m", "walsyncd", "demo"]


@pytest.fixture(autouse=True)
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return where the demo makes its folder. The path is short, because a socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="demo-test-") as folder:
        monkeypatch.setenv("TMPDIR", folder)
        monkeypatch.setattr("tempfile.tempdir", None)
        yield Path(folder)


def _play(monkeypatch: pytest.MonkeyPatch, outcome: Outcome | Exception) -> list[Path]:
    """Replace the story by one with this outcome. Return a list that gets the folder in which it ran."""
    folders = []

    def play(stage: Stage, display: Display) -> Outcome:
        folders.append(stage.folder)
        display.begin("a phase")
        display.end("a result")
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    monkeypatch.setattr(story, "play", play)
    return folders


def test_the_last_lines_sum_up(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """They have numbers, then the verdict. Nothing is left behind."""
    folders = _play(monkeypatch, GOOD)
    assert main(["demo"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == demo.TITLE
    assert lines[1].endswith("a phase: a result")
    assert lines[2:] == ["7 commits, 2 kills, 30 objects, 4000 bytes", "2 comparisons, all equal"]
    assert not folders[0].exists()


def test_a_difference_ends_with_1_and_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It is named in the last line, where it is seen. A history that broke has its reason there."""
    _play(monkeypatch, BAD)
    assert main(["demo"]) == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "a new base was needed: the boot id changed",
        "DIFFERS  restored to that moment: 1 of 10 pages differ (3)",
        "1 of 2 comparisons differ",
    ]


@pytest.mark.parametrize("outcome", [GOOD, WalsyncdError("it broke")])
def test_keep_leaves_everything_and_says_where(
    outcome: Outcome | Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """This matters most when something went wrong."""
    folders = _play(monkeypatch, outcome)
    assert main(["demo", "--keep"]) == (0 if outcome is GOOD else 1)
    out = capsys.readouterr().out
    assert f"everything is left in {folders[0]}" in out
    assert (folders[0] / "config.toml").exists()


def test_an_error_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The error is printed as by every other command."""
    folders = _play(monkeypatch, WalsyncdError("it broke"))
    assert main(["demo"]) == 1
    assert capsys.readouterr().err == "walsyncd: it broke\n"
    assert not folders[0].exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_demo_in_a_pipe(temporary: Path) -> None:
    """The output has plain lines, three comparisons and exit 0.

    The commands that `--keep` suggests work, and give the same result.
    """
    result = subprocess.run([*DEMO, "--keep"], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    assert "\x1b" not in result.stdout
    assert re.search(r"^\d+ commits, 2 kills, \d+ objects, \d+ bytes$", result.stdout, re.MULTILINE)
    story, _, to_try = result.stdout.partition("\n\neverything is left in ")
    assert story.endswith("3 comparisons, all equal")
    folder = Path(to_try.partition(";")[0])
    assert folder.parent == temporary
    by_hand = temporary / "by-hand.db"
    generation = max((folder / "replica" / NAME).glob("*-*"))
    subprocess.run(["sh", "-c", script_by_hand(), "sh", str(generation), str(by_hand)], check=True)
    assert _pages(by_hand) == _pages(folder / "restored" / "expected-head.db")
    for command in to_try.splitlines()[1:]:
        subprocess.run(["sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
    assert not folder.exists()


def _pages(path: Path) -> bytes:
    """Return the pages without what every connection may change: change counter, version-valid-for, library version."""
    content = path.read_bytes()
    return content[:24] + content[28:92] + content[100:]


def _processes_in(folder: Path) -> list[str]:
    """Return the command lines of processes that name something in ``folder``."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # the process ended meanwhile
            continue
        if str(folder) in line:
            found.append(line)
    return found


def _heed_interrupts() -> None:
    """Accept SIGINT. A shell starts background processes, this suite too, with SIGINT ignored. A terminal does not."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def _read_until(descriptor: int, is_enough: Callable[[bytes], bool]) -> bytes:
    text = b""
    while not is_enough(text):
        try:
            block = os.read(descriptor, 4096)
        except OSError:  # Linux reports this when the other end of a terminal is closed
            break
        if not block:
            break
        text += block
    return text


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_demo_that_is_stopped_leaves_nothing_behind(temporary: Path, number: signal.Signals, code: int) -> None:
    """It is stopped on a terminal, while the application and the daemon run. No process and no folder is left."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm", "COLUMNS": "100", "LINES": "40"}
    with subprocess.Popen(
        DEMO,
        stdin=subprocess.DEVNULL,
        stdout=theirs,
        stderr=theirs,
        env=environment,
        preexec_fn=_heed_interrupts,  # noqa: PLW1509 - one system call, and no other thread runs here
    ) as process:
        os.close(theirs)
        text = _read_until(ours, lambda text: b"a base is stored" in text)
        assert len(_processes_in(temporary)) == 2
        process.send_signal(number)
        text += _read_until(ours, lambda _: False)
        assert process.wait() == code, text
    os.close(ours)
    assert b"Traceback" not in text
    assert _processes_in(temporary) == []
    assert list(temporary.iterdir()) == []
