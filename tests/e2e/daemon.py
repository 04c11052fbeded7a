"""The real program, as its users run it: a process with a configuration of its own.

Everything is below one folder: ``data/`` for the databases, ``state/`` for the daemon, ``replica/`` if the storage is a
folder, ``config.toml``, and ``log``, which all runs of the daemon append to.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import site
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import pytest

from tests.stores import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Store
from walsyncd.adapters.system.control_socket import ask
from walsyncd.errors import WalsyncdError

ROOT = Path(__file__).parents[2]
START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
COMMAND_SECONDS_MAX = 110.0
SYNC_TIMEOUT = "100s"  # seconds: a gap is followed by a new base up to a minute later
POLL_SECONDS = 0.02

# A user without account and files: 65534 is nobody on every Linux.
NOBODY = 65534


@dataclass(frozen=True, slots=True)
class Program:
    """How the program is started: an interpreter, and where it finds the package and what that needs."""

    interpreter: str
    path: str

    @property
    def arguments(self) -> list[str]:
        """Return what comes before a command."""
        return [self.interpreter, "-m", "walsyncd"]


PROGRAM = Program(sys.executable, str(ROOT))


@functools.cache
def program_for(user: int) -> Program:
    """Return the program for another user. Skips the test if there is no interpreter that this user may read.

    A virtual environment may lie in a home that is closed to others. The system's Python of the same version is used
    then.
    """
    everything = os.pathsep.join([str(ROOT), *site.getsitepackages()])
    system = f"/usr/bin/python{sys.version_info.major}.{sys.version_info.minor}"
    for program in (PROGRAM, Program(system, everything)):
        try:
            done = subprocess.run(
                [*program.arguments, "--version"],
                env={**base_environment(), "PYTHONPATH": program.path},
                capture_output=True,
                check=False,
                cwd="/",
                **_identity(user),
            )
        except (PermissionError, FileNotFoundError):
            continue
        if done.returncode == 0:
            return program
    pytest.skip(f"user {user} can't read any interpreter that has what walsyncd needs")


@dataclass(frozen=True, slots=True)
class Result:
    """The result of a command."""

    code: int
    stdout: str
    stderr: str


def s3_section(store: Store, bucket: str, *, endpoint_url: str = "") -> dict[str, str]:
    """Return ``[storage]`` for a bucket, perhaps with another address."""
    return {
        "url": f"s3://{bucket}/hosts/one",
        "endpoint_url": endpoint_url or store.endpoint_url,
        "region": "us-east-1",
        "access_key_id": ACCESS_KEY_ID,
        "secret_access_key": SECRET_ACCESS_KEY,
        "addressing_style": "path",
    }


def wait_until(condition: Callable[[], object], what: str, *, seconds_max: float = START_SECONDS_MAX) -> None:
    """Wait for a condition, not for a time.

    After ``seconds_max`` the test fails, and the message has ``what`` did not come.
    """
    deadline = time.monotonic() + seconds_max
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds_max:.0f} s: {what}"
        time.sleep(POLL_SECONDS)


def run_walsyncd(
    *arguments: str | Path,
    environment: Mapping[str, str] | None = None,
    user: int | None = None,
    folder: Path | None = None,
) -> Result:
    """Run one command of the real program, which sees nothing of the user's environment."""
    program = PROGRAM if user is None else program_for(user)
    done = subprocess.run(
        [*program.arguments, *map(str, arguments)],
        env={**base_environment(), "PYTHONPATH": program.path, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=COMMAND_SECONDS_MAX,
        cwd=folder,
        **_identity(user),
    )
    return Result(done.returncode, done.stdout, done.stderr)


def base_environment() -> dict[str, str]:
    """Return enough to find the package and the machine's programs, and nothing else of the test machine."""
    return {
        "PATH": os.environ.get("PATH", "/usr/bin:/bin"),
        "PYTHONWARNINGS": "error",
        "PYTHONDONTWRITEBYTECODE": "1",
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": os.devnull,
        "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
        "NO_PROXY": "127.0.0.1",
        "TZ": "UTC",
    }


def _identity(user: int | None) -> dict[str, Any]:
    return {} if user is None else {"user": user, "group": user, "extra_groups": []}


class Daemon:
    """A daemon and its folder. ``storage`` is ``[storage]``, and each database is ``[[database]]`` or just its path.

    As a context manager it ends whatever still runs, and asserts that no line of the log reports a crash. ``prefix`` is
    put before the program (``strace …``), and ``user`` is the user and group that the daemon runs as.
    """

    def __init__(
        self,
        folder: Path,
        databases: Sequence[Path | str | Mapping[str, str | bool]],
        *,
        storage: Mapping[str, str | bool] | None = None,
        defaults: Mapping[str, str | int] | None = None,
        settings: Mapping[str, str | int] | None = None,
        prefix: Sequence[str] = (),
        user: int | None = None,
    ) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.state = folder / "state"
        self.config = folder / "config.toml"
        self.control = self.state / "control.sock"
        self.replica = folder / "replica"
        self._log = folder / "log"
        self._prefix = list(prefix)
        self._user = user
        self._process: subprocess.Popen[bytes] | None = None
        self.storage: dict[str, str | bool] = dict(storage or {"url": self.replica.as_uri()})
        self.data.mkdir(exist_ok=True)
        sections = [
            _section("[storage]", self.storage),
            _section("[daemon]", {"state_dir": str(self.state), "log_level": "debug", **(settings or {})}),
            _section("[defaults]", {"upload_interval": "50ms", **(defaults or {})}),
            *(_section("[[database]]", _entry(database)) for database in databases),
        ]
        self.config.write_text("\n".join(sections))
        self.config.chmod(0o600)  # the configuration may hold a secret
        if user is not None:
            os.chown(self.config, user, user)

    # -- the process ------------------------------------------------------------------------------------------------

    def start(self, *, wait: bool = True) -> Self:
        """Start a run. By default it answers when this returns."""
        assert self._process is None, "it runs"
        program = PROGRAM if self._user is None else program_for(self._user)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._prefix, *program.arguments, "run", "--config", str(self.config)],
                env={**base_environment(), "PYTHONPATH": program.path},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_identity(self._user),
            )
        if wait:
            wait_until(self._answers, f"the daemon answers; its log:\n{self.text()[-4000:]}")
        return self

    @property
    def pid(self) -> int:
        """Return the pid of the process that answers, even if another one started it."""
        answer = ask(self.control, {"op": "ping"}, timeout_s=30)
        assert answer is not None, "no daemon answers"
        return int(answer["pid"])

    def kill(self) -> None:
        """Kill it at once, wherever it is."""
        assert self._process is not None, "it does not run"
        os.killpg(self._process.pid, signal.SIGKILL)  # with the programs of ``prefix``
        self._process.communicate()
        self._process = None

    def stop(self) -> int:
        """Stop it in good order. Return the exit code."""
        assert self._process is not None, "it does not run"
        os.kill(self.pid, signal.SIGTERM)
        code = self._process.wait(STOP_SECONDS_MAX)
        self._process = None
        return code

    def exit_code(self) -> int | None:
        """Return the exit code of a run that was not asked to end, or None while it runs."""
        return self._process.poll() if self._process is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process is not None:
            crashed = self._process.poll()
            if crashed is None:
                self.kill()
            assert crashed is None or error is not None, f"the daemon ended with {crashed}:\n{self.text()[-4000:]}"
        if error is None:
            assert "Traceback" not in self.text(), self.text()
        else:
            print(self.text()[-8000:])

    def _answers(self) -> bool:
        assert self.exit_code() is None, f"the daemon ended with {self.exit_code()}:\n{self.text()[-4000:]}"
        try:
            return ask(self.control, {"op": "ping"}, timeout_s=30) is not None
        except WalsyncdError:  # it accepted the connection and was not ready yet
            return False

    # -- its log ----------------------------------------------------------------------------------------------------

    def text(self) -> str:
        """Return all that it wrote, unchanged."""
        return self._log.read_text(errors="replace") if self._log.exists() else ""

    def lines(self, event: str = "") -> list[dict[str, Any]]:
        """Return the log's lines of all runs, or those of one event. A line that is still being written is left out."""
        whole = self.text().rpartition("\n")[0].splitlines()
        parsed = [json.loads(line[3:]) for line in whole if line.startswith("<")]
        return [line for line in parsed if event in ("", line["event"])]

    def wait_for(self, event: str, **facts: object) -> dict[str, Any]:
        """Wait for the first line of that event with these facts, and return it."""

        def found() -> list[dict[str, Any]]:
            return [line for line in self.lines(event) if facts.items() <= line.items()]

        wait_until(found, f"{event} {facts} in the log")
        return found()[0]

    # -- commands ---------------------------------------------------------------------------------------------------

    def walsyncd(self, command: str, *arguments: str | Path) -> Result:
        """Run a command of the program with this daemon's configuration, as its user."""
        return run_walsyncd(command, "--config", self.config, *arguments, user=self._user)

    def done(self, command: str, *arguments: str | Path) -> str:
        """Return the output of a command that must succeed."""
        result = self.walsyncd(command, *arguments)
        assert result.code == 0, f"walsyncd {command} ended with {result.code}:\n{result.stdout}{result.stderr}"
        return result.stdout

    def sync(self, *names: str) -> dict[str, str]:
        """Wait until everything committed now is stored. Return the position of each database."""
        lines = self.done("sync", "--timeout", SYNC_TIMEOUT, *names).splitlines()
        return dict(line.rsplit(" ", 1) for line in lines)

    def look(self, name: str) -> str:
        """Let the daemon read what is committed now, without waiting for storage.

        Return the position that it reached.
        """
        return str(self.looked(name)["position"])

    def looked(self, name: str) -> dict[str, Any]:
        """Do the same, and return its whole answer, which may be that it no longer writes, or not yet."""
        answer = ask(self.control, {"op": "sync", "names": [name]}, timeout_s=60)
        assert answer is not None, "no daemon answers"
        told: dict[str, Any] = answer["databases"][name]
        return told

    def status(self, name: str) -> dict[str, Any]:
        """Return the status of a database."""
        databases = json.loads(self.done("status", "--json"))["databases"]
        return next(database for database in databases if database["name"] == name)

    def restore(self, name: str, *arguments: str) -> Path:
        """Restore to a file with a name of its own, where the daemon's user may write, and return it."""
        number = len(list(self.state.glob("restored-*")))
        output = self.state / f"restored-{number}.db"
        print(self.done("restore", name, "-o", output, *arguments))
        return output


def _entry(database: Path | str | Mapping[str, str | bool]) -> Mapping[str, str | bool]:
    if isinstance(database, Mapping):
        return database
    pattern = any(character in str(database) for character in "*?[")
    return {"path": str(database)} if pattern else {"path": str(database), "name": Path(database).stem}


def _section(heading: str, keys: Mapping[str, str | int] | Mapping[str, str | bool]) -> str:
    return "\n".join([heading, *(f"{key} = {json.dumps(value)}" for key, value in keys.items()), ""])
