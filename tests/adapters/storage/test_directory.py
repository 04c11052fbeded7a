"""Tests of what only a folder has: plain files, no files of its own in lists, nothing outside the root."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import threading
import time
from pathlib import Path

import pytest

from walsyncd.adapters.storage.directory import LEFTOVER_SECONDS_MAX, DirectoryStorage
from walsyncd.adapters.storage.interface import StoredPart
from walsyncd.errors import (
    CorruptError,
    ImpossibleError,
    MissingError,
    RefusedError,
    TransientError,
    UsageError,
)

KEY = "app/gen/wal/00000001/seg.wal.zst"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return the path where the replica will be."""
    return tmp_path / "srv" / "replica"


@pytest.fixture
def storage(root: Path) -> DirectoryStorage:
    """Return an empty folder storage."""
    return DirectoryStorage(root)


def visible(root: Path) -> list[str]:
    """Return the files under the root without the hidden folder."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != ".walsyncd")


def test_objects_are_plain_files(storage: DirectoryStorage, root: Path) -> None:
    """The folder holds each object under its key, byte for byte. All else is in the hidden folder."""
    storage.put(KEY, b"segment", metadata={"walsyncd-id": hashlib.sha256(b"segment").hexdigest()})
    assert visible(root) == [KEY]
    assert (root / KEY).read_bytes() == b"segment"
    assert [str(path) for path in root.rglob(".walsyncd/*/*")] == []


def test_url(storage: DirectoryStorage, root: Path) -> None:
    """The url is that of the folder."""
    assert storage.url == f"file://{root}"


@pytest.mark.parametrize(
    "key",
    ["", "/", "/etc/passwd", "a//b", "a/", "a/../b", "..", "./a", "a/.", "a\0b", ".walsyncd/lock", "a\udcff"],
)
def test_keys_that_are_no_path_below_the_root(storage: DirectoryStorage, key: str) -> None:
    """Empty, '.' and '..' segments, broken UTF-8 and our own folder are refused by every method."""
    for call in (
        lambda: storage.put(key, b"", metadata={}),
        lambda: storage.put_if(key, b"", etag=None),
        lambda: storage.head(key),
        lambda: storage.get(key),
        lambda: next(storage.stream(key)),
        lambda: storage.delete([key]),
        lambda: storage.create_upload(key, metadata={}),
    ):
        with pytest.raises(UsageError):
            call()


@pytest.mark.parametrize("prefix", ["../", "a/../../", "//", ".walsyncd/", ".walsyncd/uploads/"])
def test_listing_stays_below_the_root(storage: DirectoryStorage, prefix: str) -> None:
    """No prefix leads out of the root or into the hidden folder."""
    storage.put("a/b", b"", metadata={})
    with pytest.raises(UsageError):
        list(storage.list(prefix))
    with pytest.raises(UsageError):
        storage.folders(prefix)


def test_nothing_of_its_own_is_listed(storage: DirectoryStorage) -> None:
    """Uploads, metadata and temporary files appear in no listing."""
    storage.put("db/a", b"", metadata={"walsyncd-id": "chosen"})
    storage.put_if("db/owner.json", b"", etag=None)
    upload = storage.create_upload("db/base", metadata={})
    storage.upload_part("db/base", upload, 1, b"part")
    assert [info.key for info in storage.list("")] == ["db/a", "db/owner.json"]
    assert list(storage.list(".walsyncd")) == []
    assert storage.folders("") == ["db"]


def test_foreign_entries(storage: DirectoryStorage, root: Path) -> None:
    """Links, pipes and names that are not UTF-8 are no objects. Hidden files of others are."""
    storage.put("db/a", b"", metadata={})
    storage.put(".config/app.db/b", b"", metadata={})
    (root / "db/link").symlink_to(root / "db/a")
    (root / "loop").symlink_to(root)
    os.mkfifo(root / "db/pipe")
    Path(os.fsdecode(os.fsencode(root) + b"/db/\xff")).touch()
    (root / "empty").mkdir()
    assert [info.key for info in storage.list("")] == [".config/app.db/b", "db/a"]
    assert storage.folders("") == [".config", "db"]


def test_metadata_counts_only_for_its_file(storage: DirectoryStorage, root: Path) -> None:
    """Metadata does not outlive its object. A file that another tool writes there does not get it."""
    storage.put(KEY, b"first", metadata={"walsyncd-id": "chosen"})
    info = storage.head(KEY)
    assert info is not None
    assert info.metadata == {"walsyncd-id": "chosen"}
    (root / KEY).unlink()
    (root / KEY).write_bytes(b"second")
    info = storage.head(KEY)
    assert info is not None
    assert info.metadata == {"walsyncd-id": hashlib.sha256(b"second").hexdigest()}


def test_delete_removes_empty_folders(storage: DirectoryStorage, root: Path) -> None:
    """The last object's folders are removed with it, but never the root."""
    storage.put(KEY, b"", metadata={"walsyncd-id": "chosen"})
    storage.put("app/owner.json", b"", metadata={})
    storage.delete([KEY])
    assert visible(root) == ["app/owner.json"]
    assert not (root / "app/gen").exists()
    storage.delete(["app/owner.json"])
    assert [path.name for path in root.iterdir()] == [".walsyncd"]
    assert list(root.glob(".walsyncd/metadata/*")) == []


def test_writers_and_removers_do_not_trip_each_other(storage: DirectoryStorage) -> None:
    """A folder that vanishes under a writer, because another one deleted its last object, is made again."""
    failures: list[Exception] = []

    def work(name: str) -> None:
        try:
            for _ in range(60):
                storage.put(f"db/gen/{name}", b"x", metadata={})
                storage.delete([f"db/gen/{name}"])
        except Exception as error:  # noqa: BLE001 - shown by the assertion
            failures.append(error)

    threads = [threading.Thread(target=work, args=(name,)) for name in "abc"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []


def test_upload_survives_a_restart(storage: DirectoryStorage, root: Path) -> None:
    """Parts outlive the process that sent them, and another one completes the upload."""
    upload = storage.create_upload("db/base", metadata={"walsyncd-id": "token"})
    first = storage.upload_part("db/base", upload, 1, b"one ")
    again = DirectoryStorage(root)
    assert [found.upload_id for found in again.list_uploads("db/")] == [upload]
    assert again.list_parts("db/base", upload) == [StoredPart(1, 4, first)]
    second = again.upload_part("db/base", upload, 2, b"two")
    again.complete_upload("db/base", upload, [StoredPart(1, 4, first), StoredPart(2, 3, second)])
    assert (root / "db/base").read_bytes() == b"one two"
    info = again.head("db/base")
    assert info is not None
    assert info.metadata == {"walsyncd-id": "token"}
    assert list(root.glob(".walsyncd/uploads/*")) == []
    assert list(root.glob(".walsyncd/temporary/*")) == []


def test_completed_upload_is_missing(storage: DirectoryStorage) -> None:
    """Completing it again is a MissingError, so that the caller looks whether the object is there."""
    upload = storage.create_upload("db/base", metadata={})
    part = StoredPart(1, 1, storage.upload_part("db/base", upload, 1, b"x"))
    storage.complete_upload("db/base", upload, [part])
    with pytest.raises(MissingError, match="not open"):
        storage.complete_upload("db/base", upload, [part])


@pytest.mark.parametrize("upload_id", ["", "..", "../../db", "unknown"])
def test_upload_ids_are_no_paths(storage: DirectoryStorage, upload_id: str) -> None:
    """An upload id that this storage did not make is unknown, whatever it looks like."""
    with pytest.raises(MissingError):
        storage.list_parts("db/base", upload_id)
    storage.abort_upload("db/base", upload_id)


def test_upload_belongs_to_its_key(storage: DirectoryStorage) -> None:
    """An upload is not open under another key."""
    upload = storage.create_upload("db/base", metadata={})
    with pytest.raises(MissingError):
        storage.upload_part("db/other", upload, 1, b"x")


def test_parts_out_of_order(storage: DirectoryStorage) -> None:
    """Complete needs ascending numbers and at least one part."""
    upload = storage.create_upload("db/base", metadata={})
    one, two = (StoredPart(number, 1, storage.upload_part("db/base", upload, number, b"x")) for number in (1, 2))
    for parts in ([two, one], [one, one], []):
        with pytest.raises(CorruptError):
            storage.complete_upload("db/base", upload, parts)


def test_leftovers_are_swept_after_a_day(storage: DirectoryStorage, root: Path) -> None:
    """Unfinished files of killed processes are deleted when they are a day old. Newer ones stay."""
    storage.put("db/a", b"", metadata={})
    temporary = root / ".walsyncd/temporary"
    long_ago = time.time() - LEFTOVER_SECONDS_MAX - 60
    for name in ("old", "new"):
        (temporary / name).write_bytes(b"half")
    (temporary / "upload").mkdir()
    (temporary / "upload/00001-x").touch()
    for name in ("old", "upload"):
        os.utime(temporary / name, (long_ago, long_ago))
    storage.create_upload("db/base", metadata={})
    assert [path.name for path in temporary.iterdir()] == ["new"]


def test_file_where_a_folder_must_be(storage: DirectoryStorage) -> None:
    """S3 can hold ``app`` and ``app/x``, but a file system can't. Writing is refused, and reading finds nothing."""
    storage.put("app", b"", metadata={})
    storage.put("dir/x", b"", metadata={})
    for key in ("app/x", "app/x/y", "dir"):
        with pytest.raises(ImpossibleError, match=key):
            storage.put(key, b"", metadata={})
        assert storage.head(key) is None
        storage.delete([key])
    assert [info.key for info in storage.list("")] == ["app", "dir/x"]
    assert list(storage.list("app/x/")) == []


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (errno.EACCES, RefusedError),
        (errno.EROFS, RefusedError),
        (errno.ENOSPC, TransientError),
        (errno.EIO, TransientError),
        (errno.EFBIG, ImpossibleError),
    ],
)
def test_write_that_fails(
    storage: DirectoryStorage, root: Path, monkeypatch: pytest.MonkeyPatch, code: int, kind: type[Exception]
) -> None:
    """A write that the system refuses leaves no object and no temporary file, and the error has its class."""

    def refuse(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    (root / ".walsyncd/temporary").mkdir(parents=True)
    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(kind, match=os.strerror(code).lower()):
        storage.put("a", b"body", metadata={})
    assert visible(root) == []
    assert list(root.glob(".walsyncd/temporary/*")) == []


def test_order_of_durable_steps(storage: DirectoryStorage, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """File, rename, folder; and a new folder's parent is fsynced before anything is put into it."""
    storage.put("other", b"", metadata={})
    steps: list[str] = []
    fsync, rename = os.fsync, os.rename

    def noted_fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        steps.append("file" if path.is_file() else f"folder {path.relative_to(root)}")
        fsync(descriptor)

    def noted_rename(old: str, new: str, *, src_dir_fd: int, dst_dir_fd: int) -> None:
        folder = Path(f"/proc/self/fd/{dst_dir_fd}").readlink()
        steps.append(f"rename {(folder / new).relative_to(root)}")
        rename(old, new, src_dir_fd=src_dir_fd, dst_dir_fd=dst_dir_fd)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "rename", noted_rename)
    expected = ["file", "folder .", "folder app", "rename app/gen/x", "folder app/gen"]
    storage.put("app/gen/x", b"x", metadata={})
    assert steps == expected
    steps.clear()
    assert storage.put_if("if/gen/x", b"x", etag=None)
    assert steps == [step.replace("app", "if") for step in expected]
    steps.clear()
    storage.put_blocks("blocks/gen/x", iter([b"x"]))
    assert steps[0] == "file"
    assert steps[-2:] == ["rename blocks/gen/x", "folder blocks/gen"]


def test_what_is_a_proof_is_durable(storage: DirectoryStorage, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A killed put may have left a name without its fsync: file and folder are fsynced before the object counts."""
    storage.put("app/gen/x", b"x", metadata={})
    steps: list[str] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        steps.append(str(Path(f"/proc/self/fd/{descriptor}").readlink().relative_to(root)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    assert storage.confirm("app/gen/x") == storage.head("app/gen/x")
    assert steps == ["app/gen/x", "app/gen"]
    assert storage.confirm("app/gen/y") is None
    head = storage.head("app/gen/x")
    storage.delete(["app/gen/x"])
    monkeypatch.setattr(storage, "head", lambda _key: head)  # somebody deletes the object between the two steps
    assert storage.confirm("app/gen/x") is None


def test_a_condition_counts_at_the_moment_of_the_rename(
    storage: DirectoryStorage, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If another daemon writes while this one's file becomes durable, the other one wins, and its object stays."""
    other, fsync = DirectoryStorage(root), os.fsync

    def others_first(descriptor: int) -> None:
        monkeypatch.setattr(os, "fsync", fsync)
        assert other.put_if("app/owner.json", b"other", etag=etag)
        fsync(descriptor)

    for _ in range(2):
        info = storage.head("app/owner.json")
        etag = info.etag if info else None
        monkeypatch.setattr(os, "fsync", others_first)
        assert not storage.put_if("app/owner.json", b"ours", etag=etag)
        assert storage.get("app/owner.json") == b"other"
    assert list(root.glob(".walsyncd/temporary/*")) == []


@pytest.mark.parametrize(
    "body",
    [b"{", b"[]", b"{}", b"[" * 10_000, b"null", b'{"key": 1, "initiated_ms": "x", "metadata": []}', b" " * (1 << 20)],
)
def test_changed_hidden_file(storage: DirectoryStorage, root: Path, body: bytes) -> None:
    """A hidden file that somebody else changed is a CorruptError that names it, and costs no other upload."""
    upload = storage.create_upload("db/base", metadata={})
    other = storage.create_upload("other/base", metadata={})
    (root / ".walsyncd/uploads" / upload / "upload").write_bytes(body)
    with pytest.raises(CorruptError, match=upload):
        storage.list_parts("db/base", upload)
    assert [found.upload_id for found in storage.list_uploads("")] == [other]


def test_foreign_names_among_parts(storage: DirectoryStorage, root: Path) -> None:
    """An entry that is no file, or has no name of a part, is no part."""
    upload = storage.create_upload("db/base", metadata={})
    etag = storage.upload_part("db/base", upload, 1, b"x")
    folder = root / ".walsyncd/uploads" / upload
    (folder / "x-y").touch()
    (folder / f"00002-{etag}").symlink_to(folder / f"00001-{etag}")
    assert storage.list_parts("db/base", upload) == [StoredPart(1, 1, etag)]


def test_metadata_that_somebody_else_wrote(storage: DirectoryStorage, root: Path) -> None:
    """The metadata is ignored, and the object's own bytes count."""
    storage.put(KEY, b"x", metadata={"walsyncd-id": "chosen"})
    (kept,) = root.glob(".walsyncd/metadata/*")
    for body in (b"{}", b"[[[", b'{"etag": 1}', json.dumps({**json.loads(kept.read_text()), "metadata": 5}).encode()):
        kept.write_bytes(body)
        info = storage.head(KEY)
        assert info is not None
        assert info.metadata == {"walsyncd-id": hashlib.sha256(b"x").hexdigest()}


def test_links_in_the_place_of_folders_and_objects(storage: DirectoryStorage, root: Path, tmp_path: Path) -> None:
    """Nothing is read, written or deleted through a link. The error names the path and says what to do."""
    outside = tmp_path / "outside"
    (outside / "gen").mkdir(parents=True)
    (outside / "gen/x").write_bytes(b"secret")
    storage.put("other/x", b"", metadata={})
    (root / "db").symlink_to(outside)
    (root / "file").symlink_to(outside / "gen/x")
    for call in (
        lambda: storage.get("db/gen/x"),
        lambda: storage.head("db/gen/x"),
        lambda: storage.get("file"),
        lambda: list(storage.stream("file")),
        lambda: storage.put("db/gen/x", b"", metadata={}),
        lambda: storage.put_if("db/gen/y", b"", etag=None),
        lambda: storage.delete(["db/gen/x"]),
    ):
        with pytest.raises(RefusedError, match="symbolic links") as caught:
            call()
        assert "remove" in caught.value.hint
    assert [info.key for info in storage.list("")] == ["other/x"]
    assert list(storage.list("db/gen/")) == []
    assert [(path.name, path.read_bytes()) for path in (outside / "gen").iterdir()] == [("x", b"secret")]


def test_object_replaced_while_it_is_read(storage: DirectoryStorage) -> None:
    """A reader sees one version as a whole, because objects are replaced by rename."""
    storage.put("db/a", b"1" * (3 << 20), metadata={})
    blocks = storage.stream("db/a")
    first = next(blocks)
    storage.put("db/a", b"2" * (3 << 20), metadata={})
    assert set(first + b"".join(blocks)) == {ord("1")}
