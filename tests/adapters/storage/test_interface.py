"""Tests of what every storage must do: a folder, moto, SeaweedFS and rclone's S3 server."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.stores import Store
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.adapters.storage.interface import Storage, StoredPart
from walsyncd.adapters.storage.probe import probe
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.errors import CorruptError, ImpossibleError, MissingError, WalsyncdError

PART_SIZE = 5 * 1024 * 1024  # what every store accepts
PREFIX = "hosts/web-1"
STORES = ("directory", "moto", "seaweedfs", "rclone")


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Store | None:
    """Return the running store, or None for a folder."""
    name: str = request.param
    return None if name == "directory" else request.getfixturevalue(name)


@pytest.fixture
def storage(store: Store | None, tmp_path: Path) -> Iterator[Storage]:
    """Return an empty storage. In a bucket it has a prefix, with something else beside it."""
    if store is None:
        yield DirectoryStorage(tmp_path / "replica")
        return
    bucket = store.make_bucket()
    with closing(store.client()) as client:
        for beside in ("hosts/web-10/owner.json", "hosts/web-1.zst", "app/gen/wal/1"):
            client.put_object(Bucket=bucket, Key=beside, Body=b"not ours")
    with closing(S3Storage(store.settings(bucket, PREFIX))) as storage:
        yield storage


def need(store: Store | None, ability: str) -> None:
    """Skip the test if the store is known not to do this. A folder does everything."""
    if store is not None and ability in store.lacks:
        pytest.skip(f"{store.name} lacks: {ability}")


def put(storage: Storage, *keys: str) -> None:
    """Put small objects."""
    for key in keys:
        storage.put(key, key.encode(), metadata={})


def keys(storage: Storage, prefix: str, *, start_after: str = "") -> list[str]:
    """Return the keys that LIST gives."""
    return [info.key for info in storage.list(prefix, start_after=start_after)]


def test_put_and_get(storage: Storage) -> None:
    """An object is read back whole, in part and as a stream, byte for byte."""
    body = bytes(range(256)) * 9000
    assert storage.put("db/gen/wal/1", body, metadata={})
    assert storage.get("db/gen/wal/1") == body
    assert storage.get("db/gen/wal/1", first=100, length=7) == body[100:107]
    assert storage.get("db/gen/wal/1", first=len(body) - 5) == body[-5:]
    assert storage.get("db/gen/wal/1", first=len(body) - 5, length=50) == body[-5:]
    assert storage.get("db/gen/wal/1", first=len(body)) == b""
    blocks = list(storage.stream("db/gen/wal/1"))
    assert b"".join(blocks) == body
    assert max(map(len, blocks)) <= 1 << 20


def test_empty_object(storage: Storage) -> None:
    """An object may be empty."""
    storage.put("empty", b"", metadata={})
    assert storage.get("empty") == b""
    assert list(storage.stream("empty")) == []
    assert [info.size for info in storage.list("")] == [0]


def test_head_names_our_object(storage: Storage) -> None:
    """HEAD has size and ``walsyncd-id``, by which a PUT whose answer was lost is recognised."""
    body = b"a segment"
    token = hashlib.sha256(body).hexdigest()
    etag = storage.put("db/1.zst", body, metadata={"walsyncd-id": token})
    info = storage.head("db/1.zst")
    assert info is not None
    assert (info.key, info.size, info.etag) == ("db/1.zst", len(body), etag)
    assert info.metadata["walsyncd-id"] == token
    assert info.modified_ms > 1_700_000_000_000
    assert [listed.etag for listed in storage.list("db/")] == [etag]


def test_absent_object(storage: Storage) -> None:
    """HEAD of an absent object is None.

    Reading an absent object is a MissingError with its key. Deleting it is no error.
    """
    put(storage, "there")
    assert storage.head("db/absent") is None
    with pytest.raises(MissingError, match="db/absent"):
        storage.get("db/absent")
    with pytest.raises(MissingError, match="db/absent"):
        next(storage.stream("db/absent"))
    storage.delete(["db/absent", "absent"])
    assert keys(storage, "") == ["there"]


def test_list_by_prefix(storage: Storage) -> None:
    """LIST takes any prefix of keys, in and between segments, and starts strictly after a key."""
    put(storage, "app/gen/wal/1", "app/gen/wal/2", "app/gen/whole/1", "apple/gen/wal/1")
    assert keys(storage, "app/") == ["app/gen/wal/1", "app/gen/wal/2", "app/gen/whole/1"]
    assert keys(storage, "app/gen/w") == ["app/gen/wal/1", "app/gen/wal/2", "app/gen/whole/1"]
    assert keys(storage, "app/gen/wal/2") == ["app/gen/wal/2"]
    assert keys(storage, "app/gen/", start_after="app/gen/wal/1") == ["app/gen/wal/2", "app/gen/whole/1"]
    assert keys(storage, "app/gen/", start_after="app/gen/wal/15") == ["app/gen/wal/2", "app/gen/whole/1"]
    assert keys(storage, "app/gen/", start_after="app/gen/z") == []
    assert keys(storage, "nothing/") == []
    assert keys(storage, "app/gen/none/at/all") == []


def test_list_in_key_order(storage: Storage, store: Store | None) -> None:
    """LIST sorts by whole keys, byte by byte, and not by folders: ``a-b/`` and ``a.db/`` come before ``a/``."""
    need(store, "byte order")
    wanted = ["a-b/1", "a.db/1", "a/1", "a/b-c", "a/b/1", "a0", "é/1", "\U0001f600"]
    put(storage, *reversed(wanted))
    assert keys(storage, "") == wanted
    assert [keys(storage, "", start_after=after) for after in wanted] == [
        wanted[index + 1 :] for index in range(len(wanted))
    ]


def test_keys_of_any_letters(storage: Storage) -> None:
    """Names of databases are file names, so keys may have spaces, percent and plus signs, quotes, other alphabets."""
    strange = ["home/Jörg Ä/my app+1 (2).db", "100%25/~x&y=z;'\"#?", "日本/テスト", "<a>&amp;"]
    for key in strange:
        storage.put(key, key.encode(), metadata={})
        assert storage.get(key) == key.encode()
    assert sorted(keys(storage, "")) == sorted(strange)
    storage.delete(strange)
    assert keys(storage, "") == []


def test_many_objects(storage: Storage, store: Store | None) -> None:
    """LIST and DELETE continue after a thousand."""
    need(store, "speed")
    names = [f"db/{number:04d}" for number in range(1003)]
    put(storage, *names)
    assert keys(storage, "db/") == names
    assert keys(storage, "db/", start_after="db/0001") == names[2:]
    storage.delete(names[1:])
    assert keys(storage, "") == names[:1]


def test_folders(storage: Storage) -> None:
    """Folders are those directly below, each once, sorted."""
    put(storage, "b/gen/1", "a/gen/1", "a/gen/2", "a.db/gen/1", "owner.json")
    assert storage.folders("") == ["a", "a.db", "b"]
    assert storage.folders("a/") == ["gen"]
    assert storage.folders("a/gen/") == []
    assert storage.folders("nothing/") == []


def test_folder_goes_with_its_last_object(storage: Storage, store: Store | None) -> None:
    """A folder does not exist without an object in it."""
    need(store, "folders go at once")
    put(storage, "b/gen/1", "a/gen/1", "a/gen/2")
    storage.delete(["a/gen/1", "a/gen/2"])
    assert storage.folders("") == ["b"]


def test_put_if(storage: Storage) -> None:
    """A conditional write happens only over the version that was seen."""
    assert storage.put_if("db/owner.json", b"one", etag=None)
    assert not storage.put_if("db/owner.json", b"two", etag=None)
    first = storage.head("db/owner.json")
    assert first is not None
    assert storage.put_if("db/owner.json", b"three", etag=first.etag)
    assert not storage.put_if("db/owner.json", b"four", etag=first.etag)
    assert not storage.put_if("db/absent.json", b"five", etag=first.etag)
    assert storage.get("db/owner.json") == b"three"
    assert storage.head("db/absent.json") is None


def test_put_if_has_one_winner(storage: Storage, store: Store | None) -> None:
    """If eight clients claim an absent key at once, exactly one succeeds."""
    need(store, "conditions")
    won: list[int] = []
    lost: list[str] = []

    def claim(number: int) -> None:
        try:
            if storage.put_if("db/owner.json", f"run {number}".encode(), etag=None):
                won.append(number)
        except WalsyncdError as error:  # pragma: no cover - shown by the assertion
            lost.append(str(error))

    threads = [threading.Thread(target=claim, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not lost
    assert [storage.get("db/owner.json")] == [f"run {number}".encode() for number in won]


def test_where_no_upload_ever_was_none_is_open(storage: Storage) -> None:
    """Listing the uploads gives nothing, although some stores answer with an error."""
    assert storage.list_uploads("") == []
    assert storage.list_uploads("db/") == []


def test_multipart(storage: Storage, store: Store | None) -> None:
    """An upload in parts is invisible until it is completed. Then it is there whole, with its token."""
    bodies = [b"1" * PART_SIZE, b"2" * PART_SIZE, b"the rest"]
    upload = storage.create_upload("db/base.zst", metadata={"walsyncd-id": "token"})
    etags = [storage.upload_part("db/base.zst", upload, n, body) for n, body in enumerate(bodies, start=1)]
    parts = [StoredPart(n, len(bodies[n - 1]), etag) for n, etag in enumerate(etags, start=1)]
    assert storage.list_parts("db/base.zst", upload) == parts
    assert [(open_.key, open_.upload_id) for open_ in storage.list_uploads("db/base.zst")] == [("db/base.zst", upload)]
    assert keys(storage, "") == []
    assert storage.complete_upload("db/base.zst", upload, parts)
    assert storage.get("db/base.zst") == b"".join(bodies)
    assert keys(storage, "") == ["db/base.zst"]
    assert storage.list_uploads("") == []
    info = storage.head("db/base.zst")
    assert info is not None
    assert info.metadata["walsyncd-id"] == "token"


def test_part_etag_is_its_md5(storage: Storage) -> None:
    """A part that was stored without our knowing is recognised by its MD5 and size."""
    body = b"x" * 1000
    upload = storage.create_upload("db/base.zst", metadata={})
    assert storage.upload_part("db/base.zst", upload, 1, body) == hashlib.md5(body).hexdigest()  # noqa: S324
    storage.abort_upload("db/base.zst", upload)


def test_part_sent_again(storage: Storage, store: Store | None) -> None:
    """A part may be sent again with other bytes. Complete takes the version whose ETag it names."""
    need(store, "parts sent again")
    upload = storage.create_upload("db/base.zst", metadata={})
    storage.upload_part("db/base.zst", upload, 1, b"old")
    etag = storage.upload_part("db/base.zst", upload, 1, b"newer")
    wanted = StoredPart(1, 5, etag)
    assert wanted in storage.list_parts("db/base.zst", upload)
    storage.complete_upload("db/base.zst", upload, [wanted])
    assert storage.get("db/base.zst") == b"newer"


def test_complete_with_a_wrong_part(storage: Storage, store: Store | None) -> None:
    """Parts that the store does not have are a CorruptError, and the upload stays open."""
    need(store, "parts verified")
    upload = storage.create_upload("db/base.zst", metadata={})
    etag = storage.upload_part("db/base.zst", upload, 1, b"part")
    with pytest.raises(CorruptError, match=r"db/base\.zst"):
        storage.complete_upload("db/base.zst", upload, [StoredPart(1, 4, "0" * 32)])
    with pytest.raises(CorruptError, match=r"db/base\.zst"):
        storage.complete_upload("db/base.zst", upload, [StoredPart(2, 4, etag)])
    storage.complete_upload("db/base.zst", upload, [StoredPart(1, 4, etag)])
    assert storage.get("db/base.zst") == b"part"


def test_unknown_upload(storage: Storage, store: Store | None) -> None:
    """After an abort the upload is unknown. Aborting the upload again is no error."""
    put(storage, "there")
    upload = storage.create_upload("db/base.zst", metadata={})
    etag = storage.upload_part("db/base.zst", upload, 1, b"part")
    storage.abort_upload("db/base.zst", upload)
    storage.abort_upload("db/base.zst", upload)
    with pytest.raises(MissingError):
        storage.list_parts("db/base.zst", upload)
    assert storage.list_uploads("") == []
    assert keys(storage, "") == ["there"]
    need(store, "unknown uploads")
    with pytest.raises(MissingError):
        storage.complete_upload("db/base.zst", upload, [StoredPart(1, 4, etag)])
    with pytest.raises(MissingError):
        storage.upload_part("db/base.zst", upload, 1, b"part")


def test_uploads_by_prefix(storage: Storage) -> None:
    """Open uploads are listed by prefix. An upload whose id was lost with the journal is found by its key."""
    first = storage.create_upload("db/a", metadata={})
    second = storage.create_upload("db/b", metadata={})
    assert {open_.upload_id for open_ in storage.list_uploads("db/")} == {first, second}
    (found,) = storage.list_uploads("db/b")
    assert (found.key, found.upload_id) == ("db/b", second)
    assert found.initiated_ms > 0
    storage.abort_upload("db/a", first)
    storage.abort_upload("db/b", second)


def test_key_that_is_too_long(storage: Storage, store: Store | None) -> None:
    """A key that is too long for the store is refused for good."""
    need(store, "long keys")
    with pytest.raises(ImpossibleError, match="xxxx"):
        storage.put("x" * 1100, b"", metadata={})


def test_probe(storage: Storage) -> None:
    """The check of a working storage reports nothing and leaves nothing."""
    assert probe(storage) == []
    assert keys(storage, "") == []
