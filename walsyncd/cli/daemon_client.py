"""Sends requests to the daemon of a state directory."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from walsyncd.cli.bounded import asked
from walsyncd.errors import TransientError, WalsyncdError

ANSWER_TIMEOUT_S = 60.0
POLL_S = 0.02


def call(state_dir: Path, request: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the daemon's answer. Raises the error in the answer, or TransientError if no daemon is running."""
    return told(asked(state_dir, request, timeout_s=ANSWER_TIMEOUT_S), f"state directory {state_dir}")


def told(answer: Mapping[str, Any] | None, whose: str) -> Mapping[str, Any]:
    """Return the answer. Raises the error in the answer if there is one, or TransientError without an answer."""
    if answer is None:
        raise TransientError(f"no daemon runs on {whose}", hint="systemctl start walsyncd, or `walsyncd run`")
    if "error" in answer:
        raise WalsyncdError(answer["error"], hint=answer.get("hint", ""))
    return answer


class Deadline:
    """Waits in small steps until a time-out, in seconds. With None it waits for ever."""

    def __init__(self, timeout_s: float | None) -> None:
        self._end = None if timeout_s is None else time.monotonic() + timeout_s

    def pause(self) -> bool:
        """Wait a little. Returns False if the time is up."""
        if self._end is not None and time.monotonic() >= self._end:
            return False
        time.sleep(POLL_S)
        return True
