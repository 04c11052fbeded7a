"""``python -m tests.e2e.impatient PROGRAM...`` runs walsyncd so that it gives up a call that hangs after a second
instead of ten.
"""

from __future__ import annotations

import sys

from walsyncd.cli import main
from walsyncd.engine.threads import hang_watch

if __name__ == "__main__":
    hang_watch.LOOK_S = 0.2
    hang_watch.PROBE_S = 0.5
    sys.exit(main(sys.argv[sys.argv.index("walsyncd") + 1 :]))
