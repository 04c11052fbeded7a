"""Proves that a storage can be used, by making every kind of request once, on an object of its own.

=======  ================================================================  =====================================
step     what is done                                                      what it needs of a bucket's policy
=======  ================================================================  =====================================
write    put an object of 128 KiB, which the storage class applies to      s3:PutObject
read     GET and HEAD it                                                   s3:GetObject
list     list it by its key                                                s3:ListBucket
upload   begin an upload, send a part, list both, abort                    s3:PutObject, s3:AbortMultipartUpload,
                                                                           s3:ListMultipartUploadParts,
                                                                           s3:ListBucketMultipartUploads
delete   delete the object and check that it is gone (not with             s3:DeleteObject
         ``delete = false``)
clock    compare this machine's clock with the store's                     nothing
region   check whether the store redirected us                             nothing
=======  ================================================================  =====================================
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator

from walsyncd.adapters.storage.interface import HasRules, Storage
from walsyncd.adapters.storage.remark import Remark
from walsyncd.errors import WalsyncdError

CLOCK_SKEW_MAX_S = 300.0  # with a larger difference neither times nor ages can be trusted; stores refuse 15 minutes
_BODY_SIZE = 128 << 10  # smaller objects are not put into a storage class that has a minimal size
_BODY = b"written by walsyncd check, can be deleted\n".ljust(_BODY_SIZE, b".")
_LIED = "the store said yes, but the check object shows that it was not done"


def probe(storage: Storage, wall_s: Callable[[], float] = time.time, *, deletes: bool = True) -> list[Remark]:
    """Return remarks about ``storage``. There are none if it can be used as it is.

    If nothing can be written, the other steps are skipped. Unless it ``deletes``, the probe's object stays.
    """
    key = f".walsyncd-check-{secrets.token_hex(8)}"
    failure = _tried("write", lambda: bool(storage.put(key, _BODY, metadata={}) or True))
    remarks = [failure] if failure else _steps(storage, key, deletes=deletes)
    return [*remarks, *_clock(storage, wall_s()), *(storage.findings() if isinstance(storage, HasRules) else [])]


def rules(storage: Storage, *, deletes: bool, expire_after_s: float | None) -> list[Remark]:
    """Return remarks about the store's own rules that cost money or remove objects, if it has rules."""
    return storage.rules(deletes=deletes, expire_after_s=expire_after_s) if isinstance(storage, HasRules) else []


def _steps(storage: Storage, key: str, *, deletes: bool) -> list[Remark]:
    def read() -> bool:
        info = storage.head(key)
        return info is not None and info.size == len(_BODY) and storage.get(key) == _BODY

    def list_() -> bool:
        return [info.key for info in storage.list(key)] == [key]

    def delete() -> bool:
        storage.delete([key])
        return storage.head(key) is None

    steps = {"read": read, "list": list_, "upload": lambda: _upload(storage, key)}
    if deletes:
        steps["delete"] = delete
    return [failure for name, step in steps.items() if (failure := _tried(name, step))]


def _upload(storage: Storage, key: str) -> bool:
    upload_id = storage.create_upload(key, metadata={})
    try:
        storage.upload_part(key, upload_id, 1, _BODY)
        parts = [(part.number, part.size) for part in storage.list_parts(key, upload_id)]
        uploads = [upload.upload_id for upload in storage.list_uploads(key)]
    finally:
        storage.abort_upload(key, upload_id)
    return parts == [(1, len(_BODY))] and uploads == [upload_id]


def _tried(name: str, step: Callable[[], bool]) -> Remark | None:
    try:
        return None if step() else Remark(name, _LIED)
    except WalsyncdError as error:
        return Remark(name, error.message, error.hint)


def _clock(storage: Storage, wall_s: float) -> Iterator[Remark]:
    store_ms = storage.clock_ms()
    ahead_s = wall_s - store_ms / 1000 if store_ms is not None else 0.0
    if abs(ahead_s) > CLOCK_SKEW_MAX_S:
        direction = "ahead of" if ahead_s > 0 else "behind"
        text = f"this machine's clock is {abs(ahead_s):.0f} s {direction} the store's"
        yield Remark("clock", text, "set the clock, and have NTP keep it")
