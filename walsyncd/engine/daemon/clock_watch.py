"""Compares this machine's clock with the store's, by the ``Date`` of its answers, and gives the true time.

=====================================  =============================================================================
the store's clock                      the true time
=====================================  =============================================================================
agrees within ``CLOCK_OFF_MS``         this machine's
differs by more                        the store's; nothing is deleted meanwhile (``engine.upkeep.housekeeper``)
is not known: no answer yet, a folder  this machine's
can't be true (``STORE_MS_MIN``)       this machine's, although nothing is deleted
=====================================  =============================================================================

If the true time is known, a time that was taken earlier and lies after the true time was wrong. The true time is known
if a store's clock is known, or if this machine's clock was set back since the earlier time was taken, because somebody
corrected it. The clock that counts from the boot, which nobody sets, shows that. The largest difference between this
machine's clock and the boot's clock is noted, so that it outlives a restart of the daemon. The difference proves
nothing if a store has given its time since the boot: commits then have the store's time, and this machine's clock may
have been set back although it was right.

The boot's clock also shows that this machine's clock was set forward (``has_leapt``). A folder of replicas has no other
clock, so nothing in it counts as old for a day after that.

After a reboot without a store's clock it is unknown whether this machine's clock was ahead before or is behind now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import NamedTuple

import structlog

from walsyncd.adapters.files.source import boot_id
from walsyncd.adapters.journal.journal import Journal
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.system import clock
from walsyncd.core.limits import DEFAULT_LIMITS, Limits
from walsyncd.core.stored.moment import CLOCK_OFF_MS
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.event_pump import EventPump
from walsyncd.errors import WalsyncdError

REMEDY = "set the clock (timedatectl); until then commits are stored with the store's time, and nothing is deleted"
LEAP_KEPT_MS = 86_400_000  # in a day somebody notices a wrong clock, or the machine asks its time server
FACT = "clock"  # in the journal: the boot's id, and ``Noted``
NOTED_MS = 60_000  # the clock may gain this much before it is noted again
STORE_MS_MIN = 1_577_836_800_000  # 2020, before walsyncd existed: a store with an earlier time has no battery, or lies
STORE_MS_MAX = 7_258_118_400_000  # 2200; a key has no room for a time after 2286

_log = structlog.get_logger()


class Noted(NamedTuple):
    """What the next run of this boot must know.

    ``most_ms`` is the most by which the wall clock was ahead of the boot's clock, and ``usual_ms`` is by how much it
    has been ahead since it was last set. ``leapt_ms`` is when it was set forward, by the boot's clock. ``is_dated`` is
    1 if a store has given its time.
    """

    most_ms: int
    leapt_ms: int
    usual_ms: int
    is_dated: int


def remembering_clock(journal: Journal) -> ClockWatch:
    """Return a clock watch that notes in the journal what the next run of this boot must know."""
    boot, *noted = (journal.fact(FACT) or "").split(" ")
    now = boot_id()
    return ClockWatch(
        noted=Noted(*map(int, noted)) if boot == now and len(noted) == len(Noted._fields) else None,
        note=lambda new: journal.note_fact(FACT, " ".join(map(str, (now, *new)))),
    )


def environment_by(
    clock: ClockWatch,
    journal: Journal,
    events: EventPump,
    spool_bytes_max: Callable[[], int],
    limits: Limits = DEFAULT_LIMITS,
    leaves_in_s: Callable[[int], float] = lambda _database_id: 0.0,
) -> Environment:
    """Return the environment of looks, with the true time."""
    return Environment(
        journal,
        events.drain,
        boot_id(),
        wall_ms=clock.now_ms,
        is_clock_known=clock.is_known,
        has_clock_leapt=clock.has_leapt,
        spool_bytes_max=spool_bytes_max,
        limits=limits,
        leaves_in_s=leaves_in_s,
        count_journal_writes=events.count_journal_writes,
    )


class ClockWatch:
    """Gives the true time. Any thread may call. A storage without a clock of its own agrees with every clock.

    ``noted`` is what an earlier run of this boot noted, and ``note`` stores what the next run needs.
    """

    def __init__(
        self,
        storages: Callable[[], Iterable[Storage]] = tuple,
        wall_ms: Callable[[], int] = clock.wall_ms,
        *,
        boot_ms: Callable[[], int] = clock.boot_ms,
        noted: Noted | None = None,
        note: Callable[[Noted], None] = lambda _new: None,
    ) -> None:
        self.storages = storages
        self._wall_ms = wall_ms
        self._boot_ms = boot_ms
        self._noted = noted
        self._note = note
        apart_ms = self._apart_ms()
        known = noted or Noted(apart_ms, -LEAP_KEPT_MS, apart_ms, 0)
        self._most_ms, self._leapt_ms, self._usual_ms, self._is_dated = known
        self._is_off = False
        self._lock = threading.Lock()

    def now_ms(self) -> int:
        """Return the true time, in milliseconds since 1970, as far as it is known."""
        wall_ms, stores = self._wall_ms(), self._true_stores_ms()
        nearest_ms = min(stores, key=lambda store_ms: abs(wall_ms - store_ms), default=wall_ms)
        return wall_ms if abs(wall_ms - nearest_ms) <= CLOCK_OFF_MS else nearest_ms

    def is_known(self) -> bool:
        """Whether an earlier time that is after ``now_ms`` must have been wrong."""
        apart_ms = self._apart_ms()
        self._most_ms = max(self._most_ms, apart_ms)
        if self._true_stores_ms():
            self._is_dated = 1
            return True
        return not self._is_dated and self._most_ms - apart_ms > CLOCK_OFF_MS

    def has_leapt(self) -> bool:
        """Whether this machine's clock was set forward within a day, so that an object may be younger than it seems."""
        with self._lock:
            apart_ms, now_ms = self._apart_ms(), self._boot_ms()
            if abs(apart_ms - self._usual_ms) > CLOCK_OFF_MS:
                self._leapt_ms = now_ms if apart_ms > self._usual_ms else now_ms - LEAP_KEPT_MS
                self._usual_ms = apart_ms
            return now_ms - self._leapt_ms < LEAP_KEPT_MS

    def ahead_s(self) -> float:
        """Return how many seconds this machine's clock is ahead of the store whose clock differs most."""
        wall_ms = self._wall_ms()
        return max(((wall_ms - store_ms) / 1000 for store_ms in self._stores_ms()), key=abs, default=0.0)

    def words(self) -> str:
        """Return what is wrong with this machine's clock, or "" if it agrees."""
        ahead_s = self.ahead_s()
        if abs(ahead_s) * 1000 <= CLOCK_OFF_MS:
            return ""
        where = "ahead of" if ahead_s > 0 else "behind"
        return f"this machine's clock is {abs(ahead_s):.0f} s {where} the store's: {REMEDY}"

    def compare(self) -> None:
        """Log once that the clocks differ, and once that they agree again. Called after every answer of a store."""
        self.is_known()
        self.has_leapt()
        with self._lock:
            words = self.words()
            was_off, self._is_off = self._is_off, bool(words)
            new = Noted(self._most_ms, self._leapt_ms, self._usual_ms, self._is_dated)
        self._note_again(new)
        if words and not was_off:
            _log.error("clock_differed", ahead_s=round(self.ahead_s()), remedy=REMEDY)
        elif was_off and not words:
            _log.info("clock_agreed_again")

    def _note_again(self, new: Noted) -> None:
        """Note what the next run must know, if it differs.

        If the journal has no room, the next answer of a store tries it again.
        """
        with self._lock:
            noted = self._noted
            if noted and new[1:] == noted[1:] and new.most_ms <= noted.most_ms + NOTED_MS:
                return
            self._noted = new
        try:
            self._note(new)
        except WalsyncdError:  # the storage's answer must not fail because of that
            with self._lock:
                self._noted = noted

    def _true_stores_ms(self) -> list[int]:
        return [at_ms for at_ms in self._stores_ms() if STORE_MS_MIN <= at_ms <= STORE_MS_MAX]

    def _stores_ms(self) -> list[int]:
        return [at_ms for storage in self.storages() if (at_ms := storage.clock_ms()) is not None]

    def _apart_ms(self) -> int:
        return self._wall_ms() - self._boot_ms()
