"""``walsyncd demo``: demonstrates everything on this machine, with a folder as its bucket.

The exit code is 0 only if every restored database was as expected, page for page.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from walsyncd.demo.display import LiveDisplay, PlainDisplay
    from walsyncd.demo.stage import Stage
    from walsyncd.demo.story import Outcome

TITLE = "walsyncd demo: an application writes, the daemon beside it is killed, and every commit comes back"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``--keep``."""
    parser.add_argument("--keep", action="store_true", help="keep everything, and say where it is")


def run(args: argparse.Namespace) -> int:
    """Run the demo in a temporary folder. Returns 1 if a restored database differs."""
    from walsyncd.demo.stage import Stage  # noqa: PLC0415  a command is light until it runs
    from walsyncd.demo.story import play  # noqa: PLC0415

    print(TITLE, flush=True)
    with _signals_unwind(), _folder(keep=args.keep) as folder:
        stage = Stage(folder)
        with _display(stage) as display:
            outcome = play(stage, display)
        print(summary(outcome))
    return 0 if outcome.is_good else 1


def summary(outcome: Outcome) -> str:
    """Return the final text."""
    lines = [
        f"{outcome.commits} commits, {outcome.kills} kills, {outcome.objects} objects, {outcome.size} bytes",
        *(f"a new base was needed: {reason}" for reason in outcome.generations[1:]),
    ]
    differing = [str(comparison) for comparison in outcome.comparisons if not comparison.is_equal]
    lines += [f"DIFFERS  {text}" for text in differing]
    count = len(outcome.comparisons)
    lines.append(f"{len(differing)} of {count} comparisons differ" if differing else f"{count} comparisons, all equal")
    return "\n".join(lines)


def _display(stage: Stage) -> LiveDisplay | PlainDisplay:
    from rich.console import Console  # noqa: PLC0415

    from walsyncd.demo.display import Counters, LiveDisplay, PlainDisplay  # noqa: PLC0415

    def counters() -> Counters:
        bucket = stage.contents()
        stored = str(bucket.stored or "nothing yet")
        return Counters(len(stage.diary()), bucket.objects, bucket.size, stage.kills, stored, stage.equal)

    console = Console(highlight=False)
    return LiveDisplay(console, counters) if console.is_terminal else PlainDisplay(sys.stdout)


@contextmanager
def _folder(*, keep: bool) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="walsyncd-demo-")).resolve()
    try:
        yield folder
    finally:
        if keep:
            print(_what_to_try(folder))
        else:
            shutil.rmtree(folder)


def _what_to_try(folder: Path) -> str:
    """Return where the folder is and what can be tried there."""
    program = sys.argv[0] if Path(sys.argv[0]).name == "walsyncd" else f"{sys.executable} -m walsyncd"
    config = f"--config {folder}/config.toml"
    return f"""
everything is left in {folder}; look around:
  find {folder}/replica -type f
  {program} ls {config}
  {program} verify {config} app.db
  {program} restore {config} app.db -o {folder}/again.db
  rm -r {folder}"""


@contextmanager
def _signals_unwind() -> Iterator[None]:
    """Let SIGTERM end the demo's processes and remove its folder, as an interrupt does."""

    def unwind(number: int, _frame: FrameType | None) -> NoReturn:
        raise SystemExit(128 + number)  # as in shells

    before = {number: signal.signal(number, unwind) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
