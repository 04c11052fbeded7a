"""The limits that the parts of a daemon share: how much is read and held at once, and how long they wait.

The daemon uses the defaults. A test that needs a full epoch, or a large transaction, after a few rows passes others.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and waits that the parts of a daemon share (``engine.follow.environment``)."""

    batch_bytes: int = 4 << 20
    """One step reads at most so much of a WAL, which takes a few milliseconds of one core."""
    memory_bytes_max: int = 8 << 20
    """A segment or bridge that is larger is written to a file. Merging makes no larger objects (core.send.merge)."""
    tail_bytes_max: int = 256 << 20
    """The rest of an old incarnation is held in memory until it is proven. A larger rest is a gap."""
    ahead_frames_per_s: int = 2500
    """Slower writers are not read ahead: their WALs live longer than an fsync of a slow disk takes."""
    ahead_window_s: float = 0.25
    """The speed of a writer is measured over this time."""
    ahead_look_bytes: int = 16 << 20
    """One look of a reading ahead reads no more. A WAL that has grown by more does not restart soon."""
    ahead_rest_s: float = 0.05
    """The follower takes what is read ahead no more often, if it is less than ``ahead_rest_bytes``. That saves segments
    and transactions of the journal."""
    ahead_rest_bytes: int = 4 << 20
    defer_s_max: float = 1.0
    """A look is put off by no more than this while the next upload is not due (engine.read_ahead.deferred_look)."""
    fast_frames: int = 64
    """A look that finds so many frames shows a fast writer. While one writes, no look is put off."""

    epoch_bytes: int = 64 << 20
    epoch_ms: int = 3_600_000
    epoch_patience: int = 4
    """At this many times the two limits above, an epoch no longer waits for a restart to be closed."""

    journal_retry_s: float = 1.0
    """The wait after the journal could not be written."""
    note_interval_ms: float = 6000.0
    """The journal takes ten states of a database at once, and ten a minute after that. A commit takes some
    milliseconds, so that a hundred databases whose states flap take less than a tenth of the journal's time."""
    generation_delay_s: float = 1.0
    """The first wait between the beginnings of two generations. It doubles each time (core.follow.next_generation)."""
    begin_look_s: float = 2.0
    """A generation or a bridge that waits for something checks this often whether it has come. A check is cheap."""
    bridge_retry_s: float = 5.0
    """The first wait after the file or the spool could not be read or written. It doubles up to
    ``bridge_retry_s_max``."""
    bridge_retry_s_max: float = 60.0
    bridge_bytes_min: int = 1 << 20
    """A bridge of this size is never worse than a base, which takes two objects and ends the generation."""
    spool_share: int = 4
    """What takes more than 1/``spool_share`` of the spool by itself is given up, because a base costs less."""

    epoch_start_bytes: int = 1 << 20
    """The follower's thread reads at most so many bytes of frames when it ends the start of an epoch: some
    milliseconds."""
    epoch_start_retry_s: float = 60.0
    """The first wait after an epoch could not be begun for a base. It doubles up to an hour."""
    map_retry_s: float = 1.0
    """The first wait after a page map could not be made. It doubles up to a minute."""
    map_segments: int = 64
    """After this many stored segments the map files take over what they may."""
    map_redo_bytes: int = 1 << 20
    """A map file is written when so many bytes of redo rows wait: 87,000 pages, which is once for many segments."""
    map_redo_rows: int = 32
    """A commit in rollback mode opens the map, and reads the rows of earlier ones. Reading 32 costs 0.3 ms, and writing
    them into the map file 5 ms (measured), which is 0.15 ms for each commit."""
    scrub_attempts: int = 10
    scrub_attempt_s: float = 1.0
    """The wait between two attempts of a scrub, if the WAL was overwritten or a gap is being bridged."""

    busy_file_s: float = 10.0
    """A writer's transaction, or a busy file without a WAL, is reported only after this time."""
    shipped_moment_s: float = 90.0
    """The longest wait for a moment at which all of a file without a WAL is shipped. Such a moment comes after a scan,
    and a large file may rest for a minute before that."""
    quiet_file_ms: int = 10_000
    """A watched file without a WAL must be quiet for so long before its times are noted. Only a restart of the daemon
    uses them, and writing them after each of several commits would cost as much as shipping those."""

    base_stalled_s: float = 30.0
    """After this a base that makes no progress no longer delays others. A part on a slow line takes less."""
    small_base_bytes: int = 8 << 20
    """Below it a base is one request, so that several are under way together."""
    base_work_bytes: int = 8 << 20
    """Stored WAL of that size is applied in a second. A tiny database needs no base for less."""
    base_work_pause_s: float = 300.0
    """Between two bases by stored work, since each reads the whole file."""

    whole_copy_bytes_per_s: float = 1 << 20
    """Files that are copied whole for each change are copied at this mean rate, 84 GiB a day, by any storage."""

    answer_s_max: float = 20.0
    """The longest wait for the answer whether another host has left a replica. A request takes a tenth of a second
    where all is well; a busy machine and a slow line need more. A database that has waited for its turn as long as that
    reports it."""
    turn_s_max: float = 600.0
    """The longest wait for the turn of a replica that another host may have left: enough for hundreds of small ones."""

    upkeep_calm_s: float = 1.0
    """Thousands of databases may begin, or close an epoch, at once. This gathers them into one round of upkeep."""
    replaced_after_ms: int = 3_600_000
    """The segments of a compacted epoch stay for so long: readers may have planned with them, and requests may be
    late."""
    once_trouble_s: float = 30.0
    """A single round (``run --once``) leaves what a storage has refused for this long to the next run."""
    once_stalled_s: float = 600.0
    """A single round ends if nothing moves for this long. A part of 8 MiB on the slowest usable line takes less."""
    spool_check_share: int = 50
    """Computing the spool's size may take at most one part in this many of the time."""
    drill_bytes_per_s: int = 32 << 20
    """Drills read no faster: a gigabyte in half a minute, which hardly loads a fast line."""
    notify_check_s: float = 10.0
    """The notifier sees a problem within this time if no thread has woken it for that."""
    stop_linger_s: float = 10.0
    """A stop waits so long for the answers to its last requests, after the time for shipping. It is part of the margin
    that the service manager is told (``STOP_MARGIN_S``)."""


DEFAULT_LIMITS = Limits()
