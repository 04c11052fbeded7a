"""Tests of which modules a command loads, because monitoring and people run commands again and again."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.replicas import make_replica
from walsyncd.adapters.journal.journal import Journal

SLOW = {"boto3", "botocore", "numpy", "rich", "s3transfer", "urllib3"}


@pytest.mark.parametrize(
    "command",
    [
        ["ls"],
        ["ls", "srv/app.db", "--commits", "--json"],
        ["status", "--json"],
        ["restore", "srv/app.db", "-o", "restored.db", "--if-missing"],
    ],
    ids=" ".join,
)
def test_a_command_loads_what_it_uses(command: list[str], tmp_path: Path) -> None:
    """With a folder as storage none of these commands loads S3, checksums of frames, or tables with borders."""
    (tmp_path / "restored.db").write_bytes(b"a database")
    state_dir = tmp_path / "state"
    Journal.open(state_dir).close()
    config = tmp_path / "config.toml"
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(2)
        maker.ship()
        config.write_text(
            f'[storage]\nurl = "file://{maker.root}"\n[daemon]\nstate_dir = "{state_dir}"\n'
            f'[[database]]\npath = "{maker.path}"\nname = "srv/app.db"\n'
        )
    arguments = [*command, "--config", str(config)]
    script = (
        "import sys; from walsyncd.cli import main\n"
        f"code = main({arguments!r})\n"
        f"print('loaded:', code, sorted({SLOW!r} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert result.stdout.splitlines()[-1] == "loaded: 0 []", result.stderr
