"""Tests of real-time scheduling for backpressure's process, which needs the drop-in of walsyncd-operating(7)."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.readme import PAGES, blocks
from tests.service.machine import CONFIG, Machine

pytestmark = [pytest.mark.root, pytest.mark.slow]


@pytest.mark.parametrize("is_permitted", [True, False])
def test_the_drop_in_permits_it(tmp_path: Path, *, is_permitted: bool) -> None:
    """Without the drop-in the unit refuses it, the log says so with the remedy, and the database is followed all the
    same.
    """
    (drop_in,) = [block.text for block in blocks("ini", PAGES["operating"]) if "LimitRTPRIO" in block.text]
    with Machine(tmp_path) as machine:
        # The same interpreter starts the process, and walsyncd is installed for it everywhere but in the box.
        machine.settle("[Service]\nEnvironment=PYTHONPATH=/usr/lib/walsyncd/source:/usr/lib/walsyncd/libraries\n")
        machine.configure("app")
        machine.do("sed", "-i", "s/^upload_interval/backpressure = true\\n&/", CONFIG)
        machine.insert("app", 0, 10)
        if is_permitted:
            # A box may not raise limits, so it uses the capability in place of a raised limit. All else is the page's.
            drop_in += "AmbientCapabilities=CAP_SYS_NICE\nCapabilityBoundingSet=CAP_SYS_NICE\n"
            machine.write("/etc/systemd/system/walsyncd.service.d/backpressure.conf", drop_in)
            machine.do("systemctl", "daemon-reload")
            assert machine.unit("LimitRTPRIO") == "1"
        machine.do("systemctl", "start", "walsyncd")
        machine.insert("app", 10, 20)
        machine.walsyncd("sync", "app")
        assert machine.restored("app") == list(range(20))
        (child,) = machine.do("pgrep", "-f", "mark_process").split()
        policy = machine.do("python3", "-c", f"import os; print(os.sched_getscheduler({child}) == os.SCHED_RR)")
        assert policy.strip() == str(is_permitted)
        refused = machine.events(EVENT="backpressure_process_not_real_time")
        assert bool(refused) != is_permitted
