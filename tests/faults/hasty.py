"""Runs the program with shorter waits between tries, so that many faults take seconds, not an hour. Nothing else
differs.

On SIGUSR1 it prints what each of its threads is doing.

It is put before the program's own arguments: ``hasty.py PYTHON -m walsyncd COMMAND …``.
"""

import faulthandler
import runpy
import signal
import sys

from walsyncd.core.send import backoff, refused_request
from walsyncd.engine.base import snapshotter

CAP_SECONDS = 1.5

if __name__ == "__main__":
    faulthandler.register(signal.SIGUSR1)
    defaults = backoff.delay_s.__kwdefaults__
    assert defaults is not None
    defaults["cap_s"] = CAP_SECONDS
    for module, name in (
        (refused_request, "OBJECT_LAST_S"),
        (refused_request, "BASE_S"),
        (snapshotter, "RETRY_S"),
    ):
        assert getattr(module, name) > CAP_SECONDS, f"{name} is no longer what it was"
        setattr(module, name, CAP_SECONDS)
    sys.argv = sys.argv[3:]
    runpy.run_module("walsyncd", run_name="__main__", alter_sys=True)
