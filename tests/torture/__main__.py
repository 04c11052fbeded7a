"""``python -m tests.torture``: a storm for each seed, its report as JSON.

The exit code is 1 if a restore is wrong, and the folder of that storm is kept. A storm that broke off before its end
(an application or the daemon did not answer in time, say) is told of, and its folder is kept, too.
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
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from tests.torture.storm import Options, torture
from walsyncd.errors import WalsyncdError

# What a machine that is too slow, or a process that ends by itself, brings about: the other seeds have their turn.
BROKE_OFF = (AssertionError, OSError, subprocess.SubprocessError, WalsyncdError)


def seed_of(word: str) -> int:
    """A seed, or ``clock``: one that was never tried."""
    return time.time_ns() // 1_000_000 if word == "clock" else int(word)


def parse(words: Sequence[str]) -> list[Options]:
    """The storms that are asked for."""
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
    """The command that repeats a storm."""
    words = [sys.executable, "-m", "tests.torture", "--seed", str(options.seed)]
    for name in ("seconds", "databases", "writers", "checkpoints", "kills", "administrators"):
        words += [f"--{name}", str(getattr(options, name))]
    if options.presence is not None:
        words.append("--presence" if options.presence else "--no-presence")
    return shlex.join(words)


def storm(options: Options) -> bool:
    """One storm, told of; whether nothing wrong was restored."""
    print(f"seed {options.seed}", file=sys.stderr, flush=True)
    folder = Path(tempfile.mkdtemp(prefix=f"walsyncd-torture-{options.seed}-"))
    kept = f"everything is in {folder}; to repeat it: {again(options)}"
    try:
        report = torture(options, folder)
    except BROKE_OFF:
        traceback.print_exc()
        print(f"seed {options.seed} broke off before its end; {kept}", file=sys.stderr, flush=True)
        return True
    print(json.dumps(asdict(report), indent=2), flush=True)
    if report.wrong:
        print(f"seed {options.seed}: {len(report.wrong)} restores are wrong; {kept}", file=sys.stderr, flush=True)
        return False
    shutil.rmtree(folder)
    return True


def main(words: Sequence[str]) -> int:
    """All storms, one after the other."""
    return 1 if [options for options in parse(words) if not storm(options)] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
