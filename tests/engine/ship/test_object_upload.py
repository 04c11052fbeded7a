"""Tests of one object's upload to a storage that forgets, refuses and answers late."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.fakes import Call, FakeStorage
from tests.shipping import G1, begun_journal, segment
from walsyncd.adapters.journal import rows
from walsyncd.adapters.journal.journal import Advance, Journal, ObjectRow
from walsyncd.adapters.storage.counting_storage import CountingStorage, Requests
from walsyncd.adapters.storage.directory import DirectoryStorage
from walsyncd.core.stored.layout import ID_METADATA
from walsyncd.engine.ship import object_upload
from walsyncd.engine.ship.object_upload import abort_leftovers, is_stored, send
from walsyncd.errors import CorruptError, ImpossibleError, MissingError, TransientError

SMALL, LARGE = b"small", bytes(range(250)) * 1000  # three parts of 70,000 bytes and a shorter one
KEY = "app/key"
WALSYNCD_ID = "0123abcd"


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "PUT_SIZE_MAX", 100_000)
    monkeypatch.setattr(object_upload, "part_size", lambda _size: 70_000)


@pytest.fixture
def storage() -> FakeStorage:
    return FakeStorage()


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    with begun_journal(tmp_path) as journal:
        yield journal


def begun(journal: Journal, body: bytes) -> ObjectRow:
    (row,) = journal.advance([Advance(1, None, (segment(1, 1, body=body),))])
    journal.begun([row.id], 5)
    return reread(journal)


def reread(journal: Journal) -> ObjectRow:
    (row,) = journal.pending()
    return row


def fail_once(storage: FakeStorage, name: str, *, number: int = 1, after: bool = False) -> None:
    """Let the ``number``-th call of this name time out, before or after it had its effect."""
    left = [number]

    def fail(call: Call) -> None:
        left[0] -= call.name == name
        if call.name == name and left[0] == 0:
            raise TransientError(f"{name}: timeout")

    storage.before, storage.after = (lambda _call: None, fail) if after else (fail, lambda _call: None)


def try_twice(journal: Journal, storage: FakeStorage) -> None:
    with pytest.raises(TransientError):
        send(journal, storage, reread(journal), key=KEY, tried=False)
    send(journal, storage, reread(journal), key=KEY, tried=True)


@pytest.mark.parametrize(
    ("body", "calls"),
    [(SMALL, ["put"]), (LARGE, ["create_upload", *["upload_part"] * 4, "complete_upload"])],
    ids=["put", "multipart"],
)
def test_nothing_is_asked_when_nothing_went_wrong(
    journal: Journal, storage: FakeStorage, body: bytes, calls: list[str]
) -> None:
    """The number of requests is the smallest possible, and the token is in the metadata."""
    row = begun(journal, body)
    send(journal, storage, row, key=KEY, tried=False)
    assert storage.names() == calls
    assert storage.objects[KEY].body == body
    assert storage.objects[KEY].metadata == {ID_METADATA: row.token}
    assert is_stored(storage, row, KEY)


@pytest.mark.parametrize("after", [False, True], ids=["lost", "answered late"])
def test_a_put_is_only_repeated_if_it_did_not_arrive(journal: Journal, storage: FakeStorage, after: bool) -> None:
    """A HEAD shows whether the first PUT arrived."""
    begun(journal, SMALL)
    fail_once(storage, "put", after=after)
    try_twice(journal, storage)
    assert storage.names() == ["put", "head"] + ([] if after else ["put"])
    assert storage.visible == [KEY]


def test_a_folder_s_object_is_made_durable_before_it_counts(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A put that was killed after its rename left a name without an fsync, which a power cut would take back."""
    row, folder = begun(journal, SMALL), tmp_path / "replica" / "app"
    storage = CountingStorage(DirectoryStorage(folder.parent), Requests())
    folder.mkdir(parents=True)
    (folder / "key").write_bytes(SMALL)
    row, fsync, durable = replace(row, token=hashlib.sha256(SMALL).hexdigest()), os.fsync, list[Path]()

    def noted(descriptor: int) -> None:
        durable.append(Path(f"/proc/self/fd/{descriptor}").readlink())
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    send(journal, storage, row, key=KEY, tried=True)
    assert durable == [folder / "key", folder]


def test_a_folder_gets_a_large_object_whole(journal: Journal, tmp_path: Path) -> None:
    """No part is planned or sent. The line's limit is asked for each block, and a second attempt finds the object."""
    requests, paced = Requests(), list[int]()
    storage = CountingStorage(DirectoryStorage(tmp_path / "bucket"), requests)
    row = begun(journal, LARGE)
    send(journal, storage, row, key=KEY, tried=False, before_body=paced.append)
    assert storage.get(KEY) == LARGE
    assert is_stored(storage, row, KEY)
    assert sum(paced) == len(LARGE)
    assert journal.parts(row.id) == []
    send(journal, storage, row, key=KEY, tried=True)
    assert {kind: count for (kind, _), count in requests.counts().items()} == {"put": 1, "head": 2, "get": 1}


@pytest.mark.parametrize("body", [b"x" + LARGE[1:], LARGE[:-1], LARGE + b"x"], ids=["other", "shorter", "longer"])
def test_changed_bytes_are_not_put_into_a_folder(journal: Journal, tmp_path: Path, body: bytes) -> None:
    """The bytes that are written are those whose SHA-256 the journal has, and exactly these."""
    storage = DirectoryStorage(tmp_path / "bucket")
    row = begun(journal, LARGE)
    (tmp_path / "spool" / str(row.body_path)).write_bytes(body)
    with pytest.raises(CorruptError, match="changed on disk"):
        send(journal, storage, row, key=KEY, tried=False)
    assert storage.head(KEY) is None


def test_an_upload_to_a_folder_that_is_open_is_completed(journal: Journal, tmp_path: Path) -> None:
    """An earlier version of walsyncd had begun the upload in parts."""
    storage = DirectoryStorage(tmp_path / "bucket")
    row = begun(journal, LARGE)
    journal.upload_opened(row.id, storage.create_upload(KEY, metadata={ID_METADATA: row.token}), 70_000)
    send(journal, storage, reread(journal), key=KEY, tried=True)
    assert storage.get(KEY) == LARGE
    assert storage.list_uploads("") == []


@pytest.mark.parametrize("number", [1, 2, 4])
@pytest.mark.parametrize("after", [False, True], ids=["lost", "answered late"])
def test_parts_that_arrived_are_not_sent_again(
    journal: Journal, storage: FakeStorage, number: int, after: bool
) -> None:
    """ListParts knows more than the journal."""
    begun(journal, LARGE)
    fail_once(storage, "upload_part", number=number, after=after)
    try_twice(journal, storage)
    assert storage.names().count("upload_part") == 4 + (not after)
    assert storage.names().count("create_upload") == 1
    assert storage.objects[KEY].body == LARGE


def test_a_lost_upload_id_is_found_by_its_key(journal: Journal, storage: FakeStorage) -> None:
    """The newest upload is adopted and the others are aborted. Uploads of other keys are left alone."""
    begun(journal, LARGE)
    storage.create_upload(KEY, metadata={})
    neighbour = storage.create_upload(KEY + "-2", metadata={})
    fail_once(storage, "create_upload", after=True)
    try_twice(journal, storage)
    assert storage.names().count("create_upload") == 3
    assert list(storage.uploads) == [neighbour]
    assert storage.objects[KEY].metadata == {ID_METADATA: reread(journal).token}


def test_an_upload_that_was_completed_is_done(journal: Journal, storage: FakeStorage) -> None:
    """The answer to Complete was lost. The upload no longer exists because the object does."""
    begun(journal, LARGE)
    fail_once(storage, "complete_upload", after=True)
    try_twice(journal, storage)
    assert storage.visible == [KEY]
    assert storage.names()[-2:] == ["list_parts", "head"]


@pytest.mark.parametrize("purged_at", ["upload_part", "complete_upload", "list_parts"])
def test_an_upload_that_the_store_purged_begins_again(journal: Journal, storage: FakeStorage, purged_at: str) -> None:
    """Some stores abort open uploads after a day."""
    begun(journal, LARGE)
    done = [False]

    def purge(call: Call) -> None:
        if call.name == purged_at and not done[0]:
            done[0] = True
            storage.uploads.clear()

    if purged_at == "list_parts":
        fail_once(storage, "upload_part", number=3)
        with pytest.raises(TransientError):
            send(journal, storage, reread(journal), key=KEY, tried=False)
    storage.before = purge
    send(journal, storage, reread(journal), key=KEY, tried=purged_at == "list_parts")
    assert storage.objects[KEY].body == LARGE
    assert storage.uploads == {}


def test_parts_that_differ_are_sent_again(journal: Journal, storage: FakeStorage) -> None:
    """InvalidPart means that the store has other bytes than it acknowledged.

    Both entries are listed, and our entry counts.
    """
    begun(journal, LARGE)
    spoilt = [False]

    def spoil(call: Call) -> None:
        if call.name == "complete_upload" and not spoilt[0]:
            spoilt[0] = True
            ((_, found),) = storage.uploads.items()
            part, _ = found.parts[1]
            found.parts[1] = (type(part)(part.number, part.size, '"0000"'), b"x" * part.size)

    storage.before = spoil
    send(journal, storage, reread(journal), key=KEY, tried=False)
    assert storage.objects[KEY].body == LARGE
    assert storage.names()[-4:] == ["complete_upload", "list_parts", "upload_part", "complete_upload"]


def test_a_store_that_refuses_its_own_parts_is_given_another_upload(journal: Journal, storage: FakeStorage) -> None:
    """The other upload begins later, with a back-off, and no upload stays open."""
    begun(journal, LARGE)

    def refuse(call: Call) -> None:
        if call.name == "complete_upload":
            raise CorruptError("complete: InvalidPart")

    storage.before = refuse
    with pytest.raises(TransientError, match="refuses"):
        send(journal, storage, reread(journal), key=KEY, tried=False)
    assert storage.uploads == {}
    storage.before = lambda _call: None
    send(journal, storage, reread(journal), key=KEY, tried=True)
    assert storage.objects[KEY].body == LARGE


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["put", "multipart"])
def test_changed_bytes_are_never_sent(journal: Journal, storage: FakeStorage, tmp_path: Path, body: bytes) -> None:
    """No upload is opened for changed bytes either."""
    row = begun(journal, body)
    if row.body_path is None:
        journal._connection.execute("UPDATE object SET body = x'00'")
    else:
        (tmp_path / "spool" / row.body_path).write_bytes(b"x" + body[1:])
    with pytest.raises(CorruptError, match="changed on disk"):
        send(journal, storage, row, key=KEY, tried=False)
    assert storage.calls == []


def test_bytes_that_change_between_two_parts_are_not_sent(
    journal: Journal, storage: FakeStorage, tmp_path: Path
) -> None:
    """Each part is compared with the plan."""
    row = begun(journal, LARGE)

    def change(call: Call) -> None:
        if call.name == "upload_part":
            (tmp_path / "spool" / str(row.body_path)).write_bytes(LARGE[:-1])

    storage.after = change
    with pytest.raises(CorruptError, match="changed on disk"):
        send(journal, storage, row, key=KEY, tried=False)
    assert storage.objects == {}


@pytest.mark.parametrize("other", [b"other bytes!", b"other"])
def test_another_object_under_our_key_is_impossible(journal: Journal, storage: FakeStorage, other: bytes) -> None:
    """Nothing is overwritten."""
    row = begun(journal, SMALL)
    storage.put(KEY, other, metadata={ID_METADATA: "somebody else's"})
    with pytest.raises(ImpossibleError, match="another object"):
        send(journal, storage, row, key=KEY, tried=True)
    assert storage.objects[KEY].body == other


def test_a_store_without_metadata_is_told_by_its_etag(journal: Journal, storage: FakeStorage) -> None:
    """An ETag that is our MD5 identifies our object. If it is no MD5, the object is sent again."""
    row = begun(journal, SMALL)
    storage.put(KEY, SMALL, metadata={})
    assert is_stored(storage, row, KEY)
    storage.objects[KEY].etag = "kms"
    assert not is_stored(storage, row, KEY)


def test_a_row_dropped_in_the_middle_leaves_nothing_open(journal: Journal, storage: FakeStorage) -> None:
    """The row may be dropped before the upload's id could be noted, or after."""
    begun(journal, LARGE)

    def drop(call: Call) -> None:
        if call.name == "create_upload":
            journal.drop_spool(1)

    storage.after = drop
    with pytest.raises(MissingError):
        send(journal, storage, reread(journal), key=KEY, tried=False)
    assert storage.uploads == {}
    with pytest.raises(MissingError):
        send(journal, storage, begun_and_dropped(journal), key=KEY, tried=False)


def begun_and_dropped(journal: Journal) -> ObjectRow:
    row = begun(journal, SMALL)
    journal.drop_spool(1)
    return row


def test_leftovers_are_aborted_by_id_and_by_key(journal: Journal, storage: FakeStorage) -> None:
    """Aborted leftovers are forgotten. An upload that the store does not know is no error."""
    known = journal.base_begun(
        1, generation=G1, key="known", token=WALSYNCD_ID, plan="", part_size=8, epoch=1, frame=0, now_ms=1
    )
    unknown = journal.base_begun(
        1, generation=G1, key="unknown", token=WALSYNCD_ID, plan="", part_size=8, epoch=1, frame=0, now_ms=1
    )
    journal.upload_opened(known.id, storage.create_upload("app/known", metadata={}), 8)
    for key in ("app/unknown", "app/unknown", "app/unknown-2"):
        storage.create_upload(key, metadata={})
    for row in (known, unknown):
        journal.base_dropped(row.id)
    abort_leftovers(journal, storage)
    assert [found.key for found in storage.uploads.values()] == ["app/unknown-2"]
    assert journal.leftovers() == []
