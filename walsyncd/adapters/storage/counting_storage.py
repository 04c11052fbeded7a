"""A storage that passes requests on to another storage, and counts them by kind and result."""

from __future__ import annotations

import builtins
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from walsyncd.adapters.storage.interface import (
    HasConditions,
    ObjectInfo,
    OpenUpload,
    Storage,
    StoredPart,
    confirmed,
    takes_blocks,
)
from walsyncd.errors import RefusedError, TransientError, WalsyncdError

OK, AWAY, REFUSED, FAILED = "ok", "away", "refused", "failed"


class Requests:
    """Counts of requests and results. Each request is also counted in ``total``, if given.

    Any thread may call the methods. ``answered`` is called after each request that the storage answered.
    """

    def __init__(self, total: Requests | None = None, answered: Callable[[], None] = lambda: None) -> None:
        self._total = total
        self._answered = answered
        self._lock = threading.Lock()
        self._counts: Counter[tuple[str, str]] = Counter()
        self._answered_s = 0.0

    @contextmanager
    def counted(self, kind: str) -> Iterator[None]:
        """Count one request of this kind, with its result."""
        result = OK
        try:
            yield
        except WalsyncdError as error:
            result = _result(error)
            raise
        finally:
            self._note(kind, result)
            if self._total is not None:
                self._total._note(kind, result)  # noqa: SLF001 - another one of the same class

    def _note(self, kind: str, result: str) -> None:
        with self._lock:
            self._counts[kind, result] += 1
            if result in {OK, FAILED}:
                self._answered_s = time.monotonic()
        if result != AWAY:
            self._answered()

    def counts(self) -> dict[tuple[str, str], int]:
        """Return the counts by kind (a method of Storage) and result."""
        with self._lock:
            return dict(self._counts)

    def silent_s(self) -> float:
        """Return the number of seconds since the storage last answered a request."""
        return time.monotonic() - self._answered_s


class CountingStorage:
    """Forwards to ``inner`` and counts each method's calls in ``requests``."""

    def __init__(self, inner: Storage, requests: Requests) -> None:
        self._inner = inner
        self._counted = requests.counted

    @property
    def url(self) -> str:
        """See ``Storage.url``."""
        return self._inner.url

    def put(self, key: str, body: bytes, *, metadata: Mapping[str, str]) -> str:
        """See ``Storage.put``."""
        with self._counted("put"):
            return self._inner.put(key, body, metadata=metadata)

    @property
    def honours_conditions(self) -> bool | None:
        """See ``HasConditions``."""
        return self._inner.honours_conditions if isinstance(self._inner, HasConditions) else None

    def put_if(self, key: str, body: bytes, *, etag: str | None) -> bool:
        """See ``Storage.put_if``."""
        with self._counted("put_if"):
            return self._inner.put_if(key, body, etag=etag)

    @property
    def takes_blocks(self) -> bool:
        """See ``TakesBlocks``."""
        return takes_blocks(self._inner)

    def put_blocks(self, key: str, blocks: Iterator[bytes], *, sha256: str | None = None) -> None:
        """See ``TakesBlocks``. It counts as a PUT."""
        inner = self._inner
        assert takes_blocks(inner), "asked before"
        with self._counted("put"):
            inner.put_blocks(key, blocks, sha256=sha256)

    def head(self, key: str) -> ObjectInfo | None:
        """See ``Storage.head``."""
        with self._counted("head"):
            return self._inner.head(key)

    def confirm(self, key: str) -> ObjectInfo | None:
        """See ``HasConfirmation``. It counts as a HEAD."""
        with self._counted("head"):
            return confirmed(self._inner, key)

    def get(self, key: str, *, first: int = 0, length: int | None = None) -> bytes:
        """See ``Storage.get``."""
        with self._counted("get"):
            return self._inner.get(key, first=first, length=length)

    def stream(self, key: str) -> Iterator[bytes]:
        """See ``Storage.stream``."""
        with self._counted("stream"):
            yield from self._inner.stream(key)

    def list(self, prefix: str, *, start_after: str = "") -> Iterator[ObjectInfo]:
        """See ``Storage.list``. A listing counts once, however many pages it has."""
        with self._counted("list"):
            yield from self._inner.list(prefix, start_after=start_after)

    def folders(self, prefix: str) -> builtins.list[str]:
        """See ``Storage.folders``."""
        with self._counted("folders"):
            return self._inner.folders(prefix)

    def delete(self, keys: Sequence[str]) -> None:
        """See ``Storage.delete``."""
        with self._counted("delete"):
            self._inner.delete(keys)

    def create_upload(self, key: str, *, metadata: Mapping[str, str]) -> str:
        """See ``Storage.create_upload``."""
        with self._counted("create_upload"):
            return self._inner.create_upload(key, metadata=metadata)

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        """See ``Storage.upload_part``."""
        with self._counted("upload_part"):
            return self._inner.upload_part(key, upload_id, number, body)

    def list_parts(self, key: str, upload_id: str) -> builtins.list[StoredPart]:
        """See ``Storage.list_parts``."""
        with self._counted("list_parts"):
            return self._inner.list_parts(key, upload_id)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        """See ``Storage.complete_upload``."""
        with self._counted("complete_upload"):
            return self._inner.complete_upload(key, upload_id, parts)

    def abort_upload(self, key: str, upload_id: str) -> None:
        """See ``Storage.abort_upload``."""
        with self._counted("abort_upload"):
            self._inner.abort_upload(key, upload_id)

    def list_uploads(self, prefix: str) -> builtins.list[OpenUpload]:
        """See ``Storage.list_uploads``."""
        with self._counted("list_uploads"):
            return self._inner.list_uploads(prefix)

    def clock_ms(self) -> int | None:
        """See ``Storage.clock_ms``."""
        return self._inner.clock_ms()


def _result(error: WalsyncdError) -> str:
    if isinstance(error, TransientError):
        return AWAY
    return REFUSED if isinstance(error, RefusedError) else FAILED
