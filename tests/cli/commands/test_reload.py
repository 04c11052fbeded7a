"""Tests of ``walsyncd reload``, beside a daemon, as the unit calls it, and without one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.adapters.files.sqlite_process import wal_database
from tests.engine.running import Place, serving
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.cli import main
from walsyncd.config import load


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_reload_goes_by_the_file_or_says_what_is_wrong_with_it(
    place: Place, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The unit's own call reads no configuration. The daemon reports what is wrong with it, and continues."""
    file = Path(place.config()[1])
    storage = DirectoryStorage(place.replica)
    with wal_database(place.database()), serving(load(file), storage, lambda: (load(file), storage)):
        place.sync()
        with wal_database(place.database("new")):
            file.write_text(file.read_text() + f'[[database]]\nname = "new"\npath = "{place.database("new")}"\n')
            assert main(["reload", "--config", str(file)]) == 0
            assert capsys.readouterr().out == "reloaded: 2 databases, 1 added\n"
            file.write_text("[storage]\nurl = 1\n")
            monkeypatch.setenv("RUNTIME_DIRECTORY", str(place.state))
            assert main(["reload", "--config", str(file)]) == 1
            assert "storage.url" in capsys.readouterr().err
            place.sync("new")


def test_without_a_daemon_it_fails(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    """Without a daemon nobody reads the configuration."""
    assert main(["reload", *place.config()]) == 1
    assert "no daemon runs" in capsys.readouterr().err


def test_the_unit_s_call_is_light(place: Place) -> None:
    """It does not import the libraries of the configuration and the storage, which take longer than all the rest."""
    code = (
        "import sys, walsyncd.cli as cli; cli.main(['reload']); "
        "print([name for name in ('pydantic', 'boto3', 'numpy', 'rich') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"RUNTIME_DIRECTORY": str(place.folder), "PYTHONPATH": str(Path(__file__).parents[3])},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "[]\n"
    assert "no daemon runs" in done.stderr
