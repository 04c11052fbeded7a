"""Creates the storage for a url.

| url                    | storage                                        |
|------------------------|------------------------------------------------|
| ``s3://bucket/prefix`` | a bucket of any S3-compatible store            |
| ``file:///folder``     | a folder, percent-encoded as ``Path.as_uri()`` |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.interface import Storage
from walsyncd.adapters.storage.s3.s3_settings import S3Settings
from walsyncd.errors import UsageError


def open_storage(
    url: str, settings: S3Settings, *, memory: Path | None = None, beat: Callable[[], None] = lambda: None
) -> Storage:
    """Return the storage at ``url`` without making a request; ``settings`` are used for an S3 store.

    ``memory`` is the file that remembers which folders were in use (``remembered_folder``). ``beat`` is called while a
    request of several seconds makes progress.

    Raises UsageError with the known schemes.
    """
    scheme, separator, rest = url.partition("://")
    if separator and scheme == "s3":
        bucket, _, prefix = rest.partition("/")
        if not bucket:
            raise UsageError(f"storage url {url!r} names no bucket", hint="s3://bucket/prefix")
        from walsyncd.adapters.storage.s3.s3_storage import S3Storage  # noqa: PLC0415 - boto3 takes longer to load than a folder to list

        return S3Storage(replace(settings, bucket=bucket, prefix=prefix.strip("/")), beat)
    if separator and scheme == "file":
        path = unquote(rest.removeprefix("localhost"))
        if not path.startswith("/"):
            raise UsageError(f"storage url {url!r} is not absolute", hint="as in file:///srv/replica")
        return DirectoryStorage(Path(path), memory)
    raise UsageError(f"storage url {url!r} has no known scheme", hint="s3://bucket/prefix or file:///folder")
