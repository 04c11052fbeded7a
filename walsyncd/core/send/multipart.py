"""The next step of one multipart upload, decided from the journal's rows and the store's answers.

The order is: part sizes and MD5s durable → CreateMultipartUpload → its id durable → UploadPart (ETag durable) for
each part → CompleteMultipartUpload. After a crash the journal lags the store by at most one of these:

| the journal says      | the store may have      | so                                                     |
|-----------------------|-------------------------|--------------------------------------------------------|
| begun, no upload id   | opened an upload        | find it by listing that exact key, else open one       |
| an upload id          | parts we don't know of  | list the parts; one with our MD5 and size is ours      |
| all parts stored      | completed the upload    | the upload is missing: HEAD shows the object           |
| an upload id          | purged the upload       | the upload and the object are missing: begin again     |

ListParts of SeaweedFS shows a number twice if a part was sent twice: any entry with our MD5 and size counts. With
encryption by KMS an ETag is not an MD5. Such an ETag is ours if the store acknowledged the part with it.

Source: docs.aws.amazon.com/AmazonS3/latest/API (ListParts, CompleteMultipartUpload). Parts are numbered from 1 to
10,000. All parts but the last have at least 5 MiB, and some stores demand that these parts are equally large.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

PUT_SIZE_MAX = 8 << 20  # bytes; up to here one request is enough
PART_SIZE_MIN = 8 << 20  # bytes; more than the 5 MiB that every store demands
_PARTS_AIMED_AT = 9_000  # parts of the 10,000 allowed; this leaves room for data that compresses worse than estimated
_REFUSALS_MAX = 2  # if a store refuses its own list of parts more often, it disagrees with us about the upload


@dataclass(frozen=True, slots=True)
class Part:
    """A part as the journal has it. ``md5`` is in hex; ``etag`` is None until the store has acknowledged the part."""

    number: int
    size: int
    md5: str
    etag: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """A part as the store lists it."""

    number: int
    size: int
    etag: str


@dataclass(frozen=True, slots=True)
class Record:
    """The journal's rows of one upload. ``tried`` says that an attempt was made before this one."""

    tried: bool
    upload_id: str | None
    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class Answers:
    """What the store answered during this attempt. A value is None if the store was not asked yet.

    ``uploads`` are the ids of the open uploads of exactly this key, oldest first. ``listed`` says that the record's
    ETags are from ListParts (see ``adopt``). ``missing`` says that the store does not know the upload. ``stored`` says
    whether HEAD shows our object. ``refusals`` is how often Complete refused the parts.
    """

    uploads: tuple[str, ...] | None = None
    listed: bool = False
    missing: bool = False
    stored: bool | None = None
    refusals: int = 0


@dataclass(frozen=True, slots=True)
class FindUploads:
    """List the open uploads of exactly this key."""


@dataclass(frozen=True, slots=True)
class AdoptUpload:
    """Use ``upload_id`` as ours and abort the uploads in ``surplus``."""

    upload_id: str
    surplus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class CreateUpload:
    """Open an upload."""


@dataclass(frozen=True, slots=True)
class ListParts:
    """Ask which parts the store has."""


@dataclass(frozen=True, slots=True)
class SendPart:
    """Send this part, whose row in the journal is durable."""

    part: Part


@dataclass(frozen=True, slots=True)
class Complete:
    """Make the object visible from these parts, in order."""

    parts: tuple[Part, ...]


@dataclass(frozen=True, slots=True)
class CheckObject:
    """Ask whether the object is there, since the upload is gone."""


@dataclass(frozen=True, slots=True)
class ForgetUpload:
    """Abort the upload, forget its id and acknowledged parts, and begin again."""


@dataclass(frozen=True, slots=True)
class Finished:
    """The object is stored."""


Step: TypeAlias = (
    FindUploads | AdoptUpload | CreateUpload | ListParts | SendPart | Complete | CheckObject | ForgetUpload | Finished
)


def next_step(record: Record, answers: Answers) -> Step:
    """Return the one thing to do now. The caller does it and asks again with the result."""
    if answers.stored:
        return Finished()
    if record.upload_id is None:
        return _opening(record, answers)
    if answers.missing:
        return CheckObject() if answers.stored is None else ForgetUpload()
    if answers.refusals > _REFUSALS_MAX:
        return ForgetUpload()
    if not answers.listed and (record.tried or answers.refusals):
        return ListParts()
    unsent = next((part for part in record.parts if part.etag is None), None)
    return Complete(record.parts) if unsent is None else SendPart(unsent)


def _opening(record: Record, answers: Answers) -> Step:
    if not record.tried:
        return CreateUpload()
    if answers.uploads is None:
        return FindUploads()
    if answers.uploads:
        return AdoptUpload(answers.uploads[-1], answers.uploads[:-1])
    return CreateUpload()


def adopt(parts: Sequence[Part], listed: Sequence[Listed]) -> tuple[Part, ...]:
    """Return the parts with their ETags, or with None for a part that the store does not hold with the same bytes."""
    entries: dict[tuple[int, int], list[str]] = {}
    for entry in listed:
        entries.setdefault((entry.number, entry.size), []).append(entry.etag)
    return tuple(replace(part, etag=_held(part, entries.get((part.number, part.size), ()))) for part in parts)


def _held(part: Part, etags: Sequence[str]) -> str | None:
    ours = (part.md5,) if part.etag is None else (part.md5, bare(part.etag))
    return next((etag for etag in etags if bare(etag) in ours), None)


def bare(etag: str) -> str:
    """Return an ETag without its quotes, in lower case."""
    return etag.strip('"').lower()


def part_size(size: int) -> int:
    """Return the size of each part but the last, for an object of about ``size`` bytes.

    The size leaves room for an object that is 1 % larger than estimated, since some data does not compress.
    """
    return max(PART_SIZE_MIN, -(-size * 101 // (100 * _PARTS_AIMED_AT)))


def cut(size: int, *, part_size: int) -> list[tuple[int, int]]:
    """Return offset and length of each part of an object of ``size`` bytes, in order. The last part may be shorter."""
    assert size > 0, "nothing to upload"
    return [(offset, min(part_size, size - offset)) for offset in range(0, size, part_size)]
