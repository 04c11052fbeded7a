"""Tests that every command of the README and of the pages of section 7 runs, on a machine below a temporary folder."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from tests.readme import PAGES, README, blocks, script_by_hand
from tests.replicas import ReplicaMaker, counter_in, make_replica
from walsyncd.cli import EXIT_CODES
from walsyncd.config import load

ROOT = README.parent
NAME = "var/lib/app/app.db"
URL = "s3://my-bucket/hosts/web-1"
POSITION = "20261122T105600Z-3f9c1a2b/00000001/00000009"
STOP_SECONDS_MAX = 40.0

# These programs replace those that would change the machine of the tests. `systemctl` starts what the unit would start.
STAND_INS = {
    "walsyncd": f'PYTHONPATH={shlex.quote(str(ROOT))} exec {shlex.quote(sys.executable)} -m walsyncd "$@"',
    "python3": 'mkdir -p "$3/bin" && ln -s "$(command -v pip)" "$(command -v walsyncd)" "$3/bin"',
    "pip": 'echo "$@" > "$MACHINE/pip"',
    "systemd-sysusers": 'touch "$MACHINE/sysusers"',
    "systemctl": 'echo "$@" >> "$MACHINE/systemctl"\n'
    'case "$1" in enable) walsyncd run < /dev/null > "$MACHINE/log" 2>&1 & echo $! > "$MACHINE/pid";; esac',
}

# Each block is run by a test here, by tests/packaging/test_deb.py (the package), or (the two of "See it") by .ci/run.
SH_BLOCKS = Counter(
    {
        "See it": 2,
        "Install": 2,
        "Configure and check": 2,
        "Restore": 3,
        "Restore by hand": 2,
    }
)

# The blocks on the pages of section 7, by page and section.
PAGE_BLOCKS = Counter(
    {
        ("operating", "See how it goes"): 1,
        ("operating", "Change the configuration"): 1,
        ("operating", "Run it once"): 1,
        ("operating", "Verify and rehearse"): 1,
        ("operating", "Forget a database"): 1,
        ("costs", "What is kept"): 1,
        ("containers", "One container: exec"): 1,
        ("containers", "Without a daemon"): 1,
        ("litestream", "Beside each other for a week"): 1,
        ("litestream", "Then stop Litestream and undo what it asked for"): 1,
    }
)
README_LINES_MAX = 200


class Machine:
    """The machine on which the README's commands run.

    Its absolute paths are below ``root``, and its bucket is a folder there.
    """

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
        """Configure the README's bucket and first database."""
        self.config.parent.mkdir(parents=True)
        self.config.write_text(
            f'[storage]\nurl = "{self.bucket.as_uri()}"\n[daemon]\nstate_dir = "{self.root}/state"\n'
            f'[[database]]\npath = "{self.database}"\nname = "{NAME}"\n'
        )

    def moved(self, text: str) -> str:
        """Return a command with the machine's own paths in it."""
        text = text.replace(URL, self.bucket.as_uri())
        return re.sub(r"(?<![\w:/.])/(etc|opt|srv|usr/lib|usr/local|var/lib)/", rf"{self.root}/\1/", text)

    def run(self, text: str, *, folder: Path = ROOT) -> str:
        """Run a block as a whole. Return what it prints."""
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
        """End the daemon that `systemctl enable --now` started, which is a child of a shell that has ended."""
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
    """Store ten commits, a second apart from 10:56:01 on, in the machine's bucket."""
    machine.configure()
    with make_replica(folder, name=NAME) as maker:
        maker.base()
        maker.commit(10, rows=3)
        maker.ship(every=2)
        machine.bucket.symlink_to(maker.root)
        yield maker


def _sh(section: str, page: str = "") -> list[str]:
    return [block.text for block in blocks("sh", PAGES[page] if page else README) if block.section == section]


def test_no_block_is_forgotten() -> None:
    """A new block needs a test here."""
    assert Counter(block.section for block in blocks("sh")) == SH_BLOCKS
    found = Counter((name, block.section) for name, page in PAGES.items() for block in blocks("sh", page))
    assert found == PAGE_BLOCKS
    assert [block for page in (README, *PAGES.values()) for block in blocks("", page)] == []


def test_the_readme_is_short() -> None:
    """All other facts are on the pages that it names."""
    assert len(README.read_text(encoding="utf-8").splitlines()) <= README_LINES_MAX


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
    """The unit's program is on the path, only its group can read the configuration, and its user is made."""
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
    """The configuration is valid as it is, with defaults for all the rest."""
    block, *_ = blocks("toml")
    file = tmp_path / "config.toml"
    file.write_text(block.text)
    settings = load(file)
    assert settings.storage.url == URL
    assert [entry.path for entry in settings.databases] == [f"/{NAME}", "/srv/tenants/*/data.db"]


def test_what_the_pages_configure_is_valid(tmp_path: Path) -> None:
    """The pages configure notifications, drills, keep rules, and a store that removes by age with time to spare."""
    file = tmp_path / "config.toml"
    notify, drills = blocks("toml", PAGES["operating"])
    rules, without_deletion = blocks("toml", PAGES["costs"])
    rest = f'[[database]]\npath = "/{NAME}"\n'
    file.write_text(f'[storage]\nurl = "{URL}"\n{notify.text}\n{drills.text}\n{rest}')
    settings = load(file)
    assert settings.databases[0].verify_interval_s == 7 * 86_400
    assert settings.notify.is_wanted
    file.write_text(f'[storage]\nurl = "{URL}"\n{rules.text}\n{rest}')
    (entry,) = load(file).databases
    assert (entry.keep.daily, entry.keep.weekly, entry.keep.monthly) == (14, 8, 12)
    file.write_text(f'{without_deletion.text}\nurl = "{URL}"\n{rest}')
    assert load(file).storage.expire_after_s == 30 * 86_400
    for policy in blocks("json", PAGES["costs"]):
        assert json.loads(policy.text)


def test_a_machine_is_checked_started_and_synced(machine: Machine, tmp_path: Path) -> None:
    """The sections Configure and Check are run from top to bottom."""
    machine.configure()
    with make_replica(tmp_path) as maker:
        maker.commit(3)
        maker.checkpoint()
        machine.database.write_bytes(maker.path.read_bytes())
    start, status = _sh("Configure and check")
    (sync,) = _sh("Change the configuration", "operating")
    assert "problem" not in machine.run(start)
    assert (machine.root / "systemctl").read_text() == "enable --now walsyncd\n"
    _wait_for(machine.root / "state/control.sock")
    assert machine.run(status).startswith("daemon: running")
    assert NAME in machine.run(_sh("See how it goes", "operating")[0])
    synced, snapshot = machine.run(sync).splitlines()
    assert synced.startswith(f"{NAME} ")
    assert snapshot.startswith(f"{NAME} ")
    assert len(list(machine.bucket.rglob("base/*.json.zst"))) >= 1
    (prune,) = _sh("What is kept", "costs")
    assert "0 of " in machine.run(prune)
    machine.run(_sh("Restore")[0])
    assert counter_in(machine.root / "srv/restored/app.db") == 3


def _wait_for(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} did not appear"
        time.sleep(0.05)


def test_every_restore_gives_what_it_says(machine: Machine, tmp_path: Path) -> None:
    """The blocks restore the head, a moment, a position, and a URL without a configuration. Verify finds all sound."""
    with _replica(machine, tmp_path) as maker:
        text = "".join([*_sh("Restore"), *_sh("Verify and rehearse", "operating")])
        assert text.count(POSITION) == 1
        out = machine.run(text.replace(POSITION, str(maker.history[2].position)))
    names = ("app", "before", "exact", "elsewhere")
    assert [counter_in(machine.root / f"srv/restored/{name}.db") for name in names] == [10, 5, 3, 10]
    assert counter_in(machine.root / "srv/restored/all" / NAME) == 10
    assert "all of it is sound" in out.splitlines()[-1]


def test_a_service_restores_what_is_missing_and_only_that(machine: Machine, tmp_path: Path) -> None:
    """The same command runs twice. The second time the file exists, whatever it is."""
    block = next(block for block in blocks("ini", PAGES["operating"]) if "ExecStartPre" in block.text)
    (command,) = re.findall(r"^ExecStartPre=/usr/local/bin/(.*)$", block.text, re.MULTILINE)
    with _replica(machine, tmp_path):
        machine.run(command)
        assert counter_in(machine.database) == 10
        machine.database.write_text("precious")
        machine.run(command)
        assert machine.database.read_text() == "precious"


def test_restoring_by_hand_is_two_blocks(machine: Machine, tmp_path: Path) -> None:
    """One is the script as a file, and one calls it in a downloaded folder."""
    (usage,) = [text for text in _sh("Restore by hand") if not text.startswith("#!")]
    with _replica(machine, tmp_path) as maker:
        (maker.folder.parent / "restore-by-hand.sh").write_text(script_by_hand())
        machine.run(usage, folder=maker.folder.parent)
    assert counter_in(machine.root / "srv/restored/by-hand.db") == 10


def test_exit_codes_are_those_of_the_help() -> None:
    """Numbers and first words are compared."""
    text = PAGES["operating"].read_text(encoding="utf-8")
    table = dict(re.findall(r"^\| (\d+) \| ([^;:|]*?)[;:|]", text, re.MULTILINE))
    said = dict(re.findall(r"^  (\d)  (.*)$", EXIT_CODES, re.MULTILINE))
    assert said.items() <= {number: text.strip() for number, text in table.items()}.items()


def test_links_lead_somewhere() -> None:
    """They lead to files of the repository, or to headings of the page."""
    for page in (README, *PAGES.values()):
        text = page.read_text(encoding="utf-8")
        for link in re.findall(r"\]\(([^)]*)\)", text):
            name, _, heading = link.partition("#")
            target = page.parent / name if name else page
            assert target.exists(), f"{page.name}: {link}"
            if heading:
                headings = re.findall(r"^##+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
                assert heading in {each.lower().replace(" ", "-") for each in headings}, f"{page.name}: {link}"


def test_once_exec_and_forget_run_as_the_pages_say(machine: Machine) -> None:
    """A round ships everything, an application runs beside a daemon, and an unused replica is deleted."""
    machine.configure()
    with closing(sqlite3.connect(machine.database)) as connection:
        connection.execute("CREATE TABLE t (x)")
    for page, section in (("operating", "Run it once"), ("containers", "Without a daemon")):
        machine.run(_sh(section, page)[0])
    assert len(list(machine.bucket.rglob("base/*.json.zst"))) == 1
    (command,) = _sh("One container: exec", "containers")
    assert "an application runs here" in machine.run(command)
    (forget,) = _sh("Forget a database", "operating")
    gone = "srv/tenants/gone/data.db"
    (machine.bucket / NAME).rename(machine.bucket / "moved")
    (machine.bucket / gone).parent.mkdir(parents=True)
    (machine.bucket / "moved").rename(machine.bucket / gone)
    assert "nothing is left" in machine.run(forget)
    assert list(machine.bucket.rglob("*.zst")) == []


def test_leaving_litestream(machine: Machine, tmp_path: Path) -> None:
    """Its tables and its folder are deleted, and the database is as the application left it.

    The two can be compared before.
    """
    with _replica(machine, tmp_path) as maker:
        machine.database.write_bytes(maker.path.read_bytes())
        check, *_ = _sh("Beside each other for a week", "litestream")
        machine.run(f"install -d -m 0700 /srv/restored\n{check}")
    assert counter_in(machine.root / "srv/restored/compared.db") == 10
    (sql,) = blocks("sql", PAGES["litestream"])
    with closing(sqlite3.connect(machine.database)) as connection:
        connection.execute("CREATE TABLE _litestream_seq (id INTEGER PRIMARY KEY, seq INTEGER)")
        connection.execute("CREATE TABLE _litestream_lock (id INTEGER)")
        connection.executescript(sql.text)
        left = connection.execute("SELECT name FROM sqlite_master WHERE name LIKE '%litestream%'").fetchall()
    assert left == []
    folder = machine.database.with_name(f".{machine.database.name}-litestream")
    folder.mkdir()
    machine.run(_sh("Then stop Litestream and undo what it asked for", "litestream")[0])
    assert not folder.exists()
