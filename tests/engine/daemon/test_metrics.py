"""Tests of metrics: which there are, where they are published, and that the dashboard and the alerts name
only these.
"""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, running, wait_for
from tests.fakes import Call, FakeStorage
from walsyncd.config import Settings
from walsyncd.engine.daemon.metrics import Shipped
from walsyncd.errors import TransientError

PACKAGING = Path(__file__).parents[3] / "packaging"


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def shown(settings: Settings, *, listen: str | None = None, textfile: Path | None = None) -> Settings:
    return replace(settings, daemon=replace(settings.daemon, metrics_listen=listen, metrics_textfile=textfile))


@contextmanager
def told(place: Place, storage: FakeStorage) -> Iterator[str]:
    """Run a daemon with metrics whose database ``app`` is stored, and return its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    with wal_database(place.database()) as writer, running(shown(place.settings("app"), listen=address), storage):
        writer.execute("insert into t values (1)", "insert into t values (2)")
        place.sync()
        yield address


def read(address: str) -> dict[tuple[str, tuple[str, ...]], float]:
    """Return each sample by name and the values of its labels."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
        text = answer.read().decode()
    samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
    return {(sample.name, tuple(sample.labels.values())): sample.value for sample in samples}


def test_what_was_shipped_and_what_waits_is_told(place: Place) -> None:
    """There are transactions, bytes, requests by kind and result, and the lag while storage is away."""
    storage = FakeStorage()
    with told(place, storage) as address:
        well = read(address)
        assert well["walsyncd_shipped_transactions_total", ("app",)] >= 2
        assert well["walsyncd_shipped_bytes_total", ("app",)] > 0
        assert well["walsyncd_requests_total", ("put_if", "ok")] >= 1
        assert well["walsyncd_lag_seconds", ("app",)] == well["walsyncd_lag_bytes", ("app",)] == 0
        assert well["walsyncd_generations_total", ("app",)] == 1
        assert well["walsyncd_last_base_timestamp_seconds", ("app",)] > 1e9
        assert well["walsyncd_last_upload_timestamp_seconds", ()] > 1e9
        assert well["walsyncd_storage_up", ()] == 1
        assert well["walsyncd_database_state", ("app", "following")] == 1

        def away(_call: Call) -> None:
            raise TransientError("storage is away")

        storage.before = away
        with wal_database(place.folder / "unused.db"):
            place.ask(op="snapshot", name="app")
        wait_for(lambda: read(address)["walsyncd_storage_up", ()] == 0)
        storage.before = lambda _call: None
        wait_for(lambda: read(address)["walsyncd_storage_up", ()] == 1)


def test_every_metric_that_the_dashboard_and_the_alerts_name_exists(place: Place) -> None:
    """The dashboard has each existing metric."""
    with told(place, FakeStorage()) as address:
        # These appear with their first label. Here nothing has ended and nothing was removed.
        later = {"gaps", "wal_restarts", "whole_scans", "removed_objects", "removed_bytes", "compacted_epochs"}
        exist = {name for name, _ in read(address)} | {f"walsyncd_{name}_total" for name in later}
    dashboard = (PACKAGING / "dashboard.json").read_text(encoding="utf-8")
    alerts = (PACKAGING / "alerts.yaml").read_text(encoding="utf-8")
    named = set(re.findall(r"walsyncd_[a-z_]+", dashboard + alerts))
    assert named - exist == set()
    assert exist - set(re.findall(r"walsyncd_[a-z_]+", dashboard)) == set()
    panels = json.loads(dashboard)["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)


@pytest.mark.skipif(shutil.which("promtool") is None, reason="Debian's prometheus has promtool")
def test_prometheus_accepts_the_alerts_and_the_metrics(place: Place) -> None:
    """promtool reports no problem in either."""
    rules = subprocess.run(
        ["promtool", "check", "rules", str(PACKAGING / "alerts.yaml")], capture_output=True, text=True, check=False
    )
    assert rules.returncode == 0, rules.stdout + rules.stderr
    with told(place, FakeStorage()) as address:
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            text = answer.read()
        linted = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, b"")


def test_counts_begin_at_nothing() -> None:
    """A run that has stored nothing has counts of zero."""
    assert Shipped().last_ms == 0


def test_the_ends_of_wals_count_by_what_proved_them(place: Place) -> None:
    """One WAL ends by a restart that the wal-index counts, and one by a last close."""
    with wal_database(place.database()) as app, running(place.settings("app")) as daemon:
        proofs = daemon._environment.proofs
        app.execute("insert into t values (1)")
        place.sync()
        app.execute("pragma wal_checkpoint(truncate)", "insert into t values (2)")
        place.sync()
        wait_for(lambda: any(rule.startswith("count") for rule in list(proofs)))
        app.close()
        wait_for(lambda: proofs["close"])
