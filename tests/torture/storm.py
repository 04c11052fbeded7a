"""A storm: applications, checkpointers and the daemon use some databases, and any of them is killed at any moment.

The seed decides everything but the moments, which depend on the machine. Now and then the applications hold still,
everything is synced, and a `Judge` restores and compares.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from types import TracebackType
from typing import Any, Self

from tests.e2e.daemon import Daemon
from tests.torture.administrator import Administrator, Steps, create_release
from tests.torture.judge import Judge
from tests.torture.ledger import create
from tests.torture.victim import Victim
from walsyncd.core.sqlite.wal import WAL_HEADER_SIZE, parse_wal_header

PAGE_SIZES = (512, 1024, 4096, 4096, 4096, 65536)
PACES_S = (0.0, 0.0, 0.002, 0.02)
FILLER_BYTES = (0, 3 << 20, 10 << 20)  # a bridge of more than half of the database is not made
LINK_SHARE = 0.3  # the share of databases whose path has a link
STALL_S = 2.0  # the highest number of databases
STALL_SHARE = 0.4  # the share of administrators' acts that the daemon notices only later
PRESENCE_SHARE = 0.4  # the share of databases, by default
CHAPTER_S = 7.0  # seconds of storm between two pauses
LET_GO_S = 2.0  # a daemon that goes on gives presence up within milliseconds, unless the machine is too busy
HASTY_SYNC = "4s"
SAMPLES = 12  # positions restored in each pause, besides the ends of all generations
SALTS_POLL_S = 0.01
RESTARTS_BETWEEN_POLLS_MAX = 1000


@dataclass(frozen=True, slots=True)
class Options:
    """How bad it gets. Rates are per second. ``checkpoints`` is the rate of each database's checkpointer."""

    seed: int
    seconds: float
    databases: int = 2
    writers: int = 3
    checkpoints: float = 5.0
    kills: float = 1.0
    presence: bool | None = None
    """For all databases or for none. None means that it is drawn for each."""
    administrators: float = 0.15
    """The share of strikes in which somebody changes a database's files."""


@dataclass(slots=True)
class Report:
    """What happened. ``wrong`` must be empty."""

    seed: int
    transactions: int = 0
    presence: int = 0
    """Databases with presence."""
    wal_restarts: int = 0
    proven_by: dict[str, int] = field(default_factory=dict)
    """How often each rule decided at the end of a WAL, as ``walsyncd_wal_restarts_total`` counts."""
    recovered_tails: int = 0
    recovered_frames: int = 0
    generations: int = 0
    bases: int = 0
    gaps: dict[str, int] = field(default_factory=dict)
    application_kills: int = 0
    daemon_kills: int = 0
    daemon_stops: int = 0
    daemon_stalls: int = 0
    errors_beside_presence: int = 0
    """Applications that could not read a WAL which an administrator had changed while the daemon was stopped."""
    administrators: dict[str, int] = field(default_factory=dict)
    bridges: int = 0
    heads_compared: int = 0
    positions_compared: int = 0
    exact_compared: int = 0
    """Positions that were the head before, restored again byte for byte."""
    inside_refused: int = 0
    """Positions inside bridges that were asked for."""
    faults: list[str] = field(default_factory=list)
    """Errors of the daemon that were not expected."""
    unsound_sources: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Storm:
    """A storm. As a context manager it ends every process that it started."""

    def __init__(self, options: Options, folder: Path) -> None:
        self.options = options
        self.report = Report(options.seed)
        self._folder = folder
        self._chance = random.Random(options.seed)
        self._stack = ExitStack()
        self._still = Event()
        self._files = [self._place(number) for number in range(options.databases)]
        self._oracles = {file: folder / f"{file.stem}.oracle" for file in self._files}
        self._present: dict[Path, bool] = {}
        self._daemon = Daemon(folder, [self._entry(file) for file in self._files], defaults={"snapshot_interval": "4s"})
        self._judges = [
            Judge(file, self._oracles[file], self._daemon.replica, folder, self._chance) for file in self._files
        ]
        self._administrators = {file: Administrator(file, folder, self._chance) for file in self._files}
        self._victims: list[Victim] = []
        self._watcher = Thread(target=self._count_restarts)

    def __enter__(self) -> Self:
        self._stack.__enter__()
        for number, file in enumerate(self._files):
            create(file, page_size=self._chance.choice(PAGE_SIZES), filler_bytes=self._chance.choice(FILLER_BYTES))
            self._populate(file, crowd=number == 0)
        self._stack.enter_context(self._daemon)
        for victim in self._victims:
            self._stack.callback(victim.kill)
        self._watcher.start()
        self._stack.callback(self._watcher.join)
        self._stack.callback(self._still.set)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def _place(self, number: int) -> Path:
        """Return where a database is: in a folder, or behind a link to one."""
        if self._chance.random() >= LINK_SHARE:
            return self._folder / f"data/d{number}.db"
        link = self._folder / f"data/current-{number}"
        create_release(link)
        return link / f"d{number}.db"

    def _entry(self, file: Path) -> dict[str, str | bool]:
        """Return a database as the configuration has it."""
        presence = self.options.presence
        if presence is None:
            presence = self._chance.random() < PRESENCE_SHARE
        self.report.presence += presence
        self._present[file] = presence
        return {"path": str(file), "name": file.stem, "presence": presence}

    def _populate(self, file: Path, *, crowd: bool) -> None:
        """Choose which applications use a database."""
        chance, options = self._chance, self.options
        pace_s = chance.choice(PACES_S)
        roles = ["writer"] * options.writers
        if not crowd:
            roles = chance.choice([roles, ["writer"], ["cycler"], ["cycler", "cycler"], ["alone"]])
        paced = [(role, pace_s) for role in roles]
        if options.checkpoints and "alone" not in roles:
            paced.append(("checkpoint", 1 / options.checkpoints))
        # SQLite before 3.51.3 damages a database that one process writes while another checkpoints: its WAL-reset bug.
        kind = "module" if len(paced) == 1 else "apsw"
        for role, pace in paced:
            arguments = (role, str(file), str(self._oracles[file]), "--kind", kind, "--pace", str(pace))
            seed = f"{options.seed}/{len(self._victims)}"
            self._victims.append(Victim(*arguments, file=file, seed=seed, log=self._folder / "applications.log"))

    # -- the storm --------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """Run all chapters, each with its judgement."""
        for victim in self._victims:
            victim.start()
        self._daemon.start()
        left_s = self.options.seconds
        while left_s > 0:
            self._rage(min(left_s, CHAPTER_S))
            left_s -= CHAPTER_S
            self._judge()
        self._daemon.stop()
        self._sum_up()
        return self.report

    def _rage(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            pause = self._chance.expovariate(self.options.kills) if self.options.kills else seconds
            time.sleep(max(0.0, min(pause, until - time.monotonic())))
            if self.options.kills:
                self._strike()

    def _strike(self) -> None:
        if self.options.administrators and self._chance.random() < self.options.administrators:
            self._administer_stalled(self._chance.randrange(len(self._files)))
            return
        if self._chance.random() < 0.25:
            self._strike_daemon()
            return
        victims = self._chance.sample(self._victims, self._chance.choice([1, 1, 2, len(self._victims)]))
        for victim in victims:
            if self._chance.random() < 0.8:
                victim.kill()
            else:
                victim.end()
            self.report.application_kills += 1
        time.sleep(self._chance.choice([0.0, 0.0, 0.05, 0.5]))
        for victim in victims:
            victim.start()

    def _strike_daemon(self) -> None:
        assert self._daemon.exit_code() is None, "the daemon ended by itself"
        if self._chance.random() < 0.3:
            with self._stalled_daemon():
                pass
            return
        if self._chance.random() < 0.7:
            self._daemon.kill()
            self.report.daemon_kills += 1
        else:
            self._daemon.stop()
            self.report.daemon_stops += 1
        time.sleep(self._chance.choice([0.0, 0.0, 0.2, 1.0]))
        self._daemon.start()

    @contextmanager
    def _stalled_daemon(self) -> Iterator[None]:
        """Let the daemon do nothing meanwhile, as on a machine that is too busy."""
        pid = self._daemon.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            yield
            time.sleep(self._chance.uniform(0, STALL_S))
        finally:
            os.kill(pid, signal.SIGCONT)
        self.report.daemon_stalls += 1

    def _administer_stalled(self, number: int) -> None:
        """Administer, perhaps beside a stopped daemon, which sees all of it at once and what the applications did next.

        A stopped daemon can't give up presence at a wal-index that does not fit its WAL any more. As beside any open
        connection, an application that opens the database then believes that wal-index, and fails.
        """
        if self._chance.random() >= STALL_SHARE:
            self._administer(number)
            return
        file = self._files[number]
        with self._stalled_daemon():
            self._administer(number)
        for victim in self._victims:
            if victim.file == file and self._present[file]:
                victim.excused_until = time.monotonic() + LET_GO_S

    def _administer(self, number: int) -> None:
        """Change the files of a database: after its applications ended, or beside idle connections."""
        judge, administrator = self._judges[number], self._administrators[self._files[number]]
        victims = [victim for victim in self._victims if victim.file == self._files[number]]
        rest = self._chance.choice([True, False])
        for victim in victims:
            if rest:
                victim.tell("pause")
                victim.await_pause()
            elif self._chance.random() < 0.7:
                victim.kill()
            else:
                victim.end()
        content = judge.administered()
        if content is not None:
            administrator.back_up(content)
            name, steps = administrator.act()
            self.report.administrators[name] = self.report.administrators.get(name, 0) + 1
            content = self._do(steps, judge)
        for victim in victims:
            victim.kill()
        if judge.administered() is None:
            assert self._do(administrator.repair(), judge) is not None, "a backup is not sound"
        for victim in victims:
            victim.start()

    def _do(self, steps: Steps, judge: Judge) -> bytes | None:
        """Take these steps, with a pause after each. Return the content of the database, or None if it is not sound."""
        content = None
        for step in steps:
            step()
            content = judge.administered()
            time.sleep(self._chance.choice([0.0, 0.0, 0.05, 0.5]))
        return content

    # -- judgement --------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        """Pause everything, with some applications closed and some not, and compare."""
        leaving = self._chance.sample(self._victims, self._chance.randint(0, len(self._victims)))
        for victim in self._victims:
            victim.tell("pause")
        for victim in self._victims:
            victim.await_pause()
        for victim in leaving:
            victim.end()
        for judge in self._judges:
            judge.look()
        if self._daemon.walsyncd("sync", "--timeout", HASTY_SYNC).code:
            self._daemon.kill()  # the next base may be far off, except for a daemon that was just started
            self._daemon.start().sync()
        for judge in self._judges:
            judge.judge(SAMPLES)
        for victim in self._victims:
            if victim.runs:
                victim.tell("go")
            else:
                victim.start()

    def _sum_up(self) -> None:
        report = self.report
        for judge in self._judges:
            report.heads_compared += judge.verdicts.heads
            report.positions_compared += judge.verdicts.positions
            report.exact_compared += judge.verdicts.exact
            report.inside_refused += judge.verdicts.refused
            report.wrong += judge.verdicts.wrong
            report.unsound_sources += judge.verdicts.unsound_sources
        report.errors_beside_presence = sum(victim.excused for victim in self._victims)
        report.transactions = sum(path.read_text().count("\n") for path in self._oracles.values() if path.exists())
        for line in self._daemon.lines():
            self._count(line)
        for file in self._files:
            if not report.unsound_sources:
                verified = self._daemon.walsyncd("verify", file.stem)
                if verified.code:
                    report.wrong.append(f"verify {file.stem}: {verified.stdout}{verified.stderr}")

    def _count(self, line: Mapping[str, Any]) -> None:
        report = self.report
        match line["event"]:
            case "generation_began":
                report.generations += 1
            case "generation_ended" | "gap_found":
                reason = re.sub(r"\d+", "N", line["reason"])
                report.gaps[reason] = report.gaps.get(reason, 0) + 1
            case "base_copied":
                report.bases += 1
            case "gap_bridged":
                report.bridges += 1
            case "work_failed":
                report.faults.append(f"{line['work']}: {line.get('exception', '')[-400:]}")
            case "wal_restart_proven":
                report.proven_by[line["by"]] = report.proven_by.get(line["by"], 0) + 1
            case "wal_tail_recovered":
                report.recovered_tails += 1
                report.recovered_frames += line["frames"]

    def _count_restarts(self) -> None:
        """Follow salt 1, which every restart of a WAL raises by 1. A new WAL counts once."""
        known: dict[Path, int] = {}
        while not self._still.wait(SALTS_POLL_S):
            for file in self._files:
                try:
                    with Path(f"{file}-wal").open("rb") as wal:
                        header = parse_wal_header(wal.read(WAL_HEADER_SIZE))
                except FileNotFoundError:
                    continue
                if header is not None:
                    step = (header.salt1 - known.get(file, header.salt1)) % 2**32
                    self.report.wal_restarts += step if step <= RESTARTS_BETWEEN_POLLS_MAX else 1
                    known[file] = header.salt1


def torture(options: Options, folder: Path) -> Report:
    """Run one storm in an empty folder."""
    with Storm(options, folder) as storm:
        return storm.run()
