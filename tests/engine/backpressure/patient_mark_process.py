"""The child process of backpressure, which holds a lock for as long as a follower on a busy machine may need."""

from __future__ import annotations

import sys

from walsyncd.core.follow import backpressure_decision
from walsyncd.engine.backpressure import mark_process

if __name__ == "__main__":
    backpressure_decision.HOLD_MS_MAX = mark_process.SILENCE_MS = 60_000
    sys.exit(mark_process.main())
