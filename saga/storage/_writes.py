"""What a caller wants to have written, in the form in which it goes to a storage's writer.

Everything that can be wrong with one caller's values is found here, in the caller's own call, before the write joins
those of others.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

from saga.checks import refuse
from saga.codec import encode_events
from saga.storage._instants import micros
from saga.types import rests

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from saga.events import Event
    from saga.storage.base import Claim, NewSaga, Row
    from saga.types import SagaStatus


@dataclass(slots=True)
class Write:
    """Base of all writes.

    Attributes:
        saga_id: The saga whose journal grows, where it is one; a flush holds at most one write of each.
        answer: What the writer answers: a value, or an error that concerns this write only.
    """

    saga_id: str | None
    answer: Any = field(default=None, init=False)


@dataclass(slots=True)
class JournalWrite(Write):
    """Base of what appends to one journal.

    Attributes:
        write_id: The identity of the write.
        events: Its facts as JSON.
    """

    saga_id: str
    write_id: str
    events: str


@dataclass(slots=True)
class Create(JournalWrite):
    """A new saga: the values of its row."""

    row: tuple[Any, ...]


@dataclass(slots=True)
class Append(JournalWrite):
    """An append of an owner or a visitor: what it expects, whether it gives the claim up, the values of its row."""

    expected: int
    token: str | None
    release: bool
    row: tuple[Any, ...]


@dataclass(slots=True)
class Request(JournalWrite):
    """An append of somebody who expects nothing."""


@dataclass(slots=True)
class Renew(Write):
    """Claims to extend: (id, token, microseconds)."""

    claims: list[tuple[str, str, int]]


@dataclass(slots=True)
class Release(Write):
    """Claims to give up: (id, token)."""

    claims: list[tuple[str, str]]


@dataclass(slots=True, kw_only=True)
class ClaimDue(Write):
    """What a process wants to claim; collections as JSON, the ttl in microseconds."""

    owner: str
    token: str
    ttl: int
    limit: int
    definitions: str
    exclude: str
    suspects: int

    @property
    def write_id(self) -> str:
        """The identity of the claim in each saga's journal."""
        return f"claim:{self.token}"


@dataclass(slots=True, kw_only=True)
class Prune(Write):
    """What to delete; statuses as JSON, the age in microseconds."""

    older_than: int
    statuses: str
    limit: int


def create(new: NewSaga, events: Sequence[Event], claim: Claim | None, write_id: str) -> Create:
    """Return the write of ``SagaStorage.create``."""
    saga_id = _text("saga_id", new.saga_id)
    name = _text("saga_name", new.saga_name)
    version = _text("saga_version", new.saga_version)
    status, attention, at_rest, recoveries, due_in = _row_values(new.row)
    held: tuple[int, str | None, str | None, int | None] = (0, None, None, None)
    if claim is not None and new.row.release:
        held = (1, None, None, None)
    elif claim is not None:
        held = (1, _text("owner", claim.owner), _text("token", claim.token), micros(claim.ttl))
    fence, owner, token, ttl = held
    values = (saga_id, name, version, status, attention, at_rest, fence, recoveries, owner, token, ttl, due_in)
    return Create(saga_id, _text("write_id", write_id), encode_events(tuple(events)), values)


def append(
    saga_id: str, events: Sequence[Event], row: Row, expected: int, claim: Claim | None, write_id: str
) -> Append:
    """Return the write of ``SagaStorage.append`` by an owner or a visitor."""
    _text("saga_id", saga_id)
    token = ttl = None
    if claim is not None:
        token = _text("token", claim.token)
        ttl = micros(claim.ttl)
    release = claim is not None and row.release
    values = (saga_id, expected, token, ttl, *_row_values(row))
    return Append(saga_id, _text("write_id", write_id), encode_events(tuple(events)), expected, token, release, values)


def request(saga_id: str, events: Sequence[Event], write_id: str) -> Request:
    """Return the write of ``SagaStorage.append`` by somebody who expects nothing."""
    return Request(_text("saga_id", saga_id), _text("write_id", write_id), encode_events(tuple(events)))


def renew(claims: Mapping[str, str], ttl: float) -> Renew:
    """Return the write of ``SagaStorage.renew``."""
    until = micros(ttl)
    return Renew(None, [(*_claim(saga_id, token), until) for saga_id, token in claims.items()])


def release(claims: Mapping[str, str]) -> Release:
    """Return the write of ``SagaStorage.release``."""
    return Release(None, [_claim(saga_id, token) for saga_id, token in claims.items()])


def claim_due(
    owner: str,
    token: str,
    ttl: float,
    limit: int,
    definitions: Collection[tuple[str, str]],
    exclude: Collection[str],
    suspects: int,
) -> ClaimDue:
    """Return the write of ``SagaStorage.claim_due``."""
    return ClaimDue(
        saga_id=None,
        owner=_text("owner", owner),
        token=_text("token", token),
        ttl=micros(ttl),
        limit=limit,
        definitions=_json(list(definitions)),
        exclude=_json(list(exclude)),
        suspects=suspects,
    )


def prune(older_than: float, statuses: Collection[SagaStatus], limit: int) -> Prune:
    """Return one write of ``SagaStorage.prune``."""
    return Prune(saga_id=None, older_than=micros(older_than), statuses=_json(list(statuses)), limit=limit)


def _row_values(row: Row) -> tuple[str, str | None, bool, int, int | None]:
    at_rest = rests(row.status, row.attention)
    attention = None if row.attention is None else _json(row.attention)
    due_in = None if at_rest or row.due_in is None else micros(row.due_in)
    # sqlite3 takes plain text much faster than a subclass of it.
    return (str(row.status), attention, at_rest, row.recoveries, due_in)


def _claim(saga_id: str, token: str) -> tuple[str, str]:
    return _text("saga_id", saga_id), _text("token", token)


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _text(what: str, value: str) -> str:
    """Return the text if every database can keep it.

    Raises:
        SagaValidationError: Otherwise.
    """
    if "\0" in value:
        refuse(what, value, "text without NUL characters")
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            refuse(what, value, "text without lone surrogates")
    return value
