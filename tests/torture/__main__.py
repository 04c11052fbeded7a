"""``python -m tests.torture``: a storm for each seed, its report as JSON.

The last line says how many storms ended in which way. The exit code is 1 if a restore is wrong. A storm that broke off
before its end (an application or the daemon did not answer in time, say) has shown nothing: the exit code is 2 if all
of them broke off, or more than one and more than a tenth. The folders of storms that did not end well are kept.
"""

from __future__ import annotations

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from enum import Enum
from pathlib import Path

from tests.torture.storm import Options, torture
from walsyncd.errors import WalsyncdError

# causes on a machine that is too slow, and a process that ends by itself: the other seeds are run
BROKE_OFF = (AssertionError, OSError, subprocess.SubprocessError, WalsyncdError)
BROKE_OFF_SHARE = 0.1  # of all storms, or one: such storms have no verdict
EXIT_WRONG, EXIT_BROKE_OFF = 1, 2


class End(Enum):
    """How a storm ended. A fault is work of the daemon that met an exception which nobody foresaw."""

    RIGHT = "right"
    FAULTY = "right with faults"
    WRONG = "wrong"
    BROKE_OFF = "broke off"


def seed_of(word: str) -> int:
    """Return a seed, or for ``clock`` one that was never tried."""
    return time.time_ns() // 1_000_000 if word == "clock" else int(word)


def parse(words: Sequence[str]) -> list[Options]:
    """Return the requested storms."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture", description=__doc__)
    parser.add_argument("--seed", type=seed_of, nargs="+", default=[1], help="or 'clock' (default: 1)")
    parser.add_argument("--seconds", type=float, default=30.0, help="of each storm, pauses not counted (default: 30)")
    parser.add_argument("--databases", type=int, default=2)
    parser.add_argument("--writers", type=int, default=3, help="of the first database (default: 3)")
    parser.add_argument("--checkpoints", type=float, default=5.0, metavar="RATE", help="a second (default: 5)")
    parser.add_argument("--kills", type=float, default=1.0, metavar="RATE", help="a second (default: 1)")
    share = "share of strikes in which somebody changes a database's files (default: 0.15)"
    parser.add_argument("--administrators", type=float, default=0.15, metavar="SHARE", help=share)
    parser.add_argument("--presence", action=argparse.BooleanOptionalAction, help="(default: drawn for each database)")
    given = vars(parser.parse_args(words))
    seeds = given.pop("seed")
    options = Options(seeds[0], **given)
    return [replace(options, seed=seed) for seed in seeds]


def again(options: Options) -> str:
    """Return the command that repeats a storm."""
    words = [sys.executable, "-m", "tests.torture", "--seed", str(options.seed)]
    for name in ("seconds", "databases", "writers", "checkpoints", "kills", "administrators"):
        words += [f"--{name}", str(getattr(options, name))]
    if options.presence is not None:
        words.append("--presence" if options.presence else "--no-presence")
    return shlex.join(words)


def storm(options: Options) -> End:
    """One storm, told of."""
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"walsyncd-torture-{options.seed}-"))
    kept = f"everything is in {folder}; to repeat it: {again(options)}"
    try:
        report = torture(options, folder)
    except BROKE_OFF:
        traceback.print_exc()
        print(f"seed {options.seed} broke off before its end; {kept}", file=sys.stderr, flush=True)
        return End.BROKE_OFF
    print(json.dumps(asdict(report), indent=2), flush=True)
    if report.wrong:
        print(f"seed {options.seed}: {len(report.wrong)} restores are wrong; {kept}", file=sys.stderr, flush=True)
        return End.WRONG
    shutil.rmtree(folder)
    return End.FAULTY if report.faults else End.RIGHT


def main(words: Sequence[str]) -> int:
    """All storms, one after the other."""
    ends = Counter(storm(options) for options in parse(words))
    count, broke_off = ends.total(), ends[End.BROKE_OFF]
    counts = ", ".join(f"{ends[end]} {end.value}" for end in End)
    print(f"{count} storms: {counts}", file=sys.stderr, flush=True)
    if ends[End.WRONG]:
        return EXIT_WRONG
    is_tolerated = broke_off < count and broke_off <= max(1, BROKE_OFF_SHARE * count)
    return EXIT_BROKE_OFF if broke_off and not is_tolerated else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
