"""Gives up threads whose call on a user's file hangs, so that a dead file system costs its own databases only.

The watch counts at how many of its looks in a row the same call lasts. So a process that is stopped for an hour, or a
machine that sleeps, does not make its calls look as if they hung. After ``LOOKS`` looks the thread is abandoned
(``walsyncd.file_calls``): the path is silent, and ``replace`` starts another thread for the same work.

Then the whole mount is asked by statvfs in a thread of its own. If it does not answer within ``PROBE_S``, the mount is
silent too, and no further thread is lost there. A disk that is stuck at one file answers, and then only that file is
silent. Nothing is polled: the calls that hang return when the file system answers, and then the paths answer again.

``THREADS_MAX`` threads may hang at a time. After that none is given up any more, and the process hangs as it would
without the watch. The service manager's watchdog then starts it again.

While no call lasts the watch sleeps. The next call wakes it, so it costs nothing where nothing happens.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar, cast

from walsyncd.config import mount_of
from walsyncd.errors import UnresponsiveError, WalsyncdError
from walsyncd.file_calls import FILE_CALLS, HINT, FileCall, ThreadAbandonedError, covers

if TYPE_CHECKING:
    from structlog.typing import FilteringBoundLogger

LOOK_S = 2.0
LOOKS = 5  # so a call may last ten seconds; on a busy disk it takes one
PROBE_S = 2.0
THREADS_MAX = 32
SEARCHES_MAX = 20  # attempts at one piece of work, each of which met another silent path

T = TypeVar("T")


class HangWatch:
    """Abandons only threads that ``owns`` accepts, and ``replace`` starts another one in the place of each.

    ``answered`` gets the paths that answer again, and ``silenced`` a mount that does not answer. All these functions
    are called in the watch's thread. Without ``logs`` only the raised errors report what hangs, as in a command.
    """

    def __init__(
        self,
        *,
        owns: Callable[[int], bool] = lambda _thread: False,
        replace: Callable[[int], None] = lambda _thread: None,
        answered: Callable[[list[str]], None] = lambda _paths: None,
        silenced: Callable[[str], None] = lambda _path: None,
        look_s: float | None = None,
        probe_s: float | None = None,
        logs: bool = True,
    ) -> None:
        self.owns, self.replace = owns, replace
        self.answered, self.silenced = answered, silenced
        self._look_s, self._probe_s = look_s or LOOK_S, probe_s or PROBE_S
        self._logs = logs
        self._seen: dict[FileCall, int] = {}
        self._own: dict[int, Callable[[UnresponsiveError], None]] = {}
        """Threads of ``carry_out`` and of probes: what to do when one of them is abandoned."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="hang watch", daemon=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self.stop()

    def start(self) -> None:
        """Watch from now on."""
        self._thread.start()

    def stop(self) -> None:
        """Stop watching. Calls that hang are left, and their threads end with the process."""
        self._stopping.set()
        FILE_CALLS.wake()
        self._thread.join()

    def carry_out(self, work: Callable[[], T]) -> T:
        """Do ``work`` in a thread of its own, and return what it returns.

        Raises UnresponsiveError if a call on a file hangs in the work, which is then left where it is.
        """
        future: Future[T] = Future()

        def run() -> None:
            try:
                result = work()
            except ThreadAbandonedError:
                FILE_CALLS.ended(threading.get_ident())
            except BaseException as error:  # noqa: BLE001 - the caller gets the error
                future.set_exception(error)
            else:
                if not future.done():
                    future.set_result(result)

        thread = threading.Thread(target=run, name="file work", daemon=True)
        thread.start()
        ident = thread.ident
        assert ident is not None
        self._own[ident] = future.set_exception
        try:
            return future.result()
        finally:
            self._own.pop(ident, None)

    def search(self, work: Callable[[], T]) -> T:
        """Do ``work``, which changes nothing, again and again until it meets no further path that hangs."""
        for _ in range(SEARCHES_MAX):
            try:
                return self.carry_out(work)
            except UnresponsiveError as error:
                last = error
        raise last

    def try_out(self, work: Callable[[], object]) -> None:
        """Do ``work`` unless it hangs. Its errors are not reported."""
        try:
            self.carry_out(work)
        except WalsyncdError as error:
            _logger().debug("file_work_failed", reason=error.message)

    def _run(self) -> None:
        while not self._stopping.is_set():
            FILE_CALLS.woken.clear()
            self._take_answered()
            if not self._look():
                FILE_CALLS.is_unwatched = True
                if not FILE_CALLS.lasting:
                    FILE_CALLS.woken.wait()
            self._stopping.wait(self._look_s)

    def _take_answered(self) -> None:
        answered = FILE_CALLS.take_answered()
        if answered and self._logs:
            _logger().info("file_system_answers_again", paths=answered)
        if answered:
            self.answered(answered)

    def _look(self) -> bool:
        """Count one more look for each call that lasts. Returns whether there is one."""
        seen = self._seen
        self._seen = {call: seen.get(call, 0) + 1 for call in FILE_CALLS.lasting.copy()}
        for call in [call for call, looks in self._seen.items() if looks > LOOKS]:
            self._give_up(call)
        return bool(self._seen)

    def _give_up(self, call: FileCall) -> None:
        thread = call.thread
        if not (thread in self._own or self.owns(thread)):
            return
        if len(FILE_CALLS.abandoned) >= THREADS_MAX or not FILE_CALLS.abandon(call):
            return
        if self._logs:
            _logger().error(
                "file_system_does_not_answer",
                path=str(call.path),
                call=call.action,
                seconds=round(self._look_s * LOOKS),
                remedy=HINT,
            )
        self._probe(mount_of(Path(call.path)))
        tell = self._own.pop(thread, None)
        if tell is not None:
            tell(UnresponsiveError(f"{call.action} {call.path}: its file system does not answer", hint=HINT))
        else:
            self.replace(thread)

    def _probe(self, mount: Path) -> None:
        """Ask the mount itself, unless it is silent already."""
        if any(covers(silent, mount) for silent in FILE_CALLS.silent):
            return
        done: Future[None] = Future()
        is_silent = threading.Event()

        def ask() -> None:
            with suppress(OSError):  # an error is an answer, too
                os.statvfs(mount)
            done.set_result(None)
            if is_silent.is_set():
                FILE_CALLS.answers(mount)

        threading.Thread(target=ask, name="mount probe", daemon=True).start()
        try:
            done.result(self._probe_s)
        except FutureTimeoutError:
            FILE_CALLS.silence(mount, f"statvfs {mount}")
            is_silent.set()
            if done.done():  # the call returned at that very moment, and may not have seen that its path was silent
                FILE_CALLS.answers(mount)
            if self._logs:
                _logger().error("mount_does_not_answer", mount=str(mount), remedy=HINT)
            self.silenced(str(mount))


def _logger() -> FilteringBoundLogger:
    import structlog  # noqa: PLC0415 - commands search with a time limit, too, and are light until they log

    return cast("FilteringBoundLogger", structlog.get_logger())
