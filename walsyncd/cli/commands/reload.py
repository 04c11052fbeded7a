"""``walsyncd reload``: has the daemon read its configuration again, and waits for the result."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from walsyncd.cli.table import counted

ANSWER_TIMEOUT_S = 330.0  # slightly more than the daemon's own limit


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Add no arguments besides ``--config``."""


def run(args: argparse.Namespace) -> int:
    """Print what changed.

    Raises the daemon's error if the daemon refuses the configuration. Then the old configuration remains in force.
    """
    changes = _ask(args)
    parts = [f"{len(changes[what])} {what}" for what in ("added", "removed", "changed") if changes[what]]
    print(", ".join([f"reloaded: {counted(changes['databases'], 'database')}", *parts]))
    return 0


def _ask(args: argparse.Namespace) -> Mapping[str, Any]:
    """Return the daemon's answer. In a systemd unit the runtime directory is enough to find the daemon."""
    from walsyncd.adapters.system.control_socket import NAME, ask  # noqa: PLC0415 - light until it runs
    from walsyncd.cli.daemon_client import told  # noqa: PLC0415

    request = {"op": "reload"}
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if runtime:
        path = Path(runtime, NAME)
        return told(ask(path, request, timeout_s=ANSWER_TIMEOUT_S), str(path))
    from walsyncd.cli import settings_from  # noqa: PLC0415
    from walsyncd.cli.bounded import asked  # noqa: PLC0415

    state_dir = settings_from(args).daemon.state_dir
    answer = asked(state_dir, request, timeout_s=ANSWER_TIMEOUT_S)
    return told(answer, f"state directory {state_dir}")
