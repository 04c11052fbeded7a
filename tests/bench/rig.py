"""What the benchmarks share: a folder, stores, the daemon as a process, writers, and figures from /proc.

A benchmark prints ratios and absolute figures. The machine's own load is printed above them, since on a busy machine
the figures say little.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.stores import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Store, run_seaweedfs
from walsyncd.adapters.journal.journal import DatabaseRow, reader

ROOT = Path(__file__).parents[2]
WAIT_S_MAX = 120.0
_TICKS_PER_S = os.sysconf("SC_CLK_TCK")


@contextmanager
def workplace(parent: Path | None = None) -> Iterator[Path]:
    """Make a folder that is removed when the benchmark is over. Its disk is what is measured."""
    with tempfile.TemporaryDirectory(prefix="walsyncd-bench-", dir=parent) as folder:
        yield Path(folder)


@contextmanager
def seaweedfs(folder: Path) -> Iterator[Store]:
    """Run SeaweedFS on 127.0.0.1 with its data below ``folder``."""
    data = folder / "seaweedfs"
    data.mkdir()
    with run_seaweedfs(data) as store:
        yield store


def clean_environment(tree: Path = ROOT) -> dict[str, str]:
    """Return the environment without what would configure walsyncd or boto3, for the walsyncd of ``tree``."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith(("WALSYNCD_", "AWS_"))}
    return {**ours, "AWS_EC2_METADATA_DISABLED": "true", "NO_PROXY": "127.0.0.1", "PYTHONPATH": str(tree)}


def s3_section(store: Store, bucket: str, endpoint_url: str | None = None) -> str:
    """Return ``[storage]`` for a bucket of ``store``, perhaps with another address."""
    return f"""[storage]
url = "s3://{bucket}/bench"
endpoint_url = "{endpoint_url or store.endpoint_url}"
region = "us-east-1"
access_key_id = "{ACCESS_KEY_ID}"
secret_access_key = "{SECRET_ACCESS_KEY}"
addressing_style = "path"
"""


def folder_section(folder: Path) -> str:
    """Return ``[storage]`` for a folder."""
    return f'[storage]\nurl = "file://{folder}"\n'


@dataclass(frozen=True, slots=True)
class Daemon:
    """A running ``walsyncd run``."""

    process: subprocess.Popen[bytes]
    state_dir: Path
    log: Path

    def databases(self) -> list[DatabaseRow]:
        """Return the databases in its journal. There are none before it has started, because tables may be missing."""
        if not self.events("daemon_started"):
            return []
        with closing(reader(self.state_dir)) as journal:
            return journal.databases()

    def wait_for(self, is_so: Callable[[list[DatabaseRow]], bool]) -> None:
        """Wait until the journal shows something."""
        deadline = time.monotonic() + WAIT_S_MAX
        while not is_so(self.databases()):
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon did not come that far:\n{self.log.read_text()[-4000:]}")
            time.sleep(0.05)

    def wait_for_start(self, number: int) -> None:
        """Wait until it follows its databases. It is the ``number``-th daemon on this state directory."""
        self.wait_for(lambda _: len(self.events("daemon_started")) >= number)

    def wait_for_bases(self, count: int = 1) -> None:
        """Wait until so many databases have a base and nothing is left to ship."""
        self.wait_for(lambda rows: len(rows) >= count and all(row.base_key and not row.spooled_bytes for row in rows))

    def wait_until_shipped(self) -> None:
        """Wait until everything that is committed is stored. The spool has to be empty for a while."""
        quiet_since: list[float] = []

        def is_shipped(rows: list[DatabaseRow]) -> bool:
            now = time.monotonic()
            if any(row.spooled_bytes for row in rows):
                quiet_since.clear()
            elif not quiet_since:
                quiet_since.append(now)
            return bool(quiet_since) and now - quiet_since[0] > 1.0

        self.wait_for(is_shipped)

    def events(self, name: str) -> list[dict[str, Any]]:
        """Return the lines of that event in its log."""
        lines = [line.partition(">")[2] for line in self.log.read_text().splitlines() if line.startswith("<")]
        return [event for event in map(json.loads, lines) if event["event"] == name]


@contextmanager
def daemon(
    folder: Path,
    storage: str,
    databases: Sequence[Path | str],
    *,
    options: str = "",
    level: str = "info",
    preload: Path | None = None,
    tree: Path = ROOT,
) -> Iterator[Daemon]:
    """Run the daemon of ``tree`` for these paths or patterns. ``options`` are lines of ``[defaults]``.

    ``preload`` is a library for LD_PRELOAD.
    """
    state_dir = folder / "state"
    sections = "".join(f'[[database]]\npath = "{path}"\n' for path in databases)
    config = folder / "walsyncd.toml"
    head = f'[daemon]\nstate_dir = "{state_dir}"\nlog_level = "{level}"\n'
    config.write_text(f"{storage}{head}[defaults]\n{options}\n{sections}")
    log = folder / "daemon.log"
    arguments = [sys.executable, "-m", "walsyncd", "run", "--config", str(config)]
    environment = clean_environment(tree) | ({"LD_PRELOAD": str(preload)} if preload is not None else {})
    with log.open("ab") as output, subprocess.Popen(arguments, env=environment, cwd=tree, stderr=output) as process:
        try:
            yield Daemon(process, state_dir, log)
        finally:
            process.terminate()
            process.wait()


@dataclass(frozen=True, slots=True)
class Usage:
    """What a process has used up to a moment."""

    at_s: float
    cpu_s: float
    rss_bytes: int
    switches: int

    @classmethod
    def of(cls, pid: int) -> Usage:
        """Return what a process and all its threads have used until now."""
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        resident = _status(Path(f"/proc/{pid}/status"))["VmRSS"]
        switches = 0
        for thread in Path(f"/proc/{pid}/task").iterdir():
            counts = _status(thread / "status")
            switches += int(counts["voluntary_ctxt_switches"]) + int(counts["nonvoluntary_ctxt_switches"])
        cpu_s = (int(fields[11]) + int(fields[12])) / _TICKS_PER_S
        return cls(time.monotonic(), cpu_s, int(resident.split()[0]) << 10, switches)


def cpu_share(before: Usage, after: Usage) -> float:
    """Return the share of one core between two moments."""
    return (after.cpu_s - before.cpu_s) / (after.at_s - before.at_s)


def _status(file: Path) -> dict[str, str]:
    pairs = (line.partition(":") for line in file.read_text().splitlines())
    return {name: value.strip() for name, _, value in pairs}


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of them do not exceed."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def milliseconds(values_s: Sequence[float]) -> str:
    """Return p50, p99 and maximum in words."""
    p50, p99, most = (1000 * value for value in (quantile(values_s, 0.5), quantile(values_s, 0.99), max(values_s)))
    return f"p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   max {most:7.2f} ms"


@contextmanager
def machine_load() -> Iterator[Callable[[], str]]:
    """Yield a function that returns how busy the whole machine was since."""
    before = _cpu_times()

    def describe() -> str:
        busy, total = (after - start for after, start in zip(_cpu_times(), before, strict=True))
        share = busy / total if total else 0.0
        return f"machine: {os.cpu_count()} cores, {share:.0%} busy meanwhile, load {os.getloadavg()[0]:.2f}"

    yield describe


def _cpu_times() -> tuple[int, int]:
    """Return the ticks in which the machine was busy, and all ticks."""
    ticks = [int(number) for number in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return sum(ticks) - ticks[3] - ticks[4], sum(ticks)  # without idle and iowait


def mebibytes(size: float) -> str:
    """Return a size for people."""
    return f"{size / (1 << 20):.1f} MiB"
