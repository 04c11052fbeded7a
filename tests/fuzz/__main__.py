"""``python -m tests.fuzz PART [--seed N] [--seconds S]``: feed one part of walsyncd with input that strangers could
send.

A part is a function of a seed and an empty folder. It raises an AssertionError if a promise was broken. Any other
exception is a failure too, because every input needs an answer. Each seed is a case of its own. The first one that
fails, or does not end, is printed with the command that repeats it. A new part is a module here and a line in
``PARTS``.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

from tests.fuzz import bucket, control, names, side_files, store

SEED_S_MAX = 300  # the slowest case takes seconds on an idle machine

PARTS: dict[str, Callable[[int, Path], None]] = {
    "bucket": bucket.fuzz,
    "control": control.fuzz,
    "names": names.fuzz,
    "side-files": side_files.fuzz,
    "store": store.fuzz,
}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--seed", type=int, default=1, help="the first seed (default: 1)")
    parser.add_argument("--seconds", type=float, default=0, help="go on with the seeds after it for so long")
    args = parser.parse_args()
    end, seed = time.monotonic() + args.seconds, args.seed
    signal.signal(signal.SIGALRM, _without_end)
    while True:
        with tempfile.TemporaryDirectory(prefix="walsyncd-fuzz-") as folder:
            signal.alarm(SEED_S_MAX)
            try:
                PARTS[args.part](seed, Path(folder))
            except Exception:  # noqa: BLE001  whatever it is, the seed has to be printed
                traceback.print_exc()
                print(f"\nbroken: python -m tests.fuzz {args.part} --seed {seed}", file=sys.stderr)
                return 1
        if time.monotonic() >= end:
            break
        seed += 1
    print(f"{args.part}: {seed - args.seed + 1} seeds, nothing broken")
    return 0


def _without_end(_number: int, _frame: object) -> None:
    raise TimeoutError(f"no end after {SEED_S_MAX} s")


if __name__ == "__main__":
    sys.exit(main())
