"""walsyncd replicates SQLite databases to object storage: read-only, event-driven, every commit accounted for.

Layers. Imports point down, never up::

    cli ─> engine ─> adapters ─> core        errors are below all; config and log are leaves; demo plays it all

``file_calls`` is a leaf, too. Each system call on a user's file is registered there while the call lasts, because a
call on a dead file system may never return.

Folders. A folder's name says what is done, a file's name says with what. The first line in a folder's ``__init__.py``
says what the folder is for::

    core/      pure: no clock, file, network, thread or log; bytes in, facts out. limits: what all parts share
        sqlite/    what SQLite writes                        wal  walindex  rollback_journal  dbheader
        stored/    what walsyncd stores                      epoch  segment  base  manifest  layout  position
        follow/    the proof that nothing was missed         decision  restart  follow_state  gap
        content/   what each page of a replica is            page_entry  redo  comparison  bridge_passes
        rollback/  which pages a -journal proves changed     changed_pages  journal_trail
        send/      what is uploaded next, and how fast       multipart  merge  pacing  backoff
        restore/   which objects give which position         coverage  plan  timeline
        keep/      when bases are due, what is removed       base_schedule  retention
    adapters/  one outside thing each, no decisions; errors are translated at the edge
        files/     the user's files and restored ones        source  inotify  target  durable_file
        journal/   walsyncd's own state on disk              journal (over its tables)  spool
        storage/   where replicas are stored                 interface  directory  s3/
        system/    who runs and watches walsyncd             control_socket  service_manager  exporter
    engine/    doers
        threads/   named threads, and which of them hangs
        follow/    one database's WAL becomes segments       follower ─> look ─> copy_frames, wal_restart, no_wal
        read_ahead/  WALs, before SQLite overwrites them     read_ahead ─> reading ─> ahead_look
        backpressure/  a child that slows fast writers       backpressure ─> mark_process ─> mark_hold
        content/   page maps, and bridges over gaps          page_content ─> map_making, bridges ─> gap_bridge
        rollback/  databases without a WAL                   rollback_mode ─> database_scans ─> page_scan
        base/      full copies while writers write           snapshotter ─> copy_queue ─> base_copy
        ship/      journal rows become objects               uploader ─> scheduler, shipper ─> object_upload
        restore/   a replica is listed, planned, restored    restorer ─> planner, base_fetch, replay;  verifier
        upkeep/    compaction, pruning, drills, takeovers    housekeeper ─> compactor, pruner;  drill_runner
        daemon/    wiring, reload, status, metrics           daemon ─> databases, destinations, control
    cli/       the command line; commands/ has one module for each command
    config/    the configuration file: schema, environment, errors that name the line
    demo/      the story that ``walsyncd demo`` plays

Threads. The number of threads does not depend on the number of databases. Each storage that is in use has its own
threads for ship, base, upkeep and health. Each thread writes only what its line says::

    thread        runs                                    writes
    main          daemon.serve: signals, reload           which databases and destinations there are
    watcher       follow.event_pump: reads inotify        which databases are due, descriptors of -wal, -shm
    reader        read_ahead.read_ahead: reads bursts     what the follower will judge
    follower      follow.follower: looks, proves          what is believed of each database, segments
    upload-N      ship.uploader: requests to storage      "begun" and "stored" of rows, who owns a replica
    snapshotter   base.snapshotter: copies databases      parts and manifests of bases, page maps of first ones
    backpressure  backpressure.backpressure               what is known of its child process
    scanner       content.scan_queue: reads files, paced  page maps, bodies of bridges
    housekeeper   upkeep.housekeeper                      compacted epochs, what retention removes
    driller       upkeep.drill_runner                     results of drills
    continuer     upkeep.continuation                     which generation of another host goes on here
    control       system.connections: serves the socket   answers to clients
    control-N     daemon.control: makes the answers       requests that other threads carry out
    path finder   daemon.path_finder: paths, patterns     what the configuration means on disk now
    health        daemon.storage_probe                    whether storage answers
    notifier      daemon.notifier: [notify]               nothing
    log           log.queue                               stderr
    hang watch    threads.hang_watch                      which threads hang in a call on a file, and are replaced

The threads share the journal (one connection, one lock) and wake-ups. Two threads read the inotify queue, under one
lock: the watcher when it is woken, the follower before it believes a header.

The way of a commit. inotify wakes ``engine.follow.follower``. The follower reads the wal-index and the new frames
(``engine.follow.look``), has ``core.follow.decision`` prove that nothing was missed, re-stamps the frames for the
stored WAL (``core.stored.epoch``), and puts a segment and the resulting follow state into the journal in one
transaction (``adapters.journal.journal``). ``engine.ship.uploader`` ships the segment.

Where it is decided. The names of modules omit the leading ``walsyncd.``. A test checks that they exist::

    a commit is read and proven         engine.follow.look.take_step ─> core.follow.decision
    a restart of the WAL is proven      core.follow.restart_seen.prove_restart, seen by engine.follow.wal_restart
    a WAL that appears is accepted      core.follow.first_wal.accept, seen by engine.follow.new_wal
    something was missed (a gap)        core.follow.gap.GapKind ─> engine.follow.follower, engine.content.bridges
    an epoch is closed                  engine.follow.copy_frames.close_epoch_if_due, engine.content.epoch_start
    the next look                       core.follow.look_pace, engine.follow.schedule.Schedule
    the next generation                 core.follow.next_generation.NextGeneration
    a base is due, and begins           engine.base.base_timing.BaseTiming, engine.base.snapshotter.Snapshotter
    an upload is next, or waits         engine.ship.scheduler.Scheduler, core.send.pacing
    a request is refused                core.send.refused_request
    a request is not answered           core.send.backoff, engine.ship.outage
    who may write a replica             core.stored.owner, engine.ship.ownership.Ownership
    another host's replica goes on      engine.upkeep.continuation, engine.ship.release
    the spool is full                   engine.ship.spool_limit, engine.daemon.full_spool
    a page is wrong                     core.content.comparison, engine.content.scrubs
    what is deleted, and when           core.keep.retention, engine.upkeep.pruner.Pruner
    what a restore reads                core.restore.plan.make_plan
    a kind of storage                   adapters.storage.interface.Storage, adapters.storage.open_storage
    a file is taken for a database      config.database_search.find_databases
    a reload reaches a part             engine.daemon.databases.Databases, engine.daemon.destination.Destination
    a state of a database               core.follow.database_state.DatabaseState
    a field of ``status``               engine.daemon.database_status.DatabaseStatus, cli.commands.status
    a metric, a line of the log         engine.daemon.metrics; the log's calls are where the thing happens
    a limit that several parts share    core.limits.Limits, in engine.follow.environment.Environment

One thing has two words: a *base* (in the bucket, the log and the code) is what the command line calls a *snapshot*.
"""

__version__ = "0.1.0"
