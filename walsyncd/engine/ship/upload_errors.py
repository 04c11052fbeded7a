"""Reports why uploads do not succeed: in the log when it begins and when it ends, and in the database's status.

``walsyncd status`` shows the reason until the next upload of the database has succeeded.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from walsyncd.adapters.journal.journal import Journal
from walsyncd.engine.ship.database_queue import DatabaseQueue
from walsyncd.errors import FaultError, RefusedError, StateError, TransientError, UsageError
from walsyncd.log import get_logger


class UploadErrors:
    """Notes upload errors and their ends. A thread may call the methods for a queue that it has made busy."""

    def __init__(self, journal: Journal, url: str, wall_ms: Callable[[], int]) -> None:
        self._journal = journal
        self._url = url
        self._wall_ms = wall_ms
        self._lock = threading.Lock()
        self._refused: set[int] = set()
        self._state_problem = ""
        self.refusal = ""
        """Why the storage refuses at least one database at present; empty if it refuses none."""

    def away(self, queue: DatabaseQueue, error: TransientError, *, is_away: bool) -> None:
        """Note that the storage did not answer.

        If ``is_away``, the storage answers no queue at all, and the log has one line for all queues.
        """
        remedy = error.hint or "nothing is lost: what waits is tried again at least once a minute until it answers"
        what = "storage is away" if is_away else "not stored yet"
        self._note(queue, f"{what}: {error.message} (hint: {remedy})")

    def refused(self, queue: DatabaseQueue, error: RefusedError) -> None:
        """Note that the storage refused the queue's request."""
        remedy = error.hint or "change the permissions; it is tried again every half minute"
        with self._lock:
            is_news = not self._refused
            self._refused.add(queue.database_id)
            self.refusal = str(error)
        self._note(queue, f"storage refuses: {error.message} (hint: {remedy})")
        if is_news:
            get_logger(database=queue.name).error("storage_refused", url=self._url, reason=str(error))

    def failed(self, queue: DatabaseQueue, error: FaultError | UsageError) -> None:
        """Note an unforeseen fault, whose traceback is in the log, or a key that the storage does not accept."""
        self._note(queue, str(error))

    def over(self, queue: DatabaseQueue) -> None:
        """Note that the storage took the queue's object."""
        with self._lock:
            was_refused = queue.database_id in self._refused
            self._refused.discard(queue.database_id)
            is_news = was_refused and not self._refused
            self.refusal = self.refusal if self._refused else ""
            state_problem, self._state_problem = self._state_problem, ""
        self._note(queue, "")
        if is_news:
            get_logger(database=queue.name).info("storage_accepted", url=self._url)
        if state_problem:
            self._journal.disk.keep_reserve()
            get_logger().info("state_dir_writable_again")

    def state_failed(self, error: StateError) -> None:
        """Note that our own disk is full or broken, which is not an outage of the storage."""
        self._journal.disk.give_reserve()
        with self._lock:
            is_news, self._state_problem = not self._state_problem, error.message
        if is_news:
            get_logger().error("state_dir_not_writable", reason=error.message, remedy=error.hint)

    def _note(self, queue: DatabaseQueue, words: str) -> None:
        if words == queue.trouble:
            return
        try:
            self._journal.note_error(queue.database_id, words, self._wall_ms())
        except StateError as error:
            self.state_failed(error)  # the next attempt notes the words
        else:
            queue.trouble = words
