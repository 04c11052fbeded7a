"""walsyncd replicates SQLite databases to object storage: read-only, event-driven, every commit accounted for.

The architecture in one look; imports point down, never up::

    cli ─> engine ─> adapters ─> core        errors below all; config and log are leaves; demo plays it all

    core/      pure: no clock, file, network, thread or log; bytes in, facts out
        what SQLite writes      wal  walindex  walindex_hash  dbheader  checksum  arrays
        the proof               follow  restart  follow_state
        locks we may hold       presence
        what we store           epoch  segment  base  manifest  layout  position  owner  zstd
        sending                 multipart  merge  pacing  bandwidth  backoff
        restoring               coverage  plan  moment  timeline  follow_point
        keeping                 retention  base_schedule  drill_schedule  freelist
    adapters/  one outside thing each, no decisions, errors translated at the edge
        the user's files        inotify  source  statx
        copies                  target  integrity  replica_file
        storage                 storage (the interface)  s3 (over s3_*)  directory  open_storage  probe
                                counting_storage  paced_reads
        our own state           journal (over journal_*)  spool  state_disk
        who runs us             control_socket  service_manager  exporter (of metrics)
    engine/    doers
        wiring                  daemon  roster  shipping  supervisor  agenda  watch  outside
        running                 control (the socket's answers)  heartbeat  pulse  leavings (of a stop)
        seen from outside       sight ─> health (the probe)  metrics;  status
        following               follower ─> look ─> copying, seam, birth, absence, resumption;
                                eyes read, lives hold the descriptors and glance, collector makes segments;
                                presence holds a database open where that is asked for
        bases                   snapshotter ─> rota, base_copy, renewal
        shipping                uploader ─> dispatch, lane, shipment, upload, ownership, orphans, throttle,
                                outage, trouble, spool_limit
        keeping                 housekeeper ─> compactor, pruner ─> removal
        drills                  driller ─> drill ─> live_comparison
        restoring               restorer ─> planner, commits, replica, fetch, apply ─> prefetch, epoch_reader;
                                standby follows with a copy; verifier, salvage, survey
    cli/       one module a command

A commit's way: inotify wakes ``engine.follow.follower``; it reads the wal-index and the new frames
(``engine.follow.look``), has ``core.follow.decision`` prove that nothing was missed, re-stamps the frames for our own
WAL (``core.stored.epoch``), and puts a segment with the follow state it leads to into the journal in one
transaction (``adapters.journal.journal``); ``engine.ship.uploader`` ships it.
"""

__version__ = "0.1.0"
