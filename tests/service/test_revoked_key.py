"""Tests of a key that the store no longer accepts, on a host where nobody writes."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path

import pytest

from tests.e2e.daemon import s3_section
from tests.e2e.proxy import run_proxy
from tests.scripted_store import refusal
from tests.service.machine import Machine
from tests.stores import Store, free_ports
from walsyncd.log.journald import MESSAGE_IDS

pytestmark = [pytest.mark.root, pytest.mark.slow]

UNKNOWN_KEY = refusal(403, "InvalidAccessKeyId", "No such key.")


def test_a_revoked_key_shows_on_an_idle_host(tmp_path: Path, seaweedfs: Store) -> None:
    """It is reported in ``status``, in systemd's status, in the journal and the metrics, until the key is
    good again.
    """
    (port,) = free_ports(1)
    metrics = f"127.0.0.1:{port}"
    with run_proxy(seaweedfs) as proxy, Machine(tmp_path) as machine:
        section = s3_section(seaweedfs, seaweedfs.make_bucket(), endpoint_url=proxy.endpoint_url)
        storage = "\n".join(f"{key} = {json.dumps(value)}" for key, value in section.items())
        machine.configure("app", storage=storage, daemon=f'probe_interval = "1s"\nmetrics_listen = "{metrics}"')
        machine.insert("app", 0, 10)
        machine.do("systemctl", "start", "walsyncd")
        machine.walsyncd("sync")
        assert "walsyncd_storage_up 1.0" in scraped(metrics)

        proxy.refuse(UNKNOWN_KEY)
        machine.wait_until(lambda: "walsyncd_storage_up 0.0" in scraped(metrics), "the metrics say so")
        words = "the store answered 403 InvalidAccessKeyId: No such key. (hint: the store does not know this access key"
        assert words in machine.walsyncd("status")
        machine.wait_until(lambda: words in machine.unit("StatusText"), "systemctl status says so")
        (refused,) = machine.events(EVENT="storage_refused")
        assert (refused["PRIORITY"], refused["MESSAGE_ID"]) == ("3", MESSAGE_IDS["storage_refused"])

        proxy.refuse(None)
        machine.wait_until(lambda: "walsyncd_storage_up 1.0" in scraped(metrics), "the metrics say that it is well")
        assert len(machine.events(EVENT="storage_accepted")) == 1
        machine.wait_until(lambda: "refuses" not in machine.unit("StatusText"), "systemctl status says so, too")


def scraped(address: str) -> list[str]:
    """Return the lines that Prometheus gets."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        return str(answer.read(), "ascii").splitlines()
