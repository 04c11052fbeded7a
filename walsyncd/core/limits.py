"""The limits that the parts of a daemon share: how much is read and held at once, and how long they wait.

The daemon uses the defaults. A test passes other limits if a few rows are to make a full epoch or a large transaction.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """Sizes and waits that the parts of a daemon share (``engine.follow.environment``)."""

    batch_bytes: int = 4 << 20
    """One step reads at most this much of a WAL. That takes a few milliseconds of one core."""
    memory_bytes_max: int = 8 << 20
    """A larger segment or bridge is written to a file. Merging makes no object larger than this (core.send.merge)."""
    tail_bytes_max: int = 256 << 20
    """The rest of an old incarnation of the WAL is held in memory until it is proven. A larger rest is a gap."""
    ahead_frames_per_s: int = 2500
    """Slower writers are not read ahead: their WALs live longer than an fsync of a slow disk takes."""
    ahead_window_s: float = 0.25
    """The speed of a writer is measured over this time."""
    ahead_look_bytes: int = 16 << 20
    """One look of the reading ahead reads at most this much. A WAL that has grown by more does not restart soon."""
    ahead_rest_s: float = 0.05
    """While less than ``ahead_rest_bytes`` was read ahead, the follower waits up to this long before it takes them.
    That saves segments and transactions of the journal."""
    ahead_rest_bytes: int = 4 << 20
    defer_s_max: float = 1.0
    """A look is put off by no more than this while the next upload is not due (engine.read_ahead.deferred_look)."""
    fast_frames: int = 64
    """A look that finds this many frames shows a fast writer. While a fast writer writes, no look is put off."""

    epoch_bytes: int = 64 << 20
    epoch_ms: int = 3_600_000
    epoch_patience: int = 4
    """At this many times the two limits above, an epoch is closed without waiting for a restart of the WAL."""

    journal_retry_s: float = 1.0
    """How long to wait after the journal could not be written."""
    note_interval_ms: float = 6000.0
    """The journal takes ten states of a database at once, and ten a minute after that. A commit of the journal takes
    some milliseconds, so a hundred databases with states that flap take less than a tenth of the journal's time."""
    generation_delay_s: float = 1.0
    """The first wait between the starts of two generations. The wait doubles each time (``next_generation``)."""
    begin_look_s: float = 2.0
    """While a generation or a bridge can't begin yet, this is the time between two checks. A check is cheap."""
    bridge_retry_s: float = 5.0
    """The first wait after the file or the spool could not be read or written. It doubles up to
    ``bridge_retry_s_max``."""
    bridge_retry_s_max: float = 60.0
    bridge_bytes_min: int = 1 << 20
    """A bridge of this size is never worse than a base, which takes two objects and ends the generation."""
    spool_share: int = 4
    """A bridge or the start of an epoch that takes more than 1/``spool_share`` of the spool is given up, because a base
    costs less."""

    epoch_start_bytes: int = 1 << 20
    """The follower's thread reads at most this many bytes of frames when it ends the start of an epoch. That takes some
    milliseconds."""
    epoch_start_retry_s: float = 60.0
    """The first wait after an epoch could not be begun for a base. It doubles up to an hour."""
    map_retry_s: float = 1.0
    """The first wait after a page map could not be made. It doubles up to a minute."""
    map_segments: int = 64
    """After this many stored segments the map files take over all redo rows that they may."""
    map_redo_bytes: int = 1 << 20
    """A map file is written when this many bytes of redo rows wait. These are the rows of 87,000 pages, so a map file
    is written once for many segments."""
    map_redo_rows: int = 32
    """A commit in rollback mode opens the map and reads the redo rows of earlier commits. Reading 32 rows costs 0.3 ms.
    Writing them into the map file costs 5 ms (measured), which is 0.15 ms for each commit."""
    scrub_attempts: int = 10
    scrub_attempt_s: float = 1.0
    """The wait between two attempts of a scrub, if the WAL was overwritten or a gap is being bridged."""

    busy_file_s: float = 10.0
    """A file without a WAL that is busy, or in the middle of a writer's transaction, is not reported before this time
    is over."""
    shipped_moment_s: float = 90.0
    """The longest wait for a moment at which all of a file without a WAL is shipped. Such a moment comes after a scan,
    and a large file may rest for a minute before that."""
    quiet_file_ms: int = 10_000
    """A watched file without a WAL must be quiet for this long before its times are noted. Only a restart of the daemon
    uses these times. Writing them after each of several commits would cost as much as shipping the commits."""

    base_stalled_s: float = 30.0
    """A base that makes no progress for this long no longer delays other bases. A part on a slow line takes less."""
    small_base_bytes: int = 8 << 20
    """A smaller base is one request, so several of them are under way together."""
    base_work_bytes: int = 8 << 20
    """Applying this much stored WAL takes a second. A tiny database needs no base for less."""
    base_work_pause_s: float = 300.0
    """At least this much time is between two bases that are due by stored work, since each reads the whole file."""

    whole_copy_bytes_per_s: float = 1 << 20
    """Files that are copied whole for each change are copied at this mean rate, which is 84 GiB a day. The rate does
    not depend on the storage."""

    answer_s_max: float = 20.0
    """The longest wait for the answer whether another host has left a replica. A request takes a tenth of a second
    where all is well, and longer on a busy machine or a slow line. A database that has waited for its turn for this
    long reports that it waits."""
    turn_s_max: float = 600.0
    """The longest wait for a database's turn to look for a replica that another host may have left. It is enough for
    hundreds of small databases."""

    upkeep_calm_s: float = 1.0
    """Thousands of databases may begin, or close an epoch, at once. This wait gathers them into one round of upkeep."""
    replaced_after_ms: int = 3_600_000
    """The segments of a compacted epoch stay for this long, since readers may have planned with them and requests may
    be late."""
    once_trouble_s: float = 30.0
    """A single round (``run --once``) leaves an object to the next run if a storage has refused it for this long."""
    once_stalled_s: float = 600.0
    """A single round ends if nothing moves for this long. A part of 8 MiB on the slowest usable line takes less."""
    spool_check_share: int = 50
    """Computing the spool's size may take at most one part in this many of the time."""
    drill_bytes_per_s: int = 32 << 20
    """Drills read at most this fast. They read a gigabyte in half a minute, which hardly loads a fast line."""
    notify_check_s: float = 10.0
    """The notifier sees a problem within this time even if no thread wakes the notifier for it."""
    stop_linger_s: float = 10.0
    """After the time for shipping, a stop waits this long for the answers to its last requests. This wait is part of
    the margin that the service manager is given (``STOP_MARGIN_S``)."""


DEFAULT_LIMITS = Limits()
