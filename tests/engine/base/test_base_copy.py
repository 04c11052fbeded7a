"""Tests of how a base reaches storage, with a kill at every call to the outside."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.fakes import Call, Deaths, FakeStorage, Killed
from tests.scripted_store import Answer, refusal, run_scripted_store
from tests.shipping import G1, NAME, T0, mortal
from tests.stores import Store
from walsyncd.adapters.files.source import OpenFile, open_file
from walsyncd.adapters.journal.journal import Journal, ObjectState
from walsyncd.adapters.storage.interface import Storage, StoredPart
from walsyncd.adapters.storage.s3.s3_settings import S3Settings
from walsyncd.adapters.storage.s3.s3_storage import S3Storage
from walsyncd.core.stored.base import FrameCompressor, Shape, parse_ranges
from walsyncd.core.stored.position import Position
from walsyncd.core.stored.zstd import zstd
from walsyncd.engine.base import base_copy
from walsyncd.engine.base.base_copy import AbandonedError, BaseCopy, CopyContext, FinishedBase, begin_base
from walsyncd.engine.base.base_plan import can_resume, parse_plan
from walsyncd.errors import CorruptError, TransientError

START = Position(G1, 1, 0)
BOOT = "boot-1"
RANGE, PART, RANGES = 1000, 2600, 9


def at_once(_database_id: int, task: Callable[[], object], _size: int) -> Future[Any]:
    """Do the task in the caller's thread, where a pool would use its own."""
    future: Future[Any] = Future()
    try:
        future.set_result(task())
    except Exception as error:  # noqa: BLE001 - as a pool does
        future.set_exception(error)
    return future


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """Return a file of nine incompressible ranges, which are five parts."""
    path = tmp_path / "app.db"
    path.write_bytes(random.Random(7).randbytes(RANGE * RANGES - 100))
    return path


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base_copy, "shape_of", lambda size: Shape(size, RANGE, PART))


@contextmanager
def opened(path: Path) -> Iterator[OpenFile]:
    file = open_file(path)
    assert file is not None
    with file:
        yield file


def world_of(journal: Journal, storage: Storage) -> CopyContext:
    return CopyContext(journal, storage, at_once, lambda: 2, lambda: None, lambda: T0, FrameCompressor())


def whole(copy: BaseCopy) -> FinishedBase:
    """Take all steps of a copy, without a pause between them."""
    steps = copy.run()
    while True:
        try:
            next(steps)
        except StopIteration as done:
            finished: FinishedBase = done.value
            return finished


def copy_once(
    state: Path, storage: Storage, database: Path, took: Callable[[int, bytes], None] | None = None
) -> FinishedBase:
    """Run the daemon once: resume what is there, or begin. The journal is closed at the end."""
    with Journal.open(state) as journal, opened(database) as file:
        row = journal.database(NAME, str(database))
        if row.generation is None:
            journal.begin_generation(row.id, G1, "test", "{}", T0)
        world = world_of(journal, storage)
        world = world if took is None else replace(world, took=took, took_all=True)
        for base in journal.bases(row.id):
            plan = parse_plan(base.plan)
            is_unread = took is not None and base.row.state is ObjectState.STORED
            if can_resume(plan, base.row, file, generation=G1, boot_id=BOOT) and not is_unread:
                if base.row.state is ObjectState.STORED:
                    parts = base_copy.ranges_of(journal.parts(base.row.id), plan)
                    return FinishedBase(base.row, plan, base.row.size, base.etag or "", parts)
                return whole(BaseCopy(world, name=NAME, file=file, plan=plan, row=base.row))
            journal.base_dropped(base.row.id)
        plan, new = begin_base(world, database_id=row.id, start=START, file=file, boot_id=BOOT)
        return whole(BaseCopy(world, name=NAME, file=file, plan=plan, row=new))


def assert_whole(finished: FinishedBase, storage: FakeStorage, database: Path) -> None:
    """The object is the file, and every range of it is where the manifest will say."""
    body = storage.objects[f"{NAME}/{finished.row.key}"].body
    assert len(body) == finished.size
    assert zstd.decompress(body) == database.read_bytes()
    for found in finished.ranges:
        raw = zstd.decompress(body[found.object_offset : found.object_offset + found.object_length])
        assert raw == database.read_bytes()[found.offset : found.offset + found.length]
    assert sum(found.length for found in finished.ranges) == database.stat().st_size


def test_a_large_file_goes_up_in_equal_parts(tmp_path: Path, database: Path) -> None:
    """All parts but the last have the same size, and each was sent once."""
    storage = FakeStorage()
    finished = copy_once(tmp_path / "state", storage, database)
    assert_whole(finished, storage, database)
    assert storage.names().count("upload_part") == 5
    assert finished.size == 4 * PART + finished.size % PART


def test_a_small_file_goes_up_in_one_request(tmp_path: Path) -> None:
    """A file smaller than a part is one PUT, and so is an empty file."""
    for content in (b"x" * 500, b""):
        path = tmp_path / "small.db"
        path.write_bytes(content)
        storage = FakeStorage()
        finished = copy_once(tmp_path / f"state{len(content)}", storage, path)
        assert_whole(finished, storage, path)
        assert storage.names() == ["put"]


@pytest.mark.parametrize("size", [100, RANGE * RANGES])
def test_a_file_that_is_cut_off_meanwhile_keeps_its_size(tmp_path: Path, size: int) -> None:
    """A checkpoint may cut the file. The missing end is filled with zeros, and the frames state the database's size."""
    path, storage = tmp_path / "app.db", FakeStorage()
    path.write_bytes(b"x" * size)
    with Journal.open(tmp_path / "state") as journal, opened(path) as file:
        row = journal.database(NAME, str(path))
        journal.begin_generation(row.id, G1, "test", "{}", T0)
        world = world_of(journal, storage)
        plan, new = begin_base(world, database_id=row.id, start=START, file=file, boot_id=BOOT)
        path.write_bytes(b"x" * 50)
        finished = whole(BaseCopy(world, name=NAME, file=file, plan=plan, row=new))
    assert zstd.decompress(storage.objects[f"{NAME}/{finished.row.key}"].body) == b"x" * 50 + bytes(size - 50)


def deaths_of_a_copy(tmp_path: Path, database: Path) -> int:
    """Return at how many points a copy can die."""
    deaths, storage = Deaths(), FakeStorage()
    with pytest.MonkeyPatch.context() as patch, mortal(patch, storage, deaths):
        copy_once(tmp_path / "count", storage, database)
    return deaths.passed


def test_a_copy_killed_at_any_point_goes_on_where_it_was(tmp_path: Path, database: Path) -> None:
    """After the restart the object is right, and no part that the store acknowledged is sent again."""
    for at in range(1, deaths_of_a_copy(tmp_path, database) + 1):
        storage, deaths, state = FakeStorage(), Deaths(at), tmp_path / f"state-{at}"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed), mortal(patch, storage, deaths):
            copy_once(state, storage, database)
        sent = storage.names().count("upload_part")
        stored = sum(len(upload.parts) for upload in storage.uploads.values())
        uploads = len(storage.uploads)
        finished = copy_once(state, storage, database)
        assert_whole(finished, storage, database)
        resumed = storage.names().count("create_upload") == 1
        again = storage.names().count("upload_part") - sent
        if resumed and uploads and stored:
            assert again <= 5 - stored, f"killed at {at}"
        with Journal.open(state) as journal:
            open_now = {leftover.upload_id for leftover in journal.leftovers()}
            assert len(storage.uploads) <= len(journal.leftovers()), (at, open_now)


def test_a_base_of_which_all_must_be_taken_is_read_again_after_a_kill(tmp_path: Path, database: Path) -> None:
    """A page changes after the kill. The object holds what was copied, and unchanged parts are kept."""
    kept = 0
    for at in range(1, deaths_of_a_copy(tmp_path, database) + 1):
        storage, deaths, state = FakeStorage(), Deaths(at), tmp_path / f"state-{at}"
        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed), mortal(patch, storage, deaths):
            copy_once(state, storage, database, lambda _offset, _content: None)
        sent = storage.names().count("upload_part")
        content = bytearray(database.read_bytes())
        content[at % RANGES * RANGE] ^= 1
        database.write_bytes(bytes(content))
        taken = bytearray()

        def took(offset: int, content: bytes, taken: bytearray = taken) -> None:
            assert offset == len(taken), "it is taken in order"
            taken.extend(content)

        try:
            finished = copy_once(state, storage, database, took)
        except AbandonedError:  # its object was complete already, and its content is not known
            assert not taken
            with Journal.open(state) as journal:
                journal.base_dropped(journal.bases()[0].row.id)
            finished = copy_once(state, storage, database, took)
        assert_whole(finished, storage, database)
        assert zstd.decompress(storage.objects[f"{NAME}/{finished.row.key}"].body) == taken
        kept = max(kept, 5 - (storage.names().count("upload_part") - sent))
    assert kept == 4


def test_a_store_that_is_away_for_a_while_gets_every_part_all_the_same(tmp_path: Path, database: Path) -> None:
    """Every second call fails. Nothing is lost, and nothing is begun again."""
    storage = FakeStorage()

    def flaky(_call: Call) -> None:
        if len(storage.calls) % 2:
            raise TransientError("storage is away")

    storage.before = flaky
    finished = copy_once(tmp_path / "state", storage, database)
    assert_whole(finished, storage, database)


def test_what_keeps_a_base_from_its_store_is_told(tmp_path: Path, database: Path) -> None:
    """A part that fails once is not reported. While it continues to fail, the database's status says why."""
    storage, told = FakeStorage(), list[str]()
    state = tmp_path / "state"

    def fail(call: Call) -> None:
        if call.name == "upload_part" and storage.names().count("upload_part") in (1, 4, 5, 6, 7):
            raise TransientError("upload part: read timeout")

    storage.before = fail
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Journal, "note_error", lambda _journal, _id, words, _now: told.append(words))
        assert_whole(copy_once(state, storage, database), storage, database)
    assert len(told) < 5
    assert "read timeout" in told[0]
    assert told[-1] == ""


def test_a_part_of_which_the_pages_changed_keeps_its_size_or_ends_the_base(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A part that is read again after a crash is padded to its size. A part that no longer fits ends the base."""
    monkeypatch.setattr(base_copy, "shape_of", lambda size: Shape(size, RANGE, 160))
    for filler, fits in ((b"8 bytes!", True), (random.Random(1).randbytes(200), False)):
        database.write_bytes(bytes(RANGE * RANGES))
        storage, state = FakeStorage(), tmp_path / f"state-{fits}"
        storage.before = die_at("upload_part", 2)
        with pytest.raises(Killed):
            copy_once(state, storage, database)
        storage.before = lambda _call: None
        with Journal.open(state) as journal:
            (base,) = journal.bases()
            second = parse_ranges(journal.parts(base.row.id)[1].detail)
        content = bytearray(database.read_bytes())
        content[second[0].offset : second[0].offset + len(filler)] = filler
        database.write_bytes(bytes(content))
        if fits:
            assert_whole(copy_once(state, storage, database), storage, database)
            assert storage.names().count("create_upload") == 1
        else:
            with pytest.raises(AbandonedError, match="no longer fits"):
                copy_once(state, storage, database)


def die_at(name: str, count: int) -> Callable[[Call], None]:
    """Die before the ``count``-th call of that name."""
    seen = iter(range(1, count + 1))

    def before(call: Call) -> None:
        if call.name == name and next(seen, count) == count:
            raise Killed

    return before


# -- a Complete that is refused ------------------------------------------------------------------------------------


def forget_part(storage: FakeStorage, number: int, *, before: str = "complete_upload") -> None:
    """Replace a part in the store once, before the first call of that name, by other bytes than it acknowledged."""
    done = [False]

    def forget(call: Call) -> None:
        if call.name == before and not done[0]:
            done[0] = True
            ((_, upload),) = storage.uploads.items()
            part, _ = upload.parts[number - 1]
            upload.parts[number - 1] = (StoredPart(number, part.size, '"0000"'), b"x" * part.size)

    storage.before = forget


@pytest.mark.parametrize("number", [1, 3, 5])
def test_a_part_that_the_store_lost_is_sent_again(tmp_path: Path, database: Path, number: int) -> None:
    """After InvalidPart the parts are listed, the one that differs is sent, and the upload stays the same."""
    storage = FakeStorage()
    forget_part(storage, number)
    finished = copy_once(tmp_path / "state", storage, database)
    assert_whole(finished, storage, database)
    assert storage.names()[-4:] == ["complete_upload", "list_parts", "upload_part", "complete_upload"]
    assert storage.names().count("create_upload") == 1


def test_a_store_that_refuses_what_it_lists_is_asked_three_times(tmp_path: Path, database: Path) -> None:
    """After that the base is given up. No part of the base was sent twice."""
    storage = FakeStorage()

    def refuse(call: Call) -> None:
        if call.name == "complete_upload":
            raise CorruptError("complete: InvalidPart")

    storage.before = refuse
    with pytest.raises(CorruptError, match="InvalidPart"):
        copy_once(tmp_path / "state", storage, database)
    assert storage.names().count("complete_upload") == 3
    assert storage.names().count("upload_part") == 5


def test_an_object_that_may_hold_the_part_before_is_not_taken_for_ours(tmp_path: Path, database: Path) -> None:
    """After a part was replaced, a refused Complete took effect anyway, so nobody knows where the ranges are."""
    storage = FakeStorage()
    forget_part(storage, 2)

    def land(call: Call) -> None:
        if call.name == "upload_part" and "complete_upload" in storage.names():
            ((upload_id, upload),) = storage.uploads.items()
            storage.put(call.key, b"of other parts", metadata=upload.metadata)
            del storage.uploads[upload_id]

    storage.after = land
    with pytest.raises(AbandonedError, match="gave up the upload"):
        copy_once(tmp_path / "state", storage, database)


def test_what_goes_over_the_wire_after_invalid_part(tmp_path: Path, database: Path) -> None:
    """The requests are ListParts, the missing part with the same number, and Complete with its new ETag."""
    last = copy_once(tmp_path / "sizes", FakeStorage(), database).size % PART
    sizes = {1: PART, 2: PART, 4: PART, 5: last}  # the third part is missing
    listed = "".join(
        f'<Part><PartNumber>{number}</PartNumber><ETag>"e{number}"</ETag><Size>{size}</Size></Part>'
        for number, size in sizes.items()
    )
    with run_scripted_store() as store, closing(S3Storage(store.settings())) as storage:
        store.will_say(
            Answer(body=b"<InitiateMultipartUploadResult><UploadId>u</UploadId></InitiateMultipartUploadResult>"),
            *(Answer(headers={"ETag": f'"e{number}"'}) for number in range(1, 6)),
            refusal(400, "InvalidPart"),
            Answer(body=f"<ListPartsResult>{listed}<IsTruncated>false</IsTruncated></ListPartsResult>".encode()),
            Answer(headers={"ETag": '"again"'}),
            Answer(body=b'<CompleteMultipartUploadResult><ETag>"whole"</ETag></CompleteMultipartUploadResult>'),
        )
        finished = copy_once(tmp_path / "state", storage, database)
    assert finished.etag == "whole"
    *_, refused, listing, part, complete = store.requests
    assert [request.method for request in (refused, listing, part, complete)] == ["POST", "GET", "PUT", "POST"]
    assert "partNumber=3&" in part.path
    etags = [re.findall(rb'"(\w+)"', request.body.replace(b"&quot;", b'"')) for request in (refused, complete)]
    assert etags[0] == [b"e1", b"e2", b"e3", b"e4", b"e5"]
    assert etags[1] == [b"e1", b"e2", b"again", b"e4", b"e5"]


# -- more parts than a page lists ----------------------------------------------------------------------------------


class DiesAtTheEnd(S3Storage):
    """Counts parts, and dies once before the upload is completed."""

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(settings)
        self.parts_sent = 0
        self.deaths = 1

    def upload_part(self, key: str, upload_id: str, number: int, body: bytes) -> str:
        self.parts_sent += 1
        return super().upload_part(key, upload_id, number, body)

    def complete_upload(self, key: str, upload_id: str, parts: Sequence[StoredPart]) -> str:
        if self.deaths:
            self.deaths -= 1
            raise Killed
        return super().complete_upload(key, upload_id, parts)


def test_parts_of_all_pages_are_kept(rclone: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After a crash none of 1,100 parts is sent again. Few stores complete such small parts, but all list them."""
    monkeypatch.setattr(base_copy, "shape_of", lambda size: Shape(size, 64, 100))
    database, state = tmp_path / "app.db", tmp_path / "state"
    database.write_bytes(random.Random(3).randbytes(64 * 1100))
    with closing(DiesAtTheEnd(rclone.settings(rclone.make_bucket()))) as storage:
        with pytest.raises(Killed):
            copy_once(state, storage, database)
        assert storage.parts_sent == 1100
        finished = copy_once(state, storage, database)
        assert zstd.decompress(storage.get(f"{NAME}/{finished.row.key}")) == database.read_bytes()
        assert storage.parts_sent == 1100
