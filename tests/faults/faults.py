"""The faults of requests to a store, and which requests can meet each.

| group     | what happens                                             | the store has done it |
|-----------|----------------------------------------------------------|-----------------------|
| refused   | an error instead of an answer                            | no                    |
| broken    | the connection ends before or in the request's body      | no                    |
| lost      | the connection ends instead of, or within, the answer    | yes                   |
| slow      | the answer comes after the client has given up, or never | yes, or no            |
| late      | the client gives up, then the request lands              | some seconds later    |
| multipart | what stores say of uploads and their parts               | see each              |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto
from typing import Protocol

CHANCE = 0.25  # the probability that a request meets a fault
SLOW_SECONDS = 2.5  # longer than the time-out of the daemons here
HELD_SECONDS = 30.0  # longer than the default time-out; the client continues meanwhile


class Kind(Enum):
    """The operations of S3 that walsyncd uses, as far as faults tell them apart."""

    PUT = auto()
    PART = auto()
    CREATE = auto()
    COMPLETE = auto()
    ABORT = auto()
    LIST_PARTS = auto()
    LIST = auto()
    LIST_UPLOADS = auto()
    GET = auto()
    HEAD = auto()
    DELETE = auto()


@dataclass(frozen=True, slots=True)
class Said:
    """An answer of the store."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


class Exchange(Protocol):
    """A request, and what a fault can do about it."""

    @property
    def kind(self) -> Kind: ...
    def ask_store(self, method: str = "") -> Said: ...
    def say(self, said: Said, *, cut: int | None = None) -> None: ...
    def refuse(self, status: int, code: str) -> None: ...
    def say_ok(self, code: str) -> None: ...
    def reset(self) -> None: ...
    def read_half(self) -> None: ...
    def wait(self, seconds: float) -> None: ...
    def wait_for_the_end(self) -> None: ...
    def land_later(self) -> None: ...
    def acknowledge(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault: ``act`` replaces forwarding. With ``before_body`` it acts before the request's body is read."""

    name: str
    kinds: frozenset[Kind]
    act: Callable[[Exchange], None]
    weight: int = 1
    before_body: bool = False


ALL = frozenset(Kind)
WITH_BODY = frozenset({Kind.PUT, Kind.PART})
WITH_ANSWER = frozenset({Kind.GET, Kind.LIST, Kind.LIST_UPLOADS, Kind.LIST_PARTS, Kind.CREATE, Kind.COMPLETE})
WRITES = frozenset({Kind.PUT, Kind.PART, Kind.CREATE, Kind.COMPLETE})
SPOKEN = ALL - {Kind.HEAD}  # an answer to HEAD has no body that could say more than 404


# -- what happens ---------------------------------------------------------------------------------------------------


def _refuse(status: int, code: str) -> Callable[[Exchange], None]:
    return lambda exchange: exchange.refuse(status, code)


def _forward(exchange: Exchange) -> None:
    exchange.say(exchange.ask_store())


def _reset_at_once(exchange: Exchange) -> None:
    exchange.reset()


def _reset_in_body(exchange: Exchange) -> None:
    exchange.read_half()
    exchange.reset()


def _never_answer(exchange: Exchange) -> None:
    exchange.wait_for_the_end()


def _stall_in_body(exchange: Exchange) -> None:
    exchange.read_half()
    exchange.wait_for_the_end()


def _answer_lost(exchange: Exchange) -> None:
    exchange.ask_store()
    exchange.reset()


def _answer_cut(exchange: Exchange) -> None:
    said = exchange.ask_store()
    exchange.say(said, cut=len(said.body) // 2)


def _answer_slow(exchange: Exchange) -> None:
    said = exchange.ask_store()
    exchange.wait(SLOW_SECONDS)
    exchange.say(said)


def _answer_held(exchange: Exchange) -> None:
    said = exchange.ask_store()
    exchange.wait(HELD_SECONDS)
    exchange.say(said)


def _done_but_500(exchange: Exchange) -> None:
    exchange.ask_store()
    exchange.refuse(500, "InternalError")


def _land_later(exchange: Exchange) -> None:
    exchange.land_later()
    exchange.wait_for_the_end()


def _ok_with_error(exchange: Exchange) -> None:
    exchange.say_ok("InternalError")


def _done_but_ok_with_error(exchange: Exchange) -> None:
    exchange.ask_store()
    exchange.say_ok("InternalError")


def _lost_part(exchange: Exchange) -> None:
    exchange.acknowledge()


def _purged(exchange: Exchange) -> None:
    exchange.ask_store("DELETE")
    exchange.refuse(404, "NoSuchUpload")


# -- to whom --------------------------------------------------------------------------------------------------------

REFUSALS = (
    (500, "InternalError", ALL),
    (503, "SlowDown", ALL),
    (429, "TooManyRequests", ALL),
    (502, "BadGateway", ALL),
    (409, "OperationAborted", WRITES),
    (403, "AccessDenied", ALL),
    (403, "RequestTimeTooSkewed", ALL),
    (400, "ExpiredToken", SPOKEN),
    (404, "NoSuchBucket", SPOKEN),
    (301, "PermanentRedirect", WITH_BODY),
    (400, "BadDigest", WITH_BODY),
    (400, "InvalidRequest", WRITES),  # as for an unknown checksum
    (412, "PreconditionFailed", frozenset({Kind.PUT})),
)

FAULTS = (
    *(Fault(f"{status} {code}", kinds, _refuse(status, code)) for status, code, kinds in REFUSALS),
    Fault("reset before the body", ALL, _reset_at_once, 3, before_body=True),
    Fault("reset in the body", WITH_BODY, _reset_in_body, 3, before_body=True),
    Fault("no answer before the body", ALL, _never_answer, 1, before_body=True),
    Fault("no answer in the body", WITH_BODY, _stall_in_body, 1, before_body=True),
    Fault("no answer after the body", ALL, _never_answer, 1),
    Fault("answer lost", ALL, _answer_lost, 4),
    Fault("answer cut", WITH_ANSWER, _answer_cut, 3),
    Fault("answer slow", ALL, _answer_slow, 2),
    Fault("answer after half a minute", ALL, _answer_held, 2),
    Fault("done, but 500", ALL, _done_but_500, 3),
    Fault("lands late", WRITES, _land_later, 6),
    Fault("200 with an error", frozenset({Kind.COMPLETE}), _ok_with_error, 6),
    Fault("done, but 200 with an error", frozenset({Kind.COMPLETE}), _done_but_ok_with_error, 6),
    Fault("400 InvalidPart", frozenset({Kind.COMPLETE}), _refuse(400, "InvalidPart"), 6),
    Fault("400 EntityTooSmall", frozenset({Kind.COMPLETE}), _refuse(400, "EntityTooSmall"), 1),
    Fault("forwarded", frozenset({Kind.COMPLETE}), _forward, 0),
    Fault("part lost", frozenset({Kind.PART}), _lost_part, 2),
    Fault("404 NoSuchUpload", frozenset({Kind.PART, Kind.COMPLETE}), _purged, 2),
)

_OF_PARTS = ("part lost", "forwarded", "400 InvalidPart", "200 with an error")  # the store itself refuses the first


def certain(seed: int) -> list[tuple[str, str]]:
    """Return the faults that must not be left to chance, since a run has few Completes, and a word of their requests.

    They are in the order in which such requests meet them. A part that is too small ends its base, or its generation.
    """
    last = "400 EntityTooSmall" if seed % 2 else "done, but 200 with an error"
    return [
        *((name, "/base/") for name in (*_OF_PARTS, "400 EntityTooSmall", "done, but 200 with an error")),
        *((name, "/wal/") for name in (*_OF_PARTS, last)),
        ("412 PreconditionFailed", "/owner.json"),
        ("412 PreconditionFailed", "/wal/"),
    ]


# faults that pass by themselves, for clients that only read
PASSING = frozenset(
    {
        *(f"{status} {code}" for status, code, _ in REFUSALS if status >= 429),
        *(fault.name for fault in FAULTS if not fault.name[0].isdigit() and fault.kinds >= {Kind.GET, Kind.LIST}),
    }
)
