"""Everything that uses one storage: the uploads and the bases. All of it is replaced when the settings change.

A storage at another url is another place: objects stored or spooled for the old one are of no use there, so a
database's generation ends and another begins (``leave_place``). New credentials, another endpoint or more connections
to the same place end nothing: as after a restart, each database is claimed again before the next write.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterable

from walsyncd.adapters.journal.journal import DatabaseRow, Journal, ObjectRow
from walsyncd.adapters.storage.counting_storage import Requests
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.system import clock
from walsyncd.config import DatabaseSpec, StorageSettings
from walsyncd.core.follow.gap import Gap, GapKind
from walsyncd.engine.base.renewal import Renewal
from walsyncd.engine.base.snapshotter import Snapshotter
from walsyncd.engine.content.page_content import PageContent
from walsyncd.engine.daemon.storage_probe import StorageProbe
from walsyncd.engine.follow.environment import Environment
from walsyncd.engine.follow.followed_database import FollowedDatabase
from walsyncd.engine.follow.follower import Follower
from walsyncd.engine.rollback.shipped_moment import ShippedMoments
from walsyncd.engine.ship.ownership import Identity, Ownership
from walsyncd.engine.ship.release import releasable, release_all
from walsyncd.engine.ship.shipper import UploadEvents
from walsyncd.engine.ship.uploader import Uploader
from walsyncd.engine.threads.stall_detector import StallDetector
from walsyncd.engine.threads.supervisor import Supervisor
from walsyncd.engine.upkeep.continuation import Continuations
from walsyncd.engine.upkeep.deletion import Pruned, Removals
from walsyncd.engine.upkeep.drill_runner import Driller
from walsyncd.engine.upkeep.housekeeper import Housekeeper
from walsyncd.errors import UsageError, WalsyncdError


class Destination:
    """The uploader and the snapshotter of ``storage``, for the databases that ``owns`` accepts.

    ``start`` starts both.
    """

    def __init__(
        self,
        journal: Journal,
        storage: Storage,
        environment: Environment,
        events: UploadEvents,
        supervisor: Supervisor,
        *,
        identity: Identity,
        uploads_max: int,
        bytes_per_s_max: float | None,
        stall_detector: StallDetector,
        follower: Follower,
        keeping: StorageSettings,
        removals: Removals,
        requests: Requests,
        changed: Callable[[], None],
        owns: Callable[[int], bool],
        content: PageContent,
    ) -> None:
        self.storage, self.keeping, self._removals, self._supervisor = storage, keeping, removals, supervisor
        self.content, self._threads = content, list[threading.Thread]()
        self.uploader = Uploader(
            journal,
            storage,
            events,
            supervisor.crashed,
            identity=identity,
            uploads_max=uploads_max,
            bytes_per_s_max=bytes_per_s_max,
            stall_detector=stall_detector,
            expire_s=keeping.expire_after_s,
            owns=owns,
        )
        self.probe = StorageProbe(
            journal, storage, requests, place=keeping.url, heard=self.uploader.heard, changed=changed
        )
        self.snapshotter = Snapshotter(
            journal,
            storage,
            request=follower.request,
            interrupt=follower.interrupt,
            submit=self.uploader.submit,
            offer=self.uploader.offer,
            abort_leftovers=self.uploader.abort_leftovers,
            now_ms=environment.wall_ms,
            boot_id=environment.boot_id,
            renewal=_renewal(journal, environment, follower, keeping.expire_after_s),
            begin_epoch=self._begin_epoch,
            begin_map=content.base_maps.begin,
            leaves_at_once=self.uploader.may_leave_at_once,
            limits=environment.limits,
            run_id=identity.run_id,
        )
        self._journal, self._identity, self._follower = journal, identity, follower
        self._ownership = Ownership(journal, storage, identity, environment.wall_ms)
        self.continuations = self._continuing(environment, bytes_per_s_max)
        self.driller = _driller(journal, storage, environment, follower, events, bytes_per_s_max)
        self._housekeeper = self._keeping_house(journal, environment, self._ownership, owns) if keeping.delete else None

    def _continuing(self, environment: Environment, bytes_per_s_max: float | None) -> Continuations:
        return Continuations(
            self._journal,
            self.storage,
            self._ownership,
            map_writer=lambda row_id, page_size, suffix: self.content.maps.writer(row_id, page_size, suffix=suffix),
            interrupt=self._follower.interrupt,
            resume=self._continue,
            boot_id=environment.boot_id,
            bytes_per_s_max=bytes_per_s_max,
            limits=environment.limits,
        )

    def _keeping_house(
        self, journal: Journal, environment: Environment, ownership: Ownership, owns: Callable[[int], bool]
    ) -> Housekeeper:
        return Housekeeper(
            journal,
            self.storage,
            ownership,
            submit=self.uploader.submit,
            wall_ms=environment.machine_ms,
            has_clock_leapt=environment.has_clock_leapt,
            removals=self._removals,
            owns=owns,
            limits=environment.limits,
        )

    def adopt(self, databases: Iterable[FollowedDatabase]) -> None:
        """Ship these databases from now on. A base that was under way continues."""
        for tracked in databases:
            self.uploader.pace(tracked.row_id, tracked.spec.upload_interval_s)
            self.content.adopt(tracked)
            self._load(tracked)
            if tracked.state is None and tracked.bridge is None:
                self.continuations.examine(tracked)

    def _load(self, tracked: FollowedDatabase) -> None:
        """Plan bases, drills and housekeeping by what the journal has of the database."""
        self.snapshotter.adopt(tracked)
        self.driller.plan(tracked, tracked.spec.verify_interval_s)
        if self._housekeeper is not None:
            self._housekeeper.adopt(tracked)

    def _continue(self, tracked: FollowedDatabase) -> None:
        """Continue a generation that was found in storage. Only the follower's thread may call."""
        self._follower.resume(tracked)
        self._load(tracked)

    def generation_lost(self, tracked: FollowedDatabase, gap: Gap) -> None:
        """Have the follower end the generation, which the storage can't continue.

        If another daemon has taken the replica over and released it since, that daemon's generation is continued.
        """

        def lose(tracked: FollowedDatabase) -> None:
            self._follower.generation_lost(tracked, gap)
            if gap.kind is GapKind.OWNER and tracked.state is None and tracked.bridge is None:
                self.continuations.examine(tracked)

        self._follower.interrupt(tracked, lose)

    def release(self, databases: Iterable[FollowedDatabase], timeout_s: float) -> int:
        """Release the generations of these databases to other hosts, after everything here has ended.

        Returns how many were released.
        """
        rows = releasable(self._journal, [each.row_id for each in databases], self._identity.run_id)
        return release_all(self._ownership, rows, timeout_s)

    def _begin_epoch(self, tracked: FollowedDatabase, delay_s: float) -> None:
        self.content.epoch_starts.begin(tracked, self.snapshotter.due, self.uploader.offer, delay_s)

    def keep(self, tracked: FollowedDatabase) -> None:
        """Apply the current rules of retention to the database's replica."""
        if self._housekeeper is not None:
            self._housekeeper.replan(tracked)

    def prune(self, databases: Iterable[FollowedDatabase]) -> None:
        """Remove what may be deleted now. Raises UsageError if this storage allows no deletion."""
        housekeeper = self._keeping()
        for tracked in databases:
            housekeeper.prune_now(tracked)

    def pruned(self, tracked: FollowedDatabase) -> Pruned | WalsyncdError | None:
        """Return the result of the pruning, or None if there is none yet."""
        return self._keeping().outcome(tracked)

    def is_housekeeping(self) -> bool:
        """Whether compactions or prunings are under way or about to begin."""
        return self._housekeeper is not None and self._housekeeper.is_busy()

    def removals_made(self) -> int:
        """Return how many objects this run has removed."""
        return sum(self._removals.objects.copy().values())

    def trouble(self) -> str:
        """Return what is wrong with the storage, in words; empty if nothing is."""
        named = f"storage {self.keeping.name}" if self.keeping.name else "storage"
        outage = self.uploader.outage()
        if outage is not None:
            return f"{named} is away: {outage.reason}"
        refusal = self.probe.refusal or self.uploader.refusal()
        return f"{named} refuses: {refusal}" if refusal else ""

    def _keeping(self) -> Housekeeper:
        if self._housekeeper is None:
            raise UsageError("prune: nothing is removed with delete = false", hint="a lifecycle rule does that")
        return self._housekeeper

    def retune(self, tracked: FollowedDatabase, before: DatabaseSpec, now: DatabaseSpec) -> None:
        """Pass the settings that have changed to the parts that use them, except those of retention (``keep``)."""
        if before.upload_interval_s != now.upload_interval_s:
            self.uploader.pace(tracked.row_id, now.upload_interval_s)
        if before.snapshot_interval_s != now.snapshot_interval_s:
            self.snapshotter.replan(tracked, now.snapshot_interval_s)
        if before.scrub_interval_s != now.scrub_interval_s:
            self.content.scrubs.plan(tracked, now.scrub_interval_s)
        self.driller.plan(tracked, now.verify_interval_s)

    def forget(self, tracked: FollowedDatabase) -> None:
        """Stop working for this database, which is no longer followed."""
        self.snapshotter.forget(tracked)
        self.content.forget(tracked)
        self.driller.plan(tracked, None)
        if self._housekeeper is not None:
            self._housekeeper.forget(tracked)

    def start(self) -> None:
        """Start the threads; what earlier runs left is sent first."""
        self.uploader.start()
        self._threads.append(self._supervisor.start("snapshotter", self.snapshotter.run))
        self._threads.append(self._supervisor.start("driller", self.driller.run))
        self._threads.append(self._supervisor.start("continuer", self.continuations.run))
        self._threads.append(self._supervisor.start("health", self.probe.run))
        if self._housekeeper is not None:
            self._threads.append(self._supervisor.start("housekeeper", self._housekeeper.run))

    def leaves_in_s(self, database_id: int) -> float:
        """Return how many seconds the spooling of another object can wait without delaying its upload."""
        return self.uploader.leaves_in_s(database_id)

    def stored(self, row: ObjectRow) -> None:
        """Note that an object became visible."""
        self.snapshotter.stored(row)
        self.content.stored(row)
        self.driller.stored(row)
        if self._housekeeper is not None:
            self._housekeeper.stored(row)

    def wind_down(self) -> None:
        """Begin nothing new from now on, except uploads."""
        self.snapshotter.stop()
        self.driller.stop()
        self.continuations.stop()
        self.probe.stop()
        if self._housekeeper is not None:
            self._housekeeper.stop()

    def stop(self) -> None:
        """End as soon as the requests in flight have ended. The journal has the rest for the next destination."""
        self.wind_down()
        self.uploader.stop()
        for thread in self._threads:
            thread.join()


def _driller(
    journal: Journal,
    storage: Storage,
    environment: Environment,
    follower: Follower,
    events: UploadEvents,
    bytes_per_s_max: float | None,
) -> Driller:
    return Driller(
        journal,
        storage,
        request=follower.request,
        read_shipped=ShippedMoments(environment, follower.request).read_now,
        on_generation_lost=events.on_generation_lost,
        bytes_per_s_max=min(environment.limits.drill_bytes_per_s, bytes_per_s_max or math.inf),
        wall_ms=environment.wall_ms,
    )


def _renewal(journal: Journal, environment: Environment, follower: Follower, expire_s: float | None) -> Renewal | None:
    """Return a renewal if the store removes objects by age, so that bases must be renewed at intervals."""
    if expire_s is None:
        return None
    return Renewal(journal, environment, interrupt=follower.interrupt, expire_s=expire_s)


def leave_place(journal: Journal, row: DatabaseRow, url: str) -> Gap:
    """Abandon what a database has in another storage, in favour of the one at ``url``.

    Returns why its generation ends.
    """
    gap = Gap.of(GapKind.STORAGE, "the storage changed from {before} to {now}", before=row.place or "", now=url)
    now_ms = clock.wall_ms()
    if row.generation is not None:
        journal.lose_generation(row.id, row.generation, gap, now_ms)
    journal.drop_spool(row.id)  # what was left of earlier generations
    for base in journal.bases(row.id):
        journal.base_dropped(base.row.id)
    journal.forget_kept(row.id)
    journal.note_place(row.id, url)
    return gap
