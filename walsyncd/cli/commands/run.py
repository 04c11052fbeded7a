"""``walsyncd run``: runs the daemon in the foreground."""

from __future__ import annotations

import argparse
import faulthandler
import signal
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from walsyncd.adapters.storage.interface import Storage
    from walsyncd.config import Settings, StorageSettings


LOG_FLUSH_S = 5.0  # if journald accepts nothing for this long, it will not accept anything later either


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --once; everything else is in the configuration."""
    parser.add_argument(
        "--once",
        action="store_true",
        help="look at every database, ship, take a base where one is due, and end: 0 if nothing is left, else 75",
    )
    parser.epilog = f"{parser.epilog}\n  75  ended with something left in the spool for the next start"


def run(args: argparse.Namespace) -> int:
    """Run until SIGTERM or SIGINT, or one round. A second signal stops at once. SIGHUP reloads the configuration."""
    from walsyncd import log  # noqa: PLC0415 - a command is light until it runs
    from walsyncd.cli import settings_from  # noqa: PLC0415
    from walsyncd.cli.configured_storage import storage_from  # noqa: PLC0415
    from walsyncd.engine.daemon.daemon import EXIT_SPOOLED, STOP_SIGNALS, run_daemon  # noqa: PLC0415
    from walsyncd.engine.threads.stall_detector import StallDetector  # noqa: PLC0415
    from walsyncd.engine.threads.stop_limit import MARGIN_S, StopLimit  # noqa: PLC0415

    stall_detector = StallDetector()
    stop_timeout_s = [0.0]  # from the configuration that was read last

    def source() -> tuple[Settings, Callable[[StorageSettings], Storage]]:
        settings = settings_from(args)
        daemon = settings.daemon

        def open_storage(how: StorageSettings) -> Storage:
            # Besides the uploads, the snapshotter and a check of a folder's owner need connections.
            connections_max, beat = daemon.uploads_max + 2, stall_detector.beat
            return storage_from(how, connections_max=connections_max, state_dir=daemon.state_dir, beat=beat)

        log.configure_daemon(daemon.log_level, daemon.log_format)
        stop_timeout_s[0] = daemon.stop_timeout_s
        return settings, open_storage

    faulthandler.enable()  # the watchdog's SIGABRT writes every thread's stack to the journal
    try:
        with StopLimit(STOP_SIGNALS, lambda: stop_timeout_s[0] + MARGIN_S, exit_code=EXIT_SPOOLED):
            code = run_daemon(source, stall_detector, once=args.once)
        # At its end Python restores the default actions. Then one more signal would replace the exit code.
        for number in STOP_SIGNALS:
            signal.signal(number, signal.SIG_IGN)
        return code
    finally:
        log.flush(LOG_FLUSH_S)
