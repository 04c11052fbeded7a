"""How long a fuzzer runs, and from which seed: short in the suite, for as long as is asked for by hand.

``WALSYNCD_FUZZ_SECONDS=3600 pytest tests/fuzz`` runs each fuzzer for an hour. What fails has its seed in a note, and
``WALSYNCD_FUZZ_SEED`` begins with that one.
"""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable

CASES = 300  # in the suite


def fuzz(case: Callable[[random.Random], None], *, cases: int = CASES) -> None:
    """Run ``case`` with one generator of random numbers after the other."""
    first = int(os.environ.get("WALSYNCD_FUZZ_SEED", "1"))
    until_s = time.monotonic() + float(os.environ.get("WALSYNCD_FUZZ_SECONDS", "0"))
    seed = first
    while seed < first + cases or time.monotonic() < until_s:
        try:
            case(random.Random(seed))
        except BaseException as error:
            error.add_note(f"WALSYNCD_FUZZ_SEED={seed}")
            raise
        seed += 1
