"""What the tests of the storage contract share: short ways to say who writes what."""

from __future__ import annotations

import threading
from itertools import count
from typing import TYPE_CHECKING

import msgspec
import pytest

from saga.events import AttemptStarted, AttemptSucceeded, Began, CancelRequested
from saga.storage.base import Appended, Claim, NewSaga, Row, SagaStorage, StoredSaga
from saga.testing.clock import FakeClock
from saga.types import Attention, AttentionCode, Phase, SagaFilter, SagaRecord, SagaStatus

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from contextlib import AbstractAsyncContextManager

    from saga.clock import Clock
    from saga.events import Event

TTL = 15.0
NAME = "order"
VERSION = "1"
DEFINITIONS = [(NAME, VERSION)]
RUNNING = Row(status=SagaStatus.EXECUTING)
ANYTHING = SagaFilter()
FACTS: tuple[Event, ...] = (
    AttemptSucceeded(
        "reserve",
        Phase.ACTION,
        1,
        msgspec.Raw(b'{"id":"r-1","text":"caf\xc3\xa9 \xe2\x82\xac \\u0000","n":[1,2.5,null]}'),
    ),
    AttemptStarted("charge", Phase.ACTION, 1),
)

_write_ids = (f"write-{number}" for number in count(1))


class ContractBase:
    """What every part of the contract is given: storages on the data of one test."""

    def storage(self, clock: Clock) -> AbstractAsyncContextManager[SagaStorage]:
        """Return a storage, not yet entered, that keeps its data by this clock.

        The data are empty when a test begins. A durable storage that is made again within one test finds them as they
        were left.
        """
        raise NotImplementedError

    @pytest.fixture
    def clock(self) -> FakeClock:
        """A clock that a test moves."""
        return FakeClock()


class CommitGate:
    """Holds a storage's writing thread back between its statements and its COMMIT."""

    def __init__(self) -> None:
        """Begin open: nothing is held back."""
        self._reached = threading.Event()
        self._open = threading.Event()
        self._open.set()

    def shut(self) -> None:
        """Hold back the next write."""
        self._open.clear()

    def open(self) -> None:
        """Let it go on."""
        self._open.set()

    def pass_through(self) -> None:
        """Call this in the writing thread when the statements are done and nothing is committed."""
        if not self._open.is_set():
            self._reached.set()
            self._open.wait(30)

    def wait_until_reached(self) -> bool:
        """Return whether a write was held back; gives up after 10 seconds."""
        return self._reached.wait(10)


def write_id() -> str:
    """Return an identity that no other write has."""
    return next(_write_ids)


def claim(token: str, owner: str = "host-1", ttl: float = TTL) -> Claim:
    """Return a claim."""
    return Claim(owner, token, ttl)


def row(
    status: SagaStatus = SagaStatus.EXECUTING,
    *,
    due_in: float | None = 0.0,
    attention: Attention | None = None,
    release: bool = False,
    recoveries: int = 0,
) -> Row:
    """Return a row; at rest nothing is due."""
    return Row(status=status, attention=attention, due_in=due_in, release=release, recoveries=recoveries)


def at_rest(status: SagaStatus = SagaStatus.COMPLETED) -> Row:
    """Return the row of a saga at rest whose owner lets go of it."""
    return row(status, due_in=None, release=True)


def attention(*, blocking: bool) -> Attention:
    """Return an attention that blocks, or only advises."""
    code = AttentionCode.PARKED if blocking else AttentionCode.RETRYING_LONG
    return Attention(code, "look — bitte", 1_700_000_000.0, blocking)


async def create(
    storage: SagaStorage,
    saga_id: str,
    *,
    first_row: Row = RUNNING,
    held: Claim | None = None,
    name: str = NAME,
    version: str = VERSION,
    facts: Sequence[Event] = FACTS,
    write: str | None = None,
) -> Appended:
    """Create a saga."""
    new = NewSaga(saga_id=saga_id, saga_name=name, saga_version=version, row=first_row)
    return await storage.create(new, facts, claim=held, write_id=write or write_id())


async def append(
    storage: SagaStorage,
    saga_id: str,
    expected: int,
    held: Claim | None,
    *,
    new_row: Row = RUNNING,
    facts: Sequence[Event] = FACTS,
    write: str | None = None,
) -> Appended:
    """Append as an owner, or as a visitor where no claim is given."""
    return await storage.append(
        saga_id, facts, row=new_row, expected_version=expected, claim=held, write_id=write or write_id()
    )


async def request(storage: SagaStorage, saga_id: str, write: str | None = None) -> Appended:
    """Append as somebody who expects nothing."""
    facts = (CancelRequested("no longer wanted"),)
    return await storage.append(
        saga_id, facts, row=None, expected_version=None, claim=None, write_id=write or write_id()
    )


async def claim_due(
    storage: SagaStorage,
    token: str,
    *,
    owner: str = "host-1",
    ttl: float = TTL,
    limit: int = 100,
    definitions: Collection[tuple[str, str]] = DEFINITIONS,
    exclude: Collection[str] = (),
    suspects: int = 1,
) -> list[str]:
    """Claim what is due and return the ids."""
    claimed = await storage.claim_due(
        owner, token, ttl, limit, definitions=definitions, exclude=exclude, suspects=suspects
    )
    return [saga.record.saga_id for saga in claimed]


async def stored(storage: SagaStorage, saga_id: str) -> StoredSaga:
    """Return one saga."""
    (found,) = await storage.load([saga_id])
    return found


async def record(storage: SagaStorage, saga_id: str) -> SagaRecord:
    """Return one saga's row."""
    return (await stored(storage, saga_id)).record


async def all_ids(storage: SagaStorage, selected: SagaFilter = ANYTHING, limit: int = 100) -> list[str]:
    """Return the ids of all pages."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = await storage.query(selected, cursor, limit)
        assert len(page.items) <= limit
        found.extend(item.saga_id for item in page.items)
        cursor = page.cursor
        if cursor is None:
            return found


def began() -> tuple[Event, ...]:
    """Return the shortest facts."""
    return (Began(),)
