"""The child process of backpressure on a busy machine: it starts late, and real-time scheduling is not permitted."""

from __future__ import annotations

import os
import sys
import time

from walsyncd.engine.backpressure import mark_process


def refuse(*_arguments: object) -> None:
    raise PermissionError


if __name__ == "__main__":
    time.sleep(1.0)
    os.sched_setscheduler = refuse
    sys.exit(mark_process.main())
