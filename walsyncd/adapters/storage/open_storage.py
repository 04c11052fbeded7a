"""Creates the storage for a url.

| url                    | storage                                        |
|------------------------|------------------------------------------------|
| ``s3://bucket/prefix`` | a bucket of any S3-compatible store            |
| ``file:///folder``     | a folder, percent-encoded as ``Path.as_uri()`` |
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.storage.s3.s3_settings import S3Settings
from walsyncd.errors import UsageError


def open_storage(
    url: str,
    options: Mapping[str, Any],
    *,
    connections_max: int = 16,
    memory: Path | None = None,
    beat: Callable[[], None] = lambda: None,
) -> Storage:
    """Return the storage at ``url`` without making a request; ``connections_max`` threads can use it at once.

    ``options`` are the settings of the kind of store that the scheme names: ``S3Settings`` for a bucket, none for a
    folder. ``memory`` is the file that remembers which folders were in use (``remembered_folder``). While a request of
    several seconds makes progress, ``beat`` is called.

    Raises UsageError, which names the known schemes, for any other scheme.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise UsageError(f"storage url {url!r} names no bucket", hint="s3://bucket/prefix")
        from walsyncd.adapters.storage.s3.s3_storage import S3Storage  # noqa: PLC0415 - boto3 takes longer to load than a folder to list

        place = S3Settings(bucket, prefix.strip("/"), connections_max=connections_max, **options)
        return S3Storage(place, beat)
    if separator and scheme == "file":
        path = unquote(rest.removeprefix("localhost"))
        if not path.startswith("/"):
            raise UsageError(f"storage url {url!r} is not absolute", hint="as in file:///srv/replica")
        return DirectoryStorage(Path(path), memory)
    raise UsageError(f"storage url {url!r} has no known scheme", hint="s3://bucket/prefix or file:///folder")
