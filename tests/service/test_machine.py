"""Tests of the service on a real systemd: what operators do to it, and what it does then."""

from __future__ import annotations

import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.machine import Machine
from tests.service.writer import writing
from walsyncd.log.journald import MESSAGE_IDS

pytestmark = [pytest.mark.root, pytest.mark.slow]

# This stops one thread of a process, found by its name, as a debugger would: PTRACE_SEIZE, PTRACE_INTERRUPT
# (ptrace(2)).
HANG = """
import ctypes, os, pathlib, sys
libc = ctypes.CDLL(None, use_errno=True)
tasks = pathlib.Path(f"/proc/{sys.argv[1]}/task").iterdir()
(thread,) = [int(task.name) for task in tasks if (task / "comm").read_text().strip() == sys.argv[2]]
for request in (0x4206, 0x4207):
    assert libc.ptrace(request, thread, None, None) == 0, ctypes.get_errno()
print("stopped", flush=True)
while os.WIFSTOPPED(os.waitpid(thread, 0x40000000)[1]):  # its end has to be taken note of, or the process stays
    pass
"""


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with Machine(tmp_path) as machine:
        yield machine


def test_it_starts_with_nothing_and_takes_good_and_bad_files(machine: Machine) -> None:
    """The unit is ready without a database.

    A reload adds one, a bad file is refused, and the unit survives that and a kill.
    """
    machine.configure()
    machine.do("systemctl", "start", "walsyncd")
    assert machine.unit("ActiveState") == "active"
    assert machine.unit("StatusText") == "no databases to replicate, nothing uploaded yet"
    machine.insert("app", 0, 10)
    machine.configure("app")
    machine.do("systemctl", "reload", "walsyncd")
    machine.walsyncd("sync")
    machine.wait_until(lambda: machine.unit("StatusText").startswith("1 database, 0 behind, last upload 20"), "status")
    generation = machine.status()["app"]["position"].split("/")[0]

    machine.write("/etc/walsyncd/config.toml", "[storage]\nurl = 1\n")
    refused = machine.run("systemctl", "reload", "walsyncd")
    assert refused.returncode != 0
    assert "storage.url" in machine.do("journalctl", "--unit", "walsyncd", "--no-pager")
    assert (machine.unit("ActiveState"), machine.unit("NRestarts")) == ("active", "0")
    machine.configure("app")
    pid = machine.unit("MainPID")
    machine.do("kill", "-HUP", pid)
    machine.insert("app", 10, 20)
    machine.walsyncd("sync")

    machine.do("kill", "-9", pid)
    machine.wait_until(lambda: machine.unit("NRestarts") == "1" and machine.is_active(), "comes back")
    machine.insert("app", 20, 30)
    machine.walsyncd("sync")
    assert machine.status()["app"]["position"].split("/")[0] == generation
    assert machine.restored("app") == list(range(30))
    machine.do("systemctl", "stop", "walsyncd")
    assert machine.unit("Result") == "success"
    assert machine.unit("ExecMainStatus") == "0"


def test_the_watchdog_restarts_a_process_whose_follower_hangs(machine: Machine) -> None:
    """A thread that is stopped at any place is found by the work that it does not do."""
    machine.settle("[Service]\nWatchdogSec=2\n")
    machine.configure("app")
    machine.insert("app", 0, 10)
    machine.do("systemctl", "start", "walsyncd")
    machine.walsyncd("sync")
    pid = machine.unit("MainPID")
    hang = machine.command("python3", "-c", HANG, pid, "follower")
    with subprocess.Popen(hang, stdout=subprocess.PIPE, text=True) as debugger:
        assert debugger.stdout is not None
        assert debugger.stdout.readline() == "stopped\n"
        machine.insert("app", 10, 20)
        machine.wait_until(lambda: machine.unit("NRestarts") == "1", "the watchdog acts")
    machine.wait_until(machine.is_active, "comes back")
    log = machine.do("journalctl", "--unit", "walsyncd", "--no-pager")
    assert "worker_hung" in log
    assert "Watchdog timeout" in log
    assert "Fatal Python error: Aborted" in log
    machine.walsyncd("sync")
    assert machine.restored("app") == list(range(20))


def test_the_sandbox_lets_nothing_be_written_but_its_own_state(machine: Machine) -> None:
    """This is tried inside the running service's namespace, with its user and its capabilities."""
    machine.configure("app")
    machine.insert("app", 0, 10)
    machine.do("chmod", "0600", "/srv/data/app.db")
    machine.do("chmod", "0666", "/srv/data")
    machine.do("systemctl", "start", "walsyncd")
    machine.walsyncd("sync")
    assert machine.restored("app") == list(range(10))
    pid = machine.unit("MainPID")
    inside = ["nsenter", "-t", pid, "-m", "--", "sh", "-c"]
    assert machine.run(*inside, ": >> /srv/data/app.db").returncode != 0, "not even root in there"
    assert machine.run(*inside, ": > /srv/data/new").returncode != 0
    assert machine.run(*inside, ": > /etc/new").returncode != 0
    assert machine.run(*inside, ": > /var/lib/walsyncd/new").returncode == 0
    capabilities = machine.do("sh", "-c", f"grep -E 'Cap(Eff|Bnd)|NoNewPrivs|Seccomp:' /proc/{pid}/status").split()
    only_read = f"{1 << 2:016x}"  # CAP_DAC_READ_SEARCH
    assert capabilities == ["CapEff:", only_read, "CapBnd:", only_read, "NoNewPrivs:", "1", "Seccomp:", "2"]
    assert machine.do("stat", "-c", "%a %U:%G", "/run/walsyncd/control.sock").split() == ["660", "walsyncd:walsyncd"]


def test_a_member_of_the_group_may_ask_and_others_may_not(machine: Machine) -> None:
    """They ask the socket in the runtime directory, and can't look into the state directory."""
    machine.configure("app")
    machine.insert("app", 0, 10)
    machine.do("useradd", "--groups", "walsyncd", "member")
    machine.do("useradd", "stranger")
    machine.do("systemctl", "start", "walsyncd")
    for arguments in (["sync"], ["status"], ["snapshot", "app"], ["reload"]):
        machine.do("runuser", "-u", "member", "--", "walsyncd", *arguments)
    machine.do("chmod", "0644", "/etc/walsyncd/config.toml")
    machine.do("chmod", "0755", "/etc/walsyncd")
    refused = machine.run("runuser", "-u", "stranger", "--", "walsyncd", "sync")
    assert (refused.returncode, "run as root or as the daemon's user" in refused.stderr) == (1, True)


def test_a_stop_under_load_ships_what_was_committed_before_it(machine: Machine) -> None:
    """An application that continues does not prevent a clean stop. The next start ships what came too late."""
    machine.configure("app")
    with writing(machine, "/srv/data/app.db") as writer:
        machine.do("systemctl", "start", "walsyncd")
        machine.walsyncd("sync")
        before = machine.numbers("/srv/data/app.db")
        machine.do("systemctl", "stop", "walsyncd")
        assert (machine.unit("ExecMainStatus"), machine.unit("Result")) == ("0", "success")
        shipped = machine.restored("app")
        assert shipped[: len(before)] == before
        assert shipped == list(range(len(shipped)))
        machine.do("systemctl", "start", "walsyncd")
        committed = writer.stop()
    machine.walsyncd("sync")
    assert machine.restored("app") == list(range(committed))


def test_what_cant_be_shipped_makes_the_stop_a_failure_that_names_it(machine: Machine) -> None:
    """The exit code is 75, and the journal names exactly what was not shipped."""
    machine.configure("app", daemon='stop_timeout = "3s"')
    machine.insert("app", 0, 10)
    machine.do("systemctl", "start", "walsyncd")
    machine.walsyncd("sync")
    machine.do("mv", "/srv/replica/app", "/srv/replica/gone")
    machine.do("ln", "-s", "nowhere/at/all", "/srv/replica/app")
    machine.insert("app", 10, 20)
    machine.run("systemctl", "stop", "walsyncd")
    assert (machine.unit("ExecMainStatus"), machine.unit("Result")) == ("75", "exit-code")
    (left,) = machine.events(EVENT="left_in_spool")
    assert (left["DATABASE"], left["PRIORITY"], left["MESSAGE_ID"]) == ("app", "4", MESSAGE_IDS["left_in_spool"])
    assert int(left["BYTES"]) > 0
    assert json.loads(left["MESSAGE"])["first"] == left["FIRST"]
    (began,) = machine.events(EVENT="generation_began")
    assert left["FIRST"].startswith(began["GENERATION"])
    machine.do("rm", "/srv/replica/app")
    machine.do("mv", "/srv/replica/gone", "/srv/replica/app")
    machine.do("systemctl", "start", "walsyncd")
    machine.walsyncd("sync")
    assert machine.restored("app") == list(range(20))


def test_the_service_and_its_stop_signal(machine: Machine) -> None:
    """A second SIGTERM ends it at once, with the exit code that means that something is left."""
    machine.configure("app")
    machine.insert("app", 0, 10)
    machine.do("systemctl", "start", "walsyncd")
    pid = int(machine.unit("MainPID"))
    machine.do("systemctl", "kill", "--signal", signal.SIGTERM.name, "walsyncd")
    machine.run("systemctl", "kill", "--signal", signal.SIGTERM.name, "walsyncd")
    machine.wait_until(lambda: machine.unit("MainPID") not in {str(pid), "0"}, "Restart=always")
