import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1] / "systemd" / "walsyncd.service"


class _Unit(configparser.RawConfigParser):
    """systemd's syntax is close to INI; keys keep their case, the last of several counts."""

    def __init__(self) -> None:
        super().__init__(strict=False, interpolation=None)

    def optionxform(self, optionstr: str) -> str:
        return optionstr


def _service() -> dict[str, str]:
    unit = _Unit()
    unit.read(UNIT)
    return dict(unit["Service"])


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_systemd_accepts_the_unit_without_a_word() -> None:
    """Neither errors nor warnings."""
    result = subprocess.run(
        ["systemd-analyze", "verify", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_the_service_may_read_everything_and_write_nothing() -> None:
    """The first promise: it cannot harm the database."""
    service = _service()
    assert service["ProtectSystem"] == "strict"
    assert service["ProtectHome"] == "read-only"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_DAC_READ_SEARCH"
    assert service["NoNewPrivileges"] == "yes"
    assert "ReadWritePaths" not in service
    assert "PrivateTmp" not in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_service_is_exposed_as_little_as_can_be() -> None:
    """systemd's own judgement, from 0 (locked up) to 10, is 2.0 at most; with group permissions it is less."""
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-200:] + judged.stderr


def test_the_service_comes_back_whatever_ends_it() -> None:
    """A bug in one thread ends the process, and systemd starts it again."""
    service = _service()
    assert service["Restart"] == "always"
    assert service["StateDirectory"] == "walsyncd"
    assert service["User"] == "walsyncd"
