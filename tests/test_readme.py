"""Every command of the README runs, on a machine below a temporary folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.readme import README, blocks, script_by_hand
from tests.replicas import ReplicaMaker, counter_in, make_replica
from walsyncd.cli import EXIT_CODES
from walsyncd.config import load

ROOT = README.parent
NAME = "var/lib/app/app.db"
URL = "s3://my-bucket/hosts/web-1"
POSITION = "20261122T105600Z-3f9c1a2b/00000001/00000009"
STOP_SECONDS_MAX = 40.0

# Stand-ins for what would change the machine that the tests run on; `systemctl` starts what the unit would start.
STAND_INS = {
    "walsyncd": f'PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m walsyncd "$@"',
    "python3": 'mkdir -p "$3/bin" && ln -s "$(command -v pip)" "$(command -v walsyncd)" "$3/bin"',
    "pip": 'echo "$@" > "$MACHINE/pip"',
    "systemd-sysusers": 'touch "$MACHINE/sysusers"',
    "systemctl": 'echo "$@" >> "$MACHINE/systemctl"\n'
    'case "$1" in enable) walsyncd run < /dev/null > "$MACHINE/log" 2>&1 & echo $! > "$MACHINE/pid";; esac',
}

# Every block is run by a test here, by tests/packaging/test_deb.py (the package), or (the two of "See it") by .ci/run.
SH_BLOCKS = Counter(
    {
        "See it": 2,
        "Install": 2,
        "Configure and check": 3,
        "Restore": 4,
        "Restore by hand": 2,
        "What is kept, and what it costs": 1,
    }
)


class Machine:
    """Where the README's commands run: its absolute paths lie below ``root``, its bucket is a folder there."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.bucket = root / "bucket"
        self.config = root / "etc/walsyncd/config.toml"
        self.database = root / NAME
        for folder in (
            "stand-ins",
            "etc/systemd/system",
            "usr/local/bin",
            "usr/lib/sysusers.d",
            "srv/restored",
            "var/lib/app",
            "state",
        ):
            (root / folder).mkdir(parents=True)
        for name, script in STAND_INS.items():
            file = root / "stand-ins" / name
            file.write_text(f"#!/bin/sh -eu\n{script}\n")
            file.chmod(0o755)

    def configure(self) -> None:
        """The README's bucket and first database."""
        self.config.parent.mkdir(parents=True)
        self.config.write_text(
            f'[storage]\nurl = "{self.bucket.as_uri()}"\n[daemon]\nstate_dir = "{self.root}/state"\n'
            f'[[database]]\npath = "{self.database}"\nname = "{NAME}"\n'
        )

    def moved(self, text: str) -> str:
        """A command with the machine's own places in it."""
        text = text.replace(URL, self.bucket.as_uri())
        return re.sub(r"(?<![\w:/.])/(etc|opt|srv|usr/lib|usr/local|var/lib)/", rf"{self.root}/\1/", text)

    def run(self, text: str, *, folder: Path = ROOT) -> str:
        """Run a block as a whole; what it prints."""
        environment = os.environ | {
            "PATH": f"{self.root}/stand-ins:{os.environ['PATH']}",
            "MACHINE": str(self.root),
            "WALSYNCD_CONFIG": str(self.config),
            "TZ": "UTC",
        }
        result = subprocess.run(
            ["sh", "-euc", self.moved(text)],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert result.returncode == 0, result.stdout + result.stderr
        return result.stdout

    def stop(self) -> None:
        """End the daemon that `systemctl enable --now` started: a child of a shell that has ended."""
        file = self.root / "pid"
        if file.exists():
            pid = int(file.read_text())
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
            deadline = time.monotonic() + STOP_SECONDS_MAX
            while _is_running(pid) and time.monotonic() < deadline:
                time.sleep(0.05)


def _is_running(pid: int) -> bool:
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    machine = Machine(tmp_path / "machine")
    yield machine
    machine.stop()


@contextmanager
def _replica(machine: Machine, folder: Path) -> Iterator[ReplicaMaker]:
    """Ten commits, a second apart from 10:56:01 on, in the machine's bucket."""
    machine.configure()
    with make_replica(folder, name=NAME) as maker:
        maker.base()
        maker.commit(10, rows=3)
        maker.ship(every=2)
        machine.bucket.symlink_to(maker.root)
        yield maker


def _sh(section: str) -> list[str]:
    return [block.text for block in blocks("sh") if block.section == section]


def test_no_block_is_forgotten() -> None:
    """A new one needs a test here."""
    assert Counter(block.section for block in blocks("sh")) == SH_BLOCKS
    assert Counter(block.language for block in blocks("")) == Counter()


def test_the_two_set_up_commands_are_what_ci_runs() -> None:
    """Each is one line, found in the README by .ci/run itself."""
    commands = re.findall(r"\$\((grep [^)]*README\.md)\)", (ROOT / ".ci/run").read_text())
    found = [
        subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
        for command in commands
    ]
    assert sorted(found) == sorted(_sh("See it"))
    assert all(text.count("\n") == 1 for text in found)


def test_install_puts_everything_in_its_place(machine: Machine) -> None:
    """The unit's program is on the path, its configuration is there for its group only, its user is made."""
    _package, block = _sh("Install")
    machine.run(block.replace(" -g walsyncd", ""))
    assert block.count(" -g walsyncd") == 1
    assert (machine.root / "usr/local/bin/walsyncd").samefile(machine.root / "stand-ins/walsyncd")
    assert machine.config.read_text() == (ROOT / "config.example.toml").read_text()
    assert machine.config.stat().st_mode & 0o777 == 0o640
    unit = machine.root / "etc/systemd/system/walsyncd.service"
    assert unit.read_text() == (ROOT / "systemd/walsyncd.service").read_text()
    assert (machine.root / "systemctl").read_text() == "daemon-reload\n"
    assert (machine.root / "pip").read_text() == "install -q .\n"
    users = machine.root / "usr/lib/sysusers.d/walsyncd.conf"
    assert "u walsyncd " in users.read_text()
    assert (machine.root / "sysusers").exists()


def test_the_configuration_is_valid(tmp_path: Path) -> None:
    """As it stands there, with defaults for all the rest."""
    block, *_ = blocks("toml")
    file = tmp_path / "config.toml"
    file.write_text(block.text)
    settings = load(file)
    assert settings.storage.url == URL
    assert [entry.path for entry in settings.databases] == [f"/{NAME}", "/srv/tenants/*/data.db"]


def test_what_is_kept_is_valid(tmp_path: Path) -> None:
    """Keep rules go with what is built in, and a store that removes by age with room to spare."""
    _, drills, rules, without_deletion = blocks("toml")
    file = tmp_path / "config.toml"
    file.write_text(f'[storage]\nurl = "{URL}"\n{drills.text}\n[[database]]\npath = "/{NAME}"\n')
    assert load(file).databases[0].verify_interval_s == 7 * 86_400
    file.write_text(f'[storage]\nurl = "{URL}"\n{rules.text}\n[[database]]\npath = "/{NAME}"\n')
    (entry,) = load(file).databases
    assert (entry.keep.daily, entry.keep.weekly, entry.keep.monthly) == (14, 8, 12)
    file.write_text(f'{without_deletion.text}\nurl = "{URL}"\n[[database]]\npath = "/{NAME}"\n')
    assert load(file).storage.expire_after_s == 30 * 86_400
    for policy in blocks("json"):
        assert json.loads(policy.text)


def test_a_machine_is_checked_started_and_synced(machine: Machine, tmp_path: Path) -> None:
    """Configure and check, from above to below."""
    machine.configure()
    with make_replica(tmp_path) as maker:
        maker.commit(3)
        maker.checkpoint()
        machine.database.write_bytes(maker.path.read_bytes())
    start, status, sync = _sh("Configure and check")
    assert "problem" not in machine.run(start)
    assert (machine.root / "systemctl").read_text() == "enable --now walsyncd\n"
    _wait_for(machine.root / "state/control.sock")
    assert machine.run(status).startswith("daemon: running")
    synced, snapshot = machine.run(sync).splitlines()
    assert synced.startswith(f"{NAME} ")
    assert snapshot.startswith(f"{NAME} ")
    assert len(list(machine.bucket.rglob("base/*.json.zst"))) >= 1
    (prune,) = _sh("What is kept, and what it costs")
    assert "0 of " in machine.run(prune)
    machine.run(_sh("Restore")[0])
    assert counter_in(machine.root / "srv/restored/app.db") == 3


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def test_every_restore_gives_what_it_says(machine: Machine, tmp_path: Path) -> None:
    """The head, a moment, a position, a URL without a configuration; and verify finds all sound."""
    with _replica(machine, tmp_path) as maker:
        text = "".join(_sh("Restore"))
        assert text.count(POSITION) == 1
        out = machine.run(text.replace(POSITION, str(maker.history[2].position)))
    names = ("app", "before", "exact", "elsewhere")
    assert [counter_in(machine.root / f"srv/restored/{name}.db") for name in names] == [10, 5, 3, 10]
    assert counter_in(machine.root / "srv/restored/all" / NAME) == 10
    assert "all of it is sound" in out.splitlines()[-1]


def test_a_service_restores_what_is_missing_and_only_that(machine: Machine, tmp_path: Path) -> None:
    """Twice the same command: the second time the file is there, whatever it is."""
    (block,) = blocks("ini")
    (command,) = re.findall(r"^ExecStartPre=/usr/local/bin/(.*)$", block.text, re.MULTILINE)
    with _replica(machine, tmp_path):
        machine.run(command)
        assert counter_in(machine.database) == 10
        machine.database.write_text("precious")
        machine.run(command)
        assert machine.database.read_text() == "precious"


def test_restoring_by_hand_is_two_blocks(machine: Machine, tmp_path: Path) -> None:
    """The script as a file, and how to call it in a downloaded folder."""
    (usage,) = [text for text in _sh("Restore by hand") if not text.startswith("#!")]
    with _replica(machine, tmp_path) as maker:
        (maker.folder.parent / "restore-by-hand.sh").write_text(script_by_hand())
        machine.run(usage, folder=maker.folder.parent)
    assert counter_in(machine.root / "srv/restored/by-hand.db") == 10


def test_exit_codes_are_those_of_the_help() -> None:
    """Numbers and first words."""
    table = dict(re.findall(r"^\| (\d+) \| ([^;:|]*?)[;:|]", README.read_text(encoding="utf-8"), re.MULTILINE))
    said = dict(re.findall(r"^  (\d)  (.*)$", EXIT_CODES, re.MULTILINE))
    assert said.items() <= {number: text.strip() for number, text in table.items()}.items()


def test_links_lead_somewhere() -> None:
    """Files of the repository, and headings of the page."""
    text = README.read_text(encoding="utf-8")
    headings = {heading.lower().replace(" ", "-") for heading in re.findall(r"^## (.*)$", text, re.MULTILINE)}
    for link in re.findall(r"\]\(([^)]*)\)", text):
        assert link[1:] in headings if link.startswith("#") else (ROOT / link).exists(), link
