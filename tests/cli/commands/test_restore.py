"""Tests of ``walsyncd restore`` as people and unit files call it."""

from __future__ import annotations

import json
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tests.replicas import NEXT_GENERATION, RANGE_BYTES, ReplicaMaker, counter_in, make_replica
from tests.stores import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Store
from walsyncd.cli import main
from walsyncd.core.restore.plan import Head
from walsyncd.core.stored.manifest import format_manifest, parse_manifest
from walsyncd.engine.restore.planner import RestoreRequest
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import restore_request


class Shell:
    """A machine with a configuration; ``run`` gives the exit code and what was printed."""

    def __init__(self, maker: ReplicaMaker, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.maker = maker
        self.folder = folder
        self.out = folder / "out.db"
        self._capsys = capsys
        self._config = folder / "config.toml"
        self._config.write_text(
            f'[storage]\nurl = "file://{folder}/replica"\n[daemon]\nstate_dir = "{folder}/state"\n'
            '[[database]]\npath = "/srv/app.db"\n[[database]]\npath = "/srv/tenants/*/data.db"\n'
        )

    def run(self, *arguments: str, name: str = "srv/app.db") -> tuple[int, str, str]:
        code = main(["restore", "--config", str(self._config), name, "-o", str(self.out), *arguments])
        printed = self._capsys.readouterr()
        return code, printed.out, printed.err

    def run_json(self, *arguments: str) -> dict[str, Any]:
        code, out, _ = self.run("--json", *arguments)
        assert code == 0
        facts: dict[str, Any] = json.loads(out)
        return facts


@pytest.fixture
def shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Shell]:
    with make_replica(tmp_path) as maker:
        yield Shell(maker, tmp_path, capsys)


@pytest.fixture
def filled(shell: Shell) -> Shell:
    """Store a base and five transactions in two segments."""
    shell.maker.base()
    shell.maker.commit(5)
    shell.maker.ship(every=3)
    return shell


def test_head_is_one_line_on_stdout(filled: Shell) -> None:
    """The line has position, time, transactions and bytes. Nothing is printed on stderr."""
    code, out, err = filled.run()
    position = filled.maker.history[-1].position
    size = filled.out.stat().st_size
    assert (code, err) == (0, "")
    assert out == (
        f"restored {filled.out}: position {position}, time 2026-11-22T10:56:05.000Z, 5 transactions, {size} bytes\n"
    )
    assert counter_in(filled.out) == 5


def test_url_needs_no_configuration(
    filled: Shell, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The URL of a database's folder is enough."""
    monkeypatch.setattr("walsyncd.config.loading.DEFAULT_FILE", tmp_path / "none.toml")
    assert main(["restore", f"file://{filled.folder}/replica/srv/app.db", "-o", str(filled.out)]) == 0
    assert capsys.readouterr().err == ""
    assert counter_in(filled.out) == 5


def test_bucket_needs_the_environment_only(
    filled: Shell, moto: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Endpoint and credentials come from boto3's own variables."""
    monkeypatch.setattr("walsyncd.config.loading.DEFAULT_FILE", tmp_path / "none.toml")
    monkeypatch.setenv("AWS_ENDPOINT_URL", moto.endpoint_url)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY_ID)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_ACCESS_KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    bucket = moto.make_bucket()
    client = moto.client()
    for path in (filled.folder / "replica" / "srv").rglob("*.zst"):
        key = f"hosts/{path.relative_to(filled.folder / 'replica')}"
        client.put_object(Bucket=bucket, Key=key, Body=path.read_bytes())
    client.close()
    assert main(["restore", f"s3://{bucket}/hosts/srv/app.db", "-o", str(filled.out)]) == 0
    assert counter_in(filled.out) == 5


@pytest.mark.parametrize("text", ["2026-11-22T10:56:02Z", "2026-11-22T12:56:02.999+02:00"])
def test_at_a_moment(filled: Shell, text: str) -> None:
    """Any form of RFC 3339 gives the last commit at or before it."""
    filled.run("--at", text)
    assert counter_in(filled.out) == 2


def test_at_local_time(filled: Shell) -> None:
    """A time without an offset is that of this machine."""
    local = datetime(2026, 11, 22, 10, 56, 3, tzinfo=UTC).astimezone()
    assert filled.run("--at", f"{local:%Y-%m-%d %H:%M:%S}")[0] == 0
    assert counter_in(filled.out) == 3


@pytest.mark.parametrize("text", ["2026-03-29 02:30:00", "2026-10-25 02:30:00"])
def test_local_time_that_is_twice_or_never_is_refused(
    filled: Shell, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """Such a time is ambiguous or does not exist, because clocks are changed.

    The hint has both moments with their offsets.
    """
    monkeypatch.setenv("TZ", "Europe/Zurich")
    time.tzset()
    try:
        code, _, err = filled.run("--at", text)
    finally:
        monkeypatch.undo()
        time.tzset()
    assert code == 2
    assert "+01:00" in err
    assert "+02:00" in err


def test_moment_between_two_generations_names_both_sides(filled: Shell) -> None:
    """A moment in a gap can't be restored. The last commit before it and the first base after it are named."""
    last = filled.maker.history[-1]
    filled.maker.begin_generation(NEXT_GENERATION)
    filled.maker.commit()
    filled.maker.ship()
    base = filled.maker.base()
    code, _, err = filled.run("--at", "2026-11-22T10:56:05.500Z")
    assert code == 4
    assert f"nearest before: {last.position}" in err
    assert f"nearest after: {base.generation}/{base.epoch:08x}/{base.frame:08x}" in err


def test_at_a_position(filled: Shell) -> None:
    """A position that was printed is accepted."""
    commit = filled.maker.history[3]
    facts = filled.run_json("--position", str(commit.position))
    assert counter_in(filled.out) == commit.counter
    assert (facts["position"], facts["time_ms"]) == (str(commit.position), commit.time_ms)
    assert (facts["transactions"], facts["restored"], facts["partial"]) == (4, True, "")


def test_target_that_is_not_covered_is_4(filled: Shell) -> None:
    """The nearest positions are named. --allow-partial restores the one before, and says so."""
    code, out, err = filled.run("--at", "2030-01-01T00:00:00Z")
    assert (code, out) == (4, "")
    assert str(filled.maker.history[-1].position) in err
    assert not filled.out.exists()
    code, _, err = filled.run("--at", "2030-01-01T00:00:00Z", "--allow-partial")
    assert code == 0
    assert "note: partial" in err
    assert counter_in(filled.out) == 5


def test_moment_in_the_future_is_said(filled: Shell) -> None:
    """The day may be wrong, or a zone was forgotten, so the error has this machine's time."""
    code, _, err = filled.run("--at", "2999-01-01T00:00:00Z")
    assert code == 4
    assert "note: --at 2999-01-01T00:00:00.000Z is in the future: here it is 20" in err
    assert str(filled.maker.history[-1].position) in err
    assert "in the future" not in filled.run("--at", "2020-01-01T00:00:00Z")[2]


def test_position_within_a_transaction_names_the_commits_around_it(shell: Shell) -> None:
    """Only commits can be restored. --allow-partial restores the one before."""
    shell.maker.base()
    shell.maker.commit(3, rows=40)
    shell.maker.ship()
    before, after = (commit.position for commit in shell.maker.history[1:3])
    assert after.frame > before.frame + 1
    within = replace(before, frame=before.frame + 1)
    code, _, err = shell.run("--position", str(within))
    assert code == 4
    assert f"position {within} is not a commit, but within a transaction" in err
    assert f"nearest before: {before}" in err
    assert f"nearest after: {after}" in err
    assert not shell.out.exists()
    assert shell.run("--position", str(within), "--allow-partial")[0] == 0
    assert counter_in(shell.out) == 2


def test_newer_format_says_which_program_it_takes(filled: Shell) -> None:
    """Nothing is wrong with the replica, but this walsyncd is too old for it."""
    path = next(filled.maker.folder.rglob("*.json.zst"))
    path.write_bytes(format_manifest(replace(parse_manifest(path.read_bytes()), format_version=7)))
    code, _, err = filled.run()
    assert code == 1
    assert "format 7 is newer than 2, the newest that is known here" in err
    assert "hint: restore with the walsyncd that wrote it, or a later one" in err
    assert not filled.out.exists()


def test_configured_but_empty_is_3(shell: Shell) -> None:
    """For a database that is configured, by its path or by a pattern, but not stored, there is nothing to restore."""
    assert shell.run()[0] == 3
    assert shell.run(name="srv/tenants/7/data.db")[0] == 3
    assert shell.run("--if-missing")[0] == 3


def test_unknown_name_lists_those_that_are_known(filled: Shell) -> None:
    """A name that is neither configured nor stored is a usage error."""
    code, _, err = filled.run(name="srv/other.db")
    assert code == 2
    assert "known: srv/app.db" in err


def test_existing_file_is_kept_without_looking(filled: Shell) -> None:
    """--if-missing succeeds on a file that is there, even if no storage is."""
    filled.out.write_bytes(b"mine")
    (filled.folder / "config.toml").unlink()
    code, out, _ = filled.run("--if-missing")
    assert (code, out) == (0, f"kept {filled.out}: it exists\n")
    assert filled.out.read_bytes() == b"mine"


def test_missing_file_is_restored_with_if_missing(filled: Shell) -> None:
    """This is the first start on a new machine."""
    assert filled.run("--if-missing")[0] == 0
    assert counter_in(filled.out) == 5


def test_existing_file_needs_force(filled: Shell) -> None:
    """Without force it is an error and the file stays. With it the file is replaced."""
    filled.out.write_bytes(b"mine")
    code, _, err = filled.run()
    assert code == 2
    assert "--force" in err
    assert filled.run("--force")[0] == 0
    assert counter_in(filled.out) == 5


def test_dry_run_writes_nothing(filled: Shell) -> None:
    """It prints the exact position, from the trailers, and leaves no file."""
    facts = filled.run_json("--dry-run", "--at", "2026-11-22T10:56:02Z")
    assert facts["restored"] is False
    assert facts["position"] == str(filled.maker.history[1].position)
    assert filled.run("--dry-run")[1].startswith(f"would restore {filled.out}: position")
    assert not filled.out.exists()


def test_dry_run_says_what_will_be_read_and_what_limits_it(filled: Shell) -> None:
    """It prints base, epochs, objects and bytes, and why the plan ends where it ends."""
    facts = filled.run_json("--dry-run")
    stored = sum(path.stat().st_size for path in filled.maker.folder.rglob("*.zst") if ".json" not in path.name)
    assert (facts["bytes"], facts["limited_by"]) == (stored, "nothing is stored after that")
    told = filled.run("--dry-run", "--at", "2026-11-22T10:56:02Z")[1]
    assert "asked for: 2026-11-22T10:56:02.000Z" in told
    assert "1 to 1" in told


def test_output_can_be_a_pipe(tmp_path: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """With ``-o -`` the database is written to standard output, and all messages to stderr."""
    with make_replica(tmp_path) as maker:
        maker.base()
        maker.commit(5)
        maker.ship()
    assert main(["restore", f"file://{maker.root}/{maker.name}", "-o", "-"]) == 0
    out, err = capfdbinary.readouterr()
    (tmp_path / "out.db").write_bytes(out)
    assert counter_in(tmp_path / "out.db") == 5
    assert err.startswith(b"restored to standard output: position")


def test_owner_and_mode_can_be_given(filled: Shell) -> None:
    """Each is a name or a number. Anything else is a usage error."""
    user = pwd.getpwuid(os.geteuid()).pw_name
    assert filled.run("--mode", "0604", "--owner", f"{user}:{os.getegid()}")[0] == 0
    assert stat.S_IMODE(filled.out.stat().st_mode) == 0o604
    for wrong in (["--mode", "rw"], ["--owner", "nobody-of-that-name"], ["--owner", ":no-such-group"]):
        assert filled.run("--force", *wrong)[0] == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopped_restore_is_gone_on_with(tmp_path: Path, number: signal.Signals) -> None:
    """Whatever stops it half way, no file has the final name, and the next restore fetches only what is missing."""
    with make_replica(tmp_path) as maker:
        maker.commit(60, rows=200)
        maker.base()
        maker.commit(3)
        maker.ship()
        out = tmp_path / "out" / "app.db"
        out.parent.mkdir()
        program = STOPPED_HALF_WAY.format(root=maker.root, name=maker.name, out=out)
        arguments = [sys.executable, "-c", program]
        with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            assert process.stderr is not None
            assert process.stdout.readline() == "half way\n"
            process.send_signal(number)
            said = process.stderr.read()
            assert process.wait(60) != 0
        assert ("continues from what was fetched" in said) == (number != signal.SIGKILL)
        (partial,) = out.parent.iterdir()
        assert partial.name.endswith(".partial")
        replica = CountingReplica(maker.storage, maker.name)
        restore_request(replica, RestoreRequest(Head()), out)
    ranges = len(range(0, out.stat().st_size, RANGE_BYTES))
    assert replica.fetched < ranges / 2 + 9
    assert counter_in(out) == 63
    assert [path.name for path in out.parent.iterdir()] == ["app.db"]


class CountingReplica(Replica):
    """A storage that counts the requests for ranges."""

    fetched = 0

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        self.fetched += 1
        return super().get(key, first=first, length=length)


STOPPED_HALF_WAY = """
import signal
import time
from functools import partial
from pathlib import Path
from walsyncd.adapters.files import target
from walsyncd.cli import main
from walsyncd.core.restore.plan import Head
from walsyncd.engine.restore.planner import RestoreRequest
from walsyncd.engine.restore.replica import Replica
from walsyncd.engine.restore.restorer import restore_request
from walsyncd.engine.restore import base_fetch, restorer
signal.signal(signal.SIGINT, signal.default_int_handler)  # jobs in the background of a shell ignore it
building = target.Target.building
target.Target.building = lambda target, tag, **_limits: building(target, tag, kept_bytes_min=0)
restorer.fetch_base = partial(base_fetch.fetch_base, block_bytes=9000)
base_fetch.THREADS = 1
unpack = base_fetch._unpack
told = False
def slowly(blocks, part, write, piece_bytes):
    global told
    unpack(blocks, part, write, piece_bytes)
    if part.offset > 2_500_000:
        if not told:
            print("half way", flush=True)
        told = True
        time.sleep(0.2)
base_fetch._unpack = slowly
raise SystemExit(main(["restore", "file://{root}/{name}", "-o", "{out}"]))
"""


def test_stale_wal_is_moved_and_said(filled: Shell) -> None:
    """A WAL beside a file that is gone would be applied to the restored one."""
    Path(f"{filled.out}-wal").write_bytes(b"stale")
    _, _, err = filled.run()
    assert "moved a stale file aside" in err
    assert counter_in(filled.out) == 5


@pytest.mark.parametrize(
    "arguments",
    [
        ["--at", "yesterday"],
        ["--position", "7"],
        ["--generation", "first"],
        ["--at", "2026-11-22T10:56:02Z", "--position", "20261122T105600Z-3f9c1a2b/00000001/00000001"],
        ["--generation", "20261122T105600Z-00000000", "--position", "20261122T105600Z-3f9c1a2b/00000001/00000001"],
        ["--force", "--if-missing"],
    ],
)
def test_contradictions_are_2(filled: Shell, arguments: list[str]) -> None:
    """Options that contradict each other are a usage error."""
    code, out, err = filled.run(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("walsyncd: ")


def test_unknown_generation_is_4(filled: Shell) -> None:
    """A generation that is not stored can't be restored."""
    assert filled.run("--generation", "20261122T105600Z-00000000")[0] == 4
