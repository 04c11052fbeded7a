"""Tests of adapters/system/exporter.py: where metrics are published, and the errors if that fails."""

from __future__ import annotations

import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from tests.stores import LOOPBACK, free_ports
from walsyncd.adapters.system.exporter import TEXTFILE_S, Exporter
from walsyncd.core.keep.metric import Metric
from walsyncd.errors import UsageError

METRICS = [
    Metric("lag_seconds", "Lag.", ("database",), {("a",): 1.5, ("b",): 0.0}),
    Metric("gaps", "Gaps.", (), {(): 3.0}, counts=True),
]
TEXT = """# HELP walsyncd_lag_seconds Lag.
# TYPE walsyncd_lag_seconds gauge
walsyncd_lag_seconds{database="a"} 1.5
walsyncd_lag_seconds{database="b"} 0.0
# HELP walsyncd_gaps_total Gaps.
# TYPE walsyncd_gaps_total counter
walsyncd_gaps_total 3.0
"""


def test_a_file_for_node_exporter_is_written_whole(tmp_path: Path) -> None:
    """The file is written at once, and then a few times a minute. Readers never see it half written."""
    file = tmp_path / "walsyncd.prom"
    exporter = Exporter(lambda: METRICS)
    assert exporter.due_s() is None
    exporter.settle(listen=None, textfile=file)
    assert exporter.due_s() == 0
    exporter.write()
    assert file.read_text() == TEXT
    assert list(tmp_path.iterdir()) == [file]
    assert 0 < (exporter.due_s() or 0) <= TEXTFILE_S


def test_a_file_that_cant_be_written_is_an_error_with_a_way_out(tmp_path: Path) -> None:
    """The error has a hint. The file is not tried again before the next regular time."""
    exporter = Exporter(lambda: METRICS)
    exporter.settle(listen=None, textfile=tmp_path / "absent" / "walsyncd.prom")
    with pytest.raises(UsageError, match=r"write metrics to .*/absent/walsyncd.prom: .* \(hint: .*ReadWritePaths="):
        exporter.write()
    assert exporter.due_s() != 0


def test_an_address_that_is_taken_is_refused_and_nothing_changes() -> None:
    """The error has the reason and what to do. The earlier address is still served."""
    first, second = (f"{LOOPBACK}:{port}" for port in free_ports(2))
    one, other = Exporter(lambda: METRICS), Exporter(lambda: METRICS)
    one.settle(listen=first, textfile=None)
    other.settle(listen=second, textfile=None)
    with pytest.raises(UsageError, match=rf"listen for metrics on {first}: .* \(hint: choose another metrics_listen"):
        other.settle(listen=first, textfile=None)
    for address in (first, second):
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=30) as answer:
            assert answer.read().decode() == TEXT
    for exporter in (one, other):
        exporter.settle(listen=None, textfile=None)


def test_who_shows_no_metrics_does_not_load_their_library() -> None:
    """A daemon without metrics does not load the library, because it should need as little memory as possible."""
    script = "import sys, walsyncd.engine.daemon.daemon; print([name for name in sys.modules if 'prometheus' in name])"
    loaded = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert loaded.stdout.strip() == "[]"
