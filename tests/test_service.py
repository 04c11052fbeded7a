import configparser
import re
import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = Path(__file__).parents[1] / "systemd"
UNIT = UNITS / "walsyncd.service"

# The directives that systemd 249 (Ubuntu 22.04) knows, by "Added in version" in systemd.exec(5) and systemd.service(5).
# The newest are LoadCredential and ProtectProc, of 247. A directive that systemd does not know leaves a hole in the
# sandbox, and causes only a warning.
KNOWN = """
    After AmbientCapabilities Before CapabilityBoundingSet DefaultDependencies Description ExecReload ExecStart Group
    KeyringMode LimitNOFILE LoadCredential LockPersonality NoNewPrivileges PrivateDevices PrivateMounts PrivateUsers
    ProtectClock ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs ProtectKernelModules
    ProtectKernelTunables ProtectProc ProtectSystem ReadWritePaths RemoveIPC RemainAfterExit Requires Restart
    RestartPreventExitStatus RestartSec RestrictAddressFamilies RestrictNamespaces RestrictRealtime RestrictSUIDSGID
    RuntimeDirectory RuntimeDirectoryMode StateDirectory StateDirectoryMode SupplementaryGroups SyslogIdentifier
    SystemCallArchitectures SystemCallErrorNumber SystemCallFilter TimeoutStartSec Type UMask User WantedBy Wants
    WatchdogSec
"""


class _Unit(configparser.RawConfigParser):
    """A parser of systemd's syntax, which is close to INI. Keys keep their case, and the last of several counts."""

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
    """systemd reports neither errors nor warnings."""
    result = subprocess.run(
        ["systemd-analyze", "verify", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout + result.stderr) == (0, "")


def test_the_oldest_systemd_knows_every_directive() -> None:
    """Directives that are commented out or in examples count, too, because operators use them."""
    files = [*UNITS.glob("*.service"), *UNITS.glob("*.d/*")]
    assert len(files) == 3
    used = {name for file in files for name in re.findall(r"^#? *([A-Z]\w+)=", file.read_text(), re.MULTILINE)}
    assert used - set(KNOWN.split()) == set()


def test_the_service_may_read_everything_and_write_nothing() -> None:
    """This is the first promise: the service can't harm the database."""
    service = _service()
    assert service["ProtectSystem"] == "strict"
    assert service["ProtectHome"] == "read-only"
    assert service["CapabilityBoundingSet"] == service["AmbientCapabilities"] == "CAP_DAC_READ_SEARCH"
    assert service["NoNewPrivileges"] == "yes"
    assert "ReadWritePaths" not in service
    assert "PrivateTmp" not in service


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_the_service_is_exposed_as_little_as_can_be() -> None:
    """systemd's own rating, from 0 (locked up) to 10, is 2.0 at most, and less with group permissions."""
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=20", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-200:] + judged.stderr


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
def test_a_restore_has_few_of_roots_rights() -> None:
    """systemd's own rating is 2.6 at most. It can't see that Landlock leaves one folder to write to."""
    unit = UNITS / "walsyncd-restore@.service"
    judged = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--threshold=26", "--no-pager", str(unit)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert judged.returncode == 0, judged.stdout[-200:] + judged.stderr
    assert " --confine " in unit.read_text()


def test_the_service_comes_back_whatever_ends_it() -> None:
    """A bug in one thread ends the process, and then systemd starts it again."""
    service = _service()
    assert service["Restart"] == "always"
    assert service["StateDirectory"] == "walsyncd"
    assert service["User"] == "walsyncd"
