"""``walsyncd reload``: have the daemon read its configuration again, and wait for what it says."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from walsyncd.cli.table import counted

ANSWER_TIMEOUT_S = 330.0  # what the daemon gives itself, and a little more


def add_arguments(_parser: argparse.ArgumentParser) -> None:
    """Nothing beyond ``--config``."""


def run(args: argparse.Namespace) -> int:
    """Print what changed; an error if the daemon refuses the configuration, which leaves the old one in force."""
    changes = _ask(args)
    parts = [f"{len(changes[what])} {what}" for what in ("added", "removed", "changed") if changes[what]]
    print(", ".join([f"reloaded: {counted(changes['databases'], 'database')}", *parts]))
    return 0


def _ask(args: argparse.Namespace) -> Mapping[str, Any]:
    """The daemon's answer. Run by the unit, its runtime directory says which daemon, and no configuration is read."""
    from walsyncd.adapters.system.control_socket import NAME, ask, ask_daemon  # noqa: PLC0415 - light until it runs
    from walsyncd.cli.daemon_client import told  # noqa: PLC0415

    request = {"op": "reload"}
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    if runtime:
        path = Path(runtime, NAME)
        return told(ask(path, request, timeout_s=ANSWER_TIMEOUT_S), str(path))
    from walsyncd.cli import settings_from  # noqa: PLC0415

    state_dir = settings_from(args).daemon.state_dir
    answer = ask_daemon(state_dir, request, timeout_s=ANSWER_TIMEOUT_S)
    return told(answer, f"state directory {state_dir}")
